//! The answer to `status`.

use clock::Moment;

use super::Running;
use super::mediators::Mediators;
use control::protocol::{AgentReport, AuditReport, DomainReport, HostNetworkReport, StatusReport};
use control::reports::PressureReport;
use domains::host_network::{Judgement, Rule};
use domains::lifecycle::{State, Time};
use domains::pressure::Pressing;
use domains::{DomainRuntime, Supervisor};
use inforce::configuration::Unenforced;

pub(super) fn status(running: &Running) -> StatusReport {
    let Running { configuration, supervisor, seat, mediators, break_glass, monitor, .. } = running;
    let recorder = monitor.recorder();
    let configuration = &configuration.current;
    let mut notes = Vec::new();
    if let Some(why) = &configuration.policy_report.refused {
        notes.push(format!(
            "THE POLICY FILE IS REFUSED, the last good policy (serial {}) is in force: {why}",
            configuration.policy_report.serial
        ));
    }
    if let Some(refused) = &configuration.trust.refused {
        notes.push(format!(
            "THE TRUST STORE IS REFUSED, the one before (serial {}) counts: {}",
            refused.serial, refused.why
        ));
    }
    if !configuration.policy_report.signed {
        notes.push("the policy is unsigned: this machine has no trust store (trust.toml beside machine.toml), so nothing proves who wrote it".to_owned());
    }
    notes.extend(configuration.unenforced().into_iter().map(|found| {
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
    notes.extend(mediators.each().filter_map(|mediator| mediator.fault(&configuration.policy)));
    notes.extend(break_glass.banner_note(Moment::now()));
    notes.extend(supervisor.domains().iter().filter_map(|runtime| {
        let name = &runtime.policy().name;
        let outdated = runtime.outdated()?;
        Some(format!(
            "{name} {outdated}: `bulkhead restart {name}` puts it right when nobody works there"
        ))
    }));
    notes.extend(supervisor.domains().iter().filter_map(|runtime| {
        Some(format!("{}: {}", runtime.policy().name, runtime.image_note()?))
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
        policy: configuration.policy_report.clone(),
        audit: AuditReport {
            ok: recorder.problem().is_none(),
            entries: recorder.head().map(|head| head.seq),
            problem: recorder.problem().map(str::to_owned),
            broken: recorder.found().broken.clone(),
            went_back: recorder.found().went_back.clone(),
        },
        host_network,
        seat: seat.report(&mut notes),
        break_glass_seconds: break_glass.left(Moment::now()).map(|left| left.as_secs()),
        domains: configuration
            .domain_policies
            .iter()
            .filter_map(|policy| {
                let runtime =
                    supervisor.domains().iter().find(|runtime| runtime.policy() == policy);
                match runtime {
                    Some(runtime) => Some(domain(runtime, supervisor, mediators)),
                    None if supervisor.externals().contains(&policy.name) => {
                        Some(external(policy, supervisor, mediators))
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

fn domain(runtime: &DomainRuntime, supervisor: &Supervisor, mediators: &Mediators) -> DomainReport {
    let (policy, life) = (runtime.policy(), runtime.lifecycle());
    let now = supervisor.now();
    DomainReport {
        name: policy.name.clone(),
        label: policy.label.clone(),
        state: life.state().word().to_owned(),
        for_seconds: now.saturating_sub(life.since()).as_secs(),
        wanted: life.wanted() || life.has_given_up(),
        pid: runtime.pid(),
        restarts: life.restarts(),
        silent: runtime.is_silent(),
        retry_in_seconds: match life.state() {
            State::Backoff { until } => Some(until.saturating_sub(now).as_secs()),
            _ => None,
        },
        problem: life
            .problem()
            .map(str::to_owned)
            .or_else(|| runtime.waits())
            .or_else(|| runtime.not_kept().map(str::to_owned)),
        network: policy.network.word().to_owned(),
        clipboard_agent: mediators.clipboard.has_agent(&policy.name),
        pressure: runtime.pressure().pressing().map(|what| pressure(what, now)).collect(),
        pci: runtime.functions(),
    }
}

fn pressure(what: Pressing, now: Time) -> PressureReport {
    PressureReport {
        resource: what.resource.word().to_owned(),
        percent: what.percent,
        for_seconds: now.saturating_sub(what.since).as_secs(),
        words: what.resource.says().to_owned(),
    }
}

fn external(
    policy: &config::domain_policies::DomainPolicy,
    supervisor: &Supervisor,
    mediators: &Mediators,
) -> DomainReport {
    DomainReport {
        name: policy.name.clone(),
        label: policy.label.clone(),
        state: "external".to_owned(),
        for_seconds: supervisor.now().as_secs(),
        wanted: true,
        pid: None,
        restarts: 0,
        silent: false,
        retry_in_seconds: None,
        problem: None,
        network: policy.network.word().to_owned(),
        clipboard_agent: mediators.clipboard.has_agent(&policy.name),
        pressure: Vec::new(),
        pci: Vec::new(),
    }
}
