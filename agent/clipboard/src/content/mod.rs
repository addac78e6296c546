//! What crosses, made fit to cross.
//!
//! | type | always | on the way into a more trusted domain |
//! | --- | --- | --- |
//! | text | valid UTF-8; lines end with LF | control, bidirectional and zero-width characters removed |
//! | pictures | begin as their type does | decoded and encoded anew as PNG, so that only pixels cross |
//! | names of files | valid UTF-8 | as text |
//!
//! HTML does not occur: the guests' protocol has no type for it, so formatted text arrives as plain text.

mod picture;
mod rows;
mod text;

use std::fmt;

use policy::language::MediaType;
use zeroize::Zeroizing;

pub use picture::{PIXELS_MAX, SIDE_MAX};

/// Why content does not cross, in a clinician's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Not UTF-8.
    #[error("it is not readable text")]
    NotText,
    /// Its first bytes are those of something else.
    #[error("it is not what it claims to be ({0})")]
    NotAsDeclared(MediaType),
    /// A picture that cannot be decoded.
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
    /// Line ends that were not LF.
    pub line_ends: usize,
    /// Control characters removed.
    pub control: usize,
    /// Characters removed that turn the direction of text around.
    pub bidirectional: usize,
    /// Characters removed that nobody sees.
    pub invisible: usize,
    /// A picture was decoded and encoded anew.
    pub encoded_anew: bool,
}

impl Changes {
    /// Whether nothing was.
    #[must_use]
    pub fn none(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            (self.line_ends, "line ends changed"),
            (self.control, "control characters removed"),
            (self.bidirectional, "bidirectional characters removed"),
            (self.invisible, "zero-width characters removed"),
        ];
        let mut between = "";
        for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, "{between}{count} {what}")?;
            between = ", ";
        }
        if self.encoded_anew {
            write!(f, "{between}encoded anew")?;
        }
        Ok(())
    }
}

/// Content that may cross, as far as its form goes.
#[derive(Debug)]
pub struct Fit {
    /// Its type; a picture that was encoded anew is a PNG.
    pub media_type: MediaType,
    /// The bytes; none if they are the ones that were given.
    pub bytes: Option<Zeroizing<Vec<u8>>>,
    /// What is different.
    pub changes: Changes,
}

/// Makes content fit to cross; `into_more_trusted` as in the module's table. What comes out has at most `most` bytes.
///
/// # Errors
/// It cannot be.
pub fn fit(
    media_type: MediaType,
    bytes: &[u8],
    into_more_trusted: bool,
    most: usize,
) -> Result<Fit, Unfit> {
    match media_type {
        MediaType::TextPlain | MediaType::FileList => {
            let (text, changes) = text::clean(media_type, bytes, into_more_trusted)?;
            let bytes = if changes.none() { None } else { Some(text) };
            Ok(Fit { media_type, bytes, changes })
        }
        MediaType::TextHtml => Err(Unfit::NotCarried(media_type)),
        MediaType::ImagePng | MediaType::ImageBmp | MediaType::ImageJpeg | MediaType::ImageTiff => {
            picture::sniff(media_type, bytes)?;
            if !into_more_trusted {
                return Ok(Fit { media_type, bytes: None, changes: Changes::default() });
            }
            let bytes = picture::encode_anew(media_type, bytes, most)?;
            let changes = Changes { encoded_anew: true, ..Changes::default() };
            Ok(Fit { media_type: MediaType::ImagePng, bytes: Some(bytes), changes })
        }
    }
}

/// Text with every line ended by CR LF, for a guest whose system has it so.
#[must_use]
pub fn with_crlf(bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    text::with_crlf(bytes)
}

/// What a question shows of content, so that whoever is asked knows what it is: the beginning of a text in one line without
/// anything invisible in it, or the size of a picture.
#[must_use]
pub fn preview(media_type: MediaType, bytes: &[u8]) -> String {
    match media_type {
        MediaType::TextPlain | MediaType::TextHtml | MediaType::FileList => text::preview(bytes),
        _ => picture::preview(media_type, bytes),
    }
}

/// How much it is, in words: `312 characters`, `a picture of 48 KiB`.
#[must_use]
pub fn amount(media_type: MediaType, bytes: &[u8]) -> String {
    match media_type {
        MediaType::TextPlain | MediaType::TextHtml => {
            match String::from_utf8_lossy(bytes).chars().count() {
                1 => "1 character".to_owned(),
                count => format!("{count} characters"),
            }
        }
        MediaType::FileList => "a list of files".to_owned(),
        _ => format!("a picture of {}", size(bytes.len())),
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
