//! Why something is not done with an image.

use super::INSTALLED_MAX;

/// Why something is not done with an image. Each says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The PC does not have it.
    #[error("serial {0} is not installed: `bulkhead images list` shows what is")]
    NotInstalled(u64),
    /// Its floor forbids it.
    #[error(
        "serial {serial} is below the floor {floor}, under which no image comes into force any more: take a newer bundle"
    )]
    BelowFloor {
        /// The serial that was asked for.
        serial: u64,
        /// The lowest serial that may come into force.
        floor: u64,
    },
    /// A newer one was installed before.
    #[error(
        "serial {serial} is older than {newest}, which was installed: `bulkhead images rollback` returns to the previous one; another is packed with a higher serial"
    )]
    Older {
        /// The serial that was to be installed.
        serial: u64,
        /// The newest that was installed.
        newest: u64,
    },
    /// The serial stands for something else.
    #[error(
        "another image with the serial {0} was installed: one serial stands for one content; have it packed with a higher one"
    )]
    OtherContent(u64),
    /// There are as many as are kept.
    #[error(
        "{INSTALLED_MAX} images of this name are installed: remove one with `bulkhead images remove` first"
    )]
    TooMany,
    /// Nothing to go back to.
    #[error(
        "there is no previous image to go back to: install and activate another, or start its domains from files (`kernel` in machine.toml)"
    )]
    NoPrevious,
    /// Another image came into force since, or its guest was judged already.
    #[error(
        "serial {0} is not on trial any more: `bulkhead restart` starts the domain from what is in force"
    )]
    NotOnTrial(u64),
    /// What it would have to say cannot be recorded.
    #[error(
        "serial {0} does not come into force, as too many events of its image wait for the audit log: `bulkhead status` says why that cannot be written"
    )]
    NotRecorded(u64),
    /// Another command came in between.
    #[error(
        "another command changed what is to come into force meanwhile: `bulkhead images list` shows it; try again"
    )]
    ChangedMeanwhile,
    /// It is in force or to come, so that it is not removed.
    #[error("serial {0} {1}: activate another first, and start its domains anew")]
    StillNeeded(u64, &'static str),
}
