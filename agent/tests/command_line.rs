//! `bulkhead` itself: what it says to who asks nothing yet.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    reason = "a test says by panicking what it did not expect"
)]

mod artefacts;

use std::process::Command;

#[test]
fn without_an_argument_it_shows_examples_and_every_example_is_understood() {
    let bulkhead = || Command::new(artefacts::program("bulkhead"));
    let output = bulkhead().output().unwrap();
    assert_eq!(output.status.code(), Some(2), "nothing was done");
    assert!(output.stdout.is_empty());
    let said = String::from_utf8(output.stderr).unwrap();
    let examples: Vec<&str> = said
        .lines()
        .skip_while(|line| *line != "Examples:")
        .skip(1)
        .map_while(|line| line.strip_prefix("  bulkhead "))
        .collect();
    assert!(examples.len() >= 8, "{said}");
    for example in examples {
        // What the example does stands behind two spaces or more.
        let command = example.split("  ").next().unwrap().replace("'system down'", "system-down");
        let words: Vec<&str> = command.split(' ').collect();
        let (words, help) = match words.as_slice() {
            ["help", ..] => (words, None),
            _ => (words, Some("--help")),
        };
        let known = bulkhead().args(&words).args(help).output().unwrap();
        assert!(known.status.success(), "{command}: {}", String::from_utf8_lossy(&known.stderr));
    }
}
