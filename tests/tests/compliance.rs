//! The compliance table cannot drift from the tests.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test says by panicking what it did not expect; serde_json values are indexed by key"
)]

use std::fs;

use tests::{Failure, compliance};

// So that the table has the names that their runner prints.
#[path = "ward_pc/suite.rs"]
mod suite;

#[test]
fn the_compliance_table_is_what_the_tests_say() {
    let table = compliance::table().map_err(|Failure(error)| error).expect("a table");
    if std::env::var_os("BULKHEAD_WRITE").is_some() {
        fs::write(compliance::file(), &table).expect("the table is written");
    }
    let written = fs::read_to_string(compliance::file()).unwrap_or_default();
    assert!(
        table == written,
        "run `BULKHEAD_WRITE=1 cargo test -p bulkhead-tests --test compliance`"
    );
}
