//! Workers in a cgroup with limits. Needs root, and a hierarchy in which groups can be made: passes without having run elsewhere.

use std::fs;
use std::path::{Path, PathBuf};

use super::readers::{Pair, answer};
use super::*;
use std::io::Write as _;
use worker_link::CONTENT_MAX;
use worker_link::clipboard::{Command as Told, Event};

/// A group of the test's own, removed at its end.
struct Group(PathBuf);

impl Group {
    /// Makes one below the hierarchy of this type, whose options have this word.
    fn make(kind: &str, word: &str, name: &str) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let point = mounts.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            let has = fields[3].split(',').any(|option| option == word);
            (fields[2] == kind && has).then(|| PathBuf::from(fields[1]))
        })?;
        let group = point.join(format!("bulkhead-test-{name}-{}", std::process::id()));
        fs::create_dir(&group).ok()?;
        Some(Self(group))
    }

    /// One that has this much memory, in bytes; with it whether it is one of version 2, which says whom it killed.
    fn with_memory(bytes: u64, name: &str) -> Option<(Self, bool)> {
        let two = Self::make("cgroup2", "rw", name);
        for (group, file, is_two) in [
            (two, "memory.max", true),
            (Self::make("cgroup", "memory", name), "memory.limit_in_bytes", false),
        ] {
            if let Some(group) = group
                && fs::write(group.0.join(file), bytes.to_string()).is_ok()
            {
                return Some((group, is_two));
            }
        }
        None
    }

    fn has(&self, pid: Pid) -> bool {
        let processes = fs::read_to_string(self.0.join("cgroup.procs")).unwrap();
        processes.lines().any(|process| process == pid.to_string())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while fs::remove_dir(&self.0).is_err() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn program_in(group: &Path) -> Program {
    Program::read(&program()).unwrap().in_cgroup(group.to_owned())
}

fn skipped(why: &str) {
    eprintln!("not tried: {why}");
}

#[test]
fn a_worker_is_in_its_cgroup_before_it_reads_anything_and_leaves_it_empty() {
    let Some(group) = Group::make("cgroup2", "rw", "worker") else {
        return skipped("no cgroup can be made");
    };
    let (worker, pid) = stopped_at_work_of(&mut program_in(&group.0));
    assert!(group.has(pid), "{pid} is elsewhere");
    drop(worker);
    let place = group.0.clone();
    drop(group);
    assert!(!place.exists(), "it is not empty");
}

#[test]
fn a_worker_that_uses_up_the_memory_of_its_cgroup_is_a_refusal_in_words_and_the_next_picture_passes()
 {
    let Some((group, is_two)) = Group::with_memory(12 << 20, "memory") else {
        return skipped("no cgroup with a limit on memory can be made");
    };
    let mut program = program_in(&group.0);
    let refused = outcome(start_of(&mut program, Kind::Bmp, &large(), HELD_MAX), Kind::Bmp);
    let expected = if is_two { Rejected::TooMuchMemory } else { Rejected::NotDecoded };
    assert_eq!(refused.unwrap_err(), expected);
    let small = written(&noise(40, 40), ImageFormat::Png);
    outcome(start_of(&mut program, Kind::Png, &small, HELD_MAX), Kind::Png).unwrap();
}

#[test]
fn a_reader_is_in_its_cgroup_before_it_reads_anything_and_leaves_it_empty() {
    let Some(group) = Group::make("cgroup2", "rw", "reader") else {
        return skipped("no cgroup can be made");
    };
    let pair = Pair::at_work_of(&program_in(&group.0));
    assert!(group.has(pair.pid()), "{} is elsewhere", pair.pid());
    drop(pair);
    let place = group.0.clone();
    drop(group);
    assert!(!place.exists(), "it is not empty");
}

#[test]
fn a_reader_that_uses_up_the_memory_of_its_cgroup_is_an_end_and_the_next_reads() {
    let Some((group, _)) = Group::with_memory(12 << 20, "content") else {
        return skipped("no cgroup with a limit on memory can be made");
    };
    let program = program_in(&group.0);
    let pair = Pair::at_work_of(&program);
    pair.reader.tell(Told::Expect { number: 1, most: CONTENT_MAX }).unwrap();
    assert_eq!(pair.hears().unwrap(), Event::Ready { number: 1 });
    std::thread::scope(|scope| {
        let mut guest = pair.guest.try_clone().unwrap();
        // The end of its stream ends it.
        scope.spawn(move || guest.write_all(&answer(&vec![b'x'; CONTENT_MAX as usize])));
        while let Ok(event) = pair.hears() {
            assert_eq!(event, Event::Progress { number: 1 }, "32 MiB lie in 12");
        }
        pair.stream.shutdown(std::net::Shutdown::Both).unwrap();
    });
    drop(pair);
    Pair::at_work_of(&program);
}

#[test]
fn a_worker_that_cannot_enter_its_cgroup_decodes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // A directory that is no group.
    let mut program = program_in(dir.path());
    let small = written(&noise(8, 8), ImageFormat::Png);
    let refused = outcome(start_of(&mut program, Kind::Png, &small, HELD_MAX), Kind::Png);
    assert_eq!(refused.unwrap_err(), Rejected::NotDecoded);
}
