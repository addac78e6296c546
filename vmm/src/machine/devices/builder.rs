//! What devices are built with, and why one cannot be.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use pci::host::{Doorbells, MsiController};
use pci::{Bus, Function};
use vfio::{MemorySlots, VfioFunction};
use virtio::GuestMemory;
use virtio::net::{Tap, TapError};
use virtio_pci::VirtioPci;
use vmm_control::VmSpec;
use vmm_control::limits::USB_MAX;

use crate::heartbeat::Heartbeat;
use crate::listen::SocketError;
use crate::machine::Subscriber;
#[cfg(test)]
use crate::machine::roles::Requests;
use crate::sandbox::Role;
use crate::seat::SeatError;

/// Device numbers 1 to 31 are free: the host bridge is device 0.
const DEVICES_MAX: usize = 31;

/// Why a device could not be built.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The bus has no room for so many devices.
    #[error("more than {DEVICES_MAX} devices; give the guest fewer disks, interfaces or functions")]
    TooMany,
    #[error("--disk")]
    Disk(#[source] virtio::blk::DiskError),
    #[error("--net")]
    Net(#[source] TapError),
    /// The socket of a console port could not be made.
    #[error("--port {name}")]
    Port {
        /// The port's name, as `--port` gave it.
        name: String,
        /// What is wrong with its socket.
        #[source]
        source: SocketError,
    },
    /// The socket for a USB device could not be made.
    #[error("--usb socket={}", path.display())]
    UsbSocket {
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: SocketError,
    },
    /// There are more USB sockets than the controller has ports.
    #[error("more than {USB_MAX} --usb sockets; give fewer")]
    TooManyUsb,
    /// The USB controller could not be built.
    #[error("--usb")]
    Usb(#[source] xhci::Error),
    #[error("--port")]
    Console(#[source] virtio::console::ConsoleError),
    /// Screen, keyboard and pointer could not be built.
    #[error("--seat")]
    Seat(#[from] SeatError),
    /// The host lacks a resource that every device needs.
    #[error("could not set a virtio device up")]
    Host(#[source] std::io::Error),
    /// A PCI function could not be passed through.
    #[error("--vfio")]
    Vfio(#[source] vfio::Error),
    /// The PCI transport of a device could not be built.
    #[error("could not build a virtio device")]
    Transport(#[source] virtio_pci::Error),
    #[error("could not place the devices' memory")]
    Place(#[source] pci::bus::PlaceError),
}

/// Opens the tap of this name.
pub(in crate::machine) type OpenTap = Box<dyn Fn(&str) -> Result<Tap, TapError>>;

/// What devices are built on.
pub(in crate::machine) struct Host {
    pub(in crate::machine) memory: GuestMemory,
    /// Opens the IOMMU domain of the VM.
    pub(in crate::machine) container: Box<dyn Fn() -> Result<vfio::Container, vfio::Error>>,
    pub(in crate::machine) tap: OpenTap,
    pub(in crate::machine) msi: Arc<dyn MsiController>,
    pub(in crate::machine) doorbells: Arc<dyn Doorbells>,
    pub(in crate::machine) slots: Arc<dyn MemorySlots>,
}

/// Subscribers and threads that were created along with the PCI functions.
#[derive(Default)]
pub(in crate::machine) struct Parts {
    pub(in crate::machine) main_loop: Vec<Subscriber>,
    pub(in crate::machine) own_threads: Vec<(String, Role, Subscriber)>,
    /// Threads that disks start when they need them, each by its disk's name.
    pub(in crate::machine) helpers: Vec<(String, Heartbeat)>,
    pub(in crate::machine) functions: Vec<Arc<Mutex<VfioFunction>>>,
    /// Bytes of the longest file that is a disk to be written.
    pub(in crate::machine) disk_file_bytes_max: u64,
}

/// One kind of device.
pub(in crate::machine) struct Kind {
    /// Builds all of it that the specification asks for.
    pub(super) build: fn(&mut Builder<'_>, &VmSpec) -> Result<(), DeviceError>,
    /// How a driver uses its virtio functions, by which every thread's filter is tried.
    #[cfg(test)]
    pub(in crate::machine) requests: &'static [Requests],
}

/// The bus with the devices that are on it so far.
pub(super) struct Builder<'a> {
    bus: &'a mut Bus,
    pub(super) host: &'a Host,
    /// The next device number.
    next: u8,
    pub(super) parts: Parts,
}

impl<'a> Builder<'a> {
    /// Begins with an empty bus.
    pub(super) fn new(bus: &'a mut Bus, host: &'a Host) -> Self {
        Self { bus, host, next: 1, parts: Parts::default() }
    }

    /// Puts a function on the bus.
    pub(super) fn add(&mut self, function: Arc<Mutex<dyn Function>>) -> Result<(), DeviceError> {
        if usize::from(self.next) > DEVICES_MAX {
            return Err(DeviceError::TooMany);
        }
        self.bus.add(self.next, function);
        self.next += 1;
        Ok(())
    }

    /// Puts a virtio device on the bus, and returns what serves it.
    pub(super) fn virtio(
        &mut self,
        device: Box<dyn virtio::Device>,
    ) -> Result<Subscriber, DeviceError> {
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
}
