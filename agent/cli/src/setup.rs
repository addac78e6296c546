//! `bulkhead setup`: `bulkhead-agent setup` asks and changes this PC, and how it ended is shown here.

use arguments::SetupArguments;
use control::setup_report::{SetupReport, SetupResult};

use super::examiner::Task;
use super::{Common, Failure, Outcome, print};

/// What is said behind its arguments.
pub(super) const AFTER_HELP: &str = "Without --answers it asks for what the hardware leaves open. What machine.toml says already stays, unless an answer says otherwise; where nothing is to be changed, nothing is.\n\nExit status: 0 done, or nothing to do; 1 this PC cannot be set up so, you did not agree, or something failed (then nothing of this run is left); 2 bad usage, not root, nobody there to answer, or bulkhead-agent is missing.";

const TASK: Task = Task {
    command: "setup",
    who: "setup changes a PC",
    doing: "it set this PC up (`bulkhead setup --undo` takes back what it had changed)",
    not_done: "has not set this PC up",
    asks: true,
};

pub(super) fn run(common: &Common, args: &SetupArguments) -> Outcome {
    let SetupArguments { answers, dry_run, yes, undo, encrypt_state, erase, files } = args;
    let flags = [("--dry-run", *dry_run), ("--yes", *yes), ("--undo", *undo)];
    let own = [
        ("--answers", answers.as_ref()),
        ("--encrypt-state", encrypt_state.as_ref()),
        ("--erase", erase.as_ref()),
    ];
    let options = [own.as_slice(), &files.options()].concat();
    let report: SetupReport = match TASK.run(&flags, &options) {
        Ok(report) => report,
        Err(why) => return common.fail(Failure::NoAgent, &why),
    };
    match report.result {
        SetupResult::Refused => common.fail_with(Failure::No, &report.message, &report),
        SetupResult::Misused => common.fail_with(Failure::Misuse, &report.message, &report),
        SetupResult::Proposed | SetupResult::Unchanged => {
            common.done(&report, || print(&format!("{}{}\n", report.described(), report.message)))
        }
        // The changes were shown before they were made.
        SetupResult::Changed => common.done(&report, || print(&format!("{}\n", report.message))),
    }
}
