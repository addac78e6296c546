//! Keyboards, mice, touchpads and touch screens: found, grabbed for the seat alone, read.
//!
//! ```text
//!   device --events--> reader --+--> contacts --> pad      which moves, turns and taps
//!                               |             --> the first finger of a touch screen, which points
//!                               +--> reports: keys, buttons, a way or a place, wheels
//! ```
//!
//! [`facts`] tells which kind a device is by what the kernel says of it (`docs/design/decisions/0016-touchpads.md`).

mod codes;
mod contacts;
mod facts;
mod pad;
mod reader;
mod surface;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clock::Moment;
use evdev::raw_stream::RawDevice;
use evdev::{EventType, InputEvent, KeyCode, LedCode};
use input_linux::EvdevHandle;
use nix::libc;
use policy::Policy;
use policy::request::UsbDevice;
use printable::Label;

use super::core::codes::BTN_TOUCH;
use super::core::{DeviceId, Report};
use facts::EventCapabilities;
use reader::Reader;

/// The directory with the nodes of input devices.
const NODES: &str = "/dev/input";
/// The most devices at once; more than a desk has room for.
const DEVICES_MAX: usize = 64;
/// The most reads by which what is left of lost events is left out: more than the kernel holds of one device.
const DRAINS_MAX: usize = 256;

/// The parts that a device plays at the seat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InputRoles {
    pub keyboard: bool,
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
    /// The parts that it plays at the seat.
    pub abilities: InputRoles,
}

impl Description {
    /// Returns the domain the policy ties it to, by name.
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
struct GrabbedDevice {
    path: PathBuf,
    device: RawDevice,
    description: Description,
    reader: Reader,
}

/// An event of an input device.
#[derive(Debug)]
pub enum DeviceEvent {
    /// The device was plugged in.
    Plugged(DeviceId, Description),
    /// The device was unplugged.
    Unplugged(DeviceId),
    /// The device said more than was read, so that what is down on it is not known: nothing counts until it is pressed anew.
    Dropped(DeviceId),
    /// The device reported, at this time.
    Report(DeviceId, Report, Moment),
}

/// All devices of the seat.
#[derive(Default)]
pub struct Devices {
    grabbed: BTreeMap<DeviceId, GrabbedDevice>,
    next: DeviceId,
    /// Devices that could not be grabbed, so that it is said once.
    refused: BTreeMap<PathBuf, String>,
    /// When somebody last typed.
    typed: Option<Moment>,
}

impl Devices {
    /// Takes devices that are new and lets go of those that are gone.
    pub fn look(&mut self) -> Vec<DeviceEvent> {
        let mut out = Vec::new();
        let nodes = nodes();
        self.refused.retain(|path, _| nodes.contains(path));
        for path in &nodes {
            let known = self.grabbed.values().any(|grabbed| grabbed.path == *path);
            if known || self.grabbed.len() >= DEVICES_MAX {
                continue;
            }
            match take(path) {
                Ok(Some(grabbed)) => {
                    self.refused.remove(path);
                    self.next += 1;
                    out.push(DeviceEvent::Plugged(self.next, grabbed.description.clone()));
                    self.grabbed.insert(self.next, grabbed);
                }
                Ok(None) => {}
                // It is gone again; what comes in its place says so itself.
                Err(error) if is_gone(&error) => {}
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
        out
    }

    /// Returns what to wait for.
    pub fn fds(&self) -> impl Iterator<Item = (DeviceId, BorrowedFd<'_>)> {
        self.grabbed.iter().map(|(id, grabbed)| (*id, grabbed.device.as_fd()))
    }

    /// Reads what a device has to say.
    pub fn read(&mut self, id: DeviceId) -> Vec<DeviceEvent> {
        let Some(grabbed) = self.grabbed.get_mut(&id) else { return Vec::new() };
        let mut out = Vec::new();
        let events = grabbed.device.fetch_events().map(Vec::from_iter);
        let mut read = events.and_then(|events| {
            let GrabbedDevice { device, reader, .. } = grabbed;
            reader.add_all(id, events, self.typed, &mut out, || EventCapabilities::of(device))
        });
        if read.is_ok() && grabbed.reader.is_lost() {
            read = grabbed.find_again();
        }
        let gone = read.is_err_and(|e| {
            !matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
        });
        if gone {
            self.grabbed.remove(&id);
            out.push(DeviceEvent::Unplugged(id));
            // Another may have its node by now, and have been passed over as long as this one seemed to be there.
            out.extend(self.look());
        }
        self.typed = out.iter().filter_map(typed_at).next_back().or(self.typed);
        out
    }

    /// Sets the lights of every keyboard; bit n for `LED_*` n.
    pub fn set_lights(&mut self, lights: u8, pinned: impl Fn(DeviceId) -> bool) {
        for (id, grabbed) in &mut self.grabbed {
            let Some(leds) = grabbed.device.supported_leds() else { continue };
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
                let _ = grabbed.device.send_events(&events);
            }
        }
    }

    /// Returns the devices there are.
    pub fn descriptions(&self) -> impl Iterator<Item = (DeviceId, &Description)> {
        self.grabbed.iter().map(|(id, grabbed)| (*id, &grabbed.description))
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOENT | libc::ENXIO))
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

/// Returns what this PC has, for the doctor, who takes nothing.
#[must_use]
pub fn abilities() -> InputRoles {
    nodes().iter().filter_map(|path| open(path).ok()).fold(InputRoles::default(), |all, device| {
        let found =
            EventCapabilities::of(&device).map(|facts| facts.abilities()).unwrap_or_default();
        InputRoles {
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
fn take(path: &Path) -> io::Result<Option<GrabbedDevice>> {
    let mut device = open(path)?;
    // Not the time of day, which somebody may set while a finger is on a pad: the clock of `clock::Moment`.
    EvdevHandle::new(device.as_fd()).set_clock_id(libc::CLOCK_BOOTTIME)?;
    let abilities = EventCapabilities::of(&device)?.abilities();
    if abilities == InputRoles::default() {
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
    // What was pressed before is the console's, or nobody's: the reader starts from how the device is now.
    let reader = reader_of(&device)?;
    Ok(Some(GrabbedDevice { path: path.to_owned(), device, description, reader }))
}

impl GrabbedDevice {
    /// Leaves out what the kernel still holds of a surface that lost events, and starts from how it is now.
    fn find_again(&mut self) -> io::Result<()> {
        for _ in 0..DRAINS_MAX {
            match self.device.fetch_events().map(drop) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.reader = reader_of(&self.device)?;
                    return Ok(());
                }
                Err(e) => return Err(e),
            }
        }
        // It goes on at the next read.
        Ok(())
    }
}

fn reader_of(device: &RawDevice) -> io::Result<Reader> {
    let touched = device.get_key_state()?.contains(KeyCode(BTN_TOUCH));
    Ok(Reader::new(EventCapabilities::of(device)?, touched))
}

/// Returns when a report was made in which somebody types: a key that is no modifier went down.
fn typed_at(event: &DeviceEvent) -> Option<Moment> {
    const MODIFIERS: [u16; 8] = [29, 42, 54, 56, 97, 100, 125, 126];
    let DeviceEvent::Report(_, report, time) = event else { return None };
    let types = |&(code, down): &(u16, bool)| down && code < 0x100 && !MODIFIERS.contains(&code);
    report.keys.iter().any(types).then_some(*time)
}

/// Returns the USB socket a device is in, from its place in sysfs.
fn usb_port(node: &Path) -> Option<String> {
    let link = Path::new("/sys/class/input").join(node.file_name()?);
    let place = fs::canonicalize(link).ok()?;
    port_in(&place)
}

/// Returns the last `BUS-PORT.PORT` of a path.
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
