//! What the filter has to tell: events for the audit log, and counts. A guest can repeat what is
//! refused as often as it likes, so each kind is told once and then counted until [`Log::flush`].

use std::collections::BTreeMap;
use std::fmt;

use crate::descriptors::kind;

/// Kinds of refusals told apart between two flushes; further kinds count as [`Refusal::Others`]. A
/// guest has 65,536 control requests to try, and the audit log need not hold each of them.
const KINDS_MAX: usize = 32;

/// What its owner has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The guest asked for something and did not get it.
    Refused {
        /// What the guest asked for.
        what: Refusal,
        /// How often, since it was last told.
        times: u64,
    },
    /// The device is no longer what was admitted: take it from the guest, and judge it anew. Nothing
    /// passes any more.
    Changed(Change),
    /// The device or its host end does what none does: take it from the guest. Nothing passes any more.
    Violation(Violation),
}

/// Something a guest asked for and did not get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// A SCSI command.
    Command {
        /// The first byte of its CDB.
        opcode: u8,
        /// Why it was refused.
        why: CommandRefusal,
    },
    /// A control request.
    Control {
        /// `bmRequestType`.
        request_type: u8,
        /// `bRequest`.
        request: u8,
    },
    /// `SetConfiguration` to a value that the device does not have.
    Configuration(u8),
    /// `SetAltSetting` to one that the device does not have, or that is hidden.
    Alternate {
        /// `bInterfaceNumber`.
        interface: u8,
        /// `bAlternateSetting`.
        alternate: u8,
    },
    /// A transfer for an endpoint that the device does not have, or that is of another kind.
    Endpoint(u8),
    /// A transfer on this endpoint that Bulk-Only Transport has no place for: no CBW, or one too early.
    Protocol(u8),
    /// A packet that makes no sense: wrong lengths, an ID in use, or one that only a device may send.
    Packet,
    /// More transfers at once than [`IN_FLIGHT_MAX`](crate::IN_FLIGHT_MAX), or more bytes of them than its
    /// budget ([`Filter::within`](crate::Filter::within)).
    TooMany,
    /// Kinds beyond those that are told apart.
    Others,
}

/// Why a SCSI command was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CommandRefusal {
    /// It writes, or changes the device: DATA PROTECT, WRITE PROTECTED (SPC-4 27h/00h).
    Writes,
    /// It is harmless and not offered: ILLEGAL REQUEST, INVALID COMMAND OPERATION CODE (20h/00h).
    NotOffered,
    /// It is offered, but not with these fields: ILLEGAL REQUEST, INVALID FIELD IN CDB (24h/00h).
    Field,
    /// The length or direction of its data is not the command's.
    Length,
    /// There is no such logical unit (25h/00h).
    Unit,
}

/// In what a device differs from what was admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// What it is announced with, or its device descriptor.
    Device,
    /// The configuration descriptor with this index.
    Configuration(u8),
    /// The interfaces that it announces.
    Interfaces,
    /// The endpoints that it announces.
    Endpoints,
    /// Another descriptor, of this type: BOS, string, report.
    Descriptor(u8),
}

/// What was done that no device does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// An answer of another kind or endpoint than the request with its ID.
    WrongAnswer,
    /// [`FAULTS_MAX`](crate::FAULTS_MAX) things that are against the specification.
    TooManyFaults,
}

impl fmt::Display for CommandRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Writes => "it writes",
            Self::NotOffered => "it is not offered",
            Self::Field => "it is not offered with these fields",
            Self::Length => "its length or direction is not its own",
            Self::Unit => "there is no such logical unit",
        })
    }
}

impl fmt::Display for Refusal {
    /// Writes it in words for whoever reads the audit log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command { opcode, why } => write!(f, "SCSI command 0x{opcode:02x}: {why}"),
            Self::Control { request_type, request } => {
                write!(f, "control request 0x{request:02x} of type 0x{request_type:02x}")
            }
            Self::Configuration(value) => write!(f, "configuration {value}, which is not there"),
            Self::Alternate { interface, alternate } => {
                write!(
                    f,
                    "alternate setting {alternate} of interface {interface}, which is not there"
                )
            }
            Self::Endpoint(address) => {
                write!(
                    f,
                    "a transfer for endpoint 0x{address:02x}, which is not there or of another kind"
                )
            }
            Self::Protocol(address) => {
                write!(f, "a transfer on endpoint 0x{address:02x} outside Bulk-Only Transport")
            }
            Self::Packet => f.write_str("a packet that makes no sense"),
            Self::TooMany => f.write_str("more transfers at once than are taken"),
            Self::Others => f.write_str("further kinds of requests"),
        }
    }
}

impl fmt::Display for Change {
    /// Writes it in words for the person who plugged it in.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            Self::Device => "what it is",
            Self::Configuration(_) => "its configuration",
            Self::Interfaces => "its interfaces",
            Self::Endpoints => "its endpoints",
            Self::Descriptor(kind::STRING) => "its name or serial number",
            Self::Descriptor(kind::REPORT) => "its reports",
            Self::Descriptor(_) => "its abilities",
        };
        write!(f, "it says something else of {what} than when it was plugged in")
    }
}

impl fmt::Display for Violation {
    /// Writes it in words for the person who plugged it in.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WrongAnswer => "it answers what it was not asked",
            Self::TooManyFaults => "its answers make no sense, again and again",
        })
    }
}

/// The totals of what passed and what was refused since the filter was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Bytes of data that went to the device.
    pub to_device: u64,
    /// Bytes of data that went to the guest.
    pub to_guest: u64,
    /// SCSI commands of the guest by opcode, with those that were refused or answered here.
    pub commands: BTreeMap<u8, u64>,
    /// Refusals of any kind.
    pub refused: u64,
}

/// Counts what passes and what is refused, and rations what is told of it.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) to_device: u64,
    pub(crate) to_guest: u64,
    commands: Box<[u64; 256]>,
    refused: u64,
    /// Those already told since the last flush, and how often they came again.
    again: BTreeMap<Refusal, u64>,
}

impl Log {
    pub(crate) fn new() -> Self {
        Self {
            to_device: 0,
            to_guest: 0,
            commands: Box::new([0; 256]),
            refused: 0,
            again: BTreeMap::new(),
        }
    }

    pub(crate) fn command(&mut self, opcode: u8) {
        if let Some(count) = self.commands.get_mut(usize::from(opcode)) {
            *count = count.saturating_add(1);
        }
    }

    pub(crate) fn refused(&mut self, what: Refusal, events: &mut Vec<Event>) {
        self.refused = self.refused.saturating_add(1);
        if let Some(times) = self.again.get_mut(&what) {
            *times = times.saturating_add(1);
        } else if self.again.len() < KINDS_MAX {
            self.again.insert(what, 0);
            events.push(Event::Refused { what, times: 1 });
        } else {
            let others = self.again.entry(Refusal::Others).or_insert(0);
            *others = others.saturating_add(1);
        }
    }

    pub(crate) fn flush(&mut self, events: &mut Vec<Event>) {
        let again = std::mem::take(&mut self.again).into_iter().filter(|(_, times)| *times > 0);
        events.extend(again.map(|(what, times)| Event::Refused { what, times }));
    }

    pub(crate) fn counts(&self) -> Counts {
        let commands = (0..=u8::MAX).zip(self.commands.iter().copied());
        Counts {
            to_device: self.to_device,
            to_guest: self.to_guest,
            commands: commands.filter(|(_, times)| *times > 0).collect(),
            refused: self.refused,
        }
    }
}
