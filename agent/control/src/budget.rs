//! How often one user may ask, over the control socket, for what changes something: each time has entries of its own, and nobody fills the log. And how
//! often one may connect to it, which is known before anything else is.

use std::collections::BTreeMap;
use std::time::Duration;

use clock::Moment;
use ratelimit::{Rate, RateLimiter};

use super::commands::Request;
use super::table::OverLimit;

/// Users and requests that are told apart; those beyond have one limit together.
const APART_MAX: usize = 256;
/// How often one user may ask one thing that changes something: more than a person does, or a script that is well.
const CHANGES: Rate = Rate { burst: 60, every: Duration::from_secs(2) };
/// How often one user may ask for things that change something, all together: some four entries each time are 10 MB a day, a fraction of what
/// the log has by default room for in the time it is kept.
const ALL_CHANGES: Rate = Rate { burst: 240, every: Duration::from_secs(20) };
/// What is told to who asked more often.
pub const TOO_OFTEN: &str =
    "it was asked too often by this user: wait up to twenty seconds for each time more";

/// What becomes of a request, by how often its user asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It is refused: [`TOO_OFTEN`].
    Refused,
    /// It is served, and has entries of its own.
    Each,
    /// It is served, and counted with those like it: what changes nothing, and what takes something away, which is done however often it is asked.
    Counted,
}

/// Whose requests are limited together: a user's, or those of a word and a domain of a user's.
type Limited = (u32, Option<(&'static str, Option<String>)>);

/// How often one user may connect, whatever for: the host's accounts are read for each time. Several of our own commands that wait, each of which asks
/// every [`ASK_AGAIN`](crate::client::ASK_AGAIN), stay within it beside scripts.
const CONNECTIONS: Rate = Rate { burst: 200, every: Duration::from_millis(20) };
/// What is told to who connects more often.
pub(crate) const TOO_MANY_CONNECTIONS: &str = "this user connects to the agent too often: wait a few seconds, and ask less often than fifty times a second";

/// A limit for each of these, apart as long as they are few.
#[derive(Debug)]
struct Limits<K> {
    since: Moment,
    left: BTreeMap<K, (RateLimiter, Moment)>,
    /// The limit for those beyond [`APART_MAX`], together.
    others: RateLimiter,
    /// How long one who takes nothing has everything back after, at most.
    full_after: Duration,
}

impl<K: Ord> Limits<K> {
    /// `slowest` is the rate that is given back last, `others` that of those that are not told apart.
    fn new(slowest: Rate, others: Rate) -> Self {
        let full_after = slowest.every.saturating_mul(slowest.burst);
        let others = RateLimiter::new(others);
        Self { since: Moment::now(), left: BTreeMap::new(), others, full_after }
    }

    /// Takes one of what this has left; returns whether there was one.
    fn take(&mut self, key: K, rate: Rate, now: Moment) -> bool {
        let time = now.saturating_duration_since(self.since);
        if self.left.len() >= APART_MAX {
            // Who has not asked for so long may ask as often as who never did.
            let full_after = self.full_after;
            self.left.retain(|_, (_, last)| now.saturating_duration_since(*last) < full_after);
        }
        if self.left.len() >= APART_MAX && !self.left.contains_key(&key) {
            return self.others.take(1, time);
        }
        let (limiter, last) = self.left.entry(key).or_insert_with(|| (RateLimiter::new(rate), now));
        *last = now;
        limiter.take(1, time)
    }
}

/// The connections that each user has left.
#[derive(Debug)]
pub(crate) struct ConnectionBudget(Limits<u32>);

impl Default for ConnectionBudget {
    fn default() -> Self {
        Self(Limits::new(CONNECTIONS, CONNECTIONS))
    }
}

impl ConnectionBudget {
    /// Takes one connection of a user's; returns whether the user is within the limit.
    pub(crate) fn take(&mut self, uid: u32, now: Moment) -> bool {
        self.0.take(uid, CONNECTIONS, now)
    }
}

/// The requests that each user has left: for each thing that changes something, and for all of it together.
#[derive(Debug)]
pub struct Budget(Limits<Limited>);

impl Default for Budget {
    fn default() -> Self {
        Self(Limits::new(ALL_CHANGES, CHANGES))
    }
}

impl Budget {
    /// Decides on a request that is recorded. `domain` is the one that it names, if this PC has it.
    pub fn admit(
        &mut self,
        uid: u32,
        request: &Request,
        domain: Option<&str>,
        now: Moment,
    ) -> Admission {
        let (refused, changes) = (request.often() == OverLimit::Refused, request.changes());
        let within = !(refused || changes) || self.take(uid, request.word(), domain, now);
        match (within, refused, changes) {
            (false, true, _) => Admission::Refused,
            (true, _, true) => Admission::Each,
            _ => Admission::Counted,
        }
    }

    /// Takes one request of a user's budget, about one domain if it names one; returns whether the user is within it.
    pub fn take(
        &mut self,
        uid: u32,
        what: &'static str,
        domain: Option<&str>,
        now: Moment,
    ) -> bool {
        let one = self.0.take((uid, Some((what, domain.map(str::to_owned)))), CHANGES, now);
        // Root's log is root's.
        one && (uid == 0 || self.0.take((uid, None), ALL_CHANGES, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::ASK_AGAIN;

    #[test]
    fn what_is_asked_too_often_is_refused_or_counted_as_its_row_says() {
        let domain = || "lab".to_owned();
        for (request, first, beyond) in [
            (Request::Start { domain: domain() }, Admission::Each, Admission::Refused),
            (Request::Stop { domain: domain(), now: false }, Admission::Each, Admission::Counted),
            (Request::Switch { domain: domain() }, Admission::Counted, Admission::Refused),
            (Request::Lock {}, Admission::Counted, Admission::Counted),
        ] {
            let (mut budget, now) = (Budget::default(), Moment::now());
            let mut admitted = || budget.admit(7, &request, Some("lab"), now);
            for _ in 0..CHANGES.burst {
                assert_eq!(admitted(), first, "{}", request.word());
            }
            assert_eq!(admitted(), beyond, "{}", request.word());
        }
    }

    #[test]
    fn one_user_has_one_limit_for_all_that_changes_something_and_root_has_none() {
        let mut budget = Budget::default();
        let words = ["paste", "usb-attach", "break-glass", "start", "restart", "reset", "unlock"];
        let (mut now, mut taken, mut roots) = (Moment::now(), 0, 0);
        for round in 0..10_000 {
            taken += u32::from(budget.take(7, words[round % 7], None, now));
            roots += u32::from(budget.take(0, words[round % 7], None, now));
            now += Duration::from_millis(100);
        }
        // A burst, and one every twenty seconds of the thousand.
        assert!((240..=240 + 51).contains(&taken), "{taken}");
        assert!(roots > 7 * 400, "{roots}");
        assert!(budget.take(0, "start", Some("clinical"), now), "of another domain");
    }

    #[test]
    fn who_asks_for_changes_without_end_fills_no_log_and_keeps_nobody_else_from_asking() {
        let mut budget = Budget::default();
        let mut now = Moment::now();
        let mut taken = 0;
        for _ in 0..100_000 {
            taken += u32::from(budget.take(7, "usb-attach", None, now));
            now += Duration::from_millis(1);
        }
        // A burst, and one every two seconds of the hundred.
        assert!((CHANGES.burst..=CHANGES.burst + 51).contains(&taken), "{taken}");
        assert!(
            budget.take(7, "break-glass", None, now) && budget.take(8, "usb-attach", None, now)
        );
        for uid in 0..10_000 {
            budget.take(uid, "usb-attach", None, now);
        }
        assert!(budget.0.left.len() <= APART_MAX);
    }

    #[test]
    fn four_commands_that_wait_and_a_status_each_second_are_never_turned_away() {
        let mut budget = ConnectionBudget::default();
        let mut now = Moment::now();
        // Ten minutes, which a start may take; each minute somebody pastes, which asks twenty times at once.
        for round in 0..6_000 {
            let each_second = u32::from(round % 10 == 0);
            let pastes = if round % 600 == 0 { 20 } else { 0 };
            let asks = 4 + each_second + pastes;
            assert!((0..asks).all(|_| budget.take(7, now)), "after {round} tenths of a second");
            now += ASK_AGAIN;
        }
    }

    #[test]
    fn who_connects_without_end_is_turned_away_and_who_asks_each_second_never_is() {
        let mut budget = ConnectionBudget::default();
        let (mut now, mut taken) = (Moment::now(), 0);
        for round in 0..100_000 {
            taken += u32::from(budget.take(7, now));
            // A few terminals that show how it stands, and an officer who looks at everything.
            if round % 1000 == 0 {
                assert!((0..5).all(|_| budget.take(8, now)), "{round}");
            }
            now += Duration::from_millis(1);
        }
        // A burst, and fifty a second of the hundred.
        assert!((5_000..=5_201).contains(&taken), "{taken}");
        (0..10_000).for_each(|uid| _ = budget.take(uid, now));
        assert!(budget.0.left.len() <= APART_MAX);
    }
}
