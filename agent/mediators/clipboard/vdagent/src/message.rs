//! Messages as data.

use super::spec::{SELECTION_CLIPBOARD, capability, kind};

/// What an end can do: bits by number, of which only the first 32 mean anything here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(pub u32);

impl Capabilities {
    /// What this end announces.
    pub const OURS: Self = Self(
        1 << capability::MONITORS_CONFIG
            | 1 << capability::CLIPBOARD_BY_DEMAND
            | 1 << capability::CLIPBOARD_SELECTION
            | 1 << capability::CLIPBOARD_NO_RELEASE_ON_REGRAB,
    );

    /// Returns whether a bit is set.
    #[must_use]
    pub const fn has(self, bit: u32) -> bool {
        self.0 >> bit & 1 == 1
    }
}

/// A message of the kinds that are read or written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// What the sender can do.
    Announce {
        /// Whether the other is to answer with its own.
        request: bool,
        capabilities: Capabilities,
    },
    /// The sender's side has content of these types.
    Grab(Vec<u32>),
    /// The sender wants the content, as this type.
    Request(u32),
    /// The sender's side has none any more.
    Release,
    /// The screen is so large, in pixels.
    Monitor {
        /// Pixels across.
        width: u32,
        /// Pixels down.
        height: u32,
    },
}

impl Message {
    /// Returns type and body, with the selection or without.
    #[must_use]
    pub fn encode(&self, selection: bool) -> (u32, Vec<u8>) {
        let start: &[u8] = if selection { &[SELECTION_CLIPBOARD, 0, 0, 0] } else { &[] };
        let mut body = Vec::new();
        let mut words = |words: &[u32]| words.iter().for_each(|w| body.extend(w.to_le_bytes()));
        let kind = match self {
            Self::Announce { request, capabilities } => {
                words(&[u32::from(*request), capabilities.0]);
                return (kind::ANNOUNCE_CAPABILITIES, body);
            }
            Self::Monitor { width, height } => {
                // One monitor, no flags: height, width, depth, x, y.
                words(&[1, 0, *height, *width, 32, 0, 0]);
                return (kind::MONITORS_CONFIG, body);
            }
            Self::Grab(types) => {
                words(types);
                kind::CLIPBOARD_GRAB
            }
            Self::Request(kind) => {
                words(&[*kind]);
                kind::CLIPBOARD_REQUEST
            }
            Self::Release => kind::CLIPBOARD_RELEASE,
        };
        (kind, [start, &body].concat())
    }
}
