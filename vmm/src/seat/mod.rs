//! The guest's end of the seat: screen, keyboard and pointer, driven by the agent over the link.
//!
//! ```text
//!   link (main loop) --Display--> Gpu (own thread) --picture, damage, cursor--+
//!                    --Input----> keyboard, pointer (main loop) --lights------+--> Outbox --> link
//!                    --Taken--------------------------------------------------+
//! ```
//!
//! Without an agent at the other end the guest runs on, without a seat.
#![forbid(unsafe_code)]

mod outbox;

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use link::{Channel, CursorChange, PACKET_MAX, Packet, Rect, Size, Target, ToVmm};
use nix::sys::socket::{SockType, getsockopt, sockopt};
use virtio::gpu::{self, Frame, Gpu, Viewer};
use virtio::input::{self, Input, Kind, Said};

use outbox::Outbox;

/// Packets taken before other devices have their turn.
const BUDGET: usize = 64;

/// Why there is no seat.
#[derive(Debug, thiserror::Error)]
pub enum SeatError {
    /// Standard input is something else.
    #[error(
        "standard input is not the socket of a link; only bulkhead-agent starts a VMM with --seat"
    )]
    NoLink,
    /// Both want standard input.
    #[error("standard input is the link already; give --serial null or --serial file=PATH")]
    SerialOnStdio,
    /// The process has no file descriptor left, or the like.
    #[error("a device of the seat cannot be set up")]
    Host(#[from] io::Error),
}

/// The devices of a seat, and what feeds them.
pub(crate) struct Seat {
    pub(crate) gpu: Gpu,
    pub(crate) keyboard: Input,
    pub(crate) pointer: Input,
    pub(crate) end: End,
}

/// The VMM's end of the link, in the main loop.
pub(crate) struct End {
    channel: Arc<Channel>,
    outbox: Arc<Outbox>,
    screen: gpu::Handle,
    keyboard: input::Handle,
    pointer: input::Handle,
    buffer: Box<[u8; PACKET_MAX]>,
}

impl Seat {
    /// Takes the link that the agent made standard input.
    pub(crate) fn from_stdin() -> Result<Self, SeatError> {
        let socket = io::stdin().as_fd().try_clone_to_owned()?;
        if !matches!(getsockopt(&socket, sockopt::SockType), Ok(SockType::SeqPacket)) {
            return Err(SeatError::NoLink);
        }
        Ok(Self::new(Channel::new(socket)?)?)
    }

    pub(crate) fn new(channel: Channel) -> io::Result<Self> {
        let channel = Arc::new(channel);
        let outbox = Arc::new(Outbox::new(Arc::clone(&channel)));
        let (gpu, screen) = Gpu::new(Box::new(Screen(Arc::clone(&outbox))))?;
        let lights = Arc::clone(&outbox);
        let told = Box::new(move |said| {
            lights.change(|news| match said {
                Said::Lights(leds) => news.leds = leds,
                Said::Stalled(stalled) => news.stalled = stalled,
            });
        });
        let (keyboard, keys) = Input::new(Kind::Keyboard, told)?;
        let (pointer, moves) = Input::new(Kind::Pointer, Box::new(|_| ()))?;
        let buffer = Box::new([0; PACKET_MAX]);
        let end = End { channel, outbox, screen, keyboard: keys, pointer: moves, buffer };
        Ok(Self { gpu, keyboard, pointer, end })
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

impl End {
    /// Takes what came; false when nothing more will.
    fn take(&mut self) -> bool {
        let more = self.take_some();
        self.outbox.catch_up();
        more
    }

    fn take_some(&mut self) -> bool {
        for _ in 0..BUDGET {
            let (message, file) = match self.channel.receive_file(&mut self.buffer) {
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
                (Ok(ToVmm::Taken), _) => self.outbox.taken(),
                (Err(error), _) => tracing::error!(%error, "the agent's message makes no sense"),
            }
        }
        true
    }
}

impl MutEventSubscriber for End {
    fn init(&mut self, ops: &mut EventOps) {
        if let Err(error) = ops.add(Events::new(&*self.channel, EventSet::IN)) {
            tracing::error!(%error, "the link cannot be served");
        }
    }

    fn process(&mut self, _events: Events, ops: &mut EventOps) {
        if !self.take() {
            // Nobody is left to hold a key down.
            self.keyboard.release_all();
            self.pointer.release_all();
            if let Err(error) = ops.remove(Events::new(&*self.channel, EventSet::IN)) {
                tracing::error!(%error, "the link cannot be let go");
            }
        }
    }
}

#[cfg(test)]
mod tests;
