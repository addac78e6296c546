//! Guest images, from the office that makes and signs bundles to the PC that installs them.

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

// Shows: K-2.2.2, K-5.1.2, K-5.1.3.
#[test]
fn what_is_not_signed_by_enough_officers_for_images_is_not_installed() {
    let pc = Pc::new();
    let bundle = pc.pack(1, 1, "disk");
    let refused = || pc.no(&["install", &bundle]);
    assert!(
        refused().contains("2 officers have to sign it, and no signature holds"),
        "{}",
        refused()
    );
    assert!(pc.sign(&bundle, "kim").status.success());
    assert!(pc.sign(&bundle, "park").status.success());
    assert!(
        refused().contains("only kim did; park signed it and may not sign a guest image"),
        "{}",
        refused()
    );
    assert!(refused().contains("`bulkhead images sign`"), "{}", refused());
    assert!(pc.list().is_empty());
    // Officers of a store of before, who may sign policies alone, and a PC without one.
    let store = fs::read_to_string(pc.path("trust.toml")).unwrap();
    let key = store.lines().find(|line| line.starts_with("key")).unwrap();
    fs::write(
        pc.path("trust.toml"),
        format!("format = 1\nthreshold = 1\n[[officer]]\nname = \"kim\"\n{key}\n"),
    )
    .unwrap();
    assert!(refused().contains("lets nobody sign a guest image"), "{}", refused());
    fs::remove_file(pc.path("trust.toml")).unwrap();
    assert!(refused().contains("images are taken signed only"), "{}", refused());
    fs::write(pc.path("trust.toml"), &store).unwrap();
    assert!(pc.sign(&bundle, "lee").status.success());
    pc.yes(&["install", &bundle]);
    // An officer was withdrawn since.
    let trust = |words: &[&str]| {
        let changed =
            command(&[&["trust", words[0], &pc.path("trust.toml")], &words[1..]].concat());
        let changed = { changed }.output().unwrap();
        assert!(changed.status.success(), "{}", said(&changed));
    };
    let choi = pc.path("choi");
    assert!(bulkhead(&["keygen", &choi, "--name", "choi", "--no-passphrase"]).status.success());
    trust(&["add", &format!("{choi}.pub"), "--may-sign", "image"]);
    trust(&["remove", "lee"]);
    assert!(pc.no(&["activate", "clinical"]).contains("only kim did"));
    assert!(pc.no(&["verify"]).contains("only kim did"));
}

// Shows: K-5.1.2.
#[test]
fn what_is_damaged_cut_off_or_no_bundle_is_refused_and_nothing_is_left_of_it() {
    let pc = Pc::new();
    let bundle = pc.signed(1, 1);
    let whole = fs::read(&bundle).unwrap();
    let is_refused = |content: &[u8], says: &str| {
        fs::write(&bundle, content).unwrap();
        let why = pc.no(&["install", &bundle]);
        assert!(why.contains(says), "{says}: {why}");
        assert!(pc.list().is_empty());
        assert!(!fs::exists(pc.path("images/clinical/.arriving")).unwrap());
    };
    is_refused(b"", "it is not a bundle");
    is_refused(b"separation policy", "it is not a bundle");
    is_refused(&whole[..whole.len() - 1], "copy the bundle again");
    is_refused(&whole[..20_000.min(whole.len()) / 2], "copy the bundle again");
    is_refused(&[&whole[..], b"more"].concat(), "4 bytes follow its end");
    let changed = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let at = whole.windows(from.len()).rposition(|it| it == from.as_bytes()).unwrap();
        let mut other = whole.clone();
        other[at..at + to.len()].copy_from_slice(to.as_bytes());
        other
    };
    is_refused(&changed("disk 1", "disk X"), "disk1 is not what was signed");
    is_refused(&changed("a kernel", "A kernel"), "kernel is not what was signed");
    is_refused(
        &changed("serial = 1", "serial = 9"),
        "the text was changed after kim and lee signed it",
    );
    is_refused(
        &changed("purpose = \"image\"", "purpose = \"trust\""),
        "this bundle is a trust store, and not a guest image",
    );
    is_refused(&changed("part = \"initrd\"", "part = \"kernel\""), "an image has one kernel");
    is_refused(&changed("name = \"clinical\"", "name = \"../etc/x\""), "cannot name an image");
    // Nothing that stands in its place is waited for.
    fs::remove_file(&bundle).unwrap();
    mkfifo(bundle.as_str(), Mode::S_IRWXU).unwrap();
    for words in [["install", &bundle], ["check", &bundle], ["sign", &bundle]] {
        let extra: &[&str] = match words[0] {
            "install" => &[],
            "check" => &["--trust", &pc.path("trust.toml")],
            _ => &["--key", &pc.path("kim")],
        };
        let output = match words[0] {
            "install" => pc.images(&words),
            _ => command(&[&["images"], &words[..], extra].concat()).output().unwrap(),
        };
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        assert!(
            said(&output).contains("it is a named pipe and not a regular file"),
            "{}",
            said(&output)
        );
    }
    fs::remove_file(&bundle).unwrap();
    fs::write(&bundle, &whole).unwrap();
    pc.yes(&["install", &bundle]);
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

/// Starts an installation, and waits until some of the disk is there.
fn begun(pc: &Pc, bundle: &str) -> Child {
    let mut install = pc.command(&["install", bundle]);
    let child = install.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let (disk, since) = (pc.path("images/clinical/.arriving/disk1"), Instant::now());
    while fs::metadata(&disk).map_or(0, |disk| disk.len()) < 2 << 20 {
        assert!(since.elapsed() < Duration::from_secs(60), "nothing arrives");
        std::thread::sleep(Duration::from_millis(1));
    }
    child
}

#[test]
fn an_installation_that_is_killed_leaves_the_image_in_force_and_is_gone_on_with() {
    let pc = Pc::new();
    pc.yes(&["install", &pc.signed(1, 1)]);
    pc.yes(&["activate", "clinical"]);
    let bundle = pc.pack(2, 1, &"large ".repeat(16 << 20));
    for officer in ["kim", "lee"] {
        assert!(pc.sign(&bundle, officer).status.success());
    }
    let mut child = begun(&pc, &bundle);
    // Meanwhile nobody else installs.
    let busy = pc.no(&["install", &bundle]);
    assert!(busy.contains("another command installs or removes image clinical"), "{busy}");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(pc.list(), [(1, "pending".to_owned())]);
    let there = fs::metadata(pc.path("images/clinical/.arriving/disk1")).unwrap().len();
    assert!((2 << 20..96 << 20).contains(&there), "{there}");
    pc.yes(&["install", &bundle]);
    assert_eq!(pc.list(), [(2, "installed".to_owned()), (1, "pending".to_owned())]);
    pc.yes(&["verify"]);
    assert!(!fs::exists(pc.path("images/clinical/.arriving")).unwrap());
}

/// Installs a bundle into a store on a file system with these limits, and lists what is left; `None` where there are no namespaces.
fn on_small_disk(pc: &Pc, bundle: &str, limits: &str) -> Option<Output> {
    let _ = fs::create_dir(pc.path("images"));
    let install = pc.command(&["install", bundle]);
    let words: Vec<_> = std::iter::once(install.get_program()).chain(install.get_args()).collect();
    let mut full = Command::new("unshare");
    full.args(["--mount", "--map-root-user", "sh", "-c"]);
    full.arg(format!("mount -t tmpfs -o {limits} tmpfs \"$0\" && \"$@\"; status=$?; ls -A \"$0/clinical\"; exit $status"));
    let output = full.arg(pc.path("images")).args(words).output().ok()?;
    let none = said(&output).contains("unshare:") || said(&output).contains("mount:");
    (!none).then_some(output)
}

#[test]
fn a_disk_that_is_full_at_any_step_of_an_installation_is_left_as_it_was() {
    let pc = Pc::new();
    let bundle = pc.signed(1, 1);
    for (refused, files) in (4..20).enumerate() {
        let limits = format!("size=2g,nr_inodes={files}");
        let Some(output) = on_small_disk(&pc, &bundle, &limits) else { return };
        let said = said(&output);
        if output.status.success() {
            assert!(refused > 4, "{files}: {said}");
            return;
        }
        let left: Vec<_> = said.lines().filter(|line| [".arriving", "1"].contains(line)).collect();
        assert!(left.is_empty(), "{files}: {said}");
    }
    panic!("it is never installed");
}

#[test]
fn a_full_disk_is_told_before_anything_is_copied() {
    let pc = Pc::new();
    let bundle = pc.pack(1, 1, &"x".repeat(4 << 20));
    for officer in ["kim", "lee"] {
        assert!(pc.sign(&bundle, officer).status.success());
    }
    let Some(output) = on_small_disk(&pc, &bundle, "size=2m") else { return };
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let says = "and 1029 MiB are to come, with 1024 that stay free";
    assert!(said(&output).contains(says), "{}", said(&output));
    assert!(said(&output).contains("nothing was installed"), "{}", said(&output));
    assert!(!said(&output).contains(".arriving"), "{}", said(&output));
}

#[test]
fn an_officer_signs_what_she_was_shown_and_not_what_took_its_place() {
    let pc = Pc::new();
    let (bundle, other) = (pc.pack(1, 1, "disk"), pc.pack(2, 1, "another"));
    let whole = fs::read(&other).unwrap();
    fs::write(pc.path("passphrase"), "four words of rain\n").unwrap();
    let key = pc.path("choi");
    let given = ["--passphrase-file", &pc.path("passphrase")];
    let made = bulkhead(&[&["keygen", &key, "--name", "choi"], &given[..]].concat());
    assert!(made.status.success(), "{}", said(&made));
    let mut sign = command(&["images", "sign", &bundle, "--key", &key, "--passphrase-fd", "0"]);
    sign.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = sign.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let shown: Vec<String> = lines.by_ref().map(Result::unwrap).take(5).collect();
    let says = [
        "image clinical, serial 1, floor 1: kernel, initrd, disk1, 5 kB",
        "command line: quiet",
        "root hash: none; each start reads disk1 whole",
        "needs: nothing",
    ];
    assert_eq!(shown[..4], says);
    assert!(shown[4].starts_with("manifest: SHA-256 "), "{shown:?}");
    // While she types.
    fs::rename(&other, &bundle).unwrap();
    child.stdin.take().unwrap().write_all(b"four words of rain\n").unwrap();
    let why: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{why:?}");
    assert!(why.concat().contains("changed or replaced since it was looked at"), "{why:?}");
    assert_eq!(fs::read(&bundle).unwrap(), whole);
}

#[test]
fn a_bundle_is_shown_and_read_before_anybody_has_signed_it() {
    let pc = Pc::new();
    let bundle = pc.pack(1, 1, "disk");
    let check = |words: &[&str]| {
        command(&[&["images", "check", &bundle, "--trust", &pc.path("trust.toml")], words].concat())
            .output()
            .unwrap()
    };
    let output = check(&[]);
    assert_eq!(output.status.code(), Some(1));
    for says in
        ["command line: quiet\n", "manifest: SHA-256 ", "it is whole\n", "no signature holds"]
    {
        assert!(said(&output).contains(says), "{says}: {}", said(&output));
    }
    let read = json(&check(&["--json"]));
    assert_eq!((&read["whole"], &read["cmdline"]), (&Value::from(true), &Value::from("quiet")));
    let end = fs::metadata(&bundle).unwrap().len() - 1;
    fs::OpenOptions::new().write(true).open(&bundle).unwrap().write_all_at(b"X", end).unwrap();
    let output = check(&[]);
    assert!(said(&output).contains("disk1 is not the one that was signed"), "{}", said(&output));
    assert!(!said(&output).contains("it is whole"), "{}", said(&output));
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

#[test]
fn a_first_installation_that_was_interrupted_is_listed_with_what_to_do() {
    let pc = Pc::new();
    let bundle = pc.signed(1, 1);
    fs::create_dir(pc.path("images")).unwrap();
    // What cannot be noted does not arrive; what was copied stays.
    fs::write(pc.path("images/.notes.json"), "{").unwrap();
    pc.no(&["install", &bundle]);
    let said = pc.yes(&["list"]);
    assert!(said.contains("clinical: a command is at work, or was interrupted"), "{said}");
    assert!(said.contains("images/clinical/.arriving"), "{said}");
    let list = json(&pc.images(&["list", "--json"]));
    assert_eq!(list["interrupted"], Value::from(vec!["clinical"]));
    fs::remove_file(pc.path("images/.notes.json")).unwrap();
    pc.yes(&["install", &bundle]);
    assert!(!pc.yes(&["list"]).contains("interrupted"));
}

#[test]
fn a_file_that_is_not_there_or_is_no_kernel_is_said_with_what_to_do() {
    let pc = Pc::new();
    fs::create_dir(pc.path("images")).unwrap();
    let why = pc.no(&["install", &pc.path("gone.bundle")]);
    assert!(why.contains("it is not there") && why.contains("mounted"), "{why}");
    assert!(notes(&pc)[0]["why"].as_str().unwrap().starts_with("install: "));
    fs::write(pc.path("vmlinuz"), "a text").unwrap();
    let pack = |more: &[&str]| {
        let words = ["images", "pack", &pc.path("x.bundle"), "--name", "x", "--serial", "1"];
        let output = command(&[&words[..], more].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        said(&output)
    };
    let why = pack(&["--kernel", &pc.path("vmlinuz")]);
    assert!(why.contains("is not a kernel that a domain can start from"), "{why}");
    assert!(pack(&["--kernel", &pc.path("gone")]).contains("correct its name"));
    let why = pack(&["--kernel", &pc.path("vmlinuz"), "--cmdline-file", &pc.path("gone")]);
    assert!(why.contains("--cmdline-file"), "{why}");
}

#[test]
fn who_signs_learns_whose_signature_does_not_fit_and_is_dropped() {
    let pc = Pc::new();
    let bundle = pc.pack(1, 1, "disk");
    assert!(pc.sign(&bundle, "kim").status.success());
    let mut bytes = fs::read(&bundle).unwrap();
    let word = b"signature = \"";
    let at = bytes.windows(word.len()).position(|it| it == word).unwrap() + word.len();
    bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
    fs::write(&bundle, bytes).unwrap();
    let said = said(&pc.sign(&bundle, "lee"));
    let key = fs::read_to_string(pc.path("kim.pub")).unwrap();
    let key = key.split('"').find(|word| word.starts_with("ed25519:")).unwrap();
    assert!(said.contains(&format!("the signature by {key} does not fit the bundle")), "{said}");
    assert!(said.contains("holds 1 signature;"), "{said}");
}
