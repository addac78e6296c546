//! Changes are made once, and taken back whatever happens.

use base::layout;

use crate::change::{Change, FileChange};

use super::*;

#[test]
fn a_second_run_changes_nothing_and_says_so() {
    let ward = Ward::stock();
    expect(&ward.run(&ward.answers(ANSWERS)), SetupResult::Changed, &["bulkhead setup --undo"]);
    let after = ward.picture();
    assert!(ward.read("boot/grub/grub.cfg").contains("intel_iommu=on"));
    assert!(ward.read("etc/group").contains("bulkhead-it:x:990:kim"));
    let mut hands = ward.hands();
    for options in [ward.answers(ANSWERS), Options { answers: None, ..ward.answers(ANSWERS) }] {
        let report = ward.run_with(&options, &mut Person::default(), &mut hands);
        expect(&report, SetupResult::Unchanged, &["nothing to change"]);
    }
    assert_eq!((hands.steps, ward.picture()), (0, after));
}

#[test]
fn undo_leaves_the_pc_as_it_was() {
    let ward = Ward::stock();
    let before = ward.picture();
    expect(&ward.run(&ward.undoing()), SetupResult::Unchanged, &["nothing"]);
    ward.run(&ward.answers(ANSWERS));
    // And once more, with another answer: both runs are taken back.
    let other = ANSWERS.replace("[roles]", "cpus = 1\n[roles]");
    expect(&ward.run(&ward.answers(&other)), SetupResult::Changed, &["cpus = 1"]);
    let after = ward.picture();
    let shown = Options { dry_run: true, ..ward.undoing() };
    expect(&ward.run(&shown), SetupResult::Proposed, &["-[domain.clinical]", "systemctl disable"]);
    assert_eq!(ward.picture(), after);
    expect(&ward.run(&ward.undoing()), SetupResult::Changed, &[]);
    assert_eq!(ward.picture(), before);
    expect(&ward.run(&ward.undoing()), SetupResult::Unchanged, &[]);
}

#[test]
fn an_agent_that_runs_keeps_no_setup_off_and_another_setup_does() {
    let ward = Ward::stock();
    let options = ward.answers(ANSWERS);
    fs::create_dir_all(&options.state).unwrap();
    // An agent that runs has the state directory locked.
    let state = fs::File::open(&options.state).unwrap();
    state.try_lock().unwrap();
    expect(&ward.run(&options), SetupResult::Changed, &[]);
    let other = crate::alone::SetupLock::take(&ward.at("run/bulkhead-setup.lock")).unwrap();
    expect(&ward.run(&ward.undoing()), SetupResult::Refused, &["somebody else runs setup"]);
    drop(other);
    expect(&ward.run(&ward.undoing()), SetupResult::Changed, &[]);
    assert!(!ward.at("run/bulkhead-setup.lock").exists());
}

/// Returns how many steps a run has.
fn steps(ward: &Ward, options: &Options) -> usize {
    let mut hands = ward.hands();
    let report = ward.run_with(options, &mut Person::default(), &mut hands);
    expect(&report, SetupResult::Changed, &[]);
    hands.steps
}

#[test]
fn after_a_crash_at_any_step_it_can_be_taken_back_and_can_be_run_again() {
    let whole = Ward::stock();
    let before = whole.picture();
    let all = steps(&whole, &whole.answers(ANSWERS));
    assert!(all > 15, "{all} steps");
    let contents = |ward: &Ward| -> Vec<(PathBuf, String)> {
        let root = ward.fake.dir.path();
        let below = |path: PathBuf| path.strip_prefix(root).unwrap().to_owned();
        let all = ward.picture().into_iter().map(|(path, what)| (below(path), what));
        all.filter(|(path, _)| !path.ends_with("setup.json")).collect()
    };
    let relative = |picture: BTreeMap<PathBuf, String>, root: &Path| -> Vec<(PathBuf, String)> {
        let all = picture.into_iter();
        all.map(|(path, what)| (path.strip_prefix(root).unwrap().to_owned(), what)).collect()
    };
    let before = relative(before, whole.fake.dir.path());
    for at in 1..=all {
        // Before a step it is as after the one before, or as in the middle of the step where that writes nothing.
        for (fault, again) in
            [(Fault::Between, false), (Fault::Between, true), (Fault::After, false)]
        {
            let ward = Ward::stock();
            let mut hands = Hands { fault: Some((at, fault)), ..ward.hands() };
            let options = ward.answers(ANSWERS);
            ward.run_with(&options, &mut Person::default(), &mut hands);
            assert!(hands.is_dead, "step {at}");
            if again {
                let report = ward.run(&options);
                assert_ne!(
                    report.result,
                    SetupResult::Refused,
                    "{at} {fault:?}: {}",
                    report.message
                );
                assert_eq!(contents(&ward), contents(&whole), "{at} {fault:?}");
            }
            let report = ward.run(&ward.undoing());
            assert_ne!(report.result, SetupResult::Refused, "{at} {fault:?}: {}", report.message);
            let now = relative(ward.picture(), ward.fake.dir.path());
            assert_eq!(now, before, "{at} {fault:?} {again}");
        }
    }
}

#[test]
fn a_crash_while_it_is_taken_back_is_no_hindrance_either() {
    let whole = Ward::stock();
    whole.run(&whole.answers(ANSWERS));
    let all = steps(&whole, &whole.undoing());
    for at in 1..=all {
        for fault in [Fault::Between, Fault::After] {
            let ward = Ward::stock();
            let before = ward.picture();
            ward.run(&ward.answers(ANSWERS));
            let mut hands = Hands { fault: Some((at, fault)), ..ward.hands() };
            ward.run_with(&ward.undoing(), &mut Person::default(), &mut hands);
            assert!(hands.is_dead, "step {at}");
            let report = ward.run(&ward.undoing());
            assert_ne!(report.result, SetupResult::Refused, "{at}: {}", report.message);
            assert_eq!(ward.picture(), before, "{at} {fault:?}");
        }
    }
}

#[test]
fn a_full_disk_leaves_the_pc_as_it_was_and_is_named() {
    let whole = Ward::stock();
    let all = steps(&whole, &whole.answers(ANSWERS));
    let mut seen = 0;
    for at in 1..=all {
        let ward = Ward::stock();
        let before = ward.picture();
        let mut hands = Hands { fault: Some((at, Fault::Full)), ..ward.hands() };
        let report = ward.run_with(&ward.answers(ANSWERS), &mut Person::default(), &mut hands);
        if report.result == SetupResult::Changed {
            continue;
        }
        seen += 1;
        expect(&report, SetupResult::Refused, &["the disk is full", "df -h"]);
        // A disk on which nothing can be written keeps the journal of what is taken back.
        hands.is_full = false;
        ward.run(&ward.undoing());
        assert_eq!(ward.picture(), before, "step {at}: {}", report.message);
    }
    assert!(seen > 5, "{seen}");
}

#[test]
fn what_somebody_changed_since_is_not_thrown_away() {
    let ward = Ward::stock();
    let before = ward.picture();
    ward.run(&ward.answers(ANSWERS));
    let file = "etc/bulkhead/machine.toml";
    let ours = format!("{}\n# by hand\n", ward.read(file));
    ward.write(file, &ours);
    let after = ward.picture();
    let report = ward.run(&ward.undoing());
    expect(&report, SetupResult::Refused, &["machine.toml", "+# by hand", "mv ", ".mine"]);
    assert_eq!(ward.picture(), after, "nothing else is taken back either");
    fs::rename(ward.at(file), ward.at("mine")).unwrap();
    expect(&ward.run(&ward.undoing()), SetupResult::Changed, &[]);
    assert_eq!(ward.picture(), before);
}

#[test]
fn a_program_that_fails_has_this_run_taken_back() {
    let ward = Ward::stock();
    let before = ward.picture();
    // Nobody can enable what cannot be linked.
    fs::remove_dir(ward.at("etc/systemd/system/multi-user.target.wants")).unwrap();
    let report = ward.run(&ward.answers(ANSWERS));
    expect(&report, SetupResult::Refused, &["systemctl enable", "was taken back"]);
    ward.folder("etc/systemd/system/multi-user.target.wants");
    assert_eq!(ward.picture(), before);
}

#[test]
fn a_service_that_is_enabled_in_part_is_enabled_whole_and_disabled_whole() {
    let claim = "etc/systemd/system/sysinit.target.wants/bulkhead-claim.service";
    let agent = "etc/systemd/system/multi-user.target.wants/bulkhead-agent.service";
    let ward = Ward::stock();
    let before = ward.picture();
    expect(&ward.run(&ward.answers(ANSWERS)), SetupResult::Changed, &[]);
    fs::remove_file(ward.at(claim)).unwrap();
    expect(&ward.run(&ward.answers(ANSWERS)), SetupResult::Changed, &["at each boot"]);
    assert!(fs::symlink_metadata(ward.at(claim)).is_ok());
    fs::remove_file(ward.at(agent)).unwrap();
    expect(&ward.run(&ward.undoing()), SetupResult::Changed, &[]);
    assert_eq!(ward.picture(), before);
}

#[test]
fn what_a_person_changed_between_two_runs_stays_when_both_are_taken_back() {
    let ward = Ward::stock();
    expect(&ward.run(&ward.answers(ANSWERS)), SetupResult::Changed, &[]);
    let theirs = ward.read("etc/bulkhead/machine.toml") + "# ours\n";
    let theirs = theirs.replace("\nnic = ", "\n# nic = ");
    ward.write("etc/bulkhead/machine.toml", &theirs);
    expect(&ward.run(&ward.answers(ANSWERS)), SetupResult::Changed, &[]);
    assert_ne!(ward.read("etc/bulkhead/machine.toml"), theirs);
    expect(&ward.run(&ward.undoing()), SetupResult::Changed, &[]);
    assert_eq!(ward.read("etc/bulkhead/machine.toml"), theirs);
}

#[test]
fn what_somebody_changed_while_setup_asked_is_not_overwritten() {
    let ward = Ward::stock();
    let file = "etc/bulkhead/machine.toml";
    let path = ward.at(file);
    let former = crate::change::current(&path).unwrap();
    let content = "format = 1\n".to_owned();
    let change = Change::File(FileChange { path, former, content, boot_menu: false });
    ward.write(file, "# by hand\n");
    let error = change.make(&ward.pc(), &mut ThisPc).unwrap_err();
    assert!(error.to_string().contains("run this again"), "{error}");
    assert_eq!(ward.read(file), "# by hand\n");
}

#[test]
fn a_menu_that_was_cut_off_is_made_anew() {
    let ward = Ward::stock();
    expect(&ward.run(&ward.answers(ANSWERS)), SetupResult::Changed, &[]);
    let menu = ward.read("boot/grub/grub.cfg");
    ward.write("boot/grub/grub.cfg", menu.lines().next().unwrap());
    expect(&ward.run(&ward.answers(ANSWERS)), SetupResult::Changed, &["update-grub"]);
    assert_eq!(ward.read("boot/grub/grub.cfg"), menu);
}

#[test]
fn a_journal_that_cannot_be_read_and_a_link_are_refused() {
    let ward = Ward::stock();
    ward.write("var/lib/bulkhead/setup.json", "{");
    for options in [ward.undoing(), ward.answers(ANSWERS)] {
        expect(&ward.run(&options), SetupResult::Refused, &["setup.json", "put the files"]);
    }
    fs::remove_file(ward.at("var/lib/bulkhead/setup.json")).unwrap();
    ward.write("elsewhere", "format = 1\n");
    fs::remove_file(ward.at("etc/bulkhead/machine.toml")).unwrap();
    symlink(ward.at("elsewhere"), ward.at("etc/bulkhead/machine.toml")).unwrap();
    expect(&ward.run(&ward.answers(ANSWERS)), SetupResult::Refused, &["is a link"]);
}

#[test]
fn the_effects_on_this_pc_are_whole_and_say_why_they_fail() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "old").unwrap();
    ThisPc.replace(&file, b"new", Attributes::new(0o664)).unwrap();
    assert_eq!(Attributes::of(&fs::metadata(&file).unwrap()), Attributes::new(0o664));
    ThisPc.make_folder(&dir.path().join("folder"), 0o755).unwrap();
    fs::write(dir.path().join("folder/in"), "").unwrap();
    ThisPc.remove_folder(&dir.path().join("folder")).unwrap();
    assert!(dir.path().join("folder/in").exists(), "somebody put something there");
    let error = ThisPc.run("no-such-program", &["--x"]).unwrap_err().to_string();
    assert!(error.contains("`no-such-program --x`"), "{error}");
    let error = ThisPc.run("ls", &["/no/such/file"]).unwrap_err().to_string();
    assert!(error.contains("No such file"), "{error}");
}

#[test]
fn nothing_is_taken_back_in_the_middle_of_an_update_of_bulkhead() {
    let ward = Ward::stock();
    let options = ward.answers(ANSWERS);
    expect(&ward.run(&options), SetupResult::Changed, &[]);
    let folder = layout::programs(&options.state);
    fs::create_dir(&folder).unwrap();
    let digest = "0".repeat(64);
    let record = |stage: &str, waits: &str| {
        let to = format!(
            "{{\"serial\": 7, \"version\": \"2.0\", \"floor\": 1, \"manifest\": \"{digest}\", \"signers\": []}}"
        );
        let pending = format!(
            "{{\"to\": {to}, \"back\": null, \"rollback\": false, \"uid\": 0, \"stage\": \"{stage}\", \"waits\": {waits}}}"
        );
        let text = format!(
            "{{\"format\": 1, \"newest\": null, \"floor\": 1, \"in_force\": null, \"before\": null, \"pending\": {pending}, \"last\": null}}"
        );
        fs::write(folder.join("record.json"), text).unwrap();
    };
    let before = ward.read("boot/grub/grub.cfg");
    for stage in ["waiting", "installing", "proving"] {
        record(stage, "null");
        let words = ["2.0 (serial 7)", "bulkhead program cancel", "bulkhead program status"];
        expect(&ward.run(&ward.undoing()), SetupResult::Refused, &words);
        assert_eq!(ward.read("boot/grub/grub.cfg"), before, "{stage}");
    }
    // One that is installed, and waits for an agent that somebody stopped for good.
    record("proving", "\"no agent runs\"");
    expect(&ward.run(&ward.undoing()), SetupResult::Changed, &[]);
}
