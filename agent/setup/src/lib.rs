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
//! | `proposal`, `machine_text` | what this PC is to be, and the machine file that says so |
//! | `plan`, `change`, `journal` | what has to be changed for that; each change is on record before it is made, and can be taken back |
//! | `encryption`, `volume` | state and images on an encrypted volume: what has to be changed for that, and how it is |
//!
//! Everything is looked for below one root, so that a test hands in a PC of files.
// A print waits for its reader, and panics when that is gone.
#![deny(clippy::print_stderr, clippy::print_stdout)]
#![forbid(unsafe_code)]

mod alone;
mod answers;
mod change;
pub mod dialogue;
pub mod effects;
mod encryption;
mod groups;
mod hardware;
mod journal;
mod machine_text;
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
use config::domain_policies::{self, DomainPolicy};
use config::files::{FileFault, FilesError, read_machine_text, read_policy_in_force};
use config::machine::{Boot, Context, Kind, Machine, Seat};
use control::setup_report::{SetupReport, SetupResult};
use handover::host_use::Screen;
use handover::sysfs::HostSysfs;
use images::store::Store;
use policy::Policy;
use printable::explain;
use program::record::{Pending, Stage};
use program::store::Store as ProgramStore;

use alone::SetupLock;
use answers::Answers;
use change::Change;
use dialogue::{Dialogue, Question, Unanswered};
use effects::Effects;
use journal::Journal;
use proposal::{Basis, ProposalError};
use session::Interfaces;

/// The policy that the package brings, under which nothing crosses.
const DELIVERED: &str = "/usr/share/bulkhead/policy.toml";

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
    /// Nothing is changed.
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
    let (changes, notes) = wanted(pc, caller, options, dialogue, effects)?;
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
    report.message = "this PC is set up: look at `bulkhead doctor`, and restart the PC; `bulkhead setup --undo` takes everything back".to_owned();
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

/// Returns which changes this PC needs, and what a person has to know besides.
fn wanted(
    pc: &Pc,
    caller: &Caller,
    options: &Options,
    dialogue: &mut dyn Dialogue,
    effects: &mut dyn Effects,
) -> Result<(Vec<Change>, Vec<String>), Stop> {
    let refused = |error: &dyn std::error::Error| Stop::refused(explain(error));
    let domain_policies = read_domain_policies(options)?;
    let answers = match &options.answers {
        Some(path) => {
            let accounts = pc.accounts();
            answers::read(path, &domain_policies, &accounts).map_err(|error| refused(&error))?
        }
        None => Answers::default(),
    };
    encryption::is_named_rightly(pc, options, &answers).map_err(|error| refused(&error))?;
    let existing = read_machine(options, &domain_policies)?;
    let machine = existing.as_ref().map(|(_, machine)| machine);
    let screen = match machine.map(|machine| &machine.seat) {
        Some(Seat::None) => Screen::None,
        Some(Seat::Kms { card: Some(card) }) => Screen::Card(card.clone()),
        Some(Seat::Kms { card: None }) | None => Screen::First,
    };
    let hardware = hardware::look(pc, &screen)
        .map_err(|why| Stop::refused(format!("{}: {}", why.what(), why.remedy())))?;
    let interfaces = Interfaces::of(pc, caller.ssh_connection.as_deref());
    let basis = Basis {
        images: &options.images,
        domain_policies: &domain_policies,
        existing: machine,
        answers: &answers,
        hardware: &hardware,
        interfaces: &interfaces,
    };
    let proposal = proposal::propose(&basis, dialogue).map_err(unproposed)?;
    let text = existing.as_ref().map(|(text, _)| text.as_str());
    let text = machine_text::write(text, &proposal.decisions).map_err(|error| refused(&error))?;
    let context = Context { images: &options.images, domain_policies: Some(&domain_policies) };
    let name = options.machine.display().to_string();
    let machine = Machine::parse(&name, &text, context).map_err(|found| {
        Stop::refused(format!(
            "what would stand in the machine file does not hold together, and nothing was changed\n{}",
            found.render(false).trim_end()
        ))
    })?;
    if hardware.iommu == hardware::Iommu::On {
        hardware::judge_together(pc, &proposal.nics, &machine.claims())
            .map_err(|why| Stop::refused(format!("{}: {}", why.what(), why.remedy())))?;
    }
    let enable = enable(pc, &answers, dialogue)?;
    let mut notes = proposal.notes;
    notes.extend(groups::missing(&machine));
    notes.extend(groups::overlaps(&pc.accounts()));
    if enable {
        notes.extend(without_images(&machine, &options.images));
    }
    if !machine.allow_host_network && !proposal.nics.is_empty() {
        notes.extend(interfaces.left(&proposal.nics));
    }
    let goal = plan::Goal {
        machine: &options.machine,
        text,
        answers: &answers,
        hardware: &hardware,
        hands_over: !proposal.nics.is_empty(),
        enable,
    };
    let guests = machine.claims().disks;
    let mut changes = plan::changes(pc, &goal).map_err(|error| refused(&error))?;
    notes.extend(
        encryption::add(pc, options, &answers, &guests, effects, &mut changes)
            .map_err(|error| refused(&error))?,
    );
    Ok((changes, notes))
}

/// Returns what is to be said of desktops without a kernel before the agent starts at each boot.
fn without_images(machine: &Machine, images: &Path) -> Vec<String> {
    let missing = machine.domains.iter().filter_map(|domain| match &domain.kind {
        Kind::Vm(vm) => match &vm.boot {
            Boot::Files { kernel, .. } if !kernel.is_file() => {
                Some((&domain.name, format!("{} is missing; put it there", kernel.display())))
            }
            Boot::Image(name) => {
                let why = Store::at(images).next(name, &domain.name).err()?;
                Some((&domain.name, explain(&why)))
            }
            Boot::Files { .. } => None,
        },
        Kind::External => None,
    });
    let said = missing.map(|(name, why)| {
        format!(
            "AT THE NEXT BOOT {name} DOES NOT COME UP, and this PC has no network and no log-in on its screen either: {why}; do that before you restart the PC"
        )
    });
    said.collect()
}

/// Returns whether the agent is to start at each boot.
fn enable(pc: &Pc, answers: &Answers, dialogue: &mut dyn Dialogue) -> Result<bool, Stop> {
    if let Some(answer) = answers.enable {
        return Ok(answer);
    }
    if change::is_enabled(pc) {
        return Ok(true);
    }
    let question = Question {
        key: "enable".to_owned(),
        text: "Is Bulkhead to start at each boot? From the next one on the host has no network of its own.".to_owned(),
        choices: vec![
            "true: it starts at each boot".to_owned(),
            "false: not yet; `systemctl enable bulkhead-agent` has it start later".to_owned(),
        ],
    };
    let mut unasked = Vec::new();
    match proposal::asked(dialogue, question, &mut unasked).map_err(unproposed)? {
        Some(place) => Ok(place == 0),
        None => Err(unproposed(ProposalError::Unasked(unasked))),
    }
}

fn unproposed(why: ProposalError) -> Stop {
    match why {
        ProposalError::Obstacles(obstacles) => {
            let list: String = obstacles.iter().map(|what| format!("\n* {what}")).collect();
            Stop::refused(format!("this PC cannot be set up, and nothing was changed:{list}"))
        }
        ProposalError::Unasked(questions) => Stop::misused(format!(
            "nobody is here to answer, and nothing was changed; answer in a file (--answers FILE), or run this in a terminal:{}",
            listed(&questions)
        )),
        ProposalError::NotUnderstood(question) => Stop::misused(format!(
            "no answer was understood, and nothing was changed; run this again and write the number of a choice, or answer in a file (--answers FILE):{}",
            listed(&[question])
        )),
    }
}

/// Returns questions with their keys and choices.
fn listed(questions: &[Question]) -> String {
    let list = questions.iter().map(|Question { key, text, choices }| {
        let choices: String = choices.iter().map(|choice| format!("\n    {choice}")).collect();
        format!("\n* `{key}`: {text}{choices}")
    });
    list.collect()
}

/// Returns the domains of the policy that is to be in force.
fn read_domain_policies(options: &Options) -> Result<Vec<DomainPolicy>, Stop> {
    let text = read_policy_in_force(&options.policy).map_err(|error| {
        Stop::refused(match error {
            FilesError::Read { fault: FileFault::Missing, .. } => format!(
                "there is no policy {}, and setup asks it which domains this PC has: put that of your security office there (`bulkhead policy new` writes one to begin with, and {DELIVERED} is the one that the package brings), or name another with --policy",
                options.policy.display()
            ),
            error => format!("{}; setup asks it which domains this PC has", explain(&error)),
        })
    })?;
    let policy = Policy::parse(&options.policy.display().to_string(), &text).map_err(|found| {
        Stop::refused(format!(
            "the policy has mistakes, and nothing was changed\n{}",
            found.render(false).trim_end()
        ))
    })?;
    Ok(domain_policies::of(&policy))
}

/// Returns the machine file that is there, if somebody has filled it in: the package's own says nothing yet but its format.
fn read_machine(
    options: &Options,
    domain_policies: &[DomainPolicy],
) -> Result<Option<(String, Machine)>, Stop> {
    if fs::symlink_metadata(&options.machine).is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
        return Ok(None);
    }
    let text =
        read_machine_text(&options.machine).map_err(|error| Stop::refused(explain(&error)))?;
    let says = |line: &str| !line.is_empty() && !line.starts_with('#');
    let mut lines = text.lines().map(str::trim).filter(|line| says(line));
    if lines.all(|line| line.starts_with("format")) {
        return Ok(None);
    }
    // It need not agree with the policy yet: that is what setup is for.
    let known: Vec<&str> = domain_policies.iter().map(|policy| policy.name.as_str()).collect();
    let context = Context { images: &options.images, domain_policies: None };
    let machine = Machine::parse(&options.machine.display().to_string(), &text, context);
    match machine {
        Ok(machine) => match machine.domains.iter().find(|d| !known.contains(&d.name.as_str())) {
            Some(other) => Err(Stop::refused(format!(
                "{} has a section [domain.{}], and the policy has no such domain: take it out, or put the right policy in its place, and run this again",
                options.machine.display(),
                other.name
            ))),
            None => Ok(Some((text, machine))),
        },
        Err(found) => Err(Stop::refused(format!(
            "the machine file has mistakes: mend them, or move it away to have a new one proposed\n{}",
            found.render(false).trim_end()
        ))),
    }
}
