//! What is done once at each boot, before a driver, a network service or a log-in of the host takes what is the domains':
//! `bulkhead-agent claim`, run by `bulkhead-claim.service`.
//!
//! | written | when | read by |
//! | --- | --- | --- |
//! | `<said>/network` | the host is to have no network, or the machine file cannot be read | drop-ins of the host's network services, which do not start then |
//! | `<said>/seat` | the machine file gives screen and keyboard to Bulkhead | drop-ins of display manager and of the first console's log-in |
//! | `<runtime>/systemd` | the same | systemd, which does not restart the PC for Ctrl+Alt+Del: while no agent has the keyboard, those keys come to the kernel |
//! | `<runtime>/systemd/sleep.conf.d`, `logind.conf.d` | always | systemd, which lets the PC sleep for nobody, lid and keys included: a domain's NIC would be dead when it wakes |
//! | `<runtime>/udev/rules.d`, `<runtime>/systemd/network` | a domain has a NIC | NetworkManager and systemd-networkd, where a host may have a network: they leave the domains' NICs alone |
//! | `driver_override` of a NIC | no driver has it yet, and its pins hold as far as they can be seen | the kernel, which gives it to vfio-pci and to no host driver |
//!
//! Nothing is taken from a driver here: that is the hand-over's ([`handover::handover`]), which knows how to give it back. A NIC whose MAC
//! address is pinned is left to its driver, which alone can read the address; the network services keep off it all the same.
//!
//! In a PC that was started for rescue (`bulkhead.rescue` on the kernel's command line) only the first is written: all else is for a PC that runs domains.
//!
//! It fails closed for the networks and open for care: a machine file that cannot be read keeps the host off every network, and leaves
//! screen and keyboard to whoever comes to repair it.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use base::durable;
use base::terminal::colours;
use config::files::{FilesError, read_machine_text};
use config::machine::{Context, Kind, Machine, Seat};
use domains::host_network::Rule;
use handover::reserve::reserve;
use handover::sysfs::HostSysfs;
use handover::{ClaimedFunction, PciAddress};
use policy::diagnostic::Diagnostics;
use printable::{StyledPage, explain};

/// Says that the host's network services are not to start.
const NETWORK: &str = "network";
/// Says that display manager and log-in on the first console are not to start.
const SEAT: &str = "seat";
/// The word of the kernel's command line that starts a PC without Bulkhead.
const RESCUE: &[u8] = b"bulkhead.rescue";
const UDEV_RULES: &str = "udev/rules.d/72-bulkhead-nics.rules";
const NETWORKD: &str = "systemd/network/00-bulkhead-nics.network";
/// What systemd starts for Ctrl+Alt+Del. A file of the administrator's below `/etc` goes before it.
const RESTART_KEYS: &str = "systemd/system/ctrl-alt-del.target";
/// What it does when they are pressed seven times within two seconds, which is to restart the PC at once, if nobody says otherwise.
const RESTART_BURST: &str = "systemd/system.conf.d/50-bulkhead.conf";
/// What systemd reads each time before it has the PC sleep, and before it offers that to anybody (systemd-sleep.conf(5)).
const SLEEP: &str = "systemd/sleep.conf.d/50-bulkhead.conf";
const SLEEP_TEXT: &str = "\
# Written at each boot: a domain's network card would be dead when this PC wakes.
[Sleep]
AllowSuspend=no
AllowHibernation=no
AllowSuspendThenHibernate=no
AllowHybridSleep=no
";
/// What logind does for lid, keys and idleness (logind.conf(5)); it reads this as it starts.
const LOGIND: &str = "systemd/logind.conf.d/50-bulkhead.conf";
const LOGIND_TEXT: &str = "\
# Written at each boot: a domain's network card would be dead when this PC wakes.
[Login]
HandleSuspendKey=ignore
HandleSuspendKeyLongPress=ignore
HandleHibernateKey=ignore
HandleHibernateKeyLongPress=ignore
HandleLidSwitch=ignore
HandleLidSwitchExternalPower=ignore
HandleLidSwitchDocked=ignore
IdleAction=ignore
";

/// Where it is written.
#[derive(Debug, Clone, Copy)]
pub struct ClaimPaths<'a> {
    /// The directory of the markers that the host's services look for.
    pub markers: &'a Path,
    /// `/run`.
    pub runtime: &'a Path,
}

/// Why this PC is not, or not wholly, prepared.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The policy or the machine file cannot be used.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// A file below `/run` cannot be written.
    #[error("cannot write {}: the host's network services may start; restart this PC", path.display())]
    Write {
        path: PathBuf,
        /// The error of the write.
        #[source]
        source: io::Error,
    },
}

/// Prepares this PC.
///
/// # Errors
/// The machine file cannot be used, or a file cannot be written. What keeps the host's network services off is written first.
pub fn run(
    machine: &Path,
    images: &Path,
    places: &ClaimPaths<'_>,
    sysfs: &HostSysfs,
) -> Result<(), ClaimError> {
    // Until the machine file says otherwise, and if it cannot be read for good.
    set_marker(places, NETWORK, true)?;
    set_marker(places, SEAT, false)?;
    if is_rescue(sysfs) {
        tracing::info!("started for rescue: the network services keep off, and nothing else");
        let others = [UDEV_RULES, NETWORKD, RESTART_KEYS, RESTART_BURST, SLEEP, LOGIND];
        return others.into_iter().try_for_each(|file| remove(&places.runtime.join(file)));
    }
    // Whatever the machine file says: the agent may start later, when somebody has put that right.
    for (file, text) in [(SLEEP, SLEEP_TEXT), (LOGIND, LOGIND_TEXT)] {
        if let Err(error) = write(&places.runtime.join(file), text) {
            // No reason to let the networks' fate hang on it, and the agent keeps the PC awake by itself too.
            tracing::warn!("systemd may have this PC sleep: {}", explain(&error));
        }
    }
    let text = read_machine_text(machine)?;
    let context = Context { images, domain_policies: None };
    let machine = Machine::parse(&machine.display().to_string(), &text, context)
        .map_err(FilesError::Machine)?;
    let nics = nics(&machine);
    write(&places.runtime.join(UDEV_RULES), &udev_rules(&nics))?;
    write(&places.runtime.join(NETWORKD), &networkd(&nics))?;
    for nic in &nics {
        match reserve(nic, sysfs) {
            Ok(true) => tracing::info!(address = %nic.address, "reserved for vfio-pci"),
            Ok(false) => {}
            // The agent says so again, and louder, when it hands the NIC over.
            Err(why) => {
                tracing::warn!(address = %nic.address, "not reserved for vfio-pci: {}", explain(&why))
            }
        }
    }
    let has_seat = machine.seat != Seat::None;
    set_marker(places, SEAT, has_seat)?;
    if let Err(error) = keep_from_restarting(places, has_seat) {
        // No reason to let the networks' fate hang on it.
        tracing::warn!("Ctrl+Alt+Del restarts this PC while no agent runs: {}", explain(&error));
    }
    set_marker(places, NETWORK, Rule::of(&machine) == Rule::Holds)
}

/// Returns the message why it ended, with the offending lines when the machine file is to blame.
#[must_use]
pub fn failure(error: &ClaimError, program: &str) -> StyledPage {
    match error {
        ClaimError::Files(FilesError::Machine(problems)) => rendered(problems),
        other => format!("{program}: {}\n", explain(other)).as_str().into(),
    }
}

fn rendered(problems: &Diagnostics) -> StyledPage {
    problems.render(colours(&io::stderr()))
}

/// Returns the NICs of the domains that the agent runs.
fn nics(machine: &Machine) -> Vec<&ClaimedFunction> {
    let vms = machine.domains.iter().filter_map(|domain| match &domain.kind {
        Kind::Vm(vm) => Some(vm),
        Kind::External => None,
    });
    vms.filter_map(|vm| vm.nic.as_ref()).collect()
}

/// Returns rules for udev: NetworkManager and newer systemd-networkd leave the interfaces of these functions alone.
fn udev_rules(nics: &[&ClaimedFunction]) -> String {
    let rule = |address: PciAddress| {
        format!(
            "SUBSYSTEM==\"net\", KERNELS==\"{address}\", ENV{{NM_UNMANAGED}}=\"1\", ENV{{ID_NET_MANAGED_BY}}=\"org.bulkhead\"\n"
        )
    };
    let rules = nics.iter().map(|nic| rule(nic.address));
    std::iter::once("# Written at each boot from machine.toml.\n".to_owned()).chain(rules).collect()
}

/// Returns the same for systemd-networkd before version 256. Without a NIC the file matches nothing.
fn networkd(nics: &[&ClaimedFunction]) -> String {
    let paths: Vec<String> = nics.iter().map(|nic| format!("pci-{}", nic.address)).collect();
    if paths.is_empty() {
        return "# Written at each boot from machine.toml.\n[Match]\nName=bulkhead-has-no-nic\n"
            .to_owned();
    }
    format!(
        "# Written at each boot from machine.toml.\n[Match]\nPath={}\n\n[Link]\nUnmanaged=yes\n",
        paths.join(" ")
    )
}

/// Sets a marker that the host's services look for, or removes it.
fn set_marker(places: &ClaimPaths<'_>, what: &str, holds: bool) -> Result<(), ClaimError> {
    let path = places.markers.join(what);
    if holds {
        return write(&path, "");
    }
    remove(&path)
}

fn remove(path: &Path) -> Result<(), ClaimError> {
    durable::remove(path).map_err(|source| ClaimError::Write { path: path.to_owned(), source })
}

/// Returns whether this PC was started for rescue, as systemd finds it (`ConditionKernelCommandLine=` of the other units): in a container
/// the words are those of process 1.
fn is_rescue(sysfs: &HostSysfs) -> bool {
    ["cmdline", "1/cmdline"].into_iter().any(|file| {
        let words = fs::read(sysfs.proc(file)).unwrap_or_default();
        let mut words = words.split(|byte| byte.is_ascii_whitespace() || *byte == 0);
        words.any(|word| {
            word == RESCUE || word.strip_prefix(RESCUE).is_some_and(|rest| rest.starts_with(b"="))
        })
    })
}

/// Writes, or removes, what keeps systemd from doing anything for Ctrl+Alt+Del. It counts once systemd has read its files anew, which `bulkhead-claim.service` sees to.
fn keep_from_restarting(places: &ClaimPaths<'_>, holds: bool) -> Result<(), ClaimError> {
    let (keys, burst) = (places.runtime.join(RESTART_KEYS), places.runtime.join(RESTART_BURST));
    remove(&keys)?;
    if !holds {
        return remove(&burst);
    }
    write(&burst, "[Manager]\nCtrlAltDelBurstAction=none\n")?;
    fs::create_dir_all(durable::directory(&keys))
        .and_then(|()| symlink("/dev/null", &keys))
        .map_err(|source| ClaimError::Write { path: keys, source })
}

fn write(path: &Path, text: &str) -> Result<(), ClaimError> {
    fs::create_dir_all(durable::directory(path))
        .and_then(|()| durable::replace(path, text.as_bytes(), 0o644))
        .map_err(|source| ClaimError::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use handover::fake::FakePc;
    use handover::handover::VFIO_PCI;

    /// A PC whose NICs are two of one model, and what `claim` does on it.
    struct Booting {
        pc: FakePc,
        dir: tempfile::TempDir,
    }

    impl Booting {
        fn new() -> Self {
            let (pc, dir) = (FakePc::new(), tempfile::tempdir().unwrap());
            for (address, group) in [("0000:00:05.0", 5), ("0000:00:06.0", 6), ("0000:00:07.0", 7)]
            {
                pc.add(address, 0x02_0000, None, Some(group));
            }
            Self { pc, dir }
        }

        fn claim(&self, machine: &str) -> Result<(), ClaimError> {
            let file = self.dir.path().join("machine.toml");
            fs::write(&file, machine).unwrap();
            let (markers, runtime) = (self.dir.path().join("said"), self.dir.path().join("run"));
            let places = ClaimPaths { markers: &markers, runtime: &runtime };
            run(&file, Path::new("/images"), &places, &self.pc.sysfs())
        }

        fn has_marker(&self, what: &str) -> bool {
            self.dir.path().join("said").join(what).exists()
        }

        fn written(&self, name: &str) -> String {
            fs::read_to_string(self.dir.path().join("run").join(name)).unwrap()
        }

        fn reserved(&self, address: &str) -> bool {
            let address = address.parse().unwrap();
            let function = self.pc.sysfs().inspect(address).unwrap();
            function.driver_override.as_deref() == Some(VFIO_PCI)
        }
    }

    const DOMAIN: &str = "[domain.clinical]\nkernel = \"k\"\n";
    const KMS: &str = "format = 1\n[seat]\nbackend = \"kms\"\n";

    #[test]
    fn of_two_nics_of_one_model_only_the_one_in_the_machine_files_slot_is_reserved() {
        let booting = Booting::new();
        booting.claim(&format!("{KMS}{DOMAIN}nic = \"0000:00:06.0\"\n")).unwrap();
        assert!(booting.reserved("0000:00:06.0"));
        assert!(!booting.reserved("0000:00:05.0") && !booting.reserved("0000:00:07.0"));
        assert!(booting.has_marker(NETWORK) && booting.has_marker(SEAT));
        let rules = booting.written(UDEV_RULES);
        assert!(rules.contains("KERNELS==\"0000:00:06.0\", ENV{NM_UNMANAGED}=\"1\""), "{rules}");
        assert!(!rules.contains("00:05.0"), "{rules}");
        assert!(booting.written(NETWORKD).contains("Path=pci-0000:00:06.0\n"));
    }

    #[test]
    fn a_nic_that_is_not_what_is_pinned_or_that_only_its_driver_can_tell_is_not_reserved() {
        for pin in [
            "id = \"8086:1234\"",
            "slot = \"9\"",
            "id = \"8086:10d3\", mac = \"52:54:00:12:34:05\"",
        ] {
            let booting = Booting::new();
            let nic = format!("nic = {{ address = \"0000:00:05.0\", {pin} }}\n");
            booting.claim(&format!("{KMS}{DOMAIN}{nic}")).unwrap();
            assert!(!booting.reserved("0000:00:05.0"), "{pin}");
            assert!(booting.written(UDEV_RULES).contains("0000:00:05.0"), "{pin}");
        }
        let booting = Booting::new();
        booting.pc.add("0000:00:1f.2", 0x01_0601, None, Some(1));
        booting.claim(&format!("{KMS}{DOMAIN}nic = \"0000:00:1f.2\"\n")).unwrap();
        assert!(!booting.reserved("0000:00:1f.2"), "the host may live from it");
    }

    #[test]
    fn in_a_rescue_boot_the_network_services_keep_off_and_everything_else_is_the_hosts() {
        let machine = format!("{KMS}{DOMAIN}nic = \"0000:00:06.0\"\n");
        for (file, words, rescue) in [
            ("cmdline", "BOOT_IMAGE=/vmlinuz root=/dev/sda1 quiet bulkhead.rescue\n", true),
            ("cmdline", "quiet bulkhead.rescue=1\n", true),
            ("1/cmdline", "/lib/systemd/systemd\0bulkhead.rescue\0", true),
            ("cmdline", "quiet bulkhead.rescues nobulkhead.rescue\n", false),
        ] {
            let booting = Booting::new();
            let words_file = booting.pc.sysfs().proc(file);
            fs::create_dir_all(words_file.parent().unwrap()).unwrap();
            fs::write(words_file, words).unwrap();
            booting.claim(&machine).unwrap();
            assert!(booting.has_marker(NETWORK), "{words}");
            assert_eq!(booting.has_marker(SEAT), !rescue, "{words}");
            assert_eq!(booting.reserved("0000:00:06.0"), !rescue, "{words}");
            for written in [UDEV_RULES, NETWORKD, RESTART_BURST, SLEEP, LOGIND] {
                let there = booting.dir.path().join("run").join(written).exists();
                assert_eq!(there, !rescue, "{words}: {written}");
            }
        }
        // A machine file that cannot be read is no hindrance.
        let booting = Booting::new();
        fs::write(booting.pc.sysfs().proc("cmdline"), "bulkhead.rescue\n").unwrap();
        booting.claim("").unwrap();
        assert!(booting.has_marker(NETWORK) && !booting.has_marker(SEAT));
    }

    #[test]
    fn systemd_is_told_to_let_the_pc_sleep_for_nobody_whatever_becomes_of_the_machine_file() {
        for machine in [format!("{KMS}{DOMAIN}"), "not a machine file".to_owned()] {
            let booting = Booting::new();
            let read = booting.claim(&machine).is_ok();
            assert_eq!(read, machine.starts_with(KMS));
            let (sleep, logind) = (booting.written(SLEEP), booting.written(LOGIND));
            for kind in ["Suspend", "Hibernation", "SuspendThenHibernate", "HybridSleep"] {
                assert!(sleep.contains(&format!("\nAllow{kind}=no\n")), "{sleep}");
            }
            for what in ["HandleLidSwitch", "HandleSuspendKey", "HandleHibernateKey", "IdleAction"]
            {
                assert!(logind.contains(&format!("\n{what}=ignore\n")), "{logind}");
            }
        }
    }

    #[test]
    fn ctrl_alt_del_restarts_no_pc_whose_seat_is_bulkheads() {
        let booting = Booting::new();
        let keys = booting.dir.path().join("run").join(RESTART_KEYS);
        for _ in 0..2 {
            booting.claim(&format!("{KMS}{DOMAIN}")).unwrap();
            assert_eq!(fs::read_link(&keys).unwrap(), Path::new("/dev/null"));
            assert!(booting.written(RESTART_BURST).contains("CtrlAltDelBurstAction=none\n"));
        }
        booting.claim(&format!("format = 1\n[seat]\nbackend = \"none\"\n{DOMAIN}")).unwrap();
        assert!(fs::symlink_metadata(&keys).is_err());
        assert!(!booting.dir.path().join("run").join(RESTART_BURST).exists());
    }

    #[test]
    fn what_a_driver_has_already_is_left_to_the_hand_over() {
        let booting = Booting::new();
        booting.pc.add_nic("0000:00:08.0", 8);
        booting.claim(&format!("{KMS}{DOMAIN}nic = \"0000:00:08.0\"\n")).unwrap();
        assert!(!booting.reserved("0000:00:08.0"));
    }

    #[test]
    fn the_hosts_network_services_keep_off_unless_the_machine_file_lets_the_host_have_a_network() {
        let booting = Booting::new();
        booting.claim(&format!("{KMS}allow_host_network = true\n")).unwrap_err();
        let lifted = format!("format = 1\nallow_host_network = true\n{DOMAIN}");
        for (machine, network, seat) in [
            (format!("{KMS}{DOMAIN}"), true, true),
            (format!("format = 1\n[seat]\nbackend = \"none\"\n{DOMAIN}"), true, false),
            (lifted, false, false),
            (format!("{KMS}[domain.lab]\nvmm = \"external\"\n"), false, true),
        ] {
            booting.claim(&machine).unwrap();
            assert_eq!(
                (booting.has_marker(NETWORK), booting.has_marker(SEAT)),
                (network, seat),
                "{machine}"
            );
        }
    }

    #[test]
    fn a_machine_file_that_cannot_be_read_keeps_the_host_off_every_network_and_leaves_it_its_console()
     {
        let booting = Booting::new();
        booting.claim(&format!("{KMS}allow_host_network = perhaps\n")).unwrap_err();
        assert!(booting.has_marker(NETWORK) && !booting.has_marker(SEAT));
        // Nor does what an earlier run said hold on.
        booting.claim(&format!("{KMS}{DOMAIN}")).unwrap();
        booting.claim("").unwrap_err();
        assert!(booting.has_marker(NETWORK) && !booting.has_marker(SEAT));
    }
}
