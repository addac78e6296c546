//! USB devices on their way into domains.
//!
//! ```text
//!  kernel: uevents, sysfs --> Broker (own thread) --> daemon: audit, words, list
//!                               |   ^ policy, break-glass, by hand
//!                               v   a thread for each place where something is plugged in
//!  device <-- usbhost::Export <--> Filter <--> usbredir::Session <--> VMM's --usb socket
//! ```
//! | file | |
//! | --- | --- |
//! | [`identity`] | what a device says it is, as the policy is asked |
//! | [`attached`] | one device in a domain: its export, filter and stream |
//! | [`broker`] | the thread: who comes, who goes, who gets what |
//!
//! A device goes nowhere before its event is on the disk, the first time and each time after. What goes wrong with one device touches no
//! other: the broker waits for none, so rules that no longer allow something count within a second, whatever devices do.

mod attached;
mod broker;
mod identity;

use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;

use audit::Event;
use policy::Policy;
use serde::{Deserialize, Serialize};
use usbhost::{BusId, Sysfs};

use broker::Broker;

use crate::mediator::Mediator;

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
    /// Say this at the seat, of what is at this socket of the PC.
    Notice(String, String),
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
    /// `host`, `attached`, `waiting`, `reading`, `blocked` or `off`.
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
pub struct Usb(Mediator<Command, Happening>);

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
        let (mut mediator, ends) = Mediator::new("usb")?;
        let mut broker = Broker::new(setup, ends)?;
        mediator.run(move || broker.run())?;
        Ok(Self(mediator))
    }

    /// Tells it something. A thread that ended takes nothing any more: then no device goes anywhere.
    pub fn tell(&self, command: Command) {
        self.0.tell(command);
    }

    /// Becomes readable when something happened.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.fd()
    }

    /// What happened since the last call.
    pub fn happened(&self) -> Vec<Happening> {
        self.0.happened()
    }

    /// Whether the thread has died: every device is out of its domain, and none goes anywhere.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.0.is_dead()
    }

    /// Ends it: every device is let go, the switches are put back. What happened last can be had afterwards.
    pub fn stop(&mut self) {
        self.tell(Command::Stop);
        self.0.join();
    }
}

impl Drop for Usb {
    fn drop(&mut self) {
        self.stop();
    }
}
