//! A guest's agent, as simple as can be.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use clipboard::vdagent::spec::{CHUNK_MAX, capability, kind};

const CAPABLE: u32 = 1 << capability::CLIPBOARD_BY_DEMAND | 1 << capability::CLIPBOARD_SELECTION;

pub(crate) fn message(kind: u32, body: &[u8]) -> Vec<u8> {
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

pub(crate) fn give(number: u32, bytes: &[u8]) -> Vec<u8> {
    message(kind::CLIPBOARD, &[&words(&[0, number]), bytes].concat())
}

/// A guest's agent, as simple as can be.
pub(crate) struct Guest {
    pub(crate) stream: UnixStream,
    pub(crate) buffer: Vec<u8>,
}

impl Guest {
    pub(crate) fn connect(path: &Path) -> Self {
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

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub(crate) fn grab(&mut self, number: u32) {
        self.send(&message(kind::CLIPBOARD_GRAB, &words(&[0, number])));
    }

    /// Returns the next message of this type: its body's length. Others are passed over.
    pub(crate) fn wait_for(&mut self, wanted: u32) -> usize {
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

/// Returns the guest's side of a paste that was allowed.
pub(crate) fn take(guest: &mut Guest, number: u32) -> (Instant, usize) {
    guest.wait_for(kind::CLIPBOARD_GRAB);
    guest.send(&message(kind::CLIPBOARD_REQUEST, &words(&[0, number])));
    let got = guest.wait_for(kind::CLIPBOARD);
    (Instant::now(), got)
}
