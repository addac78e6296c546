//! The values of the machine file that have a syntax of their own. Each parser answers with the
//! message and the remedy when it fails.

use std::fmt;
use std::time::Duration;

/// What is wrong with a value, and what to write instead.
pub(crate) type Wrong = (String, String);

const MIB: u64 = 1 << 20;
/// Below this no distribution kernel unpacks itself; what bulkhead-vmm takes at least.
const MEMORY_MIN: u64 = 64 * MIB;
/// What bulkhead-vmm takes at most.
const MEMORY_MAX: u64 = 512 << 30;
/// Longest a guest may be given to shut down; a PC that is switched off must get there.
const DURATION_MAX: Duration = Duration::from_secs(600);

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
    let wrong = || {
        (
            format!("`{text}` is not a size"),
            "write a whole number and a unit: \"512M\" or \"4G\"".to_owned(),
        )
    };
    let unit = match text.chars().last() {
        Some('M') => MIB,
        Some('G') => 1 << 30,
        _ => return Err(wrong()),
    };
    let digits = text.get(..text.len() - 1).unwrap_or_default();
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let count: u64 = digits.parse().map_err(|_| wrong())?;
    match count.checked_mul(unit) {
        Some(bytes) if (MEMORY_MIN..=MEMORY_MAX).contains(&bytes) => Ok(MemorySize(bytes)),
        Some(bytes) if bytes < MEMORY_MIN => Err((
            format!("{text} is too little memory for a guest"),
            "give it at least \"64M\"".to_owned(),
        )),
        _ => Err((
            format!("{text} is more memory than a guest can have"),
            "give it at most \"512G\"".to_owned(),
        )),
    }
}

pub(crate) fn duration(text: &str) -> Result<Duration, Wrong> {
    let wrong =
        || (format!("`{text}` is not a duration"), "write it like \"30s\" or \"2m\"".to_owned());
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        _ => return Err(wrong()),
    };
    let digits = text.get(..text.len() - 1).unwrap_or_default();
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let count: u64 = digits.parse().map_err(|_| wrong())?;
    match count.checked_mul(unit).map(Duration::from_secs) {
        Some(duration) if (Duration::from_secs(1)..=DURATION_MAX).contains(&duration) => {
            Ok(duration)
        }
        _ => Err((format!("{text} is out of range"), "write 1s to 10m".to_owned())),
    }
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
