//! Who may paste what: the mediator as a state machine.
//!
//! ```text
//!  copy hotkey in A --> Pull (request to A) --content--> Held
//!  paste hotkey in B -> fit, policy --+-- deny ----------------------------> words, audit
//!                                    +-- ask --> question --no, silence --> words, audit
//!                                    |               |yes
//!                                    +-- allow ------+--> audit on the disk --> Offer to B --request--> content to B
//! ```
//! - Nothing is asked of a guest and nothing is offered to one without a hotkey pressed in it. What a guest sends unasked is not
//!   kept; of its clipboard only the types are known.
//! - A copy hotkey wipes what was held, so that a copy that fails never leaves yesterday's patient to be pasted.
//! - What a guest does changes what it is sent itself, and nothing else: no other guest's stream depends on it, but for what a
//!   person copied out of it and pasted.
//! - A picture is decoded elsewhere, by a worker that lives for it; what that says is judged, and allows nothing by itself.
//! - At most one content is held and one is being decided on; each guest is offered at most one.
//! - Each guest's stream is read by a worker that sees no other's ([`vdagent::GuestReader`] is what it does), and what that says
//!   is believed of its guest alone, and as much as that guest would be.
//! - Answers name no request: a guest has one request at a time to answer. A copy hotkey that comes while the answer to an earlier one
//!   is due waits until its reader says that this came and was dropped; if it does not come, the stream is renewed.
//! - Withdrawn is withdrawn: what a guest asked for and has not read is taken back, if need be by ending its stream in the middle of
//!   the message (see [`crate::vdagent`], `outbox`).
//!
//! Time is given to every call: since any fixed moment, never backwards.

mod copying;
mod crossing;
mod guest;
mod heard;
mod judge;
pub mod limits;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod played;
mod requests;
#[cfg(test)]
mod tests;
mod withdrawal;
mod words;

use std::sync::Arc;

use audit::AuditEvent;
use monitor::Request;
use policy::Policy;
use policy::language::MediaType;
use ratelimit::RateLimiter;
use sha2::{Digest, Sha256};
use worker_link::Job;
use worker_link::clipboard::Command;

use crate::grant::Secret;
pub use crate::grant::{DomainIndex, Paste};
use crate::vdagent::Outbox;
use crossing::{Crossing, Pressed, Stage};
use guest::{Guest, Reading};
use limits::{HOTKEYS, PULL_MAX, PULL_SILENCE};
pub use requests::ReaderFault;
pub use words::Outcome;
use words::{SILENT, label, too_often};

/// Time since a moment of the caller's choice.
pub type Time = std::time::Duration;
/// The number of an operation of the command line.
pub type Ticket = u64;

/// The hotkeys of the clipboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hotkey {
    /// Take the front's clipboard.
    Copy,
    /// Offer it to the front.
    Paste,
}

/// An event of the clipboard for the daemon.
#[derive(Debug)]
pub enum ClipboardEvent {
    /// The monitor is to decide this request; the answer is [`ClipboardMediator::permitted`] or
    /// [`ClipboardMediator::refused`].
    Authorize(Request<Paste>),
    /// This event belongs into the audit log.
    Note(AuditEvent),
    /// The operation that a hotkey began has ended.
    Completed(Option<Ticket>, Outcome),
    /// A person is to be asked; the answer is [`ClipboardMediator::answered`].
    Ask(Option<Ticket>, u64, String),
    /// The question of this number is withdrawn.
    Withdraw(u64),
    /// A guest's agent has announced itself, or is gone.
    Agent(DomainIndex, bool),
    /// A picture takes longer to be decoded than a moment; `false`: none does any more.
    Preparing(bool),
}

/// An effect that the caller must carry out.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly every output is a report")]
pub enum Output {
    /// Close this guest's connection, and make none before then.
    Disconnect(DomainIndex, Time),
    /// Tell this guest's reader, if it has one.
    Tell(DomainIndex, Command),
    /// Have a worker decode this picture; what came of it is told to [`ClipboardMediator::decoded`] with this number.
    Decode(u64, Job, Secret),
    /// End the worker of this number: nobody waits for it any more.
    StopDecoding(u64),
    /// An event for the daemon to log or to show.
    Report(ClipboardEvent),
}

#[derive(Debug)]
struct Pull {
    from: DomainIndex,
    media_type: MediaType,
    ticket: Option<Ticket>,
    /// The request's number.
    number: u32,
    /// Whether the guest was asked; if not, its reader has not said yet that it may be.
    asked: bool,
    since: Time,
    heard: Time,
}

impl Pull {
    /// Returns whether it is the one of this guest with this request.
    fn is(&self, from: DomainIndex, number: u32) -> bool {
        self.from == from && self.number == number
    }
}

#[derive(Debug)]
struct Held {
    from: DomainIndex,
    media_type: MediaType,
    content: Secret,
    /// Its SHA-256 as text: taken once, as it is slower than sending the content.
    sha256: String,
    until: Time,
}

/// The mediator between the clipboards of all guests, as the module describes it.
#[derive(Debug)]
pub struct ClipboardMediator {
    policy: Arc<Policy>,
    guests: Vec<Guest>,
    screen: Option<(u32, u32)>,
    pull: Option<Pull>,
    held: Option<Held>,
    /// A paste hotkey that came before the copy was complete.
    early: Option<(DomainIndex, Option<Ticket>)>,
    crossing: Option<Crossing>,
    hotkeys: Vec<RateLimiter>,
    last_id: u64,
    out: Vec<Output>,
}

impl ClipboardMediator {
    /// Makes a mediator between the domains of these names, none of them connected.
    #[must_use]
    pub fn new(names: &[String], policy: Arc<Policy>) -> Self {
        let directions = names.len() * names.len();
        Self {
            policy,
            guests: (0..).zip(names).map(|(index, name)| Guest::new(index, name.clone())).collect(),
            screen: None,
            pull: None,
            held: None,
            early: None,
            crossing: None,
            hotkeys: vec![RateLimiter::new(HOTKEYS); directions],
            last_id: 0,
            out: Vec::new(),
        }
    }

    /// Returns what is to be done since the last call.
    pub fn outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.out)
    }

    /// Returns what waits to be written to a guest.
    pub fn outbox(&mut self, guest: DomainIndex) -> Option<&mut Outbox> {
        self.guests.get_mut(guest).map(|guest| &mut guest.outbox)
    }

    /// Returns whether a guest's stream has begun, and was not ended since.
    #[must_use]
    pub fn is_connected(&self, guest: DomainIndex) -> bool {
        self.guests.get(guest).is_some_and(|guest| guest.connected)
    }

    /// Returns whether a guest's agent has announced itself.
    #[must_use]
    pub fn has_agent(&self, guest: DomainIndex) -> bool {
        self.guests.get(guest).is_some_and(Guest::has_agent)
    }

    /// Returns whether a picture is being decoded for so long that people are told.
    #[must_use]
    pub fn is_preparing(&self) -> bool {
        self.crossing.as_ref().is_some_and(Crossing::is_preparing)
    }

    fn pulls_from(&self, guest: DomainIndex) -> bool {
        self.pull.as_ref().is_some_and(|pull| pull.from == guest)
    }

    /// Handles that a guest's stream begins.
    pub fn connected(&mut self, guest: DomainIndex) {
        if let Some(guest) = self.guests.get_mut(guest) {
            guest.connect();
        }
    }

    /// Handles that a guest's stream has ended.
    pub fn disconnected(&mut self, guest: DomainIndex, now: Time) {
        if let Some(guest) = self.guests.get_mut(guest) {
            guest.disconnect();
        }
        if self.pulls_from(guest) {
            self.pull_failed("was restarted", now);
        }
    }

    /// Handles that the other end of a guest's stream has hung up: it has no agent from now on. What it said before that is heard to its end.
    pub fn hung_up(&mut self, index: DomainIndex, now: Time) {
        let Some(guest) = self.guests.get_mut(index).filter(|guest| guest.connected) else {
            return;
        };
        guest.hang_up();
        if self.pull.as_ref().is_some_and(|pull| pull.from == index && !pull.asked) {
            self.pull_failed("was restarted", now);
        }
    }

    /// Sets the size of the guests' screens, in pixels, for agents that can set it.
    pub fn screen(&mut self, size: Option<(u32, u32)>) {
        if self.screen == size {
            return;
        }
        self.screen = size;
        if let Some(size) = size {
            self.guests.iter_mut().for_each(|guest| guest.monitor(size));
        }
    }

    /// Handles a hotkey that was pressed with this domain in front.
    pub fn hotkey(
        &mut self,
        hotkey: Hotkey,
        front: DomainIndex,
        ticket: Option<Ticket>,
        now: Time,
    ) {
        if front >= self.guests.len() {
            return self.complete(ticket, Outcome::no("There is no such desktop."));
        }
        match hotkey {
            Hotkey::Copy => self.copy(front, ticket, now),
            Hotkey::Paste => self.paste(front, ticket, now),
        }
    }

    fn paste(&mut self, to: DomainIndex, ticket: Option<Ticket>, now: Time) {
        self.expire(now);
        if let Some(content) = self.held.as_ref().map(|held| Secret::clone(&held.content))
            && self.still_decodes(&content, to, ticket)
        {
            return;
        }
        self.end_crossing("another paste");
        if self.pull.is_some() {
            if let Some((_, before)) = self.early.replace((to, ticket)) {
                self.complete(before, Outcome::no("Not pasted: another paste came after it."));
            }
            return;
        }
        let Some(held) = &self.held else {
            let words = format!(
                "Nothing to paste.\nGo where it is, copy it, and press {} there.",
                self.policy.hotkeys().copy.value
            );
            return self.complete(ticket, Outcome::no(words));
        };
        let (from, media_type) = (held.from, held.media_type);
        let (content, sha256) = (Secret::clone(&held.content), held.sha256.clone());
        if from == to {
            return self
                .complete(ticket, Outcome::no("It was copied on this desktop: press Ctrl+V."));
        }
        if !self.allowed(from, to, now) {
            return self.complete(ticket, too_often());
        }
        if !self.guests.get(to).is_some_and(Guest::has_agent) {
            return self.complete(ticket, self.no_agent(to, now));
        }
        self.judge(Pressed { from, to, media_type, content, sha256, ticket }, now);
    }

    /// Ends what is being decided on: the agent ends.
    pub fn end(&mut self) {
        self.end_crossing("the agent ends");
    }

    /// Wipes what is held, ends what is under way.
    fn forget(&mut self) {
        self.held = None;
        self.end_crossing("it was not wanted any more");
        if let Some((_, ticket)) = self.early.take() {
            self.complete(ticket, Outcome::no("Not pasted: it was not wanted any more."));
        }
        if let Some(pull) = self.pull.take() {
            self.give_up(&pull);
            self.complete(pull.ticket, Outcome::no("Not copied: it was not wanted any more."));
        }
    }

    /// Handles that time has passed.
    pub fn tick(&mut self, now: Time) {
        self.expire(now);
        for index in 0..self.guests.len() {
            let waiting = self.guests.get(index).and_then(|guest| guest.requests.waiting);
            if waiting.is_some_and(|waiting| now >= waiting.since + PULL_SILENCE) {
                // It has had its time twice. What it may still say on this stream is not waited for.
                self.renew(index, SILENT, now);
            }
        }
        if let Some(pull) = &self.pull
            && (now >= pull.heard + PULL_SILENCE || now >= pull.since + PULL_MAX)
        {
            self.pull_failed(SILENT, now);
        }
        if let Some(crossing) = &mut self.crossing {
            crossing.tell(now);
        }
        let late =
            self.crossing.as_ref().and_then(Crossing::until).is_some_and(|until| now >= until);
        match self.crossing.as_ref().map(|crossing| &crossing.stage) {
            Some(Stage::Asking { .. }) if late => self.end_crossing("silence"),
            Some(Stage::Decoding { .. }) if late => self.too_slow(),
            _ => {}
        }
        self.withdraw(now, |_, offer| now >= offer.until);
    }

    fn expire(&mut self, now: Time) {
        self.held.take_if(|held| now >= held.until);
    }

    /// Returns when [`Self::tick`] is next due.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let pull = self.pull.as_ref().map(|p| (p.heard + PULL_SILENCE).min(p.since + PULL_MAX));
        let crossing = self.crossing.as_ref().and_then(Crossing::due);
        let offers = self.guests.iter().flat_map(|guest| {
            let sending = guest.sending.as_ref().filter(|_| guest.outbox.sends_content());
            guest.offer.iter().chain(sending).map(|offer| offer.until)
        });
        let held = self.held.as_ref().map(|held| held.until);
        let waiting = self.guests.iter().filter_map(|guest| guest.requests.waiting);
        let waiting = waiting.map(|waiting| waiting.since + PULL_SILENCE);
        pull.into_iter().chain(waiting).chain(crossing).chain(held).chain(offers).min()
    }

    /// Returns how many bytes are kept of guests' content and of what waits for them.
    #[cfg(test)]
    fn kept(&self) -> usize {
        let held = self.held.as_ref().map_or(0, |held| held.content.len());
        let crossing = self.crossing.as_ref().map_or(0, Crossing::kept);
        let guests = self.guests.iter().map(|guest| {
            let offer = guest.offer.as_ref().map_or(0, |offer| offer.content.bytes().len());
            guest.outbox.kept() + offer
        });
        held + crossing + guests.sum::<usize>()
    }

    fn allowed(&mut self, from: DomainIndex, to: DomainIndex, now: Time) -> bool {
        let at = from * self.guests.len() + to;
        self.hotkeys.get_mut(at).is_some_and(|limiter| limiter.take(1, now))
    }

    fn report(&mut self, event: ClipboardEvent) {
        self.out.push(Output::Report(event));
    }

    /// Ends a hotkey's operation with this outcome.
    fn complete(&mut self, ticket: Option<Ticket>, outcome: Outcome) {
        self.report(ClipboardEvent::Completed(ticket, outcome));
    }

    /// Returns that this domain can neither copy nor paste, and why.
    fn no_agent(&self, index: DomainIndex, now: Time) -> Outcome {
        let name = self.name(index);
        let label = label(&self.policy, &name);
        match self.guests.get(index).map(|guest| guest.reading(now)) {
            Some(Reading::DoesNotStart) => words::reader_missing(label),
            Some(Reading::Failed) => words::reader_failed(label),
            Some(Reading::Works) | None => words::no_agent(label),
        }
    }

    fn name(&self, index: DomainIndex) -> String {
        self.guests.get(index).map(|guest| guest.name.clone()).unwrap_or_default()
    }
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
