//! Packets as bytes: usbredir 0.7, all little-endian and packed.
//!
//! ```text
//!  header: type u32, length u32, id u32 | u64     then `length` bytes: the type's own header, then data
//! ```
//! | capability | what it changes |
//! | --- | --- |
//! | `64bits_ids` | the header's id has 8 bytes |
//! | `connect_device_version` | device_connect ends with `bcdDevice` |
//! | `ep_info_max_packet_size` | ep_info ends with 32 `wMaxPacketSize` |
//! | `32bits_bulk_length` | bulk_packet ends with the length's upper half |

mod decode;
mod encode;

pub(crate) use decode::decode;
pub(crate) use encode::{encode, kind_of};

use crate::packet::{Body, ENDPOINTS, INTERFACES, MAX_DATA};

/// Numbers of packet types.
pub mod kind {
    /// Announces an end: its version and its capabilities.
    pub const HELLO: u32 = 0;
    /// Announces that a device is there.
    pub const DEVICE_CONNECT: u32 = 1;
    /// Announces that the device is gone.
    pub const DEVICE_DISCONNECT: u32 = 2;
    /// Resets the device.
    pub const RESET: u32 = 3;
    /// Lists the device's interfaces.
    pub const INTERFACE_INFO: u32 = 4;
    /// Lists the device's endpoints.
    pub const EP_INFO: u32 = 5;
    /// Chooses a configuration.
    pub const SET_CONFIGURATION: u32 = 6;
    /// Asks which configuration is set.
    pub const GET_CONFIGURATION: u32 = 7;
    /// Answers which configuration is set.
    pub const CONFIGURATION_STATUS: u32 = 8;
    /// Chooses an alternate setting.
    pub const SET_ALT_SETTING: u32 = 9;
    /// Asks which alternate setting is set.
    pub const GET_ALT_SETTING: u32 = 10;
    /// Answers which alternate setting is set.
    pub const ALT_SETTING_STATUS: u32 = 11;
    /// Begins to poll an interrupt endpoint.
    pub const START_INTERRUPT_RECEIVING: u32 = 15;
    /// Stops polling an interrupt endpoint.
    pub const STOP_INTERRUPT_RECEIVING: u32 = 16;
    /// Answers whether an interrupt endpoint is polled.
    pub const INTERRUPT_RECEIVING_STATUS: u32 = 17;
    /// Cancels the transfer with the packet's ID.
    pub const CANCEL_DATA_PACKET: u32 = 21;
    /// Says that the guest's end does not want the device.
    pub const FILTER_REJECT: u32 = 22;
    /// Says which devices the guest's end would want.
    pub const FILTER_FILTER: u32 = 23;
    /// Acknowledges that the device is gone.
    pub const DEVICE_DISCONNECT_ACK: u32 = 24;
    /// A control transfer.
    pub const CONTROL_PACKET: u32 = 100;
    /// A bulk transfer.
    pub const BULK_PACKET: u32 = 101;
    /// Interrupt data.
    pub const INTERRUPT_PACKET: u32 = 103;
}

/// Bits of the capability words.
pub mod capability {
    /// device_connect has `bcdDevice`.
    pub const CONNECT_DEVICE_VERSION: u32 = 1;
    /// A disconnect is acknowledged.
    pub const DEVICE_DISCONNECT_ACK: u32 = 3;
    /// ep_info has `wMaxPacketSize`.
    pub const EP_INFO_MAX_PACKET_SIZE: u32 = 4;
    /// IDs have 64 bits.
    pub const IDS_64_BITS: u32 = 5;
    /// Bulk packets may have 64 KiB and more.
    pub const BULK_LENGTH_32_BITS: u32 = 6;
}

/// The bits of an end's first capability word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(pub u32);

impl Capabilities {
    /// What both of our ends offer. Not: bulk streams, filters, buffered bulk receiving.
    pub const OURS: Self = Self(
        1 << capability::CONNECT_DEVICE_VERSION
            | 1 << capability::DEVICE_DISCONNECT_ACK
            | 1 << capability::EP_INFO_MAX_PACKET_SIZE
            | 1 << capability::IDS_64_BITS
            | 1 << capability::BULK_LENGTH_32_BITS,
    );

    /// Returns whether a bit is set.
    #[must_use]
    pub const fn has(self, bit: u32) -> bool {
        self.0 >> bit & 1 == 1
    }

    /// Returns the capabilities that both ends have.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// Which end of the stream somebody is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The end that has the device.
    Host,
    /// The end that uses the device.
    Guest,
}

/// Why a stream cannot be followed any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Before anything else comes a hello.
    #[error("a packet of type {0} before the hello")]
    NoHello(u32),
    /// A second hello came.
    #[error("a second hello")]
    SecondHello,
    /// A packet has a type that is not spoken here, or not by this end.
    #[error("a packet of type {0}, which the other end has no business to send")]
    Unexpected(u32),
    /// A packet is too long or too short for its type.
    #[error("a packet of type {kind} with {length} bytes")]
    Length {
        /// The type in the header.
        kind: u32,
        /// What its header claims.
        length: u32,
    },
    /// A packet has a number without a meaning in one of its fields.
    #[error("a packet of type {0} with a field out of range")]
    Field(u32),
    /// A packet that cannot be sent as things are: too long, or not yet.
    #[error("a packet of type {0} cannot be sent")]
    CannotSend(u32),
}

/// Bytes of a hello's version.
const VERSION: usize = 64;
/// Capability words of a hello that are allowed; more come with no version of the protocol.
const WORDS_MAX: usize = 16;
/// Bytes of the longest filter that is skipped.
const FILTER_MAX: usize = 4096;

/// Shape of a type's own header under capabilities, and who sends it.
struct Shape {
    /// Bytes of the type's own header.
    fixed: usize,
    /// Most bytes of data.
    data: usize,
    from_host: bool,
    from_guest: bool,
}

fn shape(kind: u32, caps: Capabilities) -> Option<Shape> {
    let both = |fixed, data| Shape { fixed, data, from_host: true, from_guest: true };
    let host = |fixed| Shape { fixed, data: 0, from_host: true, from_guest: false };
    let guest = |fixed| Shape { fixed, data: 0, from_host: false, from_guest: true };
    let when = |bit, bytes| if caps.has(bit) { bytes } else { 0 };
    Some(match kind {
        kind::HELLO => both(VERSION, WORDS_MAX * 4),
        kind::DEVICE_CONNECT => host(8 + when(capability::CONNECT_DEVICE_VERSION, 2)),
        kind::DEVICE_DISCONNECT => host(0),
        kind::DEVICE_DISCONNECT_ACK | kind::RESET | kind::GET_CONFIGURATION => guest(0),
        kind::INTERFACE_INFO => host(4 + 4 * INTERFACES),
        kind::EP_INFO => {
            host(3 * ENDPOINTS + when(capability::EP_INFO_MAX_PACKET_SIZE, 2 * ENDPOINTS))
        }
        kind::SET_CONFIGURATION
        | kind::GET_ALT_SETTING
        | kind::START_INTERRUPT_RECEIVING
        | kind::STOP_INTERRUPT_RECEIVING => guest(1),
        kind::SET_ALT_SETTING => guest(2),
        kind::CONFIGURATION_STATUS | kind::INTERRUPT_RECEIVING_STATUS => host(2),
        kind::ALT_SETTING_STATUS => host(3),
        kind::CANCEL_DATA_PACKET => guest(0),
        kind::FILTER_REJECT => guest(0),
        kind::FILTER_FILTER => both(0, FILTER_MAX),
        kind::CONTROL_PACKET => both(10, MAX_DATA),
        kind::BULK_PACKET => both(8 + when(capability::BULK_LENGTH_32_BITS, 2), MAX_DATA),
        kind::INTERRUPT_PACKET => both(4, MAX_DATA),
        _ => return None,
    })
}

/// Checks type and length of a packet that may come from `from`.
pub(crate) fn check(
    kind: u32,
    length: u32,
    from: Role,
    caps: Capabilities,
) -> Result<usize, Error> {
    let shape = shape(kind, caps).ok_or(Error::Unexpected(kind))?;
    let allowed = if from == Role::Host { shape.from_host } else { shape.from_guest };
    if !allowed {
        return Err(Error::Unexpected(kind));
    }
    let bytes = usize::try_from(length).map_err(|_| Error::Length { kind, length })?;
    if bytes < shape.fixed || bytes > shape.fixed + shape.data {
        return Err(Error::Length { kind, length });
    }
    Ok(bytes)
}

/// Checks that data goes one way, and that there is as much as the length says.
fn agrees(body: &Body, from: Role) -> bool {
    let (endpoint, length, data) = match body {
        // The endpoint's direction is the request's (bmRequestType, bit 7): whoever looks at one must not be told another by the other.
        Body::Control(packet) if (packet.endpoint ^ packet.request_type) & 0x80 != 0 => {
            return false;
        }
        Body::Control(packet) => (packet.endpoint, u32::from(packet.length), &packet.data),
        Body::Bulk(packet) => (packet.endpoint, packet.length, &packet.data),
        Body::Interrupt(packet) => (packet.endpoint, u32::from(packet.length), &packet.data),
        _ => return true,
    };
    let towards_device = endpoint & 0x80 == 0;
    if towards_device == (from == Role::Guest) {
        usize::try_from(length) == Ok(data.len())
    } else {
        data.is_empty() && usize::try_from(length).is_ok_and(|length| length <= MAX_DATA)
    }
}
