//! A guest's clipboard for text, as its desktop's SPICE agent has it (spice-protocol, `vd_agent.h`): on the port of the agent, until the guest ends.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::find_port;
use crate::request::text;

/// The agent's port.
const PORT: &str = "com.redhat.spice.0";
/// Chunks of the conversation about the clipboard, and the protocol's version.
const CLIENT: u32 = 1;
const PROTOCOL: u32 = 1;
/// Bytes of a chunk's header and of a message's.
const CHUNK_HEADER: usize = 8;
const MESSAGE_HEADER: usize = 20;
/// Types of messages.
const CLIPBOARD: u32 = 4;
const ANNOUNCE: u32 = 6;
const GRAB: u32 = 7;
const REQUEST: u32 = 8;
const RELEASE: u32 = 9;
/// By demand, and with the selection in front of each body.
const CAPABLE: u32 = 1 << 5 | 1 << 6;
/// Text in UTF-8.
const TEXT: u32 = 1;
/// How often the port is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// How long a text that was asked for may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// Largest message that is kept, in bytes.
const MESSAGE_MAX: usize = 1 << 20;

/// The agent, once somebody has asked for it.
static AGENT: Mutex<Option<Arc<Mutex<Agent>>>> = Mutex::new(None);

struct Agent {
    port: File,
    /// What this guest has copied.
    own: String,
    /// The other side has text.
    is_offered: bool,
    /// What the other side has sent since it was last asked.
    pasted: Option<String>,
}

/// Copies a text: `text`.
pub(crate) fn copy(request: &Value) -> Result<Value, String> {
    let agent = agent()?;
    let mut agent = locked(&agent);
    text(request, "text")?.clone_into(&mut agent.own);
    let sent = agent.send(GRAB, &[0, TEXT]);
    sent.map_err(|error| format!("the port: {error}"))?;
    Ok(json!({}))
}

/// Pastes what the other side offers: `text`, which is null if that is nothing.
pub(crate) fn paste() -> Result<Value, String> {
    let agent = agent()?;
    {
        let mut agent = locked(&agent);
        if !agent.is_offered {
            return Ok(json!({"text": null}));
        }
        agent.pasted = None;
        agent.send(REQUEST, &[0, TEXT]).map_err(|error| format!("the port: {error}"))?;
    }
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        if let Some(text) = locked(&agent).pasted.take() {
            return Ok(json!({"text": text}));
        }
        std::thread::sleep(LOOK);
    }
    Ok(json!({"text": null}))
}

fn locked(agent: &Mutex<Agent>) -> MutexGuard<'_, Agent> {
    agent.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the agent, started if it was not.
fn agent() -> Result<Arc<Mutex<Agent>>, String> {
    let mut started = AGENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(agent) = &*started {
        return Ok(agent.clone());
    }
    let path = find_port(PORT).ok_or_else(|| format!("there is no port {PORT}"))?;
    let mut options = OpenOptions::new();
    // Nobody at the other end is no reason to wait.
    options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
    let said = |error: io::Error| format!("{}: {error}", path.display());
    let port = options.open(&path).map_err(said)?;
    let reader = port.try_clone().map_err(said)?;
    let agent = Agent { port, own: String::new(), is_offered: false, pasted: None };
    let agent = Arc::new(Mutex::new(agent));
    let _ = locked(&agent).announce(true);
    let kept = agent.clone();
    std::thread::spawn(move || listen(reader, &kept));
    *started = Some(agent.clone());
    Ok(agent)
}

/// Reads the port, and does what is asked.
fn listen(mut port: File, agent: &Mutex<Agent>) {
    let (mut bytes, mut messages) = (Vec::new(), Vec::new());
    let mut buffer = [0; 4096];
    loop {
        match port.read(&mut buffer) {
            // Nobody is there; whoever comes next begins anew.
            Ok(0) => {
                bytes.clear();
                messages.clear();
                locked(agent).is_offered = false;
                std::thread::sleep(LOOK);
            }
            Ok(count) => bytes.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(_) => std::thread::sleep(LOOK),
        }
        while let Some(chunk) = take(&mut bytes, CHUNK_HEADER, 4) {
            messages.extend_from_slice(chunk.get(CHUNK_HEADER..).unwrap_or_default());
        }
        while let Some(message) = take(&mut messages, MESSAGE_HEADER, 16) {
            let body = message.get(MESSAGE_HEADER..).unwrap_or_default();
            let _ = locked(agent).act(word(&message, 4), body);
        }
        if bytes.len().max(messages.len()) > MESSAGE_MAX {
            bytes.clear();
            messages.clear();
        }
    }
}

/// Takes what is whole off the front: a header of this length, with the size of what follows it at `size_at`.
fn take(bytes: &mut Vec<u8>, header: usize, size_at: usize) -> Option<Vec<u8>> {
    if bytes.len() < header {
        return None;
    }
    let size = usize::try_from(word(bytes, size_at)).ok()?;
    let end = header.checked_add(size).filter(|end| *end <= bytes.len())?;
    Some(bytes.drain(..end).collect())
}

/// Returns the little-endian word there; zero where the bytes end before it does.
fn word(bytes: &[u8], at: usize) -> u32 {
    let word = at.checked_add(4).and_then(|end| bytes.get(at..end));
    word.and_then(|word| word.try_into().ok()).map_or(0, u32::from_le_bytes)
}

impl Agent {
    /// Does what a message asks.
    fn act(&mut self, kind: u32, body: &[u8]) -> io::Result<()> {
        match kind {
            ANNOUNCE if word(body, 0) != 0 => self.announce(false)?,
            // Each begins with the selection, of which there is one.
            GRAB => {
                self.is_offered = body.chunks_exact(4).skip(1).any(|kind| word(kind, 0) == TEXT)
            }
            RELEASE => self.is_offered = false,
            REQUEST => {
                let own = std::mem::take(&mut self.own);
                self.send_with(CLIPBOARD, &[0, TEXT], own.as_bytes())?;
                self.own = own;
            }
            CLIPBOARD => {
                let text = body.get(8..).unwrap_or_default();
                self.pasted = Some(String::from_utf8_lossy(text).into_owned());
            }
            _ => {}
        }
        Ok(())
    }

    fn announce(&mut self, request: bool) -> io::Result<()> {
        self.send(ANNOUNCE, &[u32::from(request), CAPABLE])
    }

    fn send(&mut self, kind: u32, words: &[u32]) -> io::Result<()> {
        self.send_with(kind, words, &[])
    }

    /// Sends a message of these words and this text, in one chunk.
    fn send_with(&mut self, kind: u32, words: &[u32], text: &[u8]) -> io::Result<()> {
        let body: Vec<u8> =
            words.iter().flat_map(|word| word.to_le_bytes()).chain(text.iter().copied()).collect();
        let size = u32::try_from(body.len()).map_err(io::Error::other)?;
        let header = [CLIENT, size.saturating_add(20), PROTOCOL, kind, 0, 0, size];
        let mut message: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
        message.extend(body);
        self.write(&message)
    }

    /// Writes all of it. The kernel may have what the other end says before it knows that somebody is there, and takes nothing until then.
    fn write(&mut self, mut message: &[u8]) -> io::Result<()> {
        let until = Instant::now() + PATIENCE;
        while !message.is_empty() {
            match self.port.write(message) {
                Ok(count) => message = message.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < until =>
                {
                    std::thread::sleep(LOOK);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// An agent, and the other side of its port.
    fn connected() -> (Agent, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let port = File::from(OwnedFd::from(ours));
        (Agent { port, own: "8 h".to_owned(), is_offered: false, pasted: None }, theirs)
    }

    fn words(bytes: &[u8]) -> Vec<u32> {
        (0..bytes.len() / 4).map(|place| word(bytes, place * 4)).collect()
    }

    fn sent(theirs: &mut UnixStream) -> Vec<u8> {
        let mut buffer = [0; 256];
        let count = theirs.read(&mut buffer).unwrap();
        buffer[..count].to_vec()
    }

    #[test]
    fn what_is_asked_for_is_sent_as_a_desktops_agent_sends_it() {
        let (mut agent, mut theirs) = connected();
        agent.act(ANNOUNCE, &[1, 0, 0, 0, 0xff, 0, 0, 0]).unwrap();
        let announced = [CLIENT, 28, PROTOCOL, ANNOUNCE, 0, 0, 8, 0, CAPABLE];
        assert_eq!(words(&sent(&mut theirs)), announced);
        agent.act(REQUEST, &[0, 0, 0, 0, 1, 0, 0, 0]).unwrap();
        let text = sent(&mut theirs);
        assert_eq!(words(&text[..36]), [CLIENT, 31, PROTOCOL, CLIPBOARD, 0, 0, 11, 0, TEXT]);
        assert_eq!(&text[36..], b"8 h");
    }

    #[test]
    fn a_port_that_takes_nothing_yet_is_waited_for() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut port = File::from(OwnedFd::from(ours));
        while port.write(&[0; 4096]).is_ok() {}
        let mut agent = Agent { port, own: String::new(), is_offered: false, pasted: None };
        let reader = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(30));
            theirs.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
            while !all.ends_with(&CAPABLE.to_le_bytes()) {
                let count = theirs.read(&mut buffer).unwrap();
                all.extend_from_slice(&buffer[..count]);
            }
        });
        agent.announce(false).unwrap();
        reader.join().unwrap();
    }

    #[test]
    fn an_offer_counts_until_it_is_taken_back_and_a_text_that_comes_in_pieces_is_one() {
        let (mut agent, _theirs) = connected();
        agent.act(GRAB, &[0, 0, 0, 0, 2, 0, 0, 0]).unwrap();
        assert!(!agent.is_offered, "a picture");
        agent.act(GRAB, &[0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0]).unwrap();
        assert!(agent.is_offered);
        agent.act(RELEASE, &[0, 0, 0, 0]).unwrap();
        assert!(!agent.is_offered);
        let message =
            [&[1, 0, 0, 0, 4, 0, 0, 0][..], &[0; 8], &[10, 0, 0, 0], &[0; 4], &[1, 0, 0, 0], b"ok"];
        let message = message.concat();
        let (first, rest) = message.split_at(25);
        let mut bytes = Vec::new();
        for piece in [first, rest] {
            bytes.extend([1, 0, 0, 0, u8::try_from(piece.len()).unwrap(), 0, 0, 0]);
            bytes.extend(piece);
        }
        let last = bytes.pop().unwrap();
        let mut messages = take(&mut bytes, CHUNK_HEADER, 4).unwrap()[CHUNK_HEADER..].to_vec();
        assert_eq!(take(&mut messages, MESSAGE_HEADER, 16), None);
        assert_eq!(take(&mut bytes, CHUNK_HEADER, 4), None);
        bytes.push(last);
        messages.extend_from_slice(&take(&mut bytes, CHUNK_HEADER, 4).unwrap()[CHUNK_HEADER..]);
        let whole = take(&mut messages, MESSAGE_HEADER, 16).unwrap();
        agent.act(word(&whole, 4), &whole[MESSAGE_HEADER..]).unwrap();
        assert_eq!(agent.pasted.as_deref(), Some("ok"));
    }
}
