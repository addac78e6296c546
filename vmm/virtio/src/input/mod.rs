//! Input device (virtio 1.2 section 5.8): a keyboard, or an absolute pointer with buttons and wheel.
//!
//! Events come in through a [`Handle`] from the agent. The device remembers which keys the driver was told
//! to be down, so that [`Handle::release_all`] lets go of exactly those; when the driver takes nothing and
//! [`HELD_MAX`] events wait, they are dropped and everything is let go, so that no key stays down for good.
//!
//! Not offered: touch, force feedback.
#![forbid(unsafe_code)]

mod config;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod spec;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use event_manager::{EventOps, EventSet, Events};
use seat_link::Event;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::queue::{CheckedQueue, Progress, RING_FEATURES};
use crate::{ActivateError, Activation, Backlog, Device, DeviceConfig, Interrupt, QueueError};
use config::Config;

pub use config::Kind;

/// The most events that wait for a driver: what a person does in some seconds.
pub const HELD_MAX: usize = 1024;
/// The most status events taken before other devices have their turn.
const BUDGET: usize = 64;
/// How long input may wait before the guest counts as stalled. Noticed when more comes.
pub const STALLED_AFTER: Duration = Duration::from_secs(2);
/// The event by which input comes.
const INPUT_TOKEN: u32 = Backlog::TOKEN + 1;

/// What the guest reports of its input devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputStatus {
    /// The lights it wants on, bit n for `LED_*` n.
    Lights(u8),
    /// It has taken nothing for [`STALLED_AFTER`] although something waits; or takes it again.
    Stalled(bool),
}

/// Called with each report of the guest's. It runs on the device's thread, and must not wait.
pub type Listener = Box<dyn FnMut(InputStatus) + Send>;

/// A handle by which any thread gives the device events.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Inbox>);

#[derive(Debug)]
struct Inbox {
    waiting: Mutex<Waiting>,
    event: EventFd,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<Event>,
    /// Before `events`, everything that is down goes up.
    release_first: bool,
}

impl Handle {
    /// Sends what a person did.
    pub fn send(&self, events: &[Event]) {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.events.len() + events.len() > HELD_MAX {
            waiting.events.clear();
            waiting.release_first = true;
        } else {
            waiting.events.extend(events);
        }
        drop(waiting);
        self.wake();
    }

    /// Releases whatever is down, and forgets what waited.
    pub fn release_all(&self) {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.events.clear();
        waiting.release_first = true;
        drop(waiting);
        self.wake();
    }

    fn wake(&self) {
        // Fails only when the counter is full, and then the event is pending anyway.
        let _ = self.0.event.write(1);
    }
}

/// An input device (virtio 1.2 section 5.8): a keyboard or a pointer.
pub struct Input {
    backlog: Backlog,
    config: Arc<Config>,
    inbox: Arc<Inbox>,
    registered: bool,
    listener: Listener,
    lit: u8,
    stalled: bool,
    running: Option<Running>,
}

struct Running {
    events: CheckedQueue,
    status: CheckedQueue,
    interrupt: Arc<dyn Interrupt>,
    /// Keys and buttons the driver was told to be down.
    down: BTreeSet<u16>,
    /// What the driver had no room for yet.
    held: VecDeque<Event>,
    /// Since when the driver has taken nothing although something was held.
    waiting: Option<Instant>,
}

impl Input {
    /// Makes a device of this kind, and the handle that feeds it.
    ///
    /// # Errors
    /// The process has no file descriptor left.
    pub fn new(kind: Kind, listener: Listener) -> io::Result<(Self, Handle)> {
        let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        let inbox = Arc::new(Inbox { waiting: Mutex::default(), event });
        let this = Self {
            backlog: Backlog::new()?,
            config: Arc::new(Config::new(kind)),
            inbox: Arc::clone(&inbox),
            registered: false,
            listener,
            lit: 0,
            stalled: false,
            running: None,
        };
        Ok((this, Handle(inbox)))
    }

    fn take_events(&mut self) {
        let _ = self.inbox.event.read();
        let mut waiting = self.inbox.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let Waiting { events, release_first } = std::mem::take(&mut *waiting);
        drop(waiting);
        // Without a driver nobody is told, now or later.
        let Some(running) = &mut self.running else { return };
        if release_first {
            running.release_all();
        }
        running.held.extend(events.into_iter().filter(|event| self.config.has(event)));
        if running.held.len() > HELD_MAX {
            running.release_all();
        }
        self.serve();
    }

    fn serve(&mut self) {
        let Some(running) = &mut self.running else { return };
        match running.serve(&mut self.lit) {
            Ok((progress, lit_before)) => {
                if self.lit != lit_before {
                    (self.listener)(InputStatus::Lights(self.lit));
                }
                let stalled = running.waits_for() > STALLED_AFTER;
                if std::mem::replace(&mut self.stalled, stalled) != stalled {
                    (self.listener)(InputStatus::Stalled(stalled));
                }
                if progress == Progress::Unfinished {
                    self.backlog.again();
                }
            }
            Err(error) => {
                driver_error!("virtio-input", &error);
                running.interrupt.needs_reset();
                self.running = None;
            }
        }
    }
}

impl Running {
    /// Returns how long the driver has left something lying.
    fn waits_for(&self) -> Duration {
        self.waiting.map(|since| since.elapsed()).unwrap_or_default()
    }

    /// Forgets what was held, and releases what is down.
    fn release_all(&mut self) {
        self.held.clear();
        let ups = self.down.iter().map(|&code| Event { kind: spec::EV_KEY, code, value: 0 });
        self.held.extend(ups);
        if !self.held.is_empty() {
            self.held.push_back(Event::SYN);
        }
    }

    fn serve(&mut self, lit: &mut u8) -> Result<(Progress, u8), QueueError> {
        let lit_before = *lit;
        while let Some(event) = self.held.front().copied() {
            let Some(chain) = self.events.pop_or_wait()? else { break };
            let mut raw = [0; spec::EVENT_BYTES];
            let fields = event.kind.to_le_bytes().into_iter().chain(event.code.to_le_bytes());
            for (place, byte) in raw.iter_mut().zip(fields.chain(event.value.to_le_bytes())) {
                *place = byte;
            }
            let no_room = |_| QueueError::Request("an event's buffer without room");
            chain.writer().write_all(&raw).map_err(no_room)?;
            self.events.add_used(chain, spec::EVENT_BYTES)?;
            self.track_key(event);
            self.held.pop_front();
            self.waiting = None;
        }
        if self.held.is_empty() {
            self.waiting = None;
        } else {
            self.waiting.get_or_insert_with(Instant::now);
        }
        self.events.announce(&*self.interrupt, spec::EVENT_QUEUE)?;
        let progress =
            self.status.serve(&*self.interrupt, spec::STATUS_QUEUE, BUDGET, |chain| {
                if let Ok([k0, k1, c0, c1, value, ..]) =
                    chain.reader().read_array::<{ spec::EVENT_BYTES }>()
                {
                    let (kind, code) = (u16::from_le_bytes([k0, k1]), u16::from_le_bytes([c0, c1]));
                    if kind == spec::EV_LED && spec::LEDS.contains(&code) {
                        let bit = 1u8 << code;
                        *lit = if value == 0 { *lit & !bit } else { *lit | bit };
                    }
                }
                Ok(0)
            })?;
        Ok((progress, lit_before))
    }

    fn track_key(&mut self, event: Event) {
        if event.kind == spec::EV_KEY {
            if event.value == 0 {
                self.down.remove(&event.code);
            } else {
                self.down.insert(event.code);
            }
        }
    }
}

impl Device for Input {
    fn device_type(&self) -> u32 {
        spec::DEVICE_ID
    }

    fn features(&self) -> u64 {
        RING_FEATURES
    }

    fn queue_sizes(&self) -> &[u16] {
        &spec::QUEUE_SIZES
    }

    fn config(&self) -> Arc<dyn DeviceConfig> {
        Arc::clone(&self.config) as Arc<dyn DeviceConfig>
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let Activation { memory, queues, interrupt, features } = activation;
        let memory = Arc::new(memory);
        let mut queues = queues.into_iter();
        let mut take = |index| {
            let queue = queues.next().flatten().ok_or(ActivateError::QueueMissing(index))?;
            Ok(CheckedQueue::new(queue, &memory, features, u32::MAX))
        };
        let (events, status) = (take(spec::EVENT_QUEUE)?, take(spec::STATUS_QUEUE)?);
        let (down, held, waiting) = Default::default();
        self.running = Some(Running { events, status, interrupt, down, held, waiting });
        Ok(())
    }

    fn reset(&mut self) {
        self.running = None;
        if std::mem::take(&mut self.lit) != 0 {
            (self.listener)(InputStatus::Lights(0));
        }
        if std::mem::take(&mut self.stalled) {
            (self.listener)(InputStatus::Stalled(false));
        }
    }

    fn queue_notified(&mut self, _index: usize) {
        self.serve();
    }

    fn register(&mut self, ops: &mut EventOps) {
        self.backlog.register(ops);
        if !self.registered {
            let event = Events::with_data(&self.inbox.event, INPUT_TOKEN, EventSet::IN);
            match ops.add(event) {
                Ok(()) => self.registered = true,
                Err(error) => tracing::error!(%error, "the guest gets no input"),
            }
        }
    }

    fn host_event(&mut self, events: Events, _ops: &mut EventOps) {
        match events.data() {
            INPUT_TOKEN => self.take_events(),
            Backlog::TOKEN => {
                self.backlog.take();
                self.serve();
            }
            _ => {}
        }
    }
}
