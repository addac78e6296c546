//! One device at the other end of a usbredir stream: the controller's transfers into packets, and answers back.
//!
//! | transfer | packets |
//! | --- | --- |
//! | control, bulk, interrupt to the device | one each way, under the transfer's number |
//! | interrupt from the device | the host's end polls from the first transfer until the endpoint is stopped; what comes before it is asked for waits |
//! | SET_CONFIGURATION, SET_INTERFACE and their GETs | packets of their own, as the host's end must know of them |

use std::collections::{BTreeMap, VecDeque};

use usbredir::packet::{Bulk, Control, Interrupt, MAX_DATA, Speed as RemoteSpeed};
use usbredir::{Body, Packet, Status as RemoteStatus};
use xhci::{
    EndpointAddress, Moved, Payload, Request, Speed, Standard, Status, Transfer, TransferId,
};

/// Data of one interrupt endpoint that wait for the guest to ask. A key that waits longer than this many others is worth nothing:
/// what is newest is dropped, as it would be at a device whose own buffer is full.
const EARLY_MAX: usize = 16;

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Send(Packet),
    Complete(TransferId, Status, Answer),
    Attach(Speed),
    Detach,
}

/// [`Moved`], comparable.
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
pub(super) enum Broken {
    /// Two devices.
    #[error("it connects a second device")]
    SecondDevice,
}

/// A transfer that was asked of the device.
#[derive(Debug)]
struct Asked {
    /// Most bytes wanted from the device, or how many go to it.
    bytes: usize,
    from_device: bool,
}

/// An interrupt endpoint that sends.
#[derive(Debug, Default)]
struct Receiving {
    started: bool,
    early: VecDeque<(Status, Vec<u8>)>,
    waiting: Option<(TransferId, usize)>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Remote {
    there: bool,
    asked: BTreeMap<u64, Asked>,
    receiving: BTreeMap<u8, Receiving>,
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

/// What a transfer that cannot be done comes back with.
fn nothing(payload: &Payload) -> Answer {
    match payload {
        Payload::In(_) => Answer::In(Vec::new()),
        Payload::Out(_) => Answer::Out(0),
    }
}

impl Remote {
    /// The guest wants something done.
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
        let body = match request {
            Request::Control { setup, payload } => match setup.standard() {
                Standard::SetConfiguration(configuration) => Body::SetConfiguration(configuration),
                Standard::GetConfiguration => Body::GetConfiguration,
                Standard::SetInterface { interface, alternate } => {
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
            Request::Interrupt { payload: Payload::In(_), .. } => {
                return self.receive(id, address, bytes);
            }
            Request::Interrupt { payload: Payload::Out(data), .. } => {
                let Ok(length) = u16::try_from(data.len()) else {
                    return vec![Effect::Complete(id, Status::Error, Answer::Out(0))];
                };
                let status = RemoteStatus::Success;
                Body::Interrupt(Interrupt { endpoint: address, status, length, data })
            }
        };
        self.asked.insert(id.number(), Asked { bytes, from_device });
        vec![Effect::Send(Packet { id: id.number(), body })]
    }

    fn receive(&mut self, id: TransferId, address: u8, bytes: usize) -> Vec<Effect> {
        let receiving = self.receiving.entry(address).or_default();
        if let Some((status, data)) = receiving.early.pop_front() {
            return vec![received(id, bytes, status, data)];
        }
        receiving.waiting = Some((id, bytes));
        if std::mem::replace(&mut receiving.started, true) {
            return Vec::new();
        }
        let body = Body::StartInterruptReceiving { endpoint: address };
        vec![Effect::Send(Packet { id: id.number(), body })]
    }

    /// The guest no longer wants a transfer.
    pub(super) fn cancel(&mut self, id: TransferId) -> Vec<Effect> {
        for receiving in self.receiving.values_mut() {
            receiving.waiting.take_if(|(waiting, _)| *waiting == id);
        }
        if self.asked.remove(&id.number()).is_none() {
            return Vec::new();
        }
        vec![Effect::Send(Packet { id: id.number(), body: Body::CancelDataPacket })]
    }

    /// The guest stopped or removed an endpoint.
    pub(super) fn stopped(&mut self, endpoint: EndpointAddress) -> Vec<Effect> {
        let endpoint = endpoint.byte();
        match self.receiving.remove(&endpoint) {
            Some(Receiving { started: true, .. }) => {
                vec![Effect::Send(Packet {
                    id: 0,
                    body: Body::StopInterruptReceiving { endpoint },
                })]
            }
            _ => Vec::new(),
        }
    }

    /// The guest resets the device.
    pub(super) fn reset(&mut self) -> Vec<Effect> {
        if !self.there {
            return Vec::new();
        }
        vec![Effect::Send(Packet { id: 0, body: Body::Reset })]
    }

    /// The device is gone, or the stream that led to it.
    pub(super) fn gone(&mut self) -> Vec<Effect> {
        // The controller forgets the transfers of a device that is detached.
        let there = self.there;
        *self = Self::default();
        if there { vec![Effect::Detach] } else { Vec::new() }
    }

    /// A packet came.
    pub(super) fn arrived(&mut self, packet: Packet) -> Result<Vec<Effect>, Broken> {
        let Packet { id, body } = packet;
        Ok(match body {
            Body::DeviceConnect(device) => {
                if std::mem::replace(&mut self.there, true) {
                    return Err(Broken::SecondDevice);
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
                } else {
                    self.interrupt(endpoint, status, data)
                }
            }
            Body::InterruptReceivingStatus { status, endpoint } => {
                if status == RemoteStatus::Success {
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
        let id = TransferId::from_number(id);
        if asked.from_device {
            return vec![received(id, asked.bytes, status(how), data)];
        }
        let most = u32::try_from(asked.bytes).unwrap_or(u32::MAX);
        // A request without data, such as SET_CONFIGURATION, moves none.
        vec![Effect::Complete(id, status(how), Answer::Out(length.min(most)))]
    }

    fn interrupt(&mut self, endpoint: u8, how: RemoteStatus, data: Vec<u8>) -> Vec<Effect> {
        let Some(receiving) = self.receiving.get_mut(&endpoint) else { return Vec::new() };
        match receiving.waiting.take() {
            Some((id, bytes)) => vec![received(id, bytes, status(how), data)],
            None => {
                if receiving.early.len() < EARLY_MAX {
                    receiving.early.push_back((status(how), data));
                }
                Vec::new()
            }
        }
    }
}

/// Data for a transfer that wanted so many bytes at most.
fn received(id: TransferId, most: usize, status: Status, mut data: Vec<u8>) -> Effect {
    if data.len() > most {
        data.truncate(most);
        return Effect::Complete(id, Status::Babble, Answer::In(data));
    }
    Effect::Complete(id, status, Answer::In(data))
}

#[cfg(test)]
mod tests;
