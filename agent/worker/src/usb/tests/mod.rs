//! The worker between a guest's end and a device of tests', and its filter.

mod filter;
mod serving;

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::eventfd::EventFd;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Uid, geteuid, setresuid};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};
use usbexport::ExportEvent;
use usbfilter::stick::{Stick, pinned};
use usbredir::{Body, Packet, Role, Session};
use worker_link::MESSAGE_MAX;
use worker_link::usb::Command;

use super::pump::{DeviceEnd, End, Pump};
use super::*;

/// The user that owns nothing.
const NOBODY: Uid = Uid::from_raw(65_534);

/// The agent's end of the channel.
struct Agent(OwnedFd);

impl Agent {
    /// Makes a channel: its end, and the worker's.
    fn pair() -> (Self, OwnedFd) {
        let (ours, workers) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap();
        (Self(ours), workers)
    }

    fn tell(&self, command: Command) {
        // A worker that has ended needs none.
        let _ = send(&self.0, &command.write(), SendFlags::NOSIGNAL);
    }

    /// Waits for the worker's next message; nothing if it has ended.
    fn hears(&self) -> Option<Message> {
        let mut bytes = vec![0; MESSAGE_MAX];
        loop {
            match recv(&self.0, &mut bytes[..], RecvFlags::empty()) {
                Ok((_, 0)) => return None,
                Ok((_, length)) => return Some(Message::read(&bytes[..length]).unwrap()),
                // It did not read everything.
                Err(rustix::io::Errno::CONNRESET) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// A stick that is there at once, as [`Export`] has one.
struct StickEnd {
    stick: Stick,
    answers: Vec<Packet>,
}

impl StickEnd {
    fn new() -> Self {
        Self { stick: Stick::new(64), answers: Stick::hello() }
    }
}

impl DeviceEnd for StickEnd {
    fn submit(&mut self, packet: Packet) {
        self.stick.take(packet, &mut self.answers);
    }

    fn events(&mut self) -> Vec<ExportEvent> {
        self.answers.drain(..).map(ExportEvent::Packet).collect()
    }

    fn close(self) {}
}

/// The guest's end of the stream.
struct Guest {
    stream: UnixStream,
    session: Session,
}

impl Guest {
    fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Self { stream, session: Session::new(Role::Guest, "test") }
    }

    fn flush(&mut self) {
        let count = self.session.output().len();
        self.stream.write_all(self.session.output()).unwrap();
        self.session.sent(count);
    }

    fn says(&mut self, id: u64, body: Body) {
        self.session.send(&Packet { id, body }).unwrap();
        self.flush();
    }

    /// Waits for a packet; nothing if the stream has ended.
    fn hears(&mut self) -> Option<Packet> {
        self.flush();
        loop {
            if let Some(packet) = self.session.next().unwrap() {
                return Some(packet);
            }
            let mut buffer = vec![0; self.session.room().min(4096)];
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => self.session.feed(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                // It did not read everything.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            };
        }
    }

    /// Waits for a packet like this, and passes over others.
    fn hears_of(&mut self, like: impl Fn(&Body) -> bool) {
        while !like(&self.hears().expect("the stream goes on").body) {}
    }
}

/// A stick that is served to a guest, without writing, on a thread of its own.
fn served() -> (Guest, Agent, JoinHandle<Result<(), WorkerError>>) {
    let (stream, guests) = UnixStream::pair().unwrap();
    stream.set_nonblocking(true).unwrap();
    let (agent, workers) = Agent::pair();
    let thread = std::thread::spawn(move || serve_stick(stream, workers, waker()));
    (Guest::new(guests), agent, thread)
}

/// Does what [`serve`] does, with a stick.
fn serve_stick(stream: UnixStream, channel: OwnedFd, waker: EventFd) -> Result<(), WorkerError> {
    let agent = Rc::new(Channel::new(channel));
    let filter = Filter::new(Rules::ReadOnly, pinned(true)).unwrap();
    let waker = Arc::new(TransferWaker(waker));
    let mut pump = Pump::new(stream, filter, StickEnd::new(), Rc::clone(&agent), waker);
    let end: End = pump.run()?;
    let counts = pump.disconnect();
    agent.tell(&end.detached(counts))?;
    pump.close();
    Ok(())
}

fn waker() -> EventFd {
    EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC).unwrap()
}

#[test]
fn a_worker_that_can_start_no_thread_says_so_and_ends_by_itself() {
    const NAME: &str = "usb::tests::a_worker_that_can_start_no_thread_says_so_and_ends_by_itself";
    const CHILD: &str = "BULKHEAD_TEST_THREADLESS_WORKER";
    if std::env::var_os(CHILD).is_none() {
        let status = crate::filter_tests::child(NAME, CHILD, "1").status().unwrap();
        assert!(status.success(), "{status}");
        return;
    }
    let pinned = pinned(false);
    let descriptors = [&pinned.device[..], &pinned.configurations[0]].concat();
    let mut node = tempfile::tempfile().unwrap();
    node.write_all(&descriptors).unwrap();
    setrlimit(Resource::RLIMIT_NPROC, 0, 0).unwrap();
    if geteuid().is_root() {
        // Whom the limit does not hold.
        setresuid(NOBODY, NOBODY, NOBODY).unwrap();
    }
    let (agent, channel) = Agent::pair();
    let job = Job {
        read_only: false,
        speed: worker_link::usb::Speed::High,
        share: usbdescriptors::Share::Whole,
        budget: 1 << 20,
        descriptors,
        others: Vec::new(),
    };
    let opened = open(node.into(), job, &Rc::new(Channel::new(channel)), Waker::noop().clone());
    let why = opened.map(drop).unwrap_err();
    let says = ["its worker cannot begin: ", "Resource temporarily unavailable"];
    assert!(says.iter().all(|text| why.contains(text)), "{why}");
    drop(agent);
    std::process::exit(0);
}
