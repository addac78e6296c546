//! What `bulkhead-update.service` does: the update that waits is installed and has to show that it works, or the one before comes back.
//!
//! Whatever ends this process, the record says at which step it was, and the next one begins that step again: each can be done twice.

use std::fs::File;

use images::notes;
use policy::signature::TrustStore;
use printable::explain;

use crate::manifest::PackageVersion;
use crate::notes::{ProgramAction, ProgramNote};
use crate::passing::{self, NotInstalled};
use crate::record::{KeptPackage, LastUpdate, Outcome, Pending, Record, Stage};
use crate::store::{Store, StoreError};
use crate::worked::WorkingState;

/// How often an installation is tried that fails for a reason that passes.
pub const TRIES_MAX: u32 = 3;

/// What an update needs of the PC. Every method may be called again after a power cut in the middle of it.
pub trait Pc {
    /// Returns who may sign what, as this PC knows it now.
    ///
    /// # Errors
    /// Nobody may, or it cannot be read; in words.
    fn trust(&mut self) -> Result<TrustStore, String>;

    /// Keeps others from dpkg until this is dropped.
    ///
    /// # Errors
    /// Somebody else is at work with it for longer than is waited; in words.
    fn take_dpkg(&mut self) -> Result<(), String>;

    /// Returns the other packages that dpkg has not configured whole.
    ///
    /// # Errors
    /// dpkg does not say, or they are too many; in words.
    fn unfinished(&mut self) -> Result<Vec<String>, String>;

    /// Finishes, by dpkg, what was interrupted of this package, and of others whose triggers it had pulled: all but those that were unfinished before.
    fn settle(&mut self, before: &[String]);

    /// Installs a package, by dpkg.
    ///
    /// # Errors
    /// It does not, for now or for good.
    fn install(&mut self, package: &File) -> Result<(), NotInstalled>;

    /// Returns the version of the package that is installed whole.
    ///
    /// # Errors
    /// None is, or dpkg does not say.
    fn version(&mut self) -> Result<PackageVersion, String>;

    /// Returns what works, as the agent says; `None` if there is none, or it says nothing.
    fn works(&mut self) -> Option<WorkingState>;

    /// Looks whether the VMM starts, restarts the agent, and waits until that has shown that it works, and what worked before with it.
    fn prove(&mut self, worked: Option<&WorkingState>) -> Proof;

    /// Says to whoever looks what is done now.
    fn say(&mut self, words: &str);
}

/// What came of a restart of the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It is ready, stayed up and answers, and what worked before works.
    Works,
    /// There is none to show anything: what is waited for, and what to do.
    Waits(String),
    /// It does not work; why.
    Fails(String),
}

/// What came of looking after the updates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpdateState {
    /// None is under way; what became of the last one.
    Ended(Option<LastUpdate>),
    /// One is installed, and waits until it can be proved.
    Waits {
        /// The package that is installed.
        to: KeptPackage,
        /// What it waits for, and what to do.
        why: String,
    },
}

/// Begins the update that waits, or goes on with one that was interrupted, until it has ended or waits.
///
/// # Errors
/// The store cannot be used, and nothing was changed by that; or a step is to be done later, from its beginning.
pub fn run(store: &Store, pc: &mut dyn Pc) -> Result<UpdateState, StoreError> {
    // Whoever else is at work with dpkg is no fault of the update's; while that is waited for, it can still be called off.
    let asks_dpkg = |pending: &Pending| pending.asks_dpkg();
    if store.record()?.pending.as_ref().is_some_and(asks_dpkg) {
        pc.take_dpkg().map_err(StoreError::NotNow)?;
    }
    let _lock = store.lock()?;
    loop {
        let mut record = store.record()?;
        let Some(pending) = record.pending.clone() else {
            store.tidy(&record);
            return Ok(UpdateState::Ended(record.last));
        };
        if pending.asks_dpkg() {
            pc.take_dpkg().map_err(StoreError::NotNow)?;
        }
        let step = step(store, pc, &record, &pending);
        note(store, &pending, &step);
        match step {
            Step::Begin(worked, unfinished) => {
                record.before(worked, unfinished);
                record.go_on(Stage::Installing);
            }
            Step::Next(stage) => record.go_on(stage),
            Step::End(outcome, why) => record.end(outcome, why),
            Step::Wait(why) => {
                record.stay(why.clone(), false);
                store.write(&record)?;
                return Ok(UpdateState::Waits { to: pending.to, why });
            }
            Step::Again { tries, why } => {
                let why = format!("{why} (tried {tries} of {TRIES_MAX} times)");
                record.stay(why.clone(), true);
                store.write(&record)?;
                return Err(StoreError::NotNow(why));
            }
        }
        store.write(&record)?;
    }
}

/// What comes of a stage.
#[derive(Debug)]
enum Step {
    /// It is begun; what works before, and which other packages are not configured whole.
    Begin(Option<WorkingState>, Vec<String>),
    Next(Stage),
    End(Outcome, Option<String>),
    /// It stays, and is no worse for that.
    Wait(String),
    /// It failed for a reason that passes, as often as this.
    Again {
        tries: u32,
        why: String,
    },
}

fn step(store: &Store, pc: &mut dyn Pc, record: &Record, pending: &Pending) -> Step {
    let Pending { to, back, stage, worked, .. } = pending;
    match stage {
        // The way back is there, and may be gone, or it is not begun.
        Stage::Waiting => {
            let ways = [Some(to), back.as_ref()].into_iter().flatten();
            match ways.map(|kept| package(store, pc, record, kept)).find_map(Result::err) {
                None => match pc.unfinished() {
                    Ok(unfinished) => Step::Begin(pc.works(), unfinished),
                    Err(why) => Step::End(Outcome::Refused, Some(why)),
                },
                Some(error) => again(pending, error, |why| Step::End(Outcome::Refused, Some(why))),
            }
        }
        Stage::Installing => {
            pc.say(&format!("installs bulkhead {} (serial {})", to.version, to.serial));
            match installed(store, pc, record, pending, to) {
                Ok(()) => Step::Next(Stage::Proving),
                Err(error) => again(pending, error, |why| failed(back.as_ref(), why)),
            }
        }
        Stage::Proving => {
            pc.say("restarts the agent, under running desktops, and waits until it works");
            match pc.prove(worked.as_ref()) {
                Proof::Works => Step::End(Outcome::InForce, None),
                Proof::Waits(why) => Step::Wait(why),
                Proof::Fails(why) => failed(back.as_ref(), why),
            }
        }
        Stage::Returning { why } => {
            pc.say(&format!("goes back to the one before: {why}"));
            let Some(back) = back else { return failed(None, why.clone()) };
            match installed(store, pc, record, pending, back) {
                Ok(()) => Step::Next(Stage::ProvingReturn { why: why.clone() }),
                Err(error) => again(pending, error, |error| {
                    let why = format!("{why}; and the one before does not come back: {error}");
                    Step::End(Outcome::Stuck, Some(why))
                }),
            }
        }
        Stage::ProvingReturn { why } => {
            pc.say("restarts the agent of the one before");
            match pc.prove(worked.as_ref()) {
                Proof::Works => Step::End(Outcome::Returned, Some(why.clone())),
                Proof::Waits(why) => Step::Wait(why),
                Proof::Fails(again) => {
                    let why = format!(
                        "{why}; the one before does not work either: {again}; look at `journalctl -u bulkhead-agent`"
                    );
                    pc.say(&format!("NEITHER VERSION WORKS: {why}"));
                    Step::End(Outcome::NeitherWorks, Some(why))
                }
            }
        }
    }
}

/// Returns what follows a step that failed: it is done again later if the reason passes and it has not failed too often, and otherwise given up.
fn again(pending: &Pending, error: NotInstalled, give_up: impl FnOnce(String) -> Step) -> Step {
    let tries = pending.failures.saturating_add(1);
    match error {
        NotInstalled::Passing(why) if tries < TRIES_MAX => Step::Again { tries, why },
        NotInstalled::Passing(why) => give_up(format!("{why} (tried {tries} times)")),
        NotInstalled::Lasting(why) => give_up(why),
    }
}

/// Goes back, if there is something to go back to.
fn failed(back: Option<&KeptPackage>, why: String) -> Step {
    match back {
        Some(_) => Step::Next(Stage::Returning { why }),
        None => {
            let why = format!("{why}; there is nothing to go back to: install a bundle that works");
            Step::End(Outcome::Stuck, Some(why))
        }
    }
}

/// Returns a package that may come now: verified from the store, and not below the floor.
fn package(
    store: &Store,
    pc: &mut dyn Pc,
    record: &Record,
    kept: &KeptPackage,
) -> Result<File, NotInstalled> {
    let below = |error| NotInstalled::Lasting(explain(&error));
    record.is_above_floor(kept.serial).map_err(below)?;
    let trust = pc.trust().map_err(NotInstalled::Lasting)?;
    store.package(kept, &trust).map_err(|error| passing::of(&error))
}

fn installed(
    store: &Store,
    pc: &mut dyn Pc,
    record: &Record,
    pending: &Pending,
    kept: &KeptPackage,
) -> Result<(), NotInstalled> {
    let package = package(store, pc, record, kept)?;
    pc.settle(&pending.unfinished);
    pc.install(&package)?;
    let version = pc.version().map_err(NotInstalled::Lasting)?;
    if version != kept.version {
        let why = format!("after the installation dpkg has version {version}");
        return Err(NotInstalled::Lasting(why));
    }
    Ok(())
}

/// Notes for the audit log what came of a step. The step is done whether or not that can be noted: a PC is not left half updated for a full disk.
fn note(store: &Store, pending: &Pending, step: &Step) {
    let Pending { to, back, rollback, uid, stage, .. } = pending;
    let returned_to = back.as_ref().map(|back| back.serial);
    let (what, back, tries, why) = match step {
        Step::End(Outcome::InForce, why) => (ProgramAction::InForce, None, None, why.clone()),
        Step::End(Outcome::Returned, why) => {
            (ProgramAction::Returned, returned_to, None, why.clone())
        }
        Step::End(Outcome::NeitherWorks, why) => {
            (ProgramAction::NeitherWorks, returned_to, None, why.clone())
        }
        Step::End(Outcome::Stuck, why) => (ProgramAction::Returned, None, None, why.clone()),
        Step::End(Outcome::Refused | Outcome::Other, why) => {
            (ProgramAction::Refused, None, None, why.clone())
        }
        Step::Again { tries, why } => {
            (ProgramAction::Retried, None, Some(*tries), Some(why.clone()))
        }
        Step::Begin(..) | Step::Next(_) | Step::Wait(_) => return,
    };
    // What is tried again on the way back is the one before.
    let kept = match (stage, &pending.back) {
        (Stage::Returning { .. }, Some(back)) if what == ProgramAction::Retried => back,
        _ => to,
    };
    let note = ProgramNote {
        rollback: Some(*rollback),
        back,
        tries,
        why,
        ..ProgramNote::of(what, Some(kept), *uid)
    };
    if let Err(error) = notes::add(store.folder(), note) {
        tracing::error!("what became of the update is not in the audit log: {error}");
    }
}

#[cfg(test)]
mod tests;
