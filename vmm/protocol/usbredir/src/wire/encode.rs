//! Bytes of packets.

use super::{Capabilities, Error, Role, VERSION, agrees, capability, check, kind};
use crate::packet::{Body, INTERFACES, Interface, Packet};

/// Returns the type of a packet with this body.
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

/// Writes the packet's bytes.
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

/// Writes a type's own header, and data.
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
