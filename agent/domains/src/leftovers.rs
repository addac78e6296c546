//! VMMs of an earlier agent whose domains this PC does not have any more, and what these wrote to disks that forget. VMMs are ended in an
//! orderly way: power button, deadline, end, kill. Those of domains that there are is [`DomainRuntime`](super::DomainRuntime)'s business ([`super::adoption`]).

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use clock::Moment;

use nix::sys::signal::Signal;

use super::adoption::{EarlierVmm, find};
use super::cgroup::Cgroups;
use super::disks;
use super::lifecycle::{END_GRACE, Time};
use vmm_control::Command;

use super::desired_state::DesiredState;
use super::process::VmmProcess;
use super::record::VmmRecord;
use super::vmm_control_client::VmmControlClient;
use base::layout::Layout;
use config::machine::Machine;
use handover::PciAddress;
use handover::handover::Handover;
use printable::explain;

/// How often leftovers are looked at.
const POLL: Duration = Duration::from_millis(50);

/// Ends what an earlier agent left of domains that are not among these; takes at most `deadline` and a few seconds. Returns the domains of
/// which something may be left all the same.
pub fn end_strays(
    layout: &Layout,
    cgroups: Option<&Cgroups>,
    domains: &[String],
    deadline: Duration,
) -> Vec<String> {
    let (mut left, mut unreachable) = (Vec::new(), Vec::new());
    let mut ended = Vec::new();
    for domain in strays(layout, cgroups, domains) {
        let vmm = match find(layout, cgroups, &domain) {
            EarlierVmm::Running(vmm, _) | EarlierVmm::ToEnd(vmm, ..) => vmm,
            EarlierVmm::Nothing | EarlierVmm::Ended(..) => {
                ended.push(domain);
                continue;
            }
            EarlierVmm::Unreachable => {
                tracing::error!(
                    domain,
                    "what an earlier agent left of this domain, which this PC does not have any more, takes no caller; restart the PC"
                );
                unreachable.push(domain);
                continue;
            }
        };
        let pid = vmm.identity().pid;
        tracing::warn!(
            domain,
            pid,
            "an earlier agent left this VMM of a domain that this PC does not have any more; ending it"
        );
        press_power_button(layout, &domain, &vmm);
        ended.push(domain.clone());
        left.push((domain, vmm));
    }
    let wait = |left: &mut Vec<(String, VmmProcess)>, most: Duration| {
        let until = Moment::now() + most;
        left.retain(|(_, vmm)| vmm.is_alive());
        while !left.is_empty() && Moment::now() < until {
            thread::sleep(POLL);
            left.retain(|(_, vmm)| vmm.is_alive());
        }
    };
    wait(&mut left, deadline);
    for signal in [Signal::SIGINT, Signal::SIGKILL] {
        left.iter().for_each(|(_, vmm)| vmm.signal(signal));
        wait(&mut left, END_GRACE);
    }
    for (domain, vmm) in &left {
        tracing::error!(
            domain,
            pid = vmm.identity().pid,
            "the VMM of an earlier agent cannot be ended; restart the PC"
        );
    }
    ended.retain(|name| !left.iter().any(|(domain, _)| domain == name));
    for domain in &ended {
        if let Some(group) = cgroups.and_then(|groups| groups.find(domain)) {
            // What the VMM may have started goes with it.
            group.kill();
            group.remove();
        }
        forget(layout, domain);
    }
    left.into_iter().map(|(domain, _)| domain).chain(unreachable).collect()
}

/// Forgets what is left of domains that are not among these: the copies of their disks, which are to be kept by nobody, and that one was
/// off.
pub fn forget_others(layout: &Layout, domains: &[String]) {
    for domain in names_in(&layout.discards()).filter(|name| !domains.contains(name)) {
        disks::forget(&domain, layout);
    }
    let others = names_in(&layout.runtime).filter(|name| !domains.contains(name));
    for domain in others.filter(|name| layout.wanted(name).exists()) {
        DesiredState::forget(layout, &domain);
    }
}

/// Cleans up after domains that an earlier agent had and this one has not: ends their VMMs, and gives what no domain has back to the host.
/// Both take time, which nobody waits for.
pub fn clean_up(
    layout: &Layout,
    handover: &Arc<Handover>,
    cgroups: Option<Arc<Cgroups>>,
    domains: Vec<String>,
    machine: &Machine,
) {
    let claimed: BTreeSet<PciAddress> = machine.claims().domains.into_keys().collect();
    let (layout, handover) = (layout.clone(), handover.clone());
    let deadline = machine.stop_deadline;
    let spawned = thread::Builder::new().name("give-back".to_owned()).spawn(move || {
        let left = end_strays(&layout, cgroups.as_deref(), &domains, deadline);
        let kept = [domains, left].concat();
        forget_others(&layout, &kept);
        for (address, domain) in ownerless(&handover, &kept, &claimed) {
            match handover.give_back(address, &domain) {
                Ok(_) => {
                    tracing::info!(%address, "no domain has it any more; given back to the host")
                }
                Err(error) => tracing::error!("{}", explain(&error)),
            }
        }
    });
    if let Err(error) = spawned {
        tracing::error!("cannot start a thread: {error}");
    }
}

/// Returns what is handed over and is no domain's, with the domain it was handed to: in this boot, what none of these domains has, each of
/// which gives back what it has itself; of what is left of an earlier boot, what nobody is to have.
fn ownerless(
    handover: &Handover,
    domains: &[String],
    claimed: &BTreeSet<PciAddress>,
) -> Vec<(PciAddress, String)> {
    let boot = handover.sysfs().boot();
    let mut handed_over = handover.handed_over();
    handed_over.retain(|address, former| match boot.is_some() && former.boot == boot {
        true => !domains.contains(&former.domain),
        // What goes with a function goes back with it.
        false => !claimed.contains(&former.companion_of().unwrap_or(*address)),
    });
    handed_over.into_iter().map(|(address, former)| (address, former.domain)).collect()
}

/// Returns the domains of which there is a record or a process, and that are none of these.
fn strays(layout: &Layout, cgroups: Option<&Cgroups>, domains: &[String]) -> BTreeSet<String> {
    let recorded = names_in(&layout.runtime).filter(|name| layout.vmm_record(name).exists());
    let running = cgroups.into_iter().flat_map(Cgroups::names);
    recorded.chain(running).filter(|name| !domains.contains(name)).collect()
}

fn names_in(directory: &Path) -> impl Iterator<Item = String> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

fn forget(layout: &Layout, domain: &str) {
    if let Err(error) = VmmRecord::remove(layout, domain) {
        tracing::warn!(domain, "cannot write down the VMM's end: {error}");
    }
}

/// Presses the power button through the control socket, or by signal if that does not work.
fn press_power_button(layout: &Layout, domain: &str, vmm: &VmmProcess) {
    let start = Moment::now();
    let now = || -> Time { start.elapsed() };
    let mut client = VmmControlClient::new(&layout.vmm_socket(domain));
    let mut answered = false;
    if client.send(now(), Command::PowerButton).is_ok() {
        while client.is_busy() {
            answered = client.poll(now()).iter().any(|(_, result)| result.is_ok());
            thread::sleep(POLL / 10);
        }
    }
    if !answered {
        vmm.signal(Signal::SIGTERM);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vmm_that_nobody_can_ask_is_not_forgotten_and_what_is_gone_takes_its_disks_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let layout = Layout { images: at("images"), state: at("state"), runtime: at("run") };
        layout.create_runtime(&["clinical", "old", "gone"]).unwrap();
        for domain in ["clinical", "old", "gone"] {
            fs::write(layout.vmm_record(domain), "half a reco").unwrap();
            fs::create_dir_all(layout.discard(domain)).unwrap();
            fs::write(layout.discard(domain).join("disk0.img"), "written").unwrap();
        }
        let socket = layout.vmm_socket("old");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let mut callers = Vec::new();
        while let Ok(caller) = base::sockets::connect(&socket) {
            callers.push(caller);
        }
        let domains = vec!["clinical".to_owned()];
        let left = end_strays(&layout, None, &domains, Duration::ZERO);
        assert_eq!(left, ["old"]);
        assert!(layout.vmm_record("old").exists() && layout.vmm_record("clinical").exists());
        assert!(!layout.vmm_record("gone").exists());
        fs::write(layout.wanted("gone"), "off").unwrap();
        forget_others(&layout, &[domains, left].concat());
        assert!(layout.discard("old").exists() && layout.discard("clinical").exists());
        assert!(!layout.discard("gone").exists() && !layout.wanted("gone").exists());
    }
}
