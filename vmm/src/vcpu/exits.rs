//! What happens when a guest leaves its own world: one `KVM_RUN` and its exit.

use std::sync::{Arc, Mutex, PoisonError};

use kvm_ioctls::{VcpuExit, VcpuFd};
use vmm_sys_util::eventfd::EventFd;

use crate::layout;
use crate::port_io::PortBus;

/// Something only the main loop can decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The guest wants to be off.
    PowerOff,
    /// The guest wants to start anew; so does a triple fault.
    Reset,
    /// The VMM cannot go on; what to tell the person who runs it.
    Failed(String),
}

/// Shared by all vCPU threads: the buses, and the way to the main loop.
pub struct ExitHandler {
    ports: PortBus,
    pci: Arc<pci::Bus>,
    first_event: Mutex<Option<Event>>,
    wake: EventFd,
}

impl ExitHandler {
    /// `wake` is signalled when there is an event to [`ExitHandler::take_event`].
    pub fn new(ports: PortBus, pci: Arc<pci::Bus>, wake: EventFd) -> Self {
        Self { ports, pci, first_event: Mutex::new(None), wake }
    }

    /// Reports an event; the first one wins until it is taken.
    pub fn raise(&self, event: Event) {
        let mut slot = self.first_event.lock().unwrap_or_else(PoisonError::into_inner);
        // A failure is never hidden behind a request.
        if slot.is_none() || matches!(event, Event::Failed(_)) {
            *slot = Some(event);
        }
        // The counter cannot overflow: the main loop drains it.
        let _ = self.wake.write(1);
    }

    /// Reports that the VMM cannot go on.
    pub fn failed(&self, why: String) {
        self.raise(Event::Failed(why));
    }

    /// Main loop: what happened since the last call.
    pub fn take_event(&self) -> Option<Event> {
        let _ = self.wake.read();
        self.first_event.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Enters the guest once; `false` when this vCPU must not enter again before the main loop has
    /// decided.
    pub(super) fn step(&self, id: u8, vcpu: &mut VcpuFd) -> bool {
        match vcpu.run() {
            Ok(VcpuExit::IoIn(port, data)) => {
                self.port_read(port, data);
                true
            }
            Ok(VcpuExit::IoOut(port, data)) => {
                self.port_write(port, data);
                true
            }
            Ok(VcpuExit::MmioRead(address, data)) => {
                self.mmio_read(address, data);
                true
            }
            Ok(VcpuExit::MmioWrite(address, data)) => {
                self.mmio_write(address, data);
                true
            }
            Ok(VcpuExit::Shutdown) => {
                tracing::info!(vcpu = id, "the guest faulted three times over and is reset");
                self.raise(Event::Reset);
                false
            }
            Ok(VcpuExit::Hlt | VcpuExit::Intr | VcpuExit::IrqWindowOpen) => true,
            Ok(VcpuExit::FailEntry(reason, cpu)) => {
                self.failed(format!(
                    "the processor refused to enter the guest (reason {reason:#x} on CPU {cpu}); \
                     this is a defect of the host's KVM or of this VMM"
                ));
                false
            }
            Ok(VcpuExit::InternalError) => {
                // Mostly an instruction the kernel cannot emulate on an address that is no RAM:
                // the guest did that to itself.
                tracing::error!(vcpu = id, "KVM cannot go on with what the guest did; it is reset");
                self.raise(Event::Reset);
                false
            }
            Ok(other) => {
                self.failed(format!("vCPU {id} left the guest for no known reason: {other:?}"));
                false
            }
            Err(error) => self.interrupted(id, error.errno()),
        }
    }

    fn interrupted(&self, id: u8, errno: i32) -> bool {
        match errno {
            libc::EINTR | libc::EAGAIN => true,
            // A device's memory that is gone from under the guest: reading it is the guest's loss.
            libc::EFAULT => {
                tracing::error!(
                    vcpu = id,
                    "the guest touched memory that is not there; it is reset"
                );
                self.raise(Event::Reset);
                false
            }
            errno => {
                let error = std::io::Error::from_raw_os_error(errno);
                self.failed(format!("KVM would not run vCPU {id}: {error}"));
                false
            }
        }
    }

    fn port_read(&self, port: u16, data: &mut [u8]) {
        match pci_port(port) {
            Some(offset) => self.pci.io_read(offset, data),
            None => self.ports.read(port, data),
        }
    }

    fn port_write(&self, port: u16, data: &[u8]) {
        match pci_port(port) {
            Some(offset) => self.pci.io_write(offset, data),
            None => self.ports.write(port, data),
        }
    }

    fn mmio_read(&self, address: u64, data: &mut [u8]) {
        data.fill(0xff);
        match ecam_offset(address) {
            Some(offset) => self.pci.ecam_read(offset, data),
            None => {
                self.pci.mmio_read(address, data);
            }
        }
    }

    fn mmio_write(&self, address: u64, data: &[u8]) {
        match ecam_offset(address) {
            Some(offset) => self.pci.ecam_write(offset, data),
            None => {
                self.pci.mmio_write(address, data);
            }
        }
    }
}

fn ecam_offset(address: u64) -> Option<u64> {
    address.checked_sub(layout::ECAM_START).filter(|offset| *offset < layout::ECAM_SIZE)
}

/// The configuration mechanism's eight ports, as an offset into them.
fn pci_port(port: u16) -> Option<u16> {
    port.checked_sub(layout::port::PCI_CONFIG).filter(|offset| *offset < 8)
}
