//! Taking back what is offered to guests, or on its way to them.

use std::sync::Arc;

use audit::events::ClipboardWithdrawn;
use policy::Policy;
use policy::decide::{Decision, Paste};

use super::guest::{Offer, Withdrawn};
use super::words::{INTERRUPTED, Outcome, TAKEN_BACK};
use super::{ClipboardEvent, ClipboardMediator, DomainIndex, Output, Time};

impl ClipboardMediator {
    /// Applies another policy. What was offered under the old one and would not be under this is taken back, also if a person would be
    /// asked now: nobody was.
    pub fn policy(&mut self, policy: Arc<Policy>, now: Time) {
        self.policy = Arc::clone(&policy);
        self.end_crossing("another policy came into force");
        let names: Vec<String> = self.guests.iter().map(|guest| guest.name.clone()).collect();
        let ends = |to: &str, offer: &Offer| {
            let (media_type, bytes) = offer.content.judged();
            let from = names.get(offer.content.from()).map_or("", String::as_str);
            let content = media_type.is_readable().then_some(offer.content.bytes());
            let paste = Paste { from, to, media_type, content, size: Some(bytes) };
            policy.decide_paste(&paste).verdict.decision() != Decision::Allow
        };
        for index in self.withdraw(now, ends) {
            let event = ClipboardWithdrawn {
                domain: self.name(index),
                policy: self.policy.serial(),
                why: "the policy in force does not allow it".to_owned(),
            };
            self.report(ClipboardEvent::Note(event.into()));
        }
    }

    /// Handles that the audit log has failed: what was permitted was on a record that may be lost, and how it ends cannot be recorded. What is offered is
    /// taken back, and nothing is under way.
    pub fn record_lost(&mut self, now: Time) {
        self.end_crossing("the audit log cannot be written");
        for index in self.withdraw(now, |_, _| true) {
            let event = ClipboardWithdrawn {
                domain: self.name(index),
                policy: self.policy.serial(),
                why: "the audit log cannot be written".to_owned(),
            };
            self.report(ClipboardEvent::Note(event.into()));
            self.complete(None, Outcome::no(TAKEN_BACK));
        }
    }

    /// Handles that the screen was locked: whoever comes next finds nothing.
    pub fn locked(&mut self, now: Time) {
        self.forget();
        self.withdraw(now, |_, _| true);
    }

    /// Ends a guest's stream; the next begins at once, and knows nothing of this one. `why` a copy from it fails.
    pub(super) fn renew(&mut self, index: DomainIndex, why: &str, now: Time) {
        if let Some(guest) = self.guests.get_mut(index) {
            guest.disconnect();
        }
        self.out.push(Output::Disconnect(index, now));
        if self.pulls_from(index) {
            self.pull_failed(why, now);
        }
    }

    /// Withdraws what is offered to guests or on its way to them, each if `ends` says so of it. Whose it was.
    pub(super) fn withdraw(
        &mut self,
        now: Time,
        ends: impl Fn(&str, &Offer) -> bool,
    ) -> Vec<DomainIndex> {
        let mut from = Vec::new();
        for index in 0..self.guests.len() {
            let Some(guest) = self.guests.get_mut(index) else { continue };
            let name = guest.name.clone();
            match guest.withdraw(|offer| ends(&name, offer)) {
                Withdrawn::Nothing => continue,
                Withdrawn::Done => {}
                Withdrawn::Cut => self.renew(index, INTERRUPTED, now),
            }
            from.push(index);
        }
        from
    }
}
