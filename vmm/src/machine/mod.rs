//! One machine from its first opened file to its end.
//!
//! 1. [`build`] opens everything and puts the machine together, guest not running.
//! 2. The sandbox closes, threads start, the kernel is loaded.
//! 3. The main loop serves devices, control socket and signals until the guest powers off or the
//!    VMM is told to stop; a guest reset goes back to loading the kernel. It never waits for a disk:
//!    while one holds up a reset, the loop goes on and the guest does not run.
//! 4. vCPUs stop, passed-through functions are reset, the process ends.

mod build;
mod control;
mod device_threads;
mod devices;
#[cfg(test)]
mod escape;
mod functions;
mod liveness;
mod ports;
#[cfg(test)]
mod roles;
mod signals;
mod terminal;

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use ratelimit::{Rate, RateLimiter};
use vm_memory::{Bytes, GuestAddress};
use vmm_control::{MemorySize, VmSpec};
use vmm_sys_util::eventfd::EventFd;

use crate::acpi::{self, AcpiError};
use crate::allocator;
use crate::boot::{BootError, Entry};
use crate::heartbeat::Heartbeat;
use crate::kvm::KvmError;
use crate::layout;
use crate::listen::SocketError;
use crate::power::{self, Request};
use crate::sandbox::{self, Role, SandboxError};
use crate::vcpu::{self, Event};
use build::Machine;
use control::MachineControl;
use device_threads::DeviceThreads;

/// How often a reset that waits for a device looks whether it still does, in milliseconds.
const RESET_LOOK: i32 = 2;
/// When to say that a reset waits.
const RESET_NOTICE: Duration = Duration::from_millis(500);
/// Resets that a guest gets at once, and in the long run: one that does nothing else costs the host next
/// to nothing, and one that is updated and started anew a few times waits for none. What a person asks
/// for is not put off.
const RESETS: Rate = Rate { burst: 10, every: Duration::from_secs(2) };
/// How long the end waits for devices' threads. What they are at then is a call to a disk that does not
/// return; the kernel ends it with the process.
const DEVICES_END: Duration = Duration::from_millis(100);
/// How long it waits for the serial log's last lines: they say why the guest ended, and a busy disk takes
/// a while.
const LOG_END: Duration = Duration::from_secs(1);

/// A subscriber of an event loop, shared with vCPU threads.
pub(crate) type Subscriber = Arc<Mutex<dyn MutEventSubscriber + Send>>;

/// Why a machine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitReason {
    /// The guest switched itself off.
    PoweredOff,
    /// The guest reset and `--exit-on-reset` was given.
    Reset,
    /// A signal, the control socket or the keyboard said so.
    Stopped,
    /// It was asked to shut down by SIGTERM and did not in time.
    SwitchedOff,
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PoweredOff => "the guest powered off",
            Self::Reset => "the guest reset",
            Self::Stopped => "stopped by request",
            Self::SwitchedOff => {
                "the guest did not shut down in time after SIGTERM and was switched off: look into its log why, or give it longer with --stop-timeout"
            }
        })
    }
}

/// Why a machine could not be built or run.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The kernel or the initrd cannot be booted.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The guest's RAM cannot be had.
    #[error(transparent)]
    Memory(#[from] crate::memory::MemoryError),
    /// The guest's RAM does not fit below the highest address of the processor.
    #[error(
        "this PC's processor has {bits} address bits, too few for a guest of {memory} and its devices; lower --memory"
    )]
    AddressBits {
        /// The size of the guest's RAM.
        memory: MemorySize,
        /// What the processor, or its nested page tables, can address.
        bits: u32,
    },
    /// KVM is not there, or refused something.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// An interrupt vector of a device could not be had or set.
    #[error(transparent)]
    Msi(#[from] pci::host::MsiError),
    /// The ACPI tables cannot be built.
    #[error(transparent)]
    Acpi(#[from] AcpiError),
    #[error(transparent)]
    Device(#[from] devices::DeviceError),
    /// The control socket cannot be made.
    #[error("--api-socket")]
    Api(#[source] SocketError),
    /// The file for the serial port's log could not be opened.
    #[error("could not open the serial port's log {}", .0.display())]
    SerialLog(std::path::PathBuf, #[source] io::Error),
    #[error("the sandbox could not be closed; --no-sandbox runs without, for debugging only")]
    Sandbox(#[from] SandboxError),
    /// An event loop, thread or signal could not be set up.
    #[error("could not {what}")]
    Host {
        /// The step that failed, as it reads behind "could not".
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A passed-through function did not reset when the guest had gone.
    #[error(
        "{0} did not reset after its guest, so it may still act for it: give it to nobody before this PC was switched off and on again"
    )]
    NotGivenBack(vfio::Address),
    /// The running guest cannot go on, for this reason.
    #[error("{0}")]
    Failed(String),
}

/// Names what an I/O error is about.
fn host(what: &'static str) -> impl FnOnce(io::Error) -> MachineError {
    move |source| MachineError::Host { what, source }
}

/// Returns an eventfd that nobody waits in.
fn eventfd() -> Result<EventFd, MachineError> {
    EventFd::new(libc::EFD_NONBLOCK).map_err(host("create an eventfd"))
}

/// Names what an error of the event loop is about.
fn event_loop(error: event_manager::Error) -> MachineError {
    MachineError::Host { what: "set up the event loop", source: io::Error::other(error) }
}

/// Builds the machine `spec` asks for and runs it to its end.
pub fn run(spec: &VmSpec) -> Result<ExitReason, MachineError> {
    allocator::share_one_heap();
    signals::block().map_err(host("block signals"))?;
    let machine = build::build(spec)?;
    let terminal = terminal::Raw::enter(&spec.serial);
    let end = machine.run(spec);
    drop(terminal);
    end
}

/// Serves what happens, once; for so long at most.
fn wait(main: &mut EventManager<Subscriber>, most: Option<Duration>) -> Result<(), MachineError> {
    let served = match most {
        None => main.run(),
        // Rounded up, so that it is over when it is looked at.
        Some(most) => main.run_with_timeout(
            i32::try_from(most.as_millis().saturating_add(1)).unwrap_or(i32::MAX),
        ),
    };
    served.map(drop).map_err(|e| host("wait for events")(io::Error::other(e)))
}

fn out_of_patience(control: &MachineControl) -> bool {
    control.patience_left().is_some_and(|left| left.is_zero())
}

/// What wakes the main loop: the event itself is read from the exit handler.
struct Wake(EventFd);

impl MutEventSubscriber for Wake {
    fn init(&mut self, ops: &mut EventOps) {
        if let Err(error) = ops.add(Events::new(&self.0, EventSet::IN)) {
            tracing::error!(%error, "the main loop cannot be woken");
        }
    }

    fn process(&mut self, _: Events, _: &mut EventOps) {
        let _ = self.0.read();
    }
}

/// What serves a machine from inside the sandbox.
struct Running {
    main: EventManager<Subscriber>,
    device_threads: DeviceThreads,
    log: DeviceThreads,
    control: Arc<MachineControl>,
}

impl Machine {
    fn run(mut self, spec: &VmSpec) -> Result<ExitReason, MachineError> {
        let Running { mut main, device_threads, log, control } = self.start(spec)?;
        sandbox::filter_thread(&spec.sandbox, Role::Main)?;
        allocator::give_back();

        let end = self.serve(spec, &mut main, &control);
        control.end();
        // Passed-through functions as well as our own devices, whose threads stop at the next piece.
        self.pci.reset();
        device_threads.end(DEVICES_END);
        log.end(LOG_END);
        let end = end?;
        self.given_back()?;
        Ok(end)
    }

    /// Closes the sandbox and starts all threads, each with its filter, except the caller's.
    fn start(&mut self, spec: &VmSpec) -> Result<Running, MachineError> {
        let mut main = EventManager::<Subscriber>::new().map_err(event_loop)?;
        let (mut device_threads, mut log) = <(DeviceThreads, DeviceThreads)>::default();
        let mut liveness = liveness::Liveness::default();
        for subscriber in std::mem::take(&mut self.main_loop) {
            main.add_subscriber(subscriber);
        }
        vcpu::install_kick().map_err(host("install a signal handler"))?;

        sandbox::enter(&spec.sandbox, self.file_bytes_max)?;
        for (name, role, subscriber) in std::mem::take(&mut self.own_threads) {
            let threads = if role == Role::Log { &mut log } else { &mut device_threads };
            threads
                .spawn(name, role, subscriber, spec.sandbox.clone(), &mut liveness)
                .map_err(host("start a device's thread"))?;
        }
        for (name, heartbeat) in std::mem::take(&mut self.helpers) {
            // It rests where it waits for anything but its disk, and out of that nobody wakes it.
            liveness.watch(name, liveness::ThreadDuty::HostFile, heartbeat, || ());
        }
        let control = Arc::new(MachineControl::new(self, spec, liveness));
        self.start_vcpus(spec, &control)?;
        if let Some(listener) = self.api.take() {
            let server = crate::api::Server::new(listener, control.clone())
                .map_err(host("serve the control socket"))?;
            main.add_subscriber(Arc::new(Mutex::new(server)));
        }
        let signals = signals::Signals::new(control.clone(), spec.stop_timeout)
            .map_err(host("receive signals"))?;
        main.add_subscriber(Arc::new(Mutex::new(signals)));
        let wake = self.wake.try_clone().map_err(host("clone an eventfd"))?;
        main.add_subscriber(Arc::new(Mutex::new(Wake(wake))));
        Ok(Running { main, device_threads, log, control })
    }

    fn serve(
        &mut self,
        spec: &VmSpec,
        main: &mut EventManager<Subscriber>,
        control: &MachineControl,
    ) -> Result<ExitReason, MachineError> {
        let entry = self.load()?;
        control.open(Some(entry));
        let (mut resets, epoch) = (RateLimiter::new(RESETS), Instant::now());
        loop {
            wait(main, control.patience_left())?;
            if control.stop_requested() {
                return Ok(ExitReason::Stopped);
            }
            match self.events.take() {
                Some(Event::Failed(why)) => return Err(MachineError::Failed(why)),
                Some(Event::Stop) => return Ok(ExitReason::Stopped),
                Some(Event::Guest(Request::PowerOff)) => return Ok(ExitReason::PoweredOff),
                Some(Event::Guest(Request::Reset)) if spec.exit_on_reset => {
                    return Ok(ExitReason::Reset);
                }
                // A guest that resets instead of shutting down has not shut down either.
                _ if out_of_patience(control) => return Ok(ExitReason::SwitchedOff),
                None => {}
                Some(Event::Guest(Request::Reset)) => {
                    control.end_run();
                    tracing::info!("the guest resets");
                    self.reset_devices()?;
                    let pause = if control.take_reset_request() {
                        Duration::ZERO
                    } else {
                        resets.wait(epoch.elapsed())
                    };
                    if let Some(end) = self.wait_for_restart(main, control, pause)? {
                        return Ok(end);
                    }
                    resets.take(1, epoch.elapsed());
                    let entry = self.load()?;
                    control.count_reset();
                    control.open(Some(entry));
                }
            }
        }
    }

    /// Loads ACPI tables, the reset vector and the kernel into memory.
    fn load(&mut self) -> Result<Entry, MachineError> {
        let rsdp = acpi::write(&self.memory, self.description)?;
        self.memory
            .write_slice(&power::BIOS, GuestAddress(layout::low::RESET_VECTOR))
            .map_err(BootError::from)?;
        Ok(self.kernel.load(&self.memory, rsdp)?)
    }

    /// Returns whether every passed-through function can be handed to somebody else.
    fn given_back(&self) -> Result<(), MachineError> {
        for function in &self.functions {
            let function = function.lock().unwrap_or_else(PoisonError::into_inner);
            if function.unreset() {
                return Err(MachineError::NotGivenBack(function.address()));
            }
        }
        Ok(())
    }

    /// Serves everything but the guest for `pause`, and until no device holds on to its memory any more.
    /// Mostly that is at once; a disk that hangs takes as long as it hangs. Returns how the machine ends,
    /// if it is told to meanwhile.
    fn wait_for_restart(
        &self,
        main: &mut EventManager<Subscriber>,
        control: &MachineControl,
        mut pause: Duration,
    ) -> Result<Option<ExitReason>, MachineError> {
        let since = Instant::now();
        let mut told = false;
        control.resetting(true);
        if !pause.is_zero() {
            tracing::warn!(
                seconds = pause.as_secs_f32(),
                "the guest resets all the time; it waits"
            );
        }
        loop {
            let rest = pause.saturating_sub(since.elapsed());
            let at_work = !self.pci.is_reset();
            if !at_work && rest.is_zero() {
                break;
            }
            if at_work && !told && since.elapsed() > RESET_NOTICE {
                told = true;
                tracing::warn!(
                    "the guest's reset waits for a device that is still at work, most likely a disk that does not answer; the guest starts when it has: look at the host's disks (dmesg), or stop this VMM"
                );
            }
            let rest = i32::try_from(rest.as_millis()).unwrap_or(i32::MAX).max(1);
            main.run_with_timeout(if at_work { RESET_LOOK } else { rest })
                .map_err(|e| host("wait for events")(io::Error::other(e)))?;
            // No guest runs: what it, or a client on its behalf, may still want is this very reset.
            match self.events.take() {
                Some(Event::Failed(why)) => return Err(MachineError::Failed(why)),
                Some(Event::Stop) => return Ok(Some(ExitReason::Stopped)),
                Some(Event::Guest(_)) | None => {}
            }
            if control.stop_requested() {
                return Ok(Some(ExitReason::Stopped));
            }
            if out_of_patience(control) {
                return Ok(Some(ExitReason::SwitchedOff));
            }
            if control.take_reset_request() {
                pause = Duration::ZERO;
            }
        }
        control.resetting(false);
        Ok(None)
    }

    /// Brings everything but RAM and vCPUs back to the state before the guest first ran.
    fn reset_devices(&mut self) -> Result<(), MachineError> {
        self.pci.reset();
        self.ports.reset();
        self.vm.reset_irqchip()?;
        Ok(())
    }

    fn start_vcpus(&mut self, spec: &VmSpec, control: &MachineControl) -> Result<(), MachineError> {
        let sandbox = spec.sandbox.clone();
        let prepare: vcpu::ThreadStart =
            Arc::new(move || sandbox::filter_thread(&sandbox, Role::Vcpu));
        for (vcpu, member) in std::mem::take(&mut self.vcpus) {
            let (handler, heartbeat) = (Arc::clone(&self.handler), Heartbeat::default());
            let thread = vcpu
                .spawn(
                    member,
                    self.memory.clone(),
                    handler,
                    Arc::clone(&prepare),
                    heartbeat.clone(),
                )
                .map_err(host("start a vCPU's thread"))?;
            control.add_vcpu(thread, heartbeat);
        }
        Ok(())
    }
}
