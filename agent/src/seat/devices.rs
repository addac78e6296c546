//! Keyboards, mice and touch screens: found, taken for the seat alone, read.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use evdev::raw_stream::RawDevice;
use evdev::{AbsoluteAxisCode, EventType, InputEvent, KeyCode, LedCode, RelativeAxisCode};
use nix::libc;
use policy::Policy;
use policy::request::UsbDevice;
use printable::Label;

use super::core::{DeviceId, Motion, POSITION_MAX, Report, codes};

/// Where devices are.
const NODES: &str = "/dev/input";
/// The most devices at once; more than a desk has room for.
const DEVICES_MAX: usize = 64;
/// The most keys in one report.
const KEYS_MAX: usize = 64;
/// `SYN_REPORT` and `SYN_DROPPED`.
const SYN_REPORT: u16 = 0;
/// See [`SYN_REPORT`].
const SYN_DROPPED: u16 = 3;

/// What a device is good for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// It types.
    pub keyboard: bool,
    /// It points.
    pub pointer: bool,
}

/// A device as the policy sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// What it calls itself.
    pub name: Label,
    /// `idVendor`.
    pub vendor: u16,
    /// `idProduct`.
    pub product: u16,
    /// Its serial number, if it says one.
    pub serial: Option<String>,
    /// The USB socket it is in, as the kernel writes it: `1-4.2`.
    pub port: Option<String>,
    /// What it is good for.
    pub abilities: Abilities,
}

impl Description {
    /// The domain the policy ties it to, by name.
    #[must_use]
    pub fn pinned_to<'p>(&self, policy: &'p Policy) -> Option<&'p str> {
        let device = UsbDevice {
            vendor: self.vendor,
            product: self.product,
            serial: self.serial.as_deref(),
            port: self.port.as_deref(),
            functions: &[],
        };
        policy.pinned_to(&device).map(|(domain, _)| domain.name.as_str())
    }
}

/// A device the seat has for itself.
struct Taken {
    path: PathBuf,
    device: RawDevice,
    description: Description,
    /// Smallest and largest position on both axes, if it says positions.
    axes: Option<[(i32, i32); 2]>,
    /// What came since the last report was whole.
    partial: Partial,
}

#[derive(Default)]
struct Partial {
    report: Report,
    by: (i32, i32),
    to: (Option<i32>, Option<i32>),
    last: (i32, i32),
    /// The kernel lost events; the rest of this report is of no use.
    dropped: bool,
}

/// What a device did.
#[derive(Debug)]
pub enum Happened {
    /// It is there.
    Plugged(DeviceId, Description),
    /// It is gone.
    Unplugged(DeviceId),
    /// It said more than was read, and what is down on it is not known: nothing, until it is pressed anew.
    Dropped(DeviceId),
    /// It reported, at this time.
    Report(DeviceId, Report, SystemTime),
}

/// All devices of the seat.
#[derive(Default)]
pub struct Devices {
    taken: BTreeMap<DeviceId, Taken>,
    next: DeviceId,
    /// Devices that could not be taken, so that it is said once.
    refused: BTreeMap<PathBuf, String>,
}

impl Devices {
    /// Takes devices that are new and lets go of those that are gone.
    pub fn look(&mut self) -> Vec<Happened> {
        let mut happened = Vec::new();
        let nodes = nodes();
        self.refused.retain(|path, _| nodes.contains(path));
        for path in &nodes {
            let known = self.taken.values().any(|taken| taken.path == *path);
            if known || self.taken.len() >= DEVICES_MAX {
                continue;
            }
            match take(path) {
                Ok(Some(taken)) => {
                    self.refused.remove(path);
                    self.next += 1;
                    happened.push(Happened::Plugged(self.next, taken.description.clone()));
                    self.taken.insert(self.next, taken);
                }
                Ok(None) => {}
                Err(error) => {
                    let problem = error.to_string();
                    if self.refused.insert(path.clone(), problem.clone()).as_ref() != Some(&problem)
                    {
                        tracing::warn!(
                            "{}: the seat cannot have this input device for itself: {problem}; end the program that holds it (fuser {})",
                            path.display(),
                            path.display()
                        );
                    }
                }
            }
        }
        happened
    }

    /// What to wait for.
    pub fn fds(&self) -> impl Iterator<Item = (DeviceId, BorrowedFd<'_>)> {
        self.taken.iter().map(|(id, taken)| (*id, taken.device.as_fd()))
    }

    /// Reads what a device has to say.
    pub fn read(&mut self, id: DeviceId) -> Vec<Happened> {
        let Some(taken) = self.taken.get_mut(&id) else { return Vec::new() };
        let mut happened = Vec::new();
        let gone = match taken.device.fetch_events() {
            Ok(events) => {
                for event in events {
                    taken.partial.add(id, event, taken.axes, &mut happened);
                }
                false
            }
            Err(e) => !matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
        };
        if gone {
            self.taken.remove(&id);
            happened.push(Happened::Unplugged(id));
        }
        happened
    }

    /// Sets the lights of every keyboard; bit n for `LED_*` n.
    pub fn set_lights(&mut self, lights: u8, pinned: impl Fn(DeviceId) -> bool) {
        for (id, taken) in &mut self.taken {
            let Some(leds) = taken.device.supported_leds() else { continue };
            let wanted = [LedCode::LED_NUML, LedCode::LED_CAPSL, LedCode::LED_SCROLLL];
            let events: Vec<InputEvent> = wanted
                .iter()
                .filter(|led| leds.contains(**led) && !pinned(*id))
                .map(|led| {
                    let on = lights >> led.0 & 1;
                    InputEvent::new(EventType::LED.0, led.0, on.into())
                })
                .collect();
            if !events.is_empty() {
                // A keyboard that does not take it is about to be unplugged.
                let _ = taken.device.send_events(&events);
            }
        }
    }

    /// The devices there are.
    pub fn descriptions(&self) -> impl Iterator<Item = (DeviceId, &Description)> {
        self.taken.iter().map(|(id, taken)| (*id, &taken.description))
    }
}

fn nodes() -> Vec<PathBuf> {
    let entries = fs::read_dir(NODES).into_iter().flatten().flatten();
    let mut nodes: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("event"))
        .map(|entry| entry.path())
        .collect();
    nodes.sort();
    nodes
}

/// What this PC has, for the doctor, who takes nothing.
#[must_use]
pub fn abilities() -> Abilities {
    nodes().iter().filter_map(|path| open(path).ok()).fold(Abilities::default(), |all, device| {
        let found = abilities_of(&device);
        Abilities {
            keyboard: all.keyboard || found.keyboard,
            pointer: all.pointer || found.pointer,
        }
    })
}

fn open(path: &Path) -> io::Result<RawDevice> {
    let file =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    RawDevice::from_fd(OwnedFd::from(file))
}

/// Takes a device; `None` if it is none of the seat's.
fn take(path: &Path) -> io::Result<Option<Taken>> {
    let mut device = open(path)?;
    let abilities = abilities_of(&device);
    if abilities == Abilities::default() {
        return Ok(None);
    }
    device.grab()?;
    let id = device.input_id();
    let text = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
    let description = Description {
        name: device
            .name()
            .map(Label::new)
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "without a name".into()),
        vendor: id.vendor(),
        product: id.product(),
        serial: text(device.unique_name()),
        port: usb_port(path),
        abilities,
    };
    let axes = axes_of(&device);
    Ok(Some(Taken {
        path: path.to_owned(),
        device,
        description,
        axes,
        partial: Partial::default(),
    }))
}

fn abilities_of(device: &RawDevice) -> Abilities {
    /// What a power button or a lid has: the host's business.
    const NOT_TYPED: [u16; 4] = [116, 142, 143, 205];
    let keys = device.supported_keys();
    let has = |code: u16| keys.is_some_and(|keys| keys.contains(KeyCode(code)));
    let keyboard = (1..=248).any(|code| has(code) && !NOT_TYPED.contains(&code));
    let moves =
        device.supported_relative_axes().is_some_and(|axes| axes.contains(RelativeAxisCode::REL_X));
    let points = axes_of(device).is_some();
    let pointer = (moves || points) && (has(codes::BTN_LEFT) || has(codes::BTN_TOUCH));
    Abilities { keyboard, pointer }
}

fn axes_of(device: &RawDevice) -> Option<[(i32, i32); 2]> {
    let mut ranges = BTreeMap::new();
    for (axis, info) in device.get_absinfo().ok()? {
        ranges.insert(axis.0, (info.minimum(), info.maximum()));
    }
    let range =
        |axis: AbsoluteAxisCode| ranges.get(&axis.0).copied().filter(|(least, most)| least < most);
    Some([range(AbsoluteAxisCode::ABS_X)?, range(AbsoluteAxisCode::ABS_Y)?])
}

/// The USB socket a device is in, from its place in sysfs.
fn usb_port(node: &Path) -> Option<String> {
    let link = Path::new("/sys/class/input").join(node.file_name()?);
    let place = fs::canonicalize(link).ok()?;
    port_in(&place)
}

/// The last `BUS-PORT.PORT` of a path.
fn port_in(place: &Path) -> Option<String> {
    let is_port = |name: &str| {
        name.split_once('-').is_some_and(|(bus, ports)| {
            let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            number(bus) && ports.split('.').all(number)
        })
    };
    let mut names = place.components().filter_map(|part| part.as_os_str().to_str());
    names.rfind(|name| is_port(name)).map(str::to_owned)
}

impl Partial {
    fn add(
        &mut self,
        id: DeviceId,
        event: InputEvent,
        axes: Option<[(i32, i32); 2]>,
        happened: &mut Vec<Happened>,
    ) {
        match (event.event_type().0, event.code(), event.value()) {
            (0, SYN_DROPPED, _) => {
                happened.push(Happened::Dropped(id));
                self.clear();
                self.dropped = true;
            }
            (0, SYN_REPORT, _) => {
                if !std::mem::take(&mut self.dropped) {
                    self.finish(axes);
                    let report = std::mem::take(&mut self.report);
                    if report != Report::default() {
                        happened.push(Happened::Report(id, report, event.timestamp()));
                    }
                }
                self.clear();
            }
            (codes::EV_KEY, code, value @ 0..=1) if self.report.keys.len() < KEYS_MAX => {
                self.report.keys.push((code, value == 1));
            }
            (codes::EV_REL, 0, value) => self.by.0 = self.by.0.saturating_add(value),
            (codes::EV_REL, 1, value) => self.by.1 = self.by.1.saturating_add(value),
            (codes::EV_REL, code, value)
                if codes::WHEELS.contains(&code)
                    && self.report.wheel.len() < codes::WHEELS.len() =>
            {
                self.report.wheel.push((code, value));
            }
            (codes::EV_ABS, 0, value) => self.to.0 = Some(value),
            (codes::EV_ABS, 1, value) => self.to.1 = Some(value),
            _ => {}
        }
    }

    fn finish(&mut self, axes: Option<[(i32, i32); 2]>) {
        if let (Some([wide, high]), (x, y)) = (axes, self.to)
            && (x.is_some() || y.is_some())
        {
            // An axis that did not move is not reported.
            self.last = (x.unwrap_or(self.last.0), y.unwrap_or(self.last.1));
            self.report.motion = Some(Motion::To(part(self.last.0, wide), part(self.last.1, high)));
        } else if self.by != (0, 0) {
            self.report.motion = Some(Motion::By(self.by.0, self.by.1));
        }
    }

    fn clear(&mut self) {
        self.report = Report::default();
        (self.by, self.to) = ((0, 0), (None, None));
    }
}

/// A position on an axis, from 0 to [`POSITION_MAX`].
fn part(at: i32, (least, most): (i32, i32)) -> u32 {
    let (at, least, most) = (i64::from(at), i64::from(least), i64::from(most));
    let scaled = (at.clamp(least, most) - least) * i64::from(POSITION_MAX) / (most - least).max(1);
    u32::try_from(scaled).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> Description {
        Description {
            name: "scanner".into(),
            vendor: 0x05e0,
            product: 0x1200,
            serial: None,
            port: Some("1-4.2".to_owned()),
            abilities: Abilities { keyboard: true, pointer: false },
        }
    }

    fn add(partial: &mut Partial, events: &[(u16, u16, i32)]) -> Vec<Happened> {
        let mut happened = Vec::new();
        let axes = Some([(0, 32767), (0, 32767)]);
        for (kind, code, value) in events {
            partial.add(1, InputEvent::new(*kind, *code, *value), axes, &mut happened);
        }
        happened
    }

    #[test]
    fn events_become_reports_at_their_end_and_repeats_are_left_out() {
        let mut partial = Partial::default();
        assert!(add(&mut partial, &[(1, 30, 1), (4, 4, 99), (2, 0, 3), (2, 0, 4)]).is_empty());
        let happened = add(&mut partial, &[(0, 0, 0), (1, 30, 2), (0, 0, 1)]);
        let [Happened::Report(1, report, _)] = happened.as_slice() else { panic!("{happened:?}") };
        assert_eq!(report.keys, [(30, true)]);
        assert_eq!(report.motion, Some(Motion::By(7, 0)));
    }

    #[test]
    fn a_position_keeps_the_axis_that_did_not_move() {
        let mut partial = Partial::default();
        add(&mut partial, &[(3, 0, 32767), (3, 1, 0), (0, 0, 0)]);
        let happened = add(&mut partial, &[(3, 1, 32767), (0, 0, 0)]);
        let [Happened::Report(_, report, _)] = happened.as_slice() else { panic!("{happened:?}") };
        assert_eq!(report.motion, Some(Motion::To(POSITION_MAX, POSITION_MAX)));
    }

    #[test]
    fn lost_events_let_everything_go() {
        let mut partial = Partial::default();
        let happened = add(&mut partial, &[(1, 30, 1), (0, 3, 0), (1, 31, 1), (0, 0, 0)]);
        assert!(matches!(happened.as_slice(), [Happened::Dropped(1)]));
    }

    #[test]
    fn a_usb_socket_is_read_off_a_devices_place() {
        let place = "/sys/devices/pci0000:00/0000:00:04.0/usb1/1-4/1-4.2/1-4.2:1.0/0003:05E0:1200.0001/input/input7/event7";
        assert_eq!(port_in(Path::new(place)).as_deref(), Some("1-4.2"));
        assert_eq!(port_in(Path::new("/sys/devices/platform/i8042/serio0/input/input0")), None);
    }

    #[test]
    fn a_policy_ties_a_scanner_by_vendor_and_product() {
        let text = format!(
            "{}\n[[input]]\nid = \"scanner\"\nmatch = {{ vendor = 0x05e0, product = 0x1200 }}\nto = \"clinical\"\n",
            policy_text()
        );
        let policy = Policy::parse("policy.toml", &text).unwrap();
        assert_eq!(device().pinned_to(&policy), Some("clinical"));
        let other = Description { product: 1, ..device() };
        assert_eq!(other.pinned_to(&policy), None);
    }

    fn policy_text() -> &'static str {
        "format = 1\nserial = 1\nissuer = \"x\"\n[[domain]]\nname = \"clinical\"\nlabel = \"C\"\ncolour = \"#1b7f3b\"\nhotkey = \"Ctrl+Alt+1\"\nnetwork = \"none\"\npersistence = \"keep\"\n"
    }
}
