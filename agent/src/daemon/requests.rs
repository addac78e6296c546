//! What the control socket asks for, and what the threads report.

use std::sync::Arc;

use super::desk::Wish;
use super::{Running, record, report};
use crate::clipboard::Command;
use crate::control::protocol::{Answer, Request};
use crate::control::roles::Caller;
use crate::supervisor::domain::Event;

impl Running {
    /// Takes what happened at the seat and in the mediators, and tells each what it is to know.
    pub(super) fn turn(&mut self) {
        let events = self.desk.turn(&self.supervisor, &self.recorder);
        if !events.is_empty() {
            self.recorder.note(&events);
        }
        for wish in self.desk.wishes() {
            match wish {
                Wish::Chord(chord, front) => {
                    self.pasteboard.tell(Command::Chord(chord, front, None));
                }
                Wish::Answered(id, yes) => self.pasteboard.tell(Command::Answered(id, yes)),
                Wish::Locked => self.pasteboard.tell(Command::Locked),
            }
        }
        self.pasteboard.turn(&self.desk, &mut self.recorder);
    }

    /// Answers a request of somebody who may make it.
    pub(super) fn answer(&mut self, caller: &Caller, request: Request) -> Answer {
        match &request {
            Request::Status => {
                let status = report::status(self);
                return Answer::of(Ok(Some(status)));
            }
            Request::ClipboardOutcome { ticket } => return self.pasteboard.outcome(*ticket),
            Request::ApplyPolicy { policy, .. } => {
                tracing::info!("{caller} asks to put a policy of {} bytes in force", policy.len());
            }
            other => {
                tracing::info!("{caller} asks: {other:?}");
                self.recorder.note(&[record::asked(caller, other)]);
            }
        }
        let Self { papers, supervisor, desk, pasteboard, recorder } = self;
        let done = match request {
            Request::Status | Request::ClipboardOutcome { .. } => Ok(()),
            Request::Copy { domain } => {
                return pasteboard.ask(clipboard::mediator::Chord::Copy, &domain, desk);
            }
            Request::Paste { domain } => {
                return pasteboard.ask(clipboard::mediator::Chord::Paste, &domain, desk);
            }
            Request::ClipboardAnswer { ticket, yes } => return pasteboard.answer(ticket, yes),
            Request::ApplyPolicy { policy, signatures } => papers
                .apply(supervisor, recorder, caller, policy, signatures)
                .inspect(|()| {
                    desk.take_policy(&papers.files.rules);
                    pasteboard.tell(Command::Policy(Arc::clone(&papers.files.rules)));
                })
                .inspect_err(|refusal| {
                    tracing::error!("the policy is refused, the one in force stays: {refusal}");
                    recorder.note(&[record::policy_refused(caller, refusal)]);
                }),
            Request::Start { domain } => supervisor.command(&domain, Event::Start),
            Request::Stop { domain, now } => supervisor.command(&domain, Event::Stop { now }),
            Request::Restart { domain } => supervisor.command(&domain, Event::Restart),
            Request::Reset { domain } => supervisor.reset(&domain),
            Request::Switch { domain } => desk.switch(&domain),
            Request::Lock => desk.lock(),
            Request::Unlock => desk.unlock(),
        };
        Answer::of(done.map(|()| None))
    }
}
