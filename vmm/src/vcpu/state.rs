//! A vCPU's registers: as they are after creation, and as the boot protocols want them.

use kvm_bindings::{
    Msrs, kvm_debugregs, kvm_fpu, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs,
    kvm_segment, kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::VcpuFd;
use virtio::GuestMemory;
use vm_memory::{Bytes, GuestAddress};

use crate::boot::Entry;
use crate::kvm::{KvmError, refused};
use crate::layout::low;

const MSR_MTRR_DEFAULT_TYPE: u32 = 0x2ff;
const MSR_MISC_ENABLE: u32 = 0x1a0;
/// The time-stamp counter goes on across a reset, as on a real PC it may. Writing zero means: the
/// same as the other vCPUs' (`kvm_synchronize_tsc`), whatever the guest set its own to.
const MSR_TSC: u32 = 0x10;
/// Registers a guest can write that `KVM_GET_MSR_INDEX_LIST` leaves out, on some kernels or on all:
/// the other memory type range registers, debug control, and extended states.
const UNLISTED: &[std::ops::RangeInclusive<u32>] = &[
    0x1d9..=0x1d9,
    0x200..=0x20f,
    0x250..=0x250,
    0x258..=0x259,
    0x268..=0x26f,
    MSR_MTRR_DEFAULT_TYPE..=MSR_MTRR_DEFAULT_TYPE,
    0xda0..=0xda0,
];

/// A vCPU's whole state right after creation.
pub struct ResetState {
    pub(super) regs: kvm_regs,
    pub(super) sregs: kvm_sregs,
    pub(super) fpu: kvm_fpu,
    /// The floating point and vector registers with their upper halves; `None` where KVM lacks it.
    pub(super) xsave: Option<Box<kvm_xsave>>,
    pub(super) xcrs: kvm_xcrs,
    pub(super) debug: kvm_debugregs,
    pub(super) events: kvm_vcpu_events,
    pub(super) lapic: kvm_lapic_state,
    pub(super) mp_state: kvm_mp_state,
    pub(super) msrs: Vec<kvm_msr_entry>,
}

impl ResetState {
    /// Reads it; `indices` are the registers KVM says make up a vCPU's state.
    pub fn capture(vcpu: &VcpuFd, indices: &[u32]) -> Result<Self, KvmError> {
        let mut state = Self::read(vcpu, indices)?;
        for entry in &mut state.msrs {
            entry.data = as_firmware_leaves(entry.index, entry.data);
        }
        Ok(state)
    }

    pub(super) fn read(vcpu: &VcpuFd, indices: &[u32]) -> Result<Self, KvmError> {
        let read = "tell a vCPU's state";
        Ok(Self {
            regs: vcpu.get_regs().map_err(refused(read))?,
            sregs: vcpu.get_sregs().map_err(refused(read))?,
            fpu: vcpu.get_fpu().map_err(refused(read))?,
            xsave: vcpu.get_xsave().ok().map(Box::new),
            xcrs: vcpu.get_xcrs().map_err(refused(read))?,
            debug: vcpu.get_debug_regs().map_err(refused(read))?,
            events: vcpu.get_vcpu_events().map_err(refused(read))?,
            lapic: vcpu.get_lapic().map_err(refused(read))?,
            mp_state: vcpu.get_mp_state().map_err(refused(read))?,
            msrs: capture_msrs(vcpu, indices),
        })
    }

    /// Puts the vCPU back into it. Nothing the guest was in the middle of may be left to finish.
    pub fn restore(&self, vcpu: &VcpuFd) -> Result<(), KvmError> {
        let write = "set a vCPU's state";
        vcpu.set_mp_state(self.mp_state).map_err(refused(write))?;
        vcpu.set_regs(&self.regs).map_err(refused(write))?;
        vcpu.set_sregs(&self.sregs).map_err(refused(write))?;
        vcpu.set_xcrs(&self.xcrs).map_err(refused(write))?;
        vcpu.set_fpu(&self.fpu).map_err(refused(write))?;
        if let Some(xsave) = &self.xsave {
            // SAFETY: KVM reads more than the structure's 4096 bytes only where the process asked
            // the kernel for larger states (`ARCH_REQ_XCOMP_GUEST_PERM`), which this one never does.
            unsafe { vcpu.set_xsave(xsave) }.map_err(refused(write))?;
        }
        vcpu.set_debug_regs(&self.debug).map_err(refused(write))?;
        for entry in &self.msrs {
            // Some can be read but not written on some hosts: those the guest cannot change either.
            set_msr(vcpu, *entry);
        }
        set_msr(vcpu, kvm_msr_entry { index: MSR_TSC, data: 0, ..Default::default() });
        vcpu.set_lapic(&self.lapic).map_err(refused(write))?;
        vcpu.set_vcpu_events(&self.events).map_err(refused(write))
    }
}

/// Returns what a register starts with, where that is not what KVM gives it.
///
/// Memory type range registers: on, everything write-back (SDM volume 3A, 11.11.2.1). Fast strings:
/// on; with the bit off Linux takes an Intel processor's `rep movsb` for slow and copies otherwise.
fn as_firmware_leaves(index: u32, created: u64) -> u64 {
    match index {
        MSR_MTRR_DEFAULT_TYPE => 1 << 11 | 6,
        MSR_MISC_ENABLE => created | 1,
        _ => created,
    }
}

#[cfg(test)]
impl ResetState {
    /// Returns what is not as in `other`.
    pub(super) fn differences(&self, other: &Self) -> Vec<String> {
        let xsave = |state: &Self| state.xsave.as_ref().map(|xsave| xsave.region);
        let parts = [
            ("regs", self.regs == other.regs),
            ("sregs", self.sregs == other.sregs),
            ("fpu", self.fpu == other.fpu),
            ("xsave", xsave(self) == xsave(other)),
            ("xcrs", self.xcrs == other.xcrs),
            ("debug", self.debug == other.debug),
            ("events", self.events == other.events),
            ("lapic", self.lapic == other.lapic),
            ("mp_state", self.mp_state == other.mp_state),
        ];
        let parts = parts.iter().filter(|(_, same)| !same).map(|(name, _)| (*name).to_owned());
        let msrs = self.msrs.iter().zip(&other.msrs).filter(|(a, b)| a != b);
        let msrs = msrs.map(|(a, b)| format!("MSR {:#x}: {:#x}, {:#x}", a.index, a.data, b.data));
        parts.chain(msrs).collect()
    }
}

/// Reads registers one at a time: `KVM_GET_MSRS` stops at the first one it cannot read.
fn capture_msrs(vcpu: &VcpuFd, indices: &[u32]) -> Vec<kvm_msr_entry> {
    let read = |index: u32| {
        let entry = kvm_msr_entry { index, ..Default::default() };
        let mut msrs = Msrs::from_entries(&[entry]).ok()?;
        (vcpu.get_msrs(&mut msrs).ok()? == 1).then(|| msrs.as_slice().first().copied())?
    };
    let unlisted = UNLISTED.iter().cloned().flatten().filter(|index| !indices.contains(index));
    let listed = indices.iter().copied().filter(|index| *index != MSR_TSC);
    listed.chain(unlisted).filter_map(read).collect()
}

pub(super) fn set_msr(vcpu: &VcpuFd, entry: kvm_msr_entry) {
    if let Ok(msrs) = Msrs::from_entries(&[entry])
        && vcpu.set_msrs(&msrs).is_err()
    {
        tracing::debug!(index = entry.index, "KVM would not set this register");
    }
}

/// Flat segments (SDM volume 3A, 3.4.5): type and attribute bits of a code, data and task segment.
const CODE_TYPE: u8 = 0xb;
const DATA_TYPE: u8 = 0x3;
const TSS_TYPE: u8 = 0xb;

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// The bit of RFLAGS that is always one.
const RFLAGS_RESERVED: u64 = 2;
/// Selectors: `__BOOT_CS` and `__BOOT_DS` of the Linux boot protocol, and one for the task segment.
const BOOT_CS: u16 = 0x10;
const BOOT_DS: u16 = 0x18;
const BOOT_TSS: u16 = 0x20;

fn code(long: bool) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector: BOOT_CS,
        type_: CODE_TYPE,
        present: 1,
        s: 1,
        db: u8::from(!long),
        l: u8::from(long),
        g: 1,
        ..Default::default()
    }
}

fn data() -> kvm_segment {
    kvm_segment {
        limit: u32::MAX,
        selector: BOOT_DS,
        type_: DATA_TYPE,
        present: 1,
        s: 1,
        db: 1,
        g: 1,
        ..Default::default()
    }
}

fn task() -> kvm_segment {
    kvm_segment {
        limit: 0x67,
        selector: BOOT_TSS,
        type_: TSS_TYPE,
        present: 1,
        ..Default::default()
    }
}

/// Returns the descriptor of a segment (SDM volume 3A, figure 3-8).
fn descriptor(segment: &kvm_segment) -> u64 {
    let limit = u64::from(if segment.g == 1 { segment.limit >> 12 } else { segment.limit });
    let low_byte = u64::from(segment.type_)
        | u64::from(segment.s) << 4
        | u64::from(segment.dpl) << 5
        | u64::from(segment.present) << 7;
    let flags = u64::from(segment.avl)
        | u64::from(segment.l) << 1
        | u64::from(segment.db) << 2
        | u64::from(segment.g) << 3;
    (limit & 0xffff)
        | (segment.base & 0xff_ffff) << 16
        | low_byte << 40
        | (limit >> 16 & 0xf) << 48
        | flags << 52
        | (segment.base >> 24 & 0xff) << 56
}

/// Sets the boot vCPU up for `entry` and writes the tables it starts with.
pub(super) fn set_entry(vcpu: &VcpuFd, memory: &GuestMemory, entry: Entry) -> Result<(), KvmError> {
    let mut sregs = vcpu.get_sregs().map_err(refused("tell a vCPU's state"))?;
    let long = matches!(entry, Entry::Linux64 { .. });
    let (code, data, task) = (code(long), data(), task());
    let gdt = [0, 0, descriptor(&code), descriptor(&data), descriptor(&task), 0];
    let written = gdt
        .iter()
        .zip((low::GDT..).step_by(8))
        .try_for_each(|(entry, at)| memory.write_obj(*entry, GuestAddress(at)));
    let written = written.and_then(|()| if long { identity_map(memory) } else { Ok(()) });
    written.map_err(|e| KvmError::Ioctl {
        what: "take the boot tables",
        source: std::io::Error::other(e),
    })?;

    sregs.gdt.base = low::GDT;
    sregs.gdt.limit = 6 * 8 - 1;
    sregs.idt.base = 0;
    sregs.idt.limit = 0;
    sregs.cs = code;
    for segment in [&mut sregs.ds, &mut sregs.es, &mut sregs.fs, &mut sregs.gs, &mut sregs.ss] {
        *segment = data;
    }
    sregs.tr = task;
    sregs.cr0 = CR0_PE | CR0_ET;
    sregs.cr4 = 0;
    sregs.efer = 0;
    let mut regs = kvm_regs { rflags: RFLAGS_RESERVED, ..Default::default() };
    match entry {
        Entry::Linux64 { rip } => {
            sregs.cr0 |= CR0_PG;
            sregs.cr3 = low::PAGE_TABLES;
            sregs.cr4 = CR4_PAE;
            sregs.efer = EFER_LME | EFER_LMA;
            regs.rip = rip;
            regs.rsi = low::ZERO_PAGE;
        }
        Entry::Pvh { rip } => {
            regs.rip = rip;
            regs.rbx = low::PVH_START_INFO;
        }
    }
    vcpu.set_sregs(&sregs).map_err(refused("set a vCPU's state"))?;
    vcpu.set_regs(&regs).map_err(refused("set a vCPU's state"))
}

/// Identity-maps the first 4 GiB with 2 MiB pages (SDM volume 3A, 4.5).
fn identity_map(memory: &GuestMemory) -> Result<(), vm_memory::GuestMemoryError> {
    const PRESENT_WRITABLE: u64 = 3;
    const LARGE: u64 = 1 << 7;
    const PAGE: u64 = 4096;
    let (pml4, pdpt) = (low::PAGE_TABLES, low::PAGE_TABLES + PAGE);
    memory.write_obj(pdpt | PRESENT_WRITABLE, GuestAddress(pml4))?;
    for gib in 0..4 {
        let directory = pdpt + PAGE * (1 + gib);
        memory.write_obj(directory | PRESENT_WRITABLE, GuestAddress(pdpt + 8 * gib))?;
        for page in 0..512 {
            let frame = gib << 30 | page << 21;
            let entry = frame | PRESENT_WRITABLE | LARGE;
            memory.write_obj(entry, GuestAddress(directory + 8 * page))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_those_of_the_boot_protocol() {
        assert_eq!(descriptor(&code(true)), 0x00af_9b00_0000_ffff);
        assert_eq!(descriptor(&code(false)), 0x00cf_9b00_0000_ffff);
        assert_eq!(descriptor(&data()), 0x00cf_9300_0000_ffff);
        assert_eq!(descriptor(&task()), 0x0000_8b00_0000_0067);
    }

    #[test]
    fn the_page_tables_map_four_gibibytes_onto_themselves() {
        let memory = crate::memory::allocate("64M".parse().unwrap(), false).unwrap();
        identity_map(&memory).unwrap();
        let read = |at| memory.read_obj::<u64>(GuestAddress(at)).unwrap();
        for address in [0u64, 0x20_0000, 0x1234_5678, 0xffff_ffff] {
            let pdpt = read(low::PAGE_TABLES) & !0xfff;
            let directory = read(pdpt + 8 * (address >> 30)) & !0xfff;
            let page = read(directory + 8 * (address >> 21 & 511));
            assert_eq!(page & !0x1f_ffff | address & 0x1f_ffff, address);
        }
    }
}
