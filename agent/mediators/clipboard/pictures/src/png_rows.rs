//! PNG into PNG, a row at a time: the pixels are never there as a whole, so that memory grows with what is written alone.

use std::io::{self, Cursor, Write};

use png::{BitDepth, Compression, Decoder, Encoder, Filter, Transformations};
use zeroize::Zeroizing;

use worker_link::{PIXELS_MAX, Refused, SIDE_MAX};

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

/// What a PNG begins with.
pub(super) struct Header {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) colour: png::ColorType,
    pub(super) depth: BitDepth,
}

/// Writes a PNG of at most `most` bytes, a row at a time: `row` writes the next one. `about` is how large it may become.
pub(super) fn write(
    header: Header,
    about: usize,
    most: usize,
    mut row: impl FnMut(&mut dyn Write) -> Option<()>,
) -> Result<Zeroizing<Vec<u8>>, Refused> {
    // It grows as it is written; what it leaves behind is compressed pixels, for as long as the allocator keeps them.
    let room = about.saturating_add(about / GROWTH).min(most);
    let mut png = Zeroizing::new(Vec::with_capacity(room));
    let mut full = false;
    let capped = Capped { png: &mut png, most, full: &mut full };
    let mut encoder = Encoder::new(capped, header.width, header.height);
    encoder.set_color(header.colour);
    encoder.set_depth(header.depth);
    encoder.set_compression(Compression::Fast);
    encoder.set_filter(Filter::Adaptive);
    let written = (|| {
        let mut whole = encoder.write_header().ok()?;
        let mut writer = whole.stream_writer().ok()?;
        for _ in 0..header.height {
            row(&mut writer)?;
        }
        writer.finish().ok()?;
        whole.finish().ok()
    })();
    match written {
        Some(()) => Ok(png),
        None if full => Err(Refused::TooLarge),
        None => Err(Refused::Damaged),
    }
}

fn open(bytes: &[u8]) -> Result<png::Reader<Cursor<&[u8]>>, Refused> {
    let limits = png::Limits { bytes: bytes.len().saturating_add(DECODER_MAX) };
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), limits);
    decoder.set_transformations(Transformations::EXPAND);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    // Also that of the pixels themselves, which the decoder leaves alone otherwise.
    decoder.ignore_checksums(false);
    let reader = decoder.read_info().map_err(refused)?;
    let (width, height) = (reader.info().width, reader.info().height);
    if u64::from(width) * u64::from(height) > PIXELS_MAX || width.max(height) > SIDE_MAX {
        return Err(Refused::TooLarge);
    }
    Ok(reader)
}

/// Checks that every row is there, every checksum that a pixel depends on holds, and the picture has its end.
pub(super) fn check(bytes: &[u8]) -> Result<(), Refused> {
    let mut reader = open(bytes)?;
    while reader.next_row().map_err(refused)?.is_some() {}
    reader.finish().map_err(refused)
}

/// Encodes a PNG of the same pixels, and nothing else. `None`: its rows are not to be passed on one after the other, as they do not come in
/// order (interlaced), or are transparent everywhere.
pub(super) fn encode_anew(
    bytes: &[u8],
    most: usize,
) -> Result<Option<Zeroizing<Vec<u8>>>, Refused> {
    let mut reader = open(bytes)?;
    let (width, height) = (reader.info().width, reader.info().height);
    if reader.info().interlaced || is_invisible(bytes)? {
        return Ok(None);
    }
    let (colour, depth) = reader.output_color_type();
    let header = Header { width, height, colour, depth };
    let row = |out: &mut dyn Write| out.write_all(reader.next_row().ok()??.data()).ok();
    let png = write(header, bytes.len(), most, row)?;
    // What stands behind the last row says whether the rows were whole.
    reader.finish().map_err(refused)?;
    Ok(Some(png))
}

/// Returns whether every pixel is transparent: known at the first that is not, which is mostly the first of all.
fn is_invisible(bytes: &[u8]) -> Result<bool, Refused> {
    let mut reader = open(bytes)?;
    let (colour, depth) = reader.output_color_type();
    let sample = if depth == BitDepth::Sixteen { 2 } else { 1 };
    let size = match colour {
        png::ColorType::GrayscaleAlpha => 2 * sample,
        png::ColorType::Rgba => 4 * sample,
        _ => return Ok(false),
    };
    while let Some(row) = reader.next_row().map_err(refused)? {
        let visible = |pixel: &[u8]| pixel.iter().rev().take(sample).any(|byte| *byte != 0);
        if row.data().chunks_exact(size).any(visible) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn refused(error: png::DecodingError) -> Refused {
    match error {
        png::DecodingError::LimitsExceeded => Refused::TooLarge,
        _ => Refused::Damaged,
    }
}
