//! `bulkhead-agent`: start, event loop and end. Wiring only: what is wired stands in crates of its own.
//!
//! ```text
//!  signals, control socket, VMMs, clock --> event loop --> domains (VMMs)     recorder (audit log)
//!                                             ^   |
//!             seat, clipboard, usb: a thread -+   +--> policy in force, break-glass, questions at the seat
//!             each, with a mailbox each way
//! ```
//!
//! One thread waits on signals, the control socket and the VMMs; devices are handed over by worker threads. Without a machine file, or without a policy (the file
//! or the last good one), no domain starts: the agent says what is wrong and exits, and nothing has been changed.
// A print waits for its reader, and panics when that is gone.
#![deny(clippy::print_stderr)]
#![forbid(unsafe_code)]

mod event_loop;
mod mediators;
mod needed;
mod preparation;
mod record;
mod renewal;
mod report;
mod requests;
mod seat;
mod signals;
mod waking;
mod worker_resources;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use audit::AuditEvent;
use clock::{Moment, Sleeps};
use monitor::Monitor;
use monitor::break_glass::BreakGlass;
use nix::errno::Errno;
use nix::unistd::Uid;
use printable::StyledPage;

use self::event_loop::EventLoop;
use self::mediators::{Mediator, Mediators, Place};
use self::needed::StartInputs;
use self::preparation::raise_memlock;
use self::renewal::Renewals;
use self::seat::SeatClient;
use self::signals::Signals;
use self::waking::Waking;
use self::worker_resources::WorkerResources;
use base::durable;
use base::layout::{Layout, LayoutError, SOCKET_PATH_MAX};
use base::state_volume::{self, StateAway};
use base::terminal::colours;
use config::cores::Cores;
use config::files::{self, FilesError};
use control::budget::Budget;
use control::server::{ListenError, Server};
use domains::agent_lock::{self, LockError};
use domains::cgroup::Cgroups;
use domains::entries::States;
use domains::{Parts, Supervisor, SupervisorError};
use handover::handover::{Handover, HandoverError};
use handover::sysfs::HostSysfs;
use images::outboxes::Outboxes;
use images::recording::ImageNotes;
use inforce::active::ActiveConfiguration;
use inforce::entries;
use monitor::Stop;
use printable::explain;
use program::notes::ProgramNotes;
use recorder::Recorder;
use recorder::tally::Tallies;
use systemd::rescue;
use systemd::service_manager::ServiceManager;

/// How much longer than the guests' deadline the agent waits for everything to be off.
const SHUTDOWN_EXTRA: Duration = Duration::from_secs(45);
/// Where the agent's files and programs are, and how much VMMs say.
#[derive(Debug, Clone)]
pub struct Options {
    /// The machine file.
    pub machine: PathBuf,
    pub policy: PathBuf,
    /// The agent's directories.
    pub layout: Layout,
    /// The VMM, if not the usual one.
    pub vmm: Option<PathBuf>,
    /// The log level that VMMs are started with.
    pub log_level: String,
}

/// Why the agent ended other than it was asked to. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The seat's thread could not be started.
    #[error("cannot start the seat")]
    Seat(#[source] io::Error),
    /// A mediator's thread could not be started, or its sockets could not be made.
    #[error("cannot start the {what}")]
    Mediator {
        /// What the mediator mediates, for the message.
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Files(#[from] FilesError),
    #[error(transparent)]
    StateAway(#[from] StateAway),
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The path of a socket is too long.
    #[error("the socket path {} is longer than the {SOCKET_PATH_MAX} bytes a socket can have: give a shorter --runtime", .0.display())]
    SocketPath(PathBuf),
    #[error(transparent)]
    Vmm(#[from] files::VmmNotFound),
    /// The record of the hand-over cannot be used.
    #[error(transparent)]
    Handover(#[from] HandoverError),
    /// The control socket could not be made.
    #[error(transparent)]
    Control(#[from] ListenError),
    #[error(transparent)]
    Supervisor(#[from] SupervisorError),
    /// The seat's thread has died.
    #[error(
        "the seat has failed, which is a fault of Bulkhead's: report it with the log. The guests run on, and the service starts again by itself"
    )]
    SeatFailed,
    /// Signals could not be received, or the event loop could not wait.
    #[error("cannot wait for signals")]
    Signals(#[from] Errno),
    /// Not everything could be put back.
    #[error("{0}; the next start of the agent tries again, and a restart of the PC puts it right")]
    NotPutBack(String),
}

/// Runs the agent until it is told to stop.
///
/// # Errors
/// It cannot start, a part that it needs failed, or not everything was put back at its end; the message says what to do.
pub fn run(options: &Options) -> Result<(), DaemonError> {
    state_volume::is_there(&options.layout.state)?;
    let StartInputs { store, configuration, vmm } = StartInputs::of(options)?;
    let signals = Signals::block()?;
    let names: Vec<&str> = configuration.machine.domains.iter().map(|d| d.name.as_str()).collect();
    options.layout.create_runtime(&names)?;
    let lock = agent_lock::lock(&options.layout)?;
    let _state_lock = agent_lock::take_state(&options.layout)?;
    raise_memlock(&configuration.machine);
    let cgroups = Cgroups::open(&options.layout.runtime)
        .inspect_err(|e| {
            tracing::warn!("VMMs, and what decodes pictures, run without limits of a cgroup on CPU and memory: {}", explain(e))
        })
        .map(Arc::new)
        .ok();
    let mut manager = ServiceManager::of_environment();
    manager.extend_timeout(configuration.machine.stop_deadline + SHUTDOWN_EXTRA);
    let (record, fallback) = (options.layout.handover_record(), options.layout.handover_fallback());
    let claims = configuration.machine.claims();
    let handover = Handover::open_or_put_aside(&HostSysfs::system(), &record, &fallback, &claims)?;
    let handover = Arc::new(handover);
    let (machine, layout, policy) =
        (&configuration.machine, &options.layout, &configuration.policy);
    let cores = Cores::read(&handover.sysfs().path("")).plan(machine);
    let worker_resources = &WorkerResources::prepare(machine, &cores, cgroups.as_deref());
    let cgroups_of = cgroups.as_deref();
    let place = Place { machine, layout, policy, cgroups: cgroups_of, worker_resources };
    let mut mediators = Mediators::start(place)?;
    let sleeps = Sleeps::resume(&layout.slept());
    // Who left the seat is not who finds it. Where nobody left it there is nothing to lock.
    let to_lock = sleeps.slept_meanwhile() && layout.seat_state().exists();
    let seat = SeatClient::start(machine, layout, policy, mediators.listener())?;
    if to_lock {
        seat.lock_now();
    }
    let parts = Parts {
        layout: options.layout.clone(),
        vmm,
        handover: handover.clone(),
        cgroups,
        as_root: Uid::effective().is_root(),
        log_level: options.log_level.clone(),
        seat: seat.handle(),
    };
    if !parts.as_root {
        tracing::warn!(
            "not run as root: VMMs get no user of their own, and NICs cannot be handed over"
        );
    }
    let supervisor =
        Supervisor::new(&configuration.machine, &configuration.domain_policies, parts)?;
    let server = Server::listen(&options.layout.control_socket())?;
    // The policy's directory is not the state's: who puts back or deletes all of the state leaves it as it is.
    let beside_policy = durable::directory(&options.policy).to_owned();
    let elsewhere = [beside_policy, options.layout.runtime.clone()];
    let recorder =
        Recorder::open_remembered(&options.layout.state, configuration.machine.audit, &elsewhere);
    let mut monitor = Monitor::new(recorder, configuration.policy.serial(), mediators::ALL);
    mediators::ALL.iter().for_each(|mediator| monitor.started(*mediator));
    rescue::record(&options.layout.rescue_boots(), |event| monitor.note(&[event]).is_some());
    let waking = Waking::start(sleeps)?;
    // Nothing fails from here on: an agent that cannot start leaves the PC's USB as it is.
    let groups = supervisor.cgroups();
    let place = Place { machine, layout, policy, cgroups: groups.as_deref(), worker_resources };
    mediators.each_mut().for_each(|it| it.activate(place));
    let (machine, images) = (options.machine.clone(), options.layout.images.clone());
    let mut configuration = ActiveConfiguration::new(configuration, store, machine, images);
    configuration.remember(&mut monitor, Moment::now());
    let running = Running {
        configuration,
        supervisor,
        seat,
        mediators,
        break_glass: BreakGlass::default(),
        monitor,
        tallies: Tallies::default(),
        image_notes: ImageNotes::default(),
        outboxes: Outboxes::default(),
        program_notes: ProgramNotes::default(),
        budget: Budget::default(),
        states: States::default(),
        renewals: Renewals::default(),
    };
    let options = options.clone();
    EventLoop { running, server, signals, handover, waking, options, lock, manager }.run()
}

/// What runs, and what requests are about.
struct Running {
    configuration: ActiveConfiguration,
    supervisor: Supervisor,
    seat: SeatClient,
    mediators: Mediators,
    break_glass: BreakGlass,
    monitor: Monitor,
    tallies: Tallies,
    budget: Budget,
    states: States,
    renewals: Renewals,
    image_notes: ImageNotes,
    outboxes: Outboxes,
    program_notes: ProgramNotes,
}

impl Running {
    /// Asks every thread that the agent lives from whether it still comes round.
    fn probe_threads(&self) {
        self.seat.thread().probe();
        self.mediators.each().for_each(Mediator::probe);
    }

    /// Returns whether every thread has come round since it was probed. A thread that is no more does not count here: that is reported
    /// elsewhere.
    fn threads_are_responsive(&self) -> bool {
        self.seat.thread().is_responsive() && self.mediators.each().all(Mediator::is_responsive)
    }

    /// Ends the mediators, writes down what is not written down yet, and last how the agent ends.
    fn end(self, last: AuditEvent, stop: Stop) -> (Supervisor, SeatClient) {
        let Self { configuration, supervisor, seat, .. } = self;
        let Self { mut mediators, mut monitor, mut tallies, mut renewals, .. } = self;
        mediators.each_mut().for_each(|mediator| mediator.stop(stop, &mut monitor));
        monitor.note(&tallies.end());
        monitor.note(&renewals.end(supervisor.now()));
        if let Some(caller) = configuration.asked_by() {
            let refused =
                entries::policy_refused(caller, "the agent stopped while it was looked at");
            monitor.note(&[refused]);
        }
        monitor.note(&[last]);
        monitor.close();
        (supervisor, seat)
    }
}

/// Returns the message why the agent ended, with the offending lines when a file is to blame.
#[must_use]
pub fn failure(error: &DaemonError, program: &str) -> StyledPage {
    match error {
        DaemonError::Files(FilesError::Machine(problems)) => {
            problems.render(colours(&io::stderr()))
        }
        DaemonError::Files(FilesError::Policy(problems)) => problems.render(colours(&io::stderr())),
        other => format!("{program}: {}\n", explain(other)).as_str().into(),
    }
}
