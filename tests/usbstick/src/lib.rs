//! The storage side of a USB stick in memory, for tests: Bulk-Only Transport 1.0 with SCSI commands that read and commands that write, and
//! an account of what reached it. It knows bytes and endpoints only; who speaks to it adds the side it is asked from:
//!
//! | who | from which side |
//! | --- | --- |
//! | `usbfilter::stick` | the host end of a usbredir stream |
//! | `xhci`'s tests | the backend of a host controller |
//!
//! ```
//! use usbstick::{End, Storage};
//!
//! let mut stick = Storage::new(8);
//! // INQUIRY, 36 bytes to the host.
//! let mut command = b"USBCtag!\x24\0\0\0\x80\0\x06\x12\0\0\0\x24\0".to_vec();
//! command.resize(31, 0);
//! assert!(stick.output(&command));
//! let answer = stick.input(36).unwrap();
//! assert_eq!((answer.end, answer.data.len()), (End::Success, 36));
//! let status = stick.input(13).unwrap();
//! assert_eq!(status.data, b"USBStag!\0\0\0\0\0");
//! ```
#![allow(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::missing_panics_doc,
    reason = "a model for tests"
)]

mod quirks;

pub use quirks::{MaxLun, Quirks};

/// Bytes of a block.
pub const BLOCK: usize = 512;

#[derive(Debug)]
enum Phase {
    Command,
    DataIn(Vec<u8>, usize),
    DataOut {
        at: Option<usize>,
        left: usize,
    },
    Status,
    /// After what was no CBW.
    Invalid,
}

/// How a transfer towards the host ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The data is there.
    Success,
    /// The endpoint is halted.
    Stall,
    /// There is more than was asked for.
    Babble,
}

/// An answer to a transfer towards the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// How it ends.
    pub end: End,
    /// What comes with it.
    pub data: Vec<u8>,
}

impl Input {
    fn new(end: End, data: Vec<u8>) -> Self {
        Self { end, data }
    }
}

/// A stick's storage, behind a bulk endpoint towards the device and one towards the host.
#[derive(Debug)]
pub struct Storage {
    /// Its blocks, one after the other.
    pub medium: Vec<u8>,
    /// Commands that reached it, in order, at most 4096.
    pub commands: Vec<u8>,
    /// Bytes of data phases that reached it.
    pub data_out: usize,
    /// A command reached it that changes something.
    pub harmed: bool,
    /// The next TEST UNIT READY fails with this sense key and code.
    pub attention: Option<(u8, u8)>,
    /// INQUIRY's first byte.
    pub kind: u8,
    /// What it does against the specification.
    pub quirks: Quirks,
    phase: Phase,
    /// What still comes before the status: an empty packet, a stall.
    before_status: (bool, bool),
    tag: [u8; 4],
    opcode: u8,
    residue: u32,
    status: u8,
    sense: (u8, u8),
    /// Towards the host, towards the device.
    halted: [bool; 2],
}

impl Storage {
    /// Makes one of so many blocks, with a pattern on it.
    #[must_use]
    pub fn new(blocks: usize) -> Self {
        let byte = |at: usize| (at / BLOCK * 7 + at % 251) as u8;
        Self {
            medium: (0..blocks * BLOCK).map(byte).collect(),
            commands: Vec::new(),
            data_out: 0,
            harmed: false,
            attention: None,
            kind: 0,
            quirks: Quirks::default(),
            phase: Phase::Command,
            before_status: (false, false),
            tag: [0; 4],
            opcode: 0,
            residue: 0,
            status: 0,
            sense: (0, 0),
            halted: [false; 2],
        }
    }

    /// Begins anew: the bus was reset, or the device configured.
    pub fn reset(&mut self) {
        (self.phase, self.halted) = (Phase::Command, [false; 2]);
    }

    /// Takes a Bulk-Only reset, which leaves halts to the host.
    pub fn bulk_only_reset(&mut self) {
        self.phase = Phase::Command;
    }

    /// Takes CLEAR_FEATURE(ENDPOINT_HALT) of an endpoint's address. After what was no CBW, the halts stay until a reset (BOT 6.6.1).
    pub fn clear_halt(&mut self, endpoint: u8) {
        if !matches!(self.phase, Phase::Invalid) && endpoint & 0x7f != 0 {
            self.halted[usize::from(endpoint & 0x80 == 0)] = false;
        }
    }

    /// Returns the answer to GET MAX LUN; `None` if it stalls that.
    #[must_use]
    pub fn max_lun(&self) -> Option<Vec<u8>> {
        match &self.quirks.max_lun {
            MaxLun::Bytes(bytes) => Some(bytes.clone()),
            MaxLun::Stall => None,
        }
    }

    /// Takes a transfer towards the device; returns whether it does: otherwise it stalls.
    pub fn output(&mut self, data: &[u8]) -> bool {
        if self.halted[1] {
            return false;
        }
        match &mut self.phase {
            Phase::Command if data.len() == 31 && data.starts_with(b"USBC") => {
                self.command(data);
                true
            }
            Phase::DataOut { at, left } if data.len() <= *left => {
                self.data_out += data.len();
                if let Some(at) = at {
                    self.medium[*at..*at + data.len()].copy_from_slice(data);
                    *at += data.len();
                }
                *left -= data.len();
                if *left == 0 {
                    self.phase = Phase::Status;
                }
                true
            }
            _ => {
                self.phase = Phase::Invalid;
                self.halted = [true; 2];
                false
            }
        }
    }

    /// Answers a transfer of so many bytes towards the host; `None` as long as there is nothing for it.
    pub fn input(&mut self, length: usize) -> Option<Input> {
        loop {
            if self.halted[0] {
                return Some(Input::new(End::Stall, Vec::new()));
            }
            match &mut self.phase {
                Phase::DataIn(data, at) if self.quirks.babbles.contains(&self.opcode) => {
                    let mut now = data.split_off(*at);
                    now.resize(length, 0);
                    self.phase = Phase::Status;
                    return Some(Input::new(End::Babble, now));
                }
                Phase::DataIn(data, at) => {
                    let end = data.len().min(*at + length);
                    let now = data[*at..end].to_vec();
                    *at = end;
                    if end == data.len() {
                        self.phase = Phase::Status;
                        // More was announced: what is missing is a stall (BOT 6.7.2).
                        self.halted[0] = self.residue > 0 && now.len() == length;
                    }
                    return Some(Input::new(End::Success, now));
                }
                Phase::Status if std::mem::take(&mut self.before_status.0) => {
                    return Some(Input::new(End::Success, Vec::new()));
                }
                Phase::Status if std::mem::take(&mut self.before_status.1) => {
                    self.halted[0] = true;
                }
                Phase::Status => {
                    let mut csw = self.quirks.signature.unwrap_or(*b"USBS").to_vec();
                    csw.extend(self.quirks.tag.unwrap_or(self.tag));
                    csw.extend(self.quirks.residue.unwrap_or(self.residue).to_le_bytes());
                    csw.push(self.status);
                    self.phase = Phase::Command;
                    let end = if length < csw.len() { End::Babble } else { End::Success };
                    csw.truncate(length);
                    return Some(Input::new(end, csw));
                }
                _ => return None,
            }
        }
    }

    fn command(&mut self, cbw: &[u8]) {
        self.tag.copy_from_slice(&cbw[4..8]);
        let length = u32::from_le_bytes([cbw[8], cbw[9], cbw[10], cbw[11]]) as usize;
        let from_device = cbw[12] & 0x80 != 0;
        let cdb: [u8; 16] = std::array::from_fn(|at| cbw[15 + at]);
        self.opcode = cdb[0];
        self.before_status = (self.quirks.empty_packet, self.quirks.stalls_status);
        if self.commands.len() < 4096 {
            self.commands.push(cdb[0]);
        }
        if let Some(sense) = self.attention.take_if(|_| cdb[0] == 0) {
            return self.fail(sense, length, from_device);
        }
        let (address, blocks) = extent(&cdb);
        let inside = address
            .checked_add(blocks)
            .is_some_and(|end| end.saturating_mul(BLOCK) <= self.medium.len());
        let (from, bytes) = (address.wrapping_mul(BLOCK), blocks.wrapping_mul(BLOCK));
        let last = (self.medium.len() / BLOCK - 1) as u32;
        let answer = match cdb[0] {
            0x00 | 0x1b | 0x1e | 0x2f | 0x35 | 0x8f | 0x91 | 0xaf => Vec::new(),
            0x03 => {
                let (key, code) = std::mem::take(&mut self.sense);
                let mut sense = vec![0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, code];
                sense.resize(18, 0);
                sense.truncate(cdb[4].into());
                sense
            }
            0x12 => {
                let mut inquiry = vec![self.kind, 0x80, 5, 2, 31, 0, 0, 0];
                inquiry.extend(b"BULKHEADReference stick 1.00");
                inquiry.truncate(u16::from_be_bytes([cdb[3], cdb[4]]).into());
                inquiry
            }
            0x1a => truncated(vec![3, 0, 0, 0], cdb[4].into()),
            0x5a => truncated(vec![0, 6, 0, 0, 0, 0, 0, 0], cdb[8].into()),
            0x23 => truncated(vec![0, 0, 0, 8, 0, 0, 0, 8, 2, 0, 2, 0], cdb[8].into()),
            0x25 => [last.to_be_bytes(), (BLOCK as u32).to_be_bytes()].concat(),
            0x9e => {
                let mut capacity = u64::from(last).to_be_bytes().to_vec();
                capacity.extend((BLOCK as u32).to_be_bytes());
                capacity.resize(32, 0);
                truncated(capacity, cdb[13].into())
            }
            0xa0 => truncated(vec![0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], cdb[9].into()),
            0x08 | 0x28 | 0xa8 | 0x88 if inside => self.medium[from..from + bytes].to_vec(),
            0x08 | 0x28 | 0xa8 | 0x88 => return self.fail((5, 0x21), length, from_device),
            // A drive without a disc.
            0x43 | 0x46 | 0x4a | 0x51 | 0x52 | 0xad | 0xbd if self.kind == 5 => {
                return self.fail((2, 0x3a), length, from_device);
            }
            // Writes.
            0x0a | 0x2a | 0xaa | 0x8a | 0x2e if inside && !from_device => {
                self.harmed = true;
                self.residue = 0;
                self.status = 0;
                self.phase = Phase::DataOut { at: Some(from), left: length.min(bytes) };
                if length == 0 {
                    self.phase = Phase::Status;
                }
                return;
            }
            // Anything else changes the stick.
            _ => {
                self.harmed = true;
                if let Some(first) = self.medium.first_mut() {
                    *first ^= 0xff;
                }
                return self.fail((5, 0x20), length, from_device);
            }
        };
        (self.status, self.sense) = (0, if cdb[0] == 0x03 { (0, 0) } else { self.sense });
        if length > 0 && !from_device || answer.len() > length {
            // Cases 2, 3, 7 and 8: the host meant something else.
            (self.status, self.residue) = (2, length as u32);
            self.phase = if length == 0 { Phase::Status } else { Phase::Invalid };
            self.halted = [length > 0; 2];
            return;
        }
        self.residue = (length - answer.len()) as u32;
        if self.quirks.skips.contains(&cdb[0]) {
            (self.residue, self.phase) = (length as u32, Phase::Status);
            return;
        }
        self.phase = if length == 0 { Phase::Status } else { Phase::DataIn(answer, 0) };
    }

    fn fail(&mut self, sense: (u8, u8), length: usize, from_device: bool) {
        (self.sense, self.status, self.residue) = (sense, 1, length as u32);
        self.phase = Phase::Status;
        if length > 0 && from_device {
            self.halted[0] = true;
        } else if length > 0 {
            self.phase = Phase::DataOut { at: None, left: length };
        }
    }
}

fn truncated(mut data: Vec<u8>, most: usize) -> Vec<u8> {
    data.truncate(most);
    data
}

/// Returns the logical block address and number of blocks of a read or write.
fn extent(cdb: &[u8; 16]) -> (usize, usize) {
    let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    match cdb[0] >> 5 {
        0 => {
            let blocks = if cdb[4] == 0 { 256 } else { usize::from(cdb[4]) };
            (number(&cdb[1..4]) & 0x1f_ffff, blocks)
        }
        1 | 2 => (number(&cdb[2..6]), number(&cdb[7..9])),
        5 => (number(&cdb[2..6]), number(&cdb[6..10])),
        _ => (number(&cdb[2..10]), number(&cdb[10..14])),
    }
}
