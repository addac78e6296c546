//! The seat's thread: waits for devices, links, the screen, the daemon and time, and has the pure parts decide.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime};

use link::{Cursor, PACKET_MAX, Rect, Size};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;

use super::compose::{Body, View, arrow};
use super::core::{Action, Core, DeviceId, DomainIndex, Geometry, Input, Output, Time};
use super::devices::{Devices, Happened};
use super::display::{Display, Pointer};
use super::domain::{Domain, News};
use super::picture::Face;
use super::scenes::{Layout, Overlay, Scenes};
use super::uevent::Uevents;
use super::{Backend, Command, Daemon, Happening, SeatPolicy, Words};

/// The screen guests are given while there is none.
const NO_SCREEN: Size = Size { width: 1280, height: 800 };
/// How often a screen that is missing is looked for.
const SCREEN_AGAIN: Duration = Duration::from_secs(2);
/// How often what is not shown is brought up to date.
const BACKGROUND: Duration = Duration::from_millis(100);
/// How long a notice is shown.
const NOTICE: Duration = Duration::from_secs(6);
/// Updates taken of one link before the others have their turn.
const UPDATES: usize = 2;

pub(super) struct Stage {
    backend: Backend,
    names: Vec<String>,
    policy: SeatPolicy,
    daemon: Daemon,
    inbox: mpsc::Receiver<Command>,
    wake: Arc<EventFd>,
    epoch: Instant,
    core: Core,
    domains: Vec<Domain>,
    words: Vec<Words>,
    news: Vec<String>,
    devices: Devices,
    /// Devices tied to a domain.
    pins: BTreeMap<DeviceId, DomainIndex>,
    /// What they call themselves, for when they are gone.
    called: BTreeMap<DeviceId, String>,
    uevents: Option<Uevents>,
    face: Face,
    layout: Layout,
    scenes: Scenes,
    display: Option<Display>,
    problem: Option<String>,
    screen_again: Time,
    background: Time,
    overlay: Option<(Overlay, Until)>,
    arrow: Cursor,
    lights: u8,
    buffer: Box<[u8; PACKET_MAX]>,
    ending: bool,
}

/// Until when an overlay is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    Time(Time),
    Answered(u64),
}

impl Stage {
    pub(super) fn new(
        backend: Backend,
        names: Vec<String>,
        policy: SeatPolicy,
        daemon: Daemon,
        inbox: mpsc::Receiver<Command>,
        wake: Arc<EventFd>,
    ) -> io::Result<Self> {
        let layout = Layout::new(NO_SCREEN);
        let geometry = Geometry {
            screen: layout.screen,
            banner: layout.rows,
            pictures: vec![Rect::default(); names.len()],
            clicks: Vec::new(),
        };
        let uevents = match backend {
            Backend::Kms(_) => Some(Uevents::open()?),
            Backend::None => None,
        };
        Ok(Self {
            core: Core::new(names.len(), policy.settings.clone(), geometry),
            domains: names.iter().map(|_| Domain::default()).collect(),
            words: vec![Words::default(); names.len()],
            news: Vec::new(),
            devices: Devices::default(),
            pins: BTreeMap::new(),
            called: BTreeMap::new(),
            uevents,
            face: Face::Dots,
            layout,
            scenes: Scenes::new(),
            display: None,
            problem: None,
            screen_again: Time::ZERO,
            background: Time::ZERO,
            overlay: None,
            arrow: arrow(),
            lights: 0,
            buffer: Box::new([0; PACKET_MAX]),
            epoch: Instant::now(),
            ending: false,
            backend,
            names,
            policy,
            daemon,
            inbox,
            wake,
        })
    }

    pub(super) fn run(&mut self) {
        if matches!(self.backend, Backend::Kms(_)) {
            match Face::of_the_host() {
                Ok(face) => self.face = face,
                Err(problem) => tracing::warn!("{problem}"),
            }
            self.look_for_devices();
        }
        while !self.ending {
            self.look_at_screen();
            self.commands();
            self.read_devices();
            self.read_links();
            if let Some(display) = &mut self.display
                && display.take_events()
            {
                let times = display.switch_times();
                self.daemon.report(|report| report.measure(times));
            }
            self.feed(Input::Tick, None);
            self.overlay_ends();
            self.draw();
            self.wait();
        }
    }

    fn now(&self) -> Time {
        self.epoch.elapsed()
    }

    fn wait(&mut self) {
        let changes = {
            let mut fds = vec![PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)];
            for (_, fd) in self.devices.fds() {
                fds.push(PollFd::new(fd, PollFlags::POLLIN));
            }
            for domain in &self.domains {
                // One that is owed an answer says nothing anyway.
                if let Some(fd) = domain.fd().filter(|_| !domain.is_owing()) {
                    fds.push(PollFd::new(fd, PollFlags::POLLIN));
                }
            }
            if let Some(display) = &self.display {
                fds.push(PollFd::new(display.fd(), PollFlags::POLLIN));
            }
            if let Some(uevents) = &self.uevents {
                fds.push(PollFd::new(uevents.fd(), PollFlags::POLLIN));
            }
            let left = self.deadline().saturating_sub(self.now());
            let millis = u16::try_from(left.as_millis().saturating_add(1)).unwrap_or(u16::MAX);
            // An interrupted wait is a short one.
            let _ = poll(&mut fds, PollTimeout::from(millis));
            let _ = self.wake.read();
            self.uevents.as_ref().map(Uevents::take).unwrap_or_default()
        };
        if changes.input {
            self.look_for_devices();
        }
        if changes.screen {
            self.screen_again = Time::ZERO;
            if self.display.as_ref().is_some_and(|display| !display.is_current()) {
                tracing::info!("the monitor changed");
                self.display = None;
            }
        }
    }

    /// When the next thing is due even though nothing comes.
    fn deadline(&self) -> Time {
        let mut next = self.now() + Duration::from_secs(60);
        let mut due = |time: Time| next = next.min(time);
        if matches!(self.backend, Backend::Kms(_)) && self.display.is_none() {
            due(self.screen_again);
        }
        if let Some((_, Until::Time(until))) = &self.overlay {
            due(*until);
        }
        self.core.deadline().into_iter().for_each(&mut due);
        let stale = self.display.as_ref().is_some_and(Display::has_stale);
        if stale || self.domains.iter().any(Domain::is_owing) {
            due(self.background);
        }
        next
    }

    fn commands(&mut self) {
        while let Ok(command) = self.inbox.try_recv() {
            match command {
                Command::Policy(policy) => self.take_policy(*policy),
                Command::Attach(domain, socket) => {
                    let size = self.layout.guest();
                    let attached = self.domains.get_mut(domain).map(|d| d.attach(socket, size));
                    if let Some(Err(error)) = attached {
                        self.lose(domain, &error.to_string());
                    }
                    self.picture_changed(domain);
                }
                Command::Detach(domain) => {
                    if let Some(domain) = self.domains.get_mut(domain) {
                        domain.detach();
                    }
                    self.picture_changed(domain);
                }
                Command::Say(domain, words) => {
                    if let Some(place) = self.words.get_mut(domain) {
                        *place = words;
                    }
                }
                Command::News(news) => self.news = news,
                Command::Switch(domain) => {
                    self.feed(Input::Switch(domain), Some(SystemTime::now()))
                }
                Command::Lock => self.feed(Input::Lock, None),
                Command::Unlock => self.feed(Input::Unlock, None),
                Command::Notice(text) => {
                    let until = Until::Time(self.now() + NOTICE);
                    self.show_overlay(&text, until);
                }
                Command::Ask(id, text) => {
                    self.show_overlay(&text, Until::Answered(id));
                    self.feed(Input::Ask(id), None);
                }
                Command::Withdraw(id) => {
                    self.feed(Input::Withdraw(id), None);
                    self.answered(id);
                }
                Command::Stop => self.ending = true,
            }
        }
    }

    fn take_policy(&mut self, policy: SeatPolicy) {
        self.policy = policy;
        self.scenes.forget();
        if let Some(display) = &mut self.display {
            display.all_stale();
        }
        self.feed(Input::Settings(self.policy.settings.clone()), None);
        let devices: Vec<_> =
            self.devices.descriptions().map(|(id, found)| (id, found.clone())).collect();
        for (id, description) in devices {
            let pin = self.pin_of(&description);
            self.set_pin(id, pin);
            self.feed(Input::Plugged(id, pin), None);
        }
        self.report_devices();
    }

    fn pin_of(&self, description: &super::devices::Description) -> Option<DomainIndex> {
        let name = description.pinned_to(&self.policy.policy)?;
        self.names.iter().position(|known| known == name)
    }

    fn set_pin(&mut self, id: DeviceId, pin: Option<DomainIndex>) {
        match pin {
            Some(domain) => self.pins.insert(id, domain),
            None => self.pins.remove(&id),
        };
    }

    fn look_for_devices(&mut self) {
        let found = self.devices.look();
        self.happened(found);
    }

    fn read_devices(&mut self) {
        let ids: Vec<DeviceId> = self.devices.fds().map(|(id, _)| id).collect();
        for id in ids {
            let happened = self.devices.read(id);
            self.happened(happened);
        }
    }

    fn happened(&mut self, happened: Vec<Happened>) {
        for one in happened {
            match one {
                Happened::Plugged(id, description) => {
                    let pin = self.pin_of(&description);
                    self.set_pin(id, pin);
                    self.feed(Input::Plugged(id, pin), None);
                    self.called.insert(id, description.name.clone());
                    self.daemon.tell(Happening::Plugged(description.name, pin));
                    self.report_devices();
                    self.set_lights(true);
                }
                Happened::Unplugged(id) => {
                    self.set_pin(id, None);
                    self.feed(Input::Unplugged(id), None);
                    let name = self.called.remove(&id).unwrap_or_default();
                    self.daemon.tell(Happening::Unplugged(name));
                    self.report_devices();
                }
                Happened::Report(id, report, time) => {
                    self.feed(Input::Report(id, report), Some(time));
                }
            }
        }
    }

    /// Has the core decide, and carries out what it says. `time` is when a person acted.
    fn feed(&mut self, input: Input, time: Option<SystemTime>) {
        for output in self.core.feed(self.epoch.elapsed(), input) {
            match output {
                Output::Send(domain, target, events) => {
                    if let Some(domain) = self.domains.get_mut(domain) {
                        domain.input(target, events);
                    }
                }
                Output::Switched { from, to } => {
                    if let (Some(display), Some(time)) = (&mut self.display, time) {
                        display.asked_at(time);
                    }
                    // The frame first; everything else can wait for it.
                    self.draw();
                    self.set_lights(false);
                    let front = self.names.get(to).cloned().unwrap_or_default();
                    self.daemon.report(|report| {
                        report.front = front;
                        report.switches += 1;
                    });
                    self.daemon.tell(Happening::Switched { from, to });
                }
                Output::Locked { idle } => {
                    self.draw();
                    self.daemon.report(|report| report.locked = true);
                    self.daemon.tell(Happening::Locked { idle });
                }
                Output::Unlocked => {
                    self.daemon.report(|report| report.locked = false);
                    self.daemon.tell(Happening::Unlocked);
                }
                // The lock chord on a locked screen.
                Output::Pressed(Action::Lock, _) => self.feed(Input::Unlock, None),
                Output::Pressed(action, front) => {
                    self.daemon.tell(Happening::Pressed(action, front));
                }
                Output::Answered(id, yes) => {
                    self.answered(id);
                    self.daemon.tell(Happening::Answered(id, yes));
                }
                Output::PointerMoved => {}
            }
        }
    }

    fn set_lights(&mut self, anew: bool) {
        let front = self.domains.get(self.core.front());
        let wanted = front.map(Domain::lights).unwrap_or_default();
        if anew || wanted != self.lights {
            self.lights = wanted;
            let Self { devices, pins, .. } = self;
            devices.set_lights(wanted, |id| pins.contains_key(&id));
        }
    }

    fn report_devices(&self) {
        let count = |able: fn(&super::devices::Abilities) -> bool| {
            self.devices.descriptions().filter(|(_, found)| able(&found.abilities)).count()
        };
        let (keyboards, pointers) = (count(|a| a.keyboard), count(|a| a.pointer));
        let pinned = self.devices.descriptions().filter_map(|(id, found)| {
            let domain = self.names.get(*self.pins.get(&id)?)?;
            Some((found.name.clone(), domain.clone()))
        });
        let pinned: Vec<_> = pinned.collect();
        self.daemon.report(|report| {
            (report.keyboards, report.pointers, report.pinned) = (keyboards, pointers, pinned);
        });
    }

    fn read_links(&mut self) {
        for index in 0..self.domains.len() {
            for _ in 0..UPDATES {
                let Some(domain) = self.domains.get_mut(index) else { continue };
                match domain.take(&mut self.buffer) {
                    Ok(news) if news == News::default() => break,
                    Ok(news) => self.show(index, news),
                    Err(error) => {
                        self.lose(index, &error.to_string());
                        break;
                    }
                }
            }
        }
    }

    /// Gives a link up.
    fn lose(&mut self, index: DomainIndex, problem: &str) {
        if let Some(domain) = self.domains.get_mut(index) {
            domain.detach();
        }
        let name = self.names.get(index).cloned().unwrap_or_default();
        tracing::warn!(
            domain = name,
            "{problem}; it has no screen and no input until it is restarted"
        );
        self.picture_changed(index);
        self.daemon.tell(Happening::LinkLost(index, problem.to_owned()));
    }

    fn show(&mut self, index: DomainIndex, news: News) {
        if news.picture {
            self.picture_changed(index);
        }
        if let Some((frame, picture)) = self.domains.get(index).and_then(Domain::picture) {
            let place = self.layout.place(shown(picture, frame.size()));
            let damage = news.damage.within(Size { width: place.width, height: place.height });
            let rect = Rect { x: place.x + damage.x, y: place.y + damage.y, ..damage };
            if let Some(display) = self.display.as_mut().filter(|_| !damage.is_empty()) {
                display.stale(index, rect);
            }
        }
        if news.lights && index == self.core.front() {
            self.set_lights(false);
        }
    }

    /// A domain shows something else altogether, or nothing.
    fn picture_changed(&mut self, index: DomainIndex) {
        let whole = Rect::all(self.layout.screen);
        if let Some(display) = &mut self.display {
            display.stale(index, whole);
        }
        self.tell_geometry();
    }

    fn tell_geometry(&mut self) {
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

    fn look_at_screen(&mut self) {
        let Backend::Kms(card) = &self.backend else { return };
        if self.display.is_some() || self.now() < self.screen_again {
            return;
        }
        self.screen_again = self.now() + SCREEN_AGAIN;
        // Each domain has a scene, and so has the lock.
        match Display::open(card.as_deref(), self.names.len() + 1) {
            Ok(display) => self.take_display(display),
            Err(error) => {
                let problem = super::super::supervisor::devices::explain(&error);
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
        self.daemon.report(|report| (report.screen, report.problem) = (Some(screen), None));
        self.problem = None;
        self.display = Some(display);
        self.scenes.forget();
        self.overlay = None;
        let size = self.layout.guest();
        for index in 0..self.domains.len() {
            let resized = self.domains.get_mut(index).map(|domain| domain.resize(size));
            if let Some(Err(error)) = resized {
                self.lose(index, &error.to_string());
            }
        }
        self.say();
        self.tell_geometry();
    }

    fn show_overlay(&mut self, text: &str, until: Until) {
        self.hide_overlay();
        let question = matches!(until, Until::Answered(_));
        let overlay = Overlay::new(&self.face, &self.layout, text, question);
        self.mark(overlay.rect());
        self.overlay = Some((overlay, until));
    }

    fn hide_overlay(&mut self) {
        if let Some((overlay, _)) = self.overlay.take() {
            self.mark(overlay.rect());
        }
    }

    /// A part of every domain's screen is out of date.
    fn mark(&mut self, rect: Rect) {
        if let Some(display) = &mut self.display {
            (0..self.names.len()).for_each(|scene| display.stale(scene, rect));
        }
    }

    fn answered(&mut self, id: u64) {
        if self.overlay.as_ref().is_some_and(|(_, until)| *until == Until::Answered(id)) {
            self.hide_overlay();
        }
    }

    fn overlay_ends(&mut self) {
        let now = self.now();
        if let Some((_, Until::Time(until))) = &self.overlay
            && now >= *until
        {
            self.hide_overlay();
        }
    }

    /// Draws what the agent itself says, where it is new.
    fn say(&mut self) {
        let stalled = self.domains.iter().zip(&self.policy.looks).filter(|(d, _)| d.is_stalled());
        let stalled =
            stalled.map(|(_, look)| format!("{} does not react to keyboard and mouse", look.label));
        let words = self.words.iter().filter_map(|words| words.news.clone());
        let news: Vec<String> = self.news.iter().cloned().chain(words).chain(stalled).collect();
        let mut cards: Vec<Vec<String>> = self
            .words
            .iter()
            .zip(&self.policy.looks)
            .map(|(words, look)| vec![look.label.clone(), words.card.clone()])
            .collect();
        cards.push(vec![
            "LOCKED".to_owned(),
            format!("{} unlocks", self.policy.policy.hotkeys().lock.value),
        ]);
        let Self { scenes, face, layout, policy, display, domains, .. } = self;
        let before = scenes.clicks().len();
        let fresh = scenes.say(face, layout, &policy.looks, &news, &cards);
        let Some(display) = display else { return };
        for (scene, what) in fresh {
            if what.banner {
                display.stale(scene, layout.banner());
            }
            let shows_card = domains.get(scene).is_none_or(|domain| domain.picture().is_none());
            if what.card && shows_card {
                display.stale(scene, Rect::all(layout.screen));
            }
        }
        if before == 0 {
            self.tell_geometry();
        }
    }

    fn draw(&mut self) {
        self.say();
        let lock = self.names.len();
        let (front, locked) = (self.core.front(), self.core.locked());
        let scene = if locked { lock } else { front };
        let due = self.now() >= self.background;
        let shown = self.present(scene);
        if let (true, Some(domain)) = (shown, self.domains.get_mut(front))
            && !locked
        {
            domain.taken();
        }
        if due {
            self.background = self.now() + BACKGROUND;
            for other in (0..=lock).filter(|other| *other != scene) {
                self.prepare(other);
                if let Some(domain) = self.domains.get_mut(other) {
                    domain.taken();
                }
            }
            if self.display.is_none()
                && let Some(domain) = self.domains.get_mut(front)
            {
                domain.taken();
            }
        }
    }

    /// Brings the screen up to date; whether what the front's last update brought is on its way there.
    fn present(&mut self, scene: usize) -> bool {
        let Self { display, core, domains, scenes, overlay, arrow, layout, .. } = self;
        let (Some(display), Some(view)) =
            (display.as_mut(), view(scenes, domains, layout, overlay.as_ref(), scene))
        else {
            return false;
        };
        let pointer = pointer(core, domains, scene, arrow);
        match display.present(scene, &view, pointer) {
            Ok(presented) => presented,
            Err(e) if e.raw_os_error() == Some(nix::libc::EBUSY) => false,
            Err(error) => {
                tracing::error!("the screen fails: {error}; it is set up anew");
                self.display = None;
                false
            }
        }
    }

    fn prepare(&mut self, scene: usize) {
        let Self { display, domains, scenes, overlay, layout, .. } = self;
        if let (Some(display), Some(view)) =
            (display.as_mut(), view(scenes, domains, layout, overlay.as_ref(), scene))
        {
            display.prepare(scene, &view);
        }
    }
}

/// The part of a guest's picture that its frame memory holds.
fn shown(picture: Size, frame: Size) -> Size {
    Size { width: picture.width.min(frame.width), height: picture.height.min(frame.height) }
}

fn view<'a>(
    scenes: &'a Scenes,
    domains: &'a [Domain],
    layout: &Layout,
    overlay: Option<&'a (Overlay, Until)>,
    scene: usize,
) -> Option<View<'a>> {
    let parts = scenes.get(scene)?;
    let domain = domains.get(scene);
    let body = match domain.and_then(Domain::picture) {
        Some((frame, picture)) => Body::Picture(frame, layout.place(shown(picture, frame.size()))),
        None => Body::Card(&parts.card),
    };
    // Nothing lies over the lock.
    let overlay = overlay.filter(|_| domain.is_some());
    let overlay = overlay.map(|(overlay, _)| (&overlay.canvas, overlay.at));
    Some(View { banner: &parts.banner, body, overlay, cursor: None })
}

fn pointer<'a>(
    core: &Core,
    domains: &'a [Domain],
    scene: usize,
    arrow: &'a Cursor,
) -> Option<Pointer<'a>> {
    let domain = domains.get(scene)?;
    let at = core.pointer();
    if core.pointer_is_ours() || domain.picture().is_none() {
        return Some(Pointer { picture: arrow, shape: 0, at });
    }
    // Numbers of shapes of different domains must not be taken for each other.
    let (picture, shape) = domain.cursor();
    let shape = shape.wrapping_mul(1 << 16).wrapping_add(scene as u64 + 1);
    Some(Pointer { picture: picture?, shape, at })
}
