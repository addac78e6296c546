//! The guest's end of the seat: screen, keyboard and pointer, driven by the agent over the link.
//!
//! ```text
//!   link (main loop) --Display--> Gpu (own thread) --picture, damage, cursor--+
//!                    --Input----> keyboard, pointer (main loop) --lights------+--> Outbox --> link
//!                    --UpdateAck----------------------------------------------+
//! ```
//!
//! The VMM listens for the link, and serves one agent at a time: without one the guest runs on, without a seat, and the next
//! one gets the whole picture. It may have been started by another agent, or be another version of it.
#![forbid(unsafe_code)]

mod outbox;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::{Uid, geteuid};
use seat_link::{Channel, CursorChange, PACKET_MAX, Packet, Rect, Size, Target, ToVmm};
use virtio::gpu::{self, Frame, Gpu, Viewer};
use virtio::input::{self, Input, InputStatus, Kind};

use crate::listen::{self, SocketError};
use outbox::Outbox;

/// Packets taken before other devices have their turn.
const BUDGET: usize = 64;

/// Why there is no seat.
#[derive(Debug, thiserror::Error)]
pub enum SeatError {
    /// The socket of the seat link could not be made.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The process has no file descriptor left, or the like.
    #[error("a device of the seat cannot be set up")]
    Host(#[from] io::Error),
}

/// The devices of a seat, and what feeds them.
pub(crate) struct Seat {
    pub(crate) gpu: Gpu,
    pub(crate) keyboard: Input,
    pub(crate) pointer: Input,
    pub(crate) server: SeatLinkServer,
}

/// The VMM's end of the seat link, in the main loop: listens for the agent and serves it.
pub(crate) struct SeatLinkServer {
    listener: UnixListener,
    /// Who may look and type: whoever started the VMM, before its sandbox gave that user up.
    owner: Uid,
    channel: Option<Arc<Channel>>,
    outbox: Arc<Outbox>,
    screen: gpu::Handle,
    keyboard: input::Handle,
    pointer: input::Handle,
    buffer: Box<[u8; PACKET_MAX]>,
}

impl Seat {
    /// Listens for an agent on a socket at `path`.
    pub(crate) fn listen(path: &Path) -> Result<Self, SeatError> {
        let listener = listen::packets(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self::new(listener)?)
    }

    fn new(listener: UnixListener) -> io::Result<Self> {
        let outbox = Arc::new(Outbox::default());
        let (gpu, screen) = Gpu::new(Box::new(Screen(Arc::clone(&outbox))))?;
        let lights = Arc::clone(&outbox);
        let told = Box::new(move |said| {
            lights.change(|news| match said {
                InputStatus::Lights(leds) => news.leds = leds,
                InputStatus::Stalled(stalled) => news.stalled = stalled,
            });
        });
        let (keyboard, keys) = Input::new(Kind::Keyboard, told)?;
        let (pointer, moves) = Input::new(Kind::Pointer, Box::new(|_| ()))?;
        let server = SeatLinkServer {
            listener,
            owner: geteuid(),
            channel: None,
            outbox,
            screen,
            keyboard: keys,
            pointer: moves,
            buffer: Box::new([0; PACKET_MAX]),
        };
        Ok(Self { gpu, keyboard, pointer, server })
    }
}

/// What the guest shows, on its way to the agent.
struct Screen(Arc<Outbox>);

impl Viewer for Screen {
    fn picture(&mut self, size: Option<Size>) {
        self.0.change(|news| news.picture = size);
    }

    fn damage(&mut self, rect: Rect) {
        self.0.change(|news| news.damage = news.damage.around(rect));
    }

    fn cursor(&mut self, cursor: CursorChange) {
        self.0.change(|news| news.cursor = cursor);
    }
}

impl SeatLinkServer {
    /// Takes the agent that waits, if one does and may: from now on the seat is its.
    fn accept(&mut self) -> Option<Arc<Channel>> {
        let (stream, _) = self.listener.accept().ok()?;
        match getsockopt(&stream, sockopt::PeerCredentials) {
            Ok(peer) if peer.uid() == self.owner.as_raw() => {}
            Ok(peer) => {
                tracing::warn!(uid = peer.uid(), "somebody else than the agent wants the seat");
                return None;
            }
            Err(error) => {
                tracing::warn!(%error, "who wants the seat is not known");
                return None;
            }
        }
        match Channel::new(OwnedFd::from(stream)) {
            Ok(channel) => Some(Arc::new(channel)),
            Err(error) => {
                tracing::warn!(%error, "the link cannot be served");
                None
            }
        }
    }

    fn begin(&mut self, channel: Arc<Channel>) {
        self.outbox.begin(Arc::clone(&channel));
        self.channel = Some(channel);
    }

    fn end(&mut self) {
        // Nobody is left to hold a key down.
        self.keyboard.release_all();
        self.pointer.release_all();
        self.outbox.end();
        self.channel = None;
    }

    /// Takes what came; false when nothing more will.
    fn take(&mut self) -> bool {
        let Some(channel) = self.channel.clone() else { return false };
        let more = self.take_some(&channel);
        self.outbox.catch_up();
        more
    }

    fn take_some(&mut self, channel: &Channel) -> bool {
        for _ in 0..BUDGET {
            let (message, file) = match channel.receive_file(&mut self.buffer) {
                Ok(Packet::Nothing) => return true,
                Ok(Packet::Closed) => {
                    tracing::warn!("the agent is gone; the guest runs on without a seat");
                    return false;
                }
                Ok(Packet::Message(packet, file)) => (ToVmm::decode(packet), file),
                Err(error) => {
                    tracing::error!(%error, "the link failed; the guest runs on without a seat");
                    return false;
                }
            };
            match (message, file) {
                (Ok(ToVmm::Display(size)), Some(file)) => match Frame::map(file, size) {
                    Ok(frame) => self.screen.show_on(frame),
                    Err(error) => tracing::error!(%error, "the screen cannot be mapped"),
                },
                (Ok(ToVmm::Display(_)), None) => tracing::error!("a screen without memory"),
                (Ok(ToVmm::Input(Target::Keyboard, events)), _) => self.keyboard.send(&events),
                (Ok(ToVmm::Input(Target::Pointer, events)), _) => self.pointer.send(&events),
                (Ok(ToVmm::ReleaseAll), _) => {
                    self.keyboard.release_all();
                    self.pointer.release_all();
                }
                (Ok(ToVmm::UpdateAck), _) => self.outbox.acknowledged(),
                (Err(error), _) => tracing::error!(%error, "the agent's message makes no sense"),
            }
        }
        true
    }

    /// Watches the listener where nobody is connected, and the agent where one is: one at a time, the next waits.
    fn attach(&mut self, ops: &mut EventOps) {
        let Some(channel) = self.accept() else { return };
        if let Err(error) = ops.add(Events::new(&*channel, EventSet::IN)) {
            tracing::error!(%error, "the link cannot be served");
            return;
        }
        if let Err(error) = ops.remove(Events::new(&self.listener, EventSet::IN)) {
            tracing::error!(%error, "the seat's socket cannot be put off");
        }
        tracing::info!("an agent has taken the seat");
        self.begin(channel);
    }

    fn detach(&mut self, ops: &mut EventOps) {
        if let Some(channel) = &self.channel
            && let Err(error) = ops.remove(Events::new(&**channel, EventSet::IN))
        {
            tracing::error!(%error, "the link cannot be let go");
        }
        self.end();
        if let Err(error) = ops.add(Events::new(&self.listener, EventSet::IN)) {
            tracing::error!(%error, "no other agent can take the seat");
        }
    }
}

impl MutEventSubscriber for SeatLinkServer {
    fn init(&mut self, ops: &mut EventOps) {
        if let Err(error) = ops.add(Events::new(&self.listener, EventSet::IN)) {
            tracing::error!(%error, "the seat cannot be served");
        }
    }

    fn process(&mut self, events: Events, ops: &mut EventOps) {
        if events.fd() == self.listener.as_raw_fd() {
            self.attach(ops);
        } else if !self.take() {
            self.detach(ops);
        }
    }
}

#[cfg(test)]
mod tests;
