//! `bulkhead policy from-device`: the rule for a device that is plugged in.

use std::fmt::Write as _;

use crate::decide::Decision;
use crate::enforcement;
use crate::language::UsbClass;
use crate::request::{UsbDescription, UsbFunction};

/// Why there is no rule for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRule {
    /// It is a hub.
    #[error("it is a hub, and hubs never enter a desktop: plug in what is behind it")]
    Hub,
    /// Nobody has read what it is.
    #[error("it does not say what it is, so that no rule can be written for it")]
    NoFunction,
}

/// The rule by which this very device goes to a domain, as a piece of a policy: everything that it can be told by is in it. `called` is what
/// it calls itself. Storage is given without writing, and a keyboard or scanner is tied, since it never enters a desktop.
///
/// # Errors
/// No rule lets it in.
pub fn rule_for(device: &UsbDescription, called: &str, to: &str) -> Result<String, NoRule> {
    let UsbDescription { vendor, product, serial, port, functions } = device;
    let Some(first) = functions.first() else { return Err(NoRule::NoFunction) };
    if functions.iter().any(|function| function.class == UsbClass::HUB) {
        return Err(NoRule::Hub);
    }
    let typed = functions.iter().all(UsbFunction::is_the_seats);
    let one_class = functions.iter().all(|function| function.class == first.class);
    let named = UsbClass::WORDS.iter().find(|(_, class)| *class == first.class);
    let mut matches = Vec::new();
    if one_class && !typed {
        matches.push(match named {
            Some((word, _)) => format!("class = \"{word}\""),
            None => format!("class = {:#04x}", first.class.0),
        });
    }
    matches.push(format!("vendor = {vendor:#06x}, product = {product:#06x}"));
    let serial = serial.as_deref().filter(|serial| !serial.is_empty());
    if let Some(serial) = serial {
        matches.push(format!("serial = {}", quoted(serial)));
    }

    let list: Vec<String> = functions.iter().map(UsbFunction::to_string).collect();
    let mut out = format!("# {}: {}\n", printable::line(called), list.join("+"));
    let mut say = |words: &str| {
        _ = writeln!(out, "# {words}");
    };
    match (serial, port) {
        (Some(_), _) => {}
        (None, Some(port)) => say(&format!(
            "It has no serial number: every device of this model matches. `port = {}` would hold it to its socket.",
            quoted(port)
        )),
        (None, None) => say("It has no serial number: every device of this model matches."),
    }
    if !typed && functions.iter().any(UsbFunction::is_the_seats) {
        say("Its keyboard or mouse stays with the PC; the rule is for the rest.");
    }
    let classes = functions.iter().filter_map(|function| enforcement::of_class(function.class));
    if let Some(gap) = classes.map(|gap| gap.instead).next() {
        say(&format!("{}: {gap}.", enforcement::MARK));
    }
    let storage = functions.iter().any(|function| function.class == UsbClass::MASS_STORAGE);
    let id = id(called, device);
    let (to, matches) = (quoted(to), matches.join(", "));
    if typed {
        _ = write!(out, "[[input]]\nid = \"{id}\"\nmatch = {{ {matches} }}\nto = {to}\n");
    } else {
        let action = match storage && one_class {
            true => Decision::ReadOnly,
            false => Decision::Allow,
        };
        let help = if storage { "read-only | allow | deny" } else { "allow | deny" };
        _ = write!(
            out,
            "[[usb]]\nid = \"{id}\"\nmatch = {{ {matches} }}\nto = {to}\naction = \"{action}\"    # {help}\n"
        );
    }
    Ok(out)
}

/// A name for the audit, of what the device calls itself.
fn id(called: &str, device: &UsbDescription) -> String {
    let mut id = String::new();
    for c in called.chars() {
        match c.to_ascii_lowercase() {
            c if c.is_ascii_alphanumeric() => id.push(c),
            _ if !id.is_empty() && !id.ends_with('-') => id.push('-'),
            _ => {}
        }
    }
    let id: String = id.chars().take(ID_CHARS).collect();
    match id.trim_end_matches('-') {
        "" => format!("device-{:04x}-{:04x}", device.vendor, device.product),
        id => id.to_owned(),
    }
}

/// Letters of the longest name made here; a rule's has 64.
const ID_CHARS: usize = 40;

/// As TOML writes a string.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => _ = write!(out, "\\u{:04X}", u32::from(c)),
            c => out.push(c),
        }
    }
    out + "\""
}
