//! Device rules, arranged by which fields they give.
//!
//! A rule gives some of five fields and leaves the others open. All rules that give the same fields form a *shape*, and
//! inside a shape a device can match only the rules that give exactly its values: one look into a hash table. There are
//! at most 32 shapes, however many rules there are. (Packet classifiers know this as tuple space search: Srinivasan,
//! Suri and Varghese, SIGCOMM 1999.)

use std::collections::HashMap;

use crate::language::{DeviceMatch, UsbClass};
use crate::request::UsbDevice;

/// A string that some rule gives, by number. Devices' strings that no rule gives have none, and match no rule.
type StringId = u32;

/// What a rule gives; `None` is open.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'r> {
    /// The USB class that a function must have.
    pub class: Option<UsbClass>,
    /// `idVendor` of the device.
    pub vendor: Option<u16>,
    /// `idProduct` of the device.
    pub product: Option<u16>,
    /// The serial number that the device reports.
    pub serial: Option<&'r str>,
    /// The port it is plugged into.
    pub port: Option<&'r str>,
}

impl<'r> Fields<'r> {
    /// Makes a rule's fields, with the class it means.
    pub fn of(rule: &'r DeviceMatch, class: Option<UsbClass>) -> Self {
        let DeviceMatch { vendor, product, serial, port, .. } = rule;
        Self {
            class,
            vendor: *vendor,
            product: *product,
            serial: serial.as_deref(),
            port: port.as_deref(),
        }
    }
}

/// The values of a shape's fields; of the others, `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Key {
    class: Option<UsbClass>,
    vendor: Option<u16>,
    product: Option<u16>,
    serial: Option<StringId>,
    port: Option<StringId>,
}

/// Which fields a shape gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    class: bool,
    vendor: bool,
    product: bool,
    serial: bool,
    port: bool,
}

impl Shape {
    fn of(key: &Key) -> Self {
        Self {
            class: key.class.is_some(),
            vendor: key.vendor.is_some(),
            product: key.product.is_some(),
            serial: key.serial.is_some(),
            port: key.port.is_some(),
        }
    }

    /// Returns what of a device this shape looks at; `None` if the device lacks any of it.
    fn project(self, device: &Key) -> Option<Key> {
        let key = Key {
            class: device.class.filter(|_| self.class),
            vendor: device.vendor.filter(|_| self.vendor),
            product: device.product.filter(|_| self.product),
            serial: device.serial.filter(|_| self.serial),
            port: device.port.filter(|_| self.port),
        };
        (Self::of(&key) == self).then_some(key)
    }
}

/// The rules of one shape.
#[derive(Clone, Debug)]
struct Table {
    shape: Shape,
    /// The first rule of them all.
    first: usize,
    /// The first rule that gives these values.
    rules: HashMap<Key, usize>,
}

/// Rules over devices, arranged for finding the first that matches.
#[derive(Clone, Debug, Default)]
pub struct DeviceIndex {
    /// By [`Table::first`], ascending.
    tables: Vec<Table>,
    words: HashMap<Box<str>, StringId>,
}

impl DeviceIndex {
    /// Makes the index of rules with their numbers, ascending.
    pub fn new<'r>(rules: impl Iterator<Item = (usize, Fields<'r>)>) -> Self {
        let mut index = Self::default();
        for (number, fields) in rules {
            let key = Key {
                class: fields.class,
                vendor: fields.vendor,
                product: fields.product,
                serial: fields.serial.map(|serial| index.learn(serial)),
                port: fields.port.map(|port| index.learn(port)),
            };
            let shape = Shape::of(&key);
            match index.tables.iter_mut().find(|table| table.shape == shape) {
                Some(table) => {
                    table.rules.entry(key).or_insert(number);
                }
                None => {
                    let rules = HashMap::from([(key, number)]);
                    index.tables.push(Table { shape, first: number, rules });
                }
            }
        }
        index
    }

    fn learn(&mut self, word: &str) -> StringId {
        let next = StringId::try_from(self.words.len()).unwrap_or(StringId::MAX);
        *self.words.entry(word.into()).or_insert(next)
    }

    /// Returns the first rule that matches everything that `fields` does.
    pub fn first_covering(&self, fields: &Fields<'_>) -> Option<usize> {
        self.first_for(&Key {
            class: fields.class,
            vendor: fields.vendor,
            product: fields.product,
            serial: fields.serial.and_then(|serial| self.words.get(serial).copied()),
            port: fields.port.and_then(|port| self.words.get(port).copied()),
        })
    }

    /// Returns the first rule that matches a device's function, or the device as a whole where `class` is `None`.
    pub fn first(&self, device: &UsbDevice<'_>, class: Option<UsbClass>) -> Option<usize> {
        self.first_for(&Key {
            class,
            vendor: Some(device.vendor),
            product: Some(device.product),
            serial: device.serial.and_then(|serial| self.words.get(serial).copied()),
            port: device.port.and_then(|port| self.words.get(port).copied()),
        })
    }

    fn first_for(&self, key: &Key) -> Option<usize> {
        let mut best: Option<usize> = None;
        for table in &self.tables {
            if best.is_some_and(|best| best < table.first) {
                break;
            }
            let found = table.shape.project(key).and_then(|key| table.rules.get(&key).copied());
            best = best.into_iter().chain(found).min();
        }
        best
    }
}
