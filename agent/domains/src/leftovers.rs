//! VMMs of an earlier agent whose domains this PC does not have any more. They are ended in an orderly way: power button, deadline, end,
//! kill. Those of domains that there are is their slots' business ([`super::adoption`]).

use std::fs;
use std::thread;
use std::time::Duration;

use clock::Moment;

use nix::sys::signal::Signal;

use super::adoption::{Found, find};
use super::domain::{END_GRACE, Time};
use vmm_control::Command;

use super::link::Link;
use super::process::VmmProcess;
use super::record::VmmRecord;
use base::layout::Layout;

/// How often leftovers are looked at.
const POLL: Duration = Duration::from_millis(50);

/// Ends what an earlier agent left of domains that are not among these; takes at most `deadline` and a few seconds.
pub fn end_strays(layout: &Layout, domains: &[String], deadline: Duration) {
    let mut left = Vec::new();
    for domain in strays(layout, domains) {
        let vmm = match find(layout, None, &domain) {
            Found::Running(vmm, _) | Found::ToEnd(vmm, _) => vmm,
            Found::Nothing | Found::Ended(..) => {
                forget(layout, &domain);
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
    let ended: Vec<String> = left.iter().map(|(domain, _)| domain.clone()).collect();
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
    for domain in ended.iter().filter(|name| !left.iter().any(|(domain, _)| domain == *name)) {
        forget(layout, domain);
    }
}

/// The domains of which there is a record, and that are none of these.
fn strays(layout: &Layout, domains: &[String]) -> Vec<String> {
    let entries = fs::read_dir(&layout.runtime).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let strays = names.filter(|name| !domains.contains(name));
    strays.filter(|name| layout.vmm_record(name).exists()).collect()
}

fn forget(layout: &Layout, domain: &str) {
    if let Err(error) = VmmRecord::remove(layout, domain) {
        tracing::warn!(domain, "cannot write down the VMM's end: {error}");
    }
}

/// Through its control socket, or by signal if that does not work.
fn press_power_button(layout: &Layout, domain: &str, vmm: &VmmProcess) {
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
