//! Where mistakes are reported to while reading goes on.

use std::cell::{Cell, RefCell};

use crate::diagnostic::{Diagnostic, Diagnostics, Source, Span};
use crate::version::Newer;

/// Mistakes of one text that are kept; the rest are counted. Nobody reads the hundredth, and a text of nothing but
/// mistakes must not take more memory for its reports than for itself.
pub(super) const MISTAKES_MAX: usize = 100;

/// Where mistakes are reported to while reading goes on.
#[derive(Debug)]
pub struct Sink {
    source: Source,
    /// Values that are not TOML, in the order of the text: they are read all the same, for what can be said of them.
    bare: Vec<Span>,
    kept: RefCell<Vec<Diagnostic>>,
    left_out: Cell<usize>,
    remarks: RefCell<Vec<Diagnostic>>,
    newer: RefCell<Vec<Newer>>,
}

impl Sink {
    /// For what is wrong with `source`.
    #[must_use]
    pub(super) fn new(source: &Source) -> Self {
        Self::with_bare(source, Vec::new())
    }

    /// The same for a text with values that are not TOML.
    pub(super) fn with_bare(source: &Source, bare: Vec<Span>) -> Self {
        Self {
            source: source.clone(),
            bare,
            kept: RefCell::default(),
            left_out: Cell::default(),
            remarks: RefCell::default(),
            newer: RefCell::default(),
        }
    }

    /// Adds one.
    pub fn report(&self, found: Diagnostic) {
        self.report_with(|| found);
    }

    /// Adds one that takes work to word, which is not done for those that are only counted.
    pub fn report_with(&self, found: impl FnOnce() -> Diagnostic) {
        if self.kept.borrow().len() < MISTAKES_MAX {
            let found = found();
            self.kept.borrow_mut().push(found);
        } else {
            self.left_out.set(self.left_out.get().saturating_add(1));
        }
    }

    /// Adds a warning, of what is read all the same.
    pub fn remark(&self, found: impl FnOnce() -> Diagnostic) {
        if self.remarks.borrow().len() < MISTAKES_MAX {
            let found = found();
            self.remarks.borrow_mut().push(found);
        }
    }

    /// Notes what only newer versions read; of more than [`MISTAKES_MAX`] the first.
    pub(super) fn note_newer(&self, newer: impl FnOnce() -> Newer) {
        if self.newer.borrow().len() < MISTAKES_MAX {
            let newer = newer();
            self.newer.borrow_mut().push(newer);
        }
    }

    /// What was read that not every version reads.
    pub(crate) fn newer(&self) -> Vec<Newer> {
        self.newer.borrow().clone()
    }

    /// Whether anything was reported; warnings aside.
    #[must_use]
    pub fn has_mistakes(&self) -> bool {
        !self.kept.borrow().is_empty()
    }

    /// The warnings so far.
    #[must_use]
    pub fn remarks(&self) -> Vec<Diagnostic> {
        self.remarks.borrow().clone()
    }

    /// The text at `span`.
    pub(super) fn written(&self, span: Span) -> &str {
        self.source.slice(span)
    }

    /// The value that starts where `span` does, if it is not TOML.
    pub(super) fn bare(&self, span: Span) -> Option<Span> {
        let at = self.bare.binary_search_by_key(&span.start, |bare| bare.start).ok()?;
        self.bare.get(at).copied()
    }

    pub(super) fn found(self) -> Diagnostics {
        Diagnostics::new(self.source, self.kept.into_inner()).and_more(self.left_out.get())
    }
}

/// Why a piece of text is not what it should be, before anyone knows where it stands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}; {help}")]
pub struct Mistake {
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: String,
    /// The bytes of the text that are wrong; `None` if all of it is.
    pub at: Option<Span>,
}

impl Mistake {
    /// A mistake with its remedy.
    pub fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into(), at: None }
    }

    /// In this part of the text.
    #[must_use]
    pub fn at(self, at: Span) -> Self {
        Self { at: Some(at), ..self }
    }
}
