//! What mediation of the clipboard costs, beside a relay that passes the same bytes between the same two sockets and looks at
//! nothing. The two are measured in turn.
//!
//! A paste is measured from the hotkey to the last byte in the guest's agent. What crosses the sockets for it: the grab to the
//! guest, its request, the content. The relay passes just these. "decided" leaves the audit log out (its entry is acknowledged at
//! once), "agent" is the whole bulkhead-agent, its entry on the disk before anything crosses.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::fs;
use std::io::{Cursor, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use base::sockets::SocketEndpoint;
use clipboard::mediator::Hotkey;
use clipboard::service::{
    Clipboard, ClipboardEvent, Command as ClipboardCommand, Domain, Program, WorkerPrograms,
};
use clipboard::vdagent::spec::{CHUNK_MAX, capability, content, kind};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use policy::Policy;

const ROUNDS: usize = 12;
const WORKER: &str = env!("CARGO_BIN_EXE_bulkhead-worker");
const CLINICAL: usize = 0;
const INTERNET: usize = 1;
const CAPABLE: u32 = 1 << capability::CLIPBOARD_BY_DEMAND | 1 << capability::CLIPBOARD_SELECTION;

const DOMAINS: &str = include_str!("../../policy/tests/fixtures/two-domains.toml");
const RULES: &str = r#"
[[clipboard]]
id = "in"
from = "internet"
to = "clinical"
types = ["text/plain", "image/png", "image/bmp"]
action = "allow"
[[clipboard]]
id = "out"
from = "clinical"
to = "internet"
types = ["text/plain", "image/png", "image/bmp"]
action = "allow"
"#;

fn policy() -> String {
    DOMAINS.replace("\"passthrough\"", "\"none\"") + RULES
}

fn message(kind: u32, body: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(body.len() + 64);
    for word in [1u32, kind, 0, 0, u32::try_from(body.len()).unwrap()] {
        message.extend(word.to_le_bytes());
    }
    message.extend(body);
    let mut chunks = Vec::with_capacity(message.len() + message.len() / 128);
    for part in message.chunks(CHUNK_MAX) {
        chunks.extend(1u32.to_le_bytes());
        chunks.extend(u32::try_from(part.len()).unwrap().to_le_bytes());
        chunks.extend(part);
    }
    chunks
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn give(number: u32, bytes: &[u8]) -> Vec<u8> {
    message(kind::CLIPBOARD, &[&words(&[0, number]), bytes].concat())
}

/// A guest's agent, as simple as can be.
struct Guest {
    stream: UnixStream,
    buffer: Vec<u8>,
}

impl Guest {
    fn connect(path: &Path) -> Self {
        let until = Instant::now() + Duration::from_secs(10);
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(_) if Instant::now() < until => thread::sleep(Duration::from_millis(10)),
                Err(error) => panic!("{}: {error}", path.display()),
            }
        };
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut this = Self { stream, buffer: Vec::new() };
        this.send(&message(kind::ANNOUNCE_CAPABILITIES, &words(&[0, CAPABLE])));
        this
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    fn grab(&mut self, number: u32) {
        self.send(&message(kind::CLIPBOARD_GRAB, &words(&[0, number])));
    }

    /// Returns the next message of this type: its body's length. Others are passed over.
    fn wait_for(&mut self, wanted: u32) -> usize {
        loop {
            let kind = self.message();
            if kind.0 == wanted {
                return kind.1;
            }
        }
    }

    fn message(&mut self) -> (u32, usize) {
        let mut got = (0u32, usize::MAX);
        let mut have = 0;
        while have < got.1.saturating_add(20) {
            let mut header = [0; 8];
            self.stream.read_exact(&mut header).unwrap();
            let size = u32::from_le_bytes(header[4..].try_into().unwrap()) as usize;
            self.buffer.resize(size, 0);
            self.stream.read_exact(&mut self.buffer).unwrap();
            if have == 0 {
                let word =
                    |at: usize| u32::from_le_bytes(self.buffer[at..at + 4].try_into().unwrap());
                got = (word(4), word(16) as usize);
            }
            have += size;
        }
        got
    }
}

/// Passes bytes both endpoints, and that is all.
fn relay(one: UnixStream, two: UnixStream) {
    let pass = |mut from: UnixStream, mut to: UnixStream| {
        thread::spawn(move || {
            let mut buffer = vec![0; 65536];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                if to.write_all(&buffer[..count]).is_err() {
                    return;
                }
            }
        })
    };
    pass(one.try_clone().unwrap(), two.try_clone().unwrap());
    pass(two, one);
}

/// The mediator in this process; its daemon acknowledges every entry at once.
struct Decided {
    clipboard: Clipboard,
    guests: [Guest; 2],
}

impl Decided {
    fn start(dir: &Path) -> Self {
        let policy = Arc::new(Policy::parse("bench", &policy()).unwrap());
        let path = |name: &str| dir.join(format!("{name}.sock"));
        let domains = ["clinical", "internet"].map(|name| Domain {
            name: name.to_owned(),
            endpoint: SocketEndpoint::Listen(path(name)),
            group: None,
        });
        let worker = || Some(Program::read(Path::new(WORKER)).unwrap());
        let workers = WorkerPrograms { reading: worker(), decoding: worker() };
        let clipboard = clipboard::service::start(domains.into(), policy, workers).unwrap();
        let guests = ["clinical", "internet"].map(|name| Guest::connect(&path(name)));
        let this = Self { clipboard, guests };
        thread::sleep(Duration::from_millis(200));
        this
    }

    /// Waits for the next event that is no note.
    fn next(&self) -> ClipboardEvent {
        loop {
            for event in self.clipboard.events() {
                match event {
                    ClipboardEvent::Note(_) | ClipboardEvent::Agent(..) => {}
                    ClipboardEvent::Authorize(request) => {
                        let permit = monitor::testing::permit(request.grant, 1);
                        self.clipboard.send(ClipboardCommand::Permitted(permit));
                    }
                    other => return other,
                }
            }
            poll(&mut [PollFd::new(self.clipboard.fd(), PollFlags::POLLIN)], PollTimeout::NONE)
                .unwrap();
        }
    }

    fn copy(&mut self, from: usize, number: u32, bytes: &[u8]) {
        self.guests[from].grab(number);
        thread::sleep(Duration::from_millis(50));
        self.clipboard.send(ClipboardCommand::Hotkey(Hotkey::Copy, from, None));
        self.guests[from].wait_for(kind::CLIPBOARD_REQUEST);
        self.guests[from].send(&give(number, bytes));
        assert!(matches!(self.next(), ClipboardEvent::Completed(_, outcome) if outcome.done));
    }

    fn paste(&mut self, to: usize, number: u32) -> (Duration, usize) {
        let start = Instant::now();
        self.clipboard.send(ClipboardCommand::Hotkey(Hotkey::Paste, to, None));
        assert!(matches!(self.next(), ClipboardEvent::Completed(_, outcome) if outcome.done));
        let (_, got) = take(&mut self.guests[to], number);
        (start.elapsed(), got)
    }
}

/// Returns the guest's side of a paste that was allowed.
fn take(guest: &mut Guest, number: u32) -> (Instant, usize) {
    guest.wait_for(kind::CLIPBOARD_GRAB);
    guest.send(&message(kind::CLIPBOARD_REQUEST, &words(&[0, number])));
    let got = guest.wait_for(kind::CLIPBOARD);
    (Instant::now(), got)
}

/// The same messages through the relay: who has the content answers the request.
struct Relayed {
    guests: [Guest; 2],
}

impl Relayed {
    fn start() -> Self {
        let (one, first) = UnixStream::pair().unwrap();
        let (two, second) = UnixStream::pair().unwrap();
        relay(first, second);
        let guest = |stream| Guest { stream, buffer: Vec::new() };
        Self { guests: [guest(one), guest(two)] }
    }

    fn paste(&mut self, number: u32, bytes: &[u8]) -> Duration {
        let [to, from] = &mut self.guests;
        let content = give(number, bytes);
        thread::scope(|scope| {
            let giver = scope.spawn(move || {
                let start = Instant::now();
                from.grab(number);
                from.wait_for(kind::CLIPBOARD_REQUEST);
                from.send(&content);
                start
            });
            let (end, _) = take(to, number);
            end - giver.join().unwrap()
        })
    }
}

/// The whole agent.
struct Agent {
    child: Child,
    dir: PathBuf,
    guests: [Guest; 2],
}

impl Agent {
    fn start(dir: &Path) -> Self {
        let machine = "format = 1\n[seat]\nbackend = \"none\"\n[domain.clinical]\nvmm = \"external\"\n[domain.internet]\nvmm = \"external\"\n";
        fs::write(dir.join("machine.toml"), machine).unwrap();
        fs::write(dir.join("policy.toml"), policy()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead-agent"));
        for (option, name) in [
            ("--machine", "machine.toml"),
            ("--policy", "policy.toml"),
            ("--state", "state"),
            ("--runtime", "run"),
        ] {
            command.arg(option).arg(dir.join(name));
        }
        let child = command.stderr(Stdio::null()).spawn().unwrap();
        let guests = ["clinical", "internet"]
            .map(|name| Guest::connect(&dir.join("run").join(name).join("vdagent.sock")));
        thread::sleep(Duration::from_millis(300));
        Self { child, dir: dir.to_owned(), guests }
    }

    fn ask(&self, request: &str) -> String {
        let mut stream = UnixStream::connect(self.dir.join("run/control.sock")).unwrap();
        stream.write_all(format!("{request}\n").as_bytes()).unwrap();
        let mut answer = Vec::new();
        let mut byte = [0];
        while stream.read_exact(&mut byte).is_ok() && byte != *b"\n" {
            answer.push(byte[0]);
        }
        String::from_utf8(answer).unwrap()
    }

    fn copy(&mut self, from: usize, number: u32, bytes: &[u8]) {
        self.guests[from].grab(number);
        thread::sleep(Duration::from_millis(50));
        let name = ["clinical", "internet"][from];
        self.ask(&format!("{{\"command\":\"copy\",\"domain\":\"{name}\"}}"));
        self.guests[from].wait_for(kind::CLIPBOARD_REQUEST);
        self.guests[from].send(&give(number, bytes));
        thread::sleep(Duration::from_millis(100));
    }

    fn paste(&mut self, to: usize, number: u32) -> Duration {
        let name = ["clinical", "internet"][to];
        let request = format!("{{\"command\":\"paste\",\"domain\":\"{name}\"}}");
        let start = Instant::now();
        self.ask(&request);
        let (end, _) = take(&mut self.guests[to], number);
        end - start
    }

    /// Returns a figure of its memory, in bytes.
    fn memory(&self, what: &str) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(what)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the middle of some times.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn ratio(one: Duration, other: Duration) -> f64 {
    one.as_secs_f64() / other.as_secs_f64()
}

/// Returns a picture whose file is about so large: a photograph that is not compressed, or noise that cannot be.
fn picture(bytes: usize, format: image::ImageFormat) -> Vec<u8> {
    let width = 1024u32;
    let height = u32::try_from(bytes).unwrap() / (width * 3);
    let mut seed = 1u32;
    let picture = image::RgbImage::from_fn(width, height, |x, y| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if format == image::ImageFormat::Png {
            let [_, red, green, blue] = seed.to_le_bytes();
            return image::Rgb([red, green, blue]);
        }
        // Smooth with noise.
        let noise = seed.to_le_bytes()[3] & 15;
        image::Rgb([(x / 5).to_le_bytes()[0] ^ noise, (y / 11).to_le_bytes()[0], noise])
    });
    let mut out = Vec::new();
    picture.write_to(&mut Cursor::new(&mut out), format).unwrap();
    out
}

fn main() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let sub = |name: &str| {
        let path = dir.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    };
    let mut decided = Decided::start(&sub("d"));
    let mut agent = Agent::start(&sub("a"));
    let mut relayed = Relayed::start();
    let text = vec![b'x'; 1024];
    let bitmap = picture(8 << 20, image::ImageFormat::Bmp);
    let png = picture(8 << 20, image::ImageFormat::Png);
    println!(
        "\n## The clipboard\n\n| content | relay | decided | ratio | agent, audit on disk | ratio |\n| --- | --- | --- | --- | --- | --- |"
    );
    for (what, from, to, number, bytes) in [
        ("1 KiB of text, into the trusted domain", INTERNET, CLINICAL, content::UTF8_TEXT, &text),
        ("8 MiB picture (BMP), out of it", CLINICAL, INTERNET, content::IMAGE_BMP, &bitmap),
        (
            "8 MiB picture (BMP), into it: decoded, encoded as PNG",
            INTERNET,
            CLINICAL,
            content::IMAGE_BMP,
            &bitmap,
        ),
        (
            "8 MiB picture (PNG), into it: encoded anew",
            INTERNET,
            CLINICAL,
            content::IMAGE_PNG,
            &png,
        ),
    ] {
        let anew = to == CLINICAL && number != content::UTF8_TEXT;
        let pasted = if anew { content::IMAGE_PNG } else { number };
        decided.copy(from, number, bytes);
        agent.copy(from, number, bytes);
        let (mut plain, mut ours, mut whole) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            plain.push(relayed.paste(number, bytes));
            ours.push(decided.paste(to, pasted).0);
            whole.push(agent.paste(to, pasted));
        }
        let (plain, ours, whole) = (median(plain), median(ours), median(whole));
        let rate = |time: Duration| {
            let mib = bytes.len() as f64 / f64::from(1 << 20);
            if bytes.len() < 1 << 20 {
                format!("{:.0} us", time.as_secs_f64() * 1e6)
            } else {
                format!("{:.1} ms, {:.0} MiB/s", time.as_secs_f64() * 1e3, mib / time.as_secs_f64())
            }
        };
        println!(
            "| {what} | {} | {} | {:.2} | {} | {:.2} |",
            rate(plain),
            rate(ours),
            ratio(ours, plain),
            rate(whole),
            ratio(whole, plain)
        );
        // What the mediator lets a person do at once.
        thread::sleep(Duration::from_secs(3) * u32::try_from(ROUNDS).unwrap());
    }
    drop(agent);
    memory(&sub("m"), &bitmap);
    memory(&sub("n"), &png);
    memory(&sub("t"), &vec![b'x'; 8 << 20]);
}

/// Measures what an agent of its own takes for content, held and offered.
fn memory(dir: &Path, bytes: &[u8]) {
    let (what, number) = match bytes {
        [b'B', b'M', ..] => ("picture (BMP)", content::IMAGE_BMP),
        [0x89, ..] => ("picture (PNG)", content::IMAGE_PNG),
        _ => ("text", content::UTF8_TEXT),
    };
    let picture = number != content::UTF8_TEXT;
    let mut agent = Agent::start(dir);
    // Everything has run once.
    agent.copy(CLINICAL, content::UTF8_TEXT, b"warm");
    agent.paste(INTERNET, content::UTF8_TEXT);
    let before = agent.memory("VmRSS:");
    for (from, to, pasted) in [
        (CLINICAL, INTERNET, number),
        (INTERNET, CLINICAL, if picture { content::IMAGE_PNG } else { number }),
    ] {
        agent.copy(from, number, bytes);
        let held = agent.memory("VmRSS:").saturating_sub(before);
        agent.paste(to, pasted);
        let peak = agent.memory("VmHWM:").saturating_sub(before);
        let size = bytes.len() as f64;
        println!(
            "- memory, {} of {:.1} MiB {} the trusted domain: held {:.2} x its size, peak {:.2} x",
            what,
            size / f64::from(1 << 20),
            if to == CLINICAL { "into" } else { "out of" },
            held as f64 / size,
            peak as f64 / size,
        );
    }
}
