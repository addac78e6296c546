//! How a domain looks, so that it is known by its colour, and without colour by its icon and pattern.

use seat_link::Rect;

use super::canvas::{Canvas, Colour};

/// How a domain looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainAppearance {
    /// What people call it.
    pub label: String,
    pub colour: Colour,
    /// Its icon and pattern.
    pub pattern: Pattern,
    /// The hotkey that brings it to the front, as it is written.
    pub hotkey: String,
}

/// An icon, and the pattern that goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// A disc; plain.
    Disc,
    /// A triangle; slanted stripes.
    Triangle,
    /// A square; dots.
    Square,
    /// A lozenge; upright stripes.
    Lozenge,
    /// A cross; checks.
    Cross,
}

impl Pattern {
    /// Returns the pattern of the n-th domain of a policy. Beyond five they repeat.
    #[must_use]
    pub fn of(index: usize) -> Self {
        const ALL: [Pattern; 5] =
            [Pattern::Disc, Pattern::Triangle, Pattern::Square, Pattern::Lozenge, Pattern::Cross];
        ALL.get(index % ALL.len()).copied().unwrap_or(Self::Disc)
    }

    /// Draws the icon into a square.
    pub fn icon(self, canvas: &mut Canvas, place: Rect, colour: Colour) {
        let side = i32::try_from(place.width.min(place.height)).unwrap_or(0);
        let (left, top) =
            (i32::try_from(place.x).unwrap_or(0), i32::try_from(place.y).unwrap_or(0));
        // Four samples a pixel; coordinates from -1000 to 1000.
        for y in 0..side {
            for x in 0..side {
                let inside = [(1, 1), (3, 1), (1, 3), (3, 3)].iter().filter(|(sx, sy)| {
                    let normal = |at: i32, sub: i32| ((at * 4 + sub) * 2000) / (side * 4) - 1000;
                    self.covers(normal(x, *sx), normal(y, *sy))
                });
                let share = inside.count() * 255 / 4;
                let share = u8::try_from(share).unwrap_or(255);
                canvas.mix(left + x, top + y, colour, share);
            }
        }
    }

    fn covers(self, x: i32, y: i32) -> bool {
        match self {
            Self::Disc => x * x + y * y <= 900 * 900,
            Self::Triangle => y <= 850 && 2 * x.abs() <= y + 900,
            Self::Square => x.abs() <= 780 && y.abs() <= 780,
            Self::Lozenge => x.abs() + y.abs() <= 950,
            Self::Cross => x.abs().min(y.abs()) <= 320 && x.abs().max(y.abs()) <= 900,
        }
    }

    /// Covers a rectangle with the pattern.
    pub fn cover(self, canvas: &mut Canvas, place: Rect, colour: Colour) {
        for y in place.y..place.bottom() {
            for x in place.x..place.right() {
                let marked = match self {
                    Self::Disc => false,
                    Self::Triangle => (x + y) % 12 < 5,
                    Self::Square => (x % 10).abs_diff(5).pow(2) + (y % 10).abs_diff(5).pow(2) <= 6,
                    Self::Lozenge => x % 10 < 4,
                    Self::Cross => (x / 6 + y / 6) % 2 == 0,
                };
                if marked {
                    let (x, y) = (i32::try_from(x).unwrap_or(-1), i32::try_from(y).unwrap_or(-1));
                    canvas.mix(x, y, colour, 255);
                }
            }
        }
    }
}
