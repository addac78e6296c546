//! The Debian packages, made from stand-ins for the programs: what is in them, and that nothing but sources and programs shows in their bytes.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "clippy.toml allows it in tests and does not know that this is one"
)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use serde_json::Value;

/// Folders of the root that are no sources.
const NO_SOURCES: [&str; 2] = ["target", ".git"];
/// What the list of contents is made by.
const BLESS: &str = "BLESS=1 cargo test -p bulkhead-packaging";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Stand-ins for the programs.
fn programs(folder: &Path) -> PathBuf {
    let programs = folder.join("programs");
    fs::create_dir(&programs).unwrap();
    for name in ["bulkhead", "bulkhead-agent", "bulkhead-vmm", "bulkhead-worker"] {
        let path = programs.join(name);
        fs::write(&path, format!("#!/bin/sh\necho {name}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    }
    programs
}

/// Makes the packages of the sources at `root` in `out`.
fn make(root: &Path, programs: &Path, out: &Path) {
    let output = Command::new(root.join("scripts/package"))
        .arg("--programs")
        .arg(programs)
        .arg("--out")
        .arg(out)
        .env("BULKHEAD_PACKAGING", env!("CARGO_BIN_EXE_packaging"))
        .env("SOURCE_DATE_EPOCH", "1795900000")
        .env_remove("DEBFULLNAME")
        .env_remove("DEBEMAIL")
        // Whoever makes a package may have another one, or speak another language.
        .env("TZ", "Asia/Seoul")
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

/// The packages, made once; and the folder that they are in.
static MADE: LazyLock<(tempfile::TempDir, PathBuf)> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    make(&root(), &programs(dir.path()), &out);
    (dir, out)
});

fn deb(out: &Path, package: &str) -> PathBuf {
    let mut found = fs::read_dir(out).unwrap().map(|entry| entry.unwrap().path());
    let begins = format!("{package}_");
    found.find(|path| path.file_name().unwrap().to_string_lossy().starts_with(&begins)).unwrap()
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn unpacked(package: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    run(Command::new("dpkg-deb").arg("-R").arg(deb(&MADE.1, package)).arg(dir.path()));
    dir
}

#[test]
fn the_packages_hold_what_is_listed_and_nothing_else() {
    let mut list =
        format!("Made by `{BLESS}`: mode, owner and place of all that is in the packages.\n");
    for package in ["bulkhead", "bulkhead-tools"] {
        list += &format!("\n{package}\n");
        let contents = run(Command::new("dpkg-deb").arg("-c").arg(deb(&MADE.1, package)));
        for line in contents.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            list += &format!("{} {} {}\n", words[0], words[1], words[5..].join(" "));
        }
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/contents.txt");
    if std::env::var_os("BLESS").is_some() {
        fs::write(&golden, &list).unwrap();
    }
    let expected = fs::read_to_string(&golden).unwrap_or_default();
    assert!(list == expected, "made anew by `{BLESS}` it would be:\n{list}");
}

/// Copies the sources, without what git ignores.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, name) = {
            let entry = entry.unwrap();
            (entry.path(), entry.file_name())
        };
        if NO_SOURCES.iter().any(|other| name == *other) {
            continue;
        }
        if path.is_dir() {
            copy(&path, &to.join(name));
        } else {
            fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

#[test]
fn the_same_sources_and_programs_give_the_same_bytes_in_another_folder() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = dir.path().join("a folder of somebody else's");
    copy(&root(), &elsewhere);
    let out = dir.path().join("out");
    make(&elsewhere, &programs(dir.path()), &out);
    for package in ["bulkhead", "bulkhead-tools"] {
        let bytes = |out: &Path| fs::read(deb(out, package)).unwrap();
        assert!(bytes(&out) == bytes(&MADE.1), "{package} differs");
    }
}

#[test]
fn the_bills_of_materials_name_each_part_once_with_licence_and_uses() {
    for package in ["bulkhead", "bulkhead-tools"] {
        let dir = unpacked(package);
        let path = dir.path().join("usr/share/doc").join(package).join("sbom.cdx.json");
        let bill: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(
            (&bill["bomFormat"], &bill["specVersion"]),
            (&"CycloneDX".into(), &"1.5".into())
        );
        let components = bill["components"].as_array().unwrap();
        assert!(components.len() > 60, "{package}: {}", components.len());
        let mut names = BTreeSet::from([package]);
        for component in components {
            let name = component["bom-ref"].as_str().unwrap();
            assert!(names.insert(name), "{name} is there twice");
            let expression = component["licenses"][0]["expression"].as_str().unwrap();
            assert!(!expression.contains('/'), "{name}: {expression} is no SPDX expression");
            let ours = name.starts_with("bulkhead-");
            let foreign = component["hashes"][0]["content"].as_str().is_some_and(|h| h.len() == 64);
            assert!(ours || foreign || ["rust-std", "glibc"].contains(&name), "{name}");
        }
        for dependency in bill["dependencies"].as_array().unwrap() {
            assert!(names.contains(dependency["ref"].as_str().unwrap()), "{dependency}");
            for used in dependency["dependsOn"].as_array().unwrap() {
                assert!(names.contains(used.as_str().unwrap()), "{dependency}");
            }
        }
        let has = |name: &str| names.iter().any(|known| known.starts_with(name));
        assert!(has("ed25519-dalek@") && has("clap@"));
        assert_eq!(has("kvm-ioctls@"), package == "bulkhead");
        // Of the tests, and of what only builds.
        assert!(
            !has("proptest@") && !has("bulkhead-tests@") && !has("syn@") && !has("clap_mangen@")
        );
    }
}

#[test]
fn every_crate_that_is_linked_has_its_licences_text_in_the_package() {
    let dir = unpacked("bulkhead");
    let path = dir.path().join("usr/share/doc/bulkhead/third-party-licences.txt.gz");
    let text = run(Command::new("zcat").arg(path));
    let (list, texts) = text.split_once(&"=".repeat(80)).unwrap();
    let listed: Vec<&str> =
        list.lines().filter_map(|line| Some(line.split_once(": ")?.0)).collect();
    assert!(listed.len() > 100, "{}", listed.len());
    for name in listed {
        assert!(texts.contains(name), "{name} has no text");
    }
}

#[test]
fn the_default_machine_file_is_the_example_with_all_but_its_format_commented_out() {
    let dir = unpacked("bulkhead");
    let text = fs::read_to_string(dir.path().join("usr/share/bulkhead/machine.toml")).unwrap();
    let in_force: Vec<&str> =
        text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert_eq!(in_force, ["format = 1"]);
    let example = fs::read_to_string(root().join("agent/examples/machine.toml")).unwrap();
    for line in example.lines() {
        assert!(
            text.lines()
                .any(|known| known.trim_start_matches("# ") == line.trim_start_matches("# ")),
            "{line}"
        );
    }
}

#[test]
fn what_the_packages_run_as_root_is_a_script_that_any_shell_reads() {
    for package in ["bulkhead", "bulkhead-tools"] {
        let dir = unpacked(package);
        for name in ["preinst", "postinst", "prerm", "postrm"] {
            let script = dir.path().join("DEBIAN").join(name);
            if script.exists() {
                run(Command::new("dash").arg("-n").arg(&script));
            }
        }
    }
}

#[test]
fn lintian_finds_no_error() {
    for package in ["bulkhead", "bulkhead-tools"] {
        let deb = deb(&MADE.1, package);
        let mut lintian = Command::new("lintian");
        // The stand-ins for the programs are no programs, so that there is nothing to override.
        lintian.args(["--allow-root", "--fail-on", "error", "--no-tag-display-limit"]).arg(&deb);
        let Ok(output) = lintian.output() else { return };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}
