//! Commands as the driver sends them, read once into checked types (virtio 1.2 section 5.7.6.8).

use seat_link::Rect;

use super::spec::{FLAG_FENCE, HEADER_BYTES, command};
use crate::chain::{Exhausted, Reader};

/// The most runs of guest memory behind one resource: 144 MiB page by page, a picture of the largest screen
/// ([`seat_link::Size::PIXELS_MAX`]) and of the banner's rows.
pub(super) const ENTRIES_MAX: u32 = 36 << 10;
const _: () = assert!(ENTRIES_MAX as u64 * 4096 >= seat_link::Size::FRAME_BYTES_MAX);

/// `struct virtio_gpu_ctrl_hdr`, as far as it matters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) kind: u32,
    flags: u32,
    fence: u64,
    context: u32,
}

impl Header {
    fn parse(raw: [u8; HEADER_BYTES]) -> Self {
        let mut fields = Fields(&raw);
        Self { kind: fields.u32(), flags: fields.u32(), fence: fields.u64(), context: fields.u32() }
    }

    /// Returns the header of the response to it: a fence that was asked for is answered (section 5.7.6.7).
    pub(super) fn response(&self, kind: u32) -> [u8; HEADER_BYTES] {
        let fenced = self.flags & FLAG_FENCE != 0;
        let mut raw = [0; HEADER_BYTES];
        let fields = [
            kind.to_le_bytes(),
            (if fenced { FLAG_FENCE } else { 0 }).to_le_bytes(),
            low(if fenced { self.fence } else { 0 }),
            high(if fenced { self.fence } else { 0 }),
            (if fenced { self.context } else { 0 }).to_le_bytes(),
        ];
        for (place, byte) in raw.iter_mut().zip(fields.as_flattened()) {
            *place = *byte;
        }
        raw
    }
}

fn low(value: u64) -> [u8; 4] {
    let [a, b, c, d, ..] = value.to_le_bytes();
    [a, b, c, d]
}

fn high(value: u64) -> [u8; 4] {
    let [.., a, b, c, d] = value.to_le_bytes();
    [a, b, c, d]
}

/// A run of guest memory, as the driver names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) address: u64,
    pub(super) len: u32,
}

/// A command of the driver, as parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    GetDisplayInfo,
    GetEdid {
        scanout: u32,
    },
    Create {
        resource: u32,
        format: u32,
        width: u32,
        height: u32,
    },
    Unref {
        resource: u32,
    },
    SetScanout {
        rect: Rect,
        scanout: u32,
        resource: u32,
    },
    Flush {
        rect: Rect,
        resource: u32,
    },
    Transfer {
        rect: Rect,
        offset: u64,
        resource: u32,
    },
    Attach {
        resource: u32,
        entries: Vec<Entry>,
    },
    Detach {
        resource: u32,
    },
    UpdateCursor {
        scanout: u32,
        resource: u32,
        hot_x: u32,
        hot_y: u32,
    },
    MoveCursor,
    /// More entries than [`ENTRIES_MAX`].
    TooManyEntries,
    /// A command of a feature that is not offered, or of none.
    Unknown,
}

/// Reads the header and what follows it. A command cut short is no command.
pub(super) fn parse(reader: &mut Reader<'_>) -> Result<(Header, Command), Exhausted> {
    let header = Header::parse(reader.read_array()?);
    let command = match header.kind {
        command::GET_DISPLAY_INFO => Command::GetDisplayInfo,
        command::GET_EDID => Command::GetEdid { scanout: Fields(&reader.read_array::<8>()?).u32() },
        command::RESOURCE_CREATE_2D => {
            let raw = reader.read_array::<16>()?;
            let mut fields = Fields(&raw);
            Command::Create {
                resource: fields.u32(),
                format: fields.u32(),
                width: fields.u32(),
                height: fields.u32(),
            }
        }
        command::RESOURCE_UNREF => {
            Command::Unref { resource: Fields(&reader.read_array::<8>()?).u32() }
        }
        command::SET_SCANOUT => {
            let raw = reader.read_array::<24>()?;
            let mut fields = Fields(&raw);
            let rect = fields.rect();
            Command::SetScanout { rect, scanout: fields.u32(), resource: fields.u32() }
        }
        command::RESOURCE_FLUSH => {
            let raw = reader.read_array::<24>()?;
            let mut fields = Fields(&raw);
            Command::Flush { rect: fields.rect(), resource: fields.u32() }
        }
        command::TRANSFER_TO_HOST_2D => {
            let raw = reader.read_array::<32>()?;
            let mut fields = Fields(&raw);
            let rect = fields.rect();
            Command::Transfer { rect, offset: fields.u64(), resource: fields.u32() }
        }
        command::RESOURCE_ATTACH_BACKING => attach(reader)?,
        command::RESOURCE_DETACH_BACKING => {
            Command::Detach { resource: Fields(&reader.read_array::<8>()?).u32() }
        }
        command::UPDATE_CURSOR => {
            let raw = reader.read_array::<32>()?;
            let mut fields = Fields(&raw);
            let scanout = fields.u32();
            let (_x, _y, _padding) = (fields.u32(), fields.u32(), fields.u32());
            Command::UpdateCursor {
                scanout,
                resource: fields.u32(),
                hot_x: fields.u32(),
                hot_y: fields.u32(),
            }
        }
        command::MOVE_CURSOR => Command::MoveCursor,
        _ => Command::Unknown,
    };
    Ok((header, command))
}

fn attach(reader: &mut Reader<'_>) -> Result<Command, Exhausted> {
    let raw = reader.read_array::<8>()?;
    let mut fields = Fields(&raw);
    let (resource, count) = (fields.u32(), fields.u32());
    if count > ENTRIES_MAX {
        return Ok(Command::TooManyEntries);
    }
    let mut entries = Vec::new();
    for _ in 0..count {
        let raw = reader.read_array::<16>()?;
        let mut fields = Fields(&raw);
        entries.push(Entry { address: fields.u64(), len: fields.u32() });
    }
    Ok(Command::Attach { resource, entries })
}

/// Little-endian fields of a structure whose length was checked; zero beyond its end.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u32(&mut self) -> u32 {
        let (front, rest) = self.0.split_at_checked(4).unwrap_or_default();
        self.0 = rest;
        u32::from_le_bytes(front.try_into().unwrap_or_default())
    }

    fn u64(&mut self) -> u64 {
        let low = u64::from(self.u32());
        low | u64::from(self.u32()) << 32
    }

    fn rect(&mut self) -> Rect {
        Rect { x: self.u32(), y: self.u32(), width: self.u32(), height: self.u32() }
    }
}
