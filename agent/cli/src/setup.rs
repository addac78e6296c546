//! `bulkhead setup`: `bulkhead-agent setup` asks and changes this PC, and how it ended is shown here.

use std::path::PathBuf;

use base::defaults;
use clap::Args;
use control::setup_report::{SetupReport, SetupResult};

use super::examiner::Task;
use super::{Common, Failure, Outcome, print};

/// How this PC is set up.
#[derive(Debug, Args)]
#[command(
    after_help = "Without --answers it asks for what the hardware leaves open. What machine.toml says already stays, unless an answer says otherwise; where nothing is to be changed, nothing is.\n\nExit status: 0 done, or nothing to do; 1 this PC cannot be set up so, you did not agree, or something failed (then nothing of this run is left); 2 bad usage, not root, nobody there to answer, or bulkhead-agent is missing."
)]
pub(super) struct SetupArgs {
    /// The answer file: what would be asked otherwise
    #[arg(long, value_name = "FILE", conflicts_with = "undo")]
    answers: Option<PathBuf>,
    /// Show every change, and make none
    #[arg(long)]
    dry_run: bool,
    /// Make the changes without asking whether to
    #[arg(long)]
    yes: bool,
    /// Take back everything that setup changed, also after a crash half-way
    #[arg(long)]
    undo: bool,
    /// Move state and images onto this block device, encrypted (LUKS2), opened by the TPM where there is one
    #[arg(long, value_name = "VOLUME", conflicts_with = "undo")]
    encrypt_state: Option<PathBuf>,
    /// The same block device once more, if what is on it may be lost
    #[arg(long, value_name = "VOLUME", requires = "encrypt_state")]
    erase: Option<PathBuf>,
    /// The machine file, which is written
    #[arg(long, value_name = "FILE", default_value_os = defaults::machine().as_os_str())]
    machine: PathBuf,
    /// The policy, which says which domains there are
    #[arg(long, value_name = "FILE", default_value_os = defaults::policy().as_os_str())]
    policy: PathBuf,
    /// Where relative images lie
    #[arg(long, value_name = "DIR", default_value_os = defaults::images().as_os_str())]
    images: PathBuf,
    /// The agent's state directory, where setup notes what it changes
    #[arg(long, value_name = "DIR", default_value_os = defaults::state().as_os_str())]
    state: PathBuf,
}

const TASK: Task = Task {
    command: "setup",
    who: "setup changes a PC",
    doing: "it set this PC up (`bulkhead setup --undo` takes back what it had changed)",
    not_done: "has not set this PC up",
    asks: true,
};

pub(super) fn run(common: &Common, args: &SetupArgs) -> Outcome {
    let SetupArgs {
        answers,
        dry_run,
        yes,
        undo,
        encrypt_state,
        erase,
        machine,
        policy,
        images,
        state,
    } = args;
    let flags = [("--dry-run", *dry_run), ("--yes", *yes), ("--undo", *undo)];
    let options = [
        ("--answers", answers.as_ref()),
        ("--encrypt-state", encrypt_state.as_ref()),
        ("--erase", erase.as_ref()),
        ("--machine", Some(machine)),
        ("--policy", Some(policy)),
        ("--images", Some(images)),
        ("--state", Some(state)),
    ];
    let report: SetupReport = match TASK.run(&flags, &options) {
        Ok(report) => report,
        Err(why) => return common.fail(Failure::NoAgent, &why),
    };
    match report.result {
        SetupResult::Refused => common.fail(Failure::No, &report.message),
        SetupResult::Misused => common.fail(Failure::Misuse, &report.message),
        SetupResult::Proposed | SetupResult::Unchanged => {
            common.done(&report, || print(&format!("{}{}\n", report.described(), report.message)))
        }
        // The changes were shown before they were made.
        SetupResult::Changed => common.done(&report, || print(&format!("{}\n", report.message))),
    }
}
