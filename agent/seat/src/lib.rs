//! The seat: screen, keyboard and pointer, and which domain they belong to.
//!
//! ```text
//!   evdev ----> devices --+                        +--> domain --> link --> VMM
//!   daemon ---> commands -+--> core (pure) --------+
//!   VMM --link-> domain --+        |               +--> daemon: what happened, for the audit
//!                                  v
//!                picture, compose (pure) --> display, kms --> screen
//! ```
//!
//! It runs on a thread of its own, so that nothing the daemon waits for, a disk or a policy, holds up a key or a
//! switch. The daemon speaks to it through [`Seat`]; neither waits for the other.
// A print waits for its reader, and panics when that is gone.
#![deny(clippy::print_stderr)]
#![forbid(unsafe_code)]

pub mod compose;
pub mod core;
pub mod devices;
pub mod display;
pub mod domain;
mod edid;
pub mod frame;
pub mod kms;
pub mod memory;
mod modes;
pub mod notices;
mod outputs;
pub mod picture;
mod plane;
mod scenes;
mod stage;

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};
use policy::Policy;
use printable::Label;

use self::core::{Action, Chords, DomainIndex, Settings};
use base::mailbox::{Life, Pulse};
use control::reports::SeatReport;
use memory::Memory;
use notices::Cause;
use picture::{Colour, Look, Pattern};
use stage::Stage;

/// What a seat is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Screen by KMS, input by evdev; the card, or the first that has a monitor.
    Kms(Option<PathBuf>),
    /// Nothing: the command line does what the hotkeys do.
    None,
}

/// What the policy says of the seat.
#[derive(Clone, Debug)]
pub struct SeatPolicy {
    policy: Arc<Policy>,
    settings: Settings,
    looks: Vec<Look>,
}

impl SeatPolicy {
    /// For the domains of these names, in this order.
    #[must_use]
    pub fn new(policy: &Arc<Policy>, names: &[String]) -> Self {
        let domains = || names.iter().map(|name| policy.domain(name));
        let looks = domains().zip(names).enumerate().map(|(index, (domain, name))| {
            let colour = domain.map(|domain| domain.colour.value);
            Look {
                label: domain.map_or_else(|| name.clone(), |domain| domain.label.value.clone()),
                colour: colour.map_or(Colour::grey(90), |c| Colour {
                    red: c.red,
                    green: c.green,
                    blue: c.blue,
                }),
                pattern: Pattern::of(index),
                hotkey: domain.map(|domain| domain.hotkey.value.to_string()).unwrap_or_default(),
            }
        });
        let looks = looks.collect();
        let settings =
            Settings { chords: Chords::of(policy, names), idle_lock: policy.idle_lock() };
        Self { settings, looks, policy: Arc::clone(policy) }
    }
}

/// What the daemon tells the seat.
#[derive(Debug)]
pub enum Command {
    /// Another policy is in force, for the same domains.
    Policy(Box<SeatPolicy>),
    /// A domain has a new VMM; this is the agent's end of its link.
    Attach(DomainIndex, OwnedFd),
    /// Its VMM is gone.
    Detach(DomainIndex),
    /// What to say of a domain that shows nothing, and in the banner.
    Say(DomainIndex, Words),
    /// What else to say in the banner.
    News(Vec<String>),
    /// Bring a domain to the front.
    Switch(DomainIndex),
    /// Lock the screen.
    Lock,
    /// Unlock it.
    Unlock,
    /// Show this for a few seconds; never instead of a question.
    Notice(Cause, String),
    /// Ask this; the answer comes as [`Happening::Answered`] under the same number.
    Ask(u64, String),
    /// Ask this, with these to choose from; the answer comes as [`Happening::Chosen`] under the same number, or as
    /// [`Happening::Answered`] with no.
    Choose(u64, String, Vec<String>),
    /// The question is no longer asked.
    Withdraw(u64),
    /// End.
    Stop,
}

/// What is said of a domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// Instead of its picture, while it shows none.
    pub card: String,
    /// In every banner; nothing while all is well.
    pub news: Option<String>,
}

/// What the seat tells the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// Another domain is in front.
    Switched {
        /// Which was.
        from: DomainIndex,
        /// Which is.
        to: DomainIndex,
    },
    /// The screen is locked.
    Locked {
        /// Because nobody did anything.
        idle: bool,
    },
    /// It is not any more.
    Unlocked,
    /// A chord was pressed that is not the seat's own business, with this domain in front.
    Pressed(Action, DomainIndex),
    /// A question was answered, or could not be any more (then no).
    Answered(u64, bool),
    /// The one of this place was chosen.
    Chosen(u64, usize),
    /// An input device was plugged in; tied to this domain.
    Plugged(Label, Option<DomainIndex>),
    /// An input device was pulled out.
    Unplugged(Label),
    /// A domain's link was given up, because of this.
    LinkLost(DomainIndex, String),
}

/// Notes how long switches took.
pub(crate) fn measure(report: &mut SeatReport, times: &[Duration]) {
    let mut micros: Vec<u64> =
        times.iter().map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)).collect();
    micros.sort_unstable();
    let rank = |hundredth: usize| {
        let index = (micros.len() * hundredth).div_ceil(100).saturating_sub(1);
        micros.get(index).copied()
    };
    (report.switch_p50_us, report.switch_p99_us) = (rank(50), rank(99));
}

/// A running seat.
pub struct Seat {
    names: Vec<String>,
    commands: mpsc::Sender<Command>,
    wake: Arc<EventFd>,
    happenings: mpsc::Receiver<Happening>,
    life: Life,
    report: Arc<Mutex<SeatReport>>,
    thread: Option<JoinHandle<()>>,
}

/// How a part of the seat's thread reaches the daemon.
struct Daemon {
    happenings: mpsc::Sender<Happening>,
    pulse: Pulse,
    report: Arc<Mutex<SeatReport>>,
}

impl Daemon {
    fn tell(&self, happening: Happening) {
        // The receiver lives as long as the agent.
        let _ = self.happenings.send(happening);
        self.pulse.beat();
    }

    fn report(&self, change: impl FnOnce(&mut SeatReport)) {
        change(&mut self.report.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Gives the seat commands, from any thread.
#[derive(Clone)]
pub struct Handle {
    names: Arc<[String]>,
    commands: mpsc::Sender<Command>,
    wake: Arc<EventFd>,
}

impl Handle {
    /// Tells the seat something.
    pub fn tell(&self, command: Command) {
        // A seat that ended takes nothing any more.
        let _ = self.commands.send(command);
        let _ = self.wake.write(1);
    }

    /// A domain's number.
    #[must_use]
    pub fn index(&self, name: &str) -> Option<DomainIndex> {
        self.names.iter().position(|known| known == name)
    }
}

impl Seat {
    /// Starts the seat's thread for the domains of these names, as it was left by what is written down, or with the first in front. A
    /// screen or keyboard that is missing is waited for.
    ///
    /// # Errors
    /// The process has no thread or file descriptor left.
    pub fn start(
        backend: Backend,
        names: Vec<String>,
        policy: SeatPolicy,
        memory: Memory,
    ) -> io::Result<Self> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let wake = Arc::new(EventFd::from_flags(flags)?);
        let (life, pulse) = Life::new()?;
        let (commands, inbox) = mpsc::channel();
        let (outbox, happenings) = mpsc::channel();
        let report = Arc::new(Mutex::new(SeatReport {
            backend: match backend {
                Backend::Kms(_) => "kms".to_owned(),
                Backend::None => "none".to_owned(),
            },
            front: names.first().cloned().unwrap_or_default(),
            ..SeatReport::default()
        }));
        let daemon = Daemon { happenings: outbox, pulse, report: Arc::clone(&report) };
        let mut stage =
            Stage::new(backend, names.clone(), policy, daemon, inbox, Arc::clone(&wake), memory)?;
        let thread =
            std::thread::Builder::new().name("seat".to_owned()).spawn(move || stage.run())?;
        Ok(Self { names, commands, wake, happenings, life, report, thread: Some(thread) })
    }

    /// A way to give commands.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle {
            names: self.names.clone().into(),
            commands: self.commands.clone(),
            wake: Arc::clone(&self.wake),
        }
    }

    /// The domains, in the seat's order.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Becomes readable when something happened.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.life.fd()
    }

    /// Whether the thread has died.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.life.is_over()
    }

    /// What happened since the last call.
    pub fn happened(&self) -> Vec<Happening> {
        self.life.heard();
        self.happenings.try_iter().collect()
    }

    /// How things are.
    #[must_use]
    pub fn report(&self) -> SeatReport {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.handle().tell(Command::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the seat's thread panicked");
        }
    }
}
