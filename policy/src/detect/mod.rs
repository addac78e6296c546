//! What must not cross: patterns looked for in what does.

use crate::language::{Name, words};

mod pattern;

pub use pattern::Pattern;

words! {
    /// A detector every policy has.
    BuiltIn {
        /// Korean resident registration numbers, and those of registered foreigners.
        KoreanRrn = "korean-rrn",
        /// Korean telephone numbers.
        KrPhone = "kr-phone",
        /// Payment card numbers.
        CardNumber = "card-number",
    }
}

/// Something that is looked for. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Detector {
    /// One that every policy has.
    BuiltIn(BuiltIn),
    /// One that the officer defined.
    Pattern(Name, Pattern),
}

impl Detector {
    /// What rules call it.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::BuiltIn(built_in) => built_in.word(),
            Self::Pattern(name, _) => name,
        }
    }
}
