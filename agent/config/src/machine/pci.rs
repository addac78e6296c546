//! PCI functions in the machine file: an address, or a table that says besides what must be there.
//!
//! ```toml
//! nic = "0000:03:00.0"
//! nic = { address = "0000:03:00.0", id = "8086:10d3", mac = "52:54:00:12:34:56", slot = "2" }
//! ```

use form::document::{Form, Mistake, Value};

use claims::{ClaimedFunction, PciAddress, Pins, Role};

/// A PCI address, for messages.
const EXAMPLE: &str = "\"0000:00:05.0\"";
/// Keys of a pinned function.
const KEYS: [&str; 4] = ["address", "id", "mac", "slot"];
/// Keys of a NIC that is shared by VLAN, which this version does not have.
const VLAN_KEYS: [&str; 2] = ["parent", "vlan"];
/// Longest name of a slot, in bytes.
const SLOT_MAX: usize = 64;

/// Reads `nic = ...`: the address of a NIC, or a table with its pins.
pub(super) fn nic(value: Value<'_>) -> Option<ClaimedFunction> {
    if !value.is_table() {
        return alone(value, Role::Nic);
    }
    let mut form = value.form("`nic`")?;
    let has = |keys: &[&str]| keys.iter().any(|key| form.has(key));
    if has(&KEYS) || !has(&VLAN_KEYS) {
        return pinned(form, Role::Nic);
    }
    for key in VLAN_KEYS {
        let _: Option<()> = form.optional(key, |_| None);
    }
    form.close();
    value.wrong(
        "a NIC on a VLAN is not available yet in this version",
        "give the domain a PCI NIC of its own: nic = \"0000:00:05.0\"",
    )
}

/// Reads an entry of `passthrough = [ ... ]`.
pub(super) fn passthrough(value: Value<'_>) -> Option<ClaimedFunction> {
    match value.is_table() {
        true => pinned(value.form("an entry of `passthrough`")?, Role::Device),
        false => alone(value, Role::Device),
    }
}

fn alone(value: Value<'_>, role: Role) -> Option<ClaimedFunction> {
    if value.text().is_none() {
        let help = format!("write it as `lspci -D` shows it, such as {EXAMPLE}");
        return value.not_a("a PCI address, in quotes", help);
    }
    let address = parsed(value, pci_address)?;
    Some(ClaimedFunction { address, role, pins: Pins::default() })
}

fn pinned(mut form: Form<'_>, role: Role) -> Option<ClaimedFunction> {
    let help = || format!("add its address as `lspci -D` shows it, such as `address = {EXAMPLE}`");
    let address = form.required_or("address", help, |v| parsed(v, pci_address));
    let pins = Pins {
        id: form.optional("id", |v| parsed(v, id)),
        mac: form.optional("mac", |v| parsed(v, mac)),
        slot: form.optional("slot", |v| parsed(v, slot)),
    };
    form.close();
    Some(ClaimedFunction { address: address?, role, pins })
}

fn parsed<T>(value: Value<'_>, parse: fn(&str) -> Result<T, Mistake>) -> Option<T> {
    value.checked(parse(value.string()?))
}

/// Reads a PCI address as `lspci` writes it.
///
/// # Errors
/// It is none.
pub fn pci_address(text: &str) -> Result<PciAddress, Mistake> {
    text.parse().map_err(|_| {
        Mistake::new(
            format!("\"{}\" is not a PCI address", text.escape_debug()),
            "write it as `lspci -D` or `lspci` shows it: \"0000:00:05.0\" or \"00:05.0\"",
        )
    })
}

/// Reads vendor and device as `lspci -nn` writes them.
fn id(text: &str) -> Result<String, Mistake> {
    let hex = |part: &str| part.len() == 4 && part.bytes().all(|b| b.is_ascii_hexdigit());
    match text.split_once(':') {
        Some((vendor, device)) if hex(vendor) && hex(device) => Ok(text.to_ascii_lowercase()),
        _ => Err(Mistake::new(
            format!("\"{}\" is no vendor and device", text.escape_debug()),
            "write both as `lspci -nn` shows them in brackets: \"8086:10d3\"",
        )),
    }
}

/// Reads a MAC address, of which the letters become small.
///
/// # Errors
/// It is none.
pub fn mac(text: &str) -> Result<String, Mistake> {
    let parts: Vec<&str> = text.split(':').collect();
    let hex = |part: &&str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
    if parts.len() == 6 && parts.iter().all(hex) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(Mistake::new(
        format!("\"{}\" is no MAC address", text.escape_debug()),
        "write it as `ip link` shows it: \"52:54:00:12:34:56\"",
    ))
}

/// Reads the name of a slot.
///
/// # Errors
/// No slot can have it.
pub fn slot(text: &str) -> Result<String, Mistake> {
    if !text.is_empty() && text.len() <= SLOT_MAX && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    Err(Mistake::new(
        "this cannot be the name of a slot",
        "write a name that `ls /sys/bus/pci/slots` shows, or the function's `label` in sysfs",
    ))
}
