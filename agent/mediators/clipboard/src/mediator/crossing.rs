//! A paste that is being decided on, from the policy's verdict to the offer.
//!
//! ```text
//!  judge --+-- a picture --> Decoding --decoded--> judge
//!          |                    | not, or not in its time
//!          |                    v
//!          |               words, audit
//!          |
//!          +-- owes an answer --> Asking --yes--> Recording --permitted--> offered
//!          |                        | no, silence     | refused, or not wanted any more
//!          +-- owes none -----------|---------------->+
//!                                   v                 v
//!                             words, audit       words, audit
//! ```
//! In `Decoding` a worker has the picture, and nothing was allowed yet: whatever it answers is judged as if it had been copied so. What ends it besides
//! is on the record with what the policy had said, and why it came to nothing.
//! In `Recording` the content is with the monitor: it comes back in the permit, and there is nothing else to offer.

use std::sync::Arc;

use audit::events::{ClipboardNotDelivered, ClipboardPaste, Verdict};
use monitor::{Basis, Denial, Owed, Permit, Request};
use policy::decide::Decision;
use policy::language::MediaType;

use super::words::{LOG, Outcome, TAKES_NOTHING};
use super::{ClipboardEvent, ClipboardMediator, DomainIndex, Output, Ticket, Time};
use crate::grant::{Paste, Secret};
use clipboard_content::Rejected;

/// A paste as it was asked for.
#[derive(Debug)]
pub(super) struct Pressed {
    pub(super) from: DomainIndex,
    pub(super) to: DomainIndex,
    pub(super) media_type: MediaType,
    pub(super) content: Secret,
    pub(super) sha256: String,
    pub(super) ticket: Option<Ticket>,
}

/// A paste whose picture is being decoded.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) pressed: Pressed,
    /// What the policy said of it as it was pressed, for the record of one that ends before it is decoded.
    pub(super) event: ClipboardPaste,
}

/// How far it is.
#[derive(Debug)]
pub(super) enum Stage {
    /// A worker decodes the picture; from `told` on people are told so.
    Decoding { told: Told, until: Time, decoded: Box<Decoded> },
    /// A person is asked, with this to be authorised if the answer is yes.
    Asking { until: Time, wanted: Box<PendingPaste> },
    /// The monitor decides and records. It has the content: there is nothing here to offer until the permit brings it back.
    Recording,
}

/// Whether people are told that a picture is being decoded.
#[derive(Clone, Copy, Debug)]
pub(super) enum Told {
    /// People are told when this time comes.
    From(Time),
    /// They were told.
    Yes,
}

/// A paste that the policy lets through, if what it owes is done.
#[derive(Debug)]
pub(super) struct PendingPaste {
    pub(super) basis: Basis,
    pub(super) owed: Owed,
    pub(super) event: ClipboardPaste,
    pub(super) paste: Paste,
}

/// A paste that is being decided on.
#[derive(Debug)]
pub(super) struct Crossing {
    pub(super) id: u64,
    pub(super) stage: Stage,
    pub(super) ticket: Option<Ticket>,
    pub(super) to: DomainIndex,
    pub(super) by: (&'static str, Option<String>),
    pub(super) what: String,
}

impl ClipboardMediator {
    /// Handles the answer to a question.
    pub fn answered(&mut self, id: u64, yes: bool) {
        let asked = |crossing: &mut Crossing| {
            crossing.id == id && matches!(crossing.stage, Stage::Asking { .. })
        };
        let Some(crossing) = self.crossing.take_if(asked) else { return };
        let Crossing { stage: Stage::Asking { mut wanted, .. }, id, ticket, to, by, what } =
            crossing
        else {
            return;
        };
        wanted.event.answer = Some(if yes { "yes" } else { "no" }.to_owned());
        if !yes {
            return self.refuse(ticket, wanted.event, (&by, &what), "it was answered with no");
        }
        self.authorize(*wanted);
        self.crossing = Some(Crossing { id, stage: Stage::Recording, ticket, to, by, what });
    }

    pub(super) fn authorize(&mut self, wanted: PendingPaste) {
        let PendingPaste { basis, owed, event, paste } = wanted;
        let number = paste.id;
        self.report(ClipboardEvent::Authorize(Request {
            number,
            basis,
            owed,
            event,
            grant: paste,
        }));
    }

    fn refuse(
        &mut self,
        ticket: Option<Ticket>,
        event: ClipboardPaste,
        (by, what): (&(&'static str, Option<String>), &str),
        why: &str,
    ) {
        let words = format!("Not pasted: {what}.\nReason: {why}.");
        self.report(ClipboardEvent::Note(event.into()));
        self.report(ClipboardEvent::Completed(ticket, Outcome::no(words).by(by)));
    }

    /// Ends what is being decided on, with no.
    pub(super) fn end_crossing(&mut self, why: &str) {
        let Some(Crossing { id, stage, ticket, to, by, what }) = self.crossing.take() else {
            return;
        };
        match stage {
            Stage::Decoding { decoded, .. } => {
                self.out.push(Output::StopDecoding(id));
                let event = decoded.event;
                if event.verdict == Verdict::Allow {
                    let words = format!("Not pasted: {what}.\nReason: {why}.");
                    self.report(ClipboardEvent::Note(event.into()));
                    self.not_delivered(to, why);
                    self.report(ClipboardEvent::Completed(ticket, Outcome::no(words).by(&by)));
                } else {
                    // Nobody was asked yet.
                    let event = ClipboardPaste { answer: Some(why.to_owned()), ..event };
                    self.refuse(ticket, event, (&by, &what), why);
                }
            }
            Stage::Asking { wanted, .. } => {
                self.report(ClipboardEvent::Withdraw(id));
                let event = ClipboardPaste { answer: Some(why.to_owned()), ..wanted.event };
                let why = format!("there was no answer ({why})");
                self.refuse(ticket, event, (&by, &what), &why);
            }
            // It is written down as allowed; it will not happen, which a second entry says.
            Stage::Recording => {
                self.not_delivered(to, why);
                let words = format!("Not pasted: {what}.\nReason: {why}.");
                self.report(ClipboardEvent::Completed(ticket, Outcome::no(words).by(&by)));
            }
        }
    }

    /// Ends a paste whose picture was not decoded in its time.
    pub(super) fn too_slow(&mut self) {
        let decodes = |crossing: &mut Crossing| crossing.decodes(crossing.id);
        let Some(crossing) = self.crossing.take_if(decodes) else { return };
        let Crossing { id, stage: Stage::Decoding { decoded, .. }, ticket, by, what, .. } =
            crossing
        else {
            return;
        };
        self.out.push(Output::StopDecoding(id));
        let why = Rejected::TooSlow.to_string();
        let event =
            ClipboardPaste { verdict: Verdict::Deny, unfit: Some(why.clone()), ..decoded.event };
        self.refuse(ticket, event, (&(Decision::Deny.word(), by.1), &what), &why);
    }

    /// Returns whether this very content is being decoded already, to be pasted there: whoever presses again waits for the same. The operation that
    /// waited until now hears that another does.
    pub(super) fn still_decodes(
        &mut self,
        content: &Secret,
        to: DomainIndex,
        ticket: Option<Ticket>,
    ) -> bool {
        let Some(crossing) = &mut self.crossing else { return false };
        let Stage::Decoding { decoded, .. } = &crossing.stage else { return false };
        if crossing.to != to || !Arc::ptr_eq(&decoded.pressed.content, content) {
            return false;
        }
        let before = std::mem::replace(&mut crossing.ticket, ticket);
        if before != ticket {
            let words = "The same was pasted once more, and is still being prepared.";
            self.complete(before, Outcome::no(words));
        }
        true
    }

    /// Writes down that an allowed paste does not reach its domain.
    fn not_delivered(&mut self, to: DomainIndex, why: &str) {
        let event = ClipboardNotDelivered { domain: self.name(to), why: why.to_owned() };
        self.report(ClipboardEvent::Note(event.into()));
    }

    /// Offers a paste that the monitor permits, whose entry is on the disk. One that has ended since then is not offered, which an entry says already.
    pub fn permitted(&mut self, permit: Permit<Paste>, now: Time) {
        let Some(crossing) = self.take_recording(permit.grant().id) else { return };
        let Crossing { ticket, by, what, .. } = crossing;
        let to = permit.grant().to;
        let Some(guest) = self.guests.get_mut(to).filter(|guest| guest.has_agent()) else {
            self.not_delivered(to, "its agent is gone");
            return self.complete(ticket, self.no_agent(to, now).by(&by));
        };
        let words = if guest.offer(permit, now) {
            Outcome::yes(format!("Ready: {what}.\nPress Ctrl+V where it belongs."))
        } else {
            self.not_delivered(to, TAKES_NOTHING);
            Outcome::no(format!("Not pasted: {what}.\nReason: {TAKES_NOTHING}."))
        };
        self.complete(ticket, words.by(&by));
    }

    /// Ends a paste that the monitor denies.
    pub fn refused(&mut self, id: u64, denial: Denial) {
        let Some(crossing) = self.take_recording(id) else { return };
        let Crossing { ticket, to, by, what, .. } = crossing;
        let words = match denial {
            Denial::Unrecorded => LOG.to_owned(),
            _ => format!("Not pasted: {what}.\nReason: {denial}."),
        };
        if denial != Denial::Unrecorded {
            // It is on the record as allowed.
            self.not_delivered(to, &denial.to_string());
        }
        self.complete(ticket, Outcome::no(words).by(&by));
    }

    fn take_recording(&mut self, id: u64) -> Option<Crossing> {
        self.crossing
            .take_if(|crossing| crossing.id == id && matches!(crossing.stage, Stage::Recording))
    }
}

impl Crossing {
    /// Returns whether it is the one of this number, and its picture is being decoded.
    pub(super) fn decodes(&self, id: u64) -> bool {
        self.id == id && matches!(self.stage, Stage::Decoding { .. })
    }

    /// Has people told of it, if it is being decoded for that long.
    pub(super) fn tell(&mut self, now: Time) {
        if let Stage::Decoding { told, .. } = &mut self.stage
            && matches!(told, Told::From(time) if now >= *time)
        {
            *told = Told::Yes;
        }
    }

    /// Returns whether people are told that its picture is being decoded.
    pub(super) fn is_preparing(&self) -> bool {
        matches!(self.stage, Stage::Decoding { told: Told::Yes, .. })
    }

    /// Returns when time alone changes something about it.
    pub(super) fn due(&self) -> Option<Time> {
        match self.stage {
            Stage::Decoding { told: Told::From(time), until, .. } => Some(time.min(until)),
            _ => self.until(),
        }
    }

    /// Returns when it ends by itself, if it does.
    pub(super) fn until(&self) -> Option<Time> {
        match self.stage {
            Stage::Decoding { until, .. } | Stage::Asking { until, .. } => Some(until),
            Stage::Recording => None,
        }
    }
}

#[cfg(test)]
impl Crossing {
    /// Returns how many bytes of content it keeps.
    pub(super) fn kept(&self) -> usize {
        match &self.stage {
            Stage::Decoding { decoded, .. } => decoded.pressed.content.len(),
            Stage::Asking { wanted, .. } => wanted.paste.content.len(),
            Stage::Recording => 0,
        }
    }
}
