//! Pictures: decoded, and encoded anew as PNGs of the pixels of the first page, as a viewer shows them, and nothing else. Without I/O.
//!
//! A file that a guest copied may hold more than a picture: notes, other pages, what lies behind its end, or bytes that are meant for a
//! mistake in whoever decodes it next. Of all that nothing is in a PNG that [`encode_anew`] makes. This crate stands on decoders for formats
//! that are hard to read safely. The agent does not link it: it runs in the content worker (`worker`), and in the command line, which explains
//! to an officer what would become of a file.
//!
//! ```text
//!  bytes, Kind --> structure: pages, which way up
//!                     |
//!                     +-- a PNG whose rows can pass one after the other --> png_rows -----.
//!                     |                                                                   +--> Encoded: a PNG, and what is changed
//!                     '-- any other --> a decoder --> pixels: turned, alpha mended -------'
//! ```
//!
//! | module | |
//! | --- | --- |
//! | `picture` | which way a picture goes, and what is refused before it is decoded |
//! | `structure` | what a file says of itself beside its pixels: pages, orientation, kind |
//! | `png_rows` | PNG into PNG, a row at a time; and the writer of every PNG |
//! | `pixels` | decoded pixels, for all that cannot go by rows |
//!
//! - **Only pixels cross**: no metadata, no colour profile, no second page, no trailing bytes. Pages and changes are told in [`Encoded`].
//! - **The declared kind counts**: a file that begins as another kind is refused, and is decoded as neither.
//! - **A damaged picture is refused**, where decoders would make up what is missing: a PNG by its end and the
//!   checksums that a pixel depends on, a JPEG by its end.
//! - **Sizes are bounded**: at most [`worker_link::PIXELS_MAX`] pixels, [`worker_link::SIDE_MAX`] a side, [`DECODED_MAX`] bytes of them, and
//!   as many bytes of PNG as the caller says. Pixels and PNG are wiped when dropped; of what decoders and encoder keep for themselves nothing
//!   is promised.
//! - **Any bytes end as a picture or as [`Refused`]**. A decoder's mistake is caught by the worker's sandbox and by nothing here.
//!
//! Left out: animations, TIFFs with offsets of 64 bits, JPEGs that are not of 8 bits, Huffman-coded, and sequential or progressive, and whatever
//! a decoder gives as anything but 8 or 16 bits of grey or RGB, with or without transparency.
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
