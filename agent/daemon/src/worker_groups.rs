//! The cgroup of each domain's workers, whatever they serve.

use std::path::PathBuf;

use config::cores::{self, Plan, TooFewCores};
use config::machine::{DomainHardware, Kind, Machine};
use domains::cgroup::{CgroupError, Cgroups};
use printable::explain;

/// Those of all domains, in their order in the machine file; `None` for those that have none.
#[derive(Debug, Default)]
pub(crate) struct WorkerGroups(Vec<Option<PathBuf>>);

impl WorkerGroups {
    /// Makes them, or finds them again.
    pub(crate) fn make(
        machine: &Machine,
        cores: &Result<Plan, TooFewCores>,
        cgroups: Option<&Cgroups>,
    ) -> Self {
        let of = |entry: &DomainHardware| {
            let cpus = cpus(entry, cores);
            cgroups
                .and_then(|cgroups| group(cgroups.workers_of_domain(&entry.name, cpus.as_deref())))
        };
        Self(machine.domains.iter().map(of).collect())
    }

    /// Returns that of the domain at this place in the machine file.
    pub(crate) fn of(&self, index: usize) -> Option<PathBuf> {
        self.0.get(index).cloned().flatten()
    }
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
