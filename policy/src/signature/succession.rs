//! How one trust store follows another: signed by officers of both, and with a higher serial.

use super::{Approval, Purpose, Refusal, Signatures, TrustStore, TrustText};
use crate::SERIAL_MAX;
use crate::diagnostic::Diagnostics;

/// Why a trust store does not follow another. Each says what to do.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NoSuccessor {
    /// Too few of those who may change the store before it signed it.
    #[error("by the trust store in force, {0}")]
    NotApproved(#[source] Refusal),
    /// Its text has mistakes.
    #[error("it has mistakes: {0}")]
    Mistakes(Diagnostics),
    /// It is of format 1, which has no serial.
    #[error(
        "it is written in format 1, which has no serial: write it in format 2, with a serial above {0}"
    )]
    NoSerial(u64),
    /// Its serial is below the one in force.
    #[error(
        "it has serial {serial}, and {newest} is in force: give it a serial above {newest} and have it signed"
    )]
    Older {
        /// The serial of the store that was to follow.
        serial: u64,
        /// That of the store in force.
        newest: u64,
    },
    /// Its serial is the last, so that nothing could follow it, and its changes have to be signed.
    #[error(
        "it has the serial {SERIAL_MAX}, above which there is none, so that nobody could change it any more: give it the one after that of the store in force, and have it signed"
    )]
    Last,
    /// Too few of those who may change it from now on signed it: nobody would know that they have their keys.
    #[error("by its own officers, {0}")]
    NotItsOwn(#[source] Refusal),
}

impl TrustStore {
    /// Returns whether changes of this store have to be signed: whether somebody may sign them.
    #[must_use]
    pub fn signs_changes(&self) -> bool {
        self.threshold(Purpose::Trust).is_some()
    }

    /// Returns whether nobody could ever change this store: its changes have to be signed, and no serial is above its own.
    #[must_use]
    pub fn ends_changes(&self) -> bool {
        self.signs_changes() && self.serial().is_some_and(|serial| serial >= SERIAL_MAX)
    }

    /// Returns the store that is to follow this one, if enough officers who may sign for `trust` signed it: of this store, so that nobody else
    /// changes it, and of the new one, so that it does not end with keys that nobody has. Its serial must be higher. What nobody trusted signed is
    /// not read.
    ///
    /// # Errors
    /// Why it may not follow.
    pub fn succeed(
        &self,
        source_name: &str,
        text: &str,
        signatures: &Signatures<TrustText>,
    ) -> Result<(Self, Approval<TrustText>), NoSuccessor> {
        let approval = self.approve(text, signatures).map_err(NoSuccessor::NotApproved)?;
        let next = Self::parse(source_name, text).map_err(NoSuccessor::Mistakes)?;
        let newest = self.serial().unwrap_or(0);
        let serial = next.serial().ok_or(NoSuccessor::NoSerial(newest))?;
        if serial <= newest {
            return Err(NoSuccessor::Older { serial, newest });
        }
        if next.ends_changes() {
            return Err(NoSuccessor::Last);
        }
        if next.signs_changes() {
            next.approve(text, signatures).map_err(NoSuccessor::NotItsOwn)?;
        }
        Ok((next, approval))
    }
}
