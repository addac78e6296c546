//! Checks and limits at the start.

use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};

use super::DaemonError;
use super::mediators::Mediators;
use base::layout::{Layout, SOCKET_PATH_MAX};
use config::machine::{Kind, Machine};

pub(super) fn check_socket_paths(machine: &Machine, layout: &Layout) -> Result<(), DaemonError> {
    let mut paths = vec![layout.control_socket()];
    for domain in &machine.domains {
        paths.push(layout.vmm_socket(&domain.name));
        if let Kind::Vm(vm) = &domain.kind {
            paths.extend(vm.ports.iter().map(|port| layout.port_socket(&domain.name, port)));
        }
        paths.extend(Mediators::sockets(layout, domain));
    }
    match paths.into_iter().find(|path| path.as_os_str().len() > SOCKET_PATH_MAX) {
        Some(path) => Err(DaemonError::SocketPath(path)),
        None => Ok(()),
    }
}

/// Raises the limit of locked memory: a VMM with a passed-through device locks its guest's whole memory.
pub(super) fn raise_memlock(machine: &Machine) {
    let passes_through =
        |kind: &Kind| matches!(kind, Kind::Vm(vm) if vm.pci_functions().next().is_some());
    if machine.domains.iter().any(|domain| passes_through(&domain.kind))
        && let Err(error) = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY)
    {
        tracing::warn!(
            "cannot raise the limit on locked memory ({error}); `bulkhead doctor` says whether it suffices"
        );
    }
}
