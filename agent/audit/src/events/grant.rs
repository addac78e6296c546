//! The entries that effects wait for: of all kinds those that are on the disk before the reference monitor permits something.

use super::{AuditEvent, BreakGlassAskedAgain, BreakGlassOpened, BreakGlassProlonged};

/// What is recorded of an effect before it is permitted: an event that the catalogue marks with `permits`, or [`BreakGlassOpening`]. Nothing else
/// can be one, so that no grant is had by an entry that says something else, or by any entry at all.
pub trait GrantEvent: sealed::GrantEvent + Into<AuditEvent> {}

pub(super) mod sealed {
    /// Keeps other crates' types from being events of a grant.
    pub trait GrantEvent {}
}

/// What is recorded of an opening of break-glass: it is open now, for longer, or as long as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BreakGlassOpening {
    /// It is open, and was not.
    Opened(BreakGlassOpened),
    /// It is open for longer.
    Prolonged(BreakGlassProlonged),
    /// It stays open as long as it was.
    AskedAgain(BreakGlassAskedAgain),
}

impl sealed::GrantEvent for BreakGlassOpening {}
impl GrantEvent for BreakGlassOpening {}

impl From<BreakGlassOpening> for AuditEvent {
    fn from(event: BreakGlassOpening) -> Self {
        match event {
            BreakGlassOpening::Opened(event) => event.into(),
            BreakGlassOpening::Prolonged(event) => event.into(),
            BreakGlassOpening::AskedAgain(event) => event.into(),
        }
    }
}
