//! The seat: screen, keyboard and pointer, and which domain they belong to.
pub mod compose;
pub mod core;
pub mod devices;
pub mod display;
pub mod domain;
pub mod frame;
pub mod kms;
pub mod picture;
pub mod uevent;
