//! From what a device did to what the guest is told: data into its buffers, and the events its TRBs
//! ask for (4.10, 4.11).

use super::gather::{self, Buffer, Chunk, Control, Found, Piece, Place};
use super::{Ended, Endpoint, Skip, State, Surroundings, wants_event};
use crate::backend::Status;
use crate::memory::Outside;
use crate::spec::{Code, SKIP_TRBS, TD_TRBS, trb_bit, trb_type};
use crate::trb::{Event, Trb};

/// How far a run of pieces came.
enum Reached {
    /// The run was moved whole.
    End,
    /// A short packet in the piece of this number; whether its TRB asked for an event.
    Short(usize, bool),
    /// An error in the piece of this number, after so many of its bytes.
    Error(usize, u32),
    /// Stopped in the piece of this number, after so many of its bytes.
    Stopped(usize, u32),
}

impl Status {
    fn code(self) -> Code {
        match self {
            Self::Success => Code::Success,
            Self::Stall => Code::Stall,
            Self::Babble => Code::Babble,
            Self::Error => Code::TransactionError,
            Self::Stopped => Code::Stopped,
        }
    }
}

impl Endpoint {
    /// Tells the guest how `work` ended.
    pub(super) fn finish(
        &mut self,
        work: Found,
        ended: &Ended,
        around: &mut Surroundings<'_>,
    ) -> Result<(), Outside> {
        // The addresses were checked when the TRBs were read.
        gather::scatter(around.memory, work.pieces(), &ended.data)?;
        match work {
            Found::Chunk(chunk) => self.finish_chunk(&chunk, ended, around),
            Found::Control(control) => self.finish_control(&control, ended, around),
        }
    }

    fn finish_chunk(
        &mut self,
        chunk: &Chunk,
        ended: &Ended,
        around: &mut Surroundings<'_>,
    ) -> Result<(), Outside> {
        match self.pass(&chunk.pieces, ended, around) {
            Reached::End => {
                self.place = chunk.next;
                if chunk.ends {
                    self.moved = 0;
                }
            }
            Reached::Short(index, told) => {
                if let Some(piece) = chunk.pieces.get(index) {
                    self.place = Place::start_of(piece.after);
                    self.skipping =
                        piece.trb.has(trb_bit::CHAIN).then_some(Skip { told, passed: 0 });
                    if self.skipping.is_none() {
                        self.moved = 0;
                    }
                }
            }
            Reached::Stopped(index, taken) => {
                if let Some(piece) = chunk.pieces.get(index) {
                    // It goes on from here (4.6.9).
                    self.place = Place { at: piece.at, done: piece.before + taken };
                    self.post(&piece.trb, Code::Stopped, piece.residual(taken), around);
                }
            }
            Reached::Error(index, taken) => {
                if let Some(piece) = chunk.pieces.get(index) {
                    self.place = Place { at: piece.at, done: piece.before + taken };
                    let (code, residual) = (ended.status.code(), piece.residual(taken));
                    return self.fail(&piece.trb, code, residual, State::Halted, around);
                }
            }
        }
        Ok(())
    }

    fn finish_control(
        &mut self,
        control: &Control,
        ended: &Ended,
        around: &mut Surroundings<'_>,
    ) -> Result<(), Outside> {
        self.moved = 0;
        if ended.status == Status::Stopped {
            // Whatever the device made of it, all of it starts over.
            let piece = control.pieces.iter().find(|piece| piece.moves_data());
            let status = control.status.first().unwrap_or(&control.setup_trb);
            let (trb, residual) =
                piece.map_or((status, 0), |piece| (&piece.trb, piece.residual(0)));
            self.post(trb, Code::Stopped, residual, around);
            return Ok(());
        }
        if wants_event(&control.setup_trb) {
            self.post(&control.setup_trb, Code::Success, 0, around);
        }
        let has_data = control.pieces.iter().any(Piece::moves_data);
        let told = match self.pass(&control.pieces, ended, around) {
            Reached::End => None,
            Reached::Short(index, told) => Some((index, told)),
            Reached::Error(index, taken) | Reached::Stopped(index, taken) => {
                let piece = control.pieces.get(index);
                let (trb, residual) = piece
                    .map_or((&control.setup_trb, 0), |piece| (&piece.trb, piece.residual(taken)));
                return self.fail(trb, ended.status.code(), residual, State::Halted, around);
            }
        };
        if let Some((index, mut told)) = told {
            for piece in control.pieces.get(index + 1..).unwrap_or_default() {
                self.pass_over(&piece.trb, &mut told, around);
            }
        }
        self.moved = 0;
        let (status, after) = match control.status.split_first() {
            Some((status, after)) => (status, after),
            None => (&control.setup_trb, Default::default()),
        };
        if ended.status != Status::Success && !has_data {
            return self.fail(status, ended.status.code(), 0, State::Halted, around);
        }
        if wants_event(status) {
            self.post(status, Code::Success, 0, around);
        }
        for trb in after.iter().filter(|trb| wants_event(trb)) {
            around.events.post(Event::data(self.pipe, trb, Code::Success, 0));
        }
        self.place = Place::start_of(control.next);
        Ok(())
    }

    /// Goes through the pieces as far as the device's bytes reach, with the events on the way.
    fn pass(&mut self, pieces: &[Piece], ended: &Ended, around: &mut Surroundings<'_>) -> Reached {
        let last = pieces.iter().rposition(Piece::moves_data);
        let mut left = ended.moved;
        for (index, piece) in pieces.iter().enumerate() {
            if let Buffer::None = piece.buffer {
                self.mark(&piece.trb, Code::Success, around);
                continue;
            }
            let taken = left.min(piece.length);
            left -= taken;
            self.moved = self.moved.saturating_add(taken);
            if ended.status == Status::Stopped && (taken < piece.length || last == Some(index)) {
                return Reached::Stopped(index, taken);
            }
            let failed = !matches!(ended.status, Status::Success | Status::Stopped);
            if failed && (taken < piece.length || last == Some(index)) {
                return Reached::Error(index, taken);
            }
            if taken < piece.length {
                let told = wants_event(&piece.trb) || piece.trb.has(trb_bit::ISP);
                if told {
                    self.post(&piece.trb, Code::ShortPacket, piece.residual(taken), around);
                }
                return Reached::Short(index, told);
            }
            let whole = piece.residual(taken) == 0;
            if whole && wants_event(&piece.trb) {
                self.post(&piece.trb, Code::Success, 0, around);
            }
        }
        Reached::End
    }

    /// Passes over what is left of a transfer descriptor after a short packet, some of it at a time
    /// (4.10.1.1).
    pub(super) fn skip(
        &mut self,
        mut skip: Skip,
        around: &mut Surroundings<'_>,
    ) -> Result<bool, Outside> {
        for _ in 0..SKIP_TRBS {
            let fetched = self.place.at.fetch(around.memory);
            if let Ok(None) = fetched {
                self.skipping = Some(skip);
                return Ok(false);
            }
            skip.passed += 1;
            let Some((trb, after)) = fetched.ok().flatten().filter(|_| skip.passed <= TD_TRBS)
            else {
                self.skipping = None;
                let here = Trb::new(self.place.at.address, [0; 4]);
                self.fail(&here, Code::TrbError, 0, State::Error, around)?;
                return Ok(false);
            };
            self.pass_over(&trb, &mut skip.told, around);
            self.place = Place::start_of(after);
            if !trb.has(trb_bit::CHAIN) {
                (self.skipping, self.moved) = (None, 0);
                return Ok(true);
            }
        }
        self.skipping = Some(skip);
        Ok(true)
    }

    /// Passes over one TRB behind a short packet: Event Data is still due, and the last TRB's event
    /// if the guest was told nothing yet.
    fn pass_over(&mut self, trb: &Trb, told: &mut bool, around: &mut Surroundings<'_>) {
        if trb.kind() == trb_type::EVENT_DATA {
            *told |= wants_event(trb);
            self.mark(trb, Code::ShortPacket, around);
        } else if !*told && wants_event(trb) {
            *told = true;
            self.post(trb, Code::ShortPacket, trb.length(), around);
        }
    }

    /// Marks a TRB that moves nothing.
    fn mark(&mut self, trb: &Trb, code: Code, around: &mut Surroundings<'_>) {
        let is_data = trb.kind() == trb_type::EVENT_DATA;
        let moved = if is_data { std::mem::take(&mut self.moved) } else { 0 };
        if wants_event(trb) {
            around.events.post(if is_data {
                Event::data(self.pipe, trb, code, moved)
            } else {
                Event::transfer(self.pipe, trb, code, 0)
            });
        }
    }

    fn post(&self, trb: &Trb, code: Code, residual: u32, around: &mut Surroundings<'_>) {
        around.events.post(Event::transfer(self.pipe, trb, code, residual));
    }
}
