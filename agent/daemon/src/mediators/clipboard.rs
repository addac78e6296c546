//! The daemon's side of the clipboard: audit, words and questions, and hotkeys from the command line.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clipboard::mediator::{Hotkey, Paste, Ticket};
use clipboard::operations::Operations;
use monitor::core::Cause;
use monitor::{Denial, MediatorId, MediatorThread, Monitor, Request, RequestId};
use policy::Policy;
use seat::ToMediators;

use super::mediator::{Client, Duties, Failure, Place, Rules, Start};
use crate::seat::SeatClient;
use crate::worker_resources::{WORKER, group};
use crate::{DaemonError, record};
use base::layout::{CLIPBOARD_PORT, Layout};
use base::sockets::SocketEndpoint;
use clipboard::service::{
    CLIPBOARD, Clipboard, ClipboardEvent, Command, Domain, Program, WorkerPrograms, decoding,
};
use config::domain_policies;
use config::machine::{DomainHardware, Kind};
use control::protocol::Answer;
use domains::cgroup::Cgroups;

/// How long a question waits at most: longer than the mediator does.
const ASK_FOR: Duration = Duration::from_secs(60);
/// Why nothing crosses any more.
const FAILED: &str =
    "the clipboard has failed: nothing is copied or pasted until the agent is restarted";

/// The clipboard, and what became of the command line's hotkeys.
pub(crate) struct ClipboardClient {
    clipboard: Clipboard,
    names: Vec<String>,
    /// Which domains' agents have announced themselves.
    agents: Vec<bool>,
    operations: Operations,
    screen: Option<(u32, u32)>,
    /// A picture takes longer to be decoded than a moment.
    preparing: bool,
}

impl Start for ClipboardClient {
    fn sockets(layout: &Layout, entry: &DomainHardware) -> Vec<PathBuf> {
        match entry.kind {
            Kind::External => vec![layout.vdagent_socket(&entry.name)],
            // It is one of the VMM's ports.
            Kind::Vm(_) => Vec::new(),
        }
    }

    fn start(place: Place<'_>) -> Result<Self, DaemonError> {
        let Place { machine, layout, policy, cgroups, worker_resources } = place;
        let names: Vec<String> = machine.domains.iter().map(|entry| entry.name.clone()).collect();
        let domains = machine.domains.iter().enumerate().map(|(index, entry)| Domain {
            name: entry.name.clone(),
            endpoint: match entry.kind {
                Kind::External => SocketEndpoint::Listen(layout.vdagent_socket(&entry.name)),
                Kind::Vm(_) => {
                    SocketEndpoint::Connect(layout.port_socket(&entry.name, CLIPBOARD_PORT))
                }
            },
            group: worker_resources.group_of(index),
        });
        let workers = worker_resources.program.as_ref().map(|program| WorkerPrograms {
            decoding: Some(decoding(program.clone(), cgroups)),
            reading: Some(program.clone()),
        });
        if let Err(error) = &workers {
            tracing::warn!(
                "nothing is copied or pasted between domains: {error}: install {WORKER} beside bulkhead-agent and restart it"
            );
        }
        let workers = workers.unwrap_or_default();
        let clipboard = clipboard::service::start(domains.collect(), Arc::clone(policy), workers)
            .map_err(|source| DaemonError::Mediator { what: "clipboard", source })?;
        let agents = vec![false; names.len()];
        let operations = Operations::default();
        Ok(Self { clipboard, names, agents, operations, screen: None, preparing: false })
    }
}

/// Sets the cgroup in which the program decodes pictures.
fn decoding(program: Program, cgroups: Option<&Cgroups>) -> Program {
    let group = cgroups.and_then(|cgroups| {
        let made = cgroups.workers(decoding::GROUP_MEMORY_MAX);
        group(made.map(|(path, missing)| (path.to_owned(), missing)))
    });
    match group {
        Some(group) => program.in_cgroup(group),
        None => program,
    }
}

impl Duties for ClipboardClient {
    /// Does nothing: the clipboard has no hold on the PC.
    fn activate(&mut self, _: Place<'_>) {}

    fn listener(&self) -> Option<Box<dyn Fn(ToMediators) + Send>> {
        let clipboard = self.clipboard.sender();
        Some(Box::new(move |what| {
            clipboard.send(match what {
                ToMediators::Copy(front) => Command::Hotkey(Hotkey::Copy, front, None),
                ToMediators::Paste(front) => Command::Hotkey(Hotkey::Paste, front, None),
                ToMediators::Locked => Command::Locked,
            });
        }))
    }

    fn answered(&mut self, number: u64, yes: bool) {
        self.send(Command::Answered(number, yes));
    }

    fn revoke(&mut self, cause: Cause, rules: Rules<'_>) {
        match cause {
            Cause::Policy => self.send(Command::Policy(Arc::clone(rules.policy))),
            Cause::Record => self.send(Command::RecordLost),
            // No rule of the clipboard needs it.
            Cause::BreakGlass => {}
        }
    }

    /// Does nothing: no rule of the clipboard needs break-glass.
    fn break_glass_opened(&mut self, _: Rules<'_>) {}

    fn fault(&self, _: &Policy) -> Option<String> {
        self.clipboard.has_died().then(|| "NOTHING IS COPIED OR PASTED between domains: the clipboard has failed; restart the agent".to_owned())
    }
}

impl Client for ClipboardClient {
    type Command = Command;
    type Event = ClipboardEvent;
    const ID: MediatorId = CLIPBOARD;
    const FAILURE: Failure = Failure {
        log: FAILED,
        notice: "Copy and paste do not work any more.\nCall IT.",
        banner: "Copy and paste do not work: call IT",
    };

    fn thread(&self) -> Option<&MediatorThread<Command, ClipboardEvent>> {
        Some(&self.clipboard)
    }

    fn thread_mut(&mut self) -> Option<&mut MediatorThread<Command, ClipboardEvent>> {
        Some(&mut self.clipboard)
    }

    fn look_at(&mut self, seat: &SeatClient) {
        let screen = seat.desktop();
        if screen != self.screen {
            self.screen = screen;
            self.send(Command::Screen(screen));
        }
    }

    fn handle(&mut self, event: ClipboardEvent, seat: Option<&SeatClient>, monitor: &mut Monitor) {
        match (event, seat) {
            (ClipboardEvent::Authorize(request), _) => self.authorize(request, monitor),
            (ClipboardEvent::Note(event), _) => {
                monitor.note(&[event]);
            }
            (
                ClipboardEvent::Completed(..)
                | ClipboardEvent::Ask(..)
                | ClipboardEvent::Withdraw(_)
                | ClipboardEvent::Agent(..)
                | ClipboardEvent::Preparing(_),
                None,
            ) => {}
            (ClipboardEvent::Completed(None, outcome), Some(seat)) => seat.notice(outcome.words),
            (ClipboardEvent::Completed(Some(ticket), outcome), Some(_)) => {
                self.operations.completed(ticket, outcome);
            }
            (ClipboardEvent::Ask(ticket, number, text), Some(seat)) => {
                match (monitor.ask(request(number), ASK_FOR), ticket) {
                    (Err(_), _) => self.send(Command::Answered(number, false)),
                    (Ok(question), None) => seat.ask(question, text),
                    (Ok(question), Some(ticket)) => {
                        self.operations.asked(ticket, question, text);
                    }
                }
            }
            (ClipboardEvent::Withdraw(number), Some(_)) => monitor.withdraw(request(number)),
            (ClipboardEvent::Preparing(preparing), Some(_)) => self.preparing = preparing,
            (ClipboardEvent::Agent(index, there), Some(_)) => {
                if let Some(place) = self.agents.get_mut(index) {
                    *place = there;
                }
            }
        }
    }

    /// Forgets what was under way: nothing crosses any more, and whoever waits for an outcome is told so.
    fn died(&mut self) {
        self.agents.fill(false);
        self.operations.fail(FAILED);
    }

    fn progress(&self) -> Option<&'static str> {
        self.preparing.then_some("Preparing the picture")
    }
}

impl ClipboardClient {
    fn send(&self, command: Command) {
        self.clipboard.send(command);
    }

    /// Returns whether a domain's guest can copy and paste.
    pub(crate) fn has_agent(&self, name: &str) -> bool {
        let index = self.names.iter().position(|known| known == name);
        index.and_then(|index| self.agents.get(index)).copied().unwrap_or(false)
    }

    /// Asks the monitor for the permit. That what a thread wanted which is no more does not happen is written down here.
    fn authorize(&self, request: Request<Paste>, monitor: &mut Monitor) {
        let (number, to) = (request.number, request.grant.to());
        match monitor.authorize(CLIPBOARD, request) {
            Ok(permit) => self.send(Command::Permitted(permit)),
            Err(refused) if refused.denial == Denial::NotRunning => {
                let domain = self.names.get(to).map_or("", String::as_str);
                monitor.note(&[record::not_delivered(domain, &refused)]);
            }
            Err(refused) => self.send(Command::Refused(number, refused.denial)),
        }
    }

    /// Plays a hotkey for a user of the command line.
    pub(crate) fn ask(
        &mut self,
        uid: u32,
        hotkey: Hotkey,
        domain: &str,
        seat: &SeatClient,
    ) -> Answer {
        if seat.has_keyboard() {
            return Answer::of(Err(
                "this PC has a seat: copy and paste with the hotkeys there (Ctrl+Alt+C and Ctrl+Alt+V, unless the policy names others)".to_owned(),
            ));
        }
        if self.clipboard.has_died() {
            return Answer::of(Err(FAILED.to_owned()));
        }
        let Some(index) = self.names.iter().position(|name| name == domain) else {
            let names = self.names.iter().map(String::as_str);
            return Answer::of(Err(domain_policies::no_domain(domain, names)));
        };
        let report = self.operations.begin(uid);
        self.send(Command::Hotkey(hotkey, index, Some(report.ticket)));
        Answer::of_clipboard(report)
    }

    /// Returns what became of a hotkey, to the user who played it.
    pub(crate) fn outcome(&self, uid: u32, ticket: Ticket) -> Answer {
        match self.operations.report(uid, ticket) {
            Ok(report) => Answer::of_clipboard(report),
            Err(why) => Answer::of(Err(why)),
        }
    }

    /// Answers its question, as the user who played it.
    pub(crate) fn answer(
        &mut self,
        uid: u32,
        ticket: Ticket,
        yes: bool,
        monitor: &mut Monitor,
    ) -> Answer {
        let question = match self.operations.take_question(uid, ticket) {
            Ok(question) => question,
            Err(why) => return Answer::of(Err(why)),
        };
        match question.and_then(|question| monitor.answer(question, yes)) {
            Some(id) => {
                self.send(Command::Answered(id.number, yes));
                self.outcome(uid, ticket)
            }
            None => Answer::of(Err("nothing is asked any more".to_owned())),
        }
    }
}

/// Returns the id of a request of the clipboard's, by the number that the clipboard gave it.
const fn request(number: u64) -> RequestId {
    RequestId { mediator: CLIPBOARD, number }
}

#[cfg(test)]
mod tests;
