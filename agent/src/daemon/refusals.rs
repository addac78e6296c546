//! Who asked over the control socket for what they may not: the first time of each user and request at once, what follows counted.
//!
//! ```text
//!  refused ---> entry, times 1 ---> counted for 10 s ---> entry, times n ---> counted for 10 s ---> ... ---> nothing for 10 s: forgotten
//!                                        '--- the agent stops ---> entry, times n
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use audit::AuditEvent;
use audit::events::RequestRefused;
use clock::Moment;

use super::record;
use crate::control::protocol::Request;
use crate::control::roles::Caller;

/// How long refusals of one user and request are counted before they are written down.
const EVERY: Duration = Duration::from_secs(10);
/// Users and requests that are told apart; those beyond are counted together.
const APART_MAX: usize = 256;

/// What is counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Whose {
    /// A user, and what was asked.
    Of(u32, &'static str),
    /// Everybody beyond [`APART_MAX`].
    Others,
}

#[derive(Debug)]
struct Count {
    caller: Caller,
    why: String,
    /// Since the last entry.
    times: u64,
    due: Moment,
}

/// What is counted.
#[derive(Debug, Default)]
pub(super) struct Refusals(BTreeMap<Whose, Count>);

impl Refusals {
    /// Somebody was refused; what of it is written down now.
    pub(super) fn refused(
        &mut self,
        caller: &Caller,
        request: &Request,
        why: &str,
        now: Moment,
    ) -> Option<AuditEvent> {
        let mut whose = Whose::Of(caller.uid, request.word());
        if self.0.len() >= APART_MAX && !self.0.contains_key(&whose) {
            whose = Whose::Others;
        }
        if let Some(count) = self.0.get_mut(&whose) {
            count.times = count.times.saturating_add(1);
            return None;
        }
        let count =
            Count { caller: caller.clone(), why: why.to_owned(), times: 0, due: now + EVERY };
        let event = entry(whose, &count, 1);
        self.0.insert(whose, count);
        Some(event)
    }

    /// What was counted for long enough. Whoever was refused no more is forgotten.
    pub(super) fn turn(&mut self, now: Moment) -> Vec<AuditEvent> {
        let mut events = Vec::new();
        self.0.retain(|whose, count| {
            if now < count.due {
                return true;
            }
            if count.times == 0 {
                return false;
            }
            events.push(entry(*whose, count, count.times));
            count.times = 0;
            count.due = now + EVERY;
            true
        });
        events
    }

    /// When [`Self::turn`] has something to write.
    pub(super) fn due(&self) -> Option<Moment> {
        self.0.values().filter(|count| count.times > 0).map(|count| count.due).min()
    }

    /// All that was counted and not written down: the agent ends.
    pub(super) fn end(&mut self) -> Vec<AuditEvent> {
        let counted = std::mem::take(&mut self.0).into_iter();
        counted
            .filter(|(_, count)| count.times > 0)
            .map(|(whose, count)| entry(whose, &count, count.times))
            .collect()
    }
}

fn entry(whose: Whose, count: &Count, times: u64) -> AuditEvent {
    let Count { caller, why, .. } = count;
    match whose {
        Whose::Of(uid, what) => RequestRefused {
            account: record::account(caller),
            times,
            uid: Some(uid),
            what: what.to_owned(),
            why: Some(record::cut(why)),
        },
        Whose::Others => RequestRefused {
            account: None,
            times,
            uid: None,
            what: "further users and requests".to_owned(),
            why: None,
        },
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn details(events: impl IntoIterator<Item = AuditEvent>) -> Vec<(u64, String, u64)> {
        let entries = events.into_iter().map(said);
        entries.map(|said| (said.uid.unwrap_or(0).into(), said.what, said.times)).collect()
    }

    fn said(event: AuditEvent) -> RequestRefused {
        let AuditEvent::RequestRefused(said) = event else { panic!("{event:?}") };
        said
    }

    fn lock(refusals: &mut Refusals, uid: u32, now: Moment) -> Option<AuditEvent> {
        refusals.refused(&Caller::without_role(uid), &Request::Lock, "no", now)
    }

    #[test]
    fn each_user_and_request_has_its_entry_at_once_and_its_count_later_and_at_the_end() {
        let mut refusals = Refusals::default();
        let start = Moment::now();
        let first = [
            lock(&mut refusals, 7, start),
            lock(&mut refusals, 8, start),
            refusals.refused(&Caller::without_role(7), &Request::Status, "no", start),
        ];
        let of = |uid, what: &str, times| (uid, what.to_owned(), times);
        assert_eq!(
            details(first.into_iter().flatten()),
            [of(7, "lock", 1), of(8, "lock", 1), of(7, "status", 1)]
        );
        assert_eq!(refusals.due(), None, "nobody is woken for what is written down");
        for _ in 0..3 {
            assert_eq!(lock(&mut refusals, 7, start), None);
        }
        assert_eq!(refusals.due(), Some(start + EVERY));
        assert!(refusals.turn(start).is_empty());
        assert_eq!(details(refusals.turn(start + EVERY)), [of(7, "lock", 3)]);
        lock(&mut refusals, 7, start + EVERY);
        assert_eq!(details(refusals.end()), [of(7, "lock", 1)]);
        // Who was quiet for as long has an entry at once again.
        lock(&mut refusals, 8, start).unwrap();
        refusals.turn(start + EVERY);
        lock(&mut refusals, 8, start + EVERY).unwrap();
    }

    #[test]
    fn the_first_entry_and_the_count_name_the_account_too() {
        let mut refusals = Refusals::default();
        let start = Moment::now();
        let mut caller = Caller::without_role(7);
        caller.account = Some("kim".to_owned());
        let mut ask = || refusals.refused(&caller, &Request::Lock, "no", start);
        let first = ask().unwrap();
        ask();
        let counted = refusals.end().pop().unwrap();
        for event in [first, counted] {
            let said = said(event);
            assert_eq!((said.uid, said.account.as_deref()), (Some(7), Some("kim")));
        }
    }

    #[test]
    fn any_number_of_users_is_counted_in_bounded_memory() {
        let mut refusals = Refusals::default();
        let start = Moment::now();
        let at_once = (0..10_000).filter_map(|uid| lock(&mut refusals, uid, start)).count();
        assert_eq!(at_once, APART_MAX + 1);
        assert!(refusals.0.len() <= APART_MAX + 1);
        let later: u64 = details(refusals.end()).iter().map(|(_, _, times)| times).sum();
        assert_eq!(at_once as u64 + later, 10_000, "each is counted");
    }
}
