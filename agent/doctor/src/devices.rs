//! Every PCI function that the machine file hands over: the questions of the hand-over itself
//! ([`handover::judge`]), one by one.

use hostpci::{Function, GroupRefusal, VFIO_PCI, usable};

use super::{Finding, Level, SystemPaths, host};
use config::machine::{Kind, Machine};
use handover::host_use::HostUse;
use handover::judge::{self, HandoverRefusal};
use handover::pins::pinned;
use handover::{ClaimedFunction, Claims, PciAddress, Role};

/// Network controllers that are listed when one cannot be handed over.
const LISTED_MAX: usize = 8;

pub(super) fn examine(system: &SystemPaths, machine: &Machine) -> Vec<Finding> {
    let claims = machine.claims();
    let host_use = HostUse::look(&system.sysfs, &claims.screen, &claims.disks);
    let mut findings = Vec::new();
    for domain in &machine.domains {
        let Kind::Vm(vm) = &domain.kind else { continue };
        for wanted in vm.pci_devices() {
            let asked = FunctionCheck { system, domain: &domain.name, wanted, claims: &claims };
            let found = asked.examine(host_use.as_ref().ok());
            findings.extend(found.into_iter().map(|f| f.of(wanted.address.to_string())));
        }
    }
    if let Err(error) = host_use {
        findings.push(refused("host-use", &HandoverRefusal::HostUnknown(error)));
    }
    findings
}

/// Returns the host's interfaces that go with the functions.
pub(super) fn interfaces(system: &SystemPaths, machine: &Machine) -> Vec<String> {
    let functions = machine.domains.iter().filter_map(|domain| match &domain.kind {
        Kind::Vm(vm) => Some(vm.pci_functions()),
        Kind::External => None,
    });
    functions
        .flatten()
        .filter_map(|address| system.sysfs.inspect(address).ok())
        .flat_map(|function| function.interface_names())
        .collect()
}

fn refused(check: &'static str, refused: &HandoverRefusal) -> Finding {
    Finding::fail(check, refused.what(), refused.remedy())
}

/// One function of one domain.
struct FunctionCheck<'a> {
    system: &'a SystemPaths,
    domain: &'a str,
    wanted: &'a ClaimedFunction,
    claims: &'a Claims,
}

impl FunctionCheck<'_> {
    fn examine(&self, host_use: Option<&HostUse>) -> Vec<Finding> {
        let function = match self.system.sysfs.inspect(self.wanted.address) {
            Ok(function) => function,
            Err(error) => return vec![refused("pci-device", &HandoverRefusal::Inspect(error))],
        };
        let nobody_knows = HostUse::default();
        let host_use = host_use.unwrap_or(&nobody_knows);
        let kind = self.kind(&function);
        let is_another = kind.level == Level::Fail && self.wanted.pins.is_empty();
        let mut findings = vec![kind];
        // Nobody is told how to have the wrong card pinned.
        if !is_another {
            findings.push(self.pins(&function));
        }
        findings
            .extend(judge::not_in_use(&function, host_use).err().map(|e| refused("host-use", &e)));
        findings.push(self.signals(&function));
        let (isolation, with_others) = self.isolation(&function, host_use);
        findings.push(isolation);
        findings.push(reset(&function, with_others));
        findings.push(reach(&function));
        findings
    }

    fn kind(&self, function: &Function) -> Finding {
        let check = "pci-device";
        match judge::kind(function, self.wanted.role) {
            Ok(()) => Finding::ok(
                check,
                format!(
                    "{}'s {}: {}, {}",
                    self.domain,
                    self.wanted.role.word(),
                    function.describe(),
                    function.class
                ),
            ),
            Err(error) => refused(check, &error),
        }
    }

    fn pins(&self, function: &Function) -> Finding {
        let check = "pci-pin";
        let pins = &self.wanted.pins;
        if pins.is_empty() {
            let key = match self.wanted.role {
                Role::Nic => "nic = ",
                Role::Device => "in passthrough: ",
            };
            return Finding::ok(
                check,
                format!(
                    "known by its address alone, which another card takes when cards are added or moved; to have that refused, write {key}{}",
                    pinned(function)
                ),
            );
        }
        // With vfio-pci it shows no MAC address; the agent knows the one that it had when it took it.
        let of_vfio = function.driver.as_deref() == Some(VFIO_PCI);
        let seen = pins.mac.as_deref().filter(|_| of_vfio);
        match handover::pins::check(pins, &self.system.sysfs, function, seen) {
            Ok(()) if seen.is_some() && function.interfaces.is_empty() => Finding::ok(
                check,
                "is what machine.toml says, as far as it shows: its MAC address is compared only while the host's driver has it",
            ),
            Ok(()) => Finding::ok(check, "is what machine.toml says is there"),
            Err(mismatch) => refused(check, &HandoverRefusal::Mismatch(mismatch)),
        }
    }

    fn signals(&self, function: &Function) -> Finding {
        let check = "interrupts";
        if let Err(error) = judge::usable(&self.system.sysfs, function) {
            return refused(check, &error);
        }
        if let Some(pin) = usable::pin_driver(function.vendor, function.device, function.class) {
            let what = format!(
                "its Linux driver ({}) interrupts by pin (INTx) though it has MSI, and guests get no pin",
                pin.driver
            );
            let remedy = match pin.remedy {
                Some(parameter) => format!("put {parameter}"),
                None => "use another card".to_owned(),
            };
            return Finding::warn(check, what, remedy);
        }
        if self.system.sysfs.snapshot(function.address).is_none() {
            return Finding::warn(
                check,
                "not looked at: its configuration space cannot be read",
                "run this command as root",
            );
        }
        Finding::ok(check, "has what a guest's driver needs")
    }

    /// Examines a function's IOMMU group; returns also whether other functions go with it.
    fn isolation(&self, function: &Function, host_use: &HostUse) -> (Finding, bool) {
        let check = "iommu-group";
        let sysfs = &self.system.sysfs;
        let result = judge::isolated(sysfs, function, self.domain, self.claims, host_use);
        let group = function.group.as_ref().map_or(0, |group| group.number);
        match result {
            Ok(companions) if companions.is_empty() => (
                Finding::ok(check, format!("group {group}, with nothing that the host uses")),
                false,
            ),
            Ok(companions) => {
                let list: Vec<String> = companions.iter().map(Function::describe).collect();
                let message = format!(
                    "group {group}; with it {} go to vfio-pci, and to nobody: the host is without them while the domain has it",
                    list.join(", ")
                );
                (Finding::ok(check, message), true)
            }
            Err(error) => {
                let mut remedy = error.remedy().to_owned();
                match error {
                    HandoverRefusal::Blocked(GroupRefusal::SharedGroup { .. }) => {
                        remedy.push_str(&self.better_nics(host_use));
                    }
                    HandoverRefusal::Blocked(GroupRefusal::IommuOff { .. }) => {
                        remedy = host::iommu_remedy(self.system);
                    }
                    _ => {}
                }
                (Finding::fail(check, error.what(), remedy), false)
            }
        }
    }

    /// Returns in words which other network controllers of this PC could be handed over.
    fn better_nics(&self, host_use: &HostUse) -> String {
        if self.wanted.role != Role::Nic {
            return String::new();
        }
        let sysfs = &self.system.sysfs;
        let free = |address: &PciAddress| !self.claims.domains.contains_key(address);
        let fits = |function: &Function| {
            judge::not_in_use(function, host_use).is_ok()
                && judge::usable(sysfs, function).is_ok()
                && judge::isolated(sysfs, function, self.domain, self.claims, host_use).is_ok()
        };
        let list: Vec<String> = sysfs
            .network_controllers()
            .into_iter()
            .filter(free)
            .filter_map(|address| sysfs.inspect(address).ok())
            .filter(fits)
            .map(|function| function.describe())
            .take(LISTED_MAX)
            .collect();
        if list.is_empty() {
            ". This PC has no other NIC that could be handed over".to_owned()
        } else {
            format!(". NICs of this PC that could be handed over: {}", list.join(", "))
        }
    }
}

fn reset(function: &Function, with_others: bool) -> Finding {
    let check = "reset";
    match &function.reset {
        Some(methods) => Finding::ok(check, format!("can be reset ({methods})")),
        None if with_others => Finding::warn(
            check,
            "the kernel knows no way to reset it alone; it is reset with the rest of its group if that is all one card",
            "if the domain does not start for that reason, use a NIC with function-level reset (FLR), as server and most Intel NICs have",
        ),
        None => Finding::fail(
            check,
            "the kernel knows no way to reset it: what one guest leaves in it, the next finds",
            "use a NIC with function-level reset (FLR), as server and most Intel NICs have",
        ),
    }
}

/// Returns a finding that says what of the host the hand-over takes.
fn reach(function: &Function) -> Finding {
    let check = "hand-over";
    match (&function.driver, function.interface_names().as_slice()) {
        (Some(driver), _) if driver == VFIO_PCI => Finding::ok(check, "handed over to vfio-pci"),
        (_, []) => Finding::ok(check, "free to be handed over"),
        (_, interfaces) => Finding::ok(
            check,
            format!("the host loses {} when it is handed over", interfaces.join(", ")),
        ),
    }
}
