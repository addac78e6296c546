//! USB devices on their way into domains.
//!
//! ```text
//!  kernel: uevents, sysfs --> Broker (own thread) --> daemon: audit, words, list
//!                               |   ^ policy, break-glass, by hand
//!                               v
//!  device <-- usbhost::Export <--> Filter <--> usbredir::Session <--> VMM's --usb socket
//! ```
//! | file | |
//! | --- | --- |
//! | [`identity`] | what a device says it is, as the policy is asked |
//! | [`attached`] | one device in a domain: its export, filter and stream |
//! | [`broker`] | the thread: who comes, who goes, who gets what |
//!
//! A device goes nowhere before its event is on the disk. What goes wrong with one device touches no other.

mod attached;
mod broker;
mod identity;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use audit::Event;
use nix::sys::eventfd::{EfdFlags, EventFd};
use policy::Policy;
use serde::{Deserialize, Serialize};
use usbhost::{BusId, Sysfs};

use broker::Broker;

/// Devices that a domain can have at once: `--usb` sockets of its VMM.
pub const DEVICES_PER_DOMAIN: usize = 4;

/// What the daemon tells the broker.
#[derive(Debug)]
pub enum Command {
    /// Another policy is in force, or break-glass has begun or ended.
    Rules(Arc<Policy>, bool),
    /// Somebody attaches a device to a domain by hand.
    Attach(BusId, String),
    /// Somebody takes one away.
    Detach(BusId),
    /// An event is on the disk, or is not.
    Recorded(u64, bool),
    /// End.
    Stop,
}

/// What the broker tells the daemon.
#[derive(Debug)]
pub enum Happening {
    /// Write this down, and say whether it is on the disk: [`Command::Recorded`].
    Record(u64, Event),
    /// Write this down.
    Note(Event),
    /// Say this at the seat.
    Notice(String),
    /// The devices as they are now.
    Devices(Vec<UsbReport>),
}

/// One device, for `bulkhead usb list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsbReport {
    /// Where it is plugged in, as the kernel writes it: `1-4.2`.
    pub bus_id: String,
    /// What it calls itself.
    pub name: String,
    /// What the policy is asked with: `--device` of `bulkhead policy explain`.
    pub device: String,
    /// `host`, `attached`, `waiting`, `blocked` or `off`.
    pub state: String,
    /// The domain that has it, or is to have it.
    pub domain: Option<String>,
    /// `allow` or `read-only`, if it has a domain.
    pub verdict: Option<String>,
    /// The rule that decided.
    pub rule: Option<String>,
    /// Why it is as it is, in words.
    pub why: String,
}

/// The running broker.
pub struct Usb {
    commands: mpsc::Sender<Command>,
    wake: Arc<EventFd>,
    happenings: mpsc::Receiver<Happening>,
    awake: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

/// A way for a device into a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// Its VMM listens here.
    Dial(PathBuf),
    /// Whoever runs it connects here, and waits until there is a device.
    Listen(PathBuf),
}

/// What a broker is made of.
pub struct Setup {
    /// The host's devices.
    pub sysfs: Sysfs,
    /// Where what the kernel's switches were is kept.
    pub switches: PathBuf,
    /// Each domain's name and the ways into it.
    pub domains: Vec<(String, Vec<Way>)>,
    /// The policy.
    pub policy: Arc<Policy>,
}

impl Usb {
    /// Starts the thread, which takes the kernel's switches first.
    ///
    /// # Errors
    /// The process has no thread or file descriptor left, or may not set the switches.
    pub fn start(setup: Setup) -> io::Result<Self> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let (wake, awake) =
            (Arc::new(EventFd::from_flags(flags)?), Arc::new(EventFd::from_flags(flags)?));
        let (commands, inbox) = mpsc::channel();
        let (outbox, happenings) = mpsc::channel();
        let mut broker = Broker::new(setup, inbox, Arc::clone(&wake), outbox, Arc::clone(&awake))?;
        let thread =
            std::thread::Builder::new().name("usb".to_owned()).spawn(move || broker.run())?;
        Ok(Self { commands, wake, happenings, awake, thread: Some(thread) })
    }

    /// Tells it something.
    pub fn tell(&self, command: Command) {
        // A thread that ended takes nothing any more: then no device goes anywhere.
        let _ = self.commands.send(command);
        let _ = self.wake.write(1);
    }

    /// Becomes readable when something happened.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.awake.as_fd()
    }

    /// What happened since the last call.
    pub fn happened(&self) -> Vec<Happening> {
        let _ = self.awake.read();
        self.happenings.try_iter().collect()
    }

    /// Whether the thread has died.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Usb {
    fn drop(&mut self) {
        self.tell(Command::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the USB broker's thread panicked");
        }
    }
}
