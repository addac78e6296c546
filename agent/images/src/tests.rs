//! Bundles and the store, from making one to starting it.

mod arriving;
mod damage;
mod packing;

use std::fs;
use std::path::{Path, PathBuf};

use policy::signature::{SecretKey, TrustStore};
use tempfile::TempDir;

use crate::bundle::{ApprovedBundle, Bundle, BundleError};
use crate::bzimage_for_tests;
use crate::digest::Digest;
use crate::manifest::{ImageName, Manifest, Needs, Part};
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
    assert!(why.contains("take the image's bundle: one purpose never counts"), "{why}");
}

#[test]
fn a_programs_manifest_is_told_which_command_is_for_it_and_nothing_else() {
    let text = "format = 1\npurpose = \"program\"\nname = \"bulkhead\"\nserial = 1\nfloor = 1\nversion = \"0.3.0\"\narchitecture = \"amd64\"\n";
    let refused = Manifest::parse("the manifest", text).unwrap_err();
    let says = "this bundle is a program of Bulkhead's, and not a guest image; use `bulkhead program install`";
    assert!(refused.to_string().contains(says), "{refused}");
    assert_eq!(refused.iter().count(), 1, "{refused}");
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
        let fits = |manifest: &Manifest| {
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
