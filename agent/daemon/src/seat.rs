//! The daemon's side of the seat: what it is told and asked, and what somebody there requests of the others.

use std::path::PathBuf;
use std::sync::Arc;

use audit::AuditEvent;
use clock::Moment;
use monitor::{Answer, QuestionId};
use policy::Policy;

use super::DaemonError;
use base::layout::Layout;
use base::mailbox::ThreadHandle;
use config::domain_policies;
use config::machine::{Machine, Seat as SeatChoice};
use control::reports::SeatReport;
use domains::{Supervisor, screen};
use recorder::Recorder;
use seat::core::DomainIndex;
use seat::entries;
use seat::notices::Cause;
use seat::saved_state::{self, SavedStateFile};
use seat::{Backend, Command, DomainText, Handle, MediatorListener, Seat, SeatEvent, SeatPolicy};

/// The daemon's side of the seat: its thread, and what somebody there requests.
pub(super) struct SeatClient {
    seat: Seat,
    requests: Vec<SeatRequest>,
    /// The file that says how the seat was left.
    saved_state: PathBuf,
    /// Whether that file was there when this agent started.
    known: bool,
}

/// What somebody at the seat requests of the mediators.
#[derive(Clone, Copy, Debug)]
pub(super) enum SeatRequest {
    /// The answer to a question.
    Answered(QuestionId, Answer),
    /// The break-glass hotkey was pressed.
    BreakGlass,
    /// A desktop was switched to.
    Shown(DomainIndex),
}

impl SeatClient {
    /// Starts the seat that the machine file asks for.
    pub(super) fn start(
        machine: &Machine,
        layout: &Layout,
        policy: &Arc<Policy>,
        mediators: MediatorListener,
    ) -> Result<Self, DaemonError> {
        let names: Vec<String> = machine.domains.iter().map(|entry| entry.name.clone()).collect();
        let backend = match &machine.seat {
            SeatChoice::Kms { card } => Backend::Kms(card.clone()),
            SeatChoice::None => Backend::None,
        };
        let policy = SeatPolicy::new(policy, &names);
        let file = layout.seat_state();
        let known = file.exists();
        let seat = Seat::start(backend, names, policy, SavedStateFile::at(&file), mediators);
        let seat = seat.map_err(DaemonError::Seat)?;
        Ok(Self { seat, requests: Vec::new(), saved_state: file, known })
    }

    /// Locks the screen, as guests of an earlier agent run on, unless it is known whether it was locked.
    pub(super) fn lock_unless_known(&self) {
        if !self.known {
            self.send(Command::Lock);
        }
    }

    /// Ends the seat with its guests, and forgets how it was left: the next one begins anew.
    pub(super) fn forget(self) {
        drop(self.seat);
        saved_state::forget(&self.saved_state);
    }

    /// Returns where VMMs' screens and input go; `None` without a seat.
    pub(super) fn handle(&self) -> Option<Handle> {
        (self.seat.report().backend == "kms").then(|| self.seat.handle())
    }

    /// Returns its thread. One that has died: there is no screen and no keyboard any more.
    pub(super) const fn thread(&self) -> &ThreadHandle<Command, SeatEvent> {
        self.seat.thread()
    }

    /// Reports the seat, for `status`, and returns what there is to say besides.
    pub(super) fn report(&self) -> (SeatReport, Vec<String>) {
        (self.seat.report(), self.seat.notes())
    }

    /// Gives the seat's thread the hotkeys, labels and colours of a policy that comes into force.
    pub(super) fn take_policy(&self, policy: &Arc<Policy>) {
        let policy = SeatPolicy::new(policy, self.seat.names());
        self.send(Command::Policy(Box::new(policy)));
    }

    /// Brings a domain to the front.
    pub(super) fn switch(&self, name: &str) -> Result<(), String> {
        let names = self.seat.names();
        let index =
            self.seat.handle().index(name).ok_or_else(|| {
                domain_policies::no_domain(name, names.iter().map(String::as_str))
            })?;
        if self.seat.report().locked {
            return Err("the screen is locked; unlock it first".to_owned());
        }
        self.send(Command::Switch(index));
        Ok(())
    }

    pub(super) fn lock(&self) -> Result<(), String> {
        self.lock_now();
        Ok(())
    }

    /// Locks the screen, whoever works there.
    pub(super) fn lock_now(&self) {
        self.send(Command::Lock);
    }

    pub(super) fn unlock(&self) -> Result<(), String> {
        self.send(Command::Unlock);
        Ok(())
    }

    /// Sends the seat the texts that have changed, and processes its events; returns what goes into the audit log.
    pub(super) fn process_events(
        &mut self,
        supervisor: &Supervisor,
        recorder: &Recorder,
        notes: impl Iterator<Item = String>,
    ) -> Vec<AuditEvent> {
        for index in 0..self.seat.names().len() {
            self.seat.show(index, self.domain_text(index, supervisor));
        }
        self.seat.show_banner_notes(recorder.banner_notes().chain(notes).collect());
        let events = self.thread().events();
        self.requests.extend(events.iter().filter_map(request));
        events.iter().filter_map(|event| entries::of(event, self.seat.names())).collect()
    }

    /// Takes what somebody at the seat requested since the last call.
    pub(super) fn requests(&mut self) -> Vec<SeatRequest> {
        std::mem::take(&mut self.requests)
    }

    /// Returns the name of a domain with a desktop.
    pub(super) fn name(&self, domain: DomainIndex) -> Option<String> {
        self.seat.names().get(domain).cloned()
    }

    /// Returns whether somebody can press hotkeys here.
    pub(super) fn has_keyboard(&self) -> bool {
        self.handle().is_some()
    }

    /// Returns the size of a desktop, in pixels, while there is a screen.
    pub(super) fn desktop(&self) -> Option<(u32, u32)> {
        self.seat.report().desktop
    }

    /// Shows the outcome of what somebody did.
    pub(super) fn notice(&self, text: String) {
        self.send(Command::Notice(Cause::Person, text));
    }

    /// Shows what a device or a guest brought about; the more often, the less of it is shown.
    pub(super) fn notice_of(&self, source: &str, text: String) {
        self.send(Command::Notice(Cause::Source(source.to_owned()), text));
    }

    /// Asks a question that is answered yes or no.
    pub(super) fn ask(&self, question: QuestionId, text: String) {
        self.send(Command::Ask(question.number(), text));
    }

    /// Asks a question with these choices; without any it is answered yes or no.
    pub(super) fn choose(&self, question: QuestionId, text: String, choices: Vec<String>) {
        match choices.as_slice() {
            [] => self.ask(question, text),
            _ => self.send(Command::Choose(question.number(), text, choices)),
        }
    }

    /// Says a question that is open in other words, which mean the same.
    pub(super) fn reword(&self, question: QuestionId, text: String) {
        self.send(Command::Reword(question.number(), text));
    }

    /// Returns the domain in front.
    pub(super) fn front(&self) -> String {
        self.seat.report().front
    }

    /// Returns whether somebody may be there who can be asked: there is a seat, and its screen is not locked.
    pub(super) fn can_ask(&self) -> bool {
        self.has_keyboard() && !self.seat.report().locked
    }

    /// Returns when input last went to a domain; `None` if none has since the agent started.
    pub(super) fn last_input(&self, name: &str) -> Option<Moment> {
        self.seat.last_input(self.seat.names().iter().position(|known| known == name)?)
    }

    /// Takes a question off the screen.
    pub(super) fn hide(&self, question: QuestionId) {
        self.send(Command::Withdraw(question.number()));
    }

    fn send(&self, command: Command) {
        self.seat.handle().send(command);
    }

    fn domain_text(&self, index: DomainIndex, supervisor: &Supervisor) -> DomainText {
        let Some(name) = self.seat.names().get(index) else { return DomainText::default() };
        let runtime = supervisor.domains().iter().find(|runtime| runtime.policy().name == *name);
        match runtime {
            Some(runtime) => screen::domain_text(runtime, supervisor.now()),
            None => screen::external(),
        }
    }
}

/// Returns what an event of the seat requests of others, if it does.
fn request(event: &SeatEvent) -> Option<SeatRequest> {
    let answered = |number: u64, answer: Answer| {
        Some(SeatRequest::Answered(QuestionId::from_number(number), answer))
    };
    match *event {
        SeatEvent::Switched { to, .. } => Some(SeatRequest::Shown(to)),
        SeatEvent::BreakGlass => Some(SeatRequest::BreakGlass),
        SeatEvent::Answered(number, yes) => {
            answered(number, if yes { Answer::Yes } else { Answer::No })
        }
        SeatEvent::Chosen(number, chosen) => answered(number, Answer::Chosen(chosen)),
        SeatEvent::Locked { .. }
        | SeatEvent::Unlocked
        | SeatEvent::Plugged(..)
        | SeatEvent::Unplugged(_)
        | SeatEvent::LinkLost(..) => None,
    }
}
