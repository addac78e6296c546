//! One device as the host's end of a usbredir stream: packets of the guest's end in, the device's answers out.
//!
//! ```text
//!  Export::submit(Packet) --> open node in usbfs <--> device
//!  Export::events() <-- ExportEvent: packets, the end <--'    (a waker tells when)
//!        |
//!        '--> Authority: has the interfaces of a configuration authorised
//! ```
//! Control requests are done at once, at most [`CONTROL_TIMEOUT`] each; bulk and interrupt transfers wait in their endpoint's queue. Cancelling one cancels what else waits at its endpoint: a guest's controller keeps one there at a time.
//! Isochronous endpoints are not served.
//!
//! - **Nothing is opened here.** Whoever holds the node decides nothing either: who gets a device, and which of its interfaces usbfs may claim, is up to
//!   who opened it, and what goes to and fro is up to the filter (`usbfilter`).
//! - **A device is hostile.** The library is given no descriptors that [`usbdescriptors`] has not read: an export takes a [`Served`] device only, and what
//!   the kernel has of the device is compared with it, byte for byte.
#![deny(clippy::print_stderr, clippy::print_stdout)]
#![forbid(unsafe_code)]

mod introduction;
mod part;
mod pipe;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use nusb::MaybeFuture;
use nusb::descriptors::TransferType;
use nusb::transfer::{
    Buffer, Bulk, ControlIn, ControlOut, ControlType, In, Interrupt, Out, Recipient, TransferError,
};
use usbdescriptors::{DescriptorError, Device, Pinned, Share};
use usbredir::packet::{Control, MAX_DATA, Speed};
use usbredir::{Body, Packet, Status};

use pipe::{PendingTransfer, Pipe, UsbEndpoint, boxed, ended, not_there, status};

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
    /// Its descriptors are not those that were judged.
    #[error("it says something else of itself than before; plug it in again")]
    Changed,
    /// Its node cannot be read.
    #[error("its node in usbfs cannot be read")]
    Node(#[source] io::Error),
    /// Its interfaces cannot be had.
    #[error("the kernel does not let this device be used ({what}): is another program using it?")]
    Usbfs {
        /// The step that failed, as it reads behind "could not".
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: nusb::Error,
    },
    /// Nobody authorises its interfaces.
    #[error("its interfaces were not authorised")]
    Unauthorised,
}

/// Whoever may authorise interfaces. They come anew with each configuration, and usbfs claims none that is not authorised.
pub trait Authority {
    /// Authorises the interfaces that are served, of the configuration that the device is in, and returns its `bConfigurationValue`, 0 if it is in
    /// none; `None` if nobody does. Called by the thread of the device, which waits for it, before it claims any.
    fn authorise(&mut self) -> Option<u8>;
}

/// A device as it was judged, and what of it is served. Proof that its descriptors are such that a library may be given them.
#[derive(Clone, Debug)]
pub struct Served {
    descriptors: Vec<u8>,
    share: Share,
    speed: Speed,
}

impl Served {
    /// Reads what the kernel had of the device when it was judged: the device descriptor and those of its configurations, one after the other.
    ///
    /// # Errors
    /// It makes no sense: the device is not to be touched.
    pub fn new(descriptors: Vec<u8>, share: Share, speed: Speed) -> Result<Self, DescriptorError> {
        Device::read(&Pinned::from_sysfs(&descriptors)?)?;
        Ok(Self { descriptors, share, speed })
    }
}

/// A device in use, in the hands of one thread. Dropping it lets it go.
pub struct Export {
    // In this order let go.
    pipes: BTreeMap<u8, Pipe>,
    interfaces: BTreeMap<u8, nusb::Interface>,
    device: nusb::Device,
    /// The same open file as the device's.
    node: File,
    served: Served,
    authority: Box<dyn Authority>,
    events: Vec<ExportEvent>,
    waker: Waker,
}

impl Export {
    /// Takes the device by its open node, and has it introduce itself. `waker` is woken, on whatever thread, when there is something for
    /// [`Export::events`].
    ///
    /// # Errors
    /// It cannot be used.
    pub fn open(
        node: OwnedFd,
        served: Served,
        authority: Box<dyn Authority>,
        waker: Waker,
    ) -> Result<Self, ExportError> {
        let node = File::from(node);
        // Before the library has it.
        compare(&node, &served)?;
        let own = node.try_clone().map_err(ExportError::Node)?;
        let device = nusb::Device::from_fd(own.into())
            .wait()
            .map_err(|source| ExportError::Usbfs { what: "open", source })?;
        let mut this = Self {
            device,
            interfaces: BTreeMap::new(),
            pipes: BTreeMap::new(),
            events: Vec::new(),
            node,
            served,
            authority,
            waker,
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

    /// Lets the device go: all its interfaces, as they are. Whoever opened it resets it, or puts the interfaces of a part into their first settings.
    pub fn close(mut self) {
        self.release();
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
        self.settle()?;
        let numbers: Vec<u8> = match self.device.active_configuration() {
            Ok(configuration) => configuration
                .interfaces()
                .map(|interface| interface.interface_number())
                .filter(|number| self.served.share.has(*number))
                .collect(),
            Err(_) => Vec::new(), // not configured: only endpoint 0
        };
        for number in numbers {
            // No driver has it: its port is kept from them. None is asked to give it up, which the node may not do.
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

    /// Has the interfaces authorised, and the library know which configuration the device is in: it asks the device, or remembers; the kernel knows.
    fn settle(&mut self) -> Result<(), ExportError> {
        let configuration = self.authority.authorise().ok_or(ExportError::Unauthorised)?;
        if self.configuration() != configuration {
            // Of a part somebody else's driver has the rest, in the configuration it is in.
            if self.is_part() {
                return Err(ExportError::Changed);
            }
            let failed = |source| ExportError::Usbfs { what: "open", source };
            self.device.set_configuration(configuration).wait().map_err(failed)?;
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
                self.transfer(id, bulk.endpoint, false, length, &bulk.data);
            }
            Body::Interrupt(interrupt) => {
                let length = usize::from(interrupt.length);
                self.transfer(id, interrupt.endpoint, true, length, &interrupt.data);
            }
            // The rest the guest's end has no business to send, or needs no answer.
            _ => {}
        }
        Ok(())
    }

    fn configuration(&self) -> u8 {
        self.device.active_configuration().map_or(0, |active| active.configuration_value())
    }

    fn reset(&mut self) -> Result<(), String> {
        self.drop_pipes();
        self.interfaces.clear();
        // The open file goes on with the device, if that comes back as what it was; otherwise the kernel takes it for another, and the file for gone.
        let _ = self.device.reset().wait();
        if let Err(error) = compare(&self.node, &self.served).and_then(|()| self.claim()) {
            self.events
                .push(ExportEvent::Lost(format!("it did not come back from a reset: {error}")));
            return Ok(());
        }
        self.events.push(ExportEvent::Descriptors(self.served.descriptors.clone()));
        Ok(())
    }

    /// Ends what waits at endpoints as cancelled.
    fn drop_pipes(&mut self) {
        for (address, mut pipe) in std::mem::take(&mut self.pipes) {
            pipe.endpoint.drain();
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
                if let Some(mut pipe) = self.pipes.remove(&address) {
                    pipe.endpoint.drain();
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

    fn transfer(&mut self, id: u64, endpoint: u8, interrupt: bool, length: usize, data: &[u8]) {
        let Some(pipe) = self.pipes.get_mut(&endpoint) else {
            return self.queue_packet(id, not_there(endpoint, interrupt));
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

/// Compares what the kernel has of the device with what was judged.
fn compare(node: &File, served: &Served) -> Result<(), ExportError> {
    let expected = &served.descriptors;
    // One more: there is to be no more.
    let mut said = vec![0; expected.len() + 1];
    let mut length = 0;
    while let Some(space) = said.get_mut(length..).filter(|space| !space.is_empty()) {
        let offset = u64::try_from(length).unwrap_or(u64::MAX);
        match node.read_at(space, offset) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(ExportError::Node(error)),
        }
    }
    if said.get(..length) == Some(expected) { Ok(()) } else { Err(ExportError::Changed) }
}

fn timed(error: TransferError) -> Status {
    // A control request is cancelled by nothing but its time.
    if error == TransferError::Cancelled { Status::Timeout } else { status(error) }
}
