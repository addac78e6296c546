//! Threads for devices that may take long: block devices and the serial log for the host, the screen for
//! its pixels.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use event_manager::{EventManager, SubscriberOps};
use vmm_control::SandboxSpec;
use vmm_sys_util::eventfd::EventFd;

use super::liveness::{Liveness, ThreadDuty};
use super::{Subscriber, Wake};
use crate::heartbeat::Heartbeat;
use crate::sandbox::{self, Role};

/// Stack of a device thread, in bytes.
const STACK: usize = 256 << 10;

/// The device threads of a machine.
pub(super) struct DeviceThreads {
    wakes: Vec<EventFd>,
    ending: Arc<AtomicBool>,
    /// Each thread has one of these for as long as it lives.
    alive: Sender<()>,
    /// Disconnected when none is left.
    ended: Receiver<()>,
}

impl Default for DeviceThreads {
    fn default() -> Self {
        let (alive, ended) = channel();
        Self { wakes: Vec::new(), ending: Arc::default(), alive, ended }
    }
}

impl DeviceThreads {
    /// Serves `subscriber` on a thread of its own, which is watched.
    pub(super) fn spawn(
        &mut self,
        name: String,
        role: Role,
        subscriber: Subscriber,
        sandbox: SandboxSpec,
        liveness: &mut Liveness,
    ) -> io::Result<()> {
        let wake = EventFd::new(libc::EFD_NONBLOCK)?;
        let (waked, watch) = (wake.try_clone()?, wake.try_clone()?);
        let heartbeat = Heartbeat::default();
        let serves = match role {
            Role::Block | Role::Log => ThreadDuty::HostFile,
            Role::Main | Role::Vcpu | Role::Screen => ThreadDuty::Guest,
        };
        liveness.watch(name.clone(), serves, heartbeat.clone(), move || {
            // One that was not taken yet is as good.
            let _ = watch.write(1);
        });
        let ending = Arc::clone(&self.ending);
        let alive = self.alive.clone();
        let mut manager = EventManager::<Subscriber>::new().map_err(io::Error::other)?;
        manager.add_subscriber(subscriber);
        manager.add_subscriber(Arc::new(Mutex::new(Wake(waked))));
        thread::Builder::new().name(name).stack_size(STACK).spawn(move || {
            let _alive = alive;
            // Dropped first: a device may have something to finish.
            let mut events = manager;
            if let Err(error) = sandbox::filter_thread(&sandbox, role) {
                tracing::error!(%error, "a device thread could not close its sandbox");
                std::process::abort();
            }
            while !ending.load(Ordering::Acquire) {
                heartbeat.beat();
                if let Err(error) = events.run() {
                    tracing::error!(%error, "a device's event loop ended; the device hangs");
                    return;
                }
            }
        })?;
        self.wakes.push(wake);
        Ok(())
    }

    /// Ends them after the piece of work they are at, and waits for that, but not longer than `most`.
    pub(super) fn end(self, most: Duration) {
        let Self { wakes, ending, alive, ended } = self;
        ending.store(true, Ordering::Release);
        for wake in wakes {
            let _ = wake.write(1);
        }
        drop(alive);
        // Nothing is ever sent: either all have ended, or the time is over.
        if ended.recv_timeout(most) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!(
                "a device's thread is still at work, most likely with a disk that does not answer; the VMM ends without it"
            );
        }
    }
}
