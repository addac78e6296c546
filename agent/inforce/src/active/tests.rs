//! What comes into force while an agent runs.

use std::fs;
use std::os::unix::net::UnixStream;

use ::audit::Limits;
use recorder::Recorder;

use super::*;

const MACHINE: &str = "format = 1\n[seat]\nbackend = \"none\"\n\
    [domain.clinical]\nvmm = \"external\"\n[domain.internet]\nvmm = \"external\"\n";

fn policy(serial: u64) -> String {
    policy_tools::STARTER.replace("serial = 1", &format!("serial = {serial}"))
}

fn caller() -> Caller {
    Caller::identify(&UnixStream::pair().unwrap().0).unwrap()
}

/// An agent's part of a PC that has come to run by policy 1.
struct Pc {
    dir: tempfile::TempDir,
    active: ActiveConfiguration,
    monitor: Monitor,
}

impl Pc {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (machine, file) = (dir.path().join("machine.toml"), dir.path().join("policy.toml"));
        fs::write(&machine, MACHINE).unwrap();
        fs::write(&file, policy(1)).unwrap();
        let store = PolicyStore::new(&file, &machine, Some(dir.path()));
        let current = Configuration::read(&machine, &store, dir.path())
            .unwrap_or_else(|error| panic!("{}", explain(&error)));
        let active = ActiveConfiguration::new(current, store, machine, dir.path().to_owned());
        let recorder = Recorder::open(dir.path(), Limits::default());
        let mut monitor = Monitor::new(recorder, 1, &[POLICY]);
        monitor.started(POLICY);
        Self { dir, active, monitor }
    }

    /// Has a policy looked at, and takes what was found.
    fn apply(&mut self, text: String) -> Result<(), String> {
        let ticket = self.active.submit(&caller(), text, None)?;
        let (by, for_whom, found) = loop {
            match self.active.found() {
                Some(found) => break found,
                None => thread::yield_now(),
            }
        };
        assert_eq!((by.uid, for_whom), (caller().uid, ticket));
        self.active.take(&mut self.monitor, &by, found)
    }

    fn in_force(&self) -> u64 {
        assert_eq!(self.active.current.policy_report.serial, self.active.current.policy.serial());
        self.active.current.policy.serial()
    }

    fn applied(&self) -> usize {
        let mut applied = 0;
        ::audit::each(&recorder::directory(self.dir.path()), |_, entry: ::audit::Entry| {
            applied += usize::from(entry.kind == "policy-applied");
            Ok(())
        })
        .unwrap();
        applied
    }
}

#[test]
fn a_newer_policy_comes_into_force_on_the_record_and_an_older_one_does_not() {
    let mut pc = Pc::new();
    pc.apply(policy(3)).unwrap();
    assert_eq!((pc.in_force(), pc.applied()), (3, 1));
    pc.apply(policy(2)).unwrap_err();
    pc.apply("nonsense".to_owned()).unwrap_err();
    assert_eq!((pc.in_force(), pc.applied()), (3, 1));
}

#[test]
fn one_policy_is_looked_at_at_a_time() {
    let mut pc = Pc::new();
    pc.active.submit(&caller(), policy(2), None).unwrap();
    assert_eq!(pc.active.asked_by().map(|caller| caller.uid), Some(caller().uid));
    assert!(pc.active.fd().is_some());
    let refused = pc.active.submit(&caller(), policy(3), None).unwrap_err();
    assert!(refused.contains("another policy is being looked at"), "{refused}");
    while pc.active.found().is_none() {
        thread::yield_now();
    }
    assert!(pc.active.asked_by().is_none() && pc.active.fd().is_none());
    pc.apply(policy(3)).unwrap();
}

#[test]
fn a_policy_that_was_held_against_another_machine_file_than_the_one_that_runs_does_not_come_into_force()
 {
    let mut pc = Pc::new();
    let file = pc.dir.path().join("machine.toml");
    let own = MACHINE.replace(
        "[domain.clinical]\nvmm = \"external\"\n",
        "[domain.clinical]\nkernel = \"vmlinuz\"\nnic = \"0000:00:05.0\"\n",
    );
    fs::write(&file, own).unwrap();
    let refused = pc.apply(policy(2)).unwrap_err();
    assert!(refused.contains("restart the agent first"), "{refused}");
    fs::write(&file, "format = 2\n").unwrap();
    let refused = pc.apply(policy(2)).unwrap_err();
    assert!(refused.contains("machine file does not go with it"), "{refused}");
    assert_eq!((pc.in_force(), pc.applied()), (1, 0));
}

#[test]
fn nothing_crosses_while_the_policy_in_force_is_not_written_down_and_that_is_tried_again_later() {
    let mut pc = Pc::new();
    let now = Moment::now();
    assert!(!pc.active.current.unsaved.is_empty(), "it was read for the first time");
    // Something stands where the last good policy goes.
    let state = pc.dir.path().join("state");
    fs::write(&state, "").unwrap();
    pc.active.store = PolicyStore::new(
        &pc.dir.path().join("policy.toml"),
        &pc.dir.path().join("machine.toml"),
        Some(&state),
    );
    pc.active.remember(&mut pc.monitor, now);
    assert!(pc.monitor.recorder().problem().is_some(), "nothing may cross");
    fs::remove_file(&state).unwrap();
    fs::create_dir(&state).unwrap();
    pc.active.remember(&mut pc.monitor, now + RETRY / 2);
    assert!(pc.monitor.recorder().problem().is_some(), "not before its time");
    pc.active.remember(&mut pc.monitor, now + RETRY);
    assert!(pc.monitor.recorder().problem().is_none());
    assert!(pc.active.current.unsaved.is_empty());
}
