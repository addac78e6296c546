//! Threads for devices that may take long: block devices for the host, the screen for its pixels.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use event_manager::{EventManager, SubscriberOps};
use vmm_sys_util::eventfd::EventFd;

use super::{Subscriber, Wake};
use crate::config::SandboxConfig;
use crate::sandbox::{self, Role};

/// Stack of a device thread, in bytes.
const STACK: usize = 256 << 10;

struct Worker {
    thread: JoinHandle<()>,
    wake: EventFd,
}

/// All device threads.
#[derive(Default)]
pub(super) struct Workers {
    workers: Vec<Worker>,
    ending: Arc<AtomicBool>,
}

impl Workers {
    /// Serves `subscriber` on a thread of its own.
    pub(super) fn spawn(
        &mut self,
        name: String,
        role: Role,
        subscriber: Subscriber,
        sandbox: SandboxConfig,
    ) -> io::Result<()> {
        let wake = EventFd::new(libc::EFD_NONBLOCK)?;
        let waked = wake.try_clone()?;
        let ending = Arc::clone(&self.ending);
        let mut events = EventManager::<Subscriber>::new().map_err(io::Error::other)?;
        events.add_subscriber(subscriber);
        events.add_subscriber(Arc::new(Mutex::new(Wake(waked))));
        let thread = thread::Builder::new().name(name).stack_size(STACK).spawn(move || {
            if let Err(error) = sandbox::filter_thread(&sandbox, role) {
                tracing::error!(%error, "a device thread could not close its sandbox");
                std::process::abort();
            }
            while !ending.load(Ordering::Acquire) {
                if let Err(error) = events.run() {
                    tracing::error!(%error, "a device's event loop ended; the device hangs");
                    return;
                }
            }
        })?;
        self.workers.push(Worker { thread, wake });
        Ok(())
    }

    /// Ends them after the request they are at.
    pub(super) fn end(self) {
        self.ending.store(true, Ordering::Release);
        for worker in self.workers {
            let _ = worker.wake.write(1);
            if worker.thread.join().is_err() {
                tracing::error!("a device thread panicked");
            }
        }
    }
}
