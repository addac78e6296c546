//! The command line, asking an agent that a test plays.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::process::Output;
use std::thread;

use serde_json::{Value, json};

use crate::support::{MACHINE, Ward};

/// Runs the command line; each of these is the agent's answer to one request. With what was asked.
fn played(ward: &Ward, args: &[&str], answers: &[Value]) -> (Output, Vec<Value>) {
    fs::create_dir_all(ward.at("run")).unwrap();
    let socket = ward.at("run/control.sock");
    let _ = fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).unwrap();
    let answers = answers.to_vec();
    let agent = thread::spawn(move || {
        let take = |answer: Value| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            stream.write_all(format!("{answer}\n").as_bytes()).unwrap();
            serde_json::from_str(&line).unwrap()
        };
        answers.into_iter().map(take).collect()
    });
    let output = ward.bulkhead(args);
    (output, agent.join().unwrap())
}

/// What a guest, a VMM or a device may have written: red, an alarm, a cleared screen.
const FOREIGN: &str = "the guest said \u{1b}[31mred\u{1b}[0m\u{7}\u{1b}[2J";

#[test]
fn no_escape_sequence_of_somebody_else_reaches_the_terminal_not_even_a_colour() {
    let ward = Ward::new(MACHINE);
    let refused = json!({"ok": false, "error": FOREIGN});
    let done = json!({"ok": true, "words": FOREIGN});
    let ended = json!({"ok": true, "clipboard": {
        "ticket": 1, "state": "ended", "done": false, "verdict": FOREIGN, "rule": FOREIGN, "words": FOREIGN,
    }});
    for (args, answer) in [
        (&["lock"][..], &refused),
        (&["start", "clinical"][..], &refused),
        (&["policy", "show"][..], &refused),
        (&["lock"][..], &done),
        (&["clipboard", "paste", "--to", "clinical"][..], &ended),
    ] {
        let (output, _) = played(&ward, args, std::slice::from_ref(answer));
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(said.contains("the guest said \\u{1b}[31mred"), "{args:?}: {said:?}");
        assert!(!said.contains(['\u{1b}', '\u{7}']), "{args:?}: {said:?}");
    }
    // Nor does a word of the command line that is not understood.
    for args in [&[FOREIGN][..], &["policy", "check", "--for-version", FOREIGN][..]] {
        let output = ward.bulkhead(args);
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said:?}");
        assert!(!said.contains(['\u{1b}', '\u{7}']), "{args:?}: {said:?}");
    }
}

#[test]
fn a_paste_that_asks_where_nobody_can_be_asked_says_so_and_how_to_do_it() {
    let ward = Ward::new(MACHINE);
    let report = |state: &str, words: &str| {
        json!({"ok": true, "clipboard": {
            "ticket": 7, "state": state, "done": false, "verdict": null, "rule": null, "words": words,
        }})
    };
    let question = report("question", "Paste 12 characters into CLINICAL?");
    let pending = report("pending", "");
    let paste = ["clipboard", "paste", "--to", "clinical"];
    for json in [false, true] {
        let args = [&paste[..], if json { &["--json"] } else { &[] }].concat();
        let (output, asked) = played(&ward, &args, &[question.clone(), pending.clone()]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let said = String::from_utf8(if json { output.stdout } else { output.stderr }).unwrap();
        for words in ["nobody could be asked", "--yes", "in a terminal", "Paste 12 characters"] {
            assert!(said.contains(words), "{said}");
        }
        assert!(!said.contains("answered with no"), "{said}");
        // The question does not stand for ever, and is not answered with yes.
        let no = json!({"command": "clipboard-answer", "ticket": 7, "yes": false});
        assert_eq!(asked, [json!({"command": "paste", "domain": "clinical"}), no]);
    }
    let ended = report("ended", "Pasted.");
    let (_, asked) = played(&ward, &[&paste[..], &["--yes"]].concat(), &[question, ended]);
    assert_eq!(asked[1]["yes"], true, "somebody has agreed beforehand");
}
