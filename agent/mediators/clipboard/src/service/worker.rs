//! The thread: waits for sockets, the daemon and time, and has the mediator decide.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use crate::mediator::{ClipboardMediator, Output, Time};
use clipboard_content::Rejected;
use clock::{Alarm, Moment};
use monitor::mediator_thread::Ends;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use policy::Policy;
use zeroize::Zeroize;

use super::agent_connection::{AgentConnection, Transferred};
use super::decoding::Workers;
use super::{ClipboardEvent, Command, Program};
use base::sockets::SocketEndpoint;

/// Bytes read from a guest, or made ready for one, at a time.
const BATCH: usize = 64 * 1024;

pub(super) struct Service {
    names: Vec<String>,
    connections: Vec<AgentConnection>,
    mediator: ClipboardMediator,
    workers: Workers,
    epoch: Moment,
    alarm: Alarm,
    buffer: Vec<u8>,
    /// Whose agents the daemon knows of.
    agents: Vec<bool>,
    /// Whether the daemon knows of a picture that is being decoded.
    preparing: bool,
    // Last: when these go, the daemon takes everything for let go.
    daemon: Ends<Command, ClipboardEvent>,
}

/// Writes to one guest before the next guest is served: the parts of a short content.
const WRITES: usize = 4;

/// What may be done with a guest's connection, by the last wait.
#[derive(Clone, Copy, Debug, Default)]
struct Ready {
    read: bool,
    write: bool,
}

/// What a polled descriptor is.
#[derive(Clone, Copy, Debug)]
enum Polled {
    /// A guest's socket.
    Stream(usize),
    /// What tells that a guest has read something.
    Reads(usize),
    /// Something that needs no more than waking up.
    Other,
}

impl Service {
    pub(super) fn new(
        domains: Vec<(String, SocketEndpoint)>,
        policy: Arc<Policy>,
        worker: Option<Program>,
        daemon: Ends<Command, ClipboardEvent>,
    ) -> io::Result<Self> {
        let mut names = Vec::new();
        let mut connections = Vec::new();
        for (name, endpoint) in domains {
            connections.push(AgentConnection::new(endpoint, &name)?);
            names.push(name);
        }
        let mediator = ClipboardMediator::new(&names, policy);
        let (epoch, alarm) = (Moment::now(), Alarm::new()?);
        let buffer = vec![0; BATCH];
        let agents = vec![false; names.len()];
        let workers = Workers::new(worker);
        let preparing = false;
        Ok(Self {
            names,
            connections,
            mediator,
            workers,
            epoch,
            alarm,
            buffer,
            agents,
            preparing,
            daemon,
        })
    }

    fn now(&self) -> Time {
        self.epoch.elapsed()
    }

    pub(super) fn run(&mut self) {
        while !self.daemon.is_stopped() {
            let ready = match self.wait() {
                Ok(ready) => ready,
                Err(error) => {
                    tracing::error!("the clipboard cannot wait for anything and ends: {error}");
                    return;
                }
            };
            // What its time has ended is over before anybody asks for it: after a sleep of the PC much may be.
            self.mediator.tick(self.now());
            // The daemon next: a policy that came in counts for what guests send after it.
            self.daemon.take_wakeup();
            while let Some(command) = self.daemon.next() {
                self.command(command);
            }
            for (index, ready) in ready.into_iter().enumerate() {
                self.serve(index, ready);
            }
            if let Some((id, outcome)) = self.workers.ended() {
                self.mediator.decoded(id, outcome, self.now());
            }
            self.mediator.tick(self.now());
            self.carry_out();
        }
        // What the daemon hears from now on it still writes down.
        self.mediator.end();
        self.carry_out();
    }

    fn command(&mut self, command: Command) {
        let now = self.now();
        match command {
            Command::Hotkey(hotkey, front, ticket) => {
                self.mediator.hotkey(hotkey, front, ticket, now)
            }
            Command::Answered(id, yes) => self.mediator.answered(id, yes),
            Command::Permitted(permit) => self.mediator.permitted(permit, now),
            Command::Refused(id, denial) => self.mediator.refused(id, denial),
            Command::RecordLost => self.mediator.record_lost(now),
            Command::Policy(policy) => self.mediator.policy(policy, now),
            Command::Locked => self.mediator.locked(now),
            Command::Screen(size) => self.mediator.screen(size),
        }
    }

    fn serve(&mut self, index: usize, ready: Ready) {
        let now = self.now();
        let Some(connection) = self.connections.get_mut(index) else { return };
        if connection.connect(now) {
            tracing::debug!(
                domain = self.names.get(index).map(String::as_str),
                "clipboard connected"
            );
            self.mediator.connected(index);
            return self.write(index);
        }
        if let Some(outbox) = self.mediator.outbox(index).filter(|outbox| outbox.waits_for_guest())
            && connection.is_read()
        {
            // Before what it says now: it may ask again, having got what it asked for.
            outbox.guest_took_all();
        }
        if ready.read && self.mediator.may_read(index, now).is_ok() {
            match connection.read(&mut self.buffer) {
                Transferred::Bytes(count) => {
                    if let Some(bytes) = self.buffer.get_mut(..count) {
                        self.mediator.received(index, bytes, now);
                        bytes.zeroize();
                    }
                }
                Transferred::Nothing => {}
                Transferred::Disconnected => return self.gone(index),
            }
        }
        if ready.write {
            self.write(index);
        }
    }

    fn write(&mut self, index: usize) {
        let (Some(connection), Some(outbox)) =
            (self.connections.get_mut(index), self.mediator.outbox(index))
        else {
            return;
        };
        for _ in 0..WRITES {
            if outbox.waits_for_guest() && connection.is_read() {
                outbox.guest_took_all();
            }
            match connection.write(outbox, BATCH) {
                Transferred::Bytes(_) => {}
                Transferred::Nothing => return,
                Transferred::Disconnected => return self.gone(index),
            }
        }
    }

    fn gone(&mut self, index: usize) {
        let now = self.now();
        if let Some(connection) = self.connections.get_mut(index) {
            connection.disconnect(now);
        }
        self.mediator.disconnected(index, now);
    }

    fn carry_out(&mut self) {
        // A worker that cannot be started ends its paste at once, of which there is something to be carried out.
        loop {
            let outputs = self.mediator.outputs();
            if outputs.is_empty() {
                break;
            }
            outputs.into_iter().for_each(|output| self.carry_out_one(output));
        }
        let preparing = self.mediator.is_preparing();
        if std::mem::replace(&mut self.preparing, preparing) != preparing {
            self.send(ClipboardEvent::Preparing(preparing));
        }
        for index in 0..self.connections.len() {
            let there = self.mediator.has_agent(index);
            let known = self.agents.get_mut(index).map(|known| std::mem::replace(known, there));
            if known != Some(there) {
                self.send(ClipboardEvent::Agent(index, there));
            }
        }
    }

    fn carry_out_one(&mut self, output: Output) {
        match output {
            Output::Disconnect(index, again) => {
                if let Some(connection) = self.connections.get_mut(index) {
                    connection.disconnect(again);
                }
            }
            Output::Decode(id, job, picture) => {
                // Of several pastes that came at once only the last is waited for.
                if self.mediator.decodes(id) && !self.workers.start(id, job, picture) {
                    self.mediator.decoded(id, Err(Rejected::NotDecoded), self.now());
                }
            }
            Output::StopDecoding(id) => self.workers.stop(id),
            Output::Report(event) => self.send(event),
        }
    }

    fn send(&self, event: ClipboardEvent) {
        self.daemon.send(event);
    }

    /// Waits until there is something to do.
    fn wait(&mut self) -> Result<Vec<Ready>, Errno> {
        let now = self.now();
        let mut until = self.mediator.deadline();
        let mut sooner = |time: Time| until = Some(until.map_or(time, |until| until.min(time)));
        let mut wanted: Vec<(PollFlags, bool)> = Vec::new();
        for index in 0..self.connections.len() {
            let mut flags = PollFlags::empty();
            match self.mediator.may_read(index, now) {
                Ok(()) => flags |= PollFlags::POLLIN,
                Err(again) => {
                    if self.connections.get(index).is_some_and(AgentConnection::is_connected) {
                        sooner(again);
                    }
                }
            }
            let mut reads = false;
            if let Some(outbox) = self.mediator.outbox(index).filter(|outbox| !outbox.is_empty()) {
                reads = outbox.waits_for_guest();
                flags.set(PollFlags::POLLOUT, !reads);
            }
            wanted.push((flags, reads));
        }
        let mut fds: Vec<(Polled, BorrowedFd<'_>, PollFlags)> =
            vec![(Polled::Other, self.daemon.fd(), PollFlags::POLLIN)];
        fds.extend(self.workers.fds().map(|fd| (Polled::Other, fd, PollFlags::POLLIN)));
        for (index, (connection, (flags, reads))) in
            self.connections.iter().zip(&wanted).enumerate()
        {
            if let Some(queue) = connection.read_notifier().filter(|_| *reads) {
                fds.push((Polled::Reads(index), queue, PollFlags::POLLIN));
            }
            if let Some(stream) = connection.stream() {
                // One that may be neither read nor written waits, hung up or not.
                if !flags.is_empty() {
                    fds.push((Polled::Stream(index), stream, *flags));
                }
            } else if let Some(listener) = connection.listener(now) {
                fds.push((Polled::Other, listener, PollFlags::POLLIN));
            }
            if let Some(due) = connection.due(now) {
                sooner(due);
            }
        }
        self.alarm.set(until.map(|until| self.epoch + until))?;
        fds.push((Polled::Other, self.alarm.as_fd(), PollFlags::POLLIN));
        let mut polled: Vec<PollFd<'_>> =
            fds.iter().map(|(_, fd, flags)| PollFd::new(*fd, *flags)).collect();
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
        let mut ready = vec![Ready::default(); self.connections.len()];
        for ((what, _, asked), polled) in fds.iter().zip(&polled) {
            let found = polled.revents().unwrap_or(PollFlags::empty());
            match what {
                Polled::Stream(index) => {
                    let Some(place) = ready.get_mut(*index) else { continue };
                    // A guest that hung up is found by reading it; if nothing may be read, that waits as well.
                    let over = PollFlags::POLLHUP | PollFlags::POLLERR;
                    place.read = asked.contains(PollFlags::POLLIN)
                        && found.intersects(PollFlags::POLLIN | over);
                    place.write |= found.contains(PollFlags::POLLOUT);
                }
                Polled::Reads(index) => {
                    let Some(place) = ready.get_mut(*index) else { continue };
                    place.write |= found.contains(PollFlags::POLLIN);
                }
                Polled::Other => {}
            }
        }
        Ok(ready)
    }
}
