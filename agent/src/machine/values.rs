//! The values of the machine file that have a syntax of their own. Each parser answers with the
//! message and the remedy when it fails.

use std::fmt;
use std::time::Duration;

/// What is wrong with a value, and what to write instead.
pub(crate) type Wrong = (String, String);

const MIB: u64 = 1 << 20;

/// Guest memory: a whole number of MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemorySize(u64);

impl MemorySize {
    /// What a domain gets when the machine file says nothing.
    pub const DEFAULT: Self = Self(1 << 30);

    /// Bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for MemorySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}M", self.0 / MIB)
    }
}

pub(crate) fn memory(text: &str) -> Result<MemorySize, Wrong> {
    notation::memory(text).map(MemorySize).map_err(wrong)
}

pub(crate) fn duration(text: &str) -> Result<Duration, Wrong> {
    notation::duration(text).map_err(wrong)
}

fn wrong(mistake: notation::Mistake) -> Wrong {
    (mistake.message, mistake.help)
}

/// Longest name of a console port, in bytes; what bulkhead-vmm takes.
const PORT_NAME_MAX: usize = 64;

pub(crate) fn port_name(text: &str) -> Result<String, Wrong> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    // `vmm.sock` beside the ports is the VMM's own control socket; a leading dot could leave the folder.
    if !text.is_empty()
        && text.len() <= PORT_NAME_MAX
        && text.bytes().all(legal)
        && !text.starts_with('.')
        && text != "vmm"
    {
        return Ok(text.to_owned());
    }
    Err((
        format!("`{text}` cannot name a port"),
        format!(
            "use letters, digits, dots, dashes and underscores, at most {PORT_NAME_MAX}; `vmm` is taken"
        ),
    ))
}
