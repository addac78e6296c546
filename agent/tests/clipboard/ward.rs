//! The clipboard's thread with guests on real sockets, and workers that are processes.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::sockets::SocketEndpoint;
use clipboard::mediator::Hotkey;
use clipboard::service::{Clipboard, ClipboardEvent, Command, Domain, Program, WorkerPrograms};
use clipboard::vdagent::spec::{capability, content, kind};
use policy::Policy;
use sendqueue::SendQueue;

const POLICY: &str = include_str!("../../../policy/tests/fixtures/two-domains.toml");

/// Longest that anything is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const PICTURES: &str = r##"
[[clipboard]]
id = "in"
from = "internet"
to = "clinical"
types = ["text/plain", "image/png"]
action = "allow"
"##;

pub(crate) const TEXT: &str = r##"
[[clipboard]]
id = "in"
from = "internet"
to = "clinical"
types = ["text/plain"]
action = "allow"
"##;

pub(crate) fn policy(rules: &str) -> Arc<Policy> {
    Arc::new(Policy::parse("test", &format!("{POLICY}{rules}")).unwrap())
}

pub(crate) fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

pub(crate) fn message(kind: u32, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(body.len()).unwrap();
    [words(&[1, size + 20, 1, kind, 0, 0, size]), body.to_vec()].concat()
}

/// The program as it is shipped, which reads guests and decodes pictures.
pub(crate) fn worker() -> Program {
    Program::read(&worker_path()).unwrap()
}

pub(crate) fn worker_path() -> PathBuf {
    crate::artefacts::program("bulkhead-worker")
}

/// A guest's agent that has said what it can do.
pub(crate) fn guest(socket: &Path) -> UnixStream {
    let mut guest = UnixStream::connect(socket).unwrap();
    guest.set_read_timeout(Some(PATIENCE)).unwrap();
    let able = 1 << capability::CLIPBOARD_BY_DEMAND | 1 << capability::CLIPBOARD_SELECTION;
    // Where nothing reads it, it is cut off by then.
    let _ = guest.write_all(&message(kind::ANNOUNCE_CAPABILITIES, &words(&[0, able])));
    guest
}

/// Reads messages up to the first of this kind, whose body it is.
pub(crate) fn until(guest: &mut UnixStream, wanted: u32) -> Vec<u8> {
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

pub(crate) struct Ward {
    pub(crate) clipboard: Clipboard,
    pub(crate) clinical: UnixStream,
    pub(crate) internet: UnixStream,
    pub(crate) dir: tempfile::TempDir,
}

impl Ward {
    /// With the workers that there are.
    pub(crate) fn open() -> Self {
        Self::with(TEXT, WorkerPrograms { reading: Some(worker()), decoding: Some(worker()) })
    }

    pub(crate) fn with(rules: &str, workers: WorkerPrograms) -> Self {
        let ward = Self::unannounced(rules, workers);
        ward.are_heard();
        ward
    }

    /// Both guests' agents are heard, in whichever order.
    pub(crate) fn are_heard(&self) {
        let mut agents = 0;
        self.wait(|event| {
            agents += usize::from(matches!(event, ClipboardEvent::Agent(_, true)));
            agents == 2
        });
    }

    /// Whose guests have not been heard yet.
    pub(crate) fn unannounced(rules: &str, workers: WorkerPrograms) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let sockets = ["clinical", "internet"].map(|name| dir.path().join(name));
        let domains = ["clinical", "internet"].into_iter().zip(&sockets);
        let domains = domains.map(|(name, path)| Domain {
            name: name.to_owned(),
            endpoint: SocketEndpoint::Listen(path.clone()),
            group: None,
        });
        let clipboard =
            clipboard::service::start(domains.collect(), policy(rules), workers).unwrap();
        let [clinical, internet] = sockets.map(|socket| guest(&socket));
        Self { clipboard, clinical, internet, dir }
    }

    /// The Internet guest's agent begins anew, and is heard.
    pub(crate) fn reconnects(&mut self) {
        let socket = self.dir.path().join("internet");
        self.internet = guest(&socket);
        self.wait(|event| matches!(event, ClipboardEvent::Agent(1, true)));
    }

    pub(crate) fn wait(&self, mut until: impl FnMut(&ClipboardEvent) -> bool) {
        let deadline = Instant::now() + PATIENCE;
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

    pub(crate) fn said(&self, start: &str) {
        self.wait(|event| matches!(event, ClipboardEvent::Completed(_, outcome) if outcome.words.starts_with(start)));
    }

    pub(crate) fn hotkey(&self, hotkey: Hotkey, domain: usize) {
        self.clipboard.send(Command::Hotkey(hotkey, domain, None));
    }

    /// The Internet guest has something of this type, which is known by then.
    pub(crate) fn grabs(&mut self, number: u32) {
        self.internet.write_all(&message(kind::CLIPBOARD_GRAB, &words(&[0, number]))).unwrap();
        // The hotkey comes after the grab has been read.
        let queue = SendQueue::of(&self.internet).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while !queue.is_read(&self.internet).unwrap() {
            assert!(Instant::now() < deadline, "it is not read");
            std::thread::sleep(Duration::from_millis(1));
        }
        // And after its reader, which steps back behind whatever runs beside it, has said so.
        std::thread::sleep(Duration::from_millis(200));
    }

    /// Copies this in the Internet desktop.
    pub(crate) fn copies(&mut self, number: u32, bytes: &[u8]) {
        self.grabs(number);
        self.hotkey(Hotkey::Copy, 1);
        until(&mut self.internet, kind::CLIPBOARD_REQUEST);
        let answer = [words(&[0, number]), bytes.to_vec()].concat();
        self.internet.write_all(&message(kind::CLIPBOARD, &answer)).unwrap();
        self.said("Copied");
    }

    /// Copies this in the Internet desktop, and presses the paste hotkey in the clinical one.
    pub(crate) fn pastes(&mut self, number: u32, bytes: &[u8]) {
        self.copies(number, bytes);
        self.hotkey(Hotkey::Paste, 0);
    }

    /// Text that was copied in the Internet desktop is ready in the clinical one, whose program asks for it.
    pub(crate) fn asks(&mut self, text: &str) {
        self.pastes(content::UTF8_TEXT, text.as_bytes());
        self.said("Ready");
        until(&mut self.clinical, kind::CLIPBOARD_GRAB);
        self.clinical
            .write_all(&message(kind::CLIPBOARD_REQUEST, &words(&[0, content::UTF8_TEXT])))
            .unwrap();
        self.wait(|event| matches!(event, ClipboardEvent::Note(event) if event.kind() == "clipboard-taken"));
    }

    /// Text crosses as if nothing had been, and nothing was told to the clinical guest before.
    pub(crate) fn text_crosses(mut self, what: &str) {
        self.asks("goes on");
        let body = until(&mut self.clinical, kind::CLIPBOARD);
        assert_eq!(body[8..], *b"goes on", "{what}");
    }
}
