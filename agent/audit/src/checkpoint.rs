//! Checkpoints: entries that sign all that is before them, and their own line.

use std::time::Duration;

use serde_json::Value;

use crate::entry::{Entry, Event, Hash, line};
use crate::key::{AuditKey, PublicKey};
use crate::time::Stamp;

/// What the entry is called.
pub(crate) const KIND: &str = "checkpoint";
const SIGNATURE: &str = "signature";

/// Entries from one checkpoint to the next, at most.
pub(crate) const EVERY: u64 = 256;
/// How long an entry may be without a signature.
pub const CHECKPOINT_AFTER: Duration = Duration::from_secs(60);

/// The line of a checkpoint, with its newline, and its hash.
pub(crate) fn signed(
    key: &AuditKey,
    seq: u64,
    stamp: Stamp,
    boot: &str,
    prev: Hash,
) -> (Vec<u8>, Hash) {
    let (_, unsigned) = line(seq, stamp, boot, &Event::new(KIND), prev);
    let event = Event::new(KIND).with(SIGNATURE, key.sign(unsigned));
    line(seq, stamp, boot, &event, prev)
}

/// Whether a checkpoint, read from `text`, is signed and says nothing that is not. Without `key` the signature itself is believed.
pub(crate) fn holds(entry: &Entry, prev: Hash, text: &[u8], key: Option<&PublicKey>) -> bool {
    let signature = entry.detail.get(SIGNATURE).and_then(Value::as_str).unwrap_or_default();
    let Some(stamp) = entry.stamp() else {
        return key.is_none_or(|key| key.verifies_1(entry.seq, prev, signature));
    };
    let (_, unsigned) = line(entry.seq, stamp, &entry.boot, &Event::new(KIND), prev);
    let event = Event::new(KIND).with(SIGNATURE, signature);
    let (canonical, _) = line(entry.seq, stamp, &entry.boot, &event, prev);
    canonical.strip_suffix(b"\n") == Some(text)
        && key.is_none_or(|key| key.verifies(unsigned, signature))
}
