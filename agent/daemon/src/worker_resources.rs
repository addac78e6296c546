//! What the mediators start workers with: their program, which is read once, and the cgroup of each domain's, whatever they serve.

use std::io;
use std::path::PathBuf;

use base::accounts::Accounts;
use config::cores::{self, Plan, TooFewCores};
use config::machine::{DomainHardware, Kind, Machine};
use domains::cgroup::{CgroupError, Cgroups};
use printable::explain;
use workers::{Program, reserved_user};

/// File name of the workers' program, beside the agent's.
pub(crate) const WORKER: &str = "bulkhead-worker";

/// What a worker cannot be started without, or not be held by: the program, and a cgroup for each domain.
#[derive(Debug)]
pub(crate) struct WorkerResources {
    /// The program, or why there is none.
    pub(crate) program: io::Result<Program>,
    /// The groups of all domains, in their order in the machine file; `None` for those that have none.
    groups: Vec<Option<PathBuf>>,
}

impl WorkerResources {
    /// Reads the program, and makes the groups or finds those of an earlier agent again.
    pub(crate) fn prepare(
        machine: &Machine,
        cores: &Result<Plan, TooFewCores>,
        cgroups: Option<&Cgroups>,
    ) -> Self {
        let of = |entry: &DomainHardware| {
            let cpus = cpus(entry, cores);
            cgroups
                .and_then(|cgroups| group(cgroups.workers_of_domain(&entry.name, cpus.as_deref())))
        };
        Self { program: read_program(), groups: machine.domains.iter().map(of).collect() }
    }

    /// Returns the group of the domain at this place in the machine file.
    pub(crate) fn group_of(&self, index: usize) -> Option<PathBuf> {
        self.groups.get(index).cloned().flatten()
    }
}

/// Reads the workers' program, which is nowhere but beside this one. Where its numbers are somebody else's too, the log says so once.
fn read_program() -> io::Result<Program> {
    let path = config::files::beside(WORKER).ok_or(io::ErrorKind::NotFound)?;
    let program = Program::read(&path)?;
    match reserved_user::taken_by(&Accounts::host(), &reserved_user::ALL) {
        Ok(None) => {}
        Ok(Some(taken)) => tracing::warn!("{taken}: {}", reserved_user::REMEDY),
        Err(error) => tracing::warn!("whether the workers' users are free is not known: {error}"),
    }
    Ok(program)
}

/// Returns the processors that a domain's workers are kept to: those of its VMM, or of what has none of its own.
fn cpus(entry: &DomainHardware, cores: &Result<Plan, TooFewCores>) -> Option<String> {
    match &entry.kind {
        // One for which there are too few does not start.
        Kind::Vm(hardware) => cores::cpus_of(cores, hardware, &entry.name).unwrap_or_default(),
        Kind::External => cores.as_ref().ok()?.of(&entry.name).map(str::to_owned),
    }
}

/// Returns a cgroup of workers. Where it cannot have what holds them besides their own sandbox, the log says so once.
pub(crate) fn group(made: Result<(PathBuf, Vec<&'static str>), CgroupError>) -> Option<PathBuf> {
    match made {
        Ok((group, missing)) => {
            if !missing.is_empty() {
                let (group, missing) = (group.display(), missing.join(", "));
                tracing::warn!("the workers in the cgroup {group} have no limit on {missing}");
            }
            Some(group)
        }
        Err(error) => {
            let error = explain(&error);
            tracing::warn!("workers run without limits of a cgroup: {error}");
            None
        }
    }
}
