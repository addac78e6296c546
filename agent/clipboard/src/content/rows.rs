//! PNG into PNG, a row at a time: the pixels are never there as a whole, so that memory grows with what is written alone.

use std::io::{self, Cursor, Write};

use png::{BitDepth, Compression, Decoder, Encoder, Filter, Transformations};
use zeroize::Zeroizing;

use super::Unfit;
use super::picture::{PIXELS_MAX, SIDE_MAX};

/// Bytes that the decoder may take beside a chunk of the picture, such as a camera's notes: two rows of [`SIDE_MAX`] pixels of eight
/// bytes, and its window.
const DECODER_MAX: usize = 1 << 20;

/// By which part of it a picture that becomes larger than it was grows at a time.
const GROWTH: usize = 16;

/// What is written, up to a limit.
struct Capped<'a> {
    png: &'a mut Vec<u8>,
    most: usize,
    full: &'a mut bool,
}

impl Write for Capped<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.most.saturating_sub(self.png.len()) {
            *self.full = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        if self.png.capacity() - self.png.len() < bytes.len() {
            // Not twice as much, as a vector would by itself.
            self.png.reserve_exact(bytes.len().max(self.png.len() / GROWTH));
        }
        self.png.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A PNG of the same pixels with eight bits a channel, and nothing else. `None`: its rows do not come in order (interlaced).
pub(super) fn encode_anew(bytes: &[u8], most: usize) -> Result<Option<Zeroizing<Vec<u8>>>, Unfit> {
    let limits = png::Limits { bytes: bytes.len().saturating_add(DECODER_MAX) };
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), limits);
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let mut reader = decoder.read_info().map_err(unfit)?;
    let (width, height) = (reader.info().width, reader.info().height);
    if u64::from(width) * u64::from(height) > PIXELS_MAX || width.max(height) > SIDE_MAX {
        return Err(Unfit::TooLarge);
    }
    if reader.info().interlaced {
        return Ok(None);
    }
    let (colour, _) = reader.output_color_type();
    // It grows as it is written; what it leaves behind is compressed pixels, for as long as the allocator keeps them.
    let room = bytes.len().saturating_add(bytes.len() / GROWTH).min(most);
    let mut png = Zeroizing::new(Vec::with_capacity(room));
    let mut full = false;
    let mut encoder = Encoder::new(Capped { png: &mut png, most, full: &mut full }, width, height);
    encoder.set_color(colour);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(Compression::Fast);
    encoder.set_filter(Filter::Adaptive);
    let written = (|| {
        let mut whole = encoder.write_header().ok()?;
        let mut writer = whole.stream_writer().ok()?;
        for _ in 0..height {
            writer.write_all(reader.next_row().ok()??.data()).ok()?;
        }
        writer.finish().ok()?;
        whole.finish().ok()
    })();
    match written {
        Some(()) => Ok(Some(png)),
        None if full => Err(Unfit::TooLarge),
        None => Err(Unfit::Damaged),
    }
}

fn unfit(error: png::DecodingError) -> Unfit {
    match error {
        png::DecodingError::LimitsExceeded => Unfit::TooLarge,
        _ => Unfit::Damaged,
    }
}
