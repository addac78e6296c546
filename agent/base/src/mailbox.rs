//! A mediator's thread, and what is left when it dies.
//!
//! ```text
//!  daemon: Mediator --commands--> Ends :thread
//!                   <-happenings--
//! ```
//! Neither waits for the other. A thread that dies, by a fault of ours that something from outside has found, takes with it what it
//! held: sockets, devices, texts. The daemon is woken, says so wherever it says things, and nothing crosses by that mediator any more.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use nix::sys::eventfd::{EfdFlags, EventFd};

/// The daemon's end.
pub struct Mediator<C, H> {
    name: &'static str,
    commands: mpsc::Sender<C>,
    wake: Arc<EventFd>,
    happenings: mpsc::Receiver<H>,
    life: Life,
    thread: Option<JoinHandle<()>>,
}

/// The thread's ends, which it keeps as long as it lives.
pub struct Ends<C, H> {
    inbox: mpsc::Receiver<C>,
    wake: Arc<EventFd>,
    outbox: mpsc::Sender<H>,
    life: Pulse,
}

impl<C: Send + 'static, H: Send + 'static> Mediator<C, H> {
    /// The two ends, before there is a thread.
    ///
    /// # Errors
    /// The process has no file descriptor left.
    pub fn new(name: &'static str) -> io::Result<(Self, Ends<C, H>)> {
        let (commands, inbox) = mpsc::channel();
        let (outbox, happenings) = mpsc::channel();
        let wake = Arc::new(EventFd::from_flags(FLAGS)?);
        let (life, pulse) = Life::new()?;
        let ends = Ends { inbox, wake: Arc::clone(&wake), outbox, life: pulse };
        Ok((Self { name, commands, wake, happenings, life, thread: None }, ends))
    }

    /// Starts the thread, which owns its [`Ends`].
    ///
    /// # Errors
    /// The process has no thread left.
    pub fn run(&mut self, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.thread = Some(std::thread::Builder::new().name(self.name.to_owned()).spawn(body)?);
        Ok(())
    }

    /// Tells it something. A thread that has died takes nothing any more.
    pub fn tell(&self, command: C) {
        let _ = self.commands.send(command);
        let _ = self.wake.write(1);
    }

    /// Becomes readable when something happened, its death included.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.life.fd()
    }

    /// What happened since the last call.
    pub fn happened(&self) -> Vec<H> {
        self.life.heard();
        self.happenings.try_iter().collect()
    }

    /// Whether the thread is no more.
    pub fn is_dead(&self) -> bool {
        self.life.is_over()
    }

    /// Waits for the end of a thread that was told to.
    pub fn join(&mut self) {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread `{}` had failed", self.name);
        }
    }
}

impl<C, H> Ends<C, H> {
    /// The next command.
    pub fn next(&self) -> Option<C> {
        self.inbox.try_recv().ok()
    }

    /// Becomes readable when there is a command, or somebody else has woken the thread.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Before the commands are taken.
    pub fn woken(&self) {
        let _ = self.wake.read();
    }

    /// Wakes this thread, from another.
    pub fn waker(&self) -> Arc<EventFd> {
        Arc::clone(&self.wake)
    }

    /// Tells the daemon something.
    pub fn tell(&self, happening: H) {
        // The receiver lives as long as the agent.
        let _ = self.outbox.send(happening);
        self.life.beat();
    }
}

const FLAGS: EfdFlags = EfdFlags::EFD_NONBLOCK.union(EfdFlags::EFD_CLOEXEC);

/// Whether a thread lives, as the daemon knows it.
pub struct Life {
    awake: Arc<EventFd>,
    over: Arc<AtomicBool>,
}

/// Held by the thread: the daemon learns of its end, however it comes.
pub struct Pulse {
    awake: Arc<EventFd>,
    over: Arc<AtomicBool>,
}

impl Life {
    /// For a thread that is about to start.
    ///
    /// # Errors
    /// The process has no file descriptor left.
    pub fn new() -> io::Result<(Self, Pulse)> {
        let (awake, over) =
            (Arc::new(EventFd::from_flags(FLAGS)?), Arc::new(AtomicBool::new(false)));
        Ok((Self { awake: Arc::clone(&awake), over: Arc::clone(&over) }, Pulse { awake, over }))
    }

    /// Readable when the thread has woken the daemon.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.awake.as_fd()
    }

    /// The daemon is awake.
    pub fn heard(&self) {
        let _ = self.awake.read();
    }

    /// Whether the thread has ended.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}

impl Pulse {
    /// Wakes the daemon.
    pub fn beat(&self) {
        // One that is full has woken it already.
        let _ = self.awake.write(1);
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        self.beat();
    }
}

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, poll};

    use super::*;

    #[test]
    fn a_mediator_that_dies_wakes_the_daemon_lets_go_of_what_it_held_and_takes_nothing_more() {
        let (mut mediator, ends) = Mediator::<&str, &str>::new("mediator").unwrap();
        let held = Arc::new(());
        let its = Arc::clone(&held);
        mediator
            .run(move || {
                let _its = its;
                ends.tell("lives");
                while ends.next().is_none() {
                    std::thread::yield_now();
                }
                panic!("a fault of ours");
            })
            .unwrap();
        let woken = |mediator: &Mediator<_, _>| {
            poll(&mut [PollFd::new(mediator.fd(), PollFlags::POLLIN)], 10_000u16).unwrap() == 1
        };
        assert!(woken(&mediator) && !mediator.is_dead());
        assert_eq!(mediator.happened(), ["lives"]);
        mediator.tell("anything");
        assert!(woken(&mediator), "its death wakes the daemon");
        mediator.join();
        assert!(mediator.is_dead() && mediator.happened().is_empty());
        assert_eq!(Arc::strong_count(&held), 1, "what it held is let go");
        mediator.tell("more");
    }
}
