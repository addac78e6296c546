//! The thread: waits for sockets, the daemon and time, and has the mediator decide.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use crate::mediator::limits::{AGENT_TOLD_EVERY, EVENTS_IN_A_ROW};
use crate::mediator::{ClipboardMediator, Output, Time};
use clipboard_content::Rejected;
use clock::{Alarm, Moment};
use monitor::mediator_thread::Ends;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use policy::Policy;

use super::agent_connection::{AgentConnection, Transferred};
use super::decoding;
use super::reader::Reader;
use super::{ClipboardEvent, Command, Domain, WorkerPrograms};

/// Bytes made ready for a guest at a time.
const BATCH: usize = 64 * 1024;

pub(super) struct Service {
    names: Vec<String>,
    connections: Vec<AgentConnection>,
    /// What reads each guest's stream.
    readers: Vec<Reader>,
    mediator: ClipboardMediator,
    decoders: decoding::Decoders,
    epoch: Moment,
    alarm: Alarm,
    /// Whose agents the daemon knows of, and from when on it may be told of another state of each.
    agents: Vec<(bool, Time)>,
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
    write: bool,
    /// Bytes of the guest's lie in it.
    unread: bool,
    hung_up: bool,
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
        domains: Vec<Domain>,
        policy: Arc<Policy>,
        workers: WorkerPrograms,
        daemon: Ends<Command, ClipboardEvent>,
    ) -> io::Result<Self> {
        let mut names = Vec::new();
        let mut connections = Vec::new();
        let mut readers = Vec::new();
        for (index, Domain { name, endpoint, group }) in domains.into_iter().enumerate() {
            connections.push(AgentConnection::new(endpoint, &name)?);
            readers.push(Reader::new(name.clone(), index, workers.reading.as_ref(), group));
            names.push(name);
        }
        let mediator = ClipboardMediator::new(&names, policy);
        let (epoch, alarm) = (Moment::now(), Alarm::new()?);
        let agents = vec![(false, Time::ZERO); names.len()];
        let decoders = decoding::Decoders::new(workers.decoding);
        let preparing = false;
        Ok(Self {
            names,
            connections,
            readers,
            mediator,
            decoders,
            epoch,
            alarm,
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
            // And who has hung up is offered nothing more.
            for (index, ready) in ready.iter().enumerate() {
                if ready.hung_up {
                    self.hung_up(index);
                }
            }
            // The daemon next: a policy that came in counts for what guests send after it.
            self.daemon.take_wakeup();
            while let Some(command) = self.daemon.next() {
                self.command(command);
            }
            for (index, ready) in ready.into_iter().enumerate() {
                self.serve(index, ready);
            }
            if let Some((id, outcome)) = self.decoders.ended() {
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
        let (Some(connection), Some(reader)) =
            (self.connections.get_mut(index), self.readers.get_mut(index))
        else {
            return;
        };
        reader.reap();
        if reader.wait(now).is_zero() && connection.connect(now) {
            tracing::debug!(
                domain = self.names.get(index).map(String::as_str),
                "clipboard connected"
            );
            self.mediator.connected(index);
            if !reader.start(connection.to_be_read(), now) {
                return self.mediator.reader_missing(index, now);
            }
            self.check_unread(index, false, now);
            return self.write(index);
        }
        if let Some(outbox) = self.mediator.outbox(index).filter(|outbox| outbox.waits_for_guest())
            && connection.is_read()
        {
            // Before what it says now: it may ask again, having got what it asked for.
            outbox.guest_took_all();
        }
        self.hear(index, now);
        self.check_unread(index, ready.unread, now);
        let connection = self.connections.get(index);
        if connection.and_then(AgentConnection::until).is_some_and(|until| now >= until) {
            return self.gone(index);
        }
        if ready.write {
            self.write(index);
        }
    }

    /// Takes what a guest's reader says.
    fn hear(&mut self, index: usize, now: Time) {
        for _ in 0..EVENTS_IN_A_ROW {
            // The stream of one that has failed, or whose stream made no sense, has ended.
            let Some(reader) = self.readers.get_mut(index) else { return };
            if !self.mediator.is_connected(index) {
                return;
            }
            let event = match reader.next(now) {
                Ok(Some(event)) => event,
                Ok(None) => return,
                Err(error) => {
                    reader.failed(&error, now);
                    return self.mediator.reader_failed(index, now);
                }
            };
            let heard =
                self.mediator.heard(index, event, &mut |length| reader.content(length), now);
            if let Err(fault) = heard {
                reader.failed(&fault, now);
                return self.mediator.reader_failed(index, now);
            }
        }
    }

    /// Checks whether a guest has said something of which its reader says nothing. `unread`: it has said something since the last check.
    fn check_unread(&mut self, index: usize, unread: bool, now: Time) {
        let (Some(connection), Some(reader)) =
            (self.connections.get(index), self.readers.get_mut(index))
        else {
            return;
        };
        if self.mediator.check_unread_at(index).is_some_and(|at| now >= at) {
            let unread = unread || connection.has_unread();
            if let Err(fault) = self.mediator.checked_unread(index, unread, now) {
                reader.failed(&fault, now);
                self.mediator.reader_failed(index, now);
            }
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
                Transferred::Disconnected => {
                    return self.hung_up(index);
                }
            }
        }
    }

    /// Handles that the other end of a guest's stream is gone. What it said before that is read all the same.
    fn hung_up(&mut self, index: usize) {
        let now = self.now();
        if let Some(connection) = self.connections.get_mut(index) {
            connection.hung_up(now);
        }
        self.mediator.hung_up(index, now);
    }

    fn gone(&mut self, index: usize) {
        let now = self.now();
        self.disconnect(index, now);
        self.mediator.disconnected(index, now);
    }

    /// Ends a guest's stream, and what reads it. There is none before `again`.
    fn disconnect(&mut self, index: usize, again: Time) {
        if let Some(connection) = self.connections.get_mut(index) {
            connection.disconnect(again);
        }
        if let Some(reader) = self.readers.get_mut(index) {
            reader.end();
        }
    }

    fn tell(&mut self, index: usize, command: worker_link::clipboard::Command) {
        let now = self.now();
        let Some(reader) = self.readers.get_mut(index) else { return };
        match reader.tell(command) {
            Ok(()) => {}
            // It has ended. What it said before that is heard first.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                ) => {}
            Err(error) => {
                reader.failed(&error, now);
                self.mediator.reader_failed(index, now);
            }
        }
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
        let now = self.now();
        for (index, (known, again)) in self.agents.iter_mut().enumerate() {
            let there = self.mediator.has_agent(index);
            if *known != there && now >= *again {
                (*known, *again) = (there, now.saturating_add(AGENT_TOLD_EVERY));
                self.daemon.send(ClipboardEvent::Agent(index, there));
            }
        }
    }

    fn carry_out_one(&mut self, output: Output) {
        match output {
            Output::Disconnect(index, again) => self.disconnect(index, again),
            Output::Tell(index, command) => self.tell(index, command),
            Output::Decode(id, job, picture) => {
                // Of several pastes that came at once only the last is waited for.
                if self.mediator.decodes(id) && !self.decoders.start(id, job, picture) {
                    self.mediator.decoded(id, Err(Rejected::NotDecoded), self.now());
                }
            }
            Output::StopDecoding(id) => self.decoders.stop(id),
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
        for (index, (known, again)) in self.agents.iter().enumerate() {
            if *known != self.mediator.has_agent(index) {
                sooner(*again);
            }
        }
        let mut wanted: Vec<(PollFlags, bool)> = Vec::new();
        for index in 0..self.connections.len() {
            let mut flags = PollFlags::empty();
            let mut reads = false;
            if let Some(outbox) = self.mediator.outbox(index).filter(|outbox| !outbox.is_empty()) {
                reads = outbox.waits_for_guest();
                flags.set(PollFlags::POLLOUT, !reads);
            }
            match self.mediator.check_unread_at(index) {
                // It is polled for what the guest says when the next check is due, so that no guest has this thread come round for each of its bytes.
                Some(at) if at > now => sooner(at),
                Some(_) => flags.insert(PollFlags::POLLIN),
                None => {}
            }
            wanted.push((flags, reads));
        }
        // Of each guest how long nothing is taken of what its reader says, and how long none is started.
        let pauses: Vec<(Time, Time)> =
            self.readers.iter_mut().map(|reader| (reader.pause(now), reader.wait(now))).collect();
        let mut fds: Vec<(Polled, BorrowedFd<'_>, PollFlags)> =
            vec![(Polled::Other, self.daemon.fd(), PollFlags::POLLIN)];
        fds.extend(self.decoders.fds().map(|fd| (Polled::Other, fd, PollFlags::POLLIN)));
        for (reader, (pause, _)) in self.readers.iter().zip(&pauses) {
            fds.extend(reader.ending().map(|fd| (Polled::Other, fd, PollFlags::POLLIN)));
            match reader.fd() {
                Some(fd) if pause.is_zero() => fds.push((Polled::Other, fd, PollFlags::POLLIN)),
                Some(_) => sooner(now.saturating_add(*pause)),
                None => {}
            }
        }
        for (index, (connection, ((flags, reads), (_, pause)))) in
            self.connections.iter().zip(wanted.iter().zip(&pauses)).enumerate()
        {
            if let Some(queue) = connection.read_notifier().filter(|_| *reads) {
                fds.push((Polled::Reads(index), queue, PollFlags::POLLIN));
            }
            if let Some(until) = connection.until() {
                sooner(until);
            } else if let Some(stream) = connection.stream() {
                // With nothing to be written it is polled for its end.
                fds.push((Polled::Stream(index), stream, *flags));
            } else if !pause.is_zero() {
                sooner(now.saturating_add(*pause));
            } else if let Some(listener) = connection.listener(now) {
                fds.push((Polled::Other, listener, PollFlags::POLLIN));
            }
            if let Some(due) = connection.due(now) {
                sooner(due.max(now.saturating_add(*pause)));
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
        for ((what, ..), polled) in fds.iter().zip(&polled) {
            let found = polled.revents().unwrap_or(PollFlags::empty());
            match what {
                Polled::Stream(index) => {
                    let Some(place) = ready.get_mut(*index) else { continue };
                    place.hung_up |= found.intersects(PollFlags::POLLHUP | PollFlags::POLLERR);
                    place.write |= found.contains(PollFlags::POLLOUT);
                    place.unread |= found.contains(PollFlags::POLLIN);
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
