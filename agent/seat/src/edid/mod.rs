//! Which sizes a monitor prefers, by its EDID; pure and total.
//!
//! The kernel marks the modes that a monitor prefers, but a card's driver leaves out of its list what the card or the
//! cable cannot carry, and with the one mode that was marked goes the monitor's own size, though it has others of that
//! size at a lower rate. So the sizes are read here:
//!
//! | where | what |
//! | --- | --- |
//! | base block | its first timing, if it is said to be preferred (VESA E-EDID) |
//! | CTA extension | the first of its Video Format Preference Data Block (CTA-861) |
//! | DisplayID extension | detailed timings of type I and VII that say they are (VESA DisplayID 1.3 and 2.0) |
//!
//! What is wrong in it is left out. At worst a monitor has another of its own modes than it should.

mod vic;

use std::array;

use seat_link::Size;

/// Bytes of each block.
const BLOCK: usize = 128;
/// The most blocks there are: the base block counts its extensions in a byte.
const BLOCKS_MAX: usize = 256;
/// The most sizes that are kept.
pub(super) const SIZES_MAX: usize = 16;

/// A block's first byte.
const CTA: u8 = 0x02;
const DISPLAY_ID: u8 = 0x70;
/// DisplayID data blocks of detailed timings: type I, and VII, which differ in the clock's unit only.
const DETAILED: [u8; 2] = [0x03, 0x22];
/// A CTA data block with another tag in its first byte, and that of the preferred formats.
const CTA_EXTENDED: u8 = 7;
const CTA_PREFERENCE: u8 = 0x0d;

/// Returns the sizes that a monitor with this EDID prefers, in no order.
pub(super) fn preferred_sizes(edid: &[u8]) -> Vec<Size> {
    let mut blocks = edid.chunks_exact(BLOCK).take(BLOCKS_MAX);
    let Some(base) = blocks.next().filter(|base| base.starts_with(&[0, 0xff, 0xff, 0xff])) else {
        return Vec::new();
    };
    let mut timings: Vec<Size> = base.get(54..126).into_iter().flat_map(timings_in).collect();
    let first = timings.first().copied().filter(|_| prefers_first(base));
    let mut formats = Vec::new();
    let mut sizes = Vec::from_iter(first);
    for block in blocks {
        match block.first() {
            Some(&CTA) => {
                formats.extend(preferred_format(block));
                timings.extend(cta_timings(block));
            }
            Some(&DISPLAY_ID) => sizes.extend(display_id(block)),
            _ => {}
        }
    }
    // Timings are counted over all blocks.
    let of_format = |format: u8| match format {
        129..=144 => timings.get(usize::from(format - 129)).copied(),
        _ => vic::size(format),
    };
    sizes.extend(formats.into_iter().filter_map(of_format));
    sizes.truncate(SIZES_MAX);
    sizes
}

/// Returns whether a base block's first timing is the preferred one: from revision 4 on it always is.
fn prefers_first(base: &[u8]) -> bool {
    match base.get(18..25) {
        Some([version, revision, .., features]) => {
            (*version, *revision) >= (1, 4) || features & 2 != 0
        }
        _ => false,
    }
}

/// Returns detailed timings of 18 bytes, up to the first that is none.
fn timings_in(bytes: &[u8]) -> impl Iterator<Item = Size> {
    bytes.chunks_exact(18).map_while(|timing| {
        let [clock_low, clock, across, _, across_high, down, _, down_high, .., flags] = timing
        else {
            return None;
        };
        let side = |low: &u8, high: &u8| u32::from(*low) | u32::from(high >> 4) << 8;
        // An interlaced one says the rows of a half.
        let halves = if flags & 0x80 == 0 { 1 } else { 2 };
        let size =
            Size { width: side(across, across_high), height: side(down, down_high) * halves };
        ([*clock_low, *clock] != [0, 0]).then_some(size)
    })
}

/// Returns a CTA block's data blocks and what is behind them.
fn cta_parts(block: &[u8]) -> Option<(&[u8], &[u8])> {
    let (start, revision) = (usize::from(*block.get(2)?), *block.get(1)?);
    let body = block.get(..BLOCK - 1)?;
    let timings = body.get(start..).filter(|_| start >= 4).unwrap_or_default();
    let data = body.get(4..start).filter(|_| revision >= 3).unwrap_or_default();
    Some((data, timings))
}

fn cta_timings(block: &[u8]) -> impl Iterator<Item = Size> {
    let timings = cta_parts(block).map(|(_, timings)| timings).unwrap_or_default();
    timings_in(timings)
}

/// Returns the format that a CTA block prefers to all others.
fn preferred_format(block: &[u8]) -> Option<u8> {
    let (mut rest, _) = cta_parts(block)?;
    while let Some((head, behind)) = rest.split_first() {
        let length = usize::from(head & 0x1f);
        let body = behind.get(..length)?;
        if let (CTA_EXTENDED, [CTA_PREFERENCE, format, ..]) = (head >> 5, body) {
            return Some(*format);
        }
        rest = behind.get(length..)?;
    }
    None
}

/// Returns the sizes that a DisplayID block's detailed timings prefer.
fn display_id(block: &[u8]) -> Vec<Size> {
    let length = block.get(2).copied().map(usize::from).unwrap_or_default();
    let mut rest = block.get(5..BLOCK - 2).unwrap_or_default();
    rest = rest.get(..length).unwrap_or(rest);
    let mut sizes = Vec::new();
    while let [tag, _, length, behind @ ..] = rest {
        let body = behind.get(..usize::from(*length)).unwrap_or(behind);
        if DETAILED.contains(tag) {
            sizes.extend(body.chunks_exact(20).filter_map(preferred_timing));
        }
        rest = behind.get(body.len()..).unwrap_or_default();
    }
    sizes
}

/// Returns the size of a DisplayID timing that says it is preferred.
fn preferred_timing(timing: &[u8]) -> Option<Size> {
    let side = |at: usize| {
        let bytes: [Option<&u8>; 2] = array::from_fn(|n| timing.get(at + n));
        let [Some(low), Some(high)] = bytes else { return None };
        Some(u32::from(u16::from_le_bytes([*low, *high])) + 1)
    };
    timing.get(3).filter(|flags| *flags & 0x80 != 0)?;
    Some(Size { width: side(4)?, height: side(12)? })
}

#[cfg(test)]
mod tests;
