//! A recovery key that somebody needs is never lost: not to another volume's, and not to a file that cannot be written.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

const ANOTHER: &str = "99999999-0000-4000-8000-123456789abc";

impl Ward {
    fn with_key_file(&self, file: &Path) -> Options {
        let text =
            format!("{ANSWERS}[encrypted_state]\nrecovery_key_file = \"{}\"\n", file.display());
        Options { encrypt_state: self.encrypting().encrypt_state, ..self.answers(&text) }
    }

    fn erasing(&self, options: Options) -> Options {
        Options { erase: options.encrypt_state.clone(), ..options }
    }

    /// What the kernel gives as the next UUID, and udev as a name.
    fn next_uuid(&self, uuid: &str) {
        self.write("proc/sys/kernel/random/uuid", uuid);
        let _ = symlink(self.at("dev/vdb"), self.at("dev/disk/by-uuid").join(uuid));
    }
}

#[test]
fn a_recovery_key_of_another_volume_is_never_overwritten_and_says_whose_it_is() {
    let ward = Ward::with_second_disk();
    ward.write("proc/sys/kernel/hostname", "ward-12\n");
    let options = ward.with_key_file(&ward.at("recovery"));
    expect(&ward.run(&options), SetupResult::Changed, &["LIES ON THIS PC'S OWN DISK"]);
    let text = format!("{RECOVERY_KEY}\n# opens the volume UUID={UUID} of ward-12\n");
    assert_eq!(ward.read("recovery"), text);
    // Another PC, whose recovery keys come onto the same stick.
    let other = Ward::with_second_disk();
    other.next_uuid(ANOTHER);
    for held in [text.as_str(), RECOVERY_KEY, "a letter\n"] {
        other.write("recovery", held);
        let options = other.with_key_file(&other.at("recovery"));
        expect(&other.run(&options), SetupResult::Refused, &["recovery key"]);
        assert_eq!(other.read("recovery"), held);
    }
    // A volume that was taken back is erased by its name, and its key with it.
    expect(&ward.run(&ward.undoing()), SetupResult::Changed, &[]);
    assert_eq!(ward.read("recovery"), text, "it opens what is left on the volume");
    ward.next_uuid(ANOTHER);
    let options = ward.erasing(ward.with_key_file(&ward.at("recovery")));
    expect(&ward.run(&options), SetupResult::Changed, &["ERASE"]);
    assert!(ward.read("recovery").contains(ANOTHER));
}

#[test]
fn a_key_file_elsewhere_than_on_the_pcs_own_disk_is_not_warned_of() {
    let ward = Ward::with_second_disk();
    use std::os::unix::fs::MetadataExt as _;
    let number = |path: &Path| fs::metadata(path).unwrap().dev();
    // In memory, or on the disk that this program is on, where tests write into memory.
    let program = std::env::current_exe().unwrap();
    let places = [Path::new("/dev/shm"), program.parent().unwrap()];
    let elsewhere = places.into_iter().filter_map(|place| tempfile::tempdir_in(place).ok());
    let mut elsewhere = elsewhere.filter(|it| number(it.path()) != number(&ward.at("")));
    let Some(elsewhere) = elsewhere.next() else { return };
    let note = |file: &Path| ward.run(&Options { dry_run: true, ..ward.with_key_file(file) });
    let said = note(&elsewhere.path().join("key")).described();
    assert!(said.contains("RECOVERY KEY LIES IN"), "{said}");
}

#[test]
fn nothing_is_erased_before_the_key_file_was_written_for_root_alone() {
    let ward = Ward::with_second_disk();
    let folder = ward.at("stick");
    fs::create_dir(&folder).unwrap();
    let options = ward.with_key_file(&folder.join("key"));
    let mut hands = Hands { ignores_rights: true, ..ward.hands() };
    let report = ward.run_with(&options, &mut Person::default(), &mut hands);
    expect(&report, SetupResult::Refused, &["nothing was erased", "others could read it", "fmask"]);
    assert!(!hands.ran.iter().any(|ran| ran.contains("luksFormat")), "{:?}", hands.ran);
    assert!(!folder.join("key").exists(), "nobody is kept off the next time");
    let report = ward.run(&options);
    expect(&report, SetupResult::Changed, &[]);
    assert_eq!(fs::metadata(folder.join("key")).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_run_that_was_cut_short_is_no_obstacle_to_the_next_ones_key() {
    for at in 1.. {
        let ward = Ward::with_second_disk();
        let mut hands = Hands { fault: Some((at, Fault::After)), ..ward.hands() };
        let options = ward.with_key_file(&ward.at("recovery"));
        ward.run_with(&options, &mut Person::default(), &mut hands);
        let is_made = hands.ran.iter().any(|ran| ran.contains("luksKillSlot"));
        ward.reboot();
        ward.next_uuid(ANOTHER);
        let when = format!("step {at}: {:?}", hands.ran.last());
        let report = ward.run(&ward.erasing(ward.with_key_file(&ward.at("recovery"))));
        assert_ne!(report.result, SetupResult::Refused, "{when}: {}", report.message);
        let text = ward.read("recovery");
        assert!(text.contains(RECOVERY_KEY) && text.contains(ANOTHER), "{when}: {text}");
        if is_made {
            return;
        }
    }
}
