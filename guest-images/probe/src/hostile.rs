//! The worst driver a GPU can have: takes the device from the kernel and sends it commands made of noise.
//!
//! Virtio over PCI as in virtio 1.2 section 4.1; commands as in section 5.7.6. Pages are found by `/proc/self/pagemap`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::request::number;
use crate::sys::{self, Mapping};

/// Types of capabilities, `VIRTIO_PCI_CAP_COMMON_CFG` and `VIRTIO_PCI_CAP_NOTIFY_CFG` (virtio 1.2 section 4.1.4).
const COMMON: u8 = 1;
const NOTIFY: u8 = 2;
/// Registers of the common configuration (section 4.1.4.3).
const DRIVER_FEATURE_SELECT: usize = 8;
const DRIVER_FEATURE: usize = 12;
const DEVICE_STATUS: usize = 20;
const QUEUE_SELECT: usize = 22;
const QUEUE_SIZE: usize = 24;
const QUEUE_ENABLE: usize = 28;
const QUEUE_DESC: usize = 32;
/// The device status `DEVICE_NEEDS_RESET` (virtio 1.2 section 2.1).
const NEEDS_RESET: u8 = 0x40;
const SIZE: u16 = 16;
const PAGE: usize = 4096;
/// Where things are in the pages: descriptors, available ring, used ring, command, response.
const DESC: usize = 0;
const AVAIL: usize = PAGE;
const USED: usize = 2 * PAGE;
const COMMAND: usize = 3 * PAGE;
const RESPONSE: usize = 4 * PAGE;
const PAGES: usize = 5;
/// How long the device may take with one command.
const PATIENCE: Duration = Duration::from_millis(500);

struct Gpu {
    bar: Mapping,
    common: usize,
    notify: usize,
    memory: Mapping,
    /// Guest-physical address of each page of `memory`.
    places: Vec<u64>,
    sent: u16,
}

/// Sends `count` commands of noise; says how many were answered, and how often the device had to be reset.
pub(crate) fn gpu(request: &Value) -> Result<Value, String> {
    let count = number(request, "count")?.min(100_000);
    let device = find().ok_or("there is no GPU")?;
    let mut gpu = Gpu::take(&device)?;
    let mut noise = Noise(number(request, "seed")? | 1);
    let (mut answered, mut resets) = (0u64, 0u64);
    gpu.set_up();
    for _ in 0..count {
        gpu.send(&mut noise);
        let until = Instant::now() + PATIENCE;
        loop {
            if gpu.status() & NEEDS_RESET != 0 || Instant::now() > until {
                resets += 1;
                gpu.set_up();
                break;
            }
            if gpu.memory.read_u16(USED + 2) == gpu.sent {
                answered += 1;
                break;
            }
            std::thread::yield_now();
        }
    }
    Ok(json!({"answered": answered, "resets": resets}))
}

fn find() -> Option<PathBuf> {
    let devices = fs::read_dir("/sys/bus/pci/devices").ok()?.flatten();
    devices
        .map(|device| device.path())
        .find(|path| fs::read_to_string(path.join("device")).is_ok_and(|id| id.trim() == "0x1050"))
}

impl Gpu {
    fn take(device: &Path) -> Result<Self, String> {
        let text = |error: std::io::Error| error.to_string();
        let address = device.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // It may have been taken before.
        let _ = fs::write(device.join("driver/unbind"), &address);
        // Memory space and bus mastering on.
        let config = fs::read(device.join("config")).map_err(text)?;
        sys::write_at(&device.join("config"), 4, &[6, 0]).map_err(text)?;
        let capability = |wanted: u8| -> Option<(u8, usize)> {
            let mut at = usize::from(*config.get(0x34)?);
            for _ in 0..32 {
                let raw = config.get(at..at + 16)?;
                if raw[0] == 9 && raw[3] == wanted {
                    let offset = u32::from_le_bytes([raw[8], raw[9], raw[10], raw[11]]);
                    return Some((raw[4], offset as usize));
                }
                at = usize::from(raw[1]);
            }
            None
        };
        let (bar, common) = capability(COMMON).ok_or("no common configuration")?;
        let (_, notify) = capability(NOTIFY).ok_or("no notification area")?;
        let resource = device.join(format!("resource{bar}"));
        let bar = Mapping::of_file(&resource).map_err(text)?;
        let memory = Mapping::locked(PAGES * PAGE).map_err(text)?;
        let places = memory.physical_pages().map_err(text)?;
        Ok(Self { bar, common, notify, memory, places, sent: 0 })
    }

    fn status(&self) -> u8 {
        self.bar.read_u8(self.common + DEVICE_STATUS)
    }

    fn set_up(&mut self) {
        let Self { bar, common, memory, places, .. } = self;
        let at = |register: usize| *common + register;
        bar.write_u8(at(DEVICE_STATUS), 0);
        memory.clear();
        bar.write_u8(at(DEVICE_STATUS), 3);
        bar.write_u32(at(DRIVER_FEATURE_SELECT), 1);
        bar.write_u32(at(DRIVER_FEATURE), 1); // VIRTIO_F_VERSION_1
        bar.write_u32(at(DRIVER_FEATURE_SELECT), 0);
        bar.write_u32(at(DRIVER_FEATURE), 2); // VIRTIO_GPU_F_EDID
        bar.write_u8(at(DEVICE_STATUS), 11);
        for queue in [1u16, 0] {
            bar.write_u16(at(QUEUE_SELECT), queue);
            bar.write_u16(at(QUEUE_SIZE), SIZE);
            for (index, page) in [DESC, AVAIL, USED].into_iter().enumerate() {
                let place = places.get(page / PAGE).copied().unwrap_or(0);
                bar.write_u32(at(QUEUE_DESC + index * 8), place as u32);
                bar.write_u32(at(QUEUE_DESC + index * 8 + 4), (place >> 32) as u32);
            }
            bar.write_u16(at(QUEUE_ENABLE), 1);
        }
        bar.write_u8(at(DEVICE_STATUS), 15);
        self.sent = 0;
    }

    fn send(&mut self, noise: &mut Noise) {
        const COMMANDS: [u32; 12] =
            [0x100, 0x101, 0x102, 0x103, 0x104, 0x105, 0x106, 0x107, 0x10a, 0x300, 0x301, 0xdead];
        let kind = COMMANDS[noise.below(COMMANDS.len() as u64) as usize];
        let mut fields = vec![kind, noise.next() as u32 & 1, 7, 0, 0, 0];
        fields.extend((0..64).map(|_| noise.field(&self.places)));
        for (index, field) in fields.iter().enumerate() {
            self.memory.write_u32(COMMAND + index * 4, *field);
        }
        let length = if noise.below(20) == 0 { noise.below(5000) as u32 } else { 280 };
        let wild = noise.below(60) == 0;
        let place = |page: usize| self.places.get(page / PAGE).copied().unwrap_or(0);
        let response = place(RESPONSE);
        let address = if wild { noise.next() } else { place(COMMAND) };
        self.describe(0, address, length, 1, 1);
        self.describe(1, response, noise.below(3000) as u32, 2, noise.below(20) as u16);
        self.memory.write_u16(AVAIL + 4 + usize::from(self.sent % SIZE) * 2, 0);
        self.sent = self.sent.wrapping_add(1);
        self.memory.write_u16(AVAIL + 2, self.sent);
        self.bar.write_u16(self.notify, 0);
    }

    fn describe(&mut self, index: usize, address: u64, length: u32, flags: u16, next: u16) {
        let at = DESC + index * 16;
        self.memory.write_u32(at, address as u32);
        self.memory.write_u32(at + 4, (address >> 32) as u32);
        self.memory.write_u32(at + 8, length);
        self.memory.write_u16(at + 12, flags);
        self.memory.write_u16(at + 14, next);
    }
}

/// Noise that repeats (xorshift).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, most: u64) -> u64 {
        self.next() % most.max(1)
    }

    /// Returns a number as a command has it: small, a screen's, a page's, or anything.
    fn field(&mut self, places: &[u64]) -> u32 {
        match self.below(8) {
            0..3 => self.below(4) as u32,
            3 => self.below(2000) as u32,
            4 => [1280, 776, 64, 4096, 1 << 20][self.below(5) as usize],
            5 => places[self.below(places.len() as u64) as usize] as u32,
            6 => u32::MAX - self.below(3) as u32,
            _ => self.next() as u32,
        }
    }
}
