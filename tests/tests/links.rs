//! What the documents name is there.
#![allow(clippy::expect_used, reason = "a test says by panicking what it did not expect")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders and files at the root in which names of files are looked for.
const ROOTS: [&str; 14] = [
    ".ci",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "Cargo.toml",
    "agent",
    "docs",
    "guest-images",
    "policy",
    "scripts",
    "tests",
    "vmm",
    "clippy.toml",
];
const SOURCES: [&str; 5] = ["md", "rs", "toml", "service", "html"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace's root")
}

/// Returns every file below that people write: documents, sources, scripts.
fn files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut waiting: Vec<PathBuf> = ROOTS.iter().map(|name| root().join(name)).collect();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("a folder is read").flatten();
            waiting
                .extend(entries.map(|entry| entry.path()).filter(|path| !path.ends_with("target")));
        } else if path.extension().is_none_or(|kind| SOURCES.iter().any(|source| kind == *source))
            && path.exists()
        {
            files.push(path);
        }
    }
    files
}

/// Returns the files that a document links to, `[text](file.md#section)`, beside it.
fn linked(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| {
        let target = rest.split(')').next()?.split('#').next()?;
        (!target.is_empty() && !target.contains("://")).then_some(target)
    })
}

/// Returns the documents that a text names, from the root.
fn documents(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("docs/").filter_map(|(start, _)| {
        let before = text.get(..start)?.chars().next_back();
        let rest = text.get(start..)?;
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "/-_.".contains(c)))?;
        let name = rest.get(..end)?.trim_end_matches('.');
        let from_root = before.is_none_or(|c| !c.is_ascii_alphanumeric() && c != '/' && c != '.');
        (from_root && name.ends_with(".md")).then_some(name)
    })
}

/// Files of the repository that a document names in backticks: `agent/seat/src/lib.rs`.
fn in_backticks(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2).filter(|name| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "/-_.".contains(c);
        name.contains('/')
            && name.chars().all(plain)
            && !name.contains("...")
            && ROOTS
                .iter()
                .any(|folder| name.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')))
    })
}

#[test]
fn every_file_that_a_document_or_a_source_names_is_there() {
    let files = files();
    assert!(files.len() > 200, "{} files were found", files.len());
    let mut missing = Vec::new();
    for path in files {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let is_document = path.extension().is_some_and(|kind| kind == "md");
        let mut named: Vec<PathBuf> = documents(&text).map(|name| root().join(name)).collect();
        if is_document {
            let beside = path.parent().expect("a file is in a folder");
            named.extend(linked(&text).map(|name| beside.join(name)));
            named.extend(in_backticks(&text).map(|name| root().join(name)));
        }
        let from = path.strip_prefix(root()).unwrap_or(&path).display().to_string();
        missing.extend(
            named
                .iter()
                .filter(|name| !name.exists())
                .map(|name| format!("{from}: {}", name.display())),
        );
    }
    assert!(missing.is_empty(), "these name what is not there:\n{}", missing.join("\n"));
}

#[test]
fn continuous_integration_runs_the_command_that_the_readme_gives_for_testing() {
    let readme = fs::read_to_string(root().join("README.md")).expect("README.md");
    let line =
        readme.lines().find(|line| line.starts_with("scripts/test ")).expect("a line on testing");
    let command = line.split('#').next().unwrap_or(line).trim();
    let run = fs::read_to_string(root().join(".ci/run")).expect(".ci/run");
    assert!(run.lines().any(|line| line == command), "`{command}` is not in .ci/run:\n{run}");
}

/// Returns the keys that a TOML text sets, comments and texts left out.
fn keys(text: &str) -> BTreeSet<&str> {
    let mut keys = BTreeSet::new();
    for line in text.lines() {
        // What is not in quotes: a key, or what stands between two values.
        for piece in line.split('#').next().unwrap_or(line).split('"').step_by(2) {
            keys.extend(piece.split('=').rev().skip(1).filter_map(|before| {
                before.trim_end().rsplit(|c: char| !(c.is_ascii_lowercase() || c == '_')).next()
            }));
        }
    }
    keys.remove("");
    keys
}

#[test]
fn every_key_of_a_machine_file_is_in_the_page_for_it() {
    let page = fs::read_to_string(root().join("docs/it/machine-file.md")).expect("the page");
    let good = fs::read_dir(root().join("agent/config/tests/machine/good")).expect("a folder");
    let good = good.flatten().map(|entry| entry.path());
    let mut count = 0;
    for path in good.chain([root().join("agent/examples/machine.toml")]) {
        let text = fs::read_to_string(&path).expect("a machine file");
        for key in keys(&text) {
            let named = [
                format!("`{key}`"),
                format!("`[{key}]`"),
                format!(" {key} ="),
                format!("`{key} ="),
            ];
            assert!(named.iter().any(|name| page.contains(name)), "{}: {key}", path.display());
            count += 1;
        }
    }
    assert!(count > 30, "{count}");
    let text = "a = { b_c = \"d = 1\", e = [\"#\"] } # f = 2\n";
    assert_eq!(keys(text).into_iter().collect::<Vec<_>>(), ["a", "b_c", "e"]);
}

#[test]
fn a_name_of_what_is_not_there_is_seen() {
    let absent = ["docs", "absent.md"].join("/");
    let text = format!("see [there](absent.md#x), [web](https://example.org/a) and `{absent}`.");
    assert_eq!(linked(&text).collect::<Vec<_>>(), ["absent.md"]);
    assert_eq!(documents(&text).collect::<Vec<_>>(), [&absent]);
    assert_eq!(in_backticks(&text).collect::<Vec<_>>(), [&absent]);
    assert_eq!(
        in_backticks("`agent/src/absent.rs`, `a b`, `docs/...`").collect::<Vec<_>>(),
        ["agent/src/absent.rs"]
    );
}
