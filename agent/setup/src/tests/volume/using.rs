//! Whoever uses the state while it is moved is seen: before the copy, after it, and before anything is removed.

use super::*;

#[test]
fn a_guest_without_an_agent_is_seen_by_its_cgroup_and_by_its_vmms_record() {
    for group in ["bulkhead.slice/bulkhead-run-bulkhead", "unified/bulkhead-run-bulkhead"] {
        let ward = Ward::with_second_disk();
        ward.write(&format!("sys/fs/cgroup/{group}/clinical/cgroup.procs"), "");
        ward.write(&format!("sys/fs/cgroup/{group}/internet/cgroup.procs"), "77\n");
        let report = ward.run(&ward.encrypting());
        expect(&report, SetupResult::Refused, &["a guest runs without an agent (process 77)"]);
    }
    let ward = Ward::with_second_disk();
    ward.write("run/bulkhead/clinical/vmm.json", "{\"identity\": {\"pid\": 78, \"start\": 1}}");
    ward.folder("proc/78");
    symlink("/usr/bin/bulkhead-vmm (deleted)", ward.at("proc/78/exe")).unwrap();
    let report = ward.run(&ward.encrypting());
    expect(&report, SetupResult::Refused, &["a guest runs without an agent (process 78)"]);
    fs::remove_file(ward.at("proc/78/exe")).unwrap();
    symlink("/usr/bin/cat", ward.at("proc/78/exe")).unwrap();
    expect(&ward.run(&ward.encrypting()), SetupResult::Changed, &[]);
}

#[test]
fn whoever_begins_to_write_while_the_state_is_copied_or_mounted_loses_nothing() {
    // After the copy nothing was moved yet.
    let ward = Ward::with_second_disk();
    let before = seen(&ward);
    ward.write("after/diff/sys/fs/cgroup/bulkhead-run-bulkhead/clinical/cgroup.procs", "77\n");
    let report = ward.run(&ward.encrypting());
    expect(&report, SetupResult::Refused, &["process 77", "was taken back"]);
    assert_eq!(seen(&ward), before);
    // After the mount the former copies stay, with whoever has them open; here a file on another file system than the volume.
    let ward = Ward::with_second_disk();
    ward.folder("after/mounted/proc/77/fd");
    ward.write("after/mounted/proc/77/comm", "tail\n");
    symlink(ward.at(STATE).join("open"), ward.at("after/mounted/proc/77/fd/5")).unwrap();
    symlink("/proc/self/status", ward.at(STATE).join("open")).unwrap();
    let report = ward.run(&ward.encrypting());
    expect(&report, SetupResult::Refused, &["tail (77) has", "open"]);
    ward.has_its_log("refused");
}

#[test]
fn the_lock_of_a_setup_is_not_in_the_state_that_it_moves() {
    let ward = Ward::with_second_disk();
    let lock = ward.at("run/bulkhead-setup.lock");
    let other = crate::alone::SetupLock::take(&lock).unwrap();
    let report = ward.run(&ward.encrypting());
    expect(&report, SetupResult::Refused, &["somebody else runs setup"]);
    drop(other);
    expect(&ward.run(&ward.encrypting()), SetupResult::Changed, &[]);
    assert!(!ward.at("volume/setup.lock").exists() && !lock.exists());
}
