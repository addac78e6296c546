//! What an agent cannot start without: looked for by one that starts, and by one that is to leave for another.

use std::path::PathBuf;

use super::preparation::check_socket_paths;
use super::{DaemonError, Options};
use config::files;
use config::machine::Kind;
use inforce::configuration::Configuration;
use inforce::policy_store::PolicyStore;

/// The inputs without which no agent starts.
pub(super) struct StartInputs {
    pub(super) store: PolicyStore,
    pub(super) configuration: Configuration,
    /// The VMM's program; none where no domain is this agent's.
    pub(super) vmm: PathBuf,
}

impl StartInputs {
    /// Looks for all of it, and changes nothing.
    pub(super) fn of(options: &Options) -> Result<Self, DaemonError> {
        let Options { machine, policy, layout, .. } = options;
        let store = PolicyStore::new(policy, machine, Some(&layout.state));
        let configuration = Configuration::read(machine, &store, &layout.images)?;
        check_socket_paths(&configuration.machine, layout)?;
        let runs_any =
            configuration.machine.domains.iter().any(|entry| matches!(entry.kind, Kind::Vm(_)));
        let vmm = runs_any.then(|| files::find_vmm(options.vmm.as_deref())).transpose()?;
        Ok(Self { store, configuration, vmm: vmm.unwrap_or_default() })
    }
}
