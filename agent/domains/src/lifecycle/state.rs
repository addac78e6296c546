//! Where a domain is in its life, and how far its end has come.

use super::Time;

/// Where a domain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The domain has no VMM, and its devices are the host's.
    Off,
    /// Devices are being handed over.
    Preparing {
        /// When it counts as failed.
        until: Time,
    },
    /// Devices are there; the host is being looked at.
    Gated,
    /// The VMM is being started.
    Spawning,
    /// The VMM runs.
    Running {
        /// When the VMM was started.
        from: Time,
        /// Whether it has answered on its control socket.
        answered: bool,
    },
    /// The VMM is being ended.
    Stopping(Phase),
    /// Devices are being given back.
    Releasing {
        /// When it counts as failed.
        until: Time,
    },
    /// The last VMM failed, and the next one waits.
    Backoff {
        /// When the next VMM is started.
        until: Time,
    },
}

/// The steps in which a VMM is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The guest was asked.
    Asked {
        /// When the button is pressed again.
        again: Time,
        /// When the VMM is told to end.
        until: Time,
    },
    /// The VMM was told to end.
    Ended {
        /// When it is killed.
        until: Time,
    },
    /// The VMM was killed.
    Killed {
        /// When it is killed again.
        again: Time,
    },
    /// The VMM was killed as it hung, to be started again.
    Hung {
        /// Whether it had run well before.
        was_healthy: bool,
        /// When it is killed again.
        again: Time,
    },
}

impl State {
    /// Returns one word for status: what a script may compare with.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Preparing { .. } => "preparing",
            Self::Gated => "waiting",
            Self::Spawning | Self::Running { answered: false, .. } => "starting",
            Self::Running { answered: true, .. } => "running",
            Self::Stopping(_) => "stopping",
            Self::Releasing { .. } => "releasing",
            Self::Backoff { .. } => "retrying",
        }
    }

    /// Returns whether it stays so until somebody wants something else, or something goes wrong.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        matches!(self, Self::Off | Self::Running { answered: true, .. })
    }

    /// Returns whether a VMM process may be there.
    #[must_use]
    pub fn has_vmm(&self) -> bool {
        matches!(self, Self::Running { .. } | Self::Stopping(_))
    }
}

#[cfg(test)]
mod tests {
    use control::protocol::{is_on_its_way, is_up};

    use super::*;

    #[test]
    fn whoever_reads_a_status_knows_each_states_word() {
        let (until, again) = (Time::ZERO, Time::ZERO);
        let running = State::Running { from: until, answered: true };
        let coming = [
            State::Preparing { until },
            State::Gated,
            State::Spawning,
            State::Running { from: until, answered: false },
            State::Stopping(Phase::Killed { again }),
            State::Releasing { until },
        ];
        assert!(is_up(running.word()) && !is_on_its_way(running.word()));
        assert!(coming.iter().all(|state| is_on_its_way(state.word()) && !is_up(state.word())));
        for state in [State::Off, State::Backoff { until }] {
            assert!(!is_on_its_way(state.word()) && !is_up(state.word()));
        }
    }
}
