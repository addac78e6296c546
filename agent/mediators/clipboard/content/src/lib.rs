//! Sanitising of what crosses, whichever way it goes.
//!
//! | type | what crosses |
//! | --- | --- |
//! | text | valid UTF-8 as `policy::cleaning` leaves it |
//! | pictures | the pixels of the first page, as a viewer shows them, encoded anew as PNG by a worker: a process of its own that lives for one picture |
//! | names of files | as text |
//!
//! HTML does not occur: the guests' protocol has no type for it, so formatted text arrives as plain text.

#![deny(clippy::print_stderr, clippy::print_stdout)]
#![forbid(unsafe_code)]

pub mod judgement;
mod png;
mod text;

use std::fmt;

use policy::cleaning::{self, Purpose};
use policy::language::MediaType;
use worker_link::{Kind, Refused};
use zeroize::Zeroizing;

pub use worker_link::CONTENT_MAX as HELD_MAX;

/// Why content does not cross, in a clinician's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The text is not UTF-8.
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
    /// What decodes pictures ended without an answer, or with one that is none.
    #[error("it could not be decoded; call IT if that happens again")]
    NotDecoded,
    /// The kernel killed what decodes pictures, as it had used all memory that there is for one.
    #[error("decoding it takes too much memory")]
    TooMuchMemory,
    /// What decodes pictures was not ready in its time.
    #[error("decoding it takes too long")]
    TooSlow,
    /// No guest can send it.
    #[error("nothing carries {0} between the desktops")]
    NotCarried(MediaType),
}

/// What was changed, for the audit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// What cleaning changed in a text.
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
    pub bytes: Zeroizing<Vec<u8>>,
    /// What is different from what was copied.
    pub changes: Changes,
}

/// Returns what a picture of this type is declared to be to the worker; `None` for what is no picture.
#[must_use]
pub const fn picture(media_type: MediaType) -> Option<Kind> {
    match media_type {
        MediaType::ImagePng => Some(Kind::Png),
        MediaType::ImageBmp => Some(Kind::Bmp),
        MediaType::ImageJpeg => Some(Kind::Jpeg),
        MediaType::ImageTiff => Some(Kind::Tiff),
        MediaType::TextPlain | MediaType::TextHtml | MediaType::FileList => None,
    }
}

/// Returns the type of a picture that is declared to be this.
#[must_use]
pub const fn declared(kind: Kind) -> MediaType {
    match kind {
        Kind::Png => MediaType::ImagePng,
        Kind::Bmp => MediaType::ImageBmp,
        Kind::Jpeg => MediaType::ImageJpeg,
        Kind::Tiff => MediaType::ImageTiff,
    }
}

/// Returns why a picture of this type does not cross that was not encoded anew.
#[must_use]
pub const fn refused(media_type: MediaType, why: Refused) -> Rejected {
    match why {
        Refused::NotAsDeclared => Rejected::NotAsDeclared(media_type),
        Refused::UnknownKind => Rejected::UnknownKind,
        Refused::Damaged => Rejected::Damaged,
        Refused::TooLarge => Rejected::TooLarge,
    }
}

/// Takes a worker's PNG for what crosses, with what it says it changed.
///
/// # Errors
/// It is no PNG as the worker makes them: something else made it.
pub fn of_worker(png: Zeroizing<Vec<u8>>, changes: Changes) -> Result<Sanitized, Rejected> {
    match png::size(&png) {
        Some(_) => {
            let changes =
                Changes { encoded_anew: true, text: cleaning::Changes::default(), ..changes };
            Ok(Sanitized { media_type: MediaType::ImagePng, bytes: png, changes })
        }
        None => Err(Rejected::NotDecoded),
    }
}

/// Sanitises what is no picture: text is cleaned.
///
/// # Errors
/// It cannot be.
pub fn sanitize(media_type: MediaType, bytes: &[u8]) -> Result<Sanitized, Rejected> {
    let purpose = match media_type {
        MediaType::TextPlain => Purpose::Reading,
        MediaType::FileList => Purpose::Names,
        _ => return Err(Rejected::NotCarried(media_type)),
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
/// anything invisible in it, or the size of a picture that was encoded anew.
#[must_use]
pub fn preview(media_type: MediaType, bytes: &[u8]) -> String {
    match media_type {
        MediaType::TextPlain | MediaType::TextHtml | MediaType::FileList => text::preview(bytes),
        _ => match png::size(bytes) {
            Some((width, height)) => format!("a picture of {width} x {height} pixels"),
            None => "a picture".to_owned(),
        },
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

/// Returns a number of bytes as people say it.
#[must_use]
pub fn size(bytes: usize) -> String {
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..0x10_0000 => format!("{} KiB", bytes / 1024),
        _ => format!("{}.{} MiB", bytes >> 20, (bytes >> 10) % 1024 * 10 / 1024),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_to_a_picture_is_said_in_words() {
        let changes = Changes { encoded_anew: true, first_of: Some(3), ..Changes::default() };
        assert_eq!(changes.to_string(), "encoded anew, page 1 of 3");
        let turned = Changes { turned: true, ..changes };
        assert!(turned.to_string().contains("turned as it is shown"));
        let amount = amount(MediaType::ImagePng, b"1234", changes.first_of);
        assert_eq!(amount, "a picture of 4 bytes (page 1 of 3)");
        let words = refused(MediaType::ImageTiff, Refused::UnknownKind).to_string();
        assert_eq!(words, "this kind of picture cannot be taken; copy it as PNG");
    }

    #[test]
    fn a_question_shows_the_size_of_a_picture_that_was_encoded_anew_and_no_more_of_another() {
        let sample = include_bytes!("../../pictures/src/samples/out-meta.png");
        let encoded = pictures::encode_anew(Kind::Png, sample, 1 << 20).unwrap();
        let shown = preview(MediaType::ImagePng, &encoded.png);
        assert!(shown.starts_with("a picture of ") && shown.ends_with(" pixels"), "{shown}");
        assert_eq!(preview(MediaType::ImagePng, sample), "a picture");
        let lies =
            Changes { text: cleaning::Changes::default(), turned: true, ..Changes::default() };
        let sanitized = of_worker(encoded.png, lies).unwrap();
        assert!(sanitized.changes.encoded_anew, "whatever the worker says");
        let other = Zeroizing::new(b"<html>".to_vec());
        assert_eq!(of_worker(other, lies).unwrap_err(), Rejected::NotDecoded);
    }
}
