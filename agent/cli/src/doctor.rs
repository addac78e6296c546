//! `bulkhead doctor`: `bulkhead-agent doctor` examines this PC, and what it found is shown here.

use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use clap::Args;
use printable::{Ink, StyledPage};
use serde::Serialize;

use super::{Common, Failure, Outcome, colours, print_styled};
use base::defaults;
use config::files::find_program;
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

/// The program that has what the doctor looks with: screen, input devices, USB. The command line has none of it.
const PROGRAM: &str = "bulkhead-agent";
/// Longest list of findings that is read, in bytes: a few hundred bytes for each of what a PC has.
const FINDINGS_MAX: u64 = 4 << 20;
/// The exit status of a Rust program that panicked.
const PANICKED: i32 = 101;

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
    let program = find_program(PROGRAM).ok_or_else(|| {
        format!(
            "the doctor examines a PC on which {PROGRAM} is installed, and there is none beside this program or in PATH: install Bulkhead's package, or run this on a ward PC"
        )
    })?;
    let DoctorArgs { machine, policy, images, state, vmm } = args;
    let mut command = Command::new(&program);
    command.arg("doctor").arg("--runtime").arg(&common.runtime);
    command.arg("--machine").arg(machine).arg("--policy").arg(policy);
    command.arg("--images").arg(images).arg("--state").arg(state);
    if let Some(vmm) = vmm {
        command.arg("--vmm").arg(vmm);
    }
    let failed =
        |error: &dyn std::fmt::Display| format!("cannot run {}: {error}", program.display());
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failed(&error))?;
    let mut text = Vec::new();
    // The pipe is closed behind it, so that a program that says more ends too.
    let read = child.stdout.take().map(|out| out.take(FINDINGS_MAX).read_to_end(&mut text));
    let ended = child.wait().map_err(|error| failed(&error))?;
    read.transpose().map_err(|error| failed(&error))?;
    if !ended.success() {
        return Err(unexamined(&program, ended));
    }
    serde_json::from_slice(&text).map_err(|_| {
        format!(
            "what {} found cannot be read: it and this program are of different versions",
            program.display()
        )
    })
}

/// Why there are no findings of a program that ended so.
fn unexamined(program: &Path, ended: ExitStatus) -> String {
    let program = program.display();
    if ended.code() == Some(PANICKED) || ended.signal().is_some() {
        return format!(
            "{program} crashed while it examined this PC ({ended}), which is a fault of Bulkhead's unless somebody ended it: report it with what it said"
        );
    }
    format!("{program} has not examined this PC ({ended}): are it and this program of one version?")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_examiner_that_crashed_is_told_from_one_of_another_version() {
        // As wait(2) has them: a panic, SIGSEGV, and clap's refusal of what it does not know.
        for (status, says) in [
            (PANICKED << 8, "crashed while it examined this PC"),
            (11, "crashed while it examined this PC"),
            (2 << 8, "are it and this program of one version?"),
        ] {
            let why =
                unexamined(Path::new("/usr/bin/bulkhead-agent"), ExitStatus::from_raw(status));
            assert!(why.contains(says), "{status}: {why}");
        }
    }
}
