//! Puts a screen together from its parts, within a rectangle, as often as one likes: the same parts give the
//! same pixels.

use seat_link::{CURSOR_SIDE, Cursor, Rect, Size};

use super::frame::Frame;
use super::picture::Canvas;

/// The buffer in which the screen's picture is put together: XRGB8888, rows `stride` bytes apart.
pub struct Target<'a> {
    pub bytes: &'a mut [u8],
    /// Bytes from a row to the next.
    pub stride: usize,
    /// Pixels across and down.
    pub size: Size,
}

/// What is below the banner.
#[derive(Clone, Copy)]
pub enum Body<'a> {
    /// A domain's picture, here on the screen.
    Picture(&'a Frame, Rect),
    /// Something of the agent's, over the whole area.
    Card(&'a Canvas),
}

/// Whose picture a pointer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The agent's arrow, which may be anywhere.
    Agent,
    /// A guest's: it stays in the guest's rows, and below what the agent says there.
    Guest,
}

/// The parts of a screen.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The rows at the top.
    pub banner: &'a Canvas,
    /// What is below it.
    pub body: Body<'a>,
    /// A box over it, and its top left.
    pub overlay: Option<(&'a Canvas, (u32, u32))>,
    /// The pointer's picture, its top left, and whose it is.
    pub cursor: Option<(&'a Cursor, (i32, i32), Owner)>,
}

impl View<'_> {
    /// Paints the part of the screen that lies in `clip`.
    pub fn paint(&self, target: &mut Target<'_>, clip: Rect) {
        let clip = clip.within(target.size);
        let rows = self.banner.size().height;
        for y in clip.y..clip.bottom() {
            let Some(row) = target.row(y, clip) else { return };
            if y < rows {
                copy(self.banner.row(y), clip.x, row);
            } else {
                self.body_row(y, rows, clip, row);
            }
            if y >= rows {
                self.cursor_row(Owner::Guest, y, clip, row);
            }
            if let Some((canvas, (left, top))) = self.overlay
                && let Some(dy) = y.checked_sub(top).filter(|_| y >= rows)
            {
                over(canvas.row(dy), left, clip.x, row);
            }
            self.cursor_row(Owner::Agent, y, clip, row);
        }
    }

    /// Returns where nothing of a guest's may be: the banner, and what the agent says.
    pub fn keeps_free_of_guests(&self) -> impl Iterator<Item = Rect> {
        let banner = Rect::all(self.banner.size());
        let overlay = self.overlay.map(|(canvas, (x, y))| {
            let Size { width, height } = canvas.size();
            Rect { x, y, width, height }
        });
        std::iter::once(banner).chain(overlay)
    }

    fn cursor_row(&self, of: Owner, y: u32, clip: Rect, row: &mut [u8]) {
        if let Some((cursor, (left, top), owner)) = self.cursor
            && owner == of
        {
            blend(cursor, i64::from(y) - i64::from(top), left, clip.x, row);
        }
    }

    fn body_row(&self, y: u32, rows: u32, clip: Rect, row: &mut [u8]) {
        match self.body {
            Body::Card(canvas) => copy(canvas.row(y - rows), clip.x, row),
            Body::Picture(frame, place) => {
                let seen = place.shared(Rect { y, height: 1, ..clip });
                let from = (seen.x.saturating_sub(clip.x) as usize) * 4;
                let to = from + seen.width as usize * 4;
                if seen.is_empty() {
                    row.fill(0);
                    return;
                }
                if let Some(beside) = row.get_mut(..from) {
                    beside.fill(0);
                }
                if let Some(beside) = row.get_mut(to..) {
                    beside.fill(0);
                }
                if let Some(part) = row.get_mut(from..to) {
                    frame.copy_row(seen.x - place.x, y - place.y, part);
                }
            }
        }
    }
}

impl Target<'_> {
    fn row(&mut self, y: u32, clip: Rect) -> Option<&mut [u8]> {
        let start = (y as usize).checked_mul(self.stride)? + clip.x as usize * 4;
        self.bytes.get_mut(start..start + clip.width as usize * 4)
    }
}

/// Copies pixels of a row from `x` on.
fn copy(from: &[u8], x: u32, to: &mut [u8]) {
    let from = from.get(x as usize * 4..).unwrap_or_default();
    let count = from.len().min(to.len());
    if let (Some(from), Some(to)) = (from.get(..count), to.get_mut(..count)) {
        to.copy_from_slice(from);
    }
}

/// Copies a row that begins at `left` of the screen over one that begins at `x`.
fn over(from: &[u8], left: u32, x: u32, to: &mut [u8]) {
    match left.checked_sub(x) {
        Some(right) => {
            if let Some(to) = to.get_mut(right as usize * 4..) {
                copy(from, 0, to);
            }
        }
        None => copy(from, x - left, to),
    }
}

/// Lays a row of a cursor over one that begins at `x`; its colours hold their share already.
fn blend(cursor: &Cursor, dy: i64, left: i32, x: u32, row: &mut [u8]) {
    let Some(dy) = usize::try_from(dy).ok().filter(|dy| *dy < CURSOR_SIDE as usize) else { return };
    let stride = CURSOR_SIDE as usize * 4;
    let pixels = cursor.pixels.get(dy * stride..(dy + 1) * stride).unwrap_or_default();
    let start = i64::from(left) - i64::from(x);
    for (dx, pixel) in (0i64..).zip(pixels.chunks_exact(4)) {
        let Ok(at) = usize::try_from(start + dx) else { continue };
        let (Some(place), [.., alpha]) = (row.get_mut(at * 4..at * 4 + 4), pixel) else { continue };
        for (below, above) in place.iter_mut().zip(pixel) {
            let kept = u32::from(*below) * (255 - u32::from(*alpha)) / 255;
            *below = u8::try_from(kept + u32::from(*above)).unwrap_or(u8::MAX);
        }
    }
}

/// Returns the part of a screen that a square with this top left covers.
pub(super) fn square((x, y): (i32, i32), side: u32) -> Rect {
    let end = |at: i32| at.saturating_add(i32::try_from(side).unwrap_or(0));
    let clamp = |at: i32| u32::try_from(at.max(0)).unwrap_or(0);
    Rect {
        x: clamp(x),
        y: clamp(y),
        width: clamp(end(x)) - clamp(x),
        height: clamp(end(y)) - clamp(y),
    }
}

/// Returns the agent's own pointer: an arrow, white with a black edge.
#[must_use]
pub fn arrow() -> Cursor {
    let mut pixels = vec![0; seat_link::CURSOR_BYTES];
    for y in 0..20usize {
        for x in 0..14usize {
            // A triangle whose tip is at the top left, 13 wide and 19 high.
            let inside = x * 19 <= y * 13 && x + y <= 20;
            let inner = x >= 1 && (x + 1) * 19 < y * 13 && x + y < 18;
            let place = pixels.get_mut((y * CURSOR_SIDE as usize + x) * 4..);
            if let (true, Some(place)) = (inside, place.and_then(|place| place.get_mut(..4))) {
                let level = if inner { 255 } else { 0 };
                place.copy_from_slice(&[level, level, level, 255]);
            }
        }
    }
    Cursor { hot_x: 0, hot_y: 0, pixels }
}

#[cfg(test)]
mod tests {
    use super::super::picture::Colour;
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::FileExt;

    const SIZE: Size = Size { width: 48, height: 40 };
    const ROWS: u32 = 8;

    fn rect(x: u32, y: u32, width: u32, height: u32) -> Rect {
        Rect { x, y, width, height }
    }

    /// Paints over a screen of 0x77 bytes.
    fn paint(view: &View<'_>, clips: &[Rect]) -> Vec<u8> {
        let stride = SIZE.width as usize * 4 + 16;
        let mut bytes = vec![0x77; stride * SIZE.height as usize];
        for clip in clips {
            view.paint(&mut Target { bytes: &mut bytes, stride, size: SIZE }, *clip);
        }
        bytes
    }

    fn pixel(bytes: &[u8], x: usize, y: usize) -> [u8; 4] {
        let at = y * (SIZE.width as usize * 4 + 16) + x * 4;
        bytes[at..at + 4].try_into().unwrap()
    }

    struct Parts {
        banner: Canvas,
        frame: Frame,
        notice: Canvas,
        cursor: Cursor,
    }

    fn parts() -> Parts {
        let frame = Frame::new(Size { width: 48, height: 32 }).unwrap();
        let file = File::from(frame.fd().try_clone_to_owned().unwrap());
        for pixel in 0..48 * 32u32 {
            let bytes = (pixel | 0x0100_0000).to_le_bytes();
            file.write_all_at(&bytes, u64::from(pixel) * 4).unwrap();
        }
        fetch(&frame, Rect::all(frame.size())).unwrap();
        Parts {
            banner: Canvas::new(Size { width: 48, height: ROWS }, Colour::WHITE),
            frame,
            notice: Canvas::new(Size { width: 10, height: 6 }, Colour::grey(9)),
            cursor: arrow(),
        }
    }

    use std::fs::File;

    use crate::frame::tests::fetch;

    fn view(parts: &Parts, place: Rect, at: (i32, i32)) -> View<'_> {
        View {
            banner: &parts.banner,
            body: Body::Picture(&parts.frame, place),
            overlay: Some((&parts.notice, (20, 10))),
            cursor: Some((&parts.cursor, at, Owner::Agent)),
        }
    }

    #[test]
    fn each_part_is_where_it_belongs_and_nothing_lies_over_the_banner_but_the_pointer() {
        let parts = parts();
        let whole = rect(0, 0, 48, 40);
        let bytes = paint(&view(&parts, rect(0, ROWS, 48, 32), (30, 30)), &[whole]);
        assert_eq!(pixel(&bytes, 0, 0), [255; 4]);
        assert_eq!(pixel(&bytes, 47, 7), [255; 4]);
        assert_eq!(pixel(&bytes, 5, 9), ((48u32 + 5) | 0x0100_0000).to_le_bytes());
        assert_eq!(pixel(&bytes, 20, 10), [9, 9, 9, 255]);
        assert_eq!(pixel(&bytes, 30, 30), [0, 0, 0, 255], "the arrow's edge");
        let beside = SIZE.width as usize * 4;
        assert_eq!(bytes[beside..beside + 16], [0x77; 16], "between rows");
        let raised =
            View { overlay: Some((&parts.notice, (0, 0))), ..view(&parts, whole, (0, 30)) };
        assert_eq!(pixel(&paint(&raised, &[whole]), 3, 3), [255; 4]);
    }

    #[test]
    fn a_picture_smaller_than_its_place_has_black_around_it() {
        let parts = parts();
        let mut view = view(&parts, rect(10, 20, 8, 8), (-64, -64));
        view.overlay = None;
        let bytes = paint(&view, &[rect(0, 0, 48, 40)]);
        for (x, y) in [(9, 22), (18, 22), (12, 19), (12, 28), (0, 8), (47, 39)] {
            assert_eq!(pixel(&bytes, x, y), [0; 4], "at {x},{y}");
        }
        assert_eq!(pixel(&bytes, 10, 20), 0x0100_0000u32.to_le_bytes());
    }

    proptest! {
        #[test]
        fn a_guests_cursor_changes_no_pixel_of_the_banner_or_of_what_the_agent_says(
            at in (-70i32..60, -70i32..60),
            byte in any::<u8>(),
            cuts in prop::collection::vec((0u32..60, 0u32..60, 1u32..60, 1u32..60), 1..6),
        ) {
            let parts = parts();
            // Pixels that say they are opaque, and pixels that say they add to what is there.
            let cursor = Cursor { hot_x: 0, hot_y: 0, pixels: vec![byte; seat_link::CURSOR_BYTES] };
            let without = View { cursor: None, ..view(&parts, rect(0, ROWS, 48, 32), at) };
            let with = View { cursor: Some((&cursor, at, Owner::Guest)), ..without };
            let clips: Vec<Rect> = cuts.into_iter().map(|(x, y, w, h)| rect(x, y, w, h)).collect();
            let (with, without) = (paint(&with, &clips), paint(&without, &clips));
            for kept in [rect(0, 0, 48, ROWS), rect(20, 10, 10, 6)] {
                for (x, y) in (kept.x..kept.right()).flat_map(|x| (kept.y..kept.bottom()).map(move |y| (x, y))) {
                    prop_assert_eq!(
                        pixel(&with, x as usize, y as usize),
                        pixel(&without, x as usize, y as usize)
                    );
                }
            }
        }

        #[test]
        fn painting_in_pieces_gives_the_same_screen(
            cuts in prop::collection::vec((0u32..60, 0u32..60, 0u32..60, 0u32..60), 0..12),
            place in (0u32..48, ROWS..40, 1u32..60, 1u32..60),
            at in (-70i32..60, -70i32..60),
        ) {
            let parts = parts();
            let view = view(&parts, rect(place.0, place.1, place.2.min(48), place.3.min(32)), at);
            let whole = rect(0, 0, 48, 40);
            let mut clips: Vec<Rect> = cuts.into_iter().map(|(x, y, w, h)| rect(x, y, w, h)).collect();
            clips.insert(clips.len() / 2, whole);
            prop_assert_eq!(paint(&view, &clips), paint(&view, &[whole]));
        }

        #[test]
        fn nothing_outside_the_rectangle_is_touched(x in 0u32..60, y in 0u32..60, w in 0u32..60, h in 0u32..60) {
            let parts = parts();
            let clip = rect(x, y, w, h);
            let bytes = paint(&view(&parts, rect(0, ROWS, 48, 32), (20, 4)), &[clip]);
            for py in 0..40u32 {
                for px in 0..48u32 {
                    if rect(px, py, 1, 1).shared(clip).is_empty() {
                        prop_assert_eq!(pixel(&bytes, px as usize, py as usize), [0x77; 4]);
                    }
                }
            }
        }
    }
}
