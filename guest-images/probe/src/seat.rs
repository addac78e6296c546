//! The guest's screen and input: what was typed and pointed is written down, and pictures are painted.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use drm::Device as _;
use drm::buffer::DrmFourcc;
use drm::control::dumbbuffer::DumbBuffer;
use drm::control::{ClipRect, Device as _, Mode, ModeTypeFlags, connector, crtc, framebuffer};
use serde_json::{Value, json};

use crate::request::number;

/// `struct input_event` on x86-64: two times of eight bytes, type, code, value.
const EVENT_BYTES: usize = 24;
/// The most events kept for a test to fetch.
const EVENTS_MAX: usize = 100_000;
/// How often new devices are looked for.
const LOOK: Duration = Duration::from_millis(50);

/// Type, code, value, and when it was read, in microseconds since the kernel started.
type Event = (u16, u16, i32, u64);
static EVENTS: Mutex<Vec<Event>> = Mutex::new(Vec::new());
static PAINTER: Mutex<Option<Painter>> = Mutex::new(None);

/// Returns whether the guest has a screen: its GPU, as virtio numbers it (virtio 1.2 section 4.1.2).
pub(crate) fn has_screen() -> bool {
    let devices = fs::read_dir("/sys/bus/pci/devices").into_iter().flatten().flatten();
    devices
        .filter_map(|device| fs::read_to_string(device.path().join("device")).ok())
        .any(|id| id.trim() == "0x1050")
}

/// Writes down, from now on, whatever input devices report.
pub(crate) fn record() {
    std::thread::spawn(|| {
        let mut known = BTreeSet::new();
        loop {
            for node in nodes() {
                if known.insert(node.clone())
                    && let Ok(file) = File::open(&node)
                {
                    std::thread::spawn(move || read(file));
                }
            }
            std::thread::sleep(LOOK);
        }
    });
}

fn nodes() -> Vec<PathBuf> {
    let entries = fs::read_dir("/dev/input").into_iter().flatten().flatten();
    let is_event = |path: &PathBuf| path.to_string_lossy().contains("/event");
    entries.map(|entry| entry.path()).filter(is_event).collect()
}

fn read(mut file: File) {
    let mut raw = [0; EVENT_BYTES];
    while file.read_exact(&mut raw).is_ok() {
        let [.., k0, k1, c0, c1, v0, v1, v2, v3] = raw;
        let kind = u16::from_le_bytes([k0, k1]);
        if !(1..=3).contains(&kind) {
            continue; // reports' ends, scan codes, lights
        }
        let value = i32::from_le_bytes([v0, v1, v2, v3]);
        let mut events = EVENTS.lock().unwrap_or_else(PoisonError::into_inner);
        if events.len() < EVENTS_MAX {
            let micros = (crate::kernel::uptime() * 1e6) as u64;
            events.push((kind, u16::from_le_bytes([c0, c1]), value, micros));
        }
    }
}

/// Returns what was written down since the last call, and which keys and buttons are down for the guest's kernel now.
pub(crate) fn events() -> Result<Value, String> {
    let nodes = nodes();
    let mut down = Vec::new();
    for node in &nodes {
        // One that has gone meanwhile has none.
        let Ok(device) = File::open(node) else { continue };
        let keys = crate::sys::keys_down(&device);
        down.extend(keys.map_err(|error| format!("{}: {error}", node.display()))?);
    }
    let events = std::mem::take(&mut *EVENTS.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(json!({"events": events, "devices": nodes.len(), "down": down}))
}

struct Card(File);

impl AsFd for Card {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
impl drm::Device for Card {}
impl drm::control::Device for Card {}

struct Painter {
    card: Card,
    connector: connector::Handle,
    crtc: crtc::Handle,
    picture: Option<(DumbBuffer, framebuffer::Handle, (u16, u16))>,
}

impl Painter {
    fn open() -> Result<Self, String> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).open("/dev/dri/card0");
        let card = Card(file.map_err(|e| format!("/dev/dri/card0: {e}"))?);
        let _ = card.acquire_master_lock();
        let resources = card.resource_handles().map_err(text)?;
        let connector = *resources.connectors().first().ok_or("no connector")?;
        let crtc = *resources.crtcs().first().ok_or("no crtc")?;
        Ok(Self { card, connector, crtc, picture: None })
    }

    fn modes(&self) -> Result<Vec<Mode>, String> {
        let info = self.card.get_connector(self.connector, true).map_err(text)?;
        Ok(info.modes().to_vec())
    }

    /// Shows a picture: `colour` above, its negative in the lower half, one pixel of white in each corner.
    fn paint(&mut self, wanted: Option<(u16, u16)>, colour: u32) -> Result<(u16, u16), String> {
        let modes = self.modes()?;
        let preferred = |mode: &&Mode| mode.mode_type().contains(ModeTypeFlags::PREFERRED);
        let mode = match wanted {
            Some(size) => modes.iter().find(|mode| mode.size() == size),
            None => modes.iter().find(preferred).or(modes.first()),
        };
        let mode = *mode.ok_or("no such mode")?;
        let (width, height) = mode.size();
        let size = (u32::from(width), u32::from(height));
        let buffer = self.card.create_dumb_buffer(size, DrmFourcc::Xrgb8888, 32).map_err(text)?;
        let shown = self.card.add_framebuffer(&buffer, 24, 32).map_err(text)?;
        self.fill(buffer, size, colour)?;
        self.card
            .set_crtc(self.crtc, Some(shown), (0, 0), &[self.connector], Some(mode))
            .map_err(text)?;
        let whole = ClipRect::new(0, 0, width, height);
        let _ = self.card.dirty_framebuffer(shown, &[whole]);
        if let Some((old, handle, _)) = self.picture.replace((buffer, shown, (width, height))) {
            let _ = self.card.destroy_framebuffer(handle);
            let _ = self.card.destroy_dumb_buffer(old);
        }
        Ok((width, height))
    }

    fn fill(&self, mut buffer: DumbBuffer, size: (u32, u32), colour: u32) -> Result<(), String> {
        use drm::buffer::Buffer;
        let stride = buffer.pitch() as usize;
        let mut map = self.card.map_dumb_buffer(&mut buffer).map_err(text)?;
        let (width, height) = (size.0 as usize, size.1 as usize);
        for y in 0..height {
            let colour = if y < height / 2 { colour } else { !colour };
            let row = &mut map[y * stride..y * stride + width * 4];
            for pixel in row.chunks_exact_mut(4) {
                pixel.copy_from_slice(&colour.to_le_bytes());
            }
        }
        for (x, y) in [(0, 0), (width - 1, 0), (0, height - 1), (width - 1, height - 1)] {
            map[y * stride + x * 4..][..4].fill(0xff);
        }
        Ok(())
    }

    /// Moves everything up by a line of text, as a terminal does, and writes a new one.
    fn scroll(&self, mut buffer: DumbBuffer, size: (usize, usize)) -> Result<(), String> {
        use drm::buffer::Buffer;
        const LINE: usize = 16;
        let stride = buffer.pitch() as usize;
        let mut map = self.card.map_dumb_buffer(&mut buffer).map_err(text)?;
        let end = size.1 * stride;
        map.copy_within(LINE * stride..end, 0);
        for (at, byte) in map[end - LINE * stride..end].iter_mut().enumerate() {
            *byte = (at % 97) as u8;
        }
        Ok(())
    }

    /// Updates the whole screen again and again, or scrolls it by a line of text each time; returns how often.
    fn flood(&self, time: Duration, scroll: bool) -> Result<u64, String> {
        let (buffer, shown, (width, height)) = self.picture.ok_or("nothing is painted yet")?;
        let until = Instant::now() + time;
        let mut count = 0;
        while Instant::now() < until {
            if scroll {
                self.scroll(buffer, (width.into(), height.into()))?;
            }
            let colour = if count % 2 == 0 { 0x00ff_0000 } else { 0x0000_ff00 };
            if !scroll && count % 16 == 0 {
                self.fill(buffer, (width.into(), height.into()), colour)?;
            }
            let whole = ClipRect::new(0, 0, width, height);
            self.card.dirty_framebuffer(shown, &[whole]).map_err(text)?;
            count += 1;
        }
        Ok(count)
    }
}

fn text(error: std::io::Error) -> String {
    error.to_string()
}

fn painter<T>(work: impl FnOnce(&mut Painter) -> Result<T, String>) -> Result<T, String> {
    let mut painter = PAINTER.lock().unwrap_or_else(PoisonError::into_inner);
    match &mut *painter {
        Some(painter) => work(painter),
        none => work(none.insert(Painter::open()?)),
    }
}

/// Returns the modes the screen offers, the preferred one first.
pub(crate) fn modes() -> Result<Value, String> {
    let modes = painter(|painter| painter.modes())?;
    let preferred = |mode: &Mode| mode.mode_type().contains(ModeTypeFlags::PREFERRED);
    let (first, rest): (Vec<Mode>, Vec<Mode>) = modes.into_iter().partition(preferred);
    let sizes: Vec<(u16, u16)> = first.iter().chain(&rest).map(Mode::size).collect();
    Ok(json!({"modes": sizes}))
}

/// Paints the screen in one colour, in the preferred mode or the one asked for.
pub(crate) fn paint(request: &Value) -> Result<Value, String> {
    let colour = number(request, "colour")? as u32;
    let side = |key: &str| request[key].as_u64().map(|side| side as u16);
    let size = side("width").zip(side("height"));
    let size = painter(|painter| painter.paint(size, colour))?;
    Ok(json!({"size": size}))
}

/// Floods the screen with updates for some milliseconds.
pub(crate) fn flood(request: &Value) -> Result<Value, String> {
    let time = Duration::from_millis(number(request, "millis")?.min(30_000));
    let scroll = request["scroll"] == true;
    if request["background"] == true {
        std::thread::spawn(move || painter(|painter| painter.flood(time, scroll)));
        return Ok(json!({}));
    }
    Ok(json!({"updates": painter(|painter| painter.flood(time, scroll))?}))
}
