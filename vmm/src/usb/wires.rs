//! What the controller wants of its devices, from whatever thread, until the main loop takes it.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use xhci::{Backend, EndpointAddress, PortId, Transfer, TransferId};

/// Wishes that wait. There is one transfer for each endpoint at most, but a guest may reset ports faster than the main loop
/// runs: beyond this its devices are unplugged.
const WISHES_MAX: usize = 4096;

/// What is to be done.
#[derive(Debug)]
pub(super) enum Wish {
    Submit(Transfer),
    Stop(TransferId),
    Cancel(TransferId),
    Reset(PortId),
    Stopped(PortId, EndpointAddress),
}

#[derive(Default)]
struct Queue {
    wishes: VecDeque<Wish>,
    lost: bool,
}

/// The controller's backend: a queue and an eventfd.
#[derive(Clone)]
pub(crate) struct Wires {
    queue: Arc<Mutex<Queue>>,
    pub(super) kick: Arc<EventFd>,
}

impl Wires {
    /// Nothing is wanted yet.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { queue: Arc::default(), kick: Arc::new(EventFd::new(EFD_NONBLOCK)?) })
    }

    fn push(&self, wish: Wish) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.wishes.len() < WISHES_MAX {
            queue.wishes.push_back(wish);
        } else {
            queue.lost = true;
        }
        drop(queue);
        // A full counter is a kick that waits.
        let _ = self.kick.write(1);
    }

    /// Drops what is wanted of a port whose device is gone. Call it under the controller's lock: then nothing of the former
    /// device comes later.
    pub(super) fn forget(&self, gone: PortId) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.wishes.retain(|wish| match wish {
            Wish::Submit(transfer) => transfer.port != gone,
            Wish::Reset(port) | Wish::Stopped(port, _) => *port != gone,
            Wish::Stop(_) | Wish::Cancel(_) => true,
        });
    }

    /// What is wanted since the last call, in order; and whether there was more than could be kept.
    pub(super) fn take(&self) -> (VecDeque<Wish>, bool) {
        let _ = self.kick.read();
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        (std::mem::take(&mut queue.wishes), std::mem::take(&mut queue.lost))
    }
}

impl Backend for Wires {
    fn submit(&mut self, transfer: Transfer) {
        self.push(Wish::Submit(transfer));
    }

    fn stop(&mut self, id: TransferId) {
        self.push(Wish::Stop(id));
    }

    fn cancel(&mut self, id: TransferId) {
        self.push(Wish::Cancel(id));
    }

    fn reset_port(&mut self, port: PortId) {
        self.push(Wish::Reset(port));
    }

    fn endpoint_stopped(&mut self, port: PortId, endpoint: EndpointAddress) {
        self.push(Wish::Stopped(port, endpoint));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_wanted_of_a_device_that_went_is_not_wanted_of_the_next_one() {
        let mut wires = Wires::new().unwrap();
        let [gone, other] = [1, 2].map(PortId::new);
        for port in [gone, other] {
            wires.submit(Transfer {
                id: TransferId::from_number(port.number().into()),
                port,
                endpoint: EndpointAddress::new(2),
                request: xhci::Request::Bulk(xhci::Payload::Out(vec![1])),
            });
            wires.reset_port(port);
            wires.endpoint_stopped(port, EndpointAddress::new(2));
        }
        wires.forget(gone);
        let (left, lost) = wires.take();
        let ports = left.iter().map(|wish| match wish {
            Wish::Submit(transfer) => transfer.port,
            Wish::Reset(port) | Wish::Stopped(port, _) => *port,
            Wish::Stop(_) | Wish::Cancel(_) => gone,
        });
        assert_eq!((ports.collect::<Vec<_>>(), lost), (vec![other; 3], false));
    }
}
