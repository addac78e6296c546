//! What a trust store allows and should not.

use std::fmt;

use super::{Purpose, TrustStore};
use crate::SERIAL_MAX;
use crate::policy::FOLLOWING_MIN;

/// A setting that is allowed and weak, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weakness {
    /// What is weak, and what follows from it.
    pub what: String,
    /// What to change in the trust store.
    pub remedy: String,
}

impl fmt::Display for Weakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

impl TrustStore {
    /// Returns what is weak. Of a store of format 1 nothing is said: it has no choice.
    #[must_use]
    pub fn weaknesses(&self) -> Vec<Weakness> {
        let Some(serial) = self.serial() else { return Vec::new() };
        let mut found = Vec::new();
        let mut add = |what: String, remedy: String| found.push(Weakness { what, remedy });
        for officer in self.officers() {
            if officer.may_sign.len() == Purpose::ALL.len() {
                add(
                    format!(
                        "the key of {} may sign everything: whoever has it is a signer of all there is",
                        officer.name
                    ),
                    format!(
                        "give programs to a key of its own, under a name of its own such as `{0} (program)`: make it (`bulkhead policy keygen`), add it (`bulkhead trust add FILE KEY.pub --may-sign program`), and then leave {0} the rest (`bulkhead trust add FILE KEY.pub --may-sign policy,trust,image --replace`, with the .pub file of {0})",
                        officer.name
                    ),
                );
            }
        }
        for (purpose, so) in [
            (Purpose::Program, "can bring any program onto the PCs"),
            (Purpose::Trust, "can give every right to sign to themselves"),
        ] {
            if self.threshold(purpose) == Some(1) {
                let keys = self.officers_for(purpose).count();
                let remedy = match keys {
                    1 => format!(
                        "let a second officer sign for `{purpose}`, and ask for both (`bulkhead trust threshold FILE {purpose}=2`)"
                    ),
                    _ => format!("ask for two (`bulkhead trust threshold FILE {purpose}=2`)"),
                };
                add(format!("the threshold of `{purpose}` is 1: one officer alone {so}"), remedy);
            }
        }
        let left = SERIAL_MAX.saturating_sub(serial);
        if left < FOLLOWING_MIN && self.signs_changes() {
            let follow = match left {
                0 => "no trust store can follow this one".to_owned(),
                1 => "only one trust store can follow this one".to_owned(),
                left => format!("only {left} trust stores can follow this one"),
            };
            add(
                format!("{follow}: a serial only grows, and ends at {SERIAL_MAX}"),
                "count on from the trust store in force: a PC that has taken this serial never goes back below it".to_owned(),
            );
        }
        match self.threshold(Purpose::Trust) {
            None => {
                let named = self.allowing(Purpose::Trust);
                add(
                    "nobody signs changes of the trust store: whoever can write the file says who signs".to_owned(),
                    format!("let two officers sign for `trust` as well, such as {named}"),
                );
            }
            // Said above.
            Some(1) => {}
            Some(trust) => {
                let higher = Purpose::ALL.into_iter().filter_map(|purpose| {
                    let threshold = self.threshold(purpose).filter(|it| *it > trust)?;
                    Some((purpose, threshold))
                });
                for (purpose, threshold) in higher {
                    add(
                        format!(
                            "`{purpose}` asks for {threshold} officers, and the {trust} that `trust` asks for can lower that"
                        ),
                        format!(
                            "ask for as many for `trust` (`bulkhead trust threshold FILE trust={threshold}`)"
                        ),
                    );
                }
            }
        }
        found
    }
}
