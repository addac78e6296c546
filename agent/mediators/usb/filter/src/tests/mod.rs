#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::cast_possible_truncation
)]

mod budget;
mod control;
mod descriptors;
mod hostile;
mod non_interference;
mod parts;
mod quirks;
mod storage;
mod vendor;
