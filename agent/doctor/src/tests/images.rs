//! Files and installed images that domains start from.

use std::os::unix::fs::symlink;

use ::images::digest::Digest;
use ::images::record::{Installed, Record};
use policy::signature::{ImageManifest, SecretKey, Signatures, TrustStore};

use super::*;

#[test]
fn images_that_are_missing_empty_a_directory_or_a_named_pipe_are_told_apart_and_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("folder")).unwrap();
    fs::write(at("empty"), "").unwrap();
    fs::write(at("good"), "x").unwrap();
    symlink("gone", at("dangling")).unwrap();
    nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let text = "format = 1\n[domain.a]\nkernel = \"good\"\ninitrd = \"empty\"\ndisks = [ { path = \"folder\" }, { path = \"dangling\", readonly = true }, { path = \"pipe\", readonly = true } ]\n";
    let context = Context { images: dir.path(), domain_policies: None };
    let findings =
        software::images(&Machine::parse("m", text, context).unwrap(), &Store::at(dir.path()));
    let levels: Vec<Level> = findings.iter().map(|finding| finding.level).collect();
    assert_eq!(levels, [Level::Ok, Level::Fail, Level::Fail, Level::Fail, Level::Fail]);
    let words = ["good", "is empty", "is a directory", "dangling", "neither a file nor a block"];
    for (finding, word) in findings.iter().zip(words) {
        assert!(finding.message.contains(word), "{finding:?}");
    }
}

#[test]
fn a_domain_that_is_to_keep_what_is_saved_and_has_no_disk_for_it_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("policy.toml"), policy_tools::STARTER).unwrap();
    let found = |disks: &str| {
        let text = format!(
            "format = 1\n[seat]\nbackend = \"none\"\n[domain.clinical]\nkernel = \"k\"\nnic = \"0000:00:05.0\"\n{disks}[domain.internet]\nkernel = \"k\"\nnic = \"0000:00:06.0\"\n"
        );
        fs::write(at("machine.toml"), text).unwrap();
        let inputs = InputFiles {
            machine: at("machine.toml"),
            policy: at("policy.toml"),
            images: dir.path().to_owned(),
            state: at("state"),
            runtime: at("run"),
            vmm: None,
        };
        let (machine, findings) = software::input_files(&inputs);
        assert!(machine.is_some(), "{findings:?}");
        findings.into_iter().find(|finding| finding.check == "kept").unwrap()
    };
    let without = ["", "disks = [ { path = \"root.img\", readonly = true } ]\n"];
    for disks in without {
        let finding = found(disks);
        assert_eq!(finding.level, Level::Warn, "{finding:?}");
        // What the Internet desktop writes is thrown away, as the policy says.
        assert_eq!(finding.subject.as_deref(), Some("clinical"));
        assert!(finding.message.contains("nothing that is saved in clinical"), "{finding:?}");
        assert!(finding.remedy.unwrap().contains("clinical/home.img"));
    }
    let finding = found("disks = [ { path = \"home.img\" } ]\n");
    assert_eq!(finding.level, Level::Ok, "{finding:?}");
}

#[test]
fn an_image_that_is_named_and_not_installed_or_not_whole_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let text = "format = 1\n[domain.a]\nimage = \"desk\"\n";
    let context = Context { images: dir.path(), domain_policies: None };
    let machine = Machine::parse("m", text, context).unwrap();
    let look = || {
        let findings = software::images(&machine, &Store::at(dir.path()));
        assert_eq!(findings.len(), 1);
        (findings[0].level, findings[0].message.clone())
    };
    let is_found = |words: &str| {
        let (level, message) = look();
        assert_eq!(level, Level::Fail);
        assert!(message.contains(words), "{message}");
    };
    is_found("there is no image desk");
    let manifest = "format = 1\npurpose = \"image\"\nname = \"desk\"\nserial = 3\nfloor = 2\ncmdline = \"\"\n[[member]]\npart = \"kernel\"\nsize = 6\nsha256 = \"00\"\n"
        .replace("\"00\"", &format!("\"{}\"", "0".repeat(64)));
    fs::create_dir_all(dir.path().join("desk/3")).unwrap();
    fs::write(dir.path().join("desk/3/manifest.toml"), &manifest).unwrap();
    let entry = |text: &str| Installed {
        manifest: Digest::of(text.as_bytes()),
        size: 6,
        signers: Vec::new(),
        keys: Vec::new(),
        trust: None,
    };
    let mut record = Record::default();
    let write = |record: &Record| {
        let text = serde_json::to_string(record).unwrap();
        fs::write(dir.path().join("desk/image.json"), text).unwrap();
    };
    record.arrive(3, 2, entry(&manifest)).unwrap();
    write(&record);
    is_found("none of it is activated");
    record.activate(None).unwrap();
    write(&record);
    is_found("desk/3/kernel");
    fs::write(dir.path().join("desk/3/kernel"), "kerne").unwrap();
    is_found("is not what was signed");
    fs::write(dir.path().join("desk/3/kernel"), "kernel").unwrap();
    let (level, message) = look();
    assert_eq!(level, Level::Ok, "{message}");
    assert_eq!(message, "image desk: serial 3 comes into force at the next start, floor 2");
    // In force, and then below the floor that another brought.
    record.start("clinical", "2026-11-29T12:00:00Z").unwrap().unwrap();
    record.arrive(4, 4, entry("another")).unwrap();
    write(&record);
    let findings = software::images(&machine, &Store::at(dir.path()));
    assert_eq!(findings[0].message, "image desk: serial 3 in force, floor 4");
    assert_eq!((findings.len(), findings[1].level), (2, Level::Warn));
    assert!(findings[1].message.contains("below the floor 4"), "{}", findings[1].message);
    // Who signed it may be somebody else by now.
    let key = |seed| SecretKey::from_random(&[seed; 32].into());
    let mut signatures = Signatures::<ImageManifest>::default();
    signatures.sign(&manifest, &key(1));
    fs::write(dir.path().join("desk/3/manifest.toml.sig"), signatures.text()).unwrap();
    let look = |officer: Option<u8>| {
        let trust = officer.map(|seed| {
            let text = format!(
                "format = 2\nserial = 1\n[threshold]\npolicy = 1\nimage = 1\n[[officer]]\nname = \"kim\"\nkey = \"{}\"\nmay_sign = [\"policy\", \"image\"]\n",
                key(seed).public()
            );
            TrustStore::parse("trust.toml", &text).unwrap()
        });
        software::signatures(&machine, &Store::at(dir.path()), trust.as_ref())
    };
    assert_eq!(look(Some(1)), []);
    for (officer, says) in [(Some(2), "no signature holds"), (None, "no trust store")] {
        let findings = look(officer);
        assert_eq!((findings.len(), findings[0].level), (1, Level::Warn));
        assert!(findings[0].message.contains(says), "{}", findings[0].message);
    }
}
