//! Packets from bytes.

use super::{Capabilities, Error, Role, VERSION, agrees, capability, kind};
use crate::packet::{
    Body, Bulk, Control, DeviceConnect, ENDPOINTS, EndpointInfo, EndpointType, INTERFACES,
    Interface, Interrupt, Speed, Status,
};

/// The fields of a packet, read off its bytes; 0 beyond their end, which [`check`](super::check) has ruled out.
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

/// Returns how a data packet says it ended. In a request the field means nothing, and QEMU's guest end leaves what was there before.
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

/// Reads the body of a packet of which [`check`](super::check) knows type and length. `None`: it says nothing that matters here.
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
