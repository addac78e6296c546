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
