//! The service's unit against what the programs do.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "clippy.toml allows it in tests and does not know that this is one"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// Device nodes as the sources name them, and the unit's words for them. `None`: not opened, or by none of the unit's processes.
const DEVICES: [(&str, Option<&str>); 14] = [
    ("/dev/kvm", Some("/dev/kvm rw")),
    ("/dev/vfio/vfio", Some("/dev/vfio/vfio rw")),
    ("/dev/vfio/{", Some("char-vfio rw")),
    ("/dev/dri", Some("char-drm rw")),
    ("/dev/input", Some("char-input rw")),
    ("/dev/bus/usb/", Some("char-usb_device rw")),
    // Allowed by DevicePolicy=closed.
    ("/dev/null", None),
    // A VMM's TAP device is for trying things out; the agent gives no VMM one.
    ("/dev/net/tun", None),
    // The officer's command line asks for a passphrase there; the service does not.
    ("/dev/tty\"", None),
    // What a shell gives the officer's command line to write to.
    ("/dev/fd\"", None),
    // Compared with the list of mounts.
    ("/dev/{name}", None),
    // How a node begins in an answer file of setup's, which the service does not read.
    ("/dev/\"", None),
    // What the doctor looks at by name.
    ("/dev\"", None),
    ("/dev/vfio\"", None),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn unit() -> String {
    fs::read_to_string(root().join("agent/systemd/bulkhead-agent.service")).unwrap()
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            // `world` and `escape` are models and attacks that tests alone have.
            let other = ["target", "tests", "testing", "benches", "fuzz", "world", "escape"];
            if !other.contains(&name.as_str()) {
                sources(&path, found);
            }
        } else if name.ends_with(".rs") && name != "tests.rs" {
            found.push(path);
        }
    }
}

/// Returns the settings of a unit, in order.
fn settings(service: &str) -> Vec<(String, String)> {
    let file = root().join("agent/systemd").join(format!("{service}.service"));
    let text = fs::read_to_string(file).unwrap().replace("\\\n", "");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[track_caller]
fn has(service: &str, name: &str, value: &str) {
    let settings = settings(service);
    let found = settings.iter().any(|(known, is)| known == name && is == value);
    assert!(found, "{service}.service has no {name}={value}");
}

#[test]
fn the_network_services_keep_off_whatever_becomes_of_claim() {
    let claim = "bulkhead-claim";
    has(claim, "RuntimeDirectoryPreserve", "yes");
    has(claim, "ExecStartPre", "/usr/bin/touch /run/bulkhead-claims/network");
    has(claim, "TimeoutStartSec", "30s");
    let settings = settings(claim);
    let place = |name: &str| settings.iter().position(|(known, _)| known == name);
    assert!(place("ExecStartPre") < place("ExecStart"));
    // It would run after a failure too.
    assert_eq!(place("ExecStopPost"), None);
}

#[test]
fn whoever_stops_claim_takes_back_all_that_it_wrote() {
    let settings = settings("bulkhead-claim");
    let (_, stop) = settings.iter().find(|(name, _)| name == "ExecStop").unwrap();
    let source = fs::read_to_string(root().join("agent/systemd/src/claim.rs")).unwrap();
    for (name, below) in [
        ("NETWORK", "bulkhead-claims/"),
        ("SEAT", "bulkhead-claims/"),
        ("UDEV_RULES", ""),
        ("RESTART_KEYS", ""),
        ("RESTART_BURST", ""),
        ("SLEEP", ""),
        ("LOGIND", ""),
        ("NETWORKD", ""),
    ] {
        let value = source.split(&format!("const {name}: &str = \"")).nth(1).unwrap();
        let value = value.split('"').next().unwrap();
        let file = format!("/run/{below}{value}");
        assert!(stop.split(' ').any(|word| word == file), "ExecStop= leaves {file}");
    }
}

#[test]
fn the_unit_delegates_every_controller_that_the_domains_groups_use() {
    let source = fs::read_to_string(root().join("agent/domains/src/cgroup.rs")).unwrap();
    let list = source.split("const CONTROLLERS").nth(1).unwrap().split(';').nth(1).unwrap();
    let used: Vec<&str> = list.split('"').skip(1).step_by(2).collect();
    assert!(used.contains(&"cpuset") && used.contains(&"memory"), "{used:?}");
    let unit = unit();
    let delegated = unit.lines().find_map(|line| line.strip_prefix("Delegate=")).unwrap();
    let delegated: Vec<&str> = delegated.split_whitespace().collect();
    assert_eq!(delegated, used);
}

#[test]
fn the_package_has_an_account_that_keeps_the_workers_number() {
    let accounts = fs::read_to_string(root().join("agent/systemd/sysusers.conf")).unwrap();
    let line = format!("u {} {} ", worker_link::USER_NAME, worker_link::USER);
    assert!(accounts.lines().any(|account| account.starts_with(&line)), "{line}: {accounts}");
    let purge = "scripts/packaging/debian/bulkhead/postrm";
    let purge = fs::read_to_string(root().join(purge)).unwrap();
    assert!(purge.contains(&format!("userdel {}", worker_link::USER_NAME)));
}

#[test]
fn a_slow_disk_shuts_no_guest_down_and_takes_nobody_the_screen() {
    let agent = "bulkhead-agent";
    // SIGTERM has the guests shut down.
    has(agent, "TimeoutStartFailureMode", "kill");
    has(agent, "TimeoutStartSec", "10min");
    has(agent, "WatchdogSec", "10min");
}

#[test]
fn the_unit_allows_every_device_that_the_programs_open() {
    let mut files = Vec::new();
    for part in ["agent", "vmm"] {
        sources(&root().join(part), &mut files);
    }
    let unit = unit();
    let allowed: Vec<&str> =
        unit.lines().filter_map(|line| line.strip_prefix("DeviceAllow=")).collect();
    let mut seen = 0;
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let text = text.split("#[cfg(test)]").next().unwrap();
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for (at, _) in line.match_indices("\"/dev") {
                let node = &line[at + 1..];
                let known = DEVICES.iter().find(|(name, _)| node.starts_with(name));
                let place = file.display();
                assert!(known.is_some(), "{place}: does the unit allow {node}? Say it in DEVICES.");
                seen += 1;
                if let Some((_, Some(words))) = known {
                    assert!(allowed.contains(words), "the unit lacks DeviceAllow={words}");
                }
            }
        }
    }
    assert!(seen > 5, "the sources are somewhere else");
}

/// The kernel's names of what is not there without a module, and that module.
#[test]
fn what_the_unit_names_by_driver_is_loaded_before_it_starts() {
    let unit = unit();
    assert!(unit.lines().any(|line| {
        line.starts_with("After=") && line.contains("systemd-modules-load.service")
    }));
    let modules = fs::read_to_string(root().join("agent/systemd/modules-load.conf")).unwrap();
    for module in ["vfio", "vfio_iommu_type1", "vfio_pci", "usbcore", "drm"] {
        assert!(modules.lines().any(|line| line == module), "{module}");
    }
}

const SERVICES: [&str; 4] =
    ["bulkhead-agent", "bulkhead-claim", "bulkhead-rescue", "bulkhead-update"];

/// Returns what systemd-analyze says; `None` on a machine without it.
fn systemd_analyze(arguments: &[&str]) -> Option<String> {
    let output = std::process::Command::new("systemd-analyze").args(arguments).output().ok()?;
    let said = [output.stdout, output.stderr].concat();
    Some(String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let dir = tempfile::tempdir().unwrap();
    for service in SERVICES {
        let name = format!("{service}.service");
        let text = fs::read_to_string(root().join("agent/systemd").join(&name)).unwrap();
        // It wants the program to be there.
        let text = text.replace("/usr/bin/bulkhead-agent", "/bin/true");
        let text = text.replace("/usr/bin/bulkhead ", "/bin/true ");
        fs::write(dir.path().join(&name), text).unwrap();
    }
    for service in SERVICES {
        let file = dir.path().join(format!("{service}.service"));
        let Some(said) = systemd_analyze(&["verify", "--man=no", file.to_str().unwrap()]) else {
            return;
        };
        let own: Vec<&str> = said.lines().filter(|line| line.contains(service)).collect();
        assert!(own.is_empty(), "{said}");
    }
}

#[test]
fn the_units_are_exposed_no_more_than_their_budget_allows() {
    let budgets = fs::read_to_string(root().join("tests/budgets.toml")).unwrap();
    let budgets: toml_edit::DocumentMut = budgets.parse().unwrap();
    for service in SERVICES {
        let most = budgets["exposure"][service].as_float().unwrap();
        let file = root().join("agent/systemd").join(format!("{service}.service"));
        let arguments = ["security", "--offline=yes", "--no-pager", file.to_str().unwrap()];
        let Some(said) = systemd_analyze(&arguments) else { return };
        let level = said.split("Overall exposure level for ").nth(1).unwrap();
        let level: f64 = level.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!(level <= most, "{service} is at {level}, and its budget is {most}:\n{said}");
    }
}

/// Returns the system calls that a group of systemd's holds, and those of the groups in it.
fn system_calls(group: &str, found: &mut Vec<String>) -> Option<()> {
    for line in systemd_analyze(&["syscall-filter", "--no-pager", group])?.lines().skip(1) {
        let name = line.trim();
        if name.starts_with('@') {
            system_calls(name, found)?;
        } else if !name.starts_with('#') {
            found.push(name.to_owned());
        }
    }
    Some(())
}

#[test]
fn the_unit_allows_every_system_call_that_a_vmm_and_the_worker_need() {
    let unit = unit();
    let filter = unit.lines().find_map(|line| line.strip_prefix("SystemCallFilter=")).unwrap();
    let mut allowed = Vec::new();
    for name in filter.split(' ') {
        if !name.starts_with('@') {
            allowed.push(name.to_owned());
        } else if system_calls(name, &mut allowed).is_none() {
            return;
        }
    }
    let workers = [
        "agent/worker/src/standard.rs",
        "agent/worker/src/picture/calls.rs",
        "agent/worker/src/clipboard/calls.rs",
        "agent/worker/src/usb/calls.rs",
    ];
    let text: String = ["vmm/src/sandbox/filter.rs"]
        .iter()
        .chain(&workers)
        .map(|file| fs::read_to_string(root().join(file)).unwrap())
        .collect();
    let mut needed: Vec<&str> = text
        .split("SYS_")
        .skip(1)
        .filter_map(|rest| rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next())
        .collect();
    assert!(needed.len() > 40, "{} system calls", needed.len());
    // What the sandbox is closed with.
    needed.extend(["unshare", "mount", "umount2", "pivot_root", "setgroups", "setresgid"]);
    needed.extend(["setresuid", "prctl", "seccomp", "landlock_create_ruleset"]);
    needed.extend(["landlock_add_rule", "landlock_restrict_self", "clone", "clone3", "execve"]);
    let missing: Vec<&&str> =
        needed.iter().filter(|name| !allowed.iter().any(|allowed| allowed == **name)).collect();
    assert!(missing.is_empty(), "the unit's SystemCallFilter lacks {missing:?}");
    let namespaces: String = ["vmm/sandboxing/src/identity.rs", "agent/domains/src/process.rs"]
        .iter()
        .map(|file| fs::read_to_string(root().join(file)).unwrap())
        .collect();
    let line = unit.lines().find(|line| line.starts_with("RestrictNamespaces=")).unwrap();
    for (flag, word) in [
        ("NEWNS", "mnt"),
        ("NEWNET", "net"),
        ("NEWIPC", "ipc"),
        ("NEWUTS", "uts"),
        ("NEWCGROUP", "cgroup"),
        ("NEWUSER", "user"),
        ("NEWPID", "pid"),
    ] {
        let left = namespaces.contains(&format!("CLONE_{flag}"));
        let allowed = line.split(['=', ' ']).any(|allowed| allowed == word);
        assert_eq!(left, allowed, "{word}: {line}");
    }
}

#[test]
fn every_test_that_runs_a_program_is_run_on_the_shipped_ones() {
    let script = fs::read_to_string(root().join("scripts/test")).unwrap();
    let mut seen = 0;
    for entry in fs::read_dir(root().join("agent/tests")).unwrap() {
        let path = entry.unwrap().path();
        let main = if path.is_dir() { path.join("main.rs") } else { path.clone() };
        let uses =
            fs::read_to_string(main).is_ok_and(|text| text.contains(concat!("mod arte", "facts;")));
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        assert!(!uses || script.contains(&format!("--test {name}")), "scripts/test lacks {name}");
        seen += usize::from(uses);
    }
    assert!(seen > 2, "the tests are somewhere else");
}

#[test]
fn every_test_that_runs_a_program_can_run_the_shipped_one() {
    let mut pending = vec![root().join("agent/tests")];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let names = text.contains(concat!("env!(\"CARGO_BIN_", "EXE"));
                assert!(!names || path.ends_with("artefacts/mod.rs"), "{}", path.display());
            }
        }
    }
}
