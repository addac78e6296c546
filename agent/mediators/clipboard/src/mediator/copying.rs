//! Copying: asking a guest for its clipboard, and telling its answer from others.

use crate::mediator::ClipboardEvent;
use audit::events::ClipboardCopied;

use super::limits::HELD_FOR;
use super::words::{Outcome, label, nothing_copied, too_often};
use super::{ClipboardMediator, DomainIndex, Guest, Held, Output, Pull, Ticket, Time, hash};
use crate::grant::Secret;
use crate::vdagent::number;
use clipboard_content as content;
use worker_link::clipboard::Command;

impl ClipboardMediator {
    pub(super) fn copy(&mut self, from: DomainIndex, ticket: Option<Ticket>, now: Time) {
        self.forget();
        let shown = label(&self.policy, &self.name(from)).to_owned();
        if !self.allowed(from, from, now) {
            return self.complete(ticket, too_often());
        }
        if !self.guests.get(from).is_some_and(Guest::has_agent) {
            return self.complete(ticket, self.no_agent(from, now));
        }
        let Some(media_type) = self.guests.get(from).and_then(Guest::best) else {
            return self.complete(ticket, nothing_copied(&shown));
        };
        let Some(number) = self.announce_request(from, now) else { return };
        let (since, heard, asked) = (now, now, false);
        self.pull = Some(Pull { from, media_type, ticket, number, asked, since, heard });
    }

    /// Has nobody wait for the answer to a request any more.
    pub(super) fn give_up(&mut self, pull: &Pull) {
        let command = Command::GiveUp { number: pull.number };
        self.out.push(Output::Tell(pull.from, command));
    }

    pub(super) fn pull_failed(&mut self, why: &str, now: Time) {
        let Some(pull) = self.pull.take() else { return };
        self.give_up(&pull);
        let name = self.name(pull.from);
        let words = format!("Not copied: {} {why}.", label(&self.policy, &name));
        self.complete(pull.ticket, Outcome::no(words));
        self.paste_early(now);
    }

    /// Carries out the paste hotkey that came before the copy was complete.
    fn paste_early(&mut self, now: Time) {
        if let Some((to, ticket)) = self.early.take() {
            self.paste(to, ticket, now);
        }
    }

    pub(super) fn content(&mut self, index: DomainIndex, kind: u32, bytes: Secret, now: Time) {
        let Some(pull) = self.pull.take_if(|pull| pull.from == index && pull.asked) else { return };
        if number(pull.media_type) != Some(kind) || bytes.is_empty() {
            self.pull = Some(pull);
            return self.pull_failed("has nothing in its clipboard any more", now);
        }
        let (media_type, ticket) = (pull.media_type, pull.ticket);
        let name = self.name(index);
        let sha256 = hash(&bytes);
        let event = ClipboardCopied {
            domain: name.clone(),
            bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            sha256: sha256.clone(),
            r#type: media_type.word().to_owned(),
        };
        self.report(ClipboardEvent::Note(event.into()));
        let amount = content::amount(media_type, &bytes, None);
        let words = format!(
            "Copied from {}: {amount}.\nGo to the other desktop and press {}.",
            label(&self.policy, &name),
            self.policy.hotkeys().paste.value
        );
        let until = now.saturating_add(HELD_FOR);
        self.held = Some(Held { from: index, media_type, content: bytes, sha256, until });
        self.report(ClipboardEvent::Completed(ticket, Outcome::yes(words)));
        self.paste_early(now);
    }
}
