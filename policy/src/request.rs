//! What is asked of the policy.

use std::fmt;
use std::str::FromStr;

use crate::document::{Mistake, nearest};
use crate::language::{MediaType, UsbClass};

/// HID 1.11, section 4.3: the protocol a boot keyboard and a boot mouse declare.
const BOOT_KEYBOARD: u8 = 1;
const BOOT_MOUSE: u8 = 2;

/// Something that wants to cross.
#[derive(Clone, Copy, Debug)]
pub enum Request<'a> {
    /// A clipboard transfer.
    Clipboard(ClipboardRequest<'a>),
    /// A USB device that wants into a domain.
    Usb(UsbRequest<'a>),
}

/// What else a verdict depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// Break-glass is open: the rules listed for it count.
    pub break_glass: bool,
}

/// A paste: what the clipboard of one domain holds wants into another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClipboardRequest<'a> {
    /// The name of the domain it comes from.
    pub from: &'a str,
    /// The name of the domain it goes to.
    pub to: &'a str,
    /// The type of the content.
    pub media_type: MediaType,
    /// Its size in bytes.
    pub bytes: u64,
}

/// A device that was plugged in, or that somebody attaches.
#[derive(Clone, Copy, Debug)]
pub struct UsbRequest<'a> {
    /// The device.
    pub device: UsbDevice<'a>,
    /// The domain somebody attaches it to by hand; `None` when it was merely plugged in and the rules decide where it goes.
    pub to: Option<&'a str>,
}

/// A device as its descriptors describe it. All of it is the device's own word.
#[derive(Clone, Copy, Debug)]
pub struct UsbDevice<'a> {
    /// `idVendor`.
    pub vendor: u16,
    /// `idProduct`.
    pub product: u16,
    /// `iSerialNumber`, if it has one.
    pub serial: Option<&'a str>,
    /// The socket, as the kernel writes it: `1-4.2`.
    pub port: Option<&'a str>,
    /// Every interface of every configuration and alternate setting.
    pub functions: &'a [UsbFunction],
}

/// An interface descriptor's class triple (USB 2.0, table 9-12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UsbFunction {
    /// `bInterfaceClass`.
    pub class: UsbClass,
    /// `bInterfaceSubClass`.
    pub subclass: u8,
    /// `bInterfaceProtocol`.
    pub protocol: u8,
    /// What its report descriptor says it is, if it is of the HID class and somebody has looked.
    pub hid: HidUse,
}

/// What a HID function's report descriptor makes of it. The class triple alone does not tell: only boot devices need
/// to declare themselves there (HID 1.11, section 4.2), and a hostile keyboard will not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HidUse {
    /// Nobody has looked, or what was found makes no sense.
    #[default]
    Unknown,
    /// It types or points: a keyboard, a mouse, a touch screen, a touchpad, a pen, whatever it calls itself.
    KeyboardOrMouse,
    /// It does neither.
    Other,
}

impl UsbFunction {
    /// A function nobody has looked into.
    #[must_use]
    pub const fn new(class: u8, subclass: u8, protocol: u8) -> Self {
        Self { class: UsbClass(class), subclass, protocol, hid: HidUse::Unknown }
    }

    /// Whether it is a keyboard, a mouse or whatever else a person works with at the seat: never a domain's.
    #[must_use]
    pub fn is_the_seats(&self) -> bool {
        let boot = matches!(self.protocol, BOOT_KEYBOARD | BOOT_MOUSE);
        self.class == UsbClass::HID && (boot || self.hid == HidUse::KeyboardOrMouse)
    }

    /// Reads `08/06/50+03/00/00:no-keyboard`: class, subclass and protocol of each function, in hexadecimal, and what the report
    /// descriptor of a HID function says, where somebody has looked.
    ///
    /// # Errors
    /// When the text is anything else.
    pub fn list(text: &str) -> Result<Vec<Self>, Mistake> {
        let function = |text: &str| -> Option<Self> {
            let (text, hid) = match text.split_once(':') {
                Some((text, word)) => (text, HidUse::of(word)?),
                None => (text, HidUse::Unknown),
            };
            let mut bytes = text.split('/').map(|hex| hexadecimal(hex, 2));
            let function = Self::new(
                u8::try_from(bytes.next()??).ok()?,
                u8::try_from(bytes.next()??).ok()?,
                u8::try_from(bytes.next()??).ok()?,
            );
            let hid_fits = hid == HidUse::Unknown || function.class == UsbClass::HID;
            (bytes.next().is_none() && hid_fits).then_some(Self { hid, ..function })
        };
        let functions: Option<Vec<Self>> = text.split('+').map(function).collect();
        functions.ok_or_else(|| {
            Mistake::new(
                format!("\"{}\" is not a list of interfaces", text.escape_debug()),
                "write class/subclass/protocol in hexadecimal, joined by +: \"08/06/50+03/01/01\"; of class 03 also what its reports are: \"03/00/00:keyboard-or-mouse\" or \"03/00/00:no-keyboard\"",
            )
        })
    }
}

/// Up to `digits` hexadecimal digits, with or without `0x`.
fn hexadecimal(text: &str, digits: usize) -> Option<u16> {
    let text = text.strip_prefix("0x").unwrap_or(text);
    let fits = (1..=digits).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
    if fits { u16::from_str_radix(text, 16).ok() } else { None }
}

impl fmt::Display for UsbFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}/{:02x}/{:02x}", self.class.0, self.subclass, self.protocol)?;
        match self.hid.word() {
            Some(word) => write!(f, ":{word}"),
            None => Ok(()),
        }
    }
}

impl HidUse {
    /// The word for what was found; none where nobody has looked.
    const fn word(self) -> Option<&'static str> {
        match self {
            Self::Unknown => None,
            Self::KeyboardOrMouse => Some("keyboard-or-mouse"),
            Self::Other => Some("no-keyboard"),
        }
    }

    fn of(word: &str) -> Option<Self> {
        [Self::KeyboardOrMouse, Self::Other].into_iter().find(|hid| hid.word() == Some(word))
    }
}

/// A [`UsbDevice`] that owns its strings: what a command line or an expectation describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsbDescription {
    /// `idVendor`.
    pub vendor: u16,
    /// `idProduct`.
    pub product: u16,
    /// `iSerialNumber`.
    pub serial: Option<String>,
    /// The socket.
    pub port: Option<String>,
    /// The interfaces.
    pub functions: Vec<UsbFunction>,
}

impl UsbDescription {
    /// The device described.
    #[must_use]
    pub fn device(&self) -> UsbDevice<'_> {
        UsbDevice {
            vendor: self.vendor,
            product: self.product,
            serial: self.serial.as_deref(),
            port: self.port.as_deref(),
            functions: &self.functions,
        }
    }
}

impl FromStr for UsbDescription {
    type Err = Mistake;

    /// Reads `vendor=08e6,product=3437,serial=A1,port=1-4,interfaces=0b/00/00`.
    fn from_str(text: &str) -> Result<Self, Mistake> {
        const KEYS: [&str; 5] = ["vendor", "product", "serial", "port", "interfaces"];
        let mut given: [Option<&str>; 5] = [None; 5];
        for part in text.split(',') {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let slot = KEYS.iter().position(|known| *known == key).and_then(|at| given.get_mut(at));
            let Some(slot) = slot else {
                let help = match nearest(key, KEYS) {
                    Some(known) => format!("did you mean `{known}=`?"),
                    None => format!("known are {}", KEYS.join(", ")),
                };
                return Err(Mistake::new(
                    format!("a device has no `{}`", key.escape_debug()),
                    help,
                ));
            };
            if slot.replace(value).is_some() {
                return Err(Mistake::new(format!("`{key}` is given twice"), "give it once"));
            }
        }
        let [vendor, product, serial, port, interfaces] = given;
        let number = |what: &str, text: Option<&str>| {
            text.and_then(|text| hexadecimal(text, 4)).ok_or_else(|| {
                Mistake::new(
                    format!("the {what} number is missing or is not one"),
                    format!("give four hexadecimal digits: {what}=08e6"),
                )
            })
        };
        let Some(interfaces) = interfaces else {
            return Err(Mistake::new(
                "the interfaces are missing",
                "give class/subclass/protocol of each: interfaces=08/06/50+03/01/01",
            ));
        };
        Ok(Self {
            vendor: number("vendor", vendor)?,
            product: number("product", product)?,
            serial: serial.map(str::to_owned),
            port: port.map(str::to_owned),
            functions: UsbFunction::list(interfaces)?,
        })
    }
}
