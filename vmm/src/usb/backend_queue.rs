//! The controller's calls to its devices, queued from any thread until the main loop takes them.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use xhci::{Backend, EndpointAddress, PortId, Transfer, TransferId};

/// Most calls that wait. There is one transfer for each endpoint at most, but a guest may reset ports faster than the main loop
/// runs: beyond this its devices are unplugged.
const CALLS_MAX: usize = 4096;

/// A call of the controller to one of its devices.
#[derive(Debug)]
pub(super) enum BackendCall {
    Submit(Transfer),
    Stop(TransferId),
    Cancel(TransferId),
    Reset(PortId),
    Stopped(PortId, EndpointAddress),
}

#[derive(Default)]
struct Queue {
    calls: VecDeque<BackendCall>,
    lost: bool,
}

/// The controller's backend: a queue and an eventfd.
#[derive(Clone)]
pub(crate) struct BackendQueue {
    queue: Arc<Mutex<Queue>>,
    pub(super) kick: Arc<EventFd>,
}

impl BackendQueue {
    /// Makes an empty queue.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { queue: Arc::default(), kick: Arc::new(EventFd::new(EFD_NONBLOCK)?) })
    }

    fn push(&self, call: BackendCall) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.calls.len() < CALLS_MAX {
            queue.calls.push_back(call);
        } else {
            queue.lost = true;
        }
        drop(queue);
        // A full counter is a kick that waits.
        let _ = self.kick.write(1);
    }

    /// Drops the calls to a port whose device is gone. Call it under the controller's lock: then nothing of the former
    /// device comes later.
    pub(super) fn forget(&self, gone: PortId) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.calls.retain(|call| match call {
            BackendCall::Submit(transfer) => transfer.port != gone,
            BackendCall::Reset(port) | BackendCall::Stopped(port, _) => *port != gone,
            BackendCall::Stop(_) | BackendCall::Cancel(_) => true,
        });
    }

    /// Takes the calls since the last time, in order; and whether there were more than could be kept.
    pub(super) fn take(&self) -> (VecDeque<BackendCall>, bool) {
        let _ = self.kick.read();
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        (std::mem::take(&mut queue.calls), std::mem::take(&mut queue.lost))
    }
}

impl Backend for BackendQueue {
    fn submit(&mut self, transfer: Transfer) {
        self.push(BackendCall::Submit(transfer));
    }

    fn stop(&mut self, id: TransferId) {
        self.push(BackendCall::Stop(id));
    }

    fn cancel(&mut self, id: TransferId) {
        self.push(BackendCall::Cancel(id));
    }

    fn reset_port(&mut self, port: PortId) {
        self.push(BackendCall::Reset(port));
    }

    fn endpoint_stopped(&mut self, port: PortId, endpoint: EndpointAddress) {
        self.push(BackendCall::Stopped(port, endpoint));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_wanted_of_a_device_that_went_is_not_wanted_of_the_next_one() {
        let mut backend = BackendQueue::new().unwrap();
        let [gone, other] = [1, 2].map(PortId::new);
        for port in [gone, other] {
            backend.submit(Transfer {
                id: TransferId::from_number(port.number().into()),
                port,
                endpoint: EndpointAddress::new(2),
                request: xhci::Request::Bulk(xhci::Payload::Out(vec![1])),
            });
            backend.reset_port(port);
            backend.endpoint_stopped(port, EndpointAddress::new(2));
        }
        backend.forget(gone);
        let (left, lost) = backend.take();
        let ports = left.iter().map(|call| match call {
            BackendCall::Submit(transfer) => transfer.port,
            BackendCall::Reset(port) | BackendCall::Stopped(port, _) => *port,
            BackendCall::Stop(_) | BackendCall::Cancel(_) => gone,
        });
        assert_eq!((ports.collect::<Vec<_>>(), lost), (vec![other; 3], false));
    }
}
