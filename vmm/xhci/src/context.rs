//! Device contexts in guest memory (6.2), 32 bytes each.

use crate::memory::{Memory, Outside};
use crate::ring::Position;
use crate::spec::CONTEXT_SIZE;

/// Returns the address of the context of number `index`: 0 is the slot's, 1 to 31 are the endpoints'.
fn address(base: u64, index: u8) -> Result<u64, Outside> {
    base.checked_add(u64::from(index) * CONTEXT_SIZE).ok_or(Outside(base))
}

/// What an endpoint carries (6.2.3, EP Type).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndpointType {
    Control,
    Bulk,
    Interrupt,
    Isochronous,
}

/// An endpoint context, as software wrote it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EndpointContext {
    words: [u32; 5],
    pub(crate) kind: EndpointType,
    /// Towards the host. Control endpoints are both.
    to_host: bool,
    /// Bytes of a packet.
    pub(crate) packet: u32,
    /// Microseconds between two times of asking.
    pub(crate) interval: u32,
    pub(crate) dequeue: Position,
    streams: bool,
}

impl EndpointContext {
    /// Parses the context at `index` of a device context at `base`; `None` if it is none.
    pub(crate) fn read(memory: &Memory, base: u64, index: u8) -> Result<Option<Self>, Outside> {
        let words: [u32; 5] = memory.read_words(address(base, index)?)?;
        let [first, second, low, high, _] = words;
        let kind = match second >> 3 & 7 {
            1 | 5 => EndpointType::Isochronous,
            2 | 6 => EndpointType::Bulk,
            3 | 7 => EndpointType::Interrupt,
            4 => EndpointType::Control,
            _ => return Ok(None),
        };
        Ok(Some(Self {
            words,
            kind,
            to_host: second >> 3 & 7 > 4,
            packet: second >> 16,
            // 2^n times 125 microseconds (6.2.3.6); a longer one than USB knows is as the longest.
            interval: 125 << (first >> 16 & 0xff).min(15),
            dequeue: Position::from_pointer(u64::from(high) << 32 | u64::from(low)),
            streams: first >> 10 & 0x1f != 0,
        }))
    }

    /// Returns whether an endpoint can be like this at device context index `index` (4.5.1, 6.2.3).
    pub(crate) fn is_sound(&self, index: u8) -> bool {
        let fits = match self.kind {
            EndpointType::Control => index == 1,
            _ => index > 1 && self.to_host == (index & 1 == 1),
        };
        fits && !self.streams && (1..=1024).contains(&self.packet)
    }

    /// Copies the context to the output device context, in the state "running".
    pub(crate) fn copy(&self, memory: &Memory, output: u64, index: u8) -> Result<(), Outside> {
        let [first, rest @ ..] = self.words;
        let at = address(output, index)?;
        memory.write_words(at, &[first & !7 | 1])?;
        memory.write_words(at + 4, &rest)
    }

    /// Writes state and dequeue pointer to the output device context.
    pub(crate) fn publish(
        memory: &Memory,
        output: u64,
        index: u8,
        state: u32,
        dequeue: Position,
    ) -> Result<(), Outside> {
        let at = address(output, index)?;
        let [first] = memory.read_words(at)?;
        let pointer = dequeue.pointer();
        memory.write_words(at + 8, &[pointer as u32, (pointer >> 32) as u32])?;
        memory.write_words(at, &[first & !7 | state])
    }

    /// Writes the state "disabled" into an endpoint's output context.
    pub(crate) fn disable(memory: &Memory, output: u64, index: u8) -> Result<(), Outside> {
        let at = address(output, index)?;
        let [first] = memory.read_words(at)?;
        memory.write_words(at, &[first & !7])
    }

    /// Takes the packet size over (4.6.7).
    pub(crate) fn set_packet(
        memory: &Memory,
        output: u64,
        index: u8,
        packet: u32,
    ) -> Result<(), Outside> {
        let at = address(output, index)? + 4;
        let [second] = memory.read_words(at)?;
        memory.write_words(at, &[second & 0xffff | packet << 16])
    }
}

/// A slot context (6.2.2).
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotContext {
    words: [u32; 4],
}

impl SlotContext {
    pub(crate) fn read(memory: &Memory, base: u64) -> Result<Self, Outside> {
        Ok(Self { words: memory.read_words(base)? })
    }

    /// Returns behind which ports of hubs the device is; 0 for none.
    pub(crate) fn route(&self) -> u32 {
        let [first, ..] = self.words;
        first & 0xf_ffff
    }

    /// Returns the root hub port number.
    pub(crate) fn port(&self) -> u8 {
        let [_, second, ..] = self.words;
        (second >> 16) as u8
    }

    pub(crate) fn context_entries(&self) -> u32 {
        let [first, ..] = self.words;
        first >> 27
    }

    pub(crate) fn set_context_entries(&mut self, entries: u32) {
        let [first, ..] = &mut self.words;
        *first = *first & !(0x1f << 27) | (entries & 0x1f) << 27;
    }

    pub(crate) fn set_state(&mut self, state: u32, device_address: u8) {
        let [.., last] = &mut self.words;
        *last = state << 27 | u32::from(device_address);
    }

    /// Takes over maximum exit latency and interrupter target, the two that Evaluate Context takes (6.2.2.3).
    pub(crate) fn evaluate(&mut self, input: &Self) {
        let ([_, latency, target, _], [_, from_latency, from_target, _]) =
            (&mut self.words, input.words);
        *latency = *latency & !0xffff | from_latency & 0xffff;
        *target = *target & 0x3f_ffff | from_target & !0x3f_ffff;
    }

    pub(crate) fn write(&self, memory: &Memory, base: u64) -> Result<(), Outside> {
        memory.write_words(base, &self.words)
    }
}

/// An input context (6.2.5): which contexts to drop and to add, and these contexts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InputContext {
    pub(crate) drop: u32,
    pub(crate) add: u32,
    /// Where the device context starts that follows the flags.
    pub(crate) device: u64,
}

impl InputContext {
    pub(crate) fn read(memory: &Memory, base: u64) -> Result<Self, Outside> {
        let [drop, add] = memory.read_words(base)?;
        Ok(Self { drop, add, device: base.checked_add(CONTEXT_SIZE).ok_or(Outside(base))? })
    }
}
