//! The mediator against guests that are played here, byte by byte.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::expect_used)]

mod flows;
mod hostile;
mod properties;
mod world;
