//! Which of a monitor's modes the screen is driven in; pure.
//!
//! The monitor's own choice, whatever its size, if the card and the PC's memory allow it; if the driver leaves out the
//! very mode that the monitor prefers, another of that size ([`super::edid`]). A progressive mode before an interlaced
//! one, which flickers and which many drivers only pretend to have. Should the card refuse a mode after all, the next one
//! is tried ([`super::display`]).

use std::ops::{Bound, RangeBounds};

use drm::control::{Mode, ModeFlags, ModeTypeFlags};
use nix::sys::sysinfo::sysinfo;
use seat_link::Size;

/// Modes worth trying; a card that takes none of these takes no other.
const MODES_MAX: usize = 16;
/// A picture of this many bytes is always in order: 4095 by 4095 pixels.
const PICTURE_BYTES: u64 = 64 << 20;
/// A larger one may take one part in this many of the PC's memory. The screen needs two for each domain and for the
/// lock, and each domain two, as its frame memory and the copy of that: with two domains less than a sixth of the memory.
const PICTURE_SHARE: u64 = 64;

/// What the card and the PC allow.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    /// Widths of a picture the card shows, in pixels.
    width: (Bound<u32>, Bound<u32>),
    /// The heights that the card takes, in pixels.
    height: (Bound<u32>, Bound<u32>),
    /// The most bytes of one picture.
    bytes: u64,
}

/// What a mode is chosen by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Traits {
    /// Pixels across and down.
    pub(super) size: Size,
    /// The monitor names it as its own.
    pub(super) preferred: bool,
    /// Every picture has every row, and each once.
    pub(super) progressive: bool,
    /// The refresh rate, in pictures a second.
    pub(super) refresh: u32,
}

impl Limits {
    /// Makes the card's limits, with this PC's memory.
    pub(super) fn new(width: impl RangeBounds<u32>, height: impl RangeBounds<u32>) -> Self {
        Self::with_memory(width, height, sysinfo().map_or(0, |info| info.ram_total()))
    }

    fn with_memory(
        width: impl RangeBounds<u32>,
        height: impl RangeBounds<u32>,
        memory: u64,
    ) -> Self {
        Self {
            width: (width.start_bound().cloned(), width.end_bound().cloned()),
            height: (height.start_bound().cloned(), height.end_bound().cloned()),
            bytes: PICTURE_BYTES.max(memory / PICTURE_SHARE),
        }
    }

    fn allow(&self, size: Size) -> bool {
        size.is_screen()
            && self.width.contains(&size.width)
            && self.height.contains(&size.height)
            && size.frame_bytes() as u64 <= self.bytes
    }
}

impl Traits {
    pub(super) fn of(mode: &Mode) -> Self {
        let (width, height) = mode.size();
        let odd = ModeFlags::INTERLACE | ModeFlags::DBLSCAN;
        Self {
            size: Size { width: width.into(), height: height.into() },
            preferred: mode.mode_type().contains(ModeTypeFlags::PREFERRED),
            progressive: !mode.flags().intersects(odd),
            refresh: mode.vrefresh(),
        }
    }
}

/// Returns the modes that are allowed, the best first: progressive ones, of these the preferred ones and those of a size
/// that is among the monitor's `own`, of these the largest, of these the very one that is preferred, of these the
/// fastest.
pub(super) fn ranked<M: Copy>(
    modes: &[M],
    of: impl Fn(&M) -> Traits,
    own: &[Size],
    limits: &Limits,
) -> Vec<M> {
    let mut usable: Vec<M> =
        modes.iter().copied().filter(|mode| limits.allow(of(mode).size)).collect();
    usable.sort_by_key(|mode| {
        let Traits { size, preferred, progressive, refresh } = of(mode);
        let wanted = preferred || own.contains(&size);
        std::cmp::Reverse((progressive, wanted, size.frame_bytes(), preferred, refresh))
    });
    usable.truncate(MODES_MAX);
    usable
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    /// Returns the best mode in words: width, height, pictures a second; `P`referred, `i`nterlaced.
    fn best(limits: &Limits, modes: &[(u32, u32, u32, &str)]) -> Option<(u32, u32, u32)> {
        best_of(limits, &[], modes)
    }

    fn best_of(
        limits: &Limits,
        own: &[Size],
        modes: &[(u32, u32, u32, &str)],
    ) -> Option<(u32, u32, u32)> {
        let of = |&(width, height, refresh, how): &(u32, u32, u32, &str)| Traits {
            size: Size { width, height },
            preferred: how.contains('P'),
            progressive: !how.contains('i'),
            refresh,
        };
        ranked(modes, of, own, limits)
            .first()
            .map(|&(width, height, refresh, _)| (width, height, refresh))
    }

    fn limits(memory: u64) -> Limits {
        Limits::with_memory(0..=16384, 0..=16384, memory)
    }

    #[test]
    fn the_monitors_own_mode_is_taken_whatever_its_size() {
        // AOC AG493US3R4: the base block's first timing, and the larger one in its DisplayID block, are both preferred.
        let aoc = [
            (3840, 1080, 60, "P"),
            (5120, 1440, 75, "P"),
            (2560, 1440, 120, ""),
            (1920, 1080, 60, ""),
        ];
        assert_eq!(best(&limits(8 * GIB), &aoc), Some((5120, 1440, 75)));
        let larger = [(1920, 1080, 60, "P"), (3840, 2160, 30, "")];
        assert_eq!(best(&limits(8 * GIB), &larger), Some((1920, 1080, 60)), "not the largest");
    }

    #[test]
    fn a_monitors_own_size_is_kept_at_another_rate_if_the_driver_leaves_its_own_mode_out() {
        // AOC AG493US3R4 on a cable that does not carry 165 Hz: what is left of 5120x1440 nobody marks.
        let own = [Size { width: 3840, height: 1080 }, Size { width: 5120, height: 1440 }];
        let left = [(3840, 1080, 60, "P"), (5120, 1440, 60, ""), (5120, 1440, 120, "")];
        assert_eq!(best_of(&limits(8 * GIB), &own, &left), Some((5120, 1440, 120)));
        // A faster mode of that size takes no place from the one the monitor prefers.
        let own = [Size { width: 1920, height: 1080 }];
        let usual = [(1920, 1080, 60, "P"), (1920, 1080, 144, ""), (3840, 2160, 30, "")];
        assert_eq!(best_of(&limits(8 * GIB), &own, &usual), Some((1920, 1080, 60)));
        // A size that no mode has changes nothing.
        let other = [Size { width: 640, height: 480 }];
        assert_eq!(best_of(&limits(8 * GIB), &other, &usual), Some((1920, 1080, 60)));
    }

    #[test]
    fn what_card_and_memory_do_not_allow_is_left_out_and_not_the_screen() {
        let modes = [(7680, 4320, 60, "P"), (5120, 2880, 60, ""), (1920, 1080, 60, "")];
        assert_eq!(best(&limits(16 * GIB), &modes), Some((7680, 4320, 60)));
        assert_eq!(best(&limits(4 * GIB), &modes), Some((5120, 2880, 60)));
        assert_eq!(best(&limits(0), &modes), Some((5120, 2880, 60)));
        let card = Limits::with_memory(0..=4096, 0..=4096, 16 * GIB);
        assert_eq!(best(&card, &modes), Some((1920, 1080, 60)));
        let beyond = [(10240, 4320, 60, "P"), (8192, 8192, 60, ""), (640, 480, 60, "")];
        assert_eq!(best(&limits(64 * GIB), &beyond), Some((640, 480, 60)));
        assert_eq!(best(&limits(64 * GIB), &[(0, 480, 60, "P")]), None);
    }

    #[test]
    fn a_progressive_mode_is_taken_before_an_interlaced_one() {
        // HWP 0AFF: nothing preferred; its interlaced mode is the fastest of the largest.
        let hwp =
            [(1024, 768, 43, "i"), (1024, 768, 87, "i"), (1024, 768, 60, ""), (800, 600, 75, "")];
        assert_eq!(best(&limits(8 * GIB), &hwp), Some((1024, 768, 60)));
        // AOC 1931: the preferred timing is interlaced.
        let aoc =
            [(1280, 768, 60, "Pi"), (1280, 1024, 60, ""), (1280, 720, 60, ""), (1024, 768, 75, "")];
        assert_eq!(best(&limits(8 * GIB), &aoc), Some((1280, 1024, 60)));
        assert_eq!(
            best(&limits(8 * GIB), &[(1920, 1080, 30, "Pi")]),
            Some((1920, 1080, 30)),
            "all there is"
        );
    }

    #[test]
    fn of_equal_modes_the_fastest_is_taken_and_a_few_are_kept_to_try() {
        let modes = [(1920, 1080, 60, ""), (1920, 1080, 75, ""), (1920, 1080, 50, "")];
        assert_eq!(best(&limits(8 * GIB), &modes), Some((1920, 1080, 75)));
        let many = [(640, 480, 60, ""); 90];
        let of = |_: &(u32, u32, u32, &str)| Traits {
            size: Size { width: 640, height: 480 },
            preferred: false,
            progressive: true,
            refresh: 60,
        };
        assert_eq!(ranked(&many, of, &[], &limits(0)).len(), MODES_MAX);
    }
}
