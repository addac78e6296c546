//! The card's own pointer, which lies over everything: when it may show what, and by which steps; pure.
//!
//! A guest chooses the picture of its cursor and where in it the pointer is. On the card's plane it would cover the banner
//! or a box of the agent's; wherever it could, it is painted with the screen instead, which keeps it in the guest's rows.

use seat_link::{CURSOR_SIDE, Cursor, Rect};

use super::compose::{Owner, View, square};

/// A pointer to be painted.
#[derive(Clone, Copy)]
pub struct Pointer<'a> {
    pub picture: &'a Cursor,
    /// A number that changes with the picture.
    pub shape: u64,
    /// The pixel that it points at, from the top left of the screen.
    pub at: (i32, i32),
    /// Whose picture it is.
    pub owner: Owner,
}

/// The cursor plane, with what it shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Plane {
    shown: Option<(Owner, u64)>,
}

/// A change of the cursor plane; the card is told of one after the other, in this order.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step<'a> {
    /// The plane's top left is here from now on, also while it is hidden.
    Move((i32, i32)),
    /// The plane shows this picture.
    Show(&'a Cursor),
    /// The plane shows nothing.
    Hide,
}

impl Plane {
    /// Returns whether a pointer may be on the plane over this view.
    pub(super) fn takes(pointer: &Pointer<'_>, view: &View<'_>) -> bool {
        pointer.owner == Owner::Agent
            || view.keeps_free_of_guests().all(|kept| kept.shared(pointer.square()).is_empty())
    }

    /// Returns the steps from what is on the plane to `wanted`. No step in between shows a guest's cursor where it may not be.
    pub(super) fn steps<'a>(&mut self, wanted: Option<&Pointer<'a>>) -> Vec<Step<'a>> {
        let next = wanted.map(|pointer| (pointer.owner, pointer.shape));
        let before = std::mem::replace(&mut self.shown, next);
        let Some(pointer) = wanted else {
            return if before.is_some() { vec![Step::Hide] } else { Vec::new() };
        };
        let (go, show) = (Step::Move(pointer.top_left()), Step::Show(pointer.picture));
        match (before, pointer.owner) {
            (before, _) if before == next => vec![go],
            // The guest's cursor is gone before the plane leaves its rows.
            (Some((Owner::Guest, _)), Owner::Agent) => vec![show, go],
            // It comes after the plane has come there.
            _ => vec![go, show],
        }
    }
}

impl Pointer<'_> {
    /// Returns the top left of its picture.
    pub(super) fn top_left(&self) -> (i32, i32) {
        let hot = |pixel: u32| i32::try_from(pixel).unwrap_or(0);
        let (x, y) = self.at;
        (x.saturating_sub(hot(self.picture.hot_x)), y.saturating_sub(hot(self.picture.hot_y)))
    }

    /// Returns the part of the screen its picture may cover.
    pub(super) fn square(&self) -> Rect {
        square(self.top_left(), CURSOR_SIDE)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use seat_link::Size;

    use super::super::compose::{Body, arrow};
    use super::super::picture::{Canvas, Colour};
    use super::*;

    const SIZE: Size = Size { width: 300, height: 200 };
    const ROWS: u32 = 24;
    const BOX: (u32, u32) = (100, 60);

    fn cursor() -> impl Strategy<Value = Cursor> {
        (0..CURSOR_SIDE, 0..CURSOR_SIDE).prop_map(|(hot_x, hot_y)| Cursor {
            hot_x,
            hot_y,
            pixels: Vec::new(),
        })
    }

    /// Where the pointer is, whose it is, whether a box is shown, the guest's picture.
    type Moment = ((i32, i32), Option<Owner>, bool, Cursor);

    fn moments() -> impl Strategy<Value = Vec<Moment>> {
        let owner = prop::option::of(prop_oneof![Just(Owner::Agent), Just(Owner::Guest)]);
        let at = (0..300i32, 0..200i32);
        prop::collection::vec((at, owner, any::<bool>(), cursor()), 1..30)
    }

    proptest! {
        #[test]
        fn a_guests_cursor_on_the_cards_plane_never_lies_over_the_banner_or_a_box(moments in moments()) {
            let banner = Canvas::new(Size { width: SIZE.width, height: ROWS }, Colour::WHITE);
            let (card, said) = (
                Canvas::new(Size { width: SIZE.width, height: SIZE.height - ROWS }, Colour::grey(9)),
                Canvas::new(Size { width: 100, height: 50 }, Colour::grey(9)),
            );
            let mut plane = Plane::default();
            let (mut at, mut shown) = ((0, 0), None);
            for (number, (place, owner, boxed, picture)) in (1u64..).zip(&moments) {
                let overlay = boxed.then_some((&said, BOX));
                let view = View { banner: &banner, body: Body::Card(&card), overlay, cursor: None };
                let arrow = arrow();
                let pointer = owner.map(|owner| match owner {
                    Owner::Agent => Pointer { picture: &arrow, shape: 0, at: *place, owner },
                    Owner::Guest => Pointer { picture, shape: number, at: *place, owner },
                });
                let taken = pointer.filter(|pointer| Plane::takes(pointer, &view));
                // The arrow is the card's everywhere.
                prop_assert!(*owner != Some(Owner::Agent) || taken.is_some());
                for step in plane.steps(taken.as_ref()) {
                    match step {
                        Step::Move(place) => at = place,
                        Step::Show(_) => shown = owner.filter(|_| taken.is_some()),
                        Step::Hide => shown = None,
                    }
                    if shown == Some(Owner::Guest) {
                        let banner = Rect { x: 0, y: 0, width: SIZE.width, height: ROWS };
                        let covered = square(at, CURSOR_SIDE).shared(banner);
                        prop_assert!(covered.is_empty(), "over the banner at {:?}", at);
                    }
                }
                prop_assert_eq!(shown, taken.map(|pointer| pointer.owner));
                if let Some(pointer) = taken {
                    prop_assert_eq!(at, pointer.top_left());
                    if pointer.owner == Owner::Guest && *boxed {
                        let rect = Rect { x: BOX.0, y: BOX.1, width: 100, height: 50 };
                        prop_assert!(pointer.square().shared(rect).is_empty());
                    }
                }
            }
        }
    }
}
