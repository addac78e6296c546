//! What IT does with images on a PC: they are installed, activated, taken back and removed.

use std::path::Path;

use ::images::manifest::ImageName;
use ::images::notes::{self, Note, What};
use ::images::record::{Record, Standing};
use ::images::store::{Arrival, Store, StoreError, standing};
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
    signers: Vec<String>,
}

impl Pc {
    fn store(&self) -> Store {
        Store::at(&self.images)
    }

    /// The trust store that counts on this PC.
    fn trust(&self, common: &Common) -> Result<TrustStore, Outcome> {
        // The policy is not read.
        let file = self.machine.with_file_name("policy.toml");
        let store = PolicyStore::for_looking(&file, &self.machine, &self.state);
        let (trust, report) =
            store.trust().map_err(|error| common.fail(Failure::No, &explain(&error)))?;
        if let Some(refused) = report.refused {
            complain(&format!(
                "bulkhead: warning: the trust store is refused, and the one before (serial {}) counts: {}\n",
                refused.serial, refused.why
            ));
        }
        trust.ok_or_else(|| {
            let why = format!(
                "there is no trust store {}, and images are taken signed only: have the security office lay one down in which officers may sign for `image`",
                self.machine.with_file_name("trust.toml").display()
            );
            common.fail(Failure::No, &why)
        })
    }

    /// Notes for the audit log what is about to be done, or was.
    fn note(
        &self,
        what: What,
        image: Option<&ImageName>,
        serial: Option<u64>,
        signers: &[String],
        why: Option<&str>,
    ) -> std::io::Result<()> {
        let note = Note {
            at: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            uid: getuid().as_raw(),
            what,
            image: image.map(ToString::to_string),
            serial,
            signers: signers.to_vec(),
            why: why.map(str::to_owned),
        };
        notes::add(&self.images, note)
    }

    /// Says why something is not done, and notes it where that can be.
    fn refuse(&self, common: &Common, image: Option<(&ImageName, u64)>, why: &str) -> Outcome {
        let (name, serial) = image.unzip();
        // An ordinary user changes nothing, and notes nothing.
        let _ = self.note(What::Refused, name, serial, &[], Some(why));
        common.fail(Failure::No, why)
    }

    /// Has something noted, and then done.
    fn noted<T>(
        &self,
        common: &Common,
        what: What,
        (name, serial): (&ImageName, u64),
        change: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, Outcome> {
        if let Err(error) = self.note(what, Some(name), Some(serial), &[], None) {
            let root = match error.kind() {
                std::io::ErrorKind::PermissionDenied => "; run this as root",
                _ => "",
            };
            let why = format!(
                "it cannot be noted for the audit log in {}, so it is not done: {error}{root}",
                self.images.display()
            );
            return Err(common.fail(Failure::No, &why));
        }
        change().map_err(|error| self.refuse(common, Some((name, serial)), &explain(&error)))
    }

    /// The record of a name, for what a command says of it.
    fn record(&self, common: &Common, name: &ImageName) -> Result<Record, Outcome> {
        let read = self.store().record(name);
        let found = read.and_then(|record| record.ok_or_else(|| StoreError::Unknown(name.clone())));
        found.map_err(|error| common.fail(Failure::No, &explain(&error)))
    }
}

pub(super) fn install(common: &Common, pc: &Pc, file: &Path) -> Outcome {
    let trust = match pc.trust(common) {
        Ok(trust) => trust,
        Err(outcome) => return outcome,
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
    let manifest = &approved.bundle().head().manifest;
    let mut progress = Progress::new(common, "installed", manifest.total());
    let installed = pc.store().install(&approved, |bytes| progress.add(bytes));
    drop(progress);
    let arrival = match installed {
        Ok(arrival) => arrival,
        Err(error) => {
            let why = format!("{}: {}", file.display(), explain(&error));
            return pc.refuse(common, Some((&name, serial)), &why);
        }
    };
    if arrival == Arrival::Installed
        && let Err(error) =
            pc.note(What::Installed, Some(&name), Some(serial), approved.signers(), None)
    {
        complain(&format!(
            "bulkhead: warning: that it is installed could not be noted for the audit log: {error}\n"
        ));
    }
    let is_new = arrival == Arrival::Installed;
    let report = json!({
        "name": name.as_str(), "serial": serial, "floor": manifest.floor, "bytes": manifest.total(), "signers": approved.signers(),
        "installed": is_new,
    });
    common.done(&report, || {
        let said = if is_new { "installed" } else { "was installed before" };
        print(&format!(
            "{}\n{said}, signed by {}; `bulkhead images activate {name} {serial}` lets it come into force at the next start of its domains\n",
            described(manifest),
            approved.signers().join(", ")
        ));
    })
}

pub(super) fn list(common: &Common, pc: &Pc) -> Outcome {
    let mut images = Vec::new();
    let names = match pc.store().names() {
        Ok(names) => names,
        Err(error) => return common.fail(Failure::No, &explain(&error)),
    };
    for name in names {
        let record = match pc.record(common, &name) {
            Ok(record) => record,
            Err(outcome) => return outcome,
        };
        images.extend(record.installed().map(|(serial, state, entry)| Listed {
            name: name.to_string(),
            serial,
            state,
            floor: record.floor(),
            bytes: entry.size,
            signers: entry.signers.clone(),
        }));
    }
    common.done(&json!({"images": images}), || print(&table(&images)))
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
            standing(it.state).to_owned(),
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
    let trust = match pc.trust(common) {
        Ok(trust) => trust,
        Err(outcome) => return outcome,
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
        let record = match pc.record(common, &name) {
            Ok(record) => record,
            Err(outcome) => return outcome,
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
    let verdict = match problems.as_slice() {
        [] => Ok(()),
        problems => Err(problems.join("; ")),
    };
    common.answer(verdict, &json!({"verified": verified}), || {
        for problem in &problems {
            complain(&format!("bulkhead: {problem}\n"));
        }
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
    // Nobody activates what an officer withdrew, or what is damaged.
    let trust = match pc.trust(common) {
        Ok(trust) => trust,
        Err(outcome) => return outcome,
    };
    let total = record.entry(wanted).map_or(0, |entry| entry.size);
    let mut progress = Progress::new(common, "read", total);
    let verified = pc.store().verify(name, wanted, &trust, |bytes| progress.add(bytes));
    drop(progress);
    if let Err(error) = verified {
        return pc.refuse(common, Some((name, wanted)), &explain(&error));
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
    let store = pc.store();
    let done = pc.noted(common, What::RolledBack, (name, serial), || store.roll_back(name));
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
    if let Err(outcome) = pc.record(common, name) {
        return outcome;
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
