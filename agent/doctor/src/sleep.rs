//! Whether this PC can sleep, which what is handed over to a domain does not survive.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Finding, SystemPaths, text};

/// Where systemd looks for its configuration, the first before the others (systemd-sleep.conf(5)).
const PLACES: [&str; 4] =
    ["etc/systemd", "run/systemd", "usr/local/lib/systemd", "usr/lib/systemd"];
/// What may be allowed there, and whether it is if nobody says anything. The last two are allowed by default where the first two are.
const KINDS: [(&str, bool); 4] = [
    ("AllowSuspend", true),
    ("AllowHibernation", true),
    ("AllowSuspendThenHibernate", false),
    ("AllowHybridSleep", false),
];
/// What every sleep goes by; where it is masked systemd has the PC sleep for nobody.
const TARGET: &str = "sleep.target";

pub(super) fn examine(system: &SystemPaths) -> Finding {
    let check = "sleep";
    match system.sys_text("power/state") {
        None => {
            return Finding::warn(
                check,
                "not looked at: the kernel does not say whether it can sleep (/sys/power/state)",
                "mount /sys, and run this command as root",
            );
        }
        Some(ways) if ways.is_empty() => {
            return Finding::ok(check, "the kernel has no way to sleep");
        }
        Some(_) => {}
    }
    if is_masked(&system.root) {
        return Finding::ok(
            check,
            format!("{TARGET} is masked: systemd has this PC sleep for nobody"),
        );
    }
    let settings = settings(&system.root);
    let allowed: Vec<String> = KINDS
        .into_iter()
        .filter_map(|(kind, by_default)| match settings.get(kind) {
            Some((false, _)) => None,
            Some((true, file)) => Some(format!("{kind}=yes in {}", file.display())),
            None => by_default.then(|| format!("{kind}= is not set to no")),
        })
        .collect();
    if allowed.is_empty() {
        return Finding::ok(check, "systemd has this PC sleep for nobody");
    }
    Finding::warn(
        check,
        format!(
            "systemd may have this PC sleep ({}): a domain's network card is dead when it wakes, and the domain is restarted",
            allowed.join(", ")
        ),
        "`systemctl enable bulkhead-claim.service` and restart the PC, which has it write /run/systemd/sleep.conf.d/50-bulkhead.conf at each boot; take out what is set to yes in another file",
    )
}

/// Returns whether an administrator has masked it.
fn is_masked(root: &Path) -> bool {
    ["etc/systemd/system", "run/systemd/system"].into_iter().any(|place| {
        let link = fs::read_link(root.join(place).join(TARGET));
        link.is_ok_and(|to| to == Path::new("/dev/null"))
    })
}

/// Returns what is set, and in which file: the last word counts. Of files of one name the one in the first place counts, and drop-ins come
/// after the main file, in the order of their names.
fn settings(root: &Path) -> BTreeMap<String, (bool, PathBuf)> {
    let places = || PLACES.iter().map(|place| root.join(place));
    let main = places().map(|place| place.join("sleep.conf")).find(|file| file.exists());
    let mut drop_ins: BTreeMap<std::ffi::OsString, PathBuf> = BTreeMap::new();
    for place in places() {
        let entries = fs::read_dir(place.join("sleep.conf.d")).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            if let Some(name) = path.file_name().filter(|_| is_conf(&path)) {
                drop_ins.entry(name.to_owned()).or_insert(path);
            }
        }
    }
    let mut settings = BTreeMap::new();
    for file in main.into_iter().chain(drop_ins.into_values()) {
        for (name, value) in assignments(&text(&file).unwrap_or_default()) {
            match boolean(&value) {
                Some(value) => settings.insert(name, (value, file.clone())),
                // Nothing after the sign takes back what was said before; what is no word of systemd's changes nothing.
                None if value.is_empty() => settings.remove(&name),
                None => None,
            };
        }
    }
    settings
}

fn is_conf(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "conf")
}

/// Returns the settings of the section `[Sleep]`.
fn assignments(text: &str) -> Vec<(String, String)> {
    let mut in_section = false;
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        match line.strip_prefix('[') {
            Some(section) => in_section = section == "Sleep]",
            None if !in_section || line.starts_with(['#', ';']) => {}
            None => found.extend(
                line.split_once('=')
                    .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())),
            ),
        }
    }
    found
}

/// Reads a truth value as systemd does.
fn boolean(word: &str) -> Option<bool> {
    match word.to_ascii_lowercase().as_str() {
        "1" | "yes" | "y" | "true" | "t" | "on" => Some(true),
        "0" | "no" | "n" | "false" | "f" | "off" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use control::findings::Level;

    use super::*;
    use crate::fake::Pc;

    const OFF: &str = "[Sleep]\nAllowSuspend=no\nAllowHibernation=no\n";

    fn pc_that_can(ways: &str) -> Pc {
        let pc = Pc::new();
        pc.sys("power/state", ways);
        pc
    }

    fn found_of(pc: &Pc) -> (Level, String) {
        let Finding { level, message, .. } = examine(&pc.system);
        (level, message)
    }

    #[test]
    fn a_pc_that_systemd_may_have_sleep_is_told_and_how_to_keep_it_awake() {
        let pc = pc_that_can("freeze mem disk\n");
        let found = examine(&pc.system);
        assert_eq!(found.level, Level::Warn);
        assert!(found.message.contains("AllowSuspend= is not set to no"), "{}", found.message);
        assert!(found.remedy.unwrap().contains("bulkhead-claim.service"));
        pc.root("run/systemd/sleep.conf.d/50-bulkhead.conf", OFF);
        assert_eq!(found_of(&pc).0, Level::Ok);
    }

    #[test]
    fn the_last_word_of_systemds_files_counts_and_the_one_that_allows_it_is_named() {
        let pc = pc_that_can("mem\n");
        pc.root("run/systemd/sleep.conf.d/50-bulkhead.conf", OFF);
        pc.root("etc/systemd/sleep.conf", "[Sleep]\nAllowSuspend=yes\n");
        assert_eq!(found_of(&pc).0, Level::Ok, "drop-ins come after the main file");
        pc.root("etc/systemd/sleep.conf.d/10-early.conf", "[Sleep]\nAllowSuspend=yes\n");
        pc.root("etc/systemd/sleep.conf.d/90-other.conf", "[Login]\nAllowSuspend=yes\n");
        pc.root("etc/systemd/sleep.conf.d/90-note.txt", "[Sleep]\nAllowSuspend=yes\n");
        assert_eq!(found_of(&pc).0, Level::Ok);
        pc.root(
            "etc/systemd/sleep.conf.d/90-late.conf",
            "[Sleep]\n#AllowSuspend=no\nAllowSuspend = On\n",
        );
        let (level, message) = found_of(&pc);
        assert_eq!(level, Level::Warn);
        assert!(message.contains("90-late.conf") && !message.contains("Hibernation"), "{message}");
        pc.root("etc/systemd/sleep.conf.d/90-late.conf", "[Sleep]\nAllowHybridSleep=yes\n");
        assert!(found_of(&pc).1.contains("AllowHybridSleep=yes"));
        // One of the same name below /etc takes the place of the one below /run.
        pc.root("etc/systemd/sleep.conf.d/90-late.conf", "");
        assert_eq!(found_of(&pc).0, Level::Ok);
        pc.root("etc/systemd/sleep.conf.d/50-bulkhead.conf", "");
        assert_eq!(found_of(&pc).0, Level::Warn);
    }

    #[test]
    fn a_pc_that_cannot_sleep_or_whose_sleep_is_masked_is_fit_and_one_that_does_not_say_is_not() {
        assert_eq!(found_of(&pc_that_can("\n")).0, Level::Ok);
        let pc = pc_that_can("mem\n");
        pc.root("etc/systemd/system/x", "");
        symlink("/dev/null", pc.system.root.join("etc/systemd/system/sleep.target")).unwrap();
        assert_eq!(found_of(&pc).0, Level::Ok);
        fs::remove_file(pc.system.sysfs.path("power/state")).unwrap();
        let (level, message) = found_of(&pc);
        assert_eq!(level, Level::Warn);
        assert!(message.starts_with("not looked at"), "{message}");
    }
}
