//! One guest's end.

use std::sync::Arc;

use monitor::Permit;
use policy::language::MediaType;
use ratelimit::RateLimiter;

use super::limits::{
    AGAIN, CHECK_EVERY, FAULT_ENTRIES, OFFERED_FOR, READER_SILENCE, UNREAD_CHECKS,
};
use super::requests::Requests;
use super::{DomainIndex, Paste, Time};
use crate::grant::PermittedContent;
use crate::vdagent::spec::capability;
use crate::vdagent::{Capabilities, Outbox, media_type, number};

/// What is offered to a guest's programs.
#[derive(Clone, Debug)]
pub(super) struct Offer {
    pub(super) content: Arc<PermittedContent>,
    pub(super) until: Time,
    /// Whether a program took it.
    pub(super) taken: bool,
}

/// What became of a withdrawal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Withdrawn {
    /// There was nothing to withdraw.
    Nothing,
    /// The guest gets no more of it.
    Done,
    /// Part of it is out, so the stream has to end for the rest not to be read.
    Cut,
}

#[derive(Debug)]
pub(super) struct Guest {
    pub(super) name: String,
    pub(super) connected: bool,
    /// The other end of its stream has hung up: what it said before that is still read, and it is told nothing any more.
    pub(super) hung_up: bool,
    pub(super) outbox: Outbox,
    /// What its agent can do; none before it said so.
    pub(super) capabilities: Option<Capabilities>,
    /// The types it has in its clipboard, as it says.
    pub(super) grabbed: Vec<MediaType>,
    pub(super) offer: Option<Offer>,
    /// What is on its way to a program that asked for it, whatever became of the offer since.
    pub(super) sending: Option<Offer>,
    /// What it was asked for, as its reader was told.
    pub(super) requests: Requests,
    /// Whether something reads its stream, as was last known: [`Self::reading`] says it now.
    pub(super) reading: Reading,
    unheard: Unheard,
    faults: Faults,
}

/// Whether something reads a guest's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// What reads it has said something, or has not been needed yet.
    Works,
    /// Nothing can be started that does.
    DoesNotStart,
    /// The last that did has failed, and its successor has not been heard yet, nor is known to have nothing to say.
    Failed,
}

/// Bytes of a guest that lie in its stream while its agent has not announced itself.
#[derive(Clone, Copy, Debug, Default)]
struct Unheard {
    /// Checks in a row at which some lay there, since its reader last said anything.
    checks: u32,
    /// When the next check is.
    again: Time,
    /// Since when none has lain there.
    none_since: Option<Time>,
}

#[derive(Debug)]
struct Faults {
    /// Streams that ended, each soon after it began.
    in_a_row: u32,
    /// When the last pause was over.
    until: Time,
    entries: RateLimiter,
}

impl Guest {
    pub(super) fn new(domain: DomainIndex, name: String) -> Self {
        Self {
            name,
            connected: false,
            hung_up: false,
            outbox: Outbox::of(domain),
            capabilities: None,
            grabbed: Vec::new(),
            offer: None,
            sending: None,
            requests: Requests::default(),
            reading: Reading::Works,
            unheard: Unheard::default(),
            faults: Faults {
                in_a_row: 0,
                until: Time::ZERO,
                entries: RateLimiter::new(FAULT_ENTRIES),
            },
        }
    }

    pub(super) fn connect(&mut self) {
        self.disconnect();
        self.connected = true;
        if self.reading == Reading::DoesNotStart {
            self.reading = Reading::Works;
        }
        self.outbox.announce(true);
    }

    pub(super) fn disconnect(&mut self) {
        (self.connected, self.hung_up) = (false, false);
        // Its reader ends with it.
        self.requests = Requests::default();
        self.unheard = Unheard::default();
        self.outbox.clear();
        self.sending = None;
        self.forget();
    }

    /// Handles that the other end of its stream has hung up. Answers to what it was asked may be on their way.
    pub(super) fn hang_up(&mut self) {
        self.hung_up = true;
        self.outbox.clear();
        self.sending = None;
        self.forget();
    }

    /// Forgets what its agent said: that is another one now, or none.
    fn forget(&mut self) {
        self.capabilities = None;
        self.grabbed.clear();
        self.offer = None;
        self.requests.waiting = None;
    }

    /// Returns whether there is an agent that knows clipboards.
    pub(super) fn has_agent(&self) -> bool {
        self.capabilities.is_some_and(|c| c.has(capability::CLIPBOARD_BY_DEMAND))
    }

    /// Returns when it is next to be checked whether bytes of it lie unread, if it is connected and its agent has not announced itself.
    pub(super) fn check_unread_at(&self) -> Option<Time> {
        let waits = self.connected && !self.hung_up && self.capabilities.is_none();
        waits.then_some(self.unheard.again)
    }

    /// Handles that bytes of it lie unread, or do not any more. Returns whether they have for too long.
    pub(super) fn checked_unread(&mut self, unread: bool, now: Time) -> bool {
        let Unheard { checks, again, none_since } = &mut self.unheard;
        if !unread {
            none_since.get_or_insert(now);
            if std::mem::take(checks) > 0 {
                *again = now.saturating_add(CHECK_EVERY);
            }
            return false;
        }
        *none_since = None;
        *again = now.saturating_add(CHECK_EVERY);
        let before = *checks;
        *checks = before.saturating_add(1);
        before >= UNREAD_CHECKS
    }

    /// Returns whether something reads its stream, as far as is known. The last reader's failure is over when its successor has said something, and also when that
    /// had nothing to read for as long as one that hangs is found in, or when there is no stream for so long that one might be: then its guest has no agent.
    pub(super) fn reading(&self, now: Time) -> Reading {
        let since = if self.connected { self.unheard.none_since } else { Some(self.faults.until) };
        let no_agent = since.is_some_and(|since| now >= since.saturating_add(READER_SILENCE));
        if self.reading == Reading::Failed && no_agent { Reading::Works } else { self.reading }
    }

    /// Handles that its reader has said something, whatever that is: it does not hang.
    pub(super) fn reader_said_something(&mut self) {
        self.reading = Reading::Works;
        self.unheard.checks = 0;
    }

    pub(super) fn announced(&mut self, request: bool, capabilities: Capabilities) {
        if request {
            self.forget();
            self.outbox.announce(false);
        }
        self.capabilities = Some(capabilities);
        let selection = capabilities.has(capability::CLIPBOARD_SELECTION);
        self.outbox.set_selection(selection);
    }

    fn ends_lines_with_crlf(&self) -> bool {
        self.capabilities.is_some_and(|c| c.has(capability::GUEST_LINEEND_CRLF))
    }

    pub(super) fn monitor(&mut self, size: (u32, u32)) {
        if self.capabilities.is_some_and(|c| c.has(capability::MONITORS_CONFIG)) {
            self.outbox.tell_screen(size);
        }
    }

    /// Handles that the guest has something in its own clipboard, which replaces what was offered.
    pub(super) fn grabs(&mut self, types: &[u32]) {
        self.offer = None;
        self.grabbed = types.iter().filter_map(|number| media_type(*number)).collect();
    }

    /// Returns the type to ask for: text if there is any, as that is what somebody means who marks something in a table that is a picture
    /// too; then the picture that loses least.
    pub(super) fn best(&self) -> Option<MediaType> {
        [
            MediaType::TextPlain,
            MediaType::ImagePng,
            MediaType::ImageTiff,
            MediaType::ImageBmp,
            MediaType::ImageJpeg,
            MediaType::FileList,
        ]
        .into_iter()
        .find(|wanted| self.grabbed.contains(wanted))
    }

    /// Offers what is permitted to its programs, in the guest's own kind of lines. `false`: it does not take anything.
    pub(super) fn offer(&mut self, permit: Permit<Paste>, now: Time) -> bool {
        let content = Arc::new(PermittedContent::by(permit, self.ends_lines_with_crlf()));
        let until = now.saturating_add(OFFERED_FOR);
        self.grabbed.clear();
        let sent = self.outbox.offer(&content);
        self.offer = sent.then_some(Offer { content, until, taken: false });
        sent
    }

    /// Handles a program's request for what is offered, or for something that is not; returns whether it gets it for the first time.
    pub(super) fn requests_content(&mut self, wanted: u32) -> bool {
        let is_asked_for = |offer: &&mut Offer| number(offer.content.media_type()) == Some(wanted);
        let Some(offer) = self.offer.as_mut().filter(is_asked_for) else {
            self.outbox.send_no_content();
            return false;
        };
        if !self.outbox.send_content(Arc::clone(&offer.content)) {
            self.outbox.send_no_content();
            return false;
        }
        self.sending = Some(offer.clone());
        !std::mem::replace(&mut offer.taken, true)
    }

    /// Returns what is offered, and what is on its way to a program: each is withdrawn if `ends` says so.
    pub(super) fn withdraw(&mut self, ends: impl Fn(&Offer) -> bool) -> Withdrawn {
        let sent = self.sending.take().filter(|_| self.outbox.sends_content());
        let (ended, sent): (Option<Offer>, _) = match sent {
            Some(sent) if ends(&sent) => (Some(sent), None),
            sent => (None, sent),
        };
        self.sending = sent;
        let offer = self.offer.take_if(|offer| ends(offer));
        if ended.is_some() && !self.outbox.withdraw_content() {
            return Withdrawn::Cut;
        }
        if offer.is_some() {
            self.outbox.release();
        }
        if offer.is_some() || ended.is_some() { Withdrawn::Done } else { Withdrawn::Nothing }
    }

    /// Disconnects it, as its stream made no sense or could not be read. Returns when it may try again.
    pub(super) fn pause(&mut self, now: Time) -> Time {
        self.disconnect();
        self.again(now, 0)
    }

    /// Disconnects it, as its reader says that its stream has ended. Returns when it may try again: at once, but not again and again.
    pub(super) fn ended(&mut self, now: Time) -> Time {
        self.disconnect();
        self.again(now, 1)
    }

    /// Counts one more stream that ended, and returns when the next may begin; so many of them were free.
    fn again(&mut self, now: Time, free: u32) -> Time {
        let (least, most) = AGAIN;
        // Whatever it said meanwhile, only a stream that has lived for long starts the pauses anew.
        if now >= self.faults.until.saturating_add(most) {
            self.faults.in_a_row = 0;
        }
        let doubled = self.faults.in_a_row.checked_sub(free);
        let pause = doubled
            .map_or(Time::ZERO, |doubled| least.saturating_mul(1 << doubled.min(10)).min(most));
        self.faults.in_a_row = self.faults.in_a_row.saturating_add(1);
        self.faults.until = now.saturating_add(pause);
        self.faults.until
    }

    /// Returns how many times its stream made no sense are to be written down now, this one among them, if any are.
    pub(super) fn faults_to_record(&mut self, now: Time) -> Option<u64> {
        self.faults.entries.admit(now).map(|before| before.saturating_add(1))
    }
}
