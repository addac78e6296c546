//! What a picture's file says of itself beside its pixels: how many pages, which way up, of what kind. Reads no more than it is given,
//! and what makes no sense counts for nothing: the decoder says what is wrong with it.

use image::metadata::Orientation;

/// Directories of a TIFF, or chunks of a PNG, that are looked at.
const PARTS_MAX: usize = 65_536;

fn take<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// Returns the chunks of a PNG: type and data (PNG, third edition, section 5.3).
fn png_chunks(bytes: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    let mut rest = bytes.get(8..).unwrap_or_default();
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_be_bytes(take(rest, 0)?)).ok()?;
        let kind = take(rest, 4)?;
        let data = rest.get(8..8usize.checked_add(length)?)?;
        rest = rest.get(12usize.checked_add(length)?..).unwrap_or_default();
        Some((kind, data))
    })
    .take(PARTS_MAX)
}

/// Returns how many frames a PNG says that it has (`acTL`, section 11.3.4.2); 1 if it says nothing.
pub(super) fn png_frames(bytes: &[u8]) -> u32 {
    png_chunks(bytes)
        .find(|(kind, _)| kind == b"acTL")
        .and_then(|(_, data)| take(data, 0))
        .map_or(1, u32::from_be_bytes)
}

/// Returns which way up a PNG is shown (`eXIf`, section 11.3.4.5; before the pixels or after them).
pub(super) fn png_orientation(bytes: &[u8]) -> Orientation {
    png_chunks(bytes)
        .find(|(kind, _)| kind == b"eXIf")
        .and_then(|(_, data)| Orientation::from_exif_chunk(data))
        .unwrap_or(Orientation::NoTransforms)
}

/// Returns whether these are the first bytes of a TIFF with offsets of 64 bits.
pub(super) fn is_big_tiff(bytes: &[u8]) -> bool {
    bytes.starts_with(b"II\x2b\0") || bytes.starts_with(b"MM\0\x2b")
}

/// A TIFF's numbers, in its order of bytes.
struct Tiff<'a>(&'a [u8]);

impl Tiff<'_> {
    fn short(&self, at: usize) -> Option<u16> {
        let bytes = take(self.0, at)?;
        Some(if self.is_little() { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    }

    fn long(&self, at: usize) -> Option<u32> {
        let bytes = take(self.0, at)?;
        Some(if self.is_little() { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    fn is_little(&self) -> bool {
        self.0.starts_with(b"II")
    }

    /// Returns where the directory is whose place is written here.
    fn directory(&self, at: usize) -> Option<usize> {
        usize::try_from(self.long(at)?).ok().filter(|at| *at != 0)
    }
}

/// Counts the pages of a TIFF (TIFF 6.0, section 2): directories but those of smaller versions (`NewSubfileType`, tag 254, bit 0).
pub(super) fn tiff_pages(bytes: &[u8]) -> u32 {
    let tiff = Tiff(bytes);
    let mut pages = 0;
    let mut looked_at = 0;
    let mut next = tiff.directory(4);
    // Every directory takes at least six bytes: more of them than that are a circle.
    while let Some(at) = next {
        looked_at += 1;
        if looked_at > PARTS_MAX.min(bytes.len() / 6) {
            break;
        }
        let Some(count) = tiff.short(at).map(usize::from) else { break };
        // The first directory is the one that crosses, whatever it says of itself; tag 254 sorts before all others.
        let smaller =
            tiff.short(at + 2) == Some(254) && tiff.long(at + 10).is_some_and(|kind| kind & 1 == 1);
        if pages == 0 || !smaller {
            pages += 1;
        }
        next = tiff.directory(at + 2 + count * 12);
    }
    pages.max(1)
}

/// Returns whether a TIFF's colours hold their share of transparency already (`ExtraSamples`, tag 338, TIFF 6.0, section 18): a PNG's do not.
pub(super) fn tiff_has_associated_alpha(bytes: &[u8]) -> bool {
    let tiff = Tiff(bytes);
    let Some(directory) = tiff.directory(4) else { return false };
    let count = tiff.short(directory).map_or(0, usize::from);
    // One or two of them stand in the entry itself.
    (0..count).map(|number| directory + 2 + number * 12).any(|entry| {
        tiff.short(entry) == Some(338)
            && matches!(tiff.long(entry + 4), Some(1 | 2))
            && tiff.short(entry + 8) == Some(1)
    })
}

/// Returns whether a JPEG goes on to its end (EOI, ITU-T T.81, section B.1.1.3). A decoder makes up what is missing, in grey.
pub(super) fn jpeg_is_whole(bytes: &[u8]) -> bool {
    let mut at = 2;
    loop {
        match take(bytes, at) {
            Some([0xff, 0xd9]) => return true,
            Some([0xff, kind @ (0x02..=0xcf | 0xda..=0xfe)]) => {
                let Some(length) = take(bytes, at + 2).map(u16::from_be_bytes) else {
                    return false;
                };
                at += 2 + usize::from(length);
                if kind == 0xda {
                    // What is coded follows: zeros are stuffed into it, and restarts stand between.
                    let coded = bytes.get(at..).unwrap_or_default();
                    let marker = |(one, two): (&u8, &u8)| {
                        *one == 0xff && !matches!(two, 0 | 0xd0..=0xd7 | 0xff)
                    };
                    let Some(next) = coded.iter().zip(coded.iter().skip(1)).position(marker) else {
                        return false;
                    };
                    at += next;
                }
            }
            // Fill bytes, markers that stand alone, and what some programs leave between.
            Some(_) => at += 1,
            None => return false,
        }
    }
}

/// Returns whether a JPEG is of a kind that everybody reads: eight bits, sequential or progressive, Huffman-coded (ITU-T T.81, table B.1). One
/// without a frame's header is left to the decoder.
pub(super) fn is_common_jpeg(bytes: &[u8]) -> bool {
    let mut at = 2;
    loop {
        match take(bytes, at) {
            // Fill bytes, and markers that stand alone.
            Some([0xff, 0xff]) => at += 1,
            Some([0xff, 0x01 | 0xd0..=0xd8]) => at += 2,
            Some([0xff, 0xda | 0xd9]) => return true,
            Some([0xff, kind]) => {
                if matches!(kind, 0xc0..=0xcf) && !matches!(kind, 0xc4 | 0xc8 | 0xcc) {
                    let precision = take(bytes, at + 4).map(|[bits]: [u8; 1]| bits);
                    return matches!(kind, 0xc0..=0xc2) && precision.is_none_or(|bits| bits == 8);
                }
                let Some(length) = take(bytes, at + 2).map(u16::from_be_bytes) else { return true };
                at += 2 + usize::from(length);
            }
            _ => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_have_a_structure_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200), start in 0usize..4) {
            let starts: [&[u8]; 4] = [b"\x89PNG\r\n\x1a\n", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b"\xff\xd8"];
            let bytes = [starts[start], &bytes].concat();
            prop_assert!(tiff_pages(&bytes) >= 1);
            let _ = (png_frames(&bytes), png_orientation(&bytes), is_common_jpeg(&bytes), is_big_tiff(&bytes));
            let _ = (jpeg_is_whole(&bytes), tiff_has_associated_alpha(&bytes));
        }
    }

    #[test]
    fn directories_in_a_circle_come_to_an_end() {
        let circle = [&b"II*\0\x08\0\0\0\0\0\x08\0\0\0"[..], &[0; 600]].concat();
        assert!(tiff_pages(&circle) <= 200);
    }
}
