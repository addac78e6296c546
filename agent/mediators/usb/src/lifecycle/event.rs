//! What happens to a device, and what is answered to the effects of its life-cycle.

use std::time::Duration;

use monitor::{Basis, Denial, Permit};
use usbdescriptors::Share;
use usbfilter::Counts;

use crate::attached::{DetachReason, Served};
use crate::grant::{Admitted, UsbAdmission, UsbGrant};

/// Something that happened, to the device or to what it depends on. `P` is the permit to attach it.
#[derive(Debug)]
pub(crate) enum Event<P> {
    /// A device was plugged in.
    PluggedIn,
    /// It was pulled out, or another is in its place.
    Unplugged,
    /// Answers [`Effect::AskPace`](super::Effect::AskPace): how long it has to wait before it may be read; nothing if it may be now.
    Pace(Duration),
    /// Answers [`Effect::Read`](super::Effect::Read): there is no thread for it, and why.
    NoThread(String),
    /// A task of [`Effect::Read`](super::Effect::Read) ended.
    Read {
        task: u64,
        /// What the device turned out to be, or why that is not known.
        reading: Result<Reading, String>,
    },
    /// The thread failed at a task, which is a fault of ours. What it had of the device is let go.
    ThreadFailed { task: u64 },
    /// Answers [`Effect::Judge`](super::Effect::Judge).
    Judged(Judgement),
    /// Answers [`Effect::Admit`](super::Effect::Admit): it may go to its domain, and the verdict that says so is on the disk.
    Admitted {
        request: u64,
        /// The permit that the verdict got.
        permit: Permit<UsbAdmission>,
    },
    /// Answers [`Effect::Connect`](super::Effect::Connect).
    Connected {
        /// The verdict that the connection was made by.
        admitted: Admitted,
        /// What came of it.
        connection: Connection,
    },
    /// Answers [`Effect::Authorize`](super::Effect::Authorize): it may be attached, and the entry that says so is on the disk.
    Permitted {
        request: u64,
        /// The permit to attach the device.
        permit: P,
    },
    /// Answers [`Effect::Admit`](super::Effect::Admit) or [`Effect::Authorize`](super::Effect::Authorize): it may not.
    Refused { request: u64, denial: Denial },
    /// Answers [`Effect::Start`](super::Effect::Start): it cannot be served, and why.
    NotStarted {
        task: u64,
        /// The reason, in words for the log and the screen.
        why: String,
    },
    /// The guest has the device.
    Begun {
        /// The task that serves it.
        task: u64,
    },
    /// The guest has the device no more.
    Left {
        /// The task that served it.
        task: u64,
        /// Why, if it was not told to.
        reason: Option<DetachReason>,
        /// What went to and fro, if that is known.
        counts: Option<Counts>,
    },
    /// A task of [`Effect::Start`](super::Effect::Start) ended. If it has not [left](Event::Left) before, it never began.
    Served {
        task: u64,
        /// How it ended.
        served: Served,
    },
    /// Somebody attaches it by hand.
    AttachByHand {
        domain: String,
        /// The entry of the request in the log.
        request: Option<u64>,
    },
    /// Somebody takes it away by hand.
    DetachByHand {
        /// The entry of the request in the log.
        request: Option<u64>,
    },
    /// Other rules are in force, or break-glass has begun or ended: what it would get now, if anything.
    RulesChanged {
        /// As [`Judgement::grant`] would say it.
        would_get: Option<UsbGrant>,
        /// The rules that count now.
        basis: Basis,
    },
    /// The audit log has failed, and may have lost what was on the disk: what its entries permitted is taken back.
    RecordLost,
    /// Whether drivers of the host's have the keyboards and mice in it.
    InputDrivers {
        /// The host's drivers have some of them.
        any: bool,
        /// The host's drivers have all of them.
        all: bool,
        /// Its thread has something to do.
        busy: bool,
    },
    /// The agent ends: whoever has it loses it, and nothing more is done with it.
    AgentEnds,
    /// Time went by.
    Tick,
}

/// What a device turned out to be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reading {
    /// The host itself runs from it.
    HostNeeds,
    /// A device for the policy, or the seat.
    Device(Findings),
    /// Not the one that was there when it was to be read: the next look finds it.
    Another(Findings),
}

/// What its life-cycle depends on, of all that a device says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Findings {
    /// It is wholly the seat's: a keyboard, a mouse, a hub.
    pub(crate) is_the_seats: bool,
    /// Something in it is a keyboard, a mouse or the like.
    pub(crate) types_or_points: bool,
    /// What the seat keeps of a device with something besides a keyboard.
    pub(crate) seats_part: Option<Share>,
    /// All in it that types or points and does nothing else.
    pub(crate) input: Option<Share>,
    /// Why not all that it says is known.
    pub(crate) unread: Option<String>,
    pub(crate) descriptors: Vec<u8>,
}

/// What the policy says of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Judgement {
    /// Where it goes, or why it does not.
    pub(crate) grant: Result<UsbGrant, String>,
    /// Whether the verdict itself denies it. Otherwise something besides keeps it from its domain.
    pub(crate) denied: bool,
}

/// What came of [`Effect::Connect`](super::Effect::Connect).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Connection {
    /// The VMM takes the device. Nothing has gone over the connection yet.
    Made,
    /// Not yet; the least time until it is tried again.
    NotYet(Duration),
    /// It cannot be served as it is granted, and why.
    Impossible(String),
}
