//! Rings the guest fills: the command ring and transfer rings (4.9.2).

use crate::memory::{Memory, Outside};
use crate::spec::{LINKS_MAX, TRB_SIZE, trb_bit, trb_type};
use crate::trb::Trb;

/// A place on a ring, and what a TRB there has to have as its cycle bit to be the controller's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) address: u64,
    pub(crate) cycle: bool,
}

/// Why a ring cannot be followed. The guest is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RingError {
    #[error("a ring")]
    Outside(#[from] Outside),
    #[error("more than {LINKS_MAX} Link TRBs one after the other at {0:#x}")]
    Links(u64),
}

impl Position {
    /// Makes the place from a dequeue pointer with the cycle state in bit 0.
    pub(crate) fn from_pointer(pointer: u64) -> Self {
        Self { address: pointer & !0xf, cycle: pointer & 1 != 0 }
    }

    /// Returns the place as a dequeue pointer with the cycle state in bit 0.
    pub(crate) fn pointer(self) -> u64 {
        self.address | u64::from(self.cycle)
    }

    /// Fetches the TRB here, past any Link TRBs, and the place behind it. `None` where the guest
    /// has put nothing yet. Bounded by [`LINKS_MAX`].
    pub(crate) fn fetch(self, memory: &Memory) -> Result<Option<(Trb, Self)>, RingError> {
        let mut at = self;
        for _ in 0..=LINKS_MAX {
            let Some(words) = memory.read_trb(at.address, at.cycle)? else { return Ok(None) };
            let trb = Trb::new(at.address, words);
            if trb.kind() != trb_type::LINK {
                let address = at.address.checked_add(TRB_SIZE).ok_or(Outside(at.address))?;
                return Ok(Some((trb, Self { address, ..at })));
            }
            let cycle = at.cycle ^ trb.has(trb_bit::TOGGLE);
            at = Self { address: trb.parameter() & !0xf, cycle };
        }
        Err(RingError::Links(self.address))
    }
}
