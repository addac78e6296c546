//! What the sources themselves must keep to, where no type does.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "clippy.toml allows it in tests and does not know that this is one"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

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
fn no_log_line_and_no_message_of_agent_and_vmm_shows_a_value_as_rusts_debugger_does() {
    let mut sources = Vec::new();
    for part in ["agent", "usbport", "vmm"] {
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
