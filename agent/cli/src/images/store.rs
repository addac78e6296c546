//! What IT does with images on a PC: they are installed, activated, taken back and removed.

use std::path::Path;

use ::images::manifest::ImageName;
use ::images::notes::{self, ImageAction, ImageNote};
use ::images::record::{ImageState, Record};
use ::images::store::{Arrival, Store, StoreError};
use config::files::{FilesError, read_machine_text};
use config::machine::{Boot, Context, DomainHardware, Kind, Machine};
use nix::unistd::getuid;
use policy::signature::{Purpose, TrustStore};
use serde_json::json;

use super::super::{Common, Failure, Outcome, complain, print};
use super::Pc;
use crate::bundles::BundleWording as _;
use crate::pc_trust;
use crate::progress::Progress;
use printable::explain;

/// What is to be done, for the note that it is refused.
struct Attempt<'a> {
    command: &'static str,
    /// The image, if it is known.
    image: Option<&'a ImageName>,
    /// Its serial, if it is.
    serial: Option<u64>,
}

impl Pc {
    pub(super) fn store(&self) -> Store {
        Store::at(&self.images)
    }

    /// Returns the trust store that counts on this PC.
    pub(super) fn trust(&self) -> Result<TrustStore, String> {
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
                let why = match self.machine.symlink_metadata() {
                    Ok(_) => explain(&error),
                    Err(_) => {
                        format!("there is no machine file {place} yet (`bulkhead setup` writes it)")
                    }
                };
                complain(&format!(
                    "bulkhead: warning: which domains have it, and whether they can run it, is not known: {why}\n"
                ));
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
    fn begun(what: ImageAction, image: Option<(&ImageName, u64)>) -> ImageNote {
        let (name, serial) = image.unzip();
        ImageNote {
            at: notes::now(),
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
    fn refuse(&self, common: &Common, refused: &Attempt<'_>, why: &str) -> Outcome {
        let Attempt { command, image, serial } = refused;
        let note = ImageNote {
            image: image.map(ToString::to_string),
            serial: *serial,
            why: Some(format!("{command}: {why}")),
            ..Self::begun(ImageAction::Refused, None)
        };
        // An ordinary user changes nothing, and notes nothing.
        let _ = notes::add(&self.images, note);
        common.fail(Failure::No, why)
    }

    /// Notes something for the audit log, and then does it.
    fn noted<T>(
        &self,
        common: &Common,
        what: ImageAction,
        wanted: &Attempt<'_>,
        change: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, Outcome> {
        let image = wanted.image.map(ToString::to_string);
        let note = ImageNote { image, serial: wanted.serial, ..Self::begun(what, None) };
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
    pub(super) fn found(&self, name: &ImageName) -> Result<Record, String> {
        let read = self.store().record(name);
        let found = read.and_then(|record| record.ok_or_else(|| StoreError::Unknown(name.clone())));
        found.map_err(|error| explain(&error))
    }

    /// Returns the records of a name, or of every name, and what is wrong with those that cannot be read.
    ///
    /// # Errors
    /// It cannot be told which names there are.
    pub(super) fn records(&self, name: Option<&ImageName>) -> Result<Records, String> {
        let names = match name {
            Some(name) => vec![name.clone()],
            None => self.store().names().map_err(|error| explain(&error))?,
        };
        let mut found = Records::default();
        for name in names {
            match self.found(&name) {
                Ok(record) => found.records.push((name, record)),
                Err(why) => found.problems.push(why),
            }
        }
        Ok(found)
    }

    /// Returns the record of a name, for a command that fails without one.
    fn record(&self, common: &Common, name: &ImageName) -> Result<Record, Outcome> {
        self.found(name).map_err(|why| common.fail(Failure::No, &why))
    }
}

/// The records of names, and what is wrong with those that cannot be read.
#[derive(Default)]
pub(super) struct Records {
    pub(super) records: Vec<(ImageName, Record)>,
    pub(super) problems: Vec<String>,
}

pub(super) fn install(common: &Common, pc: &Pc, file: &Path) -> Outcome {
    let is_refused = |refused: &Attempt<'_>, error: &dyn std::error::Error| {
        pc.refuse(common, refused, &format!("{} is refused: {}", file.display(), explain(error)))
    };
    let unknown = Attempt { command: "install", image: None, serial: None };
    let bundle = match ::images::bundle::Bundle::open(file) {
        Ok(bundle) => bundle,
        Err(error) => return is_refused(&unknown, &error),
    };
    let (name, serial) = (bundle.head().manifest.name.clone(), bundle.head().manifest.serial);
    let wanted = Attempt { image: Some(&name), serial: Some(serial), ..unknown };
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
        let note = ImageNote {
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
            manifest.described(),
            approved.signers().join(", ")
        ));
    })
}

pub(super) fn activate(common: &Common, pc: &Pc, name: &ImageName, serial: Option<u64>) -> Outcome {
    let record = match pc.record(common, name) {
        Ok(record) => record,
        Err(outcome) => return outcome,
    };
    let wanted = |serial| Attempt { command: "activate", image: Some(name), serial };
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
    let wanted = |serial| Attempt { command: "rollback", image: Some(name), serial };
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
    let wanted = Attempt { command: "remove", image: Some(name), serial: Some(serial) };
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
        if standing == Some(ImageState::Previous) {
            print("it was the image before: there is none any more that `bulkhead images rollback` could go back to\n");
        }
        if !comes_back {
            print("this PC does not take it again: a newer one was installed, or the floor is above it\n");
        }
    })
}
