//! Every PCI function that the machine file hands over.

use super::{Finding, Patient};
use crate::machine::{Kind, Machine};
use crate::pci::PciAddress;
use crate::pci::handover::VFIO_PCI;
use crate::pci::inspect::PciFunction;

pub(super) fn examine(patient: &Patient, machine: &Machine) -> Vec<Finding> {
    let mut findings = Vec::new();
    for domain in &machine.domains {
        let Kind::Vm(vm) = &domain.kind else { continue };
        for address in vm.pci_functions() {
            let what = if vm.nic == Some(address) { "NIC" } else { "device" };
            let found = one(patient, &domain.name, what, address);
            findings.extend(found.into_iter().map(|f| f.of(address.to_string())));
        }
    }
    findings
}

/// The host's interfaces that go with the functions.
pub(super) fn interfaces(patient: &Patient, machine: &Machine) -> Vec<String> {
    let functions = machine.domains.iter().filter_map(|domain| match &domain.kind {
        Kind::Vm(vm) => Some(vm.pci_functions()),
        Kind::External => None,
    });
    functions
        .flatten()
        .filter_map(|address| PciFunction::inspect(&patient.sysfs, address).ok())
        .flat_map(|function| function.interfaces)
        .collect()
}

fn one(patient: &Patient, domain: &str, what: &str, address: PciAddress) -> Vec<Finding> {
    let function = match PciFunction::inspect(&patient.sysfs, address) {
        Ok(function) => function,
        Err(error) => {
            let remedy = "run `lspci -D`, find the device, and write its address into machine.toml";
            return vec![Finding::fail("pci-device", error.to_string(), remedy)];
        }
    };
    let class = if what == "NIC" && !function.is_network() {
        Finding::fail(
            "pci-device",
            format!(
                "{domain}'s NIC is no network controller (class {:06x}): {}",
                function.class,
                function.describe()
            ),
            "write the address of a network controller into machine.toml (`lspci -D -d ::0200`)",
        )
    } else {
        Finding::ok("pci-device", format!("{domain}'s {what}: {}", function.describe()))
    };
    vec![class, isolation(patient, &function), reset(&function), reach(&function)]
}

fn isolation(patient: &Patient, function: &PciFunction) -> Finding {
    let check = "iommu-group";
    match &function.group {
        None => Finding::fail(check, "in no IOMMU group", "see the finding `iommu`"),
        Some(group) if group.others.is_empty() => {
            Finding::ok(check, format!("group {}, alone", group.number))
        }
        Some(group) => {
            let describe = |other: &PciAddress| {
                PciFunction::inspect(&patient.sysfs, *other)
                    .map_or_else(|_| other.to_string(), |f| f.describe())
            };
            let others: Vec<String> = group.others.iter().map(describe).collect();
            Finding::fail(
                check,
                format!("shares group {} with {}", group.number, others.join(", ")),
                "move the card to another slot (one directly at the processor is best), or use a NIC in a group of its own; `ls /sys/kernel/iommu_groups/*/devices` shows them all",
            )
        }
    }
}

fn reset(function: &PciFunction) -> Finding {
    let check = "reset";
    match &function.reset {
        Some(methods) => Finding::ok(check, format!("can be reset ({methods})")),
        None => Finding::fail(
            check,
            "the kernel knows no way to reset it: what one guest leaves in it, the next finds",
            "use a NIC with function-level reset (FLR), as server and most Intel NICs have",
        ),
    }
}

/// What the hand-over takes from the host.
fn reach(function: &PciFunction) -> Finding {
    let check = "hand-over";
    match (&function.driver, function.interfaces.as_slice()) {
        (Some(driver), _) if driver == VFIO_PCI => Finding::ok(check, "handed over to vfio-pci"),
        (_, []) => Finding::ok(check, "free to be handed over"),
        (_, interfaces) => Finding::ok(
            check,
            format!("the host loses {} when it is handed over", interfaces.join(", ")),
        ),
    }
}
