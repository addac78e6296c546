//! Why a policy does not come into force.

use std::io;
use std::path::PathBuf;

use policy::diagnostic::Diagnostics;
use policy::signature;

use super::FILE_MAX;

/// Why a policy does not come into force. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It has mistakes.
    #[error("the policy has mistakes: {0}")]
    Mistakes(Diagnostics),
    /// The signature file has mistakes.
    #[error("its signatures cannot be read: {0}")]
    Signatures(Diagnostics),
    /// The trust store has mistakes.
    #[error("the trust store has mistakes, so that no policy can be approved: {0}")]
    Trust(Diagnostics),
    /// Too few officers signed it.
    #[error("{0}")]
    NotApproved(signature::Refusal),
    /// It is older than one that was in force.
    #[error("it has serial {serial}, and {newest} was in force already: give it a serial above {newest}{}", once_more(*.signed))]
    Older {
        /// Its serial.
        serial: u64,
        /// The highest one so far.
        newest: u64,
        /// Whether officers have to sign it.
        signed: bool,
    },
    /// Its serial belongs to another.
    #[error(
        "another policy with serial {serial} was in force already: give this one a serial above {serial}{}", once_more(*.signed)
    )]
    SerialTaken {
        /// The serial of both.
        serial: u64,
        /// Whether officers have to sign it.
        signed: bool,
    },
    /// It could not be read back from its file.
    #[error("the policy is larger than {} MiB: split its rules by what they share", FILE_MAX >> 20)]
    TooLarge,
    /// A file cannot be written.
    #[error("cannot write {}: check that its disk has room and is not read-only", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("cannot read {}: check that it is there and its rights", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What ends with every change to a text.
const fn once_more(signed: bool) -> &'static str {
    if signed { " and have it signed" } else { "" }
}
