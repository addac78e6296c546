//! How long anything may take on this machine.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// What the start of a simulated PC takes at most on an idle machine with two processors: from memory, and of a system on a disk.
pub(crate) const IDLE_BOOT: Duration = Duration::from_secs(12);
pub(crate) const IDLE_BOOT_FROM_DISK: Duration = Duration::from_secs(30);
/// How many times as long as on an idle machine anything may take.
const SLOWNESS_MAX: u32 = 8;
/// How many times slower than an idle machine this one is, as the start of the last PC showed.
static SLOWNESS: AtomicU32 = AtomicU32::new(1);

/// Returns a time-out, which is meant for an idle machine, for this one: what is slow because others work here as well has not failed.
pub fn patience(time: Duration) -> Duration {
    time.saturating_mul(SLOWNESS.load(Ordering::Relaxed))
}

/// Learns from how long a PC took to start, and takes on an idle machine, how many times as long as there anything takes.
pub(crate) fn learn(start: Duration, idle: Duration) -> u32 {
    let slowness = start.as_secs() / idle.as_secs().max(1);
    let slowness = u32::try_from(slowness).unwrap_or(SLOWNESS_MAX).clamp(1, SLOWNESS_MAX);
    SLOWNESS.store(slowness, Ordering::Relaxed);
    slowness
}
