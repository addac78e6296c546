//! What the control socket asks for, and what the threads report.

use std::sync::Arc;
use std::time::Duration;

use audit::events::{Asked, Outcome};
use clipboard::mediator::Chord;
use clock::Moment;

use super::desk::{Question, Wish};
use super::tally::TOO_OFTEN;
use super::{Running, record, report};
use clipboard::service::Command;
use control::commands::{Request, Serve};
use control::protocol::Answer;
use control::roles::Caller;
use control::server::{Refused, Reply, Ticket};
use control::table::{Often, Recorded};
use domains::domain::Event;

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
    pub(super) fn answer(&mut self, caller: &Caller, request: Request) -> Reply {
        let recorded = request.command().recorded;
        if recorded == Recorded::Nothing {
            return request.serve(self, Asker { caller, number: None });
        }
        let (refused, changes) = (request.often() == Often::Refused, request.changes());
        let named = request.domain().filter(|name| self.is_there(name)).map(str::to_owned);
        let within = !(refused || changes)
            || self.budget.take(caller.uid, request.word(), named.as_deref(), Moment::now());
        if !within && refused {
            return self.refuse(caller, Refused { request: &request, why: TOO_OFTEN }).into();
        }
        // What takes something away is done however often it is asked; beyond what anybody needs it is counted.
        let each = changes && within;
        match request.domain() {
            Some(domain) => tracing::info!("{caller} asks: {} {domain}", request.word()),
            None => tracing::info!("{caller} asks: {}", request.word()),
        }
        let asked = (recorded != Recorded::Itself).then(|| record::Request::new(caller, &request));
        let before = asked.as_ref().filter(|_| each);
        let number = before.and_then(|asked| self.recorder.note(&[asked.before()]));
        let domain = request.domain_to_settle().map(str::to_owned);
        let answer = match request.serve(self, Asker { caller, number }) {
            Reply::Now(answer) => answer,
            later => return later,
        };
        // A domain that is where it was wanted already is not under way.
        let under_way = domain.as_ref().is_none_or(|domain| self.supervisor.is_under_way(domain));
        let outcome = match &answer.error {
            None if recorded == Recorded::Begun && under_way => Outcome::Begun,
            None => Outcome::Done,
            Some(_) => Outcome::NotDone,
        };
        if let Some(domain) = domain.filter(|_| outcome == Outcome::Begun) {
            self.states.begun(&domain, number);
        }
        if let Some(asked) = asked {
            let ended = asked.ended(number, outcome, answer.error.as_deref());
            let event = match each {
                true => Some(ended.into()),
                false => self.tallies.asked.count(self.told_apart(ended), Moment::now()),
            };
            if let Some(event) = event {
                self.recorder.note(&[event]);
            }
        }
        Reply::Now(answer)
    }

    /// Puts in force the policy that was looked at, if it may be; whom to tell.
    pub(super) fn policy_found(&mut self) -> Option<(Ticket, Answer)> {
        let (caller, ticket, found) = self.papers.found()?;
        let Self { papers, supervisor, desk, pasteboard, devices, break_glass, recorder, .. } =
            self;
        let applied =
            found.and_then(|considered| papers.apply(supervisor, recorder, &caller, considered));
        let answer = match applied {
            Ok(()) => {
                // What was opened under one policy is not open under the next.
                break_glass.close(recorder, "another policy came into force");
                break_glass.forget_question(desk);
                devices.rules(&papers.files.rules, false);
                desk.take_policy(&papers.files.rules);
                pasteboard.tell(Command::Policy(Arc::clone(&papers.files.rules)));
                Ok(None)
            }
            Err(why) => self.policy_refused(&caller, why),
        };
        Some((ticket, Answer::of(answer)))
    }

    fn policy_refused<T>(&mut self, caller: &Caller, why: String) -> Result<T, String> {
        tracing::error!("the policy is refused, the one in force stays: {why}");
        self.recorder.note(&[record::policy_refused(caller, &why)]);
        Err(why)
    }

    /// Requests for domains that there are not are counted together, or who makes names up would have an entry for each.
    fn told_apart(&self, asked: Asked) -> Asked {
        let domain = asked.domain.filter(|name| self.is_there(name));
        Asked { domain, ..asked }
    }

    fn is_there(&self, domain: &str) -> bool {
        self.papers.files.machine.domains.iter().any(|entry| entry.name == domain)
    }

    /// Writes down which domains are in another state.
    pub(super) fn note_states(&mut self) {
        let changes = self.states.changes(&self.supervisor);
        if !changes.is_empty() {
            self.recorder.note(&changes);
        }
    }
}

/// That it is done, or why not.
fn done(result: Result<(), String>) -> Reply {
    Answer::of(result.map(|()| None)).into()
}

/// Who asks, and the number of the entry that says so, if there is one: what comes of it later names that.
#[derive(Clone, Copy)]
struct Asker<'a> {
    caller: &'a Caller,
    number: Option<u64>,
}

impl Serve<Asker<'_>, Reply> for Running {
    fn status(&mut self, _: Asker<'_>) -> Reply {
        Answer::of(Ok(Some(report::status(self)))).into()
    }

    fn policy(&mut self, _: Asker<'_>) -> Reply {
        Answer::of_policy(self.papers.files.rules.source().text().to_owned()).into()
    }

    fn start(&mut self, _: Asker<'_>, domain: String) -> Reply {
        done(self.supervisor.command(&domain, Event::Start))
    }

    fn stop(&mut self, _: Asker<'_>, domain: String, now: bool) -> Reply {
        done(self.supervisor.command(&domain, Event::Stop { now }))
    }

    fn restart(&mut self, _: Asker<'_>, domain: String) -> Reply {
        done(self.supervisor.command(&domain, Event::Restart))
    }

    fn reset(&mut self, _: Asker<'_>, domain: String) -> Reply {
        done(self.supervisor.reset(&domain))
    }

    fn switch(&mut self, _: Asker<'_>, domain: String) -> Reply {
        done(self.desk.switch(&domain))
    }

    fn lock(&mut self, _: Asker<'_>) -> Reply {
        done(self.desk.lock())
    }

    fn unlock(&mut self, _: Asker<'_>) -> Reply {
        done(self.desk.unlock())
    }

    fn copy(&mut self, _: Asker<'_>, domain: String) -> Reply {
        self.pasteboard.ask(Chord::Copy, &domain, &self.desk).into()
    }

    fn paste(&mut self, _: Asker<'_>, domain: String) -> Reply {
        self.pasteboard.ask(Chord::Paste, &domain, &self.desk).into()
    }

    fn clipboard_outcome(&mut self, _: Asker<'_>, ticket: u64) -> Reply {
        self.pasteboard.outcome(ticket).into()
    }

    fn clipboard_answer(&mut self, _: Asker<'_>, ticket: u64, yes: bool) -> Reply {
        self.pasteboard.answer(ticket, yes).into()
    }

    fn usb_list(&mut self, _: Asker<'_>) -> Reply {
        match self.devices.list() {
            Ok(list) => Answer::of_usb(list).into(),
            Err(why) => Answer::of(Err(why)).into(),
        }
    }

    fn usb_attach(&mut self, asker: Asker<'_>, bus_id: String, domain: String) -> Reply {
        let machine = &self.papers.files.machine;
        done(self.devices.attach(&bus_id, &domain, machine, asker.number))
    }

    fn usb_detach(&mut self, asker: Asker<'_>, bus_id: String) -> Reply {
        done(self.devices.detach(&bus_id, asker.number))
    }

    fn break_glass(
        &mut self,
        Asker { caller, .. }: Asker<'_>,
        reason: Option<String>,
        seconds: Option<u64>,
    ) -> Reply {
        let Self { papers, devices, break_glass, recorder, .. } = self;
        let rules = &papers.files.rules;
        let (who, time) = (caller.to_string(), seconds.map(Duration::from_secs));
        match break_glass.open(rules, recorder, &who, reason.as_deref(), time) {
            Ok(opened) => {
                devices.rules(rules, true);
                Answer { words: Some(opened.to_string()), ..Answer::of(Ok(None)) }.into()
            }
            Err(why) => Answer::of(Err(why)).into(),
        }
    }

    fn end_break_glass(&mut self, Asker { caller, .. }: Asker<'_>) -> Reply {
        if !self.break_glass.close(&mut self.recorder, &format!("by {caller}")) {
            return done(Err("break-glass is not open".to_owned()));
        }
        self.devices.rules(&self.papers.files.rules, false);
        done(Ok(()))
    }

    fn apply_policy(
        &mut self,
        Asker { caller, .. }: Asker<'_>,
        policy: String,
        signatures: Option<String>,
    ) -> Reply {
        // It comes into force or is refused later, and has an entry of its own then, which says more.
        match self.papers.submit(caller, policy, signatures) {
            Ok(ticket) => Reply::Later(ticket),
            Err(why) => done(self.policy_refused(caller, why)),
        }
    }
}
