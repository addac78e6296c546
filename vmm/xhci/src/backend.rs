//! What is behind the ports: the devices, as the controller sees them.
//!
//! ```text
//!  guest's ring -> Controller --Backend::submit(Transfer)--> device (a stream to wherever it is)
//!                      ^---------- Controller::complete(id, status, moved) ----------'
//! ```
//! One transfer at a time is with the backend for each endpoint, so an error stops an endpoint before
//! anything behind the error is tried, as the specification has it (4.10.2).

use crate::spec::request;

/// A root hub port, counted from 1 as the guest counts: first those of USB 2, then those of USB 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub(crate) u8);

impl PortId {
    /// Makes the port of this number, from 1; there may be none.
    pub fn new(number: u8) -> Self {
        Self(number)
    }

    /// Returns the number, from 1.
    pub fn number(self) -> u8 {
        self.0
    }
}

/// How fast a device is (7.2.2.1.1, default speed IDs).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speed {
    /// 12 Mbit/s.
    Full = 1,
    /// 1.5 Mbit/s.
    Low = 2,
    /// 480 Mbit/s.
    High = 3,
    /// 5 Gbit/s and more.
    Super = 4,
}

/// Names one transfer; never used twice in the life of a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransferId(pub(crate) u64);

impl TransferId {
    /// Returns the ID as a number, for a protocol that has 64-bit IDs.
    pub fn number(self) -> u64 {
        self.0
    }

    /// Makes the ID from what [`TransferId::number`] gave; any other number names nothing.
    pub fn from_number(number: u64) -> Self {
        Self(number)
    }
}

/// `bEndpointAddress` (USB 2.0 section 9.6.6): number in bits 3:0, towards the host if bit 7 is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointAddress(pub(crate) u8);

impl EndpointAddress {
    /// Makes the address from its byte in a descriptor.
    pub fn new(byte: u8) -> Self {
        Self(byte)
    }

    /// Returns the byte that a descriptor has for it. The default control endpoint is 0 here.
    pub fn byte(self) -> u8 {
        self.0
    }

    /// Returns whether data comes from the device. Of a control transfer its payload tells.
    pub fn is_in(self) -> bool {
        self.0 & 0x80 != 0
    }
}

/// The eight bytes of a setup packet (USB 2.0 section 9.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// `bmRequestType`.
    pub request_type: u8,
    /// `bRequest`.
    pub request: u8,
    /// `wValue`.
    pub value: u16,
    /// `wIndex`.
    pub index: u16,
    /// `wLength`: exactly as many bytes as the payload has or asks for.
    pub length: u16,
}

impl Setup {
    pub(crate) fn from_bytes(bytes: [u8; 8]) -> Self {
        let [request_type, request, v0, v1, i0, i1, l0, l1] = bytes;
        Self {
            request_type,
            request,
            value: u16::from_le_bytes([v0, v1]),
            index: u16::from_le_bytes([i0, i1]),
            length: u16::from_le_bytes([l0, l1]),
        }
    }

    /// Returns whether the device is to send data.
    pub fn is_in(&self) -> bool {
        self.request_type & 0x80 != 0
    }

    /// Returns which of the requests this is that whoever is between guest and device has to know about.
    pub fn standard(&self) -> Standard {
        let [value, _] = self.value.to_le_bytes();
        let [index, _] = self.index.to_le_bytes();
        match (self.request_type, self.request) {
            (0x00, request::SET_ADDRESS) => Standard::SetAddress,
            (0x00, request::SET_CONFIGURATION) => Standard::SetConfiguration(value),
            (0x80, request::GET_CONFIGURATION) => Standard::GetConfiguration,
            (0x01, request::SET_INTERFACE) => {
                Standard::SetInterface { interface: index, alternate: value }
            }
            (0x81, request::GET_INTERFACE) => Standard::GetInterface { interface: index },
            (0x02, request::CLEAR_FEATURE) if self.value == 0 => {
                Standard::ClearHalt(EndpointAddress(index))
            }
            _ => Standard::Other,
        }
    }
}

/// A standard request that the controller takes part in; see [`Setup::standard`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standard {
    /// Never submitted: the controller alone gives addresses (4.6.5).
    SetAddress,
    /// Choose the configuration with this `bConfigurationValue`.
    SetConfiguration(u8),
    /// Which configuration is chosen; one byte.
    GetConfiguration,
    /// Choose an interface's alternate setting.
    SetInterface {
        /// `bInterfaceNumber`.
        interface: u8,
        /// `bAlternateSetting`.
        alternate: u8,
    },
    /// Which alternate setting is chosen; one byte.
    GetInterface {
        /// `bInterfaceNumber`.
        interface: u8,
    },
    /// Take an endpoint's halt away.
    ClearHalt(EndpointAddress),
    /// Any other, for the device.
    Other,
}

/// The data of a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// To the device; at most [`CHUNK_BYTES`](crate::spec::CHUNK_BYTES), possibly none.
    Out(Vec<u8>),
    /// From the device, at most so many bytes; no more than
    /// [`CHUNK_BYTES`](crate::spec::CHUNK_BYTES), possibly 0.
    In(u32),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A whole control transfer, setup to status stage.
    Control {
        /// The eight bytes of the setup stage.
        setup: Setup,
        /// The data stage; `Out` with nothing where there is none.
        payload: Payload,
    },
    /// Bulk data. A guest's transfer larger than a chunk comes as several of these, each but the last
    /// a whole number of packets.
    Bulk(Payload),
    /// Data of an interrupt endpoint.
    Interrupt {
        /// The data that go out, or the room for those that come in.
        payload: Payload,
        /// How often the device is to be asked, in microseconds.
        interval: u32,
        /// Bytes of a packet, 1 to 1024: a shorter one ends the transfer.
        packet: u32,
    },
}

impl Request {
    /// Returns the data, whatever the kind.
    pub fn payload(&self) -> &Payload {
        match self {
            Self::Control { payload, .. }
            | Self::Bulk(payload)
            | Self::Interrupt { payload, .. } => payload,
        }
    }
}

/// One transfer between the guest and a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// By which it is completed or cancelled.
    pub id: TransferId,
    /// Where the device is.
    pub port: PortId,
    /// Which endpoint of it; 0 for the default control endpoint.
    pub endpoint: EndpointAddress,
    /// What the device is to do.
    pub request: Request,
}

/// How a transfer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Well, with all or (towards the host) fewer bytes than asked for.
    Success,
    /// The endpoint answered with a STALL, or the request was refused on the device's behalf.
    Stall,
    /// The device sent more than was asked for.
    Babble,
    /// It did not answer, or not properly; also if somebody other than the guest cancelled it.
    Error,
    /// Ended by [`Backend::stop`], after what it moved.
    Stopped,
}

/// What a transfer moved.
#[derive(Clone, Debug)]
pub enum Moved {
    /// This came from the device.
    In(Vec<u8>),
    /// So many bytes went to the device.
    Out(u32),
}

/// The devices. The controller calls, under the lock that is around it: nothing here may block, nor
/// call the controller back. The order of the calls for one port is the order of what is to happen.
pub trait Backend: Send {
    /// Starts a transfer. It ends with one [`Controller::complete`](crate::Controller::complete),
    /// unless it is cancelled or its device detached first; then a completion is welcome but ignored.
    fn submit(&mut self, transfer: Transfer);

    /// Stops this transfer, as the guest stops its endpoint and has to know how much of it was moved:
    /// bytes that went to the device are not to go again, and what came from it is not to be lost. The
    /// transfer has to end soon, with one [`Controller::complete`](crate::Controller::complete): with
    /// [`Status::Stopped`] if this is why it ended. A control transfer, of which there is no half, is to
    /// be left to its own end. The controller waits [`STOP_WAIT`](crate::spec::STOP_WAIT), and no longer.
    fn stop(&mut self, id: TransferId);

    /// Cancels this transfer, which the guest no longer wants, whatever it moved; the controller has forgotten it.
    fn cancel(&mut self, id: TransferId);

    /// Resets the device at `port` for the guest. The guest sees the reset end at once; what is
    /// submitted from now on has to come after it.
    fn reset_port(&mut self, port: PortId);

    /// Called when the guest stopped or removed an endpoint: no transfer is submitted for it until
    /// the guest starts it again. For a backend that fetches interrupt data ahead; by default
    /// nothing.
    fn endpoint_stopped(&mut self, port: PortId, endpoint: EndpointAddress) {
        let _ = (port, endpoint);
    }
}

/// The line to the guest's interrupt controller.
pub trait Interrupt: Send {
    /// Raises the interrupter's interrupt. Returns whether a message was sent (or waits in a masked
    /// vector): the pending bit then clears itself (4.17.5). `false` without MSI-X.
    fn raise(&self) -> bool;
}
