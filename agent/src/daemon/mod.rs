//! `bulkhead-agent`: reads the two files, takes the machine, and runs the event loop.
//!
//! One thread waits on signals, the control socket and the VMMs; the hand-over of devices has
//! worker threads. No policy (nor a last good one) and no machine file means no domain: the agent says
//! what is wrong and exits, and nothing has been changed.

mod desk;
mod record;
mod report;

use std::fs::{self, File};
use std::io::{self, IsTerminal, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use audit::Event as Recorded;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Uid;

use self::desk::Desk;
use self::record::States;
use crate::control::protocol::{Answer, Request};
use crate::control::roles::Caller;
use crate::control::server::{ListenError, Server};
use crate::files::{self, Files, FilesError};
use crate::layout::{Layout, LayoutError, SOCKET_PATH_MAX};
use crate::machine::{Kind, Machine};
use crate::pci::handover::{Handover, HandoverError};
use crate::pci::sysfs::Sysfs;
use crate::policy_store::PolicyStore;
use crate::recorder::Recorder;
use crate::roster;
use crate::supervisor::cgroup::Cgroups;
use crate::supervisor::devices::explain;
use crate::supervisor::domain::Event;
use crate::supervisor::leftovers;
use crate::supervisor::{Parts, Supervisor, SupervisorError};

/// How much longer than the guests' deadline the agent waits for everything to be off.
const SHUTDOWN_EXTRA: Duration = Duration::from_secs(45);

/// Where everything is.
#[derive(Debug, Clone)]
pub struct Options {
    /// The machine file.
    pub machine: PathBuf,
    /// The policy.
    pub policy: PathBuf,
    /// The agent's directories.
    pub layout: Layout,
    /// The VMM, if not the usual one.
    pub vmm: Option<PathBuf>,
    /// What VMMs say.
    pub log_level: String,
}

/// Why the agent ended other than it was asked to. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The seat's thread.
    #[error("cannot start the seat")]
    Seat(#[source] io::Error),
    /// The files.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// A directory.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Another agent.
    #[error(
        "another bulkhead-agent runs here (pid {pid}): stop it first, or give this one directories of its own with --runtime and --state"
    )]
    AnotherAgent {
        /// What the other wrote into its lock.
        pid: String,
    },
    /// The lock.
    #[error("cannot lock {}: check the rights of its directory", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A path too long for a socket.
    #[error("the socket path {} is longer than the {SOCKET_PATH_MAX} bytes a socket can have: give a shorter --runtime", .0.display())]
    SocketPath(PathBuf),
    /// The VMM.
    #[error(transparent)]
    Vmm(#[from] files::VmmNotFound),
    /// The hand-over's record.
    #[error(transparent)]
    Handover(#[from] HandoverError),
    /// The control socket.
    #[error(transparent)]
    Control(#[from] ListenError),
    /// The supervisor.
    #[error(transparent)]
    Supervisor(#[from] SupervisorError),
    /// Signals or polling.
    #[error("cannot wait for signals")]
    Signals(#[from] Errno),
    /// Not everything could be put back.
    #[error("{0}; the next start of the agent tries again, and a restart of the PC puts it right")]
    NotPutBack(String),
}

/// Runs the agent until it is told to stop.
pub fn run(options: &Options) -> Result<(), DaemonError> {
    let store = PolicyStore::new(&options.policy, &options.machine, Some(&options.layout.state));
    let files = Files::read(&options.machine, &store, &options.layout.images)?;
    let mut signals = Signals::block()?;
    let names: Vec<&str> = files.machine.domains.iter().map(|d| d.name.as_str()).collect();
    options.layout.create(&names)?;
    check_socket_paths(&files.machine, &options.layout)?;
    let _lock = lock(&options.layout)?;
    let vmm = files::find_vmm(options.vmm.as_deref())?;
    raise_memlock(&files.machine);
    let cgroups = Cgroups::open(&options.layout.runtime)
        .inspect_err(|e| {
            tracing::warn!("VMMs run without limits on CPU and memory: {}", explain(e))
        })
        .ok();
    let deadline = files.machine.stop_deadline;
    leftovers::end_all(&options.layout, cgroups.as_ref(), &names, deadline, || {
        signals.stop_asked()
    });
    let handover = Arc::new(open_handover(&options.layout)?);
    give_back_unclaimed(&handover, &files.machine);
    let desk = Desk::start(&files.machine, &files.rules)?;
    let parts = Parts {
        layout: options.layout.clone(),
        vmm,
        handover: handover.clone(),
        cgroups,
        as_root: Uid::effective().is_root(),
        log_level: options.log_level.clone(),
        seat: desk.handle(),
    };
    if !parts.as_root {
        tracing::warn!(
            "not run as root: VMMs get no user of their own, and NICs cannot be handed over"
        );
    }
    let supervisor = Supervisor::new(&files.machine, &files.roster, parts)?;
    let server = Server::listen(&options.layout.control_socket())?;
    let recorder = Recorder::open(&options.layout.state, files.machine.audit);
    let (machine, images) = (options.machine.clone(), options.layout.images.clone());
    let papers = Papers { files, store, machine, images };
    let states = States::default();
    Daemon { papers, supervisor, desk, server, signals, handover, recorder, states }.run()
}

/// What is in force, and where it came from.
struct Papers {
    files: Files,
    store: PolicyStore,
    machine: PathBuf,
    images: PathBuf,
}

impl Papers {
    /// Puts another policy in force without touching a guest.
    fn apply(
        &mut self,
        (supervisor, seat): (&mut Supervisor, &Desk),
        recorder: &mut Recorder,
        caller: &Caller,
        policy: String,
        signatures: Option<String>,
    ) -> Result<(), String> {
        let candidate =
            self.store.consider(policy, signatures).map_err(|refusal| explain(&refusal))?;
        let roster = roster::of(&candidate.policy);
        let machine =
            files::read_machine(&self.machine, &self.images, &roster).map_err(|error| {
                format!("this PC's machine file does not go with it: {}", explain(&error))
            })?;
        let names = |machine: &Machine| -> Vec<String> {
            machine.domains.iter().map(|domain| domain.name.clone()).collect()
        };
        if names(&machine) != names(&self.files.machine) {
            return Err(format!(
                "this PC runs the domains {}, and the machine file now has {}: restart the agent first, then apply the policy",
                names(&self.files.machine).join(", "),
                names(&machine).join(", "),
            ));
        }
        // A wider policy that nobody can be held to account for does not come into force.
        recorder.record(&[record::policy_applied(caller, &candidate)]).map_err(|problem| {
            format!("it cannot be recorded that it comes into force: {problem}")
        })?;
        let in_force = self.store.commit(candidate).map_err(|refusal| explain(&refusal))?;
        supervisor.take_roster(&roster);
        self.files.roster = roster;
        self.files.policy = files::report(&self.store, &in_force);
        self.files.rules = Arc::new(in_force.policy);
        seat.take_policy(&self.files.rules);
        tracing::info!(
            serial = self.files.policy.serial,
            signers = ?self.files.policy.signers,
            "another policy is in force"
        );
        Ok(())
    }
}

struct Daemon {
    papers: Papers,
    supervisor: Supervisor,
    desk: Desk,
    server: Server,
    signals: Signals,
    handover: Arc<Handover>,
    recorder: Recorder,
    states: States,
}

impl Daemon {
    fn run(mut self) -> Result<(), DaemonError> {
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            policy = self.papers.files.policy.serial,
            domains = self.papers.files.machine.domains.len(),
            "bulkhead-agent runs"
        );
        if let Some(why) = &self.papers.files.policy.refused {
            tracing::error!("the policy file is refused, the last good policy is in force: {why}");
        }
        self.recorder.note(&[record::started(&self.papers.files)]);
        self.supervisor.start_all();
        let mut give_up: Option<Instant> = None;
        loop {
            if self.signals.stop_asked() {
                tracing::info!("stopping: the guests are asked to shut down");
                self.supervisor.stop_all();
                let most = self.papers.files.machine.stop_deadline + SHUTDOWN_EXTRA;
                give_up.get_or_insert(Instant::now() + most);
            }
            self.supervisor.turn();
            self.serve();
            let events = self.desk.turn(&self.supervisor, &self.recorder);
            if !events.is_empty() {
                self.recorder.note(&events);
            }
            let changes = self.states.changes(&self.supervisor);
            if !changes.is_empty() {
                self.recorder.note(&changes);
            }
            let stopped = self.supervisor.is_stopping() && self.supervisor.all_off();
            if stopped || give_up.is_some_and(|until| Instant::now() >= until) {
                break;
            }
            self.wait()?;
        }
        self.farewell()
    }

    fn serve(&mut self) {
        let Self { papers, supervisor, desk, server, recorder, .. } = self;
        server
            .turn(|caller, request| answer(papers, (supervisor, desk), recorder, caller, request));
    }

    fn wait(&self) -> Result<(), DaemonError> {
        let mut fds =
            vec![PollFd::new(std::os::fd::AsFd::as_fd(&self.signals.fd), PollFlags::POLLIN)];
        fds.push(PollFd::new(self.desk.fd(), PollFlags::POLLIN));
        for (fd, writes) in self.server.fds() {
            let out = if writes { PollFlags::POLLOUT } else { PollFlags::empty() };
            fds.push(PollFd::new(fd, PollFlags::POLLIN | out));
        }
        for fd in self.supervisor.fds() {
            fds.push(PollFd::new(fd, PollFlags::POLLIN));
        }
        let left = self.supervisor.deadline().saturating_sub(self.supervisor.now());
        // Rounded up, so that the deadline has passed when the wait is over.
        let millis = u16::try_from(left.as_millis().saturating_add(1)).unwrap_or(u16::MAX);
        match poll(&mut fds, PollTimeout::from(millis)) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn farewell(mut self) -> Result<(), DaemonError> {
        self.recorder.note(&[Recorded::new("agent-stopped")]);
        self.recorder.close();
        if !self.supervisor.all_off() {
            return Err(DaemonError::NotPutBack("not every domain could be stopped".to_owned()));
        }
        let left: Vec<String> =
            self.handover.handed_over().keys().map(ToString::to_string).collect();
        if left.is_empty() {
            tracing::info!("every domain is off and every device is back with the host");
            return Ok(());
        }
        Err(DaemonError::NotPutBack(format!("not back with the host: {}", left.join(", "))))
    }
}

fn answer(
    papers: &mut Papers,
    (supervisor, desk): (&mut Supervisor, &Desk),
    recorder: &mut Recorder,
    caller: &Caller,
    request: Request,
) -> Answer {
    if request == Request::Status {
        return Answer::of(Ok(Some(report::status(&papers.files, supervisor, desk, recorder))));
    }
    match &request {
        Request::ApplyPolicy { policy, .. } => {
            tracing::info!("{caller} asks to put a policy of {} bytes in force", policy.len());
        }
        other => {
            tracing::info!("{caller} asks: {other:?}");
            recorder.note(&[record::asked(caller, other)]);
        }
    }
    Answer::of(
        match request {
            Request::Status => Ok(()),
            Request::ApplyPolicy { policy, signatures } => papers
                .apply((&mut *supervisor, desk), recorder, caller, policy, signatures)
                .inspect_err(|refusal| {
                    tracing::error!("the policy is refused, the one in force stays: {refusal}");
                    recorder.note(&[record::policy_refused(caller, refusal)]);
                }),
            Request::Start { domain } => supervisor.command(&domain, Event::Start),
            Request::Stop { domain, now } => supervisor.command(&domain, Event::Stop { now }),
            Request::Restart { domain } => supervisor.command(&domain, Event::Restart),
            Request::Reset { domain } => supervisor.reset(&domain),
            Request::Switch { domain } => desk.switch(&domain),
            Request::Lock => desk.lock(),
            Request::Unlock => desk.unlock(),
        }
        .map(|()| None),
    )
}

/// The signals the agent acts on, taken from the event loop. Threads made later inherit the block.
struct Signals {
    fd: SignalFd,
}

impl Signals {
    fn block() -> Result<Self, Errno> {
        let set: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD].into_iter().collect();
        set.thread_block()?;
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { fd })
    }

    /// Takes what came; whether somebody wants the agent gone.
    fn stop_asked(&mut self) -> bool {
        let mut stop = false;
        while let Ok(Some(info)) = self.fd.read_signal() {
            let number = i32::try_from(info.ssi_signo).unwrap_or_default();
            stop |= Signal::try_from(number) != Ok(Signal::SIGCHLD);
        }
        stop
    }
}

fn check_socket_paths(machine: &Machine, layout: &Layout) -> Result<(), DaemonError> {
    let mut paths = vec![layout.control_socket()];
    for domain in &machine.domains {
        paths.push(layout.vmm_socket(&domain.name));
        if let Kind::Vm(vm) = &domain.kind {
            paths.extend(vm.ports.iter().map(|port| layout.port_socket(&domain.name, port)));
        }
    }
    match paths.into_iter().find(|path| path.as_os_str().len() > SOCKET_PATH_MAX) {
        Some(path) => Err(DaemonError::SocketPath(path)),
        None => Ok(()),
    }
}

/// One agent for each runtime directory; the kernel lets go of the lock however the agent ends.
fn lock(layout: &Layout) -> Result<File, DaemonError> {
    let path = layout.lock();
    let failed = |source| DaemonError::Lock { path: path.clone(), source };
    let mut file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = (&file).take(16).read_to_string(&mut pid);
            return Err(DaemonError::AnotherAgent { pid: pid.trim().to_owned() });
        }
        Err(fs::TryLockError::Error(source)) => return Err(failed(source)),
    }
    let mut write_pid = || -> io::Result<()> {
        file.set_len(0)?;
        file.rewind()?;
        write!(file, "{}", std::process::id())
    };
    write_pid().map_err(failed)?;
    Ok(file)
}

/// A VMM with a passed-through device locks its guest's whole memory.
fn raise_memlock(machine: &Machine) {
    let passes_through =
        |kind: &Kind| matches!(kind, Kind::Vm(vm) if vm.pci_functions().next().is_some());
    if machine.domains.iter().any(|domain| passes_through(&domain.kind))
        && let Err(error) = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY)
    {
        tracing::warn!(
            "cannot raise the limit on locked memory ({error}); `bulkhead doctor` says whether it suffices"
        );
    }
}

/// A record that cannot be read is put aside: a clinical desktop matters more than which driver a
/// NIC had.
fn open_handover(layout: &Layout) -> Result<Handover, DaemonError> {
    let path = layout.handover_record();
    let first = Handover::open(Sysfs::system(), &path);
    let Err(error) = first else { return Ok(first?) };
    let aside = path.with_extension("unreadable");
    tracing::error!("{}; it is put aside as {}", explain(&error), aside.display());
    if fs::rename(&path, &aside).is_err() {
        return Err(error.into());
    }
    Ok(Handover::open(Sysfs::system(), &path)?)
}

/// What an earlier agent had handed over and this machine file does not name goes back.
fn give_back_unclaimed(handover: &Arc<Handover>, machine: &Machine) {
    let claimed = |address| {
        machine.domains.iter().any(|domain| {
            matches!(&domain.kind, Kind::Vm(vm) if vm.pci_functions().any(|a| a == address))
        })
    };
    let mut unclaimed = handover.handed_over();
    unclaimed.retain(|address, _| !claimed(*address));
    if unclaimed.is_empty() {
        return;
    }
    let handover = handover.clone();
    let spawned = std::thread::Builder::new().name("give-back".to_owned()).spawn(move || {
        for address in unclaimed.into_keys() {
            match handover.give_back(address) {
                Ok(_) => {
                    tracing::info!(%address, "no domain has it any more; given back to the host")
                }
                Err(error) => tracing::error!("{}", explain(&error)),
            }
        }
    });
    if let Err(error) = spawned {
        tracing::error!("cannot start a thread: {error}");
    }
}

/// Prints why the agent ended, with the offending lines when a file is to blame.
pub fn complain(error: &DaemonError, program: &str) {
    let text = match error {
        DaemonError::Files(FilesError::Machine(problems)) => {
            problems.render(io::stderr().is_terminal())
        }
        DaemonError::Files(FilesError::Policy(problems)) => {
            problems.render(io::stderr().is_terminal())
        }
        other => format!("{program}: {}\n", explain(other)),
    };
    // There is nobody to tell if this fails.
    let _ = io::stderr().write_all(text.as_bytes());
}

/// The default directories and files of DESIGN section 9.
pub mod defaults {
    use super::Path;

    /// The machine file.
    #[must_use]
    pub fn machine() -> &'static Path {
        Path::new("/etc/bulkhead/machine.toml")
    }
    /// The policy.
    #[must_use]
    pub fn policy() -> &'static Path {
        Path::new("/etc/bulkhead/policy.toml")
    }
    /// Images.
    #[must_use]
    pub fn images() -> &'static Path {
        Path::new("/var/lib/bulkhead/images")
    }
    /// State.
    #[must_use]
    pub fn state() -> &'static Path {
        Path::new("/var/lib/bulkhead")
    }
    /// Runtime.
    #[must_use]
    pub fn runtime() -> &'static Path {
        Path::new("/run/bulkhead")
    }
}
