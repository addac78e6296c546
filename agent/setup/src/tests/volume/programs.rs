//! The programs that setup runs for a volume, as a PC of files has them: what they would change is changed, and copies are really made.

use std::process::Command;

use super::*;

/// The volume is opened: its device has a holder.
pub(super) fn open(hands: &Hands) {
    fs::write(hands.root.join(MAPPER), "").unwrap();
    for (file, text) in [("dm-0/dm/name", "bulkhead_state\n"), ("dm-0/dev", "252:0\n")] {
        let path = hands.root.join("sys/class/block").join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    fs::create_dir_all(hands.root.join("sys/class/block/vdb/holders/dm-0")).unwrap();
}

pub(super) fn close(hands: &Hands) {
    let _ = fs::remove_file(hands.root.join(MAPPER));
    for folder in ["dm-0", "vdb/holders"] {
        let _ = fs::remove_dir_all(hands.root.join("sys/class/block").join(folder));
    }
}

fn mounts(hands: &Hands) -> String {
    fs::read_to_string(hands.root.join("proc/self/mountinfo")).unwrap()
}

pub(super) fn below(point: &Path) -> PathBuf {
    point.with_extension("below")
}

fn mount(hands: &Hands, point: &Path) {
    assert!(hands.root.join(MAPPER).exists(), "it is closed");
    fs::rename(point, below(point)).unwrap();
    fs::rename(hands.root.join("volume"), point).unwrap();
    let line =
        format!("36 1 252:0 / {} rw - ext4 /dev/mapper/bulkhead_state rw\n", point.display());
    fs::write(hands.root.join("proc/self/mountinfo"), mounts(hands) + &line).unwrap();
}

pub(super) fn unmount(hands: &Hands, point: &Path) {
    let mut lines: Vec<String> = mounts(hands).lines().map(|line| format!("{line}\n")).collect();
    let of = format!(" {} ", point.display());
    let at = lines.iter().rposition(|line| line.contains(&of)).expect("it is mounted");
    if lines.remove(at).contains("bulkhead_state") {
        fs::rename(point, hands.root.join("volume")).unwrap();
        fs::rename(below(point), point).unwrap();
    } else {
        fs::remove_file(point.join("bulkhead")).unwrap();
    }
    fs::write(hands.root.join("proc/self/mountinfo"), lines.concat()).unwrap();
}

pub(in crate::tests) fn output(hands: &mut Hands, program: &str, arguments: &[&str]) -> String {
    hands.ran.push(format!("{program} {}", arguments.join(" ")));
    let path = |below: &str| hands.root.join(below).display().to_string();
    match program {
        "wipefs" => {
            let seen = fs::read_to_string(hands.root.join("wipefs")).unwrap();
            // What somebody does to the PC while setup shows what it has seen.
            if hands.root.join("meanwhile").exists() {
                really("cp", &["-rT", &path("meanwhile"), &path("")]).unwrap();
            }
            seen
        }
        "cryptsetup" => fs::read_to_string(hands.root.join("luks-uuid")).unwrap(),
        "systemd-cryptenroll" => {
            assert!(hands.root.join("run/bulkhead-setup/key").exists());
            format!("{RECOVERY_KEY}\n")
        }
        other => panic!("{other}"),
    }
}

/// Runs a program that Debian has, with what links lead to in place of them.
fn really(program: &str, arguments: &[&str]) -> io::Result<()> {
    let arguments =
        arguments.iter().map(|word| fs::canonicalize(word).unwrap_or_else(|_| PathBuf::from(word)));
    let status = Command::new(program).args(arguments).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("{program}: {status}"))) }
}

/// What somebody does to the PC after that.
fn meanwhile(hands: &Hands, after: &str) -> io::Result<()> {
    let done = hands.root.join("after").join(after);
    match done.exists() {
        true => really("cp", &["-rT", done.to_str().unwrap(), hands.root.to_str().unwrap()]),
        false => Ok(()),
    }
}

pub(in crate::tests) fn program(
    hands: &mut Hands,
    program: &str,
    arguments: &[&str],
) -> io::Result<()> {
    let at = |below: &str| hands.root.join(below);
    let state = at(STATE);
    match (program.rsplit('/').next().unwrap(), arguments) {
        ("cryptsetup", ["luksFormat", ..]) => {
            assert!(!at(MAPPER).exists(), "it is open");
            let _ = fs::remove_dir_all(at("volume"));
            let uuid = arguments.iter().skip_while(|word| **word != "--uuid").nth(1).unwrap();
            fs::write(at("luks-uuid"), uuid)?;
            fs::write(at("wipefs"), "crypto_LUKS\n")
        }
        ("cryptsetup", ["open", .., "--test-passphrase", "--key-file", file, _]) => {
            let key = fs::read_to_string(file)?;
            let refused = at("recovery-key-does-not-open").exists() || key != RECOVERY_KEY;
            if refused { Err(io::Error::other("no key of it")) } else { Ok(()) }
        }
        ("cryptsetup", ["open", ..]) | ("systemd-cryptsetup", ["attach", ..]) => {
            open(hands);
            Ok(())
        }
        ("cryptsetup", ["close", .., "bulkhead_state"]) => {
            assert!(at(MAPPER).exists(), "it is open");
            close(hands);
            Ok(())
        }
        ("cryptsetup", ["luksKillSlot" | "luksAddKey", ..])
        | ("systemd-cryptenroll" | "wipefs", _)
        | ("systemctl", ["daemon-reload"]) => Ok(()),
        ("mkfs.ext4", _) => fs::create_dir_all(at("volume/lost+found")),
        ("mount", ["--bind", _, place]) => {
            let seen = if below(&state).exists() { below(&state) } else { state };
            symlink(seen, Path::new(place).join("bulkhead"))?;
            let line = format!("37 1 254:0 /var/lib {place} rw - ext4 /dev/vda rw\n");
            fs::write(at("proc/self/mountinfo"), mounts(hands) + &line)
        }
        ("mount", [.., place]) => {
            mount(hands, Path::new(place));
            Ok(())
        }
        ("umount", [.., place]) => {
            unmount(hands, Path::new(place));
            Ok(())
        }
        ("systemctl", ["enable", "var-lib-bulkhead.mount"]) => {
            let _ = fs::remove_file(at(ENABLED));
            symlink(at(UNIT), at(ENABLED))
        }
        ("systemctl", ["disable", "var-lib-bulkhead.mount"]) => {
            let _ = fs::remove_file(at(ENABLED));
            Ok(())
        }
        ("systemctl", ["start", "var-lib-bulkhead.mount"]) => {
            if at("volume-does-not-mount").exists() {
                return Err(io::Error::other("the mount failed"));
            }
            open(hands);
            if !below(&state).exists() {
                mount(hands, &state);
            }
            meanwhile(hands, "mounted")
        }
        ("cp", [.., to]) if at("copy-fails").exists() => {
            fs::write(Path::new(to).join("half"), "in the clear")?;
            Err(io::Error::other("the copy failed"))
        }
        ("cp" | "diff" | "find" | "rm", _) => really(program, arguments)
            .and_then(|()| meanwhile(hands, program.rsplit('/').next().unwrap())),
        other => panic!("{other:?}"),
    }
}
