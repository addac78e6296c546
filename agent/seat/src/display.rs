//! What is on the screen: a pair of buffers for each domain and one for the lock, kept painted, so that a switch
//! is one page flip.

use std::io;
use std::path::Path;
use std::time::Duration;

use clock::Moment;

use seat_link::{CURSOR_SIDE, Rect, Size};

use super::compose::{Target, View, square};
use super::kms::{Buffer, Monitor, Screen, ScreenError};
use super::plane::{Plane, Pointer, Step};

/// Rectangles a buffer keeps apart; more become one.
const RECTS_MAX: usize = 8;
/// Switches whose times are kept.
const TIMES_MAX: usize = 1024;

/// What can be on the screen: a domain by its number, or the lock behind them.
pub type Scene = usize;

/// A buffer, and what of it is out of date.
struct Page {
    buffer: Buffer,
    damage: Vec<Rect>,
    /// Where the pointer was painted, and in which shape.
    cursor: Option<PaintedCursor>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PaintedCursor {
    at: (i32, i32),
    shape: u64,
}

/// The screen with its buffers.
pub struct Display {
    screen: Screen,
    scenes: Vec<[Page; 2]>,
    /// The scene that is on the screen now, and its page.
    shown: (Scene, usize),
    /// The scene and page that go onto the screen with the next refresh.
    flipping: Option<(Scene, usize)>,
    flipped_at: Moment,
    /// When the key that asked for the scene on its way was pressed.
    asked: Option<Moment>,
    times: Vec<Duration>,
    plane: Plane,
}

impl Display {
    /// Takes a screen and shows the first of `scenes` on it, black until painted.
    ///
    /// # Errors
    /// What is missing, and what to do.
    pub fn open(card: Option<&Path>, scenes: usize) -> Result<Self, ScreenError> {
        let mut screen = Screen::open(card)?;
        let path = card.unwrap_or(Path::new("/dev/dri")).to_owned();
        let scenes = loop {
            match show(&screen, scenes) {
                Ok(scenes) => break scenes,
                Err(e) if is_anothers(&e) => return Err(ScreenError::OtherMaster(path)),
                Err(source) => {
                    let Size { width, height } = screen.monitor().size;
                    // A card that finishes no frame is not asked sixteen times: keys wait meanwhile.
                    if source.kind() == io::ErrorKind::TimedOut || !screen.take_next_mode() {
                        return Err(ScreenError::Drive { path, source });
                    }
                    tracing::warn!(
                        "the card does not show {width}x{height} ({source}); the next mode is tried"
                    );
                }
            }
        };
        Ok(Self {
            screen,
            scenes,
            shown: (0, 0),
            flipping: None,
            flipped_at: Moment::now(),
            asked: None,
            times: Vec::new(),
            plane: Plane::default(),
        })
    }

    /// Returns what it shows on.
    #[must_use]
    pub fn monitor(&self) -> &Monitor {
        self.screen.monitor()
    }

    /// Returns the pixels across and down.
    #[must_use]
    pub fn size(&self) -> Size {
        self.screen.monitor().size
    }

    /// Returns whether the monitor is still the same.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.screen.is_current()
    }

    /// Returns the card, to wait for flips.
    #[must_use]
    pub fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.screen.fd()
    }

    /// Returns how long switches took, from the key's time stamp to the end of the flip; the newest last.
    #[must_use]
    pub fn switch_times(&self) -> &[Duration] {
        &self.times
    }

    /// Marks a part of a scene as out of date.
    pub fn damage(&mut self, scene: Scene, rect: Rect) {
        let rect = rect.within(self.size());
        if rect.is_empty() {
            return;
        }
        for page in self.scenes.get_mut(scene).into_iter().flatten() {
            page.add(rect);
        }
    }

    /// Marks every scene as out of date.
    pub fn damage_all(&mut self) {
        let whole = Rect::all(self.size());
        (0..self.scenes.len()).for_each(|scene| self.damage(scene, whole));
    }

    /// Notes when a switch was asked for.
    pub fn asked_at(&mut self, time: Moment) {
        self.asked = Some(time);
    }

    /// Takes note of a flip that is done, and returns whether another scene is shown by it.
    pub fn take_events(&mut self) -> bool {
        if !self.screen.flipped() {
            return false;
        }
        let Some(done) = self.flipping.take() else { return false };
        let switched = done.0 != self.shown.0;
        self.shown = done;
        if let (true, Some(asked)) = (switched, self.asked.take()) {
            if self.times.len() >= TIMES_MAX {
                self.times.remove(0);
            }
            self.times.push(asked.elapsed());
        }
        switched
    }

    /// Returns whether a scene that is not shown has something to paint.
    #[must_use]
    pub fn is_damaged(&self, scene: Scene) -> bool {
        let size = self.size();
        scene != self.shown.0
            && self.scenes.get(scene).is_some_and(|[ready, spare]| {
                !ready.damage.is_empty() || ready.cursor.is_some() || spare.is_all_damaged(size)
            })
    }

    /// Returns whether this part of a scene is on the screen as it was last to be.
    #[must_use]
    pub fn shows(&self, scene: Scene, part: Rect) -> bool {
        let page = self.scenes.get(scene).and_then(|pages| pages.get(self.shown.1));
        self.flipping.is_none()
            && self.shown.0 == scene
            && page.is_some_and(|page| page.damage.iter().all(|rect| rect.shared(part).is_empty()))
    }

    /// Returns how long the flip on its way has taken.
    #[must_use]
    pub fn flipping_for(&self) -> Option<Duration> {
        self.flipping.map(|_| self.flipped_at.elapsed())
    }

    /// Presents `scene`, painted by `view`, with the pointer.
    ///
    /// A switch shows what is painted already and paints what is missing in the frame after. Returns false while a flip is
    /// still on its way: its end has to bring the caller here again.
    ///
    /// # Errors
    /// The card refuses.
    pub fn present(
        &mut self,
        scene: Scene,
        view: &View<'_>,
        pointer: Option<Pointer<'_>>,
    ) -> io::Result<bool> {
        if self.flipping.is_some() {
            return Ok(false);
        }
        let painted = self.pointer(pointer, view);
        let size = self.size();
        let Some(pages) = self.scenes.get_mut(scene) else { return Ok(true) };
        let next = if scene == self.shown.0 {
            let Some(current) = pages.get(self.shown.1) else { return Ok(true) };
            if current.damage.is_empty() && current.cursor == painted {
                return Ok(true);
            }
            1 - self.shown.1
        } else {
            // The one that is nearer to what it should be.
            let area = |page: &Page| page.damage.iter().map(|r| r.width * r.height).sum::<u32>();
            let [first, second] = pages;
            let next = usize::from(area(second) < area(first));
            let whole = pages.get(next).is_none_or(|page| page.is_all_damaged(size));
            if !whole {
                // Shown as it is; what is missing follows.
                self.flip(scene, next)?;
                return Ok(false);
            }
            next
        };
        let Some(page) = pages.get_mut(next) else { return Ok(true) };
        page.paint(view, size, painted, pointer.filter(|_| painted.is_some()));
        self.flip(scene, next)?;
        Ok(true)
    }

    /// Paints what is out of date in a scene that is not shown, so that it is ready.
    pub fn prepare(&mut self, scene: Scene, view: &View<'_>) {
        let size = self.size();
        if scene == self.shown.0 || self.flipping.is_some_and(|(next, _)| next == scene) {
            return;
        }
        let Some([ready, spare]) = self.scenes.get_mut(scene) else { return };
        if !ready.damage.is_empty() || ready.cursor.is_some() {
            ready.paint(view, size, None, None);
        } else if spare.is_all_damaged(size) {
            // So that the frame after the switch has not everything to paint.
            spare.paint(view, size, None, None);
        }
    }

    fn flip(&mut self, scene: Scene, page: usize) -> io::Result<()> {
        let Some(next) = self.scenes.get(scene).and_then(|pages| pages.get(page)) else {
            return Ok(());
        };
        self.screen.flip(&next.buffer)?;
        self.flipping = Some((scene, page));
        self.flipped_at = Moment::now();
        Ok(())
    }

    /// Sets the card's own pointer, or says what has to be painted.
    fn pointer(&mut self, pointer: Option<Pointer<'_>>, view: &View<'_>) -> Option<PaintedCursor> {
        let has_plane = self.screen.has_cursor();
        let on_plane = pointer.filter(|pointer| has_plane && Plane::takes(pointer, view));
        for step in self.plane.steps(on_plane.as_ref()) {
            match step {
                Step::Move(at) => self.screen.move_cursor(at),
                Step::Show(picture) => self.screen.set_cursor(Some(picture)),
                Step::Hide => self.screen.set_cursor(None),
            }
        }
        pointer
            .filter(|_| on_plane.is_none())
            .map(|pointer| PaintedCursor { at: pointer.at, shape: pointer.shape })
    }
}

/// Returns whether a card refuses because somebody else is its master.
fn is_anothers(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(nix::libc::EACCES | nix::libc::EBUSY))
}

/// Makes the buffers of `count` scenes in the screen's mode, sets it, and shows each buffer once.
fn show(screen: &Screen, count: usize) -> io::Result<Vec<[Page; 2]>> {
    let whole = Rect::all(screen.monitor().size);
    let mut buffers = Vec::new();
    let shown = (|| {
        for _ in 0..2 * count {
            buffers.push(screen.buffer()?);
        }
        if let Some(first) = buffers.first() {
            screen.set_mode(first)?;
        }
        // The first time a buffer is shown, some drivers move it: not at the first switch.
        for buffer in buffers.iter().chain(buffers.first()) {
            screen.flip(buffer).and_then(|()| screen.wait_for_flip())?;
        }
        Ok(())
    })();
    if let Err(error) = shown {
        buffers.into_iter().for_each(|buffer| screen.free(buffer));
        return Err(error);
    }
    let mut pages =
        buffers.into_iter().map(|buffer| Page { buffer, damage: vec![whole], cursor: None });
    let pairs = std::iter::from_fn(|| Some([pages.next()?, pages.next()?]));
    Ok(pairs.collect())
}

impl Page {
    fn is_all_damaged(&self, size: Size) -> bool {
        self.damage.contains(&Rect::all(size))
    }

    fn add(&mut self, rect: Rect) {
        if self.damage.iter().any(|known| known.shared(rect) == rect) {
            return;
        }
        self.damage.push(rect);
        if self.damage.len() > RECTS_MAX {
            let all = self.damage.drain(..).fold(Rect::default(), Rect::around);
            self.damage.push(all);
        }
    }

    fn paint(
        &mut self,
        view: &View<'_>,
        size: Size,
        painted: Option<PaintedCursor>,
        pointer: Option<Pointer<'_>>,
    ) {
        let cursor = pointer.map(|pointer| (pointer.picture, pointer.top_left(), pointer.owner));
        let before = self.cursor.map(|old| around((old.at.0, old.at.1)));
        let after = cursor.map(|(_, at, _)| square(at, CURSOR_SIDE));
        let mut clips = std::mem::take(&mut self.damage);
        clips.extend(before.into_iter().chain(after));
        let view = View { cursor, ..*view };
        let (bytes, stride) = self.buffer.pixels();
        let mut target = Target { bytes, stride, size };
        for clip in clips {
            view.paint(&mut target, clip);
        }
        self.cursor = painted;
    }
}

/// Returns wherever a pointer that points here may have been painted.
fn around((x, y): (i32, i32)) -> Rect {
    let side = i32::try_from(CURSOR_SIDE).unwrap_or(0);
    square((x - side, y - side), 2 * CURSOR_SIDE)
}

impl Drop for Display {
    fn drop(&mut self) {
        for page in self.scenes.drain(..).flatten() {
            self.screen.free(page.buffer);
        }
    }
}
