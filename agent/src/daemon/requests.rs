//! What the control socket asks for, and what the threads report.

use std::sync::Arc;
use std::time::Duration;

use audit::events::{Asked, Outcome};
use clock::Moment;

use super::desk::{Question, Wish};
use super::tally::TOO_OFTEN;
use super::{Running, record, report};
use crate::clipboard::Command;
use crate::control::protocol::{Answer, Request};
use crate::control::roles::Caller;
use crate::control::server::Refused;
use crate::supervisor::domain::Event;

impl Running {
    /// Takes what happened at the seat and in the mediators, and tells each what it is to know.
    pub(super) fn turn(&mut self) {
        self.recorder.turn();
        let counted = self.tallies.turn(Moment::now());
        if !counted.is_empty() {
            self.recorder.note(&counted);
        }
        self.papers.remember(&mut self.recorder);
        if self.break_glass.turn(&mut self.recorder) {
            self.rules_changed();
        }
        let glass = self.break_glass.news();
        let news = glass.into_iter().chain(self.pasteboard.news()).chain(self.devices.news());
        let events = self.desk.turn(&self.supervisor, &self.recorder, news);
        if !events.is_empty() {
            self.recorder.note(&events);
        }
        for wish in self.desk.wishes() {
            match wish {
                Wish::Chord(chord, front) => {
                    self.pasteboard.tell(Command::Chord(chord, front, None));
                }
                Wish::Answered(id, yes) => self.pasteboard.answered(id, yes),
                Wish::Locked => self.pasteboard.tell(Command::Locked),
                Wish::BreakGlass => self.break_glass.chord(&self.papers.files.rules, &self.desk),
                Wish::Own(question, true) => self.agreed(question, None),
                Wish::OwnChoice(question, chosen) => self.agreed(question, Some(chosen)),
                Wish::Own(_, false) => {}
            }
        }
        self.pasteboard.turn(&self.desk, &mut self.recorder);
        self.devices.turn(&self.desk, &mut self.recorder);
    }

    /// Somebody at the seat said yes, or chose.
    fn agreed(&mut self, question: Question, chosen: Option<usize>) {
        let words = match question {
            Question::OpenBreakGlass => {
                let policy = Arc::clone(&self.papers.files.rules);
                match self.break_glass.agreed(&policy, &mut self.recorder, chosen) {
                    Ok(_) => "Break-glass is open.".to_owned(),
                    Err(why) => format!("Break-glass stays closed:\n{why}."),
                }
            }
            Question::CloseBreakGlass => {
                self.break_glass.close(&mut self.recorder, "by somebody at the seat");
                "Break-glass is closed.".to_owned()
            }
        };
        self.rules_changed();
        self.desk.notice(words);
    }

    /// Other rules count: another policy, or break-glass has begun or ended.
    fn rules_changed(&self) {
        self.devices.rules(&self.papers.files.rules, self.break_glass.is_open());
    }

    /// Somebody asked for what they may not: it goes on the record, and no more often than is worth reading.
    pub(super) fn refuse(&mut self, caller: &Caller, refused: Refused<'_>) -> Answer {
        let Refused { request, why } = refused;
        let refused = record::refused(caller, request, why);
        if let Some(event) = self.tallies.refused.count(refused, Moment::now()) {
            self.recorder.note(&[event]);
        }
        Answer::of(Err(why.to_owned()))
    }

    /// Answers a request of somebody who may make it. What changes something is on the record before
    /// anything of it is done, and how a request ended is when the answer goes out, or is counted.
    pub(super) fn answer(&mut self, caller: &Caller, request: Request) -> Answer {
        match &request {
            Request::Status => {
                let status = report::status(self);
                return Answer::of(Ok(Some(status)));
            }
            Request::Policy => {
                return Answer::of_policy(self.papers.files.rules.source().text().to_owned());
            }
            Request::ClipboardOutcome { ticket } => return self.pasteboard.outcome(*ticket),
            Request::UsbList => {
                return match self.devices.list() {
                    Ok(list) => Answer::of_usb(list),
                    Err(why) => Answer::of(Err(why)),
                };
            }
            _ => {}
        }
        let changes = record::changes(&request);
        if changes && !self.budget.take(caller.uid, request.word(), Moment::now()) {
            return self.refuse(caller, Refused { request: &request, why: TOO_OFTEN });
        }
        match request.domain() {
            Some(domain) => tracing::info!("{caller} asks: {} {domain}", request.word()),
            None => tracing::info!("{caller} asks: {}", request.word()),
        }
        // A policy that comes into force or is refused has an entry of its own, which says more.
        let asked = match &request {
            Request::ApplyPolicy { .. } => None,
            other => Some(record::Request::new(caller, other)),
        };
        let before = asked.as_ref().filter(|_| changes);
        let number = before.and_then(|asked| self.recorder.note(&[asked.before()]));
        let (takes_time, domain) = (request.takes_time(), record::domain_to_change(&request));
        let answer = self.carry_out(caller, request, number);
        // A domain that is where it was wanted already is not under way.
        let under_way = domain.as_ref().is_none_or(|domain| self.supervisor.is_under_way(domain));
        let outcome = match &answer.error {
            None if takes_time && under_way => Outcome::Begun,
            None => Outcome::Done,
            Some(_) => Outcome::NotDone,
        };
        if let Some(domain) = domain.filter(|_| outcome == Outcome::Begun) {
            self.states.begun(&domain, number);
        }
        if let Some(asked) = asked {
            let ended = asked.ended(number, outcome, answer.error.as_deref());
            let event = match changes {
                true => Some(ended.into()),
                false => self.tallies.asked.count(self.told_apart(ended), Moment::now()),
            };
            if let Some(event) = event {
                self.recorder.note(&[event]);
            }
        }
        answer
    }

    /// Requests for domains that there are not are counted together, or who makes names up would have an entry for each.
    fn told_apart(&self, asked: Asked) -> Asked {
        let there = |name: &String| {
            self.papers.files.machine.domains.iter().any(|entry| entry.name == *name)
        };
        Asked { domain: asked.domain.filter(there), ..asked }
    }

    /// Writes down which domains are in another state.
    pub(super) fn note_states(&mut self) {
        let changes = self.states.changes(&self.supervisor);
        if !changes.is_empty() {
            self.recorder.note(&changes);
        }
    }

    /// Does it; what comes of it later names the number of its entry, if it has one.
    fn carry_out(&mut self, caller: &Caller, request: Request, number: Option<u64>) -> Answer {
        let Self { papers, supervisor, desk, pasteboard, devices, break_glass, recorder, .. } =
            self;
        let done = match request {
            Request::Status
            | Request::Policy
            | Request::ClipboardOutcome { .. }
            | Request::UsbList => Ok(()),
            Request::Copy { domain } => {
                return pasteboard.ask(clipboard::mediator::Chord::Copy, &domain, desk);
            }
            Request::Paste { domain } => {
                return pasteboard.ask(clipboard::mediator::Chord::Paste, &domain, desk);
            }
            Request::ClipboardAnswer { ticket, yes } => return pasteboard.answer(ticket, yes),
            Request::UsbAttach { bus_id, domain } => {
                devices.attach(&bus_id, &domain, &papers.files.machine, number)
            }
            Request::UsbDetach { bus_id } => devices.detach(&bus_id, number),
            Request::BreakGlass { reason, seconds } => {
                let time = seconds.map(Duration::from_secs);
                let (who, reason) = (caller.to_string(), reason.as_deref());
                let rules = &papers.files.rules;
                return match break_glass.open(rules, recorder, &who, reason, time) {
                    Ok(opened) => {
                        devices.rules(rules, true);
                        Answer { words: Some(opened.to_string()), ..Answer::of(Ok(None)) }
                    }
                    Err(why) => Answer::of(Err(why)),
                };
            }
            Request::EndBreakGlass => {
                if break_glass.close(recorder, &format!("by {caller}")) {
                    devices.rules(&papers.files.rules, false);
                    Ok(())
                } else {
                    Err("break-glass is not open".to_owned())
                }
            }
            Request::ApplyPolicy { policy, signatures } => papers
                .apply(supervisor, recorder, caller, policy, signatures)
                .inspect(|()| {
                    // What was opened under one policy is not open under the next.
                    break_glass.close(recorder, "another policy came into force");
                    break_glass.forget_question(desk);
                    devices.rules(&papers.files.rules, false);
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
