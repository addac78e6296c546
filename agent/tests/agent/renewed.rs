//! Renewals: a domain that keeps nothing begins anew, and who wanted that is on the record.

use std::fs;

use serde_json::Value;

use crate::asked::entries;
use crate::support::{Agent, MACHINE, Ward};

const DISK: &str = "disks = [{ path = \"home.img\" }]\n";

/// Makes a ward whose Internet desktop has a disk, of which it keeps nothing.
fn with_disks() -> (Ward, Agent) {
    let ward = Ward::new(&format!("{MACHINE}{DISK}"));
    fs::create_dir_all(ward.at("images")).unwrap();
    fs::write(ward.at("images/home.img"), vec![0x11; 4096]).unwrap();
    let agent = ward.start_agent();
    ward.wait_for_state("clinical", "running");
    ward.wait_for_state("internet", "running");
    (ward, agent)
}

/// Asks for a renewal; returns what `bulkhead` answers, and whether it was done.
fn renew(ward: &Ward, domain: &str) -> (bool, String) {
    let output = ward.bulkhead(&["renew", domain]);
    (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

// Shows: I-4.
#[test]
fn a_renewed_domain_begins_with_its_base_image_and_the_other_runs_on() {
    let (ward, agent) = with_disks();
    let disk = ward.at("state/discard/internet/disk0.img");
    let (clinical, before) = (ward.pid("clinical"), ward.pid("internet"));
    fs::write(&disk, vec![0x22; 4096]).unwrap();
    let (done, said) = renew(&ward, "internet");
    assert!(done, "{said}");
    assert!(said.contains("internet: running"), "{said}");
    assert_ne!(ward.pid("internet"), before);
    assert_eq!(fs::read(&disk).unwrap(), vec![0x11; 4096], "what was written is gone");
    assert_eq!(ward.events("internet")[1], "power-button", "its guest was asked to shut down");
    assert_eq!(ward.pid("clinical"), clinical, "the other domain is untouched");
    // It began and ended on the record, under the number of the request.
    ward.wait("its end", || !entries(&ward, "renewal-ended").is_empty());
    let asking = entries(&ward, "asking").pop().unwrap();
    assert_eq!(asking["detail"]["what"], "renew");
    let detail = |kind: &str| -> Value { entries(&ward, kind).pop().unwrap()["detail"].clone() };
    let (began, ended) = (detail("renewal-began"), detail("renewal-ended"));
    for entry in [&began, &ended] {
        assert_eq!((&entry["request"], &entry["why"]), (&asking["seq"], &"command".into()));
    }
    assert!(began["by"].as_str().is_some_and(|by| !by.is_empty()), "{began}");
    assert_eq!(ended["outcome"], "done");
    agent.stop();
}

#[test]
fn a_domain_that_keeps_is_off_or_is_being_renewed_is_not_renewed_and_the_answer_says_what_to_do() {
    let (ward, agent) = with_disks();
    let refused = |domain: &str, words: &str| {
        let (done, said) = renew(&ward, domain);
        assert!(!done && said.contains(words), "{domain}: {said}");
    };
    let clinical = ward.pid("clinical");
    refused("clinical", "persistence = \"keep\"");
    assert_eq!(ward.pid("clinical"), clinical);
    refused("nothere", "this PC has: clinical, internet");
    // Its guest does not shut down, so that the renewal takes the deadline of two seconds.
    assert!(ward.bulkhead(&["stop", "internet"]).status.success());
    refused("internet", "`bulkhead start internet`");
    ward.behave("internet", "ignore");
    assert!(ward.bulkhead(&["start", "internet"]).status.success());
    let mut first = ward.bulkhead_command(&["renew", "internet"]).spawn().unwrap();
    ward.wait_for_state("internet", "stopping");
    ward.behave("internet", "obey");
    refused("internet", "is being renewed already");
    assert!(first.wait().unwrap().success());
    assert_eq!(entries(&ward, "renewal-began").len(), 1, "nothing else began");
    ward.wait("its end", || entries(&ward, "renewal-ended").len() == 1);
    agent.stop();
}

#[test]
fn a_renewal_that_somebody_stops_is_on_the_record_as_not_done() {
    let (ward, agent) = with_disks();
    assert!(ward.bulkhead(&["stop", "internet"]).status.success());
    ward.behave("internet", "ignore");
    assert!(ward.bulkhead(&["start", "internet"]).status.success());
    let mut renewal = ward.bulkhead_command(&["renew", "internet"]).spawn().unwrap();
    ward.wait_for_state("internet", "stopping");
    assert!(ward.bulkhead(&["stop", "internet", "--now"]).status.success());
    assert!(!renewal.wait().unwrap().success());
    ward.wait("its end", || !entries(&ward, "renewal-ended").is_empty());
    let ended = entries(&ward, "renewal-ended").pop().unwrap();
    assert_eq!(ended["detail"]["outcome"], "not done");
    assert!(!ended["detail"]["problem"].is_null(), "{ended}");
    agent.stop();
}
