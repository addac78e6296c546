//! What a life-cycle wants done.

use usbdescriptors::Share;
use usbfilter::Counts;

use super::Detaching;
use crate::grant::{Admitted, UsbGrant};

/// What is to be done, in this order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Effect<P> {
    /// Say how long devices at this socket of the PC have to wait: [`Event::Pace`](super::Event::Pace).
    AskPace,
    /// Have the thread find out what the device is: [`Event::Read`](super::Event::Read).
    Read {
        /// The number of that task.
        task: u64,
    },
    /// Have the thread give this of it to the host's own drivers.
    GiveToHost(Share),
    /// Have the thread de-authorise it: nobody may use it.
    Deauthorize,
    /// Ask the policy: [`Event::Judged`](super::Event::Judged).
    Judge,
    /// Have the last verdict written down: [`Event::Admitted`](super::Event::Admitted) once that is on the disk.
    Admit {
        /// The number of this request.
        request: u64,
        /// What the verdict gives.
        grant: UsbGrant,
    },
    /// Connect to the domain's VMM: [`Event::Connected`](super::Event::Connected), which gives back what allows it.
    Connect {
        /// What allows it, and says what is to be served over the connection.
        admitted: Admitted,
        /// It was connected before, since it was plugged in: one that comes and goes has to wait.
        again: bool,
    },
    /// Have it written down that the device is attached: [`Event::Permitted`](super::Event::Permitted) once that is on the disk.
    Authorize {
        /// The number of this request.
        request: u64,
        /// What is asked for.
        grant: UsbGrant,
    },
    /// Drop the connection to the VMM, over which nothing has gone.
    Disconnect,
    /// Have the thread serve the device over the connection, as the permit says.
    Start {
        /// The number of that task.
        task: u64,
        /// The permit to attach the device.
        permit: P,
    },
    /// Have the thread leave the guest.
    Detach {
        /// The task that serves it.
        task: u64,
    },
    /// Cut the stream to the guest, whatever the thread does. It is cut already if the thread has left the guest.
    Cut {
        /// The task that serves it.
        task: u64,
    },
    /// Write this down; nothing waits for it.
    Note(Note),
    /// Say this at the seat.
    Notice(Notice),
    /// Look which devices are plugged in.
    Look,
}

/// An entry for the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// The last verdict, which gives it to no domain.
    Denied,
    /// A device that has turned into a keyboard is denied.
    Turned,
    /// It does not reach its domain.
    Failed {
        /// The entry of the request that ends so.
        request: Option<u64>,
        /// The reason, in words for the log and the screen.
        why: String,
    },
    /// It could not be read.
    Unreadable {
        /// The entry of the request that ends so.
        request: Option<u64>,
        /// The reason, in words for the log and the screen.
        why: String,
    },
    /// It was not attached to this domain, though its entry says so.
    NotAttached {
        domain: String,
        /// The reason, in words for the log.
        why: String,
    },
    /// It has left its domain.
    Detached {
        /// What it left, and why.
        detaching: Detaching,
        /// What went to and fro, if that is known.
        counts: Option<Counts>,
    },
    /// What had gone to and fro of one that was cut off.
    Counted {
        /// What it left, and why.
        detaching: Detaching,
        /// What went to and fro.
        counts: Counts,
    },
}

/// What is said at the seat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// It could not be read, and why.
    NotUsed(String),
    /// What is besides the keyboard is not used, and why.
    RestNotUsed(String),
    /// The policy denies it, and why.
    Denied(String),
    /// It does not reach its domain, and why.
    NotConnected(String),
    /// It does not, as that cannot be written down.
    Unrecorded,
    /// The guest has it.
    Connected(UsbGrant),
    /// The domain of this label has it no more, and why.
    Disconnected(String, String),
    /// It broke the rules, and how.
    Blocked(String),
    /// No driver takes the keyboard in it.
    NoDriver,
}
