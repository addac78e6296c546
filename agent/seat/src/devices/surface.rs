//! Where things are on a touchpad, in micrometres; pure.

use super::facts::{Axis, EventCapabilities};

/// What a pad's size is taken to be if its driver does not know, in micrometres: that of a usual laptop's.
const USUAL: (i64, i64) = (69_000, 50_000);
/// Sizes of a side that can be, in micrometres; what else a driver says is taken for not known.
const SIDES: std::ops::RangeInclusive<i64> = 20_000..=400_000;
/// A palm lies on the edges at the left, right and top, this far in.
const EDGE: i64 = 8_000;
/// Only of a pad this wide and high: all of a smaller one is for fingers.
const EDGES_FROM: (i64, i64) = (70_000, 55_000);
/// Rows at the bottom of a pad that is its own button: where thumbs rest and the buttons are. At most a quarter of it.
const BUTTON_ROWS: i64 = 10_000;

/// A point on a pad, or a way on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Point {
    /// From the left, in micrometres.
    pub(super) x: i64,
    /// From the top, in micrometres.
    pub(super) y: i64,
}

impl Point {
    /// Returns the way from `other` to this point.
    pub(super) fn from(self, other: Self) -> Self {
        Self { x: self.x - other.x, y: self.y - other.y }
    }

    /// Returns how far at least: the longer of both ways.
    pub(super) fn length(self) -> i64 {
        self.x.abs().max(self.y.abs())
    }
}

/// A side of a pad.
#[derive(Clone, Copy, Debug)]
struct Side {
    least: i64,
    units: i64,
    micrometres: i64,
}

impl Side {
    fn new(axis: Axis, usual: i64) -> Self {
        let (least, resolution) = (i64::from(axis.least), i64::from(axis.resolution));
        let units = (i64::from(axis.most) - least).max(1);
        let told = (resolution > 0).then(|| units * 1000 / resolution.max(1));
        let micrometres = told.filter(|side| SIDES.contains(side)).unwrap_or(usual);
        Self { least, units, micrometres }
    }

    fn place(self, at: i32) -> i64 {
        (i64::from(at) - self.least).clamp(0, self.units) * self.micrometres / self.units
    }
}

/// A touchpad's surface, as measures and zones.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surface {
    x: Side,
    y: Side,
    /// It is pressed as a whole.
    button: bool,
}

impl Surface {
    /// Makes the surface of a device with these axes; `button`: it is pressed as a whole.
    pub(super) fn new(facts: &EventCapabilities, x: u16, y: u16, button: bool) -> Self {
        let axis = |code| facts.axis(code).unwrap_or_default();
        Self { x: Side::new(axis(x), USUAL.0), y: Side::new(axis(y), USUAL.1), button }
    }

    /// Returns where a position is.
    pub(super) fn point(&self, x: i32, y: i32) -> Point {
        Point { x: self.x.place(x), y: self.y.place(y) }
    }

    /// Returns whether it is where palms lie.
    pub(super) fn is_edge(&self, at: Point) -> bool {
        let (width, height) = (self.x.micrometres, self.y.micrometres);
        let sides = width >= EDGES_FROM.0 && (at.x < EDGE || at.x > width - EDGE);
        sides || (height >= EDGES_FROM.1 && at.y < EDGE)
    }

    /// Returns whether it is in the rows of the buttons.
    pub(super) fn is_button(&self, at: Point) -> bool {
        let height = self.y.micrometres;
        self.button && at.y > height - BUTTON_ROWS.min(height / 4)
    }

    /// Returns whether it is in the right half.
    pub(super) fn is_right(&self, at: Point) -> bool {
        at.x > self.x.micrometres / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pad_whose_driver_does_not_know_its_size_has_a_usual_one() {
        for (most, resolution, side) in [
            (1936, 20, 96_800),
            (4000, 0, 69_000),
            (4000, -1, 69_000),
            (4000, 1, 69_000),
            (1, i32::MAX, 69_000),
        ] {
            let axis = Axis { value: 0, least: 0, most, resolution };
            assert_eq!(
                Side::new(axis, USUAL.0).place(most),
                side,
                "{most} units, {resolution} a mm"
            );
        }
        let whole = Axis { value: 0, least: i32::MIN, most: i32::MAX, resolution: 0 };
        assert_eq!(Side::new(whole, USUAL.0).place(i32::MAX), 69_000);
        assert_eq!(Side::new(whole, USUAL.0).place(i32::MIN), 0);
    }
}
