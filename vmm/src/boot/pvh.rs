//! Xen's PVH direct boot (xen/include/public/arch-x86/hvm/start_info.h): an uncompressed ELF
//! entered in 32-bit protected mode at the address its PVH note names.

use linux_loader::loader::elf::start_info::{
    hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use virtio::GuestMemory;
use vm_memory::{ByteValued, Bytes, GuestAddress};

use super::{BootError, Entry, Image, LoadedInitrd, memory_map};
use crate::layout::{self, low};

const START_MAGIC: u32 = 0x336e_c578;
/// `XEN_ELFNOTE_PHYS32_ENTRY` (xen/include/public/elfnote.h).
const NOTE_PHYS32_ENTRY: u32 = 18;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// e_machine of x86-64 (ELF gABI).
const EM_X86_64: u16 = 62;
/// A kernel has about five program headers and a few KiB of notes; more is not a kernel.
const HEADERS_MAX: u16 = 64;
const NOTES_MAX: u64 = 64 << 10;

/// One part of the file that belongs in memory; all in bytes.
struct Segment {
    offset: u64,
    address: u64,
    in_file: u64,
    in_memory: u64,
}

/// What the file's headers say, checked.
pub(super) struct Program {
    segments: Vec<Segment>,
    entry: u32,
}

impl Program {
    /// Returns the first address after the kernel.
    pub(super) fn end(&self) -> u64 {
        self.segments.iter().map(|s| s.address + s.in_memory).max().unwrap_or(0)
    }
}

/// Reads the little-endian field of `N` bytes at `offset`; zero where the slice is too short.
fn field<const N: usize>(bytes: &[u8], offset: usize) -> u64 {
    let mut value = [0; 8];
    if let Some(field) = offset.checked_add(N).and_then(|end| bytes.get(offset..end)) {
        for (to, from) in value.iter_mut().zip(field) {
            *to = *from;
        }
    }
    u64::from_le_bytes(value)
}

fn half(bytes: &[u8], offset: usize) -> u16 {
    field::<2>(bytes, offset) as u16
}

fn word(bytes: &[u8], offset: usize) -> u32 {
    field::<4>(bytes, offset) as u32
}

pub(super) fn parse(image: &mut Image) -> Result<Program, BootError> {
    let header: [u8; 64] =
        image.head(0).map_err(|_| image.not_a_kernel("its ELF header is cut off"))?;
    // ELF64 header: class and encoding at 4 and 5, machine at 18, phoff at 32, phentsize at 54,
    // phnum at 56 (ELF gABI, chapter 4).
    if header.get(4..6) != Some(&[2, 1]) || half(&header, 18) != EM_X86_64 {
        return Err(image.not_a_kernel("it is an ELF file, but not for x86-64"));
    }
    let (table, size, count) = (field::<8>(&header, 32), half(&header, 54), half(&header, 56));
    if size != 56 || count == 0 || count > HEADERS_MAX {
        return Err(image.not_a_kernel("its ELF program headers make no sense"));
    }
    let (mut segments, mut entry) = (Vec::new(), None);
    for index in 0..count {
        let at = table.saturating_add(u64::from(index) * u64::from(size));
        let raw: [u8; 56] =
            image.head(at).map_err(|_| image.not_a_kernel("its program headers are cut off"))?;
        let segment = Segment {
            offset: field::<8>(&raw, 8),
            address: field::<8>(&raw, 24),
            in_file: field::<8>(&raw, 32),
            in_memory: field::<8>(&raw, 40),
        };
        match word(&raw, 0) {
            PT_LOAD if segment.in_memory > 0 => {
                check(image, &segment)?;
                segments.push(segment);
            }
            PT_NOTE if entry.is_none() => entry = find_entry(image, &segment)?,
            _ => {}
        }
    }
    let entry = entry.ok_or_else(|| {
        image.not_a_kernel("it is an ELF file without a PVH entry (CONFIG_PVH is off)")
    })?;
    if segments.is_empty() {
        return Err(image.not_a_kernel("it has nothing to load"));
    }
    Ok(Program { segments, entry })
}

fn check(image: &Image, segment: &Segment) -> Result<(), BootError> {
    let file_end = segment.offset.checked_add(segment.in_file);
    if file_end.is_none_or(|end| end > image.length) {
        return Err(
            image.not_a_kernel(format!("it is cut off: only {} bytes are there", image.length))
        );
    }
    let memory_end = segment.address.checked_add(segment.in_memory.max(segment.in_file));
    if segment.address < layout::RAM_1M
        || segment.in_file > segment.in_memory
        || memory_end.is_none_or(|end| end > layout::LOW_RAM_END)
    {
        return Err(image.not_a_kernel("it wants to be loaded where the guest has no RAM"));
    }
    Ok(())
}

/// Looks for the PVH note: name `Xen`, a 4- or 8-byte address (ELF gABI, "Note Section").
fn find_entry(image: &mut Image, segment: &Segment) -> Result<Option<u32>, BootError> {
    let length = segment.in_file.min(NOTES_MAX);
    let mut notes = vec![0; usize::try_from(length).unwrap_or(0)];
    {
        use std::io::{Read, Seek, SeekFrom};
        image
            .file
            .seek(SeekFrom::Start(segment.offset))
            .and_then(|_| image.file.read_exact(&mut notes))
            .map_err(|_| image.not_a_kernel("its notes are cut off"))?;
    }
    let padded = |length: u32| (length as usize).next_multiple_of(4);
    let mut rest = notes.as_slice();
    while rest.len() >= 12 {
        let (name_size, desc_size, kind) = (word(rest, 0), word(rest, 4), word(rest, 8));
        let name_end = padded(name_size).saturating_add(12);
        let desc_end = name_end.saturating_add(padded(desc_size));
        let (Some(name), Some(desc)) = (rest.get(12..name_end), rest.get(name_end..desc_end))
        else {
            break;
        };
        if kind == NOTE_PHYS32_ENTRY && name == b"Xen\0" && desc.len() >= 4 {
            return Ok(Some(word(desc, 0)));
        }
        rest = rest.get(desc_end..).unwrap_or_default();
    }
    Ok(None)
}

pub(super) fn load(
    image: &mut Image,
    program: &Program,
    memory: &GuestMemory,
    initrd: Option<LoadedInitrd>,
    rsdp: u64,
) -> Result<Entry, BootError> {
    for segment in &program.segments {
        image.copy_to(memory, segment.offset, GuestAddress(segment.address), segment.in_file)?;
        clear(memory, segment)?;
    }
    let mut info = hvm_start_info {
        magic: START_MAGIC,
        version: 1,
        cmdline_paddr: low::CMDLINE,
        memmap_paddr: low::PVH_MEMORY_MAP,
        rsdp_paddr: rsdp,
        ..Default::default()
    };
    if let Some(initrd) = initrd {
        let module =
            hvm_modlist_entry { paddr: initrd.address, size: initrd.length, ..Default::default() };
        memory.write_slice(module.as_slice(), GuestAddress(low::PVH_MODULES))?;
        info.modlist_paddr = low::PVH_MODULES;
        info.nr_modules = 1;
    }
    let mut at = low::PVH_MEMORY_MAP;
    for (addr, size, type_) in memory_map(memory) {
        let entry = hvm_memmap_table_entry { addr, size, type_, reserved: 0 };
        memory.write_slice(entry.as_slice(), GuestAddress(at))?;
        at += size_of::<hvm_memmap_table_entry>() as u64;
        info.memmap_entries += 1;
    }
    memory.write_slice(info.as_slice(), GuestAddress(low::PVH_START_INFO))?;
    Ok(Entry::Pvh { rip: u64::from(program.entry) })
}

/// Zeroes what a segment has in memory beyond the file (.bss): fresh at first start, full of the
/// last run's data after a reset.
fn clear(memory: &GuestMemory, segment: &Segment) -> Result<(), BootError> {
    const ZEROES: [u8; 4096] = [0; 4096];
    let (mut at, end) = (segment.address + segment.in_file, segment.address + segment.in_memory);
    while at < end {
        let length = (end - at).min(ZEROES.len() as u64);
        let zeroes = ZEROES.get(..usize::try_from(length).unwrap_or(0)).unwrap_or_default();
        memory.write_slice(zeroes, GuestAddress(at))?;
        at += length;
    }
    Ok(())
}
