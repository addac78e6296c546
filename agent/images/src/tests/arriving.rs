//! How an image arrives in the store, what interrupts that, and what is left of it then.

use std::fs;

use super::{Office, name};
use crate::bzimage_for_tests;
use crate::digest::Digest;
use crate::store::{Arrival, StoreError};

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
