//! Network device (virtio 1.2 section 5.1) on a tap interface of the host.
//!
//! | queue | | |
//! |---|---|---|
//! | 0 | to the guest | `receive.rs` |
//! | 1 | from the guest | below |
//!
//! Checksum and segmentation offloads go both ways as far as the tap has them; a frame's header is
//! checked against what was negotiated before the host sees it. Like any card it drops what cannot
//! be sent. The tap is watched edge-triggered: without receive buffers it is not read at all.
//!
//! Not offered: a control queue (so no filters: the guest is given all the tap carries), several
//! queue pairs, link status, MTU.

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod header;
mod receive;
mod spec;
mod tap;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use event_manager::{EventOps, EventSet, Events};

use crate::queue::{CheckedQueue, Progress, RING_FEATURES};
use crate::{
    ActivateError, Activation, Backlog, Chain, Device, DeviceConfig, FixedConfig, Interrupt,
    QueueError,
};
use receive::Receiver;
use spec::{HEADER_BYTES, feature};

pub use notation::{Mac, MacError};
pub use tap::{Tap, TapError};

/// Descriptors in each queue.
const QUEUE_SIZES: [u16; 2] = [256, 256];

/// Bytes in one chain: the longest frame, its header, and room for buffers a driver rounds up.
const MAX_CHAIN_BYTES: u32 = 128 << 10;

/// The most frames sent before the receive side has its turn.
const BUDGET: usize = 64;

/// The tap's event token.
const TAP_TOKEN: u32 = Backlog::TOKEN + 1;

/// A network device on a tap (virtio 1.2 section 5.1).
pub struct Net {
    backlog: Backlog,
    tap: Tap,
    mac: Mac,
    watching: bool,
    running: Option<Running>,
}

struct Running {
    receiver: Receiver,
    transmit: CheckedQueue,
    interrupt: Arc<dyn Interrupt>,
    features: u64,
}

impl Net {
    /// Fails only when the process has no file descriptor left.
    pub fn new(tap: Tap, mac: Mac) -> io::Result<Self> {
        Ok(Self { backlog: Backlog::new()?, tap, mac, watching: false, running: None })
    }

    fn run(&mut self, work: impl FnOnce(&Tap, &mut Running) -> Result<Progress, QueueError>) {
        let Some(running) = &mut self.running else { return };
        match work(&self.tap, running) {
            Ok(Progress::Emptied) => {}
            Ok(Progress::Unfinished) => self.backlog.again(),
            Err(error) => {
                driver_error!("virtio-net", &error);
                running.interrupt.needs_reset();
                self.running = None;
            }
        }
    }
}

impl Running {
    fn receive(&mut self, tap: &Tap) -> Result<Progress, QueueError> {
        self.receiver.run(tap, &*self.interrupt)
    }

    fn transmit(&mut self, tap: &Tap) -> Result<Progress, QueueError> {
        let features = self.features;
        self.transmit.serve(&*self.interrupt, spec::TRANSMIT_QUEUE, BUDGET, |chain| {
            send(chain, tap, features);
            Ok(0)
        })
    }

    fn both(&mut self, tap: &Tap) -> Result<Progress, QueueError> {
        let sent = self.transmit(tap)?;
        let received = self.receive(tap)?;
        Ok(if sent == Progress::Unfinished { sent } else { received })
    }
}

/// Sends a frame, or drops it: what a card does that has no room, no link or no sense in it.
fn send(chain: &Chain, tap: &Tap, features: u64) {
    let mut frame = chain.reader();
    let Ok(header) = frame.read_array::<HEADER_BYTES>() else { return };
    if let Some(header) = header::admit(header, frame.left(), features) {
        let _ = frame.write_behind(&header, tap.as_fd());
    }
}

impl Device for Net {
    fn device_type(&self) -> u32 {
        spec::DEVICE_ID
    }

    fn features(&self) -> u64 {
        RING_FEATURES | feature::MAC | feature::MRG_RXBUF | self.tap.features()
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn config(&self) -> Arc<dyn DeviceConfig> {
        // Section 5.1.4: the address is all that is offered.
        Arc::new(FixedConfig(self.mac.bytes().to_vec()))
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let Activation { memory, queues, interrupt, features } = activation;
        let memory = Arc::new(memory);
        let mut queues = queues.into_iter();
        let mut take = |index| {
            let queue = queues.next().flatten().ok_or(ActivateError::QueueMissing(index))?;
            Ok(CheckedQueue::new(queue, &memory, features, MAX_CHAIN_BYTES))
        };
        let receive = take(spec::RECEIVE_QUEUE)?;
        let transmit = take(spec::TRANSMIT_QUEUE)?;
        let mut receiver = Receiver::new(receive, features & feature::MRG_RXBUF != 0);
        receiver.discard(&self.tap);
        self.tap.set_features(features).map_err(ActivateError::Host)?;
        self.running = Some(Running { receiver, transmit, interrupt, features });
        Ok(())
    }

    fn reset(&mut self) {
        self.running = None;
        if let Err(error) = self.tap.set_features(0) {
            tracing::warn!(%error, "cannot switch a tap's offloads off");
        }
    }

    fn queue_notified(&mut self, index: usize) {
        self.run(|tap, running| match index {
            spec::RECEIVE_QUEUE => running.receive(tap),
            spec::TRANSMIT_QUEUE => running.transmit(tap),
            _ => Ok(Progress::Emptied),
        });
    }

    fn register(&mut self, ops: &mut EventOps) {
        self.backlog.register(ops);
        if !self.watching {
            let set = EventSet::IN | EventSet::EDGE_TRIGGERED;
            match ops.add(Events::with_data(self.tap.file(), TAP_TOKEN, set)) {
                Ok(()) => self.watching = true,
                Err(error) => tracing::error!(%error, "cannot wait for a tap"),
            }
        }
    }

    fn host_event(&mut self, events: Events, _ops: &mut EventOps) {
        match events.data() {
            TAP_TOKEN => self.run(|tap, running| running.receive(tap)),
            Backlog::TOKEN => {
                self.backlog.take();
                self.run(|tap, running| running.both(tap));
            }
            _ => {}
        }
    }
}
