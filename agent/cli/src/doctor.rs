//! `bulkhead doctor`.

use std::path::PathBuf;

use clap::Args;
use printable::{Ink, StyledPage};
use serde::Serialize;

use super::{Common, Outcome, colours, print_styled};
use base::defaults;
use doctor::{Finding, Level, Papers, Patient, examine};

/// What the doctor looks at.
#[derive(Debug, Args)]
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

pub(super) fn run(common: &Common, args: &DoctorArgs) -> Outcome {
    let papers = Papers {
        machine: args.machine.clone(),
        policy: args.policy.clone(),
        images: std::path::absolute(&args.images).unwrap_or_else(|_| args.images.clone()),
        state: std::path::absolute(&args.state).unwrap_or_else(|_| args.state.clone()),
        runtime: common.runtime.clone(),
        vmm: args.vmm.clone(),
    };
    let findings = examine(&Patient::this_pc(), &papers);
    let verdict = match failed(&findings) {
        0 => Ok(()),
        _ => Err(sum(&findings)),
    };
    common.answer(verdict, &Diagnosis { findings: &findings }, || {
        print_styled(&render(&findings, colours(&std::io::stdout())));
    })
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

/// Whether the PC is fit, in one line.
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
