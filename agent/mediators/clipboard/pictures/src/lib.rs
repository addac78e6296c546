//! Pictures: decoded, and encoded anew as PNGs of the pixels of the first page, as a viewer shows them, and nothing else. Without I/O.
//!
//! It stands on decoders for formats that are hard to read safely. The agent does not link it: it runs in the content worker
//! (`worker`), and in the command line, which explains to an officer what would become of a file.
#![deny(clippy::print_stderr, clippy::print_stdout)]
#![forbid(unsafe_code)]

mod picture;
mod pixels;
mod png_rows;
#[cfg(test)]
mod sample_tests;
mod structure;

use worker_link::{Kind, Refused};
use zeroize::Zeroizing;

/// Bytes that decoding may take. A decoded pixel takes up to eight bytes, of which no more than this are made.
pub const DECODED_MAX: u64 = 320 << 20;

/// A picture that was encoded anew.
#[derive(Debug)]
pub struct Encoded {
    /// The picture as a PNG, wiped when dropped.
    pub png: Zeroizing<Vec<u8>>,
    /// It said which way up it is shown, and was turned so.
    pub turned: bool,
    /// It was transparent everywhere, and is opaque.
    pub made_opaque: bool,
    /// Of how many pages or frames it is the first, if there are more than one.
    pub first_of: Option<u32>,
}

/// Encodes a PNG with the same pixels and nothing else: no metadata, no trailing bytes, nothing a decoder's mistake could use. It has at most
/// `most` bytes.
///
/// # Errors
/// It cannot be.
pub fn encode_anew(kind: Kind, bytes: &[u8], most: usize) -> Result<Encoded, Refused> {
    picture::encode_anew(kind, bytes, most)
}

/// Decodes any bytes as a picture of the kind that the first one says, for agent/fuzz: panics and endless work are what is looked for.
#[cfg(any(test, feature = "fuzzing"))]
pub fn fuzz(input: &[u8]) {
    let Some((first, picture)) = input.split_first() else { return };
    let kind = Kind::ALL.into_iter().cycle().nth(usize::from(*first));
    let _ = encode_anew(kind.unwrap_or(Kind::Png), picture, 1 << 20);
}
