//! The officer's tools on the command line: what they print, write, and end with.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    reason = "a test says by panicking what it did not expect"
)]

#[path = "../artefacts/mod.rs"]
mod artefacts;
mod drafts;
mod explain;
mod files;
mod images;
mod instead_of_files;
mod keys;
mod passphrases;
mod program;
mod replay;
mod signatures;
mod trust;

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn bulkhead(arguments: &[&str]) -> Output {
    Command::new(artefacts::program("bulkhead")).arg("policy").args(arguments).output().unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

fn path(dir: &Path, name: &str) -> String {
    dir.join(name).display().to_string()
}
