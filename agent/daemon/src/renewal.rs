//! Renewals: carries out what [`domains::renewal::planned`] decides, with supervisor, seat, monitor and clocks.

use std::time::Duration;

use audit::AuditEvent;
use monitor::{Answer, MediatorId, Monitor, QuestionId, RequestId};

use super::Running;
use super::seat::SeatClient;
use domains::Supervisor;
use domains::lifecycle::Time;
use domains::renewal::planned::{self, Effect, Postponement, RenewalReason, SeatFacts};
use domains::renewal::schedule::{COUNTDOWN, LocalTime, ScheduleTime};

/// What the monitor knows renewals by.
pub(super) const RENEWAL: MediatorId = MediatorId::new("renewal");

/// The renewals, and the question about one of them that stands at the seat.
#[derive(Default)]
pub(super) struct Renewals {
    planned: planned::Renewals,
    asked: Option<(RequestId, QuestionId)>,
}

impl Renewals {
    /// Takes note of the domains that run since an earlier agent.
    pub(super) fn taken_up(&mut self, supervisor: &Supervisor) {
        self.planned.taken_up(&supervisor.renewal_facts(|_| None));
    }

    /// Returns in what time the renewals have to be looked at again; `None` if nothing is planned.
    pub(super) fn wait(&self) -> Option<Duration> {
        self.planned.wait(LocalTime::now())
    }

    /// Returns what the banner says of the renewals that are counted down to.
    pub(super) fn banner_notes(&self) -> Vec<String> {
        self.planned.banner_notes()
    }

    /// Takes the question back that was asked under another policy.
    pub(super) fn forget_question(&mut self, monitor: &mut Monitor) {
        if self.planned.forget_question().is_some() {
            self.withdraw(monitor);
        }
    }

    /// Returns an event for each renewal that has ended.
    pub(super) fn ended(&mut self, supervisor: &Supervisor) -> Vec<AuditEvent> {
        self.planned.ended(&supervisor.renewal_facts(|_| None), supervisor.now())
    }

    /// Takes note that the PC slept until now.
    pub(super) fn slept(&mut self, now: Time) {
        self.planned.slept(now);
    }

    /// Returns an event for each renewal that is under way when the agent ends.
    pub(super) fn end(&mut self, now: Time) -> Vec<AuditEvent> {
        self.planned.end(now)
    }

    fn ask(
        &mut self,
        text: String,
        choices: Vec<String>,
        seat: &SeatClient,
        monitor: &mut Monitor,
    ) {
        let id = monitor.own(RENEWAL);
        // Until it is taken back: it is this countdown that ends it.
        let Ok(question) = monitor.ask(id, COUNTDOWN * 2) else { return self.planned.not_asked() };
        seat.choose(question, text, choices);
        self.asked = Some((id, question));
    }

    fn withdraw(&mut self, monitor: &mut Monitor) {
        if let Some((id, _)) = self.asked.take() {
            monitor.withdraw(id);
        }
    }
}

impl Running {
    /// Begins the renewals whose time has come, and has the person at the seat know of those that are next.
    pub(super) fn look_at_renewals(&mut self) {
        let effects = match self.supervisor.is_stopping() {
            true => self.renewals.planned.stop().into_iter().collect(),
            false => {
                let now = ScheduleTime { time: self.supervisor.now(), local: LocalTime::now() };
                let can_ask = self.seat.can_ask() && !self.monitor.is_asking();
                let seat = SeatFacts { can_ask, front: self.seat.front() };
                let domains = self.supervisor.renewal_facts(|name| self.seat.last_input(name));
                self.renewals.planned.look(now, &domains, &seat)
            }
        };
        for effect in effects {
            self.carry_out(effect);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        let Self { seat, monitor, renewals, .. } = self;
        match effect {
            Effect::Begin(domain, due) => {
                if let Err(why) = self.begin_renewal(&domain, RenewalReason::Due(due)) {
                    tracing::warn!("{domain} was to begin anew: {why}");
                }
            }
            Effect::Ask { text, choices } => renewals.ask(text, choices, seat, monitor),
            Effect::Reword(text) => {
                if let Some((_, question)) = renewals.asked {
                    seat.reword(question, text);
                }
            }
            Effect::Withdraw => renewals.withdraw(monitor),
            Effect::Tell { source, text } => seat.notice_of(&source, text),
        }
    }

    /// Takes the answer that somebody at the seat gave to the question, or that it could not be answered any more.
    pub(super) fn renewal_answered(&mut self, id: RequestId, answer: Answer) {
        // Nothing waits for a permit.
        self.monitor.withdraw(id);
        if self.renewals.asked.take_if(|(asked, _)| *asked == id).is_none() {
            return;
        }
        if let Some(Postponement { event, words }) = self.renewals.planned.answered(answer.chosen())
        {
            self.monitor.note(&[event]);
            self.seat.notice(words);
        }
    }

    /// Begins to renew a domain.
    ///
    /// # Errors
    /// Why it is not to be renewed now, and what to do instead.
    pub(super) fn begin_renewal(&mut self, domain: &str, why: RenewalReason) -> Result<(), String> {
        self.renewals.planned.may_begin(domain)?;
        self.supervisor.may_renew(domain)?;
        self.monitor.note(&[why.began(domain)]);
        self.supervisor.renew(domain)?;
        tracing::info!("{domain} is renewed: asked for by {} ({})", why.by(), why.word());
        self.renewals.planned.began(domain, why, self.supervisor.now());
        Ok(())
    }
}
