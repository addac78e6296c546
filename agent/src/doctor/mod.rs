//! This PC's fitness to run its domains: findings, each with its remedy. Reads only, needs no
//! agent, and asks each question on its own, so that one visit of IT finds everything.
//!
//! | file | asks about |
//! | --- | --- |
//! | `host` | KVM, IOMMU, VFIO, cgroups, the host's network |
//! | `devices` | every function the machine file hands over |
//! | `seat` | screen, keyboard, pointer, font |
//! | `software` | the two files, images, memory, the VMM |

pub mod audit_log;
mod devices;
mod host;
mod seat;
mod software;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::files::Files;
use crate::pci::sysfs::Sysfs;

/// Where the doctor looks; the system's own, or a test's.
pub struct Patient {
    /// `/sys`.
    pub sysfs: Sysfs,
    /// `/proc`.
    pub proc: PathBuf,
    /// `/dev`.
    pub dev: PathBuf,
}

impl Patient {
    /// This PC.
    #[must_use]
    pub fn this_pc() -> Self {
        Self { sysfs: Sysfs::system(), proc: PathBuf::from("/proc"), dev: PathBuf::from("/dev") }
    }

    fn sys_text(&self, below: &str) -> Option<String> {
        text(&self.sysfs.path(below))
    }

    fn proc_text(&self, below: &str) -> Option<String> {
        text(&self.proc.join(below))
    }
}

fn text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// The files the doctor is shown.
#[derive(Debug, Clone)]
pub struct Papers {
    /// The machine file.
    pub machine: PathBuf,
    /// The policy.
    pub policy: PathBuf,
    /// Where relative images lie.
    pub images: PathBuf,
    /// The VMM, if not the usual one.
    pub vmm: Option<PathBuf>,
}

/// How a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Works, and somebody should look.
    Warn,
    /// Does not work.
    Fail,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How it is.
    pub level: Level,
    /// What was asked: a stable word for scripts.
    pub check: &'static str,
    /// The domain, the device or the file, when there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// What was found.
    pub message: String,
    /// What to do, unless all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self { level: Level::Ok, check, subject: None, message: message.into(), remedy: None }
    }

    fn warn(check: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Warn, remedy: Some(remedy.into()), ..Self::ok(check, message) }
    }

    fn fail(check: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Fail, remedy: Some(remedy.into()), ..Self::ok(check, message) }
    }

    fn of(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }
}

/// Examines a PC.
#[must_use]
pub fn examine(patient: &Patient, papers: &Papers) -> Vec<Finding> {
    let (files, mut findings) = software::papers(papers);
    let machine = files.as_ref().map(|files| &files.machine);
    findings.extend(host::examine(patient));
    let allowed = machine.is_some_and(|machine| machine.allow_host_network);
    let leaving = machine.map(|machine| devices::interfaces(patient, machine)).unwrap_or_default();
    findings.push(host::network(allowed, &leaving));
    findings.push(software::vmm(papers));
    if let Some(Files { machine, .. }) = &files {
        findings.extend(seat::examine(&machine.seat));
        findings.extend(software::memory(patient, machine));
        findings.extend(software::images(machine));
        findings.extend(devices::examine(patient, machine));
    }
    findings
}
