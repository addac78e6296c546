//! The link: what the agent and one VMM say to each other about screen, keyboard and pointer.
//!
//! A link is a connection to a `SOCK_SEQPACKET` socket on which the VMM listens, for one agent at a time: the agent may die, and the next one
//! takes the link up. Each packet is one message.
//!
//! ```text
//!   agent                                               VMM
//!     Display { size, frame memory as fd } ---------->    the guest's screen is this large
//!     Input { keyboard | pointer, events } ---------->    what a person did
//!     ReleaseAll                           ---------->    every key and button goes up
//!                                          <----------  Update { picture, damage, LEDs, cursor }
//!     UpdateAck                            ---------->    the next update may come
//! ```
//!
//! Pixels do not cross the link: the VMM writes them into frame memory (a sealed memfd of
//! [`Size::frame_bytes`] bytes, XRGB8888, top row first) and names the damaged rectangle. At most one
//! update is on its way: a VMM that does not wait for `UpdateAck` has broken the protocol.
//!
//! Both ends decode totally and with named caps. To the agent, everything that comes from a VMM is an
//! allegation; it takes no file descriptor from there.
#![warn(missing_docs)]
#![deny(clippy::print_stderr, clippy::print_stdout)]
#![forbid(unsafe_code)]

mod channel;
mod input;
mod to_agent;
mod to_vmm;
mod wire;

pub use channel::{Channel, Packet, connect, pair};
pub use input::{Event, Target};
pub use to_agent::{CURSOR_SIDE, Cursor, CursorChange, ToAgent, Update};
pub use to_vmm::ToVmm;
pub use wire::Malformed;

/// The version of these messages. It grows whenever one of them changes: an agent does not connect to a VMM of another version, which an
/// earlier agent may have left running.
pub const VERSION: u32 = if cfg!(feature = "next-version") { 2 } else { 1 };

/// The largest packet in bytes: an update with a cursor's picture, and room for its fields.
pub const PACKET_MAX: usize = CURSOR_BYTES + 64;

/// Bytes of a cursor's picture: 64 by 64 pixels of four bytes.
pub const CURSOR_BYTES: usize = CURSOR_SIDE as usize * CURSOR_SIDE as usize * 4;

/// Bytes of a pixel of frame memory.
pub const PIXEL_BYTES: u32 = 4;

/// A width and a height, in pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Size {
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
}

impl Size {
    /// The widest and highest screen: what Linux's driver of a virtio GPU takes (`XRES_MAX` and `YRES_MAX`).
    pub const MAX: u32 = 8192;
    /// The most pixels of a screen: 8K, the largest monitors there are.
    pub const PIXELS_MAX: u32 = 8192 * 4320;
    /// The most bytes of frame memory of one screen.
    pub const FRAME_BYTES_MAX: u64 = Self::PIXELS_MAX as u64 * PIXEL_BYTES as u64;

    /// Returns whether it is the size of a screen: neither side is zero, neither beyond [`Size::MAX`], and there are at
    /// most [`Size::PIXELS_MAX`] pixels.
    #[must_use]
    pub fn is_screen(self) -> bool {
        let side = 1..=Self::MAX;
        side.contains(&self.width)
            && side.contains(&self.height)
            && self.width * self.height <= Self::PIXELS_MAX
    }

    /// Returns the bytes of frame memory for a screen of this size: rows without gaps. Zero if it is no screen's.
    #[must_use]
    pub fn frame_bytes(self) -> usize {
        if !self.is_screen() {
            return 0;
        }
        (self.width * self.height * PIXEL_BYTES) as usize
    }
}

/// A rectangle in a picture, in pixels from the top left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rect {
    /// Its left edge, in pixels.
    pub x: u32,
    /// Its top edge, in pixels.
    pub y: u32,
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
}

impl Rect {
    /// Returns the rectangle of a whole picture.
    #[must_use]
    pub fn all(size: Size) -> Self {
        Self { x: 0, y: 0, width: size.width, height: size.height }
    }

    /// Returns whether it has no pixel.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.width == 0 || self.height == 0
    }

    /// Returns the part of it that lies within `size`.
    #[must_use]
    pub fn within(self, size: Size) -> Self {
        self.shared(Self::all(size))
    }

    /// Returns what lies in both.
    #[must_use]
    pub fn shared(self, other: Self) -> Self {
        let x = self.x.max(other.x);
        let y = self.y.max(other.y);
        let right = self.right().min(other.right());
        let bottom = self.bottom().min(other.bottom());
        Self { x, y, width: right.saturating_sub(x), height: bottom.saturating_sub(y) }
    }

    /// Returns the smallest rectangle that holds both; an empty one adds nothing.
    #[must_use]
    pub fn around(self, other: Self) -> Self {
        if self.is_empty() {
            return other;
        }
        if other.is_empty() {
            return self;
        }
        let x = self.x.min(other.x);
        let y = self.y.min(other.y);
        let right = self.right().max(other.right());
        let bottom = self.bottom().max(other.bottom());
        Self { x, y, width: right - x, height: bottom - y }
    }

    /// Returns the first column beyond it.
    #[must_use]
    pub fn right(&self) -> u32 {
        self.x.saturating_add(self.width)
    }

    /// Returns the first row beyond it.
    #[must_use]
    pub fn bottom(&self) -> u32 {
        self.y.saturating_add(self.height)
    }
}

/// Feeds arbitrary bytes to both decoders. For fuzz targets; a message that decodes encodes to the same bytes.
#[doc(hidden)]
pub fn fuzz(data: &[u8]) -> bool {
    let vmm = match ToVmm::decode(data) {
        Ok(message) => message.encode() == data,
        Err(_) => true,
    };
    let agent = match ToAgent::decode(data) {
        Ok(message) => message.encode() == data,
        Err(_) => true,
    };
    vmm && agent
}

#[cfg(test)]
mod tests;
