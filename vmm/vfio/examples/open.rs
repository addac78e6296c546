//! Takes a function over as a VMM would and shows what a guest would see of it:
//! `open 0000:00:05.0`, as root, with the function bound to vfio-pci.
//!
//! It resets the function, walks the mediated configuration space, maps the BARs into an empty VM, and
//! on an Intel 82574 (the NIC QEMU calls e1000e) raises an interrupt through MSI-X and through MSI.

use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex};

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Kvm, VmFd};
use pci::testing::Recorder;
use pci::{BarIndex, Function};
use vfio::{Address, Container, MemorySlots, Slot, VfioFunction};
use vm_memory::{GuestAddress, GuestMemoryMmap};

const RAM: usize = 64 << 20;
const INTEL_82574: u32 = 0x10d3_8086;

struct Slots(Arc<VmFd>, Mutex<u32>);

impl Slots {
    fn set(&self, slot: u32, guest: u64, host: *const u8, size: u64) -> io::Result<()> {
        println!("  slot {slot}: {size:#x} bytes at {guest:#x}");
        let region = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: guest,
            memory_size: size,
            userspace_addr: host as u64,
        };
        // SAFETY: the caller of `map` keeps the mapping alive; this VM never runs.
        unsafe { self.0.set_user_memory_region(region) }
            .map_err(|e| io::Error::from_raw_os_error(e.errno()))
    }
}

impl MemorySlots for Slots {
    unsafe fn map(&self, guest: u64, host: *const u8, size: u64) -> io::Result<Slot> {
        let mut next = self.1.lock().map_err(|_| io::Error::other("poisoned"))?;
        *next += 1;
        self.set(*next, guest, host, size)?;
        Ok(Slot(*next))
    }

    fn unmap(&self, slot: Slot) -> io::Result<()> {
        self.set(slot.0, 0, std::ptr::null(), 0)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut addresses = std::env::args().skip(1).peekable();
    addresses.peek().ok_or("usage: open ADDRESS...")?;
    let vm = Arc::new(Kvm::new()?.create_vm()?);
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM)])?;
    let container = Container::new(&vm, &memory)?;
    let slots: Arc<dyn MemorySlots> = Arc::new(Slots(Arc::clone(&vm), Mutex::new(0)));
    let mut open = Vec::new();
    for address in addresses {
        let address: Address = address.parse()?;
        let recorder = Recorder::default();
        let mut function =
            container.open(address, Arc::new(recorder.clone()), Arc::clone(&slots))?;
        println!("{address}: opened and reset");
        show(&mut function);
        decode(&mut function);
        if long(&mut function, 0) == INTEL_82574 {
            raise(&mut function, &recorder)?;
        }
        open.push(function);
    }
    for function in &mut open {
        function.reset();
        println!("{}: reset again, usable: {}", function.address(), function.usable());
    }
    Ok(())
}

fn show(function: &mut VfioFunction) {
    let notices = function.notices().map(|n| (n.error.is_some(), n.release.is_some()));
    println!("  notices (error, release): {notices:?}");
    for row in 0..4 {
        let words: Vec<_> =
            (0..4).map(|i| format!("{:08x}", long(function, 16 * row + 4 * i))).collect();
        println!("  {:03x}: {}", 16 * row, words.join(" "));
    }
    for (id, at) in capabilities(function) {
        let (first, second) = (long(function, at) >> 16, long(function, at + 4));
        println!("  capability {id:02x} at {at:02x}: {first:04x} {second:08x}");
    }
    println!("  extended: {:08x} {:08x}", long(function, 0x100), long(function, 0x104));
}

/// Places the BARs and turns decoding and bus mastering on, as firmware and a driver would.
fn decode(function: &mut VfioFunction) {
    let mut next = 0xc000_0000u64;
    for (index, bar) in function.bars().into_iter().enumerate() {
        if let (Some((size, kind)), Some(bar)) = (bar, BarIndex::new(index)) {
            next = next.next_multiple_of(size);
            println!("  {bar}: {size:#x} bytes, {kind:?}, at {next:#x}");
            function.place_bar(bar, next);
            next += size;
        }
    }
    function.config_write(4, &0x406u16.to_le_bytes());
    for (index, window) in function.windows().into_iter().enumerate() {
        if let (Some(_), Some(bar)) = (window, BarIndex::new(index)) {
            function.bar_moved(bar, window);
        }
    }
    println!("  command {:04x}", long(function, 4) & 0xffff);
}

/// Makes an 82574 raise its "other" interrupt, by MSI-X and by MSI.
fn raise(function: &mut VfioFunction, recorder: &Recorder) -> Result<(), Box<dyn Error>> {
    const STATUS: u64 = 0x8;
    const CAUSES: u64 = 0xc0;
    const CAUSE_SET: u64 = 0xc8;
    const MASK_SET: u64 = 0xd0;
    const VECTORS: u64 = 0xe4;
    const OTHER: u32 = 1 << 24 | 1 << 2;
    let registers = BarIndex::new(0).ok_or("no BAR 0")?;
    let table = BarIndex::new(3).ok_or("no BAR 3")?;
    let (msi, msix) = (find(function, 0x05)?, find(function, 0x11)?);

    // The recorder numbers vectors as they are made: MSI's one, then MSI-X's.
    function.config_write(msix + 2, &0x8000u16.to_le_bytes());
    for vector in 0..3 {
        function.bar_write(table, vector * 16, &0xfee0_0000u64.to_le_bytes());
        function.bar_write(table, vector * 16 + 8, &0x31u32.to_le_bytes());
        function.bar_write(table, vector * 16 + 12, &0u32.to_le_bytes());
    }
    for vector in 0..4 {
        recorder.take(vector);
    }
    function.bar_write(registers, VECTORS, &(0x8u32 << 16 | 0x2 << 16).to_le_bytes());
    function.bar_write(registers, MASK_SET, &OTHER.to_le_bytes());
    function.bar_write(registers, CAUSE_SET, &OTHER.to_le_bytes());
    let mut status = [0; 4];
    function.bar_read(registers, STATUS, &mut status);
    std::thread::sleep(std::time::Duration::from_millis(200));
    let fired: Vec<_> = (0..6).filter(|vector| recorder.take(*vector)).collect();
    println!(
        "  device status {:08x}; by MSI-X, vectors {fired:?} fired",
        u32::from_le_bytes(status)
    );
    if fired != [3] {
        return Err("MSI-X vector 2 should have fired, and no other".into());
    }

    function.config_write(msix + 2, &0u16.to_le_bytes());
    function.config_write(msi + 4, &0xfee0_0000u32.to_le_bytes());
    function.config_write(msi + 12, &0x32u16.to_le_bytes());
    for round in 1..=3 {
        function.config_write(msi + 2, &1u16.to_le_bytes());
        // Reading the causes acknowledges them.
        function.bar_read(registers, CAUSES, &mut status);
        function.bar_write(registers, CAUSE_SET, &(1u32 << 2).to_le_bytes());
        std::thread::sleep(std::time::Duration::from_millis(200));
        let fired: Vec<_> = (0..6).filter(|vector| recorder.take(*vector)).collect();
        println!("  by MSI, round {round}, vectors {fired:?} fired");
        if fired != [0] {
            return Err("the MSI vector should have fired, and no other".into());
        }
        function.config_write(msi + 2, &0u16.to_le_bytes());
    }
    Ok(())
}

fn find(function: &mut VfioFunction, id: u8) -> Result<u16, Box<dyn Error>> {
    let found = capabilities(function).into_iter().find(|(other, _)| *other == id);
    found.map(|(_, at)| at).ok_or_else(|| format!("no capability {id:#04x}").into())
}

/// Returns ID and offset of each capability.
fn capabilities(function: &mut VfioFunction) -> Vec<(u8, u16)> {
    let mut list = Vec::new();
    let [mut at, ..] = long(function, 0x34).to_le_bytes();
    while at >= 0x40 && list.len() < 48 {
        let [id, next, ..] = long(function, u16::from(at)).to_le_bytes();
        list.push((id, u16::from(at)));
        at = next;
    }
    list
}

fn long(function: &mut VfioFunction, offset: u16) -> u32 {
    let mut bytes = [0; 4];
    function.config_read(offset, &mut bytes);
    u32::from_le_bytes(bytes)
}
