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

/// The sources of what is shipped below a folder, each without its tests.
fn shipped(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            let other = ["target", "tests", "testing", "benches", "examples", "fuzz", "tools"];
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
    for part in ["agent", "policy", "usbport", "vmm"] {
        shipped(&root().join(part), &mut sources);
    }
    assert!(sources.len() > 150, "{} sources", sources.len());
    let mut found = Vec::new();
    for (path, text) in &sources {
        for (number, line) in text.lines().enumerate() {
            let line = line.trim_start();
            // `{:?}`, `{x:?}`, `{x:#?}` of the formatting macros; `?x` and `x = ?y` of tracing's.
            let formatted = line.contains(":?}") || line.contains(":#?}");
            let event = ["trace!", "debug!", "info!", "warn!", "error!"]
                .iter()
                .find_map(|level| line.split_once(level))
                .is_some_and(|(_, fields)| {
                    let fields = fields.split('"').next().unwrap_or_default();
                    fields.contains("= ?") || fields.contains("(?") || fields.contains(", ?")
                });
            if !line.starts_with("//") && !line.contains("assert") && (formatted || event) {
                found.push(format!("{}:{}: {line}", path.display(), number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_table_of_the_audit_logs_kinds_is_what_the_programs_write_and_no_more() {
    let mut sources = Vec::new();
    shipped(&root().join("agent"), &mut sources);
    let table: BTreeSet<&str> = audit::KINDS.iter().map(|(kind, _)| *kind).collect();
    assert!(audit::KINDS.is_sorted() && table.len() == audit::KINDS.len());
    let mut written = BTreeSet::new();
    for (path, text) in &sources {
        if path.ends_with("kinds.rs") {
            continue;
        }
        for at in text.match_indices("Event::new(\"").map(|(at, found)| at + found.len()) {
            let kind = text[at..].split('"').next().unwrap();
            assert!(
                table.contains(kind),
                "{} writes the kind `{kind}`, which audit/src/kinds.rs lacks",
                path.display()
            );
        }
        // A kind may also be handed to what makes the event.
        written.extend(table.iter().filter(|kind| text.contains(&format!("\"{kind}\""))));
    }
    let unused: Vec<_> = table.difference(&written).collect();
    assert!(unused.is_empty(), "nothing writes {unused:?}");
}

/// The tests that show of an obligation that the agent meets it.
fn shown_by(obligation: &Obligation<'_>) -> &'static [(&'static str, &'static str)] {
    const FLOWS: &str = "agent/clipboard/src/mediator/tests/flows.rs";
    match obligation {
        Obligation::Inspect(_) => &[(FLOWS, "a_detector_that_finds_something_denies_and_is_named")],
        Obligation::ConfirmNoKeyboard => &[(
            "agent/src/usb/broker/tests/parts.rs",
            "a_keyboard_types_though_what_is_besides_does_not_say_what_it_is",
        )],
        Obligation::Ask => &[
            (FLOWS, "a_question_shows_a_safe_preview_and_silence_is_no"),
            (FLOWS, "a_question_answered_with_yes_lets_it_through_and_with_no_does_not"),
        ],
        Obligation::ReadOnly => &[
            (
                "agent/usbfilter/src/tests/storage.rs",
                "every_command_that_is_not_on_the_list_stays_here",
            ),
            (
                "agent/usbfilter/src/tests/storage.rs",
                "a_write_fails_with_data_protect_and_its_data_go_nowhere",
            ),
        ],
        Obligation::Audit => &[
            (
                "agent/clipboard/src/mediator/tests/properties.rs",
                "bytes_cross_only_by_a_copy_there_a_paste_here_a_verdict_and_a_record",
            ),
            (
                "agent/src/usb/broker/tests.rs",
                "a_device_joins_its_domain_each_time_only_when_that_is_on_the_disk",
            ),
        ],
    }
}

#[test]
fn whatever_a_verdict_owes_is_met_by_the_agent_as_a_test_shows_or_every_tool_says_that_it_is_not() {
    let handbook = fs::read_to_string(root().join("docs/policy-handbook.md")).unwrap();
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
