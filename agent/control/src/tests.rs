//! What scripts send and auditors read of requests stays what it is, and the handbook says who may send them.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use serde_json::Value;

use super::commands::{COMMANDS, Request, find};
use super::roles::{Caller, GROUPS, Role};
use super::table::{AuditRule, Command, OverLimit};

/// The file of requests. What stands in it is a contract and stays; what the table has besides is added on request.
static REQUESTS: LazyLock<String> = LazyLock::new(|| {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tests/requests.tsv");
    let mut text = fs::read_to_string(&file).unwrap();
    if std::env::var_os("BULKHEAD_WRITE").is_some() {
        let more = missing(&text);
        text.push_str(&more);
        fs::write(&file, &text).unwrap();
    }
    text
});

const COLUMNS: usize = 8;

fn rows_of(text: &str) -> impl Iterator<Item = [&str; COLUMNS]> {
    let rows = text.lines().filter(|line| !line.starts_with('#'));
    rows.map(|row| row.split('\t').collect::<Vec<_>>().try_into().unwrap())
}

/// Returns the rows of the file, each in its columns.
fn rows() -> impl Iterator<Item = [&'static str; COLUMNS]> {
    rows_of(&REQUESTS)
}

/// Returns a request's row: as it goes over the socket, and what the table says of it.
fn row(request: &Request) -> String {
    let roles = GROUPS.iter().filter(|(_, role)| request.command().privilege.roles.contains(role));
    let roles: Vec<&str> =
        roles.map(|(group, _)| group.strip_prefix("bulkhead-").unwrap_or(group)).collect();
    let often = match request.often() {
        OverLimit::Refused => "refused",
        OverLimit::Counted => "counted",
    };
    let columns: [&str; COLUMNS] = [
        &serde_json::to_string(request).unwrap(),
        request.word(),
        &request.takes_time().to_string(),
        request.domain().unwrap_or("-"),
        &roles.join(" "),
        &request.changes().to_string(),
        often,
        request.domain_to_settle().unwrap_or("-"),
    ];
    columns.join("\t")
}

/// Rows for the words of the table that the file has no row of.
fn missing(text: &str) -> String {
    let mut there: BTreeSet<&str> = rows_of(text).map(|[_, word, ..]| word).collect();
    let mut added = String::new();
    for request in Request::one_of_each() {
        let Ok(Value::Object(mut keys)) = serde_json::to_value(&request) else { continue };
        for (key, example) in [("domain", "clinical"), ("bus_id", "1-4.2")] {
            if let Some(value) = keys.get_mut(key).filter(|value| value.is_string()) {
                *value = example.into();
            }
        }
        // A word of its own has the request of another command, or of this one with a key that is true.
        let switches = keys.iter().filter(|(_, value)| value.is_boolean()).map(|(key, _)| key);
        let switched = switches.map(|key| {
            let mut keys = keys.clone();
            keys.insert(key.clone(), true.into());
            keys
        });
        for keys in [keys.clone()].into_iter().chain(switched) {
            let request = read(&Value::Object(keys).to_string()).unwrap();
            if there.insert(request.word()) {
                added.push_str(&row(&request));
                added.push('\n');
            }
        }
    }
    added
}

fn read(line: &str) -> Result<Request, String> {
    Request::read(line.as_bytes()).map_err(|error| error.to_string())
}

#[test]
fn every_request_has_the_bytes_and_the_word_in_the_audit_log_that_stand_in_the_file() {
    for columns in rows() {
        let [line, word, ..] = columns;
        let request = read(line).unwrap();
        assert_eq!(row(&request), columns.join("\t"));
        assert!(request.command().words.contains(&word), "{line}");
        assert_eq!(request.bus_id(), line.contains("bus_id").then_some("1-4.2"), "{line}");
    }
    for command in COMMANDS {
        assert!(std::ptr::eq(find(command.name).unwrap(), *command), "there are two of it");
        for word in command.words {
            assert!(
                rows().any(|[_, told, ..]| told == *word),
                "`BULKHEAD_WRITE=1 cargo test -p bulkhead-control` adds the row of `{word}`"
            );
        }
    }
}

#[test]
fn rows_are_added_for_what_is_not_there_and_for_nothing_else() {
    assert_eq!(missing(&REQUESTS), "");
    let without = |words: &[&str]| -> String {
        rows()
            .filter(|[_, word, ..]| !words.contains(word))
            .map(|row| row.join("\t") + "\n")
            .collect()
    };
    // A command that is new, and a word of one that is not.
    let added = missing(&without(&["reset", "stop-now"]));
    let added: Vec<[&str; COLUMNS]> = rows_of(&added).collect();
    assert_eq!(added.len(), 2);
    for row in added {
        assert!(rows().any(|other| other == row), "{row:?}");
    }
}

#[test]
fn what_takes_something_away_is_never_refused_for_being_asked_too_often_and_a_switch_is() {
    let often = |wanted: &str| {
        let [line, ..] = rows().find(|[_, word, ..]| *word == wanted).unwrap();
        read(line).unwrap().often()
    };
    for word in ["stop", "stop-now", "usb-detach", "break-glass-end"] {
        assert_eq!(often(word), OverLimit::Counted, "{word}");
    }
    assert_eq!(often("switch"), OverLimit::Refused);
}

// Shows: K-1.3.3, K-1.3.4, K-5.1.3.
#[test]
fn each_role_may_do_what_the_table_says_and_no_more() {
    let named = [(Role::User, "user"), (Role::It, "it"), (Role::Officer, "officer")];
    for [line, _, _, _, roles, ..] in rows() {
        let privilege = &read(line).unwrap().command().privilege;
        let roles: Vec<&str> = roles.split(' ').collect();
        for (role, name) in named {
            let may = Caller::of_role(role).may(privilege).is_ok();
            assert_eq!(may, roles.contains(&name), "{name}: {line}");
        }
    }
    for command in COMMANDS {
        for (role, _) in named {
            let may = Caller::of_role(role).may(&command.privilege).is_ok();
            assert_eq!(may, command.privilege.roles.contains(&role), "{}", command.name);
        }
        assert!(Caller::of_role(Role::Root).may(&command.privilege).is_ok(), "{}", command.name);
        assert!(Caller::without_role(1000).may(&command.privilege).is_err(), "{}", command.name);
    }
}

/// Returns one line for each command of the table, with all its keys.
fn lines() -> Vec<String> {
    let lines: Vec<String> = Request::one_of_each()
        .iter()
        .map(|request| serde_json::to_string(request).unwrap())
        .collect();
    assert_eq!(lines.len(), COMMANDS.len());
    lines
}

#[test]
fn a_request_with_a_key_that_its_command_does_not_have_is_refused_whatever_the_command() {
    for line in lines() {
        read(&line).unwrap();
        let keys = line.strip_suffix('}').unwrap();
        for wrong in [
            format!(r#"{keys},"x":1}}"#),
            format!(r#"{{"x":1,{}}}"#, keys.strip_prefix('{').unwrap()),
            format!(r#"{keys},"command":"lock"}}"#),
            format!(r#"{keys},"domain":"a","domain":"b"}}"#),
            format!("[{line}]"),
            format!("{line}{line}"),
        ] {
            assert!(read(&wrong).is_err(), "{wrong}");
        }
    }
    for wrong in [
        r#"{"command":"fly"}"#,
        r#"{"command":"start"}"#,
        r#"["status"]"#,
        r#"["start","clinical"]"#,
        "[]",
        "",
        "\"status\"",
    ] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
    assert!(read(r#"{"command":"status","x":1}"#).unwrap_err().contains("unknown field `x`"));
}

#[test]
fn what_may_be_left_out_of_a_request_is_what_the_table_says() {
    for line in lines() {
        let mut whole: serde_json::Map<String, Value> = serde_json::from_str(&line).unwrap();
        for field in find(whole["command"].as_str().unwrap()).unwrap().fields {
            let value = whole.remove(field.name).unwrap();
            let without = serde_json::to_string(&whole).unwrap();
            assert_eq!(read(&without).is_ok(), field.optional, "{without}");
            whole.insert(field.name.to_owned(), value);
        }
        assert!(whole.len() == 1 + find(whole["command"].as_str().unwrap()).unwrap().fields.len());
    }
}

/// Returns the request as the handbook shows it.
fn request(command: &Command) -> String {
    let mut text = format!("{{\"command\":\"{}\"", command.name);
    for field in command.fields {
        let optional = if field.optional { "?" } else { "" };
        // Writing to a string does not fail.
        let _ = write!(text, ",\"{}\"{optional}:…", field.name);
    }
    text + "}"
}

/// Returns whether it has an entry before it is done as well.
fn before(command: &Command) -> String {
    match command.changes.split_once('*') {
        Some((_, key)) => format!("; `asking` if `{}` is true", key.trim()),
        None if command.changes == "true" => "; `asking`".to_owned(),
        None => String::new(),
    }
}

/// Returns what of a command is in the audit log.
fn entries(command: &Command) -> String {
    let words: Vec<String> = command.words.iter().map(|word| format!("`{word}`")).collect();
    let words = words.join(", ");
    match command.recorded {
        AuditRule::Nothing => "".to_owned(),
        AuditRule::Done => format!("{words}: done, or why not{}", before(command)),
        AuditRule::Begun => format!("{words}: begun, or why not{}", before(command)),
        AuditRule::Itself => "`policy-applied` or `policy-refused`".to_owned(),
    }
}

/// Reads `docs/it/control-commands.md`.
fn handbook() -> String {
    let mut text = String::from(
        "# What can be asked of a running agent, and by whom

<!-- Made from the table in `agent/control/src/commands.rs` by `BULKHEAD_WRITE=1 cargo test -p bulkhead-control`; what is changed here by hand, a test finds. -->

Whoever asks is known to the kernel; the groups of the host give roles. root may everything, and who is in none of the groups nothing. A refused request is in the audit log as `refused`, by user, account
and request. What changes something, or lets something through, has two entries, `asking` before anything of it is done and `asked` with the outcome, both with the word below as `what`. What is taken back
as easily has `asked` alone, and the same asked again and again is counted. An empty field means no entry, as it only looks.

| command line | what it does |",
    );
    for (group, _) in GROUPS {
        let _ = write!(text, " `{group}` |");
    }
    text.push_str(" in the audit log | on the control socket |\n| --- | --- |");
    text.push_str(&" --- |".repeat(GROUPS.len() + 2));
    text.push('\n');
    for command in COMMANDS {
        let line = match command.line {
            "" => "(a part of the others)".to_owned(),
            line => format!("`bulkhead {line}`"),
        };
        let _ = write!(text, "| {line} | {} |", command.about);
        for (_, role) in GROUPS {
            let may = command.privilege.roles.contains(&role);
            text.push_str(if may { " yes |" } else { " |" });
        }
        let _ = writeln!(text, " {} | `{}` |", entries(command), request(command));
    }
    text.push_str(
        "
On the control socket, `<runtime>/control.sock`, requests and answers are JSON objects, one a line; `?` marks a key that may be left out. A key that a command does not have is refused. `start`, `stop` and
`restart` answer once the wish is noted, `copy` and `paste` with a `ticket`: the command line waits for the rest. A refusal is `{\"ok\":false,\"error\":TEXT}`.

| key | of | is |
| --- | --- | --- |
",
    );
    for command in COMMANDS {
        for field in command.fields {
            let _ = writeln!(text, "| `{}` | `{}` | {} |", field.name, command.name, field.about);
        }
    }
    text
}

#[test]
fn the_handbooks_table_of_commands_is_what_the_agent_goes_by() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/it/control-commands.md");
    let text = handbook();
    if std::env::var_os("BULKHEAD_WRITE").is_some() {
        fs::write(&file, &text).unwrap();
    }
    let written = fs::read_to_string(&file).unwrap_or_default();
    assert!(text == written, "run `BULKHEAD_WRITE=1 cargo test -p bulkhead-control`");
}
