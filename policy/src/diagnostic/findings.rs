//! Findings of which so many are kept as somebody reads: a text of nothing but mistakes must not take more memory for its reports than
//! for itself.

use super::{Diagnostic, Severity};

/// Errors, and warnings, that are kept; the rest are counted. Nobody reads the hundredth.
pub(crate) const KEPT_MAX: usize = 100;

/// How many were found besides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// For which the text is refused.
    pub errors: usize,
    /// For which it is not.
    pub warnings: usize,
}

impl LeftOut {
    /// All of them.
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

/// What was found by one reader, in the order in which it was found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Findings {
    list: Vec<Diagnostic>,
    kept: LeftOut,
    left_out: LeftOut,
}

impl Findings {
    /// Whether one more of them would be kept. One that takes work to word is otherwise only to be counted.
    pub(crate) fn has_room(&self, severity: Severity) -> bool {
        let mut kept = self.kept;
        *kept.of(severity) < KEPT_MAX
    }

    /// Adds one.
    pub(crate) fn push(&mut self, found: Diagnostic) {
        if self.has_room(found.severity) {
            *self.kept.of(found.severity) += 1;
            self.list.push(found);
        } else {
            self.count(found.severity);
        }
    }

    /// One more was found, which nobody reads.
    pub(crate) fn count(&mut self, severity: Severity) {
        let count = self.left_out.of(severity);
        *count = count.saturating_add(1);
    }

    /// Adds what another reader found.
    pub(crate) fn join(&mut self, other: Self) {
        self.list.extend(other.list);
        for severity in [Severity::Error, Severity::Warning] {
            let (mut kept, mut left_out) = (other.kept, other.left_out);
            *self.kept.of(severity) += *kept.of(severity);
            let count = self.left_out.of(severity);
            *count = count.saturating_add(*left_out.of(severity));
        }
    }

    /// Nothing was found.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Those that are kept, and how many are not.
    pub(crate) fn into_parts(self) -> (Vec<Diagnostic>, LeftOut) {
        (self.list, self.left_out)
    }
}
