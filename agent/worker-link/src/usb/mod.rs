//! What the agent and the worker that serves a USB device say to each other.
//!
//! The worker is started with the stream to the VMM as its standard input and the channel as its standard output. The first message is [`Start`]; with it
//! come the device's open node in usbfs, and a file in memory that holds the [`Job`]. Then each side says what it has to:
//!
//! | who | message | bytes |
//! | --- | --- | --- |
//! | agent | [`Start`] | `10`, [`START_MAGIC`], 1 for a whole device, 0 for a part |
//! | | [`Command::Flush`] | `11` |
//! | | [`Command::Close`] | `12` |
//! | | [`Command::Done`] | `13`, the configuration, 1 byte |
//! | | [`Command::Ask`] | `14` |
//! | worker | [`Message::Authorise`] | `01` |
//! | | [`Message::Begun`] | `02` |
//! | | [`Message::Refused`] | `03`, how often (8 bytes), what, in words |
//! | | [`Message::Detached`] | `04`, [`Reason`] (1 byte), [`Counts`], why, in words |
//! | | [`Message::Failed`] | `05`, why, in words |
//! | | [`Message::Serving`] | `06` |
//!
//! A message is one packet. Numbers are little-endian, words UTF-8 up to the end, at most [`WORDS_MAX`] bytes. All readers are total: what is not exactly this
//! is no message.

mod job;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use job::{JOB_MAX, Job, OTHERS_MAX, Speed};

use super::{Malformed, length, take};

/// What a start begins with, behind its first byte.
pub const START_MAGIC: [u8; 8] = *b"BHUSB002";
/// Most bytes of words in a message: a sentence or two.
pub const WORDS_MAX: usize = 512;
/// The longest message of a worker's, in bytes: totals, each command of which there are any, words.
const MESSAGE_MAX: usize = 2 + 3 * 8 + 256 * 9 + 2 + WORDS_MAX;

/// The first message: what comes with it is to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// All of the device is served, so that the worker may reset and configure it.
    pub whole: bool,
}

/// What the agent tells the worker of a device afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Report what was refused again and again.
    Flush,
    /// Disconnect the guest and end.
    Close,
    /// The interfaces are authorised, and this is the `bConfigurationValue` of the configuration that the device is in: the answer to
    /// [`Message::Authorise`].
    Done(u8),
    /// Say that the device is still served, which is [`Message::Serving`].
    Ask,
}

/// What a worker tells the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Interfaces came anew with a configuration: authorise those that are served.
    Authorise,
    /// The guest has the device now.
    Begun,
    /// The filter refused something.
    Refused {
        /// How often, since it was last told.
        times: u64,
        /// What the guest asked for, in words.
        what: String,
    },
    /// The guest no longer has the device. The device is let go next, which may take its time.
    Detached {
        /// What kind of reason there is.
        reason: Reason,
        /// What was transferred until then.
        counts: Counts,
        /// The reason, in words; none if it was told to close.
        why: String,
    },
    /// The device could not be had: why, in words. The guest has seen nothing of it.
    Failed(String),
    /// The device is still served: the answer to [`Command::Ask`], once for each.
    Serving,
}

/// Why a device was taken out of its domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// The worker was told to close.
    Told = 0,
    /// The VMM hung up.
    NoVmm = 1,
    /// The device was pulled out, or fails.
    NoDevice = 2,
    /// The device did not come back from a reset.
    Lost = 3,
    /// The device has other descriptors than before.
    Changed = 4,
    /// The device violated the protocol of its class.
    Broken = 5,
    /// The usbredir stream was violated, or failed.
    Stream = 6,
}

impl Reason {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Told,
        Self::NoVmm,
        Self::NoDevice,
        Self::Lost,
        Self::Changed,
        Self::Broken,
        Self::Stream,
    ];
}

/// The totals of what passed and what was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Bytes of data that went to the device.
    pub to_device: u64,
    /// Bytes of data that went to the guest.
    pub to_guest: u64,
    /// Refusals of any kind.
    pub refused: u64,
    /// SCSI commands of the guest by opcode.
    pub commands: BTreeMap<u8, u64>,
}

const AUTHORISE: u8 = 0x01;
const BEGUN: u8 = 0x02;
const REFUSED: u8 = 0x03;
const DETACHED: u8 = 0x04;
const FAILED: u8 = 0x05;
const SERVING: u8 = 0x06;
const START: u8 = 0x10;
const FLUSH: u8 = 0x11;
const CLOSE: u8 = 0x12;
const DONE: u8 = 0x13;
const ASK: u8 = 0x14;

impl Start {
    /// Returns it as it is sent.
    #[must_use]
    pub fn write(self) -> Vec<u8> {
        [&[START][..], &START_MAGIC, &[u8::from(self.whole)]].concat()
    }

    /// Reads the first message of the channel.
    ///
    /// # Errors
    /// It is none of this version's.
    pub fn read(mut bytes: &[u8]) -> Result<Self, Malformed> {
        if take(&mut bytes)? != [START] || take(&mut bytes)? != START_MAGIC {
            return Err(Malformed("it does not begin as a start does"));
        }
        let whole = boolean(&mut bytes)?;
        nothing_more(bytes)?;
        Ok(Self { whole })
    }
}

impl Command {
    /// Returns it as it is sent.
    #[must_use]
    pub fn write(self) -> Vec<u8> {
        match self {
            Self::Flush => vec![FLUSH],
            Self::Close => vec![CLOSE],
            Self::Done(configuration) => vec![DONE, configuration],
            Self::Ask => vec![ASK],
        }
    }

    /// Reads a message of the agent's.
    ///
    /// # Errors
    /// It is none of this version's.
    pub fn read(mut bytes: &[u8]) -> Result<Self, Malformed> {
        let command = match take(&mut bytes)? {
            [FLUSH] => Self::Flush,
            [CLOSE] => Self::Close,
            [DONE] => {
                let [configuration] = take(&mut bytes)?;
                Self::Done(configuration)
            }
            [ASK] => Self::Ask,
            _ => return Err(Malformed("it is of a kind that there is not")),
        };
        nothing_more(bytes)?;
        Ok(command)
    }
}

impl Message {
    /// Returns it as it is sent. Words that are too long are cut.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        match self {
            Self::Authorise => vec![AUTHORISE],
            Self::Begun => vec![BEGUN],
            Self::Refused { times, what } => {
                [&[REFUSED][..], &times.to_le_bytes(), cut(what).as_bytes()].concat()
            }
            Self::Detached { reason, counts, why } => {
                let mut bytes = vec![DETACHED, *reason as u8];
                for total in [counts.to_device, counts.to_guest, counts.refused] {
                    bytes.extend(total.to_le_bytes());
                }
                // There are 256 opcodes.
                let number = u16::try_from(counts.commands.len()).unwrap_or(u16::MAX);
                bytes.extend(number.to_le_bytes());
                for (opcode, times) in &counts.commands {
                    bytes.push(*opcode);
                    bytes.extend(times.to_le_bytes());
                }
                bytes.extend(cut(why).as_bytes());
                bytes
            }
            Self::Failed(why) => [&[FAILED][..], cut(why).as_bytes()].concat(),
            Self::Serving => vec![SERVING],
        }
    }

    /// Reads a message of a worker's.
    ///
    /// # Errors
    /// It is none of this version's.
    pub fn read(mut bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > MESSAGE_MAX {
            return Err(Malformed("it is longer than any"));
        }
        Ok(match take(&mut bytes)? {
            [AUTHORISE] => {
                nothing_more(bytes)?;
                Self::Authorise
            }
            [BEGUN] => {
                nothing_more(bytes)?;
                Self::Begun
            }
            [REFUSED] => Self::Refused { times: length(&mut bytes)?, what: words(bytes)? },
            [DETACHED] => {
                let [number] = take(&mut bytes)?;
                let reason = Reason::ALL.into_iter().find(|known| *known as u8 == number);
                let reason = reason.ok_or(Malformed("it has a reason that there is not"))?;
                let counts = counts(&mut bytes)?;
                Self::Detached { reason, counts, why: words(bytes)? }
            }
            [FAILED] => Self::Failed(words(bytes)?),
            [SERVING] => {
                nothing_more(bytes)?;
                Self::Serving
            }
            _ => return Err(Malformed("it is of a kind that there is not")),
        })
    }
}

fn counts(bytes: &mut &[u8]) -> Result<Counts, Malformed> {
    let (to_device, to_guest, refused) = (length(bytes)?, length(bytes)?, length(bytes)?);
    let mut commands = BTreeMap::new();
    for _ in 0..u16::from_le_bytes(take(bytes)?) {
        let [opcode] = take(bytes)?;
        // In order, each once.
        if commands.last_key_value().is_some_and(|(last, _)| *last >= opcode) {
            return Err(Malformed("it counts a command twice"));
        }
        commands.insert(opcode, length(bytes)?);
    }
    Ok(Counts { to_device, to_guest, refused, commands })
}

fn boolean(bytes: &mut &[u8]) -> Result<bool, Malformed> {
    match take(bytes)? {
        [0] => Ok(false),
        [1] => Ok(true),
        _ => Err(Malformed("it says neither yes nor no")),
    }
}

fn words(bytes: &[u8]) -> Result<String, Malformed> {
    if bytes.len() > WORDS_MAX {
        return Err(Malformed("its words are too many"));
    }
    String::from_utf8(bytes.to_vec()).map_err(|_| Malformed("its words are none"))
}

const fn nothing_more(bytes: &[u8]) -> Result<(), Malformed> {
    if bytes.is_empty() { Ok(()) } else { Err(Malformed("more follows")) }
}

/// Cuts words behind a character, so that they are no longer than they may be.
fn cut(words: &str) -> &str {
    let mut end = words.len().min(WORDS_MAX);
    while !words.is_char_boundary(end) {
        end -= 1;
    }
    words.get(..end).unwrap_or_default()
}

/// Reads any bytes as each message and as a job, for agent/fuzz: what is read is written as it was.
#[cfg(any(test, feature = "fuzzing"))]
pub fn fuzz(input: &[u8]) {
    if let Ok(start) = Start::read(input) {
        assert_eq!(start.write(), input, "a start is read as it is written");
    }
    if let Ok(command) = Command::read(input) {
        assert_eq!(command.write(), input, "a command is read as it is written");
    }
    if let Ok(message) = Message::read(input) {
        assert_eq!(message.write(), input, "a message is read as it is written");
    }
    if let Ok(job) = Job::read(input) {
        assert_eq!(job.write(), input, "a job is read as it is written");
    }
}
