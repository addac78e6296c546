//! Transfer request blocks: sixteen bytes of a ring (4.11, 6.4).

use crate::spec::{Code, trb_bit, trb_type};

/// A TRB as it was read, once, and where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trb {
    pub(crate) address: u64,
    words: [u32; 4],
}

impl Trb {
    pub(crate) fn new(address: u64, words: [u32; 4]) -> Self {
        Self { address, words }
    }

    /// Returns dwords 0 and 1, the parameter.
    pub(crate) fn parameter(&self) -> u64 {
        let [low, high, ..] = self.words;
        u64::from(high) << 32 | u64::from(low)
    }

    /// Returns dword 2, the status field.
    fn status(&self) -> u32 {
        let [_, _, status, _] = self.words;
        status
    }

    /// Returns dword 3, the control field.
    pub(crate) fn control(&self) -> u32 {
        let [.., control] = self.words;
        control
    }

    pub(crate) fn kind(&self) -> u8 {
        (self.control() >> 10 & 0x3f) as u8
    }

    pub(crate) fn has(&self, bit: u32) -> bool {
        self.control() & bit != 0
    }

    /// Returns the bytes of a Normal, Setup or Data Stage TRB (6.4.1).
    pub(crate) fn length(&self) -> u32 {
        self.status() & 0x1_ffff
    }

    /// Returns, of a command, which slot and which endpoint (device context index).
    pub(crate) fn slot(&self) -> u8 {
        (self.control() >> 24) as u8
    }

    pub(crate) fn endpoint(&self) -> u8 {
        (self.control() >> 16 & 0x1f) as u8
    }

    /// Returns, of Set TR Dequeue Pointer, the stream, which there are none of.
    pub(crate) fn stream(&self) -> u16 {
        (self.status() >> 16) as u16
    }
}

/// An event, ready to be written but for its cycle bit (6.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) words: [u32; 4],
    /// Does not interrupt by itself (4.17.3).
    pub(crate) quiet: bool,
}

/// Which endpoint of which slot, as events name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pipe {
    pub(crate) slot: u8,
    /// Device context index, 1 to 31.
    pub(crate) index: u8,
}

impl Event {
    /// Makes the event that `trb` of `pipe` ended with `residual` bytes not moved.
    pub(crate) fn transfer(pipe: Pipe, trb: &Trb, code: Code, residual: u32) -> Self {
        let control = Self::pipe(pipe);
        let quiet = code == Code::Success && trb.has(trb_bit::BEI);
        Self { quiet, ..Self::new(trb.address, code, residual, control) }
    }

    /// Makes the event that the Event Data TRB `trb` was reached after `moved` bytes.
    pub(crate) fn data(pipe: Pipe, trb: &Trb, code: Code, moved: u32) -> Self {
        let control = Self::pipe(pipe) | trb_bit::EVENT_DATA;
        let quiet = code == Code::Success && trb.has(trb_bit::BEI);
        Self { quiet, ..Self::new(trb.parameter(), code, moved, control) }
    }

    pub(crate) fn command(at: u64, code: Code, slot: u8) -> Self {
        let control = u32::from(trb_type::COMMAND_COMPLETION) << 10 | u32::from(slot) << 24;
        Self::new(at, code, 0, control)
    }

    pub(crate) fn port(number: u8) -> Self {
        let control = u32::from(trb_type::PORT_STATUS_CHANGE) << 10;
        Self::new(u64::from(number) << 24, Code::Success, 0, control)
    }

    pub(crate) fn ring_full() -> Self {
        Self::new(0, Code::EventRingFull, 0, u32::from(trb_type::HOST_CONTROLLER) << 10)
    }

    fn pipe(pipe: Pipe) -> u32 {
        let (slot, index) = (u32::from(pipe.slot), u32::from(pipe.index));
        slot << 24 | index << 16 | u32::from(trb_type::TRANSFER_EVENT) << 10
    }

    fn new(parameter: u64, code: Code, length: u32, control: u32) -> Self {
        let status = (code as u32) << 24 | length & 0xff_ffff;
        let words = [parameter as u32, (parameter >> 32) as u32, status, control];
        Self { words, quiet: false }
    }
}
