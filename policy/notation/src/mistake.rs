//! What is wrong with a text, and where in it.

use std::ops::Range;

/// A piece of a text, in bytes, end excluded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The offset of the first byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl From<Range<usize>> for Span {
    fn from(range: Range<usize>) -> Self {
        Self { start: range.start, end: range.end }
    }
}

/// Why a piece of text is not what it should be, before anyone knows where it stands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}; {help}")]
pub struct Mistake {
    /// What is wrong: lowercase, no full stop.
    pub message: String,
    /// What to write instead.
    pub help: String,
    /// The bytes of the text that are wrong; `None` if all of it is.
    pub at: Option<Span>,
}

impl Mistake {
    /// Makes a mistake with its remedy.
    pub fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into(), at: None }
    }

    /// Places the mistake in this part of the text.
    #[must_use]
    pub fn at(self, at: Span) -> Self {
        Self { at: Some(at), ..self }
    }
}

/// Returns enough of a text to be recognised.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}
