//! What waits to be sent to one guest.
//!
//! Of other domains' content nothing is offered or sent but [`PermittedContent`], and that to the domain of its permit alone.
//! It is not copied: a transfer holds the one there is, and makes its chunks as the guest takes them.
//!
//! What was written may lie in a socket for as long as the guest does not read, and cannot be called back from there. So content
//! goes out in three parts, each once the guest has taken all before it ([`Outbox::guest_took_all`]):
//!
//! ```text
//!  message's header | content but for its last byte | last byte
//! ```
//! A guest that does not read has no content lying in its socket, and never has a whole message there that was withdrawn:
//! [`Outbox::withdraw_content`] and the end of the stream leave it with a message that never becomes whole, which its agent drops.

use std::collections::VecDeque;
use std::sync::Arc;

use policy::language::MediaType;
use zeroize::Zeroizing;

use super::spec::content::NONE;
use super::spec::{
    CHUNK_HEADER, CHUNK_MAX, MESSAGE_HEADER, PORT_CLIENT, PROTOCOL, SELECTION_CLIPBOARD, kind,
};
use super::{Capabilities, Message, number};
use crate::grant::{DomainIndex, PermittedContent};

/// Messages that may wait beside one transfer of content. A guest that asks without reading gets no more answers.
const WAITING_MAX: usize = 64;

#[derive(Debug)]
struct Waiting {
    /// The header, and the body's start where there is content, the whole body where there is none.
    start: Vec<u8>,
    content: Option<Arc<PermittedContent>>,
    /// Bytes of both that are in chunks already.
    at: usize,
}

impl Waiting {
    fn len(&self) -> usize {
        self.start.len() + self.content.as_ref().map_or(0, |content| content.bytes().len())
    }

    /// Returns the bytes from `at`, as far as they lie together.
    fn rest(&self) -> &[u8] {
        match (self.start.get(self.at..), &self.content) {
            (Some(rest), _) if !rest.is_empty() => rest,
            (_, Some(content)) => {
                let at = self.at.saturating_sub(self.start.len());
                content.bytes().get(at..).unwrap_or_default()
            }
            _ => &[],
        }
    }
}

/// What waits to be sent to one guest's agent, and the part of it that is ready to be written.
#[derive(Debug)]
pub struct Outbox {
    domain: DomainIndex,
    waiting: VecDeque<Waiting>,
    /// Bytes of chunks that are made and not taken yet.
    ready: Zeroizing<Vec<u8>>,
    taken: usize,
    /// Whether clipboard messages name their selection.
    selection: bool,
    /// Part of a message with content is written, and not all of it is taken by the guest.
    sending: bool,
    /// Nothing more is made ready before the guest has taken all that was written.
    gated: bool,
}

impl Outbox {
    /// Makes that of this domain's guest, with nothing in it.
    #[must_use]
    pub fn of(domain: DomainIndex) -> Self {
        Self {
            domain,
            waiting: VecDeque::new(),
            ready: Zeroizing::default(),
            taken: 0,
            selection: false,
            sending: false,
            gated: false,
        }
    }

    /// Sets whether clipboard messages begin with the selection.
    pub fn set_selection(&mut self, selection: bool) {
        self.selection = selection;
    }

    /// Announces what this end can do. `false`, as of all that follow: too much waits already, and it is not sent.
    pub fn announce(&mut self, request: bool) -> bool {
        self.send(&Message::Announce { request, capabilities: Capabilities::OURS })
    }

    /// Tells the size of the screen, in pixels.
    pub fn tell_screen(&mut self, (width, height): (u32, u32)) -> bool {
        self.send(&Message::Monitor { width, height })
    }

    /// Asks for what the guest has in its clipboard, as this type.
    pub fn ask(&mut self, media_type: MediaType) -> bool {
        number(media_type).is_some_and(|number| self.send(&Message::Request(number)))
    }

    /// Offers content, which the guest's programs may ask for from now on. `false` also if it is permitted to another domain.
    pub fn offer(&mut self, content: &PermittedContent) -> bool {
        let number = number(content.media_type()).filter(|_| content.to() == self.domain);
        number.is_some_and(|number| self.send(&Message::Grab(vec![number])))
    }

    /// Takes the offer back.
    pub fn release(&mut self) -> bool {
        self.send(&Message::Release)
    }

    /// Answers a request with content. `false` also if content waits already, or if it is permitted to another domain.
    pub fn send_content(&mut self, content: Arc<PermittedContent>) -> bool {
        let number = number(content.media_type()).filter(|_| content.to() == self.domain);
        let free = !self.sends_content();
        number.is_some_and(|number| free && self.answer(number, Some(content)))
    }

    /// Answers a request with nothing.
    pub fn send_no_content(&mut self) -> bool {
        self.answer(NONE, None)
    }

    fn send(&mut self, message: &Message) -> bool {
        let (kind, body) = message.encode(self.selection);
        self.push(kind, &body, None)
    }

    fn answer(&mut self, number: u32, content: Option<Arc<PermittedContent>>) -> bool {
        let selection: &[u8] = if self.selection { &[SELECTION_CLIPBOARD, 0, 0, 0] } else { &[] };
        self.push(kind::CLIPBOARD, &[selection, &number.to_le_bytes()].concat(), content)
    }

    fn push(&mut self, kind: u32, body: &[u8], content: Option<Arc<PermittedContent>>) -> bool {
        let size = body.len() + content.as_ref().map_or(0, |content| content.bytes().len());
        let Ok(size) = u32::try_from(size) else { return false };
        if self.waiting.len() >= WAITING_MAX {
            return false;
        }
        let mut start = Vec::with_capacity(MESSAGE_HEADER + body.len());
        start.extend(PROTOCOL.to_le_bytes());
        start.extend(kind.to_le_bytes());
        start.extend(0u64.to_le_bytes());
        start.extend(size.to_le_bytes());
        start.extend(body);
        self.waiting.push_back(Waiting { start, content, at: 0 });
        true
    }

    /// Returns whether content is on its way.
    #[must_use]
    pub fn sends_content(&self) -> bool {
        self.sending || self.waiting.iter().any(|waiting| waiting.content.is_some())
    }

    /// Withdraws the content that waits. `false`: part of it is out already, and the stream must end for it not to arrive.
    #[must_use]
    pub fn withdraw_content(&mut self) -> bool {
        if self.sending {
            return false;
        }
        let before = self.waiting.len();
        self.waiting.retain(|waiting| waiting.content.is_none());
        if self.waiting.len() < before {
            // Whoever asked for it waits for an answer.
            self.send_no_content();
        }
        true
    }

    /// Returns whether there is nothing to write before the guest has taken what was written.
    #[must_use]
    pub fn waits_for_guest(&self) -> bool {
        self.gated && self.ready.is_empty()
    }

    /// Handles that the guest has taken everything that was written.
    pub fn guest_took_all(&mut self) {
        if self.waits_for_guest() {
            self.gated = false;
            self.sending &= self.waiting.front().is_some_and(|waiting| waiting.at > 0);
        }
    }

    /// Returns whether there is nothing to send, and nothing to wait for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.ready.is_empty() && !self.gated
    }

    /// Returns the bytes to write now; none when nothing waits. At most `most` bytes are made ready, rounded up to a chunk.
    pub fn bytes(&mut self, most: usize) -> &[u8] {
        if self.ready.is_empty() {
            // Large enough for all of it: a buffer that grows leaves copies behind that nobody wipes.
            let most_made = most.saturating_add(CHUNK_HEADER + CHUNK_MAX);
            while !self.gated && self.ready.len() < most && self.chunk(most_made) {}
        }
        self.ready.get(self.taken..).unwrap_or_default()
    }

    /// Removes the first `count` of [`Self::bytes`], which are written.
    pub fn took(&mut self, count: usize) {
        self.taken = self.taken.saturating_add(count);
        if self.taken >= self.ready.len() {
            // Wiped as it is dropped.
            self.ready = Zeroizing::default();
            self.taken = 0;
        }
    }

    fn chunk(&mut self, most_made: usize) -> bool {
        let Some(waiting) = self.waiting.front_mut() else { return false };
        let left = waiting.len() - waiting.at.min(waiting.len());
        let part = match &waiting.content {
            None => left,
            Some(_) if waiting.at == 0 => waiting.start.len(),
            Some(_) => left.saturating_sub(1).max(1),
        };
        let size = part.min(CHUNK_MAX);
        if waiting.content.is_some() {
            self.sending = true;
            self.gated = size == part;
        }
        if self.ready.capacity() == 0 {
            self.ready.reserve_exact(most_made);
        }
        self.ready.extend(PORT_CLIENT.to_le_bytes());
        self.ready.extend(u32::try_from(size).unwrap_or_default().to_le_bytes());
        let mut left = size;
        while left > 0 {
            let rest = waiting.rest();
            let part = rest.get(..left.min(rest.len())).unwrap_or_default();
            if part.is_empty() {
                break;
            }
            self.ready.extend_from_slice(part);
            left -= part.len();
            waiting.at += part.len();
        }
        if waiting.at >= waiting.len() {
            self.waiting.pop_front();
        }
        true
    }

    /// Returns how many bytes are kept, content that is shared left out.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        let waiting: usize = self.waiting.iter().map(|waiting| waiting.start.capacity()).sum();
        waiting + self.ready.capacity()
    }

    /// Drops all that waits, as the connection is gone.
    pub fn clear(&mut self) {
        *self = Self::of(self.domain);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grant::Paste;

    #[test]
    fn what_is_permitted_to_one_domain_is_neither_offered_nor_sent_to_another() {
        let content = Arc::new(b"one".to_vec().into());
        let judged = (MediaType::TextPlain, 3);
        let paste = Paste { id: 1, from: 0, to: 1, judged, media_type: judged.0, content };
        let permit = monitor::testing::permit(paste, 1);
        let content = Arc::new(PermittedContent::by(permit, false));
        let mut others = Outbox::of(2);
        assert!(!others.offer(&content));
        assert!(!others.send_content(Arc::clone(&content)));
        assert!(others.is_empty());
        let mut its = Outbox::of(1);
        assert!(its.offer(&content));
        assert!(its.send_content(content));
        assert!(its.sends_content());
    }
}
