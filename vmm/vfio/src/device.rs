//! [`Hardware`] over an open VFIO device.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use hostpci::Address;
use pci::BarIndex;
use vfio_bindings::bindings::vfio::{
    VFIO_DEVICE_FLAGS_PCI, VFIO_DEVICE_FLAGS_RESET, VFIO_IRQ_INFO_EVENTFD, VFIO_IRQ_INFO_NORESIZE,
    VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_ERR_IRQ_INDEX, VFIO_PCI_MSI_IRQ_INDEX,
    VFIO_PCI_MSIX_IRQ_INDEX, VFIO_PCI_REQ_IRQ_INDEX, VFIO_REGION_INFO_FLAG_MMAP,
    VFIO_REGION_INFO_FLAG_READ, VFIO_REGION_INFO_FLAG_WRITE,
};
use vmm_sys_util::eventfd::EventFd;

use crate::group::Group;
use crate::hardware::{Hardware, Irq, IrqInfo, Region};
use crate::sys::{self, Mapping, RegionInfo};

/// An open device. Its file is closed before its group leaves the container.
#[derive(Debug)]
pub(crate) struct Device {
    file: File,
    resettable: bool,
    config: RegionInfo,
    bars: [RegionInfo; BarIndex::COUNT],
    irqs: BTreeMap<u32, IrqInfo>,
    group: Arc<Group>,
}

impl Device {
    /// Learns what VFIO says about the device behind `file`. `Ok(None)` if it is not a PCI device.
    pub(crate) fn new(file: File, group: Arc<Group>) -> io::Result<Option<Self>> {
        let info = sys::device_info(&file)?;
        if info.flags & VFIO_DEVICE_FLAGS_PCI == 0 {
            return Ok(None);
        }
        let mut bars: [RegionInfo; BarIndex::COUNT] = Default::default();
        for (index, bar) in (0..).zip(&mut bars) {
            *bar = sys::region_info(&file, index)?;
            let both = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
            if bar.flags & both != both {
                *bar = RegionInfo::default();
            }
        }
        let mut irqs = BTreeMap::new();
        for irq in [Irq::Msi, Irq::Msix, Irq::Error, Irq::Release] {
            // A kind that the device lacks is an error on some kernels and a count of 0 on others.
            if let Ok(info) = sys::irq_info(&file, index(irq))
                && info.flags & VFIO_IRQ_INFO_EVENTFD != 0
            {
                let growable = info.flags & VFIO_IRQ_INFO_NORESIZE == 0;
                irqs.insert(index(irq), IrqInfo { count: info.count, growable });
            }
        }
        Ok(Some(Self {
            resettable: info.flags & VFIO_DEVICE_FLAGS_RESET != 0,
            config: sys::region_info(&file, VFIO_PCI_CONFIG_REGION_INDEX)?,
            bars,
            irqs,
            file,
            group,
        }))
    }

    fn bar(&self, bar: BarIndex) -> io::Result<&RegionInfo> {
        self.bars.get(bar.index()).ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }
}

const fn index(irq: Irq) -> u32 {
    match irq {
        Irq::Msi => VFIO_PCI_MSI_IRQ_INDEX,
        Irq::Msix => VFIO_PCI_MSIX_IRQ_INDEX,
        Irq::Error => VFIO_PCI_ERR_IRQ_INDEX,
        Irq::Release => VFIO_PCI_REQ_IRQ_INDEX,
    }
}

/// Returns where `length` bytes at `offset` of a region lie in the device's file.
fn place(region: &RegionInfo, offset: u64, length: usize) -> io::Result<u64> {
    let end = offset.checked_add(length as u64);
    match region.offset.checked_add(offset) {
        Some(at) if end.is_some_and(|end| end <= region.size) => Ok(at),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

impl Hardware for Device {
    fn config_read(&self, offset: u16, data: &mut [u8]) -> io::Result<()> {
        let at = place(&self.config, u64::from(offset), data.len())?;
        self.file.read_exact_at(data, at)
    }

    fn config_write(&self, offset: u16, data: &[u8]) -> io::Result<()> {
        let at = place(&self.config, u64::from(offset), data.len())?;
        self.file.write_all_at(data, at)
    }

    fn region(&self, bar: BarIndex) -> Region {
        let Ok(info) = self.bar(bar) else { return Region::default() };
        let mappable = match &info.sparse {
            _ if info.flags & VFIO_REGION_INFO_FLAG_MMAP == 0 => Vec::new(),
            Some(areas) => areas.clone(),
            None => vec![(0, info.size)],
        };
        Region { size: info.size, mappable }
    }

    fn bar_read(&self, bar: BarIndex, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let at = place(self.bar(bar)?, offset, data.len())?;
        self.file.read_exact_at(data, at)
    }

    fn bar_write(&self, bar: BarIndex, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = place(self.bar(bar)?, offset, data.len())?;
        self.file.write_all_at(data, at)
    }

    fn map(&self, bar: BarIndex, offset: u64, size: u64) -> io::Result<Mapping> {
        let length = usize::try_from(size).map_err(|_| io::ErrorKind::InvalidInput)?;
        let at = place(self.bar(bar)?, offset, length)?;
        Mapping::new(&self.file, at, size)
    }

    fn irq_info(&self, irq: Irq) -> IrqInfo {
        self.irqs.get(&index(irq)).copied().unwrap_or_default()
    }

    fn set_triggers(&self, irq: Irq, start: u32, triggers: &[Option<&EventFd>]) -> io::Result<()> {
        let fds: Vec<_> = triggers.iter().map(|fd| fd.map(AsRawFd::as_raw_fd)).collect();
        sys::set_irqs(&self.file, index(irq), start, &fds)
    }

    fn disable(&self, irq: Irq) -> io::Result<()> {
        sys::disable_irqs(&self.file, index(irq))
    }

    fn has_function_reset(&self) -> bool {
        self.resettable
    }

    fn function_reset(&self) -> io::Result<()> {
        sys::reset(&self.file)
    }

    fn bus_reset_scope(&self) -> io::Result<Vec<Address>> {
        let own = self.group.number();
        let scope = sys::hot_reset_scope(&self.file)?;
        Ok(scope
            .into_iter()
            .filter(|(group, _)| *group != own)
            .map(|(_, address)| address)
            .collect())
    }

    fn bus_reset(&self) -> io::Result<()> {
        sys::hot_reset(&self.file, self.group.file())
    }
}
