//! The mediator against guests that are played here, byte by byte.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::expect_used)]

mod decoding;
mod flows;
mod guests;
mod hostile;
mod monitored;
mod non_interference;
mod properties;
mod readers;
mod taken_back;
mod world;
