//! Two domains, their agents, and whoever carries out what the mediator says.

use crate::mediator::ClipboardEvent;
use std::sync::Arc;

use audit::events::Record;
use monitor::{Denial, Request};
use policy::Policy;
use worker_link::Job;
use worker_link::clipboard::Event;

use crate::grant::Secret;
use crate::mediator::played::PlayedReader;
use crate::mediator::{ClipboardMediator, Hotkey, Outcome, Output, Paste, Time};
use crate::vdagent::spec::{CHUNK_MAX, PORT_CLIENT, PROTOCOL, capability, content, kind};
use clipboard_content::{Changes, Rejected, Sanitized};

/// The trusted domain.
pub(super) const A: usize = 0;
pub(super) const B: usize = 1;

/// What a guest's agent can do, with selections.
pub(super) const CAPABLE: u32 =
    1 << capability::CLIPBOARD_BY_DEMAND | 1 << capability::CLIPBOARD_SELECTION;

/// Text, as a guest's agent numbers it.
pub(super) const TEXT: u32 = content::UTF8_TEXT;

pub(super) fn policy(rules: &str) -> Arc<Policy> {
    policy_of(1, rules)
}

/// The policy of this serial.
pub(super) fn policy_of(serial: u64, rules: &str) -> Arc<Policy> {
    const DOMAINS: &str = include_str!("../../../../../../policy/tests/fixtures/two-domains.toml");
    let domains = DOMAINS.replace("\"clinical\"", "\"a\"").replace("\"internet\"", "\"b\"");
    let domains = domains.replace("serial = 1", &format!("serial = {serial}"));
    let text = domains + rules;
    Arc::new(Policy::parse("test", &text).unwrap())
}

pub(super) fn rule(from: &str, to: &str, action: &str) -> String {
    format!(
        r#"
[[clipboard]]
id = "{from}-{to}"
from = "{from}"
to = "{to}"
types = ["text/plain", "image/png", "image/jpeg", "image/bmp", "image/tiff", "file-list"]
max_bytes = 1000000
action = "{action}"
"#
    )
}

/// Two guests with agents, under a policy that lets everything through from B to A.
pub(super) fn allowed() -> World {
    World::ready(&rule("b", "a", "allow"))
}

/// What reached a guest's programs when they asked.
pub(super) fn pasted(world: &mut World, guest: usize, number: u32) -> Option<Vec<u8>> {
    world.sends(guest, &request(number));
    let got = world.gets(guest);
    let (kind, bytes) = got.last()?.content()?;
    (kind == number).then(|| bytes.to_vec())
}

/// A message as a guest receives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Got {
    pub(super) kind: u32,
    pub(super) body: Vec<u8>,
}

impl Got {
    pub(super) fn content(&self) -> Option<(u32, &[u8])> {
        let kind = u32::from_le_bytes(self.body.get(4..8)?.try_into().ok()?);
        (self.kind == kind::CLIPBOARD).then(|| (kind, &self.body[8..]))
    }

    pub(super) fn word(&self) -> u32 {
        u32::from_le_bytes(self.body[4..8].try_into().unwrap())
    }
}

/// What a guest sends.
pub(super) fn message(kind: u32, body: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    message.extend(PROTOCOL.to_le_bytes());
    message.extend(kind.to_le_bytes());
    message.extend(0u64.to_le_bytes());
    message.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
    message.extend(body);
    chunk(&message)
}

pub(super) fn chunk(bytes: &[u8]) -> Vec<u8> {
    let mut chunk = PORT_CLIENT.to_le_bytes().to_vec();
    chunk.extend(u32::try_from(bytes.len()).unwrap().to_le_bytes());
    chunk.extend(bytes);
    chunk
}

pub(super) fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

pub(super) fn announce(request: bool, capabilities: u32) -> Vec<u8> {
    message(kind::ANNOUNCE_CAPABILITIES, &words(&[u32::from(request), capabilities]))
}

pub(super) fn grab(types: &[u32]) -> Vec<u8> {
    message(kind::CLIPBOARD_GRAB, &words(&[&[0], types].concat()))
}

pub(super) fn request(number: u32) -> Vec<u8> {
    message(kind::CLIPBOARD_REQUEST, &words(&[0, number]))
}

pub(super) fn give(number: u32, bytes: &[u8]) -> Vec<u8> {
    message(kind::CLIPBOARD, &[&words(&[0, number]), bytes].concat())
}

pub(super) struct World {
    pub(super) mediator: ClipboardMediator,
    pub(super) now: Time,
    /// What reads each guest's stream, while it has one.
    pub(super) readers: [Option<PlayedReader>; 2],
    /// Whose reader was taken over, so that nothing it says need make sense any more.
    taken_over: [bool; 2],
    /// Bytes each guest got that are no whole message yet.
    streams: [Vec<u8>; 2],
    /// Bytes that lay in a guest's socket when its stream was ended.
    pub(super) left: [Vec<u8>; 2],
    /// All bytes each guest ever got.
    pub(super) wire: [Vec<u8>; 2],
    /// What was said, newest last.
    pub(super) said: Vec<Outcome>,
    pub(super) noted: Vec<Record>,
    /// What the monitor was asked for and has not answered.
    pub(super) to_record: Vec<Request<Paste>>,
    pub(super) asked: Vec<(u64, String)>,
    pub(super) withdrawn: Vec<u64>,
    pub(super) disconnected: Vec<(usize, Time)>,
    /// Pictures that wait to be decoded.
    pub(super) to_decode: Vec<(u64, Job, Secret)>,
    /// Workers that nobody waits for any more.
    pub(super) stopped: Vec<u64>,
}

impl World {
    /// Two guests that are not connected yet.
    pub(super) fn new(policy: Arc<Policy>) -> Self {
        Self {
            mediator: ClipboardMediator::new(&["a".to_owned(), "b".to_owned()], policy),
            now: Time::from_secs(1),
            readers: Default::default(),
            taken_over: [false; 2],
            streams: Default::default(),
            left: Default::default(),
            wire: Default::default(),
            said: Vec::new(),
            noted: Vec::new(),
            to_record: Vec::new(),
            asked: Vec::new(),
            withdrawn: Vec::new(),
            disconnected: Vec::new(),
            to_decode: Vec::new(),
            stopped: Vec::new(),
        }
    }

    /// Both connected, with agents.
    pub(super) fn ready(rules: &str) -> Self {
        let mut world = Self::new(policy(rules));
        for guest in [A, B] {
            world.connected(guest);
            world.sends(guest, &announce(true, CAPABLE));
            world.gets(guest);
        }
        world
    }

    /// Carries out what the mediator says, until that and the readers have no more to say.
    pub(super) fn settle(&mut self) {
        loop {
            for (guest, reader) in self.readers.iter_mut().enumerate() {
                if let Some(reader) = reader
                    && let Err(fault) = reader.tell(&mut self.mediator, guest, self.now)
                {
                    assert!(self.taken_over[guest], "{fault}");
                    self.mediator.reader_failed(guest, self.now);
                }
            }
            let outputs = self.mediator.outputs();
            if outputs.is_empty() {
                return;
            }
            outputs.into_iter().for_each(|output| self.carry_out(output));
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Disconnect(guest, again) => {
                self.readers[guest] = None;
                // What lies in the socket can still be read.
                self.left[guest].append(&mut self.streams[guest]);
                self.disconnected.push((guest, again));
            }
            Output::Tell(guest, command) => {
                if let Some(reader) = &mut self.readers[guest] {
                    reader.command(command);
                }
            }
            Output::Decode(id, job, picture) => self.to_decode.push((id, job, picture)),
            Output::StopDecoding(id) => self.stopped.push(id),
            Output::Report(ClipboardEvent::Authorize(request)) => self.to_record.push(request),
            Output::Report(ClipboardEvent::Note(event)) => self.noted.push(event.record()),
            Output::Report(ClipboardEvent::Completed(_, outcome)) => self.said.push(outcome),
            Output::Report(ClipboardEvent::Ask(_, id, text)) => self.asked.push((id, text)),
            Output::Report(ClipboardEvent::Withdraw(id)) => self.withdrawn.push(id),
            Output::Report(ClipboardEvent::Agent(..) | ClipboardEvent::Preparing(_)) => {
                unreachable!("the service says that")
            }
        }
    }

    /// A guest's stream begins, with a reader of its own.
    pub(super) fn connected(&mut self, guest: usize) {
        self.readers[guest] = Some(PlayedReader::default());
        self.taken_over[guest] = false;
        self.mediator.connected(guest);
    }

    /// A guest's stream has ended.
    pub(super) fn disconnected(&mut self, guest: usize) {
        self.readers[guest] = None;
        self.mediator.disconnected(guest, self.now);
    }

    pub(super) fn sends(&mut self, guest: usize, bytes: &[u8]) {
        if let Some(reader) = &mut self.readers[guest] {
            reader.received(bytes, self.now);
        }
        self.settle();
    }

    /// A guest's reader that was taken over says this, with this in its file.
    pub(super) fn lies(&mut self, guest: usize, event: &Event, content: &[u8]) {
        self.taken_over[guest] = true;
        let mut read = |length: u32| {
            // The file is longer than what was written there.
            let mut part = content.to_vec();
            part.resize(length as usize, 0);
            Ok(part.into())
        };
        if self.mediator.heard(guest, event.clone(), &mut read, self.now).is_err() {
            self.mediator.reader_failed(guest, self.now);
        }
        self.settle();
    }

    /// How long a guest is not read from; forever if there is nobody to read it.
    pub(super) fn unread_for(&mut self, guest: usize) -> Time {
        let now = self.now;
        self.readers[guest].as_mut().map_or(Time::MAX, |reader| reader.wait(now))
    }

    /// How many bytes are kept of guests' content, by their readers too.
    pub(super) fn kept(&self) -> usize {
        let readers = self.readers.iter().flatten().map(PlayedReader::kept);
        self.mediator.kept() + readers.sum::<usize>()
    }

    /// What has come to a guest since the last call.
    pub(super) fn gets(&mut self, guest: usize) -> Vec<Got> {
        loop {
            self.written(guest);
            let outbox = self.mediator.outbox(guest).unwrap();
            if !outbox.waits_for_guest() {
                break;
            }
            outbox.guest_took_all();
        }
        self.messages(guest)
    }

    /// What is written to a guest that does not read, and lies in its socket.
    pub(super) fn written(&mut self, guest: usize) {
        let outbox = self.mediator.outbox(guest).unwrap();
        loop {
            let bytes = outbox.bytes(4096);
            if bytes.is_empty() {
                break;
            }
            // A slow reader takes a little at a time.
            let part = bytes.len().min(777);
            self.wire[guest].extend(&bytes[..part]);
            self.streams[guest].extend(&bytes[..part]);
            outbox.took(part);
        }
    }

    /// The whole messages of what is written to a guest and was not looked at yet.
    fn messages(&mut self, guest: usize) -> Vec<Got> {
        let mut body = Vec::new();
        let mut rest = &self.streams[guest][..];
        while let Some((header, after)) = rest.split_at_checked(8) {
            let size = u32::from_le_bytes(header[4..].try_into().unwrap()) as usize;
            assert!(size <= CHUNK_MAX, "vdagentd takes no chunk of {size} bytes");
            assert_eq!(header[..4], PORT_CLIENT.to_le_bytes());
            body.extend(&after[..size]);
            rest = &after[size..];
        }
        assert!(rest.is_empty());
        self.streams[guest].clear();
        let mut got = Vec::new();
        let mut rest = &body[..];
        while let Some((header, after)) = rest.split_at_checked(20) {
            let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
            assert_eq!(word(0), PROTOCOL);
            let Some((body, after)) = after.split_at_checked(word(16) as usize) else {
                break; // cut off
            };
            got.push(Got { kind: word(4), body: body.to_vec() });
            rest = after;
        }
        got
    }

    pub(super) fn hotkey(&mut self, hotkey: Hotkey, guest: usize) {
        self.mediator.hotkey(hotkey, guest, None, self.now);
        self.settle();
    }

    /// The copy hotkey in `from`, whose agent hands this over.
    pub(super) fn copy(&mut self, from: usize, number: u32, bytes: &[u8]) {
        self.sends(from, &grab(&[number]));
        self.hotkey(Hotkey::Copy, from);
        let asked = self.gets(from);
        assert_eq!(
            asked.last().map(|got| (got.kind, got.word())),
            Some((kind::CLIPBOARD_REQUEST, number))
        );
        self.sends(from, &give(number, bytes));
    }

    pub(super) fn copy_text(&mut self, from: usize, text: &str) {
        self.copy(from, content::UTF8_TEXT, text.as_bytes());
    }

    /// The picture that waits for it is decoded, by what the worker does.
    pub(super) fn decode(&mut self) {
        let (id, job, picture) = self.to_decode.remove(0);
        let declared = clipboard_content::declared(job.kind);
        let most = usize::try_from(job.most).unwrap();
        let outcome = pictures::encode_anew(job.kind, &picture, most)
            .map_err(|why| clipboard_content::refused(declared, why))
            .and_then(|pictures::Encoded { png, turned, made_opaque, first_of }| {
                let changes = Changes { turned, made_opaque, first_of, ..Changes::default() };
                clipboard_content::of_worker(png, changes)
            });
        self.decoded(id, outcome);
    }

    pub(super) fn decoded(&mut self, id: u64, outcome: Result<Sanitized, Rejected>) {
        self.mediator.decoded(id, outcome, self.now);
        self.settle();
    }

    /// The oldest event that waits to be recorded is, or is not.
    pub(super) fn record(&mut self, done: bool) -> Record {
        let Request { event, grant: paste, .. } = self.to_record.remove(0);
        if done {
            self.mediator.permitted(monitor::testing::permit(paste, 1), self.now);
        } else {
            self.mediator.refused(paste.id, Denial::Unrecorded);
        }
        self.settle();
        audit::AuditEvent::from(event).record()
    }

    pub(super) fn wait(&mut self, time: Time) {
        self.now += time;
        self.mediator.tick(self.now);
        self.settle();
    }

    pub(super) fn last_words(&self) -> &str {
        &self.said.last().unwrap().words
    }
}
