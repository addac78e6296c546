//! `docs/security-office/audit-events.md` is what the catalogue says.
#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in tests and does not know that this is one"
)]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use audit::AuditEvent;

const HEAD: &str = "\
# Audit events

<!-- Made by `BULKHEAD_WRITE=1 cargo test -p bulkhead-audit` from `agent/audit/src/events/catalogue.rs`; do not edit it by hand. -->

Every event is one line of the log, a JSON object: `bulkhead audit show` prints it for people, `bulkhead audit export` for the monitoring centre, and `--kind` chooses one kind.
Each has, besides what its table says: `seq`, its number in the log; `time`, what the PC's clock said (UTC); `monotonic_us`, the highest time seen in microseconds since 1970,
which never goes back; `boot`, which start of the PC; `kind`; and `prev` and `hash`, by which it is chained to the entry before. `domain`, `verdict`, `rule` and `policy` stand in the line
itself, all other fields in its `detail`. A log never holds content: sizes, types, hashes, names and verdicts only. A field that is not *always* there is left out where there is nothing to say.
Readers have to pass over fields and kinds they do not know: a later version may add some. *Who* is on whose doing an entry is written, with the fields that name them (`request` is the number of the entry `asking`, which does); *outcome* is which fields say what came of it.
";

/// Returns a text as it stands in a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// Returns names as code, with commas.
fn list(names: impl Iterator<Item = &'static str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn document() -> String {
    let mut text = HEAD.to_owned();
    for kind in AuditEvent::KINDS {
        write!(text, "\n## `{}`\n\n{}.\n", kind.name, capital(kind.meaning())).unwrap();
        let (who, names) = kind.who();
        let (named, outcome) = (list(names), list(kind.outcome()));
        let named = if named.is_empty() { named } else { format!(" ({named})") };
        let outcome = if outcome.is_empty() { "what its kind says".to_owned() } else { outcome };
        write!(text, "\n*Who*: {who}{named}. *Outcome*: {outcome}.\n").unwrap();
        if kind.fields.is_empty() {
            continue;
        }
        text += "\n| field | value | always | what it says |\n| --- | --- | --- | --- |\n";
        for field in kind.fields {
            let always = if field.always { "yes" } else { "" };
            let row = [field.name(), field.form, always, field.meaning()].map(cell);
            let [name, form, always, meaning] = row;
            writeln!(text, "| `{name}` | {form} | {always} | {meaning} |").unwrap();
        }
    }
    text
}

#[test]
fn the_seats_page_names_no_event_that_there_is_not() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/it/seat.md");
    let text = fs::read_to_string(file).unwrap();
    let section = text.split("\n## What is written down\n").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let named = section.split('`').skip(1).step_by(2).filter(|word| {
        word.contains('-') && word.chars().all(|c| c == '-' || c.is_ascii_lowercase())
    });
    let mut count = 0;
    for name in named {
        assert!(AuditEvent::kind_of(name).is_some(), "`{name}` is no kind of entry");
        count += 1;
    }
    assert!(count > 10, "{count}");
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default()
        + letters.as_str()
}

#[test]
fn the_table_of_audit_events_is_what_the_catalogue_says() {
    let file =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/security-office/audit-events.md");
    let document = document();
    if std::env::var_os("BULKHEAD_WRITE").is_some() {
        fs::write(&file, &document).unwrap();
    }
    let written = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        document == written,
        "run `BULKHEAD_WRITE=1 cargo test -p bulkhead-audit` to write it anew"
    );
}
