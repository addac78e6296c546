//! What became of a picture.

use super::{Malformed, length, number, take};

/// What an answer begins with.
pub const ANSWER_MAGIC: [u8; 8] = *b"BHPICA01";
/// Bytes before the PNG.
pub const ANSWER_HEADER: usize = 32;
/// The picture said which way up it is shown, and was turned so.
pub const TURNED: u32 = 1;
/// It was transparent everywhere, and is opaque.
pub const MADE_OPAQUE: u32 = 2;

/// Why a picture is not encoded anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Refused {
    /// Its first bytes are those of something else.
    NotAsDeclared = 1,
    /// It is of a kind that is not decoded.
    UnknownKind = 2,
    /// It ends early or contradicts itself.
    Damaged = 3,
    /// It has too many pixels, or is too large once it was encoded anew.
    TooLarge = 4,
}

impl Refused {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; 4] =
        [Self::NotAsDeclared, Self::UnknownKind, Self::Damaged, Self::TooLarge];
}

/// What stands before the PNG, if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The PNG follows.
    Encoded {
        /// It was turned as it is shown.
        turned: bool,
        /// It was transparent everywhere.
        made_opaque: bool,
        /// Of how many pages it is the first, if there are more than one.
        first_of: Option<u32>,
        /// Bytes of the PNG, one at least.
        length: u32,
    },
    /// No PNG follows, and this is why.
    Refused(Refused),
}

impl Answer {
    /// Returns what stands before the PNG.
    #[must_use]
    pub fn header(&self) -> [u8; ANSWER_HEADER] {
        let (code, flags, pages, length) = match self {
            Self::Encoded { turned, made_opaque, first_of, length } => {
                let flags = u32::from(*turned) * TURNED + u32::from(*made_opaque) * MADE_OPAQUE;
                (0, flags, first_of.unwrap_or(0), *length)
            }
            Self::Refused(why) => (*why as u32, 0, 0, 0),
        };
        let mut header = [0; ANSWER_HEADER];
        let fields = ANSWER_MAGIC
            .into_iter()
            .chain([code, flags, pages, 0].into_iter().flat_map(u32::to_le_bytes))
            .chain(u64::from(length).to_le_bytes());
        header.iter_mut().zip(fields).for_each(|(place, byte)| *place = byte);
        header
    }

    /// Reads what stands before a PNG of at most `most` bytes.
    ///
    /// # Errors
    /// It is no answer of this version's, or says what contradicts itself.
    pub fn read(header: &[u8; ANSWER_HEADER], most: u64) -> Result<Self, Malformed> {
        let mut bytes = &header[..];
        if take(&mut bytes)? != ANSWER_MAGIC {
            return Err(Malformed("it does not begin as an answer does"));
        }
        let (code, flags) = (number(&mut bytes)?, number(&mut bytes)?);
        let (pages, reserved) = (number(&mut bytes)?, number(&mut bytes)?);
        let length = length(&mut bytes)?;
        if reserved != 0 || flags & !(TURNED | MADE_OPAQUE) != 0 {
            return Err(Malformed("what is reserved is not zero"));
        }
        if code != 0 {
            let why = Refused::ALL.into_iter().find(|known| *known as u32 == code);
            let why = why.filter(|_| (flags, pages, length) == (0, 0, 0));
            return why.map(Self::Refused).ok_or(Malformed("it refuses for no reason there is"));
        }
        let length = Some(length).filter(|length| (1..=most).contains(length));
        let length = length.and_then(|length| u32::try_from(length).ok());
        let length = length.ok_or(Malformed("its picture is empty, or larger than it may be"))?;
        let first_of = match pages {
            0 => None,
            1 => return Err(Malformed("it is the first page of one")),
            pages => Some(pages),
        };
        let (turned, made_opaque) = (flags & TURNED != 0, flags & MADE_OPAQUE != 0);
        Ok(Self::Encoded { turned, made_opaque, first_of, length })
    }
}
