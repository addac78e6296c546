//! `bulkhead doctor`: `bulkhead-agent doctor` examines this PC, and what it found is shown here.

use std::path::PathBuf;

use clap::Args;
use printable::{Ink, StyledPage};
use serde::Serialize;

use super::examiner::Task;
use super::{Common, Failure, Outcome, colours, print_styled};
use base::defaults;
use control::findings::{Finding, Level};

/// What the doctor looks at.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: 0 this PC is fit; 1 it is not; 2 bad usage, or nothing was examined: bulkhead-agent is missing, crashed, or is of another version."
)]
pub(super) struct DoctorArgs {
    /// The machine file
    #[arg(long, value_name = "FILE", default_value_os = defaults::machine().as_os_str())]
    machine: PathBuf,
    /// The policy
    #[arg(long, value_name = "FILE", default_value_os = defaults::policy().as_os_str())]
    policy: PathBuf,
    /// Where relative images lie
    #[arg(long, value_name = "DIR", default_value_os = defaults::images().as_os_str())]
    images: PathBuf,
    /// The agent's state directory, where the audit log is
    #[arg(long, value_name = "DIR", default_value_os = defaults::state().as_os_str())]
    state: PathBuf,
    /// The VMM [default: bulkhead-vmm beside this program, or in PATH]
    #[arg(long, value_name = "PATH")]
    vmm: Option<PathBuf>,
}

#[derive(Serialize)]
struct Diagnosis<'a> {
    findings: &'a [Finding],
}

const TASK: Task = Task {
    command: "doctor",
    who: "the doctor examines a PC",
    doing: "it examined this PC",
    not_done: "has not examined this PC",
    asks: false,
};

pub(super) fn run(common: &Common, args: &DoctorArgs) -> Outcome {
    let findings = match examine(common, args) {
        Ok(findings) => findings,
        Err(why) => return common.fail(Failure::NoAgent, &why),
    };
    let verdict = match failed(&findings) {
        0 => Ok(()),
        _ => Err(sum(&findings)),
    };
    common.answer(verdict, &Diagnosis { findings: &findings }, || {
        print_styled(&render(&findings, colours(&std::io::stdout())));
    })
}

/// Has this PC examined.
fn examine(common: &Common, args: &DoctorArgs) -> Result<Vec<Finding>, String> {
    let DoctorArgs { machine, policy, images, state, vmm } = args;
    let options = [
        ("--runtime", Some(&common.runtime)),
        ("--machine", Some(machine)),
        ("--policy", Some(policy)),
        ("--images", Some(images)),
        ("--state", Some(state)),
        ("--vmm", vmm.as_ref()),
    ];
    TASK.run(&[], &options)
}

fn render(findings: &[Finding], colours: bool) -> StyledPage {
    let mut out = StyledPage::default();
    for Finding { level, check, subject, message, remedy } in findings {
        let (word, colour) = match level {
            Level::Ok => ("ok  ", Ink::Green),
            Level::Warn => ("warn", Ink::Yellow),
            Level::Fail => ("FAIL", Ink::Red),
        };
        if colours {
            out.push_in(colour, word)
        } else {
            out.push(word)
        }
        let subject = subject.as_ref().map(|subject| format!("{subject}: ")).unwrap_or_default();
        let message = message.replace('\n', "\n      ");
        out.push(&format!("  {check}: {subject}{message}\n"));
        if let Some(remedy) = remedy {
            out.push(&format!("      -> {remedy}\n"));
        }
    }
    out.push(&format!("{}\n", sum(findings)));
    out
}

fn failed(findings: &[Finding]) -> usize {
    findings.iter().filter(|finding| finding.level == Level::Fail).count()
}

/// Says whether the PC is fit, in one line.
fn sum(findings: &[Finding]) -> String {
    let counted = |number: usize, one: &str, many: &str| {
        printable::counted(u64::try_from(number).unwrap_or(u64::MAX), one, many)
    };
    let warned = findings.iter().filter(|finding| finding.level == Level::Warn).count();
    let warnings = counted(warned, "warning", "warnings");
    match (failed(findings), warned) {
        (0, 0) => "this PC is fit".to_owned(),
        (0, _) => format!("this PC is fit, with {warnings}"),
        (failed, _) => {
            format!("this PC is not fit: {}, {warnings}", counted(failed, "failure", "failures"))
        }
    }
}
