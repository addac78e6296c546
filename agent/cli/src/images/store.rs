//! What IT does with images on a PC: they are installed, activated, taken back and removed.

use std::path::Path;

use ::images::manifest::{ImageName, Manifest};
use ::images::notes::{self, Note, What};
use ::images::record::{Record, Standing};
use ::images::store::{Arrival, Store, StoreError, standing};
use config::files::{FilesError, read_machine_text};
use config::machine::{Boot, Context, DomainHardware, Kind, Machine};
use config::policy_store::PolicyStore;
use nix::unistd::getuid;
use policy::signature::TrustStore;
use serde::Serialize;
use serde_json::json;

use super::super::{Common, Failure, Outcome, complain, print};
use super::progress::Progress;
use super::{Pc, described, size};
use printable::explain;

/// What there is to say of one installed image.
#[derive(Serialize)]
struct Listed {
    name: String,
    serial: u64,
    state: Standing,
    floor: u64,
    bytes: u64,
    /// It is in force, and would not come into force any more.
    below_floor: bool,
    signers: Vec<String>,
    /// The public keys of those.
    keys: Vec<String>,
    /// The serial of the trust store by which their signatures counted.
    trust: Option<u64>,
}

impl Pc {
    fn store(&self) -> Store {
        Store::at(&self.images)
    }

    /// The trust store that counts on this PC.
    fn trust(&self) -> Result<TrustStore, String> {
        // The policy is not read.
        let file = self.machine.with_file_name("policy.toml");
        let store = PolicyStore::for_looking(&file, &self.machine, &self.state);
        let (trust, report) = store.trust().map_err(|error| explain(&error))?;
        if let Some(refused) = report.refused {
            complain(&format!(
                "bulkhead: warning: the trust store is refused, and the one before (serial {}) counts: {}\n",
                refused.serial, refused.why
            ));
        }
        trust.ok_or_else(|| {
            format!(
                "there is no trust store {}, and images are taken signed only: have the security office lay one down in which officers may sign for `image`",
                self.machine.with_file_name("trust.toml").display()
            )
        })
    }

    /// Returns the domains of this PC's machine file whose image this is and that could not run it, in words; none where there is no such
    /// file yet.
    fn misfits(&self, manifest: &Manifest) -> Vec<String> {
        let context = Context { images: &self.images, domain_policies: None };
        let place = self.machine.display().to_string();
        let read = match read_machine_text(&self.machine) {
            Ok(text) => Machine::parse(&place, &text, context).map_err(FilesError::Machine),
            Err(error) => Err(error),
        };
        let machine = match read {
            Ok(machine) => machine,
            Err(error) => {
                if self.machine.symlink_metadata().is_ok() {
                    complain(&format!(
                        "bulkhead: warning: whether its domains can run it is not known: {}\n",
                        explain(&error)
                    ));
                }
                return Vec::new();
            }
        };
        let misfit = |domain: DomainHardware| match domain.kind {
            Kind::Vm(vm) if vm.boot == Boot::Image(manifest.name.clone()) => {
                Some(format!("{}: {}", domain.name, vm.fits(manifest).err()?))
            }
            _ => None,
        };
        machine.domains.into_iter().filter_map(misfit).collect()
    }

    /// Begins a note for the audit log.
    fn begun(what: What, image: Option<(&ImageName, u64)>) -> Note {
        let (name, serial) = image.unzip();
        Note {
            at: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            uid: getuid().as_raw(),
            what,
            image: name.map(ToString::to_string),
            serial,
            manifest: None,
            floor: None,
            signers: Vec::new(),
            trust: None,
            why: None,
        }
    }

    /// Says why something is not done, and notes it where that can be.
    fn refuse(&self, common: &Common, image: Option<(&ImageName, u64)>, why: &str) -> Outcome {
        let note = Note { why: Some(why.to_owned()), ..Self::begun(What::Refused, image) };
        // An ordinary user changes nothing, and notes nothing.
        let _ = notes::add(&self.images, note);
        common.fail(Failure::No, why)
    }

    /// Has something noted, and then done.
    fn noted<T>(
        &self,
        common: &Common,
        what: What,
        image: (&ImageName, u64),
        change: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, Outcome> {
        let noted = notes::add(&self.images, Self::begun(what, Some(image)));
        let done = noted.map_err(|source| StoreError::NotNoted { source }).and_then(|()| change());
        done.map_err(|error| self.refuse(common, Some(image), &explain(&error)))
    }

    /// Checks that an installed image may come into force: nobody withdrew it, it is what was signed, and its domains can run it.
    fn checked(
        &self,
        common: &Common,
        name: &ImageName,
        record: &Record,
        serial: u64,
    ) -> Result<(), String> {
        let trust = self.trust()?;
        let total = record.entry(serial).map_or(0, |entry| entry.size);
        let mut progress = Progress::new(common, "read", total);
        let store = self.store();
        store
            .verify(name, serial, &trust, |bytes| progress.add(bytes))
            .map_err(|error| explain(&error))?;
        let image = store.image(name, serial).map_err(|error| explain(&error))?;
        match self.misfits(&image.manifest).as_slice() {
            [] => Ok(()),
            misfits => Err(misfits.join("; ")),
        }
    }

    /// The record of a name.
    fn found(&self, name: &ImageName) -> Result<Record, String> {
        let read = self.store().record(name);
        let found = read.and_then(|record| record.ok_or_else(|| StoreError::Unknown(name.clone())));
        found.map_err(|error| explain(&error))
    }

    /// The same, for a command that ends without one.
    fn record(&self, common: &Common, name: &ImageName) -> Result<Record, Outcome> {
        self.found(name).map_err(|why| common.fail(Failure::No, &why))
    }
}

pub(super) fn install(common: &Common, pc: &Pc, file: &Path) -> Outcome {
    let trust = match pc.trust() {
        Ok(trust) => trust,
        Err(why) => return pc.refuse(common, None, &why),
    };
    let bundle = match ::images::bundle::Bundle::open(file) {
        Ok(bundle) => bundle,
        Err(error) => {
            let why = format!("{} is refused: {}", file.display(), explain(&error));
            return pc.refuse(common, None, &why);
        }
    };
    let (name, serial) = (bundle.head().manifest.name.clone(), bundle.head().manifest.serial);
    let approved = match bundle.approve(&trust) {
        Ok(approved) => approved,
        Err(error) => {
            let why = format!("{} is refused: {}", file.display(), explain(&error));
            return pc.refuse(common, Some((&name, serial)), &why);
        }
    };
    let head = approved.bundle().head();
    let manifest = &head.manifest;
    let note = |arrival: Arrival| {
        let what = if arrival == Arrival::Repaired { What::Repaired } else { What::Installed };
        let note = Note {
            manifest: Some(head.digest()),
            floor: Some(manifest.floor),
            signers: approved.signers().to_vec(),
            trust: approved.trust_serial(),
            ..Pc::begun(what, Some((&name, serial)))
        };
        notes::add(&pc.images, note)
    };
    let mut progress = Progress::new(common, "installed", manifest.total());
    let installed = pc.store().install(&approved, |bytes| progress.add(bytes), note);
    drop(progress);
    let arrival = match installed {
        Ok(arrival) => arrival,
        Err(error) => {
            let why = format!("{}: {}", file.display(), explain(&error));
            return pc.refuse(common, Some((&name, serial)), &why);
        }
    };
    let report = json!({
        "name": name.as_str(), "serial": serial, "floor": manifest.floor, "bytes": manifest.total(), "signers": approved.signers(),
        "manifest": head.digest(), "installed": arrival == Arrival::Installed, "repaired": arrival == Arrival::Repaired,
    });
    common.done(&report, || {
        let said = match arrival {
            Arrival::Installed => "installed",
            Arrival::Repaired => "was damaged or had other signatures, and is as the bundle has it",
            Arrival::WasThere => "was installed before, and is whole",
        };
        print(&format!(
            "{}\n{said}, signed by {}; `bulkhead images activate {name} {serial}` lets it come into force at the next start of its domains\n",
            described(manifest),
            approved.signers().join(", ")
        ));
    })
}

pub(super) fn list(common: &Common, pc: &Pc) -> Outcome {
    let (mut images, mut problems) = (Vec::new(), Vec::new());
    let names = match pc.store().names() {
        Ok(names) => names,
        Err(error) => return common.fail(Failure::No, &explain(&error)),
    };
    for name in names {
        let record = match pc.found(&name) {
            Ok(record) => record,
            Err(why) => {
                problems.push(why);
                continue;
            }
        };
        images.extend(record.installed().map(|(serial, state, entry)| Listed {
            name: name.to_string(),
            serial,
            state,
            floor: record.floor(),
            bytes: entry.size,
            below_floor: serial < record.floor(),
            signers: entry.signers.clone(),
            keys: entry.keys.clone(),
            trust: entry.trust,
        }));
    }
    let verdict = verdict(&problems);
    common.answer(verdict, &json!({"images": images}), || {
        told(&problems);
        if problems.is_empty() || !images.is_empty() {
            print(&table(&images));
        }
    })
}

/// What is wrong with some images, while others are looked at.
fn verdict(problems: &[String]) -> Result<(), String> {
    match problems {
        [] => Ok(()),
        problems => Err(problems.join("; ")),
    }
}

fn told(problems: &[String]) {
    for problem in problems {
        complain(&format!("bulkhead: {problem}\n"));
    }
}

fn table(images: &[Listed]) -> String {
    if images.is_empty() {
        return "no image is installed; `bulkhead images install FILE` installs a bundle\n"
            .to_owned();
    }
    let head = ["NAME", "SERIAL", "STATE", "FLOOR", "SIZE", "SIGNED BY"].map(str::to_owned);
    let row = |it: &Listed| {
        [
            it.name.clone(),
            it.serial.to_string(),
            match it.state {
                Standing::InForce if it.below_floor => "in force, BELOW THE FLOOR".to_owned(),
                state => standing(state).to_owned(),
            },
            it.floor.to_string(),
            size(it.bytes),
            it.signers.join(", "),
        ]
    };
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(images.iter().map(row)).collect();
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..5).map(width).collect();
    let line = |row: &[String; 6]| {
        let cells = row.iter().enumerate().map(|(column, cell)| match widths.get(column) {
            Some(width) => format!("{cell:width$}"),
            None => cell.clone(),
        });
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

pub(super) fn verify(common: &Common, pc: &Pc, name: Option<&ImageName>) -> Outcome {
    let trust = match pc.trust() {
        Ok(trust) => trust,
        Err(why) => return common.fail(Failure::No, &why),
    };
    let names = match name {
        Some(name) => Ok(vec![name.clone()]),
        None => pc.store().names(),
    };
    let names = match names {
        Ok(names) => names,
        Err(error) => return common.fail(Failure::No, &explain(&error)),
    };
    let (mut verified, mut problems) = (Vec::new(), Vec::new());
    for name in names {
        let record = match pc.found(&name) {
            Ok(record) => record,
            Err(why) => {
                problems.push(why);
                continue;
            }
        };
        for (serial, _, entry) in record.installed() {
            let mut progress = Progress::new(common, "read", entry.size);
            match pc.store().verify(&name, serial, &trust, |bytes| progress.add(bytes)) {
                Ok(signers) => verified
                    .push(json!({"name": name.as_str(), "serial": serial, "signers": signers})),
                Err(error) => problems.push(explain(&error)),
            }
        }
    }
    common.answer(verdict(&problems), &json!({"verified": verified}), || {
        told(&problems);
        let count = u64::try_from(verified.len()).unwrap_or(u64::MAX);
        let counted = printable::counted(count, "image is", "images are");
        print(&format!("{counted} what was signed\n"));
    })
}

pub(super) fn activate(common: &Common, pc: &Pc, name: &ImageName, serial: Option<u64>) -> Outcome {
    let record = match pc.record(common, name) {
        Ok(record) => record,
        Err(outcome) => return outcome,
    };
    // What is noted is what is done, whatever is installed meanwhile.
    let wanted = match record.clone().activate(serial) {
        Ok(serial) => serial,
        Err(why) => {
            let why = format!("image {name}: {why}");
            return pc.refuse(common, serial.map(|serial| (name, serial)), &why);
        }
    };
    if let Err(why) = pc.checked(common, name, &record, wanted) {
        return pc.refuse(common, Some((name, wanted)), &why);
    }
    let store = pc.store();
    let done =
        pc.noted(common, What::Activated, (name, wanted), || store.activate(name, Some(wanted)));
    said(common, name, done)
}

pub(super) fn roll_back(common: &Common, pc: &Pc, name: &ImageName) -> Outcome {
    let record = match pc.record(common, name) {
        Ok(record) => record,
        Err(outcome) => return outcome,
    };
    let serial = match record.clone().roll_back() {
        Ok(serial) => serial,
        Err(why) => return pc.refuse(common, None, &format!("image {name}: {why}")),
    };
    // Nobody goes back to what an officer withdrew, or what is damaged. What is in force stays so without being looked at.
    let stays = record.current() == Some(serial);
    if !stays && let Err(why) = pc.checked(common, name, &record, serial) {
        return pc.refuse(common, Some((name, serial)), &why);
    }
    let store = pc.store();
    let done = pc.noted(common, What::RolledBack, (name, serial), || store.roll_back(name, serial));
    said(common, name, done)
}

fn said(common: &Common, name: &ImageName, done: Result<u64, Outcome>) -> Outcome {
    let serial = match done {
        Ok(serial) => serial,
        Err(outcome) => return outcome,
    };
    common.done(&json!({"name": name.as_str(), "serial": serial}), || {
        print(&format!(
            "domains with image {name} have serial {serial} from their next start on\n"
        ));
    })
}

pub(super) fn remove(common: &Common, pc: &Pc, name: &ImageName, serial: u64) -> Outcome {
    let mut record = match pc.record(common, name) {
        Ok(record) => record,
        Err(outcome) => return outcome,
    };
    // What is noted is done, but for a disk that a guest has open.
    if let Err(why) = record.remove(serial) {
        return pc.refuse(common, Some((name, serial)), &format!("image {name}: {why}"));
    }
    let store = pc.store();
    let done = pc.noted(common, What::Removed, (name, serial), || store.remove(name, serial));
    if let Err(outcome) = done {
        return outcome;
    }
    common.done(&json!({"name": name.as_str(), "serial": serial}), || {
        print(&format!("image {name} {serial} is removed; its floor stays\n"));
    })
}
