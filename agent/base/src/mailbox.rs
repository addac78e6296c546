//! A thread that the daemon gives commands to, and what is left when it dies.
//!
//! ```text
//!  daemon: ThreadHandle --commands, and last how to stop--> Ends :thread
//!                       <--events--------------------------
//! ```
//! Neither waits for the other. A thread that dies, by a fault of ours that something from outside has found, takes with it what it
//! held: sockets, devices, texts. The daemon is woken, and says so wherever it says things.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use nix::sys::eventfd::{EfdFlags, EventFd};

/// A message in a thread's mailbox.
enum Message<C, S> {
    Command(C),
    Stop(S),
}

/// The end of a mailbox by which any thread sends commands to the one that has it.
pub struct Sender<C, S = ()> {
    commands: mpsc::Sender<Message<C, S>>,
    to_worker: Arc<EventFd>,
}

impl<C, S> Clone for Sender<C, S> {
    fn clone(&self) -> Self {
        Self { commands: self.commands.clone(), to_worker: Arc::clone(&self.to_worker) }
    }
}

impl<C, S> Sender<C, S> {
    /// Sends a command. A thread that has ended takes nothing any more.
    pub fn send(&self, command: C) {
        self.put(Message::Command(command));
    }

    fn put(&self, message: Message<C, S>) {
        let _ = self.commands.send(message);
        let _ = self.to_worker.write(1);
    }
}

/// The daemon's end of a thread: commands go to it, events come back, and `S` says how it is to stop. When it is dropped, the thread is stopped in
/// the default way, and waited for.
pub struct ThreadHandle<C, E, S: Copy + Default = ()> {
    name: &'static str,
    sender: Sender<C, S>,
    events: mpsc::Receiver<E>,
    liveness: Liveness,
    thread: Option<JoinHandle<()>>,
}

/// The thread's ends, which it keeps as long as it lives.
pub struct Ends<C, E, S = ()> {
    inbox: mpsc::Receiver<Message<C, S>>,
    to_worker: Arc<EventFd>,
    outbox: mpsc::Sender<E>,
    stopped: Cell<Option<S>>,
    heartbeat: Heartbeat,
}

impl<C, E, S: Copy + Default> ThreadHandle<C, E, S> {
    /// Makes the two ends, before there is a thread.
    ///
    /// # Errors
    /// The process has no file descriptor left.
    pub fn new(name: &'static str) -> io::Result<(Self, Ends<C, E, S>)> {
        let (commands, inbox) = mpsc::channel();
        let (outbox, events) = mpsc::channel();
        let to_worker = Arc::new(EventFd::from_flags(FLAGS)?);
        let (liveness, heartbeat) = Liveness::new()?;
        let stopped = Cell::new(None);
        let ends = Ends { inbox, to_worker: Arc::clone(&to_worker), outbox, stopped, heartbeat };
        let sender = Sender { commands, to_worker };
        Ok((Self { name, sender, events, liveness, thread: None }, ends))
    }

    /// Starts the thread, which owns its [`Ends`].
    ///
    /// # Errors
    /// The process has no thread left.
    pub fn run(&mut self, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let thread = std::thread::Builder::new().name(self.name.to_owned()).stack_size(STACK);
        self.thread = Some(thread.spawn(body)?);
        Ok(())
    }

    /// Sends a command. A thread that has died takes nothing any more.
    pub fn send(&self, command: C) {
        self.sender.send(command);
    }

    /// Returns a sender of commands for other threads.
    #[must_use]
    pub fn sender(&self) -> Sender<C, S> {
        self.sender.clone()
    }

    /// Stops the thread in this way when it has taken every command sent before, and waits for that. Its last events can be had afterwards.
    pub fn stop(&mut self, how: S) {
        self.sender.put(Message::Stop(how));
        self.join();
    }

    /// Asks the thread whether it still comes round; see [`Self::is_responsive`].
    pub fn probe(&self) {
        self.liveness.probe();
        let _ = self.sender.to_worker.write(1);
    }

    /// Returns whether the thread has come round since it was last asked, or is no more, which is said elsewhere.
    pub fn is_responsive(&self) -> bool {
        self.liveness.is_responsive()
    }

    /// Becomes readable when there is an event, or when the thread has ended.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.liveness.fd()
    }

    /// Returns the events since the last call.
    pub fn events(&self) -> Vec<E> {
        self.liveness.take_wakeup();
        self.events.try_iter().collect()
    }

    /// Returns whether the thread is no more.
    pub fn is_dead(&self) -> bool {
        self.liveness.has_ended()
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

impl<C, E, S: Copy + Default> Drop for ThreadHandle<C, E, S> {
    fn drop(&mut self) {
        self.stop(S::default());
    }
}

impl<C, E, S: Copy> Ends<C, E, S> {
    /// Returns the next command.
    pub fn next(&self) -> Option<C> {
        match self.inbox.try_recv().ok()? {
            Message::Command(command) => Some(command),
            Message::Stop(how) => {
                self.stopped.set(Some(how));
                None
            }
        }
    }

    /// Returns whether the thread is to end: what [`Self::next`] gave was the last.
    pub fn is_stopped(&self) -> bool {
        self.stopped().is_some()
    }

    /// Returns how the thread is to end, once it is to.
    pub fn stopped(&self) -> Option<S> {
        self.stopped.get()
    }

    /// Becomes readable when there is a command, or somebody else has woken the thread.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.to_worker.as_fd()
    }

    /// Takes the wake-up: called before the commands are taken.
    pub fn take_wakeup(&self) {
        let _ = self.to_worker.read();
        self.heartbeat.answer();
    }

    /// Wakes this thread, from another.
    pub fn waker(&self) -> Arc<EventFd> {
        Arc::clone(&self.to_worker)
    }

    /// Sends the daemon an event.
    pub fn send(&self, event: E) {
        // The receiver lives as long as the agent.
        let _ = self.outbox.send(event);
        self.heartbeat.wake_daemon();
    }
}

/// Bytes of the stack of a thread that lives as long as the agent: what Rust gives each, less so much that no huge page fits into it, of which the kernel would
/// keep all 2 MiB for the few pages that are used (`Documentation/admin-guide/mm/transhuge.rst`).
pub const STACK: usize = (2 << 20) - (64 << 10);

const FLAGS: EfdFlags = EfdFlags::EFD_NONBLOCK.union(EfdFlags::EFD_CLOEXEC);

/// The daemon's view of a thread: whether it runs, and still comes round.
pub struct Liveness {
    to_daemon: Arc<EventFd>,
    ended: Arc<AtomicBool>,
    answers: Arc<Answers>,
}

/// The thread's side of its [`Liveness`]: dropped at its end, however that comes, of which the daemon is woken.
pub struct Heartbeat {
    to_daemon: Arc<EventFd>,
    ended: Arc<AtomicBool>,
    answers: Arc<Answers>,
}

/// How often the thread was asked whether it still comes round, and the last time that it answered. A thread that lives and hangs is
/// told from one that has nothing to do by this alone.
#[derive(Default)]
struct Answers {
    asked: AtomicU64,
    answered: AtomicU64,
}

impl Liveness {
    /// Makes both sides for a thread that is about to start.
    ///
    /// # Errors
    /// The process has no file descriptor left.
    pub fn new() -> io::Result<(Self, Heartbeat)> {
        let (to_daemon, ended) =
            (Arc::new(EventFd::from_flags(FLAGS)?), Arc::new(AtomicBool::new(false)));
        let answers = Arc::new(Answers::default());
        let liveness = Self {
            to_daemon: Arc::clone(&to_daemon),
            ended: Arc::clone(&ended),
            answers: Arc::clone(&answers),
        };
        Ok((liveness, Heartbeat { to_daemon, ended, answers }))
    }

    /// Asks the thread whether it still comes round. Whoever asks also wakes it.
    pub fn probe(&self) {
        self.answers.asked.fetch_add(1, Ordering::AcqRel);
    }

    /// Returns whether the thread has come round since it was last asked, or is no more.
    pub fn is_responsive(&self) -> bool {
        let asked = self.answers.asked.load(Ordering::Acquire);
        self.has_ended() || self.answers.answered.load(Ordering::Acquire) == asked
    }

    /// Becomes readable when the thread has woken the daemon.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.to_daemon.as_fd()
    }

    /// Takes the wake-up: called before the events are taken.
    pub fn take_wakeup(&self) {
        let _ = self.to_daemon.read();
    }

    /// Returns whether the thread has ended.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

impl Heartbeat {
    /// Answers that the thread has come round, if it was asked.
    pub fn answer(&self) {
        let asked = self.answers.asked.load(Ordering::Acquire);
        if self.answers.answered.swap(asked, Ordering::AcqRel) != asked {
            self.wake_daemon();
        }
    }

    /// Wakes the daemon's event loop, which then takes what this thread has sent.
    pub fn wake_daemon(&self) {
        // One that is full has woken it already.
        let _ = self.to_daemon.write(1);
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        self.wake_daemon();
    }
}

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, poll};

    use super::*;

    #[test]
    fn a_thread_that_dies_wakes_the_daemon_lets_go_of_what_it_held_and_takes_nothing_more() {
        let (mut thread, ends) = ThreadHandle::<&str, &str>::new("thread").unwrap();
        let held = Arc::new(());
        let its = Arc::clone(&held);
        thread
            .run(move || {
                let _its = its;
                ends.send("lives");
                while ends.next().is_none() {
                    std::thread::yield_now();
                }
                panic!("a fault of ours");
            })
            .unwrap();
        let woken = |thread: &ThreadHandle<_, _>| {
            poll(&mut [PollFd::new(thread.fd(), PollFlags::POLLIN)], 10_000u16).unwrap() == 1
        };
        assert!(woken(&thread) && !thread.is_dead());
        assert_eq!(thread.events(), ["lives"]);
        thread.send("anything");
        assert!(woken(&thread), "its death wakes the daemon");
        thread.join();
        assert!(thread.is_dead() && thread.events().is_empty());
        assert_eq!(Arc::strong_count(&held), 1, "what it held is let go");
        thread.send("more");
    }

    #[test]
    fn a_thread_takes_what_it_was_told_whoever_told_it_and_ends_with_its_handle() {
        let (mut thread, ends) = ThreadHandle::<u8, u8, u8>::new("thread").unwrap();
        let sender = thread.sender();
        thread
            .run(move || {
                while !ends.is_stopped() {
                    while let Some(command) = ends.next() {
                        ends.send(command);
                    }
                    std::thread::yield_now();
                }
                ends.send(ends.stopped().unwrap());
            })
            .unwrap();
        thread.send(1);
        std::thread::spawn(move || sender.send(2)).join().unwrap();
        thread.stop(9);
        assert!(thread.is_dead());
        assert_eq!(thread.events(), [1, 2, 9], "all that came before the end, and how to end");
        thread.send(3);
        assert!(thread.events().is_empty());
    }

    #[test]
    fn a_thread_that_hangs_is_told_from_one_that_has_nothing_to_do() {
        let (mut thread, ends) = ThreadHandle::<(), ()>::new("thread").unwrap();
        let (go_on, stuck) = mpsc::channel::<()>();
        thread
            .run(move || {
                while ends.next().is_none() {
                    poll(&mut [PollFd::new(ends.fd(), PollFlags::POLLIN)], 10_000u16).unwrap();
                    ends.take_wakeup();
                }
                // A fault of ours: it does not come round any more.
                let _ = stuck.recv();
                ends.take_wakeup();
            })
            .unwrap();
        let woken = |thread: &ThreadHandle<_, _>, time: u16| {
            poll(&mut [PollFd::new(thread.fd(), PollFlags::POLLIN)], time).unwrap() == 1
        };
        assert!(thread.is_responsive(), "nobody asked");
        thread.probe();
        assert!(woken(&thread, 10_000), "its answer wakes the daemon");
        assert!(thread.is_responsive());
        thread.events();
        thread.send(());
        assert!(!woken(&thread, 100), "what is no answer wakes nobody");
        thread.probe();
        assert!(!woken(&thread, 200) && !thread.is_responsive(), "it hangs");
        go_on.send(()).unwrap();
        thread.join();
        assert!(thread.is_responsive(), "it is no more, which `is_dead` says");
    }
}
