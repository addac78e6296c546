//! What a VMM says.

use crate::wire::{Fields, Malformed, Put};
use crate::{CURSOR_BYTES, Rect, Size};

/// Pixels along each side of a cursor's picture (virtio 1.2 section 5.7.6.10).
pub const CURSOR_SIDE: u32 = 64;

/// A message of a VMM's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToAgent {
    /// Something on the guest's screen is new.
    Update(Update),
}

/// What is new, all of it since the last update.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// The size of what the guest shows, from the top left of frame memory; `None` while it shows nothing.
    /// May be larger than frame memory, which then holds the part that fits.
    pub picture: Option<Size>,
    /// What of frame memory was written; may be empty.
    pub damage: Rect,
    /// The keyboard's lights the guest wants on, bit n for `LED_*` n.
    pub leds: u8,
    /// Whether the guest has not taken what was typed for a while.
    pub stalled: bool,
    /// What became of the guest's cursor.
    pub cursor: CursorChange,
}

/// What became of a guest's cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CursorChange {
    /// The cursor is as it was.
    #[default]
    Same,
    /// It is not shown.
    Hidden,
    /// It has this picture from now on.
    Shown(Box<Cursor>),
}

/// A cursor's picture and the pixel in it that points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The pixel that points, from the left; less than [`CURSOR_SIDE`].
    pub hot_x: u32,
    /// The pixel that points, from the top; less than [`CURSOR_SIDE`].
    pub hot_y: u32,
    /// [`CURSOR_BYTES`] bytes of ARGB8888, alpha premultiplied, top row first.
    pub pixels: Vec<u8>,
}

const UPDATE: u8 = 0x81;

const SAME: u8 = 0;
const HIDDEN: u8 = 1;
const SHOWN: u8 = 2;

impl ToAgent {
    /// Encodes the message as a packet.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let Self::Update(update) = self;
        let mut packet = vec![UPDATE];
        let picture = update.picture.unwrap_or_default();
        let Rect { x, y, width, height } = update.damage;
        for field in [picture.width, picture.height, x, y, width, height] {
            packet.put_u32(field);
        }
        packet.push(update.leds);
        packet.push(update.stalled.into());
        match &update.cursor {
            CursorChange::Same => packet.push(SAME),
            CursorChange::Hidden => packet.push(HIDDEN),
            CursorChange::Shown(cursor) => {
                packet.push(SHOWN);
                packet.put_u32(cursor.hot_x);
                packet.put_u32(cursor.hot_y);
                packet.extend_from_slice(&cursor.pixels);
            }
        }
        packet
    }

    /// Reads a packet.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(packet: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new(packet);
        match fields.u8()? {
            UPDATE => {}
            kind => return Err(Malformed::Kind(kind)),
        }
        let picture = Size { width: fields.u32()?, height: fields.u32()? };
        let picture = match (picture.width, picture.height) {
            (0, 0) => None,
            (0, _) | (_, 0) => return Err(Malformed::Field("picture")),
            _ => Some(picture),
        };
        let damage = Rect {
            x: fields.u32()?,
            y: fields.u32()?,
            width: fields.u32()?,
            height: fields.u32()?,
        };
        let leds = fields.u8()?;
        let stalled = match fields.u8()? {
            0 => false,
            1 => true,
            _ => return Err(Malformed::Field("stalled")),
        };
        let cursor = match fields.u8()? {
            SAME => CursorChange::Same,
            HIDDEN => CursorChange::Hidden,
            SHOWN => {
                let (hot_x, hot_y) = (fields.u32()?, fields.u32()?);
                if hot_x >= CURSOR_SIDE || hot_y >= CURSOR_SIDE {
                    return Err(Malformed::Field("hot spot"));
                }
                let pixels = fields.bytes(CURSOR_BYTES)?.to_vec();
                CursorChange::Shown(Box::new(Cursor { hot_x, hot_y, pixels }))
            }
            _ => return Err(Malformed::Field("cursor")),
        };
        fields.end()?;
        Ok(Self::Update(Update { picture, damage, leds, stalled, cursor }))
    }
}
