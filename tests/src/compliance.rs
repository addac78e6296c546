//! `docs/compliance.md`: every requirement with the tests that show it.
//!
//! A test of the simulated ward PC says what it shows in its attribute, `#[ward_test(shows = ["C-1"])]`; any other in a comment on the line above its
//! `#[test]`, `// Shows: C-1, K-3.1.1.`. Either way the table has the name that the runner prints: a test that is ignored or depends on a `#[cfg]`, or
//! whose file is in no module of a crate of the workspace, is refused here ([`compiled`]). What runs in full alone has that beside its name.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use toml_edit::DocumentMut;

use crate::{Outcome, ensure, runner};
use compiled::Modules;

mod compiled;

const MARK: &str = "// Shows: ";
/// Folders that hold sources.
const SOURCES: [&str; 5] = ["policy", "vmm", "agent", "tests", "guest-images"];

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

/// Returns where the table lies.
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

/// Returns the sources below a folder, in order.
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

/// Tests by requirement.
type Shown = BTreeMap<String, Vec<Test>>;

/// A test that shows something.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Test {
    /// Its file, below the root.
    place: String,
    name: String,
    /// Whether it is left to runs in full.
    in_full: bool,
}

/// What keeps a test from being run.
const NOT_RUN: [&str; 3] = ["#[ignore", "#[cfg(", "#[cfg_attr("];

/// Returns what the comments of one source say, `// Shows: C-1.` right above `#[test]` and its function.
fn in_comments(place: &str, text: &str, shown: &mut Shown) -> Outcome {
    let mut lines = text.lines().map(str::trim).peekable();
    let mut attributes = Vec::new();
    while let Some(line) = lines.next() {
        let Some(ids) = line.strip_prefix(MARK) else {
            // Those above the comment are the function's as well.
            match line.starts_with("#[") {
                true => attributes.push(line),
                false => attributes.clear(),
            }
            continue;
        };
        while let Some(attribute) = lines.next_if(|line| line.starts_with("#[")) {
            attributes.push(attribute);
        }
        let is_test = attributes.contains(&"#[test]");
        let kept_from = |attribute: &&str| NOT_RUN.iter().any(|not| attribute.starts_with(not));
        if let Some(attribute) = attributes.iter().find(|attribute| kept_from(attribute)) {
            return Err(format!(
                "{place}: `{line}` stands above a test with `{attribute}`, which no runner may ever run: it shows nothing"
            )
            .into());
        }
        attributes.clear();
        let name = lines.peek().and_then(|line| line.strip_prefix("fn ")?.split('(').next());
        let Some(name) = name.filter(|_| is_test) else {
            return Err(format!(
                "{place}: `{line}` has to stand right above the `#[test]` of a function; a test of the simulated ward PC \
                 has `#[ward_test(shows = [...])]` instead"
            )
            .into());
        };
        for id in ids.trim_end_matches('.').split(',') {
            let tests = shown.entry(id.trim().to_owned()).or_default();
            let (place, name) = (place.to_owned(), name.to_owned());
            tests.push(Test { place, name, in_full: false });
        }
    }
    Ok(())
}

/// Returns what the tests show: those of the simulated ward PC as they are linked, the others as their sources say.
fn shown() -> Outcome<Shown> {
    let mut files = Vec::new();
    for folder in SOURCES {
        sources(&root().join(folder), &mut files)?;
    }
    let mut shown = Shown::new();
    let modules = Modules::of(root())?;
    for path in files {
        let place = path.strip_prefix(root()).unwrap_or(&path).display().to_string();
        let text = fs::read_to_string(&path)?;
        if text.lines().any(|line| line.trim().starts_with(MARK)) {
            modules.check(&path).map_err(|why| format!("{place} shows nothing: {why}"))?;
        }
        in_comments(&place, &text, &mut shown)?;
    }
    let tests = runner::in_order();
    ensure!(
        !tests.is_empty(),
        "the tests of the simulated ward PC are not linked into this program"
    );
    for test in tests {
        for id in test.shows {
            let tests = shown.entry((*id).to_owned()).or_default();
            let (place, name) = (test.place.0.to_owned(), test.name.to_owned());
            tests.push(Test { place, name, in_full: test.in_full });
        }
    }
    Ok(shown)
}

/// Makes the table anew.
pub fn table() -> Outcome<String> {
    let mut shown = shown()?;
    let mut text = "# Requirements, and what shows that they are met\n\n\
                    Made by `BULKHEAD_WRITE=1 cargo test -p bulkhead-tests --test compliance` from `tests/requirements.toml` and from what the tests say they show;\n\
                    without `BULKHEAD_WRITE` the same test holds it against them. \"Not yet\" means what it says; \"in full only\": run by `scripts/test acceptance` and `soak`, and not by `scripts/test`.\n\n\
                    | code | what is asked | shown by | outside, or not yet |\n| --- | --- | --- | --- |\n"
        .to_owned();
    for Requirement { id, asks, outside, missing } in requirements()? {
        let tests = shown.remove(&id).unwrap_or_default();
        let by = tests.iter().map(|Test { place, name, in_full }| {
            let when = if *in_full { ", in full only" } else { "" };
            format!("`{name}` ({place}{when})")
        });
        let by: Vec<String> = by.collect();
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says by panicking what it did not expect")]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Shown> {
        let mut shown = Shown::new();
        in_comments("a.rs", text, &mut shown).ok().map(|()| shown)
    }

    #[test]
    fn only_the_name_of_a_test_function_gets_into_the_table() {
        let shown = read("// Shows: C-1, K-2.\n    #[test]\n    fn it_holds() {\n").unwrap();
        assert_eq!(shown.keys().collect::<Vec<_>>(), ["C-1", "K-2"]);
        let (place, name) = ("a.rs".to_owned(), "it_holds".to_owned());
        assert_eq!(shown["C-1"], [Test { place, name, in_full: false }]);
        for text in [
            "// Shows: C-1.\nfn a_helper() {\n",
            "// Shows: C-1.\n(\"an_entry_of_a_list\", body),\n",
            "// Shows: C-1.\n\n#[test]\nfn further_down() {\n",
            "// Shows: C-1.\n",
            "// Shows: C-1.\n#[test]\n#[ignore = \"slow\"]\nfn not_run() {\n",
            "#[ignore]\n// Shows: C-1.\n#[test]\nfn not_run() {\n",
            "// Shows: C-1.\n#[cfg(feature = \"odd\")]\n#[test]\nfn not_always_there() {\n",
        ] {
            assert!(read(text).is_none(), "{text}");
        }
    }
}
