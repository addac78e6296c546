//! `bulkhead doctor`: `bulkhead-agent doctor` examines this PC and mends what it is to, and what it found is shown here.

use std::path::PathBuf;

use super::examiner::Task;
use super::{Common, Failure, Outcome, colours, print_styled};
use arguments::Files;
use clap::Args;
use control::findings::{Diagnosis, Finding, Level};
use nix::unistd::Uid;
use printable::{Ink, StyledPage};

/// What the doctor looks at.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: 0 this PC is fit; 1 it is not; 2 bad usage, or nothing was examined: bulkhead-agent is missing, crashed, or is of another version."
)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    files: Files,
    /// The VMM [default: bulkhead-vmm beside this program, or in PATH]
    #[arg(long, value_name = "PATH")]
    vmm: Option<PathBuf>,
    /// Mend what takes no decision and no restart of a domain (groups and accounts that are missing, modules that are not loaded), then look again
    #[arg(long)]
    fix: bool,
}

const TASK: Task = Task {
    command: "doctor",
    who: "the doctor examines a PC",
    doing: "it examined this PC",
    not_done: "has not examined this PC",
    asks: false,
};

pub(super) fn run(common: &Common, args: &DoctorArgs) -> Outcome {
    if args.fix && !Uid::effective().is_root() {
        return common.fail(Failure::No, "`--fix` changes this PC: run it as root");
    }
    let diagnosis = match examine(common, args) {
        Ok(diagnosis) => diagnosis,
        Err(why) => return common.fail(Failure::NoAgent, &why),
    };
    let not_mended = diagnosis.repairs.iter().any(|repair| repair.problem.is_some());
    let verdict = match failed(&diagnosis.findings) {
        0 if !not_mended => Ok(()),
        _ => Err(sum(&diagnosis)),
    };
    common.answer(verdict, &diagnosis, || {
        print_styled(&render(&diagnosis, colours(&std::io::stdout())));
    })
}

/// Runs the doctor on this PC and returns what it found, or why it found nothing.
fn examine(common: &Common, args: &DoctorArgs) -> Result<Diagnosis, String> {
    let DoctorArgs { files, vmm, fix } = args;
    let own = [("--runtime", Some(&common.runtime)), ("--vmm", vmm.as_ref())];
    TASK.run(&[("--fix", *fix)], &[own.as_slice(), &files.options()].concat())
}

fn render(diagnosis: &Diagnosis, colours: bool) -> StyledPage {
    let mut out = StyledPage::default();
    let put = |out: &mut StyledPage, colour, word| match colours {
        true => out.push_in(colour, word),
        false => out.push(word),
    };
    for repaired in &diagnosis.repairs {
        match &repaired.problem {
            None => {
                put(&mut out, Ink::Green, "done");
                out.push(&format!("  {}\n      -> {}\n", repaired.what, repaired.what.after()));
            }
            Some(problem) => {
                put(&mut out, Ink::Red, "FAIL");
                out.push(&format!("  could not {}: {problem}\n", repaired.what));
            }
        }
    }
    for Finding { level, check, subject, message, ward, remedy, .. } in &diagnosis.findings {
        let (word, colour) = match level {
            Level::Ok => ("ok  ", Ink::Green),
            Level::Warn => ("warn", Ink::Yellow),
            Level::Fail => ("FAIL", Ink::Red),
        };
        put(&mut out, colour, word);
        let subject = subject.as_ref().map(|subject| format!("{subject}: ")).unwrap_or_default();
        let message = message.replace('\n', "\n      ");
        out.push(&format!("  {check}: {subject}{message}\n"));
        if let Some(ward) = ward {
            let worst = if *level == Level::Warn { ", at worst" } else { "" };
            out.push(&format!("      for the ward{worst}: {ward}\n"));
        }
        if let Some(remedy) = remedy {
            out.push(&format!("      -> {remedy}\n"));
        }
    }
    out.push(&format!("{}\n", sum(diagnosis)));
    let mendable = diagnosis.findings.iter().filter(|finding| finding.repair.is_some()).count();
    if mendable > 0 && diagnosis.repairs.is_empty() {
        out.push(&format!("`bulkhead doctor --fix` mends {mendable} of these\n"));
    }
    out
}

fn failed(findings: &[Finding]) -> usize {
    findings.iter().filter(|finding| finding.level == Level::Fail).count()
}

/// Says whether the PC is fit, in one line.
fn sum(diagnosis: &Diagnosis) -> String {
    let findings = &diagnosis.findings;
    let counted = |number: usize, one: &str, many: &str| {
        printable::counted(u64::try_from(number).unwrap_or(u64::MAX), one, many)
    };
    let warned = findings.iter().filter(|finding| finding.level == Level::Warn).count();
    let warnings = counted(warned, "warning", "warnings");
    let failures = diagnosis.repairs.iter().filter(|repair| repair.problem.is_some()).count();
    if failures > 0 {
        let repairs = counted(failures, "repair failed", "repairs failed");
        return format!(
            "{repairs}; {}, {warnings}",
            counted(failed(findings), "failure", "failures")
        );
    }
    match (failed(findings), warned) {
        (0, 0) => "this PC is fit".to_owned(),
        (0, _) => format!("this PC is fit, with {warnings}"),
        (failed, _) => {
            format!("this PC is not fit: {}, {warnings}", counted(failed, "failure", "failures"))
        }
    }
}
