//! Sizes of the video formats that have a number (Video Identification Code, CTA-861), from 1280x720 on: no
//! desk is preferred to be smaller.

use std::ops::RangeInclusive;

use seat_link::Size;

/// Codes, pixels across, rows.
const FORMATS: [(RangeInclusive<u8>, u32, u32); 29] = [
    (4..=4, 1280, 720),
    (5..=5, 1920, 1080),
    (16..=16, 1920, 1080),
    (19..=19, 1280, 720),
    (20..=20, 1920, 1080),
    (31..=34, 1920, 1080),
    (39..=40, 1920, 1080),
    (41..=41, 1280, 720),
    (46..=46, 1920, 1080),
    (47..=47, 1280, 720),
    (60..=62, 1280, 720),
    (63..=64, 1920, 1080),
    (65..=71, 1280, 720),
    (72..=78, 1920, 1080),
    (79..=85, 1680, 720),
    (86..=92, 2560, 1080),
    (93..=97, 3840, 2160),
    (98..=102, 4096, 2160),
    (103..=107, 3840, 2160),
    (108..=109, 1280, 720),
    (110..=110, 1680, 720),
    (111..=112, 1920, 1080),
    (113..=113, 2560, 1080),
    (114..=114, 3840, 2160),
    (115..=115, 4096, 2160),
    (116..=120, 3840, 2160),
    (121..=127, 5120, 2160),
    (193..=193, 5120, 2160),
    (194..=209, 7680, 4320),
];

/// Returns the size of a format.
pub(super) fn size(code: u8) -> Option<Size> {
    let format = FORMATS.iter().find(|(codes, ..)| codes.contains(&code));
    format.map(|&(_, width, height)| Size { width, height })
}
