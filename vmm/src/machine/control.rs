//! What can be done to a running machine from outside: control socket and signals.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use vmm_control::{Command, State, Status, VmSpec};

use super::build::Machine;
use super::liveness::{Liveness, ThreadDuty};
use crate::api::Control;
use crate::boot::Entry;
use crate::heartbeat::Heartbeat;
use crate::power::{Power, Request};
use crate::vcpu::{self, Event, Events, Gate};

/// Handles on a running machine. Used from the main loop only, except for the counters.
pub(super) struct MachineControl {
    gate: Arc<Gate>,
    events: Arc<Events>,
    power: Arc<Mutex<Power>>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
    liveness: Mutex<Liveness>,
    paused: AtomicBool,
    stop: AtomicBool,
    /// When the guest is switched off, since it was asked by signal to shut down.
    give_up: Mutex<Option<Instant>>,
    reset_request: AtomicBool,
    /// Whether the guest is between two runs, as it is being reset.
    resetting: AtomicBool,
    resets: AtomicU64,
    vcpus: u8,
    memory_mib: u64,
}

impl MachineControl {
    pub(super) fn new(machine: &Machine, spec: &VmSpec, liveness: Liveness) -> Self {
        Self {
            gate: Arc::clone(&machine.gate),
            events: Arc::clone(&machine.events),
            power: Arc::clone(&machine.power),
            threads: Arc::default(),
            liveness: Mutex::new(liveness),
            paused: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            give_up: Mutex::new(None),
            reset_request: AtomicBool::new(false),
            resetting: AtomicBool::new(false),
            resets: AtomicU64::new(0),
            vcpus: spec.cpus,
            memory_mib: spec.memory.bytes() >> 20,
        }
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a vCPU's thread, which is watched by its heartbeat from now on.
    pub(super) fn add_vcpu(&self, thread: JoinHandle<()>, heartbeat: Heartbeat) {
        let name = thread.thread().name().unwrap_or("vcpu").to_owned();
        // A look holds the watched threads while it wakes one, which takes the list: so the list is given back here first.
        let index = {
            let mut threads = self.threads();
            threads.push(thread);
            threads.len().saturating_sub(1)
        };
        let kicked = Arc::clone(&self.threads);
        self.liveness().watch(name, ThreadDuty::Guest, heartbeat, move || {
            let threads = kicked.lock().unwrap_or_else(PoisonError::into_inner);
            threads.get(index).into_iter().for_each(vcpu::kick);
        });
    }

    fn liveness(&self) -> MutexGuard<'_, Liveness> {
        self.liveness.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the vCPUs run; a paused machine that is reset runs again.
    pub(super) fn open(&self, restart: Option<Entry>) {
        self.paused.store(false, Ordering::Relaxed);
        self.gate.open(restart);
    }

    /// Stops all vCPUs and waits until they are.
    pub(super) fn close(&self) {
        let threads = self.threads();
        self.gate.close(|| threads.iter().for_each(vcpu::kick));
    }

    /// Stops all vCPUs for a reset: what their guest still wanted goes with it.
    pub(super) fn end_run(&self) {
        self.close();
        self.events.end_run();
    }

    /// Stops all vCPUs for good.
    pub(super) fn end(&self) {
        self.close();
        self.gate.end();
        let threads = std::mem::take(&mut *self.threads());
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a vCPU thread panicked");
            }
        }
    }

    /// Sets whether the guest is being reset; no vCPU may run then.
    pub(super) fn resetting(&self, resetting: bool) {
        self.resetting.store(resetting, Ordering::Relaxed);
    }

    /// Returns whether somebody outside asked for a reset since the last call.
    pub(super) fn take_reset_request(&self) -> bool {
        self.reset_request.swap(false, Ordering::Relaxed)
    }

    pub(super) fn count_reset(&self) {
        self.resets.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn stop_requested(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(super) fn press_power_button(&self) -> Result<(), String> {
        Power::press_button(&self.power).map_err(|e| format!("could not press the button: {e}"))
    }

    /// Gives the guest so long to shut down from now on.
    pub(super) fn give_up_after(&self, patience: Duration) {
        let mut give_up = self.give_up.lock().unwrap_or_else(PoisonError::into_inner);
        *give_up = Instant::now().checked_add(patience);
    }

    /// Returns what is left of that time; `None` if nobody asked the guest by signal.
    pub(super) fn patience_left(&self) -> Option<Duration> {
        let give_up = self.give_up.lock().unwrap_or_else(PoisonError::into_inner);
        give_up.map(|until| until.saturating_duration_since(Instant::now()))
    }

    /// Asks the main loop to end the VMM, which it does when it next comes round.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Control for MachineControl {
    fn command(&self, command: Command) -> Result<Option<Status>, String> {
        match command {
            Command::Status => {
                let paused = self.paused.load(Ordering::Relaxed);
                return Ok(Some(Status {
                    state: match (paused, self.gate.is_running()) {
                        (true, _) => State::Paused,
                        (false, true) => State::Running,
                        (false, false) => State::Starting,
                    },
                    pid: std::process::id(),
                    vcpus: self.vcpus,
                    memory_mib: self.memory_mib,
                    resets: self.resets.load(Ordering::Relaxed),
                    hung: self.liveness().look(Instant::now()),
                }));
            }
            Command::PowerButton => self.press_power_button()?,
            Command::Reset => {
                self.reset_request.store(true, Ordering::Relaxed);
                self.events.raise(Event::Guest(Request::Reset));
            }
            Command::Stop => self.stop(),
            Command::Pause | Command::Resume if self.resetting.load(Ordering::Relaxed) => {
                return Err("the guest is being reset; try again when it runs".into());
            }
            Command::Pause => {
                if self.paused.swap(true, Ordering::Relaxed) {
                    return Err("it is paused already".into());
                }
                self.close();
            }
            Command::Resume => {
                if !self.paused.swap(false, Ordering::Relaxed) {
                    return Err("it is not paused".into());
                }
                self.gate.open(None);
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm_sys_util::eventfd::EventFd;

    fn control() -> MachineControl {
        let eventfd = || EventFd::new(libc::EFD_NONBLOCK).unwrap();
        MachineControl {
            gate: Gate::new(1).0,
            events: Arc::new(Events::new(eventfd())),
            power: Arc::new(Mutex::new(Power::new(eventfd(), Box::new(|_| ())))),
            threads: Arc::default(),
            liveness: Mutex::default(),
            paused: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            give_up: Mutex::new(None),
            reset_request: AtomicBool::new(false),
            resetting: AtomicBool::new(false),
            resets: AtomicU64::new(0),
            vcpus: 1,
            memory_mib: 64,
        }
    }

    #[test]
    fn a_vcpu_that_is_added_during_a_look_holds_up_no_thread_that_the_look_wakes() {
        let control = control();
        let look = control.liveness();
        std::thread::scope(|scope| {
            scope.spawn(|| control.add_vcpu(std::thread::spawn(|| ()), Heartbeat::default()));
            let until = Instant::now() + Duration::from_secs(10);
            // Added, and not watched before the look is over.
            let added = || control.threads.try_lock().is_ok_and(|threads| !threads.is_empty());
            let mut seen = added();
            while !seen && Instant::now() < until {
                std::thread::yield_now();
                seen = added();
            }
            drop(look);
            assert!(seen, "the list of threads is held while the watched threads are waited for");
        });
    }
}
