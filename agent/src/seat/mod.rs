//! The seat: screen, keyboard and pointer, and which domain they belong to.
pub mod core;
