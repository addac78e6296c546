//! What the sources themselves must keep to, where no type does.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "clippy.toml allows it in tests and does not know that this is one"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use policy::decide::Obligation;
use policy::enforcement::GAPS;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Collects the sources of what is shipped below a folder, each without its tests.
fn shipped(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            // `world` and `escape` are models and attacks that tests alone have.
            let other =
                ["target", "tests", "testing", "benches", "examples", "fuzz", "world", "escape"];
            if !other.contains(&name.as_str()) {
                shipped(&path, found);
            }
        } else if name.ends_with(".rs")
            && !["tests", "fuzz", "testing", "fake"].iter().any(|word| name.contains(word))
        {
            let text = fs::read_to_string(&path).unwrap();
            let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
            found.push((path, text[..end].to_owned()));
        }
    }
}

#[test]
fn no_log_line_and_no_message_of_what_is_shipped_shows_a_value_as_rusts_debugger_does() {
    let mut sources = Vec::new();
    for part in ["agent", "policy", "vmm"] {
        shipped(&root().join(part), &mut sources);
    }
    assert!(sources.len() > 150, "{} sources", sources.len());
    let mut found = Vec::new();
    for (path, text) in &sources {
        for (number, line) in text.lines().enumerate() {
            let line = line.trim_start();
            // `{:?}`, `{x:?}`, `{x:#?}` of the formatting macros.
            let formatted = line.contains(":?}") || line.contains(":#?}");
            if !line.starts_with("//") && !line.contains("assert") && formatted {
                found.push(format!("{}:{}: {line}", path.display(), number + 1));
            }
        }
        found.extend(
            debug_fields(text).into_iter().map(|call| format!("{}: {call}", path.display())),
        );
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Calls of tracing's macros that have a field `?x` or `x = ?y`, on whatever line of the call, each as one line.
fn debug_fields(text: &str) -> Vec<String> {
    let levels = ["trace!(", "debug!(", "info!(", "warn!(", "error!("];
    let calls = levels.iter().flat_map(|level| text.match_indices(level));
    calls
        .filter_map(|(at, level)| {
            // To the end of the call: what is in brackets, with its strings left out.
            let (mut depth, mut in_string, mut escaped) = (0_u32, false, false);
            let (mut call, mut whole) = (String::new(), String::new());
            for character in text[at + level.len() - 1..].chars() {
                whole.push(character);
                match character {
                    _ if escaped => escaped = false,
                    '\\' if in_string => escaped = true,
                    '"' => in_string = !in_string,
                    _ if in_string => {}
                    '(' | '[' | '{' => depth += 1,
                    ')' | ']' | '}' => depth -= 1,
                    _ => {}
                }
                if !in_string && !character.is_whitespace() {
                    call.push(character);
                }
                if depth == 0 {
                    break;
                }
            }
            let shown = ["(?", ",?", "=?"].iter().any(|field| call.contains(field));
            shown.then(|| whole.split_whitespace().collect::<Vec<_>>().join(" "))
        })
        .collect()
}

#[test]
fn a_debugged_field_is_found_on_whatever_line_of_a_call_it_is_and_nothing_else_for_one() {
    let found = |text: &str| debug_fields(text).len();
    assert_eq!(found("warn!(?x); info!(a, ?b); error!(why = ?error, \"no\");"), 3);
    assert_eq!(
        found("tracing::info!(\n    serial = 7,\n    signers = ?signers,\n    \"x\"\n);"),
        1
    );
    assert_eq!(found("tracing::info!(\n    ?signers,\n    \"why, ?\"\n);"), 1);
    assert_eq!(found("info!(\"is it (? or, ? or = ? \\\" ,?\", f(x)?, serial = %g(y)?);"), 0);
    assert_eq!(found("info!(\"x\"); let f = (?, ?);"), 0);
}

#[test]
fn every_event_of_the_audit_catalogue_is_written_somewhere() {
    let mut sources = Vec::new();
    shipped(&root().join("agent"), &mut sources);
    sources.retain(|(path, _)| !path.ends_with("events/catalogue.rs"));
    // What is no event of the catalogue does not compile; what is one and is never made is found here.
    for event in audit::AuditEvent::KINDS {
        let (made, taken) = (format!("{} {{", event.type_name), format!("{}(", event.type_name));
        let makes = |text: &str| {
            text.match_indices(&made).any(|(at, _)| {
                // A name that only ends in it, or what takes an event apart.
                let before = text[..at].trim_end();
                !before.ends_with(|c: char| c.is_alphanumeric() || c == '_')
                    && !before.ends_with("let")
                    && !before.ends_with(&taken)
            })
        };
        let written = sources.iter().any(|(_, text)| makes(text));
        assert!(written, "nothing writes {} (`{}`)", event.type_name, event.name);
    }
}

#[test]
fn every_case_that_proptest_saved_lies_where_it_looks_for_it() {
    let mut saved = 0;
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            assert!(!name.ends_with(".proptest-regressions"), "{}", path.display());
            let read = !["target", ".git", "proptest-regressions"].contains(&name.as_str());
            if path.is_dir() && read {
                folders.push(path);
            } else if name == "proptest-regressions" {
                saved += all_read(&folder, &path);
            }
        }
    }
    assert!(saved >= 4, "{saved} files");
}

/// Returns how many files of saved cases are below a folder, each of a source that is there: below a folder with a `lib.rs` or `main.rs` beside it.
fn all_read(beside: &Path, saved: &Path) -> usize {
    let folders = fs::read_dir(beside).unwrap().map(|entry| entry.unwrap().path());
    let root = |path: &PathBuf| path.join("lib.rs").is_file() || path.join("main.rs").is_file();
    let roots: Vec<PathBuf> = folders.filter(root).collect();
    let (mut count, mut folders) = (0, vec![saved.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let source = path.strip_prefix(saved).unwrap().with_extension("rs");
            let is_read = roots.iter().any(|root| root.join(&source).is_file());
            assert!(is_read, "no source for {}", path.display());
            count += 1;
        }
    }
    count
}

/// Returns the tests that show of an obligation that the agent meets it.
fn shown_by(obligation: &Obligation<'_>) -> &'static [(&'static str, &'static str)] {
    const FLOWS: &str = "agent/mediators/clipboard/src/mediator/tests/flows.rs";
    match obligation {
        Obligation::Inspect(_) => &[(FLOWS, "a_detector_that_finds_something_denies_and_is_named")],
        Obligation::ConfirmNoKeyboard => &[(
            "agent/mediators/usb/src/broker/tests/parts.rs",
            "a_keyboard_types_though_what_is_besides_does_not_say_what_it_is",
        )],
        Obligation::Ask => &[
            (FLOWS, "a_question_shows_a_safe_preview_and_silence_is_no"),
            (FLOWS, "a_question_answered_with_yes_lets_it_through_and_with_no_does_not"),
        ],
        Obligation::ReadOnly => &[
            (
                "agent/mediators/usb/filter/src/tests/storage.rs",
                "every_command_that_is_not_on_the_list_stays_here",
            ),
            (
                "agent/mediators/usb/filter/src/tests/storage.rs",
                "a_write_fails_with_data_protect_and_its_data_go_nowhere",
            ),
        ],
        Obligation::Audit => &[
            (
                "agent/mediators/clipboard/src/mediator/tests/properties.rs",
                "bytes_cross_only_by_a_copy_there_a_paste_here_a_verdict_and_a_record",
            ),
            (
                "agent/mediators/usb/src/broker/tests.rs",
                "a_device_joins_its_domain_each_time_only_when_that_is_on_the_disk",
            ),
        ],
    }
}

#[test]
fn whatever_a_verdict_owes_is_met_by_the_agent_as_a_test_shows_or_every_tool_says_that_it_is_not() {
    let handbook =
        fs::read_to_string(root().join("docs/security-office/policy-handbook.md")).unwrap();
    for obligation in [
        Obligation::Inspect(&[]),
        Obligation::ConfirmNoKeyboard,
        Obligation::Ask,
        Obligation::ReadOnly,
        Obligation::Audit,
    ] {
        let word = obligation.word();
        match obligation.met_by() {
            Ok(who) => {
                let row = format!("| `{word}` | {who} |");
                assert!(handbook.contains(&row), "the handbook lacks {row}");
                for (file, test) in shown_by(&obligation) {
                    let text = fs::read_to_string(root().join(file)).unwrap();
                    assert!(text.contains(&format!("fn {test}(")), "{word}: {file} lacks {test}");
                }
            }
            Err(gap) => assert!(GAPS.contains(gap), "{word}: check and matrix do not say it"),
        }
    }
}

/// Files whose sources open what is not opened by `fileopen`, and why.
const OPEN_THEMSELVES: &[(&str, &str)] = &[
    ("agent/fileopen/src/lib.rs", "the one way"),
    ("agent/audit/src/replace.rs", "makes a new file"),
    ("agent/audit/src/key.rs", "makes a new file"),
    ("agent/audit/src/log/mod.rs", "makes new files"),
    ("agent/audit/src/recover.rs", "makes a new file"),
    ("agent/base/src/durable.rs", "makes new files"),
    ("agent/base/src/state_volume.rs", "the kernel's: what is mounted"),
    ("agent/config/src/cores.rs", "the kernel's"),
    ("agent/domains/src/disks.rs", "makes a new file"),
    ("agent/cli/src/audit/mod.rs", "the kernel's: the host's name"),
    (
        "agent/cli/src/page.rs",
        "a page is written to what was taken hold of first, a file, pipe or terminal",
    ),
    ("agent/cli/src/unechoed.rs", "the terminal"),
    ("agent/doctor/src/disks.rs", "the kernel's: what is mounted"),
    (
        "agent/doctor/src/encryption.rs",
        "the header of a disk that the kernel says is below the state",
    ),
    ("agent/doctor/src/host.rs", "the kernel's, and its list of modules"),
    ("agent/doctor/src/lib.rs", "the kernel's"),
    ("agent/doctor/src/platform.rs", "the firmware's, by the kernel: whether Secure Boot is on"),
    ("agent/doctor/src/service.rs", "a unit that is masked is /dev/null"),
    ("agent/systemd/src/claim.rs", "the kernel's: how it was started"),
    ("agent/doctor/src/software.rs", "disks may be block devices, which it sees to first"),
    ("agent/handover/src/host_use.rs", "the kernel's"),
    ("agent/handover/src/sysfs.rs", "the kernel's"),
    ("agent/recorder/src/lib.rs", "the kernel's: which boot this is"),
    ("agent/seat/src/devices/mod.rs", "input devices"),
    ("agent/seat/src/kms.rs", "graphics cards"),
    ("agent/seat/src/saved_state.rs", "makes a new file"),
    ("agent/domains/src/capture.rs", "makes a new file"),
    ("agent/domains/src/cgroup.rs", "the kernel's"),
    ("agent/domains/src/interrupts.rs", "the kernel's: which processors serve an interrupt"),
    ("agent/domains/src/process.rs", "the kernel's"),
    ("agent/domains/src/record.rs", "the kernel's: which boot this is"),
    ("agent/domains/src/remains.rs", "the kernel's: what is in a cgroup"),
    ("agent/setup/src/effects.rs", "the terminal"),
    ("agent/setup/src/encryption.rs", "the firmware's, by the kernel: whether Secure Boot is on"),
    ("agent/setup/src/hardware.rs", "the kernel's"),
    ("agent/setup/src/lib.rs", "the kernel's"),
    ("agent/setup/src/volume/device.rs", "the kernel's"),
    ("agent/setup/src/volume/making.rs", "the kernel's: which TPM there is"),
    ("agent/setup/src/volume/users.rs", "the kernel's: what is in a cgroup"),
    ("agent/workers/src/group.rs", "the kernel's"),
    ("agent/workers/src/process.rs", "the kernel's: what a process waits for"),
    ("agent/workers/src/program.rs", "a script that stands in for a worker, in tests alone"),
    ("agent/worker/src/enclosure.rs", "the kernel's"),
    ("agent/mediators/usb/src/broker/place.rs", "the kernel's"),
    ("agent/mediators/usb/host/src/authorization.rs", "the kernel's switches"),
    ("agent/mediators/usb/host/src/hold.rs", "a USB device"),
    ("agent/mediators/usb/sysfs/src/devices.rs", "the kernel's"),
    ("agent/mediators/usb/port/src/lib.rs", "a USB hub"),
];

#[test]
fn a_file_that_somebody_named_or_that_is_taken_for_ours_is_opened_in_one_way_that_never_waits() {
    let mut sources = Vec::new();
    for part in ["agent", "policy"] {
        shipped(&root().join(part), &mut sources);
    }
    let mut opening = BTreeSet::new();
    for (path, text) in &sources {
        let code: String =
            text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        let calls =
            ["File::open(", "File::create(", "fs::read(", "fs::read_to_string(", "fs::write("];
        let options = code.contains("OpenOptions") || code.contains("File::options()");
        if calls.iter().any(|call| code.contains(call)) || options && code.contains(".open(") {
            let path = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            opening.insert(path);
        }
    }
    let listed: BTreeSet<String> =
        OPEN_THEMSELVES.iter().map(|(path, _)| (*path).to_owned()).collect();
    let new: Vec<_> = opening.difference(&listed).collect();
    assert!(new.is_empty(), "these open files themselves, and not by `fileopen`: {new:?}");
    let gone: Vec<_> = listed.difference(&opening).collect();
    assert!(gone.is_empty(), "these do not open files themselves any more: {gone:?}");
}

/// Collects the packages of the workspace, each with its manifest.
fn manifests(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") && !path.ends_with(".git") {
            manifests(&path, found);
        } else if path.ends_with("Cargo.toml") {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
}

/// Returns whether a manifest has permits made without a disk in what it ships: by a dependency that is not for tests, or by a feature of
/// its own other than the one for fuzz targets.
fn forges_permits(manifest: &str) -> bool {
    let mut table = "";
    manifest.lines().any(|line| {
        if line.starts_with('[') {
            table = line;
        }
        let named = line.starts_with("monitor") && line.contains("testing");
        let feature = line.contains("monitor/testing") && !line.starts_with("fuzzing = ");
        table != "[dev-dependencies]" && (named || feature)
    })
}

#[test]
fn no_program_that_is_shipped_can_make_permits_without_a_disk() {
    assert!(forges_permits("[dependencies]\nmonitor = { features = [\"testing\"] }"));
    assert!(forges_permits("[features]\ndefault = [\"monitor/testing\"]"));
    assert!(!forges_permits("[dev-dependencies]\nmonitor = { features = [\"testing\"] }"));
    let mut found = Vec::new();
    for part in ["agent", "policy", "vmm", "tests", "guest-images"] {
        manifests(&root().join(part), &mut found);
    }
    found.push((root(), fs::read_to_string(root().join("Cargo.toml")).unwrap()));
    assert!(found.len() > 30, "{} manifests", found.len());
    found.retain(|(path, text)| {
        !path.starts_with(root().join("agent/fuzz")) && forges_permits(text)
    });
    let paths: Vec<&PathBuf> = found.iter().map(|(path, _)| path).collect();
    assert!(paths.is_empty(), "these ship it: {paths:?}");
}

#[test]
fn no_program_that_is_shipped_speaks_the_next_version_of_the_seats_link() {
    assert_eq!(seat_link::VERSION, 1, "the tests' feature is on");
    let mut found = Vec::new();
    for part in ["agent", "policy", "vmm", "tests", "guest-images"] {
        manifests(&root().join(part), &mut found);
    }
    let named: Vec<_> = found.iter().filter(|(_, text)| text.contains("next-version")).collect();
    let [(own, text)] = &named[..] else { panic!("it is switched on elsewhere: {named:?}") };
    assert!(own.ends_with("seat-link/Cargo.toml") && !text.contains("default ="), "{text}");
    is_built_for_tests_alone("next-version");
}

#[test]
fn no_agent_that_is_shipped_panics_when_it_gets_a_signal() {
    let mut found = Vec::new();
    for part in ["agent", "policy", "vmm", "tests", "guest-images"] {
        manifests(&root().join(part), &mut found);
    }
    let switch = |line: &str| line.contains("panics") && !line.starts_with('#');
    let lines = found.iter().flat_map(|(path, text)| {
        let lines = text.lines().filter(|line| switch(line));
        lines.map(move |line| (path.strip_prefix(root()).unwrap().to_owned(), line.to_owned()))
    });
    let lines: Vec<_> = lines.collect();
    let at = |path: &str, line: &str| (PathBuf::from(path), line.to_owned());
    let known = [
        at("agent/Cargo.toml", "panics = [\"daemon/panics\"]"),
        at("agent/daemon/Cargo.toml", "panics = []"),
    ];
    assert!(lines.len() == 2 && known.iter().all(|line| lines.contains(line)), "{lines:?}");
    is_built_for_tests_alone("bulkhead-agent/panics");
}

/// Fails unless `scripts/build` switches this feature on for what tests run, whose profile is none that is delivered, and for nothing else.
fn is_built_for_tests_alone(feature: &str) {
    let build = fs::read_to_string(root().join("scripts/build")).unwrap();
    let lines: Vec<_> = build.lines().filter(|line| line.contains(feature)).collect();
    assert!(matches!(lines[..], [line] if line.contains("--profile agent-e2e ")), "{lines:?}");
}
