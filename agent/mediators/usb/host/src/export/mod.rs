//! One device as the host's end of a usbredir stream: packets of the guest's end in, the device's answers out.
//!
//! ```text
//!  Export::submit(Packet) --> usbfs <--> device
//!  Export::events() <-- ExportEvent: packets, the end <--'    (a waker tells when)
//! ```
//! Control requests are done at once, at most [`CONTROL_TIMEOUT`] each; bulk and interrupt transfers wait in their endpoint's queue. Cancelling one cancels what else waits at its endpoint: a guest's controller keeps one there at a time.
//! Isochronous endpoints are not served.

mod hold;
mod part;
mod pipe;
mod reading;

use std::collections::BTreeMap;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use nusb::MaybeFuture;
use nusb::descriptors::TransferType;
use nusb::transfer::{
    Buffer, Bulk, ControlIn, ControlOut, ControlType, In, Interrupt, Out, Recipient, TransferError,
};
use usbredir::packet::{
    self, Control, DeviceConnect, ENDPOINTS, EndpointInfo, EndpointType, Interface, MAX_DATA,
    Speed, endpoint_index,
};
use usbredir::{Body, Packet, Status};

use hold::{Hold, configuration_of, open};
use pipe::{PendingTransfer, Pipe, UsbEndpoint, boxed, ended, status};
pub use reading::read_descriptors;
use usbsysfs::UsbDevices;
use usbsysfs::Vetted;

/// Longest a control request may take.
pub const CONTROL_TIMEOUT: Duration = Duration::from_secs(5);

/// An event of the device.
#[derive(Debug)]
pub enum ExportEvent {
    /// A packet for the guest's end.
    Packet(Packet),
    /// The device was reset, and these are its descriptors, read again.
    Descriptors(Vec<u8>),
    /// The device was unplugged, or cannot be used, for this reason.
    Gone(String),
    /// The device did not come back from a reset as what it was.
    Lost(String),
}

/// A device that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// It is not there any more.
    #[error("the device is gone")]
    Gone,
    /// Its descriptors are not those that were judged.
    #[error("it says something else of itself than before; plug it in again")]
    Changed,
    /// It does not answer.
    #[error("it does not answer; plug it in again, or into another port")]
    Silent,
    /// Its node in usbfs cannot be opened.
    #[error("its node below /dev/bus/usb cannot be opened: the agent has to be root")]
    Node(#[source] std::io::Error),
    /// Its interfaces cannot be had.
    #[error(
        "the kernel does not let this device be used ({what}): is another program using it? The agent has to be root"
    )]
    Usbfs {
        /// The step that failed, as it reads behind "could not".
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: nusb::Error,
    },
    /// Its port cannot be had.
    #[error(
        "its port cannot be kept from the host's own drivers: is another program using it? The agent has to be root"
    )]
    Port(#[source] std::io::Error),
}

/// A device in use, in the hands of one thread. Dropping it lets it go.
pub struct Export {
    // In this order let go.
    pipes: BTreeMap<u8, Pipe>,
    interfaces: BTreeMap<u8, nusb::Interface>,
    device: nusb::Device,
    hold: Hold,
    events: Vec<ExportEvent>,
    waker: Waker,
}

impl Export {
    /// Opens the device, which is [authorised](crate::Grants) and vetted, and has it introduce itself. `waker` is woken, on whatever thread,
    /// when there is something for [`Export::events`].
    ///
    /// # Errors
    /// It cannot be used.
    pub fn open(sysfs: UsbDevices, vetted: Vetted, waker: Waker) -> Result<Self, ExportError> {
        let mut this = Self {
            device: open(&sysfs, &vetted)?,
            interfaces: BTreeMap::new(),
            pipes: BTreeMap::new(),
            events: Vec::new(),
            waker,
            hold: Hold::take(sysfs, vetted)?,
        };
        this.claim()?;
        this.introduce();
        Ok(this)
    }

    /// Submits a packet of the guest's end. A control request is done when this returns, which takes up to [`CONTROL_TIMEOUT`].
    pub fn submit(&mut self, packet: Packet) {
        if let Err(why) = self.packet(packet) {
            self.events.push(ExportEvent::Gone(why));
        }
    }

    /// Returns the events since the last call.
    pub fn events(&mut self) -> Vec<ExportEvent> {
        if let Err(why) = self.completions() {
            self.events.push(ExportEvent::Gone(why));
        }
        std::mem::take(&mut self.events)
    }

    /// Releases all interfaces and resets the device, so that its next user finds it as if it had just been plugged in.
    pub fn close(mut self) {
        if self.is_part() {
            self.reset_part();
            return self.release();
        }
        self.release();
        // One that is gone needs no reset.
        let _ = self.device.reset().wait();
    }

    fn queue_packet(&mut self, id: u64, body: Body) {
        self.events.push(ExportEvent::Packet(Packet { id, body }));
    }

    fn release(&mut self) {
        self.pipes.clear();
        self.interfaces.clear();
    }

    /// Claims every interface that is meant, of the configuration it is in.
    fn claim(&mut self) -> Result<(), ExportError> {
        self.release();
        self.hold.admit();
        let numbers: Vec<u8> = match self.device.active_configuration() {
            Ok(configuration) => configuration
                .interfaces()
                .map(|interface| interface.interface_number())
                .filter(|number| self.hold.vetted.share().has(*number))
                .collect(),
            Err(_) => Vec::new(), // not configured: only endpoint 0
        };
        for number in numbers {
            // Not both in one: that would give the interface back to the driver when it is let go.
            let _ = self.device.detach_kernel_driver(number);
            let interface = self
                .device
                .claim_interface(number)
                .wait()
                .map_err(|source| ExportError::Usbfs { what: "claim an interface", source })?;
            self.open_pipes(number, &interface);
            self.interfaces.insert(number, interface);
        }
        Ok(())
    }

    fn open_pipes(&mut self, number: u8, interface: &nusb::Interface) {
        let Some(setting) = interface.descriptor() else { return };
        for endpoint in setting.endpoints() {
            let address = endpoint.address();
            let input = address & 0x80 != 0;
            let opened: Option<Box<dyn UsbEndpoint>> = match (endpoint.transfer_type(), input) {
                (TransferType::Bulk, true) => boxed::<Bulk, In>(interface, address),
                (TransferType::Bulk, false) => boxed::<Bulk, Out>(interface, address),
                (TransferType::Interrupt, true) => boxed::<Interrupt, In>(interface, address),
                (TransferType::Interrupt, false) => boxed::<Interrupt, Out>(interface, address),
                _ => None,
            };
            let Some(opened) = opened else { continue };
            let interrupt = endpoint.transfer_type() == TransferType::Interrupt;
            // What nusb divides by; never 0 in descriptors that were vetted.
            let packet = endpoint.max_packet_size().max(1);
            self.pipes.insert(address, Pipe::new(opened, number, interrupt, packet));
        }
    }

    /// Announces interfaces, endpoints and the device to the guest's end.
    fn introduce(&mut self) {
        self.describe();
        let descriptor = self.device.device_descriptor();
        let speed = match self.hold.vetted.found().speed.as_str() {
            "1.5" => Speed::Low,
            "12" => Speed::Full,
            "480" => Speed::High,
            speed if speed.parse::<u32>().is_ok_and(|megabits| megabits >= 5000) => Speed::Super,
            _ => Speed::Unknown,
        };
        let connect = DeviceConnect {
            speed,
            class: descriptor.class(),
            subclass: descriptor.subclass(),
            protocol: descriptor.protocol(),
            vendor: self.hold.vetted.found().vendor,
            product: self.hold.vetted.found().product,
            version: descriptor.device_version(),
        };
        self.queue_packet(0, Body::DeviceConnect(connect));
    }

    fn describe(&mut self) {
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

    fn packet(&mut self, Packet { id, body }: Packet) -> Result<(), String> {
        match body {
            Body::Reset if self.is_part() => self.reset_part(),
            Body::Reset => return self.reset(),
            Body::SetConfiguration(configuration) if self.is_part() => {
                self.configure_part(id, configuration);
            }
            Body::SetConfiguration(configuration) => return self.configure(id, configuration),
            Body::GetConfiguration => {
                let configuration = self.configuration();
                let body = Body::ConfigurationStatus { status: Status::Success, configuration };
                self.queue_packet(id, body);
            }
            Body::SetAltSetting { interface, alternate } => {
                self.set_alternate(id, interface, alternate);
            }
            Body::GetAltSetting { interface } => {
                let chosen = self.interfaces.get(&interface).map(nusb::Interface::get_alt_setting);
                let status = if chosen.is_some() { Status::Success } else { Status::Invalid };
                let alternate = chosen.unwrap_or_default();
                self.queue_packet(id, Body::AltSettingStatus { status, interface, alternate });
            }
            Body::StartInterruptReceiving { endpoint } => self.start_receiving(id, endpoint),
            Body::StopInterruptReceiving { endpoint } => {
                if let Some(pipe) = self.pipes.get_mut(&endpoint) {
                    pipe.stop();
                }
                let status = Status::Success;
                self.queue_packet(id, Body::InterruptReceivingStatus { status, endpoint });
            }
            Body::CancelDataPacket => {
                for pipe in self.pipes.values_mut() {
                    if pipe.transfers.iter().any(|transfer| transfer.id == id) {
                        pipe.endpoint.cancel();
                    }
                }
            }
            Body::Control(control) => self.control(id, control),
            Body::Bulk(bulk) => {
                let length = usize::try_from(bulk.length).unwrap_or(MAX_DATA).min(MAX_DATA);
                self.transfer(id, bulk.endpoint, length, &bulk.data);
            }
            Body::Interrupt(interrupt) => {
                let length = usize::from(interrupt.length);
                self.transfer(id, interrupt.endpoint, length, &interrupt.data);
            }
            // The rest the guest's end has no business to send, or needs no answer.
            _ => {}
        }
        Ok(())
    }

    fn configuration(&self) -> u8 {
        configuration_of(&self.device)
    }

    fn reset(&mut self) -> Result<(), String> {
        self.drop_pipes();
        self.interfaces.clear();
        // The handle ends with a reset; the device keeps its address, or it is another device.
        let _ = self.device.reset().wait();
        let found = open(&self.hold.sysfs, &self.hold.vetted);
        let again = found.and_then(|device| {
            self.device = device;
            self.claim()
        });
        if let Err(error) = again {
            self.events
                .push(ExportEvent::Lost(format!("it did not come back from a reset: {error}")));
            return Ok(());
        }
        if let Some(found) = self.hold.sysfs.find(&self.hold.vetted.found().bus_id) {
            self.events.push(ExportEvent::Descriptors(found.descriptors));
        }
        Ok(())
    }

    /// Ends what waits at endpoints as cancelled.
    fn drop_pipes(&mut self) {
        for (address, pipe) in std::mem::take(&mut self.pipes) {
            for transfer in pipe.transfers {
                self.queue_packet(
                    transfer.id,
                    ended(address, pipe.interrupt, Status::Cancelled, 0, Vec::new()),
                );
            }
        }
    }

    fn configure(&mut self, id: u64, configuration: u8) -> Result<(), String> {
        let mut status = Status::Success;
        if configuration != self.configuration() {
            self.drop_pipes();
            self.interfaces.clear();
            if self.device.set_configuration(configuration).wait().is_err() {
                status = Status::Stall;
            }
            self.claim().map_err(|error| error.to_string())?;
        }
        self.describe();
        let configuration = self.configuration();
        self.queue_packet(id, Body::ConfigurationStatus { status, configuration });
        Ok(())
    }

    fn set_alternate(&mut self, id: u64, interface: u8, alternate: u8) {
        let mut status = Status::Invalid;
        if let Some(claimed) = self.interfaces.get(&interface).cloned() {
            let of_it: Vec<u8> = self
                .pipes
                .iter()
                .filter(|(_, pipe)| pipe.interface == interface)
                .map(|(address, _)| *address)
                .collect();
            for address in of_it {
                if let Some(pipe) = self.pipes.remove(&address) {
                    for transfer in pipe.transfers {
                        let body = ended(address, pipe.interrupt, Status::Cancelled, 0, Vec::new());
                        self.queue_packet(transfer.id, body);
                    }
                }
            }
            status = match claimed.set_alt_setting(alternate).wait() {
                Ok(()) => Status::Success,
                Err(_) => Status::Stall,
            };
            self.open_pipes(interface, &claimed);
            self.describe();
        }
        self.queue_packet(id, Body::AltSettingStatus { status, interface, alternate });
    }

    fn start_receiving(&mut self, id: u64, endpoint: u8) {
        let mut status = Status::Invalid;
        if let Some(pipe) = self.pipes.get_mut(&endpoint)
            && pipe.interrupt
            && endpoint & 0x80 != 0
        {
            status = Status::Success;
            pipe.start();
        }
        self.queue_packet(id, Body::InterruptReceivingStatus { status, endpoint });
    }

    fn transfer(&mut self, id: u64, endpoint: u8, length: usize, data: &[u8]) {
        let Some(pipe) = self.pipes.get_mut(&endpoint) else {
            return self.queue_packet(id, ended(endpoint, false, Status::Invalid, 0, Vec::new()));
        };
        let buffer = if endpoint & 0x80 == 0 {
            let mut buffer = Buffer::new(data.len());
            buffer.extend_from_slice(data);
            buffer
        } else {
            // Whole packets: a device that sends more than was asked for is found out, and nothing is lost.
            Buffer::new(length.max(1).next_multiple_of(pipe.packet))
        };
        pipe.transfers.push_back(PendingTransfer { id, length });
        pipe.endpoint.submit(buffer);
    }

    fn control(&mut self, id: u64, control: Control) {
        let Control { request_type, request, value, index, length, .. } = control;
        if (request_type, request, value) == (0x02, 1, 0) {
            // The host's own idea of the data toggle has to change with the device's.
            let [address, _] = index.to_le_bytes();
            let cleared = self.pipes.get_mut(&address).map(Pipe::clear_halt);
            let status = if cleared == Some(true) { Status::Success } else { Status::Stall };
            let body = Control { status, length: 0, data: Vec::new(), ..control };
            return self.queue_packet(id, Body::Control(body));
        }
        let control_type = match request_type >> 5 & 3 {
            0 => ControlType::Standard,
            1 => ControlType::Class,
            _ => ControlType::Vendor,
        };
        let recipient = match request_type & 0x1f {
            0 => Recipient::Device,
            1 => Recipient::Interface,
            2 => Recipient::Endpoint,
            _ => Recipient::Other,
        };
        let (status, moved, data) = if request_type & 0x80 != 0 {
            let setup = ControlIn { control_type, recipient, request, value, index, length };
            match self.device.control_in(setup, CONTROL_TIMEOUT).wait() {
                Ok(mut data) => {
                    data.truncate(length.into());
                    (Status::Success, u16::try_from(data.len()).unwrap_or_default(), data)
                }
                Err(error) => (timed(error), 0, Vec::new()),
            }
        } else {
            let data = &control.data;
            let setup = ControlOut { control_type, recipient, request, value, index, data };
            match self.device.control_out(setup, CONTROL_TIMEOUT).wait() {
                Ok(()) => (Status::Success, length, Vec::new()),
                Err(error) => (timed(error), 0, Vec::new()),
            }
        };
        self.queue_packet(id, Body::Control(Control { status, length: moved, data, ..control }));
    }

    /// Tells of every transfer that has ended.
    fn completions(&mut self) -> Result<(), String> {
        let mut context = Context::from_waker(&self.waker);
        let mut told = Vec::new();
        let mut gone = false;
        for (address, pipe) in &mut self.pipes {
            while pipe.endpoint.pending() > 0 {
                let Poll::Ready(completion) = pipe.endpoint.poll(&mut context) else { break };
                gone |= completion.status == Err(TransferError::Disconnected);
                told.extend(pipe.completed(*address, completion));
            }
        }
        for (id, body) in told {
            self.queue_packet(id, body);
        }
        if gone { Err("it was pulled out".to_owned()) } else { Ok(()) }
    }
}

fn timed(error: TransferError) -> Status {
    // A control request is cancelled by nothing but its time.
    if error == TransferError::Cancelled { Status::Timeout } else { status(error) }
}
