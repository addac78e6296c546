//! What an earlier agent left of a domain, and whether its VMM is taken up.
//!
//! | there is | it is |
//! | --- | --- |
//! | a record, and its process runs: number, start, cgroup and program are those of the record | taken up, its guest runs on |
//! | the same, but the VMM had not answered yet | ended; its guest had hardly begun |
//! | a record, and its process has ended | what became of it is in its log |
//! | no record that can be read, or one of something else; and a process in the domain's cgroup or behind its control socket | ended |
//! | neither | nothing |
//!
//! A process is signalled by a descriptor that was opened before it was looked at, so no other process can be meant. One that is neither
//! the record's nor in the domain's cgroup nor listens in the domain's directory, which is root's alone, is left as it is.

use std::path::Path;

use nix::sys::socket::{getsockopt, sockopt};
use vmm_control::ENDED_IN_ORDER;

use super::capture::Capture;
use super::cgroup::Cgroups;
use super::domain::Exit;
use super::process::{Identity, VmmProcess, start_time};
use super::record::VmmRecord;
use base::layout::Layout;
use base::sockets::dial;

/// What was found of one domain.
#[derive(Debug)]
pub enum Found {
    /// No VMM.
    Nothing,
    /// Its VMM runs on.
    Running(VmmProcess, Box<VmmRecord>),
    /// Its VMM runs, and is to be ended because of this.
    ToEnd(VmmProcess, &'static str),
    /// Its VMM ended while no agent ran.
    Ended(Exit, Box<VmmRecord>),
}

/// Why one is ended that had not answered.
const UNANSWERED: &str = "it had not started its guest yet when the earlier agent ended";
/// Why one is ended of which nothing certain is known.
const UNKNOWN: &str = "there is no record of it that fits";

/// Looks for the VMM of a domain.
#[must_use]
pub fn find(layout: &Layout, cgroups: Option<&Cgroups>, domain: &str) -> Found {
    let record = VmmRecord::read(layout, domain).unwrap_or_else(|error| {
        let path = layout.vmm_record(domain);
        tracing::warn!(domain, "cannot read {}: {error}", path.display());
        None
    });
    let recorded = record.as_ref().and_then(|record| VmmProcess::find(record.identity));
    match (record, recorded) {
        (Some(record), Some(vmm)) if record.is_of(&vmm) => {
            // What was asked of it was asked of this process, if it is still there.
            if !vmm.is_alive() {
                return ended(layout, record);
            }
            match record.answered {
                true => Found::Running(vmm, Box::new(record)),
                false => Found::ToEnd(vmm, UNANSWERED),
            }
        }
        (record, _) => match unrecorded(layout, cgroups, domain).into_iter().next() {
            Some(vmm) => Found::ToEnd(vmm, UNKNOWN),
            None => record.map_or(Found::Nothing, |record| ended(layout, record)),
        },
    }
}

/// The processes that are a domain's though no record says so: those in its cgroup, and whoever listens on its VMM's control socket.
#[must_use]
pub fn unrecorded(layout: &Layout, cgroups: Option<&Cgroups>, domain: &str) -> Vec<VmmProcess> {
    let listening = listener(&layout.vmm_socket(domain));
    let within = cgroups.map(|groups| groups.processes(domain)).unwrap_or_default();
    let others = within.into_iter().filter(|pid| Some(*pid) != listening);
    // Whoever listens first: it is the VMM, and what else is in its group goes with it.
    let found = listening.into_iter().chain(others).filter_map(|pid| {
        let start = start_time(pid)?;
        VmmProcess::find(Identity { pid, start })
    });
    found.collect()
}

/// Whoever listens at a path, if somebody does.
fn listener(path: &Path) -> Option<i32> {
    let stream = dial(path).ok()?;
    let peer = getsockopt(&stream, sockopt::PeerCredentials).ok()?;
    (peer.pid() > 0).then_some(peer.pid())
}

fn ended(layout: &Layout, record: VmmRecord) -> Found {
    let log = layout.vmm_log(record.domain());
    let last = Capture::open(&log).ok().and_then(|log| log.last_words());
    Found::Ended(by_last_words(last.as_deref()), Box::new(record))
}

/// How a VMM ended that is nobody's child, by the last line of its log.
#[must_use]
pub fn by_last_words(last: Option<&str>) -> Exit {
    match last {
        Some(ENDED_IN_ORDER) => Exit::PoweredOff,
        Some(line) => Exit::Failed(format!("the VMM ended; the last it said: {line}")),
        None => Exit::Failed("the VMM ended, and its log does not say why".to_owned()),
    }
}
