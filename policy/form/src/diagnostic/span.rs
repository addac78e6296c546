//! Places in a text.

use std::ops::Deref;

pub use notation::Span;

/// A value and where it was written.
#[derive(Clone, Copy, Debug)]
pub struct Spanned<T> {
    /// The value that was read.
    pub value: T,
    /// Where in the text it was written.
    pub span: Span,
}

impl<T> Spanned<T> {
    /// Makes `value`, written at `span`.
    pub const fn new(value: T, span: Span) -> Self {
        Self { value, span }
    }
}

impl<T> Deref for Spanned<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}
