//! What holds of each mediator, and what the tests of each have.

use std::path::Path;
use std::sync::Arc;

use ::audit::{Entry, Limits};
use config::machine::{Context, Machine};
use monitor::Monitor;
use policy::Policy;
use recorder::Recorder;

use super::*;
use crate::seat::SeatClient;

/// A policy with two domains and this in it, of serial 1.
pub(super) fn policy_with(rule: &str) -> Arc<Policy> {
    let domains = include_str!("../../../../policy/tests/fixtures/two-domains.toml");
    Arc::new(Policy::parse("test", &format!("{domains}\n{rule}")).unwrap())
}

/// A monitor under that policy, for all mediators, which run.
pub(super) fn monitor(state: &Path) -> Monitor {
    let recorder = Recorder::open(state, Limits::default());
    let mut monitor = Monitor::new(recorder, policy_with("").serial(), ALL);
    ALL.iter().for_each(|mediator| monitor.started(*mediator));
    monitor
}

pub(super) fn seat(dir: &Path) -> SeatClient {
    let text = "format = 1\nallow_host_network = true\n[domain.clinical]\nkernel = \"vmlinuz\"\n";
    let machine = Machine::parse("test", text, Context { images: dir, domain_policies: None })
        .unwrap_or_else(|_| panic!());
    let [images, state, runtime] = ["images", "state", "run"].map(|name| dir.join(name));
    let layout = Layout { images, state, runtime };
    SeatClient::start(&machine, &layout, &policy_with(""), Box::new(|_| {})).unwrap()
}

fn entries(state: &Path) -> Vec<Entry> {
    let mut entries = Vec::new();
    ::audit::each(&recorder::directory(state), |_, entry| {
        entries.push(entry);
        Ok(())
    })
    .unwrap();
    entries.retain(|entry| entry.kind != "log-opened" && entry.kind != "checkpoint");
    entries
}

/// Of each entry its kind, and to which domain it is about.
pub(super) fn told(state: &Path) -> Vec<(String, Option<String>)> {
    entries(state).into_iter().map(|entry| (entry.kind, entry.domain)).collect()
}

/// The entry at this place.
pub(super) fn entry(state: &Path, place: usize) -> Entry {
    entries(state).remove(place)
}

pub(super) fn of(kind: &str, domain: Option<&str>) -> (String, Option<String>) {
    (kind.to_owned(), domain.map(str::to_owned))
}

/// Why a mediator that is no more gets no permit.
pub(super) const NOT_RUNNING: &str = "the part of the agent that asks is not running";

/// How a thread ends by a fault of ours.
pub(super) fn dies() {
    panic!("a fault of ours");
}

/// How a thread ends that cannot go on.
pub(super) fn ends() {}

#[test]
fn no_two_mediators_are_one_to_the_monitor() {
    for (index, id) in ALL.iter().enumerate() {
        assert!(!ALL[..index].contains(id), "{}", id.name());
    }
}
