//! What IT does with images on a PC: they are installed, activated, taken back and removed.

use std::path::Path;

use ::images::digest::Digest;
use ::images::manifest::ImageName;
use ::images::notes::{self, ImageAction, Note};
use ::images::record::{Record, Standing};
use ::images::store::{Arrival, Store, StoreError, standing};
use config::files::{FilesError, read_machine_text};
use config::machine::{Boot, Context, DomainHardware, Kind, Machine};
use nix::unistd::getuid;
use policy::signature::{Purpose, TrustStore};
use serde::Serialize;
use serde_json::json;

use super::super::{Common, Failure, Outcome, complain, print};
use super::progress::Progress;
use super::{Pc, described, size};
use crate::pc_trust;
use printable::explain;

/// What is to be done, for the note that it is refused.
struct Refused<'a> {
    command: &'static str,
    /// The image, if it is known.
    image: Option<&'a ImageName>,
    /// Its serial, if it is.
    serial: Option<u64>,
}

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
    /// The digest of its manifest, as `check` and `sign` show it.
    manifest: Digest,
    /// The domain whose guest has to come up first, if it is in force.
    tried_in: Option<String>,
    /// Why it could not come into force with the last start, if it is to.
    refused: Option<String>,
}

impl Pc {
    fn store(&self) -> Store {
        Store::at(&self.images)
    }

    /// Returns the trust store that counts on this PC.
    fn trust(&self) -> Result<TrustStore, String> {
        pc_trust::read(&self.machine, &self.state, Purpose::Image)
    }

    /// Returns the domains of this PC's machine file whose image this is; `None` where there is no such file yet, or it cannot be read.
    fn domains(&self, name: &ImageName) -> Option<Vec<DomainHardware>> {
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
                        "bulkhead: warning: which domains have it, and whether they can run it, is not known: {}\n",
                        explain(&error)
                    ));
                }
                return None;
            }
        };
        let has = |domain: &DomainHardware| match &domain.kind {
            Kind::Vm(vm) => vm.boot == Boot::Image(name.clone()),
            Kind::External => false,
        };
        Some(machine.domains.into_iter().filter(has).collect())
    }

    /// Begins a note for the audit log.
    fn begun(what: ImageAction, image: Option<(&ImageName, u64)>) -> Note {
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

    /// Says why something is not done, and notes it where that can be, with what was to be done.
    fn refuse(&self, common: &Common, refused: &Refused<'_>, why: &str) -> Outcome {
        let Refused { command, image, serial } = refused;
        let note = Note {
            image: image.map(ToString::to_string),
            serial: *serial,
            why: Some(format!("{command}: {why}")),
            ..Self::begun(ImageAction::Refused, None)
        };
        // An ordinary user changes nothing, and notes nothing.
        let _ = notes::add(&self.images, note);
        common.fail(Failure::No, why)
    }

    /// Has something noted, and then done.
    fn noted<T>(
        &self,
        common: &Common,
        what: ImageAction,
        wanted: &Refused<'_>,
        change: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, Outcome> {
        let image = wanted.image.map(ToString::to_string);
        let note = Note { image, serial: wanted.serial, ..Self::begun(what, None) };
        let noted = notes::add(&self.images, note);
        let done = noted.map_err(|source| StoreError::NotNoted { source }).and_then(|()| change());
        done.map_err(|error| self.refuse(common, wanted, &explain(&error)))
    }

    /// Checks that an installed image may come into force: nobody withdrew it, it is what was signed, and its domains can run it. Returns those, if they are
    /// known.
    fn checked(
        &self,
        common: &Common,
        name: &ImageName,
        record: &Record,
        serial: u64,
    ) -> Result<Option<Vec<DomainHardware>>, String> {
        let trust = self.trust()?;
        let total = record.entry(serial).map_or(0, |entry| entry.size);
        let mut progress = Progress::new(common, "read", total);
        let store = self.store();
        store
            .verify(name, serial, &trust, |bytes| progress.add(bytes))
            .map_err(|error| explain(&error))?;
        let image = store.image(name, serial).map_err(|error| explain(&error))?;
        let domains = self.domains(name);
        let misfit = |domain: &DomainHardware| match &domain.kind {
            Kind::Vm(vm) => Some(format!("{}: {}", domain.name, vm.fits(&image.manifest).err()?)),
            Kind::External => None,
        };
        let misfits: Vec<String> = domains.iter().flatten().filter_map(misfit).collect();
        if misfits.is_empty() { Ok(domains) } else { Err(misfits.join("; ")) }
    }

    /// Returns the record of a name, or why there is none.
    fn found(&self, name: &ImageName) -> Result<Record, String> {
        let read = self.store().record(name);
        let found = read.and_then(|record| record.ok_or_else(|| StoreError::Unknown(name.clone())));
        found.map_err(|error| explain(&error))
    }

    /// Returns the record of a name, for a command that fails without one.
    fn record(&self, common: &Common, name: &ImageName) -> Result<Record, Outcome> {
        self.found(name).map_err(|why| common.fail(Failure::No, &why))
    }
}

pub(super) fn install(common: &Common, pc: &Pc, file: &Path) -> Outcome {
    let is_refused = |refused: &Refused<'_>, error: &dyn std::error::Error| {
        pc.refuse(common, refused, &format!("{} is refused: {}", file.display(), explain(error)))
    };
    let unknown = Refused { command: "install", image: None, serial: None };
    let bundle = match ::images::bundle::Bundle::open(file) {
        Ok(bundle) => bundle,
        Err(error) => return is_refused(&unknown, &error),
    };
    let (name, serial) = (bundle.head().manifest.name.clone(), bundle.head().manifest.serial);
    let wanted = Refused { image: Some(&name), serial: Some(serial), ..unknown };
    let trust = match pc.trust() {
        Ok(trust) => trust,
        Err(why) => return pc.refuse(common, &wanted, &why),
    };
    let approved = match bundle.approve(&trust) {
        Ok(approved) => approved,
        Err(error) => return is_refused(&wanted, &error),
    };
    let head = approved.bundle().head();
    let manifest = &head.manifest;
    let note = |arrival: Arrival| {
        let what = if arrival == Arrival::Repaired {
            ImageAction::Repaired
        } else {
            ImageAction::Installed
        };
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
            return pc.refuse(common, &wanted, &why);
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
        images.extend(record.installed().map(|(serial, state, entry)| {
            Listed {
                name: name.to_string(),
                serial,
                state,
                floor: record.floor(),
                bytes: entry.size,
                below_floor: serial < record.floor(),
                signers: entry.signers.clone(),
                keys: entry.keys.clone(),
                trust: entry.trust,
                manifest: entry.manifest,
                tried_in: record
                    .tried_in()
                    .filter(|_| state == Standing::InForce)
                    .map(str::to_owned),
                refused: record
                    .refused()
                    .filter(|refused| refused.serial == serial)
                    .map(|refused| format!("at a start of {}: {}", refused.domain, refused.why)),
            }
        }));
    }
    let interrupted = pc.store().interrupted().unwrap_or_default();
    let verdict = verdict(&problems);
    let names: Vec<&str> = interrupted.iter().map(|(name, _)| name.as_str()).collect();
    common.answer(verdict, &json!({"images": images, "interrupted": names}), || {
        told(&problems);
        if problems.is_empty() || !images.is_empty() {
            print(&table(&images));
        }
        for it in &images {
            print(&format!("{} {}: manifest SHA-256 {}\n", it.name, it.serial, it.manifest));
        }
        for it in &images {
            if let Some(why) = &it.refused {
                print(&format!("{} {} could not come into force {why}\n", it.name, it.serial));
            }
        }
        for (name, place) in &interrupted {
            print(&format!(
                "{name}: a command is at work, or was interrupted, and left {}: `bulkhead images install` with its bundle goes on; to give it up, delete that folder\n",
                place.display()
            ));
        }
    })
}

/// Joins what is wrong with images into one error, once all were looked at.
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
            match (it.state, &it.tried_in) {
                (Standing::InForce, _) if it.below_floor => "in force, BELOW THE FLOOR".to_owned(),
                (Standing::InForce, Some(domain)) => format!("in force, on trial in {domain}"),
                (state, _) => standing(state).to_owned(),
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
                Ok(signers) => verified.push(json!({
                    "name": name.as_str(), "serial": serial, "signers": signers, "manifest": entry.manifest,
                    "bytes": entry.size,
                })),
                Err(error) => problems.push(explain(&error)),
            }
        }
    }
    common.answer(verdict(&problems), &json!({"verified": verified}), || {
        told(&problems);
        let count = u64::try_from(verified.len()).unwrap_or(u64::MAX);
        let text = |it: &serde_json::Value, key: &str| {
            it.get(key).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
        };
        for it in &verified {
            let number = |key: &str| it.get(key).and_then(serde_json::Value::as_u64).unwrap_or(0);
            let signers = it.get("signers").and_then(serde_json::Value::as_array);
            let signers = signers.into_iter().flatten().filter_map(serde_json::Value::as_str);
            print(&format!(
                "{} {}: {} read, signed by {}; manifest SHA-256 {}\n",
                text(it, "name"),
                number("serial"),
                size(number("bytes")),
                signers.collect::<Vec<_>>().join(", "),
                text(it, "manifest")
            ));
        }
        let counted = printable::counted(count, "image is", "images are");
        let failed = match problems.len() {
            0 => String::new(),
            failed => format!(", and {failed} not or not known to be"),
        };
        print(&format!("{counted} what was signed{failed}\n"));
    })
}

pub(super) fn activate(common: &Common, pc: &Pc, name: &ImageName, serial: Option<u64>) -> Outcome {
    let record = match pc.record(common, name) {
        Ok(record) => record,
        Err(outcome) => return outcome,
    };
    let wanted = |serial| Refused { command: "activate", image: Some(name), serial };
    // What is noted is what is done, whatever is installed meanwhile.
    let found = match record.clone().activate(serial) {
        Ok(serial) => serial,
        Err(why) => return pc.refuse(common, &wanted(serial), &format!("image {name}: {why}")),
    };
    let wanted = wanted(Some(found));
    let domains = match pc.checked(common, name, &record, found) {
        Ok(domains) => domains,
        Err(why) => return pc.refuse(common, &wanted, &why),
    };
    let store = pc.store();
    let done = pc.noted(common, ImageAction::Activated, &wanted, || {
        store.activate(name, Some(found)).map(Some)
    });
    said(common, name, domains, done)
}

pub(super) fn roll_back(common: &Common, pc: &Pc, name: &ImageName) -> Outcome {
    let record = match pc.record(common, name) {
        Ok(record) => record,
        Err(outcome) => return outcome,
    };
    let wanted = |serial| Refused { command: "rollback", image: Some(name), serial };
    let serial = match record.clone().roll_back() {
        Ok(serial) => serial,
        Err(why) => {
            let why = format!("image {name}: {why}");
            return pc.refuse(common, &wanted(record.current()), &why);
        }
    };
    // Nobody goes back to what an officer withdrew, or what is damaged. What is in force stays so without being looked at.
    let checked = match serial {
        Some(serial) if record.current() != Some(serial) => {
            pc.checked(common, name, &record, serial)
        }
        _ => Ok(pc.domains(name)),
    };
    let domains = match checked {
        Ok(domains) => domains,
        Err(why) => return pc.refuse(common, &wanted(serial), &why),
    };
    let store = pc.store();
    let done = pc
        .noted(common, ImageAction::RolledBack, &wanted(serial), || store.roll_back(name, serial));
    said(common, name, domains, done)
}

/// Says what the domains with an image start from, and what lets them.
fn said(
    common: &Common,
    name: &ImageName,
    domains: Option<Vec<DomainHardware>>,
    done: Result<Option<u64>, Outcome>,
) -> Outcome {
    let serial = match done {
        Ok(serial) => serial,
        Err(outcome) => return outcome,
    };
    let domains = domains.map(|all| all.into_iter().map(|it| it.name).collect::<Vec<_>>());
    let report = json!({"name": name.as_str(), "serial": serial, "domains": domains});
    common.done(&report, || {
        let Some(serial) = serial else {
            print(&format!(
                "image {name}: no serial is to come into force any more, and none is in force, so that its domains do not start; `bulkhead images activate {name}` with a serial of `bulkhead images list` lets them\n"
            ));
            return;
        };
        print(&format!("domains with image {name} have serial {serial} from their next start on\n"));
        match domains.as_deref() {
            None => {}
            Some([]) => complain(&format!(
                "bulkhead: warning: no domain in machine.toml has this image: write `image = \"{name}\"` into the section of one, in the place of `kernel`, `initrd` and `cmdline`\n"
            )),
            Some(domains) => {
                let commands = domains.iter().map(|domain| format!("`bulkhead restart {domain}`"));
                let commands: Vec<String> = commands.collect();
                print(&format!("when nobody works there: {}\n", commands.join(", ")));
            }
        }
    })
}

pub(super) fn remove(common: &Common, pc: &Pc, name: &ImageName, serial: u64) -> Outcome {
    let record = match pc.record(common, name) {
        Ok(record) => record,
        Err(outcome) => return outcome,
    };
    let wanted = Refused { command: "remove", image: Some(name), serial: Some(serial) };
    let standing =
        record.installed().find(|(it, ..)| *it == serial).map(|(_, standing, _)| standing);
    // What is noted is done, but for a disk that a guest has open.
    let mut after = record.clone();
    if let Err(why) = after.remove(serial) {
        return pc.refuse(common, &wanted, &format!("image {name}: {why}"));
    }
    let store = pc.store();
    let done = pc.noted(common, ImageAction::Removed, &wanted, || store.remove(name, serial));
    if let Err(outcome) = done {
        return outcome;
    }
    let comes_back = record.entry(serial).is_ok_and(|it| after.admits(serial, it.manifest).is_ok());
    let report = json!({"name": name.as_str(), "serial": serial, "comes_back": comes_back});
    common.done(&report, || {
        print(&format!("image {name} {serial} is removed; its floor stays\n"));
        if standing == Some(Standing::Previous) {
            print("it was the image before: there is none any more that `bulkhead images rollback` could go back to\n");
        }
        if !comes_back {
            print("this PC does not take it again: a newer one was installed, or the floor is above it\n");
        }
    })
}
