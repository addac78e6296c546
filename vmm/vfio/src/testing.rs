//! A NIC that records what is done to it, shaped like an Intel 82574: 32-bit BARs 0, 1 and 3, an I/O
//! BAR, power management, MSI, PCI Express, MSI-X with its table in BAR 3, and a serial number.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use hostpci::Address;
use pci::BarIndex;
use vmm_sys_util::eventfd::EventFd;

use crate::hardware::{Hardware, Irq, IrqInfo, Region};
use crate::slots::{MemorySlots, Slot};
use crate::sys::Mapping;

/// Vectors in the MSI-X table of [`FakeNic`].
pub(crate) const VECTORS: u32 = 5;
/// Offsets of the capabilities in the configuration space; this is power management's.
pub(crate) const POWER: u16 = 0xc8;
pub(crate) const MSI: u16 = 0xd0;
pub(crate) const EXPRESS: u16 = 0xe0;
pub(crate) const MSIX: u16 = 0xa0;
/// A register between capabilities that the test may change behind the mediation's back.
pub(crate) const PRIVATE: u16 = 0x50;

/// What was done to the hardware, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    ConfigWrite(u16, Vec<u8>),
    BarWrite(usize, u64, Vec<u8>),
    On(Irq, u32, Vec<bool>),
    Off(Irq),
    FunctionReset,
    BusReset,
    SlotMapped(u64, u64),
    SlotUnmapped,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) config: Vec<u8>,
    pub(crate) regions: [Region; BarIndex::COUNT],
    pub(crate) events: Vec<Event>,
    /// Per kind: how many vectors are on, and the eventfds of those that have one.
    pub(crate) on: BTreeMap<u8, (u32, BTreeMap<u32, EventFd>)>,
    pub(crate) growable: bool,
    pub(crate) function_reset: bool,
    /// Results of the next resets; success when there are no more.
    pub(crate) reset_errors: Vec<i32>,
    pub(crate) bus_scope: io::Result<Vec<Address>>,
    pub(crate) config_broken: bool,
    pub(crate) slots: BTreeMap<u32, (u64, u64)>,
    next_slot: u32,
    memory: File,
    open: Weak<()>,
}

/// The NIC, and the machine's memory slots.
#[derive(Clone, Debug)]
pub(crate) struct FakeNic {
    state: Arc<Mutex<State>>,
    /// Counts those who have it open.
    _open: Option<Arc<()>>,
}

impl FakeNic {
    pub(crate) fn new() -> Self {
        let mut config = vec![0; 4096];
        let mut put = |at: u16, bytes: &[u8]| {
            config[usize::from(at)..usize::from(at) + bytes.len()].copy_from_slice(bytes);
        };
        put(0x00, &[0x86, 0x80, 0xd3, 0x10, 0x07, 0x01, 0x10, 0x28, 0x00, 0x00, 0x00, 0x02]);
        put(0x10, &0xfe00_0000u32.to_le_bytes());
        put(0x14, &0xfe02_0000u32.to_le_bytes());
        put(0x18, &0x0000_c001u32.to_le_bytes());
        put(0x1c, &0xfe04_0000u32.to_le_bytes());
        put(0x2c, &[0x86, 0x80, 0x1f, 0xa0]);
        put(0x30, &[0x01, 0, 0x06, 0xfe, 0xc8]);
        put(0x3c, &[11, 1]);
        put(PRIVATE, &[0xaa, 0xbb, 0xcc, 0xdd]);
        put(POWER, &[0x01, 0xd0, 0x22, 0xc8, 0x03, 0x21, 0, 0]);
        put(MSI, &[0x05, 0xe0, 0x80, 0x00]);
        put(EXPRESS, &[0x10, 0xa0, 0x01, 0x00, 0xc1, 0x8c, 0x00, 0x10, 0x10, 0x28, 0x10, 0x00]);
        put(EXPRESS + 0x0c, &[0x11, 0x1c, 0x04, 0x00, 0x40, 0x00, 0x11, 0x10]);
        put(MSIX, &[0x11, 0x00, 0x04, 0x00, 0x03, 0, 0, 0, 0x03, 0x20, 0, 0]);
        put(0x100, &[0x01, 0x00, 0x02, 0x14]);
        put(0x140, &[0x03, 0x00, 0x01, 0x15, 1, 2, 3, 4, 5, 6, 7, 8]);
        put(0x150, &[0x10, 0x00, 0x01, 0x00]);
        let whole = |size| Region { size, mappable: vec![(0, size)] };
        let io_ports = Region { size: 32, mappable: Vec::new() };
        let none = Region::default();
        let memory = tempfile::tempfile().unwrap();
        memory.set_len(0x40_0000).unwrap();
        let state = State {
            config,
            regions: [
                whole(0x2_0000),
                whole(0x2_0000),
                io_ports,
                whole(0x4000),
                none.clone(),
                none,
            ],
            events: Vec::new(),
            on: BTreeMap::new(),
            growable: false,
            function_reset: true,
            reset_errors: Vec::new(),
            bus_scope: Ok(vec![address()]),
            config_broken: false,
            slots: BTreeMap::new(),
            next_slot: 0,
            memory,
            open: Weak::new(),
        };
        Self { state: Arc::new(Mutex::new(state)), _open: None }
    }

    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes the events so far.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.with(|state| std::mem::take(&mut state.events))
    }

    /// Raises a vector of the card. Returns `false` if the host would not notice.
    pub(crate) fn raise(&self, irq: Irq, vector: u32) -> bool {
        self.with(|state| {
            let fds = state.on.get(&(irq as u8)).map(|(_, fds)| fds);
            fds.and_then(|fds| fds.get(&vector)).is_some_and(|fd| fd.write(1).is_ok())
        })
    }

    pub(crate) fn boxed(&self) -> Box<dyn Hardware> {
        let open = Arc::new(());
        self.with(|state| state.open = Arc::downgrade(&open));
        Box::new(Self { state: Arc::clone(&self.state), _open: Some(open) })
    }

    /// Returns whether somebody has the device open.
    pub(crate) fn is_open(&self) -> bool {
        self.with(|state| state.open.strong_count() > 0)
    }

    fn reset(&self, event: Event) -> io::Result<()> {
        self.with(|state| {
            state.events.push(event);
            match state.reset_errors.pop() {
                Some(error) => Err(io::Error::from_raw_os_error(error)),
                None => Ok(()),
            }
        })
    }
}

/// Returns where the NIC is.
pub(crate) fn address() -> Address {
    Address::from_parts(0, 0, 5 << 3)
}

pub(crate) fn bar(index: usize) -> BarIndex {
    BarIndex::new(index).unwrap()
}

impl Hardware for FakeNic {
    fn config_read(&self, offset: u16, data: &mut [u8]) -> io::Result<()> {
        self.with(|state| {
            let range = usize::from(offset)..usize::from(offset) + data.len();
            let bytes = state.config.get(range).filter(|_| !state.config_broken);
            data.copy_from_slice(bytes.ok_or(io::ErrorKind::InvalidInput)?);
            Ok(())
        })
    }

    fn config_write(&self, offset: u16, data: &[u8]) -> io::Result<()> {
        self.with(|state| {
            if state.config_broken {
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
            state.events.push(Event::ConfigWrite(offset, data.to_vec()));
            let range = usize::from(offset)..usize::from(offset) + data.len();
            state.config[range].copy_from_slice(data);
            Ok(())
        })
    }

    fn region(&self, bar: BarIndex) -> Region {
        self.with(|state| state.regions[bar.index()].clone())
    }

    fn bar_read(&self, bar: BarIndex, offset: u64, data: &mut [u8]) -> io::Result<()> {
        if offset + data.len() as u64 > self.region(bar).size {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        data.fill(0x5a);
        Ok(())
    }

    fn bar_write(&self, bar: BarIndex, offset: u64, data: &[u8]) -> io::Result<()> {
        let event = Event::BarWrite(bar.index(), offset, data.to_vec());
        self.with(|state| state.events.push(event));
        Ok(())
    }

    fn map(&self, bar: BarIndex, offset: u64, size: u64) -> io::Result<Mapping> {
        assert!(offset + size <= self.region(bar).size);
        self.with(|state| Mapping::new(&state.memory, offset, size))
    }

    fn irq_info(&self, irq: Irq) -> IrqInfo {
        match irq {
            Irq::Msix => IrqInfo { count: VECTORS, growable: self.with(|state| state.growable) },
            _ => IrqInfo { count: 1, growable: false },
        }
    }

    /// Sets triggers as the kernel does: the first call fixes how many there are.
    fn set_triggers(&self, irq: Irq, start: u32, triggers: &[Option<&EventFd>]) -> io::Result<()> {
        let info = self.irq_info(irq);
        self.with(|state| {
            let tied = triggers.iter().map(Option::is_some).collect();
            state.events.push(Event::On(irq, start, tied));
            let end = start + u32::try_from(triggers.len()).unwrap();
            let other = if irq == Irq::Msi { Irq::Msix } else { Irq::Msi };
            let conflict =
                matches!(irq, Irq::Msi | Irq::Msix) && state.on.contains_key(&(other as u8));
            let room = match state.on.get(&(irq as u8)) {
                Some((on, _)) if !info.growable => *on,
                _ => info.count,
            };
            if conflict || end > room {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            let (on, fds) = state.on.entry(irq as u8).or_insert((end, BTreeMap::new()));
            *on = end.max(*on);
            for (index, fd) in (start..).zip(triggers) {
                match fd {
                    Some(fd) => fds.insert(index, fd.try_clone()?),
                    None => fds.remove(&index),
                };
            }
            Ok(())
        })
    }

    fn disable(&self, irq: Irq) -> io::Result<()> {
        self.with(|state| {
            state.events.push(Event::Off(irq));
            state.on.remove(&(irq as u8));
        });
        Ok(())
    }

    fn has_function_reset(&self) -> bool {
        self.with(|state| state.function_reset)
    }

    fn function_reset(&self) -> io::Result<()> {
        self.reset(Event::FunctionReset)
    }

    fn bus_reset_scope(&self) -> io::Result<Vec<Address>> {
        self.with(|state| match &state.bus_scope {
            Ok(scope) => Ok(scope.clone()),
            Err(error) => Err(error.kind().into()),
        })
    }

    fn bus_reset(&self) -> io::Result<()> {
        self.reset(Event::BusReset)
    }
}

impl MemorySlots for FakeNic {
    unsafe fn map(&self, guest: u64, _: *const u8, size: u64) -> io::Result<Slot> {
        assert!(guest.is_multiple_of(4096) && size.is_multiple_of(4096) && size > 0);
        self.with(|state| {
            let overlaps = |(at, length): &(u64, u64)| guest < at + length && *at < guest + size;
            if guest.checked_add(size).is_none_or(|end| end > 1 << 40)
                || state.slots.values().any(overlaps)
            {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            state.next_slot += 1;
            state.slots.insert(state.next_slot, (guest, size));
            state.events.push(Event::SlotMapped(guest, size));
            Ok(Slot(state.next_slot))
        })
    }

    fn unmap(&self, slot: Slot) -> io::Result<()> {
        self.with(|state| {
            assert!(state.slots.remove(&slot.0).is_some(), "unmapped twice");
            state.events.push(Event::SlotUnmapped);
        });
        Ok(())
    }
}
