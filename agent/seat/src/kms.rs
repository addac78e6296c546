//! The screen by kernel mode setting: one card, one monitor, its best mode; dumb buffers and page flips. Further
//! monitors on the card are switched off.
//!
//! While the agent is the card's master no console can be drawn there. When the agent ends, however that
//! happens, the kernel closes the card and puts its console back by itself (`docs/design/decisions/0004-console.md`).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use drm::Device as _;
use drm::buffer::{Buffer as _, DrmFourcc};
use drm::control::dumbbuffer::{DumbBuffer, DumbMapping};
use drm::control::{Device as _, Event, Mode, PageFlipFlags, connector, crtc, framebuffer};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use seat_link::{CURSOR_SIDE, Cursor, Size};

use super::edid::preferred_sizes;
use super::modes::{Limits, Traits, ranked};
use super::outputs::{Crtcs, switch_off_others};

/// The directory with the nodes of graphics cards.
const CARDS: &str = "/dev/dri";

/// How long a card may take to show a buffer for the first time.
const FIRST_FLIP_MILLIS: u16 = 1000;

/// Why there is no screen.
#[derive(Debug, thiserror::Error)]
pub enum ScreenError {
    /// This PC has no card that can set modes.
    #[error("there is no graphics card that can set modes (no {}); load its kernel driver, or give the right `card` in [seat] of machine.toml", .0.display())]
    NoCard(PathBuf),
    /// The card does not open.
    #[error("the graphics card {} cannot be opened; run the agent as root", .path.display())]
    Open {
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Another program is master of the card.
    #[error("another program holds the screen of {}; stop the display manager or compositor on this PC (systemctl disable --now display-manager)", .0.display())]
    OtherMaster(PathBuf),
    /// The card has no monitor plugged in.
    #[error("no monitor is connected to {}; plug one in and switch it on", .0.display())]
    NoMonitor(PathBuf),
    /// The monitor does not work with the card.
    #[error("the monitor on {} cannot be driven", .path.display())]
    Drive {
        /// The card's device node.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// A graphics card's node, opened.
#[derive(Debug)]
struct Card(File);

impl AsFd for Card {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
impl drm::Device for Card {}
impl drm::control::Device for Card {}

impl Crtcs for Card {
    fn all(&self) -> io::Result<Vec<crtc::Handle>> {
        Ok(self.resource_handles()?.crtcs().to_vec())
    }

    fn is_lit(&self, crtc: crtc::Handle) -> io::Result<bool> {
        let found = self.get_crtc(crtc)?;
        Ok(found.mode().is_some() || found.framebuffer().is_some())
    }

    fn disable(&self, crtc: crtc::Handle) -> io::Result<()> {
        self.set_crtc(crtc, None, (0, 0), &[], None)
    }
}

/// A monitor, and what it will show.
#[derive(Clone, Debug)]
pub struct Monitor {
    connector: connector::Handle,
    crtc: crtc::Handle,
    mode: Mode,
    /// Modes to try should the card refuse that one, the best first.
    others: Vec<Mode>,
    /// All that were found, to know the monitor again.
    found: Vec<Mode>,
    /// What people call the plug, as `HDMI-A-1`.
    pub name: String,
    /// Pixels across and down.
    pub size: Size,
}

impl Monitor {
    fn is_same(&self, other: &Self) -> bool {
        (self.connector, self.crtc, &self.found) == (other.connector, other.crtc, &other.found)
    }
}

/// A screen that shows what it is given.
pub struct Screen {
    card: Card,
    monitor: Monitor,
    cursor: Option<HardwareCursor>,
}

struct HardwareCursor {
    buffer: Buffer,
}

/// Memory the screen can show, mapped for as long as it lives.
pub struct Buffer {
    dumb: DumbBuffer,
    // The mapping borrows from a copy that is never freed: a few dozen bytes at each change of mode.
    map: DumbMapping<'static>,
    shown_as: Option<framebuffer::Handle>,
}

impl Buffer {
    /// Returns the pixels and the bytes from a row to the next.
    pub fn pixels(&mut self) -> (&mut [u8], usize) {
        let stride = self.dumb.pitch() as usize;
        (&mut self.map, stride)
    }
}

/// Returns the cards there are, or the one that was asked for.
fn candidates(card: Option<&Path>) -> Vec<PathBuf> {
    if let Some(card) = card {
        return vec![card.to_owned()];
    }
    let entries = fs::read_dir(CARDS).into_iter().flatten().flatten();
    let mut cards: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("card"))
        .map(|entry| entry.path())
        .collect();
    cards.sort();
    cards
}

/// Finds the first card that has a monitor, that monitor, and whether nobody draws there; for the doctor, who draws
/// nothing.
///
/// # Errors
/// What is missing.
pub fn look(card: Option<&Path>) -> Result<(PathBuf, Monitor, bool), ScreenError> {
    each(card, |path, card| {
        let monitor = find_monitor(path, &card)?;
        let free = card.acquire_master_lock().is_ok();
        Ok((path.to_owned(), monitor, free))
    })
}

fn each<T>(
    card: Option<&Path>,
    mut works: impl FnMut(&Path, Card) -> Result<T, ScreenError>,
) -> Result<T, ScreenError> {
    let missing = card.unwrap_or(Path::new("/dev/dri/card0")).to_owned();
    let mut problem = ScreenError::NoCard(missing);
    for path in candidates(card) {
        let opened =
            OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&path);
        let result = match opened {
            Ok(file) => works(&path, Card(file)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(ScreenError::NoCard(path)),
            Err(source) => Err(ScreenError::Open { path, source }),
        };
        match result {
            Ok(found) => return Ok(found),
            // A card that only computes is no reason to stop looking.
            Err(found) => problem = found,
        }
    }
    Err(problem)
}

fn find_monitor(path: &Path, card: &Card) -> Result<Monitor, ScreenError> {
    let failed = |source| ScreenError::Drive { path: path.to_owned(), source };
    // A card without outputs says so here.
    let resources = card.resource_handles().map_err(|_| ScreenError::NoCard(path.to_owned()))?;
    let limits = Limits::new(resources.supported_fb_width(), resources.supported_fb_height());
    for handle in resources.connectors() {
        let Ok(connector) = card.get_connector(*handle, true) else { continue };
        if connector.state() != connector::State::Connected {
            continue;
        }
        let own = preferred_sizes(&edid(card, *handle).unwrap_or_default());
        let mut modes = ranked(connector.modes(), Traits::of, &own, &limits).into_iter();
        let Some(mode) = modes.next() else { continue };
        for encoder in connector.encoders() {
            let encoder = card.get_encoder(*encoder).map_err(failed)?;
            let crtcs = resources.filter_crtcs(encoder.possible_crtcs());
            if let Some(crtc) = crtcs.first() {
                return Ok(Monitor {
                    connector: *handle,
                    crtc: *crtc,
                    mode,
                    others: modes.collect(),
                    found: connector.modes().to_vec(),
                    name: connector.to_string(),
                    size: Traits::of(&mode).size,
                });
            }
        }
    }
    Err(ScreenError::NoMonitor(path.to_owned()))
}

/// Returns what a monitor says of itself; nothing, if it says nothing.
fn edid(card: &Card, connector: connector::Handle) -> io::Result<Vec<u8>> {
    let properties = card.get_properties(connector)?;
    for (property, value) in &properties {
        if *value != 0 && card.get_property(*property)?.name() == c"EDID" {
            return card.get_property_blob(*value);
        }
    }
    Ok(Vec::new())
}

impl Screen {
    /// Takes the first card that has a monitor, or the one that was asked for.
    ///
    /// # Errors
    /// What is missing, and what to do.
    pub fn open(card: Option<&Path>) -> Result<Self, ScreenError> {
        each(card, |path, card| {
            let monitor = find_monitor(path, &card)?;
            // The first to open a card is its master; this asks for what was not given.
            if card.acquire_master_lock().is_err() {
                return Err(ScreenError::OtherMaster(path.to_owned()));
            }
            if let Some((count, error)) = switch_off_others(&card, monitor.crtc) {
                tracing::warn!(
                    "{}: {count} outputs that are not used cannot be switched off ({error}); unplug the monitors that show anything else than Bulkhead's banner at the top",
                    path.display()
                );
            }
            let mut this = Self { card, monitor, cursor: None };
            this.cursor = this.hardware_cursor();
            Ok(this)
        })
    }

    /// Returns what it shows on.
    #[must_use]
    pub fn monitor(&self) -> &Monitor {
        &self.monitor
    }

    /// Returns whether what is plugged in is still this monitor in this mode.
    #[must_use]
    pub fn is_current(&self) -> bool {
        find_monitor(Path::new(""), &self.card).is_ok_and(|found| found.is_same(&self.monitor))
    }

    /// Takes the monitor's next mode, for a card that refuses this one; false when there is none.
    pub fn take_next_mode(&mut self) -> bool {
        if self.monitor.others.is_empty() {
            return false;
        }
        self.monitor.mode = self.monitor.others.remove(0);
        self.monitor.size = Traits::of(&self.monitor.mode).size;
        true
    }

    /// Becomes readable when a flip is done.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.card.as_fd()
    }

    /// Makes memory for a whole screen.
    ///
    /// # Errors
    /// The card has none left.
    pub fn buffer(&self) -> io::Result<Buffer> {
        let Size { width, height } = self.monitor.size;
        let mut buffer = self.memory((width, height), DrmFourcc::Xrgb8888)?;
        match self.card.add_framebuffer(&buffer.dumb, 24, 32) {
            Ok(handle) => {
                buffer.shown_as = Some(handle);
                Ok(buffer)
            }
            Err(error) => {
                self.free(buffer);
                Err(error)
            }
        }
    }

    fn memory(&self, size: (u32, u32), format: DrmFourcc) -> io::Result<Buffer> {
        let dumb = self.card.create_dumb_buffer(size, format, 32)?;
        let map = self.card.map_dumb_buffer(Box::leak(Box::new(dumb)))?;
        Ok(Buffer { dumb, map, shown_as: None })
    }

    /// Gives a buffer's memory back.
    pub fn free(&self, buffer: Buffer) {
        let Buffer { dumb, map, shown_as } = buffer;
        drop(map);
        // Closing the card frees whatever fails here.
        if let Some(handle) = shown_as {
            let _ = self.card.destroy_framebuffer(handle);
        }
        let _ = self.card.destroy_dumb_buffer(dumb);
    }

    /// Sets the mode and shows a buffer.
    ///
    /// # Errors
    /// The card refuses.
    pub fn set_mode(&self, buffer: &Buffer) -> io::Result<()> {
        let Monitor { connector, crtc, mode, .. } = &self.monitor;
        self.card.set_crtc(*crtc, buffer.shown_as, (0, 0), &[*connector], Some(*mode))
    }

    /// Shows a buffer from the next frame on; [`Self::flipped`] says when.
    ///
    /// # Errors
    /// The last flip is not done, or the card refuses.
    pub fn flip(&self, buffer: &Buffer) -> io::Result<()> {
        let handle = buffer.shown_as.ok_or(io::ErrorKind::InvalidInput)?;
        self.card.page_flip(self.monitor.crtc, handle, PageFlipFlags::EVENT, None)
    }

    /// Returns whether a flip was done since the last call.
    pub fn flipped(&self) -> bool {
        let Ok(events) = self.card.receive_events() else { return false };
        events.into_iter().filter(|event| matches!(event, Event::PageFlip(_))).count() > 0
    }

    /// Waits for the end of a flip; only while nothing else is on the screen yet.
    ///
    /// # Errors
    /// The card does not finish it.
    pub fn wait_for_flip(&self) -> io::Result<()> {
        let mut fds = [PollFd::new(self.fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::from(FIRST_FLIP_MILLIS))? > 0 && self.flipped() {
            Ok(())
        } else {
            Err(io::ErrorKind::TimedOut.into())
        }
    }

    /// Returns whether the card shows the pointer by itself.
    #[must_use]
    pub fn has_cursor(&self) -> bool {
        self.cursor.is_some()
    }

    #[allow(deprecated, reason = "cursor planes need atomic modesetting, which not every card has")]
    fn hardware_cursor(&self) -> Option<HardwareCursor> {
        let side = CURSOR_SIDE;
        let mut buffer = self.memory((side, side), DrmFourcc::Argb8888).ok()?;
        buffer.map.fill(0);
        match self.card.set_cursor2(self.monitor.crtc, Some(&buffer.dumb), (0, 0)) {
            Ok(()) => Some(HardwareCursor { buffer }),
            Err(_) => {
                self.free(buffer);
                None
            }
        }
    }

    /// Sets the picture of the pointer, or hides it.
    #[allow(deprecated, reason = "as above")]
    pub fn set_cursor(&mut self, picture: Option<&Cursor>) {
        let Some(mut cursor) = self.cursor.take() else { return };
        let crtc = self.monitor.crtc;
        let hot = |pixel: u32| i32::try_from(pixel).unwrap_or(0);
        let done = match picture {
            Some(picture) => {
                let stride = cursor.buffer.dumb.pitch() as usize;
                let rows = cursor.buffer.map.chunks_mut(stride);
                for (row, pixels) in rows.zip(picture.pixels.chunks(CURSOR_SIDE as usize * 4)) {
                    for (to, from) in row.iter_mut().zip(pixels) {
                        *to = *from;
                    }
                }
                let spot = (hot(picture.hot_x), hot(picture.hot_y));
                self.card.set_cursor2(crtc, Some(&cursor.buffer.dumb), spot)
            }
            None => self.card.set_cursor2::<DumbBuffer>(crtc, None, (0, 0)),
        };
        match done {
            Ok(()) => self.cursor = Some(cursor),
            // What it shows is not certain any more: it shows nothing, and the pointer is painted.
            Err(error) => {
                tracing::warn!("the card does not show the pointer, which is painted: {error}");
                let _ = self.card.set_cursor2::<DumbBuffer>(crtc, None, (0, 0));
                self.free(cursor.buffer);
            }
        }
    }

    /// Moves the pointer's top left here, now or when it is shown again: the kernel keeps the place of one that is hidden.
    #[allow(deprecated, reason = "as above")]
    pub fn move_cursor(&self, at: (i32, i32)) {
        if self.has_cursor() {
            let _ = self.card.move_cursor(self.monitor.crtc, at);
        }
    }
}
