//! Guest images, from the office that makes and signs bundles to the PC that installs them.

mod bundles;
mod interrupted;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use base::state_volume::{UNITS, mount_unit};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;

use crate::{artefacts, bulkhead, json, path};

fn command(words: &[&str]) -> Command {
    let mut command = Command::new(artefacts::program("bulkhead"));
    command.args(words);
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// The mount unit of a state, on the PC that the tests run on: nothing reads it before systemd is told to.
struct MountUnit(PathBuf);

impl MountUnit {
    fn of(state: &Path) -> Option<Self> {
        let unit = Path::new("/").join(UNITS).join(mount_unit(state));
        fs::write(&unit, "[Unit]\n").ok().map(|()| Self(unit))
    }
}

impl Drop for MountUnit {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn no_command_writes_into_a_state_whose_volume_is_not_mounted() {
    let dir = tempfile::tempdir().unwrap();
    let state = path(dir.path(), "state");
    let Some(_unit) = MountUnit::of(Path::new(&state)) else {
        println!("not run: a mount unit is made by root alone, where there is systemd");
        return;
    };
    let (machine, folder) = (path(dir.path(), "machine.toml"), path(dir.path(), "images"));
    let at = ["--state", &state, "--machine", &machine];
    let images = [&at[..], &["--images", &folder]].concat();
    for (words, at) in [
        (&["images", "install", "a.bundle"][..], &images[..]),
        (&["images", "activate", "clinical"], &images),
        (&["images", "rollback", "clinical"], &images),
        (&["images", "remove", "clinical", "1"], &images),
        (&["program", "install", "a.bundle"], &at),
        (&["program", "rollback"], &at),
        (&["program", "cancel"], &at),
    ] {
        let output = command(&[words, at].concat()).output().unwrap();
        let said = said(&output);
        assert!(
            !output.status.success() && said.contains("is not mounted at"),
            "{words:?}: {said}"
        );
    }
    let mut agent = Command::new(artefacts::program("bulkhead-agent"));
    let output = agent.args(at).args(["--runtime", &path(dir.path(), "run")]).output().unwrap();
    assert!(!output.status.success() && said(&output).contains("is not mounted at"));
    assert!(!Path::new(&state).exists());
}

/// An office with the keys of Kim and Lee, who sign images, and Park, who signs policies; and a PC whose trust store wants both for an image.
struct Pc {
    dir: tempfile::TempDir,
}

impl Pc {
    fn new() -> Self {
        let pc = Self { dir: tempfile::tempdir().unwrap() };
        for (name, may) in [("park", "policy"), ("kim", "image"), ("lee", "image")] {
            let key = pc.path(name);
            assert!(
                bulkhead(&["keygen", &key, "--name", name, "--no-passphrase"]).status.success()
            );
            let officer = format!("{key}.pub");
            let add =
                command(&["trust", "add", &pc.path("trust.toml"), &officer, "--may-sign", may])
                    .output();
            assert!(add.unwrap().status.success());
        }
        let both = command(&["trust", "threshold", &pc.path("trust.toml"), "image=2"]).output();
        assert!(both.unwrap().status.success());
        fs::write(pc.path("vmlinuz"), images::bzimage_for_tests("a kernel")).unwrap();
        fs::write(pc.path("initrd"), "an initrd").unwrap();
        pc
    }

    fn path(&self, name: &str) -> String {
        path(self.dir.path(), name)
    }

    /// Runs `bulkhead images` with the store of this PC.
    fn images(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = command(&["images"]);
        command.args(words).args(["--images", &self.path("images")]);
        command.args(["--machine", &self.path("machine.toml"), "--state", &self.path("state")]);
        command
    }

    /// Makes a bundle that nobody has signed.
    fn pack(&self, serial: u64, floor: u64, disk: &str) -> String {
        let (serial, floor) = (serial.to_string(), floor.to_string());
        let file = self.path(&format!("clinical-{serial}.bundle"));
        fs::write(self.path("root.img"), disk).unwrap();
        // Nothing is packed over what somebody has signed.
        let _ = fs::remove_file(&file);
        let packed = command(&[
            "images",
            "pack",
            &file,
            "--name",
            "clinical",
            "--serial",
            &serial,
            "--floor",
            &floor,
            "--cmdline",
            "quiet",
            "--kernel",
            &self.path("vmlinuz"),
            "--initrd",
            &self.path("initrd"),
            "--disk",
            &self.path("root.img"),
        ]);
        let packed = { packed }.output().unwrap();
        assert!(packed.status.success(), "{}", said(&packed));
        assert!(said(&packed).contains("NOT SIGNED"), "{}", said(&packed));
        file
    }

    fn sign(&self, bundle: &str, officer: &str) -> Output {
        command(&["images", "sign", bundle, "--key", &self.path(officer)]).output().unwrap()
    }

    fn signed(&self, serial: u64, floor: u64) -> String {
        let bundle = self.pack(serial, floor, &format!("disk {serial}"));
        for officer in ["kim", "lee"] {
            let signed = self.sign(&bundle, officer);
            assert!(signed.status.success(), "{}", said(&signed));
        }
        bundle
    }

    fn yes(&self, words: &[&str]) -> String {
        let output = self.images(words);
        assert!(output.status.success(), "{words:?}: {}", said(&output));
        said(&output)
    }

    fn no(&self, words: &[&str]) -> String {
        let output = self.images(words);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {}", said(&output));
        said(&output)
    }

    /// Returns the serial and state of each installed image.
    fn list(&self) -> Vec<(u64, String)> {
        let list = json(&self.images(&["list", "--json"]));
        let image = |it: &Value| {
            let (serial, state) = (it.get("serial").unwrap(), it.get("state").unwrap());
            (serial.as_u64().unwrap(), state.as_str().unwrap().to_owned())
        };
        list.get("images").unwrap().as_array().unwrap().iter().map(image).collect()
    }
}

#[test]
fn a_bundle_goes_from_the_office_to_a_pc_comes_into_force_and_is_taken_back() {
    let pc = Pc::new();
    assert!(pc.yes(&["list"]).contains("no image is installed"));
    let bundle = pc.signed(7, 1);
    let trust = pc.path("trust.toml");
    let checked = command(&["images", "check", &bundle, "--trust", &trust]).output().unwrap();
    assert!(checked.status.success());
    assert!(
        said(&checked).contains("it is whole\nsigned by kim, lee; 2 needed"),
        "{}",
        said(&checked)
    );
    assert!(pc.yes(&["install", &bundle]).contains("`bulkhead images activate clinical 7`"));
    assert!(pc.yes(&["install", &bundle]).contains("was installed before"));
    // Arrival is not activation.
    assert_eq!(pc.list(), [(7, "installed".to_owned())]);
    // Which domains have it nobody can know yet.
    let activated = pc.images(&["activate", "clinical"]);
    let told = said(&activated);
    assert!(activated.status.success() && told.contains("serial 7 from their next start on"));
    assert!(told.contains("there is no machine file") && told.contains("is not known"), "{told}");
    assert_eq!(pc.list(), [(7, "pending".to_owned())]);
    pc.yes(&["install", &pc.signed(8, 1)]);
    pc.yes(&["activate", "clinical", "8"]);
    assert_eq!(pc.list(), [(8, "pending".to_owned()), (7, "installed".to_owned())]);
    let table = pc.yes(&["list"]);
    assert!(
        table.contains("clinical  8       at the next start  1      5 kB  kim, lee\n"),
        "{table}"
    );
    // Nothing is in force yet: a first activation is taken back, and nothing is left to go back to.
    let said = pc.yes(&["rollback", "clinical"]);
    assert!(
        said.contains("none is in force") && said.contains("images activate clinical"),
        "{said}"
    );
    assert_eq!(pc.list(), [(8, "installed".to_owned()), (7, "installed".to_owned())]);
    assert!(pc.no(&["rollback", "clinical"]).contains("no previous image"));
    pc.yes(&["activate", "clinical", "8"]);
    assert!(pc.no(&["remove", "clinical", "8"]).contains("comes into force at the next start"));
    pc.yes(&["remove", "clinical", "7"]);
    assert_eq!(pc.list(), [(8, "pending".to_owned())]);
    assert!(pc.yes(&["verify"]).contains("1 image is what was signed"));
    for (words, says) in [
        (["activate", "clinical", "9"].as_slice(), "serial 9 is not installed"),
        (&["activate", "other"], "there is no image other"),
        (&["remove", "other", "1"], "there is no image other"),
    ] {
        assert!(pc.no(words).contains(says), "{words:?}");
    }
    // What was done waits for the agent, which writes it into the audit log.
    let notes: Value =
        serde_json::from_slice(&fs::read(pc.path("images/.notes.json")).unwrap()).unwrap();
    let notes = notes.as_array().unwrap().iter();
    let notes: Vec<_> = notes
        .map(|note| format!("{} {}", note["what"].as_str().unwrap(), note["serial"]))
        .collect();
    let expected = [
        "installed 7",
        "activated 7",
        "installed 8",
        "activated 8",
        "rolled-back null",
        "refused null",
        "activated 8",
        "refused 8",
        "removed 7",
        "refused 9",
    ];
    assert_eq!(notes, expected);
}

#[test]
fn older_images_and_those_below_the_floor_are_refused_and_the_floor_stays() {
    let pc = Pc::new();
    pc.yes(&["install", &pc.signed(5, 1)]);
    let older = pc.signed(4, 1);
    assert!(pc.no(&["install", &older]).contains("serial 4 is older than 5"));
    pc.yes(&["install", &pc.signed(7, 6)]);
    assert_eq!(pc.list(), [(7, "installed".to_owned()), (5, "below-floor".to_owned())]);
    assert!(pc.no(&["activate", "clinical", "5"]).contains("below the floor 6"));
    pc.yes(&["remove", "clinical", "7"]);
    pc.yes(&["remove", "clinical", "5"]);
    assert!(pc.no(&["install", &pc.signed(5, 1)]).contains("below the floor 6"));
    pc.yes(&["install", &pc.signed(8, 1)]);
    // One serial stands for one content.
    let other = pc.pack(8, 1, "something else");
    for officer in ["kim", "lee"] {
        assert!(pc.sign(&other, officer).status.success());
    }
    assert!(pc.no(&["install", &other]).contains("another image with the serial 8 was installed"));
}

#[test]
fn what_was_installed_and_changed_since_is_found_and_not_activated() {
    let pc = Pc::new();
    pc.yes(&["install", &pc.signed(1, 1)]);
    let disk = pc.path("images/clinical/1/disk1");
    fs::OpenOptions::new().write(true).open(&disk).unwrap().write_all_at(b"X", 0).unwrap();
    let says = format!("{disk} is not what was signed");
    for words in [["verify", "clinical"], ["activate", "clinical"]] {
        let why = pc.no(&words);
        assert!(why.contains(&says), "{why}");
    }
    assert_eq!(pc.list(), [(1, "installed".to_owned())]);
    fs::write(pc.path("images/clinical/image.json"), "{").unwrap();
    assert!(pc.no(&["list"]).contains("put back what a backup has of it"));
}

#[test]
fn a_damaged_image_is_repaired_by_its_bundle_and_that_is_noted() {
    let pc = Pc::new();
    let bundle = pc.signed(1, 1);
    pc.yes(&["install", &bundle]);
    pc.yes(&["activate", "clinical"]);
    fs::write(pc.path("images/clinical/1/disk1"), "disk X").unwrap();
    assert!(pc.no(&["verify"]).contains("`bulkhead images install`, which puts it right"));
    assert!(pc.yes(&["install", &bundle]).contains("is as the bundle has it"));
    pc.yes(&["verify"]);
    assert!(pc.yes(&["install", &bundle]).contains("was installed before, and is whole"));
    let notes = notes(&pc);
    let last = notes.last().unwrap();
    assert_eq!((&last["what"], &last["floor"]), (&Value::from("repaired"), &Value::from(1)));
    assert_eq!(last["manifest"].as_str().unwrap().len(), 64);
    assert_eq!(last["trust"], json(&pc.images(&["list", "--json"]))["images"][0]["trust"]);
    assert!(last["trust"].is_u64());
}

fn notes(pc: &Pc) -> Vec<Value> {
    serde_json::from_slice(&fs::read(pc.path("images/.notes.json")).unwrap()).unwrap()
}

#[test]
fn what_cannot_be_noted_for_the_audit_log_is_not_installed_and_what_is_refused_is_noted() {
    let pc = Pc::new();
    let bundle = pc.signed(1, 1);
    fs::create_dir(pc.path("images")).unwrap();
    fs::write(pc.path("images/.notes.json"), "{").unwrap();
    let why = pc.no(&["install", &bundle]);
    assert!(why.contains("so it is not done") && why.contains("move it away"), "{why}");
    assert!(pc.list().is_empty());
    fs::remove_file(pc.path("images/.notes.json")).unwrap();
    let trust = fs::read(pc.path("trust.toml")).unwrap();
    fs::remove_file(pc.path("trust.toml")).unwrap();
    pc.no(&["install", &bundle]);
    assert!(notes(&pc)[0]["why"].as_str().unwrap().contains("images are taken signed only"));
    fs::write(pc.path("trust.toml"), trust).unwrap();
    pc.yes(&["install", &bundle]);
    // One damaged record hides no other image.
    fs::create_dir(pc.path("images/other")).unwrap();
    fs::write(pc.path("images/other/image.json"), "{").unwrap();
    for (command, says) in [("list", "clinical  1"), ("verify", "1 image is what was signed")] {
        let said = pc.no(&[command]);
        assert!(said.contains("other/image.json cannot be used") && said.contains(says), "{said}");
    }
}

#[test]
fn nothing_comes_into_force_that_is_damaged_or_that_its_domains_cannot_run() {
    let pc = Pc::new();
    for serial in [1, 2] {
        pc.yes(&["install", &pc.signed(serial, 1)]);
    }
    let disks: String = (0..16).map(|number| format!("{{ path = \"{number}.img\" }}, ")).collect();
    let machine = format!("format = 1\n[domain.desk]\nimage = \"clinical\"\ndisks = [{disks}]\n");
    fs::write(pc.path("machine.toml"), machine).unwrap();
    let why = pc.no(&["activate", "clinical", "2"]);
    assert!(why.contains("desk: image clinical 2 has 1 disks"), "{why}");
    fs::remove_file(pc.path("machine.toml")).unwrap();
    // As after two starts.
    let file = pc.path("images/clinical/image.json");
    let mut record: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    (record["current"], record["previous"]) = (2.into(), 1.into());
    fs::write(&file, record.to_string()).unwrap();
    fs::write(pc.path("images/clinical/1/disk1"), "disk X").unwrap();
    let why = pc.no(&["rollback", "clinical"]);
    assert!(why.contains("disk1 is not what was signed"), "{why}");
    assert_eq!(pc.list(), [(2, "in-force".to_owned()), (1, "previous".to_owned())]);
    pc.yes(&["install", &pc.signed(1, 1)]);
    pc.yes(&["rollback", "clinical"]);
    assert_eq!(pc.list(), [(2, "in-force".to_owned()), (1, "pending".to_owned())]);
    // What is in force stays, and that it is below the floor is said.
    pc.yes(&["rollback", "clinical"]);
    pc.yes(&["install", &pc.signed(3, 3)]);
    assert!(pc.yes(&["list"]).contains("in force, BELOW THE FLOOR"));
}

#[test]
fn what_a_command_says_leads_to_the_next_one_and_to_what_is_to_be_compared() {
    let pc = Pc::new();
    let bundle = pc.pack(1, 1, "disk");
    let signed = said(&pc.sign(&bundle, "kim"));
    assert!(signed.contains(&format!("`bulkhead images check {bundle}`")), "{signed}");
    let digest = signed.split("SHA-256 ").nth(1).unwrap()[..64].to_owned();
    pc.sign(&bundle, "lee");
    pc.yes(&["install", &bundle]);
    // The office's digest stands on the PC, too.
    assert!(pc.yes(&["list"]).contains(&format!("clinical 1: manifest SHA-256 {digest}\n")));
    let verified = pc.yes(&["verify"]);
    let line = format!("clinical 1: 5 kB read, signed by kim, lee; manifest SHA-256 {digest}\n");
    assert!(verified.contains(&line), "{verified}");
    assert_eq!(json(&pc.images(&["list", "--json"]))["images"][0]["manifest"], digest);
    // Nobody uses it, or somebody does.
    fs::write(pc.path("machine.toml"), "format = 1\n[domain.desk]\nkernel = \"k\"\n").unwrap();
    let activated = pc.yes(&["activate", "clinical"]);
    assert!(activated.contains("no domain in machine.toml has this image"), "{activated}");
    assert!(activated.contains("`image = \"clinical\"`"), "{activated}");
    fs::write(pc.path("machine.toml"), "format = 1\n[domain.desk]\nimage = \"clinical\"\n")
        .unwrap();
    let activated = pc.yes(&["activate", "clinical"]);
    assert!(activated.contains("`bulkhead restart desk`"), "{activated}");
}

#[test]
fn what_a_removal_takes_for_good_is_said() {
    let pc = Pc::new();
    let bundle = pc.signed(1, 1);
    pc.yes(&["install", &bundle]);
    pc.yes(&["install", &pc.signed(2, 1)]);
    // As after two starts.
    let file = pc.path("images/clinical/image.json");
    let mut record: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    (record["current"], record["previous"]) = (2.into(), 1.into());
    fs::write(&file, record.to_string()).unwrap();
    let said = pc.yes(&["remove", "clinical", "1"]);
    assert!(said.contains("none any more that `bulkhead images rollback`"), "{said}");
    assert!(said.contains("does not take it again"), "{said}");
    pc.no(&["install", &bundle]);
    let third = pc.signed(3, 1);
    pc.yes(&["install", &third]);
    let said = pc.yes(&["remove", "clinical", "3"]);
    assert!(!said.contains("rollback") && !said.contains("again"), "{said}");
    pc.yes(&["install", &third]);
}
