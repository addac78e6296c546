//! This PC's fitness to run its domains: findings, each with its remedy. Reads only but for what [`repair`] mends when asked to, needs no
//! agent, and asks each question on its own, so that one visit of IT finds everything.
//!
//! | file | asks about |
//! | --- | --- |
//! | `host` | KVM, IOMMU, VFIO, cgroups, the host's network |
//! | `processor` | what one domain may find out of another by the processor |
//! | `platform` | what listens, Secure Boot |
//! | `encryption` | whether the disk is encrypted, and what opens it |
//! | `tpm` | the TPM that can open it |
//! | `pressure` | whether a domain that hammers the disk slows the others down, and whether anybody hears of it |
//! | `disk_health`, `disk_space` | whether a disk fails or is full |
//! | `disks`, `smart` | for these: which disks root, state and images are on, and what a disk says of itself |
//! | `sleep` | whether the PC can sleep |
//! | `devices` | every function the machine file hands over |
//! | `seat` | screen, keyboard, pointer, font |
//! | `software` | the two files, images, memory, the VMM |
//! | `trust` | who may sign what on this PC |
//! | `program` | updates of Bulkhead that came by a bundle |
//! | `service` | the unit, the modules it wants, who has which role |
//! | `usb` | USB controllers, and whether they withhold what is plugged in |
//! | `worker` | what reads guests' clipboards, and decodes pictures that are pasted |
//! | `numbers` | whether the users of VMMs and of the worker are nobody else's to take |
//! | `clock` | the time, and what it is read from |
//! | `leftovers` | what an earlier agent, a setup or an installation left behind |
//! | `audit_log` | the log, and its disk |
//!
//! `meaning` says of each what it means to the ward.
//!
//! What could not be looked at is never `ok`: it is a warning that says so.
// A print waits for its reader, and panics when that is gone.
#![deny(clippy::print_stderr)]
#![forbid(unsafe_code)]

pub mod audit_log;
mod clock;
mod devices;
mod disk_health;
mod disk_space;
mod disks;
mod encryption;
#[cfg(test)]
mod fake;
mod host;
mod leftovers;
mod meaning;
mod numbers;
mod platform;
mod pressure;
mod processor;
mod program;
pub mod repair;
mod seat;
mod service;
mod sleep;
mod smart;
mod software;
#[cfg(test)]
mod tests;
mod tpm;
mod trust;
mod usb;
mod worker;

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use base::durable;
use config::files;
pub use control::findings::{Finding, Level, Repair};
use domains::host_network::Rule;
use handover::sysfs::HostSysfs;
use images::store::Store;
use inforce::policy_store::PolicyStore;
use recorder::directory;

use base::layout;

/// The folders in which the doctor looks; the system's own, or a test's.
pub struct SystemPaths {
    /// `/sys`.
    pub sysfs: HostSysfs,
    /// `/proc`.
    pub proc: PathBuf,
    /// `/dev`.
    pub dev: PathBuf,
    /// `/`, for what is installed and who has an account.
    pub root: PathBuf,
}

impl SystemPaths {
    #[must_use]
    pub fn this_pc() -> Self {
        Self {
            sysfs: HostSysfs::system(),
            proc: PathBuf::from("/proc"),
            dev: PathBuf::from("/dev"),
            root: PathBuf::from("/"),
        }
    }

    fn sys_text(&self, below: &str) -> Option<String> {
        text(&self.sysfs.path(below))
    }

    fn proc_text(&self, below: &str) -> Option<String> {
        text(&self.proc.join(below))
    }
}

/// Returns the text of a file. Of what is no UTF-8, as a mount point of anybody's or a name may be, only that is replaced: the rest says what it says.
fn text(path: &Path) -> Option<String> {
    let text = fs::read(path).ok()?;
    Some(String::from_utf8_lossy(&text).trim().to_owned())
}

/// Returns where the version 2 hierarchy is mounted, from `/proc/self/mounts`.
fn cgroup_mount(mounts: &str) -> Option<&str> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (point, kind) = (fields.nth(1)?, fields.next()?);
        (kind == "cgroup2").then_some(point)
    })
}

/// The files and directories of an agent that the doctor examines.
#[derive(Debug, Clone)]
pub struct InputFiles {
    /// The machine file.
    pub machine: PathBuf,
    pub policy: PathBuf,
    /// Where relative images lie.
    pub images: PathBuf,
    /// The agent's state directory.
    pub state: PathBuf,
    /// The agent's runtime directory.
    pub runtime: PathBuf,
    /// The VMM, if not the usual one.
    pub vmm: Option<PathBuf>,
}

/// Examines a PC.
#[must_use]
pub fn examine(system: &SystemPaths, inputs: &InputFiles) -> Vec<Finding> {
    let (machine, mut findings) = software::input_files(inputs);
    let machine = machine.as_ref();
    let needs = host::HardwareNeeds::of(machine);
    findings.extend(host::examine(system, needs));
    let leaving = machine.map(|machine| devices::interfaces(system, machine)).unwrap_or_default();
    findings.push(host::network(machine.map(Rule::of), &leaving));
    findings.push(platform::listening(system));
    findings.push(platform::secure_boot(system));
    let encryption = encryption::examine(system, &inputs.state);
    let tpm = tpm::examine(system, &encryption);
    findings.extend([encryption, tpm]);
    let layout = layout::Layout {
        images: inputs.images.clone(),
        state: inputs.state.clone(),
        runtime: inputs.runtime.clone(),
    };
    let storage = disks::Storage::look(system, inputs, machine);
    findings.extend(disk_health::examine(system, &storage, &smart::ask, SystemTime::now()));
    findings.extend(disk_space::examine(&storage, &layout, &system.root, machine));
    findings.push(software::vmm(inputs, needs));
    findings.push(program::examine(&inputs.state));
    findings.extend(worker::examine(system, files::beside(worker::PROGRAM).as_deref(), machine));
    findings.extend(numbers::examine(system));
    findings.extend(service::unit(system));
    findings.push(service::modules(system));
    findings.extend(service::roles(system, machine));
    findings.extend(usb::examine(system, &layout.usb_switches()));
    findings.extend(clock::examine(system, &directory(&inputs.state), SystemTime::now()));
    match machine {
        Some(machine) => {
            findings.extend(seat::examine(&machine.seat));
            findings.extend(software::memory(system, machine));
            findings.push(processor::cores(system, machine));
            findings.extend(pressure::weights(system, machine));
            let images = Store::at(&inputs.images);
            findings.extend(software::images(machine, &images));
            let policies =
                PolicyStore::for_looking(&inputs.policy, &inputs.machine, &inputs.state);
            // What is wrong with the trust store is a finding of its own.
            if let Ok((trust, _)) = policies.trust() {
                findings.extend(software::signatures(machine, &images, trust.as_ref()));
            }
            findings.extend(devices::examine(system, machine));
        }
        None => findings.push(Finding::warn(
            "machine-file",
            "not looked at, as it is the machine file that names them: seat, memory, images, and what is handed over",
            "see to the finding `machine-file` above, and run this again",
        )),
    }
    let elsewhere = [durable::directory(&inputs.policy).to_owned(), inputs.runtime.clone()];
    findings.push(audit_log::examine(&inputs.state, &elsewhere));
    let limits = machine.map(|machine| machine.audit).unwrap_or_default();
    findings.push(audit_log::disk(&inputs.state, &limits));
    findings.extend(leftovers::examine(system, &layout, machine));
    for finding in &mut findings {
        finding.ward = meaning::of(finding).map(Cow::Borrowed);
    }
    findings
}
