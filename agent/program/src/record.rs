//! Which package a PC has by a bundle, which one is to come, and how far that is: `record.json`. Pure: nothing here reads or writes a file.
//!
//! ```text
//!  install --> Waiting --> Installing --> Proving ------------------------------> in force
//!                  |            |            |  the agent does not come up
//!                  v            '----+-------'
//!               refused              v
//!                                Returning --> ProvingReturn --> returned
//!                                    |                |
//!                                    |                '--> neither works
//!                                    '--> stuck: there is nothing to go back to, or it may not come back
//! ```
//! Each arrow is one replacement of the file, before what comes after it is done: whoever finds the record after a power cut does the same step again.
//! What is proved waits, where no agent runs; the two installations are tried again, where what stopped them passes.
//!
//! After a return an older version reads what a newer one wrote. What it does not know there it passes over; what it must not pass over is of another format.

use images::digest::Digest;
use serde::{Deserialize, Serialize};

use crate::manifest::{Head, PackageVersion};
use crate::worked::WorkingState;

/// The only format of records there is.
pub(crate) const FORMAT: u32 = 1;

/// A package whose bundle is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptPackage {
    /// The serial of its bundle.
    pub serial: u64,
    /// The version of the package.
    pub version: PackageVersion,
    /// The floor that its bundle brings.
    pub floor: u64,
    /// The digest of the bundle's manifest.
    pub manifest: Digest,
    /// Who had signed it when it was installed.
    pub signers: Vec<String>,
}

impl KeptPackage {
    /// Returns what is kept of a bundle that these officers signed.
    #[must_use]
    pub fn of(head: &Head, signers: &[String]) -> Self {
        Self {
            serial: head.manifest.serial,
            version: head.manifest.version.clone(),
            floor: head.manifest.floor,
            manifest: head.digest(),
            signers: signers.to_vec(),
        }
    }
}

/// How far an update is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// It waits for `bulkhead-update.service`.
    Waiting,
    /// dpkg installs it.
    Installing,
    /// It is installed, and its agent is to show that it works.
    Proving,
    /// dpkg installs the one before.
    Returning {
        /// Why the new one did not stay.
        why: String,
    },
    /// The one before is installed, and its agent is to show that it works.
    ProvingReturn {
        /// Why the new one did not stay.
        why: String,
    },
}

/// An update that is not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// What is to come.
    pub to: KeptPackage,
    /// What is gone back to if it does not work; `None` if nothing is.
    pub back: Option<KeptPackage>,
    /// It is the one before, which somebody wants back.
    pub rollback: bool,
    /// The user who wanted it.
    pub uid: u32,
    /// How far it is.
    pub stage: Stage,
    /// What worked before; `None` if no agent said so, or nobody has asked yet.
    #[serde(default)]
    pub worked: Option<WorkingState>,
    /// Other packages that were not configured whole before this was begun: whoever left them so finishes them.
    #[serde(default)]
    pub unfinished: Vec<String>,
    /// How often this step has failed for a reason that passes.
    #[serde(default)]
    pub failures: u32,
    /// What it waits for, and what to do.
    #[serde(default)]
    pub waits: Option<String>,
}

impl Pending {
    fn new(to: KeptPackage, back: Option<KeptPackage>, rollback: bool, uid: u32) -> Self {
        let stage = Stage::Waiting;
        let (worked, unfinished) = (None, Vec::new());
        Self { to, back, rollback, uid, stage, worked, unfinished, failures: 0, waits: None }
    }

    /// Returns whether its next step is dpkg's.
    pub(crate) const fn asks_dpkg(&self) -> bool {
        !matches!(self.stage, Stage::Proving | Stage::ProvingReturn { .. })
    }
}

/// What became of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The agent that it brought works.
    InForce,
    /// It did not work, and the one before is there again.
    Returned,
    /// It did not work, and nothing could be gone back to.
    Stuck,
    /// It did not work, and neither does the one before, which is installed again.
    NeitherWorks,
    /// The package was not installed: it was refused before.
    Refused,
    /// What a newer version of Bulkhead has a word for.
    #[serde(other)]
    Other,
}

/// How the last update of this PC ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastUpdate {
    /// The serial of what was to come.
    pub serial: u64,
    /// The version of what was to come.
    pub version: PackageVersion,
    /// How the update ended.
    pub outcome: Outcome,
    /// Why, and what to do; `None` if all is well.
    pub why: Option<String>,
}

/// The newest bundle that was ever begun to be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewestBundle {
    /// The serial of the bundle.
    pub serial: u64,
    /// The digest of the bundle's manifest.
    pub manifest: Digest,
}

/// What is known of a PC's packages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub(crate) format: u32,
    /// The newest bundle that was ever begun to be installed.
    pub newest: Option<NewestBundle>,
    /// The lowest serial that may come; never goes down.
    pub floor: u64,
    /// The package in force, if it came by a bundle.
    pub in_force: Option<KeptPackage>,
    /// The package that was in force before.
    pub before: Option<KeptPackage>,
    /// The update that waits or is under way.
    pub pending: Option<Pending>,
    /// What became of the last update.
    pub last: Option<LastUpdate>,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            format: FORMAT,
            newest: None,
            floor: 1,
            in_force: None,
            before: None,
            pending: None,
            last: None,
        }
    }
}

/// What the PC has, as dpkg says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstalledPackage {
    /// The version of the package that is installed.
    pub version: PackageVersion,
    /// Whether the offered one is older.
    pub offered_is_older: bool,
    /// Whether the offered one is this one, file by file.
    pub offered_is_this: bool,
}

/// What becomes of a bundle that is offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The PC has this package already: nothing is installed, and later ones can go back to it.
    IsThere,
    /// It is to be installed, with this to go back to.
    Update {
        /// What is gone back to if it does not work.
        back: Option<KeptPackage>,
    },
}

/// Why a bundle is not taken. Each says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdmissionRefusal {
    /// Another one is under way.
    #[error(
        "the update to {version} (serial {serial}) is under way: wait for it; `bulkhead program status` says how far it is, and what it waits for"
    )]
    UnderWay {
        /// The serial of the one under way.
        serial: u64,
        /// The version of the one under way.
        version: PackageVersion,
    },
    /// It is older than one that was there.
    #[error(
        "serial {serial} is older than {newest}, the newest that this PC ever had: have it packed with a higher serial if it is meant"
    )]
    Older {
        /// The serial of the bundle.
        serial: u64,
        /// The newest serial that the PC ever had.
        newest: u64,
    },
    /// It has the serial of another.
    #[error("serial {0} was another bundle's on this PC: have it packed with a higher serial")]
    OtherContent(u64),
    /// It is below the floor.
    #[error(
        "serial {serial} is below the floor {floor}, which officers signed: take a newer bundle"
    )]
    BelowFloor {
        /// The serial of the bundle.
        serial: u64,
        /// The lowest serial that may come.
        floor: u64,
    },
    /// It brings an older version than is there, which came otherwise.
    #[error(
        "version {offered} is older than {has}, which this PC has by no bundle, so that no serial says what officers want: install the bundle of {has} first, or a newer version"
    )]
    OlderVersion {
        /// The version in the bundle.
        offered: PackageVersion,
        /// The version that is installed.
        has: PackageVersion,
    },
    /// There is nothing to go back to.
    #[error(
        "there is no bundle of {0}, which this PC has, to go back to if the new one does not work: install that one first (it only is kept), or say --no-way-back"
    )]
    NoWayBack(PackageVersion),
    /// It forbids what would be gone back to.
    #[error(
        "its floor {floor} forbids going back to serial {serial}, which this PC has, if it does not work: say --no-way-back if that is meant"
    )]
    FloorForbidsBack {
        /// The floor that the bundle brings.
        floor: u64,
        /// The serial of what the PC has.
        serial: u64,
    },
    /// No package is kept that was in force before.
    #[error("there is no package before to go back to: install a bundle")]
    NoneBefore,
    /// `cancel` found no update that waits.
    #[error("no update waits: there is nothing to call off")]
    NoneWaits,
    /// The update that waited was begun.
    #[error(
        "the update to {version} (serial {serial}) was begun and cannot be called off: once it is in force, `bulkhead program rollback` has the one before come back"
    )]
    Begun {
        /// The serial of that update.
        serial: u64,
        /// The version of that update.
        version: PackageVersion,
    },
}

impl Record {
    /// Returns what becomes of a bundle that enough officers signed, on a PC that has this.
    ///
    /// # Errors
    /// It may not come.
    pub fn admit(
        &self,
        offered: &KeptPackage,
        has: &InstalledPackage,
        no_way_back: bool,
    ) -> Result<Admission, AdmissionRefusal> {
        let serial = offered.serial;
        self.is_idle()?;
        if let Some(newest) = self.newest {
            if serial < newest.serial {
                return Err(AdmissionRefusal::Older { serial, newest: newest.serial });
            }
            if serial == newest.serial && offered.manifest != newest.manifest {
                return Err(AdmissionRefusal::OtherContent(serial));
            }
        }
        self.is_above_floor(serial)?;
        if has.offered_is_this {
            return Ok(Admission::IsThere);
        }
        // What came by other ways than a bundle is none of the record's.
        let current = self.in_force.as_ref().filter(|kept| kept.version == has.version);
        let is_newer = current.is_some_and(|kept| serial > kept.serial);
        if has.offered_is_older && !is_newer {
            let (offered, has) = (offered.version.clone(), has.version.clone());
            return Err(AdmissionRefusal::OlderVersion { offered, has });
        }
        let floor = self.floor.max(offered.floor);
        let back = match current {
            None => Err(AdmissionRefusal::NoWayBack(has.version.clone())),
            Some(current) if current.serial < floor => {
                Err(AdmissionRefusal::FloorForbidsBack { floor, serial: current.serial })
            }
            Some(current) => Ok(current.clone()),
        };
        // A way back that there is is kept all the same.
        match back {
            Err(refused) if !no_way_back => Err(refused),
            back => Ok(Admission::Update { back: back.ok() }),
        }
    }

    fn is_idle(&self) -> Result<(), AdmissionRefusal> {
        match &self.pending {
            // What nobody has begun with gives way.
            Some(Pending { stage: Stage::Waiting, .. }) | None => Ok(()),
            Some(Pending { to, .. }) => {
                let (serial, version) = (to.serial, to.version.clone());
                Err(AdmissionRefusal::UnderWay { serial, version })
            }
        }
    }

    pub(crate) fn is_above_floor(&self, serial: u64) -> Result<(), AdmissionRefusal> {
        if serial < self.floor {
            return Err(AdmissionRefusal::BelowFloor { serial, floor: self.floor });
        }
        Ok(())
    }

    /// Takes note that the PC has this package already.
    pub(crate) fn is_there(&mut self, kept: KeptPackage) {
        self.raise(&kept);
        self.pending = None;
        self.last = Some(last(&kept, Outcome::InForce, None));
        self.in_force = Some(kept);
    }

    /// Makes this package the update that waits, asked for by `uid`.
    pub(crate) fn wait(&mut self, to: KeptPackage, back: Option<KeptPackage>, uid: u32) {
        self.pending = Some(Pending::new(to, back, false, uid));
    }

    /// Makes the package before the one that waits; returns it.
    ///
    /// # Errors
    /// There is none, it may not come, or an update is under way.
    pub(crate) fn wait_for_the_one_before(
        &mut self,
        uid: u32,
    ) -> Result<KeptPackage, AdmissionRefusal> {
        self.is_idle()?;
        let to = self.before.clone().ok_or(AdmissionRefusal::NoneBefore)?;
        self.is_above_floor(to.serial)?;
        self.pending = Some(Pending::new(to.clone(), self.in_force.clone(), true, uid));
        Ok(to)
    }

    /// Calls off what waits; returns what that is.
    ///
    /// # Errors
    /// Nothing waits, or it was begun with.
    pub(crate) fn call_off(&mut self) -> Result<KeptPackage, AdmissionRefusal> {
        let Pending { to, stage, .. } = self.pending.clone().ok_or(AdmissionRefusal::NoneWaits)?;
        if stage != Stage::Waiting {
            return Err(AdmissionRefusal::Begun { serial: to.serial, version: to.version });
        }
        self.pending = None;
        Ok(to)
    }

    /// Keeps what works before the update, and which other packages are not configured whole.
    pub(crate) fn before(&mut self, worked: Option<WorkingState>, unfinished: Vec<String>) {
        if let Some(pending) = &mut self.pending {
            (pending.worked, pending.unfinished) = (worked, unfinished);
        }
    }

    /// Leaves what is under way at its stage, and why; `failed` counts the step as one that did not come to its end.
    pub(crate) fn stay(&mut self, why: String, failed: bool) {
        if let Some(pending) = &mut self.pending {
            pending.failures = pending.failures.saturating_add(u32::from(failed));
            pending.waits = Some(why);
        }
    }

    /// Goes on to the next stage. From here on nothing older comes, and nothing below its floor.
    pub(crate) fn go_on(&mut self, next: Stage) {
        let Some(pending) = &mut self.pending else { return };
        pending.stage = next;
        (pending.failures, pending.waits) = (0, None);
        if pending.stage == Stage::Installing && !pending.rollback {
            let to = pending.to.clone();
            self.raise(&to);
        }
    }

    fn raise(&mut self, kept: &KeptPackage) {
        self.newest = Some(NewestBundle { serial: kept.serial, manifest: kept.manifest });
        self.floor = self.floor.max(kept.floor);
    }

    /// Ends what is under way.
    pub(crate) fn end(&mut self, outcome: Outcome, why: Option<String>) {
        let Some(Pending { to, back, rollback, stage, .. }) = self.pending.take() else { return };
        self.last = Some(last(&to, outcome, why));
        match outcome {
            Outcome::InForce => {
                self.before = if rollback { None } else { back };
                self.in_force = Some(to);
            }
            // What is there is half of something, or what nobody vouches for: what was in force is no more.
            Outcome::Stuck if stage != Stage::Waiting => {
                self.before = self.in_force.take().or(self.before.take());
            }
            Outcome::Returned
            | Outcome::NeitherWorks
            | Outcome::Refused
            | Outcome::Stuck
            | Outcome::Other => {}
        }
    }

    /// Returns the serials whose bundles are kept.
    pub(crate) fn kept(&self) -> Vec<u64> {
        let pending = self.pending.iter().flat_map(|it| [Some(&it.to), it.back.as_ref()]);
        let all = [self.in_force.as_ref(), self.before.as_ref()].into_iter().chain(pending);
        all.flatten().map(|kept| kept.serial).collect()
    }
}

fn last(kept: &KeptPackage, outcome: Outcome, why: Option<String>) -> LastUpdate {
    LastUpdate { serial: kept.serial, version: kept.version.clone(), outcome, why }
}
