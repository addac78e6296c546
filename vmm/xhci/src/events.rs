//! The event ring and its interrupter (4.9.4, 4.17).
//!
//! Events wait in an outbox until the ring has room: none is lost when a guest is slow, and the
//! controller starts nothing new before they are out, so the outbox holds what one step makes.
//!
//! An interrupt is due when an event that may interrupt was written since the last one (`due`) and
//! the handler is not busy (ERDP.EHB). It is raised at the moment both hold, whichever comes last,
//! and never put off: the moderation interval (IMOD) is an upper bound on the rate, which the busy bit
//! keeps by itself, and a timer that is not there cannot lose the last event before a pause.

use std::collections::VecDeque;

use crate::backend::Interrupt;
use crate::memory::{Memory, Outside};
use crate::registers::{Registers, offset};
use crate::spec::{
    EVENT_SEGMENT_TRBS, EVENT_SEGMENTS, TRB_SIZE, erdp, iman, trb_bit, usbcmd, usbsts,
};
use crate::trb::Event;

/// Why there is no event ring. The guest is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EventRingError {
    #[error("the event ring")]
    Outside(#[from] Outside),
    #[error("an event ring of {0} segments")]
    Segments(u32),
    #[error("an event ring segment of {0} TRBs")]
    SegmentSize(u32),
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    base: u64,
    trbs: u32,
}

#[derive(Debug)]
pub(crate) struct Events {
    outbox: VecDeque<Event>,
    /// As read from the segment table; at most [`EVENT_SEGMENTS`]. Empty until it is needed.
    segments: Vec<Segment>,
    /// Where the next event goes: segment, TRB in it, cycle bit.
    enqueue: (usize, u32),
    cycle: bool,
    /// The guest was told that the ring is full and has not made much room since.
    told_full: bool,
    due: bool,
}

impl Events {
    pub(crate) fn new() -> Self {
        Self {
            outbox: VecDeque::new(),
            segments: Vec::new(),
            enqueue: (0, 0),
            cycle: true,
            told_full: false,
            due: false,
        }
    }

    pub(crate) fn post(&mut self, event: Event) {
        self.outbox.push_back(event);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.outbox.is_empty()
    }

    /// Takes it that the guest wrote the segment table's address or size: the ring starts over when it is used.
    pub(crate) fn replace_ring(&mut self) {
        self.segments.clear();
        (self.enqueue, self.cycle, self.told_full) = ((0, 0), true, false);
    }

    /// Writes what fits, and interrupts.
    pub(crate) fn flush(
        &mut self,
        memory: &Memory,
        registers: &mut Registers,
        line: &dyn Interrupt,
    ) -> Result<(), EventRingError> {
        if self.outbox.is_empty() {
            return Ok(());
        }
        self.load(memory, registers)?;
        let dequeue = dequeue(registers);
        while let Some(event) = self.outbox.front().copied() {
            let next = self.after(self.enqueue);
            if self.address(next) == dequeue {
                break;
            }
            let last = self.address(self.after(next)) == dequeue;
            if last && !self.told_full {
                // The last place is for saying so (4.9.4); the event waits.
                self.told_full = true;
                self.write(memory, Event::ring_full())?;
                break;
            }
            self.told_full &= last;
            self.write(memory, event)?;
            self.outbox.pop_front();
        }
        self.interrupt(registers, line);
        Ok(())
    }

    /// Takes it that the guest wrote the dequeue pointer.
    pub(crate) fn dequeued(&mut self, registers: &mut Registers, line: &dyn Interrupt) {
        if self.address(self.enqueue) == dequeue(registers) {
            self.due = false; // it has seen them all
        }
        self.interrupt(registers, line);
    }

    /// Interrupts if one is due; to be asked whenever anything it depends on has changed.
    pub(crate) fn interrupt(&mut self, registers: &mut Registers, line: &dyn Interrupt) {
        if self.due && !registers.has(offset::ERDP, erdp::BUSY) {
            self.due = false;
            registers.change(offset::ERDP, 0, erdp::BUSY);
            registers.change(offset::IMAN, 0, iman::PENDING);
            registers.change(offset::USBSTS, 0, usbsts::EINT);
        }
        let enabled = registers.has(offset::IMAN, iman::ENABLE)
            && registers.has(offset::USBCMD, usbcmd::INTE);
        if enabled && registers.has(offset::IMAN, iman::PENDING) && line.raise() {
            registers.change(offset::IMAN, iman::PENDING, 0);
        }
    }

    fn load(&mut self, memory: &Memory, registers: &Registers) -> Result<(), EventRingError> {
        if !self.segments.is_empty() {
            return Ok(());
        }
        let count = registers.get(offset::ERSTSZ);
        if count == 0 || count > EVENT_SEGMENTS {
            return Err(EventRingError::Segments(count));
        }
        let table = registers.get_wide(offset::ERSTBA);
        let mut segments = Vec::new();
        for index in 0..count {
            let at = table.checked_add(u64::from(index) * TRB_SIZE).ok_or(Outside(table))?;
            let [low, high, trbs, _] = memory.read_words(at)?;
            let (base, trbs) = (u64::from(high) << 32 | u64::from(low & !0x3f), trbs & 0xffff);
            if !EVENT_SEGMENT_TRBS.contains(&trbs) {
                return Err(EventRingError::SegmentSize(trbs));
            }
            memory.check(base, trbs * TRB_SIZE as u32)?;
            segments.push(Segment { base, trbs });
        }
        self.segments = segments;
        Ok(())
    }

    fn write(&mut self, memory: &Memory, event: Event) -> Result<(), Outside> {
        let [a, b, c, control] = event.words;
        let cycle = if self.cycle { trb_bit::CYCLE } else { 0 };
        memory.write_trb(self.address(self.enqueue), [a, b, c, control | cycle])?;
        self.due |= !event.quiet;
        self.enqueue = self.after(self.enqueue);
        self.cycle ^= self.enqueue == (0, 0);
        Ok(())
    }

    fn address(&self, (segment, trb): (usize, u32)) -> u64 {
        // Checked when the table was read.
        self.segments
            .get(segment)
            .map_or(0, |segment| segment.base.saturating_add(u64::from(trb) * TRB_SIZE))
    }

    fn after(&self, (segment, trb): (usize, u32)) -> (usize, u32) {
        let trbs = self.segments.get(segment).map_or(0, |segment| segment.trbs);
        match (trb + 1 < trbs, segment + 1 < self.segments.len()) {
            (true, _) => (segment, trb + 1),
            (false, true) => (segment + 1, 0),
            (false, false) => (0, 0),
        }
    }
}

fn dequeue(registers: &Registers) -> u64 {
    registers.get_wide(offset::ERDP) & !0xf
}
