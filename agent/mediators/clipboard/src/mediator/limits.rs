//! How much and how long.

use ratelimit::Rate;

use super::Time;
pub use clipboard_content::HELD_MAX;

/// How long copied content waits for its paste: long enough to switch and find the place, not long enough to be forgotten.
pub const HELD_FOR: Time = Time::from_secs(300);
/// How long pasted content is offered to the guest's programs.
pub const OFFERED_FOR: Time = Time::from_secs(60);
/// How long a guest may be silent while content is asked of it.
pub const PULL_SILENCE: Time = Time::from_secs(5);
/// How often is checked whether bytes of a guest whose agent has not announced itself lie unread.
pub const CHECK_EVERY: Time = Time::from_millis(500);
/// Checks, after the first at which bytes lay unread, at which its reader may have said nothing since. Checks and no time of the clock: while the PC sleeps no
/// reader reads, and there are none.
pub const UNREAD_CHECKS: u32 = 10;
/// How long the reader of such a guest may be silent. It says that it reads every [`UNANNOUNCED_EVERY`](::vdagent::UNANNOUNCED_EVERY).
pub const READER_SILENCE: Time = CHECK_EVERY.saturating_mul(UNREAD_CHECKS);
const _: () = assert!(READER_SILENCE.as_millis() > 3 * ::vdagent::UNANNOUNCED_EVERY.as_millis());
/// How long a guest may take to hand its content over.
pub const PULL_MAX: Time = Time::from_secs(30);
/// How long a worker may take to decode a picture.
pub use worker_link::TIME_MAX as DECODE_MAX;
/// How long a picture may be decoded before anybody is told that it is: most are ready before it could be read.
pub const PREPARING_AFTER: Time = Time::from_millis(700);
/// How long a question waits; then the answer is no.
pub const ASK_FOR: Time = Time::from_secs(20);
/// Hotkeys that count in one direction. People do not paste faster; what presses keys for them does.
pub const HOTKEYS: Rate = Rate { burst: 20, every: Time::from_secs(3) };
/// Bytes that a guest may send unasked; its reader keeps to it.
pub use ::vdagent::UNASKED;
/// What is taken from one guest's reader at once, and as much again each second: more than it says of a guest that uses its allowance up. What is more
/// waits in its own queue, and holds itself up.
pub const EVENTS: Rate = Rate { burst: 10_000, every: Time::from_micros(100) };
/// What is taken from one guest's reader before the next guest is served.
pub const EVENTS_IN_A_ROW: usize = 64;
/// How often a reader is started for one guest, whatever becomes of its stream.
pub const STARTS: Rate = Rate { burst: 4, every: Time::from_secs(1) };
/// Log lines on one guest's reader; those in between are counted.
pub const COMPLAINTS: Rate = Rate { burst: 2, every: Time::from_secs(60) };
/// How long the reader of a guest that hung up may take to read what that had sent.
pub const HANG_UP: Time = Time::from_secs(5);
/// The shortest and the longest time a guest is left alone whose stream made no sense or could not be read, or has ended again and again. A stream that has
/// lived for the longest starts the pauses anew.
pub const AGAIN: (Time, Time) = (Time::from_secs(1), Time::from_secs(60));
/// Audit entries on one guest's broken streams; those in between are counted.
pub const FAULT_ENTRIES: Rate = Rate { burst: 1, every: Time::from_secs(60) };
/// How often the daemon is told that a guest's agent is there or is not. What was in between it need not know, and its mailbox has no end.
pub const AGENT_TOLD_EVERY: Time = Time::from_millis(100);
