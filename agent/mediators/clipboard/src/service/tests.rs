//! The clipboard's thread with guests on real sockets.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::mediator::Hotkey;
use crate::vdagent::spec::{capability, content, kind};
use policy::Policy;
use sendqueue::SendQueue;

use super::{Clipboard, ClipboardEvent, Command, Program, SocketEndpoint};

const POLICY: &str = include_str!("../../../../../policy/tests/fixtures/two-domains.toml");

pub(super) const PICTURES: &str = r##"
[[clipboard]]
id = "in"
from = "internet"
to = "clinical"
types = ["text/plain", "image/png"]
action = "allow"
"##;

const RULE: &str = r##"
[[clipboard]]
id = "in"
from = "internet"
to = "clinical"
types = ["text/plain"]
action = "allow"
"##;

fn policy(rules: &str) -> Arc<Policy> {
    Arc::new(Policy::parse("test", &format!("{POLICY}{rules}")).unwrap())
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn message(kind: u32, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(body.len()).unwrap();
    [words(&[1, size + 20, 1, kind, 0, 0, size]), body.to_vec()].concat()
}

/// A guest's agent that has said what it can do.
fn guest(socket: &Path) -> UnixStream {
    let mut guest = UnixStream::connect(socket).unwrap();
    guest.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let able = 1 << capability::CLIPBOARD_BY_DEMAND | 1 << capability::CLIPBOARD_SELECTION;
    guest.write_all(&message(kind::ANNOUNCE_CAPABILITIES, &words(&[0, able]))).unwrap();
    guest
}

/// Reads messages up to the first of this kind, whose body it is.
pub(super) fn until(guest: &mut UnixStream, wanted: u32) -> Vec<u8> {
    let mut stream = Vec::new();
    loop {
        let mut header = [0; 8];
        guest.read_exact(&mut header).unwrap();
        let mut chunk = vec![0; u32::from_le_bytes(header[4..].try_into().unwrap()) as usize];
        guest.read_exact(&mut chunk).unwrap();
        stream.extend(chunk);
        while let Some((head, rest)) = stream.split_at_checked(20) {
            let size = u32::from_le_bytes(head[16..].try_into().unwrap()) as usize;
            let kind = u32::from_le_bytes(head[4..8].try_into().unwrap());
            let Some((body, _)) = rest.split_at_checked(size) else { break };
            if kind == wanted {
                return body.to_vec();
            }
            stream.drain(..20 + size);
        }
    }
}

pub(super) struct Ward {
    pub(super) clipboard: Clipboard,
    pub(super) clinical: UnixStream,
    internet: UnixStream,
    _dir: tempfile::TempDir,
}

impl Ward {
    fn open() -> Self {
        Self::with(RULE, None)
    }

    pub(super) fn with(rules: &str, worker: Option<Program>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let sockets = ["clinical", "internet"].map(|name| dir.path().join(name));
        let domains = ["clinical", "internet"].into_iter().zip(&sockets);
        let domains = domains
            .map(|(name, path)| (name.to_owned(), SocketEndpoint::Listen(path.clone())))
            .collect();
        let clipboard = super::start(domains, policy(rules), worker).unwrap();
        let [clinical, internet] = sockets.map(|socket| guest(&socket));
        let ward = Self { clipboard, clinical, internet, _dir: dir };
        let mut agents = 0;
        ward.wait(|event| {
            agents += usize::from(matches!(event, ClipboardEvent::Agent(_, true)));
            agents == 2
        });
        ward
    }

    pub(super) fn wait(&self, mut until: impl FnMut(&ClipboardEvent) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            for event in self.clipboard.events() {
                let ends = until(&event);
                if let ClipboardEvent::Authorize(request) = event {
                    let permit = monitor::testing::permit(request.grant, 1);
                    self.clipboard.send(Command::Permitted(permit));
                }
                if ends {
                    return;
                }
            }
            assert!(Instant::now() < deadline, "it does not happen");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub(super) fn said(&self, start: &str) {
        self.wait(|event| matches!(event, ClipboardEvent::Completed(_, outcome) if outcome.words.starts_with(start)));
    }

    /// Copies this in the Internet desktop, and presses the paste hotkey in the clinical one.
    pub(super) fn pastes(&mut self, number: u32, bytes: &[u8]) {
        self.internet.write_all(&message(kind::CLIPBOARD_GRAB, &words(&[0, number]))).unwrap();
        // The hotkey comes after the grab has been read.
        let queue = SendQueue::of(&self.internet).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while !queue.is_read(&self.internet).unwrap() {
            assert!(Instant::now() < deadline, "it is not read");
            std::thread::sleep(Duration::from_millis(1));
        }
        self.clipboard.send(Command::Hotkey(Hotkey::Copy, 1, None));
        until(&mut self.internet, kind::CLIPBOARD_REQUEST);
        let answer = [words(&[0, number]), bytes.to_vec()].concat();
        self.internet.write_all(&message(kind::CLIPBOARD, &answer)).unwrap();
        self.said("Copied");
        self.clipboard.send(Command::Hotkey(Hotkey::Paste, 0, None));
    }

    /// Text that was copied in the Internet desktop is ready in the clinical one, whose program asks for it.
    fn asks(&mut self, text: &str) {
        self.pastes(content::UTF8_TEXT, text.as_bytes());
        self.said("Ready");
        until(&mut self.clinical, kind::CLIPBOARD_GRAB);
        self.clinical
            .write_all(&message(kind::CLIPBOARD_REQUEST, &words(&[0, content::UTF8_TEXT])))
            .unwrap();
        self.wait(|event| matches!(event, ClipboardEvent::Note(event) if event.kind() == "clipboard-taken"));
    }
}

#[test]
fn a_guest_that_reads_gets_the_whole_of_it_as_often_as_it_asks() {
    let mut ward = Ward::open();
    for text in ["x", "a patient's name", &"0123456789".repeat(200_000)] {
        ward.asks(text);
        for _ in 0..3 {
            let body = until(&mut ward.clinical, kind::CLIPBOARD);
            assert!(body[8..] == *text.as_bytes(), "{} bytes", body.len());
            ward.clinical
                .write_all(&message(kind::CLIPBOARD_REQUEST, &words(&[0, content::UTF8_TEXT])))
                .unwrap();
        }
        until(&mut ward.clinical, kind::CLIPBOARD);
    }
}

// Shows: C-9.
#[test]
fn what_a_guest_asked_for_and_did_not_read_is_not_in_its_socket_after_the_lock() {
    for text in ["a patient's name", &"a patient's name ".repeat(200_000)] {
        for lock in [true, false] {
            let mut ward = Ward::open();
            ward.asks(text);
            // All that the thread can write to somebody who does not read is written by then.
            std::thread::sleep(Duration::from_millis(100));
            ward.clipboard.send(if lock { Command::Locked } else { Command::Policy(policy("")) });
            let mut rest = Vec::new();
            ward.clinical.read_to_end(&mut rest).unwrap();
            assert!(!rest.windows(7).any(|bytes| bytes == b"patient"), "{} bytes", rest.len());
        }
    }
}

#[test]
fn what_a_guest_was_reading_when_the_screen_was_locked_never_becomes_whole() {
    let text = "a patient's name ".repeat(200_000);
    let mut ward = Ward::open();
    ward.asks(&text);
    let mut some = vec![0; 40_000];
    ward.clinical.read_exact(&mut some).unwrap();
    ward.clipboard.send(Command::Locked);
    std::thread::sleep(Duration::from_millis(100));
    let mut rest = Vec::new();
    ward.clinical.read_to_end(&mut rest).unwrap();
    assert!(some.len() + rest.len() < text.len(), "{} bytes more", rest.len());
}
