//! What happens when a guest leaves its own world: one `KVM_RUN` and its exit.

use std::sync::Arc;

use kvm_ioctls::{VcpuExit, VcpuFd};

use super::events::{Event, Events};
use crate::layout;
use crate::port_io::PortBus;
use crate::power::Request;

/// Shared by all vCPU threads: the buses, and whom to ask when only the main loop can decide.
pub struct ExitHandler {
    ports: Arc<PortBus>,
    pci: Arc<pci::Bus>,
    events: Arc<Events>,
}

/// A port exit: the data of one `in` or `out`, or of many elements of a string instruction.
struct PortExit {
    port: u16,
    data: *mut [u8],
    input: bool,
}

/// Most times [`ExitHandler::finish`] enters the kernel: an instruction that is emulated goes back to
/// the guest after 1024 repetitions at the latest, each of at most two accesses.
const FINISH_MAX: usize = 4096;

/// Returns what KVM says of an exit that nobody asked for.
fn reason(exit: &VcpuExit<'_>) -> String {
    match exit {
        VcpuExit::Unsupported(number) => format!("KVM exit {number}"),
        VcpuExit::SystemEvent(kind, _) => format!("system event {kind}"),
        VcpuExit::IoapicEoi(vector) => format!("end of interrupt {vector}"),
        VcpuExit::MemoryFault { gpa, .. } => format!("a memory fault at 0x{gpa:x}"),
        VcpuExit::Hypercall(_) => "a hypercall".to_owned(),
        VcpuExit::Debug(_) => "a debug event".to_owned(),
        VcpuExit::Exception => "an exception".to_owned(),
        VcpuExit::Hlt => "a halt".to_owned(),
        VcpuExit::Nmi => "an NMI".to_owned(),
        VcpuExit::X86Rdmsr(_) | VcpuExit::X86Wrmsr(_) => "an MSR".to_owned(),
        _ => "an exit of another kind".to_owned(),
    }
}

impl ExitHandler {
    /// Answers exits with these devices.
    pub fn new(ports: Arc<PortBus>, pci: Arc<pci::Bus>, events: Arc<Events>) -> Self {
        Self { ports, pci, events }
    }

    /// Reports that the VMM cannot go on.
    pub fn failed(&self, why: String) {
        self.events.failed(why);
    }

    /// Enters the guest once; `false` when this vCPU must not enter again before the main loop has
    /// decided.
    pub(super) fn step(&self, id: u8, vcpu: &mut VcpuFd) -> bool {
        self.enter(vcpu, |exit| self.decide(id, exit))
    }

    /// Enters the guest once. An access is answered, and this is `true`; what any other exit means
    /// is for `otherwise`.
    fn enter(
        &self,
        vcpu: &mut VcpuFd,
        otherwise: impl FnOnce(Result<VcpuExit<'_>, kvm_ioctls::Error>) -> bool,
    ) -> bool {
        let exit = match vcpu.run() {
            Ok(VcpuExit::IoIn(port, data)) => PortExit { port, data, input: true },
            Ok(VcpuExit::IoOut(port, data)) => {
                PortExit { port, data: std::ptr::from_ref(data).cast_mut(), input: false }
            }
            Ok(VcpuExit::MmioRead(address, data)) => {
                self.mmio_read(address, data);
                return true;
            }
            Ok(VcpuExit::MmioWrite(address, data)) => {
                self.mmio_write(address, data);
                return true;
            }
            other => return otherwise(other),
        };
        self.port_access(vcpu, &exit);
        true
    }

    fn decide(&self, id: u8, exit: Result<VcpuExit<'_>, kvm_ioctls::Error>) -> bool {
        match exit {
            Ok(VcpuExit::Shutdown) => {
                tracing::info!(vcpu = id, "the guest faulted three times over and is reset");
                self.events.raise(Event::Guest(Request::Reset));
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
                self.events.raise(Event::Guest(Request::Reset));
                false
            }
            Ok(other) => {
                let why = reason(&other);
                self.failed(format!(
                    "vCPU {id} left the guest for a reason that this VMM does not handle: {why}"
                ));
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
                self.events.raise(Event::Guest(Request::Reset));
                false
            }
            errno => {
                let error = std::io::Error::from_raw_os_error(errno);
                self.failed(format!("KVM would not run vCPU {id}: {error}"));
                false
            }
        }
    }

    /// Answers a port exit. `rep ins` and `rep outs` come as one exit of many elements, each of
    /// which is an access of its own.
    fn port_access(&self, vcpu: &mut VcpuFd, exit: &PortExit) {
        // SAFETY: the last exit was KVM_EXIT_IO, so this is the field of the union that is in use.
        let width = usize::from(unsafe { vcpu.get_kvm_run().__bindgen_anon_1.io.size });
        // SAFETY: `data` is the data page of `vcpu`'s own mapping, which lives as long as `vcpu`; it
        // lies outside the structure just looked at, and nothing else refers to it before the next
        // KVM_RUN, which takes `vcpu` exclusively as this function does.
        let data = unsafe { &mut *exit.data };
        for element in data.chunks_mut(width.max(1)) {
            match (exit.input, pci_port(exit.port)) {
                (true, Some(offset)) => self.pci.io_read(offset, element),
                (true, None) => self.ports.read(exit.port, element),
                (false, Some(offset)) => self.pci.io_write(offset, element),
                (false, None) => self.ports.write(exit.port, element),
            }
        }
    }

    /// Finishes the instruction at which the guest was stopped, without entering the guest: KVM keeps
    /// the second half of one that left for user space (the register or the memory that a read goes
    /// to) for the next `KVM_RUN`, and carries it out there whatever has been set, or loaded into
    /// memory, since. To be called before anybody hears that the vCPU has stopped.
    pub(super) fn finish(&self, id: u8, vcpu: &mut VcpuFd) {
        vcpu.set_kvm_immediate_exit(1);
        // Interrupted before the guest, as asked, or an error that leaves nothing to finish.
        let finished = (0..FINISH_MAX).any(|_| !self.enter(vcpu, |_| false));
        vcpu.set_kvm_immediate_exit(0);
        if !finished {
            self.failed(format!("vCPU {id} does not come to the end of an instruction"));
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

/// Returns the configuration mechanism's eight ports, as an offset into them.
fn pci_port(port: u16) -> Option<u16> {
    port.checked_sub(layout::port::PCI_CONFIG).filter(|offset| *offset < 8)
}
