//! Reads what one guest says of its clipboard, in a process that sees nothing but it.
//!
//! Only it gives the memory of content back, as the file has a lock for that, which whoever writes holds: the agent waits for nobody.
//!
//! Its standard input is the guest's stream, which it reads and the agent writes; its standard output is the channel to the agent. The first message brings
//! the file that content is written to, whose length nobody can change. What it does with what it reads is [`vdagent::GuestReader`]; here are its system
//! calls.

pub(crate) mod calls;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::FileExt as _;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::time::{ClockId, clock_gettime};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recv, recvmsg, send,
};
use sandboxing::Limits;
use vdagent::{GuestReader, Sink, Time};
use worker_link::clipboard::{COMMAND_MAX, Command, Event, MEMORY_MAX, START};
use worker_link::{CONTENT_MAX, Malformed};
use zeroize::Zeroize as _;

use super::enclosure::{Arguments, Enclosed, THREADS_MAX};
use super::{WorkerError, step};

use calls::calls;

/// The guest's stream: standard input.
const STREAM: i32 = 0;
/// The channel to the agent: standard output.
const CHANNEL: i32 = 1;
/// File descriptors: the standard streams, what they are copied to, the file for content, and the one that Landlock is set up by.
const FILES_MAX: u64 = 10;
/// Bytes read from the guest at a time.
const BATCH: usize = 64 << 10;

pub(super) fn run(arguments: &Arguments) -> Result<(), WorkerError> {
    let limits = Limits {
        file_bytes: u64::from(CONTENT_MAX),
        files: FILES_MAX,
        memory: Some(MEMORY_MAX),
        // It lives as long as its guest is connected; its cgroup has its share.
        processor_time: None,
        threads: Some(THREADS_MAX),
    };
    let enclosed = Enclosed::enter(arguments, &limits)?;
    // Of the agent, and there since before this process was.
    let content = start(enclosed.output.as_fd())?;
    // The copies go: what may be asked of either is said of the two standard streams.
    drop(enclosed.filter(&calls(), &[])?);
    let (stream, channel) = (io::stdin(), io::stdout());
    let sink = Outlet { channel: channel.as_fd(), content, last: 0, holds: false };
    serve(stream.as_fd(), sink).map_err(step("go on"))
}

/// Takes the first message, and the file that comes with it.
fn start(channel: BorrowedFd<'_>) -> Result<File, WorkerError> {
    let mut bytes = [0; START.len()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut buffer = [IoSliceMut::new(&mut bytes)];
    let received = recvmsg(channel, &mut buffer, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        .map_err(step("receive what it starts with"))?;
    if received.bytes != START.len() || bytes != START {
        return Err(WorkerError::NoJob(Malformed::new("it does not begin as the agent does")));
    }
    let mut files = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    let file = files.next().and_then(|mut files| files.next());
    let file = file.ok_or(WorkerError::NoJob(Malformed::new("it comes without a file")))?;
    Ok(File::from(file))
}

/// Where what was read goes.
struct Outlet<'a> {
    channel: BorrowedFd<'a>,
    content: File,
    /// The last request that the agent announced: what is in the file is for it.
    last: u32,
    /// There is something in the file.
    holds: bool,
}

impl Outlet<'_> {
    /// Gives the memory of content back that nobody wants any more once the agent has said this.
    fn told(&mut self, command: Command) -> io::Result<()> {
        match command {
            Command::Expect { number, .. } => self.last = number,
            Command::GiveUp { number } | Command::Forget { number } if number == self.last => {}
            // It is about an earlier one's, which is gone.
            Command::GiveUp { .. } | Command::Forget { .. } => return Ok(()),
        }
        if std::mem::take(&mut self.holds) {
            let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            fallocate(&self.content, hole, 0, CONTENT_MAX.into())?;
        }
        Ok(())
    }
}

impl Sink for Outlet<'_> {
    type Error = io::Error;

    /// Waits until the agent has room for it.
    fn event(&mut self, event: Event) -> io::Result<()> {
        send(self.channel, &event.message(), SendFlags::NOSIGNAL)?;
        Ok(())
    }

    fn content(&mut self, at: u32, bytes: &[u8]) -> io::Result<()> {
        self.holds = true;
        self.content.write_all_at(bytes, at.into())
    }
}

/// Reads the stream until it ends or makes no sense, or the agent is gone.
fn serve(stream: BorrowedFd<'_>, mut outlet: Outlet<'_>) -> io::Result<()> {
    let mut reader = GuestReader::default();
    let mut buffer = vec![0; BATCH];
    while !reader.is_over() {
        let pause = reader.wait(now());
        let readable = wait(stream, outlet.channel, pause)?;
        // What the guest says is read before the commands are taken, and understood after that: no answer is before the request that it answers.
        let read = if readable { Some(take(stream, &mut buffer)?) } else { None };
        while let Some(command) = command(outlet.channel)? {
            outlet.told(command)?;
            if let Some(event) = reader.command(command) {
                outlet.event(event)?;
            }
        }
        match read {
            Some(Some(0)) => return outlet.event(Event::Ended),
            Some(Some(count)) => {
                let bytes = buffer.get_mut(..count).unwrap_or_default();
                reader.received(bytes, now(), &mut outlet)?;
                bytes.zeroize();
            }
            _ => {}
        }
    }
    Ok(())
}

/// Returns the time by the clock that goes on while the PC sleeps, as the agent's does.
fn now() -> Time {
    // There is such a clock, or there would be no agent.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Time::from).unwrap_or_default()
}

/// Waits for the agent, and for the guest if it may be read from; returns whether there is something of the guest's.
fn wait(stream: BorrowedFd<'_>, channel: BorrowedFd<'_>, pause: Time) -> io::Result<bool> {
    let mut both =
        [PollFd::new(channel, PollFlags::POLLIN), PollFd::new(stream, PollFlags::POLLIN)];
    let result = if pause.is_zero() {
        poll(&mut both, PollTimeout::NONE)
    } else {
        // A guest that hung up waits as well.
        let milliseconds = u16::try_from(pause.as_millis()).unwrap_or(u16::MAX);
        let channel = both.get_mut(..1).unwrap_or_default();
        poll(channel, PollTimeout::from(milliseconds.saturating_add(1)))
    };
    match result {
        Ok(_) => {}
        Err(Errno::EINTR) => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    let [_, stream] = both;
    Ok(pause.is_zero() && stream.any() == Some(true))
}

/// Reads what the guest has sent: nothing at its end, `None` if there is nothing yet.
fn take(stream: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    match rustix::io::read(stream, buffer) {
        Ok(count) => Ok(Some(count)),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
        // It was cut off.
        Err(rustix::io::Errno::CONNRESET) => Ok(Some(0)),
        Err(error) => Err(error.into()),
    }
}

/// Returns the agent's next command, if there is one.
fn command(channel: BorrowedFd<'_>) -> io::Result<Option<Command>> {
    let mut bytes = [0; COMMAND_MAX];
    let count = match recv(channel, &mut bytes, RecvFlags::DONTWAIT | RecvFlags::TRUNC) {
        Ok((_, count)) => count,
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if count == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let command = bytes.get(..count).ok_or(io::ErrorKind::InvalidData)?;
    let command = Command::read(command).map_err(io::Error::other)?;
    Ok(Some(command))
}
