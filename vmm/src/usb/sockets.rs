//! The sockets, in the main loop.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use crate::listen::{self, SocketError};
use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use usbredir::wire::capability;
use usbredir::{Body, Role, Session};
use xhci::{Handle, PortId};

use super::backend_queue::{BackendCall, BackendQueue};
use super::remote::{Effect, Remote};

/// Bytes read from a peer before others have their turn.
const BUDGET: usize = 256 * 1024;
/// Bytes read at a time.
const BATCH: usize = 64 * 1024;
/// Most bytes that wait for a peer: a transfer of every endpoint towards it there can be. A guest that takes back and tries again, with
/// a peer that does not read, loses its device. With what the controller and [`Remote`] hold, a guest and eight peers that do their worst
/// make the VMM hold less than 64 MiB.
const OUTPUT_MAX: usize = 2 << 20;

/// Who this end says it is.
const VERSION: &str = concat!("bulkhead-vmm ", env!("CARGO_PKG_VERSION"));

/// The sockets that `--usb` named, with whoever is connected.
pub(crate) struct Sockets {
    handle: Handle<BackendQueue>,
    backend: BackendQueue,
    all: Vec<Socket>,
    buffer: Vec<u8>,
}

struct Socket {
    path: PathBuf,
    listener: UnixListener,
    peer: Option<Peer>,
}

struct Peer {
    stream: UnixStream,
    session: Session,
    remote: Remote,
    port: Option<PortId>,
    /// Whether writing is waited for.
    blocked: bool,
}

/// Why a peer lost its connection.
#[derive(Debug, thiserror::Error)]
enum DisconnectReason {
    #[error("it hung up")]
    HungUp,
    #[error("it does not speak usbredir")]
    Protocol(#[from] usbredir::Error),
    #[error("it does not keep to the protocol")]
    Broken(#[from] super::remote::StreamViolation),
    #[error("there is no free port for its device")]
    NoPort,
    #[error("the socket failed")]
    Socket(#[source] io::Error),
    #[error("the guest wants more than can be kept")]
    Flood,
}

impl Sockets {
    /// Listens on every path; the controller's devices come and go with who connects.
    pub(crate) fn listen(
        paths: &[PathBuf],
        handle: Handle<BackendQueue>,
        backend: BackendQueue,
    ) -> Result<Self, (PathBuf, SocketError)> {
        let socket = |path: &PathBuf| {
            let failed = |error| (path.clone(), error);
            let listener = listen::streams(path).map_err(failed)?;
            listener
                .set_nonblocking(true)
                .map_err(|source| failed(SocketError::Host { path: path.clone(), source }))?;
            Ok(Socket { path: path.clone(), listener, peer: None })
        };
        let all = paths.iter().map(socket).collect::<Result<_, _>>()?;
        Ok(Self { handle, backend, all, buffer: vec![0; BATCH] })
    }

    fn at(&self, fd: RawFd) -> Option<usize> {
        self.all.iter().position(|socket| {
            socket.listener.as_raw_fd() == fd
                || socket.peer.as_ref().is_some_and(|peer| peer.stream.as_raw_fd() == fd)
        })
    }

    /// Takes whoever connects to the socket of this number, or turns them away.
    fn accept(&mut self, index: usize, ops: &mut EventOps) {
        let Some(socket) = self.all.get_mut(index) else { return };
        let Ok((stream, _)) = socket.listener.accept() else { return };
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        if let Err(error) = ops.add(Events::new(&stream, EventSet::IN)) {
            tracing::error!(%error, "a USB socket cannot be served");
            return;
        }
        // One at a time; the next waits until this one is gone. The socket is listened at again then.
        if let Err(error) = ops.remove(Events::new(&socket.listener, EventSet::IN)) {
            tracing::error!(%error, "a USB socket cannot be put off");
        }
        tracing::info!(socket = %socket.path.display(), "a USB peer is connected");
        let session = Session::new(Role::Guest, VERSION);
        let remote = Remote::default();
        socket.peer = Some(Peer { stream, session, remote, port: None, blocked: false });
        let sent = self.flush(index, ops);
        self.outcome(index, sent, ops);
    }

    /// Reads what a peer has to say.
    fn read(&mut self, index: usize) -> Result<(), DisconnectReason> {
        let mut left = BUDGET;
        while left > 0 {
            let Some(peer) = self.all.get_mut(index).and_then(|s| s.peer.as_mut()) else {
                return Ok(());
            };
            let room = peer.session.room().min(self.buffer.len()).min(left);
            let Some(space) = self.buffer.get_mut(..room) else { return Ok(()) };
            let count = match peer.stream.read(space) {
                Ok(0) => return Err(DisconnectReason::HungUp),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // It did not read the last of what it was sent.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Err(DisconnectReason::HungUp);
                }
                Err(error) => return Err(DisconnectReason::Socket(error)),
            };
            left -= count;
            peer.session.feed(space.get(..count).unwrap_or_default());
            while let Some(packet) = self.next(index)? {
                let effects = self.peer(index).map(|peer| peer.remote.arrived(packet));
                if let Some(effects) = effects {
                    self.carry_out(index, effects?)?;
                }
            }
        }
        Ok(())
    }

    fn peer(&mut self, index: usize) -> Option<&mut Peer> {
        self.all.get_mut(index)?.peer.as_mut()
    }

    fn next(&mut self, index: usize) -> Result<Option<usbredir::Packet>, DisconnectReason> {
        Ok(match self.peer(index) {
            Some(peer) => peer.session.next()?,
            None => None,
        })
    }

    fn carry_out(&mut self, index: usize, effects: Vec<Effect>) -> Result<(), DisconnectReason> {
        for effect in effects {
            match effect {
                Effect::Send(packet) => {
                    let Some(peer) = self.peer(index) else { return Ok(()) };
                    if peer.session.output().len() > OUTPUT_MAX {
                        return Err(DisconnectReason::Flood);
                    }
                    let acknowledges = peer
                        .session
                        .agreed()
                        .is_some_and(|caps| caps.has(capability::DEVICE_DISCONNECT_ACK));
                    if matches!(packet.body, Body::DeviceDisconnectAck) && !acknowledges {
                        continue;
                    }
                    if let Err(error) = peer.session.send(&packet) {
                        // Too long for what this peer can, or before its hello: no answer will come.
                        tracing::debug!(%error, "not sent to a USB peer");
                        for failed in peer.remote.unsent(&packet) {
                            self.complete(failed);
                        }
                    }
                }
                done @ Effect::Complete(..) => self.complete(done),
                Effect::Attach(speed) => {
                    let attached = self.handle.with(|controller| {
                        let port = controller.free_port(speed)?;
                        controller.attach(port, speed).ok().map(|()| port)
                    });
                    let Some(peer) = self.peer(index) else { return Ok(()) };
                    peer.port = Some(attached.ok_or(DisconnectReason::NoPort)?);
                }
                Effect::Detach => {
                    if let Some(port) = self.peer(index).and_then(|peer| peer.port.take()) {
                        self.detach(port);
                    }
                }
            }
        }
        Ok(())
    }

    fn complete(&self, effect: Effect) {
        if let Effect::Complete(id, status, moved) = effect {
            self.handle.with(|controller| controller.complete(id, status, moved.into()));
        }
    }

    /// Unplugs a device. What was wanted of it is not wanted of the next one at its port.
    fn detach(&self, port: PortId) {
        self.handle.with(|controller| {
            controller.detach(port);
            self.backend.forget(port);
        });
    }

    /// Carries out what the controller wants done.
    fn calls(&mut self, ops: &mut EventOps) {
        let (calls, lost) = self.backend.take();
        for call in calls {
            let index = match &call {
                BackendCall::Submit(transfer) => self.with_port(transfer.port),
                BackendCall::Reset(port) | BackendCall::Stopped(port, _) => self.with_port(*port),
                BackendCall::Stop(_) | BackendCall::Cancel(_) => None,
            };
            match (call, index) {
                (BackendCall::Submit(transfer), Some(index)) => {
                    let effects = self.peer(index).map(|peer| peer.remote.submit(transfer));
                    self.effects(index, effects.unwrap_or_default(), ops);
                }
                // The controller forgot it with its device.
                (BackendCall::Submit(_), None) => {}
                (BackendCall::Stop(id), _) => {
                    for index in 0..self.all.len() {
                        let effects = self.peer(index).map(|peer| peer.remote.stop(id));
                        self.effects(index, effects.unwrap_or_default(), ops);
                    }
                }
                (BackendCall::Cancel(id), _) => {
                    for index in 0..self.all.len() {
                        let effects = self.peer(index).map(|peer| peer.remote.cancel(id));
                        self.effects(index, effects.unwrap_or_default(), ops);
                    }
                }
                (BackendCall::Reset(_), Some(index)) => {
                    let effects = self.peer(index).map(|peer| peer.remote.reset());
                    self.effects(index, effects.unwrap_or_default(), ops);
                }
                (BackendCall::Stopped(_, endpoint), Some(index)) => {
                    let effects = self.peer(index).map(|peer| peer.remote.stopped(endpoint));
                    self.effects(index, effects.unwrap_or_default(), ops);
                }
                (BackendCall::Reset(_) | BackendCall::Stopped(..), None) => {}
            }
        }
        for index in 0..self.all.len() {
            let sent = if lost { Err(DisconnectReason::Flood) } else { self.flush(index, ops) };
            self.outcome(index, sent, ops);
        }
    }

    fn effects(&mut self, index: usize, effects: Vec<Effect>, ops: &mut EventOps) {
        if !effects.is_empty() {
            let done = self.carry_out(index, effects);
            self.outcome(index, done, ops);
        }
    }

    fn with_port(&self, port: PortId) -> Option<usize> {
        self.all
            .iter()
            .position(|socket| socket.peer.as_ref().is_some_and(|peer| peer.port == Some(port)))
    }

    /// Writes what waits for a peer, and sees to it that the rest is written when there is room.
    fn flush(&mut self, index: usize, ops: &mut EventOps) -> Result<(), DisconnectReason> {
        let Some(peer) = self.peer(index) else { return Ok(()) };
        while !peer.session.output().is_empty() {
            match peer.stream.write(peer.session.output()) {
                Ok(0) => return Err(DisconnectReason::HungUp),
                Ok(count) => peer.session.sent(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(DisconnectReason::Socket(error)),
            }
        }
        let blocked = !peer.session.output().is_empty();
        if blocked != peer.blocked {
            let events = if blocked { EventSet::IN | EventSet::OUT } else { EventSet::IN };
            let modified = ops.modify(Events::new(&peer.stream, events));
            modified
                .map_err(|error| DisconnectReason::Socket(io::Error::other(error.to_string())))?;
            peer.blocked = blocked;
        }
        Ok(())
    }

    /// Lets go of a peer that is lost.
    fn outcome(&mut self, index: usize, result: Result<(), DisconnectReason>, ops: &mut EventOps) {
        let Err(why) = result else { return };
        let Some(mut peer) = self.all.get_mut(index).and_then(|socket| socket.peer.take()) else {
            return;
        };
        let path = self.all.get(index).map(|socket| socket.path.clone()).unwrap_or_default();
        if matches!(why, DisconnectReason::HungUp) {
            tracing::info!(socket = %path.display(), "a USB peer is gone");
        } else {
            let cause = std::error::Error::source(&why).map(ToString::to_string);
            tracing::warn!(socket = %path.display(), cause, "a USB peer is put out: {why}");
        }
        if let Err(error) = ops.remove(Events::new(&peer.stream, EventSet::IN)) {
            tracing::error!(%error, "a USB socket cannot be let go");
        }
        // Its transfers die with the device.
        peer.remote.gone();
        if let Some(port) = peer.port {
            self.detach(port);
        }
        if let Some(socket) = self.all.get(index)
            && let Err(error) = ops.add(Events::new(&socket.listener, EventSet::IN))
        {
            tracing::error!(%error, "a USB socket cannot be served");
        }
    }
}

impl MutEventSubscriber for Sockets {
    fn init(&mut self, ops: &mut EventOps) {
        let mut add = |events| {
            if let Err(error) = ops.add(events) {
                tracing::error!(%error, "USB sockets cannot be served");
            }
        };
        add(Events::new(&*self.backend.kick, EventSet::IN));
        for socket in &self.all {
            add(Events::new(&socket.listener, EventSet::IN));
        }
    }

    fn process(&mut self, events: Events, ops: &mut EventOps) {
        if events.fd() == self.backend.kick.as_raw_fd() {
            return self.calls(ops);
        }
        let Some(index) = self.at(events.fd()) else { return };
        if self.all.get(index).is_some_and(|socket| socket.listener.as_raw_fd() == events.fd()) {
            return self.accept(index, ops);
        }
        let readable = EventSet::IN | EventSet::HANG_UP | EventSet::ERROR;
        let mut result = Ok(());
        if events.event_set().intersects(readable) {
            result = self.read(index);
        }
        let result = result.and_then(|()| self.flush(index, ops));
        self.outcome(index, result, ops);
    }
}
