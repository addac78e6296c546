//! The threat model's table of parsers names every fuzz target, and no other.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test says by panicking what it did not expect"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const HEADING: &str = "## The parsers that hostile bytes reach\n";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The targets that there are: what `scripts/fuzz` runs.
fn targets() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for folder in ["policy", "vmm", "agent"] {
        let targets = root().join(folder).join("fuzz/fuzz_targets");
        for entry in fs::read_dir(targets).expect("the targets' folder").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let name = name.strip_suffix(".rs").map(str::to_owned);
            assert!(found.insert(name.expect("a target's file")), "two targets of one name");
        }
    }
    found
}

/// The targets that the last column of the table names.
fn named() -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("docs/design/threat-model.md"));
    let text = text.expect("the threat model");
    let section = text.split_once(HEADING).expect("the table of parsers").1;
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with("| "));
    let cells = rows.filter_map(|row| row.trim_end_matches(" |").rsplit(" | ").next());
    let names = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    names.map(str::to_owned).collect()
}

#[test]
fn each_fuzz_target_is_in_the_threat_models_table_of_parsers_and_each_that_it_names_is_there() {
    let (there, named) = (targets(), named());
    assert!(there.len() > 20, "{there:?}");
    let unnamed: Vec<&String> = there.difference(&named).collect();
    let missing: Vec<&String> = named.difference(&there).collect();
    assert!(unnamed.is_empty(), "not in the threat model's table: {unnamed:?}");
    assert!(missing.is_empty(), "no such fuzz target: {missing:?}");
}
