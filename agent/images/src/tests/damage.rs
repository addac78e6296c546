//! Images that are no longer what was signed: who finds that, when, and what mends them.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{Office, key, name, sign};
use crate::manifest::Part;
use crate::pack::pack;
use crate::store::Arrival;

/// Writes into a file of an installed image.
fn spoil(path: &Path) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(b"X", 0).unwrap();
}

#[test]
fn a_start_finds_a_changed_kernel_and_a_disk_without_root_hash_and_verify_every_byte() {
    let office = Office::new();
    let store = office.store();
    office.install(1, 1).unwrap();
    store.activate(&name(), None).unwrap();
    let at = |file: &str| office.path(&format!("images/clinical/1/{file}"));
    for (file, at_start) in
        [("kernel", true), ("initrd", true), ("disk1", false), ("manifest.toml", true)]
    {
        let was = fs::read(at(file)).unwrap();
        spoil(&at(file));
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
