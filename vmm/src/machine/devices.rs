//! The guest's PCI devices. Adding one takes its own crate or folder and its builder here.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use pci::host::{Doorbells, MsiController};
use pci::{Bus, Function};
use vfio::{MemorySlots, VfioFunction};
use virtio::GuestMemory;
use virtio::console::NamedPort;
use virtio::net::Mac;
use virtio_pci::VirtioPci;
use vmm_control::VmSpec;
use vmm_control::limits::USB_MAX;
use xhci::XhciPci;

use super::Subscriber;
use super::functions::FunctionNotices;
use crate::layout;
use crate::listen::{self, SocketError};
use crate::sandbox::Role;
use crate::seat::{Seat, SeatError};
use crate::usb::{BackendQueue, Sockets};

/// Device numbers 1 to 31 are free: the host bridge is device 0.
const DEVICES_MAX: usize = 31;

/// Why a device could not be built.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// More than a bus has room for.
    #[error("more than {DEVICES_MAX} devices; give the guest fewer disks, interfaces or functions")]
    TooMany,
    #[error("--disk")]
    Disk(#[source] virtio::blk::DiskError),
    #[error("--net")]
    Net(#[source] virtio::net::TapError),
    /// A console port's socket.
    #[error("--port {name}")]
    Port {
        /// The port's name.
        name: String,
        /// What is wrong with its socket.
        #[source]
        source: SocketError,
    },
    /// A USB socket.
    #[error("--usb socket={}", path.display())]
    UsbSocket {
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: SocketError,
    },
    /// More USB sockets than a controller has ports.
    #[error("more than {USB_MAX} --usb sockets; give fewer")]
    TooManyUsb,
    /// The USB controller.
    #[error("--usb")]
    Usb(#[source] xhci::Error),
    #[error("--port")]
    Console(#[source] virtio::console::ConsoleError),
    /// Screen, keyboard and pointer.
    #[error("--seat")]
    Seat(#[from] SeatError),
    /// A host resource every device needs.
    #[error("could not set a virtio device up")]
    Host(#[source] std::io::Error),
    /// A passed-through function.
    #[error("--vfio")]
    Vfio(#[source] vfio::Error),
    /// A device's transport.
    #[error("could not build a virtio device")]
    Transport(#[source] virtio_pci::Error),
    #[error("could not place the devices' memory")]
    Place(#[source] pci::bus::PlaceError),
}

/// What devices are built on.
pub(super) struct Host {
    pub(super) memory: GuestMemory,
    /// Opens the IOMMU domain of the VM.
    pub(super) container: Box<dyn Fn() -> Result<vfio::Container, vfio::Error>>,
    pub(super) msi: Arc<dyn MsiController>,
    pub(super) doorbells: Arc<dyn Doorbells>,
    pub(super) slots: Arc<dyn MemorySlots>,
}

/// Subscribers and threads that were created along with the PCI functions.
#[derive(Default)]
pub(super) struct Parts {
    pub(super) main_loop: Vec<Subscriber>,
    pub(super) own_threads: Vec<(String, Role, Subscriber)>,
    pub(super) functions: Vec<Arc<Mutex<VfioFunction>>>,
    /// Bytes of the longest file that is a disk to be written.
    pub(super) disk_file_bytes_max: u64,
}

struct Builder<'a> {
    bus: &'a mut Bus,
    host: &'a Host,
    next: u8,
    parts: Parts,
}

/// Builds all devices onto `bus`.
pub(super) fn build(config: &VmSpec, bus: &mut Bus, host: &Host) -> Result<Parts, DeviceError> {
    let mut builder = Builder { bus, host, next: 1, parts: Parts::default() };
    // Passed-through functions first: they fail for the most reasons.
    builder.vfio(config)?;
    builder.blk(config)?;
    builder.net(config)?;
    builder.console(config)?;
    builder.rng()?;
    builder.usb(config)?;
    builder.seat(config)?;
    Ok(builder.parts)
}

/// Gives every BAR its address.
pub(super) fn place(bus: &mut Bus, mmio64: Range<u64>) -> Result<(), DeviceError> {
    bus.place_bars(layout::MMIO32_START..layout::MMIO32_END, mmio64).map_err(DeviceError::Place)
}

impl Builder<'_> {
    fn add(&mut self, function: Arc<Mutex<dyn Function>>) -> Result<(), DeviceError> {
        if usize::from(self.next) > DEVICES_MAX {
            return Err(DeviceError::TooMany);
        }
        self.bus.add(self.next, function);
        self.next += 1;
        Ok(())
    }

    fn virtio(&mut self, device: Box<dyn virtio::Device>) -> Result<Subscriber, DeviceError> {
        let (function, worker) = VirtioPci::new(
            device,
            self.host.memory.clone(),
            Arc::clone(&self.host.msi),
            Arc::clone(&self.host.doorbells),
        )
        .map_err(DeviceError::Transport)?;
        self.add(function)?;
        Ok(worker)
    }

    fn vfio(&mut self, config: &VmSpec) -> Result<(), DeviceError> {
        if config.vfio.is_empty() {
            return Ok(());
        }
        let container = (self.host.container)().map_err(DeviceError::Vfio)?;
        for address in &config.vfio {
            let function = container
                .open(*address, Arc::clone(&self.host.msi), Arc::clone(&self.host.slots))
                .map_err(DeviceError::Vfio)?;
            let function = Arc::new(Mutex::new(function));
            self.add(function.clone())?;
            let notices = FunctionNotices::new(function.clone()).map_err(DeviceError::Host)?;
            self.parts.main_loop.push(Arc::new(Mutex::new(notices)));
            self.parts.functions.push(function);
        }
        Ok(())
    }

    fn blk(&mut self, config: &VmSpec) -> Result<(), DeviceError> {
        for (index, disk) in config.disks.iter().enumerate() {
            let id = disk.id.clone().unwrap_or_else(|| format!("disk{index}"));
            let disk = virtio::blk::Disk::open(&disk.path, disk.readonly, &id)
                .map_err(DeviceError::Disk)?;
            self.parts.disk_file_bytes_max =
                self.parts.disk_file_bytes_max.max(disk.writable_file_bytes());
            let blk = virtio::blk::Blk::new(disk).map_err(DeviceError::Host)?;
            let worker = self.virtio(Box::new(blk))?;
            self.parts.own_threads.push((format!("blk{index}"), Role::Block, worker));
        }
        Ok(())
    }

    fn net(&mut self, config: &VmSpec) -> Result<(), DeviceError> {
        for net in &config.nets {
            let tap = virtio::net::Tap::open(&net.tap).map_err(DeviceError::Net)?;
            let mac = net.mac.unwrap_or_else(|| Mac::derived(&net.tap));
            let net = virtio::net::Net::new(tap, mac).map_err(DeviceError::Host)?;
            let worker = self.virtio(Box::new(net))?;
            self.parts.main_loop.push(worker);
        }
        Ok(())
    }

    /// One console device for all named ports; none without a port.
    fn console(&mut self, config: &VmSpec) -> Result<(), DeviceError> {
        if config.ports.is_empty() {
            return Ok(());
        }
        let mut ports = Vec::with_capacity(config.ports.len());
        for port in &config.ports {
            let name = port.name.clone();
            match listen::streams(&port.socket) {
                Ok(listener) => ports.push(NamedPort { name, listener }),
                Err(source) => return Err(DeviceError::Port { name, source }),
            }
        }
        let console = virtio::console::Console::new(None, ports).map_err(DeviceError::Console)?;
        let worker = self.virtio(Box::new(console))?;
        self.parts.main_loop.push(worker);
        Ok(())
    }

    /// One controller with two ports for each socket: a device is of USB 2 or of USB 3. None without a socket.
    fn usb(&mut self, config: &VmSpec) -> Result<(), DeviceError> {
        let count = match u8::try_from(config.usb.len()) {
            Ok(0) => return Ok(()),
            Ok(count) if config.usb.len() <= USB_MAX => count,
            _ => return Err(DeviceError::TooManyUsb),
        };
        let backend = BackendQueue::new().map_err(DeviceError::Host)?;
        let ports = xhci::Ports { usb2: count, usb3: count };
        let (function, worker, handle) =
            XhciPci::new(ports, self.host.memory.clone(), backend.clone(), &*self.host.msi)
                .map_err(DeviceError::Usb)?;
        self.add(function)?;
        let sockets = Sockets::listen(&config.usb, handle, backend)
            .map_err(|(path, source)| DeviceError::UsbSocket { path, source })?;
        self.parts.main_loop.push(worker);
        self.parts.main_loop.push(Arc::new(Mutex::new(sockets)));
        Ok(())
    }

    /// Screen, keyboard and pointer, if an agent is there to look, type and point.
    fn seat(&mut self, config: &VmSpec) -> Result<(), DeviceError> {
        match &config.seat_socket {
            Some(socket) => self.seat_devices(Seat::listen(socket)?),
            None => Ok(()),
        }
    }

    fn seat_devices(&mut self, seat: Seat) -> Result<(), DeviceError> {
        let Seat { gpu, keyboard, pointer, server } = seat;
        let worker = self.virtio(Box::new(gpu))?;
        self.parts.own_threads.push(("gpu".to_owned(), Role::Screen, worker));
        for device in [keyboard, pointer] {
            let worker = self.virtio(Box::new(device))?;
            self.parts.main_loop.push(worker);
        }
        self.parts.main_loop.push(Arc::new(Mutex::new(server)));
        Ok(())
    }

    fn rng(&mut self) -> Result<(), DeviceError> {
        let rng = virtio::rng::Rng::new().map_err(DeviceError::Host)?;
        let worker = self.virtio(Box::new(rng))?;
        self.parts.main_loop.push(worker);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
