//! The compliance table cannot drift from the tests.
#![allow(clippy::expect_used, reason = "a test says by panicking what it did not expect")]

use tests::{Failure, compliance};

#[test]
fn the_compliance_table_is_what_the_tests_say() {
    let table = compliance::table().map_err(|Failure(error)| error).expect("a table");
    let written = std::fs::read_to_string(compliance::file()).unwrap_or_default();
    assert!(table == written, "run `cargo run -p tests --bin compliance`");
}
