//! What the guest's end is told of the device: its interfaces, its endpoints, and what it is.

use nusb::descriptors::TransferType;
use usbredir::Body;
use usbredir::packet::{
    self, DeviceConnect, ENDPOINTS, EndpointInfo, EndpointType, Interface, endpoint_index,
};

use super::Export;

impl Export {
    /// Announces interfaces, endpoints and the device to the guest's end.
    pub(super) fn introduce(&mut self) {
        self.describe();
        let descriptor = self.device.device_descriptor();
        let connect = DeviceConnect {
            speed: self.served.speed,
            class: descriptor.class(),
            subclass: descriptor.subclass(),
            protocol: descriptor.protocol(),
            vendor: descriptor.vendor_id(),
            product: descriptor.product_id(),
            version: descriptor.device_version(),
        };
        self.queue_packet(0, Body::DeviceConnect(connect));
    }

    pub(super) fn describe(&mut self) {
        let mut endpoints = Box::new([EndpointInfo::default(); ENDPOINTS]);
        for address in [0x00, 0x80] {
            if let Some(place) = endpoints.get_mut(endpoint_index(address)) {
                place.kind = EndpointType::Control;
            }
        }
        let mut interfaces = Vec::new();
        for (number, interface) in &self.interfaces {
            let Some(setting) = interface.descriptor() else { continue };
            interfaces.push(Interface {
                number: *number,
                class: setting.class(),
                subclass: setting.subclass(),
                protocol: setting.protocol(),
            });
            for endpoint in setting.endpoints() {
                let Some(place) = endpoints.get_mut(endpoint_index(endpoint.address())) else {
                    continue;
                };
                *place = EndpointInfo {
                    kind: match endpoint.transfer_type() {
                        TransferType::Control => EndpointType::Control,
                        TransferType::Isochronous => EndpointType::Isochronous,
                        TransferType::Bulk => EndpointType::Bulk,
                        TransferType::Interrupt => EndpointType::Interrupt,
                    },
                    interval: endpoint.interval(),
                    interface: *number,
                    max_packet_size: endpoint.max_packet_size_raw(),
                };
            }
        }
        interfaces.truncate(packet::INTERFACES);
        self.queue_packet(0, Body::EndpointInfo(endpoints));
        self.queue_packet(0, Body::InterfaceInfo(interfaces));
    }
}
