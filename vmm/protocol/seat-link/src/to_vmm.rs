//! What the agent says.

use crate::Size;
use crate::input::{Event, Target};
use crate::wire::{Fields, Malformed, Put};

/// A message of the agent's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToVmm {
    /// The guest's screen has this size from now on; the packet carries its frame memory.
    Display(Size),
    /// What a person did on one device, at most [`Event::MAX`] events.
    Input(Target, Vec<Event>),
    /// Every key and button the guest was told to be down goes up.
    ReleaseAll,
    /// The last update was taken; the next may come.
    UpdateAck,
}

const DISPLAY: u8 = 1;
const KEYBOARD: u8 = 2;
const POINTER: u8 = 3;
const RELEASE_ALL: u8 = 4;
const UPDATE_ACK: u8 = 5;

impl ToVmm {
    /// Returns the packet. Events beyond [`Event::MAX`] are left out.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut packet = Vec::new();
        match self {
            Self::Display(size) => {
                packet.push(DISPLAY);
                packet.put_u32(size.width);
                packet.put_u32(size.height);
            }
            Self::Input(target, events) => {
                packet.push(match target {
                    Target::Keyboard => KEYBOARD,
                    Target::Pointer => POINTER,
                });
                events.iter().take(Event::MAX).for_each(|event| event.put(&mut packet));
            }
            Self::ReleaseAll => packet.push(RELEASE_ALL),
            Self::UpdateAck => packet.push(UPDATE_ACK),
        }
        packet
    }

    /// Reads a packet.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(packet: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new(packet);
        let message = match fields.u8()? {
            DISPLAY => {
                let size = Size { width: fields.u32()?, height: fields.u32()? };
                if !size.is_screen() {
                    return Err(Malformed::Field("size"));
                }
                Self::Display(size)
            }
            KEYBOARD => Self::Input(Target::Keyboard, events(&mut fields, packet.len())?),
            POINTER => Self::Input(Target::Pointer, events(&mut fields, packet.len())?),
            RELEASE_ALL => Self::ReleaseAll,
            UPDATE_ACK => Self::UpdateAck,
            kind => return Err(Malformed::Kind(kind)),
        };
        fields.end()?;
        Ok(message)
    }
}

fn events(fields: &mut Fields<'_>, packet: usize) -> Result<Vec<Event>, Malformed> {
    /// Bytes of an event.
    const BYTES: usize = 8;
    let count = packet.saturating_sub(1) / BYTES;
    if count > Event::MAX {
        return Err(Malformed::Long);
    }
    (0..count).map(|_| Event::take(fields)).collect()
}
