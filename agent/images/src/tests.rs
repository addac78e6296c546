//! Bundles and the store, from making one to starting it.

mod packing;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use policy::signature::{SecretKey, TrustStore};
use tempfile::TempDir;

use crate::bundle::{ApprovedBundle, Bundle, BundleError};
use crate::bzimage_for_tests;
use crate::digest::Digest;
use crate::manifest::{ImageName, Needs, Part};
use crate::pack::{Contents, PackError, Signing, SigningOutcome, pack};
use crate::record::Rejection;
use crate::store::{Arrival, ImageStart, Store, StoreError};

fn key(seed: u8) -> SecretKey {
    SecretKey::from_random(&[seed; 32].into())
}

fn sign(bundle: &Path, key: &SecretKey) -> Result<usize, PackError> {
    Ok(Signing::open(bundle)?.sign(key)?.count)
}

/// Kim and Lee sign images, and both must; Park signs policies.
fn trust() -> TrustStore {
    let officer = |name: &str, seed, may: &str| {
        format!(
            "[[officer]]\nname = \"{name}\"\nkey = \"{}\"\nmay_sign = [\"{may}\"]\n",
            key(seed).public()
        )
    };
    let officers =
        [officer("kim", 1, "image"), officer("lee", 2, "image"), officer("park", 3, "policy")];
    let text = format!(
        "format = 2\nserial = 1\n{}[threshold]\nimage = 2\npolicy = 1\n",
        officers.concat()
    );
    TrustStore::parse("trust.toml", &text).unwrap()
}

struct Office {
    dir: TempDir,
    trust: TrustStore,
}

impl Office {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), trust: trust() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn store(&self) -> Store {
        Store::at(&self.path("images"))
    }

    fn contents(&self, serial: u64, floor: u64, disk: &[u8]) -> Contents {
        let kernel = bzimage_for_tests("kernel");
        for (name, content) in
            [("vmlinuz", kernel.as_slice()), ("initrd", b"initrd"), ("root.img", disk)]
        {
            fs::write(self.path(name), content).unwrap();
        }
        let root = Digest::of(disk);
        Contents {
            name: name(),
            serial,
            floor,
            cmdline: format!("verity.hash={root} quiet \"x\\y\""),
            verity: Some(root),
            health: None,
            needs: Needs {
                bulkhead: Some("0.1.0".parse().unwrap()),
                memory: Some("2G".parse().unwrap()),
            },
            files: vec![
                (Part::Kernel, self.path("vmlinuz")),
                (Part::Initrd, self.path("initrd")),
                (Part::Disk(1), self.path("root.img")),
            ],
        }
    }

    fn bundle(&self, serial: u64, floor: u64, disk: &[u8]) -> PathBuf {
        let out = self.path(&format!("{serial}.bundle"));
        let _ = fs::remove_file(&out);
        pack(&self.contents(serial, floor, disk), Some(&key(1)), &out, |_| ()).unwrap();
        assert_eq!(sign(&out, &key(2)).unwrap(), 2);
        out
    }

    fn approved(&self, bundle: &Path) -> ApprovedBundle {
        Bundle::open(bundle).unwrap().approve(&self.trust).unwrap()
    }

    fn install(&self, serial: u64, floor: u64) -> Result<Arrival, StoreError> {
        let bundle = self.bundle(serial, floor, format!("disk {serial}").as_bytes());
        self.store().install(&self.approved(&bundle), |_| (), |_| Ok(()))
    }
}

fn name() -> ImageName {
    "clinical".parse().unwrap()
}

#[test]
fn a_bundle_that_enough_officers_signed_is_installed_activated_and_started() {
    let office = Office::new();
    let bundle = office.bundle(1, 1, b"disk");
    let approved = office.approved(&bundle);
    assert_eq!(approved.signers(), ["kim", "lee"]);
    let (store, mut done) = (office.store(), 0);
    assert!(matches!(store.next(&name(), "a"), Err(StoreError::Unknown(_))));
    let arrival = store.install(&approved, |bytes| done += bytes, |_| Ok(())).unwrap();
    assert_eq!((arrival, done), (Arrival::Installed, 4096 + 16));
    assert_eq!(store.install(&approved, |_| (), |_| Ok(())).unwrap(), Arrival::WasThere);
    assert!(matches!(store.start(&name(), "a", |_| Ok(())), Err(StoreError::NotActivated(_))));
    store.activate(&name(), None).unwrap();
    let ImageStart { image, is_new, health, .. } = store.start(&name(), "a", |_| Ok(())).unwrap();
    assert!(is_new && !store.start(&name(), "a", |_| Ok(())).unwrap().is_new && health.is_none());
    assert_eq!(image.manifest, approved.bundle().head().manifest);
    assert_eq!(fs::read(image.kernel()).unwrap(), bzimage_for_tests("kernel"));
    assert_eq!(fs::read(image.initrd().unwrap()).unwrap(), b"initrd");
    let disks: Vec<_> = image.disks().collect();
    assert_eq!(fs::read(&disks[0]).unwrap(), b"disk");
    let signers = store.verify(&name(), 1, &office.trust, |_| ()).unwrap();
    assert_eq!(signers, ["kim", "lee"]);
    assert_eq!(store.names().unwrap(), [name()]);
}

#[test]
fn too_few_officers_and_those_who_may_sign_other_things_approve_no_image() {
    let office = Office::new();
    let out = office.path("a.bundle");
    pack(&office.contents(1, 1, b"disk"), None, &out, |_| ()).unwrap();
    let refused = || Bundle::open(&out).unwrap().approve(&office.trust).unwrap_err().to_string();
    assert!(
        refused().contains("2 officers have to sign it, and no signature holds"),
        "{}",
        refused()
    );
    sign(&out, &key(1)).unwrap();
    sign(&out, &key(3)).unwrap();
    assert!(refused().contains("only kim did; park signed it and may not"), "{}", refused());
    // One officer counts once.
    assert_eq!(sign(&out, &key(1)).unwrap(), 2);
    assert!(refused().contains("only kim did"), "{}", refused());
    sign(&out, &key(2)).unwrap();
    office.approved(&out);
}

#[test]
fn every_byte_of_a_bundle_counts() {
    let office = Office::new();
    let bundle = office.bundle(1, 1, b"disk");
    let whole = fs::read(&bundle).unwrap();
    let head = whole.len() - 16 - 4096;
    let end = whole.len() - 16;
    let comment = 32..32 + whole.iter().skip(32).position(|byte| *byte == b'\n').unwrap();
    let changed =
        (0..32).chain(32..head).step_by(7).chain((head..end).step_by(509)).chain(end..whole.len());
    for at in changed {
        let mut other = whole.clone();
        other[at] ^= 1;
        fs::write(&bundle, &other).unwrap();
        let opened = Bundle::open(&bundle).and_then(|bundle| bundle.approve(&office.trust));
        let Ok(approved) = opened else { continue };
        if at < head {
            // The comment that the signatures begin with.
            assert!(comment.contains(&at), "byte {at} changed, and nobody minds");
            continue;
        }
        let refused = office.store().install(&approved, |_| (), |_| Ok(())).unwrap_err();
        assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
        assert!(office.store().names().unwrap().is_empty());
    }
    for length in (0..head).step_by(97).chain(head..whole.len()) {
        fs::write(&bundle, &whole[..length]).unwrap();
        Bundle::open(&bundle).unwrap_err();
    }
    fs::write(&bundle, [&whole[..], b"x"].concat()).unwrap();
    assert!(matches!(Bundle::open(&bundle), Err(BundleError::Long(1))));
}

#[test]
fn a_signed_bundle_of_another_purpose_is_told_by_what_it_is_and_not_by_its_signatures() {
    let office = Office::new();
    let bundle = office.bundle(1, 1, b"disk");
    let mut whole = fs::read(&bundle).unwrap();
    let (own, other) = (b"purpose = \"image\"", b"purpose = \"trust\"");
    let of_images = |bytes: &[u8]| bytes.windows(own.len()).position(|it| it == own);
    let mut exchanged = 0;
    while let Some(at) = of_images(&whole) {
        whole[at..at + own.len()].copy_from_slice(other);
        exchanged += 1;
    }
    assert_eq!(exchanged, 2, "in the signatures and in the manifest");
    fs::write(&bundle, &whole).unwrap();
    let why = printable::explain(&Bundle::open(&bundle).unwrap_err());
    assert!(why.contains("this bundle is a trust store, and not a guest image"), "{why}");
    assert!(why.contains("`bulkhead program`"), "{why}");
}

#[test]
fn what_was_copied_before_an_interruption_is_gone_on_with_if_it_is_right() {
    let office = Office::new();
    let bundle = office.bundle(1, 1, b"disk");
    let approved = office.approved(&bundle);
    let arriving = office.path("images/clinical/.arriving");
    let manifest = Digest::of(approved.bundle().head().text.as_bytes());
    let kernel = bzimage_for_tests("kernel");
    let longer = [&kernel[..], b" and more"].concat();
    let all = 4096 + 16;
    // What is wrong is read twice.
    let twice = all + 4096 + 6;
    for (left, read) in [(&kernel[..3], all), (b"xyz", twice), (&longer, all)] {
        let _ = fs::remove_dir_all(office.path("images"));
        fs::create_dir_all(&arriving).unwrap();
        fs::write(arriving.join("manifest.sha256"), format!("{manifest}\n")).unwrap();
        fs::write(arriving.join("kernel"), left).unwrap();
        let mut done = 0;
        office.store().install(&approved, |bytes| done += bytes, |_| Ok(())).unwrap();
        assert_eq!(done, read, "{} bytes", left.len());
        assert_eq!(fs::read(office.path("images/clinical/1/kernel")).unwrap(), kernel);
        assert!(!arriving.exists());
    }
    // Of another bundle nothing is taken.
    let _ = fs::remove_dir_all(office.path("images"));
    fs::create_dir_all(&arriving).unwrap();
    fs::write(arriving.join("manifest.sha256"), "other\n").unwrap();
    fs::write(arriving.join("disk9"), "x").unwrap();
    office.store().install(&approved, |_| (), |_| Ok(())).unwrap();
    assert!(!office.path("images/clinical/1/disk9").exists());
}

#[test]
fn an_image_that_came_to_its_place_and_not_into_the_record_arrives_again() {
    let office = Office::new();
    office.install(1, 1).unwrap();
    fs::remove_file(office.path("images/clinical/image.json")).unwrap();
    assert_eq!(office.install(1, 1).unwrap(), Arrival::Installed);
    office.store().activate(&name(), Some(1)).unwrap();
}

#[test]
fn what_somebody_laid_down_in_an_images_place_is_kept_and_named() {
    let office = Office::new();
    let by_hand = office.path("images/clinical/3/home.img");
    fs::create_dir_all(by_hand.parent().unwrap()).unwrap();
    fs::write(&by_hand, "a year of work").unwrap();
    for _ in 0..2 {
        let refused = office.install(3, 1).unwrap_err().to_string();
        assert!(refused.contains("was not installed: move it away"), "{refused}");
    }
    assert_eq!(fs::read(&by_hand).unwrap(), b"a year of work");
    assert_eq!(office.install(4, 1).unwrap(), Arrival::Installed);
}

#[test]
fn older_images_and_those_below_the_floor_are_refused_and_the_one_in_force_stays() {
    let office = Office::new();
    let store = office.store();
    office.install(5, 1).unwrap();
    store.activate(&name(), None).unwrap();
    store.start(&name(), "a", |_| Ok(())).unwrap();
    let rejected = |result: Result<Arrival, StoreError>| match result {
        Err(StoreError::Rejected { why, .. }) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(rejected(office.install(4, 1)), Rejection::Older { serial: 4, newest: 5 });
    office.install(7, 7).unwrap();
    store.remove(&name(), 7).unwrap();
    assert_eq!(rejected(office.install(6, 1)), Rejection::BelowFloor { serial: 6, floor: 7 });
    let other = office.bundle(7, 7, b"disk 7");
    store.install(&office.approved(&other), |_| (), |_| Ok(())).unwrap();
    let other = office.bundle(7, 7, b"other content");
    assert_eq!(
        rejected(store.install(&office.approved(&other), |_| (), |_| Ok(()))),
        Rejection::OtherContent(7)
    );
    assert_eq!(store.next(&name(), "a").unwrap().manifest.serial, 5);
    assert!(matches!(store.remove(&name(), 5), Err(StoreError::Rejected { .. })));
}

#[test]
fn a_start_finds_a_changed_kernel_and_a_disk_without_root_hash_and_verify_every_byte() {
    let office = Office::new();
    let store = office.store();
    office.install(1, 1).unwrap();
    store.activate(&name(), None).unwrap();
    let at = |file: &str| office.path(&format!("images/clinical/1/{file}"));
    let spoil = |file: &str| {
        let was = fs::read(at(file)).unwrap();
        let file = fs::OpenOptions::new().write(true).open(at(file)).unwrap();
        file.write_all_at(b"X", 0).unwrap();
        was
    };
    for (file, at_start) in
        [("kernel", true), ("initrd", true), ("disk1", false), ("manifest.toml", true)]
    {
        let was = spoil(file);
        assert_eq!(store.start(&name(), "a", |_| Ok(())).is_err(), at_start, "{file}");
        store.verify(&name(), 1, &office.trust, |_| ()).unwrap_err();
        fs::write(at(file), was).unwrap();
        store.verify(&name(), 1, &office.trust, |_| ()).unwrap();
    }
    // What is cut off is found at once, and so is a disk that no root hash protects.
    fs::write(at("disk1"), "dis").unwrap();
    store.start(&name(), "a", |_| Ok(())).unwrap_err();
    let mut contents = office.contents(2, 1, b"disk");
    contents.verity = None;
    let out = office.path("2.bundle");
    pack(&contents, Some(&key(1)), &out, |_| ()).unwrap();
    sign(&out, &key(2)).unwrap();
    store.install(&office.approved(&out), |_| (), |_| Ok(())).unwrap();
    store.activate(&name(), None).unwrap();
    store.start(&name(), "a", |_| Ok(())).unwrap();
    fs::write(office.path("images/clinical/2/disk1"), "diXk").unwrap();
    store.start(&name(), "a", |_| Ok(())).unwrap_err();
}

#[test]
fn an_image_whose_disk_a_vmm_holds_is_not_removed() {
    use nix::fcntl::{FcntlArg, fcntl};
    let office = Office::new();
    let store = office.store();
    office.install(1, 1).unwrap();
    let disk = fs::File::open(office.path("images/clinical/1/disk1")).unwrap();
    let lock = nix::libc::flock {
        l_type: i16::try_from(nix::libc::F_RDLCK).unwrap(),
        l_whence: i16::try_from(nix::libc::SEEK_SET).unwrap(),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(&disk, FcntlArg::F_OFD_SETLK(&lock)).unwrap();
    assert!(matches!(store.remove(&name(), 1), Err(StoreError::InUse { .. })));
    drop(disk);
    store.remove(&name(), 1).unwrap();
    assert!(!office.path("images/clinical/1").exists());
}

#[test]
fn a_start_reads_each_image_once_and_takes_what_commands_want_meanwhile() {
    let office = Office::new();
    let store = office.store();
    office.install(1, 1).unwrap();
    store.activate(&name(), None).unwrap();
    store.start(&name(), "a", |_| Ok(())).unwrap();
    office.install(2, 1).unwrap();
    store.activate(&name(), None).unwrap();
    let start = |meanwhile: &dyn Fn(u64)| {
        let mut hashed = 0;
        let fits = |manifest: &crate::manifest::Manifest| {
            meanwhile(manifest.serial);
            Ok(())
        };
        let started = store.start_telling(&name(), "a", fits, |bytes| hashed += bytes).unwrap();
        assert!(started.refused.is_none(), "{started:?}");
        (started.image.manifest.serial, started.is_new, hashed)
    };
    let one = 4096 + 12;
    // It is taken back while it is read.
    let rolled_back = start(&|serial| {
        if serial == 2 {
            assert_eq!(store.roll_back(&name(), Some(1)).unwrap(), Some(1));
        }
    });
    assert_eq!(rolled_back, (1, false, 2 * one));
    // It is activated again while the other is read.
    let activated = start(&|serial| {
        if serial == 1 {
            store.activate(&name(), Some(2)).unwrap();
        }
    });
    assert_eq!(activated, (2, true, 2 * one));
    // Taken back and activated again: what was read is not read again.
    store.roll_back(&name(), Some(1)).unwrap();
    let again = start(&|serial| {
        if serial == 2 {
            store.activate(&name(), Some(1)).unwrap();
        } else {
            store.activate(&name(), Some(2)).unwrap();
        }
    });
    assert!(again.2 <= 2 * one, "{again:?}");
    assert_eq!(start(&|_| ()).2, one);
}

#[test]
fn an_installation_that_was_interrupted_is_named_until_it_is_gone_on_with() {
    let office = Office::new();
    let store = office.store();
    assert!(store.interrupted().unwrap().is_empty());
    let bundle = office.bundle(1, 1, b"disk");
    let fails = |_| Err(std::io::Error::other("the power went"));
    store.install(&office.approved(&bundle), |_| (), fails).unwrap_err();
    let at = office.path("images/clinical");
    assert!(store.names().unwrap().is_empty());
    assert_eq!(store.interrupted().unwrap(), [(name(), at.join(".arriving"))]);
    // Between the last two steps: it is in its place, and the record does not know it.
    fs::rename(at.join(".arriving"), at.join("1")).unwrap();
    assert_eq!(store.interrupted().unwrap(), [(name(), at.join("1"))]);
    store.install(&office.approved(&bundle), |_| (), |_| Ok(())).unwrap();
    assert!(store.interrupted().unwrap().is_empty());
    // What was laid down by hand is nobody's installation.
    fs::create_dir_all(office.path("images/other/2024")).unwrap();
    assert!(store.interrupted().unwrap().is_empty());
}

/// Writes into a file of an installed image.
fn spoil(path: &Path) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(b"X", 0).unwrap();
}

#[test]
fn a_damaged_image_in_force_is_repaired_by_its_bundle_and_a_guest_keeps_what_it_has_open() {
    let office = Office::new();
    let store = office.store();
    let bundle = office.bundle(1, 1, b"disk");
    let install = || store.install(&office.approved(&bundle), |_| (), |_| Ok(())).unwrap();
    assert_eq!(install(), Arrival::Installed);
    store.activate(&name(), None).unwrap();
    store.start(&name(), "a", |_| Ok(())).unwrap();
    assert_eq!(install(), Arrival::WasThere);
    let at = |file: &str| office.path(&format!("images/clinical/1/{file}"));
    for file in ["kernel", "initrd", "disk1", "manifest.toml", "manifest.toml.sig"] {
        spoil(&at(file));
        let held = fs::File::open(at("disk1")).unwrap();
        assert_eq!(install(), Arrival::Repaired, "{file}");
        store.verify(&name(), 1, &office.trust, |_| ()).unwrap();
        assert!(!store.start(&name(), "a", |_| Ok(())).unwrap().is_new);
        held.read_exact_at(&mut [0; 4], 0).unwrap();
        assert!(!office.path("images/clinical/.arriving").exists());
    }
    fs::remove_dir_all(office.path("images/clinical/1")).unwrap();
    assert_eq!(install(), Arrival::Repaired);
    // So are its signatures, once other officers sign.
    let signed = fs::read_to_string(at("manifest.toml.sig")).unwrap();
    sign(&bundle, &key(3)).unwrap();
    assert_eq!(install(), Arrival::Repaired);
    assert_ne!(fs::read_to_string(at("manifest.toml.sig")).unwrap(), signed);
}

#[test]
fn a_disk_that_no_root_hash_covers_is_read_at_each_start_whatever_covers_the_first() {
    let office = Office::new();
    let store = office.store();
    let mut contents = office.contents(1, 1, b"disk");
    fs::write(office.path("second"), "second").unwrap();
    contents.files.push((Part::Disk(2), office.path("second")));
    let out = office.path("1.bundle");
    pack(&contents, Some(&key(1)), &out, |_| ()).unwrap();
    sign(&out, &key(2)).unwrap();
    store.install(&office.approved(&out), |_| (), |_| Ok(())).unwrap();
    store.activate(&name(), None).unwrap();
    store.start(&name(), "a", |_| Ok(())).unwrap();
    spoil(&office.path("images/clinical/1/disk2"));
    let refused = store.start(&name(), "a", |_| Ok(())).unwrap_err();
    assert!(refused.to_string().contains("disk2 is not what was signed"), "{refused}");
}

#[test]
fn what_cannot_be_noted_does_not_arrive() {
    let office = Office::new();
    let bundle = office.bundle(1, 1, b"disk");
    let install = |note: &dyn Fn(Arrival) -> std::io::Result<()>| {
        office.store().install(&office.approved(&bundle), |_| (), note)
    };
    let fails = |_| Err(std::io::Error::other("the log is full"));
    assert!(matches!(install(&fails), Err(StoreError::NotNoted { .. })));
    assert!(office.store().names().unwrap().is_empty());
    assert!(!office.path("images/clinical/1").exists());
    assert_eq!(install(&|_| Ok(())).unwrap(), Arrival::Installed);
}

#[test]
fn a_rollback_goes_where_it_was_meant_to_or_nowhere() {
    let office = Office::new();
    let store = office.store();
    for serial in [1, 2] {
        office.install(serial, 1).unwrap();
        store.activate(&name(), Some(serial)).unwrap();
        store.start(&name(), "a", |_| Ok(())).unwrap();
    }
    office.install(3, 1).unwrap();
    store.activate(&name(), Some(3)).unwrap();
    let meanwhile = store.roll_back(&name(), Some(1)).unwrap_err();
    assert!(matches!(meanwhile, StoreError::Rejected { why: Rejection::ChangedMeanwhile, .. }));
    assert_eq!(store.next(&name(), "a").unwrap().manifest.serial, 3);
    assert_eq!(store.roll_back(&name(), Some(2)).unwrap(), Some(2));
    assert_eq!(store.roll_back(&name(), Some(1)).unwrap(), Some(1));
}

#[test]
fn a_removal_clears_what_interrupted_commands_left_and_nothing_else() {
    let office = Office::new();
    let store = office.store();
    office.install(1, 1).unwrap();
    let at = |file: &str| office.path(&format!("images/clinical/{file}"));
    for folder in [".arriving", "9", "2024"] {
        fs::create_dir(at(folder)).unwrap();
        fs::write(at(folder).join("disk1"), "x").unwrap();
    }
    fs::write(at("9/manifest.sha256"), "of another\n").unwrap();
    store.remove(&name(), 1).unwrap();
    assert!(!at(".arriving").exists() && !at("9").exists() && !at("1").exists());
    // What people laid down is theirs.
    assert!(at("2024/disk1").exists());
}
