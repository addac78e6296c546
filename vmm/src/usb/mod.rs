//! `--usb socket=PATH`: USB devices that somebody else has, one usbredir stream a socket, at the guest's xHCI.
//!
//! ```text
//!  vCPU, main loop: xhci::Controller --Backend--> BackendQueue --> queue, eventfd
//!                        ^                                      |
//!                        |              main loop: Sockets <----+
//!                        +-- complete, attach, detach --- Remote (pure) <-- usbredir::Session <--> socket
//! ```
//! | file | |
//! | --- | --- |
//! | [`remote`] | one device: transfers into packets and back; a state machine without I/O |
//! | [`backend_queue`] | the controller's calls to its devices, until the main loop carries them out |
//! | [`sockets`] | the sockets, in the main loop |
//!
//! A peer that breaks the protocol loses its connection; its device is unplugged, and the guest runs on. A socket takes one peer at
//! a time; the next waits until it is gone.
#![forbid(unsafe_code)]

mod backend_queue;
mod remote;
mod sockets;

pub(crate) use backend_queue::BackendQueue;
pub(crate) use sockets::Sockets;
