//! The seat: screen, keyboard and pointer, and which domain they belong to.
//!
//! ```text
//!   evdev ----> devices --+                        +--> domain --> link --> VMM
//!   daemon ---> commands -+--> core (pure) --------+
//!   VMM --link-> domain --+        |               +--> daemon: what happened, for the audit; mediators: hotkeys, lock
//!                                  v
//!                picture, compose (pure) --> display, kms --> screen
//! ```
//!
//! | module | |
//! | --- | --- |
//! | [`core`], [`notices`] | what a key or a click does, and what is asked and said: pure state machines |
//! | [`devices`] | keyboards, mice, touchpads and touch screens: found, grabbed, read |
//! | [`domain`], [`frame`] | the seat link to one VMM, and the memory that its picture comes in, with the thread that reads it |
//! | [`picture`], [`compose`] | banner, notices and lock, and the screen as a whole, as pixels in memory: pure |
//! | [`display`], [`kms`] | the buffers that are shown, and the card that shows them |
//! | [`saved_state`] | how the seat was left, for the agent that comes next |
//!
//! It runs on a thread of its own, so that nothing the daemon waits for, a disk or a policy, holds up a key or a
//! switch. The daemon speaks to it through [`Seat`]; neither waits for the other.
//!
//! - Input goes to one domain at a time, the front, or to the one that a device is tied to. Every key-down that a domain is sent is followed by its key-up no
//!   later than the switch away from it.
//! - The banner is drawn last, by the agent alone, and no picture of a guest's covers it.
//! - A VMM that is slow, or breaks the protocol, costs its own domain the picture, and holds up nothing else: this thread touches no memory that a VMM has.
//!
//! Left out: sound, several screens, passwords (the lock keeps desktops from view, and is no log-in), and what a guest's picture means.
// A print waits for its reader, and panics when that is gone.
#![deny(clippy::print_stderr)]
#![forbid(unsafe_code)]

pub mod compose;
pub mod core;
pub mod devices;
pub mod display;
pub mod domain;
mod edid;
pub mod entries;
pub mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod kms;
mod modes;
pub mod notices;
mod outputs;
pub mod picture;
mod plane;
pub mod saved_state;
mod scenes;
mod stage;

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clock::Moment;
use policy::Policy;
use printable::Label;

use self::core::{DomainIndex, Hotkeys, Settings};
use base::mailbox::{Ends, Sender, ThreadHandle};
use control::reports::SeatReport;
use notices::Cause;
use picture::{Colour, DomainAppearance, Pattern};
use saved_state::SavedStateFile;
use stage::Stage;

/// The hardware that a seat uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Screen by KMS, input by evdev; the card, or the first that has a monitor.
    Kms(Option<PathBuf>),
    /// No hardware: the command line does what the hotkeys do.
    None,
}

/// What the policy says of the seat.
#[derive(Clone, Debug)]
pub struct SeatPolicy {
    policy: Arc<Policy>,
    settings: Settings,
    appearances: Vec<DomainAppearance>,
}

impl SeatPolicy {
    /// Takes what concerns the domains of these names, in this order.
    #[must_use]
    pub fn new(policy: &Arc<Policy>, names: &[String]) -> Self {
        let domains = || names.iter().map(|name| policy.domain(name));
        let appearances = domains().zip(names).enumerate().map(|(index, (domain, name))| {
            let colour = domain.map(|domain| domain.colour.value);
            DomainAppearance {
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
        let appearances = appearances.collect();
        let settings =
            Settings { hotkeys: Hotkeys::of(policy, names), idle_lock: policy.idle_lock() };
        Self { settings, appearances, policy: Arc::clone(policy) }
    }
}

/// A command of the daemon to the seat.
#[derive(Debug)]
pub enum Command {
    /// Another policy is in force, for the same domains.
    Policy(Box<SeatPolicy>),
    /// A domain has a new VMM; this is the agent's end of its seat link.
    Attach(DomainIndex, OwnedFd),
    /// Its VMM is gone.
    Detach(DomainIndex),
    /// The text about a domain: shown while it has no picture, and in the banner.
    DomainText(DomainIndex, DomainText),
    /// Notes for the banner that are about no single domain.
    BannerNotes(Vec<String>),
    /// Bring a domain to the front.
    Switch(DomainIndex),
    /// Lock the screen, as the lock hotkey does.
    Lock,
    Unlock,
    /// Show this for a few seconds; never instead of a question.
    Notice(Cause, String),
    /// Ask this; the answer comes as [`SeatEvent::Answered`] under the same number.
    Ask(u64, String),
    /// Ask this, with these to choose from; the answer comes as [`SeatEvent::Chosen`] under the same number, or as
    /// [`SeatEvent::Answered`] with no.
    Choose(u64, String, Vec<String>),
    /// Say this in the box of the question of this number, if it is open: what it counts down to, and nothing that changes what its answers mean.
    Reword(u64, String),
    /// Withdraw the question of this number.
    Withdraw(u64),
}

/// The text about a domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DomainText {
    /// Shown in place of its picture, while it has none.
    pub placeholder: String,
    /// Shown in every banner; `None` while all is well.
    pub banner_note: Option<String>,
}

/// An event of the seat for the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeatEvent {
    /// Another domain is in front.
    Switched { from: DomainIndex, to: DomainIndex },
    /// The screen is locked.
    Locked {
        /// Whether it was locked because nobody did anything.
        idle: bool,
    },
    /// The screen is unlocked.
    Unlocked,
    /// The break-glass hotkey was pressed.
    BreakGlass,
    /// A question was answered, or could not be any more (then no).
    Answered(u64, bool),
    /// The choice at this place was chosen.
    Chosen(u64, usize),
    /// An input device was plugged in; pinned to this domain, if to any.
    Plugged(Label, Option<DomainIndex>),
    /// An input device was pulled out.
    Unplugged(Label),
    /// The seat link of a domain was closed, for this reason.
    LinkLost(DomainIndex, String),
}

/// Writes into the report how long switches took.
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

/// An event of the seat that goes straight to the mediators, as the daemon may be busy with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToMediators {
    /// The copy hotkey was pressed with this domain in front.
    Copy(DomainIndex),
    /// The paste hotkey was pressed with this domain in front.
    Paste(DomainIndex),
    /// The screen was locked.
    Locked,
}

/// Puts into a mediator's mailbox what concerns it; called by the seat's thread, so that it must not wait.
pub type MediatorListener = Box<dyn Fn(ToMediators) + Send>;

/// The handle on a seat that runs.
pub struct Seat {
    names: Vec<String>,
    thread: ThreadHandle<Command, SeatEvent>,
    report: Arc<Mutex<SeatReport>>,
    used: LastInput,
    /// What the screen was last told to show: of each domain, and of none.
    texts: Vec<DomainText>,
    banner_notes: Vec<String>,
}

/// The moments at which input last went to each domain.
#[derive(Clone)]
struct LastInput(Arc<[AtomicU64]>);

impl LastInput {
    fn new(domains: usize) -> Self {
        Self((0..domains).map(|_| AtomicU64::new(0)).collect())
    }

    /// Notes that input went to this domain now.
    fn note(&self, domain: DomainIndex) {
        let since_start =
            Moment::now().saturating_duration_since(Moment::since_start(Duration::ZERO));
        if let Some(used) = self.0.get(domain) {
            let millis = u64::try_from(since_start.as_millis()).unwrap_or(u64::MAX).max(1);
            used.store(millis, Ordering::Relaxed);
        }
    }

    fn last(&self, domain: DomainIndex) -> Option<Moment> {
        match self.0.get(domain)?.load(Ordering::Relaxed) {
            0 => None,
            millis => Some(Moment::since_start(Duration::from_millis(millis))),
        }
    }
}

/// The seat thread's connections to the daemon, the mediators and the report.
struct Daemon {
    ends: Ends<Command, SeatEvent>,
    mediators: MediatorListener,
    report: Arc<Mutex<SeatReport>>,
    used: LastInput,
}

impl Daemon {
    fn send(&self, event: SeatEvent) {
        self.ends.send(event);
    }

    fn notify_mediators(&self, what: ToMediators) {
        (self.mediators)(what);
    }

    fn report(&self, change: impl FnOnce(&mut SeatReport)) {
        change(&mut self.report.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// A handle by which any thread sends the seat commands.
#[derive(Clone)]
pub struct Handle {
    names: Arc<[String]>,
    commands: Sender<Command>,
}

impl Handle {
    /// Sends a command. A seat that has ended takes nothing any more.
    pub fn send(&self, command: Command) {
        self.commands.send(command);
    }

    /// Returns the place of a domain among the seat's.
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
        saved_state: SavedStateFile,
        mediators: MediatorListener,
    ) -> io::Result<Self> {
        let (mut thread, ends) = ThreadHandle::new("seat")?;
        let report = Arc::new(Mutex::new(SeatReport {
            backend: match backend {
                Backend::Kms(_) => "kms".to_owned(),
                Backend::None => "none".to_owned(),
            },
            front: names.first().cloned().unwrap_or_default(),
            ..SeatReport::default()
        }));
        let used = LastInput::new(names.len());
        let daemon = Daemon { ends, mediators, report: Arc::clone(&report), used: used.clone() };
        let mut stage = Stage::new(backend, names.clone(), policy, daemon, saved_state)?;
        thread.run(move || stage.run())?;
        let (texts, banner_notes) = (vec![DomainText::default(); names.len()], Vec::new());
        Ok(Self { names, thread, report, used, texts, banner_notes })
    }

    /// Returns a handle by which other threads send commands.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle { names: self.names.clone().into(), commands: self.thread.sender() }
    }

    /// Returns the domains, in the seat's order.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Returns its thread: whether it still comes round, whether it has died, and what it said.
    #[must_use]
    pub const fn thread(&self) -> &ThreadHandle<Command, SeatEvent> {
        &self.thread
    }

    /// Returns when input last went to a domain; `None` if none has since the agent started.
    #[must_use]
    pub fn last_input(&self, domain: DomainIndex) -> Option<Moment> {
        self.used.last(domain)
    }

    /// Shows the text about a domain, if it is another one than before.
    pub fn show(&mut self, domain: DomainIndex, text: DomainText) {
        if let Some(shown) = self.texts.get_mut(domain)
            && *shown != text
        {
            shown.clone_from(&text);
            self.thread.send(Command::DomainText(domain, text));
        }
    }

    /// Shows notes that are about no single domain, if they are others than before.
    pub fn show_banner_notes(&mut self, notes: Vec<String>) {
        if notes != self.banner_notes {
            self.banner_notes.clone_from(&notes);
            self.thread.send(Command::BannerNotes(notes));
        }
    }

    /// Returns what `status` says of the seat besides its state.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let report = self.report();
        let dead = self.thread.is_dead().then(|| {
            "THE SEAT HAS FAILED: the guests run on, and the agent ends for another to show them"
                .to_owned()
        });
        let problem =
            report.problem.as_ref().map(|problem| format!("THERE IS NO SCREEN: {problem}"));
        let keyboard = (report.backend == "kms" && report.keyboards == 0).then(|| {
            "no keyboard is plugged in; the mouse can switch domains in the banner".to_owned()
        });
        dead.into_iter().chain(problem).chain(keyboard).collect()
    }

    /// Returns the state of the seat, for `status`.
    #[must_use]
    pub fn report(&self) -> SeatReport {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
