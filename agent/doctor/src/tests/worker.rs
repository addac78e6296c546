//! What decodes pictures, and what holds it.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// What is found of a program in the worker's place.
fn examine(system: &SystemPaths, program: Option<&Path>) -> Vec<Finding> {
    crate::worker::examine(system, program, None)
}

#[test]
fn what_is_no_worker_is_a_failure_that_says_what_the_ward_misses() {
    let pc = FakePc::new();
    let system = system(&pc);
    let missing = examine(&system, None);
    expect(&missing, "worker", Level::Fail, &["apt install --reinstall", "bulkhead-agent"]);
    for means in ["nothing is copied or pasted", "no USB device"] {
        assert!(finding(&missing, "worker").message.contains(means), "{missing:?}");
    }
    for other in ["/bin/true", "/bin/false", "/nonexistent"] {
        let found = examine(&system, Some(Path::new(other)));
        expect(&found, "worker", Level::Fail, &[]);
        assert!(finding(&found, "worker").message.contains(other), "{found:?}");
    }
    fs::create_dir_all(system.proc.join("sys/vm")).unwrap();
    fs::write(system.proc.join("sys/vm/memfd_noexec"), "2\n").unwrap();
    let found = examine(&system, Some(Path::new("/bin/false")));
    expect(&found, "worker", Level::Fail, &["memfd_noexec", "sysctl"]);
    let one = machine("format = 1\n[domain.a]\nkernel = \"k\"\n");
    // Nothing is pasted there, and USB devices are used.
    let found = crate::worker::examine(&system, None, Some(&one));
    expect(&found, "worker", Level::Fail, &["apt install --reinstall", "bulkhead-agent"]);
    let message = &finding(&found, "worker").message;
    assert!(message.contains("no USB device") && !message.contains("pasted"), "{message}");
}

#[test]
fn a_worker_that_others_may_write_is_named_with_its_directory() {
    let pc = FakePc::new();
    let system = system(&pc);
    let dir = pc.dir.path().join("bin");
    fs::create_dir(&dir).unwrap();
    let program = dir.join("bulkhead-worker");
    fs::copy("/bin/true", &program).unwrap();
    let loose = |path: &Path, mode: u32| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let found = examine(&system, Some(&program));
        let named = found.iter().filter(|found| found.message.contains("root's alone"));
        named.map(|found| found.message.clone()).collect::<Vec<_>>()
    };
    if !nix::unistd::Uid::effective().is_root() {
        // All of it is somebody else's.
        assert_eq!(loose(&program, 0o755).len(), 2);
        return;
    }
    assert_eq!(loose(&dir, 0o755), [""; 0]);
    assert!(loose(&program, 0o775)[0].contains("bin/bulkhead-worker"));
    assert_eq!(loose(&dir, 0o777).len(), 2);
    // And it is not run, by root least of all.
    let ran = |found: &Finding| {
        found.message.contains("decode") || found.message.contains("does not read")
    };
    assert!(!examine(&system, Some(&program)).iter().any(ran));
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(examine(&system, Some(&program)).iter().any(ran));
}

#[test]
fn whoever_has_a_vmms_number_or_may_take_one_is_named_with_what_to_do() {
    let pc = FakePc::new();
    let system = system(&pc);
    let examine = || numbers::examine(&system);
    expect(&examine(), "vmm-users", Level::Warn, &["/etc/passwd"]);
    assert!(examine()[0].message.starts_with("not looked at"));
    let say = |name: &str, text: &str| fs::write(system.root.join("etc").join(name), text).unwrap();
    say("passwd", "kim:x:1000:1000::/:\nbulkhead-worker:x:63999:63999::/:\nold:x:64032:1::/:\n");
    say("group", "bulkhead-worker:x:63999:\n");
    say("subuid", "kim:100000:65536\n");
    expect(&examine(), "vmm-users", Level::Ok, &[]);
    say("group", "ward:x:64031:\n");
    expect(&examine(), "vmm-users", Level::Warn, &["groupmod -g"]);
    assert!(examine()[0].message.contains("group ward (64031)"), "{:?}", examine());
    say("group", "ward:x:63936:\n");
    assert!(examine()[0].message.contains("group ward (63936)"), "{:?}", examine());
    say("group", "");
    say("subuid", "kim:100000:65536\nlee:64000:1\n");
    say("subgid", "lee:1000:63000\n");
    let found = examine();
    let said: Vec<_> =
        found.iter().map(|it| (it.level, it.remedy.as_deref().unwrap_or_default())).collect();
    let [(Level::Warn, users), (Level::Warn, groups)] = said[..] else { panic!("{found:?}") };
    assert!(users.contains("`usermod --del-subuids 64000-64000 lee`"), "{users}");
    assert!(groups.contains("`usermod --del-subgids 1000-63999 lee`"), "{groups}");
    assert!(groups.contains("--add-subgids 100000-162999 lee"), "{groups}");
    assert!(found[0].message.contains("lee may take 64000 to 64000 by /etc/subuid"), "{found:?}");
}

#[test]
fn the_workers_number_and_the_kernels_landlock_are_looked_at() {
    let pc = FakePc::new();
    let system = system(&pc);
    let etc = system.root.join("etc");
    expect(&examine(&system, None), "worker-user", Level::Warn, &["/etc/passwd"]);
    let accounts = |passwd: &str, group: &str| {
        fs::write(etc.join("passwd"), passwd).unwrap();
        fs::write(etc.join("group"), group).unwrap();
        examine(&system, None)
    };
    expect(&accounts("", ""), "worker-user", Level::Warn, &["systemd-sysusers"]);
    let found = accounts("kim:x:63999:1::/:\n", "");
    expect(&found, "worker-user", Level::Warn, &["usermod -u"]);
    assert!(finding(&found, "worker-user").message.contains("user kim"));
    let found = accounts("bulkhead-worker:x:63999:63999::/:\n", "bulkhead-worker:x:63999:\n");
    expect(&found, "worker-user", Level::Ok, &[]);
    expect(&found, "landlock", Level::Warn, &["securityfs"]);
    let security = pc.sysfs().path("kernel/security");
    fs::create_dir_all(&security).unwrap();
    fs::write(security.join("lsm"), "lockdown,capability,landlock,apparmor").unwrap();
    expect(&examine(&system, None), "landlock", Level::Ok, &[]);
    fs::write(security.join("lsm"), "capability,apparmor").unwrap();
    expect(&examine(&system, None), "landlock", Level::Warn, &["lsm="]);
}

#[test]
fn cpusets_are_needed_where_a_domain_has_cores_of_its_own() {
    let pc = FakePc::new();
    let system = system(&pc);
    let point = pc.dir.path().join("cgroup");
    fs::create_dir(&point).unwrap();
    fs::write(
        system.proc.join("self/mounts"),
        format!("none {} cgroup2 rw 0 0\n", point.display()),
    )
    .unwrap();
    let has = |controllers: &str, cores: &str| {
        fs::write(point.join("cgroup.controllers"), controllers).unwrap();
        let machine = machine(&format!("format = 1\n[domain.a]\nkernel = \"k\"\n{cores}\n"));
        host::examine(&system, HardwareNeeds::of(Some(&machine)))
    };
    expect(&has("cpu io memory pids", ""), "cgroups", Level::Ok, &[]);
    let found = has("cpu io memory pids", "cores = 1");
    expect(&found, "cgroups", Level::Fail, &["CONFIG_CPUSETS", "cores"]);
    expect(&has("cpuset cpu io memory pids", "cores = 1"), "cgroups", Level::Ok, &[]);
    expect(&has("cpuset cpu io pids", "cores = 1"), "cgroups", Level::Warn, &[]);
}
