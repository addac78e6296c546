//! The separation policy: text in, decisions and explanations out.
#![forbid(unsafe_code)]

pub mod decide;
pub mod detect;
pub mod diagnostic;
pub mod document;
pub mod language;
mod lint;
pub mod officer;
mod policy;
pub mod request;

pub use policy::{FORMAT, Policy};
