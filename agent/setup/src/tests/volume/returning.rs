//! A state that comes back and does not get there leaves nothing of itself in the clear.

use super::*;

#[test]
fn a_copy_back_that_fails_leaves_nothing_in_the_clear_and_a_second_undo_comes_to_the_end() {
    let ward = Ward::with_second_disk();
    let before = seen(&ward);
    ward.run(&ward.encrypting());
    ward.write("copy-fails", "");
    expect(&ward.run(&ward.undoing()), SetupResult::Refused, &["the copy failed"]);
    assert_eq!(fs::read_dir(below(&ward.at(STATE))).unwrap().count(), 0);
    assert!(!ward.at(STATE).join(crate::volume::MARKER).exists());
    assert!(ward.read("proc/self/mountinfo").contains("bulkhead_state"));
    ward.has_its_log("it stays where it is");
    fs::remove_file(ward.at("copy-fails")).unwrap();
    expect(&ward.run(&ward.undoing()), SetupResult::Changed, &[]);
    assert_eq!(seen(&ward), before);
}

#[test]
fn a_cut_while_the_state_comes_back_is_mended_by_another_run_of_setup_too() {
    let whole = Ward::with_second_disk();
    whole.run(&whole.encrypting());
    let mut hands = whole.hands();
    whole.run_with(&whole.undoing(), &mut Person::default(), &mut hands);
    let mut left = 0;
    for at in 1..=hands.steps {
        let ward = Ward::with_second_disk();
        ward.run(&ward.encrypting());
        let mut hands = Hands { fault: Some((at, Fault::After)), ..ward.hands() };
        ward.run_with(&ward.undoing(), &mut Person::default(), &mut hands);
        ward.reboot();
        if !ward.read("proc/self/mountinfo").contains("bulkhead_state") {
            continue;
        }
        let in_the_clear = || fs::read_dir(below(&ward.at(STATE))).unwrap().count();
        left += in_the_clear();
        let report = ward.run(&ward.answers(ANSWERS));
        let when = format!("step {at} {:?}: {}", hands.ran.last(), report.message);
        assert_ne!(report.result, SetupResult::Refused, "{when}");
        assert_eq!(in_the_clear(), 0, "{when}");
        ward.has_its_log(&when);
    }
    assert!(left > 0, "no cut fell into the copy");
}

#[test]
fn a_state_whose_size_cannot_be_seen_is_not_taken_back() {
    let ward = Ward::with_second_disk();
    ward.run(&ward.encrypting());
    // A path that is longer than any that can be named.
    let deep =
        |name: &str| (0..12).fold(ward.at(STATE).join(name), |path, _| path.join("x".repeat(200)));
    for name in ["one", "two"] {
        fs::create_dir_all(deep(name)).unwrap();
    }
    fs::rename(ward.at(STATE).join("two"), deep("one").join("two")).unwrap();
    let mut hands = ward.hands();
    let report = ward.run_with(&ward.undoing(), &mut Person::default(), &mut hands);
    expect(&report, SetupResult::Refused, &["nothing was taken back", "cannot look at"]);
    assert_eq!(hands.ran, Vec::<String>::new());
}
