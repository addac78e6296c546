//! `docs/compliance.md`: every requirement with the tests that show it.
//!
//! A test says what it shows in a comment above it, `// Shows: C-1, K-3.1.1.`; the next test's name after that line is meant.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use toml_edit::DocumentMut;

use crate::Outcome;

const MARK: &str = "// Shows: ";
/// Folders that hold sources.
const SOURCES: [&str; 5] = ["policy", "vmm", "agent", "tests", "guest-images"];

/// One requirement.
#[derive(Clone, Debug)]
pub struct Requirement {
    id: String,
    asks: String,
    outside: Option<String>,
    missing: Option<String>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Where the table lies.
pub fn file() -> PathBuf {
    root().join("docs/compliance.md")
}

fn requirements() -> Outcome<Vec<Requirement>> {
    let text = fs::read_to_string(root().join("tests/requirements.toml"))?;
    let document: DocumentMut = text.parse()?;
    let tables = document.get("requirement").and_then(|item| item.as_array_of_tables());
    let read = |table: &toml_edit::Table| {
        let text = |key: &str| table.get(key).and_then(|v| v.as_str()).map(str::to_owned);
        Some(Requirement {
            id: text("id")?,
            asks: text("asks")?,
            outside: text("outside"),
            missing: text("missing"),
        })
    };
    Ok(tables.into_iter().flatten().filter_map(read).collect())
}

/// The sources below a folder, in order.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut entries: Vec<_> = fs::read_dir(folder)?.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            sources(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

/// The name of the test that a line begins, as a function or as an entry of a list.
fn test_name(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let name = line
        .strip_prefix("fn ")
        .or_else(|| line.strip_prefix("(\""))
        .and_then(|rest| rest.split(['(', '"']).next())?;
    name.contains('_').then_some(name)
}

/// Tests by requirement: file below the root, and name.
fn shown() -> Outcome<BTreeMap<String, Vec<(String, String)>>> {
    let mut files = Vec::new();
    for folder in SOURCES {
        sources(&root().join(folder), &mut files)?;
    }
    let mut shown: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for path in files {
        let text = fs::read_to_string(&path)?;
        let place = path.strip_prefix(root()).unwrap_or(&path).display().to_string();
        let mut waiting: Vec<&str> = Vec::new();
        for line in text.lines() {
            if let Some(ids) = line.trim_start().strip_prefix(MARK) {
                waiting.extend(ids.trim_end_matches('.').split(',').map(str::trim));
            } else if !waiting.is_empty()
                && let Some(name) = test_name(line)
            {
                for id in waiting.drain(..) {
                    let tests = shown.entry(id.to_owned()).or_default();
                    tests.push((place.clone(), name.to_owned()));
                }
            }
        }
        if let Some(id) = waiting.first() {
            return Err(format!("{place}: no test follows `Shows: {id}`").into());
        }
    }
    Ok(shown)
}

/// The table, made anew.
pub fn table() -> Outcome<String> {
    let mut shown = shown()?;
    let mut text = "# Requirements, and what shows that they are met\n\n\
                    Made by `cargo run -p tests --bin compliance` from `tests/requirements.toml` and the `Shows:` lines above the tests; a test\n\
                    holds it against them. \"Not yet\" means what it says.\n\n\
                    | code | what is asked | shown by | outside, or not yet |\n| --- | --- | --- | --- |\n"
        .to_owned();
    for Requirement { id, asks, outside, missing } in requirements()? {
        let tests = shown.remove(&id).unwrap_or_default();
        let by: Vec<String> =
            tests.iter().map(|(place, name)| format!("`{name}` ({place})")).collect();
        let rest = match (outside, missing) {
            (Some(why), None) => format!("outside Bulkhead: {why}"),
            (None, Some(what)) => format!("not yet: {what}"),
            (None, None) if by.is_empty() => {
                return Err(
                    format!("{id} is neither shown nor outside nor said to be missing").into()
                );
            }
            (None, None) => String::new(),
            (Some(_), Some(_)) => return Err(format!("{id} is both outside and missing").into()),
        };
        text += &format!("| {id} | {asks} | {} | {rest} |\n", by.join("<br>"));
    }
    match shown.keys().next() {
        Some(unknown) => Err(format!("a test shows {unknown}, which nobody asks for").into()),
        None => Ok(text),
    }
}
