//! What the mediation asks of the real function, so that tests can stand in for it.

use std::fmt::{self, Debug};
use std::io;

use hostpci::Address;
use pci::BarIndex;
use vmm_sys_util::eventfd::EventFd;

use crate::sys::Mapping;

/// Kinds of interrupt VFIO can signal for a PCI function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Irq {
    /// MSI, whose vectors are in the configuration space.
    Msi,
    /// MSI-X, whose vectors are in a table in a BAR.
    Msix,
    /// An uncorrectable error on the link.
    Error,
    /// The host wants the function back.
    Release,
}

impl fmt::Display for Irq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Msi => "MSI",
            Self::Msix => "MSI-X",
            Self::Error => "error",
            Self::Release => "release",
        })
    }
}

/// How many interrupts of one kind there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct IrqInfo {
    /// The most interrupts of the kind.
    pub(crate) count: u32,
    /// Whether more can be turned on while some are on.
    pub(crate) growable: bool,
}

/// One base address region.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Region {
    /// Bytes; 0 if there is none.
    pub(crate) size: u64,
    /// Parts (offset, size), in bytes, that may be mapped into a guest.
    pub(crate) mappable: Vec<(u64, u64)>,
}

/// A function that is not ours any more: nothing is there.
#[derive(Debug)]
pub(crate) struct Closed;

impl Hardware for Closed {
    fn config_read(&self, _: u16, _: &mut [u8]) -> io::Result<()> {
        Err(closed())
    }
    fn config_write(&self, _: u16, _: &[u8]) -> io::Result<()> {
        Err(closed())
    }
    fn region(&self, _: BarIndex) -> Region {
        Region::default()
    }
    fn bar_read(&self, _: BarIndex, _: u64, _: &mut [u8]) -> io::Result<()> {
        Err(closed())
    }
    fn bar_write(&self, _: BarIndex, _: u64, _: &[u8]) -> io::Result<()> {
        Err(closed())
    }
    fn map(&self, _: BarIndex, _: u64, _: u64) -> io::Result<Mapping> {
        Err(closed())
    }
    fn irq_info(&self, _: Irq) -> IrqInfo {
        IrqInfo::default()
    }
    fn set_triggers(&self, _: Irq, _: u32, _: &[Option<&EventFd>]) -> io::Result<()> {
        Err(closed())
    }
    fn disable(&self, _: Irq) -> io::Result<()> {
        Ok(())
    }
    fn has_function_reset(&self) -> bool {
        false
    }
    fn function_reset(&self) -> io::Result<()> {
        Err(closed())
    }
    fn bus_reset_scope(&self) -> io::Result<Vec<Address>> {
        Err(closed())
    }
    fn bus_reset(&self) -> io::Result<()> {
        Err(closed())
    }
}

fn closed() -> io::Error {
    io::Error::from_raw_os_error(libc::ENODEV)
}

/// The function itself. Nothing here changes what a guest sees; failures are reported, never
/// swallowed.
pub(crate) trait Hardware: Debug + Send {
    fn config_read(&self, offset: u16, data: &mut [u8]) -> io::Result<()>;
    fn config_write(&self, offset: u16, data: &[u8]) -> io::Result<()>;

    fn region(&self, bar: BarIndex) -> Region;
    fn bar_read(&self, bar: BarIndex, offset: u64, data: &mut [u8]) -> io::Result<()>;
    fn bar_write(&self, bar: BarIndex, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Maps part of a region into this process.
    fn map(&self, bar: BarIndex, offset: u64, size: u64) -> io::Result<Mapping>;

    fn irq_info(&self, irq: Irq) -> IrqInfo;
    /// Sets what interrupts `start..` signal; the first call for a kind turns it on with
    /// `start + triggers.len()` interrupts.
    fn set_triggers(&self, irq: Irq, start: u32, triggers: &[Option<&EventFd>]) -> io::Result<()>;
    /// Turns a kind off. It is not an error if it was off.
    fn disable(&self, irq: Irq) -> io::Result<()>;

    /// Returns whether the function can be reset alone.
    fn has_function_reset(&self) -> bool;
    fn function_reset(&self) -> io::Result<()>;
    /// Returns the function itself and whatever outside its IOMMU group [`Hardware::bus_reset`] resets
    /// with it. The rest of the group is nobody else's: the agent has bound it to vfio-pci for this
    /// guest.
    fn bus_reset_scope(&self) -> io::Result<Vec<Address>>;
    fn bus_reset(&self) -> io::Result<()>;
}
