//! vCPUs: one thread each, which does one job after the other that the [`Gate`] has for it.
//!
//! ```text
//!  Job::Start: registers as after creation, boot vCPU at the kernel's entry
//!  Job::Run:   KVM_RUN until the gate closes; exit -> ports, MMIO, or an Event for the main loop
//! ```
//! A vCPU that has stopped has no instruction half done: the main loop may change memory and devices.

mod cpuid;
mod events;
mod exits;
mod gate;
#[cfg(test)]
mod gate_model;
mod primitives;
mod state;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use kvm_ioctls::VcpuFd;
use virtio::GuestMemory;
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

pub use cpuid::{physical_bits, prepare as prepare_cpuid};
pub use events::{Event, Events};
pub use exits::ExitHandler;
pub use gate::{Gate, Member};
pub use state::ResetState;

use crate::boot::Entry;
use crate::heartbeat::Heartbeat;
use crate::kvm::KvmError;
use gate::Job;

/// What a vCPU thread needs before its first instruction: closes its part of the sandbox.
pub type ThreadStart = Arc<dyn Fn() -> Result<(), crate::sandbox::SandboxError> + Send + Sync>;

/// One vCPU before its thread starts.
pub struct Vcpu {
    id: u8,
    fd: VcpuFd,
    reset: ResetState,
    /// What the vCPU is in the middle of.
    progress: Progress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// Its registers were set, and it did not run since.
    SetUp,
    /// It was in the guest.
    Ran,
}

impl Vcpu {
    /// Wraps a freshly created vCPU and remembers its state, to which a reset returns.
    pub fn new(id: u8, fd: VcpuFd, msrs: &[u32]) -> Result<Self, KvmError> {
        let reset = ResetState::capture(&fd, msrs)?;
        Ok(Self { id, fd, reset, progress: Progress::SetUp })
    }

    /// Starts the thread. It does what `member`'s gate has for it, and rests while that is nothing.
    pub fn spawn(
        mut self,
        mut member: Member,
        memory: GuestMemory,
        handler: Arc<ExitHandler>,
        prepare: ThreadStart,
        heartbeat: Heartbeat,
    ) -> io::Result<JoinHandle<()>> {
        thread::Builder::new().name(format!("vcpu{}", self.id)).stack_size(STACK).spawn(move || {
            if let Err(error) = prepare() {
                handler.failed(format!("could not close the sandbox of vCPU {}: {error}", self.id));
                return;
            }
            heartbeat.rest();
            while let Some(job) = member.next_job() {
                heartbeat.wake();
                match job {
                    Job::Start(entry) => {
                        if let Err(error) = self.start(&memory, entry) {
                            handler.failed(format!("could not set up vCPU {}: {error}", self.id));
                            return;
                        }
                    }
                    Job::Run => self.run(&mut member, &handler, &heartbeat),
                }
                heartbeat.rest();
            }
        })
    }

    /// Brings the vCPU into the reset state; the boot vCPU to the kernel's entry point, while the
    /// others wait for its start-up message.
    fn start(&mut self, memory: &GuestMemory, entry: Entry) -> Result<(), KvmError> {
        self.progress = Progress::SetUp;
        self.reset.restore(&self.fd)?;
        if self.id == 0 { state::set_entry(&self.fd, memory, entry) } else { Ok(()) }
    }

    fn run(&mut self, member: &mut Member, handler: &ExitHandler, heartbeat: &Heartbeat) {
        if std::mem::replace(&mut self.progress, Progress::Ran) == Progress::Ran {
            // It was paused: the guest's watchdogs are told that its time stood still. A guest
            // without kvm-clock cannot be told, and KVM says so.
            let _ = self.fd.kvmclock_ctrl();
        }
        while member.may_run() {
            heartbeat.beat();
            if !handler.step(self.id, &mut self.fd) {
                // It cannot go on; whatever it asked for is decided by the main loop.
                handler.finish(self.id, &mut self.fd);
                member.park();
                return;
            }
        }
        handler.finish(self.id, &mut self.fd);
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
