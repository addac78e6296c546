//! What the agent and the worker that reads one guest's clipboard protocol ([`Role::Clipboard`](super::Role::Clipboard)) say to each other.
//!
//! Each message is one packet: numbers of 32 bits, little-endian, the first of which says what it is.
//!
//! | from | first | then | what |
//! | --- | --- | --- | --- |
//! | agent | | [`START`] | the first message, with one descriptor: the file that content is written to, of [`CONTENT_MAX`] bytes and no other length |
//! | | 1 | number, most | [`Command::Expect`] |
//! | | 2 | number | [`Command::GiveUp`] |
//! | | 3 | number | [`Command::Forget`] |
//! | worker | 1 | 0 or 1, capabilities | [`Event::Announce`] |
//! | | 2 | up to [`GRAB_TYPES_MAX`] types | [`Event::Grab`] |
//! | | 3 | type | [`Event::Request`] |
//! | | 4 | | [`Event::Release`] |
//! | | 5 | number | [`Event::Ready`] |
//! | | 6 | number | [`Event::Progress`] |
//! | | 7 | number, type, bytes | [`Event::Content`], which is in the file by then |
//! | | 8 | number, bytes | [`Event::TooLarge`] |
//! | | 9 | 1 to 4, two numbers | [`Event::Nonsense`] |
//! | | 10 | | [`Event::Ended`] |
//! | | 11 | | [`Event::Unannounced`] |
//!
//! A request to the guest for its clipboard has a number, which is the agent's: what is said of an earlier one counts for nothing.
//!
//! ```text
//!  agent                       worker                    guest
//!    | ---- Expect 7 ----------> |                          |
//!    |                           | (the answer to an earlier request, if one is due, comes and is dropped)
//!    | <--- Ready 7 ------------ |                          |
//!    | ---- request ----------------------------------------> |
//!    | <--- Progress 7 --------- | <---- content ---------- |
//!    | <--- Content 7 ---------- |                          |
//! ```
//! Both readers are total: what is not exactly this is no message.

use super::{CONTENT_MAX, Malformed, number};

/// What the agent begins with, and the worker knows its version by.
pub const START: [u8; 8] = *b"BHCLIP01";
/// Types of content that are told of one grab.
pub const GRAB_TYPES_MAX: usize = 16;
/// Address space of the worker, in bytes: the program, which has the decoders of pictures in it too, and some buffers. Content goes to the file.
pub const MEMORY_MAX: u64 = 96 << 20;

/// A command of the agent's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// The guest is to be asked for its clipboard: [`Event::Ready`] says when, and from then on up to `most` bytes are accepted as its answer.
    Expect {
        /// The request's number.
        number: u32,
        /// Most bytes of the answer; [`CONTENT_MAX`] at most.
        most: u32,
    },
    /// Nobody wants the answer any more. If it is due, it is dropped when it comes.
    GiveUp {
        /// The request's number.
        number: u32,
    },
    /// The guest was not asked after all: no answer is due.
    Forget {
        /// The request's number.
        number: u32,
    },
}

/// Why a guest's stream cannot be followed any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Nonsense {
    /// A chunk for neither of the two there are.
    #[error("a chunk for port {0}, which does not exist")]
    Port(u32),
    /// Another version, or no message at all.
    #[error("a message of protocol {0}, not 1")]
    Protocol(u32),
    /// A size beyond reason.
    #[error("a message of type {kind} that claims {size} bytes")]
    Size {
        /// The message's type.
        kind: u32,
        /// Size of its content by its header, in bytes.
        size: u32,
    },
    /// A body too short for its type.
    #[error("a message of type {kind} with {size} bytes, too short for it")]
    Short {
        /// The message's type.
        kind: u32,
        /// Bytes of its body.
        size: u32,
    },
}

/// What the worker has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// What the guest's agent can do.
    Announce {
        /// Whether the other end is to answer with its own: it has just begun.
        request: bool,
        /// A bit for each thing.
        capabilities: u32,
    },
    /// The guest has content of these types, [`GRAB_TYPES_MAX`] at most.
    Grab(Vec<u32>),
    /// A program of the guest's wants what is offered to it, as this type.
    Request(u32),
    /// The guest has none any more.
    Release,
    /// The guest may be asked now: no answer to an earlier request is due.
    Ready {
        /// The request's number.
        number: u32,
    },
    /// Part of the answer has come.
    Progress {
        /// The request's number.
        number: u32,
    },
    /// The answer has come, and is in the file.
    Content {
        /// The request's number.
        number: u32,
        /// Its type, as the guest says.
        kind: u32,
        /// Its bytes; [`CONTENT_MAX`] at most.
        length: u32,
    },
    /// The answer has more bytes than are accepted, and is dropped.
    TooLarge {
        /// The request's number.
        number: u32,
        /// Bytes that the guest says it has.
        bytes: u32,
    },
    /// The guest's stream makes no sense. Nothing comes after this.
    Nonsense(Nonsense),
    /// The guest's stream has ended. Nothing comes after this.
    Ended,
    /// Bytes of the guest were read, and its agent has not announced itself: what reads them does not hang, whatever lies unread. Said once a second at most.
    Unannounced,
}

/// Most bytes of a command.
pub const COMMAND_MAX: usize = 12;

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn end(bytes: &[u8]) -> Result<(), Malformed> {
    if bytes.is_empty() { Ok(()) } else { Err(Malformed("it goes on behind its end")) }
}

fn content_bytes(bytes: u32) -> Result<u32, Malformed> {
    if bytes <= CONTENT_MAX { Ok(bytes) } else { Err(Malformed("it is about too many bytes")) }
}

impl Command {
    /// Returns it as a message.
    #[must_use]
    pub fn message(self) -> Vec<u8> {
        match self {
            Self::Expect { number, most } => words(&[1, number, most]),
            Self::GiveUp { number } => words(&[2, number]),
            Self::Forget { number } => words(&[3, number]),
        }
    }

    /// Reads a message.
    ///
    /// # Errors
    /// It is none of the agent's.
    pub fn read(mut bytes: &[u8]) -> Result<Self, Malformed> {
        let (what, asked) = (number(&mut bytes)?, number(&mut bytes)?);
        let command = match what {
            1 => Self::Expect { number: asked, most: content_bytes(number(&mut bytes)?)? },
            2 => Self::GiveUp { number: asked },
            3 => Self::Forget { number: asked },
            _ => return Err(Malformed("it is a command that there is not")),
        };
        end(bytes)?;
        Ok(command)
    }
}

impl Nonsense {
    const fn words(self) -> [u32; 3] {
        match self {
            Self::Port(port) => [1, port, 0],
            Self::Protocol(protocol) => [2, protocol, 0],
            Self::Size { kind, size } => [3, kind, size],
            Self::Short { kind, size } => [4, kind, size],
        }
    }

    fn read(bytes: &mut &[u8]) -> Result<Self, Malformed> {
        Ok(match (number(bytes)?, number(bytes)?, number(bytes)?) {
            (1, port, 0) => Self::Port(port),
            (2, protocol, 0) => Self::Protocol(protocol),
            (3, kind, size) => Self::Size { kind, size },
            (4, kind, size) => Self::Short { kind, size },
            _ => return Err(Malformed("the stream makes no sense for no reason there is")),
        })
    }
}

impl Event {
    /// Returns it as a message.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        match self {
            Self::Announce { request, capabilities } => {
                words(&[1, u32::from(*request), *capabilities])
            }
            Self::Grab(types) => {
                let types = types.get(..GRAB_TYPES_MAX).unwrap_or(types);
                words(&[&[2], types].concat())
            }
            Self::Request(kind) => words(&[3, *kind]),
            Self::Release => words(&[4]),
            Self::Ready { number } => words(&[5, *number]),
            Self::Progress { number } => words(&[6, *number]),
            Self::Content { number, kind, length } => words(&[7, *number, *kind, *length]),
            Self::TooLarge { number, bytes } => words(&[8, *number, *bytes]),
            Self::Nonsense(why) => words(&[&[9], &why.words()[..]].concat()),
            Self::Ended => words(&[10]),
            Self::Unannounced => words(&[11]),
        }
    }

    /// Reads a message.
    ///
    /// # Errors
    /// It is none of a worker's.
    pub fn read(mut bytes: &[u8]) -> Result<Self, Malformed> {
        let event = match number(&mut bytes)? {
            1 => {
                let request = match number(&mut bytes)? {
                    0 => false,
                    1 => true,
                    _ => return Err(Malformed("it neither asks nor does not")),
                };
                Self::Announce { request, capabilities: number(&mut bytes)? }
            }
            2 => {
                let mut types = Vec::new();
                while !bytes.is_empty() && types.len() < GRAB_TYPES_MAX {
                    types.push(number(&mut bytes)?);
                }
                Self::Grab(types)
            }
            3 => Self::Request(number(&mut bytes)?),
            4 => Self::Release,
            5 => Self::Ready { number: number(&mut bytes)? },
            6 => Self::Progress { number: number(&mut bytes)? },
            7 => Self::Content {
                number: number(&mut bytes)?,
                kind: number(&mut bytes)?,
                length: content_bytes(number(&mut bytes)?)?,
            },
            8 => Self::TooLarge { number: number(&mut bytes)?, bytes: number(&mut bytes)? },
            9 => Self::Nonsense(Nonsense::read(&mut bytes)?),
            10 => Self::Ended,
            11 => Self::Unannounced,
            _ => return Err(Malformed("it is an event that there is not")),
        };
        end(bytes)?;
        Ok(event)
    }
}

/// Reads any bytes as a message of each end, for agent/fuzz: what is read is written as it was.
#[cfg(any(test, feature = "fuzzing"))]
pub fn fuzz(input: &[u8]) {
    if let Ok(command) = Command::read(input) {
        assert_eq!(command.message(), input, "a command is read as it is written");
        assert!(input.len() <= COMMAND_MAX);
    }
    if let Ok(event) = Event::read(input) {
        assert_eq!(event.message(), input, "an event is read as it is written");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn commands() -> [Command; 4] {
        [
            Command::Expect { number: 7, most: CONTENT_MAX },
            Command::Expect { number: u32::MAX, most: 0 },
            Command::GiveUp { number: 7 },
            Command::Forget { number: 0 },
        ]
    }

    fn events() -> Vec<Event> {
        vec![
            Event::Announce { request: true, capabilities: u32::MAX },
            Event::Announce { request: false, capabilities: 0 },
            Event::Grab(vec![]),
            Event::Grab((0..16).collect()),
            Event::Request(1),
            Event::Release,
            Event::Ready { number: 7 },
            Event::Progress { number: 7 },
            Event::Content { number: 7, kind: 1, length: CONTENT_MAX },
            Event::TooLarge { number: 7, bytes: u32::MAX },
            Event::Nonsense(Nonsense::Port(3)),
            Event::Nonsense(Nonsense::Protocol(2)),
            Event::Nonsense(Nonsense::Size { kind: 4, size: u32::MAX }),
            Event::Nonsense(Nonsense::Short { kind: 8, size: 0 }),
            Event::Ended,
            Event::Unannounced,
        ]
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_as_it_is_written_or_none(
            first in 0u32..13,
            words in prop::collection::vec(prop_oneof![0u32..5, any::<u32>()], 0..20),
            rest in prop::collection::vec(any::<u8>(), 0..4),
        ) {
            let words = words.iter().flat_map(|word| word.to_le_bytes());
            let bytes: Vec<u8> = first.to_le_bytes().into_iter().chain(words).collect();
            fuzz(&bytes);
            fuzz(&[bytes, rest].concat());
        }
    }

    #[test]
    fn what_is_written_is_read_and_nothing_that_is_longer_or_shorter() {
        for command in commands() {
            let message = command.message();
            assert_eq!(Command::read(&message), Ok(command));
            assert!(Command::read(&message[..message.len() - 1]).is_err(), "{command:?}");
            assert!(Command::read(&[&message[..], &[0]].concat()).is_err(), "{command:?}");
        }
        for event in events() {
            let message = event.message();
            assert!(message.len() <= super::super::MESSAGE_MAX);
            assert_eq!(Event::read(&message), Ok(event.clone()));
            assert!(Event::read(&message[..message.len() - 1]).is_err(), "{event:?}");
            assert!(Event::read(&[&message[..], &[0]].concat()).is_err(), "{event:?}");
        }
    }

    #[test]
    fn no_more_types_and_no_more_bytes_are_told_than_there_may_be() {
        let types: Vec<u32> = (0..17).collect();
        let told = Event::read(&Event::Grab(types.clone()).message());
        assert_eq!(told, Ok(Event::Grab(types[..16].to_vec())));
        assert!(Event::read(&words(&[&[2], &types[..]].concat())).is_err());
        assert!(Event::read(&words(&[7, 1, 1, CONTENT_MAX + 1])).is_err());
        assert!(Command::read(&words(&[1, 1, CONTENT_MAX + 1])).is_err());
    }
}
