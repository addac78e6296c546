//! The life of one domain, as a pure state machine: events in, actions out, no clock, no I/O.
//!
//! ```text
//!            start                prepared            gate opens           spawned
//!   Off ------------> Preparing -----------> Gated -----------> Spawning ----------> Running
//!    ^                   ^  |failed            |closed              |failed          |   |   |
//!    |released           |  +--------------+---+--------------------+    VMM failed  |   |   | stop
//!    |                   |after the delay  v                                         |   |   v
//! Releasing              +------------- Backoff <------------------------------------+   | Stopping
//!    ^  ^                                  | stop                        guest powered off|   | VMM gone
//!    |  +----------------------------------+---------------------------------------------+   |
//!    +---------------------------------------------------------------------------------------+
//! ```
//! A VMM that an earlier agent left is found while the domain is off, which then is where it would be had this agent started the VMM.
//! What was prepared and is not to start any more (another image is in force) is prepared anew, from Spawning.
//! A VMM that hangs is killed, and then has failed. A domain whose VMMs fail again and again is left off, and says so.
//! Stopping is: power button, pressed again while the deadline runs; then the VMM is told to end;
//! then it is killed. Devices are prepared before every start and released only when no VMM lives.

mod state;
mod times;

use std::time::Duration;

pub use state::{Phase, State};
pub use times::*;

/// Time since the agent started.
pub type Time = Duration;

/// What is said of a domain that is restarted because the PC slept.
const SLEPT: &str = "the PC slept, which its network card and other devices of its own do not survive: it is restarted";

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Somebody wants it to run.
    Start,
    /// Somebody wants it off; `now` spares the guest nothing.
    Stop {
        /// Whether the VMM is ended without the guest being asked by the power button.
        now: bool,
    },
    /// Somebody wants it stopped and started.
    Restart,
    /// Somebody looks at it who cannot do more: it is tried once if it was left off.
    TryAgain,
    /// The devices are ready, or why not.
    Prepared(Result<(), String>),
    /// The host may run domains, or why not.
    Gate(Result<(), String>),
    /// The VMM was started, or why not.
    Spawned(Result<(), String>),
    /// What was prepared is not what a start would get any more: no VMM was started.
    Superseded,
    /// A VMM of an earlier agent was found, which has its devices.
    Found {
        /// Whether it has answered on its control socket.
        answered: bool,
    },
    /// It was off when an earlier agent ended, or was to be: nobody wants it to run, and devices may be left of it.
    LeftOff,
    /// The VMM answered on its control socket.
    Answered,
    /// The VMM hangs, and how that shows.
    Hangs(String),
    /// The VMM is gone.
    Exited(Exit),
    /// The devices are back with the host, or why not.
    Released(Result<(), String>),
    /// The PC slept, and is awake again.
    Slept {
        /// Its VMM has devices that did not survive it: nobody told the guest's drivers.
        lost_devices: bool,
    },
    /// Time has passed: deadlines may be over.
    Tick,
}

/// How a VMM ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// Status 0: the guest powered itself off, or the VMM was told to end.
    PoweredOff,
    /// Anything else, in words.
    Failed(String),
}

/// What the caller is to do, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Hand the devices over and make the disks ready; answer with [`Event::Prepared`].
    Prepare,
    /// Ask whether the host may run domains; answer with [`Event::Gate`].
    AskGate,
    /// Start the VMM; answer with [`Event::Spawned`] or [`Event::Superseded`].
    Spawn,
    /// Press the guest's power button.
    PressPowerButton,
    /// Tell the VMM to end at once.
    EndVmm,
    /// Kill the VMM with SIGKILL.
    KillVmm,
    /// Give the devices back; answer with [`Event::Released`].
    Release,
}

#[derive(Debug, Clone)]
pub struct Lifecycle {
    state: State,
    since: Time,
    wanted: bool,
    /// Whether devices may be away from the host.
    holds_devices: bool,
    stop_deadline: Duration,
    failures: u32,
    /// VMMs in a row that failed before they had run for [`HEALTHY_AFTER`].
    failed_vmms: u32,
    left_off: bool,
    restarts: u64,
    problem: Option<String>,
}

impl Lifecycle {
    /// Returns what its guest has to shut down.
    #[must_use]
    pub fn stop_deadline(&self) -> Duration {
        self.stop_deadline
    }

    /// Makes a domain that is off; `stop_deadline` is what its guest has to shut down.
    #[must_use]
    pub fn new(stop_deadline: Duration) -> Self {
        Self {
            state: State::Off,
            since: Time::ZERO,
            wanted: false,
            holds_devices: false,
            stop_deadline,
            failures: 0,
            failed_vmms: 0,
            left_off: false,
            restarts: 0,
            problem: None,
        }
    }

    /// Returns where it is.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Returns since when the domain is in its state.
    #[must_use]
    pub fn since(&self) -> Time {
        self.since
    }

    /// Returns whether it is to run.
    #[must_use]
    pub fn wanted(&self) -> bool {
        self.wanted
    }

    /// Returns how many VMMs were started again after a failure.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.restarts
    }

    /// Returns whether it is not to run as its VMM failed again and again.
    #[must_use]
    pub fn has_given_up(&self) -> bool {
        self.left_off
    }

    /// Returns whether it is off because its VMM failed again and again.
    #[must_use]
    pub fn is_left_off(&self) -> bool {
        self.left_off && self.state == State::Off
    }

    /// Returns what last went wrong, until it is put right.
    #[must_use]
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Returns when a [`Event::Tick`] is next needed.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        match self.state {
            State::Off if self.left_off => Some(self.since + TRY_LEFT_OFF),
            State::Off | State::Gated | State::Spawning => None,
            State::Running { answered: true, .. } => None,
            State::Running { answered: false, from } => Some(from + FIRST_ANSWER),
            State::Preparing { until } | State::Releasing { until } | State::Backoff { until } => {
                Some(until)
            }
            State::Stopping(Phase::Asked { again, until }) => Some(again.min(until)),
            State::Stopping(Phase::Ended { until }) => Some(until),
            State::Stopping(Phase::Killed { again } | Phase::Hung { again, .. }) => Some(again),
        }
    }

    /// Takes an event at `now`; returns what the caller is to do. Events that make no sense where the
    /// domain is (a late report of a background job) change nothing.
    pub fn handle(&mut self, now: Time, event: Event) -> Option<Action> {
        match event {
            Event::Start => {
                self.failed_vmms = 0;
                self.start(now)
            }
            Event::TryAgain if self.left_off => self.start(now),
            Event::TryAgain => None,
            Event::Stop { now: at_once } => {
                (self.wanted, self.left_off) = (false, false);
                self.stop(now, at_once)
            }
            Event::Restart => {
                self.wanted = true;
                self.failed_vmms = 0;
                match self.state {
                    State::Running { .. } => self.stop(now, false),
                    _ => self.start(now),
                }
            }
            Event::Prepared(result) => self.prepared(now, result),
            Event::Gate(result) => self.gate(now, result),
            Event::Spawned(result) => self.spawned(now, result),
            Event::Superseded => self.superseded(now),
            Event::Found { answered } => {
                if self.state == State::Off {
                    (self.wanted, self.holds_devices) = (true, true);
                    self.go(now, State::Running { from: now, answered });
                }
                None
            }
            Event::LeftOff if self.state == State::Off => {
                self.holds_devices = true;
                self.release(now)
            }
            Event::LeftOff => None,
            Event::Answered => {
                if let State::Running { answered, .. } = &mut self.state {
                    *answered = true;
                    self.problem = None;
                }
                None
            }
            Event::Hangs(how) => self.hangs(now, how),
            Event::Exited(exit) => self.exited(now, exit),
            Event::Released(result) => self.released(now, result),
            Event::Slept { lost_devices } => self.slept(now, lost_devices),
            Event::Tick => self.tick(now),
        }
    }

    fn go(&mut self, now: Time, state: State) {
        self.state = state;
        self.since = now;
    }

    fn start(&mut self, now: Time) -> Option<Action> {
        (self.wanted, self.left_off) = (true, false);
        match self.state {
            State::Off | State::Backoff { .. } => self.prepare(now),
            _ => None,
        }
    }

    fn prepare(&mut self, now: Time) -> Option<Action> {
        self.holds_devices = true;
        self.go(now, State::Preparing { until: now + DEVICES_DEADLINE });
        Some(Action::Prepare)
    }

    fn release(&mut self, now: Time) -> Option<Action> {
        self.go(now, State::Releasing { until: now + DEVICES_DEADLINE });
        Some(Action::Release)
    }

    fn fail(&mut self, now: Time, problem: String) -> Option<Action> {
        self.problem = Some(problem);
        if !self.wanted {
            return self.release(now);
        }
        let doublings = self.failures.min(16);
        let delay = BACKOFF_FIRST.saturating_mul(1 << doublings).min(BACKOFF_MAX);
        self.failures = self.failures.saturating_add(1);
        self.go(now, State::Backoff { until: now + delay });
        None
    }

    /// Ends what is left of a VMM that hangs; the next one resets the devices as it takes them.
    fn hangs(&mut self, now: Time, how: String) -> Option<Action> {
        let State::Running { from, answered } = self.state else { return None };
        let was_healthy = answered && now.saturating_sub(from) >= HEALTHY_BEFORE_HANG;
        self.problem = Some(how);
        self.go(now, State::Stopping(Phase::Hung { was_healthy, again: now + KILL_AGAIN }));
        Some(Action::KillVmm)
    }

    /// Handles that a VMM is gone which was not to end.
    fn vmm_failed(&mut self, now: Time, was_healthy: bool, problem: String) -> Option<Action> {
        if was_healthy {
            (self.failures, self.failed_vmms) = (0, 0);
        }
        self.failed_vmms = self.failed_vmms.saturating_add(1);
        if self.wanted && self.failed_vmms >= FAILURES_MAX {
            (self.wanted, self.left_off) = (false, true);
            // The next one that is only tried is not tried again.
            self.failed_vmms = FAILURES_MAX - 1;
            self.failures = 0;
            return self
                .fail(now, format!("{problem}; as it failed again and again it is left off"));
        }
        self.restarts = self.restarts.saturating_add(1);
        self.fail(now, problem)
    }

    fn stop(&mut self, now: Time, at_once: bool) -> Option<Action> {
        match self.state {
            State::Running { .. } if !at_once => {
                let until = now + self.stop_deadline;
                let phase = Phase::Asked { again: now + BUTTON_AGAIN, until };
                self.go(now, State::Stopping(phase));
                Some(Action::PressPowerButton)
            }
            State::Running { .. } | State::Stopping(Phase::Asked { .. }) if at_once => {
                self.end(now)
            }
            State::Backoff { .. } | State::Gated => self.release(now),
            // They did not come back the last time; perhaps they do now.
            State::Off if self.holds_devices => self.release(now),
            // Preparing and spawning end by themselves, and then look at what is wanted.
            _ => None,
        }
    }

    /// Ends its VMM after a sleep of the PC, as by a restart, and the next one resets the devices as it takes them. One that is being
    /// started or stopped takes or leaves them anyway.
    fn slept(&mut self, now: Time, lost_devices: bool) -> Option<Action> {
        let State::Running { from, answered } = &mut self.state else { return None };
        if !*answered {
            // It could not answer meanwhile.
            *from = now;
        }
        if !lost_devices {
            return None;
        }
        self.problem = Some(SLEPT.to_owned());
        self.stop(now, false)
    }

    fn end(&mut self, now: Time) -> Option<Action> {
        self.go(now, State::Stopping(Phase::Ended { until: now + END_GRACE }));
        Some(Action::EndVmm)
    }

    fn prepared(&mut self, now: Time, result: Result<(), String>) -> Option<Action> {
        match (self.state, result) {
            (State::Preparing { .. }, Ok(())) if self.wanted => {
                self.go(now, State::Gated);
                Some(Action::AskGate)
            }
            (State::Preparing { .. }, Ok(())) => self.release(now),
            (State::Preparing { .. }, Err(problem)) => self.fail(now, problem),
            // A job that was given up came through after all; nobody wants its devices now.
            (State::Off, Ok(())) => self.release(now),
            _ => None,
        }
    }

    fn gate(&mut self, now: Time, result: Result<(), String>) -> Option<Action> {
        match (self.state, result) {
            (State::Gated, Ok(())) => {
                self.go(now, State::Spawning);
                Some(Action::Spawn)
            }
            (State::Gated, Err(problem)) => self.fail(now, problem),
            _ => None,
        }
    }

    fn spawned(&mut self, now: Time, result: Result<(), String>) -> Option<Action> {
        match (self.state, result) {
            (State::Spawning, Ok(())) => {
                self.go(now, State::Running { from: now, answered: false });
                if self.wanted { None } else { self.end(now) }
            }
            (State::Spawning, Err(problem)) => self.fail(now, problem),
            _ => None,
        }
    }

    /// Prepares anew: nothing has failed, so that nothing is waited for.
    fn superseded(&mut self, now: Time) -> Option<Action> {
        match self.state {
            State::Spawning if self.wanted => self.prepare(now),
            State::Spawning => self.release(now),
            _ => None,
        }
    }

    fn exited(&mut self, now: Time, exit: Exit) -> Option<Action> {
        match (self.state, exit) {
            (State::Running { .. }, Exit::PoweredOff) => {
                self.wanted = false;
                self.failures = 0;
                self.problem = None;
                self.release(now)
            }
            (State::Running { from, .. }, Exit::Failed(problem)) => {
                self.vmm_failed(now, now.saturating_sub(from) >= HEALTHY_AFTER, problem)
            }
            (State::Stopping(Phase::Hung { was_healthy, .. }), _) => {
                let problem = self.problem.take().unwrap_or_default();
                self.vmm_failed(now, was_healthy, problem)
            }
            (State::Stopping(phase), exit) => {
                self.failures = 0;
                self.problem = match (phase, exit) {
                    (Phase::Asked { .. }, Exit::Failed(problem)) => Some(problem),
                    (Phase::Asked { .. }, Exit::PoweredOff) => None,
                    (Phase::Ended { .. } | Phase::Killed { .. } | Phase::Hung { .. }, _) => {
                        self.problem.take()
                    }
                };
                if self.wanted { self.prepare(now) } else { self.release(now) }
            }
            _ => None,
        }
    }

    fn released(&mut self, now: Time, result: Result<(), String>) -> Option<Action> {
        if !matches!(self.state, State::Releasing { .. }) {
            return None;
        }
        match result {
            Ok(()) => self.holds_devices = false,
            Err(problem) => self.problem = Some(problem),
        }
        self.go(now, State::Off);
        if self.wanted { self.prepare(now) } else { None }
    }

    fn tick(&mut self, now: Time) -> Option<Action> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return None;
        }
        let waited = DEVICES_DEADLINE.as_secs();
        match self.state {
            State::Preparing { .. } => {
                self.fail(now, format!("its devices and disks were not ready after {waited} s"))
            }
            State::Releasing { .. } => self.released(
                now,
                Err(format!("its devices were not back with the host after {waited} s")),
            ),
            State::Backoff { .. } => self.prepare(now),
            State::Stopping(Phase::Asked { until, .. }) if now >= until => {
                let waited = self.stop_deadline.as_secs();
                self.problem = Some(format!(
                    "the guest did not shut down within {waited} s of its power button and was switched off"
                ));
                self.end(now)
            }
            State::Stopping(Phase::Asked { until, .. }) => {
                self.state = State::Stopping(Phase::Asked { again: now + BUTTON_AGAIN, until });
                Some(Action::PressPowerButton)
            }
            State::Stopping(Phase::Hung { was_healthy, .. }) => {
                let again = now + KILL_AGAIN;
                self.state = State::Stopping(Phase::Hung { was_healthy, again });
                Some(Action::KillVmm)
            }
            State::Running { .. } => {
                let waited = FIRST_ANSWER.as_secs();
                self.hangs(now, format!("its VMM did not answer within {waited} s of its start"))
            }
            State::Stopping(Phase::Ended { .. } | Phase::Killed { .. }) => {
                self.state = State::Stopping(Phase::Killed { again: now + KILL_AGAIN });
                Some(Action::KillVmm)
            }
            State::Off => self.start(now),
            State::Gated | State::Spawning => None,
        }
    }
}

#[cfg(test)]
mod tests;
