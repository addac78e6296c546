//! The list of decision records in `docs/design/README.md` is what the records say.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test says by panicking what it did not expect"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const BEGIN: &str =
    "<!-- list: made by BULKHEAD_WRITE=1 cargo test -p bulkhead-tests --test decisions -->\n";
const END: &str = "<!-- end of the list -->\n";
/// How the sentence begins that says which earlier records a record changes.
const CHANGES: [&str; 5] = ["Supersedes ", "Succeeds ", "Adds to ", "Replaces ", "Answers "];

/// A decision record.
struct Record {
    number: u32,
    file: String,
    title: String,
    /// The earlier records that it says it succeeds or adds to.
    changes: BTreeSet<u32>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/design")
}

/// Reads a record.
///
/// # Errors
/// What is missing in it, or contradicts its name.
fn read(file: &str, text: &str) -> Result<Record, String> {
    let number: Option<u32> = file.get(..4).and_then(|digits| digits.parse().ok());
    let number = number.ok_or_else(|| format!("{file}: its name begins with no number"))?;
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let title = first
        .strip_prefix(&format!("# {number}. "))
        .ok_or_else(|| format!("{file}: its first line is not `# {number}. ` and a title"))?;
    let mut changes = BTreeSet::new();
    let mut paragraphs = rest.split("\n\n").map(str::trim).filter(|text| !text.is_empty());
    if let Some(first) = paragraphs.clone().next()
        && CHANGES.iter().any(|begin| first.starts_with(begin))
    {
        changes.extend(named(first.split(". ").next().unwrap_or(first)));
    }
    // A record of what was added to many has a paragraph for each.
    for text in paragraphs.by_ref().filter(|text| text.starts_with("**[")) {
        changes.extend(named(text.split(')').next().unwrap_or(text)).first());
    }
    match changes.iter().find(|changed| **changed >= number) {
        Some(later) => Err(format!("{file}: it cannot change {later}, which is no earlier one")),
        None => Ok(Record { number, file: file.to_owned(), title: title.to_owned(), changes }),
    }
}

/// Returns the records that a sentence names: by a link, or as `decision 7`.
fn named(sentence: &str) -> BTreeSet<u32> {
    let digits = |text: &str| -> Option<u32> {
        text.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok())
    };
    let links = sentence.split("](").skip(1).filter(|target| target.contains(".md"));
    links.chain(sentence.split("decision ").skip(1)).filter_map(digits).collect()
}

fn list(records: &[Record]) -> String {
    let mut changed: BTreeMap<u32, Vec<&Record>> = BTreeMap::new();
    for record in records {
        record.changes.iter().for_each(|earlier| changed.entry(*earlier).or_default().push(record));
    }
    let link = |record: &&Record| format!("[{}](decisions/{})", record.number, record.file);
    let mut text =
        "| record | what it decides | succeeded, or added to, by |\n| --- | --- | --- |\n"
            .to_owned();
    for record in records {
        let by: Vec<String> = changed.get(&record.number).into_iter().flatten().map(link).collect();
        text.push_str(&format!("| {} | {} | {} |\n", link(&record), record.title, by.join(", ")));
    }
    text
}

#[test]
fn the_list_of_decisions_is_what_the_records_say() {
    let entries = fs::read_dir(folder().join("decisions")).expect("the records").flatten();
    let mut records: Vec<Record> = entries
        .map(|entry| {
            let file = entry.file_name().to_string_lossy().into_owned();
            let text = fs::read_to_string(entry.path()).expect("a record");
            read(&file, &text).unwrap_or_else(|why| panic!("{why}"))
        })
        .collect();
    records.sort_by_key(|record| record.number);
    for pair in records.windows(2) {
        let [one, next] = pair else { continue };
        assert_ne!(one.number, next.number, "{} and {} have one number", one.file, next.file);
    }
    let page = folder().join("README.md");
    let text = fs::read_to_string(&page).expect("the page");
    let (before, rest) = text.split_once(BEGIN).expect("where the list begins");
    let (_, after) = rest.split_once(END).expect("where the list ends");
    let made = format!("{before}{BEGIN}{}{END}{after}", list(&records));
    if std::env::var_os("BULKHEAD_WRITE").is_some() {
        fs::write(&page, &made).expect("the page is written");
    }
    assert!(
        fs::read_to_string(&page).expect("the page") == made,
        "run `BULKHEAD_WRITE=1 cargo test -p bulkhead-tests --test decisions`"
    );
}

#[test]
fn a_record_says_by_its_first_sentence_which_ones_it_changes() {
    let changes = |paragraph: &str| {
        let read =
            read("0099-x.md", &format!("# 99. A title\n\n{paragraph}\n\nMore of decision 4.\n"));
        read.expect("a record").changes.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(
        changes("Supersedes decision 3. What it says is superseded by [5](0005-y.md)."),
        [3]
    );
    assert_eq!(changes("Succeeds what decisions [7](0007-y.md) and [32](0032-z.md) say."), [7, 32]);
    assert_eq!(changes("Adds to [22](0022-p.md) and replaces, of [54](0054-q.md), one."), [22, 54]);
    assert_eq!(changes("**[6](0006-u.md), USB.** As [14](0014-v.md) says."), [6]);
    assert_eq!(changes("**Context.** As [14](0014-v.md) says."), Vec::<u32>::new());
    for (file, text) in [
        ("99-x.md", "# 99. A title\n"),
        ("0099-x.md", "# 98. A title\n"),
        ("0099-x.md", "# 99. A title\n\nSucceeds [99](0099-x.md).\n"),
    ] {
        assert!(read(file, text).is_err(), "{file}: {text}");
    }
}
