//! The worker of an attached device: a process that has its open node and the stream to its VMM, and is believed nothing.
//!
//! ```text
//!  Serving::run --> DeviceWorker::start: stream, node, job --> bulkhead-worker
//!     |  attend(): messages, its end, the broker's commands <-- channel, pidfd
//!     '--> DeviceThreadEvent --> broker
//! ```
//! | what it says | what that does |
//! | --- | --- |
//! | that the guest has the device, once | it is told at the seat |
//! | that interfaces came anew | those that the permit is for are authorised, of this device |
//! | what was refused | an entry in the audit log, at most [`REFUSALS`]; the words are made fit to be shown |
//! | that the guest has the device no longer, and why, once | as for any device that leaves; it is to end within [`LEAVE_WITHIN`] |
//! | anything else, in another order, or more than [`MESSAGES`] | it is killed |
//!
//! Whatever it says, its device reaches no other domain: it has no other stream. When it ends before it was told to, its device is detached, in words.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::mpsc;
use std::time::Duration;

use clock::Moment;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::Signal;
use printable::line;
use ratelimit::{Rate, RateLimiter};
use usbfilter::Counts;
use worker_link::usb::{Command, Job, Message, Reason, Start};
use worker_link::{Malformed, Role};
use workers::group::Group;
use workers::process::words;
use workers::{Channel, Process, Program};

use super::{DetachReason, DeviceThreadCommand, DeviceThreadEvent, NotServed, ThreadWaker};

/// Audit entries of refusals for one device; the rest are counted in the entry at its end.
const REFUSALS: Rate = Rate { burst: 64, every: Duration::from_secs(60) };
/// Messages of one worker: several times what a guest brings about that resets its device again and again. One that says more is ended.
const MESSAGES: Rate = Rate { burst: 512, every: Duration::from_millis(50) };
/// How long it may take until the guest has the device: each of many control requests may take its five seconds.
pub(super) const BEGIN_WITHIN: Duration = Duration::from_secs(120);
/// How long it may take to let the device go once the guest has it no longer.
const LEAVE_WITHIN: Duration = Duration::from_secs(15);
/// How long it may take to say that its VMM has gone.
const GONE_WITHIN: Duration = Duration::from_secs(5);
/// How long a killed worker is waited for until it is looked at again, in milliseconds.
const ENDED_LOOK: u16 = 1000;
/// Longest reason of a worker's that is shown, in characters.
const WHY_MAX: usize = 200;
/// What helps when the worker failed.
const AGAIN: &str = "plug it in again";

/// What serves the devices of one domain.
#[derive(Clone, Debug)]
pub struct DomainWorkers {
    /// The program, in the domain's cgroup if it has one.
    pub program: Program,
    /// The number that they run under, if the agent is root: no other domain's.
    pub user: u32,
}

#[cfg(test)]
impl DomainWorkers {
    /// Makes those of a test's whose threads are its own, which starts none.
    pub(crate) fn none() -> Self {
        Self { program: Program::script("/nonexistent/bulkhead-worker".into()), user: 0 }
    }
}

/// The process that serves a device. Killed when it is dropped.
#[derive(Debug)]
pub(super) struct DeviceWorker {
    process: Process,
    channel: Channel,
    /// The stream to its VMM, of which nothing is read or written here: it tells when that has gone.
    vmm: OwnedFd,
    /// The cgroup it is in, and how many processes had been killed there for memory before it was started.
    group: Option<(Group, u64)>,
}

impl DeviceWorker {
    /// Starts a worker with the stream to the VMM, and hands it the device's node and what is to be served of it.
    ///
    /// # Errors
    /// There is no memory, process or descriptor for it, or this PC does not run the program.
    pub(super) fn start(
        workers: &DomainWorkers,
        stream: OwnedFd,
        node: OwnedFd,
        job: &Job,
    ) -> io::Result<Self> {
        let mut program = workers.program.clone();
        let group = program.group().map(|group| (group.clone(), group.killed_for_memory()));
        let written = sealed(&job.write())?;
        let (channel, workers_end) = Channel::pair()?;
        // It is there before the worker is: one that ends at once has ended, and nothing else.
        let start = Start { whole: job.share.is_whole() };
        channel.send(&start.write(), &[node.as_fd(), written.as_fd()])?;
        let vmm = stream.try_clone()?;
        let process = Process::start(&program, Role::Usb, workers.user, stream, workers_end)?;
        Ok(Self { process, channel, vmm, group })
    }

    /// Waits until nothing of the process is left, and returns how it ended.
    fn end(&mut self) -> Option<ExitStatus> {
        loop {
            if let Some(status) = self.process.ended() {
                return status;
            }
            self.process.end();
            let mut ended = [PollFd::new(self.process.fd(), PollFlags::POLLIN)];
            // One that the kernel does not let go is waited for: until then it has the device.
            match poll(&mut ended, PollTimeout::from(ENDED_LOOK)) {
                Ok(_) | Err(Errno::EINTR) => {}
                // Without a way to wait it is asked for again and again.
                Err(_) => std::thread::sleep(Duration::from_millis(ENDED_LOOK.into())),
            }
        }
    }

    /// Returns how it ended, in words.
    fn ended_how(&self, status: Option<ExitStatus>) -> String {
        let killed = status.and_then(|status| status.signal()) == Some(Signal::SIGKILL as i32);
        let more = |(group, before): &(Group, u64)| group.killed_for_memory() > *before;
        if killed && self.group.as_ref().is_some_and(more) {
            return "its memory was used up".to_owned();
        }
        words(status)
    }
}

/// Makes a file in memory that nobody changes.
fn sealed(bytes: &[u8]) -> io::Result<File> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = File::from(memfd_create("bulkhead-usb", flags)?);
    file.write_all(bytes)?;
    file.seek(SeekFrom::Start(0))?;
    let length = SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK;
    fcntl(&file, FcntlArg::F_ADD_SEALS(length | SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SEAL))?;
    Ok(file)
}

/// Why a worker is ended that was not told to end.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("it said what is no message")]
    Malformed(#[from] Malformed),
    #[error("it said {0}, which it may not at this time")]
    OutOfTurn(&'static str),
    #[error("it said more than there is to say")]
    TooMuch,
    #[error("it takes no message")]
    Deaf(#[source] io::Error),
    #[error("it has not begun in time")]
    NotBegun,
    #[error("its agent cannot wait for it")]
    Wait(#[source] Errno),
    #[error("its device is another by now, or gone")]
    NoDevice,
    /// It has ended; how is known when it is gone.
    #[error("it ended")]
    Ended,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The guest has seen nothing of the device.
    Opening,
    /// The guest has the device.
    Serving,
    /// The guest has the device no longer, and the worker lets it go.
    Leaving,
}

/// What came of attending to a worker.
enum Outcome {
    /// The guest had the device, or was to have it, until the broker wanted it no longer or was told why.
    Over,
    /// The guest has seen nothing of the device, for this reason.
    Failed(NotServed),
}

/// Who attends to a worker, on the thread of its device.
pub(super) struct Attendant<'a> {
    pub(super) worker: DeviceWorker,
    pub(super) commands: &'a mpsc::Receiver<DeviceThreadCommand>,
    pub(super) waker: &'a ThreadWaker,
    /// Authorises the interfaces that are served, and returns the configuration that the device is in; `None` if the device is another, or gone.
    pub(super) authorise: &'a dyn Fn() -> Option<u8>,
    pub(super) tell: &'a dyn Fn(DeviceThreadEvent),
    /// How long it may take until the guest has the device: [`BEGIN_WITHIN`].
    pub(super) begin_within: Duration,
    /// What is served, for the agent's log.
    pub(super) what: String,
}

impl Attendant<'_> {
    /// Attends to the worker until nothing is left of it.
    ///
    /// # Errors
    /// The guest has seen nothing of the device; why, in words.
    pub(super) fn attend(mut self) -> Result<(), NotServed> {
        let mut turn = Turn::new(Moment::now());
        let outcome = loop {
            match self.turn(&mut turn) {
                Ok(None) => {}
                Ok(Some(outcome)) => break Ok(outcome),
                Err(fault) => break Err(fault),
            }
        };
        let outcome = match outcome {
            Ok(Outcome::Over) => Ok(()),
            Ok(Outcome::Failed(why)) => Err(why),
            // Nobody has it any more; how it lets the device go is its own business.
            Err(_) if turn.stage == Stage::Leaving => Ok(()),
            Err(fault) => self.fault(turn.stage, fault),
        };
        self.worker.end();
        outcome
    }

    /// Says why a worker that was not told to end is ended, at once: one that the kernel does not let go is waited for afterwards.
    fn fault(&mut self, stage: Stage, fault: Fault) -> Result<(), NotServed> {
        let how = match fault {
            Fault::Ended => {
                let status = self.worker.end();
                self.worker.ended_how(status)
            }
            fault => printable::explain(&fault),
        };
        tracing::warn!("the worker that serves {} failed: {how}", self.what);
        let why = format!("what serves it failed: {how}; {AGAIN}");
        if stage == Stage::Opening {
            return Err(why.into());
        }
        let reason = Some(DetachReason::Stream(why));
        (self.tell)(DeviceThreadEvent::Detached(reason, None));
        Ok(())
    }

    /// Waits for something, and sees to it.
    fn turn(&mut self, turn: &mut Turn) -> Result<Option<Outcome>, Fault> {
        // What it said before it ended counts, too.
        loop {
            match self.worker.channel.receive() {
                Ok(Some(bytes)) => {
                    if let Some(outcome) = self.message(turn, &bytes)? {
                        return Ok(Some(outcome));
                    }
                }
                Ok(None) => break,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    return Err(Fault::TooMuch);
                }
                Err(_) => return Err(Fault::Ended),
            }
        }
        loop {
            match self.commands.try_recv() {
                Ok(DeviceThreadCommand::Flush) if turn.stage == Stage::Serving => {
                    self.send(Command::Flush)?;
                }
                Ok(DeviceThreadCommand::Flush) => {}
                Ok(DeviceThreadCommand::Close) => {
                    turn.closing = true;
                    if turn.stage != Stage::Leaving {
                        self.send(Command::Close)?;
                    }
                }
                // It has let the device go in time, or has its stream cut and is killed.
                Ok(DeviceThreadCommand::Cut) | Err(mpsc::TryRecvError::Disconnected) => {
                    if turn.stage != Stage::Leaving {
                        return Ok(Some(Outcome::Over));
                    }
                    break;
                }
                Err(mpsc::TryRecvError::Empty) => break,
            }
        }
        let now = Moment::now();
        let left = match turn.stage {
            Stage::Opening => Some(turn.left(self.begin_within, now).ok_or(Fault::NotBegun)?),
            Stage::Serving => match turn.gone {
                None => None,
                Some(since) => {
                    let left = GONE_WITHIN.checked_sub(now.saturating_duration_since(since));
                    if left.is_none_or(|left| left.is_zero()) {
                        return Ok(Some(self.vmm_gone()));
                    }
                    left
                }
            },
            Stage::Leaving => match turn.left(LEAVE_WITHIN, now) {
                None => return Ok(Some(Outcome::Over)),
                left => left,
            },
        };
        let waits_for_vmm = turn.stage == Stage::Serving && turn.gone.is_none();
        if self.wait(left, waits_for_vmm)? {
            turn.gone = Some(Moment::now());
        }
        // Written by the broker.
        let _ = self.waker.0.read();
        Ok(None)
    }

    /// Takes the device from a guest whose VMM has gone, of which its worker says nothing.
    fn vmm_gone(&self) -> Outcome {
        tracing::warn!(
            "the worker that serves {} does not let it go though its VMM has gone, and is ended",
            self.what
        );
        let gone = Some(DetachReason::NoVmm);
        (self.tell)(DeviceThreadEvent::Detached(gone, None));
        Outcome::Over
    }

    /// Waits for the worker, its end, or the broker, and for the end of its VMM if that is wanted; returns whether that has come.
    fn wait(&self, most: Option<Duration>, for_vmm: bool) -> Result<bool, Fault> {
        let mut fds = [
            PollFd::new(self.waker.0.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.worker.channel.as_fd(), PollFlags::POLLIN),
            // Asked for nothing, it says when the other end has gone.
            PollFd::new(self.worker.vmm.as_fd(), PollFlags::empty()),
        ];
        let wanted = if for_vmm { 3 } else { 2 };
        let most = most.map(|left| PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
        let polled = fds.get_mut(..wanted).unwrap_or_default();
        match poll(polled, most.unwrap_or(PollTimeout::NONE)) {
            // The end of the channel is that of the worker: nobody else has the other end of it.
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(Fault::Wait(error)),
        }
        let [_, _, vmm] = fds;
        Ok(for_vmm && vmm.any() == Some(true))
    }

    fn send(&self, command: Command) -> Result<(), Fault> {
        match self.worker.channel.send(&command.write(), &[]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(Fault::Deaf(error)),
            // One that is gone is found out by what it said, or did not say, before.
            _ => Ok(()),
        }
    }

    /// Sees to a message of the worker's.
    fn message(&mut self, turn: &mut Turn, bytes: &[u8]) -> Result<Option<Outcome>, Fault> {
        match turn.hear(Moment::now(), bytes)? {
            Heard::Nothing => {}
            Heard::Tell(event) => (self.tell)(event),
            Heard::Authorise => {
                let configuration = (self.authorise)().ok_or(Fault::NoDevice)?;
                self.send(Command::Done(configuration))?;
            }
            Heard::Failed(why) => {
                return Ok(Some(Outcome::Failed(NotServed::by_worker(why))));
            }
        }
        Ok(None)
    }
}

/// What a message leads to.
#[derive(Debug)]
enum Heard {
    Nothing,
    /// The broker is told this.
    Tell(DeviceThreadEvent),
    /// The interfaces that are served are to be authorised.
    Authorise,
    /// The guest will see nothing of the device.
    Failed(String),
}

/// What is known of a worker from one message to the next: without I/O.
struct Turn {
    stage: Stage,
    /// It was told to close.
    closing: bool,
    started: Moment,
    /// When it came to this stage.
    since: Moment,
    /// Since when its VMM has gone.
    gone: Option<Moment>,
    messages: RateLimiter,
    refusals: RateLimiter,
}

impl Turn {
    fn new(now: Moment) -> Self {
        Self {
            stage: Stage::Opening,
            closing: false,
            started: now,
            since: now,
            gone: None,
            messages: RateLimiter::new(MESSAGES),
            refusals: RateLimiter::new(REFUSALS),
        }
    }

    fn enter(&mut self, stage: Stage, now: Moment) {
        (self.stage, self.since) = (stage, now);
    }

    /// Returns how long it may stay at its stage; `None` if it was there for longer.
    fn left(&self, most: Duration, now: Moment) -> Option<Duration> {
        let passed = now.saturating_duration_since(self.since);
        most.checked_sub(passed).filter(|left| !left.is_zero())
    }

    /// Hears a message.
    fn hear(&mut self, now: Moment, bytes: &[u8]) -> Result<Heard, Fault> {
        let passed = now.saturating_duration_since(self.started);
        if !self.messages.take(1, passed) {
            return Err(Fault::TooMuch);
        }
        Ok(match (self.stage, Message::read(bytes)?) {
            (Stage::Opening | Stage::Serving, Message::Authorise) => Heard::Authorise,
            (Stage::Opening, Message::Begun) => {
                self.enter(Stage::Serving, now);
                Heard::Tell(DeviceThreadEvent::Begun)
            }
            (Stage::Opening, Message::Failed(why)) => Heard::Failed(quoted(&why)),
            (Stage::Serving, Message::Refused { times, what }) => {
                if self.refusals.take(1, passed) {
                    Heard::Tell(DeviceThreadEvent::Refused { what: shown(&what), times })
                } else {
                    Heard::Nothing
                }
            }
            (Stage::Serving, Message::Detached { reason, counts, why }) => {
                self.enter(Stage::Leaving, now);
                let worker_link::usb::Counts { to_device, to_guest, refused, commands } = counts;
                let counts = Counts { to_device, to_guest, commands, refused };
                let reason = self.reason(reason, &why);
                Heard::Tell(DeviceThreadEvent::Detached(reason, Some(counts)))
            }
            (_, Message::Authorise) => return Err(Fault::OutOfTurn("that interfaces are new")),
            (_, Message::Begun) => return Err(Fault::OutOfTurn("that it has begun")),
            (_, Message::Failed(_)) => return Err(Fault::OutOfTurn("that it cannot begin")),
            (_, Message::Refused { .. }) => return Err(Fault::OutOfTurn("what was refused")),
            (_, Message::Detached { .. }) => return Err(Fault::OutOfTurn("that it has ended")),
        })
    }

    /// Returns why the guest has the device no longer, as the broker is told; nothing if it was to be so.
    fn reason(&self, reason: Reason, why: &str) -> Option<DetachReason> {
        let kind = match reason {
            Reason::Told if self.closing => return None,
            // Nobody told it to.
            Reason::Told | Reason::NoVmm => return Some(DetachReason::NoVmm),
            Reason::NoDevice => DetachReason::NoDevice,
            Reason::Lost => DetachReason::Lost,
            Reason::Changed => DetachReason::Changed,
            Reason::Broken => DetachReason::Broken,
            Reason::Stream => DetachReason::Stream,
        };
        let own = kind(String::new()).seat_text();
        Some(kind(format!("{own}: {}", quoted(why))))
    }
}

/// Returns a worker's words as the log and the list of devices have them: as its words.
fn quoted(words: &str) -> String {
    format!("what serves it says \"{}\"", shown(words).replace('"', "'"))
}

/// Returns a worker's words as they are shown.
fn shown(words: &str) -> String {
    line(words).up_to(WHY_MAX).to_string()
}

#[cfg(test)]
mod tests;
