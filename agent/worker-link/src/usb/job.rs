//! What is to be served: a file in memory.
//!
//! | bytes | what |
//! | --- | --- |
//! | 8 | [`MAGIC`] |
//! | 1 | 1 if the device is read only |
//! | 1 | [`Speed`] |
//! | 1 | 1 for a whole device, 0 for a part |
//! | 32 | of a part, a bit for each interface, by number; zero of a whole device |
//! | 4 | how many bytes of its transfers may be with the kernel at once |
//! | 4, and so many | what the kernel has of the device, at most [`DESCRIPTORS_MAX`] |
//! | 4 | how many others it pinned, at most [`OTHERS_MAX`] |
//! | each: 1, 1 | whether it is of a configuration, and of which |
//! | 1, 1, 2 | type, index, and language or interface |
//! | 4, and so many | the descriptor, at most [`OTHER_MAX`] |

use usbdescriptors::{PinnedDescriptor, Share};

use super::{Malformed, boolean, nothing_more};
use crate::{number, take};

/// What a job begins with.
pub(super) const MAGIC: [u8; 8] = *b"BHUSBJ02";
/// Most bytes of the device descriptor and eight configurations of 4 KiB.
const DESCRIPTORS_MAX: usize = 18 + 8 * 4096;
/// Most descriptors besides: a BOS, languages, 32 texts, and in each of eight configurations a report of each of 128 settings.
pub const OTHERS_MAX: usize = 2 + 32 + 8 * 128;
/// Most bytes of one of them: a page, what usbfs takes in one piece.
const OTHER_MAX: usize = 4096;
/// Most bytes of a job.
pub const JOB_MAX: usize = 64 + DESCRIPTORS_MAX + OTHERS_MAX * (10 + OTHER_MAX);

/// How fast the device is on its bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Speed {
    /// None that there is a name for.
    Unknown = 0,
    /// 1.5 megabits a second.
    Low = 1,
    /// 12 megabits a second.
    Full = 2,
    /// 480 megabits a second.
    High = 3,
    /// 5000 megabits a second, and more.
    Super = 4,
}

impl Speed {
    const ALL: [Self; 5] = [Self::Unknown, Self::Low, Self::Full, Self::High, Self::Super];

    /// Returns the speed of so many megabits a second, as the kernel writes it.
    #[must_use]
    pub fn of(megabits: &str) -> Self {
        match megabits {
            "1.5" => Self::Low,
            "12" => Self::Full,
            "480" => Self::High,
            speed if speed.parse::<u32>().is_ok_and(|megabits| megabits >= 5000) => Self::Super,
            _ => Self::Unknown,
        }
    }
}

/// A device is to be served to its guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Only what reads it reaches the device.
    pub read_only: bool,
    /// How fast it is.
    pub speed: Speed,
    /// What of it is served.
    pub share: Share,
    /// Most bytes of its transfers that may be with the kernel at once, as that counts them. The kernel has so many for all devices of the PC.
    pub budget: u32,
    /// What the kernel has of it: the device descriptor and those of its configurations, one after the other.
    pub descriptors: Vec<u8>,
    /// What else it said when it was judged.
    pub others: Vec<PinnedDescriptor>,
}

impl Job {
    /// Returns it as it is written into the file.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let whole = self.share.is_whole();
        bytes.extend([u8::from(self.read_only), self.speed as u8, u8::from(whole)]);
        for first in (0..=u8::MAX).step_by(8) {
            let bit = |at: u8| u8::from(!whole && self.share.has(first | at)) << at;
            bytes.push((0..8).fold(0, |bits, at| bits | bit(at)));
        }
        bytes.extend(self.budget.to_le_bytes());
        append(&mut bytes, &self.descriptors);
        bytes.extend(count(self.others.len()));
        for other in &self.others {
            bytes.extend([u8::from(other.configuration.is_some())]);
            bytes.extend([other.configuration.unwrap_or_default(), other.kind, other.index]);
            bytes.extend(other.target.to_le_bytes());
            append(&mut bytes, &other.bytes);
        }
        bytes
    }

    /// Reads a job.
    ///
    /// # Errors
    /// It is none of this version's.
    pub fn read(mut bytes: &[u8]) -> Result<Self, Malformed> {
        let bytes = &mut bytes;
        if take(bytes)? != MAGIC {
            return Err(Malformed("it does not begin as a job does"));
        }
        let read_only = boolean(bytes)?;
        let [speed] = take(bytes)?;
        let speed = Speed::ALL.into_iter().find(|known| *known as u8 == speed);
        let speed = speed.ok_or(Malformed("it has a speed that there is not"))?;
        let whole = boolean(bytes)?;
        let bits: [u8; 32] = take(bytes)?;
        let share = match (whole, bits) {
            (true, [0, ..]) if bits == [0; 32] => Share::Whole,
            (true, _) => return Err(Malformed("it is whole and a part")),
            (false, _) => {
                let has = |number: &u8| {
                    let byte = bits.get(usize::from(number >> 3)).copied().unwrap_or_default();
                    byte >> (number & 7) & 1 == 1
                };
                Share::Interfaces((0..=u8::MAX).filter(has).collect())
            }
        };
        let budget = number(bytes)?;
        let descriptors = piece(bytes, DESCRIPTORS_MAX)?;
        let many = usize::try_from(number(bytes)?).unwrap_or(usize::MAX);
        if many > OTHERS_MAX {
            return Err(Malformed("it has too many descriptors"));
        }
        let mut others = Vec::new();
        for _ in 0..many {
            let of_one = boolean(bytes)?;
            let [configuration, kind, index] = take(bytes)?;
            if !of_one && configuration != 0 {
                return Err(Malformed("it names a configuration that is none"));
            }
            others.push(PinnedDescriptor {
                configuration: of_one.then_some(configuration),
                kind,
                index,
                target: u16::from_le_bytes(take(bytes)?),
                bytes: piece(bytes, OTHER_MAX)?,
            });
        }
        nothing_more(bytes)?;
        Ok(Self { read_only, speed, share, budget, descriptors, others })
    }
}

fn count(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes()
}

fn append(bytes: &mut Vec<u8>, piece: &[u8]) {
    bytes.extend(count(piece.len()));
    bytes.extend(piece);
}

/// Takes a piece off the front, behind its length.
fn piece(bytes: &mut &[u8], most: usize) -> Result<Vec<u8>, Malformed> {
    let length = usize::try_from(number(bytes)?).unwrap_or(usize::MAX);
    if length > most {
        return Err(Malformed("a piece of it is too long"));
    }
    let (piece, rest) = bytes.split_at_checked(length).ok_or(Malformed("it ends early"))?;
    *bytes = rest;
    Ok(piece.to_vec())
}
