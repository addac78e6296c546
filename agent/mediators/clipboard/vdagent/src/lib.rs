//! The SPICE agent's protocol ("vdagent"), the end that is not in the guest. Without I/O.
//!
//! ```text
//!  guest's bytes --Reader--> Message             Outbox --chunks--> guest
//!    chunk  = port, size, part of a message         Message, or clipboard content, 2 KiB a chunk
//!    message = protocol, type, opaque, size, body
//! ```
//! | message | from the guest | to the guest |
//! | --- | --- | --- |
//! | announce capabilities | yes | yes, when asked and at the start |
//! | clipboard grab, release, request, content | yes | yes |
//! | monitors' configuration | | yes |
//! | anything else (file transfer, sound, mouse) | skipped, never kept | never |
//!
//! The reader is total: a stream that makes no sense ends with [`Malformed`], and whatever a header declares, no more than
//! [`spec::SMALL_MAX`] bytes are kept, or of clipboard content what [`Reader::expect`] allowed.
//!
//! What is written to a guest is made where permits are (`clipboard::vdagent::Outbox`), not here.
#![deny(clippy::print_stderr, clippy::print_stdout)]
#![forbid(unsafe_code)]

mod message;
mod reader;
pub mod spec;

pub use message::{Capabilities, Message};
pub use reader::{Malformed, Read, Reader};
