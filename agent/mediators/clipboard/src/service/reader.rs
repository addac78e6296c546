//! The worker that reads one guest's stream: started when that begins, killed when it ends, and believed nothing.
//!
//! ```text
//!  guest's socket ----------------------> stdin  +--------+
//!     ^ what the agent writes                    | worker |  in its sandbox; it cannot write to the guest
//!  Command --> channel <-----------------> stdout +--------+
//!  Event   <--                                        |
//!  content <-- file in memory, of fixed length <------+ read once, into memory of this process; the worker gives its pages back
//! ```
//! Nothing is asked of that file but to be read: whoever writes holds a lock of it that all else waits for.
//!
//! It sees its guest's stream and no other's. What it says is taken message by message, so many in a row and in a second ([`EVENTS`]); one that says what is no
//! message, or dies, costs its guest's stream.

use std::error::Error;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use printable::explain;
use ratelimit::RateLimiter;
use worker_link::clipboard::{Command, Event, START};
use worker_link::{CONTENT_MAX, Role, user_of_domain};
use workers::{Channel, Process, Program};
use zeroize::Zeroizing;

use super::memory;
use crate::mediator::Time;
use crate::mediator::limits::{COMPLAINTS, EVENTS, STARTS};

/// Readers of one guest that were killed and are not gone yet. While there are more none is started for it.
const ENDING_MAX: usize = 4;

/// A process that reads one guest's stream. Killed when it is dropped.
#[derive(Debug)]
pub struct ReaderProcess {
    process: Process,
    channel: Channel,
    /// Where it writes content.
    content: File,
}

impl ReaderProcess {
    /// Starts `program` with this stream, under this number.
    ///
    /// # Errors
    /// There is no memory, process or descriptor for it, or this PC does not run the program.
    pub fn start(program: &Program, user: u32, stream: OwnedFd) -> io::Result<Self> {
        let content = memory::of_length("bulkhead-content", u64::from(CONTENT_MAX))?;
        let (channel, workers) = Channel::pair()?;
        // It is there before the worker is, which waits for nobody.
        channel.send(&START, &[content.as_fd()])?;
        let process = Process::start(program, Role::Clipboard, user, stream, workers)?;
        Ok(Self { process, channel, content })
    }

    /// Returns its process number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Returns what becomes readable when it has said something, or has ended.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }

    /// Tells it something.
    ///
    /// # Errors
    /// It is gone, or takes nothing.
    pub fn tell(&self, command: Command) -> io::Result<()> {
        self.channel.send(&command.message(), &[])
    }

    /// Returns the next that it says, if there is anything.
    ///
    /// # Errors
    /// It is gone, or says what is no message.
    pub fn next(&self) -> io::Result<Option<Event>> {
        let Some(message) = self.channel.receive()? else { return Ok(None) };
        let event = Event::read(&message);
        event.map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Reads so many bytes of the content that it wrote down.
    ///
    /// # Errors
    /// There are not so many.
    pub fn content(&self, length: u32) -> io::Result<Zeroizing<Vec<u8>>> {
        let length = usize::try_from(length.min(CONTENT_MAX)).unwrap_or_default();
        let mut bytes = Zeroizing::new(vec![0; length]);
        self.content.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Returns how it ended, if it has.
    fn ended(&mut self) -> Option<String> {
        self.process.ended().map(workers::process::words)
    }
}

/// One guest's reader, and what there is to start another.
#[derive(Debug)]
pub(super) struct Reader {
    /// The guest's domain.
    name: String,
    program: Option<Program>,
    user: Option<u32>,
    running: Option<ReaderProcess>,
    ending: Vec<Process>,
    events: RateLimiter,
    starts: RateLimiter,
    complaints: RateLimiter,
}

impl Reader {
    /// Makes that of the guest of the domain at this place, with none running.
    pub(super) fn new(
        name: String,
        index: usize,
        program: Option<&Program>,
        group: Option<PathBuf>,
    ) -> Self {
        let in_group = |program: &Program| match group {
            Some(group) => program.clone().in_cgroup(group),
            None => program.clone(),
        };
        Self {
            name,
            program: program.map(in_group),
            user: user_of_domain(index),
            running: None,
            ending: Vec::new(),
            events: RateLimiter::new(EVENTS),
            starts: RateLimiter::new(STARTS),
            complaints: RateLimiter::new(COMPLAINTS),
        }
    }

    /// Returns how long none may be started: zero if one may be now.
    pub(super) fn wait(&mut self, now: Time) -> Time {
        let full = self.ending.len() >= ENDING_MAX;
        // Whoever is ending is gone by then, or it is looked at again.
        let gone = if full { Time::from_millis(100) } else { Time::ZERO };
        self.starts.wait(now).max(gone)
    }

    /// Starts one for this stream; `false`: it cannot be started, which the log says.
    pub(super) fn start(&mut self, stream: io::Result<OwnedFd>, now: Time) -> bool {
        self.end();
        self.starts.take(1, now);
        match self.try_start(stream) {
            Ok(running) => {
                self.running = Some(running);
                true
            }
            Err(why) => {
                self.complain("nothing reads the clipboard of a domain", &why, now);
                false
            }
        }
    }

    fn try_start(&mut self, stream: io::Result<OwnedFd>) -> Result<ReaderProcess, String> {
        let program = self.program.as_mut().ok_or(
            "there is no bulkhead-worker; install it beside bulkhead-agent and restart that",
        )?;
        let user = self.user.ok_or("there are more domains than numbers for their workers")?;
        // One that is gone is given up, or nothing could be started in it.
        let _ = program.group();
        stream
            .and_then(|stream| ReaderProcess::start(program, user, stream))
            .map_err(|error| format!("{} does not start: {error}", program.path().display()))
    }

    /// Ends the one that runs.
    pub(super) fn end(&mut self) {
        if let Some(ReaderProcess { mut process, .. }) = self.running.take()
            && !process.end()
        {
            self.ending.push(process);
        }
    }

    /// Says in the log what became of the one that runs.
    pub(super) fn failed(&mut self, why: &dyn Error, now: Time) {
        // How it ended says more than that it did.
        let ended = self.running.as_mut().and_then(ReaderProcess::ended);
        let why = ended.unwrap_or_else(|| explain(why));
        self.complain("what reads the clipboard of a domain failed", &why, now);
    }

    fn complain(&mut self, what: &str, why: &str, now: Time) {
        if let Some(before) = self.complaints.admit(now) {
            tracing::warn!(domain = self.name, times = before.saturating_add(1), "{what}: {why}");
        }
    }

    /// Tells the one that runs, if one does.
    ///
    /// # Errors
    /// It is gone, or takes nothing.
    pub(super) fn tell(&self, command: Command) -> io::Result<()> {
        self.running.as_ref().map_or(Ok(()), |running| running.tell(command))
    }

    /// Returns the next that the one that runs says, if there is anything that may be taken now.
    ///
    /// # Errors
    /// It is gone, or says what is no message.
    pub(super) fn next(&mut self, now: Time) -> io::Result<Option<Event>> {
        let Some(running) = &self.running else { return Ok(None) };
        if !self.events.is_available(now) {
            return Ok(None);
        }
        let event = running.next()?;
        if event.is_some() {
            self.events.take(1, now);
        }
        Ok(event)
    }

    /// Reads so many bytes of the content that the one that runs wrote down.
    pub(super) fn content(&self, length: u32) -> io::Result<Zeroizing<Vec<u8>>> {
        let running = self.running.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        running.content(length)
    }

    /// Returns how long nothing may be taken of what it says: zero if something may be now.
    pub(super) fn pause(&mut self, now: Time) -> Time {
        self.events.wait(now)
    }

    /// Returns what becomes readable when the one that runs has said something or has ended, for polling.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.running.as_ref().map(ReaderProcess::fd)
    }

    /// Returns what becomes readable when one that was killed is gone, for polling.
    pub(super) fn ending(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.ending.iter().map(Process::fd)
    }

    /// Takes the exit status of those that are gone.
    pub(super) fn reap(&mut self) {
        self.ending.retain_mut(|process| !process.is_gone());
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;
    use crate::service::until;

    fn reader(dir: &std::path::Path, script: &str) -> Reader {
        Reader::new("ward".to_owned(), 0, Some(&Program::shell(dir, script)), None)
    }

    fn stream() -> io::Result<OwnedFd> {
        UnixStream::pair().map(|(stream, _)| stream.into())
    }

    #[test]
    fn no_more_is_taken_of_what_a_reader_says_than_there_may_be_and_the_rest_later() {
        let dir = tempfile::tempdir().unwrap();
        // `Release`, for ever.
        let mut reader = reader(dir.path(), "while :; do printf '\\004\\000\\000\\000'; done");
        let now = Time::from_secs(1);
        assert!(reader.start(stream(), now));
        for _ in 0..EVENTS.burst {
            assert_eq!(until(|| reader.next(now).unwrap()), Event::Release);
        }
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(reader.next(now).unwrap(), None, "though it has more to say");
        let pause = reader.pause(now);
        assert!(pause > Time::ZERO);
        assert_eq!(reader.next(now + pause).unwrap(), Some(Event::Release));
    }

    #[test]
    fn a_reader_is_started_so_often_and_those_that_were_killed_are_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let mut reader = reader(dir.path(), "exec sleep 600");
        let now = Time::from_secs(1);
        for _ in 0..STARTS.burst {
            assert_eq!(reader.wait(now), Time::ZERO);
            assert!(reader.start(stream(), now));
        }
        assert!(reader.wait(now) > Time::ZERO, "that was often");
        let later = now + STARTS.every * STARTS.burst;
        reader.end();
        until(|| {
            reader.reap();
            reader.ending.is_empty().then_some(())
        });
        assert_eq!(reader.wait(later), Time::ZERO);
        // More than there may be, which take their time.
        for _ in 0..ENDING_MAX {
            assert!(reader.start(stream(), later));
            reader.ending.push(reader.running.take().unwrap().process);
        }
        let later = later + STARTS.every * STARTS.burst;
        assert!(reader.wait(later) > Time::ZERO);
        for process in &mut reader.ending {
            process.end();
        }
        until(|| {
            reader.reap();
            reader.wait(later).is_zero().then_some(())
        });
    }

    #[test]
    fn one_that_is_gone_or_says_what_is_no_message_is_an_error_and_one_that_does_not_start_is_none()
    {
        let dir = tempfile::tempdir().unwrap();
        let now = Time::from_secs(1);
        for (script, kind) in [
            ("exit 0", io::ErrorKind::UnexpectedEof),
            ("printf noise; exec sleep 600", io::ErrorKind::InvalidData),
        ] {
            let mut reader = reader(dir.path(), script);
            assert!(reader.start(stream(), now));
            let error = until(|| reader.next(now).map(|event| assert_eq!(event, None)).err());
            assert_eq!(error.kind(), kind, "{script}");
        }
        let mut none = Reader::new("ward".to_owned(), 0, None, None);
        assert!(!none.start(stream(), now) && none.next(now).unwrap().is_none());
        let program = Program::script(dir.path().join("none"));
        let mut none = Reader::new("ward".to_owned(), 0, Some(&program), None);
        assert!(!none.start(stream(), now));
        // A domain for whose workers there is no number.
        let mut none = Reader::new("ward".to_owned(), 63, Some(&program), None);
        assert!(!none.start(stream(), now));
    }
}
