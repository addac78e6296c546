//! What the PC itself must offer.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use kvm_bindings::KVM_API_VERSION;
use kvm_ioctls::Kvm;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::unistd::Uid;

use super::{Finding, Level, Repair, SystemPaths, cgroup_mount, pressure, processor, sleep};
use config::cores;
use config::machine::{Kind, Machine};
use control::reports::{ConfiguredInterface, describe};
use domains::host_network::{self, Judgement, Rule};
use handover::processor::{Vendor, has_flag};
use printable::explain;

/// Why what a VM needs may be missing.
pub(super) const NO_VM: &str = "all domains are external, and Bulkhead starts no VM";
/// Why what a hand-over needs may be missing.
const NO_HAND_OVER: &str = "the machine file hands no device over";

/// Returns the parameter that has the kernel use the IOMMU; for a processor of an unknown maker both that there are.
fn iommu_parameter(vendor: Vendor) -> &'static str {
    vendor.iommu_parameter().unwrap_or("intel_iommu=on (Intel) or amd_iommu=on (AMD)")
}

/// What the machine file asks of the PC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HardwareNeeds {
    /// Bulkhead starts a VMM.
    pub(super) virtual_machines: bool,
    /// A PCI function is handed over.
    pub(super) hand_over: bool,
    /// No two domains are to meet on one core.
    pub(super) apart: bool,
    /// A domain has whole cores to itself.
    pub(super) cores: bool,
}

impl HardwareNeeds {
    /// Returns what a machine file needs. Without one everything is needed.
    pub(super) fn of(machine: Option<&Machine>) -> Self {
        let Some(machine) = machine else {
            return Self { virtual_machines: true, hand_over: true, apart: false, cores: false };
        };
        let apart = cores::keeps_all_apart(machine);
        let mut needs = Self { virtual_machines: false, hand_over: false, apart, cores: false };
        for domain in &machine.domains {
            if let Kind::Vm(vm) = &domain.kind {
                needs.virtual_machines = true;
                needs.hand_over |= vm.pci_devices().next().is_some();
                needs.cores |= vm.cores.is_some();
            }
        }
        needs
    }
}

/// Returns a finding as no obstacle if what it is about is not needed. What is fit all the same is still said.
fn unless_needed(needed: bool, why: &str, found: Finding) -> Finding {
    if needed || found.level == Level::Ok {
        return found;
    }
    Finding::ok(found.check, format!("not needed: {why}"))
}

pub(super) fn examine(system: &SystemPaths, needs: HardwareNeeds) -> Vec<Finding> {
    let vendor = Vendor::of(&system.proc_text("cpuinfo").unwrap_or_default());
    let for_a_vm = |found| unless_needed(needs.virtual_machines, NO_VM, found);
    let for_a_device = |found| unless_needed(needs.hand_over, NO_HAND_OVER, found);
    let [threads, mitigations] = processor::examine(system, needs.apart);
    vec![
        for_a_vm(kvm(system, vendor)),
        for_a_vm(virtual_machine(&system.dev.join("kvm"))),
        for_a_vm(nested_paging(system, vendor)),
        for_a_vm(mitigations),
        for_a_vm(threads),
        for_a_device(iommu(system, vendor)),
        for_a_device(interrupt_remapping(system, vendor)),
        for_a_device(vfio_pci(system)),
        for_a_device(vfio_device(system)),
        for_a_device(sleep::examine(system)),
        for_a_vm(locked_memory()),
        for_a_vm(cgroups(system, needs.cores)),
        for_a_vm(pressure::stall_information(system)),
    ]
}

fn kvm(system: &SystemPaths, vendor: Vendor) -> Finding {
    let check = "kvm";
    let device = system.dev.join("kvm");
    match open_device(&device) {
        Ok(()) => Finding::ok(check, format!("{} can be opened", device.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let capable = offers(system, "vmx") || offers(system, "svm");
            let (what, remedy) = if capable {
                let module = vendor.kvm_module();
                (
                    "the processor can virtualise, but KVM is not loaded",
                    format!(
                        "run `modprobe {module}`; if `dmesg` says it is disabled by the BIOS: {}",
                        vendor.virtualisation_in_bios()
                    ),
                )
            } else {
                (
                    "the processor does not offer virtualisation",
                    vendor.virtualisation_in_bios().to_owned(),
                )
            };
            let finding = Finding::fail(check, format!("no {}: {what}", device.display()), remedy);
            match capable {
                true => finding.mended_by(Repair::LoadModule(vendor.kvm_module().to_owned())),
                false => finding,
            }
        }
        Err(error) => Finding::fail(
            check,
            format!("{} cannot be opened: {error}", device.display()),
            "run the agent (and this command) as root",
        ),
    }
}

/// Makes a virtual machine: a PC that has KVM may still make none, if another hypervisor has the processor or its firmware locked it.
fn virtual_machine(device: &Path) -> Finding {
    let check = "kvm-vm";
    let made = || -> Result<(), (&'static str, kvm_ioctls::Error)> {
        let path = CString::new(device.as_os_str().as_bytes())
            .map_err(|_| ("be opened", kvm_ioctls::Error::new(nix::libc::EINVAL)))?;
        let kvm = Kvm::new_with_path(path).map_err(|error| ("be opened", error))?;
        let version = kvm.get_api_version();
        if u32::try_from(version) != Ok(KVM_API_VERSION) {
            let error = kvm_ioctls::Error::new(nix::libc::ENOTTY);
            return Err(("be asked: it is no KVM, or a KVM of another time", error));
        }
        let vm = kvm.create_vm().map_err(|error| ("make a virtual machine", error))?;
        vm.create_irq_chip().map_err(|error| ("make its interrupt controller", error))?;
        vm.create_vcpu(0).map_err(|error| ("make its processor", error))?;
        Ok(())
    };
    match made() {
        Ok(()) => Finding::ok(check, "a virtual machine can be made"),
        Err((_, error)) if matches!(error.errno(), nix::libc::ENOENT | nix::libc::EACCES) => {
            Finding::warn(
                check,
                format!("not looked at: {} cannot be opened: {error}", device.display()),
                "see to the finding `kvm` first",
            )
        }
        Err((_, error)) if error.errno() == nix::libc::EBUSY => Finding::fail(
            check,
            "another hypervisor has this processor's virtualisation",
            "stop it and keep it from starting (VirtualBox: `systemctl disable --now vboxdrv`; VMware: `systemctl disable --now vmware`), and restart the PC",
        ),
        Err((what, error)) => Finding::fail(
            check,
            format!("{} cannot {what}: {error}", device.display()),
            "`dmesg | grep -i kvm` says why; a PC that is itself virtual needs nested virtualisation switched on where it runs",
        ),
    }
}

fn nested_paging(system: &SystemPaths, vendor: Vendor) -> Finding {
    let check = "nested-paging";
    let parameters =
        [("EPT", "module/kvm_intel/parameters/ept"), ("NPT", "module/kvm_amd/parameters/npt")];
    let found =
        parameters.into_iter().find_map(|(name, file)| Some((name, system.sys_text(file)?)));
    match found {
        Some((name, value)) if matches!(value.as_str(), "Y" | "1") => {
            Finding::ok(check, format!("{name} is used"))
        }
        Some((name, _)) if offers(system, &name.to_ascii_lowercase()) => Finding::fail(
            check,
            format!("the processor has {name} and KVM was told not to use it; guests would crawl"),
            format!(
                "remove {0}=0 from /etc/modprobe.d and kvm-{1}.{0}=0 from the kernel command line (`grep -r {0}= /etc/modprobe.d /proc/cmdline`), and restart",
                name.to_ascii_lowercase(),
                if name == "NPT" { "amd" } else { "intel" },
            ),
        ),
        Some((name, _)) if offers(system, "hypervisor") => Finding::fail(
            check,
            format!("this PC is itself virtual and is offered no {name}; guests would crawl"),
            "switch nested paging on for it where it runs; a ward PC is no virtual machine",
        ),
        Some((name, _)) => Finding::fail(
            check,
            format!("the processor offers no {name}; guests would crawl"),
            format!(
                "{}; update the BIOS; a processor that still does not show it (`grep -w {} /proc/cpuinfo`) has none: Bulkhead needs one of 2010 or later",
                vendor.virtualisation_in_bios(),
                name.to_ascii_lowercase(),
            ),
        ),
        // KVM works, so that there is nothing to load.
        None if open_device(&system.dev.join("kvm")).is_ok() => Finding::warn(
            check,
            "not looked at: KVM is there, and does not say by /sys/module/kvm_intel or kvm_amd whether it uses nested paging",
            "nothing is to be done where guests run at their usual speed; without nested paging they would crawl",
        ),
        None => Finding::warn(
            check,
            "not looked at: neither kvm-intel nor kvm-amd is loaded",
            format!(
                "`modprobe {}` and run this again; if that fails: {}",
                vendor.kvm_module(),
                vendor.virtualisation_in_bios()
            ),
        ),
    }
}

fn iommu_groups(system: &SystemPaths) -> usize {
    fs::read_dir(system.sysfs.path("kernel/iommu_groups")).map_or(0, Iterator::count)
}

/// Returns whether the processor has this flag.
fn offers(system: &SystemPaths, flag: &str) -> bool {
    has_flag(&system.proc_text("cpuinfo").unwrap_or_default(), flag)
}

fn iommu(system: &SystemPaths, vendor: Vendor) -> Finding {
    let check = "iommu";
    let groups = iommu_groups(system);
    if groups > 0 {
        return Finding::ok(check, format!("on, {groups} groups"));
    }
    // The BIOS announces an IOMMU it switched on by one of these ACPI tables.
    let announced = ["DMAR", "IVRS"]
        .iter()
        .any(|table| system.sysfs.path("firmware/acpi/tables").join(table).exists());
    let parameter = parameter_remedy(vendor);
    if announced {
        return Finding::fail(
            check,
            "the BIOS offers an IOMMU and the kernel does not use it",
            parameter,
        );
    }
    Finding::fail(
        check,
        "off: a passed-through NIC could write anywhere in this PC's memory",
        format!("switch {} on in the BIOS; then {parameter}", vendor.iommu_in_bios()),
    )
}

/// Returns how the kernel is brought to use the IOMMU.
fn parameter_remedy(vendor: Vendor) -> String {
    format!(
        "run `bulkhead setup`, which writes {0} into GRUB's configuration and can take it back, and restart; by hand: add {0} to GRUB_CMDLINE_LINUX in /etc/default/grub, run `update-grub`, and restart (`bulkhead setup --undo` does not know of it then)",
        iommu_parameter(vendor)
    )
}

/// Returns what is to be done on this PC about a device that is in no IOMMU group because the IOMMU is off.
pub(super) fn iommu_remedy(system: &SystemPaths) -> String {
    let vendor = Vendor::of(&system.proc_text("cpuinfo").unwrap_or_default());
    iommu(system, vendor).remedy.unwrap_or_else(|| parameter_remedy(vendor))
}

/// Examines interrupt remapping. Without it the kernel refuses to hand devices over, unless told to be unsafe.
fn interrupt_remapping(system: &SystemPaths, vendor: Vendor) -> Finding {
    let check = "interrupt-remapping";
    // The kernel names the chips of remapped interrupts so.
    let remapped = system.proc_text("interrupts").map(|text| text.contains(" IR-"));
    match system.sys_text("module/vfio_iommu_type1/parameters/allow_unsafe_interrupts").as_deref() {
        Some("Y" | "1") => Finding::fail(
            check,
            "vfio is told to allow unsafe interrupts: a guest could forge interrupts of the host",
            "remove allow_unsafe_interrupts=1 from /etc/modprobe.d and the kernel command line, and restart",
        ),
        _ => match (remapped, iommu_groups(system)) {
            (Some(true), _) => Finding::ok(check, "on: no device can forge an interrupt"),
            (_, 0) => Finding::warn(
                check,
                "not looked at: the IOMMU that would do it is off",
                "see to the finding `iommu` first",
            ),
            (Some(false), _) => Finding::fail(
                check,
                "off: the kernel hands no device over without it",
                format!(
                    "remove intremap=off and noapic from the kernel command line, switch {} and \"x2APIC\" on in the BIOS, and restart",
                    vendor.iommu_in_bios()
                ),
            ),
            (None, _) => Finding::warn(
                check,
                "not looked at: /proc/interrupts cannot be read",
                "mount /proc",
            ),
        },
    }
}

fn vfio_pci(system: &SystemPaths) -> Finding {
    let check = "vfio-pci";
    if system.sysfs.pci_driver("vfio-pci").exists() {
        return Finding::ok(check, "loaded");
    }
    let release = system.proc_text("sys/kernel/osrelease").unwrap_or_default();
    let available = ["/lib/modules", "/usr/lib/modules"].iter().any(|modules| {
        let index = Path::new(modules).join(&release).join("modules.dep");
        fs::read_to_string(index).is_ok_and(|text| text.contains("/vfio-pci.ko"))
    });
    if available {
        Finding::ok(check, "available (loaded at the boot)")
    } else {
        Finding::fail(
            check,
            format!("kernel {release} has no module vfio-pci"),
            "install the distribution's full kernel (on Debian linux-image-amd64, not the cloud kernel) and restart into it",
        )
    }
}

fn vfio_device(system: &SystemPaths) -> Finding {
    let check = "vfio-device";
    let device = system.dev.join("vfio/vfio");
    match open_device(&device) {
        Ok(()) => Finding::ok(check, format!("{} can be opened", device.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Finding::warn(
            check,
            format!("no {}", device.display()),
            "restart the PC, or `systemctl restart systemd-modules-load bulkhead-agent`: the module vfio-pci makes it, and is loaded at the boot",
        )
        .mended_by(Repair::LoadModule("vfio-pci".to_owned())),
        Err(error) => Finding::fail(
            check,
            format!("{} cannot be opened: {error}", device.display()),
            "run the agent (and this command) as root",
        ),
    }
}

fn locked_memory() -> Finding {
    let check = "locked-memory";
    match getrlimit(Resource::RLIMIT_MEMLOCK) {
        _ if Uid::effective().is_root() => {
            Finding::ok(check, "root is not limited, and the agent raises the limit for its VMMs")
        }
        Ok((_, hard)) if hard == RLIM_INFINITY => Finding::ok(check, "not limited"),
        Ok((_, hard)) => Finding::warn(
            check,
            format!("limited to {} MiB for this user", hard >> 20),
            "run the agent as root (its systemd unit does, with LimitMEMLOCK=infinity)",
        ),
        Err(error) => Finding::warn(check, format!("unknown: {error}"), "run this command as root"),
    }
}

/// Examines what keeps domains from starving each other; with `cores` also what keeps them to processors of their own, without which those do
/// not start.
fn cgroups(system: &SystemPaths, cores: bool) -> Finding {
    let check = "cgroups";
    let remedy = "boot with systemd.unified_cgroup_hierarchy=1 on the kernel command line";
    let mounts = system.proc_text("self/mounts").unwrap_or_default();
    let Some(point) = cgroup_mount(&mounts) else {
        return Finding::warn(
            check,
            "no cgroup version 2: one domain could starve the other",
            remedy,
        );
    };
    let controllers =
        fs::read_to_string(Path::new(point).join("cgroup.controllers")).unwrap_or_default();
    let lacks = |wanted: &&str| !controllers.split_ascii_whitespace().any(|has| has == *wanted);
    if cores && lacks(&"cpuset") {
        return Finding::fail(
            check,
            format!(
                "version 2 on {point} lacks cpuset: domains with `cores` in machine.toml do not start"
            ),
            "restart into a kernel that has it (CONFIG_CPUSETS), without cgroup_disable=cpuset on the command line and without a cpuset hierarchy of version 1, or take `cores` out of machine.toml",
        );
    }
    let missing: Vec<&str> = ["cpu", "memory", "io", "pids"].into_iter().filter(lacks).collect();
    if missing.is_empty() {
        return Finding::ok(check, format!("version 2 on {point}"));
    }
    Finding::warn(
        check,
        format!(
            "version 2 on {point} lacks {}: one domain could starve the other",
            missing.join(", ")
        ),
        remedy,
    )
}

/// Examines the host's network. `rule` is `None` while there is no machine file; `leaving` are the interfaces that go when their NICs are
/// handed over.
pub(super) fn network(rule: Option<Rule>, leaving: &[String]) -> Finding {
    let found = host_network::configured_interfaces().map_err(|error| explain(&error));
    judge_network(rule, leaving, found)
}

pub(super) fn judge_network(
    rule: Option<Rule>,
    leaving: &[String],
    found: Result<Vec<ConfiguredInterface>, String>,
) -> Finding {
    let check = "host-network";
    let (leave, stay): (Vec<_>, Vec<_>) = found
        .as_deref()
        .unwrap_or_default()
        .iter()
        .cloned()
        .partition(|interface| leaving.contains(&interface.name));
    let found = found.as_ref().map(|_| stay.as_slice()).map_err(String::as_str);
    let judgement = rule.unwrap_or(Rule::Holds).judge(found);
    match (judgement, rule) {
        (Judgement::NoNetwork, _) if !leave.is_empty() => {
            Finding::ok(check, format!("{} goes with its NIC to a domain", describe(&leave)))
        }
        (Judgement::Broken(some), None) => Finding::warn(
            check,
            format!(
                "the host has a network; whether it may, the machine file would say: {}",
                describe(some)
            ),
            host_network::remedy(some),
        ),
        (judgement, _) => match (judgement.remedy(), judgement) {
            (None, judgement) => Finding::ok(check, judgement.what()),
            (Some(remedy), Judgement::Tolerated(_)) => {
                Finding::warn(check, judgement.what(), remedy)
            }
            (Some(remedy), judgement) => Finding::fail(check, judgement.what(), remedy),
        },
    }
}

fn open_device(path: &Path) -> io::Result<()> {
    fs::OpenOptions::new().read(true).write(true).open(path).map(drop)
}
