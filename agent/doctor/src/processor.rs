//! What one domain may find out of another by the processor that both run on.

use std::collections::BTreeMap;
use std::fs;

use config::cores::Cores;
use config::machine::Machine;

use super::{Finding, SystemPaths, text};

/// Where the kernel says what it knows of the processor's flaws, and what it does about them.
const FLAWS: &str = "devices/system/cpu/vulnerabilities";
/// Flaws that are named in a line.
const NAMED_MAX: usize = 8;

/// Examines what two domains on one core could find out; `apart` is whether the machine file keeps them off it.
pub(super) fn examine(system: &SystemPaths, apart: bool) -> [Finding; 2] {
    let flaws = flaws(system);
    [threads(system, &flaws, apart), mitigations(system, &flaws)]
}

/// Returns flaw by flaw what the kernel says: `Not affected`, `Mitigation: ...`, `Vulnerable...`, for some with `SMT vulnerable` behind it.
fn flaws(system: &SystemPaths) -> BTreeMap<String, String> {
    let entries = fs::read_dir(system.sysfs.path(FLAWS)).into_iter().flatten().flatten();
    let named =
        |entry: fs::DirEntry| Some((entry.file_name().into_string().ok()?, text(&entry.path())?));
    entries.filter_map(named).collect()
}

fn names<'a>(flaws: impl Iterator<Item = &'a String>) -> String {
    let all: Vec<&str> = flaws.map(String::as_str).collect();
    let more = all.len().saturating_sub(NAMED_MAX);
    let mut text = all.into_iter().take(NAMED_MAX).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text += &format!(" and {more} more");
    }
    text
}

/// Examines whether this PC has the cores that the machine file gives to domains.
pub(super) fn cores(system: &SystemPaths, machine: &Machine) -> Finding {
    let check = "cores";
    let cores = Cores::read(&system.sysfs.path(""));
    match cores.plan(machine) {
        Ok(plan) => {
            let kept = machine.domains.iter().filter_map(|domain| {
                Some(format!("{} to CPUs {}", domain.name, plan.of(&domain.name)?))
            });
            let kept: Vec<String> = kept.collect();
            let says = if kept.is_empty() {
                "no domain has cores of its own".to_owned()
            } else {
                kept.join(", ")
            };
            Finding::ok(check, says)
        }
        Err(error) => Finding::fail(
            check,
            format!("domains with `cores` will not start: {error}"),
            "lower `cores` in the machine file, or take it out; `lscpu -e` lists the cores",
        ),
    }
}

/// Examines whether a core runs two threads at a time, and two domains may meet there.
fn threads(system: &SystemPaths, flaws: &BTreeMap<String, String>, apart: bool) -> Finding {
    let check = "smt";
    match system.sys_text("devices/system/cpu/smt/active").as_deref() {
        Some("0") => Finding::ok(check, "each core runs one thread at a time"),
        Some("1") if apart => Finding::ok(
            check,
            "each core runs two threads at a time, and `cores` in the machine file keeps domains off each other's",
        ),
        Some("1") => {
            let open = names(
                flaws
                    .iter()
                    .filter(|(_, says)| says.contains("SMT vulnerable"))
                    .map(|(name, _)| name),
            );
            let says = if open.is_empty() {
                String::new()
            } else {
                format!(" (the kernel says so of {open})")
            };
            Finding::warn(
                check,
                format!(
                    "each core runs two threads at a time, and nothing keeps two domains off one core (no `cores` in the machine file): what they share there tells one something of the other{says}"
                ),
                "give each domain, or all but one, `cores` of its own in the machine file; or switch Hyper-Threading (AMD: SMT) off in the BIOS, or add nosmt to GRUB_CMDLINE_LINUX in /etc/default/grub, run `update-grub`, and restart; the PC has half as many processors then, which `cpus` in the machine file has to fit",
            )
        }
        _ => Finding::warn(
            check,
            "not looked at: the kernel does not say whether a core runs two threads (/sys/devices/system/cpu/smt/active)",
            "mount /sys, and run this command as root",
        ),
    }
}

/// Examines whether the kernel does something about each of the processor's flaws.
fn mitigations(system: &SystemPaths, flaws: &BTreeMap<String, String>) -> Finding {
    let check = "mitigations";
    if flaws.is_empty() {
        return Finding::warn(
            check,
            format!(
                "not looked at: the kernel does not say what it knows of the processor's flaws (/sys/{FLAWS})"
            ),
            "mount /sys; a kernel before 4.15 does not know",
        );
    }
    let open = names(flaws.iter().filter(|(_, says)| is_open(says)).map(|(name, _)| name));
    let off = system
        .proc_text("cmdline")
        .and_then(|line| line.split_whitespace().find(|word| is_off(word)).map(str::to_owned));
    match off {
        _ if open.is_empty() => Finding::ok(
            check,
            format!(
                "the kernel does something about each of the {} flaws that it knows and the processor has",
                affected(flaws)
            ),
        ),
        Some(word) => Finding::warn(
            check,
            format!(
                "nothing is done about {open}, as the kernel was started with {word}: a guest may read what is not its own"
            ),
            format!(
                "take {word} out of GRUB_CMDLINE_LINUX in /etc/default/grub, run `update-grub`, and restart"
            ),
        ),
        None => Finding::warn(
            check,
            format!("nothing is done about {open}: a guest may read what is not its own"),
            "install the processor's microcode (package intel-microcode or amd64-microcode, section non-free-firmware) and the BIOS maker's latest version, and restart; `grep . /sys/devices/system/cpu/vulnerabilities/*` says which is missing",
        ),
    }
}

fn affected(flaws: &BTreeMap<String, String>) -> usize {
    flaws.values().filter(|says| *says != "Not affected").count()
}

/// Returns whether it says that a flaw is open: `Vulnerable`, `Vulnerable: Clear CPU buffers attempted, no microcode`, `KVM: Vulnerable`.
fn is_open(says: &str) -> bool {
    says.starts_with("Vulnerable") || says.contains("KVM: Vulnerable")
}

/// Returns whether a word of the kernel's command line takes mitigations away.
fn is_off(word: &str) -> bool {
    word == "mitigations=off"
        || word == "nospectre_v2"
        || word == "nospectre_v1"
        || word.strip_prefix("spectre_v2=") == Some("off")
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use config::machine::Context;

    use handover::fake::FakePc;

    use super::*;
    use crate::Level;
    use crate::fake::paths;

    /// A PC whose kernel says this of its cores and of the processor's flaws, started with these words.
    fn pc(active: &str, flaws: &[(&str, &str)], words: &str) -> (FakePc, SystemPaths) {
        let pc = FakePc::new();
        let write = |path: PathBuf, text: &str| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{text}\n")).unwrap();
        };
        let sysfs = pc.sysfs();
        if !active.is_empty() {
            write(sysfs.path("devices/system/cpu/smt/active"), active);
        }
        for (name, says) in flaws {
            write(sysfs.path(FLAWS).join(name), says);
        }
        let paths = paths(&pc);
        write(paths.proc.join("cmdline"), words);
        (pc, paths)
    }

    fn findings(active: &str, flaws: &[(&str, &str)], words: &str) -> [Finding; 2] {
        let (_pc, system) = pc(active, flaws, words);
        examine(&system, false)
    }

    #[test]
    fn domains_with_cores_of_their_own_share_no_core_and_more_than_there_are_is_a_fault() {
        let (_pc, system) = pc("1", &[], "quiet");
        let cpus = system.sysfs.path("devices/system/cpu");
        for cpu in 0..4 {
            let topology = cpus.join(format!("cpu{cpu}/topology"));
            fs::create_dir_all(&topology).unwrap();
            let siblings = ["0-1", "0-1", "2-3", "2-3"];
            fs::write(topology.join("thread_siblings_list"), siblings[cpu]).unwrap();
        }
        fs::write(cpus.join("online"), "0-3\n").unwrap();
        let machine = |cores: &str| {
            let text = format!(
                "format = 1\n[domain.clinical]\nkernel = \"k\"\n{cores}\n[domain.internet]\nkernel = \"k\"\n"
            );
            let context = Context { images: Path::new("/images"), domain_policies: None };
            Machine::parse("machine.toml", &text, context).unwrap()
        };
        let found = cores(&system, &machine("cores = 1"));
        assert!(
            found.level == Level::Ok && found.message.contains("clinical to CPUs 2,3"),
            "{found:?}"
        );
        assert_eq!(examine(&system, true)[0].level, Level::Ok);
        let found = cores(&system, &machine("cores = 2"));
        assert!(found.level == Level::Fail && found.message.contains("has 2"), "{found:?}");
        assert_eq!(cores(&system, &machine("")).level, Level::Ok);
        assert_eq!(examine(&system, false)[0].level, Level::Warn);
    }

    #[test]
    fn a_core_that_runs_two_threads_is_a_warning_that_names_what_the_kernel_says() {
        let said =
            [("mds", "Mitigation: Clear CPU buffers; SMT vulnerable"), ("l1tf", "Not affected")];
        let [threads, _] = findings("1", &said, "quiet");
        assert_eq!(threads.level, Level::Warn);
        assert!(
            threads.message.contains("mds") && !threads.message.contains("l1tf"),
            "{threads:?}"
        );
        assert!(threads.remedy.unwrap().contains("nosmt"));
        assert_eq!(findings("0", &said, "quiet")[0].level, Level::Ok);
        let [threads, _] = findings("", &said, "quiet");
        assert_eq!(threads.level, Level::Warn, "what was not looked at is not ok");
    }

    #[test]
    fn a_flaw_that_nothing_is_done_about_is_named_with_the_word_or_the_microcode_that_is_to_blame()
    {
        let closed = [("meltdown", "Mitigation: PTI"), ("retbleed", "Not affected")];
        let [_, calm] = findings("0", &closed, "quiet mitigations=off");
        assert_eq!(calm.level, Level::Ok, "{calm:?}");
        for says in [
            "Vulnerable",
            "Vulnerable: Clear CPU buffers attempted, no microcode",
            "KVM: Vulnerable",
        ] {
            let open = [closed[0], closed[1], ("mmio_stale_data", says)];
            let [_, found] = findings("0", &open, "quiet");
            assert_eq!(found.level, Level::Warn, "{says}");
            assert!(
                found.message.contains("mmio_stale_data") && !found.message.contains("retbleed")
            );
            assert!(found.remedy.unwrap().contains("microcode"));
            for word in ["mitigations=off", "spectre_v2=off", "nospectre_v2"] {
                let [_, found] = findings("0", &open, &format!("quiet {word} ro"));
                assert!(found.remedy.unwrap().contains(word));
            }
        }
        assert_eq!(findings("0", &[], "quiet")[1].level, Level::Warn, "nobody said anything");
    }

    #[test]
    fn of_many_flaws_some_are_named_and_the_rest_counted() {
        let many: Vec<String> = (10..25).map(|number| format!("flaw{number}")).collect();
        let open: Vec<(&str, &str)> =
            many.iter().map(|name| (name.as_str(), "Vulnerable")).collect();
        let [_, found] = findings("0", &open, "quiet");
        assert!(found.message.contains("flaw17 and 7 more"), "{found:?}");
    }
}
