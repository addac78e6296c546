//! Configuration space of a passed-through function: what a guest sees instead of it.
//!
//! | what | guest reads | guest writes | hardware gets |
//! | --- | --- | --- | --- |
//! | vendor, device, class, subsystem | the hardware's | dropped | nothing |
//! | command | what it wrote | memory, bus master, INTx disable | bus master; memory and INTx disable stay on |
//! | status, BIST, expansion ROM, interrupt pin | absent, zero | dropped | nothing |
//! | memory BARs | virtual, of the same size, width and prefetchability | virtual | nothing |
//! | I/O BARs | absent | dropped | nothing |
//! | power management | D0 and D3hot only | virtual state | nothing: it stays in D0 |
//! | MSI, MSI-X | the hardware's layout | virtual | through VFIO, vector by vector |
//! | PCI Express | an integrated endpoint without link, FLR or LTR | device control, virtual | largest read request |
//! | vendor-specific capability | as it was when opened | dropped | nothing |
//! | other capabilities | left out of the list, zero | dropped | nothing |
//! | rest of 0x40 to 0xff | the hardware's, live | dropped | nothing |
//! | registers of [`registers`], there or in a vendor-specific capability | the hardware's, live | passed | the write |
//! | device serial number (extended) | as it was when opened | dropped | nothing |
//! | other extended capabilities | absent | dropped | nothing |
//!
//! Why: a BAR, a link or a power state that a guest could set would reach past the function into the
//! host's address map. Function-level reset is left out because the guest would reset what we
//! configured behind our back; a machine reset resets the function and checks that it did. Vital
//! product data writes the card's EEPROM, which the next owner would inherit. SR-IOV, resizable BARs,
//! ATS, PRI and PASID change what the IOMMU and the host's resources must hold; error reporting
//! (AER) is the host's. The live part is there because drivers poll status in it (Intel's I219 at
//! 0xe4); reading configuration space has no side effects (PCI Express 5.0, section 7.2). Some cards
//! are worked through registers of their own in it: those pass, card by card, with the reason beside each.

mod capabilities;
mod registers;
pub(crate) mod spec;

use std::ops::Range;

use hostpci::snapshot::{self, BarKind as RealKind};
use hostpci::{Class, Snapshot, Unusable, usable};
use pci::config::{LayoutError, register};
use pci::{BarIndex, BarKind, ConfigSpace, Identity};

use crate::hardware::Hardware;
use spec::{express, msi, msix};

/// Most MSI-X vectors offered, each of which costs a descriptor: four for each of 16 vCPUs. Drivers
/// ask for at most a few per CPU and take fewer when the table is smaller.
pub(crate) const MSIX_VECTORS_MAX: u16 = 64;

/// Why a function's configuration space cannot be mediated.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The configuration space could not be read.
    #[error("its configuration space cannot be read: the card may be broken or switched off")]
    Read(#[source] std::io::Error),
    /// The configuration space reads as all ones: the function does not answer.
    #[error("it does not answer: the card may be broken or not seated well")]
    Absent,
    #[error(
        "its header is of type {0}, that of a bridge: only ordinary functions can be passed through"
    )]
    Header(u8),
    /// No driver in a guest could work with the function.
    #[error(transparent)]
    Unusable(#[from] Unusable),
    /// A base address register contradicts the size of its memory.
    #[error(
        "its base address registers contradict the size of its memory: the card or its firmware is faulty; try another card"
    )]
    Bar(#[source] LayoutError),
}

/// Where MSI is, in the layout of the hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MsiPlace {
    at: u16,
    /// Two to the power of this is the number of vectors.
    pub(crate) log2: u8,
    wide: bool,
    maskable: bool,
}

/// Where MSI-X is: its capability in the layout of the hardware, its table and its pending bits in BARs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MsixPlace {
    at: u16,
    /// Vectors of the hardware, 1 to 2048.
    pub(crate) hardware_count: u16,
    /// BAR and offset in it of the table.
    pub(crate) table: (BarIndex, u64),
    /// BAR and offset in it of the pending bit array.
    pub(crate) pba: (BarIndex, u64),
}

/// What the guest set MSI to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MsiSetting {
    pub(crate) control: u16,
    pub(crate) address: u64,
    pub(crate) data: u16,
    pub(crate) mask: u32,
}

/// The configuration space a guest sees.
#[derive(Debug)]
pub(crate) struct VirtualConfig {
    space: ConfigSpace,
    /// Offsets that are read from the hardware at each access.
    live: Vec<Range<u16>>,
    serial_number: Option<[u8; spec::extended::SERIAL_NUMBER_LENGTH]>,
    /// Where the PCI Express capability is.
    express: Option<u16>,
    msi: Option<MsiPlace>,
    msix: Option<MsixPlace>,
    /// Offsets that the guest writes in the hardware.
    passed: Vec<Range<u16>>,
}

impl VirtualConfig {
    /// Reads the hardware's configuration space and lays out the guest's.
    pub(crate) fn new(hardware: &dyn Hardware) -> Result<Self, ConfigError> {
        let mut real = [0; spec::CONVENTIONAL as usize];
        hardware.config_read(0, &mut real).map_err(ConfigError::Read)?;
        let mut sizes = [0; snapshot::BARS];
        for (index, size) in sizes.iter_mut().enumerate() {
            *size = BarIndex::new(index).map_or(0, |bar| hardware.region(bar).size);
        }
        let real = Snapshot::new(real, sizes);
        if real.word(register::ID) == 0xffff {
            return Err(ConfigError::Absent);
        }
        match real.header_type() {
            0 => {}
            other => return Err(ConfigError::Header(other)),
        }
        usable::check(&real)?;
        let mut space = ConfigSpace::new(Identity {
            vendor: real.word(register::ID),
            device: real.word(register::ID + 2),
            revision: real.byte(register::CLASS),
            class: [
                real.byte(register::CLASS + 3),
                real.byte(register::CLASS + 2),
                real.byte(register::CLASS + 1),
            ],
            subsystem_vendor: real.word(register::SUBSYSTEM),
            subsystem: real.word(register::SUBSYSTEM + 2),
        });
        space.set_writable(spec::CACHE_LINE, &[0xff]);
        space.set_writable(spec::INTERRUPT_LINE, &[0xff]);
        add_bars(&mut space, &real)?;
        let mut this = Self {
            space,
            live: Vec::new(),
            serial_number: None,
            express: None,
            msi: None,
            msix: None,
            passed: Vec::new(),
        };
        this.add_capabilities(&real);
        if this.msi.is_none() && this.msix.is_none() && real.has_pin() {
            // It has a table, and that is nowhere.
            return Err(Unusable::PinOnly.into());
        }
        if this.express.is_some() {
            this.serial_number = capabilities::serial_number(hardware);
        }
        Ok(this)
    }

    pub(crate) fn msi(&self) -> Option<MsiPlace> {
        self.msi
    }

    pub(crate) fn msix(&self) -> Option<MsixPlace> {
        self.msix
    }

    /// Reads, and fills live parts from the hardware.
    pub(crate) fn read(&self, hardware: &dyn Hardware, offset: u16, data: &mut [u8]) {
        self.space.read(offset, data);
        let end = offset.saturating_add(u16::try_from(data.len()).unwrap_or(u16::MAX));
        for live in &self.live {
            let (from, to) = (live.start.max(offset), live.end.min(end));
            if from >= to {
                continue;
            }
            let part = usize::from(from - offset)..usize::from(to - offset);
            if let Some(part) = data.get_mut(part)
                && hardware.config_read(from, part).is_err()
            {
                part.fill(0xff);
            }
        }
        if let Some(number) = &self.serial_number {
            for (byte, at) in data.iter_mut().zip(usize::from(offset)..) {
                let within = at.checked_sub(usize::from(spec::extended::FIRST));
                if let Some(known) = within.and_then(|within| number.get(within)) {
                    *byte = *known;
                }
            }
        }
    }

    /// Writes what may be written; the caller looks at what came of it.
    pub(crate) fn write(&mut self, offset: u16, data: &[u8]) {
        self.space.write(offset, data);
    }

    /// Returns what of a guest's write goes to the hardware as it is: where, and which bytes of `data`.
    pub(crate) fn passed<'a>(
        &'a self,
        offset: u16,
        data: &'a [u8],
    ) -> impl Iterator<Item = (u16, &'a [u8])> {
        let end = offset.saturating_add(u16::try_from(data.len()).unwrap_or(u16::MAX));
        self.passed.iter().filter_map(move |range| {
            let (from, to) = (range.start.max(offset), range.end.min(end));
            let part = usize::from(from.checked_sub(offset)?)..usize::from(to.checked_sub(offset)?);
            data.get(part).filter(|bytes| !bytes.is_empty()).map(|bytes| (from, bytes))
        })
    }

    /// Returns whose the function is and what it is.
    pub(crate) fn identity(&self) -> (u16, u16, Class) {
        let word = |at| self.space.word(at);
        let class =
            u32::from(word(register::CLASS + 2)) << 8 | u32::from(word(register::CLASS) >> 8);
        (word(register::ID), word(register::ID + 2), Class(class))
    }

    /// Returns the command register as the guest wrote it.
    pub(crate) fn command(&self) -> u16 {
        self.space.command()
    }

    /// Returns where device control is in the hardware, and the read request size the guest wants in it.
    pub(crate) fn read_request(&self) -> Option<(u16, u16)> {
        let at = self.express? + express::DEVICE_CONTROL;
        let wanted = self.space.word(at) & express::READ_REQUEST;
        (wanted <= express::READ_REQUEST_MAX).then_some((at, wanted))
    }

    /// Returns what the guest set MSI to.
    pub(crate) fn msi_setting(&self) -> Option<MsiSetting> {
        let place = self.msi?;
        let long = |at| u32::from(self.space.word(at)) | u32::from(self.space.word(at + 2)) << 16;
        let high = if place.wide { long(place.at + msi::ADDRESS + 4) } else { 0 };
        Some(MsiSetting {
            control: self.space.word(place.at + msi::CONTROL),
            address: u64::from(long(place.at + msi::ADDRESS)) | u64::from(high) << 32,
            data: self.space.word(place.data()),
            mask: if place.maskable { long(place.mask()) } else { 0 },
        })
    }

    /// Returns the offset of MSI's pending bits, if the hardware has them.
    pub(crate) fn msi_pending(&self) -> Option<u16> {
        self.msi.filter(|place| place.maskable).map(|place| place.mask() + 4)
    }

    /// Returns MSI-X message control as the guest wrote it.
    pub(crate) fn msix_control(&self) -> Option<u16> {
        self.msix.map(|place| self.space.word(place.at + msix::CONTROL))
    }

    /// Returns what the guest sees.
    pub(crate) fn space(&self) -> &ConfigSpace {
        &self.space
    }

    /// Returns it to place BARs in.
    pub(crate) fn space_mut(&mut self) -> &mut ConfigSpace {
        &mut self.space
    }

    pub(crate) fn reset(&mut self) {
        self.space.reset();
    }
}

impl MsiPlace {
    const fn data(self) -> u16 {
        self.at + if self.wide { 12 } else { 8 }
    }

    const fn mask(self) -> u16 {
        self.data() + 4
    }
}

fn add_bars(space: &mut ConfigSpace, real: &Snapshot) -> Result<(), ConfigError> {
    for (index, declared) in real.bars().into_iter().enumerate() {
        let (Some(bar), Some(declared)) = (BarIndex::new(index), declared) else { continue };
        let kind = match declared.kind {
            RealKind::Io => continue,
            RealKind::Memory32 => BarKind::Memory32,
            RealKind::Memory64 => BarKind::Memory64,
        };
        space.add_bar(bar, declared.size, kind, declared.prefetchable).map_err(ConfigError::Bar)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
