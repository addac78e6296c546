//! What must not cross: personal numbers and the officer's own patterns, looked for in what does.
//!
//! Detectors stop accidents and carelessness: a patient's number in a text that somebody pastes into a search engine. They
//! do not stop a person who means to smuggle it; nothing that reads text can. So they see through what happens by itself
//! or is done to get past a filter on the ward (spaces, hyphens, full-width digits, zero-width characters, markup),
//! and they would rather stop one harmless number too many than let one through.
//!
//! ```text
//! bytes --Content::of--> views of the text --fold--> plain letters and digits --+--> digit strings --> built-in detectors
//!                        (as it is, without markup)                             +--> officer's patterns
//! ```
//!
//! Everything takes time linear in the text.

use std::borrow::Cow;

use crate::terms::{Name, words};

mod card_number;
mod content;
mod digits;
mod fold;
mod korean_rrn;
mod kr_phone;
mod pattern;

pub use content::Content;
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
    /// Returns what rules call it.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::BuiltIn(built_in) => built_in.word(),
            Self::Pattern(name, _) => name,
        }
    }

    /// Returns what it finds, in words a clinician understands.
    #[must_use]
    pub fn describe(&self) -> Cow<'static, str> {
        match self {
            Self::BuiltIn(BuiltIn::KoreanRrn) => "a resident registration number".into(),
            Self::BuiltIn(BuiltIn::KrPhone) => "a telephone number".into(),
            Self::BuiltIn(BuiltIn::CardNumber) => "a payment card number".into(),
            Self::Pattern(name, _) => format!("a `{name}`").into(),
        }
    }

    /// Returns whether it finds anything.
    #[must_use]
    pub fn finds(&self, content: &Content<'_>) -> bool {
        match self {
            Self::BuiltIn(BuiltIn::KoreanRrn) => content.digits().any(korean_rrn::is_in),
            Self::BuiltIn(BuiltIn::KrPhone) => content.digits().any(kr_phone::is_in),
            Self::BuiltIn(BuiltIn::CardNumber) => content.digits().any(card_number::is_in),
            Self::Pattern(_, pattern) => content.texts().any(|text| pattern.is_in(text)),
        }
    }

    /// Returns whether both look for the same, whatever they are called.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::BuiltIn(one), Self::BuiltIn(two)) => one == two,
            (Self::Pattern(_, one), Self::Pattern(_, two)) => one.as_str() == two.as_str(),
            _ => false,
        }
    }
}

/// Two detectors are equal that look for the same.
impl PartialEq for Detector {
    fn eq(&self, other: &Self) -> bool {
        self.same_as(other)
    }
}

impl Eq for Detector {}

/// Returns whether a detector finds anything in plain text.
#[cfg(test)]
pub(crate) fn finds(built_in: BuiltIn, text: &str) -> bool {
    let content = Content::of(crate::language::MediaType::TextPlain, text.as_bytes()).unwrap();
    Detector::BuiltIn(built_in).finds(&content)
}
