//! The worker's end of the channel to its agent.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recv, recvmsg, send,
};
use usbexport::Authority;
use worker_link::FILES_MAX;
use worker_link::usb::{Command, Message, Start};

use super::super::{WorkerError, step};

/// Bytes of the longest message of the agent's, and more.
const COMMAND_MAX: usize = 64;

/// Receives the first message, and with it the device's node and the file that holds the job.
pub(super) fn receive_start(socket: &OwnedFd) -> Result<(Start, OwnedFd, OwnedFd), WorkerError> {
    let mut bytes = [0; COMMAND_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut place = [IoSliceMut::new(&mut bytes)];
    let received = loop {
        match recvmsg(socket, &mut place, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other.map_err(step("receive its job"))?,
        }
    };
    let files = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    let mut files = files.flatten();
    let start = Start::read(bytes.get(..received.bytes).unwrap_or_default())?;
    match (files.next(), files.next(), files.next()) {
        (Some(node), Some(job), None) => Ok((start, node, job)),
        _ => Err(WorkerError::NoFiles),
    }
}

/// The agent, as it is heard and told. It is never told more than fits, or waits until it listens.
pub(super) struct Channel {
    socket: OwnedFd,
    /// What it said while it was asked for something else.
    waiting: RefCell<VecDeque<Command>>,
}

impl Channel {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket, waiting: RefCell::default() }
    }

    /// Tells the agent something.
    ///
    /// # Errors
    /// It is gone.
    pub(super) fn tell(&self, message: &Message) -> Result<(), WorkerError> {
        loop {
            match send(&self.socket, &message.write(), SendFlags::NOSIGNAL) {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return Err(WorkerError::Orphan),
            }
        }
    }

    /// Returns what the agent said, if it said anything.
    ///
    /// # Errors
    /// It is gone, or says what no agent of this version does.
    pub(super) fn heard(&self) -> Result<Option<Command>, WorkerError> {
        match self.waiting.borrow_mut().pop_front() {
            None => self.receive(RecvFlags::DONTWAIT),
            waiting => Ok(waiting),
        }
    }

    /// Returns whether something was heard and not taken yet.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.borrow().is_empty()
    }

    fn receive(&self, flags: RecvFlags) -> Result<Option<Command>, WorkerError> {
        let mut bytes = [0; COMMAND_MAX];
        match recv(&self.socket, &mut bytes, flags) {
            Ok((_, 0)) => Err(WorkerError::Orphan),
            Ok((_, length)) => Ok(Some(Command::read(bytes.get(..length).unwrap_or_default())?)),
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => Ok(None),
            Err(error) => Err(WorkerError::Step("hear its agent", io::Error::from(error))),
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The agent, which authorises interfaces; if it is gone, nobody does.
pub(super) struct AgentsAuthority(pub(super) Rc<Channel>);

impl Authority for AgentsAuthority {
    fn authorise(&mut self) -> Option<u8> {
        let Self(agent) = self;
        agent.tell(&Message::Authorise).ok()?;
        loop {
            match agent.receive(RecvFlags::empty()).ok()? {
                Some(Command::Done(configuration)) => return Some(configuration),
                Some(other) => agent.waiting.borrow_mut().push_back(other),
                None => {}
            }
        }
    }
}
