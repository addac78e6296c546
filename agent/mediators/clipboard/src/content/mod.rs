//! Sanitising of what crosses, whichever way it goes.
//!
//! | type | what crosses |
//! | --- | --- |
//! | text | valid UTF-8 as `policy::cleaning` leaves it |
//! | pictures | the pixels of the first page, as a viewer shows them, encoded anew as PNG |
//! | names of files | as text |
//!
//! HTML does not occur: the guests' protocol has no type for it, so formatted text arrives as plain text.

mod limits;
mod picture;
#[cfg(test)]
mod picture_tests;
mod pixels;
mod png_rows;
mod structure;
mod text;

use std::fmt;

use policy::cleaning::{self, Purpose};
use policy::language::MediaType;
use zeroize::Zeroizing;

pub use limits::{HELD_MAX, PIXELS_MAX, SIDE_MAX};

/// Why content does not cross, in a clinician's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Not UTF-8.
    #[error("it is not readable text")]
    NotText,
    /// Its first bytes are those of something else.
    #[error("it is not what it claims to be ({0})")]
    NotAsDeclared(MediaType),
    /// A picture of a kind that is not decoded here.
    #[error("this kind of picture cannot be taken; copy it as PNG")]
    UnknownKind,
    /// A picture that ends early or contradicts itself.
    #[error("the picture is damaged")]
    Damaged,
    /// A picture with too many pixels, or too large once it was encoded anew.
    #[error("the picture is too large")]
    TooLarge,
    /// No guest can send it.
    #[error("nothing carries {0} between the desktops")]
    NotCarried(MediaType),
}

/// What was changed, for the audit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// In text.
    pub text: cleaning::Changes,
    /// A picture was decoded and encoded anew.
    pub encoded_anew: bool,
    /// It said which way up it is shown, and was turned so.
    pub turned: bool,
    /// It was transparent everywhere, and is opaque.
    pub made_opaque: bool,
    /// Only the first of so many pages or frames crosses.
    pub first_of: Option<u32>,
}

impl Changes {
    /// Returns whether nothing was.
    #[must_use]
    pub fn none(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)?;
        let mut between = if self.text.none() { "" } else { ", " };
        let parts = [
            (self.encoded_anew, "encoded anew"),
            (self.turned, "turned as it is shown"),
            (self.made_opaque, "made opaque"),
        ];
        for (_, what) in parts.into_iter().filter(|(is_so, _)| *is_so) {
            write!(f, "{between}{what}")?;
            between = ", ";
        }
        if let Some(count) = self.first_of {
            write!(f, "{between}page 1 of {count}")?;
        }
        Ok(())
    }
}

/// Content that may cross, as far as its form goes.
#[derive(Debug)]
pub struct Sanitized {
    /// Its type; a picture is a PNG now.
    pub media_type: MediaType,
    /// The bytes.
    pub bytes: Zeroizing<Vec<u8>>,
    /// What is different.
    pub changes: Changes,
}

/// Sanitises content: text is cleaned, a picture is decoded and encoded anew. What comes out has at most `most` bytes.
///
/// # Errors
/// It cannot be.
pub fn sanitize(media_type: MediaType, bytes: &[u8], most: usize) -> Result<Sanitized, Rejected> {
    let purpose = match media_type {
        MediaType::TextPlain => Purpose::Reading,
        MediaType::FileList => Purpose::Names,
        MediaType::TextHtml => return Err(Rejected::NotCarried(media_type)),
        MediaType::ImagePng | MediaType::ImageBmp | MediaType::ImageJpeg | MediaType::ImageTiff => {
            let (bytes, changes) = picture::encode_anew(media_type, bytes, most)?;
            return Ok(Sanitized { media_type: MediaType::ImagePng, bytes, changes });
        }
    };
    let text = std::str::from_utf8(bytes).map_err(|_| Rejected::NotText)?;
    let cleaned = cleaning::clean(text, purpose);
    let changes = Changes { text: cleaned.changes, ..Changes::default() };
    Ok(Sanitized { media_type, bytes: cleaned.bytes, changes })
}

/// Returns the text with every line ended by CR LF, for a guest whose system has it so.
#[must_use]
pub fn with_crlf(bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    text::with_crlf(bytes)
}

/// Returns what a question shows of content, so that whoever is asked knows what it is: the beginning of a text in one line without
/// anything invisible in it, or the size of a picture.
#[must_use]
pub fn preview(media_type: MediaType, bytes: &[u8]) -> String {
    match media_type {
        MediaType::TextPlain | MediaType::TextHtml | MediaType::FileList => text::preview(bytes),
        _ => picture::preview(media_type, bytes),
    }
}

/// Returns how much it is, in words: `312 characters`, `a picture of 48 KiB (page 1 of 3)`.
#[must_use]
pub fn amount(media_type: MediaType, bytes: &[u8], first_of: Option<u32>) -> String {
    match media_type {
        MediaType::TextPlain | MediaType::TextHtml => {
            match String::from_utf8_lossy(bytes).chars().count() {
                1 => "1 character".to_owned(),
                count => format!("{count} characters"),
            }
        }
        MediaType::FileList => "a list of files".to_owned(),
        _ => {
            let pages = first_of.map(|count| format!(" (page 1 of {count})")).unwrap_or_default();
            format!("a picture of {}{pages}", size(bytes.len()))
        }
    }
}

/// Bytes as people say them.
#[must_use]
pub fn size(bytes: usize) -> String {
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..0x10_0000 => format!("{} KiB", bytes / 1024),
        _ => format!("{}.{} MiB", bytes >> 20, (bytes >> 10) % 1024 * 10 / 1024),
    }
}
