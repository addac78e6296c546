//! Into a domain, and out of it.

use std::mem;

use monitor::Denial;
use usbfilter::Counts;

use super::{
    AGAIN, AGAIN_BY_PLUG, CHANGES_MAX, CUT_OFF_AFTER, Connection, Detaching, Effect, KEPT, Note,
    Notice, ResetLoss, State, Step, is_temporary,
};
use crate::attached::{DetachReason, NotServed};
use crate::grant::Admitted;

/// Why a device is not attached whose permit comes late.
const TOO_LATE: &str = "it was no longer to be attached when the permit came";

impl<P> Step<'_, P> {
    /// Has its domain's VMM connected, once nothing of the device is on its way out of a domain.
    pub(super) fn connect(&mut self) {
        if !self.life.detaching.is_empty() {
            return;
        }
        match mem::replace(&mut self.life.state, State::Connecting) {
            State::Waiting { admitted, .. } => {
                let again = self.life.known.joined;
                self.effect(Effect::Connect { admitted, again });
            }
            other => self.life.state = other,
        }
    }

    pub(super) fn connected(&mut self, admitted: Admitted, connection: Connection) {
        if self.life.state != State::Connecting {
            return;
        }
        match connection {
            Connection::Made => {
                self.life.known.joined = true;
                let (request, grant) = (self.numbers.next(), admitted.grant().clone());
                self.life.unanswered.insert(request, grant.domain.clone());
                self.go(State::Authorizing { request, admitted });
                self.effect(Effect::Authorize { request, grant });
            }
            Connection::NotYet(wait) => {
                self.go(State::Waiting { admitted, retry: self.now + wait });
            }
            Connection::Impossible(why) => self.failed(why),
        }
    }

    /// Takes the permit of an attachment. One that nobody waits for any more is dropped, and allows nothing. Its entry says that the
    /// device is attached, so another says that it is not.
    pub(super) fn permitted(&mut self, number: u64, permit: P) {
        let Some(domain) = self.life.unanswered.remove(&number) else { return };
        let Some(admitted) = self.authorizing(number) else {
            return self.note(Note::NotAttached { domain, why: TOO_LATE.to_owned() });
        };
        (self.life.known.unrecorded, self.life.known.request) = (false, None);
        let task = self.numbers.next();
        self.life.state = State::Attached { task, admitted, begun: false };
        self.effect(Effect::Start { task, permit });
    }

    /// Takes what it was admitted by from a device that waits for a permit by this request, which the caller puts into another state.
    fn authorizing(&mut self, number: u64) -> Option<Admitted> {
        match mem::replace(&mut self.life.state, State::Off) {
            State::Authorizing { request, admitted } if request == number => Some(admitted),
            other => {
                self.life.state = other;
                None
            }
        }
    }

    /// Takes it that there is no permit. The device had its verdict, and waits until its being attached can be recorded too, or until the rules that have changed
    /// meanwhile are known. Unless it could not be recorded, the log says that it was attached, and has to say that it was not.
    pub(super) fn refused(&mut self, number: u64, denial: Denial) {
        if self.life.is_recorded_by(number) {
            return self.not_admitted(denial);
        }
        let Some(domain) = self.life.unanswered.remove(&number) else { return };
        if denial != Denial::Unrecorded {
            self.note(Note::NotAttached { domain, why: denial.to_string() });
        }
        let Some(admitted) = self.authorizing(number) else { return };
        self.effect(Effect::Disconnect);
        if !is_temporary(denial) {
            return self.failed(denial.to_string());
        }
        if denial == Denial::Unrecorded {
            self.say_unrecorded();
        } else {
            // The entry named the request by hand.
            (self.life.known.unrecorded, self.life.known.request) = (false, None);
        }
        self.go(State::Waiting { admitted, retry: self.now + AGAIN });
    }

    /// Notes, as the log says that it is attached, that it has left its domain at once.
    pub(super) fn not_started(&mut self, task: u64, why: String) {
        if self.life.served_by(task).is_some() {
            self.not_served(task, Some(why.into()), Some(Counts::default()));
        }
    }

    pub(super) fn begun(&mut self, number: u64) {
        if let State::Attached { task, admitted, begun } = &mut self.life.state
            && *task == number
        {
            *begun = true;
            let grant = admitted.grant().clone();
            self.notice(Notice::Connected(grant));
        }
    }

    /// Handles that the guest no longer has it: it was told to leave, or has left by itself.
    pub(super) fn left(&mut self, task: u64, reason: Option<DetachReason>, counts: Option<Counts>) {
        if self.life.served_by(task).is_some() {
            // Nobody told it to.
            self.left_by_itself(task, reason.unwrap_or(DetachReason::NoVmm), counts);
        } else {
            self.parted(task, reason.as_ref(), counts);
        }
    }

    fn left_by_itself(&mut self, task: u64, reason: DetachReason, counts: Option<Counts>) {
        let Some(admitted) = self.leave(reason.text()) else { return };
        self.parted(task, Some(&reason), counts);
        if reason == DetachReason::NoVmm {
            return self.wait_again(admitted);
        }
        if self.life.kept().is_some() {
            return self.rest_left(admitted, &reason);
        }
        let seat = reason.seat_text().to_owned();
        match reason {
            // Dealt with above.
            DetachReason::NoVmm => {}
            // It has not gone, or the next look finds it gone.
            DetachReason::NoDevice(why) | DetachReason::Lost(why) | DetachReason::Stream(why) => {
                let label = admitted.grant().label.clone();
                self.notice(Notice::Disconnected(label, seat));
                self.give_up(State::Blocked(why));
            }
            DetachReason::Changed(_)
                if self.life.known.changes.unwrap_or_default() < CHANGES_MAX =>
            {
                let changes = self.life.known.changes.get_or_insert(0);
                *changes = changes.saturating_add(1);
                self.start_reading(false);
            }
            DetachReason::Changed(why) | DetachReason::Broken(why) => {
                self.life.known.broke_rules = true;
                self.notice(Notice::Blocked(seat));
                self.give_up(State::Blocked(format!("{why}; {AGAIN_BY_PLUG}")));
            }
        }
    }

    /// Takes it that the rest of a device has left. What that does costs the seat no keyboard: a driver of the host's that resets the
    /// device takes the rest from its domain: then it goes there again.
    fn rest_left(&mut self, admitted: Admitted, reason: &DetachReason) {
        let times = self.life.known.changes.get_or_insert(0);
        *times = times.saturating_add(1);
        if matches!(reason, DetachReason::NoDevice(_)) && *times < CHANGES_MAX {
            return self.wait_again(admitted);
        }
        let mut again = String::new();
        if matches!(reason, DetachReason::Changed(_) | DetachReason::Broken(_)) {
            self.life.known.broke_rules = true;
            again = format!("; {AGAIN_BY_PLUG}");
        }
        let said = |why| format!("{KEPT}, the rest is not used any more: {why}{again}");
        self.notice(Notice::RestNotUsed(said(reason.seat_text())));
        self.give_up(State::Blocked(said(reason.text())));
    }

    /// Takes it that the task that served it has ended. Normally it has left its domain before; otherwise it could not be served, or,
    /// without a reason, nothing is known of why it left.
    pub(super) fn not_served(&mut self, task: u64, why: Option<NotServed>, counts: Option<Counts>) {
        if self.life.served_by(task).is_none() {
            return self.parted(task, None, counts);
        }
        let text = why.as_ref().map_or_else(|| DetachReason::NoVmm.text(), NotServed::text);
        let Some(admitted) = self.leave(text) else { return };
        self.parted(task, None, counts);
        match why {
            Some(why) => self.failed_as(why.text().to_owned(), why.seat_text().to_owned()),
            None => self.wait_again(admitted),
        }
    }

    /// Has a device that was attached wait for its domain again, by the verdict that it has or, if other rules have come into force since, by
    /// one of those.
    fn wait_again(&mut self, admitted: Admitted) {
        if self.life.known.outdated {
            self.ask_policy();
        } else {
            self.go(State::Waiting { admitted, retry: self.now + AGAIN });
        }
    }

    /// Has it leave its domain, if it is in one, and returns what it was admitted by.
    fn leave(&mut self, why: &str) -> Option<Admitted> {
        let (task, admitted) = match mem::replace(&mut self.life.state, State::Off) {
            State::Attached { task, admitted, .. } => (task, admitted),
            other => {
                self.life.state = other;
                return None;
            }
        };
        let findings = self.life.known.findings.as_ref();
        self.life.detaching.push(Detaching {
            task,
            domain: admitted.grant().domain.clone(),
            why: why.to_owned(),
            request: self.life.known.request.take(),
            descriptors: findings.map(|found| found.descriptors.clone()).unwrap_or_default(),
            until: Some(self.now + CUT_OFF_AFTER),
        });
        self.effect(Effect::Detach { task });
        Some(admitted)
    }

    /// Has it leave its domain, if it is in one, and says so at the seat.
    pub(super) fn take_away(&mut self, why: &str) {
        if let Some(admitted) = self.leave(why) {
            let label = admitted.grant().label.clone();
            self.notice(Notice::Disconnected(label, why.to_owned()));
        }
    }

    /// Writes the event of one that was to leave and has left. One that was cut off has its event: what it counted comes late, if it had said it before it was killed.
    fn parted(&mut self, task: u64, reason: Option<&DetachReason>, counts: Option<Counts>) {
        let Some(at) = self.life.detaching.iter().position(|one| one.task == task) else { return };
        let detaching = self.life.detaching.remove(at);
        if detaching.until.is_some() {
            self.effect(Effect::Cut { task });
        }
        // The kernel may have told that it went before its thread did.
        if matches!(reason, Some(DetachReason::Lost(_))) {
            let times = self.life.lost.as_ref().map_or(0, |lost| lost.times);
            let was = Some(detaching.descriptors.clone());
            self.life.lost = Some(ResetLoss { times, when: self.now, was });
        }
        match (detaching.until, counts) {
            (Some(_), counts) => self.note(Note::Detached { detaching, counts }),
            (None, Some(counts)) => self.note(Note::Counted { detaching, counts }),
            (None, None) => {}
        }
    }

    /// Cuts those off from their domain that have not left in time.
    pub(super) fn cut_off_late(&mut self) {
        for detaching in &mut self.life.detaching {
            if detaching.until.is_some_and(|until| self.now >= until) {
                detaching.until = None;
                self.effects.push(Effect::Cut { task: detaching.task });
                let detaching = detaching.clone();
                self.effects.push(Effect::Note(Note::Detached { detaching, counts: None }));
            }
        }
    }

    /// Ends the request to attach it, if there is one, otherwise than with its being attached.
    pub(super) fn come_to_nothing(&mut self, why: &str) {
        if let Some(request) = self.life.known.request.take() {
            self.note(Note::Failed { request: Some(request), why: why.to_owned() });
        }
    }

    /// Blocks a device that does not reach its domain.
    pub(super) fn failed(&mut self, why: String) {
        self.failed_as(why.clone(), why);
    }

    /// As above, and says it at the seat in these words.
    fn failed_as(&mut self, why: String, seat: String) {
        let request = self.life.known.request.take();
        self.note(Note::Failed { request, why: why.clone() });
        self.notice(Notice::NotConnected(seat));
        self.give_up(State::Blocked(why));
    }

    /// Gives the device up: nobody is to have it any more, unless the host has it. Its keyboard stays the seat's, if it has one and something
    /// besides.
    pub(super) fn give_up(&mut self, state: State) {
        if matches!(self.life.state, State::Host(_)) {
            return;
        }
        self.go(state);
        let kept = self.life.kept().cloned();
        self.effect(kept.map_or(Effect::Deauthorize, Effect::GiveToHost));
    }
}
