//! What the agent itself looks at of a PNG that a worker made: its chunks, never its pixels.

use worker_link::{PIXELS_MAX, SIDE_MAX};

/// What every PNG begins with (PNG, third edition, section 5.2).
const SIGNATURE: [u8; 8] = *b"\x89PNG\r\n\x1a\n";

/// Returns width and height, in pixels, of a PNG as the worker makes them: a header, pixels, an end and nothing else, to the last byte. `None`: it is
/// no such PNG. What its pixels are is not known; nothing else can be in it that a guest's program would read.
pub(super) fn size(bytes: &[u8]) -> Option<(u32, u32)> {
    let rest = bytes.strip_prefix(&SIGNATURE)?;
    let (header, mut rest) = chunk(rest).filter(|(chunk, _)| chunk.kind == *b"IHDR")?;
    let (width, fields) = header.data.split_first_chunk()?;
    let (height, fields) = fields.split_first_chunk()?;
    let (width, height) = (u32::from_be_bytes(*width), u32::from_be_bytes(*height));
    // Depth, colour without a palette, compression, filter, not interlaced (section 11.2.1).
    if !matches!(fields, [8 | 16, 0 | 2 | 4 | 6, 0, 0, 0]) {
        return None;
    }
    let sides = 1..=SIDE_MAX;
    if !sides.contains(&width) || !sides.contains(&height) {
        return None;
    }
    if u64::from(width) * u64::from(height) > PIXELS_MAX {
        return None;
    }
    let mut pixels = 0usize;
    loop {
        let (Chunk { kind, data }, after) = chunk(rest)?;
        match &kind {
            b"IDAT" => pixels = pixels.saturating_add(data.len()),
            b"IEND" => {
                let whole = data.is_empty() && after.is_empty() && pixels > 0;
                return whole.then_some((width, height));
            }
            _ => return None,
        }
        rest = after;
    }
}

struct Chunk<'a> {
    kind: [u8; 4],
    data: &'a [u8],
}

/// Splits a chunk off the front (section 5.3). Its checksum is the reader's business.
fn chunk(bytes: &[u8]) -> Option<(Chunk<'_>, &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (kind, rest) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (data, rest) = rest.split_at_checked(length)?;
    let (_checksum, rest) = rest.split_at_checked(4)?;
    Some((Chunk { kind: *kind, data }, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use worker_link::Kind;

    use super::*;

    const SAMPLE: &[u8] = include_bytes!("../../pictures/src/samples/out-meta.png");

    fn png() -> Vec<u8> {
        pictures::encode_anew(Kind::Png, SAMPLE, 1 << 20).unwrap().png.to_vec()
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_plain_png_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200), kept in 0usize..120) {
            let start = png();
            let _ = size(&[&start[..kept.min(start.len())], &bytes].concat());
        }
    }

    #[test]
    fn what_the_worker_makes_is_a_plain_png_and_what_programs_write_is_not() {
        let expected = image_size(SAMPLE);
        assert_eq!(size(&png()), Some(expected));
        assert_eq!(size(SAMPLE), None, "it has more than pixels in it");
    }

    fn image_size(bytes: &[u8]) -> (u32, u32) {
        let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        (word(16), word(20))
    }

    #[test]
    fn nothing_hangs_on_a_plain_png_and_nothing_of_it_is_missing() {
        let whole = png();
        for length in 0..whole.len() {
            assert_eq!(size(&whole[..length]), None, "{length} bytes");
        }
        assert_eq!(size(&[&whole[..], b"x"].concat()), None);
        let (start, end) = whole.split_at(whole.len() - 12);
        let hung = [start, b"\0\0\0\x03tEXtabcdddd", end].concat();
        assert_eq!(size(&hung), None);
        assert_eq!(size(&[&whole[..33], end].concat()), None, "no pixels");
    }

    #[test]
    fn a_header_that_says_what_the_worker_never_says_is_refused() {
        // Too wide, no height, four bits, a palette, interlaced.
        for (at, byte) in [(16, 1), (23, 0), (24, 4), (25, 3), (28, 1)] {
            let mut png = png();
            if at == 23 {
                png[20..24].fill(0);
            }
            png[at] = byte;
            assert_eq!(size(&png), None, "{byte} at {at}");
        }
        let mut many = png();
        many[16..20].copy_from_slice(&SIDE_MAX.to_be_bytes());
        many[20..24].copy_from_slice(&SIDE_MAX.to_be_bytes());
        assert_eq!(size(&many), None);
    }
}
