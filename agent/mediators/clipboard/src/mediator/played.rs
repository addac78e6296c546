//! A guest's reader in this process, for tests and agent/fuzz: what its worker runs, without the worker.

use std::collections::VecDeque;
use std::convert::Infallible;

use vdagent::{GuestReader, Sink};
use worker_link::clipboard::{Command, Event};

use super::{ClipboardMediator, DomainIndex, ReaderFault, Time};

#[derive(Debug, Default)]
struct Said {
    events: VecDeque<Event>,
    /// The file that content is written to.
    content: Vec<u8>,
}

impl Sink for Said {
    type Error = Infallible;

    fn event(&mut self, event: Event) -> Result<(), Infallible> {
        self.events.push_back(event);
        Ok(())
    }

    fn content(&mut self, at: u32, bytes: &[u8]) -> Result<(), Infallible> {
        self.content.truncate(usize::try_from(at).unwrap_or(usize::MAX));
        self.content.extend_from_slice(bytes);
        Ok(())
    }
}

/// The reader of one stream.
#[derive(Debug, Default)]
pub(crate) struct PlayedReader {
    reader: GuestReader,
    said: Said,
}

impl PlayedReader {
    /// Takes bytes from the guest.
    pub(crate) fn received(&mut self, bytes: &[u8], now: Time) {
        let Ok(()) = self.reader.received(bytes, now, &mut self.said);
    }

    /// Takes a command of the mediator's.
    pub(crate) fn command(&mut self, command: Command) {
        self.said.events.extend(self.reader.command(command));
    }

    /// Tells the mediator what was read.
    pub(crate) fn tell(
        &mut self,
        mediator: &mut ClipboardMediator,
        guest: DomainIndex,
        now: Time,
    ) -> Result<(), ReaderFault> {
        let Said { events, content } = &mut self.said;
        while let Some(event) = events.pop_front() {
            let all = matches!(event, Event::Content { .. });
            let mut read = |length: u32| {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                let part = content.get(..length).ok_or(std::io::ErrorKind::UnexpectedEof)?;
                Ok(part.to_vec().into())
            };
            mediator.heard(guest, event, &mut read, now)?;
            if all {
                content.clear();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
impl PlayedReader {
    /// Returns how long the guest is not to be read from.
    pub(crate) fn wait(&mut self, now: Time) -> Time {
        self.reader.wait(now)
    }

    /// Returns how many bytes are kept, with the content that has come.
    pub(crate) fn kept(&self) -> usize {
        self.reader.kept() + self.said.content.len()
    }
}
