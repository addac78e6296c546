//! What wakes the event loop when nothing comes, and what it knows of time.

use clock::{Alarm, Sleeps, WallClock, WallClockWatch};
use nix::errno::Errno;
use nix::unistd::Uid;
use systemd::inhibitor::Inhibitor;

pub(super) struct Waking {
    pub(super) alarm: Alarm,
    /// Wakes the loop, in whose turn the audit log looks at the clock. It does so after a sleep of the PC, too.
    pub(super) wall_clock: WallClockWatch,
    pub(super) sleeps: Sleeps,
    /// Keeps the PC from sleeping; `None` for who is not root, who would be asked for a password by it.
    pub(super) inhibitor: Option<Inhibitor>,
}

impl Waking {
    /// Starts to watch.
    ///
    /// # Errors
    /// The process has no file descriptor left.
    pub(super) fn start(sleeps: Sleeps) -> Result<Self, Errno> {
        Ok(Self {
            alarm: Alarm::new()?,
            wall_clock: WallClockWatch::start(),
            sleeps,
            inhibitor: Uid::effective().is_root().then(Inhibitor::new),
        })
    }

    /// Says that the wall clock was set, if it was.
    pub(super) fn look_at_wall_clock(&mut self) {
        match self.wall_clock.look() {
            WallClock::AsBefore => {}
            WallClock::Set => {
                tracing::warn!("the clock of this PC was set, by somebody or after a sleep")
            }
            WallClock::Off(error) => tracing::warn!(
                "the kernel does not tell when the clock of this PC is set ({error}): the audit log says so only with the next entry or signature"
            ),
        }
    }
}
