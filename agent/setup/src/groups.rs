//! Groups that setup cannot make.

use base::sockets::without_group;
use config::machine::{Kind, Machine};

/// Returns what is to be said of domains of others that can have no group of their own.
pub(crate) fn missing(machine: &Machine) -> Vec<String> {
    let external = machine.domains.iter().filter(|domain| domain.kind == Kind::External);
    let said = external.filter_map(|domain| {
        let (why, remedy) = without_group(&domain.name)?;
        Some(format!("{}: {why}; {remedy}", domain.name))
    });
    said.collect()
}
