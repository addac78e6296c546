//! `[audit]`: how much of the audit log a PC keeps.

use std::time::Duration;

use audit::{Limits, WhenFull};
use form::document::{Form, Value};

use super::values::word;

const DAY: u64 = 86_400;
/// Days an entry can be kept at most: a hundred years.
const DAYS_MAX: u64 = 36_525;
/// Sizes a log can be given, in MiB: below, a busy day does not fit; above, no disk does.
const SIZE_MIB: std::ops::RangeInclusive<u64> = 16..=1 << 20;
const MIB: u64 = 1 << 20;
/// What a full log does.
const WHEN_FULL: [(&str, WhenFull); 2] =
    [("stop", WhenFull::Stop), ("drop-oldest", WhenFull::DropOldest)];

pub(super) fn read(mut form: Form<'_>) -> Limits {
    let mut limits = Limits::default();
    let days = |v: Value<'_>| v.integer("the number of days", 1..=DAYS_MAX);
    if let Some(days) = form.optional("keep_days", days) {
        limits.keep_for = Duration::from_secs(days * DAY);
    }
    let size = |v: Value<'_>| v.integer("the size of the audit log, in MiB,", SIZE_MIB);
    if let Some(mib) = form.optional("max_mib", size) {
        limits.total_bytes = mib * MIB;
    }
    let when_full = |v: Value<'_>| {
        let help = "write \"stop\" (nothing crosses until there is room) or \"drop-oldest\"";
        word(v, "what a full audit log can do", &WHEN_FULL, help)
    };
    if let Some(when_full) = form.optional("when_full", when_full) {
        limits.when_full = when_full;
    }
    form.close();
    limits
}
