//! Whether this PC has a TPM that can open the volume with the state, and whether it answers.
//!
//! What it means for the volume that there is none is the finding `encryption`, where that is not well: it is not said twice.
//! A TPM that does not answer holds whoever asks it in the kernel, for up to two minutes: a thread of its own asks it, and nobody waits for one that does not come back.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, TryRecvError};
use std::thread;
use std::time::Duration;

use clock::Moment;

use super::{Finding, Level, SystemPaths, text};

/// The TPM of a PC, which has one or none.
const TPM: &str = "class/tpm/tpm0";
/// What the firmware announces a TPM 2.0 by (TCG ACPI Specification, section 6).
const ANNOUNCED: &str = "firmware/acpi/tables/TPM2";
/// The node by which systemd asks a TPM 2.0, below `/dev`.
const NODE: &str = "tpmrm0";
/// A PCR that the kernel reads from the TPM each time: Secure Boot with its keys.
const PCR: &str = "pcr-sha256/7";
/// How long the TPM is waited for, which reads a PCR in some milliseconds.
const PATIENCE: Duration = Duration::from_millis(1200);
/// How often it is looked whether it has answered.
const LOOK: Duration = Duration::from_millis(10);
const SWITCH_ON: &str =
    "switch the TPM on in the BIOS (Intel: PTT; AMD: fTPM; a chip: Security Device), and restart";

/// Returns whether the kernel has a TPM 2.0.
pub(super) fn is_there(system: &SystemPaths) -> bool {
    version(system).as_deref() == Some("2")
}

fn version(system: &SystemPaths) -> Option<String> {
    system.sys_text(&format!("{TPM}/tpm_version_major"))
}

/// Examines the TPM. `encryption` is what was found of the volume with the state.
pub(super) fn examine(system: &SystemPaths, encryption: &Finding) -> Finding {
    let check = "tpm";
    let is_said = encryption.level != Level::Ok && !encryption.message.starts_with("not looked at");
    match version(system).as_deref() {
        Some("2") => answers(system, PATIENCE),
        None if system.sysfs.path(TPM).exists() => Finding::warn(
            check,
            "not looked at: the kernel does not say of which version the TPM is",
            "use the distribution's kernel (5.6 or later)",
        ),
        None if system.sysfs.path(ANNOUNCED).exists() => Finding::warn(
            check,
            "the firmware announces a TPM 2.0, and the kernel has none: no volume is opened by it",
            "`dmesg | grep -i tpm` says why; `modprobe tpm_crb` (one of the processor's) or `modprobe tpm_tis` (a chip) loads its driver, which the distribution's own kernel has (linux-image-amd64)",
        ),
        found => {
            let what = match found {
                Some(version) => {
                    format!(
                        "this PC shows a TPM of version {version}, and only a 2.0 opens a volume"
                    )
                }
                None => "this PC shows no TPM".to_owned(),
            };
            if is_said {
                return Finding::ok(
                    check,
                    format!("{what}; the finding `encryption` has the rest"),
                );
            }
            Finding::warn(
                check,
                format!(
                    "{what}: what is encrypted is opened at each start by somebody who types a key, or by a key file"
                ),
                format!(
                    "{SWITCH_ON}, and have it open the volume as the page setup.md says; a PC that has none stays as it is"
                ),
            )
        }
    }
}

/// Examines a TPM 2.0.
fn answers(system: &SystemPaths, patience: Duration) -> Finding {
    let check = "tpm";
    let node = system.dev.join(NODE);
    if !node.exists() {
        return Finding::warn(
            check,
            format!(
                "there is a TPM 2.0 and no {}: it opens no volume at the next start",
                node.display()
            ),
            "restart the PC; `dmesg | grep -i tpm` says what is wrong with it if that does not help",
        );
    }
    let pcr = system.sysfs.path(TPM).join(PCR);
    if !pcr.parent().is_some_and(Path::exists) {
        return Finding::ok(
            check,
            format!("a TPM 2.0 ({}), which keeps no PCR in SHA-256", node.display()),
        );
    }
    match ask(pcr, patience) {
        Ok(Some(value)) if !value.is_empty() => Finding::ok(check, "a TPM 2.0, which answers"),
        Err(error) => Finding::warn(
            check,
            format!(
                "not looked at: whether the TPM 2.0 answers, as no thread can be started to ask it: {error}"
            ),
            "run this again when fewer programs run",
        ),
        Ok(_) => Finding::warn(
            check,
            "there is a TPM 2.0, and it does not answer: it opens no volume at the next start",
            "switch the PC off and on, as a restart alone does not reset a TPM; `dmesg | grep -i tpm` says what is wrong if it stays so, and an update of the BIOS may mend it",
        ),
    }
}

/// Reads a PCR of the bank of SHA-256; `None` if it cannot be read, or not in time.
pub(super) fn pcr(system: &SystemPaths, number: u8) -> Option<String> {
    let file = system.sysfs.path(TPM).join(format!("pcr-sha256/{number}"));
    ask(file, PATIENCE).ok().flatten()
}

/// Reads the file of a PCR; `None` if it cannot be read, or not in time.
///
/// # Errors
/// No thread can be started to read it.
fn ask(pcr: PathBuf, patience: Duration) -> io::Result<Option<String>> {
    let (tell, told) = mpsc::channel();
    let asking = thread::Builder::new().name("tpm".to_owned());
    // Whoever listens no more has called it late.
    asking.spawn(move || drop(tell.send(text(&pcr))))?;
    let until = Moment::now() + patience;
    while Moment::now() < until {
        match told.try_recv() {
            Ok(said) => return Ok(said),
            Err(TryRecvError::Empty) => thread::sleep(LOOK),
            Err(TryRecvError::Disconnected) => break,
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;
    use crate::fake::Pc;

    fn encryption(level: Level, message: &str) -> Finding {
        Finding { level, ..Finding::warn("encryption", message, "") }
    }

    #[test]
    fn a_pc_without_a_tpm_is_told_so_once() {
        let pc = Pc::new();
        let look = |encryption: &Finding| examine(&pc.system, encryption);
        let by_hand = encryption(Level::Ok, "encrypted (LUKS2, opened by 1 passphrase)");
        let unencrypted = encryption(Level::Warn, "is on a disk that is not encrypted");
        let away = encryption(Level::Fail, "the encrypted volume is not mounted");
        let unknown = encryption(Level::Warn, "not looked at: names no disk");
        for version in [None, Some("1\n")] {
            if let Some(version) = version {
                pc.sys("class/tpm/tpm0/tpm_version_major", version);
            }
            for said in [&unencrypted, &away] {
                let found = look(said);
                assert_eq!(found.level, Level::Ok, "{found:?}");
                assert!(found.message.contains("`encryption`"), "{found:?}");
            }
            for unsaid in [&by_hand, &unknown] {
                let found = look(unsaid);
                assert_eq!(found.level, Level::Warn, "{found:?}");
                assert!(found.message.contains("types a key"), "{found:?}");
                assert!(found.remedy.unwrap().contains("fTPM"));
            }
        }
        assert!(look(&by_hand).message.contains("version 1"));
    }

    #[test]
    fn a_tpm_that_the_firmware_has_and_the_kernel_has_not_is_no_matter_of_the_bios() {
        let pc = Pc::new();
        pc.sys("firmware/acpi/tables/TPM2", "");
        let found = examine(&pc.system, &encryption(Level::Warn, "is not encrypted"));
        assert_eq!(found.level, Level::Warn);
        assert!(found.remedy.unwrap().contains("modprobe tpm_crb"));
    }

    #[test]
    fn a_tpm_is_well_only_if_it_can_be_asked_and_answers() {
        let pc = Pc::new();
        let well = encryption(Level::Ok, "");
        let look = || examine(&pc.system, &well);
        fs::create_dir_all(pc.system.sysfs.path(TPM)).unwrap();
        assert!(look().message.starts_with("not looked at"));
        pc.sys("class/tpm/tpm0/tpm_version_major", "2\n");
        assert!(is_there(&pc.system));
        let without_node = look();
        assert_eq!(without_node.level, Level::Warn);
        assert!(without_node.message.contains("tpmrm0"), "{without_node:?}");
        fs::write(pc.system.dev.join(NODE), "").unwrap();
        assert_eq!(look().level, Level::Ok);
        // As the kernel shows a PCR that it could not read.
        pc.sys("class/tpm/tpm0/pcr-sha256/7", "");
        let silent = look();
        assert_eq!(silent.level, Level::Warn);
        assert!(silent.message.contains("does not answer"), "{silent:?}");
        pc.sys("class/tpm/tpm0/pcr-sha256/7", "65CAF8DD\n");
        // However busy the PC is that this is tested on.
        let found = answers(&pc.system, Duration::from_secs(60));
        assert_eq!((found.level, found.remedy), (Level::Ok, None));
    }

    #[test]
    fn a_tpm_that_holds_whoever_asks_it_does_not_answer_and_holds_up_nobody() {
        let pc = Pc::new();
        fs::write(pc.system.dev.join(NODE), "").unwrap();
        let pcr = pc.system.sysfs.path(TPM).join(PCR);
        fs::create_dir_all(pcr.parent().unwrap()).unwrap();
        // Whoever opens it waits for somebody who writes into it.
        mkfifo(&pcr, Mode::S_IRWXU).unwrap();
        let found = answers(&pc.system, Duration::from_millis(200));
        assert_eq!(found.level, Level::Warn, "{found:?}");
        assert!(found.message.contains("does not answer"), "{found:?}");
    }
}
