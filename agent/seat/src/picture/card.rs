//! Cards: what is shown instead of, or over, a domain's picture.

use seat_link::{Rect, Size};

use super::canvas::{Canvas, Colour};
use super::text::Face;

/// Paints lines of text in the middle of a dark screen: a domain that shows nothing.
#[must_use]
pub fn card(face: &Face, size: Size, lines: &[String]) -> Canvas {
    let mut canvas = Canvas::new(size, Colour::grey(16));
    middle(face, &mut canvas, lines, Colour::grey(200));
    canvas
}

/// Returns the locked screen below the banner.
#[must_use]
pub fn lock_screen(face: &Face, size: Size, lines: &[String]) -> Canvas {
    let mut canvas = Canvas::new(size, Colour::grey(28));
    padlock(&mut canvas, size);
    middle(face, &mut canvas, lines, Colour::WHITE);
    canvas
}

fn middle(face: &Face, canvas: &mut Canvas, lines: &[String], ink: Colour) {
    let size = (canvas.size().height / 24).clamp(14, 40);
    let Size { width, height } = canvas.size();
    let step = size * 3 / 2;
    let count = u32::try_from(lines.len()).unwrap_or(0);
    let top = (height / 2).saturating_sub(count * step / 2);
    for (row, line) in (0u32..).zip(lines) {
        let line = face.fitted(line, size, width * 9 / 10);
        let x = width.saturating_sub(face.width(&line, size)) / 2;
        let place = (i32::try_from(x).unwrap_or(0), i32::try_from(top + row * step).unwrap_or(0));
        face.draw(canvas, place, size, ink, &line);
    }
}

/// Draws a padlock above the middle.
fn padlock(canvas: &mut Canvas, size: Size) {
    let side = size.height / 8;
    let (x, y) = ((size.width / 2).saturating_sub(side / 2), size.height / 5);
    let (ink, ground) = (Colour::WHITE, Colour::grey(28));
    let bow = Rect { x: x + side / 6, y, width: side * 2 / 3, height: side };
    canvas.fill(bow, ink);
    let thick = (side / 10).max(1);
    canvas.fill(
        Rect {
            x: bow.x + thick,
            y: bow.y + thick,
            width: bow.width.saturating_sub(2 * thick),
            height: bow.height,
        },
        ground,
    );
    canvas.fill(Rect { x, y: y + side / 2, width: side, height: side * 7 / 10 }, ink);
}
