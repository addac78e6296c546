//! The thread of a mediator: its mailbox, whether it comes round, and its death.
//!
//! ```text
//!  spawn --> MediatorThread --commands, and last a Stop--> Ends :thread of the mediator
//!                |    ^--------------events---------------
//!                v
//!     Monitor::hear, Monitor::end: what it says, and no permit for one that is no more
//! ```
//! A mediator whose thread has died, by a fault of ours that something from outside has found, holds nothing any more: its sockets, devices and texts went
//! with it. [`Monitor::hear`] finds that out before it takes what the thread said last, so that none of that gets a permit which nobody is there to use;
//! what it wanted is refused as [`Denial::NotRunning`](crate::Denial::NotRunning), in words for the record. The daemon says it wherever it says things, and
//! the agent goes on.

use std::io;
use std::os::fd::BorrowedFd;

use base::mailbox::{self, ThreadHandle};

use crate::authorize::MediatorId;
use crate::monitor::Monitor;

/// What a mediator's thread does with what it has of the PC when it ends. What it has given to domains it takes back in both cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Stop {
    /// No guest runs any more: the host gets everything back.
    GiveBack,
    /// Guests run on, as far as anybody has said: the host gets nothing but what it needs itself, and the next agent takes over.
    #[default]
    KeepFromHost,
}

/// The ends of the mailbox that the thread of a mediator has.
pub type Ends<C, E> = mailbox::Ends<C, E, Stop>;
/// What sends commands to a mediator from any thread.
pub type Sender<C> = mailbox::Sender<C, Stop>;

/// A mediator that runs on a thread of its own, which takes commands `C` and says `E`. When it is dropped, the thread is stopped by the default
/// [`Stop`], and waited for.
pub struct MediatorThread<C, E> {
    id: MediatorId,
    pub(crate) handle: ThreadHandle<C, E, Stop>,
    /// Whether its death has been reported to the monitor.
    died: bool,
}

/// What a mediator's thread has said.
#[derive(Debug)]
pub struct ThreadEvents<E> {
    /// Its events since the last time, in order.
    pub events: Vec<E>,
    /// Whether it has died since the last time: these are its last events.
    pub died: bool,
}

/// Starts the thread of a mediator. `make` makes what the thread owns, with its ends of the mailbox; `run` is what the thread does, until it is stopped.
///
/// # Errors
/// It could not be made, or the process has no thread or file descriptor left.
pub fn spawn<C, E, T: Send + 'static>(
    id: MediatorId,
    make: impl FnOnce(Ends<C, E>) -> io::Result<T>,
    run: impl FnOnce(T) + Send + 'static,
) -> io::Result<MediatorThread<C, E>> {
    let (mut handle, ends) = ThreadHandle::new(id.name())?;
    let made = make(ends)?;
    handle.run(move || run(made))?;
    Ok(MediatorThread { id, handle, died: false })
}

impl<C, E> MediatorThread<C, E> {
    /// Sends a command. A thread that has ended takes nothing any more.
    pub fn send(&self, command: C) {
        self.handle.send(command);
    }

    /// Returns a sender of commands for other threads.
    #[must_use]
    pub fn sender(&self) -> Sender<C> {
        self.handle.sender()
    }

    /// Asks the thread whether it still comes round.
    pub fn probe(&self) {
        self.handle.probe();
    }

    /// Returns whether the thread has come round since it was last asked, or is no more.
    #[must_use]
    pub fn is_responsive(&self) -> bool {
        self.handle.is_responsive()
    }

    /// Becomes readable when there is an event, or when the thread has ended.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.handle.fd()
    }

    /// Returns whether [`Monitor::hear`] has heard of its death.
    #[must_use]
    pub const fn has_died(&self) -> bool {
        self.died
    }
}

impl Monitor {
    /// Takes what a mediator's thread has said. One that has died gets no permit from here on.
    pub fn hear<C, E>(&mut self, thread: &mut MediatorThread<C, E>) -> ThreadEvents<E> {
        // Asked first: what it said last has come by then.
        let died = thread.handle.is_dead() && !thread.died;
        if died {
            thread.died = true;
            // Before that is heard: nobody is there to use a permit.
            self.died(thread.id);
        }
        ThreadEvents { events: thread.handle.events(), died }
    }

    /// Ends a mediator's thread, and returns what it said last, for none of which there is a permit.
    pub fn end<C, E>(&mut self, thread: &mut MediatorThread<C, E>, stop: Stop) -> Vec<E> {
        thread.handle.stop(stop);
        self.died(thread.id);
        thread.handle.events()
    }
}
