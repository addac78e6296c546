//! One device at the other end of a usbredir stream: the controller's transfers into packets, and answers back.
//!
//! | transfer | packets |
//! | --- | --- |
//! | control, bulk, interrupt to the device | one each way, under an ID of the transfer's own |
//! | interrupt from the device | the host's end polls from the first transfer until the endpoint is stopped; each answer is one packet of USB, and a short one ends a transfer; what comes before it is asked for waits |
//! | SET_CONFIGURATION, SET_INTERFACE and their GETs | packets of their own, as the host's end must know of them |

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use usbredir::packet::{Bulk, Control, Interrupt, MAX_DATA, Speed as RemoteSpeed};
use usbredir::{Body, Packet, Status as RemoteStatus};
use xhci::{
    EndpointAddress, Moved, Payload, Request, Speed, Standard, Status, Transfer, TransferId,
};

/// Packets of one interrupt endpoint that wait for the guest to ask. Beyond this the oldest is dropped: what a device said last is
/// what holds, such as that a key is up.
const EARLY_MAX: usize = 16;
/// Most bytes of a packet of an interrupt endpoint: three transactions of 1024 bytes a service interval (USB 2.0 section 5.7.3, USB 3.2
/// section 8.12.4.2). The protocol's packets have room for 64 KiB; with fifteen endpoints and eight peers [`EARLY_MAX`] of those are
/// 120 MiB.
const INTERRUPT_MAX: usize = 3 * 1024;
/// Stops that a peer has not acknowledged; one that never does is not waited for.
const STOPS_MAX: usize = 64;

/// What the caller is to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Send(Packet),
    Complete(TransferId, Status, Answer),
    Attach(Speed),
    Detach,
}

/// How a transfer ended, as [`Moved`] says it, but such that it can be compared.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    In(Vec<u8>),
    Out(u32),
}

impl From<Answer> for Moved {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::In(data) => Self::In(data),
            Answer::Out(count) => Self::Out(count),
        }
    }
}

/// Why a stream is given up; the other end is to blame.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum StreamViolation {
    /// The other end announced a device while it has one.
    #[error("it connects a second device")]
    SecondDevice,
    /// Longer than any device can send.
    #[error(
        "it sends {0} bytes as one packet of an interrupt endpoint, and USB has no more than {INTERRUPT_MAX}"
    )]
    LongInterrupt(usize),
}

/// A transfer that was asked of the device.
#[derive(Debug)]
struct PendingTransfer {
    transfer: TransferId,
    /// Most bytes wanted from the device, or how many go to it.
    bytes: usize,
    from_device: bool,
    /// Whether it may be ended half-way, with what was moved until then.
    divisible: bool,
    /// Whether the guest stops its endpoint, and has to know what was moved.
    stopping: bool,
}

/// An interrupt endpoint that sends.
#[derive(Debug, Default)]
struct Receiving {
    started: bool,
    early: VecDeque<(Status, Vec<u8>)>,
    waiting: Option<InterruptTransfer>,
}

/// A transfer from an interrupt endpoint, as far as it has come.
#[derive(Debug)]
struct InterruptTransfer {
    id: TransferId,
    /// The most bytes that the guest takes.
    bytes: usize,
    /// Bytes of a full packet.
    packet: usize,
    got: Vec<u8>,
}

impl InterruptTransfer {
    /// Takes a packet; says how the transfer ended if this was its last.
    fn take(&mut self, status: Status, data: Vec<u8>) -> Option<Effect> {
        let short = data.len() < self.packet;
        if self.got.is_empty() {
            self.got = data;
        } else {
            self.got.extend(data);
        }
        let done = short || status != Status::Success || self.got.len() >= self.bytes;
        done.then(|| received(self.id, self.bytes, status, std::mem::take(&mut self.got)))
    }
}

/// The usbredir end of one socket: transfers of the controller out, packets of the device's end in.
#[derive(Debug, Default)]
pub(super) struct Remote {
    there: bool,
    /// By ID on the wire. That has 32 bits with peers that know no longer ones.
    asked: BTreeMap<u64, PendingTransfer>,
    last_id: u32,
    receiving: BTreeMap<u8, Receiving>,
    /// What stopped an endpoint: how that went is not the fate of its next start.
    stops: BTreeSet<u64>,
}

fn status(status: RemoteStatus) -> Status {
    match status {
        RemoteStatus::Success => Status::Success,
        RemoteStatus::Stall => Status::Stall,
        RemoteStatus::Babble => Status::Babble,
        RemoteStatus::Cancelled
        | RemoteStatus::Invalid
        | RemoteStatus::IoError
        | RemoteStatus::Timeout => Status::Error,
    }
}

fn speed(speed: RemoteSpeed) -> Speed {
    match speed {
        RemoteSpeed::Low => Speed::Low,
        RemoteSpeed::Full => Speed::Full,
        RemoteSpeed::High | RemoteSpeed::Unknown => Speed::High,
        RemoteSpeed::Super => Speed::Super,
    }
}

/// Returns what a transfer that cannot be done comes back with.
fn nothing(payload: &Payload) -> Answer {
    match payload {
        Payload::In(_) => Answer::In(Vec::new()),
        Payload::Out(_) => Answer::Out(0),
    }
}

impl Remote {
    /// Takes a transfer of the guest's.
    pub(super) fn submit(&mut self, transfer: Transfer) -> Vec<Effect> {
        let Transfer { id, endpoint, request, .. } = transfer;
        let address = endpoint.byte();
        if !self.there {
            return vec![Effect::Complete(id, Status::Error, nothing(request.payload()))];
        }
        let (bytes, from_device) = match request.payload() {
            Payload::In(most) => (usize::try_from(*most).unwrap_or(MAX_DATA), true),
            Payload::Out(data) => (data.len(), false),
        };
        let divisible = !matches!(request, Request::Control { .. });
        let body = match request {
            Request::Control { setup, payload } => match setup.standard() {
                Standard::SetConfiguration(configuration) => {
                    self.forget_early();
                    Body::SetConfiguration(configuration)
                }
                Standard::GetConfiguration => Body::GetConfiguration,
                Standard::SetInterface { interface, alternate } => {
                    self.forget_early();
                    Body::SetAltSetting { interface, alternate }
                }
                Standard::GetInterface { interface } => Body::GetAltSetting { interface },
                // Never submitted; the controller gives addresses.
                Standard::SetAddress | Standard::ClearHalt(_) | Standard::Other => {
                    Body::Control(Control {
                        endpoint: address & 0x0f | if setup.is_in() { 0x80 } else { 0 },
                        request: setup.request,
                        request_type: setup.request_type,
                        status: RemoteStatus::Success,
                        value: setup.value,
                        index: setup.index,
                        length: setup.length,
                        data: match payload {
                            Payload::Out(data) => data,
                            Payload::In(_) => Vec::new(),
                        },
                    })
                }
            },
            Request::Bulk(payload) => {
                let length = u32::try_from(bytes).unwrap_or_default();
                let data = match payload {
                    Payload::Out(data) => data,
                    Payload::In(_) => Vec::new(),
                };
                let status = RemoteStatus::Success;
                Body::Bulk(Bulk { endpoint: address, status, length, stream: 0, data })
            }
            Request::Interrupt { payload: Payload::In(_), packet, .. } => {
                let packet = usize::try_from(packet).unwrap_or(usize::MAX);
                return self
                    .receive(address, InterruptTransfer { id, bytes, packet, got: Vec::new() });
            }
            Request::Interrupt { payload: Payload::Out(data), .. } => {
                let Ok(length) = u16::try_from(data.len()) else {
                    return vec![Effect::Complete(id, Status::Error, Answer::Out(0))];
                };
                let status = RemoteStatus::Success;
                Body::Interrupt(Interrupt { endpoint: address, status, length, data })
            }
        };
        let wire = self.next_id();
        let asked =
            PendingTransfer { transfer: id, bytes, from_device, divisible, stopping: false };
        self.asked.insert(wire, asked);
        vec![Effect::Send(Packet { id: wire, body })]
    }

    /// Finds an ID that names nothing yet. Few transfers are under way at a time, so one is found at once.
    fn next_id(&mut self) -> u64 {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            let id = u64::from(self.last_id);
            if id != 0 && !self.asked.contains_key(&id) && !self.stops.contains(&id) {
                return id;
            }
        }
    }

    fn receive(&mut self, address: u8, mut waiting: InterruptTransfer) -> Vec<Effect> {
        let id = self.next_id();
        let receiving = self.receiving.entry(address).or_default();
        while let Some((status, data)) = receiving.early.pop_front() {
            if let Some(done) = waiting.take(status, data) {
                return vec![done];
            }
        }
        receiving.waiting = Some(waiting);
        if std::mem::replace(&mut receiving.started, true) {
            return Vec::new();
        }
        vec![Effect::Send(Packet { id, body: Body::StartInterruptReceiving { endpoint: address } })]
    }

    /// Stops a transfer, whose endpoint the guest stops: it ends soon, with what it has moved.
    pub(super) fn stop(&mut self, id: TransferId) -> Vec<Effect> {
        for receiving in self.receiving.values_mut() {
            if let Some(waiting) = receiving.waiting.take_if(|waiting| waiting.id == id) {
                return vec![received(id, waiting.bytes, Status::Stopped, waiting.got)];
            }
        }
        let asked = self.asked.iter_mut().find(|(_, asked)| asked.transfer == id);
        let Some((wire, asked)) = asked else { return Vec::new() };
        asked.stopping = true;
        if !asked.divisible {
            return Vec::new();
        }
        vec![Effect::Send(Packet { id: *wire, body: Body::CancelDataPacket })]
    }

    /// Forgets what endpoints said early: once the device is set up anew it is of no use.
    fn forget_early(&mut self) {
        for receiving in self.receiving.values_mut() {
            receiving.early.clear();
        }
    }

    /// Cancels a transfer that the guest no longer wants.
    pub(super) fn cancel(&mut self, id: TransferId) -> Vec<Effect> {
        for receiving in self.receiving.values_mut() {
            receiving.waiting.take_if(|waiting| waiting.id == id);
        }
        let wire = self.asked.iter().find(|(_, asked)| asked.transfer == id).map(|(wire, _)| *wire);
        let Some(wire) = wire else { return Vec::new() };
        self.asked.remove(&wire);
        vec![Effect::Send(Packet { id: wire, body: Body::CancelDataPacket })]
    }

    /// Takes it that the guest stopped or removed an endpoint. What the device has said by then is not lost: it is what the next
    /// transfer gets, if there is one.
    pub(super) fn stopped(&mut self, endpoint: EndpointAddress) -> Vec<Effect> {
        let endpoint = endpoint.byte();
        let Some(receiving) = self.receiving.get_mut(&endpoint) else { return Vec::new() };
        receiving.waiting = None;
        if !std::mem::take(&mut receiving.started) {
            return Vec::new();
        }
        let id = self.next_id();
        if self.stops.len() >= STOPS_MAX {
            self.stops.pop_first();
        }
        self.stops.insert(id);
        vec![Effect::Send(Packet { id, body: Body::StopInterruptReceiving { endpoint } })]
    }

    /// Resets the device for the guest.
    pub(super) fn reset(&mut self) -> Vec<Effect> {
        if !self.there {
            return Vec::new();
        }
        self.forget_early();
        vec![Effect::Send(Packet { id: 0, body: Body::Reset })]
    }

    /// Takes it that the device is gone, or the stream that led to it.
    pub(super) fn gone(&mut self) -> Vec<Effect> {
        // The controller forgets the transfers of a device that is detached.
        let there = self.there;
        *self = Self::default();
        if there { vec![Effect::Detach] } else { Vec::new() }
    }

    /// Takes a packet of the other end, and returns what follows from it.
    pub(super) fn arrived(&mut self, packet: Packet) -> Result<Vec<Effect>, StreamViolation> {
        let Packet { id, body } = packet;
        Ok(match body {
            Body::DeviceConnect(device) => {
                if std::mem::replace(&mut self.there, true) {
                    return Err(StreamViolation::SecondDevice);
                }
                vec![Effect::Attach(speed(device.speed))]
            }
            Body::DeviceDisconnect => {
                let mut effects = self.gone();
                let acknowledged = Packet { id: 0, body: Body::DeviceDisconnectAck };
                effects.push(Effect::Send(acknowledged));
                effects
            }
            Body::ConfigurationStatus { status, configuration } => {
                self.answer(id, status, 0, vec![configuration])
            }
            Body::AltSettingStatus { status, alternate, .. } => {
                self.answer(id, status, 0, vec![alternate])
            }
            Body::Control(Control { status, length, data, .. }) => {
                self.answer(id, status, length.into(), data)
            }
            Body::Bulk(Bulk { status, length, data, .. }) => self.answer(id, status, length, data),
            Body::Interrupt(Interrupt { endpoint, status, length, data }) => {
                if endpoint & 0x80 == 0 {
                    self.answer(id, status, length.into(), data)
                } else if data.len() > INTERRUPT_MAX {
                    return Err(StreamViolation::LongInterrupt(data.len()));
                } else {
                    self.interrupt(endpoint, status, data)
                }
            }
            Body::InterruptReceivingStatus { status, endpoint } => {
                if self.stops.remove(&id) || status == RemoteStatus::Success {
                    return Ok(Vec::new());
                }
                // It polls no longer; the next transfer starts it again.
                let effects = self.interrupt(endpoint, status, Vec::new());
                if let Some(receiving) = self.receiving.get_mut(&endpoint) {
                    receiving.started = false;
                }
                effects
            }
            // What the device has is read from its descriptors by the guest itself. The rest the host's end does not send.
            _ => Vec::new(),
        })
    }

    fn answer(&mut self, id: u64, how: RemoteStatus, length: u32, data: Vec<u8>) -> Vec<Effect> {
        // Of a transfer that was cancelled, or never was.
        let Some(asked) = self.asked.remove(&id) else { return Vec::new() };
        let status = match how {
            RemoteStatus::Cancelled if asked.stopping => Status::Stopped,
            how => status(how),
        };
        if asked.from_device {
            return vec![received(asked.transfer, asked.bytes, status, data)];
        }
        let most = u32::try_from(asked.bytes).unwrap_or(u32::MAX);
        // A request without data, such as SET_CONFIGURATION, moves none.
        vec![Effect::Complete(asked.transfer, status, Answer::Out(length.min(most)))]
    }

    fn interrupt(&mut self, endpoint: u8, how: RemoteStatus, data: Vec<u8>) -> Vec<Effect> {
        let Some(receiving) = self.receiving.get_mut(&endpoint) else { return Vec::new() };
        if let Some(waiting) = &mut receiving.waiting {
            let done = waiting.take(status(how), data);
            if done.is_some() {
                receiving.waiting = None;
            }
            return done.into_iter().collect();
        }
        if !receiving.started && how != RemoteStatus::Success {
            return Vec::new(); // that it ended is no news
        }
        if receiving.early.len() >= EARLY_MAX {
            receiving.early.pop_front();
        }
        receiving.early.push_back((status(how), data));
        Vec::new()
    }

    /// Takes it that a packet could not be sent: what waited for its answer ends without one.
    pub(super) fn unsent(&mut self, packet: &Packet) -> Vec<Effect> {
        let status = RemoteStatus::Invalid;
        match packet.body {
            Body::StartInterruptReceiving { endpoint } => {
                if let Some(receiving) = self.receiving.get_mut(&endpoint) {
                    receiving.started = false;
                }
                self.interrupt(endpoint, status, Vec::new())
            }
            _ => self.answer(packet.id, status, 0, Vec::new()),
        }
    }
}

/// Takes data for a transfer that wanted so many bytes at most.
fn received(id: TransferId, most: usize, status: Status, mut data: Vec<u8>) -> Effect {
    if data.len() > most {
        data.truncate(most);
        return Effect::Complete(id, Status::Babble, Answer::In(data));
    }
    Effect::Complete(id, status, Answer::In(data))
}

#[cfg(test)]
mod tests;
