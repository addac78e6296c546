//! The policy and the machine file that this PC has when setup begins.

use std::fs;
use std::io;

use config::domain_policies::{self, DomainPolicy};
use config::files::{FileFault, FilesError, read_machine_text, read_policy_in_force};
use config::machine::{Context, Machine};
use policy::Policy;
use printable::explain;

use crate::{Options, Stop};

/// The policy that the package brings, under which nothing crosses.
const DELIVERED: &str = "/usr/share/bulkhead/policy.toml";

/// Returns the domains of the policy that is to be in force.
pub(crate) fn domain_policies(options: &Options) -> Result<Vec<DomainPolicy>, Stop> {
    let text = read_policy_in_force(&options.policy).map_err(|error| {
        Stop::refused(match error {
            FilesError::Read { fault: FileFault::Missing, .. } => format!(
                "there is no policy {}, and setup asks it which domains this PC has: put that of your security office there (`bulkhead policy new` writes one to begin with, and {DELIVERED} is the one that the package brings), or name another with --policy",
                options.policy.display()
            ),
            error => format!("{}; setup asks it which domains this PC has", explain(&error)),
        })
    })?;
    let policy = Policy::parse(&options.policy.display().to_string(), &text).map_err(|found| {
        Stop::refused(format!(
            "the policy has mistakes, and nothing was changed\n{}",
            found.render(false).trim_end()
        ))
    })?;
    Ok(domain_policies::of(&policy))
}

/// Returns the machine file that is there, if somebody has filled it in: the package's own says nothing yet but its format.
pub(crate) fn machine(
    options: &Options,
    domain_policies: &[DomainPolicy],
) -> Result<Option<(String, Machine)>, Stop> {
    if fs::symlink_metadata(&options.machine).is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
        return Ok(None);
    }
    let text =
        read_machine_text(&options.machine).map_err(|error| Stop::refused(explain(&error)))?;
    let says = |line: &str| !line.is_empty() && !line.starts_with('#');
    let mut lines = text.lines().map(str::trim).filter(|line| says(line));
    if lines.all(|line| line.starts_with("format")) {
        return Ok(None);
    }
    // It need not agree with the policy yet: that is what setup is for.
    let known: Vec<&str> = domain_policies.iter().map(|policy| policy.name.as_str()).collect();
    let context = Context { images: &options.images, domain_policies: None };
    let machine = Machine::parse(&options.machine.display().to_string(), &text, context);
    match machine {
        Ok(machine) => match machine.domains.iter().find(|d| !known.contains(&d.name.as_str())) {
            Some(other) => Err(Stop::refused(format!(
                "{} has a section [domain.{}], and the policy has no such domain: take it out, or put the right policy in its place, and run this again",
                options.machine.display(),
                other.name
            ))),
            None => Ok(Some((text, machine))),
        },
        Err(found) => Err(Stop::refused(format!(
            "the machine file has mistakes: mend them, or move it away to have a new one proposed\n{}",
            found.render(false).trim_end()
        ))),
    }
}
