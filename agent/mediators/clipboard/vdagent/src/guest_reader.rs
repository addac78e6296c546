//! What the worker of one guest does: the guest's bytes and the agent's commands in, events and content out. Without I/O.
//!
//! Answers name no request, so that a guest has one request at a time to answer. A request that the agent announces while the answer to an earlier one
//! is due waits until that has come and was dropped; then, and otherwise at once, [`Event::Ready`] says that the guest may be asked.
//!
//! ```text
//!           Expect                  the answer begins               all of it has come
//!  nothing ---------> [Ready] asked ------------------> coming in ---------------------> Content
//!     ^                         |  GiveUp                   |  GiveUp
//!     |                         v                           v
//!     |     Expect waits here: unwanted                 the rest is dropped
//!     +---- its answer comes, and is dropped <--------------+
//! ```
//! A guest's agent that begins anew owes no answer, and nothing waits for one.

use ratelimit::{Rate, RateLimiter};
use worker_link::clipboard::{Command, Event};

use super::reader::{Read, Reader};
use super::spec::capability;
use super::{Message, Time};

/// Bytes that a guest may send unasked at once; as many again each second. What is more waits in its own queue.
pub const UNASKED: Rate =
    Rate { burst: 256 << 10, every: Time::from_nanos(1_000_000_000 / (256 << 10)) };
/// Between two [`Event::Progress`], in bytes.
const PROGRESS: u32 = 64 << 10;
/// Between two [`Event::Unannounced`], and between the stream's first bytes and the first of them: most agents announce themselves with those.
pub const UNANNOUNCED_EVERY: Time = Time::from_secs(1);

/// Where what was read goes.
pub trait Sink {
    /// Why something cannot go there.
    type Error;

    /// Takes an event; called in the order in which they happened.
    ///
    /// # Errors
    /// It cannot be passed on: the reader is of no use any more.
    fn event(&mut self, event: Event) -> Result<(), Self::Error>;

    /// Takes the part of the content that was asked for which begins at byte `at`. The event that says that all of it is there comes after its last part.
    ///
    /// # Errors
    /// It cannot be written: the reader is of no use any more.
    fn content(&mut self, at: u32, bytes: &[u8]) -> Result<(), Self::Error>;
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    number: u32,
    most: u32,
    wanted: bool,
}

/// Reads one guest's stream.
#[derive(Debug)]
pub struct GuestReader {
    reader: Reader,
    unasked: RateLimiter,
    /// The request whose answer is due, or comes in.
    asked: Option<u32>,
    /// The request that waits until the answer to an earlier one has come.
    waiting: Option<Waiting>,
    /// Bytes of the content that comes in, when that was last told.
    told: u32,
    unannounced: Unannounced,
    over: bool,
}

/// A guest's agent that has not announced itself.
#[derive(Clone, Copy, Debug)]
enum Unannounced {
    /// Nothing of its guest has been read.
    Unread,
    /// Bytes have been read: the first, or the last of which the agent was told, at this time.
    Since(Time),
    /// It has announced itself.
    Over,
}

impl Default for GuestReader {
    fn default() -> Self {
        Self {
            reader: Reader::default(),
            unasked: RateLimiter::new(UNASKED),
            asked: None,
            waiting: None,
            told: 0,
            unannounced: Unannounced::Unread,
            over: false,
        }
    }
}

impl GuestReader {
    /// Returns how long the guest is not to be read from: zero if it may be now. What a guest sends unasked has an allowance; at most one content's worth
    /// for each request goes beyond it.
    pub fn wait(&mut self, now: Time) -> Time {
        if self.goes_beyond() { Time::ZERO } else { self.unasked.wait(now) }
    }

    /// Returns whether the stream made no sense: nothing is read any more.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.over
    }

    /// Returns how many bytes are kept.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.reader.kept()
    }

    fn goes_beyond(&self) -> bool {
        let waits = self.waiting.is_some_and(|waiting| waiting.wanted);
        waits || self.reader.wants_answer() || self.reader.drains()
    }

    /// Carries out a command; returns what there is to be said at once.
    pub fn command(&mut self, command: Command) -> Option<Event> {
        match command {
            Command::Expect { number, most } => {
                self.waiting = Some(Waiting { number, most, wanted: true });
            }
            Command::GiveUp { number } => match &mut self.waiting {
                Some(waiting) if waiting.number == number => waiting.wanted = false,
                _ if self.asked == Some(number) => self.reader.give_up(),
                _ => {}
            },
            Command::Forget { number } => {
                self.waiting.take_if(|waiting| waiting.number == number);
                if self.asked.take_if(|asked| *asked == number).is_some() {
                    self.reader.forget();
                }
            }
        }
        self.ready()
    }

    /// Makes the request that waits the one whose answer is due, if no other's is.
    fn ready(&mut self) -> Option<Event> {
        if self.reader.awaits_answer() {
            return None;
        }
        let Waiting { number, most, wanted } = self.waiting.take()?;
        self.asked = Some(number);
        self.told = 0;
        self.reader.expect(most);
        if !wanted {
            self.reader.give_up();
        }
        Some(Event::Ready { number })
    }

    /// Takes bytes from the guest, of any length and content.
    ///
    /// # Errors
    /// What `sink` says.
    pub fn received<S: Sink>(
        &mut self,
        mut bytes: &[u8],
        now: Time,
        sink: &mut S,
    ) -> Result<(), S::Error> {
        if !self.goes_beyond() {
            self.unasked.take(u32::try_from(bytes.len()).unwrap_or(u32::MAX), now);
        }
        while !self.over {
            match self.reader.read(&mut bytes) {
                Ok(None) => break,
                Ok(Some(read)) => self.read(read, sink)?,
                Err(why) => {
                    self.over = true;
                    sink.event(Event::Nonsense(why))?;
                }
            }
        }
        if !self.over && self.is_to_tell_unannounced(now) {
            sink.event(Event::Unannounced)?;
        }
        Ok(())
    }

    /// Handles that bytes were read; returns whether there is to be told that they were, as the guest's agent has not announced itself.
    fn is_to_tell_unannounced(&mut self, now: Time) -> bool {
        let due = match self.unannounced {
            Unannounced::Unread => false,
            Unannounced::Since(since) if now >= since.saturating_add(UNANNOUNCED_EVERY) => true,
            Unannounced::Since(_) | Unannounced::Over => return false,
        };
        self.unannounced = Unannounced::Since(now);
        due
    }

    fn read<S: Sink>(&mut self, read: Read<'_>, sink: &mut S) -> Result<(), S::Error> {
        let event = match read {
            Read::Message(Message::Announce { request, capabilities }) => {
                if request {
                    // It is another one now, which was not asked for anything.
                    self.reader.forget();
                    (self.asked, self.waiting) = (None, None);
                }
                self.unannounced = Unannounced::Over;
                self.reader.set_selection(capabilities.has(capability::CLIPBOARD_SELECTION));
                Some(Event::Announce { request, capabilities: capabilities.0 })
            }
            Read::Message(Message::Grab(types)) => Some(Event::Grab(types)),
            Read::Message(Message::Request(kind)) => Some(Event::Request(kind)),
            Read::Message(Message::Release) => Some(Event::Release),
            // The first is only ever sent to a guest.
            Read::Message(Message::Monitor { .. }) | Read::Unasked => None,
            Read::Content { kind, size, at, bytes } => {
                sink.content(at, bytes)?;
                let have = at.saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
                let asked = self.asked;
                if have >= size {
                    self.asked = None;
                    asked.map(|number| Event::Content { number, kind, length: size })
                } else if have >= self.told.saturating_add(PROGRESS) {
                    self.told = have;
                    asked.map(|number| Event::Progress { number })
                } else {
                    None
                }
            }
            Read::TooLarge { bytes } => {
                self.asked.take().map(|number| Event::TooLarge { number, bytes })
            }
            Read::Late => {
                self.asked = None;
                None
            }
        };
        // What waited for the answer is ready when that has come, or is not due any more.
        for event in [event, self.ready()].into_iter().flatten() {
            sink.event(event)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
