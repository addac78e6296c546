//! Ethernet addresses.

use std::fmt;
use std::str::FromStr;

/// The address of a network card: never a multicast one, never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac([u8; 6]);

/// Why a text is not the address of a network card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MacError {
    /// Not six pairs of hexadecimal digits with colons between them.
    #[error("a MAC address is six pairs of hexadecimal digits, as in 52:54:00:12:34:56")]
    Malformed,
    /// The lowest bit of the first byte is set.
    #[error("that is a multicast address; the first byte of a card's own MAC address is even")]
    Multicast,
    /// All six bytes are zero.
    #[error("a MAC address of zeroes only belongs to nobody")]
    Zero,
}

impl Mac {
    /// Makes the address for `seed`, the same each time: locally administered. Two seeds share one
    /// with a chance of 1 in 2^46.
    #[must_use]
    pub fn derived(seed: &str) -> Self {
        // FNV-1a, then mixed so that the last character reaches every bit. Not a secret.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in seed.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash ^= hash >> 33;
        let [a, b, c, d, e, f, _, _] = hash.to_le_bytes();
        Self::local([a, b, c, d, e, f])
    }

    /// Returns the six bytes in the order they are sent.
    #[must_use]
    pub const fn bytes(self) -> [u8; 6] {
        self.0
    }

    fn local([first, rest @ ..]: [u8; 6]) -> Self {
        let [b, c, d, e, f] = rest;
        Self([first & 0xfc | 2, b, c, d, e, f])
    }
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2);
            let part = part.filter(|part| part.bytes().all(|digit| digit.is_ascii_hexdigit()));
            let part = part.and_then(|part| u8::from_str_radix(part, 16).ok());
            *byte = part.ok_or(MacError::Malformed)?;
        }
        if parts.next().is_some() {
            return Err(MacError::Malformed);
        }
        match bytes {
            [0, 0, 0, 0, 0, 0] => Err(MacError::Zero),
            [first, ..] if first & 1 == 1 => Err(MacError::Multicast),
            _ => Ok(Self(bytes)),
        }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}
