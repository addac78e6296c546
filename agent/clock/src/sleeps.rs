//! Each sleep of the PC until it was seen to, across the agents of one boot.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base::durable;

use crate::sleep::SleepWatch;

/// Tells of each sleep of the PC until it was seen to, also of one while no agent ran, whose guests run on with dead devices.
///
/// How long the PC slept in all is left in a file of the runtime directory once a sleep was seen to: an agent that dies in the midst of that
/// leaves it to the next one. The file is as old as the boot.
pub struct Sleeps {
    watch: SleepWatch,
    path: PathBuf,
    /// How long the PC slept while no agent ran, if it did.
    meanwhile: Option<Duration>,
}

impl Sleeps {
    /// Goes on where the agent before this one ended, and watches from now on if none did.
    #[must_use]
    pub fn resume(path: &Path) -> Self {
        let known = durable::read(path).unwrap_or_else(|error| {
            tracing::warn!(
                "whether the PC slept while no agent ran is not known, as {} cannot be read: {error}",
                path.display()
            );
            None
        });
        let mut watch = known.map_or_else(SleepWatch::start, SleepWatch::resume);
        let meanwhile = watch.look();
        let this = Self { watch, path: path.to_owned(), meanwhile };
        if meanwhile.is_none() {
            this.remember();
        }
        this
    }

    /// Returns whether it slept while no agent ran.
    #[must_use]
    pub fn slept_meanwhile(&self) -> bool {
        self.meanwhile.is_some()
    }

    /// Forgets a sleep while no agent ran, as no guest ran either: nothing is dead by it.
    pub fn forget_sleep_meanwhile(&mut self) {
        if self.meanwhile.take().is_some() {
            self.remember();
        }
    }

    /// Returns how long the PC slept since the last look, if it did. Does not wait.
    pub fn look(&mut self) -> Option<Duration> {
        let meanwhile = self.meanwhile.take();
        match (meanwhile, self.watch.look()) {
            (Some(one), Some(other)) => Some(one + other),
            (one, other) => one.or(other),
        }
    }

    /// Notes that what the last look found was seen to.
    pub fn remember(&self) {
        if let Err(error) = durable::write(&self.path, &self.watch.lead()) {
            tracing::warn!(
                "a sleep of the PC while no agent runs will not be noticed, as {} cannot be written: {error}",
                self.path.display()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::sleep::KernelClocks;

    #[test]
    fn a_sleep_while_no_agent_ran_is_told_until_it_was_seen_to_and_what_cannot_be_read_tells_of_none()
     {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("slept.json");
        let mut first = Sleeps::resume(&path);
        assert!(!first.slept_meanwhile());
        assert_eq!(first.look(), None);
        let lead: Duration = durable::read(&path).unwrap().unwrap();
        // What an agent leaves that ended before a sleep of a minute. Where this machine never slept there is nothing that it can have slept less.
        let earlier = Sleeps {
            watch: SleepWatch::go_on_of(KernelClocks, Duration::ZERO),
            path: path.clone(),
            meanwhile: None,
        };
        earlier.remember();
        assert_eq!(durable::read::<Duration>(&path).unwrap(), Some(Duration::ZERO));
        let mut next = Sleeps { meanwhile: Some(Duration::from_secs(60)), ..Sleeps::resume(&path) };
        assert!(next.slept_meanwhile());
        assert!(next.look().is_some_and(|slept| slept >= Duration::from_secs(60)));
        assert_eq!(next.look(), None, "it is told once");
        next.remember();
        let mut alone =
            Sleeps { meanwhile: Some(Duration::from_secs(60)), ..Sleeps::resume(&path) };
        alone.forget_sleep_meanwhile();
        assert_eq!(alone.look(), None, "no guest ran meanwhile");
        assert!(
            durable::read::<Duration>(&path).unwrap().unwrap()
                >= lead.saturating_sub(Duration::from_millis(1))
        );
        for garbled in ["", "-1", "{\"secs\":\"long\"}"] {
            fs::write(&path, garbled).unwrap();
            assert!(!Sleeps::resume(&path).slept_meanwhile(), "{garbled}");
            assert!(durable::read::<Duration>(&path).unwrap().is_some(), "it is written anew");
        }
    }
}
