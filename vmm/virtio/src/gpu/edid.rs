//! The screen's description for the guest (VESA E-EDID release A revision 2): made up here, so that nothing
//! of the real monitor, its serial number least of all, reaches a guest.
//!
//! A detailed timing has twelve bits for each side and sixteen for its clock. A screen that is larger is told in an
//! extension block of DisplayID (version 1.3, detailed timing type I), and the base block then has no detailed timing,
//! because the first one there would be preferred too.

use seat_link::Size;

/// Bytes of a block.
pub(super) const BLOCK: usize = 128;

/// Blanking added to the picture in each direction, in pixels: any monitor that is none accepts it.
const BLANK: u32 = 160;
const BLANK_ROWS: u32 = 30;
/// Front porch and sync width, in pixels and in rows.
const PORCH: u32 = 48;
const SYNC: u32 = 32;
const PORCH_ROWS: u32 = 3;
const SYNC_ROWS: u32 = 5;
/// The refresh rate that the monitor announces, in pictures a second.
const REFRESH: u64 = 60;
/// Dots an inch that the size in millimetres pretends.
const DPI: u32 = 96;
/// The longest side of a detailed timing, in pixels (3.10.2).
const DETAILED_MAX: u32 = 4095;

/// Makes the EDID of a screen of this size, its preferred mode, and of the usual smaller ones that fit into it.
pub(super) fn of(size: Size) -> Vec<u8> {
    let mut edid = Vec::with_capacity(2 * BLOCK);
    // Header (3.3), manufacturer "BLK", product 1, no serial number, made in 2026 (3.4), version 1.4.
    edid.extend([0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]);
    edid.extend([0x09, 0x8b, 1, 0, 0, 0, 0, 0, 1, 36, 1, 4]);
    let millimetres = |pixels: u32| pixels * 254 / (DPI * 10);
    let (width_mm, height_mm) = (millimetres(size.width), millimetres(size.height));
    let centimetres = |mm: u32| u8::try_from(mm / 10).unwrap_or(u8::MAX);
    // Digital, eight bits a colour (3.6); size; gamma 2.2; sRGB, preferred mode is the native one.
    edid.extend([0xa5, centimetres(width_mm), centimetres(height_mm), 120, 0x06]);
    // sRGB's chromaticities (3.7).
    edid.extend([0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54]);
    edid.extend(established(size));
    // No standard timings (3.9).
    edid.extend([1; 16]);
    let detailed = timing(size, width_mm, height_mm);
    // Range limits (3.10.3.3.1) are left out: dummy descriptors.
    edid.extend(detailed.unwrap_or_else(|| text(0x10, b"")));
    edid.extend(text(0xfc, b"Bulkhead"));
    edid.extend(text(0xfe, b"Bulkhead seat"));
    edid.extend(text(0x10, b""));
    edid.push(detailed.is_none().into()); // extensions
    edid.push(checksum(&edid));
    if detailed.is_none() {
        edid.extend(extension(size));
    }
    edid
}

/// Returns what makes the sum of all bytes zero.
fn checksum(bytes: &[u8]) -> u8 {
    0u8.wrapping_sub(bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte)))
}

/// Returns the pixels a second, blanking included, in units of 10 kHz.
fn clock(size: Size) -> u32 {
    let pixels = u64::from(size.width + BLANK) * u64::from(size.height + BLANK_ROWS);
    u32::try_from(pixels * REFRESH / 10_000).unwrap_or(u32::MAX).max(1)
}

/// Makes an extension block with the size as DisplayID says it: section header (2.2), one detailed timing of type I (4.4.1).
fn extension(size: Size) -> [u8; BLOCK] {
    /// Bytes of the section that are neither header nor checksum: the block but for its tag and checksum.
    const PAYLOAD: u8 = 121;
    let mut bytes = Vec::with_capacity(BLOCK);
    bytes.extend([0x70, 0x13, PAYLOAD, 0, 0]);
    bytes.extend([0x03, 0, 20]);
    // Every field is less by one than what it stands for.
    let [low, middle, high, _] = (clock(size) - 1).to_le_bytes();
    let aspect_unknown_preferred = 0x88;
    bytes.extend([low, middle, high, aspect_unknown_preferred]);
    let positive = 1 << 15;
    let fields = [size.width, BLANK, PORCH, SYNC, size.height, BLANK_ROWS, PORCH_ROWS, SYNC_ROWS];
    for (index, field) in fields.into_iter().enumerate() {
        let sync = if matches!(index, 2 | 6) { positive } else { 0 };
        let [low, high, ..] = ((field - 1) | sync).to_le_bytes();
        bytes.extend([low, high]);
    }
    bytes.resize(BLOCK - 2, 0);
    // The section's own checksum begins behind the block's tag.
    bytes.push(checksum(bytes.get(1..).unwrap_or_default()));
    bytes.push(checksum(&bytes));
    bytes.try_into().unwrap_or([0; BLOCK])
}

/// Returns the established timings (3.8): 640x480, 800x600 and 1024x768 at 60 Hz, where the screen is large enough.
fn established(size: Size) -> [u8; 3] {
    let fits = |width, height, bit| {
        if width <= size.width && height <= size.height { bit } else { 0 }
    };
    [fits(640, 480, 0x20) | fits(800, 600, 0x01), fits(1024, 768, 0x08), 0]
}

/// Makes a detailed timing (3.10.2), if the size and its clock fit into one.
fn timing(size: Size, width_mm: u32, height_mm: u32) -> Option<[u8; 18]> {
    let Size { width, height } = size;
    let [clock_low, clock_high] = u16::try_from(clock(size)).ok()?.to_le_bytes();
    if width > DETAILED_MAX || height > DETAILED_MAX {
        return None;
    }
    let low = |value: u32| value.to_le_bytes()[0];
    let high = |a: u32, b: u32| low(a >> 8) << 4 | low(b >> 8) & 0xf;
    Some([
        clock_low,
        clock_high,
        low(width),
        low(BLANK),
        high(width, BLANK),
        low(height),
        low(BLANK_ROWS),
        high(height, BLANK_ROWS),
        low(PORCH),
        low(SYNC),
        low(PORCH_ROWS << 4 | SYNC_ROWS),
        0,
        low(width_mm),
        low(height_mm),
        high(width_mm, height_mm),
        0,
        0,
        0x1e, // digital separate sync, both positive
    ])
}

/// Makes a display descriptor (3.10.3): text ends with a line feed and is padded with spaces.
fn text(tag: u8, text: &[u8]) -> [u8; 18] {
    let mut descriptor = [b' '; 18];
    let head = [0, 0, 0, tag, 0];
    let end: &[u8] = if text.len() < 13 { b"\n" } else { b"" };
    let all = head.iter().chain(text).chain(end);
    for (place, byte) in descriptor.iter_mut().zip(all) {
        *place = *byte;
    }
    descriptor
}
