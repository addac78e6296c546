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
    let [depth @ (8 | 16), colour, 0, 0, 0] = fields else { return None };
    let channels = match colour {
        0 => 1,
        2 => 3,
        4 => 2,
        6 => 4,
        _ => return None,
    };
    let sides = 1..=SIDE_MAX;
    if !sides.contains(&width) || !sides.contains(&height) {
        return None;
    }
    if u64::from(width) * u64::from(height) > PIXELS_MAX {
        return None;
    }
    // Rows with their filters, as the encoder keeps at worst what it cannot make smaller: more is no picture of this size.
    let row = 1 + u64::from(width) * channels * u64::from(depth / 8);
    let raw = row * u64::from(height);
    let most = raw + raw / 2 + PACKING_MIN;
    let mut pixels = 0u64;
    loop {
        let (Chunk { kind, data }, after) = chunk(rest)?;
        match &kind {
            b"IDAT" => {
                let begins = pixels > 0 || is_zlib(data);
                pixels += u64::try_from(data.len()).ok()?;
                if data.is_empty() || !begins || pixels > most {
                    return None;
                }
            }
            b"IEND" => {
                let whole = data.is_empty() && after.is_empty() && pixels > 0;
                return whole.then_some((width, height));
            }
            _ => return None,
        }
        rest = after;
    }
}

/// What the encoder adds besides its longest code, of 12 bits for 8: the code's table, and the stream's ends.
const PACKING_MIN: u64 = 1024;

/// Returns whether it begins as a zlib stream of deflate does, without a dictionary (RFC 1950, section 2.2).
fn is_zlib(data: &[u8]) -> bool {
    let [method, flags, ..] = data else { return false };
    method & 0xf == 8
        && method >> 4 <= 7
        && flags & 0x20 == 0
        && (u32::from(*method) * 256 + u32::from(*flags)).is_multiple_of(31)
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

    /// Nothing that an encoder makes smaller, as large as this.
    fn noise(width: u32, height: u32) -> Vec<u8> {
        let mut state = 1u32;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()[0]
        };
        let row = usize::try_from(width * 3).unwrap().next_multiple_of(4);
        let pixels: Vec<u8> = (0..row * height as usize).map(|_| next()).collect();
        let mut bmp = b"BM".to_vec();
        let length = u32::try_from(pixels.len()).unwrap();
        for word in [54 + length, 0, 54, 40, width, height, 1 | 24 << 16, 0, length, 0, 0, 0, 0] {
            bmp.extend(word.to_le_bytes());
        }
        bmp.extend(pixels);
        pictures::encode_anew(Kind::Bmp, &bmp, 32 << 20).unwrap().png.to_vec()
    }

    #[test]
    fn a_picture_that_cannot_be_made_smaller_is_a_plain_png_and_one_of_more_bytes_than_it_has_is_none()
     {
        for (width, height) in [(1, 1), (3, 500), (500, 3), (700, 600)] {
            assert_eq!(size(&noise(width, height)), Some((width, height)));
        }
        let whole = noise(20, 20);
        let end = whole.len() - 12;
        let more = |length: u32| {
            let chunk = [&length.to_be_bytes()[..], b"IDAT", &vec![1; length as usize], b"cccc"];
            size(&[&whole[..end], &chunk.concat(), &whole[end..]].concat())
        };
        assert_eq!(more(10), Some((20, 20)));
        assert_eq!(more(2000), None);
        assert_eq!(more(0), None, "it says nothing");
        let mut other = whole.clone();
        other[41] ^= 0x10;
        assert_eq!(size(&other), None, "no zlib stream");
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
