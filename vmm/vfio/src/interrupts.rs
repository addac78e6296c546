//! MSI and MSI-X: the guest's vectors, tied to the hardware's through eventfds.
//!
//! The guest's message never reaches the hardware. A vector the guest unmasks gets an eventfd that
//! VFIO signals and KVM turns into the guest's message; the hardware is given only as many vectors as
//! that takes. Masking afterwards detaches the eventfd from KVM and leaves the hardware alone, so
//! that what is signalled meanwhile waits. It is on while the guest has it on, if need be with one
//! vector that is tied to nothing: some devices look which kind of interrupt is on when a queue is
//! made, which is before the driver unmasks its vector (NVMe as QEMU models it).
//!
//! ```text
//!   guest: unmask vector 2 -> Msix: live -> Lines: armed -> VFIO_DEVICE_SET_IRQS
//!   device -> host IRQ -> eventfd -> irqfd -> guest's local APIC        (no exit, no thread of ours)
//! ```
//!
//! Where the kernel cannot add vectors to MSI-X that is on (before Linux 6.5), it is turned off and on
//! again with more. An event in between is lost, so every vector in use is signalled once: a driver
//! must bear an interrupt without cause, and need not bear a lost one.

use pci::host::{MsiController, MsiError, MsiVector};
use pci::{BarIndex, Msi, Msix};
use vmm_sys_util::eventfd::EventFd;

use crate::config::spec::{msi::ENABLE as MSI_ENABLE, msix::ENABLE as MSIX_ENABLE};
use crate::config::{MSIX_VECTORS_MAX, MsiSetting, MsixPlace, VirtualConfig};
use crate::hardware::{Hardware, Irq};

/// Offsets in the body of [`Msi`], which is in the 64-bit form with masks.
mod body {
    pub(super) const CONTROL: usize = 0;
    pub(super) const ADDRESS: usize = 2;
    pub(super) const DATA: usize = 10;
    pub(super) const MASK: usize = 14;
    pub(super) const PENDING: usize = 18;
}

/// A function's message-signalled interrupts.
pub(crate) struct Interrupts {
    msi: Option<(Msi, MsiSetting, Lines)>,
    msix: Option<(Msix, u16, Lines, MsixPlace)>,
}

impl Interrupts {
    /// Makes as many vectors as the configuration space shows, all masked, nothing on in the hardware.
    pub(crate) fn new(
        config: &VirtualConfig,
        hardware: &dyn Hardware,
        controller: &dyn MsiController,
    ) -> Result<Self, MsiError> {
        let msi = match config.msi() {
            Some(place) => {
                let msi = Msi::new(controller, place.log2)?;
                let lines = Lines::new(Irq::Msi, hardware, msi.count());
                Some((msi, MsiSetting::default(), lines))
            }
            None => None,
        };
        let msix = match config.msix() {
            Some(place) => {
                let count = place.hardware_count.min(MSIX_VECTORS_MAX);
                let msix = Msix::new(controller, count)?;
                Some((msix, 0, Lines::new(Irq::Msix, hardware, count), place))
            }
            None => None,
        };
        Ok(Self { msi, msix })
    }

    /// Takes over what the guest wrote to configuration space. What was turned off goes first, in the
    /// hardware and then in KVM; the hardware can have only one of MSI and MSI-X on.
    pub(crate) fn follow(&mut self, config: &VirtualConfig, hardware: &dyn Hardware) {
        let control = config.msix_control().unwrap_or_default();
        let setting = config.msi_setting().unwrap_or_default();
        let msix = self.msix.as_mut().filter(|(_, last, ..)| *last != control);
        let msi = self.msi.as_mut().filter(|(_, last, _)| *last != setting);
        let (msix_changed, msi_changed) = (msix.is_some(), msi.is_some());
        if let Some((msix, last, lines, _)) = msix {
            *last = control;
            if control & MSIX_ENABLE == 0 {
                lines.off(hardware);
            }
            msix.set_control(control);
        }
        if let Some((msi, last, lines)) = msi {
            *last = setting;
            if setting.control & MSI_ENABLE == 0 {
                lines.off(hardware);
            }
            set_msi(msi, setting);
        }
        // Both, whichever changed: one that the hardware refused while the other was on can be had when that is off.
        if msix_changed || msi_changed {
            self.sync_msix(hardware);
            self.sync_msi(hardware);
        }
    }

    fn sync_msi(&mut self, hardware: &dyn Hardware) {
        if let Some((msi, _, lines)) = &mut self.msi {
            let live = (0..msi.in_use()).map(|index| (index, true));
            lines.sync(hardware, msi.enabled(), live, |index| {
                msi.vector(index).map(MsiVector::trigger)
            });
        }
    }

    fn sync_msix(&mut self, hardware: &dyn Hardware) {
        if let Some((msix, _, lines, _)) = &mut self.msix {
            lines.sync(hardware, msix.enabled(), msix.live(), |index| {
                msix.vector(index).map(MsiVector::trigger)
            });
        }
    }

    /// Reads MSI's pending bits.
    pub(crate) fn msi_pending(&self) -> [u8; 4] {
        let mut bits = [0; 4];
        if let Some((msi, ..)) = &self.msi {
            msi.read(body::PENDING, &mut bits);
        }
        bits
    }

    /// Reads the table or the pending bits. `false` if none of them is there.
    pub(crate) fn bar_read(&self, bar: BarIndex, offset: u64, data: &mut [u8]) -> bool {
        match self.find(bar, offset, data.len()) {
            AccessTarget::Elsewhere => return false,
            AccessTarget::Across => data.fill(0xff),
            AccessTarget::Table(at) => self.with_msix(|msix| msix.table_read(at, data)),
            AccessTarget::Pending(at) => self.with_msix(|msix| msix.pba_read(at, data)),
        }
        true
    }

    /// Writes the table. `false` if neither it nor the pending bits are there.
    pub(crate) fn bar_write(
        &mut self,
        hardware: &dyn Hardware,
        bar: BarIndex,
        offset: u64,
        data: &[u8],
    ) -> bool {
        match self.find(bar, offset, data.len()) {
            AccessTarget::Elsewhere => return false,
            AccessTarget::Across | AccessTarget::Pending(_) => {}
            AccessTarget::Table(at) => {
                let msix = self.msix.as_mut().map(|(msix, ..)| msix);
                if msix.is_some_and(|msix| msix.table_write(at, data)) {
                    self.sync_msix(hardware);
                }
            }
        }
        true
    }

    /// Switches interrupts off in the hardware, then in KVM: an eventfd is not detached while it is still signalled.
    pub(crate) fn reset(&mut self, hardware: &dyn Hardware) {
        if let Some((msix, control, lines, _)) = &mut self.msix {
            lines.off(hardware);
            msix.reset();
            *control = 0;
        }
        if let Some((msi, setting, lines)) = &mut self.msi {
            lines.off(hardware);
            msi.reset();
            *setting = MsiSetting::default();
        }
    }

    fn with_msix(&self, f: impl FnOnce(&Msix)) {
        if let Some((msix, ..)) = &self.msix {
            f(msix);
        }
    }

    fn find(&self, bar: BarIndex, offset: u64, length: usize) -> AccessTarget {
        let Some((.., place)) = &self.msix else { return AccessTarget::Elsewhere };
        let end = offset.saturating_add(length as u64);
        let parts = [(place.table, place.table_size(), true), (place.pba, place.pba_size(), false)];
        for ((in_bar, start), size, table) in parts {
            let stop = start.saturating_add(size);
            if in_bar != bar || end <= start || stop <= offset {
                continue;
            }
            return match offset.checked_sub(start) {
                Some(at) if end <= stop && table => AccessTarget::Table(at),
                Some(at) if end <= stop => AccessTarget::Pending(at),
                _ => AccessTarget::Across,
            };
        }
        AccessTarget::Elsewhere
    }
}

/// What an access to a BAR hits.
enum AccessTarget {
    Table(u64),
    Pending(u64),
    /// Partly one of them, which no driver does.
    Across,
    Elsewhere,
}

fn set_msi(msi: &mut Msi, setting: MsiSetting) {
    msi.write(body::MASK, &setting.mask.to_le_bytes());
    msi.write(body::ADDRESS, &setting.address.to_le_bytes());
    msi.write(body::DATA, &setting.data.to_le_bytes());
    msi.write(body::CONTROL, &setting.control.to_le_bytes());
}

impl MsixPlace {
    /// Returns the bytes of the hardware's table, all of it kept from the guest.
    pub(crate) fn table_size(self) -> u64 {
        u64::from(self.hardware_count) * pci::msix::ENTRY_SIZE
    }

    /// Returns the bytes of the hardware's pending bits.
    pub(crate) fn pba_size(self) -> u64 {
        u64::from(self.hardware_count).div_ceil(64) * 8
    }
}

/// Which vectors of one kind the hardware signals.
#[derive(Debug)]
struct Lines {
    irq: Irq,
    /// Vectors that are tied to an eventfd.
    armed: Vec<bool>,
    /// How many vectors it was turned on with; 0 while it is off.
    on: u32,
    growable: bool,
}

impl Lines {
    fn new(irq: Irq, hardware: &dyn Hardware, count: u16) -> Self {
        let info = hardware.irq_info(irq);
        let armed = vec![false; usize::from(count).min(info.count as usize)];
        Self { irq, armed, on: 0, growable: info.growable }
    }

    /// Ties vectors that became live. One that ceased to be stays tied: KVM does not listen then.
    fn sync<'a>(
        &mut self,
        hardware: &dyn Hardware,
        enabled: bool,
        live: impl Iterator<Item = (u16, bool)>,
        trigger: impl Fn(u16) -> Option<&'a EventFd>,
    ) {
        if !enabled || self.armed.is_empty() {
            return;
        }
        let mut wanted = Vec::new();
        for ((index, live), armed) in live.zip(&self.armed) {
            if live && !armed {
                wanted.push(index);
            }
        }
        let room = match wanted.last() {
            Some(last) => u32::from(*last) + 1,
            None if self.on == 0 => 1,
            None => return,
        };
        let result = if room <= self.on || (self.on > 0 && self.growable) {
            self.add(hardware, &wanted, &trigger)
        } else {
            self.turn_on(hardware, &wanted, room, &trigger)
        };
        if let Err(error) = result {
            tracing::error!(kind = %self.irq, %error, "a passed-through function's interrupts do not work");
        }
    }

    fn add<'a>(
        &mut self,
        hardware: &dyn Hardware,
        wanted: &[u16],
        trigger: &impl Fn(u16) -> Option<&'a EventFd>,
    ) -> std::io::Result<()> {
        for &index in wanted {
            hardware.set_triggers(self.irq, u32::from(index), &[trigger(index)])?;
            self.arm(index);
            self.on = self.on.max(u32::from(index) + 1);
        }
        Ok(())
    }

    /// Turns it on, again if need be, with room for as many more, so that a driver that unmasks one
    /// vector after another costs few turns.
    fn turn_on<'a>(
        &mut self,
        hardware: &dyn Hardware,
        wanted: &[u16],
        room: u32,
        trigger: &impl Fn(u16) -> Option<&'a EventFd>,
    ) -> std::io::Result<()> {
        let before = self.armed.clone();
        self.armed.fill(false);
        if std::mem::take(&mut self.on) > 0 {
            hardware.disable(self.irq)?;
        }
        let room = room.next_power_of_two();
        let tie = |(index, armed): (u16, &bool)| {
            if *armed || wanted.contains(&index) { trigger(index) } else { None }
        };
        let triggers: Vec<_> = (0..).zip(&before).take(room as usize).map(tie).collect();
        hardware.set_triggers(self.irq, 0, &triggers)?;
        self.on = room;
        for ((armed, was), trigger) in self.armed.iter_mut().zip(before).zip(triggers) {
            *armed = trigger.is_some();
            if let (true, Some(trigger)) = (was, trigger) {
                // Fails only if 2^64 - 2 events wait there, and then one more is no news.
                let _ = trigger.write(1);
            }
        }
        Ok(())
    }

    fn arm(&mut self, index: u16) {
        if let Some(armed) = self.armed.get_mut(usize::from(index)) {
            *armed = true;
        }
    }

    fn off(&mut self, hardware: &dyn Hardware) {
        if std::mem::take(&mut self.on) > 0
            && let Err(error) = hardware.disable(self.irq)
        {
            tracing::error!(kind = %self.irq, %error, "a passed-through function's interrupts stay on");
        }
        self.armed.fill(false);
    }
}
