//! Findings of which so many are kept as somebody reads: a text of nothing but mistakes must not take more memory for its reports than
//! for itself.

use std::collections::BTreeMap;
use std::panic::Location;

use super::{Diagnostic, Severity};

/// Errors, and warnings of one kind, that are kept; the rest are counted. Nobody reads the hundredth.
const KEPT_MAX: usize = 100;

/// How many were found besides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// For which the text is refused.
    pub errors: usize,
    /// For which it is not.
    pub warnings: usize,
}

impl LeftOut {
    /// Returns all of them.
    #[must_use]
    pub fn all(self) -> usize {
        self.errors.saturating_add(self.warnings)
    }

    fn of(&mut self, severity: Severity) -> &mut usize {
        match severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        }
    }
}

/// What a warning is about: the place in the code that adds it. So no warning is hidden by the many of another place, and whoever
/// writes a new one has nothing to think of. A function that adds for others is marked `#[track_caller]`.
type Kind = &'static Location<'static>;

/// What was found by one reader, in the order in which it was found.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    list: Vec<Diagnostic>,
    errors: usize,
    warnings: BTreeMap<Kind, usize>,
    left_out: LeftOut,
}

impl Findings {
    /// Returns whether one more of them would be kept. One that takes work to word is otherwise only to be counted.
    #[track_caller]
    pub fn has_room(&self, severity: Severity) -> bool {
        self.kept(severity) < KEPT_MAX
    }

    /// Returns how many are kept of those that one more would be counted with.
    #[track_caller]
    fn kept(&self, severity: Severity) -> usize {
        match severity {
            Severity::Error => self.errors,
            Severity::Warning => self.warnings.get(Location::caller()).copied().unwrap_or_default(),
        }
    }

    /// Adds a diagnostic, unless there are too many already.
    #[track_caller]
    pub fn push(&mut self, mut found: Diagnostic) {
        let kept = self.kept(found.severity);
        if kept >= KEPT_MAX {
            self.count(found.severity);
            return;
        }
        match found.severity {
            Severity::Error => self.errors += 1,
            Severity::Warning => {
                found.of_its_kind = kept;
                self.warnings.insert(Location::caller(), kept + 1);
            }
        }
        self.list.push(found);
    }

    /// Counts one more, which nobody reads.
    pub fn count(&mut self, severity: Severity) {
        let count = self.left_out.of(severity);
        *count = count.saturating_add(1);
    }

    /// Adds what another reader found.
    pub fn join(&mut self, other: Self) {
        self.list.extend(other.list);
        self.errors += other.errors;
        for (kind, kept) in other.warnings {
            *self.warnings.entry(kind).or_default() += kept;
        }
        for severity in [Severity::Error, Severity::Warning] {
            let mut left_out = other.left_out;
            let count = self.left_out.of(severity);
            *count = count.saturating_add(*left_out.of(severity));
        }
    }

    /// Returns whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Returns those that are kept, and how many are not.
    pub fn into_parts(self) -> (Vec<Diagnostic>, LeftOut) {
        (self.list, self.left_out)
    }
}
