//! The banner: the rows at the top of the screen that no guest reaches, and that always tell the truth.
//!
//! ```text
//!   | pattern | icon LABEL      what there is to know          | (1) CLINICAL | (2) INTERNET | lock |
//! ```

use seat_link::{Rect, Size};

use super::super::core::Click;
use super::appearance::DomainAppearance;
use super::canvas::{Canvas, Colour};
use super::text::Face;

/// Returns how many rows the banner has on a screen of this height.
#[must_use]
pub fn banner_rows(height: u32) -> u32 {
    (height / 34).clamp(24, 64) / 2 * 2
}

/// What the banner of a domain says.
pub struct Banner<'a> {
    /// The screen's width in pixels.
    pub width: u32,
    /// How many rows of the screen the banner has.
    pub rows: u32,
    /// Every domain, in the order of the policy.
    pub appearances: &'a [DomainAppearance],
    /// The one in front; none while the screen is locked.
    pub front: Option<usize>,
    /// What there is to know, the most urgent first.
    pub notes: &'a [String],
}

/// Draws a banner; says what can be clicked in it.
#[must_use]
pub fn banner(face: &Face, what: &Banner<'_>) -> (Canvas, Vec<(Rect, Click)>) {
    let Banner { width, rows, .. } = *what;
    let front = what.front.and_then(|front| what.appearances.get(front));
    let ground = front.map_or(Colour::grey(40), |appearance| appearance.colour);
    let ink = ground.ink();
    let mut canvas = Canvas::new(Size { width, height: rows }, ground);
    let text = rows * 6 / 10;
    let top = i32::try_from((rows - text) / 2).unwrap_or(0);

    let left = match front {
        Some(appearance) => {
            let place = Rect { x: 0, y: 0, width: rows * 2, height: rows };
            appearance.pattern.cover(&mut canvas, place, ink.mixed(ground, 96));
            let side = rows * 7 / 10;
            let icon =
                Rect { x: rows * 2 + rows / 4, y: (rows - side) / 2, width: side, height: side };
            appearance.pattern.icon(&mut canvas, icon, ink);
            let at = (icon.right() + rows / 3, top);
            put(face, &mut canvas, at, text, ink, &appearance.label)
        }
        None => put(face, &mut canvas, (rows / 2, top), text, ink, "LOCKED"),
    };

    let mut clicks = Vec::new();
    let mut right = width;
    let small = rows / 2;
    if front.is_some() {
        right = tab(face, &mut canvas, right, rows, Colour::grey(40), None, "LOCK", false);
        clicks.push((Rect { x: right, y: 0, width: width - right, height: rows }, Click::Lock));
        for (index, appearance) in what.appearances.iter().enumerate().rev() {
            let end = right;
            let chosen = what.front == Some(index);
            let label = format!("{}  {}", appearance.label, appearance.hotkey);
            right = tab(
                face,
                &mut canvas,
                end,
                rows,
                appearance.colour,
                Some(appearance),
                &label,
                chosen,
            );
            clicks.push((
                Rect { x: right, y: 0, width: end - right, height: rows },
                Click::Switch(index),
            ));
        }
    }

    let start = left + rows;
    let room = right.saturating_sub(start + rows / 2);
    let note = face.fitted(&what.notes.join("  ·  "), small, room);
    if !note.is_empty() {
        let y = i32::try_from((rows - small) / 2).unwrap_or(0);
        let place = Rect {
            x: start - rows / 3,
            y: 2,
            width: (face.width(&note, small) + rows * 2 / 3).min(room + rows / 2),
            height: rows - 4,
        };
        canvas.fill(place, Colour::WHITE);
        put(face, &mut canvas, (start, y), small, Colour::BLACK, &note);
    }
    clicks.reverse();
    (canvas, clicks)
}

/// Writes and returns where the text ends.
fn put(
    face: &Face,
    canvas: &mut Canvas,
    (x, y): (u32, i32),
    size: u32,
    ink: Colour,
    text: &str,
) -> u32 {
    face.draw(canvas, (i32::try_from(x).unwrap_or(0), y), size, ink, text);
    x + face.width(text, size)
}

/// Draws a tab that ends at `right`; returns where it begins.
#[allow(clippy::too_many_arguments, reason = "a drawing function")]
fn tab(
    face: &Face,
    canvas: &mut Canvas,
    right: u32,
    rows: u32,
    colour: Colour,
    appearance: Option<&DomainAppearance>,
    label: &str,
    chosen: bool,
) -> u32 {
    let size = rows * 4 / 10;
    let (gap, icon) = (rows / 3, if appearance.is_some() { rows / 2 } else { 0 });
    let width = face.width(label, size) + 3 * gap + icon;
    let left = right.saturating_sub(width);
    let ink = colour.ink();
    let edge = Rect { x: left, y: 0, width, height: rows };
    canvas.fill(edge, if chosen { Colour::WHITE } else { Colour::BLACK });
    let inner = if chosen { 3 } else { 1 };
    canvas.fill(
        Rect {
            x: left + inner,
            y: inner,
            width: width.saturating_sub(2 * inner),
            height: rows - 2 * inner,
        },
        colour,
    );
    if let Some(appearance) = appearance {
        let place = Rect { x: left + gap, y: (rows - icon) / 2, width: icon, height: icon };
        appearance.pattern.icon(canvas, place, ink);
    }
    let y = i32::try_from((rows - size) / 2).unwrap_or(0);
    put(face, canvas, (left + gap + icon + gap / 2, y), size, ink, label);
    left
}
