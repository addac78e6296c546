//! One port: a pair of queues on the guest's side, a client's socket on the host's.
//!
//! There is no buffer between them: bytes go straight from the guest's chains into the socket and
//! back. What the socket does not take stays in the guest's ring, what the guest has no room for
//! stays in the socket, so a slow side holds up its own port and nothing else. All the host keeps
//! for a client is the socket's send buffer, of the kernel's size (`net.core.wmem_default`, 208 KiB).
//!
//! The socket is watched edge-triggered for everything at once: interest never has to change, and
//! a queue notification, which cannot touch the event loop, can still do all the work.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};

use event_manager::{EventOps, EventSet, Events};
use nix::sys::socket::{MsgFlags, recv};

use super::control::{DeviceMessage, PendingMessages};
use crate::{Chain, CheckedQueue, Interrupt, Progress, QueueError};

/// The most chains moved one way before the other ports have their turn.
const BUDGET: usize = 64;

/// The most clients accepted, or refused, at a time.
const ACCEPT_BUDGET: usize = 8;

pub(super) struct Port {
    /// `None` is the console.
    name: Option<String>,
    listener: Option<UnixListener>,
    listening: bool,
    client: Option<Client>,
    /// A guest process has the port open.
    guest_open: bool,
    pending: PendingMessages,
    queues: Option<Queues>,
}

pub(super) struct Queues {
    /// Index of the input queue; the output queue's is one more.
    pub(super) first: usize,
    pub(super) input: CheckedQueue,
    pub(super) output: CheckedQueue,
    /// A chain the socket took only so many bytes of.
    pub(super) unsent: Option<(Chain, usize)>,
}

struct Client {
    socket: UnixStream,
    /// The peer closed its end; what it sent before may still be there.
    hung_up: bool,
    /// Sending failed: there is nobody to read.
    deaf: bool,
    /// Over; the I/O thread closes the socket once the event loop has forgotten it. (A vCPU, which
    /// may be what brought the end, touches no sockets.)
    ended: bool,
}

/// Event tokens of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tokens {
    pub(super) listener: u32,
    pub(super) client: u32,
}

impl Port {
    pub(super) fn new(name: Option<String>, listener: Option<UnixListener>) -> io::Result<Self> {
        if let Some(listener) = &listener {
            listener.set_nonblocking(true)?;
        }
        Ok(Self {
            name,
            listener,
            listening: false,
            client: None,
            guest_open: false,
            pending: PendingMessages::default(),
            queues: None,
        })
    }

    /// Starts, as the driver is ready. Without the multiport feature a port is open from the start.
    pub(super) fn start(&mut self, queues: Option<Queues>, guest_open: bool) {
        self.queues = queues;
        self.guest_open = guest_open;
    }

    /// Stops, as the driver is gone. A client that was talking to it is hung up on, so that it knows.
    pub(super) fn stop(&mut self) {
        if self.guest_open {
            self.hang_up();
        }
        self.queues = None;
        self.guest_open = false;
        self.pending = PendingMessages::default();
    }

    pub(super) fn device_ready(&mut self) {
        self.pending.device_ready();
    }

    pub(super) fn port_ready(&mut self, ready: bool) {
        if ready {
            self.pending.port_ready(self.name.is_none(), self.name.is_some());
        } else {
            self.pending.port_failed();
        }
    }

    /// Takes it that a guest process opened or closed the port. When it closes, what is under way
    /// is dropped and the client hung up on: whoever opens the port next is not who the client was
    /// talking to.
    pub(super) fn guest_opened(&mut self, open: bool) {
        if self.guest_open && !open {
            self.hang_up();
        }
        self.guest_open = open;
    }

    pub(super) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    pub(super) fn next_message(&self) -> Option<DeviceMessage> {
        self.pending.next(self.connected())
    }

    pub(super) fn sent(&mut self, what: DeviceMessage) {
        self.pending.sent(what);
    }

    fn connected(&self) -> bool {
        self.client.as_ref().is_some_and(|client| !client.ended)
    }

    /// Returns whether the event loop has a descriptor to forget: [`Port::reap`] needs to be called.
    pub(super) fn has_ended_client(&self) -> bool {
        self.client.as_ref().is_some_and(|client| client.ended)
    }

    fn hang_up(&mut self) {
        if let Some(client) = &mut self.client
            && !client.ended
        {
            client.ended = true;
            self.pending.client_gone();
        }
    }

    /// Hangs up on a client that ended.
    pub(super) fn reap(&mut self, ops: &mut EventOps) {
        if let Some(client) = self.client.take_if(|client| client.ended)
            && let Err(error) = ops.remove(Events::empty(&client.socket))
        {
            tracing::error!(%error, "cannot stop watching a port's client");
        }
    }

    /// Starts to listen; idempotent.
    pub(super) fn register(&mut self, tokens: Tokens, ops: &mut EventOps) {
        let Some(listener) = &self.listener else { return };
        if !self.listening {
            let set = EventSet::IN | EventSet::EDGE_TRIGGERED;
            match ops.add(Events::with_data(listener, tokens.listener, set)) {
                Ok(()) => self.listening = true,
                Err(error) => tracing::error!(%error, "cannot listen on a port's socket"),
            }
        }
    }

    /// Accepts whoever waits: the first if there is no client, and none beside it. `Unfinished` if
    /// more may wait.
    pub(super) fn accept(&mut self, tokens: Tokens, ops: &mut EventOps) -> Progress {
        for _ in 0..ACCEPT_BUDGET {
            let Some(listener) = &self.listener else { return Progress::Emptied };
            // Out of descriptors is no different: the next connection is the next try.
            let Ok((socket, _)) = listener.accept() else { return Progress::Emptied };
            // A client that closed its end and left bytes the guest does not take makes room.
            if self.client.as_ref().is_some_and(|client| client.hung_up) {
                self.hang_up();
            }
            self.reap(ops);
            if self.client.is_none()
                && let Err(error) = self.adopt(socket, tokens, ops)
            {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot serve a client");
            }
        }
        Progress::Unfinished
    }

    fn adopt(&mut self, socket: UnixStream, tokens: Tokens, ops: &mut EventOps) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        let set = EventSet::IN | EventSet::OUT | EventSet::READ_HANG_UP | EventSet::EDGE_TRIGGERED;
        ops.add(Events::with_data(&socket, tokens.client, set))
            .map_err(|error| io::Error::other(error.to_string()))?;
        self.client = Some(Client { socket, hung_up: false, deaf: false, ended: false });
        Ok(())
    }

    /// Takes it that something about the client's socket changed; [`Port::pump`] does the rest.
    pub(super) fn client_event(&mut self, set: EventSet) {
        if set.intersects(EventSet::HANG_UP | EventSet::READ_HANG_UP | EventSet::ERROR)
            && let Some(client) = &mut self.client
        {
            client.hung_up = true;
        }
    }

    /// Moves what can be moved, both ways.
    pub(super) fn pump(&mut self, interrupt: &dyn Interrupt) -> Result<Progress, QueueError> {
        let output = self.transmit(interrupt)?;
        let input = self.receive(interrupt)?;
        self.end_if_drained();
        Ok(if output == Progress::Unfinished { output } else { input })
    }

    /// Moves bytes from the guest to the client. Without a client the bytes are dropped: a driver
    /// that follows the specification does not write to a port that is not open.
    pub(super) fn transmit(&mut self, interrupt: &dyn Interrupt) -> Result<Progress, QueueError> {
        let Some(Queues { first, output, unsent, .. }) = &mut self.queues else {
            return Ok(Progress::Emptied);
        };
        let mut progress = Progress::Unfinished;
        for _ in 0..BUDGET {
            let next = match unsent.take() {
                Some(rest) => Some(rest),
                None => output.pop_or_wait()?.map(|chain| (chain, 0)),
            };
            let Some((chain, sent)) = next else {
                progress = Progress::Emptied;
                break;
            };
            match self.client.as_mut().map_or(Ok(0), |client| client.send(&chain, sent)) {
                Ok(0) => output.add_used(chain, 0)?,
                Ok(more) => *unsent = Some((chain, sent + more)),
                Err(Full) => {
                    *unsent = Some((chain, sent));
                    progress = Progress::Emptied; // the socket says when it has room
                    break;
                }
            }
        }
        output.announce(interrupt, *first + 1)?;
        Ok(progress)
    }

    /// Moves bytes from the client to the guest, as far as the guest has room and the port open.
    pub(super) fn receive(&mut self, interrupt: &dyn Interrupt) -> Result<Progress, QueueError> {
        let (Some(Queues { first, input, .. }), Some(client), true) =
            (&mut self.queues, &mut self.client, self.guest_open)
        else {
            return Ok(Progress::Emptied);
        };
        let mut progress = Progress::Unfinished;
        let mut over = client.ended;
        for _ in 0..BUDGET {
            if over {
                break;
            }
            let Some(chain) = input.pop_or_wait()? else {
                progress = Progress::Emptied; // the driver says when it has room
                break;
            };
            if chain.writable_len() == 0 {
                input.add_used(chain, 0)?;
                continue;
            }
            let received = chain.writer().read_from(client.socket.as_fd());
            match received {
                Ok(len) if len > 0 => input.add_used(chain, len)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    input.put_back(chain);
                    progress = Progress::Emptied; // the socket says when it has more
                    break;
                }
                _ => {
                    input.put_back(chain);
                    over = true;
                }
            }
        }
        input.announce(interrupt, *first)?;
        if over {
            self.hang_up();
            progress = Progress::Emptied;
        }
        Ok(progress)
    }

    /// Ends with a client that closed its end when all it sent was taken, or when nobody will.
    fn end_if_drained(&mut self) {
        let Some(client) = &self.client else { return };
        if client.hung_up && (!self.guest_open || client.is_empty()) {
            self.hang_up();
        }
    }
}

/// The socket takes nothing more for now.
struct Full;

impl Client {
    /// Sends a chain from byte `sent` on, and says how many bytes went; 0 if none are left, or
    /// nobody is there to read them.
    fn send(&mut self, chain: &Chain, sent: usize) -> Result<usize, Full> {
        let mut rest = chain.reader();
        if self.ended || self.deaf || rest.skip(sent).is_err() || rest.left() == 0 {
            return Ok(0);
        }
        match rest.send_to(self.socket.as_fd()) {
            Ok(len) if len > 0 => Ok(len),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(Full),
            _ => {
                self.deaf = true;
                Ok(0)
            }
        }
    }

    /// Returns whether everything the peer sent was read.
    fn is_empty(&self) -> bool {
        let mut byte = [0];
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        !matches!(recv(self.socket.as_raw_fd(), &mut byte, flags), Ok(1))
    }
}
