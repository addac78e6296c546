//! What the agent draws for each domain and for the lock, kept until it is something else.

use seat_link::{Rect, Size};

use super::core::{Click, DomainIndex};
use super::picture::{self, Banner, Canvas, DomainAppearance, Face, Prompt};

/// The layout of the screen, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) screen: Size,
    /// Rows of the banner.
    pub(super) rows: u32,
}

impl Layout {
    pub(super) fn new(screen: Size) -> Self {
        Self { screen, rows: picture::banner_rows(screen.height).min(screen.height / 2) }
    }

    /// Returns the guests' screen.
    pub(super) fn guest(&self) -> Size {
        Size { width: self.screen.width, height: self.screen.height - self.rows }
    }

    /// Returns where a guest's picture of this size is: in the middle of its area.
    pub(super) fn place(&self, picture: Size) -> Rect {
        let area = self.guest();
        let (width, height) = (picture.width.min(area.width), picture.height.min(area.height));
        Rect {
            x: (area.width - width) / 2,
            y: self.rows + (area.height - height) / 2,
            width,
            height,
        }
    }

    pub(super) fn banner(&self) -> Rect {
        Rect { x: 0, y: 0, width: self.screen.width, height: self.rows }
    }
}

/// One scene: a domain's, or the lock's.
pub(super) struct Scene {
    pub(super) banner: Canvas,
    pub(super) card: Canvas,
    said: (Vec<String>, Vec<String>),
}

/// A box over a picture.
pub(super) struct Overlay {
    pub(super) canvas: Canvas,
    pub(super) at: (u32, u32),
}

impl Overlay {
    pub(super) fn new(face: &Face, layout: &Layout, text: &str, prompt: Prompt<'_>) -> Self {
        let Size { width, height } = layout.screen;
        let top = layout.rows + layout.rows / 2;
        let room = Size { width, height: height.saturating_sub(top) };
        let canvas = picture::overlay(face, room, text, prompt);
        let at = (width.saturating_sub(canvas.size().width) / 2, top);
        Self { canvas, at }
    }

    pub(super) fn rect(&self) -> Rect {
        let Size { width, height } = self.canvas.size();
        Rect { x: self.at.0, y: self.at.1, width, height }
    }

    /// Returns whether a pixel of the screen is its own.
    pub(super) fn covers(&self, (x, y): (i32, i32)) -> bool {
        let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y)) else { return false };
        !self.rect().shared(Rect { x, y, width: 1, height: 1 }).is_empty()
    }
}

/// The scenes of all domains, in the policy's order, and then the lock's.
pub(super) struct Scenes {
    all: Vec<Scene>,
    clicks: Vec<(Rect, Click)>,
}

/// Which parts of a scene have to be drawn again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SceneDamage {
    pub(super) banner: bool,
    pub(super) card: bool,
}

impl Scenes {
    pub(super) fn new() -> Self {
        Self { all: Vec::new(), clicks: Vec::new() }
    }

    /// Forgets what is drawn, so that the next [`Self::redraw`] draws everything.
    pub(super) fn forget(&mut self) {
        self.all.clear();
    }

    pub(super) fn get(&self, scene: usize) -> Option<&Scene> {
        self.all.get(scene)
    }

    pub(super) fn clicks(&self) -> &[(Rect, Click)] {
        &self.clicks
    }

    /// Draws the texts that have changed: `notes` in every banner, `cards` in the middle of each scene.
    pub(super) fn redraw(
        &mut self,
        face: &Face,
        layout: &Layout,
        appearances: &[DomainAppearance],
        notes: &[String],
        cards: &[Vec<String>],
    ) -> Vec<(usize, SceneDamage)> {
        let mut damage = Vec::new();
        for (scene, lines) in cards.iter().enumerate() {
            let front: Option<DomainIndex> = Some(scene).filter(|scene| *scene < appearances.len());
            // The lock tells nobody anything.
            let notes = if front.is_some() { notes } else { &[] };
            let said = (notes.to_vec(), lines.clone());
            let before = self.all.get(scene).map(|scene| &scene.said);
            let what = SceneDamage {
                banner: before.is_none_or(|(old, _)| *old != said.0),
                card: before.is_none_or(|(_, old)| *old != said.1),
            };
            if !what.banner && !what.card {
                continue;
            }
            let Layout { screen, rows } = *layout;
            let banner = Banner { width: screen.width, rows, appearances, front, notes };
            let (banner, clicks) = picture::banner(face, &banner);
            if front.is_some() {
                self.clicks = clicks;
            }
            let draw = if front.is_some() { picture::card } else { picture::lock_screen };
            let drawn = Scene { banner, card: draw(face, layout.guest(), lines), said };
            match self.all.get_mut(scene) {
                Some(place) => *place = drawn,
                None => self.all.push(drawn),
            }
            damage.push((scene, what));
        }
        damage
    }
}
