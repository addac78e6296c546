//! The seat of the simulated ward PC as a person has it: keys, mouse, and the screen.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::qmp::Qmp;
use crate::wardpc::SECOND_SCREEN;
use crate::{Failure, Outcome, WardPc};

/// Returns what the PC has besides: a screen with memory for several pictures, one whose size can change, a keyboard,
/// a mouse that says where it is.
pub fn hardware(dir: &Path) -> Vec<String> {
    let vnc = format!("unix:{},display=second-screen,head=0", dir.join(SECOND_SCREEN).display());
    [
        ["-device", "virtio-gpu-pci,id=second-screen,romfile="],
        ["-vnc", &vnc],
        ["-global", "VGA.vgamem_mb=64"],
        ["-device", "usb-kbd,id=keyboard,bus=xhci.0,port=1"],
        ["-device", "usb-tablet,id=mouse,bus=xhci.0,port=2"],
    ]
    .concat()
    .into_iter()
    .map(str::to_owned)
    .collect()
}

/// How long a key is held.
const HOLD: Duration = Duration::from_millis(30);
/// How long a person reads a question; before half of it no answer counts.
const READ: Duration = Duration::from_secs(1);
/// How often the screen is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// A colour as 0xRRGGBB.
pub type Colour = u32;

/// A picture of the screen.
pub struct Picture {
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    bytes: Vec<u8>,
}

impl Picture {
    /// Reads a PPM (P6), as QEMU writes it.
    fn parse(file: &[u8]) -> Option<Self> {
        let mut rest = file.strip_prefix(b"P6\n")?;
        let mut number = || -> Option<usize> {
            let end = rest.iter().position(|byte| byte.is_ascii_whitespace())?;
            let text = std::str::from_utf8(rest.get(..end)?).ok()?;
            rest = rest.get(end + 1..)?;
            text.parse().ok()
        };
        let (width, height, _depth) = (number()?, number()?, number()?);
        (rest.len() == width * height * 3).then(|| Self { width, height, bytes: rest.to_vec() })
    }

    /// Returns the colour of a pixel.
    pub fn at(&self, x: usize, y: usize) -> Colour {
        let start = (y * self.width + x) * 3;
        let pixel = self.bytes.get(start..start + 3).unwrap_or_default();
        pixel.iter().fold(0, |colour, byte| colour << 8 | Colour::from(*byte))
    }

    /// Returns the most frequent colour of the pixels of a rectangle.
    pub fn mostly(&self, x: usize, y: usize, width: usize, height: usize) -> Colour {
        let mut counts = std::collections::HashMap::new();
        for (py, px) in (y..y + height).flat_map(|py| (x..x + width).map(move |px| (py, px))) {
            *counts.entry(self.at(px, py)).or_insert(0) += 1;
        }
        counts.into_iter().max_by_key(|(_, count)| *count).map_or(0, |(colour, _)| colour)
    }

    /// Returns how many pixels of a rectangle have another colour.
    pub fn others(&self, x: usize, y: usize, width: usize, height: usize, than: Colour) -> usize {
        let all = (y..y + height).flat_map(|py| (x..x + width).map(move |px| (px, py)));
        all.filter(|&(px, py)| self.at(px, py) != than).count()
    }

    /// Rows of the banner, as the agent computes them.
    pub fn banner_rows(&self) -> usize {
        (self.height / 34).clamp(24, 64) / 2 * 2
    }

    /// Returns the bytes of the rows that the banner has.
    pub fn banner(&self) -> &[u8] {
        self.bytes.get(..self.banner_rows() * self.width * 3).unwrap_or_default()
    }

    /// Returns the colour of the banner behind its writing.
    pub fn banner_colour(&self) -> Colour {
        self.mostly(self.width * 35 / 100, 3, self.width / 5, self.banner_rows() - 6)
    }
}

/// A person at the PC.
pub struct Person<'a> {
    pc: &'a WardPc,
    qmp: Qmp,
    /// The screen looked at; the only one if there is none of this name.
    screen: Option<String>,
}

impl<'a> Person<'a> {
    /// Takes keyboard, mouse and screen of a PC.
    pub fn at(pc: &'a WardPc) -> Outcome<Self> {
        Ok(Self { pc, qmp: pc.qmp()?, screen: None })
    }

    /// Looks at another of the PC's screens from now on.
    pub fn look_at(mut self, device: &str) -> Self {
        self.screen = Some(device.to_owned());
        self
    }

    /// Returns the way to the PC's hardware, which takes one client at a time.
    pub fn hardware(&mut self) -> &mut Qmp {
        &mut self.qmp
    }

    /// Returns the connection for machine protocol commands: plugging and pulling.
    pub fn qmp(&mut self, command: &str, arguments: Value) -> Outcome<Value> {
        self.qmp.execute(command, arguments)
    }

    /// Presses or lets go of a key, by its QEMU name.
    pub fn key(&mut self, key: &str, down: bool) -> Outcome {
        let data = json!({"down": down, "key": {"type": "qcode", "data": key}});
        self.send(json!([{"type": "key", "data": data}]))
    }

    fn send(&mut self, events: Value) -> Outcome {
        self.qmp.execute("input-send-event", json!({"events": events}))?;
        Ok(())
    }

    /// Types keys one after the other.
    pub fn types(&mut self, keys: &[&str]) -> Outcome {
        for key in keys {
            self.key(key, true)?;
            std::thread::sleep(HOLD);
            self.key(key, false)?;
            std::thread::sleep(HOLD);
        }
        Ok(())
    }

    /// Answers a question that is on the screen, as somebody does who reads it first.
    pub fn answers(&mut self, key: &str) -> Outcome {
        std::thread::sleep(READ);
        self.types(&[key])
    }

    /// Types a text on a keyboard with the American layout.
    pub fn enters(&mut self, text: &str) -> Outcome {
        for c in text.chars() {
            let (key, shift) = key_of(c)
                .ok_or_else(|| Failure(format!("no key of this keyboard writes {c:?}")))?;
            if shift {
                self.key("shift", true)?;
                std::thread::sleep(HOLD);
            }
            self.types(&[&key])?;
            if shift {
                self.key("shift", false)?;
                std::thread::sleep(HOLD);
            }
        }
        Ok(())
    }

    /// Presses keys together, the last one last, and lets go in the opposite order.
    pub fn chord(&mut self, keys: &[&str]) -> Outcome {
        for key in keys {
            self.key(key, true)?;
            std::thread::sleep(HOLD);
        }
        for key in keys.iter().rev() {
            self.key(key, false)?;
            std::thread::sleep(HOLD);
        }
        Ok(())
    }

    /// Moves the pointer to a place on the screen, each axis from 0 to 32767.
    pub fn point(&mut self, x: u32, y: u32) -> Outcome {
        let axis =
            |axis: &str, value: u32| json!({"type": "abs", "data": {"axis": axis, "value": value}});
        self.send(json!([axis("x", x), axis("y", y)]))
    }

    /// Presses the left button and lets it go.
    pub fn click(&mut self) -> Outcome {
        for down in [true, false] {
            self.send(json!([{"type": "btn", "data": {"down": down, "button": "left"}}]))?;
            std::thread::sleep(HOLD);
        }
        Ok(())
    }

    /// Looks at the screen.
    pub fn look(&mut self) -> Outcome<Picture> {
        let file = self.pc.dir().join("screen.ppm");
        self.dump(&file, "ppm")?;
        let bytes = std::fs::read(&file)?;
        Picture::parse(&bytes).ok_or_else(|| Failure("QEMU's picture cannot be read".into()))
    }

    /// Takes a photograph of the screen (PNG).
    pub fn photograph(&mut self, to: &Path) -> Outcome {
        self.dump(to, "png")
    }

    fn dump(&mut self, to: &Path, format: &str) -> Outcome {
        let mut arguments = json!({"filename": to, "format": format});
        if let Some(device) = &self.screen {
            arguments["device"] = device.as_str().into();
            arguments["head"] = 0.into();
        }
        self.qmp.execute("screendump", arguments).map(drop)
    }

    /// Looks until the screen is as wanted.
    pub fn see(
        &mut self,
        what: &str,
        time: Duration,
        wanted: impl Fn(&Picture) -> bool,
    ) -> Outcome<Picture> {
        let until = Instant::now() + crate::patience::patience(time);
        loop {
            let picture = self.look()?;
            if wanted(&picture) {
                return Ok(picture);
            }
            if Instant::now() > until {
                let file = std::env::temp_dir().join("bulkhead-not-seen.png");
                self.photograph(&file)?;
                return Err(Failure(format!(
                    "did not see {what}; the banner is #{:06x}, the middle #{:06x}; picture in {}",
                    picture.banner_colour(),
                    picture.mostly(picture.width / 4, picture.height / 4, 50, 50),
                    file.display()
                )));
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// Returns the key, by its QEMU name, and whether Shift is held.
fn key_of(c: char) -> Option<(String, bool)> {
    let plain = |name: &str| Some((name.to_owned(), false));
    let shifted = |name: &str| Some((name.to_owned(), true));
    match c {
        'a'..='z' | '0'..='9' => plain(&c.to_string()),
        'A'..='Z' => shifted(&c.to_ascii_lowercase().to_string()),
        ' ' => plain("spc"),
        '\n' => plain("ret"),
        '-' => plain("minus"),
        '_' => shifted("minus"),
        '=' => plain("equal"),
        '+' => shifted("equal"),
        '\'' => plain("apostrophe"),
        ',' => plain("comma"),
        '.' => plain("dot"),
        '/' => plain("slash"),
        ';' => plain("semicolon"),
        '|' => shifted("backslash"),
        '>' => shifted("dot"),
        '<' => shifted("comma"),
        '$' => shifted("4"),
        '(' => shifted("9"),
        ')' => shifted("0"),
        '%' => shifted("5"),
        _ => None,
    }
}
