//! Guest images: the bundles in which they come to a PC, and the store in which it keeps them.
//!
//! ```text
//!  kernel, initrd, disks --pack--> bundle <--sign-- officers, whom the trust store allows to sign for `image`
//!                                    |
//!                                    '--approve--> ApprovedBundle --install--> store --activate, a domain's start--> in force
//! ```
//!
//! | module | |
//! | --- | --- |
//! | [`container`] | the file, whatever it brings: its head, its signatures, its members |
//! | [`bundle`] | the file with an image in it |
//! | [`manifest`] | what is signed: name, serial, floor, command line, sizes and digests |
//! | [`preamble`] | what every manifest begins with |
//! | [`pack`] | making one |
//! | [`writing`] | writing and signing a file of that kind, whatever it brings |
//! | `kernel` | whether a file is a kernel that `bulkhead-vmm` starts |
//! | [`digest`] | SHA-256 |
//! | [`record`] | which image is in force, to come, or before; pure |
//! | [`store`] | the folder of what is installed |
//! | [`notes`] | what was done by command, until it is in the audit log |
//! | [`recording`] | how it gets there |
//! | [`outboxes`] | what happened at starts of domains, and how it gets there |
//!
//! What a file says is hostile until officers have signed for it, and its members until they were hashed.
#![deny(clippy::print_stderr, clippy::print_stdout)]
#![warn(missing_docs)]
#![forbid(unsafe_code)]

pub mod bundle;
pub mod container;
pub mod digest;
#[doc(hidden)]
pub mod fuzz;
mod kernel;
mod lock;
pub mod manifest;
pub mod notes;
pub mod outboxes;
pub mod pack;
pub mod preamble;
pub mod record;
pub mod recording;
pub mod store;
#[cfg(test)]
mod tests;
pub mod writing;

#[cfg(any(test, feature = "testing"))]
pub use kernel::{bzimage_for_tests, check_kernel_for_tests};
