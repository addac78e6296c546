//! What the control socket asks for, and what the threads report.

use std::sync::Arc;
use std::time::Duration;

use audit::events::{Asked, Outcome, PcSlept};
use clipboard::mediator::Hotkey;
use clock::Moment;
use monitor::break_glass::{BREAK_GLASS, Opener, SeatPrompt};
use monitor::core::Cause;
use monitor::{Answer as SeatAnswer, MediatorId, QuestionId, RequestId};
use nix::unistd::getuid;

use super::mediators::{Mediator, Rules};
use super::renewal::RENEWAL;
use super::seat::SeatRequest;
use super::{Running, report};
use control::budget::{Admission, TOO_OFTEN};
use control::commands::{Request, Serve};
use control::protocol::Answer;
use control::roles::Caller;
use control::server::{RefusedRequest, Reply, Ticket};
use control::table::AuditRule;
use domains::lifecycle::Event;
use domains::renewal::planned::RenewalReason;
use domains::{DomainRuntime, ImageNews, entries, screen};
use images::outboxes;
use inforce::active::POLICY;
use inforce::entries as policy_entries;
use seat::core::DomainIndex;

impl Running {
    /// Dispatches pending events between the seat and the mediators.
    pub(super) fn process_events(&mut self) {
        self.monitor.poll();
        let counted = self.tallies.take_due(Moment::now());
        if !counted.is_empty() {
            self.monitor.note(&counted);
        }
        self.configuration.remember(&mut self.monitor, Moment::now());
        let changes = self.configuration.trust_events();
        if !changes.is_empty() {
            self.monitor.note(&changes);
        }
        if self.break_glass.expire(&mut self.monitor, Moment::now()) {
            self.rules_changed();
        }
        self.look_at_renewals();
        // Before the banner: what they have it say now is said now.
        for mediator in self.mediators.each_mut() {
            mediator.process_events(&self.seat, &mut self.monitor);
        }
        let own = self.break_glass.banner_note(Moment::now());
        let notes = self.mediators.each().filter_map(Mediator::banner_note);
        let images = self.supervisor.domains().iter().filter_map(screen::image_note);
        let notes = own.into_iter().chain(self.renewals.banner_notes()).chain(notes).chain(images);
        let events = self.seat.process_events(&self.supervisor, self.monitor.recorder(), notes);
        if !events.is_empty() {
            self.monitor.note(&events);
        }
        for request in self.seat.requests() {
            match request {
                SeatRequest::Answered(question, answer) => self.answered(question, answer),
                SeatRequest::Shown(domain) => self.try_again(domain),
                SeatRequest::BreakGlass => {
                    let policy = &self.configuration.current.policy;
                    match self.break_glass.hotkey(policy, &mut self.monitor) {
                        SeatPrompt::Notice(words) => self.seat.notice(words),
                        SeatPrompt::Question { question, text, choices } => {
                            self.seat.choose(question, text, choices);
                        }
                    }
                }
            }
        }
        self.process_decisions();
    }

    /// Handles that the PC slept for so long. Nobody knows who is in front of it now, and the guests' devices are dead: the screen is
    /// locked (the seat's own thread sees the sleep too, before it heeds a key), break-glass is closed, and the domains with devices of
    /// their own are restarted, which resets them.
    pub(super) fn slept(&mut self, time: Duration) {
        let seconds = time.as_secs().max(1);
        tracing::error!(
            seconds,
            "THIS PC SLEPT: the screen is locked, and domains with devices of their own are restarted; `bulkhead doctor` says what lets it sleep"
        );
        self.seat.lock_now();
        if self.break_glass.close(&mut self.monitor, "the PC slept") {
            self.rules_changed();
        }
        self.renewals.slept(self.supervisor.now());
        let domains = self.supervisor.slept();
        if !domains.is_empty() {
            let labels: Vec<String> =
                domains.iter().map(|name| self.supervisor.label(name)).collect();
            self.seat.notice_of("sleep", screen::slept(&labels));
        }
        self.monitor.note(&[PcSlept { domains, seconds }.into()]);
    }

    /// Starts a desktop once that was left off, as somebody has switched to it.
    fn try_again(&mut self, domain: DomainIndex) {
        let Some(name) = self.seat.name(domain) else { return };
        // One of another VMM, or an agent that is ending, has nothing to try.
        let _ = self.supervisor.command(&name, Event::TryAgain);
    }

    /// Passes the answer to a question at the seat to whoever asked, if they still wait for it.
    fn answered(&mut self, question: QuestionId, answer: SeatAnswer) {
        if let Some(id) = self.monitor.answer(question, answer.agrees()) {
            return self.deliver(id, answer);
        }
        if let Some(words) = self.break_glass.answered_late(question, answer) {
            self.seat.notice(words);
        }
    }

    fn deliver(&mut self, id: RequestId, answer: SeatAnswer) {
        match id.mediator {
            BREAK_GLASS => {
                let policy = Arc::clone(&self.configuration.current.policy);
                let (monitor, now) = (&mut self.monitor, Moment::now());
                let words = self.break_glass.answered(&policy, monitor, (id, answer), now);
                if let Some(words) = words {
                    self.rules_changed();
                    self.seat.notice(words);
                }
            }
            RENEWAL => self.renewal_answered(id, answer),
            other => {
                if let Some(mediator) = self.mediators.find(other) {
                    mediator.answered(id.number, answer == SeatAnswer::Yes);
                }
            }
        }
    }

    /// Tells mediators and seat what the monitor has decided: what is revoked, and which questions are over.
    fn process_decisions(&mut self) {
        for event in self.monitor.events() {
            match event {
                monitor::Event::Hide(question) => self.seat.hide(question),
                monitor::Event::Silence(id) => self.deliver(id, SeatAnswer::No),
                monitor::Event::Revoke(mediator, cause) => self.revoke(mediator, cause),
            }
        }
    }

    /// Tells a mediator to end what it has permits for.
    fn revoke(&mut self, mediator: MediatorId, cause: Cause) {
        match (mediator, cause) {
            (BREAK_GLASS, Cause::Record) => {
                if let Some(words) = self.break_glass.record_lost(&mut self.monitor) {
                    self.seat.notice(words);
                    self.rules_changed();
                }
            }
            // Another policy, or its own end, has closed it.
            (BREAK_GLASS, Cause::Policy | Cause::BreakGlass) => {}
            // The policy in force stays: without one nothing would be decided at all. A renewal takes no permit.
            (POLICY | RENEWAL, _) => {}
            (other, cause) => {
                let (policy, break_glass) =
                    (&self.configuration.current.policy, self.break_glass.is_open());
                if let Some(mediator) = self.mediators.find(other) {
                    mediator.revoke(cause, Rules { policy, break_glass });
                }
            }
        }
    }

    /// Tells the monitor and the mediators of a change of the rules: another policy, or the begin or end of break-glass.
    pub(super) fn rules_changed(&mut self) {
        let (policy, break_glass) =
            (&self.configuration.current.policy, self.break_glass.is_open());
        self.monitor.enforce(policy.serial(), self.break_glass.until());
        if break_glass {
            for mediator in self.mediators.each_mut() {
                mediator.break_glass_opened(Rules { policy, break_glass });
            }
        }
        self.process_decisions();
    }

    /// Refuses a request that its caller may not make, and records that no more often than is worth reading.
    pub(super) fn refuse(&mut self, caller: &Caller, refused: RefusedRequest<'_>) -> Answer {
        let RefusedRequest { request, why } = refused;
        let refused = control::entries::refused(caller, request, why);
        if let Some(event) = self.tallies.refused.count(refused, Moment::now()) {
            self.monitor.note(&[event]);
        }
        Answer::of(Err(why.to_owned()))
    }

    /// Answers a request of somebody who may make it. What changes something is on the record before
    /// anything of it is done, and how a request ended is when the answer goes out, or is counted.
    pub(super) fn answer(&mut self, caller: &Caller, request: Request) -> Reply {
        let recorded = request.command().recorded;
        if recorded == AuditRule::Nothing {
            return request.serve(self, RequestSource { caller, number: None });
        }
        let named = request.domain().filter(|name| self.is_there(name)).map(str::to_owned);
        let each = match self.budget.admit(caller.uid, &request, named.as_deref(), Moment::now()) {
            Admission::Refused => {
                return self
                    .refuse(caller, RefusedRequest { request: &request, why: TOO_OFTEN })
                    .into();
            }
            Admission::Each => true,
            Admission::Counted => false,
        };
        match request.domain() {
            Some(domain) => tracing::info!("{caller} asks: {} {domain}", request.word()),
            None => tracing::info!("{caller} asks: {}", request.word()),
        }
        let asked = (recorded != AuditRule::Itself)
            .then(|| control::entries::Request::new(caller, &request));
        let before = asked.as_ref().filter(|_| each);
        let number = before.and_then(|asked| self.monitor.note(&[asked.before()]));
        let domain = request.domain_to_settle().map(str::to_owned);
        let answer = match request.serve(self, RequestSource { caller, number }) {
            Reply::Now(answer) => answer,
            later => return later,
        };
        // A domain that is where it was wanted already is not under way.
        let under_way = domain.as_ref().is_none_or(|domain| self.supervisor.is_under_way(domain));
        let outcome = match &answer.error {
            None if recorded == AuditRule::Begun && under_way => Outcome::Begun,
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
                false => self.tallies.asked.count(self.for_tally(ended), Moment::now()),
            };
            if let Some(event) = event {
                self.monitor.note(&[event]);
            }
        }
        Reply::Now(answer)
    }

    /// Puts in force the policy that was looked at, if it may be; whom to tell.
    pub(super) fn policy_found(&mut self) -> Option<(Ticket, Answer)> {
        let (caller, ticket, found) = self.configuration.found()?;
        let Self { configuration, supervisor, seat, break_glass, monitor, renewals, .. } = self;
        let applied = configuration.take(monitor, &caller, found);
        let answer = match applied {
            Ok(()) => {
                supervisor.apply_policy(&configuration.current.domain_policies);
                // What was opened under one policy is not open under the next.
                break_glass.close(monitor, "another policy came into force");
                break_glass.forget_question(monitor);
                renewals.forget_question(monitor);
                seat.take_policy(&configuration.current.policy);
                self.rules_changed();
                Ok(None)
            }
            Err(why) => self.policy_refused(&caller, why),
        };
        Some((ticket, Answer::of(answer)))
    }

    fn policy_refused<T>(&mut self, caller: &Caller, why: String) -> Result<T, String> {
        tracing::error!("the policy is refused, the one in force stays: {why}");
        self.monitor.note(&[policy_entries::policy_refused(caller, &why)]);
        Err(why)
    }

    /// Returns the event under which a request is counted. Requests for domains that do not exist are counted together; otherwise whoever
    /// makes names up would have an entry for each.
    fn for_tally(&self, asked: Asked) -> Asked {
        let domain = asked.domain.filter(|name| self.is_there(name));
        Asked { domain, ..asked }
    }

    fn is_there(&self, domain: &str) -> bool {
        self.configuration.current.machine.domains.iter().any(|entry| entry.name == domain)
    }

    /// Writes down which domains are in another state, and which began or ended to press.
    pub(super) fn note_states(&mut self, images: &std::path::Path) {
        let mut changes =
            self.states.changes(self.supervisor.domains().iter().map(DomainRuntime::state));
        changes.extend(self.renewals.ended(&self.supervisor));
        changes.extend(self.supervisor.pressure_changes().into_iter().map(entries::pressure));
        let uid = getuid().as_raw();
        for ImageNews { image, unwritten } in self.supervisor.image_news() {
            match unwritten {
                Some(event) => changes.push(outboxes::event(&image, event, uid)),
                None => self.outboxes.add(image),
            }
        }
        if !changes.is_empty() {
            self.monitor.note(&changes);
        }
        let monitor = &mut self.monitor;
        self.outboxes.record(images, Moment::now(), uid, |events| monitor.note(events).is_some());
    }

    /// Finds what happened with images that an agent before did not live to write down.
    pub(super) fn resume_outboxes(&mut self, images: &std::path::Path, state: &std::path::Path) {
        let uid = getuid().as_raw();
        self.outboxes.resume(images, &recorder::directory(state), uid);
        let monitor = &mut self.monitor;
        self.outboxes.record(images, Moment::now(), uid, |events| monitor.note(events).is_some());
    }

    /// Writes down what was done with guest images by command since somebody looked.
    pub(super) fn note_images(&mut self, folder: &std::path::Path) {
        let now = Moment::now();
        self.image_notes.record(folder, now, |events| self.monitor.note(events).is_some());
    }

    /// Writes down what was done with Bulkhead's own package by command since somebody looked.
    pub(super) fn note_programs(&mut self, folder: &std::path::Path) {
        let now = Moment::now();
        self.program_notes.record(folder, now, |events| self.monitor.note(events).is_some());
    }
}

/// Returns the reply that it is done, or why not.
fn done(result: Result<(), String>) -> Reply {
    Answer::of(result.map(|()| None)).into()
}

/// Who asks, and the number of the entry that says so, if there is one: what comes of it later names that.
#[derive(Clone, Copy)]
struct RequestSource<'a> {
    caller: &'a Caller,
    number: Option<u64>,
}

impl Serve<RequestSource<'_>, Reply> for Running {
    fn status(&mut self, _: RequestSource<'_>) -> Reply {
        Answer::of(Ok(Some(report::status(self)))).into()
    }

    fn policy(&mut self, _: RequestSource<'_>) -> Reply {
        Answer::of_policy(self.configuration.current.policy.source().text().to_owned()).into()
    }

    fn start(&mut self, _: RequestSource<'_>, domain: String) -> Reply {
        done(self.supervisor.command(&domain, Event::Start))
    }

    fn stop(&mut self, _: RequestSource<'_>, domain: String, now: bool) -> Reply {
        done(self.supervisor.command(&domain, Event::Stop { now }))
    }

    fn restart(&mut self, _: RequestSource<'_>, domain: String) -> Reply {
        done(self.supervisor.command(&domain, Event::Restart))
    }

    fn renew(
        &mut self,
        RequestSource { caller, number }: RequestSource<'_>,
        domain: String,
    ) -> Reply {
        let why = RenewalReason::Command { by: caller.to_string(), request: number };
        done(self.begin_renewal(&domain, why))
    }

    fn reset(&mut self, _: RequestSource<'_>, domain: String) -> Reply {
        done(self.supervisor.reset(&domain))
    }

    fn switch(&mut self, _: RequestSource<'_>, domain: String) -> Reply {
        done(self.seat.switch(&domain))
    }

    fn lock(&mut self, _: RequestSource<'_>) -> Reply {
        done(self.seat.lock())
    }

    fn unlock(&mut self, _: RequestSource<'_>) -> Reply {
        done(self.seat.unlock())
    }

    fn copy(&mut self, asker: RequestSource<'_>, domain: String) -> Reply {
        self.mediators.clipboard.ask(asker.caller.uid, Hotkey::Copy, &domain, &self.seat).into()
    }

    fn paste(&mut self, asker: RequestSource<'_>, domain: String) -> Reply {
        self.mediators.clipboard.ask(asker.caller.uid, Hotkey::Paste, &domain, &self.seat).into()
    }

    fn clipboard_outcome(&mut self, asker: RequestSource<'_>, ticket: u64) -> Reply {
        self.mediators.clipboard.outcome(asker.caller.uid, ticket).into()
    }

    fn clipboard_answer(&mut self, asker: RequestSource<'_>, ticket: u64, yes: bool) -> Reply {
        self.mediators.clipboard.answer(asker.caller.uid, ticket, yes, &mut self.monitor).into()
    }

    fn usb_list(&mut self, _: RequestSource<'_>) -> Reply {
        match self.mediators.usb.list() {
            Ok(list) => Answer::of_usb(list).into(),
            Err(why) => Answer::of(Err(why)).into(),
        }
    }

    fn usb_attach(&mut self, asker: RequestSource<'_>, bus_id: String, domain: String) -> Reply {
        let machine = &self.configuration.current.machine;
        done(self.mediators.usb.attach(&bus_id, &domain, machine, asker.number))
    }

    fn usb_detach(&mut self, asker: RequestSource<'_>, bus_id: String) -> Reply {
        done(self.mediators.usb.detach(&bus_id, asker.number))
    }

    fn break_glass(
        &mut self,
        RequestSource { caller, .. }: RequestSource<'_>,
        reason: Option<String>,
        seconds: Option<u64>,
    ) -> Reply {
        let Self { configuration, break_glass, monitor, .. } = self;
        let (name, time) = (caller.to_string(), seconds.map(Duration::from_secs));
        let who = Opener { name: &name, agreed: None };
        let (policy, reason, now) =
            (&configuration.current.policy, reason.as_deref(), Moment::now());
        match break_glass.open(policy, monitor, who, reason, time, now) {
            Ok(opened) => {
                self.rules_changed();
                Answer { words: Some(opened.to_string()), ..Answer::of(Ok(None)) }.into()
            }
            Err(why) => Answer::of(Err(why)).into(),
        }
    }

    fn end_break_glass(&mut self, RequestSource { caller, .. }: RequestSource<'_>) -> Reply {
        if !self.break_glass.close(&mut self.monitor, &format!("by {caller}")) {
            return done(Err("break-glass is not open".to_owned()));
        }
        self.rules_changed();
        done(Ok(()))
    }

    fn apply_policy(
        &mut self,
        RequestSource { caller, .. }: RequestSource<'_>,
        policy: String,
        signatures: Option<String>,
    ) -> Reply {
        // It comes into force or is refused later, and has an entry of its own then, which says more.
        match self.configuration.submit(caller, policy, signatures) {
            Ok(ticket) => Reply::Later(ticket),
            Err(why) => done(self.policy_refused(caller, why)),
        }
    }
}
