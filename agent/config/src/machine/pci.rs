//! PCI functions in the machine file: an address, or a table that says besides what must be there.
//!
//! ```toml
//! nic = "0000:03:00.0"
//! nic = { address = "0000:03:00.0", id = "8086:10d3", mac = "52:54:00:12:34:56", slot = "2" }
//! ```

use toml_edit::{Item, TableLike, Value};

use super::reader::{Reader, Span, with_article};
use super::values::Wrong;
use handover::pins::Pins;
use handover::{PciAddress, Role, Wanted};

/// Keys of a pinned function.
const KEYS: [&str; 4] = ["address", "id", "mac", "slot"];
/// Keys of a NIC that is shared by VLAN, which this version does not have.
const VLAN_KEYS: [&str; 2] = ["parent", "vlan"];
/// Longest name of a slot, in bytes.
const SLOT_MAX: usize = 64;

/// `nic = ...`.
pub(super) fn nic(
    reader: &mut Reader,
    table: &dyn TableLike,
    item: &Item,
    span: Span,
) -> Option<Wanted> {
    let Some(parts) = item.as_table_like() else {
        let address = reader.parsed(table, "nic", pci_address)?;
        return Some(Wanted { address, role: Role::Nic, pins: Pins::default() });
    };
    if KEYS.into_iter().any(|key| parts.contains_key(key)) {
        return pinned(reader, parts, &span, "`nic`", Role::Nic);
    }
    reader.only_known(parts, &VLAN_KEYS, "`nic`");
    reader.problem(
        span,
        "a NIC on a VLAN is not available yet in this version",
        "give the domain a PCI NIC of its own: nic = \"0000:00:05.0\"",
    );
    None
}

/// An entry of `passthrough = [ ... ]`.
pub(super) fn passthrough(reader: &mut Reader, value: &Value, span: &Span) -> Option<Wanted> {
    match value.as_inline_table() {
        Some(parts) => pinned(reader, parts, span, "an entry of `passthrough`", Role::Device),
        None => {
            let address = element(reader, value, span, "passthrough", pci_address)?;
            Some(Wanted { address, role: Role::Device, pins: Pins::default() })
        }
    }
}

fn pinned(
    reader: &mut Reader,
    parts: &dyn TableLike,
    span: &Span,
    place: &str,
    role: Role,
) -> Option<Wanted> {
    reader.only_known(parts, &KEYS, place);
    if !parts.contains_key("address") {
        reader.problem(
            span.clone(),
            format!("{place} has no address"),
            "add `address = \"0000:00:05.0\"` as `lspci -D` shows it",
        );
        return None;
    }
    let pins = Pins {
        id: reader.parsed(parts, "id", id),
        mac: reader.parsed(parts, "mac", mac),
        slot: reader.parsed(parts, "slot", slot),
    };
    let address = reader.parsed(parts, "address", pci_address)?;
    Some(Wanted { address, role, pins })
}

pub(super) fn element<T>(
    reader: &mut Reader,
    value: &Value,
    span: &Span,
    key: &str,
    parse: impl FnOnce(&str) -> Result<T, Wrong>,
) -> Option<T> {
    let result = match value.as_str() {
        Some(text) => parse(text),
        None => Err((
            format!("an entry of `{key}` is {} here", with_article(value.type_name())),
            "write a string, in quotes".to_owned(),
        )),
    };
    result.map_err(|(message, help)| reader.problem(span.clone(), message, help)).ok()
}

fn pci_address(text: &str) -> Result<PciAddress, Wrong> {
    text.parse().map_err(|_| {
        let help = "write it as `lspci -D` or `lspci` shows it: \"0000:00:05.0\" or \"00:05.0\"";
        (format!("`{text}` is not a PCI address"), help.to_owned())
    })
}

/// Vendor and device as `lspci -nn` writes them.
fn id(text: &str) -> Result<String, Wrong> {
    let hex = |part: &str| part.len() == 4 && part.bytes().all(|b| b.is_ascii_hexdigit());
    match text.split_once(':') {
        Some((vendor, device)) if hex(vendor) && hex(device) => Ok(text.to_ascii_lowercase()),
        _ => Err((
            format!("`{text}` is no vendor and device"),
            "write both as `lspci -nn` shows them in brackets: \"8086:10d3\"".to_owned(),
        )),
    }
}

fn mac(text: &str) -> Result<String, Wrong> {
    let parts: Vec<&str> = text.split(':').collect();
    let hex = |part: &&str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
    if parts.len() == 6 && parts.iter().all(hex) {
        return Ok(text.to_ascii_lowercase());
    }
    Err((
        format!("`{text}` is no MAC address"),
        "write it as `ip link` shows it: \"52:54:00:12:34:56\"".to_owned(),
    ))
}

fn slot(text: &str) -> Result<String, Wrong> {
    if !text.is_empty() && text.len() <= SLOT_MAX && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    Err((
        "this cannot be the name of a slot".to_owned(),
        "write a name that `ls /sys/bus/pci/slots` shows, or the function's `label` in sysfs"
            .to_owned(),
    ))
}
