//! The threads that serve one disk's queue: the device's own, and helpers that come while requests wait.
//!
//! ```text
//!   device's thread: pop --> alone, or the disk is fast? --yes--> carries it out itself, no hand-over
//!                                |no
//!                                '--> a helper is free, or can be started? --yes--> handed
//!                                                  |no                                '--> helper: carries it out,
//!                                                  '--> carries it out itself                 gives it back, pops the next
//! ```
//!
//! All of them take chains from the one queue and give them back to it under one lock, which nobody holds while
//! the disk is asked. The device's thread alone asks the driver for notifications, and does so whenever it goes
//! back to its event loop: what arrives while helpers are at work is heard. While it is alone it announces what
//! is done in batches; with helpers at work each request is announced when it is done, as the next may take long.
//!
//! Helpers begin with the system call filter of the thread that starts them. They end after a second without
//! a request, so that a disk at rest has one thread.
//!
//! Requests complete in any order, as the specification has it. What a flush promises is the executor's matter.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::executor::Executor;
use super::{BUDGET, spec};
use crate::queue::{CheckedQueue, Progress};
use crate::{Backlog, Chain, Interrupt, QueueError};

/// The most helpers of one disk: with the device's own thread four requests are in flight.
pub const HELPERS: usize = 3;

/// A request that takes this long is worth handing over: waking a thread on another processor takes 5 to 20 us.
pub const SLOW: Duration = Duration::from_micros(30);

/// How long a helper waits for a request before it ends, and how long after one could not be started the next is tried.
const IDLE: Duration = Duration::from_secs(1);

/// How long an idle helper waits before it looks for itself, while the device's thread is at work and hears nothing.
const LOOKS: Duration = Duration::from_millis(10);

/// Stack of a helper, in bytes.
const STACK: usize = 256 << 10;

/// Learns what a helper does, for whoever watches the threads of the process. Called on the helper's thread; must never wait.
pub trait ThreadWatch: Send + Sync {
    /// Called when the helper has a request; it may wait for the host's file for as long as that takes.
    fn at_work(&self);

    /// Called when the helper has none, or there is no such thread.
    fn at_rest(&self);
}

/// The queue of a running device.
pub(super) struct Running {
    pub(super) requests: CheckedQueue,
    pub(super) interrupt: Arc<dyn Interrupt>,
}

/// A chain on its way, and the activation it belongs to.
struct Job {
    chain: Chain,
    interrupt: Arc<dyn Interrupt>,
    activation: u64,
}

pub(super) struct Pool {
    executor: Executor,
    backlog: Backlog,
    /// One for each helper there may be.
    watches: Vec<Box<dyn ThreadWatch>>,
    slow: Duration,
    idle_most: Duration,
    state: Mutex<State>,
    /// A chain was handed over, or the device ends.
    called: Condvar,
    /// A helper has ended.
    left: Condvar,
}

#[derive(Default)]
struct State {
    running: Option<Running>,
    /// Counts activations, so that no chain of one is given back to the next.
    activation: u64,
    /// Chains that a helper was called for; never more than `idle`.
    handed: VecDeque<Chain>,
    /// Which helpers there are.
    there: Vec<bool>,
    /// Helpers without a request, those that were just started among them.
    idle: usize,
    /// Helpers with one: they use guest memory.
    busy: usize,
    /// The device's thread has a request.
    leader: bool,
    /// What the latest requests took, the longest of them counting longest.
    recent: Duration,
    /// The same of those that wait for the disk itself: flushes, and writes without a cache.
    durable: Duration,
    /// When a helper could not be started.
    refused: Option<Instant>,
    ended: bool,
}

impl Pool {
    pub(super) fn new(executor: Executor, backlog: Backlog) -> Self {
        Self {
            executor,
            backlog,
            watches: Vec::new(),
            slow: SLOW,
            idle_most: IDLE,
            state: Mutex::default(),
            called: Condvar::new(),
            left: Condvar::new(),
        }
    }

    /// Lets as many helpers come as there are watches, for a disk whose requests take `slow` or longer.
    pub(super) fn with_helpers(
        self,
        watches: Vec<Box<dyn ThreadWatch>>,
        slow: Duration,
        idle_most: Option<Duration>,
    ) -> Self {
        let idle_most = idle_most.unwrap_or(IDLE);
        Self { watches, slow, idle_most, ..self }
    }

    pub(super) fn executor(&self) -> &Executor {
        &self.executor
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn start(&self, running: Running) {
        let mut state = self.state();
        state.activation = state.activation.wrapping_add(1);
        state.running = Some(running);
        state.there.resize(self.watches.len(), false);
    }

    /// Drops the queue. What helpers are at is not given back.
    pub(super) fn stop(&self) {
        let mut state = self.state();
        state.running = None;
        state.handed.clear();
    }

    /// Returns whether no helper uses guest memory.
    pub(super) fn at_rest(&self) -> bool {
        self.state().busy == 0
    }

    /// Tells helpers to end after the request that they have.
    pub(super) fn end(&self) {
        self.state().ended = true;
        self.called.notify_all();
    }

    /// Waits until they have.
    pub(super) fn wait_for_end(&self) {
        let mut state = self.state();
        while state.there.contains(&true) {
            state = self.left.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Returns how many helpers there are.
    #[cfg(test)]
    pub(super) fn helpers(&self) -> usize {
        self.state().there.iter().filter(|there| **there).count()
    }

    /// Serves the queue on the device's own thread, until it is empty or the budget used up.
    pub(super) fn serve(self: &Arc<Self>) -> Progress {
        self.turns().unwrap_or_else(|error| {
            self.state().fail(&error);
            Progress::Emptied
        })
    }

    fn turns(self: &Arc<Self>) -> Result<Progress, QueueError> {
        let mut state = self.state();
        let Some(running) = &mut state.running else { return Ok(Progress::Emptied) };
        let interrupt = Arc::clone(&running.interrupt);
        running.requests.disable_notification()?;
        for turn in 0..BUDGET {
            if interrupt.stopping() {
                return Ok(Progress::Emptied);
            }
            // A helper may have found the ring broken.
            let Some(running) = &mut state.running else { return Ok(Progress::Emptied) };
            let Some(chain) = running.requests.pop_or_wait()? else {
                running.requests.announce(&*interrupt, spec::REQUEST_QUEUE)?;
                return Ok(Progress::Emptied);
            };
            let waits = self.executor.waits_for_the_disk(&chain);
            // While one waits for the disk itself, what comes behind it is to be heard.
            let alone = turn == 0 && state.busy == 0 && state.handed.is_empty();
            let slow = if waits { state.durable } else { state.recent } >= self.slow;
            let chain = if !slow || (alone && !waits) {
                chain
            } else {
                match self.hand_over(&mut state, chain) {
                    None => continue,
                    Some(chain) => chain,
                }
            };
            if (state.busy > 0 || !state.handed.is_empty())
                && let Some(running) = &mut state.running
            {
                running.requests.announce(&*interrupt, spec::REQUEST_QUEUE)?;
            }
            state.leader = true;
            drop(state);
            let started = Instant::now();
            let done = self.executor.execute(&chain, &*interrupt);
            let took = started.elapsed();
            state = self.state();
            state.leader = false;
            state.took(took, waits);
            let written = match done {
                Err(QueueError::Stopped) => return Ok(Progress::Emptied),
                done => done?,
            };
            let Some(running) = &mut state.running else { return Ok(Progress::Emptied) };
            running.requests.add_used(chain, written)?;
        }
        if let Some(running) = &mut state.running {
            running.requests.announce(&*interrupt, spec::REQUEST_QUEUE)?;
        }
        Ok(Progress::Unfinished)
    }

    /// Hands a chain to a helper, or back if there is none to be had.
    fn hand_over(self: &Arc<Self>, state: &mut State, chain: Chain) -> Option<Chain> {
        if state.idle <= state.handed.len() && !self.start_helper(state) {
            return Some(chain);
        }
        state.handed.push_back(chain);
        self.called.notify_one();
        None
    }

    fn start_helper(self: &Arc<Self>, state: &mut State) -> bool {
        let Some(place) = state.there.iter().position(|there| !there) else { return false };
        if state.refused.is_some_and(|when| when.elapsed() < self.idle_most) {
            return false;
        }
        let pool = Arc::clone(self);
        // Without a name of its own, for which it would need a system call: it has its starter's.
        match thread::Builder::new().stack_size(STACK).spawn(move || pool.help(place)) {
            Ok(_) => {
                if let Some(there) = state.there.get_mut(place) {
                    *there = true;
                }
                state.idle += 1;
                true
            }
            Err(error) => {
                tracing::warn!(%error, "a disk has fewer threads than it could use");
                state.refused = Some(Instant::now());
                false
            }
        }
    }

    /// Runs a helper: takes and executes requests until the pool ends.
    fn help(&self, place: usize) {
        let mut state = self.state();
        let mut since = Instant::now();
        while !state.ended {
            if let Some(Job { chain, interrupt, activation }) = state.take() {
                state.idle = state.idle.saturating_sub(1);
                state.busy += 1;
                drop(state);
                self.watch(place, true);
                let waits = self.executor.waits_for_the_disk(&chain);
                let started = Instant::now();
                let done = self.executor.execute(&chain, &*interrupt);
                let took = started.elapsed();
                self.watch(place, false);
                state = self.state();
                state.idle += 1;
                state.busy = state.busy.saturating_sub(1);
                state.took(took, waits);
                since = Instant::now();
                state.give_back(Job { chain, interrupt, activation }, done);
                if state.busy == 0 && state.running.is_none() {
                    // A reset may wait for this.
                    self.backlog.again();
                }
                continue;
            }
            // While the device's thread is at work nobody else hears what arrives: then a helper looks now and then.
            let left = self.idle_most.saturating_sub(since.elapsed());
            if left.is_zero() && !state.leader {
                break;
            }
            let most = if state.leader { LOOKS.min(self.idle_most) } else { left };
            let wait = self.called.wait_timeout(state, most);
            (state, _) = wait.unwrap_or_else(PoisonError::into_inner);
        }
        state.idle = state.idle.saturating_sub(1);
        if let Some(there) = state.there.get_mut(place) {
            *there = false;
        }
        self.left.notify_all();
    }

    fn watch(&self, place: usize, at_work: bool) {
        match self.watches.get(place) {
            Some(watch) if at_work => watch.at_work(),
            Some(watch) => watch.at_rest(),
            None => {}
        }
    }
}

impl State {
    /// Takes the next chain for a helper, if there is one.
    fn take(&mut self) -> Option<Job> {
        let running = self.running.as_mut()?;
        if running.interrupt.stopping() {
            return None;
        }
        let interrupt = Arc::clone(&running.interrupt);
        let chain = match self.handed.pop_front() {
            Some(chain) => chain,
            None => match running.requests.pop() {
                Ok(chain) => chain?,
                Err(error) => {
                    self.fail(&error);
                    return None;
                }
            },
        };
        Some(Job { chain, interrupt, activation: self.activation })
    }

    /// Gives a helper's chain back to the driver, unless the device was reset or has failed.
    fn give_back(&mut self, job: Job, done: Result<usize, QueueError>) {
        if job.activation != self.activation {
            return;
        }
        let Some(running) = &mut self.running else { return };
        let given = match done {
            Err(QueueError::Stopped) => return,
            done => done.and_then(|written| running.requests.add_used(job.chain, written)),
        };
        let told =
            given.and_then(|()| running.requests.announce(&*job.interrupt, spec::REQUEST_QUEUE));
        if let Err(error) = told {
            self.fail(&error);
        }
    }

    /// Stops the device, whose driver broke the rules.
    fn fail(&mut self, error: &QueueError) {
        self.handed.clear();
        if let Some(Running { interrupt, .. }) = self.running.take() {
            driver_error!("virtio-blk", error);
            interrupt.needs_reset();
        }
    }

    fn took(&mut self, time: Duration, waits_for_the_disk: bool) {
        let latest = if waits_for_the_disk { &mut self.durable } else { &mut self.recent };
        *latest = time.max(latest.saturating_sub(*latest / 8));
    }
}
