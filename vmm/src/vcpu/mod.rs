//! vCPUs: one thread each, started paused, stopped and restarted for a reset.
//!
//! ```text
//!            resume                 stop
//!  Paused <---------> Running  -----------> Gone
//!            pause       |
//!                        +-- KVM_RUN exit -> ports, MMIO, or an Event for the main loop
//! ```

mod cpuid;
mod exits;
mod gate;
mod state;

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use kvm_ioctls::VcpuFd;
use virtio::GuestMemory;
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

pub use cpuid::prepare as prepare_cpuid;
pub use exits::{Event, ExitHandler};
pub use gate::Gate;
pub use state::ResetState;

use crate::boot::Entry;
use crate::kvm::KvmError;

/// What a vCPU thread needs before its first instruction: closes its part of the sandbox.
pub type ThreadStart = Arc<dyn Fn() -> Result<(), crate::sandbox::SandboxError> + Send + Sync>;

/// One vCPU before its thread starts.
pub struct Vcpu {
    id: u8,
    fd: VcpuFd,
    reset: ResetState,
}

impl Vcpu {
    /// Wraps a freshly created vCPU and remembers its state, to which a reset returns.
    pub fn new(id: u8, fd: VcpuFd, msrs: &[u32]) -> Result<Self, KvmError> {
        let reset = ResetState::capture(&fd, msrs)?;
        Ok(Self { id, fd, reset })
    }

    /// Sets the boot vCPU to the kernel's entry point; the others wait for its start-up message.
    fn enter(&self, memory: &GuestMemory, entry: Entry) -> Result<(), KvmError> {
        if self.id == 0 { state::set_entry(&self.fd, memory, entry) } else { Ok(()) }
    }

    /// Starts the thread. It waits at `gate` until the machine is let run.
    pub fn spawn(
        mut self,
        memory: GuestMemory,
        gate: Arc<Gate>,
        handler: Arc<ExitHandler>,
        prepare: ThreadStart,
    ) -> io::Result<JoinHandle<()>> {
        thread::Builder::new().name(format!("vcpu{}", self.id)).stack_size(STACK).spawn(move || {
            if let Err(error) = prepare() {
                handler.failed(format!("could not close the sandbox of vCPU {}: {error}", self.id));
                gate.gone();
                return;
            }
            self.run(&memory, &gate, &handler);
            gate.gone();
        })
    }

    fn run(&mut self, memory: &GuestMemory, gate: &Gate, handler: &ExitHandler) {
        while let Some(order) = gate.wait() {
            if let Some(entry) = order.restart {
                let ready = self.reset.restore(&self.fd).and_then(|()| self.enter(memory, entry));
                if let Err(error) = ready {
                    handler.failed(format!("could not set up vCPU {}: {error}", self.id));
                    return;
                }
            }
            while gate.may_run() {
                if !handler.step(self.id, &mut self.fd) {
                    // It cannot go on; whatever it asked for is decided by the main loop.
                    break;
                }
            }
        }
    }
}

/// Stack of a vCPU thread, in bytes: exit handling is shallow.
const STACK: usize = 256 << 10;

extern "C" fn on_kick(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// Lets [`kick`] interrupt `KVM_RUN`. Once per process, before the first vCPU runs.
pub fn install_kick() -> io::Result<()> {
    register_signal_handler(SIGRTMIN(), on_kick)
        .map_err(|e| io::Error::from_raw_os_error(e.errno()))
}

/// Interrupts the vCPU's `KVM_RUN`, if it is in it.
pub fn kick(thread: &JoinHandle<()>) {
    // A thread that ended needs no kick.
    let _ = thread.kill(SIGRTMIN());
}
