//! What the readers of guests' streams say, keep quiet about, or cannot say any more.

use std::io;
use std::sync::Arc;

use audit::events::{ClipboardStreamRefused, ClipboardTaken};
use worker_link::clipboard::{Command, Event};
use zeroize::Zeroizing;

use super::guest::{Guest, Reading};
use super::limits::HELD_MAX;
use super::words::INTERRUPTED;
use super::{ClipboardEvent, ClipboardMediator, DomainIndex, Output, ReaderFault, Time};
use crate::vdagent::Capabilities;
use clipboard_content as content;

impl ClipboardMediator {
    /// Takes what a guest's reader says, whatever that is. `content` reads so many bytes of what it wrote down, and is called if somebody waits for that.
    ///
    /// # Errors
    /// No reader that does what it is meant to says that: it is to be ended, as [`Self::reader_failed`] says.
    pub fn heard(
        &mut self,
        index: DomainIndex,
        event: Event,
        content: &mut dyn FnMut(u32) -> io::Result<Zeroizing<Vec<u8>>>,
        now: Time,
    ) -> Result<(), ReaderFault> {
        let screen = self.screen;
        let Some(guest) = self.guests.get_mut(index).filter(|guest| guest.connected) else {
            return Ok(());
        };
        guest.reader_said_something();
        if guest.hung_up
            && matches!(
                event,
                Event::Announce { .. } | Event::Grab(_) | Event::Release | Event::Request(_)
            )
        {
            // There is nobody left to answer, nor to be asked.
            return Ok(());
        }
        match event {
            Event::Announce { request, capabilities } => {
                guest.announced(request, Capabilities(capabilities));
                if let Some(size) = screen {
                    guest.monitor(size);
                }
                if request && self.pulls_from(index) {
                    self.pull_failed("was restarted", now);
                }
            }
            Event::Grab(types) => guest.grabs(&types),
            Event::Release => guest.grabbed.clear(),
            Event::Request(number) => {
                if guest.requests_content(number) {
                    let event = ClipboardTaken { domain: guest.name.clone() };
                    self.report(ClipboardEvent::Note(event.into()));
                }
            }
            Event::Ready { number } => self.ask(index, number, now)?,
            Event::Progress { number } => {
                guest.requests.progresses(number)?;
                if let Some(pull) = self.pull.as_mut().filter(|pull| pull.is(index, number)) {
                    pull.heard = now;
                }
            }
            Event::Content { number, kind, length } => {
                guest.requests.answered(number)?;
                if self.pull.as_ref().is_some_and(|pull| pull.is(index, number)) {
                    let bytes = content(length.min(HELD_MAX)).map_err(ReaderFault::Content)?;
                    self.content(index, kind, Arc::new(bytes), now);
                }
                // Its memory goes with the wish for it.
                self.out.push(Output::Tell(index, Command::Forget { number }));
            }
            Event::TooLarge { number, bytes } => {
                guest.requests.answered(number)?;
                if self.pull.as_ref().is_some_and(|pull| pull.is(index, number)) {
                    let size = content::size(usize::try_from(bytes).unwrap_or(usize::MAX));
                    let most = content::size(usize::try_from(HELD_MAX).unwrap_or(usize::MAX));
                    let why = format!("has {size} in its clipboard, more than {most}");
                    self.pull_failed(&why, now);
                }
            }
            Event::Nonsense(problem) => {
                let again = guest.pause(now);
                if let Some(times) = guest.faults_to_record(now) {
                    let (domain, problem) = (guest.name.clone(), problem.to_string());
                    let event = ClipboardStreamRefused { domain, problem, times };
                    self.report(ClipboardEvent::Note(event.into()));
                }
                self.out.push(Output::Disconnect(index, again));
                if self.pulls_from(index) {
                    self.pull_failed("sent something that is no clipboard", now);
                }
            }
            Event::Ended => {
                let again = guest.ended(now);
                self.disconnected(index, now);
                self.out.push(Output::Disconnect(index, again));
            }
            Event::Unannounced => {}
        }
        Ok(())
    }

    /// Returns when the caller is next to check whether bytes of a guest lie unread, and to tell that by [`Self::checked_unread`]: if its stream has begun, and
    /// its agent has not announced itself.
    #[must_use]
    pub fn check_unread_at(&self, index: DomainIndex) -> Option<Time> {
        self.guests.get(index).and_then(Guest::check_unread_at)
    }

    /// Handles that bytes of a guest lie unread, or do not any more.
    ///
    /// # Errors
    /// They have for so long that its reader is to be ended, as [`Self::reader_failed`] says.
    pub fn checked_unread(
        &mut self,
        index: DomainIndex,
        unread: bool,
        now: Time,
    ) -> Result<(), ReaderFault> {
        let Some(guest) =
            self.guests.get_mut(index).filter(|guest| guest.check_unread_at().is_some())
        else {
            return Ok(());
        };
        if guest.checked_unread(unread, now) { Err(ReaderFault::Silent) } else { Ok(()) }
    }

    /// Handles that what reads a guest's stream died, or says what cannot be: the stream is ended, and what was copied from it fails.
    pub fn reader_failed(&mut self, index: DomainIndex, now: Time) {
        let Some(guest) = self.guests.get_mut(index).filter(|guest| guest.connected) else {
            return;
        };
        let again = guest.pause(now);
        guest.reading = Reading::Failed;
        self.out.push(Output::Disconnect(index, again));
        if self.pulls_from(index) {
            self.pull_failed(INTERRUPTED, now);
        }
    }

    /// Handles that nothing can be started that reads a guest's stream, so that it has no clipboard for the time being.
    pub fn reader_missing(&mut self, index: DomainIndex, now: Time) {
        self.reader_failed(index, now);
        if let Some(guest) = self.guests.get_mut(index) {
            guest.reading = Reading::DoesNotStart;
        }
    }
}
