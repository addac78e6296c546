//! Which resource is seen, and which part of it.

use seat_link::{Rect, Size};

use super::{Driver, Frame, Viewer};

/// The scanout. Resource 0 is none.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scanout {
    resource: u32,
    rect: Rect,
}

impl Scanout {
    pub(super) fn new(resource: u32, rect: Rect) -> Self {
        Self { resource, rect }
    }

    pub(super) fn is_on(&self) -> bool {
        self.resource != 0
    }

    pub(super) fn is_of(&self, resource: u32) -> bool {
        self.is_on() && self.resource == resource
    }

    /// Returns the part of the resource that is seen.
    pub(super) fn rect(&self) -> Rect {
        self.rect
    }

    /// Shows all of it on a screen that showed something else.
    pub(super) fn show(&self, driver: &Driver, frame: &Frame, viewer: &mut dyn Viewer) {
        let Ok(resource) = driver.resources.get(self.resource) else { return };
        frame.clear();
        frame.copy(&driver.memory, resource, self.rect, self.rect);
        viewer.picture(Some(Size { width: self.rect.width, height: self.rect.height }));
        viewer.damage(Rect::all(frame.size()));
    }
}
