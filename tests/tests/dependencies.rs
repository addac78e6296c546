//! What Bulkhead is built from: licences, sources, and one version of what must be one.
#![allow(
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::panic,
    reason = "a test program: serde_json values are indexed by key, and it may end on what it cannot do"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Licences that go together with Apache-2.0 in one program.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];
/// Crates whose types cross between crates of ours: two versions would not fit together.
const ONE_VERSION: &[&str] = &[
    "acpi_tables",
    "event-manager",
    "kvm-bindings",
    "kvm-ioctls",
    "linux-loader",
    "vfio-bindings",
    "vfio-ioctls",
    "virtio-bindings",
    "virtio-queue",
    "vm-memory",
    "vmm-sys-util",
];
/// Crates that have no place here, and why.
const BANNED: &[(&str, &str)] = &[
    ("hyper", "nothing speaks HTTP: the host has no IP network"),
    ("native-tls", "nothing speaks TLS: the host has no IP network"),
    ("openssl-sys", "one implementation of signatures, without C (ed25519-dalek)"),
    ("reqwest", "nothing speaks HTTP: the host has no IP network"),
    ("ring", "one implementation of signatures (ed25519-dalek)"),
    ("rusb", "USB devices are had through usbfs by nusb, without C"),
    ("rustls", "nothing speaks TLS: the host has no IP network"),
    ("owned_ttf_parser", "nobody keeps it (RUSTSEC-2026-0192); fonts are read by skrifa"),
    ("ttf-parser", "nobody keeps it (RUSTSEC-2026-0192); fonts are read by skrifa"),
    ("tokio", "threads and epoll only: no second way to wait"),
];
/// Crates that open screens, input devices and USB devices, that draw on a screen, and ours that stand on them.
const DEVICES: &[&str] = &[
    "drm",
    "evdev",
    "input-linux",
    "nusb",
    "kvm-ioctls",
    "ab_glyph_rasterizer",
    "font8x8",
    "skrifa",
    "bulkhead-seat",
    "bulkhead-usb",
    "bulkhead-usbhost",
    "bulkhead-usbport",
    "bulkhead-domains",
    "bulkhead-doctor",
    "bulkhead-daemon",
    "bulkhead-systemd",
];
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

fn metadata() -> Value {
    let printed = locked_metadata(Path::new(env!("CARGO_MANIFEST_DIR")));
    serde_json::from_slice(&printed.unwrap_or_else(|error| panic!("{error}")))
        .expect("cargo prints JSON")
}

/// Returns what cargo says of the workspace in a folder, by its lock file as it is.
///
/// # Errors
/// What cargo says is wrong.
fn locked_metadata(folder: &Path) -> Result<Vec<u8>, String> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--filter-platform=x86_64-unknown-linux-gnu"])
        .args(["--format-version=1", "--locked"])
        .current_dir(folder)
        .output()
        .expect("cargo runs");
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace's root")
}

/// Returns the folders of the repository that have a lock file of their own: those of a workspace, of which the root is the first.
fn workspaces() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![root().to_owned()];
    while let Some(folder) = waiting.pop() {
        if std::fs::read_to_string(folder.join("Cargo.toml")).is_ok_and(|text| is_workspace(&text))
        {
            found.push(folder.clone());
        }
        let entries = std::fs::read_dir(&folder).expect("a folder is read").flatten();
        // A link leads elsewhere, or to what is looked at anyway.
        let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let hidden = |path: &Path| {
            path.file_name().and_then(|name| name.to_str()).is_none_or(|name| name.starts_with('.'))
        };
        let paths = folders.map(|entry| entry.path());
        waiting.extend(paths.filter(|path| !path.ends_with("target") && !hidden(path)));
    }
    found.sort();
    found
}

fn is_workspace(manifest: &str) -> bool {
    manifest.lines().any(|line| line.trim() == "[workspace]")
}

/// Returns the versions of each crate in a lock file.
fn versions(lock: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let text = std::fs::read_to_string(lock)
        .unwrap_or_else(|error| panic!("{}: {error}: commit it", lock.display()));
    let read: toml_edit::DocumentMut = text.parse().expect("cargo writes TOML");
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let packages = read["package"].as_array_of_tables().into_iter().flatten();
    for package in packages {
        let part = |key: &str| package[key].as_str().unwrap_or_default().to_owned();
        versions.entry(part("name")).or_default().insert(part("version"));
    }
    versions
}

#[test]
fn each_lock_file_is_what_its_manifest_says() {
    let workspaces = workspaces();
    assert!(workspaces.len() > 1, "the fuzz targets have workspaces of their own: {workspaces:?}");
    let mut stale = Vec::new();
    for folder in &workspaces {
        if let Err(error) = locked_metadata(folder) {
            let name = folder.strip_prefix(root()).unwrap_or(folder).join("Cargo.lock");
            stale.push(format!("{}: {error}", name.display()));
        }
    }
    assert!(
        stale.is_empty(),
        "run `cargo metadata --format-version=1 > /dev/null` in the folder, and commit the lock file: {}",
        stale.join("\n")
    );
}

#[test]
fn what_is_fuzzed_is_built_of_the_versions_that_are_delivered() {
    let delivered = versions(&root().join("Cargo.lock"));
    let mut others = Vec::new();
    for folder in workspaces().iter().filter(|folder| folder.as_path() != root()) {
        let own = versions(&folder.join("Cargo.lock"));
        for (name, found) in &own {
            let Some(ours) = delivered.get(name) else { continue };
            others.extend(found.difference(ours).map(|version| {
                format!(
                    "in {}: cargo update {name}@{version} --precise {}",
                    folder.strip_prefix(root()).unwrap_or(folder).display(),
                    ours.iter().next_back().map_or("", String::as_str)
                )
            }));
        }
    }
    assert!(others.is_empty(), "{}", others.join("\n"));
}

fn packages() -> Vec<Value> {
    metadata()["packages"].as_array().cloned().unwrap_or_default()
}

/// Returns what is linked with a crate of ours: every crate that it needs to run, however far down.
fn linked_with(metadata: &Value, crate_name: &str) -> BTreeSet<String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let packages = list(&metadata["packages"]);
    let name_of: BTreeMap<&str, &str> =
        packages.iter().map(|package| (text(package, "id"), text(package, "name"))).collect();
    let nodes = list(&metadata["resolve"]["nodes"]);
    let node_of: BTreeMap<&str, &Value> =
        nodes.iter().map(|node| (text(node, "id"), node)).collect();
    let start = name_of.iter().find(|(_, name)| **name == crate_name);
    let (start, _) = start.expect("the crate is there");
    let mut found: BTreeSet<&str> = BTreeSet::new();
    let mut left: Vec<&str> = vec![start];
    while let Some(id) = left.pop() {
        for dependency in node_of[id]["deps"].as_array().into_iter().flatten() {
            let mut kinds = dependency["dep_kinds"].as_array().into_iter().flatten();
            // Of tests and of build scripts nothing is linked.
            if kinds.any(|kind| kind["kind"].is_null()) && found.insert(text(dependency, "pkg")) {
                left.push(text(dependency, "pkg"));
            }
        }
    }
    found.into_iter().map(|id| name_of[id].to_owned()).collect()
}

#[test]
fn the_daemon_links_no_tool_of_the_security_office_and_the_command_line_no_screen_input_or_usb_device()
 {
    let metadata = metadata();
    let daemon = linked_with(&metadata, "bulkhead-daemon");
    assert!(daemon.contains("drm") && daemon.contains("bulkhead-policy"), "{daemon:?}");
    let tools: Vec<_> = daemon.iter().filter(|name| *name == "bulkhead-policy-tools").collect();
    assert!(tools.is_empty(), "the daemon links {tools:?}");
    let doctor = linked_with(&metadata, "bulkhead-doctor");
    assert!(
        !doctor.contains("bulkhead-policy-tools"),
        "so does the doctor, which runs in its program"
    );
    let cli = linked_with(&metadata, "bulkhead-cli");
    assert!(cli.contains("bulkhead-policy-tools"), "{cli:?}");
    let devices: Vec<_> = DEVICES.iter().filter(|name| cli.contains(**name)).collect();
    assert!(devices.is_empty(), "the command line links {devices:?}");
}

/// What decides what crosses, and what hands devices over, if asked by the agent alone.
const AGENTS_OWN: &[&str] = &[
    "bulkhead-monitor",
    "bulkhead-clipboard",
    "bulkhead-usb",
    "bulkhead-usbfilter",
    "bulkhead-handover",
    "bulkhead-inforce",
];

#[test]
fn the_command_line_links_no_mediator_no_monitor_and_nothing_that_hands_devices_over() {
    let metadata = metadata();
    let daemon = linked_with(&metadata, "bulkhead-daemon");
    let unknown: Vec<_> = AGENTS_OWN.iter().filter(|name| !daemon.contains(**name)).collect();
    assert!(
        unknown.is_empty(),
        "the agent does not link {unknown:?}: are they called otherwise now?"
    );
    let linked = linked_with(&metadata, "bulkhead-cli");
    for name in AGENTS_OWN {
        assert!(!linked.contains(*name), "the command line links {name}");
    }
    // Of what it and the agent share, nothing stands on the monitor either, as each mediator does, whatever it is called.
    let ours = linked.iter().filter(|name| name.starts_with("bulkhead-"));
    for name in ours {
        let below = linked_with(&metadata, name);
        assert!(!below.contains("bulkhead-monitor"), "{name} stands on the monitor");
    }
}

/// Returns the crates of ours that a program's file names. Both programs are of one package, so that each could use what the other
/// needs; a crate that a program does not name is not linked with it.
fn named_in(metadata: &Value, program: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/src/bin").join(program);
    let source = std::fs::read_to_string(&path).expect("the program's file is there");
    let code = source.lines().filter_map(|line| line.split("//").next());
    let words: BTreeSet<&str> =
        code.flat_map(|line| line.split(|c: char| !(c.is_alphanumeric() || c == '_'))).collect();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let packages = list(&metadata["packages"]);
    let ours = packages.iter().filter(|package| package["source"].is_null());
    let targets = ours.flat_map(|package| list(&package["targets"]));
    let libraries = targets.filter(|target| list(&target["kind"]).iter().any(|kind| kind == "lib"));
    libraries
        .map(|library| text(&library, "name").to_owned())
        .filter(|name| words.contains(name.as_str()))
        .collect()
}

#[test]
fn the_two_programs_share_no_crate_of_the_command_line() {
    let metadata = metadata();
    let command_line = named_in(&metadata, "bulkhead.rs");
    assert_eq!(command_line, BTreeSet::from(["cli".to_owned()]));
    let agent = named_in(&metadata, "bulkhead-agent.rs");
    assert!(agent.contains("daemon"), "{agent:?}");
    for tool in ["cli", "policy_tools"] {
        assert!(!agent.contains(tool), "bulkhead-agent names {tool}");
    }
}

/// Crates that decode pictures, and ours that stands on them.
const DECODERS: &[&str] =
    &["image", "png", "tiff", "zune-jpeg", "fdeflate", "flate2", "weezl", "bulkhead-pictures"];
/// All of ours that may be in the program that reads what guests say and show, and has their USB devices.
const WORKER: &[&str] = &[
    "bulkhead-pictures",
    "bulkhead-ratelimit",
    "bulkhead-sandboxing",
    "bulkhead-usbdescriptors",
    "bulkhead-usbexport",
    "bulkhead-usbfilter",
    "bulkhead-usbredir",
    "bulkhead-vdagent",
    "bulkhead-worker-link",
];
/// What the filter needs where it is tested alone: cargo does not tell in which of a workspace's builds a feature is wanted.
const OF_TESTS: &[&str] = &["bulkhead-fuzzinput", "bulkhead-usbstick"];
/// What has a guest's USB device and speaks with its VMM, if asked by a worker alone.
const USB_WORKERS_OWN: &[&str] = &["bulkhead-usbexport", "nusb"];

#[test]
fn the_daemon_serves_no_usb_device_and_the_worker_decides_nothing_about_one() {
    let metadata = metadata();
    let daemon = linked_with(&metadata, "bulkhead-daemon");
    let worker = linked_with(&metadata, "bulkhead-worker");
    assert!(daemon.contains("bulkhead-usb"), "{daemon:?}");
    for name in USB_WORKERS_OWN {
        assert!(worker.contains(*name), "{name} is called otherwise now");
        assert!(!daemon.contains(*name), "the daemon links {name}");
    }
    let decides = ["bulkhead-monitor", "bulkhead-policy", "bulkhead-audit", "bulkhead-usbport"];
    for name in decides {
        assert!(!worker.contains(name), "the worker links {name}");
    }
}

#[test]
fn the_daemon_links_no_decoder_and_the_worker_nothing_else_of_ours() {
    let metadata = metadata();
    let daemon = linked_with(&metadata, "bulkhead-daemon");
    assert!(daemon.contains("bulkhead-clipboard") && daemon.contains("bulkhead-worker-link"));
    let decoders: Vec<_> = DECODERS.iter().filter(|name| daemon.contains(**name)).collect();
    assert!(decoders.is_empty(), "the daemon links {decoders:?}");
    let worker = linked_with(&metadata, "bulkhead-worker");
    assert!(worker.contains("image") && worker.contains("tiff"), "{worker:?}");
    let ours = worker.iter().filter(|name| name.starts_with("bulkhead-"));
    let ours: Vec<_> = ours.filter(|name| !OF_TESTS.contains(&name.as_str())).collect();
    assert_eq!(ours, WORKER.iter().collect::<Vec<_>>());
    let agent = named_in(&metadata, "bulkhead-agent.rs");
    assert!(!agent.contains("worker") && !agent.contains("pictures"), "{agent:?}");
    assert_eq!(named_in(&metadata, "bulkhead-worker.rs"), BTreeSet::from(["worker".to_owned()]));
}

fn text<'a>(package: &'a Value, key: &str) -> &'a str {
    package[key].as_str().unwrap_or_default()
}

/// Returns whether a licence expression can be met with [`LICENCES`]: one of every OR, all of every
/// AND. The older way to write OR is a slash. No package here nests them deeper than one bracket.
fn acceptable(expression: &str) -> bool {
    let plain = expression.replace('/', " OR ").replace(['(', ')'], "");
    plain.split(" AND ").all(|all| all.split(" OR ").any(|one| LICENCES.contains(&one.trim())))
}

#[test]
fn every_licence_goes_together_with_ours() {
    let packages = packages();
    assert!(packages.len() > 50, "cargo metadata lists {} packages", packages.len());
    let bad: Vec<_> = packages
        .iter()
        .filter(|package| !acceptable(text(package, "license")))
        .map(|package| format!("{}: {}", text(package, "name"), package["license"]))
        .collect();
    assert!(bad.is_empty(), "look at these licences: {bad:?}");
}

// Shows: K-5.2.2.
#[test]
fn every_crate_is_ours_or_from_the_registry() {
    for package in packages() {
        let from = package["source"].as_str();
        assert!(
            from.is_none_or(|source| source == REGISTRY),
            "{} is from {from:?}",
            package["name"]
        );
    }
}

#[test]
fn nothing_is_built_from_a_crate_that_has_no_place_here() {
    let packages = packages();
    let found: Vec<_> = BANNED
        .iter()
        .filter(|(name, _)| packages.iter().any(|package| text(package, "name") == *name))
        .collect();
    assert!(found.is_empty(), "these are not to be had: {found:?}");
}

#[test]
fn crates_whose_types_cross_are_there_in_one_version() {
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in packages() {
        let versions = versions.entry(text(&package, "name").to_owned()).or_default();
        versions.push(text(&package, "version").to_owned());
    }
    for name in ONE_VERSION {
        let found = versions.get(*name).map_or(0, Vec::len);
        assert!(
            found <= 1,
            "{name} is there as {:?}; align them in Cargo.toml",
            versions.get(*name)
        );
    }
}

#[test]
fn a_licence_that_does_not_go_together_is_seen() {
    for (expression, holds) in [
        ("MIT", true),
        ("MIT OR Apache-2.0", true),
        ("Unlicense/MIT", true),
        ("GPL-3.0-only", false),
        ("GPL-2.0 OR MIT", true),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
        ("MIT AND GPL-3.0-only", false),
        ("", false),
    ] {
        assert_eq!(acceptable(expression), holds, "{expression}");
    }
}
