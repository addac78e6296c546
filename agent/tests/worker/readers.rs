//! The worker that reads a guest's stream, in its sandbox.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use clipboard::service::reader::ReaderProcess;
use clipboard::vdagent::spec::{capability, content, kind};
use worker_link::clipboard::{Command as Told, Event, MEMORY_MAX, Nonsense};
use worker_link::{CONTENT_MAX, user_of_domain};

use super::*;

const CAPABLE: u32 = 1 << capability::CLIPBOARD_BY_DEMAND | 1 << capability::CLIPBOARD_SELECTION;

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn message(kind: u32, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(body.len()).unwrap();
    [words(&[1, size + 20, 1, kind, 0, 0, size]), body.to_vec()].concat()
}

/// What a guest hands over.
pub(super) fn answer(bytes: &[u8]) -> Vec<u8> {
    message(kind::CLIPBOARD, &[&words(&[0, content::UTF8_TEXT]), bytes].concat())
}

/// A reader, and its guest.
pub(super) struct Pair {
    pub(super) reader: ReaderProcess,
    pub(super) guest: UnixStream,
    /// What the agent writes to.
    pub(super) stream: UnixStream,
}

impl Pair {
    fn start(program: &Program) -> Self {
        let (guest, stream) = UnixStream::pair().unwrap();
        // As the agent has it, with which the worker shares it.
        stream.set_nonblocking(true).unwrap();
        let user = user_of_domain(1).unwrap();
        let reader =
            ReaderProcess::start(program, user, stream.try_clone().unwrap().into()).unwrap();
        Self { reader, guest, stream }
    }

    /// Whose guest's agent was heard, so that its sandbox is closed.
    fn at_work() -> Self {
        Self::at_work_of(&Program::read(&program()).unwrap())
    }

    pub(super) fn at_work_of(program: &Program) -> Self {
        let mut pair = Self::start(program);
        pair.says(&message(kind::ANNOUNCE_CAPABILITIES, &words(&[0, CAPABLE])));
        let announced = Event::Announce { request: false, capabilities: CAPABLE };
        assert_eq!(pair.hears().unwrap(), announced);
        pair
    }

    pub(super) fn says(&mut self, bytes: &[u8]) {
        self.guest.write_all(bytes).unwrap();
    }

    /// The next event; an error at the reader's end.
    pub(super) fn hears(&self) -> std::io::Result<Event> {
        loop {
            if let Some(event) = self.reader.next()? {
                return Ok(event);
            }
            let mut said = [PollFd::new(self.reader.fd(), PollFlags::POLLIN)];
            assert_eq!(
                poll(&mut said, PollTimeout::from(30_000u16)).unwrap(),
                1,
                "it says nothing"
            );
        }
    }

    pub(super) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.reader.id()).unwrap())
    }
}

#[test]
fn a_reader_tells_what_its_guest_says_and_writes_down_what_it_was_asked_for() {
    let mut pair = Pair::at_work();
    pair.says(&answer(b"unasked"));
    let large = b"0123456789abcdef".repeat(CONTENT_MAX as usize / 16);
    for (number, text) in [(1, &b"a text"[..]), (2, &large), (3, b"another")] {
        pair.says(&message(kind::CLIPBOARD_GRAB, &words(&[0, content::UTF8_TEXT])));
        assert_eq!(pair.hears().unwrap(), Event::Grab(vec![content::UTF8_TEXT]));
        pair.reader.tell(Told::Expect { number, most: CONTENT_MAX }).unwrap();
        assert_eq!(pair.hears().unwrap(), Event::Ready { number });
        let length = u32::try_from(text.len()).unwrap();
        std::thread::scope(|scope| {
            let mut guest = pair.guest.try_clone().unwrap();
            scope.spawn(move || guest.write_all(&answer(text)).unwrap());
            let came = loop {
                match pair.hears().unwrap() {
                    Event::Progress { number: of } => assert_eq!(of, number),
                    event => break event,
                }
            };
            assert_eq!(came, Event::Content { number, kind: content::UTF8_TEXT, length });
        });
        assert!(*pair.reader.content(length).unwrap() == text, "{} bytes", text.len());
        pair.reader.tell(Told::Forget { number }).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while pair.reader.content(length).unwrap().iter().any(|byte| *byte != 0) {
            assert!(Instant::now() < deadline, "something of it is left");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn a_reader_says_how_its_guests_stream_ended_and_is_gone() {
    let pair = Pair::at_work();
    drop(pair.guest);
    let pair = Pair { guest: UnixStream::pair().unwrap().0, ..pair };
    assert_eq!(pair.hears().unwrap(), Event::Ended);
    assert!(pair.hears().is_err());
    let mut pair = Pair::at_work();
    pair.says(&words(&[7, 7]));
    assert_eq!(pair.hears().unwrap(), Event::Nonsense(Nonsense::Port(7)));
    assert!(pair.hears().is_err());
}

#[test]
fn a_reader_at_work_is_nobody_nowhere_and_sees_one_guest() {
    // What somebody forgot to close in the agent.
    let leaked = fs::File::open("/etc/hostname").unwrap();
    fcntl(&leaked, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let pair = Pair::at_work();
    drop(leaked);
    let pid = pair.pid();
    let limits = [
        ("Max open files", 10),
        ("Max address space", MEMORY_MAX),
        ("Max file size", u64::from(CONTENT_MAX)),
    ];
    if !is_nobody_nowhere(pid, user_of_domain(1).unwrap(), &limits) {
        return;
    }
    steps_back(pid);
    let held = held(pid);
    // The content, standard error, the channel and the guest's stream.
    assert_eq!(held.len(), 4, "{held:?}");
    assert!(held[0].starts_with("/dev/null") && held[1].starts_with("/memfd:bulkhead-content"));
    assert!(held[2].starts_with("socket:") && held[3].starts_with("socket:"), "{held:?}");
    let guest = fs::read_link(format!("/proc/self/fd/{}", {
        use std::os::fd::AsRawFd as _;
        pair.stream.as_raw_fd()
    }));
    assert!(held.contains(&guest.unwrap().display().to_string()));
}

#[test]
fn a_reader_that_is_killed_is_an_end_to_the_agent_and_to_its_guest_when_the_agent_says_so() {
    let mut pair = Pair::at_work();
    pair.reader.tell(Told::Expect { number: 1, most: CONTENT_MAX }).unwrap();
    assert_eq!(pair.hears().unwrap(), Event::Ready { number: 1 });
    // In the middle of an answer, of which it has told.
    pair.says(&answer(&vec![b'x'; CONTENT_MAX as usize])[..100_000]);
    assert_eq!(pair.hears().unwrap(), Event::Progress { number: 1 });
    kill(pair.pid(), Signal::SIGKILL).unwrap();
    // What it had said before that may be on its way.
    assert!((0..10).any(|_| pair.hears().is_err()));
    // Its stream is the agent's, which ends it.
    pair.guest.set_nonblocking(true).unwrap();
    let waits = pair.guest.read(&mut [0; 8]).unwrap_err();
    assert_eq!(waits.kind(), std::io::ErrorKind::WouldBlock, "its guest was told something");
    pair.stream.shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(pair.guest.read(&mut [0; 8]).unwrap(), 0);
}

#[test]
fn a_reader_goes_on_after_it_was_stopped() {
    let pair = Pair::at_work();
    let message = message(kind::CLIPBOARD_RELEASE, &[0; 4]);
    // So many that it waits for the agent, and then for a time.
    let count = 300_000 / message.len();
    std::thread::scope(|scope| {
        let mut guest = pair.guest.try_clone().unwrap();
        scope.spawn(move || guest.write_all(&message.repeat(count)).unwrap());
        let mut heard = 0;
        let mut hears = |more: usize| {
            for _ in 0..more.min(count - heard) {
                assert_eq!(pair.hears().unwrap(), Event::Release);
                heard += 1;
            }
        };
        for more in [0, 1000, 7500, 1000] {
            hears(more);
            std::thread::sleep(Duration::from_millis(20));
            kill(pair.pid(), Signal::SIGSTOP).unwrap();
            std::thread::sleep(Duration::from_millis(50));
            kill(pair.pid(), Signal::SIGCONT).unwrap();
        }
        hears(count);
    });
}
