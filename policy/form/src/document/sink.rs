//! Where mistakes are reported to while reading goes on.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use crate::diagnostic::{Diagnostic, Diagnostics, Findings, Severity, Source, Span};
use crate::version::Newer;

/// Mistakes of one text that are kept; the rest are counted.
pub(super) const MISTAKES_MAX: usize = 100;

/// Where mistakes are reported to while reading goes on.
#[derive(Debug)]
pub struct Sink {
    source: Source,
    /// Values that are not TOML, in the order of the text: they are read all the same, for what can be said of them.
    bare: Vec<Span>,
    mistakes: RefCell<Findings>,
    remarks: RefCell<Findings>,
    newer: RefCell<Vec<Newer>>,
    /// Headers that were asked for, as they are to be written: `[seat]`, `[[domain]]`.
    headers: RefCell<BTreeSet<String>>,
}

impl Sink {
    /// Makes a sink for what is wrong with `source`.
    #[must_use]
    pub(super) fn new(source: &Source) -> Self {
        Self::with_bare(source, Vec::new())
    }

    /// Makes the same for a text with values that are not TOML.
    pub(super) fn with_bare(source: &Source, bare: Vec<Span>) -> Self {
        Self {
            source: source.clone(),
            bare,
            mistakes: RefCell::default(),
            remarks: RefCell::default(),
            newer: RefCell::default(),
            headers: RefCell::default(),
        }
    }

    /// Adds a diagnostic.
    pub fn report(&self, found: Diagnostic) {
        self.report_with(|| found);
    }

    /// Adds one that takes work to word, which is not done for those that are only counted.
    pub fn report_with(&self, found: impl FnOnce() -> Diagnostic) {
        add(&self.mistakes, Severity::Error, found);
    }

    /// Counts one of which nobody is told.
    pub(super) fn count(&self) {
        self.mistakes.borrow_mut().count(Severity::Error);
    }

    /// Returns whether one more mistake is only counted.
    pub(super) fn only_counts(&self) -> bool {
        !self.mistakes.borrow().has_room(Severity::Error)
    }

    /// Adds a warning, of what is read all the same.
    #[track_caller]
    pub fn remark(&self, found: impl FnOnce() -> Diagnostic) {
        add(&self.remarks, Severity::Warning, found);
    }

    /// Notes what only newer versions read; of more than [`MISTAKES_MAX`] the first.
    pub(super) fn note_newer(&self, newer: impl FnOnce() -> Newer) {
        if self.newer.borrow().len() < MISTAKES_MAX {
            let newer = newer();
            self.newer.borrow_mut().push(newer);
        }
    }

    /// Notes that a table is asked for; of more than [`MISTAKES_MAX`] the first, since a text may name its tables as it likes.
    pub(super) fn note_header(&self, header: &str) {
        let mut headers = self.headers.borrow_mut();
        let is_new = || header.starts_with('[') && !headers.contains(header);
        if headers.len() < MISTAKES_MAX && is_new() {
            headers.insert(header.to_owned());
        }
    }

    /// Returns the headers of the tables that were asked for.
    pub(super) fn headers(&self) -> BTreeSet<String> {
        self.headers.borrow().clone()
    }

    /// Returns what was read that not every version reads.
    pub fn newer(&self) -> Vec<Newer> {
        self.newer.borrow().clone()
    }

    /// Reports every pair of values that must differ and do not.
    pub fn all_different<K: Eq + Hash>(
        &self,
        values: impl Iterator<Item = (K, Span)>,
        complain: impl Fn(&K, Span, Span) -> Diagnostic,
    ) {
        let mut seen: HashMap<K, Span> = HashMap::new();
        for (value, span) in values {
            match seen.get(&value) {
                Some(first) => self.report_with(|| complain(&value, span, *first)),
                None => {
                    seen.insert(value, span);
                }
            }
        }
    }

    /// Returns whether anything was reported; warnings aside.
    #[must_use]
    pub fn has_mistakes(&self) -> bool {
        !self.mistakes.borrow().is_empty()
    }

    /// Returns the warnings so far.
    pub fn remarks(&self) -> Findings {
        self.remarks.borrow().clone()
    }

    /// Returns the text at `span`.
    pub(super) fn written(&self, span: Span) -> &str {
        self.source.slice(span)
    }

    /// Returns the value that starts where `span` does, if it is not TOML.
    pub(super) fn bare(&self, span: Span) -> Option<Span> {
        let at = self.bare.binary_search_by_key(&span.start, |bare| bare.start).ok()?;
        self.bare.get(at).copied()
    }

    pub(super) fn found(self) -> Diagnostics {
        Diagnostics::of(self.source, self.mistakes.into_inner())
    }
}

/// Adds one, which is worded only if it is kept: whoever words it may look at what was found before.
#[track_caller]
fn add(to: &RefCell<Findings>, severity: Severity, found: impl FnOnce() -> Diagnostic) {
    let has_room = to.borrow().has_room(severity);
    if has_room {
        let found = found();
        to.borrow_mut().push(found);
    } else {
        to.borrow_mut().count(severity);
    }
}
