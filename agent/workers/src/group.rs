//! The cgroup that workers run in, as far as whoever starts them has to do with it: the agent makes it (`domains::cgroup`), a worker enters it by itself.

use std::fs;
use std::path::{Path, PathBuf};

/// What a group says of its memory, among it how often something in it was killed for that.
const EVENTS: &str = "memory.events";

/// A cgroup of workers.
#[derive(Debug, Clone)]
pub struct Group(PathBuf);

impl Group {
    /// Takes the group of this directory.
    #[must_use]
    pub const fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// Returns its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Returns whether it is there still.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.0.is_dir()
    }

    /// Returns how many processes in it were killed because it had no memory left; 0 if the kernel does not tell.
    #[must_use]
    pub fn killed_for_memory(&self) -> u64 {
        let text = fs::read_to_string(self.0.join(EVENTS)).unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.and_then(|count| count.parse().ok()).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_often_memory_ran_out_is_read_from_the_groups_file_and_not_made_up() {
        let dir = tempfile::tempdir().unwrap();
        let group = Group::at(dir.path().to_owned());
        assert_eq!(group.killed_for_memory(), 0);
        let text = "low 0\nhigh 0\nmax 17\noom 2\noom_kill 3\noom_group_kill 0\n";
        fs::write(dir.path().join(EVENTS), text).unwrap();
        assert_eq!(group.killed_for_memory(), 3);
        assert!(group.is_there() && !Group::at(dir.path().join("none")).is_there());
    }
}
