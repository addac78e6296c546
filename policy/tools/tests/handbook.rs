//! The handbook cannot drift: its examples are the corpus, and it names every key and every word of the language.
#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in tests and does not know that this is one"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use policy::decide::Decision;
use policy::detect::BuiltIn;
use policy::language::{
    ClipboardAction, MediaType, Network, Persistence, Priority, Protocol, UsbAction, UsbClass,
};
use policy_tools::check;

/// Divides a corpus file into the two desktops and the example.
const MARK: &str = "\n# ---- the example ----\n\n";

fn handbook() -> String {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/security-office/policy-handbook.md");
    fs::read_to_string(path).unwrap()
}

/// Returns the TOML in the handbook.
fn blocks(handbook: &str) -> Vec<&str> {
    handbook.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

// Shows: C-4.
#[test]
fn every_example_in_the_handbook_is_a_policy_of_the_good_corpus() {
    let handbook = handbook();
    let blocks = blocks(&handbook);
    let (desktops, examples) = blocks.split_first().unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/good");
    let mut corpus: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    corpus.sort();
    let corpus: Vec<String> =
        corpus.into_iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    assert_eq!(
        corpus,
        examples.iter().map(|example| format!("{desktops}{MARK}{example}")).collect::<Vec<_>>()
    );
    assert_eq!(examples.len(), 10);
}

#[test]
fn every_key_of_the_language_is_in_the_handbook() {
    let unknown = "zzzzzzzzzzzzzzzz = 1\n";
    let tables = [
        "[[domain]]",
        "[[detector]]",
        "[hotkeys]",
        "[[clipboard]]",
        "[[usb]]",
        "[[input]]",
        "[break_glass]",
        "[[expect]]",
    ];
    let mut text = unknown.to_owned();
    for table in tables {
        text.push_str(&format!("{table}\n{unknown}"));
    }
    let inline = "{ zzzzzzzzzzzzzzzz = 1 }";
    text.push_str(&format!("[[domain]]\negress = [{inline}]\n[[usb]]\nmatch = {inline}\n"));
    text.push_str(&format!("[[expect]]\nclipboard = {inline}\n[[expect]]\nusb = {inline}\n"));
    let report = check("keys.toml", &text);
    let lists =
        report.errors.iter().filter_map(|found| found.help.strip_prefix("remove it; known here: "));
    let keys: BTreeSet<&str> = lists.flat_map(|list| list.split(", ")).collect();
    assert!(keys.len() > 40, "{keys:?}");
    let handbook = handbook();
    let missing: Vec<&str> =
        keys.into_iter().filter(|key| !handbook.contains(&format!("`{key}`"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_word_of_the_language_is_in_the_handbook() {
    let handbook = handbook();
    let words = [
        Network::WORDS.map(|(word, _)| word).to_vec(),
        Persistence::WORDS.map(|(word, _)| word).to_vec(),
        Priority::WORDS.map(|(word, _)| word).to_vec(),
        Protocol::WORDS.map(|(word, _)| word).to_vec(),
        MediaType::WORDS.map(|(word, _)| word).to_vec(),
        ClipboardAction::WORDS.map(|(word, _)| word).to_vec(),
        UsbAction::WORDS.map(|(word, _)| word).to_vec(),
        UsbClass::WORDS.map(|(word, _)| word).to_vec(),
        Decision::WORDS.map(|(word, _)| word).to_vec(),
        BuiltIn::WORDS.map(|(word, _)| word).to_vec(),
    ];
    for word in words.concat() {
        assert!(handbook.contains(&format!("`{word}`")), "{word}");
    }
}
