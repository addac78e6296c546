//! Bundles that bring Bulkhead's own package: the office makes, signs and checks them, and a PC refuses what it must.

use std::fs;
use std::process::{Command, Output};

use crate::{artefacts, bulkhead, json, path};

/// Runs `bulkhead` with words.
fn run(words: &[&str]) -> Output {
    Command::new(artefacts::program("bulkhead")).args(words).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// An office with the keys of Kim and Lee, who sign programs, both of whom must, and Park, who signs images and policies.
struct Office {
    dir: tempfile::TempDir,
}

impl Office {
    fn new() -> Self {
        let office = Self { dir: tempfile::tempdir().unwrap() };
        let store = office.path("trust.toml");
        for (name, may) in [("park", "policy,image"), ("kim", "program"), ("lee", "program")] {
            let key = office.path(name);
            assert!(
                bulkhead(&["keygen", &key, "--name", name, "--no-passphrase"]).status.success()
            );
            let officer = format!("{key}.pub");
            assert!(run(&["trust", "add", &store, &officer, "--may-sign", may]).status.success());
        }
        assert!(run(&["trust", "threshold", &store, "program=2"]).status.success());
        office
    }

    fn path(&self, name: &str) -> String {
        path(self.dir.path(), name)
    }

    /// Makes a package of this name and version; `None` where there is no dpkg.
    fn package(&self, name: &str, version: &str) -> Option<String> {
        let tree = self.dir.path().join(format!("tree-{name}-{version}"));
        fs::create_dir_all(tree.join("DEBIAN")).unwrap();
        let control = format!(
            "Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: x <x@x.invalid>\nDescription: x\n"
        );
        fs::write(tree.join("DEBIAN/control"), control).unwrap();
        fs::write(tree.join("DEBIAN/md5sums"), format!("{version}  usr/bin/bulkhead\n")).unwrap();
        let deb = self.path(&format!("{name}_{version}_amd64.deb"));
        let built =
            Command::new("dpkg-deb").args(["--build"]).arg(&tree).arg(&deb).output().ok()?;
        assert!(built.status.success(), "{}", said(&built));
        Some(deb)
    }

    fn pack(&self, package: &str, serial: &str, floor: &str) -> Output {
        let out = self.path(&format!("{serial}.bundle"));
        run(&["program", "pack", &out, "--package", package, "--serial", serial, "--floor", floor])
    }

    fn check(&self, bundle: &str) -> Output {
        run(&["program", "check", bundle, "--trust", &self.path("trust.toml"), "--json"])
    }

    fn sign(&self, bundle: &str, officer: &str) -> Output {
        run(&["program", "sign", bundle, "--key", &self.path(officer)])
    }
}

#[test]
fn a_package_is_packed_with_its_own_version_and_counts_once_enough_who_may_have_signed_it() {
    let office = Office::new();
    let Some(package) = office.package("bulkhead", "0.3.0") else { return };
    let packed = office.pack(&package, "7", "5");
    assert!(packed.status.success() && said(&packed).contains("NOT SIGNED"), "{}", said(&packed));
    assert!(said(&packed).contains("bulkhead 0.3.0 (amd64), serial 7, floor 5"), "{packed:?}");
    let bundle = office.path("7.bundle");
    // Nobody's, an officer's who may sign other things, and one of two.
    for officer in [None, Some("park"), Some("kim")] {
        if let Some(officer) = officer {
            assert!(office.sign(&bundle, officer).status.success());
        }
        let checked = office.check(&bundle);
        assert_eq!(checked.status.code(), Some(1), "{officer:?}");
        let checked = json(&checked);
        assert_eq!(checked["whole"], true);
        let why = checked["error"].as_str().unwrap();
        assert!(why.contains("have it signed with `bulkhead program sign`"), "{why}");
    }
    assert!(office.sign(&bundle, "lee").status.success());
    let checked = office.check(&bundle);
    assert!(checked.status.success(), "{}", said(&checked));
    let checked = json(&checked);
    assert_eq!(checked["signers"], serde_json::json!(["kim", "lee"]));
    assert_eq!(checked["version"], "0.3.0");
    // What is no longer what was signed.
    let mut bytes = fs::read(&bundle).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&bundle, bytes).unwrap();
    let why = json(&office.check(&bundle))["error"].to_string();
    assert!(why.contains("its package is not the one that was signed"), "{why}");
}

#[test]
fn what_is_no_package_of_bulkheads_for_a_ward_pc_is_not_packed() {
    let office = Office::new();
    let Some(tools) = office.package("bulkhead-tools", "0.3.0") else { return };
    fs::write(office.path("text.deb"), "a web page").unwrap();
    fs::write(office.path("empty.deb"), "").unwrap();
    for (package, says) in [
        (tools, "it is the package bulkhead-tools: name the one of `bulkhead`"),
        (office.path("text.deb"), "it is not a Debian package"),
        (office.path("empty.deb"), "has 0 bytes"),
        (office.path("nowhere.deb"), "is not there"),
    ] {
        let refused = office.pack(&package, "7", "5");
        assert_eq!(refused.status.code(), Some(1));
        assert!(said(&refused).contains(says), "{}", said(&refused));
        assert!(!office.dir.path().join("7.bundle").exists());
    }
    let package = office.package("bulkhead", "0.3.0").unwrap();
    let refused = office.pack(&package, "7", "8");
    assert!(said(&refused).contains("the floor is above the serial 7"), "{}", said(&refused));
}

#[test]
fn a_bundle_of_one_purpose_is_none_for_the_other() {
    let office = Office::new();
    let Some(package) = office.package("bulkhead", "0.3.0") else { return };
    assert!(office.pack(&package, "7", "5").status.success());
    let bundle = office.path("7.bundle");
    let as_image = run(&["images", "check", &bundle, "--trust", &office.path("trust.toml")]);
    assert_eq!(as_image.status.code(), Some(1));
    assert!(said(&as_image).contains("not a guest image"), "{}", said(&as_image));
    fs::write(office.path("vmlinuz"), ::images::bzimage_for_tests("a kernel")).unwrap();
    let image = office.path("image.bundle");
    let kernel = office.path("vmlinuz");
    let words =
        ["images", "pack", &image, "--name", "clinical", "--serial", "7", "--kernel", &kernel];
    assert!(run(&words).status.success());
    for signed in [false, true] {
        if signed {
            let park = office.path("park");
            assert!(run(&["images", "sign", &image, "--key", &park]).status.success());
        }
        let as_program = office.check(&image);
        let why = json(&as_program)["error"].to_string();
        assert!(why.contains("a guest image"), "{why}");
    }
}

/// Runs a command on a PC that has the office's trust store.
fn on_pc(office: &Office, words: &[&str]) -> Output {
    let (machine, state) = (office.path("machine.toml"), office.path("state"));
    run(&[&["program"], words, &["--machine", &machine, "--state", &state, "--json"]].concat())
}

#[test]
fn a_pc_refuses_what_is_damaged_of_another_purpose_or_kind_of_pc_or_not_signed_by_enough() {
    let office = Office::new();
    let Some(package) = office.package("bulkhead", "0.3.0") else { return };
    assert!(office.pack(&package, "7", "5").status.success());
    let bundle = office.path("7.bundle");
    let refused = |says: &str| {
        let output = on_pc(&office, &["install", &bundle]);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        let why = json(&output)["error"].to_string();
        assert!(why.contains(says), "{why}");
        let kept = fs::read_dir(office.path("state/program"));
        let names = kept.into_iter().flatten().flatten().map(|entry| entry.file_name());
        for name in names {
            assert!(name.to_string_lossy().starts_with('.'), "{name:?} was kept");
        }
    };
    refused("2 officers have to sign it, and no signature holds");
    assert!(office.sign(&bundle, "kim").status.success());
    assert!(office.sign(&bundle, "park").status.success());
    refused("and only kim did; park signed it and may not sign a program");
    assert!(office.sign(&bundle, "lee").status.success());
    let whole = fs::read(&bundle).unwrap();
    // What comes next asks dpkg which package this system has: none of ours.
    if !Command::new("dpkg-query").args(["--show", "bulkhead"]).output().unwrap().status.success() {
        refused("is not installed on this system");
    }
    let mut damaged = whole.clone();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(&bundle, &damaged).unwrap();
    refused("is not the one that was signed");
    fs::write(&bundle, &whole[..whole.len() - 1]).unwrap();
    refused("it is cut off");
    fs::write(&bundle, "a web page").unwrap();
    refused("it is not a bundle");
    fs::remove_file(&bundle).unwrap();
    refused("is not there");
    fs::write(&bundle, &whole).unwrap();
    fs::rename(office.path("trust.toml"), office.path("away")).unwrap();
    refused("there is no trust store");
    fs::rename(office.path("away"), office.path("trust.toml")).unwrap();
    // For another kind of PC, by its manifest and by its package.
    let control = office.dir.path().join("tree-bulkhead-0.3.0/DEBIAN/control");
    let text = fs::read_to_string(&control).unwrap().replace("amd64", "s390x");
    fs::write(&control, text).unwrap();
    let tree = control.parent().unwrap().parent().unwrap();
    let foreign = office.path("foreign.deb");
    assert!(
        Command::new("dpkg-deb").arg("--build").arg(tree).arg(&foreign).status().unwrap().success()
    );
    fs::remove_file(&bundle).unwrap();
    assert!(office.pack(&foreign, "7", "5").status.success());
    for officer in ["kim", "lee"] {
        assert!(office.sign(&bundle, officer).status.success());
    }
    refused("it is for s390x, and this PC is");
}

#[test]
fn a_pc_that_never_had_a_bundle_says_so_and_has_nothing_to_install_or_to_go_back_to() {
    let office = Office::new();
    let shown = on_pc(&office, &["status"]);
    assert!(shown.status.success());
    let shown = json(&shown);
    assert!(shown["in_force"].is_null() && shown["pending"].is_null());
    assert_eq!(shown["floor"], 1);
    assert!(on_pc(&office, &["apply"]).status.success());
    let refused = on_pc(&office, &["rollback"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(json(&refused)["error"].to_string().contains("no package before"));
}
