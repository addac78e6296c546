//! The I/O thread's side: notifications and the device's own file descriptors.

use std::sync::Arc;

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use virtio::device::FIRST_DEVICE_TOKEN;
use vmm_sys_util::eventfd::EventFd;

use crate::core::Core;

/// Token of the eventfd by which the registers say that the device was activated or reset.
const CONTROL: u32 = FIRST_DEVICE_TOKEN - 1;

/// The worker that serves one device in an event loop.
pub struct VirtioPciWorker {
    pub(crate) core: Arc<Core>,
    pub(crate) notifications: Vec<EventFd>,
}

impl VirtioPciWorker {
    fn notified(&self, queue: u32) {
        let index = queue as usize;
        let Some(notification) = self.notifications.get(index) else { return };
        let _ = notification.read();
        if self.core.line().active() {
            self.core.device().queue_notified(index);
        }
    }

    fn state_changed(&self, ops: &mut EventOps) {
        let _ = self.core.control().read();
        let mut device = self.core.device();
        device.register(ops);
        // A driver may have made buffers available before it was ready.
        for index in 0..self.notifications.len() {
            if self.core.line().active() {
                device.queue_notified(index);
            }
        }
    }
}

impl Drop for VirtioPciWorker {
    fn drop(&mut self) {
        self.core.end();
    }
}

impl MutEventSubscriber for VirtioPciWorker {
    fn init(&mut self, ops: &mut EventOps) {
        let notifications = (0..).zip(&self.notifications);
        let fds = notifications.chain([(CONTROL, self.core.control())]);
        for (token, fd) in fds {
            if let Err(error) = ops.add(Events::with_data(fd, token, EventSet::IN)) {
                tracing::error!(%error, "a virtio device is deaf to its driver");
            }
        }
        self.core.device().register(ops);
    }

    fn process(&mut self, events: Events, ops: &mut EventOps) {
        match events.data() {
            CONTROL => self.state_changed(ops),
            token if token >= FIRST_DEVICE_TOKEN => self.core.device().host_event(events, ops),
            queue => self.notified(queue),
        }
    }
}
