//! What one packet leads to: packets both ways, events, and what is awaited from the device.

use std::collections::BTreeMap;

use usbredir::packet::Bulk;
use usbredir::{Body, Packet, Status};

use crate::control::Judgement;
use crate::event::{Event, Log, Refusal};

/// What comes out of the filter. The caller empties it; the filter only adds.
#[derive(Debug, Default)]
pub struct Out {
    /// For the device, in this order.
    pub to_device: Vec<Packet>,
    /// For the guest, in this order.
    pub to_guest: Vec<Packet>,
    /// For the audit log and the broker.
    pub events: Vec<Event>,
}

/// An answer that is awaited from the device, by the ID of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pending {
    Control {
        request_type: u8,
        request: u8,
        value: u16,
        index: u16,
        /// `wLength`.
        asked: u16,
        judgement: Judgement,
    },
    Bulk {
        endpoint: u8,
        asked: u32,
    },
    Interrupt {
        endpoint: u8,
        asked: u32,
    },
    /// A bulk transfer of storage that a reset has overtaken: its answer is Cancelled, whatever it is.
    Abandoned {
        endpoint: u8,
        asked: u32,
    },
    Configuration {
        set: bool,
    },
    Alternate {
        interface: u8,
        set: bool,
    },
}

impl Pending {
    /// Returns the bytes that the kernel keeps for it until it is answered. A control request has at most a page, and one is under way at a time.
    fn bytes(self) -> usize {
        match self {
            Self::Bulk { asked, .. }
            | Self::Interrupt { asked, .. }
            | Self::Abandoned { asked, .. } => kernel_bytes(asked),
            Self::Control { .. } | Self::Configuration { .. } | Self::Alternate { .. } => 0,
        }
    }
}

/// Largest packet of a bulk or interrupt endpoint: no device is served that says more.
const PACKET_MAX: usize = usbdescriptors::PACKET_MAX as usize;
/// What the kernel remembers a transfer by, besides its data, and counts as well (`struct async` and `struct urb`), and more.
const TRANSFER: usize = 512;

/// Returns the bytes that the kernel keeps for a transfer of so many, at most: what a device fills holds whole packets, of whatever size.
pub(crate) fn kernel_bytes(asked: u32) -> usize {
    let asked = usize::try_from(asked).unwrap_or(usize::MAX);
    asked.saturating_add(PACKET_MAX + TRANSFER)
}

/// What is remembered of the traffic, whatever the device.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) log: Log,
    pub(crate) pending: BTreeMap<u64, Pending>,
    /// Faults of the device since it last did something well.
    pub(crate) faults: u32,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self { log: Log::new(), pending: BTreeMap::new(), faults: 0 }
    }

    /// Returns the bytes of the transfers that are with the device.
    pub(crate) fn bytes(&self) -> usize {
        self.pending.values().fold(0, |sum, pending| sum.saturating_add(pending.bytes()))
    }

    pub(crate) fn traffic<'a>(&'a mut self, out: &'a mut Out) -> Traffic<'a> {
        Traffic { out, ledger: self }
    }
}

/// The filter's output, into which its parts put what they have to say, with the ledger of what is under way.
pub(crate) struct Traffic<'a> {
    out: &'a mut Out,
    ledger: &'a mut Ledger,
}

impl Traffic<'_> {
    pub(crate) fn forward_bulk(&mut self, id: u64, endpoint: u8, length: u32, data: Vec<u8>) {
        let bulk = Bulk { endpoint, status: Status::Success, length, stream: 0, data };
        self.pass(id, Body::Bulk(bulk));
    }

    pub(crate) fn answer_bulk(
        &mut self,
        id: u64,
        endpoint: u8,
        status: Status,
        length: u32,
        data: Vec<u8>,
    ) {
        self.answer(id, Body::Bulk(Bulk { endpoint, status, length, stream: 0, data }));
    }

    /// Sends something to the device.
    pub(crate) fn pass(&mut self, id: u64, body: Body) {
        self.ledger.log.to_device = self.ledger.log.to_device.saturating_add(data_bytes(&body));
        self.out.to_device.push(Packet { id, body });
    }

    /// Sends something to the guest.
    pub(crate) fn answer(&mut self, id: u64, body: Body) {
        self.ledger.log.to_guest = self.ledger.log.to_guest.saturating_add(data_bytes(&body));
        self.out.to_guest.push(Packet { id, body });
    }

    /// Abandons a transfer that is with the device; with `cancel` the device is told.
    pub(crate) fn abandon(&mut self, id: u64, endpoint: u8, asked: u32, cancel: bool) {
        self.ledger.pending.insert(id, Pending::Abandoned { endpoint, asked });
        if cancel {
            self.pass(id, Body::CancelDataPacket);
        }
    }

    pub(crate) fn refused(&mut self, what: Refusal) {
        self.ledger.log.refused(what, &mut self.out.events);
    }

    pub(crate) fn command(&mut self, opcode: u8) {
        self.ledger.log.command(opcode);
    }

    pub(crate) fn fault(&mut self) {
        self.ledger.faults = self.ledger.faults.saturating_add(1);
    }

    pub(crate) fn well(&mut self) {
        self.ledger.faults = 0;
    }
}

fn data_bytes(body: &Body) -> u64 {
    let bytes = match body {
        Body::Control(control) => control.data.len(),
        Body::Bulk(bulk) => bulk.data.len(),
        Body::Interrupt(interrupt) => interrupt.data.len(),
        _ => 0,
    };
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
