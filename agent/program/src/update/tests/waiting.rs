//! What waits, is tried again, is called off, or is read by another version.

use super::*;

#[test]
fn nothing_is_proved_while_no_agent_runs_and_status_says_what_is_waited_for() {
    for (bad, version, outcome) in
        [(vec![], "2.0", Outcome::InForce), (vec!["2.0"], "1.0", Outcome::Returned)]
    {
        let mut ward = Ward::with_a_way_back();
        ward.offer(2, 1, "2.0", false).unwrap();
        ward.pc.bad = bad;
        ward.pc.no_agent = true;
        for _ in 0..5 {
            assert_eq!(ward.waits(), "no agent runs");
        }
        let pending = ward.record().pending.unwrap();
        assert_eq!(
            (pending.stage, pending.waits.as_deref()),
            (Stage::Proving, Some("no agent runs"))
        );
        assert_eq!((ward.in_force(), ward.pc.has.as_deref()), (Some(1), Some("2.0")));
        assert!(!ward.noted().contains("in-force\""), "{}", ward.noted());
        // Others are told what to do.
        let refused = ward.offer(3, 1, "3.0", false).unwrap_err().to_string();
        assert!(refused.contains("what it waits for"), "{refused}");
        ward.pc.no_agent = false;
        assert_eq!(ended(ward.run()), (2, outcome));
        assert_eq!(ward.pc.has.as_deref(), Some(version));
    }
}

#[test]
fn a_version_that_came_back_is_proved_as_well_before_it_is_said_to_be_back() {
    let mut ward = Ward::with_a_way_back();
    ward.offer(2, 1, "2.0", false).unwrap();
    ward.pc.bad = vec!["1.0", "2.0"];
    let last = ward.run();
    let why = last.clone().unwrap().why.unwrap();
    assert!(why.contains("the one before does not work either"), "{why}");
    assert_eq!(ended(last), (2, Outcome::NeitherWorks));
    assert_eq!((ward.pc.has.as_deref(), ward.in_force()), (Some("1.0"), Some(1)));
    assert!(ward.noted().contains("\"neither-works\"") && !ward.noted().contains("\"returned\""));
    assert!(ward.pc.said.iter().any(|said| said.contains("NEITHER VERSION WORKS")));
    // Without an agent that is not known yet.
    let mut ward = Ward::with_a_way_back();
    ward.offer(2, 1, "2.0", false).unwrap();
    ward.pc.breaks_dpkg.push("2.0");
    ward.pc.no_agent = true;
    assert_eq!(ward.waits(), "no agent runs");
    assert!(matches!(ward.stage(), Some(Stage::ProvingReturn { .. })));
    ward.pc.no_agent = false;
    assert_eq!(ended(ward.run()), (2, Outcome::Returned));
}

#[test]
fn what_worked_before_dpkg_was_asked_is_held_against_both_versions_also_after_a_power_cut() {
    let mut ward = Ward::with_a_way_back();
    let domains = ["clinical".to_owned()].into();
    let worked = Some(WorkingState { domains, policy: Some(7), ..WorkingState::default() });
    ward.pc.worked.clone_from(&worked);
    ward.offer(2, 1, "2.0", false).unwrap();
    ward.pc.no_agent = true;
    ward.waits();
    assert_eq!(ward.record().pending.unwrap().worked, worked);
    // What an agent says later is not asked for.
    ward.pc.worked = None;
    ward.pc.no_agent = false;
    ward.pc.bad.push("2.0");
    assert_eq!(ended(ward.run()), (2, Outcome::Returned));
    assert_eq!(ward.pc.held, [worked.clone(), worked.clone(), worked]);
}

#[test]
fn what_passes_is_tried_again_with_the_next_start_three_times_in_all_and_the_audit_log_says_so() {
    let mut ward = Ward::with_a_way_back();
    ward.offer(2, 1, "2.0", false).unwrap();
    ward.pc.full = 2;
    for tries in 1..=2 {
        let why = ward.waits();
        let says = format!("No space left on device (tried {tries} of 3 times)");
        assert!(why.contains(&says) && why.contains("systemctl start bulkhead-update"), "{why}");
        assert_eq!(ward.stage(), Some(Stage::Installing));
        assert!(ward.record().pending.unwrap().waits.unwrap().contains(&says));
    }
    assert_eq!(ended(ward.run()), (2, Outcome::InForce));
    assert_eq!(ward.noted().matches("\"retried\"").count(), 2);
    // Three times is enough; the return has three tries of its own.
    ward.offer(3, 1, "3.0", false).unwrap();
    ward.pc.full = 5;
    for stage in ["Installing", "Installing", "Returning", "Returning"] {
        ward.waits();
        let now = format!("{:?}", ward.stage().unwrap());
        assert!(now.starts_with(stage), "{now}");
    }
    let last = ward.run();
    let why = last.clone().unwrap().why.unwrap();
    assert!(why.contains("(tried 3 times)"), "{why}");
    assert_eq!(ended(last), (3, Outcome::Returned));
    assert_eq!(ward.pc.has.as_deref(), Some("2.0"));
    // No room for the way back either.
    ward.offer(4, 1, "4.0", false).unwrap();
    ward.pc.full = 6;
    for _ in 0..4 {
        ward.waits();
    }
    assert_eq!(ended(ward.run()), (4, Outcome::Stuck));
}

#[test]
fn what_waits_can_be_called_off_and_what_was_begun_cannot() {
    let mut ward = Ward::with_a_way_back();
    let none = crate::install::cancel(&ward.store, 1000).unwrap_err().to_string();
    assert!(none.contains("no update waits"), "{none}");
    ward.offer(2, 1, "2.0", false).unwrap();
    // Also while somebody else's work with dpkg is waited for.
    ward.pc.dpkg_is_busy = true;
    ward.waits();
    ward.pc.dpkg_is_busy = false;
    assert_eq!(crate::install::cancel(&ward.store, 1000).unwrap().serial, 2);
    assert!(ward.noted().contains("\"cancelled\"") && ward.noted().contains("\"uid\": 1000"));
    assert_eq!((ward.stage(), ward.bundles()), (None, vec!["1.bundle".to_owned()]));
    ward.run();
    assert_eq!(ward.pc.has.as_deref(), Some("1.0"));
    ward.offer(2, 1, "2.0", false).unwrap();
    ward.pc.no_agent = true;
    ward.waits();
    let begun = crate::install::cancel(&ward.store, 1000).unwrap_err().to_string();
    assert!(begun.contains("was begun") && begun.contains("program rollback"), "{begun}");
    assert_eq!(ward.stage(), Some(Stage::Proving));
}

#[test]
fn a_rollback_and_a_call_off_are_noted_before_they_are_done_and_not_done_if_that_cannot_be() {
    let mut ward = Ward::with_a_way_back();
    ward.offer(2, 1, "2.0", false).unwrap();
    ward.run();
    let notes = ward.store.folder().join(".notes.json");
    let whole = fs::read_to_string(&notes).unwrap();
    let record = ward.record();
    fs::write(&notes, "{").unwrap();
    let why = explain(&crate::install::roll_back(&ward.store, 1000).unwrap_err());
    assert!(why.contains("move it away"), "{why}");
    assert_eq!(ward.record(), record);
    fs::write(&notes, whole).unwrap();
    crate::install::roll_back(&ward.store, 1000).unwrap();
    assert!(ward.noted().contains("\"rollback\"") && ward.noted().contains("\"uid\": 1000"));
    let record = ward.record();
    fs::write(&notes, "{").unwrap();
    crate::install::cancel(&ward.store, 1000).unwrap_err();
    assert_eq!(ward.record(), record);
}

#[test]
fn after_a_return_the_older_version_reads_what_the_newer_one_wrote_and_the_other_way_round() {
    let mut ward = Ward::with_a_way_back();
    ward.offer(2, 1, "2.0", false).unwrap();
    ward.pc.no_agent = true;
    ward.waits();
    let record = ward.record();
    let file = ward.store.folder().join("record.json");
    let mut newer: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    for place in ["", "/pending", "/pending/to", "/pending/worked", "/in_force", "/newest", "/last"]
    {
        newer.pointer_mut(place).unwrap()["more"] = 1.into();
    }
    newer["last"]["outcome"] = "a-newer-word".into();
    fs::write(&file, newer.to_string()).unwrap();
    let read = ward.record();
    assert_eq!(
        (&read.pending, &read.in_force, read.floor),
        (&record.pending, &record.in_force, record.floor)
    );
    assert_eq!(read.last.unwrap().outcome, Outcome::Other);
    ward.pc.no_agent = false;
    assert_eq!(ended(ward.run()), (2, Outcome::InForce));
    // As written before there were these fields.
    let mut older = serde_json::to_value(&record).unwrap();
    for field in ["worked", "failures", "waits"] {
        older["pending"].as_object_mut().unwrap().remove(field).unwrap();
    }
    fs::write(&file, older.to_string()).unwrap();
    assert_eq!(ward.record().pending.unwrap().stage, Stage::Proving);
    assert_eq!(ended(ward.run()), (2, Outcome::InForce));
}
