//! What differs from one trust store to another, for who is to sign the change.

use std::fmt;

use super::{Officer, PublicKey, Purpose, TrustDraft};

/// One thing that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustDifference {
    /// Somebody may sign who could not before.
    Added(Officer),
    /// Somebody may sign nothing any more.
    Removed(Officer),
    /// Somebody signs with another key.
    Key {
        /// The officer whose key it is.
        name: String,
        /// The key of before.
        before: PublicKey,
        /// The key from now on.
        after: PublicKey,
    },
    /// Somebody may sign other things.
    MaySign {
        /// The officer who may sign other things.
        name: String,
        /// What they could sign before.
        before: Vec<Purpose>,
        /// What they may sign from now on.
        after: Vec<Purpose>,
    },
    /// Another number of officers must sign.
    Threshold {
        /// What the signatures are for.
        purpose: Purpose,
        /// How many had to; `None` if nobody could.
        before: Option<usize>,
        /// How many must; `None` if nobody may.
        after: Option<usize>,
    },
}

impl fmt::Display for TrustDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added(Officer { name, key, may_sign }) => {
                write!(f, "added: {name}, who may sign {}, with the key {key}", words(may_sign))
            }
            Self::Removed(Officer { name, key, .. }) => {
                write!(f, "removed: {name}, with the key {key}")
            }
            Self::Key { name, before, after } => {
                write!(f, "another key: {name} had {before} and has {after}")
            }
            Self::MaySign { name, before, after } => {
                write!(f, "may sign: {name} could sign {} and may {}", words(before), words(after))
            }
            Self::Threshold { purpose, before, after } => {
                let said = |threshold: &Option<usize>| {
                    threshold.map_or_else(|| "nobody".to_owned(), |it| it.to_string())
                };
                write!(f, "threshold: {purpose} from {} to {}", said(before), said(after))
            }
        }
    }
}

fn words(purposes: &[Purpose]) -> String {
    purposes.iter().map(|it| it.word()).collect::<Vec<_>>().join(", ")
}

impl TrustDraft {
    /// Returns what differs in another store: the officers in its order, who is gone, and the thresholds. An officer is known by the name.
    #[must_use]
    pub fn differences(&self, next: &Self) -> Vec<TrustDifference> {
        let mut found = Vec::new();
        for officer in &next.officers {
            let Some(before) = self.officers.iter().find(|it| it.name == officer.name) else {
                found.push(TrustDifference::Added(officer.clone()));
                continue;
            };
            let name = officer.name.clone();
            if before.key != officer.key {
                let (before, after) = (before.key, officer.key);
                found.push(TrustDifference::Key { name: name.clone(), before, after });
            }
            if before.may_sign != officer.may_sign {
                let (before, after) = (before.may_sign.clone(), officer.may_sign.clone());
                found.push(TrustDifference::MaySign { name, before, after });
            }
        }
        let gone = |officer: &&Officer| next.officers.iter().all(|it| it.name != officer.name);
        found.extend(self.officers.iter().filter(gone).cloned().map(TrustDifference::Removed));
        for purpose in Purpose::ALL {
            let of = |draft: &Self| draft.thresholds.get(&purpose).copied();
            let (before, after) = (of(self), of(next));
            if before != after {
                found.push(TrustDifference::Threshold { purpose, before, after });
            }
        }
        found
    }
}
