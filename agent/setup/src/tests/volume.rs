//! State and images go onto an encrypted volume and come back, whatever happens on the way. The volume is a folder; being mounted is being renamed to
//! where it is mounted; programs that copy and compare are the distribution's own.

mod programs;
mod recovery;
mod refusing;
mod returning;
mod using;

use super::*;

use programs::{below, close, open, unmount};
pub(super) use programs::{output, program};

const STATE: &str = "var/lib/bulkhead";
const UNIT: &str = "etc/systemd/system/var-lib-bulkhead.mount";
const ENABLED: &str = "etc/systemd/system/local-fs.target.wants/var-lib-bulkhead.mount";
const MAPPER: &str = "dev/mapper/bulkhead_state";
const RECOVERY_KEY: &str =
    "djngflrf-tktkbhck-ietcrhcd-ikgntujt-dcnvdbnh-ecgkdnre-nlfgnjun-jlrvkihd";
const UUID: &str = "0a1b2c3d-0000-4000-8000-123456789abc";
/// What the audit log holds: the one thing that may never begin anew.
const LOG: &str = "entry 1\nentry 2\n";

impl Ward {
    /// A stock PC with a TPM, a second disk, and a state.
    fn with_second_disk() -> Self {
        let ward = Self::stock();
        for file in [
            "usr/sbin/cryptsetup",
            "usr/bin/systemd-cryptenroll",
            "usr/lib/systemd/systemd-cryptsetup",
            "usr/sbin/mkfs.ext4",
            "usr/bin/diff",
            "usr/lib/x86_64-linux-gnu/libtss2-esys.so.0",
            "usr/lib/x86_64-linux-gnu/libtss2-mu.so.0",
            "usr/lib/x86_64-linux-gnu/libtss2-rc.so.0",
            "usr/lib/x86_64-linux-gnu/libtss2-tcti-device.so.0",
            "dev/vdb",
        ] {
            ward.write(file, "");
        }
        ward.folder("run");
        ward.folder("dev/mapper");
        ward.folder("dev/disk/by-id");
        ward.folder("dev/disk/by-uuid");
        ward.folder("etc/systemd/system/local-fs.target.wants");
        symlink(ward.at("dev/vdb"), ward.at("dev/disk/by-id/virtio-state")).unwrap();
        symlink(ward.at("dev/vdb"), ward.at("dev/disk/by-uuid").join(UUID)).unwrap();
        ward.disk("size", "4194304");
        ward.disk("dev", "254:16");
        ward.disk("diskseq", "7");
        ward.write("sys/class/tpm/tpm0/tpm_version_major", "2\n");
        ward.write("proc/sys/kernel/random/uuid", UUID);
        ward.write("proc/self/mountinfo", "22 1 254:0 / / rw - ext4 /dev/vda rw\n");
        ward.write("etc/crypttab", "# <target> <source> <key> <options>\n");
        ward.write("var/lib/bulkhead/audit/log", LOG);
        ward.write("var/lib/bulkhead/images/clinical/vmlinuz", "a kernel");
        ward.write("wipefs", "");
        ward
    }

    fn disk(&self, attribute: &str, text: &str) {
        self.write(&format!("sys/class/block/vdb/{attribute}"), text);
    }

    fn encrypting(&self) -> Options {
        let encrypt_state = Some(self.at("dev/disk/by-id/virtio-state"));
        Options { encrypt_state, ..self.answers(ANSWERS) }
    }

    fn key_file(&self, below: &str, mode: u32) {
        use std::os::unix::fs::PermissionsExt as _;
        self.write(below, "0123456789");
        fs::set_permissions(self.at(below), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn with_key_in(&self, file: &Path) -> Options {
        let text = format!("{ANSWERS}[encrypted_state]\nkey_file = \"{}\"\n", file.display());
        Options { encrypt_state: self.encrypting().encrypt_state, ..self.answers(&text) }
    }

    /// The power comes back: what lay in memory is gone, and systemd opens and mounts what it is told to.
    fn reboot(&self) {
        for place in ["run/bulkhead-setup/below", "run/bulkhead-setup/volume", STATE] {
            while self
                .read("proc/self/mountinfo")
                .contains(&format!(" {} ", self.at(place).display()))
            {
                unmount(&self.hands(), &self.at(place));
            }
        }
        let _ = fs::remove_dir_all(self.at("run/bulkhead-setup"));
        close(&self.hands());
        if self.read("etc/crypttab").contains("\nbulkhead_state ") && self.at("volume").exists() {
            open(&self.hands());
        }
        let unit = fs::symlink_metadata(self.at(ENABLED)).is_ok() && self.at(UNIT).exists();
        if unit {
            program(&mut self.hands(), "systemctl", &["start", "var-lib-bulkhead.mount"]).unwrap();
        }
    }

    /// Asserts that an agent that starts now has its log, or does not start.
    fn has_its_log(&self, when: &str) {
        if crate::volume::standing(&self.pc(), &self.at(STATE))
            != crate::volume::StateLocation::Away
        {
            assert_eq!(self.read("var/lib/bulkhead/audit/log"), LOG, "{when}");
        }
    }
}

#[test]
fn state_and_images_move_onto_the_volume_and_a_second_run_changes_nothing() {
    let ward = Ward::with_second_disk();
    let mut hands = ward.hands();
    let report = ward.run_with(&ward.encrypting(), &mut Person::default(), &mut hands);
    let says = [
        "make an encrypted volume",
        "TPM (PCR 7)",
        "SHOWN ONCE",
        "SECURE BOOT IS OFF",
        "SSD",
        "AssertPathIsMountPoint=/var/lib/bulkhead",
    ];
    expect(&report, SetupResult::Changed, &says);
    ward.has_its_log("moved");
    assert!(ward.read("proc/self/mountinfo").contains("/dev/mapper/bulkhead_state"));
    assert_eq!(fs::read_dir(below(&ward.at(STATE))).unwrap().count(), 0, "no former copies");
    assert!(!ward.at("var/lib/bulkhead/.bulkhead-former").exists());
    assert!(!ward.at("run/bulkhead-setup/key").exists());
    let line = format!("bulkhead_state UUID={UUID} none luks,nofail,tries=0,tpm2-device=auto\n");
    assert!(ward.read("etc/crypttab").ends_with(&line), "{}", ward.read("etc/crypttab"));
    let unit = ward.read(UNIT);
    assert!(unit.contains("Where=/var/lib/bulkhead\n") && unit.contains("nofail"), "{unit}");
    // A recovery key that is typed after a minute and a half still mounts it.
    let waits = ward.read("etc/systemd/system/dev-mapper-bulkhead_state.device.d/timeout.conf");
    assert!(waits.ends_with("[Unit]\nJobRunningTimeoutSec=infinity\n"), "{waits}");
    // By the TPM before the key that it began under is gone.
    let place = |words: &str| hands.ran.iter().position(|ran| ran.contains(words)).expect(words);
    assert!(place("argon2id") < place("--tpm2-pcrs=7") && place("--tpm2-pcrs=7") < place("attach"));
    assert!(place("attach") < place("luksKillSlot") && place("luksKillSlot") < place("cp "));
    // What was shown opens it before the key that it began under is gone.
    assert!(place("--recovery-key") < place("--test-passphrase"));
    assert!(place("--test-passphrase") < place("luksKillSlot"));
    assert!(!ward.at("run/bulkhead-setup/recovery").exists());
    let folder = fs::metadata(ward.at("run/bulkhead-setup")).unwrap();
    assert_eq!(Attributes::of(&folder).mode & 0o077, 0, "others could look into it");
    // The key is shown, and is nowhere else.
    assert!(hands.shown_once.contains(RECOVERY_KEY));
    let everything =
        format!("{:?} {} {:?}", ward.picture(), serde_json::to_string(&report).unwrap(), hands.ran);
    assert!(!everything.contains(RECOVERY_KEY));
    let mut hands = ward.hands();
    for options in [ward.encrypting(), ward.answers(ANSWERS)] {
        let report = ward.run_with(&options, &mut Person::default(), &mut hands);
        expect(&report, SetupResult::Unchanged, &[]);
    }
    assert_eq!(hands.steps, 0);
    symlink(ward.at("dev/vdc"), ward.at("dev/disk/by-id/another")).unwrap();
    ward.write("dev/vdc", "");
    let other =
        Options { encrypt_state: Some(ward.at("dev/disk/by-id/another")), ..ward.encrypting() };
    expect(&ward.run(&other), SetupResult::Refused, &["is on an encrypted volume already"]);
}

/// The files of a ward's PC without the names of the test's own folder.
fn seen(ward: &Ward) -> String {
    format!("{:?}", ward.picture()).replace(&ward.fake.dir.path().display().to_string(), "")
}

#[test]
fn undo_brings_the_state_back_and_erases_nothing_of_the_volume() {
    let ward = Ward::with_second_disk();
    let before = seen(&ward);
    ward.run(&ward.encrypting());
    ward.write("var/lib/bulkhead/audit/log", "entry 3\n");
    let report = ward.run(&ward.undoing());
    expect(&report, SetupResult::Changed, &[]);
    assert_eq!(
        seen(&ward)
            .replace("entry 3\\\\n", "entry 1\\\\nentry 2\\\\n")
            .replace("entry 3\\n", "entry 1\\nentry 2\\n"),
        before
    );
    assert_eq!(ward.read("volume/audit/log"), "entry 3\n");
    // It holds something now, and that is erased by the word alone.
    expect(&ward.run(&ward.encrypting()), SetupResult::Refused, &["crypto_LUKS", "--erase"]);
    let erasing =
        Options { erase: Some(ward.at("dev/disk/by-id/virtio-state")), ..ward.encrypting() };
    expect(&ward.run(&erasing), SetupResult::Changed, &["ERASE what is on"]);
    assert_eq!(ward.read("var/lib/bulkhead/audit/log"), "entry 3\n");
}

#[test]
fn after_a_crash_at_any_step_the_log_is_whole_and_a_second_run_comes_to_the_end() {
    let whole = Ward::with_second_disk();
    let mut hands = whole.hands();
    whole.run_with(&whole.encrypting(), &mut Person::default(), &mut hands);
    let (all, end) = (hands.steps, seen(&whole));
    // What comes before is tried without a volume; the service is enabled last.
    let plain = Ward::stock();
    let mut plain_hands = plain.hands();
    plain.run_with(&plain.answers(ANSWERS), &mut Person::default(), &mut plain_hands);
    let first = plain_hands.steps - 3;
    assert!(all > first + 40, "{first} to {all}");
    let unjournalled = |text: String| text.split("/setup.json").next().unwrap_or_default().len();
    for at in first..=all {
        for (fault, again) in [(Fault::Between, true), (Fault::After, false)] {
            let ward = Ward::with_second_disk();
            let before = seen(&ward);
            let mut hands = Hands { fault: Some((at, fault)), ..ward.hands() };
            ward.run_with(&ward.encrypting(), &mut Person::default(), &mut hands);
            assert!(hands.is_dead, "step {at}");
            ward.reboot();
            let when = format!("step {at} {fault:?}: {:?}", hands.ran.last());
            ward.has_its_log(&when);
            if again {
                let erase = Some(ward.at("dev/disk/by-id/virtio-state"));
                let report = ward.run(&Options { erase, ..ward.encrypting() });
                assert_ne!(report.result, SetupResult::Refused, "{when}: {}", report.message);
                ward.has_its_log(&when);
                assert!(ward.read("proc/self/mountinfo").contains("bulkhead_state"), "{when}");
                assert_eq!(fs::read_dir(below(&ward.at(STATE))).unwrap().count(), 0, "{when}");
                assert_eq!(unjournalled(seen(&ward)), unjournalled(end.clone()), "{when}");
            }
            let report = ward.run(&ward.undoing());
            assert_ne!(report.result, SetupResult::Refused, "{when}: {}", report.message);
            assert_eq!(seen(&ward), before, "{when} {again}");
        }
    }
}

#[test]
fn after_a_crash_while_it_comes_back_the_log_is_whole_and_a_second_undo_comes_to_the_end() {
    let whole = Ward::with_second_disk();
    whole.run(&whole.encrypting());
    let mut hands = whole.hands();
    whole.run_with(&whole.undoing(), &mut Person::default(), &mut hands);
    assert!(hands.steps > 30, "{} steps", hands.steps);
    for at in 1..=hands.steps {
        for fault in [Fault::Between, Fault::After] {
            let ward = Ward::with_second_disk();
            let before = seen(&ward);
            ward.run(&ward.encrypting());
            let mut hands = Hands { fault: Some((at, fault)), ..ward.hands() };
            ward.run_with(&ward.undoing(), &mut Person::default(), &mut hands);
            assert!(hands.is_dead, "step {at}");
            ward.reboot();
            let when = format!("step {at} {fault:?}: {:?}", hands.ran.last());
            ward.has_its_log(&when);
            let report = ward.run(&ward.undoing());
            assert_ne!(report.result, SetupResult::Refused, "{when}: {}", report.message);
            assert_eq!(seen(&ward), before, "{when}");
        }
    }
}

#[test]
fn a_volume_that_does_not_mount_leaves_the_state_where_it_was() {
    let ward = Ward::with_second_disk();
    let before = seen(&ward);
    ward.write("volume-does-not-mount", "");
    let report = ward.run(&ward.encrypting());
    expect(&report, SetupResult::Refused, &["the mount failed", "was taken back"]);
    assert_eq!(seen(&ward), before);
    assert!(!ward.at(MAPPER).exists());
}

#[test]
fn a_recovery_key_that_does_not_open_the_volume_is_found_out_before_it_is_needed() {
    let ward = Ward::with_second_disk();
    let before = seen(&ward);
    ward.write("recovery-key-does-not-open", "");
    let mut hands = ward.hands();
    let report = ward.run_with(&ward.encrypting(), &mut Person::default(), &mut hands);
    expect(&report, SetupResult::Refused, &["no key of it", "was taken back"]);
    assert!(!hands.ran.iter().any(|ran| ran.contains("luksKillSlot")));
    assert_eq!(seen(&ward), before);
    assert!(!ward.at("run/bulkhead-setup/recovery").exists());
    let secure_boot = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
    for (value, is_said) in [("\u{6}\0\0\0\u{1}", false), ("\u{6}\0\0\0\0", true)] {
        ward.write(secure_boot, value);
        let erase = ward.encrypting().encrypt_state;
        let shown = ward.run(&Options { dry_run: true, erase, ..ward.encrypting() });
        assert_eq!(shown.described().contains("SECURE BOOT IS OFF"), is_said);
    }
}

#[test]
fn a_recovery_key_that_nobody_would_see_is_not_made_and_a_file_for_it_is_roots_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let ward = Ward::with_second_disk();
    let before = seen(&ward);
    let mut hands = Hands { is_unwatched: true, ..ward.hands() };
    let report = ward.run_with(&ward.encrypting(), &mut Person::default(), &mut hands);
    expect(&report, SetupResult::Refused, &["recovery_key_file", "taken back"]);
    assert_eq!(seen(&ward), before);
    assert!(!hands.ran.iter().any(|ran| ran.contains("luksFormat")));
    let (volume, file) = (ward.at("dev/disk/by-id/virtio-state"), ward.at("recovery"));
    let text = |file: &Path| {
        format!(
            "{ANSWERS}[encrypted_state]\nvolume = \"{}\"\nrecovery_key_file = \"{}\"\n",
            volume.display(),
            file.display()
        )
    };
    for bad in [ward.at("var/lib/bulkhead/key"), ward.at("etc/passwd"), ward.at("no/folder/key")] {
        expect(&ward.run(&ward.answers(&text(&bad))), SetupResult::Refused, &["name a file"]);
    }
    let mut hands = Hands { is_unwatched: true, ..ward.hands() };
    let report = ward.run_with(&ward.answers(&text(&file)), &mut Person::default(), &mut hands);
    expect(&report, SetupResult::Changed, &["written to"]);
    assert!(ward.read("recovery").starts_with(&format!("{RECOVERY_KEY}\n")));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(hands.shown_once, "");
}

#[test]
fn a_pc_without_a_tpm_asks_and_one_with_a_key_file_has_it_in_crypttab() {
    let ward = Ward::with_second_disk();
    fs::remove_file(ward.at("sys/class/tpm/tpm0/tpm_version_major")).unwrap();
    expect(
        &ward.run(&ward.encrypting()),
        SetupResult::Changed,
        &["TYPES THE RECOVERY KEY AT EACH START"],
    );
    assert!(ward.read("etc/crypttab").ends_with(" none luks,nofail,tries=0\n"));
    let ward = Ward::with_second_disk();
    ward.key_file("stick/key", 0o600);
    let options = ward.with_key_in(&ward.at("stick/key"));
    let report = ward.run(&options);
    expect(&report, SetupResult::Changed, &["the key file"]);
    assert!(!report.described().contains("NOT THERE AT THE NEXT START"));
    assert!(
        ward.read("etc/crypttab").contains("/stick/key luks,nofail,tries=0,keyfile-timeout=30s\n")
    );
}

#[test]
fn a_key_file_is_roots_alone_lies_elsewhere_and_is_said_not_to_be_there_where_nothing_mounts_it() {
    let ward = Ward::with_second_disk();
    ward.key_file("var/lib/bulkhead/key", 0o600);
    let report = ward.run(&ward.with_key_in(&ward.at("var/lib/bulkhead/key")));
    expect(&report, SetupResult::Refused, &["on the volume that it opens"]);
    for mode in [0o640, 0o604, 0o620] {
        ward.key_file("stick/key", mode);
        let report = ward.run(&ward.with_key_in(&ward.at("stick/key")));
        expect(&report, SetupResult::Refused, &["not root's alone", "chmod 600"]);
    }
    ward.key_file("stick/key", 0o600);
    symlink(ward.at("stick/key"), ward.at("link")).unwrap();
    let report = ward.run(&ward.with_key_in(&ward.at("link")));
    expect(&report, SetupResult::Refused, &["is no file"]);
    let stick = format!("40 22 8:17 / {} rw - vfat /dev/sdb1 rw\n", ward.at("stick").display());
    ward.write("proc/self/mountinfo", &(ward.read("proc/self/mountinfo") + &stick));
    let shown = Options { dry_run: true, ..ward.with_key_in(&ward.at("stick/key")) };
    let says = "IS NOT THERE AT THE NEXT START";
    expect(&ward.run(&shown), SetupResult::Proposed, &[says, "/etc/fstab"]);
    ward.write("etc/fstab", "# UUID=1 /stick vfat\nUUID=1 /stick vfat nofail 0 2\n");
    assert!(!ward.run(&shown).described().contains(says));
}

#[test]
fn an_answer_file_with_an_unknown_key_of_the_volume_is_refused() {
    let ward = Ward::with_second_disk();
    for (line, says) in [
        ("volumes = \"/dev/x\"", "volume"),
        ("volume = \"sdb1\"", "the whole path"),
        ("unlock = \"pin\"", "tpm2"),
        ("pcrs = [24]", "PCR"),
    ] {
        let text = format!("{ANSWERS}[encrypted_state]\n{line}\n");
        expect(&ward.run(&ward.answers(&text)), SetupResult::Refused, &["mistakes", says]);
    }
}
