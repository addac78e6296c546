//! How large content may be.

/// Most bytes that are held. A guest's content is read into one piece of memory of its own declared size, up to this: the
/// largest screenshot as an uncompressed picture (3840 x 2160 pixels of 3 bytes) fits.
pub const HELD_MAX: u32 = 32 << 20;
/// Most pixels of a picture that crosses: an 8K screen and some. A decoded pixel takes up to
/// eight bytes, of which no more than [`DECODED_MAX`] are made.
pub const PIXELS_MAX: u64 = 40_000_000;
/// Longest side, in pixels.
pub const SIDE_MAX: u32 = 16_384;
/// Bytes that decoding may take.
pub(super) const DECODED_MAX: u64 = 320 << 20;
