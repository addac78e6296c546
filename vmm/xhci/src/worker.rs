//! The event loop's side: what a doorbell leaves to be done.
//!
//! [`Backend::submit`] is called from here, on the event loop's thread, and may write to a socket that
//! does not block. From a vCPU's thread come only resets: `cancel`, `endpoint_stopped` and
//! `reset_port`. A backend that can do no I/O there queues them and wakes its own subscriber.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{Expiration, TimerFd, TimerSetTimeFlags};
use vmm_sys_util::eventfd::EventFd;

use crate::backend::Backend;
use crate::controller::{Controller, Progress};

/// Steps before others in the event loop have their turn. A guest whose rings have no end gets no more
/// than its share.
const STEPS_MAX: u32 = 64;

/// A controller shared by its function, its worker, and whoever feeds it devices.
pub struct Handle<B> {
    controller: Arc<Mutex<Controller<B>>>,
    kick: Arc<EventFd>,
    /// Goes off when a command has waited for a device long enough.
    timer: Arc<TimerFd>,
}

impl<B> Clone for Handle<B> {
    fn clone(&self) -> Self {
        Self {
            controller: Arc::clone(&self.controller),
            kick: Arc::clone(&self.kick),
            timer: Arc::clone(&self.timer),
        }
    }
}

impl<B: Backend> Handle<B> {
    pub(crate) fn new(controller: Controller<B>, kick: EventFd, timer: TimerFd) -> Self {
        Self {
            controller: Arc::new(Mutex::new(controller)),
            kick: Arc::new(kick),
            timer: Arc::new(timer),
        }
    }

    /// Does something with the controller (completes transfers, attaches, detaches), then the work
    /// that makes for it. For the thread of the event loop.
    pub fn with<T>(&self, act: impl FnOnce(&mut Controller<B>) -> T) -> T {
        let result = act(&mut self.lock());
        self.run_steps();
        result
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Controller<B>> {
        self.controller.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a register write of a vCPU's. What it sets going is the worker's.
    pub(crate) fn write(&self, offset: u64, data: &[u8]) {
        let work = self.lock().write(offset, data);
        if work {
            self.kick();
        }
    }

    fn kick(&self) {
        // A full counter is a kick that waits.
        let _ = self.kick.write(1);
    }

    /// Runs some steps. The lock is released between any two, so that a vCPU waits for one at most.
    fn run_steps(&self) {
        for _ in 0..STEPS_MAX {
            let mut controller = self.lock();
            if controller.step() == Progress::Idle {
                if let Some(deadline) = controller.deadline() {
                    self.wake_at(deadline);
                }
                return;
            }
        }
        self.kick();
    }

    fn wake_at(&self, deadline: Instant) {
        // A timer set to zero would never go off.
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let once = Expiration::OneShot(TimeSpec::from_duration(left));
        if let Err(error) = self.timer.set(once, TimerSetTimeFlags::empty()) {
            tracing::error!(%error, "a USB device that does not answer holds its controller up");
        }
    }
}

/// The worker that serves a controller in an event loop.
pub struct XhciWorker<B>(pub(crate) Handle<B>);

impl<B: Backend> MutEventSubscriber for XhciWorker<B> {
    fn init(&mut self, ops: &mut EventOps) {
        let timer = Events::new_raw(self.0.timer.as_fd().as_raw_fd(), EventSet::IN);
        for events in [Events::new(&*self.0.kick, EventSet::IN), timer] {
            if let Err(error) = ops.add(events) {
                tracing::error!(%error, "the USB controller is deaf to its driver");
            }
        }
    }

    fn process(&mut self, _: Events, _: &mut EventOps) {
        // Neither blocks; what did not come is not there.
        let _ = self.0.kick.read();
        let _ = self.0.timer.wait();
        self.0.run_steps();
    }
}
