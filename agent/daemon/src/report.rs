//! The answer to `status`.

use super::Running;
use super::clipboard::Pasteboard;
use config::configuration::Unenforced;
use control::protocol::{AgentReport, AuditReport, DomainReport, HostNetworkReport, StatusReport};
use domains::domain::State;
use domains::host_network::{Judgement, Rule};
use domains::{Slot, Supervisor};

pub(super) fn status(running: &Running) -> StatusReport {
    let Running { papers, supervisor, desk, pasteboard, devices, break_glass, monitor, .. } =
        running;
    let recorder = monitor.recorder();
    let files = &papers.files;
    let mut notes = Vec::new();
    if let Some(why) = &files.policy.refused {
        notes.push(format!(
            "THE POLICY FILE IS REFUSED, the last good policy (serial {}) is in force: {why}",
            files.policy.serial
        ));
    }
    if !files.policy.signed {
        notes.push("the policy is unsigned: this machine has no trust store (trust.toml beside machine.toml), so nothing proves who wrote it".to_owned());
    }
    notes.extend(files.unenforced().into_iter().map(|found| {
        let Unenforced { what, remedy } = found;
        format!("{what}; {remedy}")
    }));
    if let Some(problem) = recorder.problem() {
        notes.push(format!("NOTHING CROSSES, as it cannot be recorded: {problem}"));
    }
    if let Some(what) = &recorder.found().broken {
        notes.push(format!("THE AUDIT LOG IS BROKEN: {what}; look with `bulkhead audit verify`"));
    }
    if let Some(what) = &recorder.found().went_back {
        notes.push(recorder::went_back(what));
    }
    if !cfg!(panic = "unwind") {
        notes.push("this agent is built to end at the first fault of one of its threads: build it with scripts/build".to_owned());
    }
    if pasteboard.is_dead() {
        notes.push("NOTHING IS COPIED OR PASTED between domains: the clipboard has failed; restart the agent".to_owned());
    }
    if let (Some(why), false) = (devices.problem(), files.rules.usb().is_empty()) {
        notes.push(format!("NO USB DEVICE REACHES A DOMAIN: {why}"));
    }
    notes.extend(break_glass.news());
    notes.extend(supervisor.slots().iter().filter_map(|slot| {
        let name = &slot.member().name;
        let outdated = slot.outdated()?;
        Some(format!(
            "{name} {outdated}: `bulkhead restart {name}` puts it right when nobody works there"
        ))
    }));
    let host_network = host_network(supervisor, &mut notes);
    StatusReport {
        agent: AgentReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            for_seconds: supervisor.now().as_secs(),
            stopping: supervisor.is_stopping(),
            unwinds: cfg!(panic = "unwind"),
        },
        policy: files.policy.clone(),
        audit: AuditReport {
            ok: recorder.problem().is_none(),
            entries: recorder.head().map(|head| head.seq),
            problem: recorder.problem().map(str::to_owned),
            broken: recorder.found().broken.clone(),
            went_back: recorder.found().went_back.clone(),
        },
        host_network,
        seat: desk.report(&mut notes),
        break_glass_seconds: break_glass.left().map(|left| left.as_secs()),
        domains: files
            .roster
            .iter()
            .filter_map(|member| {
                let slot = supervisor.slots().iter().find(|slot| slot.member() == member);
                match slot {
                    Some(slot) => Some(domain(slot, supervisor, pasteboard)),
                    None if supervisor.externals().contains(&member.name) => {
                        Some(external(member, supervisor, pasteboard))
                    }
                    None => None,
                }
            })
            .collect(),
        notes,
    }
}

fn host_network(supervisor: &Supervisor, notes: &mut Vec<String>) -> HostNetworkReport {
    let (rule, found) = supervisor.host_network();
    let judgement = rule.judge(found);
    match (rule, judgement) {
        (Rule::Lifted, Judgement::NoNetwork) => notes.push(
            "allow_host_network = true in machine.toml switches the host-network rule off"
                .to_owned(),
        ),
        (_, judgement) if judgement.is_kept() => {}
        (_, judgement) => notes.push(judgement.to_string()),
    }
    HostNetworkReport {
        ok: judgement.is_kept(),
        allowed: rule == Rule::Lifted,
        interfaces: found.map(<[_]>::to_vec).unwrap_or_default(),
    }
}

fn domain(slot: &Slot, supervisor: &Supervisor, pasteboard: &Pasteboard) -> DomainReport {
    let (member, life) = (slot.member(), slot.domain());
    let now = supervisor.now();
    DomainReport {
        name: member.name.clone(),
        label: member.label.clone(),
        state: life.state().word().to_owned(),
        for_seconds: now.saturating_sub(life.since()).as_secs(),
        wanted: life.wanted(),
        pid: slot.pid(),
        restarts: life.restarts(),
        silent: slot.is_silent(),
        retry_in_seconds: match life.state() {
            State::Backoff { until } => Some(until.saturating_sub(now).as_secs()),
            _ => None,
        },
        problem: life.problem().map(str::to_owned),
        network: member.network.word().to_owned(),
        clipboard_agent: pasteboard.has_agent(&member.name),
        pci: slot.functions(),
    }
}

fn external(
    member: &config::roster::Member,
    supervisor: &Supervisor,
    pasteboard: &Pasteboard,
) -> DomainReport {
    DomainReport {
        name: member.name.clone(),
        label: member.label.clone(),
        state: "external".to_owned(),
        for_seconds: supervisor.now().as_secs(),
        wanted: true,
        pid: None,
        restarts: 0,
        silent: false,
        retry_in_seconds: None,
        problem: None,
        network: member.network.word().to_owned(),
        clipboard_agent: pasteboard.has_agent(&member.name),
        pci: Vec::new(),
    }
}
