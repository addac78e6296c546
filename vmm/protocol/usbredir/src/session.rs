//! One end of a stream: the hello, then packets both ways.

use crate::packet::{Body, MAX_DATA, Packet};
use crate::wire::{self, Capabilities, Error, Role, capability, kind};

/// Bytes of a header with a long ID.
const HEADER_MAX: usize = 16;
/// Longest packet: a header, the longest type's own header, data.
const PACKET_MAX: usize = HEADER_MAX + 256 + MAX_DATA;

/// One end of a stream of packets. Bytes go in by [`Self::feed`], and packets come out by [`Self::next`]; packets go in by [`Self::send`], and
/// bytes come out by [`Self::output`].
#[derive(Debug)]
pub struct Session {
    role: Role,
    /// What both ends have, once the other has said hello.
    agreed: Option<Capabilities>,
    input: Vec<u8>,
    /// Bytes of `input` that are used up.
    used: usize,
    output: Vec<u8>,
    sent: usize,
}

impl Session {
    /// Makes an end whose hello, with `version` as the name of the program, is the first thing to send.
    #[must_use]
    pub fn new(role: Role, version: &str) -> Self {
        let mut output = Vec::new();
        let hello = Packet {
            id: 0,
            body: Body::Hello {
                version: version.to_owned(),
                capabilities: vec![Capabilities::OURS.0],
            },
        };
        // One of our own making fits.
        let _ = wire::encode(&hello, role, Capabilities::default(), &mut output);
        Self { role, agreed: None, input: Vec::new(), used: 0, output, sent: 0 }
    }

    /// Returns what both ends can do; none before the other's hello.
    #[must_use]
    pub fn agreed(&self) -> Option<Capabilities> {
        self.agreed
    }

    /// Returns how many more bytes may be fed now; 0 while whole packets wait for [`Self::next`].
    #[must_use]
    pub fn room(&self) -> usize {
        PACKET_MAX.saturating_sub(self.input.len() - self.used)
    }

    /// Takes bytes from the other end; returns how many, which is at most [`Self::room`].
    pub fn feed(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.get(..bytes.len().min(self.room())).unwrap_or_default();
        if self.used > 0 {
            self.input.drain(..self.used);
            self.used = 0;
        }
        self.input.extend_from_slice(taken);
        taken.len()
    }

    fn other(&self) -> Role {
        match self.role {
            Role::Host => Role::Guest,
            Role::Guest => Role::Host,
        }
    }

    /// Takes the next whole packet, if there is one. The other's hello comes out as well.
    ///
    /// # Errors
    /// The stream makes no sense; nothing after this means anything.
    #[expect(clippy::should_implement_trait, reason = "it can fail, and more may come after None")]
    pub fn next(&mut self) -> Result<Option<Packet>, Error> {
        loop {
            let caps = self.agreed.unwrap_or_default();
            let bytes = self.input.get(self.used..).unwrap_or_default();
            let long = caps.has(capability::IDS_64_BITS);
            let header = if long { 16 } else { 12 };
            let Some((head, rest)) = bytes.split_at_checked(header) else { return Ok(None) };
            let word = |at: usize| -> u32 {
                let bytes = head.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
                u32::from_le_bytes(bytes.unwrap_or_default())
            };
            let (kind, length) = (word(0), word(4));
            let id = if long {
                u64::from(word(8)) | u64::from(word(12)) << 32
            } else {
                u64::from(word(8))
            };
            match (kind, self.agreed) {
                (kind::HELLO, Some(_)) => return Err(Error::SecondHello),
                (kind::HELLO, None) | (_, Some(_)) => {}
                (_, None) => return Err(Error::NoHello(kind)),
            }
            let length = wire::check(kind, length, self.other(), caps)?;
            let Some(body) = rest.get(..length) else { return Ok(None) };
            let body = wire::decode(kind, body, self.other(), caps)?;
            self.used += header + length;
            match body {
                Some(body) => {
                    if let Body::Hello { capabilities, .. } = &body {
                        let theirs = capabilities.first().copied().unwrap_or_default();
                        self.agreed = Some(Capabilities::OURS.and(Capabilities(theirs)));
                    }
                    return Ok(Some(Packet { id, body }));
                }
                None => continue, // about filters, which bind nobody here
            }
        }
    }

    /// Queues a packet for sending.
    ///
    /// # Errors
    /// It cannot be: before the other's hello, or longer than its capabilities allow.
    pub fn send(&mut self, packet: &Packet) -> Result<(), Error> {
        let caps = self.agreed.ok_or_else(|| Error::CannotSend(wire::kind_of(&packet.body)))?;
        if self.sent > 0 && (self.sent >= self.output.len() / 2 || self.sent >= PACKET_MAX) {
            self.output.drain(..self.sent);
            self.sent = 0;
        }
        if self.output.len() > PACKET_MAX {
            // Far behind: no more room than it takes.
            self.output.reserve_exact(PACKET_MAX);
        }
        let before = self.output.len();
        wire::encode(packet, self.role, caps, &mut self.output)
            .inspect_err(|_| self.output.truncate(before))
    }

    /// Returns the bytes for the other end. Whoever owns the session stops making packets while there are many.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        self.output.get(self.sent..).unwrap_or_default()
    }

    /// Drops so many bytes of [`Self::output`], which are on their way.
    pub fn sent(&mut self, count: usize) {
        self.sent = self.sent.saturating_add(count).min(self.output.len());
        if self.sent == self.output.len() {
            self.output.clear();
            self.sent = 0;
            // What one large burst took is not kept for ever.
            self.output.shrink_to(PACKET_MAX);
        }
    }
}

#[cfg(test)]
mod tests;
