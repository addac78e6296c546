//! What is written to guests, in the SPICE agent's protocol. Without I/O.
//!
//! The protocol's messages and numbers, and what reads them, are the crate [`vdagent`]'s.

mod media_types;
mod outbox;

pub use ::vdagent::{Capabilities, Message, spec};
pub use media_types::{media_type, number};
pub use outbox::Outbox;
