//! VMMs that an agent which died left behind. The next agent ends them in an orderly way before it
//! starts its own: power button, deadline, end, kill. (That VMMs outlive the agent and are taken
//! back is for a later version.)

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::thread;
use std::time::Duration;

use clock::Moment;

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use super::cgroup::Cgroups;
use super::domain::{END_GRACE, Time};
use vmm_control::Command;

use super::link::Link;
use super::process::{Identity, start_time};
use base::durable;
use base::layout::Layout;

/// How often leftovers are looked at.
const POLL: Duration = Duration::from_millis(50);

/// The VMMs an agent runs, as it writes them down.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmmRecord {
    /// The boot they belong to; process numbers of another mean nothing.
    boot: String,
    /// By domain.
    vmms: BTreeMap<String, Identity>,
}

impl VmmRecord {
    /// An empty record of this boot.
    #[must_use]
    pub fn of_this_boot() -> Self {
        Self { boot: boot_id(), vmms: BTreeMap::new() }
    }

    /// Notes a domain's VMM, or that it is gone, and writes the record.
    pub fn note(&mut self, layout: &Layout, domain: &str, vmm: Option<Identity>) -> io::Result<()> {
        match vmm {
            Some(identity) => self.vmms.insert(domain.to_owned(), identity),
            None => self.vmms.remove(domain),
        };
        durable::write(&layout.vmm_record(), self)
    }
}

/// Ends what an earlier agent left, for at most `deadline` and a few seconds. `hurry` is asked
/// again and again whether somebody wants the agent gone; the guests are then not waited for.
pub fn end_all(
    layout: &Layout,
    cgroups: Option<&Cgroups>,
    domains: &[&str],
    deadline: Duration,
    mut hurry: impl FnMut() -> bool,
) {
    let mut left = find(layout, cgroups, domains);
    if left.is_empty() {
        return;
    }
    let mut asked: Vec<&str> = Vec::new();
    for (domain, vmm) in &left {
        tracing::warn!(domain, pid = vmm.pid, "an earlier agent left this VMM; ending it");
        // Whatever else is in its group goes with it, and a second press could mean another thing.
        if !asked.contains(&domain.as_str()) {
            asked.push(domain);
            press_power_button(layout, domain, *vmm);
        }
    }
    let gone = |left: &mut Vec<(String, Identity)>| {
        left.retain(|(_, vmm)| vmm.is_alive());
        left.is_empty()
    };
    let mut wait = |left: &mut Vec<(String, Identity)>, most: Duration| {
        let until = Moment::now() + most;
        while !gone(left) && Moment::now() < until && !hurry() {
            thread::sleep(POLL);
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
            pid = vmm.pid,
            "the VMM of an earlier agent cannot be ended; restart the PC"
        );
    }
}

/// From the record, and from the groups: an agent may have died before it wrote.
fn find(layout: &Layout, cgroups: Option<&Cgroups>, domains: &[&str]) -> Vec<(String, Identity)> {
    let record: VmmRecord = match durable::read(&layout.vmm_record()) {
        Ok(record) => record.unwrap_or_default(),
        Err(error) => {
            tracing::warn!("cannot read {}: {error}", layout.vmm_record().display());
            VmmRecord::default()
        }
    };
    let mut found = Vec::new();
    if record.boot == boot_id() {
        found.extend(record.vmms.into_iter().filter(|(_, vmm)| vmm.is_alive()));
    }
    for domain in domains {
        for pid in cgroups.map(|groups| groups.processes(domain)).unwrap_or_default() {
            if let Some(start) = start_time(pid)
                && !found.iter().any(|(_, vmm)| vmm.pid == pid)
            {
                found.push(((*domain).to_owned(), Identity { pid, start }));
            }
        }
    }
    found
}

/// Through its control socket, or by signal if that does not work.
fn press_power_button(layout: &Layout, domain: &str, vmm: Identity) {
    let start = Moment::now();
    let now = || -> Time { start.elapsed() };
    let mut link = Link::new(&layout.vmm_socket(domain));
    let mut answered = false;
    if link.send(now(), Command::PowerButton).is_ok() {
        while link.is_busy() {
            answered = link.turn(now()).iter().any(|(_, result)| result.is_ok());
            thread::sleep(POLL / 10);
        }
    }
    if !answered {
        vmm.signal(Signal::SIGTERM);
    }
}

fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}
