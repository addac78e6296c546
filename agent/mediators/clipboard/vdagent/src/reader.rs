//! From a guest's bytes to its messages.

use worker_link::clipboard::{GRAB_TYPES_MAX, Nonsense};

use super::message::{Capabilities, Message};
use super::spec::{
    CHUNK_HEADER, MESSAGE_HEADER, MESSAGE_MAX, PORT_CLIENT, PORT_SERVER, PROTOCOL,
    SELECTION_CLIPBOARD, SMALL_MAX, kind,
};

/// What a reader found in a stream's bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Read<'a> {
    /// A whole message.
    Message(Message),
    /// Part of the content that was asked for. It is the last part if it goes up to `size`.
    Content {
        /// The type of the content.
        kind: u32,
        /// Bytes of all of it.
        size: u32,
        /// Where in it the part begins.
        at: u32,
        /// The part's bytes.
        bytes: &'a [u8],
    },
    /// Content that is larger than allowed begins; it is skipped.
    TooLarge {
        /// Bytes it claims to have.
        bytes: u32,
    },
    /// The answer to a request that was given up begins; it is skipped, and the next request may be made.
    Late,
    /// Content nobody asked for begins; it is skipped.
    Unasked,
}

/// The state of the answer to the last request. Answers name no request, so there is one request at a time, and what comes
/// first is its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// No answer is due.
    None,
    /// It is due, and may have up to so many bytes.
    Wanted(u32),
    /// It is due, and nobody wants it any more.
    Unwanted,
}

/// How far the message that is coming in has come.
#[derive(Debug)]
enum State {
    Header {
        bytes: [u8; MESSAGE_HEADER],
        have: usize,
    },
    Small {
        kind: u32,
        size: u32,
        body: Vec<u8>,
    },
    ContentStart {
        size: u32,
        bytes: [u8; 8],
        have: usize,
    },
    Content {
        kind: u32,
        size: u32,
        have: u32,
    },
    /// `asked`: of content that was asked for, and is not wanted after all.
    Skip {
        left: u32,
        asked: bool,
    },
}

impl State {
    const START: Self = Self::Header { bytes: [0; MESSAGE_HEADER], have: 0 };
}

/// Reassembles chunks and messages. `bytes kept <= SMALL_MAX`: content is passed on as it comes.
#[derive(Debug)]
pub struct Reader {
    chunk: [u8; CHUNK_HEADER],
    chunk_have: usize,
    port: u32,
    chunk_left: u32,
    state: State,
    selection: bool,
    answer: Answer,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            chunk: [0; CHUNK_HEADER],
            chunk_have: 0,
            port: 0,
            chunk_left: 0,
            state: State::START,
            selection: false,
            answer: Answer::None,
        }
    }
}

/// Moves bytes from `input` to `into` from `have` on, and returns whether that is full.
fn fill(into: &mut [u8], have: &mut usize, input: &mut &[u8]) -> bool {
    let space = into.get_mut(*have..).unwrap_or_default();
    let count = space.len().min(input.len());
    let (now, later) = input.split_at(count);
    if let Some(space) = space.get_mut(..count) {
        space.copy_from_slice(now);
    }
    *input = later;
    *have += count;
    *have >= into.len()
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

impl Reader {
    /// Sets whether clipboard messages name their selection from now on.
    pub fn set_selection(&mut self, selection: bool) {
        self.selection = selection;
    }

    /// Accepts up to `most` bytes of content as the answer to a request that was made.
    pub fn expect(&mut self, most: u32) {
        self.answer = Answer::Wanted(most);
    }

    /// Refuses the answer from now on; what of it has come in is discarded, and so is what will.
    pub fn give_up(&mut self) {
        if let State::Content { size, have, .. } = &self.state {
            let left = size.saturating_sub(*have);
            self.state = if left == 0 { State::START } else { State::Skip { left, asked: true } };
            self.answer = Answer::None;
        } else if self.answer != Answer::None {
            self.answer = Answer::Unwanted;
        }
    }

    /// Forgets the request, as whoever was asked is gone.
    pub fn forget(&mut self) {
        self.give_up();
        self.answer = Answer::None;
    }

    /// Returns whether the answer to a request is due, wanted or not. A request that is made now could be given that answer.
    #[must_use]
    pub fn awaits_answer(&self) -> bool {
        self.answer != Answer::None
    }

    /// Returns whether the answer to a request is due and wanted.
    #[must_use]
    pub fn wants_answer(&self) -> bool {
        matches!(self.answer, Answer::Wanted(_))
    }

    /// Returns whether what comes in is the rest of content that was asked for and is not wanted after all.
    #[must_use]
    pub fn drains(&self) -> bool {
        matches!(self.state, State::Skip { asked: true, .. })
    }

    /// Takes from `input` up to the end of one message, or all of it.
    ///
    /// # Errors
    /// The stream makes no sense; nothing after this means anything.
    pub fn read<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Read<'a>>, Nonsense> {
        while !input.is_empty() {
            if self.chunk_left == 0 {
                if fill(&mut self.chunk, &mut self.chunk_have, input) {
                    self.chunk_have = 0;
                    self.port = word(&self.chunk, 0).unwrap_or_default();
                    self.chunk_left = word(&self.chunk, 4).unwrap_or_default();
                    if self.port != PORT_CLIENT && self.port != PORT_SERVER {
                        return Err(Nonsense::Port(self.port));
                    }
                }
                continue;
            }
            let here = usize::try_from(self.chunk_left).unwrap_or(usize::MAX).min(input.len());
            let (mut part, later) = input.split_at(here);
            let read = if self.port == PORT_CLIENT {
                self.message(&mut part)
            } else {
                part = &[]; // what a guest tells a display server is none of ours
                Ok(None)
            };
            let used = here - part.len();
            self.chunk_left -= u32::try_from(used).unwrap_or(self.chunk_left);
            *input = input.get(used..).unwrap_or(later);
            if let Some(read) = read? {
                return Ok(Some(read));
            }
        }
        Ok(None)
    }

    /// Returns how many bytes are kept.
    #[must_use]
    pub fn kept(&self) -> usize {
        match &self.state {
            State::Small { body, .. } => body.capacity(),
            _ => 0,
        }
    }

    fn message<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Read<'a>>, Nonsense> {
        while !input.is_empty() {
            match &mut self.state {
                State::Header { bytes, have } => {
                    if !fill(bytes, have, input) {
                        return Ok(None);
                    }
                    let bytes = *bytes;
                    if let Some(read) = self.header(&bytes)? {
                        return Ok(Some(read));
                    }
                }
                State::Small { kind, size, body } => {
                    let want = usize::try_from(*size).unwrap_or(0).saturating_sub(body.len());
                    let (now, later) = input.split_at(want.min(input.len()));
                    body.extend_from_slice(now);
                    *input = later;
                    if now.len() < want {
                        return Ok(None);
                    }
                    let (kind, body) = (*kind, std::mem::take(body));
                    self.state = State::START;
                    if let Some(message) = self.small(kind, &body)? {
                        return Ok(Some(Read::Message(message)));
                    }
                }
                State::ContentStart { size, bytes, have } => {
                    let length = if self.selection { 8 } else { 4 };
                    if !fill(bytes.get_mut(..length).unwrap_or_default(), have, input) {
                        return Ok(None);
                    }
                    let (size, bytes) = (*size, *bytes);
                    if let Some(read) = self.content_start(size, &bytes, length) {
                        return Ok(Some(read));
                    }
                }
                State::Content { kind, size, have } => {
                    let (kind, size, at) = (*kind, *size, *have);
                    let want = usize::try_from(size.saturating_sub(at)).unwrap_or(usize::MAX);
                    let (bytes, later) = input.split_at(want.min(input.len()));
                    *input = later;
                    *have = at.saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
                    if *have >= size {
                        self.state = State::START;
                        self.answer = Answer::None;
                    }
                    return Ok(Some(Read::Content { kind, size, at, bytes }));
                }
                State::Skip { left, .. } => {
                    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                    *input = input.get(here..).unwrap_or_default();
                    *left -= u32::try_from(here).unwrap_or(*left);
                    if *left == 0 {
                        self.state = State::START;
                    }
                }
            }
        }
        Ok(None)
    }

    fn header(&mut self, bytes: &[u8]) -> Result<Option<Read<'static>>, Nonsense> {
        let at = |at| word(bytes, at).unwrap_or_default();
        let (protocol, kind, size) = (at(0), at(4), at(16));
        if protocol != PROTOCOL {
            return Err(Nonsense::Protocol(protocol));
        }
        if size > MESSAGE_MAX {
            return Err(Nonsense::Size { kind, size });
        }
        self.state = match kind {
            kind::CLIPBOARD => {
                let least = if self.selection { 8 } else { 4 };
                if size < least {
                    return Err(Nonsense::Short { kind, size });
                }
                State::ContentStart { size: size - least, bytes: [0; 8], have: 0 }
            }
            kind::ANNOUNCE_CAPABILITIES
            | kind::CLIPBOARD_GRAB
            | kind::CLIPBOARD_REQUEST
            | kind::CLIPBOARD_RELEASE => {
                if size > SMALL_MAX {
                    return Err(Nonsense::Size { kind, size });
                }
                if size == 0 {
                    self.state = State::START;
                    return Ok(self.small(kind, &[])?.map(Read::Message));
                }
                State::Small { kind, size, body: Vec::new() }
            }
            _ if size == 0 => State::START,
            _ => State::Skip { left: size, asked: false },
        };
        Ok(None)
    }

    fn content_start(
        &mut self,
        size: u32,
        bytes: &[u8; 8],
        length: usize,
    ) -> Option<Read<'static>> {
        let kind = word(bytes, length.saturating_sub(4)).unwrap_or_default();
        let selection = if self.selection { bytes.first() } else { None };
        let ours = selection.is_none_or(|selection| *selection == SELECTION_CLIPBOARD);
        let answer = if ours { self.answer } else { Answer::None };
        let asked = answer != Answer::None;
        self.state = if size == 0 { State::START } else { State::Skip { left: size, asked } };
        match answer {
            Answer::Wanted(most) if size <= most => {
                if size == 0 {
                    self.answer = Answer::None;
                    return Some(Read::Content { kind, size, at: 0, bytes: &[] });
                }
                self.state = State::Content { kind, size, have: 0 };
                None
            }
            Answer::Wanted(_) => {
                self.answer = Answer::None;
                Some(Read::TooLarge { bytes: size })
            }
            Answer::Unwanted => {
                self.answer = Answer::None;
                Some(Read::Late)
            }
            Answer::None => Some(Read::Unasked),
        }
    }

    /// Reads a small message; `None` if it is about another selection, of no interest.
    fn small(&self, kind: u32, body: &[u8]) -> Result<Option<Message>, Nonsense> {
        let short = || Nonsense::Short { kind, size: u32::try_from(body.len()).unwrap_or(0) };
        if kind == kind::ANNOUNCE_CAPABILITIES {
            let request = word(body, 0).ok_or_else(short)? != 0;
            let capabilities = Capabilities(word(body, 4).unwrap_or_default());
            return Ok(Some(Message::Announce { request, capabilities }));
        }
        let body = if self.selection {
            let (start, rest) = body.split_at_checked(4).ok_or_else(short)?;
            if start.first() != Some(&SELECTION_CLIPBOARD) {
                return Ok(None);
            }
            rest
        } else {
            body
        };
        Ok(match kind {
            kind::CLIPBOARD_GRAB => {
                let types = body.chunks_exact(4).take(GRAB_TYPES_MAX);
                Some(Message::Grab(types.filter_map(|bytes| word(bytes, 0)).collect()))
            }
            kind::CLIPBOARD_REQUEST => Some(Message::Request(word(body, 0).ok_or_else(short)?)),
            _ => Some(Message::Release),
        })
    }
}
