//! The service's unit against what the programs do.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "clippy.toml allows it in tests and does not know that this is one"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// Device nodes as the sources name them, and the unit's words for them. `None`: not opened, or by none of the unit's processes.
const DEVICES: [(&str, Option<&str>); 13] = [
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
            if !matches!(name.as_str(), "target" | "tests" | "testing" | "benches" | "fuzz") {
                sources(&path, found);
            }
        } else if name.ends_with(".rs") && name != "tests.rs" {
            found.push(path);
        }
    }
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

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    let dir = tempfile::tempdir().unwrap();
    // It wants the program to be there.
    let text = unit().replace("/usr/bin/bulkhead-agent", "/bin/true");
    let file = dir.path().join("bulkhead-agent.service");
    fs::write(&file, text).unwrap();
    let mut command = std::process::Command::new("systemd-analyze");
    let Ok(output) = command.args(["verify", "--man=no"]).arg(&file).output() else {
        return; // a machine without systemd
    };
    let said = String::from_utf8_lossy(&output.stderr);
    let own: Vec<&str> =
        said.lines().filter(|line| line.contains("bulkhead-agent.service")).collect();
    assert!(own.is_empty(), "{said}");
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
