#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::expect_used, clippy::panic)]

mod control;
mod descriptors;
mod hostile;
mod storage;
