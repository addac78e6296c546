//! The daemon's side of the seat: what it is told to say, and what happened there for the audit.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;

use audit::AuditEvent;
use audit::events::{
    InputPlugged, InputUnplugged, SeatLinkLost, SeatLocked, SeatSwitched, SeatUnlocked,
};
use monitor::QuestionId;
use policy::Policy;

use super::DaemonError;
use base::layout::Layout;
use config::machine::{Machine, Seat as SeatChoice};
use config::roster;
use control::reports::SeatReport;
use domains::domain::State;
use domains::{Outdated, Slot, Supervisor};
use recorder::Recorder;
use seat::core::DomainIndex;
use seat::memory::{self, Memory};
use seat::notices::Cause;
use seat::{Backend, Command, Handle, Happening, Mediators, Seat, SeatPolicy, Words};

/// The seat and what was last said there.
pub(super) struct Desk {
    seat: Seat,
    said: Vec<Words>,
    news: Vec<String>,
    wishes: Vec<Wish>,
    /// Where it is written down how the seat was left.
    memory: PathBuf,
    /// Whether that was written down when this agent started.
    known: bool,
}

/// What somebody at the seat wants of the mediators.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wish {
    /// A question's answer.
    Answered(QuestionId, Answer),
    /// The break-glass chord was pressed.
    BreakGlass,
}

/// An answer from the seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Yes,
    No,
    /// The choice of this place.
    Chosen(usize),
}

impl Answer {
    /// Whether something is to be done.
    pub(super) fn agrees(self) -> bool {
        self != Self::No
    }
}

impl Desk {
    /// Starts the seat that the machine file asks for.
    pub(super) fn start(
        machine: &Machine,
        layout: &Layout,
        policy: &Arc<Policy>,
        mediators: Mediators,
    ) -> Result<Self, DaemonError> {
        let names: Vec<String> = machine.domains.iter().map(|entry| entry.name.clone()).collect();
        let backend = match &machine.seat {
            SeatChoice::Kms { card } => Backend::Kms(card.clone()),
            SeatChoice::None => Backend::None,
        };
        let policy = SeatPolicy::new(policy, &names);
        let said = vec![Words::default(); names.len()];
        let memory = layout.seat_state();
        let known = memory.exists();
        let seat = Seat::start(backend, names, policy, Memory::at(&memory), mediators);
        let seat = seat.map_err(DaemonError::Seat)?;
        Ok(Self { seat, said, news: Vec::new(), wishes: Vec::new(), memory, known })
    }

    /// Guests run on that an agent before this one showed. Nobody knows whether the screen was locked unless that is written down.
    pub(super) fn goes_on(&self) {
        if !self.known {
            self.tell(Command::Lock);
        }
    }

    /// The seat ends with its guests: the next one begins anew.
    pub(super) fn forget(self) {
        drop(self.seat);
        memory::forget(&self.memory);
    }

    /// Where VMMs' screens and input go; `None` without a seat.
    pub(super) fn handle(&self) -> Option<Handle> {
        (self.seat.report().backend == "kms").then(|| self.seat.handle())
    }

    /// Asks its thread whether it still comes round.
    pub(super) fn probe(&self) {
        self.seat.probe();
    }

    /// Whether its thread has come round since it was last asked, or is no more.
    pub(super) fn is_responsive(&self) -> bool {
        self.seat.is_responsive()
    }

    /// Becomes readable when something happened.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.seat.fd()
    }

    /// The seat, for `status`.
    pub(super) fn report(&self, notes: &mut Vec<String>) -> SeatReport {
        let report = self.seat.report();
        if self.is_dead() {
            notes.push(
                "THE SEAT HAS FAILED: the guests run on, and the agent ends for another to show them"
                    .to_owned(),
            );
        }
        if let Some(problem) = &report.problem {
            notes.push(format!("THERE IS NO SCREEN: {problem}"));
        }
        if report.backend == "kms" && report.keyboards == 0 {
            notes.push(
                "no keyboard is plugged in; the mouse can switch domains in the banner".to_owned(),
            );
        }
        report
    }

    /// Another policy is in force.
    pub(super) fn take_policy(&self, policy: &Arc<Policy>) {
        let policy = SeatPolicy::new(policy, self.seat.names());
        self.tell(Command::Policy(Box::new(policy)));
    }

    /// Brings a domain to the front.
    pub(super) fn switch(&self, name: &str) -> Result<(), String> {
        let names = self.seat.names();
        let index = self
            .seat
            .handle()
            .index(name)
            .ok_or_else(|| roster::no_domain(name, names.iter().map(String::as_str)))?;
        if self.seat.report().locked {
            return Err("the screen is locked; unlock it first".to_owned());
        }
        self.tell(Command::Switch(index));
        Ok(())
    }

    pub(super) fn lock(&self) -> Result<(), String> {
        self.lock_now();
        Ok(())
    }

    /// Locks the screen, whoever works there.
    pub(super) fn lock_now(&self) {
        self.tell(Command::Lock);
    }

    pub(super) fn unlock(&self) -> Result<(), String> {
        self.tell(Command::Unlock);
        Ok(())
    }

    /// Tells the seat what is new, and takes what happened there.
    pub(super) fn turn(
        &mut self,
        supervisor: &Supervisor,
        recorder: &Recorder,
        news: impl Iterator<Item = String>,
    ) -> Vec<AuditEvent> {
        for index in 0..self.said.len() {
            let words = self.words(index, supervisor);
            if let Some(said) = self.said.get_mut(index)
                && *said != words
            {
                said.clone_from(&words);
                self.tell(Command::Say(index, words));
            }
        }
        let news: Vec<String> = of_the_record(recorder).chain(news).collect();
        if news != self.news {
            self.news.clone_from(&news);
            self.tell(Command::News(news));
        }
        self.seat.happened().into_iter().filter_map(|what| self.happened(what)).collect()
    }

    /// Whether its thread has died: there is no screen and no keyboard any more.
    pub(super) fn is_dead(&self) -> bool {
        self.seat.is_dead()
    }

    /// What somebody at the seat wanted since the last call.
    pub(super) fn wishes(&mut self) -> Vec<Wish> {
        std::mem::take(&mut self.wishes)
    }

    /// Whether somebody can press chords here.
    pub(super) fn has_keyboard(&self) -> bool {
        self.handle().is_some()
    }

    /// The size of a desktop, in pixels, while there is a screen.
    pub(super) fn desktop(&self) -> Option<(u32, u32)> {
        self.seat.report().desktop
    }

    /// Says what came of what somebody did.
    pub(super) fn notice(&self, text: String) {
        self.tell(Command::Notice(Cause::Person, text));
    }

    /// Says what a device or a guest brought about; the more often, the less of it is said.
    pub(super) fn notice_of(&self, source: &str, text: String) {
        self.tell(Command::Notice(Cause::Source(source.to_owned()), text));
    }

    /// Asks this.
    pub(super) fn ask(&self, question: QuestionId, text: String) {
        self.tell(Command::Ask(question.number(), text));
    }

    /// Asks this, with these to choose from.
    pub(super) fn choose(&self, question: QuestionId, text: String, choices: Vec<String>) {
        self.tell(Command::Choose(question.number(), text, choices));
    }

    /// Takes a question off the screen.
    pub(super) fn hide(&self, question: QuestionId) {
        self.tell(Command::Withdraw(question.number()));
    }

    fn tell(&self, command: Command) {
        self.seat.handle().tell(command);
    }

    fn words(&self, index: DomainIndex, supervisor: &Supervisor) -> Words {
        let Some(name) = self.seat.names().get(index) else { return Words::default() };
        let slot = supervisor.slots().iter().find(|slot| slot.member().name == *name);
        match slot {
            Some(slot) => words(slot),
            None => Words { card: "is shown by another program".to_owned(), news: None },
        }
    }

    /// What is written down of it.
    fn happened(&mut self, what: Happening) -> Option<AuditEvent> {
        let name = |index: DomainIndex| {
            self.seat.names().get(index).map_or("?", String::as_str).to_owned()
        };
        Some(match what {
            Happening::Switched { from, to } => {
                SeatSwitched { domain: name(to), from: name(from) }.into()
            }
            Happening::Locked { idle } => SeatLocked { idle }.into(),
            Happening::Unlocked => SeatUnlocked {}.into(),
            Happening::Plugged(device, domain) => {
                let device = device.as_str().to_owned();
                InputPlugged { domain: domain.map(name), device }.into()
            }
            Happening::Unplugged(device) => {
                InputUnplugged { device: device.as_str().to_owned() }.into()
            }
            Happening::LinkLost(domain, problem) => {
                SeatLinkLost { domain: name(domain), problem }.into()
            }
            Happening::BreakGlass => {
                self.wishes.push(Wish::BreakGlass);
                return None;
            }
            Happening::Answered(number, yes) => {
                let answer = if yes { Answer::Yes } else { Answer::No };
                self.wishes.push(Wish::Answered(QuestionId::from_number(number), answer));
                return None;
            }
            Happening::Chosen(number, chosen) => {
                let question = QuestionId::from_number(number);
                self.wishes.push(Wish::Answered(question, Answer::Chosen(chosen)));
                return None;
            }
        })
    }
}

/// What a clinician is told of the audit log.
fn of_the_record(recorder: &Recorder) -> impl Iterator<Item = String> {
    let unwritten = recorder
        .problem()
        .map(|_| "Nothing can cross between desktops: the audit log cannot be written".to_owned());
    let went_back = recorder.found().went_back.as_ref().map(|_| {
        "The records of this PC were put back or deleted; call the security office".to_owned()
    });
    unwritten.into_iter().chain(went_back)
}

/// What a clinician is told of a domain's life.
fn words(slot: &Slot) -> Words {
    let label = &slot.member().label;
    let state = slot.domain().state();
    let card = match state {
        _ if slot.outdated() == Some(Outdated::Link) => {
            "runs, and cannot be shown until it is restarted; call IT"
        }
        State::Off => "is switched off",
        State::Running { answered: true, .. } => "runs, and shows nothing yet",
        State::Stopping(_) | State::Releasing { .. } => "is shutting down",
        State::Backoff { .. } => "stopped by itself and is started again",
        _ => "is starting",
    };
    let news = match state {
        State::Backoff { .. } => Some(format!("{label} stopped by itself and is started again")),
        State::Off if slot.domain().problem().is_some() => {
            Some(format!("{label} is off because of a fault; call IT"))
        }
        _ if slot.is_silent() => Some(format!("{label} does not answer; call IT")),
        _ => None,
    };
    Words { card: card.to_owned(), news }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::audit::Limits;

    #[test]
    fn the_screen_says_that_the_state_directory_went_back_and_that_nothing_can_be_recorded() {
        let dir = tempfile::tempdir().unwrap();
        let (state, beside) = (dir.path().join("state"), dir.path().join("etc"));
        std::fs::create_dir_all(&beside).unwrap();
        let open =
            || Recorder::open_remembered(&state, Limits::default(), std::slice::from_ref(&beside));
        let recorder = open();
        assert_eq!(of_the_record(&recorder).count(), 0);
        recorder.close();
        std::fs::remove_dir_all(&state).unwrap();
        std::fs::create_dir_all(&state).unwrap();
        let said: Vec<String> = of_the_record(&open()).collect();
        assert!(said[0].contains("put back or deleted"), "{said:?}");
        std::fs::remove_dir_all(&state).unwrap();
        std::fs::create_dir_all(&state).unwrap();
        std::fs::write(state.join("audit"), "in the way").unwrap();
        let said: Vec<String> = of_the_record(&open()).collect();
        assert!(said[0].contains("cannot be written"), "{said:?}");
    }
}
