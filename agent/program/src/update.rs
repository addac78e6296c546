//! What `bulkhead-update.service` does: the update that waits is installed and has to show that it works, or the one before comes back.
//!
//! Whatever ends this process, the record says at which step it was, and the next one begins that step again: each can be done twice.

use std::fs::File;

use images::notes;
use policy::signature::TrustStore;
use printable::explain;

use crate::manifest::PackageVersion;
use crate::notes::{ProgramNote, What};
use crate::record::{Kept, Last, Outcome, Pending, Record, Stage};
use crate::store::{Store, StoreError};

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

    /// Has dpkg finish what was interrupted of this package.
    fn settle(&mut self);

    /// Has dpkg install a package.
    ///
    /// # Errors
    /// It does not; in words.
    fn install(&mut self, package: &File) -> Result<(), String>;

    /// Returns the version of the package that is installed whole.
    ///
    /// # Errors
    /// None is, or dpkg does not say.
    fn version(&mut self) -> Result<PackageVersion, String>;

    /// Restarts the agent, and waits until it has shown that it works.
    fn prove(&mut self) -> Proof;

    /// Says to whoever looks what is done now.
    fn say(&mut self, words: &str);
}

/// What came of a restart of the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It is ready, stayed up and answers.
    Works,
    /// It was not running, so that there is none to show anything.
    NoAgent,
    /// It does not work; why.
    Fails(String),
}

/// Does what waits, or goes on with what was interrupted. Returns what became of the last update.
///
/// # Errors
/// The store cannot be used; nothing was changed by that.
pub fn run(store: &Store, pc: &mut dyn Pc) -> Result<Option<Last>, StoreError> {
    let _lock = store.lock()?;
    loop {
        let mut record = store.record()?;
        let Some(pending) = record.pending.clone() else {
            store.tidy(&record);
            return Ok(record.last);
        };
        // Whoever else is at work with dpkg is no fault of the update's.
        if !matches!(pending.stage, Stage::Proving | Stage::ProvingReturn { .. }) {
            pc.take_dpkg().map_err(StoreError::NotNow)?;
        }
        let step = step(store, pc, &record, &pending);
        note(store, &pending, &step);
        match step {
            Step::Next(stage) => record.go_on(stage),
            Step::End(outcome, why) => record.end(outcome, why),
        }
        store.write(&record)?;
    }
}

/// What comes of a stage.
#[derive(Debug)]
enum Step {
    Next(Stage),
    End(Outcome, Option<String>),
}

fn step(store: &Store, pc: &mut dyn Pc, record: &Record, pending: &Pending) -> Step {
    let Pending { to, back, stage, .. } = pending;
    match stage {
        // The way back is there, and may be gone, or it is not begun.
        Stage::Waiting => {
            let ways = [Some(to), back.as_ref()].into_iter().flatten();
            match ways.map(|kept| package(store, pc, record, kept)).find_map(Result::err) {
                None => Step::Next(Stage::Installing),
                Some(why) => Step::End(Outcome::Refused, Some(why)),
            }
        }
        Stage::Installing => {
            pc.say(&format!("installs bulkhead {} (serial {})", to.version, to.serial));
            match installed(store, pc, record, to) {
                Ok(()) => Step::Next(Stage::Proving),
                Err(why) => failed(back.as_ref(), why),
            }
        }
        Stage::Proving => {
            pc.say("restarts the agent, under running desktops, and waits until it works");
            match pc.prove() {
                Proof::Works => Step::End(Outcome::InForce, None),
                Proof::NoAgent => {
                    let why = "no agent was running that could show that it works";
                    Step::End(Outcome::InForce, Some(why.to_owned()))
                }
                Proof::Fails(why) => failed(back.as_ref(), why),
            }
        }
        Stage::Returning { why } => {
            pc.say(&format!("goes back to the one before: {why}"));
            let Some(back) = back else { return failed(None, why.clone()) };
            match installed(store, pc, record, back) {
                Ok(()) => Step::Next(Stage::ProvingReturn { why: why.clone() }),
                Err(error) => {
                    let why = format!("{why}; and the one before does not come back: {error}");
                    Step::End(Outcome::Stuck, Some(why))
                }
            }
        }
        Stage::ProvingReturn { why } => {
            pc.say("restarts the agent of the one before");
            let why = match pc.prove() {
                Proof::Works | Proof::NoAgent => why.clone(),
                Proof::Fails(again) => format!(
                    "{why}; the agent of the one before does not work either ({again}): look at `journalctl -u bulkhead-agent`"
                ),
            };
            Step::End(Outcome::Returned, Some(why))
        }
    }
}

/// Goes back, if there is something to go back to.
fn failed(back: Option<&Kept>, why: String) -> Step {
    match back {
        Some(_) => Step::Next(Stage::Returning { why }),
        None => {
            let why = format!("{why}; there is nothing to go back to: install a bundle that works");
            Step::End(Outcome::Stuck, Some(why))
        }
    }
}

/// Returns a package that may come now: verified from the store, and not below the floor.
fn package(store: &Store, pc: &mut dyn Pc, record: &Record, kept: &Kept) -> Result<File, String> {
    record.is_above_floor(kept.serial).map_err(|error| explain(&error))?;
    let trust = pc.trust()?;
    store.package(kept, &trust).map_err(|error| explain(&error))
}

fn installed(store: &Store, pc: &mut dyn Pc, record: &Record, kept: &Kept) -> Result<(), String> {
    let package = package(store, pc, record, kept)?;
    pc.settle();
    pc.install(&package)?;
    let version = pc.version()?;
    if version != kept.version {
        return Err(format!("after the installation dpkg has version {version}"));
    }
    Ok(())
}

/// Has what came of it in the audit log. It is done whether or not that can be noted: a PC is not left half updated for a full disk.
fn note(store: &Store, pending: &Pending, step: &Step) {
    let Step::End(outcome, why) = step else { return };
    let Pending { to, back, rollback, uid, .. } = pending;
    let (what, back) = match outcome {
        Outcome::InForce => (What::InForce, None),
        Outcome::Returned => (What::Returned, back.as_ref().map(|back| back.serial)),
        Outcome::Stuck => (What::Returned, None),
        Outcome::Refused => (What::Refused, None),
    };
    let note = ProgramNote {
        rollback: Some(*rollback),
        back,
        why: why.clone(),
        ..ProgramNote::of(what, Some(to), *uid)
    };
    if let Err(error) = notes::add(store.folder(), note) {
        tracing::error!("what became of the update is not in the audit log: {error}");
    }
}

#[cfg(test)]
mod tests;
