//! `[[usb]]`: which USB devices a domain may have, and `[[input]]`: which keyboards and scanners belong to one.

use notation::meant;

use super::domain::DomainId;
use super::vocabulary::{Head, Vocabulary};
use crate::diagnostic::Spanned;
use crate::document::{Form, Value};
use crate::terms::{UsbClass, check_port, words};

words! {
    /// What a USB rule does with what it matches.
    UsbAction {
        /// The domain gets it.
        Allow = "allow",
        /// The domain gets it and cannot write to it. Storage only.
        ReadOnly = "read-only",
        /// The domain does not get it.
        Deny = "deny",
    }
}

/// What a device must be for a rule to match: everything given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct DeviceMatch {
    /// The class of one of its functions; the rule then matches that function alone.
    pub class: Option<UsbClass>,
    /// `idVendor` that a device must have; `None` matches any.
    pub vendor: Option<u16>,
    /// `idProduct` that a device must have; `None` matches any.
    pub product: Option<u16>,
    /// The serial number it states.
    pub serial: Option<Box<str>>,
    /// The socket it is plugged into, as the kernel writes it: `1-4.2`.
    pub port: Option<Box<str>>,
}

impl DeviceMatch {
    /// The keys of `match`, of which input devices have no class.
    const KEYS: [&'static str; 5] = ["vendor", "product", "serial", "port", "class"];

    /// Reads `match`. Input devices have no class to match: they are pinned whole.
    fn read(value: Value<'_>, with_class: bool) -> Option<Self> {
        let mut form = value.form("`match`")?;
        let has_vendor = form.has("vendor");
        let class = if with_class { form.optional("class", class) } else { None };
        let vendor = form.optional("vendor", |v| v.device_number("the vendor number", 4));
        let product = form.optional("product", |v| {
            if !has_vendor {
                return v.wrong(
                    "a product number means nothing without its vendor's",
                    "add `vendor = 0x…`",
                );
            }
            v.device_number("the product number", 4)
        });
        let serial = form.optional("serial", |v| match v.string()? {
            "" => v.wrong(
                "an empty serial number matches nothing",
                "remove `serial`, or write the device's",
            ),
            serial => Some(serial.into()),
        });
        let port = form.optional("port", port);
        // Half a match would match too much: what was written and is wrong makes the whole wrong.
        let read = [
            ("class", class.is_some() || !with_class),
            ("vendor", vendor.is_some()),
            ("product", product.is_some()),
            ("serial", serial.is_some()),
            ("port", port.is_some()),
        ];
        let whole = read.into_iter().all(|(key, read)| read || !form.has(key));
        // With a key that is none it is not known what was to be matched.
        let known = form.remaining().is_empty();
        form.close();
        (whole && known).then_some(Self { class, vendor, product, serial, port })
    }

    /// Returns whether nothing is given, so that it matches every device.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn class(value: Value<'_>) -> Option<UsbClass> {
    if value.is_integer() {
        return value.device_number("the class code", 2).map(UsbClass);
    }
    // `class = "08"`: as lsusb prints it.
    let code = meant::hexadecimal(value.plain(), 2).and_then(|code| u8::try_from(code).ok());
    if let Some(code) = code.filter(|_| value.plain().contains(|c: char| c.is_ascii_digit())) {
        let help = match UsbClass::WORDS.iter().find(|(_, class)| class.0 == code) {
            Some((word, _)) => format!("write \"{word}\", or 0x{code:02x} without quotes"),
            None => format!("write 0x{code:02x}, without quotes"),
        };
        return value.not_a("the name of a USB class or its code as a number", help);
    }
    value.choice("a USB class with a name", &UsbClass::WORDS)
}

fn port(value: Value<'_>) -> Option<Box<str>> {
    let text = value.string()?;
    value.checked(check_port(text))?;
    Some(text.into())
}

/// A rule of `[[usb]]`: which devices, and what is decided for them.
#[derive(Clone, Debug)]
pub struct UsbRule {
    /// Its id and place.
    pub head: Head,
    /// The devices that it matches.
    pub matches: Spanned<DeviceMatch>,
    /// Which domain gets them. Only a `deny` may leave it out; it then denies to all.
    pub to: Option<Spanned<DomainId>>,
    /// What the rule decides.
    pub action: Spanned<UsbAction>,
    /// It counts only while break-glass is open.
    pub break_glass: Option<Spanned<bool>>,
}

impl UsbRule {
    pub(crate) fn read(mut form: Form<'_>, known: &mut Vocabulary) -> Option<Self> {
        let head = known.rule(&mut form);
        form.belong_into("match", &DeviceMatch::KEYS);
        let matches = form.required("match", "{ class = \"smart-card\" }", |v| {
            Some(v.spanned(DeviceMatch::read(v, true)?))
        });
        let action = form.required("action", "\"deny\"", |v| {
            Some(v.spanned(v.choice("an action on a USB device", &UsbAction::WORDS)?))
        });
        // Where the action is wrong, it is not known whether somebody must get it.
        let denies = action.is_none_or(|action| *action == UsbAction::Deny);
        let to = match denies {
            true => form.optional("to", |v| known.domain(v)),
            false => form.required("to", "\"clinical\"", |v| known.domain(v)),
        };
        let break_glass = form.optional("break_glass", |v| Some(v.spanned(v.boolean()?)));
        if let (Some(matches), Some(action)) = (&matches, action)
            && *action == UsbAction::ReadOnly
            && matches.class.is_some_and(|class| class != UsbClass::MASS_STORAGE)
        {
            form.sink().report(crate::diagnostic::Diagnostic::error(
                action.span,
                "only storage can be read-only",
                "write `class = \"mass-storage\"`, or `action = \"allow\"` or \"deny\"",
            ));
        }
        form.close();
        let (matches, action) = (matches?, action?);
        if to.is_none() && !denies {
            return None;
        }
        Some(Self { head: head?, matches, to, action, break_glass })
    }

    /// Returns whether it counts only while break-glass is open.
    #[must_use]
    pub fn only_in_break_glass(&self) -> bool {
        self.break_glass.is_some_and(|marked| *marked)
    }

    /// Returns the class a function must have. `read-only` can be said of storage alone, so it matches nothing else.
    #[must_use]
    pub fn class(&self) -> Option<UsbClass> {
        match *self.action {
            UsbAction::ReadOnly => Some(UsbClass::MASS_STORAGE),
            UsbAction::Allow | UsbAction::Deny => self.matches.class,
        }
    }
}

/// A rule of `[[input]]`: the device types only into one domain, whatever is in front.
#[derive(Clone, Debug)]
pub struct InputRule {
    /// Its id and place.
    pub head: Head,
    /// Which devices; never a class.
    pub matches: Spanned<DeviceMatch>,
    /// Which domain hears them.
    pub to: Spanned<DomainId>,
}

impl InputRule {
    pub(crate) fn read(mut form: Form<'_>, known: &mut Vocabulary) -> Option<Self> {
        let head = known.rule(&mut form);
        let [keys @ .., _class] = &DeviceMatch::KEYS;
        form.belong_into("match", keys);
        let matches = form.required("match", "{ vendor = 0x05e0, product = 0x1200 }", |v| {
            let matches = DeviceMatch::read(v, false)?;
            if matches.is_empty() {
                return v.wrong(
                    "this would tie every keyboard and mouse to one domain",
                    "say which device: `{ vendor = 0x05e0, product = 0x1200 }`",
                );
            }
            Some(v.spanned(matches))
        });
        let to = form.required("to", "\"clinical\"", |v| known.domain(v));
        form.close();
        Some(Self { head: head?, matches: matches?, to: to? })
    }
}
