//! How a device that used up its budget gets called again, after the others of its thread.

use std::io;
use std::sync::Arc;

use event_manager::{EventOps, EventSet, Events};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::device::FIRST_DEVICE_TOKEN;

/// An event a device sends to itself.
///
/// ```text
///   queue_notified -> budget used up -> again() ..(event loop serves the others).. host_event -> take()
/// ```
///
/// A clone asks for the same event; one of them is registered.
#[derive(Clone, Debug)]
pub struct Backlog {
    event: Arc<EventFd>,
    registered: bool,
}

impl Backlog {
    /// The event's token. A device's own tokens start after it.
    pub const TOKEN: u32 = FIRST_DEVICE_TOKEN;

    /// Fails only when the process has no file descriptor left.
    pub fn new() -> io::Result<Self> {
        let event = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?);
        Ok(Self { event, registered: false })
    }

    /// Registers the backlog; to be called from [`Device::register`](crate::Device::register); idempotent.
    pub fn register(&mut self, ops: &mut EventOps) {
        if !self.registered {
            let events = Events::with_data(&*self.event, Self::TOKEN, EventSet::IN);
            match ops.add(events) {
                Ok(()) => self.registered = true,
                Err(error) => tracing::error!(%error, "cannot wait for a device's own event"),
            }
        }
    }

    /// Asks for a [`Device::host_event`](crate::Device::host_event) with [`Backlog::TOKEN`].
    pub fn again(&self) {
        // Fails only when the counter is full, and then the event is pending anyway.
        let _ = self.event.write(1);
    }

    /// Takes the event: it will not come again unless asked for again.
    pub fn take(&self) {
        // Fails only when there was none.
        let _ = self.event.read();
    }
}
