//! How bundles are made and signed.

use std::os::unix::fs::FileExt;

use super::*;

#[test]
fn a_bundle_that_another_file_replaces_is_read_on_and_one_that_is_changed_is_refused() {
    let office = Office::new();
    let bundle = office.bundle(1, 1, b"disk");
    let approved = office.approved(&bundle);
    fs::rename(office.bundle(2, 1, b"other"), &bundle).unwrap();
    office.store().install(&approved, |_| (), |_| Ok(())).unwrap();
    assert_eq!(fs::read(office.path("images/clinical/1/disk1")).unwrap(), b"disk");
    let approved = office.approved(&office.bundle(3, 1, b"disk"));
    let file = fs::OpenOptions::new().write(true).open(office.path("3.bundle")).unwrap();
    file.write_all_at(b"X", file.metadata().unwrap().len() - 1).unwrap();
    let refused = office.store().install(&approved, |_| (), |_| Ok(())).unwrap_err();
    assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
    assert!(!office.path("images/clinical/.arriving").exists());
}

#[test]
fn what_makes_no_sense_is_not_packed() {
    let office = Office::new();
    let out = office.path("x.bundle");
    let refused = |change: &dyn Fn(&mut Contents)| {
        let mut contents = office.contents(3, 1, b"disk");
        change(&mut contents);
        let refused = pack(&contents, None, &out, |_| ()).unwrap_err();
        assert!(!out.exists() && !office.path("x.bundle.new").exists());
        match refused {
            PackError::Bundle(error) => error.to_string(),
            other => other.to_string(),
        }
    };
    assert!(refused(&|it| it.floor = 4).contains("the floor is above the serial 3"));
    assert!(refused(&|it| it.cmdline = "quiet".into()).contains("does not name this root hash"));
    assert!(refused(&|it| it.files.truncate(0)).contains("no kernel"));
    assert!(refused(&|it| it.files.push(it.files[0].clone())).contains("one kernel"));
    fs::write(office.path("empty"), "").unwrap();
    assert!(refused(&|it| it.files[0].1 = office.path("empty")).contains("has 0 bytes"));
    assert!(refused(&|it| it.files[0].1 = office.path("gone")).contains("gone"));
    let root = Digest::of(b"disk");
    assert!(
        refused(&|it| it.cmdline = format!("{} verity.hash={}", it.cmdline, Digest::of(b"x")))
            .contains("does not name this root hash once"),
    );
    assert!(
        refused(&|it| it.cmdline = format!("foo={root} x.verity.hash={root}"))
            .contains("does not name this root hash once"),
    );
    assert!(refused(&|it| it.files.truncate(2)).contains("no disk that the guest could check"));
    assert!(refused(&|it| it.serial = policy::SERIAL_MAX).contains("no bundle can follow"));
    fs::write(office.path("text"), "a kernel").unwrap();
    let text = |it: &mut Contents| it.files[0].1 = office.path("text");
    assert!(refused(&text).contains("is not a kernel that a domain can start from"));
    // What a start would read for longer than it may take.
    let large = fs::File::create(office.path("large")).unwrap();
    large.set_len((4 << 30) + 1).unwrap();
    let disk = |it: &mut Contents| it.files.push((Part::Disk(2), office.path("large")));
    assert!(refused(&disk).contains("4096 MiB of disks that no root hash covers"));
}

#[test]
fn what_is_signed_is_the_bundle_that_was_looked_at_and_no_other_byte_of_it_is_written() {
    let office = Office::new();
    let pack = |serial: u64| {
        let out = office.path(&format!("{serial}.bundle"));
        pack(&office.contents(serial, 1, b"disk"), None, &out, |_| ()).unwrap();
        out
    };
    let (good, other) = (pack(1), pack(2));
    let whole = fs::read(&other).unwrap();
    // Another file takes its place, or its content.
    let signing = Signing::open(&good).unwrap();
    signing.bundle().check_members(|_| ()).unwrap();
    fs::rename(&other, &good).unwrap();
    assert!(matches!(signing.sign(&key(1)), Err(PackError::Replaced(_))));
    assert_eq!(fs::read(&good).unwrap(), whole);
    let signing = Signing::open(&good).unwrap();
    let former = fs::read(pack(1)).unwrap();
    fs::write(&good, &former).unwrap();
    assert!(matches!(signing.sign(&key(1)), Err(PackError::Replaced(_))));
    assert_eq!(fs::read(&good).unwrap(), former);
    // Two who look at the same time both sign.
    let (kim, lee) = (Signing::open(&good).unwrap(), Signing::open(&good).unwrap());
    assert_eq!((kim.sign(&key(1)).unwrap().count, lee.sign(&key(2)).unwrap().count), (1, 2));
    office.approved(&good);
    let signed = fs::read(&good).unwrap();
    let changed = |range: std::ops::Range<usize>| signed[range.clone()] != former[range];
    assert!(changed(24..28) && !changed(0..24) && !changed(28..32));
    assert!(signed[32 + (16 << 10)..] == former[32 + (16 << 10)..]);
}

#[test]
fn a_bundle_takes_the_place_of_nothing_but_a_bundle_that_nobody_has_signed() {
    let office = Office::new();
    let contents = office.contents(1, 1, b"disk");
    let packed = |out: &Path| {
        let before = fs::read(out).ok();
        let packed = pack(&contents, None, out, |_| ());
        if packed.is_err() {
            assert_eq!(fs::read(out).ok(), before, "{}", out.display());
        }
        packed.map(drop).map_err(|error| error.to_string())
    };
    let out = office.path("new.bundle");
    assert_eq!((packed(&out), packed(&out)), (Ok(()), Ok(())));
    assert_eq!(sign(&out, &key(1)).unwrap(), 1);
    assert!(packed(&out).unwrap_err().contains("somebody has signed"));
    assert!(packed(&office.path("vmlinuz")).unwrap_err().contains("go into the bundle"));
    let other = office.path("letter.txt");
    fs::write(&other, "Dear all,").unwrap();
    assert!(packed(&other).unwrap_err().contains("is no bundle"));
}

/// Lays down a bundle whose manifest was written by somebody else and signed by enough.
fn written_otherwise(office: &Office, out: &Path, change: impl FnOnce(&str) -> String) {
    let contents = office.contents(1, 1, b"disk");
    let _ = fs::remove_file(out);
    pack(&contents, None, out, |_| ()).unwrap();
    let text = Bundle::open(out).unwrap().head().text.clone();
    let (whole, changed) = (fs::read(out).unwrap(), change(&text));
    let mut signatures =
        policy::signature::Signatures::<policy::signature::ImageManifest>::default();
    [1, 2].iter().for_each(|seed| signatures.sign(&changed, &key(*seed)));
    let signatures = signatures.text();
    let mut bytes = whole[..20].to_vec();
    for number in [changed.len(), signatures.len(), 0] {
        bytes.extend(u32::try_from(number).unwrap().to_le_bytes());
    }
    bytes.extend(signatures.as_bytes());
    bytes.resize(32 + (16 << 10), 0);
    bytes.extend(changed.as_bytes());
    bytes.extend(&whole[32 + (16 << 10) + text.len()..]);
    fs::write(out, bytes).unwrap();
}

#[test]
fn a_manifest_that_says_more_than_is_shown_is_refused() {
    let office = Office::new();
    let out = office.path("1.bundle");
    written_otherwise(&office, &out, str::to_owned);
    office.approved(&out);
    written_otherwise(&office, &out, |text| text.replace("serial = 1", "serial = 1 # or 7"));
    assert!(matches!(Bundle::open(&out), Err(BundleError::NotPlain)));
}

#[test]
fn a_bundle_whose_kernel_no_domain_could_start_is_found_before_it_is_signed() {
    let office = Office::new();
    let out = office.bundle(1, 1, b"disk");
    let kernel = fs::read(office.path("vmlinuz")).unwrap();
    let other = vec![7; kernel.len()];
    let (sound, changed) = (Digest::of(&kernel).to_string(), Digest::of(&other).to_string());
    written_otherwise(&office, &out, |text| text.replace(&sound, &changed));
    let begin = Bundle::open(&out).unwrap().head().begin();
    let file = fs::OpenOptions::new().write(true).open(&out).unwrap();
    file.write_all_at(&other, begin).unwrap();
    let refused = Bundle::open(&out).unwrap().check_members(|_| ()).unwrap_err();
    assert!(matches!(refused, BundleError::NotAKernel(_)), "{refused}");
}

#[test]
fn a_signature_that_does_not_fit_is_dropped_and_its_key_is_named() {
    let office = Office::new();
    let out = office.path("1.bundle");
    pack(&office.contents(1, 1, b"disk"), Some(&key(1)), &out, |_| ()).unwrap();
    // One digit of Kim's signature is another.
    let mut bytes = fs::read(&out).unwrap();
    let signed = b"signature = \"";
    let at = bytes.windows(signed.len()).position(|it| it == signed).unwrap() + signed.len();
    bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
    fs::write(&out, bytes).unwrap();
    let refused = Bundle::open(&out).unwrap().approve(&office.trust).unwrap_err().to_string();
    assert!(refused.contains("kim signed it, or the signature is damaged"), "{refused}");
    let signed = Signing::open(&out).unwrap().sign(&key(2)).unwrap();
    assert_eq!(signed, SigningOutcome { count: 1, dropped: vec![key(1).public()] });
    let signed = Signing::open(&out).unwrap().sign(&key(1)).unwrap();
    assert_eq!(signed, SigningOutcome { count: 2, dropped: Vec::new() });
}
