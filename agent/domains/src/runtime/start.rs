//! A domain's VMM is started: what it is told, where it runs, and what is written down of it before it runs anything.

use std::ffi::OsString;
use std::fs;

use super::super::boot::{BootFiles, ImageSerial};
use super::super::capture::Capture;
use super::super::cgroup::{CgroupError, DomainGroup, Limits};
use super::super::disks;
use super::super::process::VmmProcess;
use super::super::record::{LaunchRecord, VmmRecord, digest};
use super::super::spec::{self, Start};
use super::super::vmm_control_client::VmmControlClient;
use super::super::{Parts, SupervisorContext};
use super::DomainRuntime;
use config::machine::Boot;
use printable::explain;
use vmm_control::VmSpec;

/// Returns why a domain is not started that is to have processors of its own.
pub(super) fn not_kept(cpus: Option<&str>, why: &str) -> String {
    format!(
        "it cannot be kept to the processors that `cores` in machine.toml leaves it ({}): {why}; take `cores` out of machine.toml, or see that the unit has cpuset in Delegate= and the kernel has cpusets",
        cpus.unwrap_or("all")
    )
}

impl DomainRuntime {
    /// Returns what its VMM is told to run; `discard` is whether it forgets what it writes.
    fn spec(&self, parts: &Parts, discard: bool, boot: &BootFiles) -> VmSpec {
        let (hardware, name) = (&self.devices.hardware, &self.policy.name);
        let files = disks::files(name, &hardware.disks, discard, &parts.layout);
        let start = Start {
            boot,
            disks: &files,
            sandbox_id: self.sandbox_id,
            seat: self.has_seat(parts),
            stop_deadline: self.lifecycle.stop_deadline(),
        };
        spec::of(name, hardware, &parts.layout, &start)
    }

    pub(super) fn has_seat(&self, parts: &Parts) -> bool {
        parts.seat.as_ref().and_then(|seat| seat.index(&self.policy.name)).is_some()
    }

    /// Returns how it would be started now; from the image that its VMM `runs`, if that is still its image.
    ///
    /// # Errors
    /// It could not be.
    pub(super) fn started_as(
        &self,
        parts: &Parts,
        discard: bool,
        runs: Option<&ImageSerial>,
    ) -> Result<(Vec<u8>, LaunchRecord), String> {
        let hardware = &self.devices.hardware;
        let is_own = |image: &&ImageSerial| hardware.boot == Boot::Image(image.image.clone());
        let boot = match (&self.boot, runs.filter(is_own)) {
            (Some(boot), _) => boot.clone(),
            (None, Some(image)) => BootFiles::installed(image, &parts.layout)?,
            (None, None) => BootFiles::expected(&self.policy.name, hardware, &parts.layout)?,
        };
        let text = spec::text(&self.spec(parts, discard, &boot)).map_err(|e| explain(&e))?;
        let functions = self.devices.hardware.pci_functions();
        let started = LaunchRecord {
            spec: digest(&text),
            sandbox_id: self.sandbox_id,
            functions: functions.map(|address| address.to_string()).collect(),
            image: boot.image,
        };
        Ok((text, started))
    }

    pub(super) fn spawn(&mut self, shared: &mut SupervisorContext) -> Result<(), String> {
        self.remove_sockets(shared);
        let group = self.make_group(shared)?;
        let (layout, name) = (&shared.parts.layout, self.policy.name.clone());
        let (text, started) = self.started_as(&shared.parts, self.devices.discard, None)?;
        let path = layout.vmm_log(&name);
        let (capture, log) = Capture::create(&path)
            .map_err(|error| format!("cannot make the VMM's log {}: {error}", path.display()))?;
        let level = &shared.parts.log_level;
        let arguments = ["run", "--spec-fd", "0", "--log-level", level].map(OsString::from);
        let (vmm, input) =
            VmmProcess::start(&shared.parts.vmm, &arguments, log).map_err(|e| explain(&e))?;
        let pid = vmm.identity().pid;
        tracing::info!(domain = name, pid, "VMM started");
        self.group = self.join_group(group, pid);
        let cpus = self.cpus.as_ref().ok().and_then(Option::as_deref);
        self.must_end = cpus
            .filter(|_| self.group.is_none())
            .map(|_| not_kept(cpus, "its VMM does not get into its cgroup, the log says why"));
        let record = VmmRecord::new(&name, &vmm, started);
        if let Err(error) = record.write(layout) {
            tracing::warn!(
                domain = name,
                "cannot write down the VMM: {error}; an agent that follows this one would end it"
            );
        }
        // Not before: whatever becomes of this agent, the next one knows the VMM that runs a guest. One that is gone is noticed otherwise.
        if self.must_end.is_some() {
            drop(input);
        } else if let Err(error) = spec::hand(&text, input) {
            tracing::warn!(domain = name, "the VMM does not take its specification: {error}");
        }
        self.control = VmmControlClient::new(&layout.vmm_socket(&name));
        (self.ask_next, self.unanswered) = (shared.now(), 0);
        self.seat_next = self.has_seat(&shared.parts).then(|| shared.now());
        self.guest_starts(shared.now());
        (self.vmm, self.capture) = (Some(vmm), Some(capture));
        (self.record, self.outdated) = (Some(record), None);
        Ok(())
    }

    /// Completes the record of its VMM, which has answered: from now on an agent that follows this one takes it up.
    pub(super) fn complete_record(&mut self, shared: &SupervisorContext) {
        let (Some(record), Some(vmm)) = (&mut self.record, &self.vmm) else { return };
        if record.answered {
            return;
        }
        record.complete(vmm);
        if let Err(error) = record.write(&shared.parts.layout) {
            tracing::warn!(
                domain = self.policy.name,
                "cannot write down that the VMM answered: {error}"
            );
        }
    }

    /// Removes the sockets that a VMM left that died: the next one could not listen there.
    fn remove_sockets(&self, shared: &SupervisorContext) {
        let Ok(entries) = fs::read_dir(shared.parts.layout.domain(&self.policy.name)) else {
            return;
        };
        for entry in entries.flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "sock")
                && let Err(error) = fs::remove_file(entry.path())
            {
                tracing::warn!(domain = self.policy.name, "cannot remove an old socket: {error}");
            }
        }
    }

    /// Makes its VMM's group, before there is a VMM: one that could not be kept to its processors is not started.
    ///
    /// # Errors
    /// It is to have processors of its own, and cannot.
    fn make_group(&self, shared: &SupervisorContext) -> Result<Option<DomainGroup>, String> {
        let cpus = self.cpus.as_ref().map_err(Clone::clone)?.as_deref();
        let Some(cgroups) = shared.parts.cgroups.as_ref() else {
            return match cpus {
                Some(_) => Err(not_kept(cpus, "there are no cgroups, the log says why")),
                None => Ok(None),
            };
        };
        let limits = Limits {
            memory: self.devices.hardware.memory.bytes(),
            high_priority: self.policy.high_priority,
        };
        let (group, missing) = match cgroups.domain(&self.policy.name, limits) {
            Ok(made) => made,
            Err(error) if cpus.is_none() => {
                self.warn_of_no_limits(&error);
                return Ok(None);
            }
            Err(error) => return Err(explain(&error)),
        };
        if !missing.is_empty() && self.lifecycle.restarts() == 0 {
            tracing::warn!(
                domain = self.policy.name,
                "the kernel does not offer {}; the domain runs without",
                missing.join(", ")
            );
        }
        group.keep_to(cpus).map_err(|error| not_kept(cpus, &explain(&error)))?;
        Ok(Some(group))
    }

    fn join_group(&self, group: Option<DomainGroup>, pid: i32) -> Option<DomainGroup> {
        let group = group?;
        if let Err(error) = group.add(pid) {
            self.warn_of_no_limits(&error);
            return None;
        }
        Some(group)
    }

    fn warn_of_no_limits(&self, error: &CgroupError) {
        tracing::warn!(
            domain = self.policy.name,
            "no limits on CPU and memory: {}",
            explain(error)
        );
    }
}
