//! `[audit]`: how much of the audit log a PC keeps.

use std::time::Duration;

use audit::{Limits, WhenFull};
use toml_edit::Table;

use super::reader::Reader;

const DAY: u64 = 86_400;
/// Days an entry can be kept at most: a hundred years.
const DAYS_MAX: u64 = 36_525;
/// Sizes a log can be given, in MiB: below, a busy day does not fit; above, no disk does.
const SIZE_MIB: std::ops::RangeInclusive<u64> = 16..=1 << 20;
const MIB: u64 = 1 << 20;

pub(super) fn read(reader: &mut Reader, top: &Table) -> Limits {
    let mut limits = Limits::default();
    let Some((table, _)) = reader.table(top, "audit") else { return limits };
    reader.only_known(table, &["keep_days", "max_mib", "when_full"], "[audit]");
    if let Some((days, span)) = reader.integer(table, "keep_days") {
        match u64::try_from(days) {
            Ok(days @ 1..=DAYS_MAX) => limits.keep_for = Duration::from_secs(days * DAY),
            _ => reader.problem(
                span,
                format!("an audit log cannot be kept for {days} days"),
                format!(
                    "write 1 to {DAYS_MAX}; Korean access records are to be kept for two years, 731"
                ),
            ),
        }
    }
    if let Some((mib, span)) = reader.integer(table, "max_mib") {
        match u64::try_from(mib) {
            Ok(mib) if SIZE_MIB.contains(&mib) => limits.total_bytes = mib * MIB,
            _ => reader.problem(
                span,
                format!("an audit log cannot have {mib} MiB"),
                format!("write {} to {}", SIZE_MIB.start(), SIZE_MIB.end()),
            ),
        }
    }
    match reader.string(table, "when_full") {
        None | Some(("stop", _)) => {}
        Some(("drop-oldest", _)) => limits.when_full = WhenFull::DropOldest,
        Some((other, span)) => reader.problem(
            span,
            format!("a full audit log cannot do `{other}`"),
            "write \"stop\" (nothing crosses until there is room) or \"drop-oldest\"",
        ),
    }
    limits
}
