//! Items, collections and fields, as `hid-core` reads them (Linux `drivers/hid/hid-core.c`: `hid_open_report` and what it calls).
//!
//! Differences from the letter of HID 1.11 that matter here: a Usage Page after a Usage of one or two bytes still counts for it, of a
//! set of delimited usages only the first branch counts, usages named by range are counted one by one up to a cap, and a mistake
//! anywhere makes Linux refuse the whole.

use crate::input::{APPLICATION, Collection, Field, InputKinds, PHYSICAL};

/// Usages of one main item (`HID_MAX_USAGES`).
const USAGES_MAX: u32 = 12_288;
/// Pushed global states (`HID_GLOBAL_STACK_SIZE`).
const PUSHED_MAX: usize = 4;
/// Bits of a field's report size.
const SIZE_MAX: u32 = 16_384;
/// Report IDs that a device may have, 0 included (`HID_MAX_IDS`).
const IDS: usize = 256;
/// Bits of a report (`HID_MAX_BUFFER_SIZE`, less the byte of its ID).
const REPORT_BITS_MAX: u32 = (16_384 - 1) << 3;

/// The descriptor makes no sense to Linux.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InvalidDescriptor;

/// The state of the Global items, which a Push item saves (HID 1.11, section 6.2.2.7).
#[derive(Clone, Copy, Default)]
struct Global {
    page: u32,
    minimum: i32,
    maximum: i32,
    size: u32,
    count: u32,
    id: usize,
}

/// A usage, and the bytes of the item that named it.
#[derive(Clone, Copy)]
struct NamedUsage {
    usage: u32,
    size: usize,
    /// The collection around the item.
    inside: Option<Collection>,
}

/// Local items' state, which ends with the next main item.
#[derive(Default)]
struct Local {
    usages: Vec<NamedUsage>,
    minimum: u32,
    delimited: bool,
    branch: u32,
}

struct Parser<'f> {
    global: Global,
    pushed: Vec<Global>,
    local: Local,
    open: Vec<Collection>,
    /// Bits of each input, output and feature report so far.
    bits: [Vec<u32>; 3],
    found: &'f mut InputKinds,
}

struct Item<'r> {
    tag: u8,
    data: &'r [u8],
}

/// Reads all of it; what was found up to a mistake is found.
pub(crate) fn read(report: &[u8], found: &mut InputKinds) -> Result<(), InvalidDescriptor> {
    let mut parser = Parser {
        global: Global::default(),
        pushed: Vec::new(),
        local: Local::default(),
        open: Vec::new(),
        bits: std::array::from_fn(|_| vec![0; IDS]),
        found,
    };
    let mut rest = report;
    while let Some((prefix, after)) = rest.split_first() {
        let (tag, kind) = (prefix >> 4, prefix >> 2 & 3);
        // A long item; Linux takes none, whatever its type says.
        if tag == 0xf {
            return Err(InvalidDescriptor);
        }
        let size = [0, 1, 2, 4].get(usize::from(prefix & 3)).copied().unwrap_or_default();
        let (data, after) = after.split_at_checked(size).ok_or(InvalidDescriptor)?;
        rest = after;
        let item = Item { tag, data };
        match kind {
            0 => parser.main(&item)?,
            1 => parser.global(&item)?,
            2 => parser.local(&item)?,
            _ => {}
        }
    }
    let ended = parser.open.is_empty() && !parser.local.delimited;
    if ended { Ok(()) } else { Err(InvalidDescriptor) }
}

impl Item<'_> {
    fn unsigned(&self) -> u32 {
        self.data.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte))
    }

    fn signed(&self) -> i32 {
        let value = self.unsigned();
        match self.data.len() {
            1 => i32::from(value.to_le_bytes()[0].cast_signed()),
            2 => i32::from((value & 0xffff).try_into().unwrap_or(0_u16).cast_signed()),
            _ => value.cast_signed(),
        }
    }
}

impl Parser<'_> {
    fn global(&mut self, item: &Item<'_>) -> Result<(), InvalidDescriptor> {
        let value = item.unsigned();
        match item.tag {
            0x0 => self.global.page = value,
            0x1 => self.global.minimum = item.signed(),
            0x2 if self.global.minimum < 0 => self.global.maximum = item.signed(),
            0x2 => self.global.maximum = value.cast_signed(),
            // Physical range, unit exponent, unit.
            0x3..=0x6 => {}
            0x7 if value <= SIZE_MAX => self.global.size = value,
            0x8 => {
                let id = usize::try_from(value).map_err(|_| InvalidDescriptor)?;
                if id == 0 || id >= IDS {
                    return Err(InvalidDescriptor);
                }
                self.global.id = id;
            }
            0x9 if value <= USAGES_MAX => self.global.count = value,
            0xa if self.pushed.len() < PUSHED_MAX => self.pushed.push(self.global),
            0xb => self.global = self.pushed.pop().ok_or(InvalidDescriptor)?,
            _ => return Err(InvalidDescriptor),
        }
        Ok(())
    }

    fn local(&mut self, item: &Item<'_>) -> Result<(), InvalidDescriptor> {
        let value = item.unsigned();
        let (size, others) = (item.data.len(), self.local.branch > 1);
        match item.tag {
            0x0 if !others => self.name(value, size)?,
            0x1 if !others => self.local.minimum = value,
            0x2 if !others => self.range(value, size)?,
            0xa if value != 0 => {
                if self.local.delimited {
                    return Err(InvalidDescriptor);
                }
                self.local.delimited = true;
                self.local.branch += 1;
            }
            0xa if !self.local.delimited => return Err(InvalidDescriptor),
            0xa => self.local.delimited = false,
            _ => {}
        }
        Ok(())
    }

    fn named(&self) -> u32 {
        u32::try_from(self.local.usages.len()).unwrap_or(USAGES_MAX)
    }

    fn name(&mut self, usage: u32, size: usize) -> Result<(), InvalidDescriptor> {
        if self.named() >= USAGES_MAX {
            return Err(InvalidDescriptor);
        }
        let usage = if size <= 2 { on_page(usage, self.global.page) } else { usage };
        self.local.usages.push(NamedUsage { usage, size, inside: self.open.last().copied() });
        Ok(())
    }

    fn range(&mut self, maximum: u32, size: usize) -> Result<(), InvalidDescriptor> {
        let (minimum, named) = (self.local.minimum, self.named());
        let mut maximum = maximum;
        if maximum.wrapping_sub(minimum).wrapping_add(named) >= USAGES_MAX {
            maximum = (USAGES_MAX - named).wrapping_add(minimum).wrapping_sub(1);
            if maximum == 0 {
                return Err(InvalidDescriptor);
            }
        }
        for usage in minimum..=maximum {
            self.name(usage, size)?;
        }
        // Linux counts on from the last number there is, until there is no room.
        if maximum == u32::MAX { Err(InvalidDescriptor) } else { Ok(()) }
    }

    /// Gives the usages that were named before the last Usage Page that page.
    fn complete(&mut self) {
        let page = self.global.page;
        for named in self.local.usages.iter_mut().rev().filter(|named| named.size <= 2) {
            if named.usage >> 16 == page {
                break;
            }
            named.usage = on_page(named.usage, page);
        }
    }

    fn main(&mut self, item: &Item<'_>) -> Result<(), InvalidDescriptor> {
        self.complete();
        let local = std::mem::take(&mut self.local);
        match item.tag {
            0x8 => self.field(0, item.unsigned(), &local),
            0x9 => self.field(1, item.unsigned(), &local),
            0xb => self.field(2, item.unsigned(), &local),
            0xa => {
                let [kind, ..] = item.unsigned().to_le_bytes();
                let usage = local.usages.first().map_or(0, |named| named.usage);
                let collection = Collection { kind, usage };
                self.found.collection(collection, self.open.is_empty());
                self.open.push(collection);
                Ok(())
            }
            0xc => self.open.pop().map(drop).ok_or(InvalidDescriptor),
            _ => Ok(()),
        }
    }

    fn field(&mut self, report: usize, flags: u32, local: &Local) -> Result<(), InvalidDescriptor> {
        let Global { minimum, maximum, size, count, id, .. } = self.global;
        let backwards = if minimum < 0 {
            maximum < minimum
        } else {
            maximum.cast_unsigned() < minimum.cast_unsigned()
        };
        let bits = self.bits.get_mut(report).and_then(|reports| reports.get_mut(id));
        let bits = bits.ok_or(InvalidDescriptor)?;
        *bits = bits.saturating_add(size.saturating_mul(count));
        if backwards || *bits > REPORT_BITS_MAX {
            return Err(InvalidDescriptor);
        }
        // Only what is an input report types or points, and only if there is something in it.
        if report != 0 || count == 0 {
            return Ok(());
        }
        let around = |kind: u8| {
            let inner = self.open.iter().rev().find(|collection| collection.kind == kind);
            inner.map_or(0, |collection| collection.usage)
        };
        let field = Field {
            application: around(APPLICATION),
            physical: around(PHYSICAL),
            inside: local.usages.first().and_then(|named| named.inside),
            flags,
        };
        for named in &local.usages {
            self.found.usage(named.usage, &field);
        }
        Ok(())
    }
}

fn on_page(usage: u32, page: u32) -> u32 {
    (page & 0xffff) << 16 | usage & 0xffff
}
