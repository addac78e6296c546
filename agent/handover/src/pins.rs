//! What machine.toml says a function must be. Addresses count buses, and move when a card is added, a
//! firmware setting changes or firmware is updated; what a card is does not.

pub use claims::Pins;
use hostpci::Function;

use super::sysfs::HostSysfs;

/// Functions that a message lists at most.
const LISTED_MAX: usize = 4;

/// A function is not the one that was meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {}", self.what, Self::REMEDY)]
pub struct Mismatch {
    /// What is and what should be.
    pub what: String,
}

impl Mismatch {
    /// What to do about it.
    pub const REMEDY: &'static str = "a card was probably added, moved or exchanged: if this is the right one write what it is now into machine.toml, otherwise its new address (`lspci -D`, `bulkhead doctor`)";
}

/// Compares what there is with the pins. `known_mac` is the address it was seen to have before vfio-pci had it, when no
/// interface shows one.
pub fn check(
    pins: &Pins,
    sysfs: &HostSysfs,
    function: &Function,
    known_mac: Option<&str>,
) -> Result<(), Mismatch> {
    let address = function.address;
    let differs = |what: String| Err(Mismatch { what });
    if let Some(id) = &pins.id
        && *id != function.id()
    {
        return differs(format!(
            "PCI device {address} is {} ({}), and machine.toml says {id}{}",
            function.id(),
            function.class,
            elsewhere(sysfs, |other| other.id() == *id)
        ));
    }
    if let Some(slot) = &pins.slot
        && !function.places.contains(slot)
    {
        let now = if function.places.is_empty() {
            "in no slot that has a name".to_owned()
        } else {
            format!("in slot `{}`", function.places.join("`, `"))
        };
        return differs(format!(
            "PCI device {address} is {now}, and machine.toml says slot `{slot}`{}",
            elsewhere(sysfs, |other| other.places.contains(slot))
        ));
    }
    let Some(mac) = &pins.mac else { return Ok(()) };
    let mut seen: Vec<&str> = function.interfaces.iter().filter_map(|i| i.mac.as_deref()).collect();
    seen.extend(known_mac.filter(|_| function.interfaces.is_empty()));
    if seen.contains(&mac.as_str()) {
        return Ok(());
    }
    if seen.is_empty() {
        return differs(format!(
            "PCI device {address} shows no network interface now, so its MAC address cannot be compared with the {mac} of machine.toml (pin it by `id` or `slot` if vfio-pci has it from the start)"
        ));
    }
    let has = |other: &Function| {
        other.interfaces.iter().any(|interface| interface.mac.as_ref() == Some(mac))
    };
    differs(format!(
        "PCI device {address} has the MAC address {}, and machine.toml says {mac}{}",
        seen.join(", "),
        elsewhere(sysfs, has)
    ))
}

/// Returns what else in this PC fits, in words.
fn elsewhere(sysfs: &HostSysfs, fits: impl Fn(&Function) -> bool) -> String {
    let found: Vec<String> = sysfs
        .functions()
        .into_iter()
        .filter_map(|address| sysfs.inspect(address).ok())
        .filter(|function| fits(function))
        .map(|function| function.address.to_string())
        .take(LISTED_MAX)
        .collect();
    if found.is_empty() { String::new() } else { format!(", which is at {}", found.join(", ")) }
}

/// Returns the value for machine.toml that pins the function as it is now.
#[must_use]
pub fn pinned(function: &Function) -> String {
    let mut text = format!("{{ address = \"{}\", id = \"{}\"", function.address, function.id());
    if let [only] = function.interfaces.as_slice()
        && let Some(mac) = &only.mac
    {
        text.push_str(&format!(", mac = \"{mac}\""));
    }
    // A name with a quote or a backslash would need escaping; none is known.
    if let Some(place) = function.places.first().filter(|name| !name.contains(['"', '\\'])) {
        text.push_str(&format!(", slot = \"{place}\""));
    }
    text.push_str(" }");
    text
}

#[cfg(test)]
mod tests;
