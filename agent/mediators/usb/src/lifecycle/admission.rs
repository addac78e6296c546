//! From being plugged in to a verdict, and verdicts anew.

use std::time::Duration;

use monitor::{Basis, Denial, Permit};
use usbdescriptors::Share;

use super::{
    AGAIN, CHANGES_MAX, Effect, Findings, HOSTS, Judgement, KEPT, Known, Note, Notice,
    READ_FOR_LONG, READ_WITHIN, Reading, SEATS, State, Step, TURNED, UNRECORDED, is_temporary,
};
use crate::grant::{Admitted, UsbAdmission, UsbGrant};

/// Why a device is blocked that is another one after each reset: it would come and go for ever.
const UNSTABLE: &str = "it is another device after each reset; leave it unplugged for a minute";

/// Why a device that broke the rules is not attached by hand.
const BROKE_RULES: &str = "it broke the rules; plug it in again";
const AGENT_ENDS: &str = "the agent ends";

impl<P> Step<'_, P> {
    pub(super) fn plugged_in(&mut self) {
        if self.life.state == State::Absent {
            self.go(State::Throttled { until: self.now });
            self.effect(Effect::AskPace);
        }
    }

    pub(super) fn unplugged(&mut self) {
        const PULLED_OUT: &str = "it was pulled out";
        if matches!(self.life.state, State::Absent | State::Ended) {
            return;
        }
        self.come_to_nothing(PULLED_OUT);
        self.take_away(PULLED_OUT);
        self.go(State::Absent);
        self.life.known = Known::default();
    }

    pub(super) fn pace(&mut self, wait: Duration) {
        if !matches!(self.life.state, State::Throttled { .. }) {
            return;
        }
        if wait.is_zero() {
            self.start_reading(false);
        } else {
            self.go(State::Throttled { until: self.now + wait });
        }
    }

    pub(super) fn start_reading(&mut self, leaving: bool) {
        let task = self.numbers.next();
        self.go(State::Reading { task, leaving, until: Some(self.now + READ_WITHIN) });
        self.effect(Effect::Read { task });
    }

    /// Says, once, that it is not known what it is, as its thread does not come back from reading it.
    pub(super) fn read_for_long(&mut self) {
        if let State::Reading { until, .. } = &mut self.life.state {
            *until = None;
            // A request to attach it goes on when it is read.
            self.note(Note::Unreadable { request: None, why: READ_FOR_LONG.to_owned() });
            self.notice(Notice::NotUsed(READ_FOR_LONG.to_owned()));
        }
    }

    pub(super) fn no_thread(&mut self, why: String) {
        if matches!(self.life.state, State::Reading { .. }) {
            self.come_to_nothing(&why);
            self.go(State::Blocked(why));
        }
    }

    pub(super) fn read(&mut self, number: u64, reading: Result<Reading, String>) {
        let State::Reading { task, leaving, .. } = self.life.state else { return };
        if task != number {
            return;
        }
        match reading {
            Ok(Reading::HostNeeds) => {
                self.go(State::Host(HOSTS));
                self.come_to_nothing(HOSTS);
            }
            Ok(Reading::Another(findings)) => {
                self.found(findings);
                self.effect(Effect::Look);
            }
            Ok(Reading::Device(findings)) => {
                let leaves = leaving && !findings.is_the_seats;
                let changes = self.found(findings);
                if leaves {
                    self.give_up(State::Off);
                } else if self.life.known.turned {
                    self.note(Note::Turned);
                    self.failed(TURNED.to_owned());
                } else if changes < CHANGES_MAX {
                    self.judge();
                } else {
                    self.failed(UNSTABLE.to_owned());
                }
            }
            Err(_) if leaving => self.give_up(State::Off),
            Err(why) => {
                self.notice(Notice::NotUsed(why.clone()));
                self.unreadable(why);
            }
        }
    }

    /// Keeps what is known of it now, and returns how often it was another than before.
    fn found(&mut self, findings: Findings) -> u32 {
        let known = &mut self.life.known;
        let lost = self.life.lost.as_mut().filter(|_| known.changes.is_none());
        let replaced = lost.map_or(0, |lost| lost.on_replacement(&findings.descriptors));
        let changes = *known.changes.get_or_insert(replaced);
        let had = known.findings.as_ref().is_some_and(|before| before.types_or_points);
        // For as long as it is plugged in: it would be a keyboard of a device that a guest had, or that hides what it is.
        let was_read = changes > 0 || known.findings.is_some();
        known.turned |= !had && findings.types_or_points && was_read;
        known.findings = Some(findings);
        changes
    }

    /// De-authorises a device that cannot be read.
    fn unreadable(&mut self, why: String) {
        let request = self.life.known.request.take();
        self.note(Note::Unreadable { request, why: why.clone() });
        self.give_up(State::Blocked(why));
    }

    /// Has the policy asked, unless the seat or the host has it anyway.
    pub(super) fn judge(&mut self) {
        let Some(findings) = &self.life.known.findings else { return };
        if findings.is_the_seats {
            self.go(State::Host(SEATS));
            self.come_to_nothing(SEATS);
            return self.effect(Effect::GiveToHost(Share::Whole));
        }
        let unread = findings.unread.clone();
        if let Some(kept) = self.life.kept().cloned() {
            // Before anything else, and before the port is owned by whoever uses the rest.
            self.effect(Effect::GiveToHost(kept));
        }
        if let Some(why) = unread {
            let why = format!("{KEPT}, the rest is not used: {why}");
            self.notice(Notice::RestNotUsed(why.clone()));
            return self.unreadable(why);
        }
        self.ask_policy();
    }

    /// Has the policy asked about one that was judged before, or can be now. What the seat keeps of it the host has.
    pub(super) fn ask_policy(&mut self) {
        self.go(State::Judging);
        self.effect(Effect::Judge);
    }

    pub(super) fn judged(&mut self, judgement: Judgement) {
        if self.life.state != State::Judging {
            return;
        }
        match judgement.grant {
            Ok(grant) => {
                let request = self.numbers.next();
                self.go(State::Recording { request, grant: grant.clone() });
                self.effect(Effect::Admit { request, grant });
            }
            Err(why) => {
                self.note(Note::Denied);
                self.notice(Notice::Denied(why.clone()));
                let request = self.life.known.request.take();
                // A verdict that denies it is how a request for it ended.
                if !judgement.denied {
                    self.note(Note::Failed { request, why: why.clone() });
                }
                self.give_up(State::Blocked(why));
            }
        }
    }

    /// Takes the permit of a verdict. One that nobody waits for any more is dropped, and allows nothing: the device was pulled out or taken away,
    /// the rules have changed or the record was lost since it was asked for. Its entry says what the verdict was, and not that anything came of
    /// it.
    pub(super) fn admitted(&mut self, number: u64, permit: Permit<UsbAdmission>) {
        if self.life.is_recorded_by(number) {
            (self.life.known.unrecorded, self.life.known.outdated) = (false, false);
            self.go(State::Waiting { admitted: Admitted::by(permit), retry: self.now });
        }
    }

    /// Waits until the verdict can be recorded, or until the rules that have changed meanwhile are known.
    pub(super) fn not_admitted(&mut self, denial: Denial) {
        let State::Recording { grant, .. } = &self.life.state else { return };
        let grant = grant.clone();
        if !is_temporary(denial) {
            return self.failed(denial.to_string());
        }
        if denial == Denial::Unrecorded {
            self.say_unrecorded();
        }
        self.go(State::Unadmitted { grant, retry: self.now + AGAIN });
    }

    /// Says at the seat, once, that the device waits for the audit log.
    pub(super) fn say_unrecorded(&mut self) {
        if !std::mem::replace(&mut self.life.known.unrecorded, true) {
            self.notice(Notice::Unrecorded);
        }
    }

    pub(super) fn attach_by_hand(&mut self, domain: String, request: Option<u64>) {
        let refused = match self.life.state {
            State::Absent => Some("nothing is plugged in there"),
            State::Ended => Some(AGENT_ENDS),
            _ if self.life.known.broke_rules => Some(BROKE_RULES),
            _ => None,
        };
        if let Some(why) = refused {
            self.note(Note::Failed { request, why: why.to_owned() });
            return self.notice(Notice::NotConnected(why.to_owned()));
        }
        self.come_to_nothing("it is attached by hand once more");
        self.take_away("it is attached by hand");
        let known = &mut self.life.known;
        (known.by_hand, known.request) = (Some(domain), request);
        (known.changes, known.offers) = (Some(0), 0);
        self.again();
    }

    /// Takes the device away by hand. Before it was read it may be the seat's, or what the host runs from: it is switched off when it is known to be
    /// neither.
    pub(super) fn detach_by_hand(&mut self, request: Option<u64>) {
        const BY_HAND: &str = "it was taken away by hand";
        self.come_to_nothing(BY_HAND);
        match &mut self.life.state {
            State::Absent | State::Ended => {}
            State::Reading { leaving, .. } => *leaving = true,
            State::Throttled { .. } => self.start_reading(true),
            _ => {
                self.life.known.request = request;
                self.take_away(BY_HAND);
                // If it was in no domain there is nothing to tell of it.
                self.life.known.request = None;
                self.give_up(State::Off);
            }
        }
    }

    /// Has it judged anew. One of which the seat keeps a part is known, and is not read again: that could take its keyboard from its
    /// driver.
    fn again(&mut self) {
        let busy = matches!(self.life.state, State::Reading { .. } | State::Throttled { .. });
        let findings = self.life.known.findings.as_ref();
        let known = findings.is_some_and(|findings| findings.unread.is_none());
        if self.life.kept().is_some() && known && !busy {
            self.judge();
        } else {
            self.start_reading(false);
        }
    }

    /// Revokes what the device would not get any more, and has it judged anew. A device that would get the same is judged anew if its verdict
    /// is of other rules: what goes on the record, or has a device connected to a domain, is a verdict of the rules in force. One that is attached
    /// stays so.
    pub(super) fn rules_changed(&mut self, would_get: Option<&UsbGrant>, basis: Basis) {
        let has = match &self.life.state {
            // These are judged when they have been read, or not at all.
            State::Absent
            | State::Throttled { .. }
            | State::Reading { .. }
            | State::Judging
            | State::Host(_)
            | State::Off
            | State::Ended => return,
            State::Blocked(_) if self.life.known.broke_rules => return,
            State::Blocked(_)
            | State::Recording { .. }
            | State::Unadmitted { .. }
            | State::Waiting { .. }
            | State::Connecting
            | State::Authorizing { .. }
            | State::Attached { .. } => self.life.grant(),
        };
        let same = match (has, would_get) {
            (None, None) => true,
            (Some(has), Some(would_get)) => has.gives_the_same_as(would_get),
            _ => false,
        };
        if !same {
            self.take_away("the rules changed");
            self.again();
            return;
        }
        match &self.life.state {
            // No permit by another verdict counts.
            State::Recording { .. } | State::Unadmitted { .. } => self.ask_policy(),
            State::Waiting { admitted, .. } | State::Authorizing { admitted, .. }
                if admitted.basis() != basis =>
            {
                self.ask_policy();
            }
            State::Attached { admitted, .. } => {
                self.life.known.outdated = admitted.basis() != basis;
            }
            _ => {}
        }
    }

    /// Revokes what was permitted by entries that may be lost. The verdict may be among them: it goes to its domain again when all of that
    /// can be written down anew.
    pub(super) fn record_lost(&mut self) {
        match &self.life.state {
            State::Recording { .. }
            | State::Waiting { .. }
            | State::Connecting
            | State::Authorizing { .. } => self.ask_policy(),
            State::Attached { .. } => {
                self.take_away(UNRECORDED);
                // Which has just been said.
                self.life.known.unrecorded = true;
                self.ask_policy();
            }
            // Nothing was permitted, or it is judged anew anyway.
            State::Absent
            | State::Throttled { .. }
            | State::Reading { .. }
            | State::Judging
            | State::Host(_)
            | State::Blocked(_)
            | State::Off
            | State::Ended
            | State::Unadmitted { .. } => {}
        }
    }

    /// Ends all that was begun with it, and begins nothing more.
    pub(super) fn agent_ends(&mut self) {
        self.come_to_nothing(AGENT_ENDS);
        self.take_away(AGENT_ENDS);
        self.go(State::Ended);
    }
}
