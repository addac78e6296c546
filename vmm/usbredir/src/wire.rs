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

use crate::packet::{
    Body, Bulk, Control, DeviceConnect, ENDPOINTS, EndpointInfo, EndpointType, INTERFACES,
    Interface, Interrupt, MAX_DATA, Packet, Speed, Status,
};

/// Numbers of packet types.
pub mod kind {
    /// Who I am.
    pub const HELLO: u32 = 0;
    /// A device is there.
    pub const DEVICE_CONNECT: u32 = 1;
    /// It is gone.
    pub const DEVICE_DISCONNECT: u32 = 2;
    /// Reset it.
    pub const RESET: u32 = 3;
    /// Its interfaces.
    pub const INTERFACE_INFO: u32 = 4;
    /// Its endpoints.
    pub const EP_INFO: u32 = 5;
    /// Choose a configuration.
    pub const SET_CONFIGURATION: u32 = 6;
    /// Which configuration?
    pub const GET_CONFIGURATION: u32 = 7;
    /// This one.
    pub const CONFIGURATION_STATUS: u32 = 8;
    /// Choose an alternate setting.
    pub const SET_ALT_SETTING: u32 = 9;
    /// Which alternate setting?
    pub const GET_ALT_SETTING: u32 = 10;
    /// This one.
    pub const ALT_SETTING_STATUS: u32 = 11;
    /// Begin to poll.
    pub const START_INTERRUPT_RECEIVING: u32 = 15;
    /// Poll no longer.
    pub const STOP_INTERRUPT_RECEIVING: u32 = 16;
    /// How polling is.
    pub const INTERRUPT_RECEIVING_STATUS: u32 = 17;
    /// Cancel a transfer.
    pub const CANCEL_DATA_PACKET: u32 = 21;
    /// The guest's end does not want the device.
    pub const FILTER_REJECT: u32 = 22;
    /// What the guest's end would want.
    pub const FILTER_FILTER: u32 = 23;
    /// Understood that it is gone.
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

/// Capabilities as bits.
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

    /// Whether a bit is set.
    #[must_use]
    pub const fn has(self, bit: u32) -> bool {
        self.0 >> bit & 1 == 1
    }

    /// What both have.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// Which end of the stream somebody is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Has the device.
    Host,
    /// Uses it.
    Guest,
}

/// Why a stream cannot be followed any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Before anything else comes a hello.
    #[error("a packet of type {0} before the hello")]
    NoHello(u32),
    /// Only one.
    #[error("a second hello")]
    SecondHello,
    /// Not one that is spoken here, or not by this end.
    #[error("a packet of type {0}, which the other end has no business to send")]
    Unexpected(u32),
    /// Too long or too short for its type.
    #[error("a packet of type {kind} with {length} bytes")]
    Length {
        /// Its type.
        kind: u32,
        /// What its header claims.
        length: u32,
    },
    /// A number without a meaning in one of its fields.
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
    /// Bytes before data.
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

/// Type and length of a packet that may come from `from`.
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

/// Reads fields off a packet's bytes; 0 beyond their end, which [`check`] has ruled out.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn u8(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    fn u16(&mut self) -> u16 {
        self.take(2).try_into().map(u16::from_le_bytes).unwrap_or_default()
    }

    fn u32(&mut self) -> u32 {
        self.take(4).try_into().map(u32::from_le_bytes).unwrap_or_default()
    }
}

/// How a data packet says it ended. In a request the field means nothing, and QEMU's guest end leaves what was there before.
fn outcome(byte: u8, from: Role) -> Option<Status> {
    if from == Role::Guest { Some(Status::Success) } else { status(byte) }
}

fn status(byte: u8) -> Option<Status> {
    Some(match byte {
        0 => Status::Success,
        1 => Status::Cancelled,
        2 => Status::Invalid,
        3 => Status::IoError,
        4 => Status::Stall,
        5 => Status::Timeout,
        6 => Status::Babble,
        _ => return None,
    })
}

fn speed(byte: u8) -> Option<Speed> {
    Some(match byte {
        0 => Speed::Low,
        1 => Speed::Full,
        2 => Speed::High,
        3 => Speed::Super,
        255 => Speed::Unknown,
        _ => return None,
    })
}

fn endpoint_type(byte: u8) -> Option<EndpointType> {
    Some(match byte {
        0 => EndpointType::Control,
        1 => EndpointType::Isochronous,
        2 => EndpointType::Bulk,
        3 => EndpointType::Interrupt,
        255 => EndpointType::Invalid,
        _ => return None,
    })
}

/// The body of a packet of which [`check`] knows type and length. `None`: it says nothing that matters here.
pub(crate) fn decode(
    kind: u32,
    bytes: &[u8],
    from: Role,
    caps: Capabilities,
) -> Result<Option<Body>, Error> {
    let field = || Error::Field(kind);
    let mut fields = Fields(bytes);
    let body = match kind {
        kind::HELLO => {
            let version = fields.take(VERSION);
            let end = version.iter().position(|byte| *byte == 0).unwrap_or(VERSION);
            let version = String::from_utf8_lossy(version.get(..end).unwrap_or_default());
            let version = version.chars().filter(|c| !c.is_control()).collect();
            let capabilities = fields.0.chunks_exact(4).map(|word| Fields(word).u32()).collect();
            Body::Hello { version, capabilities }
        }
        kind::DEVICE_CONNECT => Body::DeviceConnect(DeviceConnect {
            speed: speed(fields.u8()).ok_or_else(field)?,
            class: fields.u8(),
            subclass: fields.u8(),
            protocol: fields.u8(),
            vendor: fields.u16(),
            product: fields.u16(),
            version: fields.u16(),
        }),
        kind::DEVICE_DISCONNECT => Body::DeviceDisconnect,
        kind::DEVICE_DISCONNECT_ACK => Body::DeviceDisconnectAck,
        kind::RESET => Body::Reset,
        kind::INTERFACE_INFO => {
            interfaces(&mut fields).map(Body::InterfaceInfo).ok_or_else(field)?
        }
        kind::EP_INFO => Body::EndpointInfo(endpoints(&mut fields).ok_or_else(field)?),
        kind::SET_CONFIGURATION => Body::SetConfiguration(fields.u8()),
        kind::GET_CONFIGURATION => Body::GetConfiguration,
        kind::CONFIGURATION_STATUS => Body::ConfigurationStatus {
            status: status(fields.u8()).ok_or_else(field)?,
            configuration: fields.u8(),
        },
        kind::SET_ALT_SETTING => {
            Body::SetAltSetting { interface: fields.u8(), alternate: fields.u8() }
        }
        kind::GET_ALT_SETTING => Body::GetAltSetting { interface: fields.u8() },
        kind::ALT_SETTING_STATUS => Body::AltSettingStatus {
            status: status(fields.u8()).ok_or_else(field)?,
            interface: fields.u8(),
            alternate: fields.u8(),
        },
        kind::START_INTERRUPT_RECEIVING => Body::StartInterruptReceiving { endpoint: fields.u8() },
        kind::STOP_INTERRUPT_RECEIVING => Body::StopInterruptReceiving { endpoint: fields.u8() },
        kind::INTERRUPT_RECEIVING_STATUS => Body::InterruptReceivingStatus {
            status: status(fields.u8()).ok_or_else(field)?,
            endpoint: fields.u8(),
        },
        kind::CANCEL_DATA_PACKET => Body::CancelDataPacket,
        kind::CONTROL_PACKET => Body::Control(Control {
            endpoint: fields.u8(),
            request: fields.u8(),
            request_type: fields.u8(),
            status: outcome(fields.u8(), from).ok_or_else(field)?,
            value: fields.u16(),
            index: fields.u16(),
            length: fields.u16(),
            data: fields.0.to_vec(),
        }),
        kind::BULK_PACKET => {
            let (endpoint, status) = (fields.u8(), outcome(fields.u8(), from).ok_or_else(field)?);
            let (low, stream) = (fields.u16(), fields.u32());
            let high = if caps.has(capability::BULK_LENGTH_32_BITS) { fields.u16() } else { 0 };
            let length = u32::from(low) | u32::from(high) << 16;
            Body::Bulk(Bulk { endpoint, status, length, stream, data: fields.0.to_vec() })
        }
        kind::INTERRUPT_PACKET => Body::Interrupt(Interrupt {
            endpoint: fields.u8(),
            status: outcome(fields.u8(), from).ok_or_else(field)?,
            length: fields.u16(),
            data: fields.0.to_vec(),
        }),
        _ => return Ok(None),
    };
    if agrees(&body, from) { Ok(Some(body)) } else { Err(field()) }
}

/// Data goes one way, and there is as much as the length says.
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

fn interfaces(fields: &mut Fields<'_>) -> Option<Vec<Interface>> {
    let count = usize::try_from(fields.u32()).ok().filter(|count| *count <= INTERFACES)?;
    let [numbers, classes, subclasses, protocols] =
        std::array::from_fn(|_| fields.take(INTERFACES));
    let interfaces = numbers.iter().zip(classes).zip(subclasses).zip(protocols).take(count);
    Some(
        interfaces
            .map(|(((number, class), subclass), protocol)| Interface {
                number: *number,
                class: *class,
                subclass: *subclass,
                protocol: *protocol,
            })
            .collect(),
    )
}

fn endpoints(fields: &mut Fields<'_>) -> Option<Box<[EndpointInfo; ENDPOINTS]>> {
    let [kinds, intervals, interfaces] = std::array::from_fn(|_| fields.take(ENDPOINTS));
    let mut endpoints = Box::new([EndpointInfo::default(); ENDPOINTS]);
    let told = kinds.iter().zip(intervals).zip(interfaces);
    for (place, ((kind, interval), interface)) in endpoints.iter_mut().zip(told) {
        let kind = endpoint_type(*kind)?;
        let (interval, interface) = (*interval, *interface);
        *place = EndpointInfo { kind, interval, interface, max_packet_size: fields.u16() };
    }
    Some(endpoints)
}

/// The type of a packet with this body.
pub(crate) fn kind_of(body: &Body) -> u32 {
    match body {
        Body::Hello { .. } => kind::HELLO,
        Body::DeviceConnect(_) => kind::DEVICE_CONNECT,
        Body::DeviceDisconnect => kind::DEVICE_DISCONNECT,
        Body::DeviceDisconnectAck => kind::DEVICE_DISCONNECT_ACK,
        Body::Reset => kind::RESET,
        Body::InterfaceInfo(_) => kind::INTERFACE_INFO,
        Body::EndpointInfo(_) => kind::EP_INFO,
        Body::SetConfiguration(_) => kind::SET_CONFIGURATION,
        Body::GetConfiguration => kind::GET_CONFIGURATION,
        Body::ConfigurationStatus { .. } => kind::CONFIGURATION_STATUS,
        Body::SetAltSetting { .. } => kind::SET_ALT_SETTING,
        Body::GetAltSetting { .. } => kind::GET_ALT_SETTING,
        Body::AltSettingStatus { .. } => kind::ALT_SETTING_STATUS,
        Body::StartInterruptReceiving { .. } => kind::START_INTERRUPT_RECEIVING,
        Body::StopInterruptReceiving { .. } => kind::STOP_INTERRUPT_RECEIVING,
        Body::InterruptReceivingStatus { .. } => kind::INTERRUPT_RECEIVING_STATUS,
        Body::CancelDataPacket => kind::CANCEL_DATA_PACKET,
        Body::Control(_) => kind::CONTROL_PACKET,
        Body::Bulk(_) => kind::BULK_PACKET,
        Body::Interrupt(_) => kind::INTERRUPT_PACKET,
    }
}

/// The packet's bytes.
///
/// # Errors
/// It is longer than the other end takes, or its data goes the wrong way.
pub(crate) fn encode(
    packet: &Packet,
    from: Role,
    caps: Capabilities,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let kind = kind_of(&packet.body);
    let refused = Error::CannotSend(kind);
    if !agrees(&packet.body, from) {
        return Err(refused);
    }
    let (head, data) = body(&packet.body, caps).ok_or(refused)?;
    let length = u32::try_from(head.len() + data.len()).map_err(|_| refused)?;
    check(kind, length, from, caps).map_err(|_| refused)?;
    out.extend(kind.to_le_bytes());
    out.extend(length.to_le_bytes());
    // A hello comes before capabilities are known.
    if caps.has(capability::IDS_64_BITS) && kind != kind::HELLO {
        out.extend(packet.id.to_le_bytes());
    } else {
        out.extend(u32::try_from(packet.id).map_err(|_| refused)?.to_le_bytes());
    }
    out.extend_from_slice(&head);
    out.extend_from_slice(data);
    Ok(())
}

/// A type's own header, and data.
fn body(body: &Body, caps: Capabilities) -> Option<(Vec<u8>, &[u8])> {
    let mut head = Vec::new();
    let mut data: &[u8] = &[];
    match body {
        Body::Hello { version, capabilities } => {
            let end = version.floor_char_boundary(VERSION - 1);
            head.extend(version.bytes().take(end));
            head.resize(VERSION, 0);
            capabilities.iter().for_each(|word| head.extend(word.to_le_bytes()));
        }
        Body::DeviceConnect(device) => {
            head.extend([device.speed as u8, device.class, device.subclass, device.protocol]);
            head.extend(device.vendor.to_le_bytes());
            head.extend(device.product.to_le_bytes());
            if caps.has(capability::CONNECT_DEVICE_VERSION) {
                head.extend(device.version.to_le_bytes());
            }
        }
        Body::InterfaceInfo(interfaces) => {
            if interfaces.len() > INTERFACES {
                return None;
            }
            head.extend(u32::try_from(interfaces.len()).ok()?.to_le_bytes());
            let column = |of: fn(&Interface) -> u8| {
                let mut column = [0; INTERFACES];
                column.iter_mut().zip(interfaces).for_each(|(place, one)| *place = of(one));
                column
            };
            head.extend(column(|interface| interface.number));
            head.extend(column(|interface| interface.class));
            head.extend(column(|interface| interface.subclass));
            head.extend(column(|interface| interface.protocol));
        }
        Body::EndpointInfo(endpoints) => {
            head.extend(endpoints.iter().map(|endpoint| endpoint.kind as u8));
            head.extend(endpoints.iter().map(|endpoint| endpoint.interval));
            head.extend(endpoints.iter().map(|endpoint| endpoint.interface));
            if caps.has(capability::EP_INFO_MAX_PACKET_SIZE) {
                let sizes = endpoints.iter().map(|endpoint| endpoint.max_packet_size);
                head.extend(sizes.flat_map(u16::to_le_bytes));
            }
        }
        Body::SetConfiguration(configuration) => head.push(*configuration),
        Body::ConfigurationStatus { status, configuration } => {
            head.extend([*status as u8, *configuration]);
        }
        Body::SetAltSetting { interface, alternate } => head.extend([*interface, *alternate]),
        Body::GetAltSetting { interface } => head.push(*interface),
        Body::AltSettingStatus { status, interface, alternate } => {
            head.extend([*status as u8, *interface, *alternate]);
        }
        Body::StartInterruptReceiving { endpoint } | Body::StopInterruptReceiving { endpoint } => {
            head.push(*endpoint);
        }
        Body::InterruptReceivingStatus { status, endpoint } => {
            head.extend([*status as u8, *endpoint]);
        }
        Body::Control(packet) => {
            head.extend([
                packet.endpoint,
                packet.request,
                packet.request_type,
                packet.status as u8,
            ]);
            [packet.value, packet.index, packet.length]
                .iter()
                .for_each(|half| head.extend(half.to_le_bytes()));
            data = &packet.data;
        }
        Body::Bulk(packet) => {
            let [l0, l1, l2, l3] = packet.length.to_le_bytes();
            head.extend([packet.endpoint, packet.status as u8, l0, l1]);
            head.extend(packet.stream.to_le_bytes());
            if caps.has(capability::BULK_LENGTH_32_BITS) {
                head.extend([l2, l3]);
            } else if l2 != 0 || l3 != 0 {
                return None;
            }
            data = &packet.data;
        }
        Body::Interrupt(packet) => {
            head.extend([packet.endpoint, packet.status as u8]);
            head.extend(packet.length.to_le_bytes());
            data = &packet.data;
        }
        Body::DeviceDisconnect
        | Body::DeviceDisconnectAck
        | Body::Reset
        | Body::GetConfiguration
        | Body::CancelDataPacket => {}
    }
    Some((head, data))
}
