//! How long what is waited for, and how often what is tried again.

use std::time::Duration;

/// Delay before the first restart of a VMM that failed.
pub const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// Longest delay between restarts: a ward must not wait longer once the cause is gone.
pub const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// A VMM that ran this long was healthy; its next failure starts the delays anew.
pub const HEALTHY_AFTER: Duration = Duration::from_secs(60);
/// A VMM that hangs was healthy if it ran this long: it is noticed late, after two minutes at the latest.
pub const HEALTHY_BEFORE_HANG: Duration = Duration::from_secs(180);
/// How long devices may take to be prepared or released. The hand-over has shorter deadlines of
/// its own; this one holds if the job itself hangs. Copying a discarded disk takes the longest.
pub const DEVICES_DEADLINE: Duration = Duration::from_secs(600);
/// A guest that is still booting misses the power button, so it is pressed again this often.
pub const BUTTON_AGAIN: Duration = Duration::from_secs(10);
/// How long a VMM that was told to end may take before it is killed.
pub const END_GRACE: Duration = Duration::from_secs(5);
/// How often a killed VMM that is still there is killed again.
pub const KILL_AGAIN: Duration = Duration::from_secs(5);
/// How long a VMM may take until it first answers on its control socket; loading its kernel and initrd takes the longest.
pub const FIRST_ANSWER: Duration = Duration::from_secs(180);
/// Failures in a row of VMMs that did not run for [`HEALTHY_AFTER`], after which the domain is left off: by the delays between them they take two
/// minutes at least.
pub const FAILURES_MAX: u32 = 8;
/// How often a domain that was left off is tried: its failures may have had a cause that is gone.
pub const TRY_LEFT_OFF: Duration = Duration::from_secs(30 * 60);
