//! Registers as data: where each is, what it is after reset, and what of it a guest may change.

use crate::spec::{CONTEXTS, EVENT_SEGMENTS_LOG2, SLOTS, base, crcr, erdp, iman, usbcmd, usbsts};

/// Offsets in BAR 0 of registers that mean something beyond being kept.
pub(crate) mod offset {
    use crate::spec::base::{OPERATIONAL, RUNTIME};

    pub(crate) const USBCMD: u64 = OPERATIONAL;
    pub(crate) const USBSTS: u64 = OPERATIONAL + 0x04;
    pub(crate) const CRCR: u64 = OPERATIONAL + 0x18;
    pub(crate) const CRCR_HIGH: u64 = OPERATIONAL + 0x1c;
    pub(crate) const DCBAAP: u64 = OPERATIONAL + 0x30;
    pub(crate) const CONFIG: u64 = OPERATIONAL + 0x38;
    pub(crate) const MFINDEX: u64 = RUNTIME;
    pub(crate) const IMAN: u64 = RUNTIME + 0x20;
    pub(crate) const ERSTSZ: u64 = RUNTIME + 0x28;
    pub(crate) const ERSTBA: u64 = RUNTIME + 0x30;
    pub(crate) const ERSTBA_HIGH: u64 = RUNTIME + 0x34;
    pub(crate) const ERDP: u64 = RUNTIME + 0x38;
    pub(crate) const ERDP_HIGH: u64 = RUNTIME + 0x3c;
}

/// One register of 32 bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Register {
    pub(crate) offset: u64,
    #[cfg_attr(not(test), expect(dead_code, reason = "for the reader, and for failing tests"))]
    pub(crate) name: &'static str,
    pub(crate) reset: u32,
    /// Bits that take the value written.
    pub(crate) writable: u32,
    /// Bits that a written one clears.
    pub(crate) clear: u32,
}

const fn constant(offset: u64, name: &'static str, reset: u32) -> Register {
    Register { offset, name, reset, writable: 0, clear: 0 }
}

const fn plain(offset: u64, name: &'static str, reset: u32, writable: u32) -> Register {
    Register { offset, name, reset, writable, clear: 0 }
}

/// Makes all registers but ports and doorbells, of a controller with so many ports of each
/// protocol, by offset. Sections: capability 5.3, operational 5.4, extended capabilities 7.2,
/// runtime 5.5.
fn table(usb2: u8, usb3: u8) -> Vec<Register> {
    let ports = u32::from(usb2) + u32::from(usb3);
    let at = |group: u64, offset: u64| group + offset;
    let (op, run, ext) = (base::OPERATIONAL, base::RUNTIME, base::EXTENDED);
    let intro = 0x0100 << 16 | base::OPERATIONAL as u32;
    // 64-bit addresses, no port power control, 32-byte contexts, no streams; xECP counts dwords.
    let hccparams1 = ((ext / 4) as u32) << 16 | 1;
    let protocol = |next: u32, major: u32| major << 24 | next << 8 | 2;
    let name = u32::from_le_bytes(*b"USB ");
    let commands = usbcmd::RUN | usbcmd::INTE | usbcmd::HSEE;
    let (sections, errors) = (usbsts::HSE | usbsts::EINT | usbsts::PCD, usbsts::SRE);
    vec![
        constant(at(0, 0x00), "CAPLENGTH, HCIVERSION", intro),
        constant(at(0, 0x04), "HCSPARAMS1", ports << 24 | 1 << 8 | u32::from(SLOTS)),
        constant(at(0, 0x08), "HCSPARAMS2", EVENT_SEGMENTS_LOG2 << 4),
        constant(at(0, 0x0c), "HCSPARAMS3", 0),
        constant(at(0, 0x10), "HCCPARAMS1", hccparams1),
        constant(at(0, 0x14), "DBOFF", base::DOORBELLS as u32),
        constant(at(0, 0x18), "RTSOFF", run as u32),
        constant(at(0, 0x1c), "HCCPARAMS2", 0),
        plain(at(op, 0x00), "USBCMD", 0, commands),
        Register { clear: sections | errors, ..constant(at(op, 0x04), "USBSTS", usbsts::HALTED) },
        constant(at(op, 0x08), "PAGESIZE", 1),
        plain(at(op, 0x14), "DNCTRL", 0, 0xffff),
        // The pointer is kept by the command ring; what is read is whether it runs.
        constant(at(op, 0x18), "CRCR", 0),
        constant(at(op, 0x1c), "CRCR high", 0),
        plain(at(op, 0x30), "DCBAAP", 0, crcr::POINTER),
        plain(at(op, 0x34), "DCBAAP high", 0, !0),
        plain(at(op, 0x38), "CONFIG", 0, 0xff),
        // Two supported protocols: slot type 0, the default speed IDs.
        constant(at(ext, 0x00), "SUPTPRT2", protocol(4, 2)),
        constant(at(ext, 0x04), "SUPTPRT2 name", name),
        constant(at(ext, 0x08), "SUPTPRT2 ports", u32::from(usb2) << 8 | 1),
        constant(at(ext, 0x0c), "SUPTPRT2 slot type", 0),
        constant(at(ext, 0x10), "SUPTPRT3", protocol(0, 3)),
        constant(at(ext, 0x14), "SUPTPRT3 name", name),
        constant(at(ext, 0x18), "SUPTPRT3 ports", u32::from(usb3) << 8 | (u32::from(usb2) + 1)),
        constant(at(ext, 0x1c), "SUPTPRT3 slot type", 0),
        constant(at(run, 0x00), "MFINDEX", 0),
        Register { clear: iman::PENDING, ..plain(at(run, 0x20), "IMAN", 0, iman::ENABLE) },
        // Kept, not acted on: see the crate's documentation on moderation.
        plain(at(run, 0x24), "IMOD", 4000, !0),
        plain(at(run, 0x28), "ERSTSZ", 0, 0xffff),
        plain(at(run, 0x30), "ERSTBA", 0, crcr::POINTER),
        plain(at(run, 0x34), "ERSTBA high", 0, !0),
        Register { clear: erdp::BUSY, ..plain(at(run, 0x38), "ERDP", 0, erdp::POINTER | 0x7) },
        plain(at(run, 0x3c), "ERDP high", 0, !0),
    ]
}

// Slot numbers go from 1 and have a doorbell each; the ports fit before what follows them.
const _: () = assert!(base::DOORBELLS + 4 * (SLOTS as u64 + 1) <= base::TABLE);
const _: () = assert!(base::PORTS + 2 * 16 * crate::spec::PORTS_MAX as u64 <= base::EXTENDED);
const _: () = assert!(CONTEXTS == 32);

/// The registers and their values.
#[derive(Debug)]
pub(crate) struct Registers(Vec<(Register, u32)>);

impl Registers {
    pub(crate) fn new(usb2: u8, usb3: u8) -> Self {
        Self(table(usb2, usb3).into_iter().map(|register| (register, register.reset)).collect())
    }

    pub(crate) fn reset(&mut self) {
        for (register, value) in &mut self.0 {
            *value = register.reset;
        }
    }

    /// Reads a register; zero where there is none.
    pub(crate) fn get(&self, offset: u64) -> u32 {
        self.find(offset).and_then(|at| self.0.get(at)).map_or(0, |(_, value)| *value)
    }

    /// Reads two registers as one: the low half at `offset`.
    pub(crate) fn get_wide(&self, offset: u64) -> u64 {
        u64::from(self.get(offset + 4)) << 32 | u64::from(self.get(offset))
    }

    /// Writes a register as the guest does. Nothing happens where there is no register.
    pub(crate) fn write(&mut self, offset: u64, written: u32) {
        if let Some((register, value)) = self.find(offset).and_then(|at| self.0.get_mut(at)) {
            *value = *value & !register.writable | written & register.writable;
            *value &= !(written & register.clear);
        }
    }

    /// Changes a register as the controller does.
    pub(crate) fn change(&mut self, offset: u64, clear: u32, set: u32) {
        if let Some((_, value)) = self.find(offset).and_then(|at| self.0.get_mut(at)) {
            *value = *value & !clear | set;
        }
    }

    pub(crate) fn has(&self, offset: u64, bit: u32) -> bool {
        self.get(offset) & bit != 0
    }

    fn find(&self, offset: u64) -> Option<usize> {
        self.0.binary_search_by_key(&offset, |(register, _)| register.offset).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_in_order_and_no_bit_is_both_written_and_cleared() {
        let table = table(4, 4);
        for pair in table.windows(2) {
            assert!(pair[0].offset + 4 <= pair[1].offset, "{} and {}", pair[0].name, pair[1].name);
        }
        for register in table {
            assert_eq!(register.writable & register.clear, 0, "{}", register.name);
        }
    }

    #[test]
    fn a_written_one_clears_and_a_written_zero_keeps_a_status_bit() {
        let mut registers = Registers::new(1, 1);
        registers.change(offset::USBSTS, 0, usbsts::EINT | usbsts::PCD);
        registers.write(offset::USBSTS, usbsts::EINT);
        assert_eq!(registers.get(offset::USBSTS), usbsts::HALTED | usbsts::PCD);
    }
}
