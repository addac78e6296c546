//! What is asked of the policy.

use std::fmt;
use std::str::FromStr;

use notation::meant::{hexadecimal, vendor_and_product};

use crate::document::{Mistake, nearest};
use crate::terms::{MediaType, UsbClass, check_port};

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
    /// What the device says of itself.
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
    /// It does neither of both.
    Other,
}

impl UsbFunction {
    /// Makes a function nobody has looked into.
    #[must_use]
    pub const fn new(class: u8, subclass: u8, protocol: u8) -> Self {
        Self { class: UsbClass(class), subclass, protocol, hid: HidUse::Unknown }
    }

    /// Returns whether it is a keyboard, a mouse or whatever else a person works with at the seat: never a domain's.
    #[must_use]
    pub fn is_the_seats(&self) -> bool {
        let boot = matches!(self.protocol, BOOT_KEYBOARD | BOOT_MOUSE);
        self.class == UsbClass::HID && (boot || self.hid == HidUse::KeyboardOrMouse)
    }

    /// Reads `08/06/50+03/00/00:no-keyboard`: class, subclass and protocol of each function, in hexadecimal, and what the report
    /// descriptor of a HID function says, where somebody has looked. USBGuard's `{ 08:06:50 03:00:00 }` is read too.
    ///
    /// # Errors
    /// When the text is anything else.
    pub fn list(text: &str) -> Result<Vec<Self>, Mistake> {
        let braces = text.trim().strip_prefix('{').and_then(|inner| inner.strip_suffix('}'));
        let items = braces.unwrap_or(text).split(['+', ' ']).map(str::trim);
        let items: Vec<&str> = items.filter(|item| !item.is_empty()).collect();
        if items.is_empty() {
            return Err(Mistake::new(
                "the list of interfaces is empty",
                "write class/subclass/protocol of each in hexadecimal, as `lsusb -v` prints them",
            ));
        }
        items.into_iter().map(Self::read).collect()
    }

    fn read(text: &str) -> Result<Self, Mistake> {
        let mistake = |help: String| {
            Mistake::new(format!("\"{}\" is not an interface", text.escape_debug()), help)
        };
        let mut parts = text.split(['/', ':']);
        let mut byte = || {
            let part = parts.next().unwrap_or_default();
            let code = hexadecimal(part, 2).and_then(|code| u8::try_from(code).ok());
            code.ok_or_else(|| {
                // `smart-card` for `0b/00/00`.
                let named = UsbClass::WORDS.iter().find(|(word, _)| *word == part);
                mistake(match named {
                    Some((_, class)) => format!("write its class in hexadecimal, with subclass and protocol: {:02x}/00/00", class.0),
                    None => "write class/subclass/protocol, two hexadecimal digits each, as `lsusb -v` prints them".to_owned(),
                })
            })
        };
        let function = Self::new(byte()?, byte()?, byte()?);
        let Some(word) = parts.next() else { return Ok(function) };
        let hid = HidUse::of(word).filter(|_| parts.next().is_none());
        let Some(hid) = hid else {
            let words = [HidUse::KeyboardOrMouse, HidUse::Other].map(HidUse::word);
            let known = words.into_iter().flatten();
            return Err(mistake(match nearest(word, known.clone()) {
                Some(known) => format!("did you mean {function}:{known}?"),
                None => format!(
                    "behind {function} may stand what it is: {}",
                    known.collect::<Vec<_>>().join(" or ")
                ),
            }));
        };
        if function.class != UsbClass::HID {
            return Err(mistake(format!(
                "write {function}: only what is of class 03 can be a keyboard"
            )));
        }
        Ok(Self { hid, ..function })
    }
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
    /// Returns the word for what was found; none where nobody has looked.
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
    /// The socket of the PC that it is plugged into: `1-2.3`.
    pub port: Option<String>,
    /// The interfaces that it offers.
    pub functions: Vec<UsbFunction>,
}

impl UsbDescription {
    /// Returns the device that is described.
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

impl fmt::Display for UsbDescription {
    /// Writes the device as it is read back, whatever a device has for its serial: a comma there is written `%2c`, and `%` is `%25`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vendor={:04x},product={:04x}", self.vendor, self.product)?;
        for (key, value) in [("serial", &self.serial), ("port", &self.port)] {
            if let Some(value) = value {
                write!(f, ",{key}={}", escaped(value))?;
            }
        }
        let functions: Vec<String> = self.functions.iter().map(ToString::to_string).collect();
        write!(f, ",interfaces={}", functions.join("+"))
    }
}

impl FromStr for UsbDescription {
    type Err = Mistake;

    /// Reads `vendor=08e6,product=3437,serial=A1,port=1-4,interfaces=0b/00/00`. For vendor and product may stand what `lsusb`
    /// prints: `08e6:3437,interfaces=0b/00/00`. A comma may be in the serial, as it is or as `%2c`.
    fn from_str(text: &str) -> Result<Self, Mistake> {
        let mut given = DeviceText::default();
        for part in text.split(',') {
            given.take(part)?;
        }
        let DeviceText { vendor, product, serial, port, interfaces, .. } = given;
        let number = |what: &str, text: Option<String>| {
            let Some(text) = text else {
                return Err(Mistake::new(
                    format!("the {what} number is missing"),
                    format!(
                        "add {what}= and the four digits that `lsusb` prints, or begin with both as it prints them"
                    ),
                ));
            };
            hexadecimal(&text, 4).ok_or_else(|| {
                let help = match vendor_and_product(&text) {
                    Some((vendor, product)) => {
                        format!("write vendor={vendor:04x},product={product:04x}")
                    }
                    None => format!(
                        "write {what}= and up to four hexadecimal digits, as `lsusb` prints them"
                    ),
                };
                Mistake::new(format!("\"{}\" is not a {what} number", text.escape_debug()), help)
            })
        };
        let (vendor, product) = (number("vendor", vendor)?, number("product", product)?);
        let Some(interfaces) = interfaces else {
            return Err(Mistake::new(
                "the interfaces are missing",
                "add interfaces= and class/subclass/protocol of each, as `lsusb -v` prints them; of a device that is plugged in, --busid reads them",
            ));
        };
        let functions = UsbFunction::list(&interfaces)?;
        let unescaped = |text: Option<String>| text.map(|text| unescaped(&text));
        let (serial, port) = (unescaped(serial), unescaped(port));
        port.as_deref().map(check_port).transpose()?;
        Ok(Self { vendor, product, serial, port, functions })
    }
}

/// Escapes what would end a value.
fn escaped(value: &str) -> String {
    value.replace('%', "%25").replace(',', "%2c")
}

/// Reads what [`escaped`] wrote; any other `%` stands for itself.
fn unescaped(text: &str) -> String {
    text.replace("%2c", ",").replace("%25", "%")
}

/// What a description has given so far.
#[derive(Debug, Default)]
struct DeviceText {
    vendor: Option<String>,
    product: Option<String>,
    serial: Option<String>,
    port: Option<String>,
    interfaces: Option<String>,
    /// The serial was last: what comes behind a comma may be the rest of it.
    in_serial: bool,
}

impl DeviceText {
    const KEYS: [&str; 5] = ["vendor", "product", "serial", "port", "interfaces"];

    /// Takes what stands between two commas.
    fn take(&mut self, part: &str) -> Result<(), Mistake> {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        if let Some(slot) = self.slot(key) {
            if slot.replace(value.to_owned()).is_some() {
                return Err(Mistake::new(format!("`{key}` is given twice"), "give it once"));
            }
            self.in_serial = key == "serial";
            return Ok(());
        }
        let meant = nearest(key, Self::KEYS);
        // A word and `=`: a key, though none that is known. Anything else may be the rest of a serial number.
        let letters = !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        let is_key = part.contains('=') && (meant.is_some() || letters);
        if self.in_serial && !is_key {
            let serial = self.serial.get_or_insert_default();
            serial.push(',');
            serial.push_str(part);
            return Ok(());
        }
        if let (Some((vendor, product)), None, None) =
            (vendor_and_product(part), &self.vendor, &self.product)
        {
            self.vendor = Some(format!("{vendor:04x}"));
            self.product = Some(format!("{product:04x}"));
            return Ok(());
        }
        let help = match meant {
            Some(known) => format!("did you mean `{known}=`?"),
            None if self.in_serial => format!(
                "known are {}; a comma in a serial number is written %2c",
                Self::KEYS.join(", ")
            ),
            None => format!("known are {}", Self::KEYS.join(", ")),
        };
        Err(Mistake::new(format!("a device has no `{}`", key.escape_debug()), help))
    }

    fn slot(&mut self, key: &str) -> Option<&mut Option<String>> {
        match key {
            "vendor" => Some(&mut self.vendor),
            "product" => Some(&mut self.product),
            "serial" => Some(&mut self.serial),
            "port" => Some(&mut self.port),
            "interfaces" => Some(&mut self.interfaces),
            _ => None,
        }
    }
}
