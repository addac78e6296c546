//! From a transfer ring to something a device can be asked to do: TRBs are read once, checked, and
//! put together as a chunk of a transfer descriptor or as a whole control transfer.

use crate::backend::Setup;
use crate::memory::{Memory, Outside};
use crate::ring::{Position, RingError};
use crate::spec::{CHUNK_BYTES, CHUNK_TRBS, CONTROL_TRBS, trb_bit, trb_type};
use crate::trb::Trb;

/// Where an endpoint is on its ring.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    pub(super) at: Position,
    /// Bytes of the TRB here that are done.
    pub(super) done: u32,
}

impl Place {
    pub(super) fn start_of(at: Position) -> Self {
        Self { at, done: 0 }
    }
}

/// Where a piece's bytes are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Buffer {
    /// At a guest-physical address, checked.
    Memory(u64),
    /// In the TRB itself, up to eight bytes (IDT).
    Immediate([u8; 8]),
    /// There are none: No Op or Event Data.
    None,
}

/// A TRB, or the part of one that a chunk has of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) trb: Trb,
    pub(super) at: Position,
    pub(super) after: Position,
    pub(super) buffer: Buffer,
    /// Bytes of the TRB before this piece.
    pub(super) before: u32,
    /// Bytes of this piece.
    pub(super) length: u32,
}

impl Piece {
    pub(super) fn moves_data(&self) -> bool {
        !matches!(self.buffer, Buffer::None)
    }

    /// Returns the bytes of the TRB not moved when `taken` of this piece are.
    pub(super) fn residual(&self, taken: u32) -> u32 {
        self.trb.length().saturating_sub(self.before).saturating_sub(taken)
    }
}

/// Part of a transfer descriptor, or all of it.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) pieces: Vec<Piece>,
    pub(super) length: u32,
    pub(super) next: Place,
    /// The transfer descriptor ends with it.
    pub(super) ends: bool,
}

/// Setup, data and status stage.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) setup_trb: Trb,
    pub(super) setup: Setup,
    pub(super) pieces: Vec<Piece>,
    /// The Status Stage TRB and what Event Data follows.
    pub(super) status: Vec<Trb>,
    pub(super) length: u32,
    pub(super) next: Position,
}

/// What was found on a ring.
#[derive(Debug)]
pub(super) enum Found {
    Chunk(Chunk),
    Control(Control),
}

/// A TRB that means nothing where it is; the guest is to blame.
#[derive(Debug)]
pub(super) struct InvalidTrb(pub(super) Trb);

type Gathered<T> = Result<Option<T>, InvalidTrb>;

fn fetch(memory: &Memory, at: Position) -> Gathered<(Trb, Position)> {
    at.fetch(memory).map_err(|error| {
        let address = match error {
            RingError::Outside(Outside(address)) | RingError::Links(address) => address,
        };
        InvalidTrb(Trb::new(address, [0; 4]))
    })
}

/// Returns a piece of a TRB that moves data, from `done` bytes in and of at most `most` bytes.
fn piece(
    memory: &Memory,
    trb: Trb,
    (at, after): (Position, Position),
    (done, most): (u32, u32),
    to_host: bool,
) -> Result<Piece, InvalidTrb> {
    let before = done.min(trb.length());
    let length = (trb.length() - before).min(most);
    let buffer = if trb.has(trb_bit::IDT) {
        if to_host || trb.length() > 8 {
            return Err(InvalidTrb(trb));
        }
        Buffer::Immediate(trb.parameter().to_le_bytes())
    } else {
        let address = trb.parameter().checked_add(u64::from(before)).ok_or(InvalidTrb(trb))?;
        memory.check(address, length).map_err(|_| InvalidTrb(trb))?;
        Buffer::Memory(address)
    };
    Ok(Piece { trb, at, after, buffer, before, length })
}

fn marker(trb: Trb, (at, after): (Position, Position)) -> Piece {
    Piece { trb, at, after, buffer: Buffer::None, before: 0, length: 0 }
}

/// Gathers the next chunk of a bulk or interrupt ring. `None` until the guest has put enough there.
pub(super) fn chunk(memory: &Memory, place: Place, to_host: bool, packet: u32) -> Gathered<Chunk> {
    let most = CHUNK_BYTES - CHUNK_BYTES % packet.max(1);
    let mut found = Chunk { pieces: Vec::new(), length: 0, next: place, ends: false };
    while found.pieces.len() < CHUNK_TRBS {
        let at = found.next.at;
        let Some((trb, after)) = fetch(memory, at)? else { return Ok(None) };
        let here = (at, after);
        let piece = match trb.kind() {
            trb_type::NORMAL => {
                piece(memory, trb, here, (found.next.done, most - found.length), to_host)?
            }
            trb_type::NO_OP | trb_type::EVENT_DATA => marker(trb, here),
            _ => return Err(InvalidTrb(trb)),
        };
        found.length += piece.length;
        found.pieces.push(piece);
        if piece.moves_data() && piece.residual(piece.length) > 0 {
            // The chunk is full in the middle of this TRB.
            found.next.done = piece.before + piece.length;
            return Ok(Some(found));
        }
        found.next = Place::start_of(after);
        if !trb.has(trb_bit::CHAIN) {
            found.ends = true;
            return Ok(Some(found));
        }
    }
    to_whole_packets(found, packet).map(Some)
}

/// Shortens a chunk that has as many TRBs as it may to whole packets: a device would take a shorter
/// one for the end of the transfer.
fn to_whole_packets(mut chunk: Chunk, packet: u32) -> Result<Chunk, InvalidTrb> {
    let mut excess = chunk.length % packet.max(1);
    if excess == chunk.length
        && let Some(last) = chunk.pieces.last()
    {
        return Err(InvalidTrb(last.trb)); // crumbs: not one packet in so many TRBs
    }
    chunk.length -= excess;
    while excess > 0
        && let Some(last) = chunk.pieces.last_mut()
    {
        let cut = excess.min(last.length);
        excess -= cut;
        last.length -= cut;
        chunk.next = Place { at: last.at, done: last.before + last.length };
        if last.length == 0 {
            chunk.next.done = last.before;
            chunk.pieces.pop();
        }
    }
    Ok(chunk)
}

/// Gathers the next control transfer, whole; or a No Op or Event Data by itself.
pub(super) fn control(memory: &Memory, place: Place) -> Gathered<Found> {
    let Some((trb, mut at)) = fetch(memory, place.at)? else { return Ok(None) };
    match trb.kind() {
        trb_type::SETUP if trb.has(trb_bit::IDT) && trb.length() == 8 => {}
        trb_type::NO_OP | trb_type::EVENT_DATA => {
            let pieces = vec![marker(trb, (place.at, at))];
            let next = Place::start_of(at);
            return Ok(Some(Found::Chunk(Chunk { pieces, length: 0, next, ends: true })));
        }
        _ => return Err(InvalidTrb(trb)),
    }
    let setup = Setup::from_bytes(trb.parameter().to_le_bytes());
    let mut found = Control {
        setup_trb: trb,
        setup,
        pieces: Vec::new(),
        status: Vec::new(),
        length: 0,
        next: at,
    };
    // What the last TRB allows to follow.
    let (mut data, mut chained) = (true, false);
    for _ in 0..CONTROL_TRBS {
        let Some((trb, after)) = fetch(memory, at)? else { return Ok(None) };
        let here = (at, after);
        let goes_in = trb.has(trb_bit::DIRECTION_IN);
        let first = found.pieces.is_empty();
        match trb.kind() {
            trb_type::DATA if data && first && goes_in == setup.is_in() => {
                found.add(piece(memory, trb, here, (0, u32::MAX), setup.is_in())?)?;
            }
            trb_type::NORMAL if data && chained => {
                found.add(piece(memory, trb, here, (0, u32::MAX), setup.is_in())?)?;
            }
            trb_type::EVENT_DATA if data && chained => found.pieces.push(marker(trb, here)),
            trb_type::STATUS if data && !chained => {
                found.status.push(trb);
                data = false;
            }
            trb_type::EVENT_DATA if !data && chained => found.status.push(trb),
            _ => return Err(InvalidTrb(trb)),
        }
        chained = trb.has(trb_bit::CHAIN);
        at = after;
        if !data && !chained {
            found.next = at;
            return found.settle().map(|()| Some(Found::Control(found)));
        }
    }
    Err(InvalidTrb(trb))
}

impl Control {
    fn add(&mut self, piece: Piece) -> Result<(), InvalidTrb> {
        self.length += piece.length;
        self.pieces.push(piece);
        if self.length > u32::from(u16::MAX) { Err(InvalidTrb(piece.trb)) } else { Ok(()) }
    }

    /// Makes `wLength` and the data stage agree: towards the host the smaller counts, towards the
    /// device they have to be the same.
    fn settle(&mut self) -> Result<(), InvalidTrb> {
        let asked = u32::from(self.setup.length);
        if self.setup.is_in() {
            self.length = self.length.min(asked);
            self.setup.length = self.length as u16;
        } else if self.length != asked {
            return Err(InvalidTrb(self.setup_trb));
        }
        Ok(())
    }
}

/// Collects the bytes of the pieces, for the device.
pub(super) fn collect(memory: &Memory, pieces: &[Piece]) -> Result<Vec<u8>, Outside> {
    let mut data = Vec::new();
    for piece in pieces {
        let start = data.len();
        match piece.buffer {
            Buffer::Memory(address) => {
                data.resize(start + piece.length as usize, 0);
                memory.read(address, data.get_mut(start..).unwrap_or_default())?;
            }
            Buffer::Immediate(bytes) => {
                let bytes = bytes.get(piece.before as usize..).unwrap_or_default();
                data.extend(bytes.iter().take(piece.length as usize));
            }
            Buffer::None => {}
        }
    }
    Ok(data)
}

/// Puts what came from the device where the pieces say.
pub(super) fn scatter(memory: &Memory, pieces: &[Piece], mut data: &[u8]) -> Result<(), Outside> {
    for piece in pieces {
        let (now, later) = data.split_at(data.len().min(piece.length as usize));
        if let (Buffer::Memory(address), false) = (piece.buffer, now.is_empty()) {
            memory.write(address, now)?;
        }
        data = later;
    }
    Ok(())
}
