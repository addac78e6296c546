//! The screen's description for the guest (VESA E-EDID release A revision 2): made up here, so that nothing
//! of the real monitor, its serial number least of all, reaches a guest.

use link::Size;

/// Bytes of an EDID without extensions.
pub(super) const BYTES: usize = 128;

/// Blanking added to the picture in each direction, in pixels: any monitor that is none accepts it.
const BLANK: u32 = 160;
const BLANK_ROWS: u32 = 30;
/// Pictures a second.
const REFRESH: u32 = 60;
/// Dots an inch that the size in millimetres pretends.
const DPI: u32 = 96;

/// The EDID of a screen of this size, its preferred mode, and of the usual smaller ones that fit into it.
pub(super) fn of(size: Size) -> [u8; BYTES] {
    let mut edid = Vec::with_capacity(BYTES);
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
    edid.extend(timing(size, width_mm, height_mm));
    edid.extend(text(0xfc, b"Bulkhead"));
    edid.extend(text(0xfe, b"Bulkhead seat"));
    // Range limits (3.10.3.3.1) left out: a dummy descriptor.
    edid.extend(text(0x10, b""));
    edid.push(0); // no extension
    let sum = edid.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    edid.push(0u8.wrapping_sub(sum));
    let mut bytes = [0; BYTES];
    for (place, byte) in bytes.iter_mut().zip(edid) {
        *place = byte;
    }
    bytes
}

/// Established timings (3.8): 640x480, 800x600 and 1024x768 at 60 Hz, where the screen is large enough.
fn established(size: Size) -> [u8; 3] {
    let fits = |width, height, bit| {
        if width <= size.width && height <= size.height { bit } else { 0 }
    };
    [fits(640, 480, 0x20) | fits(800, 600, 0x01), fits(1024, 768, 0x08), 0]
}

/// A detailed timing (3.10.2).
fn timing(size: Size, width_mm: u32, height_mm: u32) -> [u8; 18] {
    let (width, height) = (size.width.min(Size::MAX), size.height.min(Size::MAX));
    // In units of 10 kHz; 16 bits hold 655 MHz, and a larger screen is refreshed more slowly.
    let clock = (width + BLANK) * (height + BLANK_ROWS) / 10_000 * REFRESH;
    let [clock_low, clock_high, ..] = clock.min(u32::from(u16::MAX)).to_le_bytes();
    let low = |value: u32| value.to_le_bytes()[0];
    let high = |a: u32, b: u32| low(a >> 8) << 4 | low(b >> 8) & 0xf;
    [
        clock_low,
        clock_high,
        low(width),
        low(BLANK),
        high(width, BLANK),
        low(height),
        low(BLANK_ROWS),
        high(height, BLANK_ROWS),
        48, // horizontal front porch and sync width, in pixels
        32,
        3 << 4 | 5, // vertical ones, in rows
        0,
        low(width_mm),
        low(height_mm),
        high(width_mm, height_mm),
        0,
        0,
        0x1e, // digital separate sync, both positive
    ]
}

/// A display descriptor (3.10.3): text ends with a line feed and is padded with spaces.
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
