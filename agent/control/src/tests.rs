//! What scripts send and auditors read of requests stays what it is, and the handbook says who may send them.

use std::fmt::Write;
use std::path::Path;

use super::commands::{COMMANDS, Request, find};
use super::roles::{Caller, GROUPS, Role};
use super::table::{Command, Often, Recorded};

const REQUESTS: &str = include_str!("tests/requests.tsv");

/// The rows of the file, each in its columns.
fn rows() -> impl Iterator<Item = [&'static str; 5]> {
    let rows = REQUESTS.lines().filter(|line| !line.starts_with('#'));
    rows.map(|row| row.split('\t').collect::<Vec<_>>().try_into().unwrap())
}

fn read(line: &str) -> Result<Request, String> {
    Request::read(line.as_bytes())
}

#[test]
fn every_request_has_the_bytes_and_the_word_in_the_audit_log_that_stand_in_the_file() {
    for [line, word, takes_time, domain, _] in rows() {
        let request = read(line).unwrap();
        assert_eq!(serde_json::to_string(&request).unwrap(), line);
        assert_eq!(request.word(), word, "{line}");
        assert!(request.command().words.contains(&word), "{line}");
        assert_eq!(request.takes_time().to_string(), takes_time, "{line}");
        assert_eq!(request.domain().unwrap_or("-"), domain, "{line}");
        assert_eq!(request.bus_id(), line.contains("bus_id").then_some("1-4.2"), "{line}");
    }
    for command in COMMANDS {
        assert!(std::ptr::eq(find(command.name).unwrap(), *command), "there are two of it");
    }
}

#[test]
fn what_takes_something_away_is_never_refused_for_being_asked_too_often_and_a_switch_is() {
    let words = |is: fn(&Request) -> bool| -> Vec<&str> {
        let all = rows().map(|[line, ..]| read(line).unwrap()).filter(is);
        let mut words: Vec<&str> = all.map(|request| request.word()).collect();
        words.dedup();
        words
    };
    assert_eq!(
        words(|request| request.changes() && request.often() == Often::Counted),
        ["stop", "stop-now", "usb-detach", "break-glass-end"]
    );
    assert_eq!(
        words(|request| !request.changes() && request.often() == Often::Refused),
        ["switch"]
    );
}

#[test]
fn what_changes_nothing_and_what_is_settled_with_a_domain_is_what_it_was() {
    let words = |is: fn(&Request) -> bool| {
        let mut words: Vec<&str> = rows()
            .map(|[line, ..]| read(line).unwrap())
            .filter(is)
            .map(|request| request.word())
            .collect();
        words.dedup();
        words
    };
    assert_eq!(
        words(|request| !request.changes()),
        [
            "status",
            "policy",
            "switch",
            "lock",
            "copy",
            "clipboard-outcome",
            "clipboard-no",
            "usb-list"
        ]
    );
    assert_eq!(
        words(|request| request.domain_to_settle().is_some()),
        ["start", "stop", "stop-now", "restart"]
    );
}

// Shows: K-1.3.3, K-1.3.4, K-5.1.3.
#[test]
fn each_role_may_do_what_the_table_says_and_no_more() {
    let named = [(Role::User, "user"), (Role::It, "it"), (Role::Officer, "officer")];
    for [line, .., roles] in rows() {
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

/// One line for each command of the table, with all its keys.
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
        let mut whole: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(&line).unwrap();
        for field in find(whole["command"].as_str().unwrap()).unwrap().fields {
            let value = whole.remove(field.name).unwrap();
            let without = serde_json::to_string(&whole).unwrap();
            assert_eq!(read(&without).is_ok(), field.optional, "{without}");
            whole.insert(field.name.to_owned(), value);
        }
        assert!(whole.len() == 1 + find(whole["command"].as_str().unwrap()).unwrap().fields.len());
    }
}

/// The request as the handbook shows it.
fn request(command: &Command) -> String {
    let mut text = format!("{{\"command\":\"{}\"", command.name);
    for field in command.fields {
        let optional = if field.optional { "?" } else { "" };
        // Writing to a string does not fail.
        let _ = write!(text, ",\"{}\"{optional}:…", field.name);
    }
    text + "}"
}

/// Whether it has an entry before it is done as well.
fn before(command: &Command) -> String {
    match command.changes.split_once('*') {
        Some((_, key)) => format!("; `asking` if `{}` is true", key.trim()),
        None if command.changes == "true" => "; `asking`".to_owned(),
        None => String::new(),
    }
}

/// What of a command is in the audit log.
fn entries(command: &Command) -> String {
    let words: Vec<String> = command.words.iter().map(|word| format!("`{word}`")).collect();
    let words = words.join(", ");
    match command.recorded {
        Recorded::Nothing => "".to_owned(),
        Recorded::Done => format!("{words}: done, or why not{}", before(command)),
        Recorded::Begun => format!("{words}: begun, or why not{}", before(command)),
        Recorded::Itself => "`policy-applied` or `policy-refused`".to_owned(),
    }
}

/// `docs/it/control-commands.md`.
fn handbook() -> String {
    let mut text = String::from(
        "# What can be asked of a running agent, and by whom

Made from the table in `agent/control/src/commands.rs` by `BULKHEAD_WRITE=1 cargo test -p bulkhead-control`; what is changed here by hand, a test finds.

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
        std::fs::write(&file, &text).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(text == written, "run `BULKHEAD_WRITE=1 cargo test -p bulkhead-control`");
}
