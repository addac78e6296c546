//! Whatever is read, reading ends with a policy or with reasons, and never with a panic.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "clippy.toml allows it in tests and does not know that this is one"
)]

#[path = "../../tests/support/mod.rs"]
mod support;

use policy::Policy;
use policy::decide::Paste;
use policy::request::{ClipboardRequest, UsbDescription};
use policy_tools::{Matrix, check, explain_paste};
use proptest::prelude::*;
use support::{clipboard_requests, policy_text};

const DESIGN: &str = include_str!("corpus/warn/design.toml");

/// Reads, lints, renders and asks; refused or not, everything must come to an end.
fn survives(text: &str) {
    let report = check("fuzz.toml", text);
    assert_eq!(report.ok, report.errors.is_empty());
    assert!(!report.render(false).is_empty());
    for found in report.errors.iter().chain(&report.warnings) {
        assert!(
            found.line >= 1
                && found.column >= 1
                && !found.message.is_empty()
                && !found.help.is_empty()
        );
        assert_eq!(text.get(found.start..found.end).map(str::to_owned), Some(found.text.clone()));
    }
    if let Ok(policy) = Policy::draft("fuzz.toml", text) {
        for request in clipboard_requests() {
            let ClipboardRequest { from, to, media_type, .. } = request;
            let content = text.as_bytes().get(..200);
            _ = explain_paste(&policy, &Paste { from, to, media_type, content, size: None });
        }
        assert!(Matrix::of(&policy).html().ends_with("</html>\n"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    // Shows: K-3.1.1.
    #[test]
    fn arbitrary_bytes_are_read_to_the_end(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        survives(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn arbitrary_text_of_the_languages_own_words_is_read_to_the_end(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "[[", "]]", "[", "]", "domain", "usb", "clipboard", "expect", "match", "=", "\n", "\"", "'", "{", "}", ",",
                "format", "1", "serial", "id", "from", "to", "types", "0x", "break_glass", "true", "regex", "(", "*", "\\d",
            ]),
            0..80,
        )
    ) {
        survives(&words.concat());
    }

    #[test]
    fn a_good_policy_with_bytes_changed_is_read_to_the_end(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 1..6)
    ) {
        let mut bytes = DESIGN.as_bytes().to_vec();
        for (at, byte, how) in edits {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        survives(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn a_good_policy_with_its_lines_shuffled_is_read_to_the_end(
        lines in Just(DESIGN.lines().collect::<Vec<_>>()).prop_shuffle()
    ) {
        survives(&lines.join("\n"));
    }

    #[test]
    fn random_policies_are_read_to_the_end(text in policy_text()) {
        survives(&text);
    }

    #[test]
    fn device_descriptions_are_read_or_refused(text in "[a-z0-9=,/+ ]{0,60}") {
        _ = text.parse::<UsbDescription>();
    }
}

#[test]
fn deep_nesting_is_refused() {
    let text = format!("x = {}1{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(!check("deep.toml", &text).ok);
}

#[test]
fn a_policy_whose_own_expectation_fails_is_not_put_in_force() {
    let text = DESIGN.replace("verdict = \"deny\"", "verdict = \"allow\"");
    assert!(Policy::draft("policy.toml", &text).is_ok(), "the officer can still ask it why");
    let found = Policy::parse("policy.toml", &text).unwrap_err();
    assert!(
        found.to_string().contains("expected allow, but the answer is deny, by no rule"),
        "{found}"
    );
}

#[test]
fn a_newer_format_is_named_as_such_and_nothing_else_is_complained_about() {
    let text = format!("{}\n[[hologram]]\nid = 3\n", DESIGN.replace("format = 1", "format = 2"));
    let report = check("policy.toml", &text);
    let messages: Vec<&str> = report.errors.iter().map(|found| found.message.as_str()).collect();
    assert_eq!(messages, ["this policy is written for a newer Bulkhead"]);
}
