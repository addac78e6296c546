//! What mediation of the clipboard costs, beside a relay that passes the same bytes between the same two sockets and looks at
//! nothing. The two are measured in turn.
//!
//! A paste is measured from the hotkey to the last byte in the guest's agent. What crosses the sockets for it: the grab to the
//! guest, its request, the content. The relay passes just these. "decided" leaves the audit log out (its entry is acknowledged at
//! once), "agent" is the whole bulkhead-agent, its entry on the disk before anything crosses.
//!
//! With `BULKHEAD_BEFORE=FOLDER` and `BULKHEAD_ARTEFACTS=FOLDER` an earlier agent, whose programs are in the one folder, and the one in
//! the other are measured in turn instead, each whole: what a paste has come to cost.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod agent;
mod guest;

use std::io::{Cursor, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs};

use base::sockets::SocketEndpoint;
use clipboard::mediator::Hotkey;
use clipboard::service::{
    Clipboard, ClipboardEvent, Command as ClipboardCommand, Domain, Program, WorkerPrograms,
};
use clipboard::vdagent::spec::{content, kind};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use policy::Policy;

use self::agent::Agent;
use self::guest::{Guest, give, take};

const ROUNDS: usize = 12;
/// Of each of two agents.
const COMPARED: usize = 30;
const BUDGETS: &str = include_str!("../../../tests/budgets.toml");
const AGENT: &str = env!("CARGO_BIN_EXE_bulkhead-agent");
const WORKER: &str = env!("CARGO_BIN_EXE_bulkhead-worker");
const CLINICAL: usize = 0;
const INTERNET: usize = 1;

const DOMAINS: &str = include_str!("../../../policy/tests/fixtures/two-domains.toml");
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

/// Returns the middle of some times.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn ratio(one: Duration, other: Duration) -> f64 {
    one.as_secs_f64() / other.as_secs_f64()
}

/// Returns a paste's time, and how much that is in a second where it is much.
fn rate(bytes: &[u8], time: Duration) -> String {
    let mib = bytes.len() as f64 / f64::from(1 << 20);
    if bytes.len() < 1 << 20 {
        format!("{:.0} us", time.as_secs_f64() * 1e6)
    } else {
        format!("{:.1} ms, {:.0} MiB/s", time.as_secs_f64() * 1e3, mib / time.as_secs_f64())
    }
}

/// Waits until a person may do so much again: what the mediator lets one do at once.
fn rest(pastes: usize) {
    thread::sleep(Duration::from_secs(3) * u32::try_from(pastes).unwrap());
}

/// Measures two whole agents in turn, the earlier one first: exit status 1 if a paste has come to take more than it may.
fn compare(mut agents: [Agent; 2]) {
    let (text, much) = (vec![b'x'; 1024], vec![b'x'; 8 << 20]);
    let bitmap = picture(8 << 20, image::ImageFormat::Bmp);
    let png = picture(8 << 20, image::ImageFormat::Png);
    let budgets: toml_edit::DocumentMut = BUDGETS.parse().unwrap();
    let most = budgets["workers"]["paste_to_before"].as_float().unwrap();
    let mut missed = Vec::new();
    println!("\n## The clipboard, beside an earlier agent\n");
    println!("| content | before | lowest to highest | now | lowest to highest | now / before |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for paste in [
        (
            "1 KiB of text, into the trusted domain",
            INTERNET,
            CLINICAL,
            content::UTF8_TEXT,
            &text[..],
        ),
        ("8 MiB of text, into it", INTERNET, CLINICAL, content::UTF8_TEXT, &much),
        ("8 MiB of text, out of it", CLINICAL, INTERNET, content::UTF8_TEXT, &much),
        ("8 MiB picture (BMP), out of it", CLINICAL, INTERNET, content::IMAGE_BMP, &bitmap),
        ("8 MiB picture (BMP), into it", INTERNET, CLINICAL, content::IMAGE_BMP, &bitmap),
        ("8 MiB picture (PNG), into it", INTERNET, CLINICAL, content::IMAGE_PNG, &png),
    ] {
        let (what, from, to, number, bytes) = paste;
        let mut times = [Vec::new(), Vec::new()];
        // Fewer at a time than a person may paste at once.
        for round in 0..COMPARED {
            if round.is_multiple_of(ROUNDS) {
                rest(if round == 0 { 0 } else { ROUNDS });
                for agent in &mut agents {
                    agent.copy(from, number, bytes);
                }
            }
            for (agent, times) in agents.iter_mut().zip(&mut times) {
                times.push(agent.paste(to, pasted_as(paste)));
            }
        }
        let spread = |times: &[Duration]| {
            let ends = [times.iter().min(), times.iter().max()];
            ends.map(|time| format!("{:.2} ms", time.unwrap().as_secs_f64() * 1e3)).join(" to ")
        };
        let spreads = times.each_ref().map(|times| spread(times));
        let [before, now] = times.map(median);
        println!(
            "| {what} | {} | {} | {} | {} | {:.2} |",
            rate(bytes, before),
            spreads[0],
            rate(bytes, now),
            spreads[1],
            ratio(now, before)
        );
        if ratio(now, before) > most {
            missed.push(what);
        }
        rest(ROUNDS);
    }
    for what in &missed {
        println!("MISSED: {what}; budget {most} of the earlier agent's");
    }
    drop(agents);
    std::process::exit(i32::from(!missed.is_empty()));
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

/// What is pasted: what it is, from whom, to whom, as what it is copied, and what it is.
type Paste<'a> = (&'a str, usize, usize, u32, &'a [u8]);

/// Returns as what it is pasted: a picture that comes in is encoded anew.
const fn pasted_as((_, _, to, number, _): Paste<'_>) -> u32 {
    if to == CLINICAL && number != content::UTF8_TEXT { content::IMAGE_PNG } else { number }
}

fn main() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let sub = |name: &str| {
        let path = dir.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    };
    if let Some(before) = env::var_os("BULKHEAD_BEFORE") {
        let now = env::var_os("BULKHEAD_ARTEFACTS").unwrap();
        let [before, now] = [before, now].map(|folder| Path::new(&folder).join("bulkhead-agent"));
        compare([Agent::start(&before, &sub("b")), Agent::start(&now, &sub("a"))]);
        return;
    }
    let mut decided = Decided::start(&sub("d"));
    let mut agent = Agent::start(Path::new(AGENT), &sub("a"));
    let mut relayed = Relayed::start();
    let text = vec![b'x'; 1024];
    let bitmap = picture(8 << 20, image::ImageFormat::Bmp);
    let png = picture(8 << 20, image::ImageFormat::Png);
    println!(
        "\n## The clipboard\n\n| content | relay | decided | ratio | agent, audit on disk | ratio |\n| --- | --- | --- | --- | --- | --- |"
    );
    for paste in [
        (
            "1 KiB of text, into the trusted domain",
            INTERNET,
            CLINICAL,
            content::UTF8_TEXT,
            &text[..],
        ),
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
        let (what, from, to, number, bytes) = paste;
        let pasted = pasted_as(paste);
        decided.copy(from, number, bytes);
        agent.copy(from, number, bytes);
        let (mut plain, mut ours, mut whole) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            plain.push(relayed.paste(number, bytes));
            ours.push(decided.paste(to, pasted).0);
            whole.push(agent.paste(to, pasted));
        }
        let (plain, ours, whole) = (median(plain), median(ours), median(whole));
        let rate = |time| rate(bytes, time);
        println!(
            "| {what} | {} | {} | {:.2} | {} | {:.2} |",
            rate(plain),
            rate(ours),
            ratio(ours, plain),
            rate(whole),
            ratio(whole, plain)
        );
        rest(ROUNDS);
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
    let mut agent = Agent::start(Path::new(AGENT), dir);
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
