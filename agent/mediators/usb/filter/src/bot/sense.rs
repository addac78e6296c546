//! Sense data of commands that were refused here (SPC-4, sense data).

use crate::event::CommandRefusal;

/// The sense key ILLEGAL REQUEST (SPC-4).
const ILLEGAL_REQUEST: u8 = 0x05;
const DATA_PROTECT: u8 = 0x07;

/// Bytes of fixed format sense data without vendor-specific bytes.
const FIXED_BYTES: u8 = 18;

/// Why a command failed, in SCSI's words: sense key, additional sense code and its qualifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sense {
    key: u8,
    code: u8,
}

impl From<CommandRefusal> for Sense {
    fn from(why: CommandRefusal) -> Self {
        let (key, code) = match why {
            CommandRefusal::Writes => (DATA_PROTECT, 0x27),
            CommandRefusal::NotOffered => (ILLEGAL_REQUEST, 0x20),
            CommandRefusal::Field | CommandRefusal::Length => (ILLEGAL_REQUEST, 0x24),
            CommandRefusal::Unit => (ILLEGAL_REQUEST, 0x25),
        };
        Self { key, code }
    }
}

impl Sense {
    /// Returns the sense data: in fixed format, or in descriptor format without descriptors.
    pub(crate) fn data(self, descriptor: bool) -> Vec<u8> {
        if descriptor {
            return vec![0x72, self.key, self.code, 0, 0, 0, 0, 0];
        }
        let mut data = vec![0x70, 0, self.key, 0, 0, 0, 0, FIXED_BYTES - 8, 0, 0, 0, 0, self.code];
        data.resize(usize::from(FIXED_BYTES), 0);
        data
    }
}
