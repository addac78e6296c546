//! The screen: finding it, saying what is on it, drawing.

use seat_link::{Cursor, Rect, Size};

use super::{BACKGROUND, FLIP_MAX, SCREEN_AGAIN, Stage};
use crate::Backend;
use crate::compose::{Body, Owner, View};
use crate::core::{Core, Geometry, Input};
use crate::display::Display;
use crate::domain::SeatDomain;
use crate::notices::NoticeContent;
use crate::picture::Prompt;
use crate::plane::Pointer;
use crate::scenes::{Layout, Overlay, Scenes};
use printable::explain;

/// The box of [`Notices`](crate::notices), as it was drawn last.
#[derive(Default)]
pub(super) struct DrawnNotice {
    /// The number of what it says.
    number: u64,
    /// The index of the choice that is marked in it, and how often its text was replaced.
    state: (Option<usize>, u64),
    overlay: Option<Overlay>,
}

impl Stage {
    pub(super) fn take_flips(&mut self) {
        if let Some(display) = &mut self.display
            && display.take_events()
        {
            let times = display.switch_times();
            self.daemon.report(|report| crate::measure(report, times));
        }
    }

    /// Returns whether a flip is on its way. One that never ends is the card's fault; the screen is set up anew.
    pub(super) fn is_flipping(&mut self) -> bool {
        match self.display.as_ref().and_then(Display::flipping_for) {
            Some(time) if time > FLIP_MAX => {
                tracing::error!("the screen does not finish a frame; it is set up anew");
                self.lose_display();
                false
            }
            flipping => flipping.is_some(),
        }
    }

    pub(super) fn update_geometry(&mut self) {
        let pictures = self.domains.iter().map(|domain| {
            domain
                .picture()
                .map(|(frame, picture)| self.layout.place(shown(picture, frame.size())))
                .unwrap_or_default()
        });
        let geometry = Geometry {
            screen: self.layout.screen,
            banner: self.layout.rows,
            pictures: pictures.collect(),
            clicks: self.scenes.clicks().to_vec(),
        };
        self.feed(Input::Geometry(geometry), None);
    }

    pub(super) fn look_at_screen(&mut self) {
        let Backend::Kms(card) = &self.backend else { return };
        if self.display.is_some() || self.now() < self.screen_again {
            return;
        }
        self.screen_again = self.now() + SCREEN_AGAIN;
        // Each domain has a scene, and so has the lock.
        match Display::open(card.as_deref(), self.names.len() + 1) {
            Ok(display) => self.take_display(display),
            Err(error) => {
                let problem = explain(&error);
                if self.problem.as_ref() != Some(&problem) {
                    tracing::error!("no screen: {problem}; the domains run on");
                    self.problem = Some(problem.clone());
                }
                self.daemon
                    .report(|report| (report.screen, report.problem) = (None, Some(problem)));
            }
        }
    }

    fn take_display(&mut self, display: Display) {
        self.layout = Layout::new(display.size());
        let Size { width, height } = display.size();
        let screen = format!("{} {width}x{height}", display.monitor().name);
        tracing::info!("screen: {screen}");
        let desktop = self.layout.guest();
        self.daemon.report(|report| {
            (report.screen, report.problem) = (Some(screen), None);
            report.desktop = Some((desktop.width, desktop.height));
        });
        self.problem = None;
        self.display = Some(display);
        self.scenes.forget();
        self.overlay = DrawnNotice::default();
        let size = self.layout.guest();
        for index in 0..self.domains.len() {
            let resized = self.domains.get_mut(index).map(|domain| domain.resize(size));
            if let Some(Err(error)) = resized {
                self.lose(index, &error.to_string());
            }
        }
        self.redraw_texts();
        self.update_geometry();
    }

    /// Closes the display: nothing is shown until another is opened.
    pub(super) fn lose_display(&mut self) {
        self.display = None;
        self.look_for_question();
    }

    /// Draws the box that is to be shown, if it is another one.
    fn draw_overlay(&mut self) {
        self.notices.advance(self.epoch.elapsed());
        let (number, said) = self.notices.shown();
        let state = match said {
            Some(NoticeContent::Question(question)) => (question.marked, question.told),
            _ => (None, 0),
        };
        if (self.overlay.number, self.overlay.state) == (number, state) {
            return;
        }
        let overlay = said.map(|said| {
            let (text, prompt) = match said {
                NoticeContent::Notice(text) => (text, Prompt::Notice),
                NoticeContent::Question(question) => (question.text.as_str(), Prompt::of(question)),
            };
            Overlay::new(&self.face, &self.layout, text, prompt)
        });
        let before = std::mem::replace(&mut self.overlay, DrawnNotice { number, state, overlay });
        let rects = [&before, &self.overlay].map(|drawn| drawn.overlay.as_ref().map(Overlay::rect));
        rects.into_iter().flatten().for_each(|rect| self.mark(rect));
    }

    /// Marks a part of every domain's screen as out of date.
    fn mark(&mut self, rect: Rect) {
        if let Some(display) = &mut self.display {
            (0..self.names.len()).for_each(|scene| display.damage(scene, rect));
        }
    }

    /// Tells the core when the box of the open question has come onto the screen, whole, and when the screen is lost.
    pub(super) fn look_for_question(&mut self) {
        let (number, said) = self.notices.shown();
        let asked = match said {
            Some(NoticeContent::Question(question)) => Some(question.id),
            _ => None,
        };
        let DrawnNotice { number: drawn, overlay, .. } = &self.overlay;
        let front = self.core.front();
        let visible = match (&self.display, overlay) {
            (Some(display), Some(overlay)) => {
                *drawn == number && (self.seen == asked || display.shows(front, overlay.rect()))
            }
            _ => false,
        };
        let seen = asked.filter(|_| visible);
        let before = std::mem::replace(&mut self.seen, seen);
        if before != seen {
            let changes = [before.map(|id| (id, false)), seen.map(|id| (id, true))];
            for (id, shown) in changes.into_iter().flatten() {
                self.feed(Input::Shown(id, shown), None);
            }
        }
    }

    /// Draws the agent's own texts anew where they changed.
    pub(super) fn redraw_texts(&mut self) {
        let stalled =
            self.domains.iter().zip(&self.policy.appearances).filter(|(d, _)| d.is_stalled());
        let stalled = stalled.map(|(_, appearance)| {
            format!("{} does not react to keyboard and mouse", appearance.label)
        });
        let notes = self.texts.iter().filter_map(|text| text.banner_note.clone());
        let notes: Vec<String> =
            self.banner_notes.iter().cloned().chain(notes).chain(stalled).collect();
        let mut cards: Vec<Vec<String>> = self
            .texts
            .iter()
            .zip(&self.policy.appearances)
            .map(|(text, appearance)| {
                let said = text.placeholder.lines().map(str::to_owned);
                std::iter::once(appearance.label.clone()).chain(said).collect()
            })
            .collect();
        cards.push(vec![
            "LOCKED".to_owned(),
            format!("{} unlocks", self.policy.policy.hotkeys().lock.value),
        ]);
        let Self { scenes, face, layout, policy, display, domains, .. } = self;
        let before = scenes.clicks().len();
        let damage = scenes.redraw(face, layout, &policy.appearances, &notes, &cards);
        let Some(display) = display else { return };
        for (scene, what) in damage {
            if what.banner {
                display.damage(scene, layout.banner());
            }
            let shows_card = domains.get(scene).is_none_or(|domain| domain.picture().is_none());
            if what.card && shows_card {
                display.damage(scene, Rect::all(layout.screen));
            }
        }
        if before == 0 {
            self.update_geometry();
        }
    }

    pub(super) fn draw(&mut self) {
        self.redraw_texts();
        self.draw_overlay();
        let lock = self.names.len();
        let (front, locked) = (self.core.front(), self.core.locked());
        let scene = if locked { lock } else { front };
        let due = self.now() >= self.background;
        let shown = self.present(scene);
        if let (true, Some(domain)) = (shown, self.domains.get_mut(front))
            && !locked
        {
            domain.acknowledge();
        }
        if due {
            self.background = self.now() + BACKGROUND;
            self.domains.iter_mut().for_each(SeatDomain::catch_up);
            // One at a time: a key may come.
            self.prepared = (self.prepared + 1) % (lock + 1);
            let turns = (self.prepared..=lock).chain(0..self.prepared);
            let damaged = |other: &usize| {
                self.display.as_ref().is_some_and(|display| display.is_damaged(*other))
            };
            if let Some(other) = turns.filter(|other| *other != scene).find(damaged) {
                self.prepare(other);
            }
            for other in (0..lock).filter(|other| *other != scene) {
                if let Some(domain) = self.domains.get_mut(other) {
                    domain.acknowledge();
                }
            }
            if self.display.is_none()
                && let Some(domain) = self.domains.get_mut(front)
            {
                domain.acknowledge();
            }
        }
    }

    /// Presents `scene`; returns whether the last update of the domain in front is queued for scan-out.
    pub(super) fn present(&mut self, scene: usize) -> bool {
        let Self { display, core, domains, scenes, overlay, arrow, layout, .. } = self;
        let (Some(display), Some(view)) =
            (display.as_mut(), view(scenes, domains, layout, overlay.overlay.as_ref(), scene))
        else {
            return false;
        };
        let pointer = pointer(core, domains, scene, overlay.overlay.as_ref(), arrow);
        match display.present(scene, &view, pointer) {
            Ok(presented) => presented,
            Err(e) if e.raw_os_error() == Some(nix::libc::EBUSY) => false,
            Err(error) => {
                tracing::error!("the screen fails: {error}; it is set up anew");
                self.lose_display();
                false
            }
        }
    }

    fn prepare(&mut self, scene: usize) {
        let Self { display, domains, scenes, overlay, layout, .. } = self;
        if let (Some(display), Some(view)) =
            (display.as_mut(), view(scenes, domains, layout, overlay.overlay.as_ref(), scene))
        {
            display.prepare(scene, &view);
        }
    }
}

/// Returns the part of a guest's picture that its frame memory holds.
pub(super) fn shown(picture: Size, frame: Size) -> Size {
    Size { width: picture.width.min(frame.width), height: picture.height.min(frame.height) }
}

fn view<'a>(
    scenes: &'a Scenes,
    domains: &'a [SeatDomain],
    layout: &Layout,
    overlay: Option<&'a Overlay>,
    scene: usize,
) -> Option<View<'a>> {
    let parts = scenes.get(scene)?;
    let domain = domains.get(scene);
    let body = match domain.and_then(SeatDomain::picture) {
        Some((frame, picture)) => Body::Picture(frame, layout.place(shown(picture, frame.size()))),
        None => Body::Card(&parts.card),
    };
    // Nothing lies over the lock.
    let overlay = overlay.filter(|_| domain.is_some());
    let overlay = overlay.map(|overlay| (&overlay.canvas, overlay.at));
    Some(View { banner: &parts.banner, body, overlay, cursor: None })
}

fn pointer<'a>(
    core: &Core,
    domains: &'a [SeatDomain],
    scene: usize,
    overlay: Option<&Overlay>,
    arrow: &'a Cursor,
) -> Option<Pointer<'a>> {
    let domain = domains.get(scene)?;
    let at = core.pointer();
    let on_the_box = overlay.is_some_and(|overlay| overlay.covers(at));
    if core.pointer_is_ours() || on_the_box || domain.picture().is_none() {
        return Some(Pointer { picture: arrow, shape: 0, at, owner: Owner::Agent });
    }
    // Numbers of shapes of different domains must not be taken for each other.
    let (picture, shape) = domain.cursor();
    let shape = shape.wrapping_mul(1 << 16).wrapping_add(scene as u64 + 1);
    Some(Pointer { picture: picture?, shape, at, owner: Owner::Guest })
}
