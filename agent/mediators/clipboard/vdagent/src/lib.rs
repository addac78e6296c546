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
//! The reader is total: a stream that makes no sense ends with [`Nonsense`](worker_link::clipboard::Nonsense), and whatever a header declares, no more than
//! [`spec::SMALL_MAX`] bytes are kept; clipboard content is passed on as it comes, if it was asked for and is no larger than was allowed.
//!
//! [`GuestReader`] is all that the worker of one guest does, but for its system calls. What is written to a guest is made where permits are
//! (`clipboard::vdagent::Outbox`), not here.
#![deny(clippy::print_stderr, clippy::print_stdout)]
#![forbid(unsafe_code)]

mod guest_reader;
mod message;
mod reader;
pub mod spec;

pub use guest_reader::{GuestReader, Sink, UNANNOUNCED_EVERY, UNASKED};
pub use message::{Capabilities, Message};
pub use reader::{Read, Reader};

/// Time since a moment of the caller's choice.
pub type Time = std::time::Duration;
