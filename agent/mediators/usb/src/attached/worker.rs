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
//! | that interfaces came anew, and waits | those that the permit is for are authorised, of this device, as often as [`turn::AUTHORISATIONS`] |
//! | what was refused | an entry in the audit log, at most [`turn::REFUSALS`]; the words are made fit to be shown |
//! | that it serves its device, when it is asked | it is asked again ([`question`]); one that does not answer for a minute has failed |
//! | that the guest has the device no longer, and why, once | as for any device that leaves; it is to end within [`WORKER_ENDS_WITHIN`]. That its VMM has gone is believed if the stream says so |
//! | anything else, in another order, or more than [`turn::MESSAGES`] | it is killed |
//!
//! | file | |
//! | --- | --- |
//! | `process.rs` | the process, and what ends it |
//! | `turn.rs` | what is believed of it |
//! | `question.rs` | whether it hangs while it serves |
//!
//! Whatever it says, its device reaches no other domain: it has no other stream. When it ends before it was told to, its device is detached, in words.

mod process;
mod question;
mod turn;

use std::io;
use std::os::fd::AsFd as _;
use std::sync::mpsc;
use std::time::Duration;

use clock::Moment;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use worker_link::usb::{Command, Message};

use super::{DetachReason, DeviceThreadCommand, DeviceThreadEvent, NotServed, Served, ThreadWaker};
pub use process::DomainWorkers;
pub(super) use process::{Cut, DeviceWorker};
pub(super) use question::LOOK_EVERY;
use question::Look;
pub(crate) use turn::REFUSALS;
use turn::{Fault, Heard, Stage, Turn};

/// How long it may take until the guest has the device: each of many control requests may take its five seconds.
pub(super) const BEGIN_WITHIN: Duration = Duration::from_secs(120);
/// How long it may take to let the device go once the guest has it no longer, if the broker does not end it before. The agent's end waits for longer. What it leaves
/// of the device is the agent's to put right.
pub(crate) const WORKER_ENDS_WITHIN: Duration = Duration::from_secs(1);
/// How long it may take to say that its VMM has gone: longer than one control request that its device does not answer, which takes five seconds.
const GONE_WITHIN: Duration = Duration::from_secs(7);
/// How long one that has hung up may take until nothing is left of it, for it to be said how it ended.
const ENDED_WITHIN: Duration = Duration::from_millis(500);
/// Messages that are looked through of one that is gone: more than its channel holds.
const UNHEARD_MAX: usize = 4096;
/// What helps when the worker failed.
const AGAIN: &str = "plug it in again";

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
    /// What the broker ends it by.
    pub(super) cut: &'a Cut,
    /// Authorises the interfaces that are served, and returns the configuration that the device is in; `None` if the device is another, or gone.
    pub(super) authorise: &'a dyn Fn() -> Option<u8>,
    pub(super) tell: &'a dyn Fn(DeviceThreadEvent),
    /// How long it may take until the guest has the device: [`BEGIN_WITHIN`].
    pub(super) begin_within: Duration,
    /// How often it is asked whether it serves the device: [`LOOK_EVERY`].
    pub(super) look_every: Duration,
    /// What is served, for the agent's log.
    pub(super) what: String,
}

impl Attendant<'_> {
    /// Attends to the worker until nothing is left of it.
    pub(super) fn attend(mut self) -> Served {
        let mut turn = Turn::new(Moment::now(), self.look_every);
        let outcome = loop {
            match self.turn(&mut turn) {
                Ok(None) => {}
                Ok(Some(outcome)) => break Ok(outcome),
                Err(fault) => break Err(fault),
            }
        };
        // What does what no worker does may have done anything.
        let carried_nothing = turn.stage == Stage::Opening
            && !matches!(outcome, Err(Fault::Malformed(_) | Fault::OutOfTurn(_) | Fault::TooMuch));
        let outcome = match outcome {
            Ok(Outcome::Over) => Ok(()),
            Ok(Outcome::Failed(why)) => Err(why),
            // Nobody has it any more; how it lets the device go is its own business.
            Err(_) if turn.stage == Stage::Leaving || self.cut.is_done() => Ok(()),
            Err(fault) => self.fault(turn.stage, fault),
        };
        self.worker.end();
        Served { outcome, carried_nothing: carried_nothing && self.has_nothing_unheard() }
    }

    /// Returns whether a worker that was killed has said nothing by which it may have begun, and that nobody has heard.
    fn has_nothing_unheard(&self) -> bool {
        for _ in 0..UNHEARD_MAX {
            match self.worker.channel.receive() {
                Ok(None) => return true,
                Err(error) => return error.kind() == io::ErrorKind::UnexpectedEof,
                Ok(Some(unheard)) => {
                    if !matches!(
                        Message::read(&unheard),
                        Ok(Message::Authorise | Message::Failed(_))
                    ) {
                        return false;
                    }
                }
            }
        }
        false
    }

    /// Says why a worker that was not told to end is ended, at once: one that the kernel does not let go is waited for afterwards.
    fn fault(&mut self, stage: Stage, fault: Fault) -> Result<(), NotServed> {
        let how = match fault {
            Fault::Ended => self.worker.ended_by_itself(ENDED_WITHIN),
            _ => None,
        };
        let how = how.unwrap_or_else(|| printable::explain(&fault));
        tracing::warn!("the worker that serves {} is ended: {how}", self.what);
        // That is its device's doing.
        let is_device_gone = matches!(fault, Fault::NoDevice);
        let why = if is_device_gone {
            format!("{how}; {AGAIN}")
        } else {
            format!("what serves it failed: {how}; {AGAIN}")
        };
        if stage == Stage::Opening {
            return Err(why.into());
        }
        let kind = if is_device_gone { DetachReason::NoDevice } else { DetachReason::Stream };
        (self.tell)(DeviceThreadEvent::Detached(Some(kind(why)), None));
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
                // Whatever it still does with the device, it is killed.
                Ok(DeviceThreadCommand::Cut) | Err(mpsc::TryRecvError::Disconnected) => {
                    return Ok(Some(Outcome::Over));
                }
                Err(mpsc::TryRecvError::Empty) => break,
            }
        }
        let now = Moment::now();
        let owed = turn.owed(now);
        if owed.is_some_and(|wait| wait.is_zero()) {
            turn.authorised(now);
            // This may wait for the device.
            let configuration = (self.authorise)().ok_or(Fault::NoDevice)?;
            self.send(Command::Done(configuration))?;
            return Ok(None);
        }
        let left = match turn.stage {
            Stage::Opening => {
                let left = turn.left(self.begin_within, now).ok_or(Fault::NotBegun)?;
                match turn.gone.map(|since| now.saturating_duration_since(since)) {
                    None => Some(left),
                    // There is nobody to serve it to, and nobody has seen anything of it.
                    Some(gone) if gone >= GONE_WITHIN => return Ok(Some(Outcome::Over)),
                    Some(gone) => Some(left.min(GONE_WITHIN.saturating_sub(gone))),
                }
            }
            Stage::Serving => match turn.gone {
                // It has little time to close, and then nobody has it any more.
                None if turn.closing => None,
                None => {
                    match turn.question.look(now, owed.is_some(), || self.worker.process.is_held())
                    {
                        Look::Nothing => {}
                        Look::Asks => self.send(Command::Ask)?,
                        Look::Hangs => return Err(Fault::Hangs),
                    }
                    Some(turn.question.wait(now))
                }
                Some(since) => {
                    let left = GONE_WITHIN.checked_sub(now.saturating_duration_since(since));
                    if left.is_none_or(|left| left.is_zero()) {
                        return Ok(Some(self.vmm_gone()));
                    }
                    left
                }
            },
            Stage::Leaving => match turn.left(WORKER_ENDS_WITHIN, now) {
                None => return Ok(Some(Outcome::Over)),
                left => left,
            },
        };
        let waits_for_vmm = turn.stage != Stage::Leaving && turn.gone.is_none();
        let left = left.into_iter().chain(owed).min();
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

    /// Returns whether nobody is at the other end of the stream any more, or it was cut at this one.
    fn has_vmm_gone(&self) -> bool {
        let mut vmm = [PollFd::new(self.worker.vmm.as_fd(), PollFlags::empty())];
        poll(&mut vmm, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
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
        let now = Moment::now();
        if turn.gone.is_none() && self.has_vmm_gone() {
            turn.gone = Some(now);
        }
        match turn.hear(now, bytes)? {
            Heard::Nothing => {}
            Heard::Tell(event) => (self.tell)(event),
            Heard::Failed(why) => {
                return Ok(Some(Outcome::Failed(NotServed::by_worker(why))));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
