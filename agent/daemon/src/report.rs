//! The answer to `status`: what each part reports of itself, and what there is to say besides.

use clock::Moment;

use super::Running;
use control::protocol::{AgentReport, AuditReport, StatusReport};

pub(super) fn status(running: &Running) -> StatusReport {
    let Running { configuration, supervisor, seat, mediators, break_glass, monitor, .. } = running;
    let (recorder, configuration) = (monitor.recorder(), &configuration.current);
    let mut notes = configuration.notes();
    notes.extend(recorder.notes());
    if !cfg!(panic = "unwind") {
        notes.push("this agent is built to end at the first fault of one of its threads: build it with scripts/build".to_owned());
    }
    notes.extend(mediators.each().filter_map(|mediator| mediator.fault(&configuration.policy)));
    notes.extend(break_glass.banner_note(Moment::now()));
    notes.extend(supervisor.notes());
    let (host_network, note) = supervisor.host_network_report();
    notes.extend(note);
    let (seat, seats_notes) = seat.report();
    notes.extend(seats_notes);
    StatusReport {
        agent: AgentReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            for_seconds: supervisor.now().as_secs(),
            stopping: supervisor.is_stopping(),
            unwinds: cfg!(panic = "unwind"),
        },
        policy: configuration.policy_report.clone(),
        audit: AuditReport {
            ok: recorder.problem().is_none(),
            entries: recorder.head().map(|head| head.seq),
            problem: recorder.problem().map(str::to_owned),
            broken: recorder.found().broken.clone(),
            went_back: recorder.found().went_back.clone(),
        },
        host_network,
        seat,
        break_glass_seconds: break_glass.left(Moment::now()).map(|left| left.as_secs()),
        domains: supervisor
            .report(&configuration.domain_policies, |domain| mediators.clipboard.has_agent(domain)),
        notes,
    }
}
