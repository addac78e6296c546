//! The requests for one guest's clipboard, by number, and whether what its reader says of them can be.

use super::limits::{HELD_MAX, READER_SILENCE};
use super::{ClipboardMediator, DomainIndex, Output, Time};
use worker_link::clipboard::Command;

/// What a reader cannot say that is what it is meant to be.
#[derive(Debug, thiserror::Error)]
pub enum ReaderFault {
    /// It is about a request that was not made, or whose answer was there already.
    #[error("it answers what was not asked")]
    Unasked,
    /// The content that it says is there is not.
    #[error("the content that it has read is not to be had")]
    Content(#[source] std::io::Error),
    /// Bytes of its guest lie there, and it says nothing: neither what they are nor that it reads any.
    #[error("its guest has said something, and it has told neither what that is nor that it reads it for {} seconds", READER_SILENCE.as_secs())]
    Silent,
}

/// A request that its guest's reader was told of, and that is not made yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) number: u32,
    /// Since when a copy hotkey waits.
    pub(super) since: Time,
}

/// The numbers of one stream's requests: `answered <= ready <= told`.
#[derive(Debug, Default)]
pub(super) struct Requests {
    /// The last that the reader was told of.
    told: u32,
    /// The last that it said the guest may be asked.
    ready: u32,
    /// The last whose answer has come.
    answered: u32,
    /// The one that waits until the guest may be asked.
    pub(super) waiting: Option<Waiting>,
}

impl Requests {
    /// Returns the number of the next one, which waits from now on. A hotkey that comes while one waits does not make the wait begin anew.
    fn next(&mut self, now: Time) -> u32 {
        self.told = self.told.saturating_add(1);
        let since = self.waiting.map_or(now, |waiting| waiting.since);
        self.waiting = Some(Waiting { number: self.told, since });
        self.told
    }

    /// Handles that the guest may be asked; returns whether this is the request that waits for it.
    pub(super) fn ready(&mut self, number: u32) -> Result<bool, ReaderFault> {
        if number <= self.ready || number > self.told {
            return Err(ReaderFault::Unasked);
        }
        self.ready = number;
        Ok(self.waiting.take_if(|waiting| waiting.number == number).is_some())
    }

    /// Handles that part of the answer has come.
    pub(super) const fn progresses(&self, number: u32) -> Result<(), ReaderFault> {
        if number == self.ready && number > self.answered {
            return Ok(());
        }
        Err(ReaderFault::Unasked)
    }

    /// Handles that all of the answer has come.
    pub(super) fn answered(&mut self, number: u32) -> Result<(), ReaderFault> {
        self.progresses(number)?;
        self.answered = number;
        Ok(())
    }
}

impl ClipboardMediator {
    /// Tells a guest's reader that the guest is to be asked for its clipboard; returns the request's number.
    pub(super) fn announce_request(&mut self, index: DomainIndex, now: Time) -> Option<u32> {
        let number = self.guests.get_mut(index)?.requests.next(now);
        self.out.push(Output::Tell(index, Command::Expect { number, most: HELD_MAX }));
        Some(number)
    }

    /// Asks a guest for its clipboard, as its reader says that it may be. It is asked also if nobody wants the answer any more, since what it is asked
    /// depends on the hotkeys pressed in it alone.
    pub(super) fn ask(
        &mut self,
        index: DomainIndex,
        number: u32,
        now: Time,
    ) -> Result<(), ReaderFault> {
        let Some(guest) = self.guests.get_mut(index) else { return Ok(()) };
        let waited = guest.requests.ready(number)?;
        let media_type = if waited { guest.best() } else { None };
        let asked = media_type.filter(|media_type| guest.outbox.ask(*media_type));
        if asked.is_none() {
            self.out.push(Output::Tell(index, Command::Forget { number }));
        }
        match (&mut self.pull, asked) {
            (Some(pull), Some(media_type)) if pull.is(index, number) => {
                (pull.media_type, pull.asked) = (media_type, true);
                (pull.since, pull.heard) = (now, now);
            }
            (Some(pull), None) if pull.is(index, number) => {
                self.pull_failed(
                    match media_type {
                        Some(_) => "does not take anything",
                        None => "has nothing in its clipboard any more",
                    },
                    now,
                );
            }
            (_, Some(_)) => self.out.push(Output::Tell(index, Command::GiveUp { number })),
            (_, None) => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_request_is_believed_in_the_order_that_there_is_and_once() {
        let mut requests = Requests::default();
        assert!(requests.ready(1).is_err() && requests.ready(0).is_err());
        assert!(requests.answered(0).is_err() && requests.progresses(0).is_err());
        assert_eq!(requests.next(Time::ZERO), 1);
        assert!(requests.answered(1).is_err(), "the guest was not asked");
        assert!(requests.ready(1).unwrap());
        assert!(requests.ready(1).is_err(), "twice");
        assert!(requests.progresses(1).is_ok() && requests.answered(1).is_ok());
        assert!(requests.progresses(1).is_err() && requests.answered(1).is_err(), "it was there");
        for _ in 2..5 {
            requests.next(Time::ZERO);
        }
        assert!(!requests.ready(3).unwrap(), "another waits by now");
        assert!(requests.ready(2).is_err() && requests.answered(2).is_err());
        assert!(requests.ready(4).unwrap() && requests.answered(3).is_err());
        assert!(requests.answered(4).is_ok() && requests.ready(5).is_err());
    }
}
