//! Why a policy does not come into force.

use std::io;
use std::path::PathBuf;

use policy::diagnostic::Diagnostics;
use policy::{SERIAL_MAX, signature};

use super::FILE_MAX;

/// Why a policy does not come into force. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The policy has mistakes.
    #[error("the policy has mistakes: {0}")]
    Mistakes(Diagnostics),
    /// The signature file has mistakes.
    #[error("its signatures cannot be read: {0}")]
    Signatures(Diagnostics),
    /// The trust store has mistakes.
    #[error("the trust store has mistakes, so that no policy can be approved: {0}")]
    Trust(Diagnostics),
    /// The trust store that counted last cannot be read, and may forbid what the file allows.
    #[error("the trust store that counted last, {}, cannot be read, so that no policy can be approved: {why}; if trust.toml is what the security office signed, remove that file and start the agent", path.display())]
    TrustMemory {
        /// Where it is remembered.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Too few officers signed it.
    #[error("{0}")]
    NotApproved(signature::Refusal),
    /// It is older than one that was in force.
    #[error("it has serial {serial}, and {newest} was in force already: {}", .remedy.of("it", *.newest))]
    Older {
        serial: u64,
        /// The highest one so far.
        newest: u64,
        /// How its serial becomes a higher one.
        remedy: HigherSerial,
    },
    /// Its serial belongs to another.
    #[error("another policy with serial {serial} was in force already: {}", .remedy.of("this one", *.serial))]
    SerialTaken {
        /// The serial of both.
        serial: u64,
        /// How its serial becomes a higher one.
        remedy: HigherSerial,
    },
    /// It could not be read back from its file.
    #[error("the policy is larger than {} MiB: split its rules by what they share", FILE_MAX >> 20)]
    TooLarge,
    /// A file cannot be written.
    #[error("cannot write {}: check that its disk has room and is not read-only", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("cannot read {}: check that it is there and its rights", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// What it depends on how a policy is put in force after one of a higher serial, or of the same.
#[derive(Debug, Clone)]
pub struct HigherSerial {
    /// Whether officers have to sign it.
    pub signed: bool,
    /// Where the PC keeps the last good one; `None` where it keeps none.
    pub last_good: Option<PathBuf>,
}

impl HigherSerial {
    fn of(&self, policy: &str, newest: u64) -> String {
        if newest < SERIAL_MAX {
            // A signature ends with every change to a text.
            let once_more = if self.signed { " and have it signed" } else { "" };
            return format!("give {policy} a serial above {newest}{once_more}");
        }
        let remove = match &self.last_good {
            Some(path) => format!(" remove {},", path.display()),
            None => String::new(),
        };
        let signatures = if self.signed { " and its signatures" } else { "" };
        format!(
            "no serial is above it: stop the agent,{remove} put the corrected policy{signatures} in place, and start it"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_the_highest_serial_nobody_is_told_to_give_a_higher_one() {
        for signed in [false, true] {
            let last_good = Some(PathBuf::from("/var/lib/bulkhead/policy.json"));
            let remedy = HigherSerial { signed, last_good };
            for refusal in [
                Refusal::Older { serial: 2, newest: SERIAL_MAX, remedy: remedy.clone() },
                Refusal::SerialTaken { serial: SERIAL_MAX, remedy: remedy.clone() },
            ] {
                let said = refusal.to_string();
                let way = format!(
                    "no serial is above it: stop the agent, remove /var/lib/bulkhead/policy.json, put the corrected policy{} in place, and start it",
                    if signed { " and its signatures" } else { "" }
                );
                assert!(said.ends_with(&way), "{said}");
            }
            let newest = SERIAL_MAX - 1;
            let said = Refusal::Older { serial: 2, newest, remedy }.to_string();
            assert!(said.contains(&format!("a serial above {newest}")), "{said}");
        }
    }
}
