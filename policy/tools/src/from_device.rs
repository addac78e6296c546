//! `bulkhead policy from-device`: the rule for a device that is plugged in.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use policy::decide::Decision;
use policy::enforcement;
use policy::language::UsbClass;
use policy::request::{UsbDescription, UsbFunction};

/// Why there is no rule for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRule {
    #[error("it is a hub, and hubs never enter a desktop: plug in what is behind it")]
    Hub,
    /// Nobody has read what it is.
    #[error("it does not say what it is, so that no rule can be written for it")]
    NoFunction,
}

/// Returns the rules by which this very device goes to a domain, as a piece of a policy: everything that it can be told by is in them.
/// `called` is what it calls itself. Storage is given without writing, in a rule of its own if there is something besides, and a keyboard
/// or scanner is tied, since it never enters a desktop.
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
    let mut matches = format!("vendor = {vendor:#06x}, product = {product:#06x}");
    let serial = serial.as_deref().filter(|serial| !serial.is_empty());
    if let Some(serial) = serial {
        _ = write!(matches, ", serial = {}", quoted(serial));
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
    let to = quoted(to);
    let mut usb = |id: &str, class: Option<UsbClass>| {
        let (action, help) = match class {
            Some(UsbClass::MASS_STORAGE) => (Decision::ReadOnly, "read-only | allow | deny"),
            _ => (Decision::Allow, "allow | deny"),
        };
        let class = class.map(|class| format!("class = {}, ", written(class))).unwrap_or_default();
        _ = write!(
            out,
            "[[usb]]\nid = \"{id}\"\nmatch = {{ {class}{matches} }}\nto = {to}\naction = \"{action}\"    # {help}\n"
        );
    };
    if typed {
        _ = write!(out, "[[input]]\nid = \"{id}\"\nmatch = {{ {matches} }}\nto = {to}\n");
    } else if one_class || !storage {
        usb(&id, one_class.then_some(first.class));
    } else {
        // One rule of any class would let the desktop write to the storage.
        usb(&id, Some(UsbClass::MASS_STORAGE));
        for class in classes_besides_storage(functions) {
            let of = named(class).map_or_else(|| format!("class-{:02x}", class.0), str::to_owned);
            usb(&format!("{id}-{of}"), Some(class));
        }
    }
    Ok(out)
}

/// Returns the classes of what may enter a desktop, each once.
fn classes_besides_storage(functions: &[UsbFunction]) -> BTreeSet<UsbClass> {
    let given = functions.iter().filter(|function| !function.is_the_seats());
    let classes = given.map(|function| function.class);
    classes.filter(|class| *class != UsbClass::MASS_STORAGE).collect()
}

fn named(class: UsbClass) -> Option<&'static str> {
    UsbClass::WORDS.iter().find(|(_, known)| *known == class).map(|(word, _)| *word)
}

/// Returns a class as a rule has it.
fn written(class: UsbClass) -> String {
    named(class).map_or_else(|| format!("{:#04x}", class.0), |word| format!("\"{word}\""))
}

/// Makes a name for the audit, of what the device calls itself.
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

/// Letters of the longest name made here, before a class: a rule's has 64.
const ID_CHARS: usize = 40;

/// Quotes a text as TOML writes a string.
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
