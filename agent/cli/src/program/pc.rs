//! What IT does with Bulkhead's package on a PC: it is updated, goes back, and says what it has.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use ::program::host::{self, Host};
use ::program::install::{self, InstallRequest};
use ::program::manifest::{ApprovedBundle, Bundle, PACKAGE};
use ::program::notes::{ProgramAction, ProgramNote};
use ::program::package::Control;
use ::program::record::{
    Admission, KeptPackage, LastUpdate, Outcome as Became, Pending, Record, Stage,
};
use ::program::store::{Store, StoreError, sealed};
use ::program::update::{self, UpdateState};
use base::state_volume::{self, StateAway};
use base::{defaults, layout};
use clap::Args;
use images::notes;
use nix::unistd::getuid;
use policy::signature::Purpose;
use printable::explain;
use serde_json::json;

use super::super::{Common, Failure, Outcome, complain, print};
use crate::bundles::BundleWording as _;
use crate::pc_trust;

/// Between two looks at how far an update is.
const STEP: Duration = Duration::from_millis(500);
/// Looks in a row that find the service idle with an update that waits, after which it is not waited for any more: ten seconds.
const IDLE_MAX: u32 = 20;

/// Names the PC's state that a command works on.
#[derive(Debug, Args)]
pub(crate) struct Pc {
    /// The machine file; the trust store is beside it
    #[arg(long, value_name = "FILE", default_value_os = defaults::machine().as_os_str())]
    machine: PathBuf,
    /// The agent's state directory, where a trust store is remembered; in its folder `program` are the bundles
    #[arg(long, value_name = "DIR", default_value_os = defaults::state().as_os_str())]
    state: PathBuf,
}

impl Pc {
    pub(super) fn state_is_there(&self) -> Result<(), StateAway> {
        state_volume::is_there(&self.state)
    }

    fn store(&self) -> Store {
        Store::at(&layout::programs(&self.state))
    }

    fn trust(&self) -> Result<policy::signature::TrustStore, String> {
        pc_trust::read(&self.machine, &self.state, Purpose::Program)
    }

    /// Says why a bundle is refused, and notes it where that can be.
    fn refuse(&self, common: &Common, offered: Option<(u64, String)>, why: &str) -> Outcome {
        let (serial, version) = offered.unzip();
        let note = ProgramNote {
            serial,
            version,
            why: Some(why.to_owned()),
            ..ProgramNote::of(ProgramAction::Refused, None, getuid().as_raw())
        };
        // An ordinary user changes nothing, and notes nothing; where nothing was ever kept there is no folder yet.
        let store = self.store();
        if getuid().is_root() && store.folder().is_dir() {
            let _ = notes::add(store.folder(), note);
        }
        common.fail(Failure::No, why)
    }
}

/// Takes a bundle, and follows its installation.
pub(super) fn install(
    common: &Common,
    pc: &Pc,
    file: &Path,
    later: bool,
    no_way_back: bool,
) -> Outcome {
    let refused = |why: String| format!("{} is refused: {why}", file.display());
    let bundle = match Bundle::open(file) {
        Ok(bundle) => bundle,
        Err(error) => return pc.refuse(common, None, &refused(explain(&error))),
    };
    let manifest = bundle.head().manifest.clone();
    let offered = Some((manifest.serial, manifest.version.to_string()));
    let trust = match pc.trust() {
        Ok(trust) => trust,
        Err(why) => return pc.refuse(common, offered, &why),
    };
    let approved = match bundle.approve(&trust) {
        Ok(approved) => approved,
        Err(error) => return pc.refuse(common, offered, &refused(explain(&error))),
    };
    let wish = InstallRequest { uid: getuid().as_raw(), no_way_back };
    let taken = looked_at(&approved).and_then(|has| {
        let taken = install::take(&pc.store(), &approved, &trust, &has, wish);
        taken.map_err(|error| explain(&error))
    });
    let taken = match taken {
        Ok(taken) => taken,
        Err(why) => return pc.refuse(common, offered, &refused(why)),
    };
    let kept = taken.kept;
    match taken.admission {
        Admission::IsThere => {
            let report =
                json!({"serial": kept.serial, "version": kept.version, "outcome": "is-there"});
            common.done(&report, || {
                print(&format!(
                    "{}\nthis PC has it already: its bundle is kept, and a newer one can go back to it\n",
                    manifest.described()
                ));
            })
        }
        Admission::Update { .. } => {
            if !common.json {
                print(&format!("{}\n", manifest.described()));
            }
            begin(common, pc, &kept, later)
        }
    }
}

/// Looks at what a signed bundle brings, and at what the PC has.
fn looked_at(approved: &ApprovedBundle) -> Result<::program::record::InstalledPackage, String> {
    let manifest = &approved.bundle().head().manifest;
    let package = sealed(approved).map_err(|error| explain(&error))?;
    let control = Control::of(&package).map_err(|error| explain(&error))?;
    if (&control.version, &control.architecture) != (&manifest.version, &manifest.architecture) {
        return Err(format!(
            "the package in it says that it is {} for {}, and what officers signed says {} for {}: have it packed again",
            control.version, control.architecture, manifest.version, manifest.architecture
        ));
    }
    let own = host::architecture().map_err(|error| explain(&error))?;
    if own != manifest.architecture {
        return Err(format!(
            "it is for {}, and this PC is {own}: take the bundle for {own}",
            manifest.architecture
        ));
    }
    host::has(&manifest.version, &package).map_err(|error| explain(&error))
}

/// Starts the update that waits and follows it to its end; with `later` it is left for the next boot.
fn begin(common: &Common, pc: &Pc, kept: &KeptPackage, later: bool) -> Outcome {
    let KeptPackage { serial, version, .. } = kept;
    let waits = |how: &str| {
        let report = json!({"serial": serial, "version": version, "outcome": "waiting"});
        common.done(&report, || {
            print(&format!("bulkhead {version} (serial {serial}) waits: {how}\n"));
        })
    };
    // Where no systemd runs there is nobody to begin with it.
    let later = later || !host::has_systemd();
    let started = if later { host::enable_update() } else { host::start_update() };
    if let Err(why) = started {
        let why = format!(
            "bulkhead {version} (serial {serial}) waits, and is not installed: {}; `systemctl start {}` does that",
            explain(&why),
            host::UPDATE
        );
        return common.fail(Failure::No, &why);
    }
    if later {
        return waits(
            "it is installed with the next start of the agent, as at a boot; `bulkhead program cancel` calls it off",
        );
    }
    match follow(common, &pc.store()) {
        Ok(ServiceWait::Ended(Some(last))) => ended(common, &last),
        Ok(ServiceWait::Ended(None)) => {
            common.fail(Failure::No, "the update was called off by somebody else")
        }
        Ok(ServiceWait::Idle(idle)) if idle.stage == Stage::Waiting && idle.waits.is_none() => {
            waits(&format!("`systemctl status {}` says why it does not begin", host::UPDATE))
        }
        Ok(ServiceWait::Idle(pending)) => stays(common, &pending),
        Err(error) => common.fail(Failure::No, &explain(&error)),
    }
}

/// What came of waiting for the service.
enum ServiceWait {
    /// No update is under way any more: how it ended, or `None` if it was called off.
    Ended(Option<LastUpdate>),
    /// It is not at work, and this is under way.
    Idle(Box<Pending>),
}

/// Waits for the service, and says how far it is.
fn follow(common: &Common, store: &Store) -> Result<ServiceWait, StoreError> {
    let (mut said, mut idle) = (None, 0);
    loop {
        let Record { pending, last, .. } = store.record()?;
        let Some(pending) = pending else { return Ok(ServiceWait::Ended(last)) };
        if said.as_ref() != Some(&pending.stage) {
            if !common.json {
                complain(&format!("{}\n", words(&pending.stage)));
            }
            said = Some(pending.stage.clone());
        }
        idle = if host::is_at_work() { 0 } else { idle + 1 };
        if idle >= IDLE_MAX {
            return Ok(ServiceWait::Idle(Box::new(pending)));
        }
        thread::sleep(STEP);
    }
}

fn words(stage: &Stage) -> String {
    match stage {
        Stage::Waiting => "it waits for bulkhead-update.service".to_owned(),
        Stage::Installing => "dpkg installs it".to_owned(),
        Stage::Proving => {
            "its agent is started under the running desktops, and has to show that it works"
                .to_owned()
        }
        Stage::Returning { why } => {
            format!("it does not work ({why}): the one before is installed again")
        }
        Stage::ProvingReturn { .. } => "the agent of the one before is started".to_owned(),
    }
}

/// Says of an update that was begun, and that nobody is at work with, what it waits for.
fn stays(common: &Common, pending: &Pending) -> Outcome {
    let Pending { to, stage, waits, .. } = pending;
    let KeptPackage { serial, version, .. } = to;
    let why = waits.as_deref().map_or_else(
        || format!("`systemctl status {}` says why it does not go on", host::UPDATE),
        ToOwned::to_owned,
    );
    let what = match stage {
        Stage::Proving => "is installed and not in force yet",
        _ => "is not in force yet",
    };
    let why = format!("bulkhead {version} (serial {serial}) {what}: {why}");
    let report = json!({"serial": serial, "version": version, "outcome": "waiting", "why": waits});
    common.answer(Err(why.clone()), &report, || complain(&format!("bulkhead: {why}\n")))
}

/// Says what became of an update.
fn ended(common: &Common, last: &LastUpdate) -> Outcome {
    let LastUpdate { serial, version, outcome, why } = last;
    let report = json!({"serial": serial, "version": version, "outcome": outcome, "why": why});
    let verdict = match outcome {
        Became::InForce => Ok(()),
        _ => Err(became(last)),
    };
    common.answer(verdict, &report, || match outcome {
        Became::InForce => print(&format!("{}\n", became(last))),
        _ => complain(&format!("bulkhead: {}\n", became(last))),
    })
}

fn became(last: &LastUpdate) -> String {
    let LastUpdate { serial, version, outcome, why } = last;
    let what = match outcome {
        Became::InForce => "is in force",
        Became::Returned => "did not work, and the one before is in force again",
        Became::Stuck => "did not work, and stays as it is",
        Became::NeitherWorks => {
            "DID NOT WORK, AND NEITHER DOES THE ONE BEFORE, which is installed again"
        }
        Became::Refused => "was not installed",
        Became::Other => "ended as a newer version of Bulkhead has a word for",
    };
    let why = why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    format!("bulkhead {version} (serial {serial}) {what}{why}")
}

/// Says what the PC has, had, and waits for.
pub(super) fn status(common: &Common, pc: &Pc) -> Outcome {
    let record = match pc.store().record() {
        Ok(record) => record,
        Err(error) => return common.fail(Failure::No, &explain(&error)),
    };
    let has = host::version();
    let report = json!({
        "installed": has.as_ref().ok(), "in_force": record.in_force, "before": record.before, "pending": record.pending, "floor": record.floor,
        "newest": record.newest.map(|newest| newest.serial), "last": record.last,
    });
    common.done(&report, || {
        let kept = |kept: &Option<KeptPackage>, none: &str| match kept {
            Some(KeptPackage { serial, version, signers, .. }) => {
                format!("{version}, serial {serial}, signed by {}", signers.join(", "))
            }
            None => none.to_owned(),
        };
        let installed = has.map_or_else(|why| explain(&why), |version| version.to_string());
        let mut text = format!(
            "installed: {installed}\nby bundle: {}\nbefore:    {}\nfloor:     {}\n",
            kept(&record.in_force, "none that is kept: install the bundle of what runs, so that a newer one can go back"),
            kept(&record.before, "none"),
            record.floor
        );
        if let Some(pending) = &record.pending {
            let to = kept(&Some(pending.to.clone()), "");
            text += &format!("to come:   {to}: {}\n", words(&pending.stage));
            if let Some(waits) = &pending.waits {
                text += &format!("waits:     {waits}\n");
            }
        }
        if let Some(last) = &record.last {
            text += &format!("last:      {}\n", became(last));
        }
        print(&text);
    })
}

/// Goes back to the package that was in force before.
pub(super) fn roll_back(common: &Common, pc: &Pc) -> Outcome {
    match install::roll_back(&pc.store(), getuid().as_raw()) {
        Ok(kept) => begin(common, pc, &kept, false),
        Err(error) => {
            let why = format!("nothing goes back: {}", explain(&error));
            pc.refuse(common, None, &why)
        }
    }
}

/// Calls off the update that waits.
pub(super) fn cancel(common: &Common, pc: &Pc) -> Outcome {
    match install::cancel(&pc.store(), getuid().as_raw()) {
        Ok(KeptPackage { serial, version, .. }) => {
            let report = json!({"serial": serial, "version": version});
            common.done(&report, || {
                print(&format!(
                    "bulkhead {version} (serial {serial}) is called off, and was not installed\n"
                ));
            })
        }
        Err(error) => {
            let why = format!("nothing is called off: {}", explain(&error));
            pc.refuse(common, None, &why)
        }
    }
}

/// Installs what waits: what the service runs.
pub(super) fn apply(common: &Common, pc: &Pc) -> Outcome {
    let mut host = Host::new(|| pc.trust(), |words: &str| complain(&format!("{words}\n")));
    match update::run(&pc.store(), &mut host) {
        // A service that failed is seen where nobody asks for the record.
        Ok(UpdateState::Ended(Some(last))) if last.outcome == Became::NeitherWorks => {
            ended(common, &last)
        }
        Ok(UpdateState::Ended(Some(last))) => {
            // That a package went back is the record's to say, and no failure of the service.
            let report = json!({"serial": last.serial, "outcome": last.outcome});
            common.done(&report, || print(&format!("{}\n", became(&last))))
        }
        Ok(UpdateState::Ended(None)) => {
            common.done(&json!({}), || print(&format!("no update of {PACKAGE} waits\n")))
        }
        Ok(UpdateState::Waits { to, why }) => {
            let report = json!({"serial": to.serial, "outcome": "waiting", "why": why});
            common.done(&report, || {
                print(&format!(
                    "bulkhead {} (serial {}) is not in force yet: {why}\n",
                    to.version, to.serial
                ));
            })
        }
        Err(error) => common.fail(Failure::No, &explain(&error)),
    }
}
