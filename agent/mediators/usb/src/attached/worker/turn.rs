//! What is believed of a worker, from one message to the next: without I/O.

use std::io;
use std::time::Duration;

use clock::Moment;
use nix::errno::Errno;
use printable::line;
use ratelimit::{Rate, RateLimiter};
use usbfilter::Counts;
use worker_link::Malformed;
use worker_link::usb::{Message, Reason};

use super::super::{DetachReason, DeviceThreadEvent};
use super::question::Question;

/// Audit entries of refusals for one device; the rest are counted in the entry at its end.
pub(crate) const REFUSALS: Rate = Rate { burst: 64, every: Duration::from_secs(60) };
/// Messages of one worker: several times what a guest brings about that resets its device again and again. One that says more is ended.
pub(super) const MESSAGES: Rate = Rate { burst: 512, every: Duration::from_millis(50) };
/// How often interfaces are authorised for one worker, which waits for it: as often as a guest resets a device that it has just got, and then more slowly. Each
/// time the thread may have to wait for the device.
pub(super) const AUTHORISATIONS: Rate = Rate { burst: 8, every: Duration::from_secs(1) };
/// Longest reason of a worker's that is shown, in characters.
const WHY_MAX: usize = 200;

/// Why a worker is ended that was not told to end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
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
    #[error("it has not answered for a minute: it hangs, or its device does")]
    Hangs,
    #[error("its agent cannot wait for it")]
    Wait(#[source] Errno),
    #[error("it said that its VMM has gone, which has not")]
    NotGone,
    #[error("its device is another by now, or gone")]
    NoDevice,
    /// It has ended, or has closed its channel: which of both is known when it is gone.
    #[error("it hung up on its agent")]
    Ended,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The guest has seen nothing of the device.
    Opening,
    /// The guest has the device.
    Serving,
    /// The guest has the device no longer, and the worker lets it go.
    Leaving,
}

/// What a message leads to.
#[derive(Debug)]
pub(super) enum Heard {
    Nothing,
    /// The broker is told this.
    Tell(DeviceThreadEvent),
    /// The guest will see nothing of the device.
    Failed(String),
}

/// What is known of a worker from one message to the next: without I/O.
pub(super) struct Turn {
    pub(super) stage: Stage,
    /// It was told to close.
    pub(super) closing: bool,
    started: Moment,
    /// When it came to this stage.
    since: Moment,
    /// Since when its VMM has gone.
    pub(super) gone: Option<Moment>,
    /// It waits for the interfaces that are served to be authorised.
    asked: bool,
    /// Whether it serves the device, as it is asked while it does.
    pub(super) question: Question,
    look_every: Duration,
    /// They were authorised since it was told to close.
    hurried: bool,
    messages: RateLimiter,
    refusals: RateLimiter,
    authorisations: RateLimiter,
}

impl Turn {
    /// Begins. A worker that serves the device is asked every `look_every` whether it does.
    pub(super) fn new(now: Moment, look_every: Duration) -> Self {
        Self {
            stage: Stage::Opening,
            closing: false,
            started: now,
            since: now,
            gone: None,
            asked: false,
            question: Question::new(look_every, now),
            look_every,
            hurried: false,
            messages: RateLimiter::new(MESSAGES),
            refusals: RateLimiter::new(REFUSALS),
            authorisations: RateLimiter::new(AUTHORISATIONS),
        }
    }

    fn enter(&mut self, stage: Stage, now: Moment) {
        (self.stage, self.since) = (stage, now);
    }

    /// Returns how long it may stay at its stage; `None` if it was there for longer.
    pub(super) fn left(&self, most: Duration, now: Moment) -> Option<Duration> {
        let passed = now.saturating_duration_since(self.since);
        most.checked_sub(passed).filter(|left| !left.is_zero())
    }

    /// Returns how long it has to wait for its interfaces to be authorised; nothing if it does not. One that is to close does not wait, once: it hears that it is to
    /// when it has its answer, and has little time.
    pub(super) fn owed(&mut self, now: Moment) -> Option<Duration> {
        if !self.asked || self.stage == Stage::Leaving {
            return None;
        }
        if self.closing && !self.hurried {
            return Some(Duration::ZERO);
        }
        Some(self.authorisations.wait(now.saturating_duration_since(self.started)))
    }

    /// Counts that they are authorised.
    pub(super) fn authorised(&mut self, now: Moment) {
        self.asked = false;
        self.hurried |= self.closing;
        self.authorisations.take(1, now.saturating_duration_since(self.started));
    }

    /// Takes one message of the worker's into account, and returns what follows from it.
    pub(super) fn hear(&mut self, now: Moment, bytes: &[u8]) -> Result<Heard, Fault> {
        let passed = now.saturating_duration_since(self.started);
        if !self.messages.take(1, passed) {
            return Err(Fault::TooMuch);
        }
        Ok(match (self.stage, Message::read(bytes)?) {
            (Stage::Opening | Stage::Serving, Message::Authorise) if !self.asked => {
                self.asked = true;
                Heard::Nothing
            }
            (Stage::Opening, Message::Begun) => {
                self.enter(Stage::Serving, now);
                // It has its time to see that itself.
                self.gone = self.gone.map(|_| now);
                self.question = Question::new(self.look_every, now);
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
            (Stage::Serving, Message::Detached { reason: Reason::NoVmm | Reason::Told, .. })
                if !self.closing && self.gone.is_none() =>
            {
                return Err(Fault::NotGone);
            }
            (Stage::Serving, Message::Detached { reason, counts, why }) => {
                self.enter(Stage::Leaving, now);
                let worker_link::usb::Counts { to_device, to_guest, refused, commands } = counts;
                let counts = Counts { to_device, to_guest, commands, refused };
                let reason = self.reason(reason, &why);
                Heard::Tell(DeviceThreadEvent::Detached(reason, Some(counts)))
            }
            (Stage::Serving, Message::Serving) if self.question.answered() => Heard::Nothing,
            (_, Message::Serving) => return Err(Fault::OutOfTurn("that it serves its device")),
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
