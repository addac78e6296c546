//! USB controllers, and whether the kernel withholds what is plugged into them.

use std::fs;
use std::path::Path;

use super::{Finding, SystemPaths, text};

const CHECK: &str = "usb";
/// The switches of a controller (the kernel's Documentation/usb/authorization.rst).
const SWITCHES: [&str; 2] = ["authorized_default", "interface_authorized_default"];

/// Examines the USB controllers. `switches` is the file in which an agent that has taken the switches keeps what they were.
pub(super) fn examine(system: &SystemPaths, switches: &Path) -> Vec<Finding> {
    let devices = system.sysfs.path("bus/usb/devices");
    let entries = match fs::read_dir(&devices) {
        Ok(entries) => entries,
        Err(error) => {
            return vec![Finding::warn(
                CHECK,
                format!("not looked at: {}: {error}", devices.display()),
                "load the kernel's USB (`modprobe usbcore xhci_pci`)",
            )];
        }
    };
    let mut roots: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_root(name))
        .collect();
    roots.sort();
    if roots.is_empty() {
        return vec![Finding::warn(
            CHECK,
            "there is no USB controller: no device can be given to a domain",
            "switch USB on in the BIOS, and load its driver (`modprobe xhci_pci`); one that is handed over to a domain is not the host's",
        )];
    }
    let taken = switches.exists();
    let examined = roots.iter().map(|root| one(&devices.join(root), taken).of(root));
    let mut findings: Vec<Finding> = examined.collect();
    findings.push(later(system, taken));
    findings
}

fn is_root(name: &str) -> bool {
    name.strip_prefix("usb").is_some_and(|number| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

fn one(root: &Path, taken: bool) -> Finding {
    let values = SWITCHES.map(|switch| (switch, text(&root.join(switch))));
    if let Some((switch, _)) = values.iter().find(|(_, value)| value.is_none()) {
        return Finding::fail(
            CHECK,
            format!(
                "the kernel has no switch {switch} here: a device would reach its drivers before it is judged"
            ),
            "use the distribution's kernel (4.4 or later, with USB authorisation)",
        );
    }
    let open: Vec<&str> = values
        .iter()
        .filter(|(_, value)| value.as_deref() != Some("0"))
        .map(|(switch, _)| *switch)
        .collect();
    let product = text(&root.join("product")).map_or(String::new(), |name| format!("{name}: "));
    match (open.is_empty(), taken) {
        (true, true) => Finding::ok(
            CHECK,
            format!("{product}what is plugged in is withheld from the host's drivers"),
        ),
        (true, false) => Finding::warn(
            CHECK,
            format!("{product}what is plugged in is withheld, and by no agent that runs"),
            "start bulkhead-agent; if it is not to run on this PC, restart the PC, and see that neither usbcore.authorized_default=0 nor USBGuard is set",
        ),
        (false, true) => Finding::fail(
            CHECK,
            format!(
                "{product}{} is not 0 although an agent has taken it: what is plugged in reaches the host's drivers",
                open.join(" and ")
            ),
            "find out what else sets it (USBGuard, a udev rule), remove that, and restart bulkhead-agent; if none runs, start it",
        ),
        (false, false) => Finding::ok(
            CHECK,
            format!(
                "{product}can withhold what is plugged in; the agent has it do so from its start on"
            ),
        ),
    }
}

/// Examines whether devices at a controller that comes later, as in a dock, are withheld.
fn later(system: &SystemPaths, taken: bool) -> Finding {
    match (system.sys_text("module/usbcore/parameters/authorized_default").as_deref(), taken) {
        (None, _) => Finding::fail(
            CHECK,
            "the kernel cannot be told to withhold devices at a controller that comes later, as in a dock",
            "use the distribution's kernel, with USB authorisation",
        ),
        (Some("0"), true) => Finding::ok(
            CHECK,
            "devices at a controller that comes later, as in a dock, are withheld",
        ),
        (Some(_), true) => Finding::fail(
            CHECK,
            "devices at a controller that comes later, as in a dock, would reach the host's drivers although an agent has taken USB",
            "find out what else sets usbcore's authorized_default, remove that, and restart bulkhead-agent",
        ),
        (Some(_), false) => Finding::ok(
            CHECK,
            "a controller that comes later, as in a dock, can be told to withhold devices",
        ),
    }
}
