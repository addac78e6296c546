//! What the audit log is to have of the images of one name, in the order in which it happened.
//!
//! An event stands here from the very change of the record that it is about until the log has it for certain: it is lost with no agent, and
//! recorded in no other order. How it gets into the log: [`crate::outboxes`].

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// Most events that wait for the audit log: each but refusals is a command of IT's, or what came of one.
pub const OUTBOX_MAX: usize = 32;
/// Refusals wait only while fewer than so many events do: a domain that starts again and again leaves room for what happens.
const REFUSALS_MAX: usize = 16;

/// Something that happened with an image in a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageEvent {
    /// When, by the PC's clock; a record of the first format does not say.
    pub at: Option<String>,
    /// The serial of the image.
    pub serial: u64,
    /// The domain that was started, or whose guest it was.
    pub domain: String,
    /// What happened with the image.
    pub what: Occurrence,
}

/// What happened with an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Occurrence {
    /// It came into force with a start.
    InForce {
        /// The digest of its manifest; a record of the first format may lack it.
        manifest: Option<Digest>,
    },
    /// Its guest did not come up, and the image before is in force again.
    Returned {
        /// The serial of the image before.
        back: u64,
    },
    /// Its guest did not come up, and it stays.
    Stayed {
        /// Why nothing was gone back to.
        why: String,
    },
    /// It was to come into force with a start and could not.
    Refused {
        /// Why it could not.
        why: String,
    },
}

/// The events of one name that wait for the audit log, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Outbox(Vec<ImageEvent>);

impl Outbox {
    pub(super) fn events(&self) -> &[ImageEvent] {
        &self.0
    }

    /// Returns whether there is room for an image that comes into force, and for what becomes of its trial.
    pub(super) fn takes_a_trial(&self) -> bool {
        self.0.len().saturating_add(2) <= OUTBOX_MAX
    }

    /// Adds what happened. There is room, as nothing comes into force without.
    pub(super) fn push(&mut self, event: ImageEvent) {
        self.0.push(event);
    }

    /// Adds a refusal, unless the same one waits. Returns whether it waits now.
    pub(super) fn push_refusal(&mut self, event: ImageEvent) -> bool {
        let waits = self.0.iter().any(|it| is_same_refusal(it, &event));
        if !waits && self.0.len() >= REFUSALS_MAX {
            return false;
        }
        if !waits {
            self.0.push(event);
        }
        true
    }

    /// Removes what the audit log has, if it is what has waited for longest.
    pub(super) fn remove(&mut self, recorded: &[ImageEvent]) {
        if self.0.starts_with(recorded) {
            self.0.drain(..recorded.len());
        }
    }
}

/// Returns whether two events are refusals of the same image for the same cause, at whatever time.
fn is_same_refusal(one: &ImageEvent, other: &ImageEvent) -> bool {
    let why = |event: &ImageEvent| match &event.what {
        Occurrence::Refused { why } => Some(why.clone()),
        _ => None,
    };
    (one.serial, &one.domain, why(one)) == (other.serial, &other.domain, why(other))
        && why(one).is_some()
}
