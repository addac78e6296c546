//! Turns a stock PC into a ward PC: looks at the hardware, proposes the machine file, shows every change before it makes one, and takes
//! everything back.
//!
//! ```text
//!  /sys, /proc --> hardware --+
//!  routes      --> session  --+--> proposal --> machine_text --> plan --> change, by journal --> effects
//!  answer file --> answers  --+       |
//!  a person    --> dialogue ----------+
//! ```
//!
//! | module | |
//! | --- | --- |
//! | [`dialogue`] | the person who runs it, asked only for what nothing else says |
//! | [`effects`] | the ways in which a PC is changed, so that a test can fail at any of them |
//! | `groups` | groups that cannot be made, and numbers that somebody else may take |
//! | `hardware` | NICs, screens, memory, processors, IOMMU; judged by the rules of the hand-over |
//! | `session` | the NIC that whoever runs it comes in by |
//! | `answers` | the answer file, for PCs that nobody watches |
//! | `configured` | the policy and the machine file that the PC has already |
//! | `needed` | all of these together: which changes this PC needs, and what a person has to know besides |
//! | `proposal`, `machine_text` | what this PC is to be, and the machine file that says so |
//! | `plan`, `change`, `journal` | what has to be changed for that; each change is on record before it is made, and can be taken back |
//! | `interrupted` | whether one of these ended half-way |
//! | `encryption`, `volume` | state and images on an encrypted volume: what has to be changed for that, and how it is |
//!
//! Everything is looked for below one root, so that a test hands in a PC of files.
// A print waits for its reader, and panics when that is gone.
#![deny(clippy::print_stderr, clippy::print_stdout)]
#![forbid(unsafe_code)]

mod alone;
mod answers;
mod change;
mod configured;
pub mod dialogue;
pub mod effects;
mod encryption;
mod groups;
mod hardware;
mod interrupted;
mod journal;
mod machine_text;
mod needed;
mod plan;
mod proposal;
mod session;
#[cfg(test)]
mod tests;
mod volume;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base::accounts::Accounts;
use base::layout::{self, Layout};
use control::setup_report::{SetupReport, SetupResult};
use handover::sysfs::HostSysfs;
use printable::explain;
use program::record::{Pending, Stage};
use program::store::Store as ProgramStore;

pub use interrupted::interrupted;

use alone::SetupLock;
use change::Change;
use dialogue::{Dialogue, Unanswered};
use effects::Effects;
use journal::Journal;
use needed::Needed;

/// Where setup looks; the system's own, or a test's.
pub struct Pc {
    /// The root directory, `/` on a PC.
    pub root: PathBuf,
    /// `/sys`, with `/proc` beside it.
    pub sysfs: HostSysfs,
}

impl Pc {
    /// Returns the PC that this runs on.
    #[must_use]
    pub fn this_pc() -> Self {
        Self { root: PathBuf::from("/"), sysfs: HostSysfs::system() }
    }

    fn proc_text(&self, below: &str) -> String {
        let bytes = fs::read(self.sysfs.proc(below)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn accounts(&self) -> Accounts {
        Accounts::in_directory(&self.root.join("etc"))
    }
}

/// Returns the names in a folder of the kernel's, in order; none if it is not there.
fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}

/// What is asked of setup.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The answer file, in place of a person.
    pub answers: Option<PathBuf>,
    /// Whether the changes are shown and none is made.
    pub dry_run: bool,
    /// Nobody is asked whether to make the changes.
    pub yes: bool,
    /// What was changed is taken back.
    pub undo: bool,
    /// State and images go onto this block device, encrypted.
    pub encrypt_state: Option<PathBuf>,
    /// The same block device, if what is on it may be lost.
    pub erase: Option<PathBuf>,
    pub machine: PathBuf,
    pub policy: PathBuf,
    /// Where relative images lie.
    pub images: PathBuf,
    /// The agent's state directory, where the journal is.
    pub state: PathBuf,
}

/// The process that runs setup.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    pub is_root: bool,
    /// `SSH_CONNECTION`: who is connected to what.
    pub ssh_connection: Option<String>,
}

/// Why nothing is changed.
#[derive(Debug)]
struct Stop {
    result: SetupResult,
    why: String,
}

impl Stop {
    fn refused(why: impl Into<String>) -> Self {
        Self { result: SetupResult::Refused, why: why.into() }
    }

    fn misused(why: impl Into<String>) -> Self {
        Self { result: SetupResult::Misused, why: why.into() }
    }
}

/// Sets this PC up, or takes back what was changed.
#[must_use]
pub fn run(
    pc: &Pc,
    caller: &Caller,
    options: &Options,
    dialogue: &mut dyn Dialogue,
    effects: &mut dyn Effects,
) -> SetupReport {
    let done = if !caller.is_root {
        Err(Stop::misused("setup looks at devices and changes files of root's: run it as root"))
    } else if options.undo {
        undo(pc, options, dialogue, effects)
    } else {
        set_up(pc, caller, options, dialogue, effects)
    };
    done.unwrap_or_else(|Stop { result, why }| SetupReport::of(result, why))
}

fn set_up(
    pc: &Pc,
    caller: &Caller,
    options: &Options,
    dialogue: &mut dyn Dialogue,
    effects: &mut dyn Effects,
) -> Result<SetupReport, Stop> {
    let _alone = lock(pc, options)?;
    encryption::mounted(pc, options, dialogue, effects)?;
    let file = Layout::setup_journal(&options.state);
    let mut journal = Journal::read(&file).map_err(|error| Stop::refused(explain(&error)))?;
    let Needed { changes, notes, afterwards } =
        needed::changes(pc, caller, options, dialogue, effects)?;
    let shown = changes.iter().map(Change::shown).collect();
    let mut report = SetupReport {
        changes: shown,
        notes,
        ..SetupReport::of(
            SetupResult::Unchanged,
            "this PC is set up as proposed: there is nothing to change",
        )
    };
    if changes.is_empty() {
        return Ok(report);
    }
    if options.dry_run {
        report.result = SetupResult::Proposed;
        report.message = "nothing was changed: this is what setup would do".to_owned();
        return Ok(report);
    }
    encryption::is_moved_by_nobody_else(pc, options, &changes)?;
    agreed(&report, "Make these changes?", options, dialogue)?;
    layout::state_directory(&options.state).map_err(|error| Stop::refused(explain(&error)))?;
    if let Err((error, also)) = journal.make(pc, &changes, effects) {
        let left = match also {
            None => "what this run had changed was taken back".to_owned(),
            Some(also) => format!(
                "what this run had changed could not be taken back either ({}): see to that, and run `bulkhead setup --undo`",
                explain(&also)
            ),
        };
        return Err(Stop::refused(format!("{}; {left}", explain(&error))));
    }
    report.result = SetupResult::Changed;
    report.message =
        format!("this PC is set up: {afterwards}; `bulkhead setup --undo` takes everything back");
    Ok(report)
}

fn undo(
    pc: &Pc,
    options: &Options,
    dialogue: &mut dyn Dialogue,
    effects: &mut dyn Effects,
) -> Result<SetupReport, Stop> {
    let _alone = lock(pc, options)?;
    encryption::mounted(pc, options, dialogue, effects)?;
    let file = Layout::setup_journal(&options.state);
    let refused = |error: journal::JournalError| Stop::refused(explain(&error));
    let mut journal = Journal::read(&file).map_err(refused)?;
    let shown = journal.changes().iter().rev().map(Change::shown_back).collect();
    let mut report = SetupReport {
        changes: shown,
        ..SetupReport::of(
            SetupResult::Unchanged,
            "there is nothing to take back: setup has changed nothing on this PC, or took it back already",
        )
    };
    if journal.changes().is_empty() {
        // A crash before the first change leaves at most half a journal, which is of no use.
        let swept = if options.dry_run { Ok(()) } else { journal.sweep(effects) };
        return swept
            .map(|()| report)
            .map_err(|error| Stop::refused(format!("cannot clean {}: {error}", file.display())));
    }
    no_update_is_under_way(&options.state)?;
    journal.unchanged_since().map_err(refused)?;
    let comes_back = encryption::comes_back(pc, options, journal.changes())?;
    if options.dry_run {
        report.result = SetupResult::Proposed;
        report.message = "nothing was changed: this is what setup would take back".to_owned();
        return Ok(report);
    }
    encryption::is_moved_by_nobody_else(
        pc,
        options,
        if comes_back { journal.changes() } else { &[] },
    )?;
    agreed(&report, "Take these changes back?", options, dialogue)?;
    journal.revert(pc, effects).map_err(|error| {
        Stop::refused(format!(
            "{}; what was taken back before stays so, and `bulkhead setup --undo` goes on with the rest",
            explain(&error)
        ))
    })?;
    report.result = SetupResult::Changed;
    report.message = "everything that setup changed is as it was. An agent that runs goes on until it is stopped (`systemctl stop bulkhead-agent`) or the PC is restarted".to_owned();
    Ok(report)
}

/// Refuses while an update of Bulkhead is to be made or is being made: without its service it would stay half done. One that only waits for an agent is none: its
/// package is installed whole. A record that cannot be read keeps nobody off, as no update goes on by it.
fn no_update_is_under_way(state: &Path) -> Result<(), Stop> {
    let record = ProgramStore::at(&layout::programs(state)).record().unwrap_or_default();
    let Some(Pending { to, stage, waits, .. }) = record.pending else { return Ok(()) };
    let is_installed = matches!(stage, Stage::Proving | Stage::ProvingReturn { .. });
    if is_installed && waits.is_some() {
        return Ok(());
    }
    Err(Stop::refused(format!(
        "the update of Bulkhead to {} (serial {}) waits or is under way: call it off (`bulkhead program cancel`), or wait for its end (`bulkhead program status`), and run this again",
        to.version, to.serial
    )))
}

/// Takes the lock that keeps other setups off, until this one has made its last change; `None` if nothing is to be changed.
fn lock(pc: &Pc, options: &Options) -> Result<Option<SetupLock>, Stop> {
    if options.dry_run {
        return Ok(None);
    }
    let path = Layout::setup_lock(&pc.root);
    match SetupLock::take(&path) {
        Ok(alone) => Ok(Some(alone)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(Stop::refused(
            "somebody else runs setup on this PC now: wait until that has ended, and run this again",
        )),
        Err(error) => Err(Stop::refused(format!("cannot lock {}: {error}", path.display()))),
    }
}

/// Shows everything and asks once.
fn agreed(
    report: &SetupReport,
    question: &str,
    options: &Options,
    dialogue: &mut dyn Dialogue,
) -> Result<(), Stop> {
    dialogue.show(&report.described());
    if options.yes {
        return Ok(());
    }
    match dialogue.confirm(question) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Stop::refused("nothing was changed, as you wish")),
        Err(Unanswered::Nobody) => Err(Stop::misused(
            "nothing was changed: nobody is here to agree to it; give --yes to make the changes unasked, or --dry-run to see them",
        )),
        Err(Unanswered::NotUnderstood) => Err(Stop::misused(
            "nothing was changed: no answer was understood; run this again and write y or n, or give --yes to make the changes unasked",
        )),
    }
}
