//! What is asked over the control socket again and again: of each user, request and outcome the first time at once, what follows counted.
//!
//! ```text
//!  asked ---> entry ---> counted for 10 s ---> entry, times n ---> counted for 10 s ---> ... ---> nothing for 10 s: forgotten
//!                            '--- the agent stops ---> entry, times n
//! ```
//! Counted are refusals, and what was asked that changes nothing. What changes something has entries of its own each time; how often
//! one user may ask it is limited where it is asked (`control::budget`), so that nobody fills the log.

use std::collections::BTreeMap;
use std::time::Duration;

use audit::AuditEvent;
use audit::events::{Asked, Outcome, RequestRefused};
use clock::Moment;

/// How long what is the same is counted before it is written down.
const EVERY: Duration = Duration::from_secs(10);
/// What is told apart; what is beyond is counted together.
const APART_MAX: usize = 256;
/// What is said of those beyond [`APART_MAX`].
const OTHERS: &str = "further users and requests";

/// An event that is counted with those like it.
pub trait RepeatedEvent: Clone {
    /// What those have in common that are counted together.
    type Key: Ord;
    fn key(&self) -> Self::Key;
    /// Returns the event that stands for all beyond those that are told apart.
    fn of_others(self) -> Self;
    /// Returns the entry of the first one.
    fn first(self) -> AuditEvent;
    /// Returns the entry of `times` more of them.
    fn counted(&self, times: u64) -> AuditEvent;
}

impl RepeatedEvent for RequestRefused {
    type Key = (Option<u32>, String);

    fn key(&self) -> Self::Key {
        (self.uid, self.what.clone())
    }

    fn of_others(self) -> Self {
        Self { account: None, times: self.times, uid: None, what: OTHERS.to_owned(), why: None }
    }

    fn first(self) -> AuditEvent {
        self.into()
    }

    fn counted(&self, times: u64) -> AuditEvent {
        Self { times, ..self.clone() }.into()
    }
}

impl RepeatedEvent for Asked {
    type Key = (Option<u32>, String, Option<String>, Option<String>, Outcome);

    fn key(&self) -> Self::Key {
        let Self { uid, what, domain, bus_id, outcome, .. } = self.clone();
        (uid, what, domain, bus_id, outcome)
    }

    fn of_others(self) -> Self {
        Self {
            domain: None,
            account: None,
            bus_id: None,
            outcome: self.outcome,
            request: None,
            times: None,
            uid: None,
            what: OTHERS.to_owned(),
            why: None,
        }
    }

    fn first(self) -> AuditEvent {
        self.into()
    }

    fn counted(&self, times: u64) -> AuditEvent {
        Self { times: Some(times), ..self.clone() }.into()
    }
}

#[derive(Debug)]
struct Count<C> {
    of: C,
    /// How many there were since the last entry.
    times: u64,
    due: Moment,
}

/// The counts of one kind of event.
#[derive(Debug)]
pub struct Tally<C: RepeatedEvent>(BTreeMap<C::Key, Count<C>>);

impl<C: RepeatedEvent> Default for Tally<C> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<C: RepeatedEvent> Tally<C> {
    /// Counts an event; returns the entry to be written for it now.
    pub fn count(&mut self, event: C, now: Moment) -> Option<AuditEvent> {
        let event = match self.0.len() >= APART_MAX && !self.0.contains_key(&event.key()) {
            true => event.of_others(),
            false => event,
        };
        if let Some(count) = self.0.get_mut(&event.key()) {
            count.times = count.times.saturating_add(1);
            return None;
        }
        let count = Count { of: event.clone(), times: 0, due: now + EVERY };
        self.0.insert(event.key(), count);
        Some(event.first())
    }

    /// Takes the events that were counted for long enough. What did not happen any more is forgotten.
    pub fn take_due(&mut self, now: Moment) -> Vec<AuditEvent> {
        let mut events = Vec::new();
        self.0.retain(|_, count| {
            if now < count.due {
                return true;
            }
            if count.times == 0 {
                return false;
            }
            events.push(count.of.counted(std::mem::take(&mut count.times)));
            count.due = now + EVERY;
            true
        });
        events
    }

    /// Returns when [`Self::take_due`] has something to write.
    pub fn due(&self) -> Option<Moment> {
        self.0.values().filter(|count| count.times > 0).map(|count| count.due).min()
    }

    /// Returns the entries of all that was counted and not written, at the end of the agent.
    pub fn end(&mut self) -> Vec<AuditEvent> {
        let counted = std::mem::take(&mut self.0).into_values();
        let counted = counted.filter(|count| count.times > 0);
        counted.map(|count| count.of.counted(count.times)).collect()
    }
}

/// All that is counted.
#[derive(Debug, Default)]
pub struct Tallies {
    pub refused: Tally<RequestRefused>,
    pub asked: Tally<Asked>,
}

impl Tallies {
    /// Takes the events that are due of both tallies; see [`Tally::take_due`].
    pub fn take_due(&mut self, now: Moment) -> Vec<AuditEvent> {
        let mut events = self.refused.take_due(now);
        events.extend(self.asked.take_due(now));
        events
    }

    /// Returns when the next of both is due; see [`Tally::due`].
    pub fn due(&self) -> Option<Moment> {
        self.refused.due().into_iter().chain(self.asked.due()).min()
    }

    /// Returns what is left of both at the end; see [`Tally::end`].
    pub fn end(&mut self) -> Vec<AuditEvent> {
        let mut events = self.refused.end();
        events.extend(self.asked.end());
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(uid: u32, what: &str) -> RequestRefused {
        RequestRefused {
            account: Some("kim".to_owned()),
            times: 1,
            uid: Some(uid),
            what: what.to_owned(),
            why: Some("no".to_owned()),
        }
    }

    fn asked(uid: u32, domain: &str, outcome: Outcome) -> Asked {
        Asked {
            domain: Some(domain.to_owned()),
            account: None,
            bus_id: None,
            outcome,
            request: None,
            times: None,
            uid: Some(uid),
            what: "switch".to_owned(),
            why: None,
        }
    }

    /// Whose, what and how often, of refusals.
    fn details(events: impl IntoIterator<Item = AuditEvent>) -> Vec<(u32, String, u64)> {
        let said = |event| match event {
            AuditEvent::RequestRefused(said) => {
                assert_eq!(said.account.is_some(), said.uid.is_some(), "it names the account too");
                (said.uid.unwrap_or(0), said.what, said.times)
            }
            other => panic!("{other:?}"),
        };
        events.into_iter().map(said).collect()
    }

    #[test]
    fn each_user_and_request_has_its_entry_at_once_and_its_count_later_and_at_the_end() {
        let mut tally = Tally::default();
        let start = Moment::now();
        let first = [
            tally.count(refused(7, "lock"), start),
            tally.count(refused(8, "lock"), start),
            tally.count(refused(7, "status"), start),
        ];
        let of = |uid, what: &str, times| (uid, what.to_owned(), times);
        assert_eq!(
            details(first.into_iter().flatten()),
            [of(7, "lock", 1), of(8, "lock", 1), of(7, "status", 1)]
        );
        assert_eq!(tally.due(), None, "nobody is woken for what is written down");
        for _ in 0..3 {
            assert_eq!(tally.count(refused(7, "lock"), start), None);
        }
        assert_eq!(tally.due(), Some(start + EVERY));
        assert!(tally.take_due(start).is_empty());
        assert_eq!(details(tally.take_due(start + EVERY)), [of(7, "lock", 3)]);
        tally.count(refused(7, "lock"), start + EVERY);
        assert_eq!(details(tally.end()), [of(7, "lock", 1)]);
        // Who was quiet for as long has an entry at once again.
        tally.count(refused(8, "lock"), start).unwrap();
        tally.take_due(start + EVERY);
        tally.count(refused(8, "lock"), start + EVERY).unwrap();
    }

    #[test]
    fn what_is_asked_again_with_the_same_outcome_is_one_entry_with_a_count_and_with_another_its_own()
     {
        let mut tallies = Tallies::default();
        let start = Moment::now();
        let mut count = |event| tallies.asked.count(event, start);
        let first = count(asked(7, "clinical", Outcome::Done)).unwrap();
        assert_eq!(first, asked(7, "clinical", Outcome::Done).into(), "as if it were not counted");
        for _ in 0..1000 {
            assert_eq!(count(asked(7, "clinical", Outcome::Done)), None);
        }
        assert!(count(asked(7, "clinical", Outcome::NotDone)).is_some());
        assert!(count(asked(7, "internet", Outcome::Done)).is_some());
        assert!(count(asked(8, "clinical", Outcome::Done)).is_some());
        let counted = Asked { times: Some(1000), ..asked(7, "clinical", Outcome::Done) };
        assert_eq!(tallies.due(), Some(start + EVERY));
        assert_eq!(tallies.take_due(start + EVERY), [counted.into()]);
    }

    #[test]
    fn any_number_of_users_is_counted_in_bounded_memory() {
        let mut tally = Tally::default();
        let start = Moment::now();
        let at_once =
            (0..10_000).filter_map(|uid| tally.count(refused(uid, "lock"), start)).count();
        assert_eq!(at_once, APART_MAX + 1);
        assert!(tally.0.len() <= APART_MAX + 1);
        let later: u64 = details(tally.end()).iter().map(|(_, _, times)| times).sum();
        assert_eq!(at_once as u64 + later, 10_000, "each is counted");
    }
}
