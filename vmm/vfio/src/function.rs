//! A function that a guest has.

use std::io;
use std::sync::Arc;

use hostpci::Address;
use pci::config::command;
use pci::host::{MsiController, MsiError};
use pci::{BarIndex, ConfigSpace, Function, Window};
use vmm_sys_util::eventfd::EventFd;

use crate::bars::Bars;
use crate::config::spec::{
    COMMAND_IO,
    express::{READ_REQUEST, REPORT_ERRORS},
};
use crate::config::{ConfigError, VirtualConfig};
use crate::hardware::{Closed, Hardware, Irq};
use crate::interrupts::Interrupts;
use crate::reset::{self, ResetError};
use crate::slots::MemorySlots;

/// Why an opened function cannot be given to a guest.
#[derive(Debug, thiserror::Error)]
pub enum FunctionError {
    /// The function does not reset.
    #[error(transparent)]
    Reset(#[from] ResetError),
    /// The function's configuration space cannot be mediated.
    #[error("{address} cannot be passed through")]
    Config {
        address: Address,
        #[source]
        source: ConfigError,
    },
    /// It was opened, and then something that always works did not.
    #[error("{address} did not do what it was told while it was set up: the card may be broken")]
    Hardware {
        address: Address,
        #[source]
        source: io::Error,
    },
    /// Its interrupt vectors could not be had or set.
    #[error("{address} could not be given interrupts")]
    Interrupts {
        address: Address,
        #[source]
        source: MsiError,
    },
}

/// What the host has to say about a function while a guest has it.
#[derive(Debug, Default)]
pub struct Notices {
    /// The function or its link reported an uncorrectable error: its data can no longer be trusted.
    /// `None` if it cannot report errors.
    pub error: Option<EventFd>,
    /// The host wants it back (its driver is being unbound, or it is being unplugged) and waits until
    /// it is closed.
    pub release: Option<EventFd>,
}

/// Whose a function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FunctionOwner {
    Guest,
    /// Cut off from the guest and its memory, and absent on the bus, until a reset succeeds.
    Nobody,
    /// The host wants it back: it is closed for good.
    Host,
}

/// One passed-through PCI function. It was reset when it was opened, and is again when the machine
/// resets and when this is dropped.
pub struct VfioFunction {
    address: Address,
    config: VirtualConfig,
    interrupts: Interrupts,
    bars: Bars,
    notices: Notices,
    /// Command register bits that were there and are none of the guest's business.
    base_command: u16,
    bus_master: bool,
    /// Read request size in the hardware now, and when it was opened.
    read_request: u16,
    initial_read_request: u16,
    /// Whether a guest may have changed anything since the last reset.
    used: bool,
    holder: FunctionOwner,
    /// Whether the last reset failed.
    unreset: bool,
    hardware: Box<dyn Hardware>,
}

impl VfioFunction {
    /// Resets the function and gets everything ready that a guest's accesses will need.
    pub(crate) fn new(
        hardware: Box<dyn Hardware>,
        address: Address,
        msi: &dyn MsiController,
        slots: Arc<dyn MemorySlots>,
    ) -> Result<Self, FunctionError> {
        let broken = |source| FunctionError::Hardware { address, source };
        reset::reset(&*hardware, address)?;
        let config = VirtualConfig::new(&*hardware)
            .map_err(|source| FunctionError::Config { address, source })?;
        let (vendor, device, class) = config.identity();
        if let Some(pin) = hostpci::usable::pin_driver(vendor, device, class) {
            let remedy = pin.remedy.unwrap_or("use another card");
            tracing::warn!(
                %address,
                driver = pin.driver,
                "the Linux driver of this function interrupts by pin (INTx), which is not given to guests, and will not work: {remedy}"
            );
        }
        let interrupts = Interrupts::new(&config, &*hardware, msi)
            .map_err(|source| FunctionError::Interrupts { address, source })?;
        let real = word(&*hardware, pci::config::register::COMMAND).map_err(broken)?;
        let base_command =
            real & !(COMMAND_IO | command::BUS_MASTER) | command::MEMORY | command::INTX_DISABLE;
        let read_request = match config.read_request() {
            Some((at, _)) => word(&*hardware, at).map_err(broken)? & READ_REQUEST,
            None => 0,
        };
        let mut this = Self {
            address,
            interrupts,
            bars: Bars::new(&config, &*hardware, slots).map_err(broken)?,
            notices: Notices {
                error: notice(&*hardware, Irq::Error).map_err(broken)?,
                release: notice(&*hardware, Irq::Release).map_err(broken)?,
            },
            config,
            base_command,
            bus_master: false,
            read_request,
            initial_read_request: read_request,
            used: false,
            holder: FunctionOwner::Guest,
            unreset: false,
            hardware,
        };
        this.set_bus_master(false).map_err(broken)?;
        this.report_errors().map_err(broken)?;
        Ok(this)
    }

    /// Returns the function's address on this PC.
    pub fn address(&self) -> Address {
        self.address
    }

    /// Returns eventfds to watch; they are signalled for as long as the function is open.
    pub fn notices(&self) -> io::Result<Notices> {
        let clone = |fd: &Option<EventFd>| fd.as_ref().map(EventFd::try_clone).transpose();
        Ok(Notices { error: clone(&self.notices.error)?, release: clone(&self.notices.release)? })
    }

    /// Returns whether the guest has it. `false` after it or a reset failed: it is then cut off from memory
    /// and absent on the bus.
    pub fn usable(&self) -> bool {
        self.holder == FunctionOwner::Guest
    }

    /// Returns whether the last reset failed: it must not be handed to anyone until the PC was switched off.
    pub fn unreset(&self) -> bool {
        self.unreset
    }

    /// Takes the card from the guest, to be called when [`Notices::error`] is signalled. What the
    /// function wrote to memory since it or its link failed cannot be trusted, so the guest loses it: a
    /// driver sees a card that was pulled out. The guest's next reset resets the function, and gives it
    /// back if that succeeds.
    pub fn link_error(&mut self) {
        if self.holder == FunctionOwner::Guest {
            tracing::error!(
                address = %self.address,
                "the PC reports an uncorrectable error of a passed-through function or its link (AER); the guest loses it until it is reset: `dmesg` says which error; if it comes again, put the card into another slot or replace it"
            );
            self.cut_off();
        }
    }

    /// Resets the function and closes it, to be called when [`Notices::release`] is signalled: that is
    /// what the host waits for. The guest sees a card that was pulled out.
    ///
    /// A kernel that unbinds a driver keeps the function's lock until it is closed, and refuses a reset
    /// with `EAGAIN` meanwhile (`pci_try_reset_function`). It is then given back cut off from interrupts
    /// and memory, and is reset when a VMM opens it next.
    pub fn release(&mut self) {
        if self.holder == FunctionOwner::Host {
            return;
        }
        let result = self.take_back();
        let locked = matches!(&result, Err(ResetError::Failed { source, .. }) if source.kind() == io::ErrorKind::WouldBlock);
        self.unreset = result.is_err() && !locked;
        match result {
            Err(_) if locked => {
                // What we passed on goes too; a card that does not take it is no worse than it was.
                if let Some((at, _)) = self.config.read_request() {
                    let _ = self.set_read_request(at, self.initial_read_request);
                }
                tracing::warn!(
                    address = %self.address,
                    "the host wants a passed-through function back and has it, cut off from interrupts and memory; the host's own lock kept it from being reset, so it is reset when a guest gets it next; this guest goes on without"
                );
            }
            Ok(()) => tracing::warn!(
                address = %self.address,
                "the host wants a passed-through function back and has it, reset; the guest goes on without: start the VMM again to pass it through again"
            ),
            Err(error) => report(&error),
        }
        self.bars.close();
        self.notices = Notices::default();
        self.hardware = Box::new(Closed);
        self.holder = FunctionOwner::Host;
    }

    /// Cuts the function off from interrupts, memory and bus mastering; it is absent on the bus.
    fn cut_off(&mut self) {
        self.holder = FunctionOwner::Nobody;
        self.interrupts.reset(&*self.hardware);
        self.bars.hide();
        self.config.reset();
        // A card that does not take this is one that is not there.
        let _ = self.set_bus_master(false);
    }

    fn set_bus_master(&mut self, on: bool) -> io::Result<()> {
        let value = self.base_command | if on { command::BUS_MASTER } else { 0 };
        self.hardware.config_write(pci::config::register::COMMAND, &value.to_le_bytes())?;
        self.bus_master = on;
        Ok(())
    }

    /// Enables the function's error messages, without which the PC hears of none of its errors (PCIe 6.0
    /// section 7.5.3.4). Older kernels leave that to the driver, and vfio-pci does not.
    fn report_errors(&self) -> io::Result<()> {
        let Some((at, _)) = self.config.read_request() else { return Ok(()) };
        let control = word(&*self.hardware, at)?;
        if control & REPORT_ERRORS == REPORT_ERRORS {
            return Ok(());
        }
        self.hardware.config_write(at, &(control | REPORT_ERRORS).to_le_bytes())
    }

    fn set_read_request(&mut self, at: u16, wanted: u16) -> io::Result<()> {
        let control = word(&*self.hardware, at)? & !READ_REQUEST | wanted;
        self.hardware.config_write(at, &control.to_le_bytes())?;
        self.read_request = wanted;
        Ok(())
    }

    /// Carries out what the guest's last write to configuration space asks of the hardware.
    fn follow(&mut self, offset: u16, data: &[u8]) -> io::Result<()> {
        for (at, bytes) in self.config.passed(offset, data) {
            self.hardware.config_write(at, bytes)?;
        }
        self.interrupts.follow(&self.config, &*self.hardware);
        let bus_master = self.config.command() & command::BUS_MASTER != 0;
        if bus_master != self.bus_master {
            self.set_bus_master(bus_master)?;
        }
        if let Some((at, wanted)) = self.config.read_request()
            && wanted != self.read_request
        {
            self.set_read_request(at, wanted)?;
        }
        Ok(())
    }

    /// Takes the function from the guest and resets it: interrupts, memory and bus mastering off
    /// first, so that nothing of it reaches the guest or its memory while it resets.
    fn take_back(&mut self) -> Result<(), ResetError> {
        self.interrupts.reset(&*self.hardware);
        self.bars.hide();
        self.config.reset();
        let address = self.address;
        let failed = |source| ResetError::Failed { address, source };
        // If this fails, so does the same write after the reset, which then counts.
        let _ = self.set_bus_master(false);
        reset::reset(&*self.hardware, address)?;
        // The kernel restores configuration space after a reset, so what we passed on comes back.
        self.set_bus_master(false).map_err(failed)?;
        if let Some((at, _)) = self.config.read_request()
            && self.read_request != self.initial_read_request
        {
            self.set_read_request(at, self.initial_read_request).map_err(failed)?;
        }
        self.report_errors().map_err(failed)?;
        self.used = false;
        Ok(())
    }
}

impl Function for VfioFunction {
    fn config_read(&mut self, offset: u16, data: &mut [u8]) {
        if self.holder != FunctionOwner::Guest {
            data.fill(0xff);
            return;
        }
        self.config.read(&*self.hardware, offset, data);
        if let Some(pending) = self.config.msi_pending() {
            let bits = self.interrupts.msi_pending();
            for (byte, at) in data.iter_mut().zip(offset..) {
                let within = at.checked_sub(pending).and_then(|at| bits.get(usize::from(at)));
                if let Some(bits) = within {
                    *byte = *bits;
                }
            }
        }
    }

    fn config_write(&mut self, offset: u16, data: &[u8]) {
        if self.holder != FunctionOwner::Guest {
            return;
        }
        self.used = true;
        self.config.write(offset, data);
        if let Err(error) = self.follow(offset, data) {
            // The card stopped answering; without it the guest has no power to repeat this.
            tracing::error!(address = %self.address, %error, "a passed-through function fails; the guest loses it until it is reset");
            self.cut_off();
        }
    }

    fn config_space(&self) -> &ConfigSpace {
        self.config.space()
    }

    fn config_space_mut(&mut self) -> &mut ConfigSpace {
        self.config.space_mut()
    }

    fn bar_read(&mut self, bar: BarIndex, offset: u64, data: &mut [u8]) {
        // The bus may not know yet that nothing is there.
        let there = self.holder == FunctionOwner::Guest;
        if there && self.interrupts.bar_read(bar, offset, data) {
            return;
        }
        if !there || self.hardware.bar_read(bar, offset, data).is_err() {
            data.fill(0xff);
        }
    }

    fn bar_write(&mut self, bar: BarIndex, offset: u64, data: &[u8]) {
        if self.holder == FunctionOwner::Guest
            && !self.interrupts.bar_write(&*self.hardware, bar, offset, data)
        {
            // A write that the hardware does not take is lost, as on a real bus.
            let _ = self.hardware.bar_write(bar, offset, data);
        }
    }

    fn bar_moved(&mut self, bar: BarIndex, now: Option<Window>) {
        self.bars.moved(bar, now);
    }

    /// Resets the function with its result checked. One that does not reset is absent from then on.
    fn reset(&mut self) {
        if self.holder == FunctionOwner::Host {
            return;
        }
        let result = self.take_back();
        self.unreset = result.is_err();
        self.holder = if self.unreset { FunctionOwner::Nobody } else { FunctionOwner::Guest };
        if let Err(error) = result {
            report(&error);
        }
    }
}

impl Drop for VfioFunction {
    fn drop(&mut self) {
        if (self.used || self.holder == FunctionOwner::Nobody)
            && self.holder != FunctionOwner::Host
            && let Err(error) = self.take_back()
        {
            report(&error);
        }
    }
}

fn report(error: &ResetError) {
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    tracing::error!(cause, "{error}");
}

fn word(hardware: &dyn Hardware, offset: u16) -> io::Result<u16> {
    let mut bytes = [0; 2];
    hardware.config_read(offset, &mut bytes)?;
    Ok(u16::from_le_bytes(bytes))
}

/// Makes an eventfd for one kind of notice, if the function has it.
fn notice(hardware: &dyn Hardware, irq: Irq) -> io::Result<Option<EventFd>> {
    if hardware.irq_info(irq).count == 0 {
        return Ok(None);
    }
    let fd = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
    hardware.set_triggers(irq, 0, &[Some(&fd)])?;
    Ok(Some(fd))
}

#[cfg(test)]
mod tests;
