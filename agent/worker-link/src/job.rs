//! What the worker is to do.

use super::{CONTENT_MAX, Malformed, length, number, take};

/// What a job begins with.
pub const JOB_MAGIC: [u8; 8] = *b"BHPICJ01";
/// Bytes before the picture.
pub const JOB_HEADER: usize = 24;

/// What a picture is declared to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// Portable Network Graphics.
    Png = 1,
    /// Windows bitmap.
    Bmp = 2,
    /// JPEG.
    Jpeg = 3,
    /// TIFF.
    Tiff = 4,
}

impl Kind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Png, Self::Bmp, Self::Jpeg, Self::Tiff];
}

/// A picture is to be decoded, and encoded anew as a PNG.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// What it is declared to be.
    pub kind: Kind,
    /// Most bytes of the PNG; [`CONTENT_MAX`] at most.
    pub most: u32,
}

impl Job {
    /// Returns what stands before the picture.
    #[must_use]
    pub fn header(&self) -> [u8; JOB_HEADER] {
        let mut header = [0; JOB_HEADER];
        let fields = JOB_MAGIC
            .into_iter()
            .chain((self.kind as u32).to_le_bytes())
            .chain([0; 4])
            .chain(u64::from(self.most).to_le_bytes());
        header.iter_mut().zip(fields).for_each(|(place, byte)| *place = byte);
        header
    }

    /// Reads a job, and the picture behind it.
    ///
    /// # Errors
    /// It is none of this version's.
    pub fn read(mut bytes: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        if take(&mut bytes)? != JOB_MAGIC {
            return Err(Malformed("it does not begin as a job does"));
        }
        let kind = number(&mut bytes)?;
        let kind = Kind::ALL.into_iter().find(|known| *known as u32 == kind);
        let kind = kind.ok_or(Malformed("it is about a kind of picture that there is not"))?;
        if number(&mut bytes)? != 0 {
            return Err(Malformed("what is reserved is not zero"));
        }
        let most = u32::try_from(length(&mut bytes)?).ok().filter(|most| *most <= CONTENT_MAX);
        let most = most.ok_or(Malformed("it allows a larger answer than there may be"))?;
        Ok((Self { kind, most }, bytes))
    }
}
