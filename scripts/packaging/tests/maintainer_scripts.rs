//! What the ward PC's package runs as root at its removal, on folders that stand in for the PC's.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "clippy.toml allows it in tests and does not know that this is one"
)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};

/// A PC of folders.
struct Pc(tempfile::TempDir);

impl Pc {
    fn new() -> Self {
        let pc = Self(tempfile::tempdir().unwrap());
        for folder in [
            "bin",
            "etc/bulkhead",
            "etc/default/grub.d",
            "run/bulkhead/clinical",
            "sys/fs/cgroup",
            "var/lib/bulkhead/audit",
            "var/lib/bulkhead/images",
        ] {
            fs::create_dir_all(pc.at(folder)).unwrap();
        }
        // What belongs to the PC that the test runs on is not touched.
        for (program, is) in [
            ("getent", "/bin/false"),
            ("groupdel", "/bin/false"),
            ("userdel", "/bin/false"),
            ("systemctl", "/bin/false"),
            ("deb-systemd-invoke", "/bin/false"),
            ("chown", "/bin/true"),
            ("update-grub", "/bin/true"),
        ] {
            symlink(is, pc.at("bin").join(program)).unwrap();
        }
        for (file, text) in [
            ("etc/bulkhead/machine.toml", "format = 1\n"),
            ("etc/default/grub.d/bulkhead.cfg", "GRUB_CMDLINE_LINUX=x\n"),
            ("etc/default/grub.d/other.cfg", "GRUB_TIMEOUT=1\n"),
            ("var/lib/bulkhead/audit/audit-000000000001.jsonl", "{}\n"),
            ("var/lib/bulkhead/audit/audit.pub", "key\n"),
            ("var/lib/bulkhead/audit.head", "head\n"),
            ("var/lib/bulkhead/images/root.img", "disk\n"),
            ("run/bulkhead/audit.head", "head\n"),
            ("mountinfo", "22 1 254:0 / / rw - ext4 /dev/vda rw\n"),
        ] {
            fs::write(pc.at(file), text).unwrap();
        }
        pc
    }

    fn at(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    /// Writes a script of the package's, as the package has it, of this PC.
    fn script(&self, name: &str) -> String {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("debian/bulkhead");
        let text = fs::read_to_string(folder.join(name)).unwrap();
        let guests = fs::read_to_string(folder.join("guests.sh")).unwrap();
        assert!(text.contains("#GUESTS#\n"), "{name} does not look for guests");
        let mut text = text.replace("#GUESTS#\n", &guests).replace("LONGEST=90", "LONGEST=5");
        text = text.replace("/proc/self/mountinfo", "@PC@/mountinfo");
        for place in ["/etc/", "/run/", "/sys/", "/var/"] {
            text = text.replace(place, &format!("@PC@{place}"));
        }
        text.replace("@PC@", &self.0.path().display().to_string())
    }

    fn path(&self) -> String {
        format!("{}:{}", self.at("bin").display(), std::env::var("PATH").unwrap())
    }

    fn run(&self, name: &str, argument: &str) -> Output {
        let text = self.script(name);
        let mut shell = Command::new("sh");
        shell.args(["-c", &text, name, argument]).env("PATH", self.path()).output().unwrap()
    }

    /// Starts a stand-in for a VMM, which is on record.
    fn vmm(&self, ends: bool) -> Child {
        let program = self.at("bulkhead-vmm");
        let shell = fs::canonicalize("/bin/sh").unwrap();
        // By another process: a thread that forks meanwhile would hold this one's file open for writing.
        assert!(Command::new("cp").arg(shell).arg(&program).status().unwrap().success());
        let does = if ends {
            "sleep 600 & trap 'kill $!; exit' TERM; wait"
        } else {
            "trap '' TERM; while :; do sleep 0.1; done"
        };
        let child = Command::new(program).args(["-c", does]).spawn().unwrap();
        let record = format!(
            "{{\n  \"identity\": {{\n    \"pid\": {},\n    \"start\": 1\n  }}\n}}\n",
            child.id()
        );
        fs::write(self.at("run/bulkhead/clinical/vmm.json"), record).unwrap();
        child
    }

    fn names(&self, below: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.at(below)) else { return Vec::new() };
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
        let mut names: Vec<String> =
            entries.map(|entry| name(entry).to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn an_older_package_over_a_newer_one_is_refused_before_anything_is_unpacked() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("debian/bulkhead");
    let text = fs::read_to_string(folder.join("preinst")).unwrap();
    let run = |arguments: &[&str], older: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", &text, "preinst"]).args(arguments).env("BULKHEAD_OLDER", older);
        shell.output().unwrap()
    };
    let refused = run(&["upgrade", "0.2.0+1", "0.2.0"], "");
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("0.2.0+1 was here last, and 0.2.0 is older"), "{refused:?}");
    // What was removed and not purged has left what it wrote.
    assert_eq!(run(&["install", "0.3.0", "0.2.0"], "").status.code(), Some(1));
    assert!(said(&refused).contains("bulkhead program rollback"), "{refused:?}");
    for (arguments, older) in [
        (["upgrade", "0.2.0+1", "0.2.0"].as_slice(), "1"),
        (&["upgrade", "0.1.9", "0.2.0"], ""),
        (&["upgrade", "0.2.0", "0.2.0"], ""),
        (&["install"], ""),
        (&["install", "0.1.9", "0.2.0"], ""),
        (&["abort-upgrade", "0.3.0"], ""),
    ] {
        let taken = run(arguments, older);
        assert!(taken.status.success() && said(&taken).is_empty(), "{arguments:?}: {taken:?}");
    }
}

#[test]
fn removing_the_package_without_an_agent_has_the_guests_shut_down_first() {
    let pc = Pc::new();
    let output = pc.run("prerm", "remove");
    assert!(output.status.success() && said(&output).is_empty(), "{}", said(&output));
    let mut vmm = pc.vmm(true);
    // Whoever started it is waited for by init; here by a thread.
    let ended = std::thread::spawn(move || vmm.wait().unwrap());
    let output = pc.run("prerm", "remove");
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("asked to shut down"), "{}", said(&output));
    assert!(ended.is_finished());
    ended.join().unwrap();
}

#[test]
fn the_package_stays_and_so_do_the_disks_while_a_guest_runs() {
    let pc = Pc::new();
    let mut vmm = pc.vmm(false);
    let ours = format!("kill -KILL {}", vmm.id());
    let removed = pc.run("prerm", "remove");
    assert!(!removed.status.success());
    assert!(said(&removed).contains(&ours), "{}", said(&removed));
    let purged = pc.run("postrm", "purge");
    assert!(!purged.status.success());
    assert!(said(&purged).contains(&vmm.id().to_string()), "{}", said(&purged));
    assert!(pc.at("var/lib/bulkhead/images/root.img").exists());
    assert!(pc.at("etc/bulkhead/machine.toml").exists());
    vmm.kill().unwrap();
    vmm.wait().unwrap();
    assert!(pc.run("postrm", "purge").status.success());
    assert!(!pc.at("var/lib/bulkhead/images").exists());
}

#[test]
fn what_is_in_a_domains_cgroup_is_a_guest_and_another_process_of_a_records_number_is_none() {
    let pc = Pc::new();
    let group = pc.at("sys/fs/cgroup/bulkhead.slice/bulkhead-run-bulkhead/clinical");
    fs::create_dir_all(&group).unwrap();
    let own = std::process::id();
    fs::write(group.join("cgroup.procs"), format!("{own}\n")).unwrap();
    assert!(!pc.run("postrm", "purge").status.success());
    fs::remove_file(group.join("cgroup.procs")).unwrap();
    let record = format!("{{\n  \"identity\": {{\n    \"pid\": {own}\n  }}\n}}\n");
    fs::write(pc.at("run/bulkhead/clinical/vmm.json"), record).unwrap();
    assert!(pc.run("postrm", "purge").status.success());
}

#[test]
fn purging_leaves_the_audit_log_alone_where_no_later_agent_writes() {
    let pc = Pc::new();
    let output = pc.run("postrm", "purge");
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(said(&output), "");
    let left = pc.names("var/lib/bulkhead");
    let [kept] = &left[..] else { panic!("{left:?}") };
    assert!(kept.starts_with("audit-purged-20"), "{kept}");
    let kept = format!("var/lib/bulkhead/{kept}");
    assert_eq!(pc.names(&kept), ["audit", "audit.head"]);
    assert_eq!(pc.names(&format!("{kept}/audit")), ["audit-000000000001.jsonl", "audit.pub"]);
    let mode = fs::metadata(pc.at(&kept).join("audit/audit.pub")).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "others may read it");
    assert!(!pc.at("etc/bulkhead").exists());
    assert_eq!(pc.names("etc/default/grub.d"), ["other.cfg"], "what setup wrote goes");
    // How far a log went that is not there would be an alarm of the next agent's.
    assert!(!pc.at("run/bulkhead").exists());
    // Nothing of it goes when the package is purged once more.
    assert!(pc.run("postrm", "purge").status.success());
    assert_eq!(pc.names("var/lib/bulkhead"), left);
}

#[test]
fn purging_leaves_an_encrypted_volume_closed_and_nothing_that_would_mount_it() {
    let pc = Pc::new();
    let units = [
        "var-lib-bulkhead.mount",
        "local-fs.target.wants/var-lib-bulkhead.mount",
        "bulkhead-agent.service.d/state-volume.conf",
        "bulkhead-agent.service.d/mine.conf",
        "bulkhead-update.service.d/state-volume.conf",
        "dev-mapper-bulkhead_state.device.d/timeout.conf",
    ];
    for unit in units {
        let path = pc.at("etc/systemd/system").join(unit);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    let crypttab = "home UUID=1 none luks\nbulkhead_state UUID=2 none luks\n";
    fs::write(pc.at("etc/crypttab"), crypttab).unwrap();
    let root = fs::read_to_string(pc.at("mountinfo")).unwrap();
    let state = pc.at("var/lib/bulkhead").display().to_string();
    let mounted = format!("{root}36 22 252:0 / {state} rw - ext4 /dev/mapper/bulkhead_state rw\n");
    fs::write(pc.at("mountinfo"), mounted).unwrap();
    let output = pc.run("postrm", "purge");
    assert!(
        !output.status.success() && said(&output).contains("setup --undo"),
        "{}",
        said(&output)
    );
    assert!(pc.at("var/lib/bulkhead/images/root.img").exists());
    assert_eq!(fs::read_to_string(pc.at("etc/crypttab")).unwrap(), crypttab);
    fs::write(pc.at("mountinfo"), root).unwrap();
    let output = pc.run("postrm", "purge");
    assert!(output.status.success() && said(&output).contains("UUID=2"), "{}", said(&output));
    assert_eq!(fs::read_to_string(pc.at("etc/crypttab")).unwrap(), "home UUID=1 none luks\n");
    let left = pc.names("etc/systemd/system");
    assert_eq!(left, ["bulkhead-agent.service.d", "local-fs.target.wants"]);
    assert_eq!(pc.names("etc/systemd/system/bulkhead-agent.service.d"), ["mine.conf"]);
    assert!(pc.names("etc/systemd/system/local-fs.target.wants").is_empty());
}

#[test]
fn a_link_to_the_state_or_to_images_elsewhere_is_followed_to_the_log_and_not_to_the_images() {
    let pc = Pc::new();
    let (state, elsewhere) = (pc.at("var/lib/bulkhead"), pc.at("elsewhere"));
    fs::rename(&state, &elsewhere).unwrap();
    symlink(&elsewhere, &state).unwrap();
    fs::rename(elsewhere.join("images"), pc.at("images")).unwrap();
    symlink(pc.at("images"), elsewhere.join("images")).unwrap();
    let output = pc.run("postrm", "purge");
    assert!(output.status.success(), "{}", said(&output));
    let left = pc.names("elsewhere");
    assert!(left.len() == 1 && left[0].starts_with("audit-purged-"), "{left:?}");
    assert!(pc.at("images/root.img").exists(), "what the link leads to is not Bulkhead's");
}

#[test]
fn a_disk_that_is_mounted_below_the_state_keeps_what_it_holds_and_is_named() {
    let pc = Pc::new();
    let images = pc.at("var/lib/bulkhead/images");
    // A mount that nobody else sees, if the test may make one.
    let around = r#"mount -t tmpfs tmpfs "$1" || exit 77
        echo disk > "$1/root.img"
        sh -c "$2" postrm purge || exit 1
        cat "$1/root.img""#;
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", around, "sh"])
        .arg(&images)
        .arg(pc.script("postrm"))
        .env("PATH", pc.path())
        .output();
    let Ok(output) = output else { return };
    // `unshare` itself fails with 1, as does the script.
    if output.status.code() == Some(77) || said(&output).starts_with("unshare:") {
        return;
    }
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(output.stdout, b"disk\n", "the mounted disk was emptied");
    assert!(said(&output).contains(&images.display().to_string()), "{}", said(&output));
    assert_eq!(pc.names("var/lib/bulkhead").len(), 2, "the log, and what could not be removed");
}
