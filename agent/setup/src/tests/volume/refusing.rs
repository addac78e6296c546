//! A device that somebody uses or needs is not made the volume, under whatever name.

use super::*;

/// What is wrong with a PC or with what is asked of it, and what setup says of that.
type Wrong = (fn(&Ward) -> Options, &'static [&'static str]);

#[test]
fn a_volume_that_somebody_uses_or_needs_is_refused_with_a_remedy_and_nothing_is_changed() {
    let wrong: [Wrong; 19] = [
        (
            |w| Options { encrypt_state: Some(w.at("dev/vdb")), ..w.encrypting() },
            &["another device after the next start", "by-id/virtio-state"],
        ),
        (
            |w| Options { encrypt_state: Some(w.at("dev/none")), ..w.encrypting() },
            &["there is no", "lsblk"],
        ),
        (
            |w| Options { encrypt_state: Some(w.at("etc/crypttab")), ..w.encrypting() },
            &["no block device"],
        ),
        (
            |w| {
                w.write("proc/self/mountinfo", "9 1 254:16 / /srv rw - ext4 /dev/vdb rw\n");
                w.encrypting()
            },
            &["is mounted at /srv", "fstab"],
        ),
        (
            |w| {
                w.disk("vdb1/partition", "1");
                w.disk("vdb1/dev", "254:0");
                w.encrypting()
            },
            &["vdb1, a partition of", "is mounted at /"],
        ),
        (
            |w| {
                w.disk("holders/dm-0/dev", "");
                w.encrypting()
            },
            &["part of dm-0", "lvcreate"],
        ),
        (
            |w| {
                open(&w.hands());
                w.write("proc/self/mountinfo", "9 1 252:0 / /srv rw - ext4 /dev/dm-0 rw\n");
                w.encrypting()
            },
            &["bulkhead_state, which is open on", "is mounted at /srv"],
        ),
        (
            |w| {
                w.write("proc/swaps", "Filename Type\n/dev/vdb partition 1 0 -2\n");
                w.encrypting()
            },
            &["swapoff"],
        ),
        (
            |w| {
                w.disk("ro", "1");
                w.encrypting()
            },
            &["read-only", "--setrw"],
        ),
        (
            |w| {
                w.disk("removable", "1");
                w.encrypting()
            },
            &["pulled out"],
        ),
        (
            |w| {
                w.disk("slaves/sdx/removable", "1");
                w.encrypting()
            },
            &["pulled out"],
        ),
        (
            |w| {
                w.run(&w.answers(ANSWERS));
                let own = format!(
                    "[domain.clinical]\ndisks = [{{ path = \"{}\" }}]\n",
                    w.at("dev/vdb").display()
                );
                let machine = w.read("etc/bulkhead/machine.toml");
                let lines = machine.lines().filter(|line| !line.starts_with("disks"));
                let text: String = lines.map(|line| format!("{line}\n")).collect();
                let text = text.replacen("[domain.clinical]\n", &own, 1);
                w.write("etc/bulkhead/machine.toml", &text);
                w.encrypting()
            },
            &["machine.toml gives a domain"],
        ),
        (
            |w| {
                w.disk("size", "2048");
                w.encrypting()
            },
            &["has 1 MiB", "need 512 MiB"],
        ),
        (
            |w| {
                w.write("wipefs", "ext4\n");
                w.encrypting()
            },
            &["(ext4)", "--erase"],
        ),
        (
            |w| {
                w.write("wipefs", "ext4\n");
                Options { erase: Some(w.at("dev/vdb")), ..w.encrypting() }
            },
            &["letter by letter"],
        ),
        (
            |w| {
                fs::remove_file(w.at("usr/lib/x86_64-linux-gnu/libtss2-rc.so.0")).unwrap();
                w.encrypting()
            },
            &[
                "on Debian 12 `apt install libtss2-rc0`",
                "on Debian 13 `apt install libtss2-rc0t64`, and run this again",
            ],
        ),
        (
            |w| {
                let images = w.at("var/lib/bulkhead/images");
                w.write(
                    "proc/self/mountinfo",
                    &format!("9 1 8:1 / {} rw - ext4 /dev/sda1 rw\n", images.display()),
                );
                w.encrypting()
            },
            &["lies on one file system"],
        ),
        (
            |w| {
                w.write("proc/77/comm", "bulkhead-vmm\n");
                w.folder("proc/77/fd");
                symlink(w.at("var/lib/bulkhead/images/home.img"), w.at("proc/77/fd/5")).unwrap();
                w.encrypting()
            },
            &["bulkhead-vmm (77)", "systemctl stop bulkhead-agent"],
        ),
        (
            |w| {
                fs::remove_file(w.at("sys/class/tpm/tpm0/tpm_version_major")).unwrap();
                let text = format!("{ANSWERS}[encrypted_state]\nunlock = \"tpm2\"\n");
                Options { encrypt_state: w.encrypting().encrypt_state, ..w.answers(&text) }
            },
            &["no TPM 2.0", "BIOS"],
        ),
    ];
    for (what, says) in wrong {
        let ward = Ward::with_second_disk();
        let options = what(&ward);
        let before = seen(&ward);
        let mut hands = ward.hands();
        let report = ward.run_with(&options, &mut Person::default(), &mut hands);
        expect(&report, SetupResult::Refused, says);
        assert_eq!(seen(&ward), before);
        assert!(
            hands.ran.iter().all(|ran| ran.starts_with("wipefs --noheadings")),
            "{:?}",
            hands.ran
        );
    }
}

#[test]
fn a_name_that_the_volumes_content_makes_is_refused_and_not_offered() {
    let ward = Ward::with_second_disk();
    for folder in ["by-label", "by-diskseq", "by-partlabel"] {
        ward.folder(&format!("dev/disk/{folder}"));
        symlink(ward.at("dev/vdb"), ward.at("dev/disk").join(folder).join("name")).unwrap();
    }
    ward.folder("dev/block");
    symlink(ward.at("dev/vdb"), ward.at("dev/block/254:16")).unwrap();
    symlink(ward.at("dev/vdb"), ward.at("dev/disk/by-id/lvm-pv-uuid-x")).unwrap();
    symlink(ward.at("dev/vdb"), ward.at("srv")).unwrap();
    for name in [
        "dev/disk/by-uuid/0a1b2c3d-0000-4000-8000-123456789abc",
        "dev/disk/by-label/name",
        "dev/disk/by-diskseq/name",
        "dev/disk/by-id/lvm-pv-uuid-x",
        "dev/disk/by-partlabel/../by-label/name",
        "dev/block/254:16",
        "dev/vdb",
        "srv",
    ] {
        let report = ward.run(&Options { encrypt_state: Some(ward.at(name)), ..ward.encrypting() });
        let says = ["by-id/virtio-state", "by-partlabel/name", "below /dev"];
        expect(&report, SetupResult::Refused, &says);
        let offered = report.message.rsplit("it is ").next().unwrap();
        for passing in ["by-uuid", "by-label", "by-diskseq", "lvm-pv-uuid", "block"] {
            assert!(!offered.contains(passing), "{name}: {offered}");
        }
    }
}

#[test]
fn a_volume_that_became_another_or_was_written_since_it_was_shown_is_not_erased() {
    for (file, text, says) in [
        ("sys/class/block/vdb/diskseq", "8\n", "become another device"),
        ("sys/class/block/vdb/dev", "8:0\n", "become another device"),
        ("wipefs", "ext4\n", "was written by somebody"),
        ("proc/swaps", "Filename Type\n/dev/vdb partition 1 0 -2\n", "swapoff"),
    ] {
        let ward = Ward::with_second_disk();
        let before = seen(&ward);
        ward.write(&format!("meanwhile/{file}"), text);
        let mut hands = ward.hands();
        let report = ward.run_with(&ward.encrypting(), &mut Person::default(), &mut hands);
        expect(&report, SetupResult::Refused, &[says, "was taken back"]);
        assert!(!hands.ran.iter().any(|ran| ran.contains("luksFormat")), "{:?}", hands.ran);
        assert_eq!(seen(&ward), before);
    }
    let ward = Ward::with_second_disk();
    let mut hands = ward.hands();
    ward.run_with(&ward.encrypting(), &mut Person::default(), &mut hands);
    let node = ward.at("dev/vdb").display().to_string();
    for words in ["--noheadings", "luksFormat", "--recovery-key", "open --type", "luksKillSlot"] {
        let ran = hands.ran.iter().find(|ran| ran.contains(words)).expect(words);
        assert!(ran.contains(&node), "by the name, which may lead elsewhere by now: {ran}");
    }
}

#[test]
fn a_volume_that_is_named_wrongly_is_told_before_the_pc_is_looked_at() {
    let ward = Ward::with_second_disk();
    // An obstacle of the PC's, which takes longer to see to than a name.
    fs::remove_dir_all(ward.at("sys/class/drm")).unwrap();
    let nosuch = Options { encrypt_state: Some(ward.at("dev/nosuch")), ..ward.encrypting() };
    let report = ward.run(&nosuch);
    expect(&report, SetupResult::Refused, &["there is no", "dev/nosuch"]);
    assert!(!report.message.contains("graphics card"), "{}", report.message);
    expect(&ward.run(&ward.encrypting()), SetupResult::Refused, &["graphics card"]);
}
