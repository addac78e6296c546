//! The event loop: what the agent waits for, what it does when that has come, and how it ends.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use audit::events::{AgentLeft, AgentStopped};
use clock::Moment;
use control::server::Server;
use domains::agent_lock::AgentLock;
use domains::{Adoption, entries, leftovers};
use handover::handover::Handover;
use inforce::entries as policy_entries;
use monitor::Stop;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use printable::explain;
use systemd::inhibitor::Inhibitor;
use systemd::service_manager::{ServiceManager, WatchdogAction};

use super::mediators::Mediator;
use super::needed::StartInputs;
use super::signals::{ShutdownRequest, Signals};
use super::waking::Waking;
use super::{DaemonError, Options, Running, SHUTDOWN_EXTRA, record};

/// How much longer than that until the agent itself is gone.
const FAREWELL: Duration = Duration::from_secs(15);
/// How long an agent that leaves its guests running waits for what it has begun.
const LEAVE_DEADLINE: Duration = Duration::from_secs(10);

/// The agent at work: what runs, and what its one thread waits for.
pub(super) struct EventLoop {
    pub(super) running: Running,
    pub(super) server: Server,
    pub(super) signals: Signals,
    pub(super) handover: Arc<Handover>,
    pub(super) waking: Waking,
    pub(super) options: Options,
    pub(super) lock: AgentLock,
    pub(super) manager: ServiceManager,
}

/// How the agent is on its way out.
#[derive(Debug, Clone, Copy)]
enum Shutdown {
    /// It ends with its guests; at this time it ends whatever they do.
    WithGuests(Moment),
    /// It ends without them: they run on for the next agent. At this time it ends whatever it has begun.
    Alone(Moment),
}

impl EventLoop {
    /// Runs until the agent has ended.
    ///
    /// # Errors
    /// The seat failed, not everything was put back, or nothing can be waited for.
    pub(super) fn run(mut self) -> Result<(), DaemonError> {
        let configuration = &self.running.configuration.current;
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            policy = configuration.policy_report.serial,
            domains = configuration.machine.domains.len(),
            "bulkhead-agent runs"
        );
        if let Some(why) = &configuration.policy_report.refused {
            tracing::error!("the policy file is refused, the last good policy is in force: {why}");
        }
        if let Some(refused) = &configuration.trust.refused {
            tracing::error!("the trust store is refused, the one before counts: {}", refused.why);
        }
        let stop_deadline = configuration.machine.stop_deadline;
        let mut started = vec![policy_entries::started(configuration)];
        started.extend(self.running.configuration.trust_events());
        self.running.monitor.note(&started);
        let layout = &self.options.layout;
        self.running.resume_outboxes(&layout.images, &layout.state);
        self.adopt_and_start();
        self.manager.notify_ready();
        let mut ending: Option<Shutdown> = None;
        loop {
            self.lock.alive(Moment::now());
            // Before anything that was waiting is done: what is in front of a PC that slept is not what was.
            if let Some(time) = self.waking.sleeps.look() {
                self.running.slept(time);
                self.waking.sleeps.remember();
            }
            if let Some(inhibitor) = &mut self.waking.inhibitor {
                inhibitor.poll(Moment::now());
            }
            match self.signals.take_request() {
                Some(ShutdownRequest::Stop) => {
                    tracing::info!("stopping: the guests are asked to shut down");
                    self.running.supervisor.stop_all();
                    self.manager.notify_stopping(stop_deadline + SHUTDOWN_EXTRA + FAREWELL);
                    if !matches!(ending, Some(Shutdown::WithGuests(_))) {
                        let until = Moment::now() + stop_deadline + SHUTDOWN_EXTRA;
                        ending = Some(Shutdown::WithGuests(until));
                    }
                }
                Some(ShutdownRequest::Leave) if ending.is_none() => ending = self.may_leave(),
                Some(ShutdownRequest::Leave) | None => {}
            }
            // Before the start of a domain that lets one of them come into force.
            self.running.note_images(&self.options.layout.images);
            self.running.note_programs(&self.options.layout.programs());
            self.running.supervisor.process_events();
            let Self { running, server, .. } = &mut self;
            // Before the requests: the same client may have asked for more behind it.
            if let Some((ticket, answer)) = running.policy_found() {
                server.answer(ticket, &answer);
            }
            server.process_events(|caller, request| match request {
                Ok(request) => running.answer(caller, request),
                Err(refused) => running.refuse(caller, refused).into(),
            });
            running.process_events();
            if running.seat.thread().is_dead() && ending.is_none() {
                // Nobody sees or types anything any more until there is another agent, for which the guests run on.
                tracing::error!("{}; stopping", DaemonError::SeatFailed);
                running.monitor.note(&[record::failed("seat")]);
                ending = Some(Shutdown::Alone(Moment::now() + LEAVE_DEADLINE));
            }
            self.running.note_states(&self.options.layout.images);
            let supervisor = &self.running.supervisor;
            let over = match ending {
                None => false,
                Some(Shutdown::WithGuests(until)) => supervisor.all_off() || Moment::now() >= until,
                Some(Shutdown::Alone(until)) => {
                    !supervisor.any_under_way() || Moment::now() >= until
                }
            };
            if over {
                break;
            }
            let running = &self.running;
            if self.manager.poll(|| running.threads_are_responsive()) == WatchdogAction::Probe {
                self.running.probe_threads();
            }
            self.wait(ending)?;
        }
        match ending {
            Some(Shutdown::Alone(_)) => self.leave(),
            _ => self.shut_down(),
        }
    }

    /// Leaves, if another agent could start in its place: without one the guests run on, and nobody sees or types anything. The event loop
    /// waits for the look at the configuration, as it is at its end.
    fn may_leave(&self) -> Option<Shutdown> {
        match StartInputs::of(&self.options) {
            Ok(_) => {
                tracing::info!("stopping: the guests run on, and the next agent takes them up");
                Some(Shutdown::Alone(Moment::now() + LEAVE_DEADLINE))
            }
            Err(error) => {
                tracing::error!(
                    "NOT LEAVING: the next agent could not start, and this one goes on; put that right and restart the agent again: {}",
                    explain(&error)
                );
                None
            }
        }
    }

    /// Adopts the guests that an earlier agent left, and starts the others. What no agent saw is on the record before anything can cross.
    fn adopt_and_start(&mut self) {
        let adopted = self.running.supervisor.adopt_and_start();
        let machine = &self.running.configuration.current.machine;
        let supervisor = &self.running.supervisor;
        let domains = supervisor.domains().iter().map(|it| it.policy().name.clone()).collect();
        let (layout, cgroups) = (&self.options.layout, supervisor.cgroups());
        leftovers::clean_up(layout, &self.handover, cgroups, domains, machine);
        self.running.states.adopted(&adopted);
        self.running.renewals.taken_up(&self.running.supervisor);
        if adopted.iter().any(|(_, adopted)| *adopted == Adoption::RunsOn) {
            self.running.seat.lock_unless_known();
        } else {
            self.waking.sleeps.forget_sleep_meanwhile();
        }
        // A clock that was set back says nothing.
        let since = self.lock.before.and_then(|before| before.elapsed().ok());
        if let Some(gap) = entries::gap(&adopted, since) {
            self.running.monitor.note(&[gap]);
        }
    }

    fn wait(&mut self, ending: Option<Shutdown>) -> Result<(), DaemonError> {
        let supervisor = &self.running.supervisor;
        let mut left = supervisor.deadline().saturating_sub(supervisor.now());
        let Running { monitor, renewals, .. } = &self.running;
        for wait in [monitor.wait(), self.manager.timeout(), renewals.wait()].into_iter().flatten()
        {
            left = left.min(wait);
        }
        if let Some(counted) = self.running.tallies.due() {
            left = left.min(counted.saturating_duration_since(Moment::now()));
        }
        if let Some(open_for) = self.running.break_glass.left(Moment::now()) {
            // The banner counts its minutes.
            left = left.min(open_for).min(Duration::from_secs(10));
        }
        if let Some(Shutdown::WithGuests(until) | Shutdown::Alone(until)) = ending {
            left = left.min(until.saturating_duration_since(Moment::now()));
        }
        if let Some(due) = self.waking.inhibitor.as_ref().and_then(Inhibitor::due) {
            left = left.min(due.saturating_duration_since(Moment::now()));
        }
        self.waking.alarm.set(Some(Moment::now() + left))?;
        let mut fds = vec![PollFd::new(self.signals.fd.as_fd(), PollFlags::POLLIN)];
        fds.push(PollFd::new(self.running.seat.thread().fd(), PollFlags::POLLIN));
        let mediators = self.running.mediators.each().filter_map(Mediator::fd);
        fds.extend(mediators.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        fds.extend(self.running.configuration.fd().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        for (fd, writes) in self.server.fds() {
            let out = if writes { PollFlags::POLLOUT } else { PollFlags::empty() };
            fds.push(PollFd::new(fd, PollFlags::POLLIN | out));
        }
        let supervisor = &self.running.supervisor;
        for fd in supervisor.fds() {
            fds.push(PollFd::new(fd, PollFlags::POLLIN));
        }
        fds.push(PollFd::new(self.waking.alarm.as_fd(), PollFlags::POLLIN));
        fds.extend(self.waking.wall_clock.fd().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        self.waking.look_at_wall_clock();
        Ok(())
    }

    /// Ends without the guests. Nothing crosses from here on, and their USB devices are detached and kept from the host's drivers.
    fn leave(self) -> Result<(), DaemonError> {
        let domains = self.running.supervisor.running();
        let (_, seat) = self.running.end(AgentLeft { domains }.into(), Stop::KeepFromHost);
        if seat.thread().is_dead() {
            return Err(DaemonError::SeatFailed);
        }
        tracing::info!("the guests run on");
        Ok(())
    }

    fn shut_down(self) -> Result<(), DaemonError> {
        // A guest that could not be stopped may still run.
        let all_off = self.running.supervisor.all_off();
        let stop = if all_off { Stop::GiveBack } else { Stop::KeepFromHost };
        let (supervisor, seat) = self.running.end(AgentStopped {}.into(), stop);
        let seat_failed = seat.thread().is_dead();
        seat.forget();
        if !supervisor.all_off() {
            return Err(DaemonError::NotPutBack("not every domain could be stopped".to_owned()));
        }
        let left: Vec<String> =
            self.handover.handed_over().keys().map(ToString::to_string).collect();
        if seat_failed {
            return Err(DaemonError::SeatFailed);
        }
        if left.is_empty() {
            tracing::info!("every domain is off and every device is back with the host");
            return Ok(());
        }
        Err(DaemonError::NotPutBack(format!("not back with the host: {}", left.join(", "))))
    }
}
