//! Checkpoints: entries that sign all that is before them, and their own line.

use std::time::Duration;

use crate::entry::{Entry, Hash, line};
use crate::events::{AuditEvent, Checkpoint, Record};
use crate::key::{AuditKey, PublicKey};
use crate::time::Stamp;

/// Entries from one checkpoint to the next, at most.
pub(crate) const EVERY: u64 = 256;
/// How long an entry may be without a signature.
pub const CHECKPOINT_AFTER: Duration = Duration::from_secs(60);

/// Returns the line of a checkpoint, with its newline, and its hash.
pub(crate) fn signed(
    key: &AuditKey,
    seq: u64,
    stamp: Stamp,
    boot: &str,
    prev: Hash,
) -> (Vec<u8>, Hash) {
    let (_, unsigned) = line(seq, stamp, boot, &record(None), prev);
    line(seq, stamp, boot, &record(Some(key.sign(unsigned))), prev)
}

/// Returns a checkpoint with this signature; what is signed is the checkpoint without one.
fn record(signature: Option<String>) -> Record {
    AuditEvent::from(Checkpoint { signature }).record()
}

/// Returns whether a checkpoint, read from `text`, is signed and says nothing that is not so. Without `key` the signature itself is
/// believed.
pub(crate) fn holds(entry: &Entry, prev: Hash, text: &[u8], key: Option<&PublicKey>) -> bool {
    let signature = match AuditEvent::read(entry) {
        Some(AuditEvent::Checkpoint(Checkpoint { signature: Some(signature) })) => signature,
        _ => String::new(),
    };
    let Some(stamp) = entry.stamp() else {
        return key.is_none_or(|key| key.verifies_1(entry.seq, prev, &signature));
    };
    let (_, unsigned) = line(entry.seq, stamp, &entry.boot, &record(None), prev);
    let signs = key.is_none_or(|key| key.verifies(unsigned, &signature));
    let (canonical, _) = line(entry.seq, stamp, &entry.boot, &record(Some(signature)), prev);
    canonical.strip_suffix(b"\n") == Some(text) && signs
}
