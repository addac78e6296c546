//! `bulkhead status`.

use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::time::Duration;

use clap::Args;

use super::{Common, Failure, Outcome, duration, pause, print, values, write};
use control::commands::Request;
use control::protocol::{DomainReport, StatusReport};
use control::reports::{NicReport, PressureReport, SeatReport, describe};

/// How `status` is asked for.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Show it again and again, every so many seconds, until it is interrupted
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2",
        value_parser = values::every
    )]
    watch: Option<u16>,
}

/// What a terminal does with this: it goes to its upper left corner, and clears what is there.
const CLEAR: &str = "\x1b[H\x1b[2J";

pub(super) fn run(common: &Common, args: &StatusArgs) -> Outcome {
    let Some(seconds) = args.watch else { return once(common) };
    // A file or another program gets one after the other.
    let terminal = io::stdout().is_terminal() && !common.json;
    loop {
        if terminal {
            write(io::stdout(), CLEAR);
        }
        let outcome = once(common);
        if !pause(Duration::from_secs(seconds.into())) {
            return outcome;
        }
        if !terminal && !common.json {
            print("\n");
        }
    }
}

/// Shows it; exits with 1 if something is not as a ward needs it.
fn once(common: &Common) -> Outcome {
    let answer = match common.ask(&Request::Status {}) {
        Ok(answer) => answer,
        Err(outcome) => return outcome,
    };
    let Some(status) = &answer.status else {
        return common.fail(Failure::NoAgent, "the agent's answer holds no status: `bulkhead` and `bulkhead-agent` are of different versions");
    };
    let failures = status.failures();
    let verdict = if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) };
    common.answer(verdict, &answer, || print(&render(status, &failures)))
}

fn render(status: &StatusReport, failures: &[String]) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write_to(&mut out, status);
    for failure in failures {
        let _ = writeln!(out, "NOT OK: {failure}");
    }
    out
}

fn seat(seat: &SeatReport) -> String {
    let front = if seat.locked { "locked".to_owned() } else { format!("{} in front", seat.front) };
    if seat.backend != "kms" {
        return format!("none; {front}");
    }
    let screen = seat.screen.as_deref().unwrap_or("NO SCREEN");
    let counted = |number: usize, one: &str, many: &str| {
        printable::counted(u64::try_from(number).unwrap_or(u64::MAX), one, many)
    };
    let keyboards = counted(seat.keyboards, "keyboard", "keyboards");
    let devices = format!("{keyboards}, {}", counted(seat.pointers, "pointer", "pointers"));
    let pinned: String =
        seat.pinned.iter().map(|(device, domain)| format!("; {device} -> {domain}")).collect();
    let took = match (seat.switch_p50_us, seat.switch_p99_us) {
        (Some(half), Some(most)) => {
            let millis = |micros: u64| format!("{}.{}", micros / 1000, micros / 100 % 10);
            format!(
                "; {} switches, p50 {} ms, p99 {} ms",
                seat.switches,
                millis(half),
                millis(most)
            )
        }
        _ => String::new(),
    };
    format!("{screen}; {front}; {devices}{pinned}{took}")
}

fn write_to(out: &mut String, status: &StatusReport) -> std::fmt::Result {
    let StatusReport { agent, policy, audit, host_network, seat, domains, notes, .. } = status;
    let stopping = if agent.stopping { ", stopping" } else { "" };
    let up = duration(agent.for_seconds);
    writeln!(out, "agent    {}, pid {}, up {up}{stopping}", agent.version, agent.pid)?;
    let signed = match policy.signers.as_slice() {
        [] => "unsigned".to_owned(),
        signers => format!("signed by {}", signers.join(", ")),
    };
    writeln!(
        out,
        "policy   {}, serial {}, {} ({signed})",
        policy.file, policy.serial, policy.issuer
    )?;
    match (audit.entries, audit.ok) {
        (Some(entries), true) => {
            // That new entries get there is all the agent knows: nobody reads the old ones again.
            let entries = printable::counted(entries, "entry", "entries");
            writeln!(
                out,
                "audit    being written, {entries}; whether they hold says `bulkhead audit verify`"
            )?
        }
        _ => writeln!(out, "audit    NOT WRITTEN")?,
    }
    let network = match (host_network.ok, host_network.interfaces.is_empty()) {
        (true, true) => "none".to_owned(),
        (true, false) => {
            format!("{}; no external domain is held back by it", describe(&host_network.interfaces))
        }
        (false, false) => describe(&host_network.interfaces),
        (false, true) => "unknown".to_owned(),
    };
    writeln!(out, "host     network: {network}")?;
    writeln!(out, "seat     {}", self::seat(seat))?;
    writeln!(out)?;
    let width = domains.iter().map(|d| d.name.len()).chain([6]).max().unwrap_or(6);
    writeln!(
        out,
        "{:width$}  {:9}  {:>12}  {:>7}  {:>8}  NIC",
        "DOMAIN", "STATE", "FOR", "PID", "RESTARTS"
    )?;
    for domain in domains {
        let pid = domain.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        writeln!(
            out,
            "{:width$}  {:9}  {:>12}  {pid:>7}  {:>8}  {}",
            domain.name,
            domain.state,
            duration(domain.for_seconds),
            domain.restarts,
            nic(domain)
        )?;
    }
    for domain in domains {
        for other in domain.pci.iter().filter(|function| !function.nic) {
            writeln!(out, "{}: also has {}", domain.name, function(other))?;
        }
        for held in domain.pci.iter().filter(|function| !function.goes_with.is_empty()) {
            writeln!(
                out,
                "{}: with {}, and unused: {}",
                domain.name,
                held.address,
                held.goes_with.join(", ")
            )?;
        }
        if domain.state == "running" && !domain.clipboard_agent {
            writeln!(out, "{}: no clipboard agent runs in its guest yet", domain.name)?;
        }
        for PressureReport { percent, for_seconds, words, .. } in &domain.pressure {
            let time = duration(*for_seconds);
            writeln!(
                out,
                "{}: {words} (it waited {percent} % of the last minute), for {time}",
                domain.name
            )?;
        }
        if domain.silent {
            writeln!(out, "{}: its VMM does not answer; the guest runs on", domain.name)?;
        }
        if let Some(problem) = &domain.problem {
            writeln!(out, "{}: {problem}", domain.name)?;
        }
        if let Some(seconds) = domain.retry_in_seconds {
            writeln!(out, "{}: tried again in {}", domain.name, duration(seconds))?;
        }
    }
    for note in notes {
        writeln!(out, "note: {note}")?;
    }
    Ok(())
}

fn nic(domain: &DomainReport) -> String {
    match domain.pci.iter().find(|function| function.nic) {
        Some(nic) => function(nic),
        None => format!("- (network: {})", domain.network),
    }
}

fn function(report: &NicReport) -> String {
    if let Some(problem) = &report.problem {
        return format!("{} ({problem})", report.address);
    }
    let driver = report.driver.as_deref().unwrap_or("no driver");
    match &report.former_driver {
        Some(former) if report.driver.as_ref() != Some(former) => {
            format!("{} {driver} (on the host: {former})", report.address)
        }
        _ => format!("{} {driver}", report.address),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Puts this into every text of an answer.
    fn everywhere(value: &mut Value, evil: &str) {
        match value {
            Value::String(text) => evil.clone_into(text),
            Value::Array(items) => items.iter_mut().for_each(|item| everywhere(item, evil)),
            Value::Object(fields) => fields.values_mut().for_each(|field| everywhere(field, evil)),
            _ => {}
        }
    }

    #[test]
    fn whatever_a_device_calls_itself_steers_no_terminal_and_forges_no_line() {
        let mut seat = serde_json::to_value(SeatReport::default()).unwrap();
        seat["backend"] = json!("kms");
        seat["pinned"] =
            json!([["scanner\u{1b}]0;x\u{7}\u{9b}2J\nnote: all is well\u{202e}", "clinical"]]);
        let report: SeatReport = serde_json::from_value(seat.clone()).unwrap();
        let line = super::seat(&report);
        assert!(line.chars().all(printable::is_shown), "{line:?}");
        assert!(line.contains("scanner\\u{1b}]0;x"), "{line}");
        // What else is said goes through the same place on its way out.
        everywhere(&mut seat, "a\u{1b}[31mb\u{9b}2Jc");
        let report: SeatReport = serde_json::from_value(seat).unwrap();
        let page = printable::page(&super::seat(&report)).into_owned();
        assert!(page.chars().all(printable::is_shown), "{page:?}");
    }
}
