//! Linux x86 boot protocol (Documentation/arch/x86/boot.rst): a bzImage entered in 64-bit mode.

use linux_loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use virtio::GuestMemory;
use vm_memory::{ByteValued, Bytes, GuestAddress};

use super::{BootError, Entry, Image, LoadedInitrd, memory_map};
use crate::layout::{self, low};

/// Where the setup header starts in the file.
const HEADER_OFFSET: u64 = 0x1f1;
/// The header's signature, `HdrS` (Linux x86 boot protocol).
const MAGIC: u32 = 0x5372_6448;
/// Protocol 2.12 brought `xloadflags`, which says whether there is a 64-bit entry point.
const VERSION_MIN: u16 = 0x020c;
const LOADED_HIGH: u8 = 1;
const XLF_KERNEL_64: u16 = 1;
/// The 64-bit entry point lies here in the protected-mode kernel.
const ENTRY_64: u64 = 0x200;
const SECTOR: u64 = 512;
/// "Undefined boot loader".
const LOADER_TYPE: u8 = 0xff;

/// What the file's header says, checked.
pub(super) struct Header {
    raw: setup_header,
    /// Offset of the protected-mode kernel in the file, in bytes.
    kernel_offset: u64,
    /// Its length, in bytes.
    kernel_length: u64,
}

impl Header {
    /// Returns the first address after what the kernel needs until it has found its own memory map.
    pub(super) fn end(&self) -> u64 {
        let start = layout::RAM_1M.max(self.raw.pref_address);
        start + self.kernel_length.max(u64::from(self.raw.init_size))
    }

    /// Returns the highest address an initrd may reach.
    pub(super) fn initrd_address_max(&self) -> u64 {
        u64::from(self.raw.initrd_addr_max)
    }
}

pub(super) fn parse(image: &mut Image) -> Result<Header, BootError> {
    let mut raw = setup_header::default();
    let bytes: [u8; size_of::<setup_header>()] = image
        .head(HEADER_OFFSET)
        .map_err(|_| image.not_a_kernel("it has neither an ELF nor a Linux boot header"))?;
    raw.as_mut_slice().copy_from_slice(&bytes);
    let (magic, version, flags, xflags) = (raw.header, raw.version, raw.loadflags, raw.xloadflags);
    if magic != MAGIC {
        return Err(image.not_a_kernel("it has neither an ELF nor a Linux boot header"));
    }
    if version < VERSION_MIN || flags & LOADED_HIGH == 0 || xflags & XLF_KERNEL_64 == 0 {
        return Err(image.not_a_kernel("it is not a 64-bit kernel of Linux 3.8 or newer"));
    }
    let sectors = if raw.setup_sects == 0 { 4 } else { u64::from(raw.setup_sects) };
    let kernel_offset = (sectors + 1) * SECTOR;
    // `syssize` counts 16-byte paragraphs of the protected-mode kernel.
    let promised = u64::from(raw.syssize) * 16;
    let kernel_length = image.length.saturating_sub(kernel_offset);
    // The last paragraph may be padding that the file leaves out.
    if kernel_length <= ENTRY_64 || kernel_length + 16 <= promised {
        return Err(image.not_a_kernel(format!(
            "it is cut off: {} of {} bytes are there",
            image.length,
            kernel_offset + promised
        )));
    }
    if raw.pref_address > layout::LOW_RAM_END {
        return Err(image.not_a_kernel("it wants to be loaded above 3 GiB"));
    }
    Ok(Header { raw, kernel_offset, kernel_length })
}

pub(super) fn load(
    image: &mut Image,
    header: &Header,
    memory: &GuestMemory,
    initrd: Option<LoadedInitrd>,
    rsdp: u64,
) -> Result<Entry, BootError> {
    let start = layout::RAM_1M;
    image.copy_to(memory, header.kernel_offset, GuestAddress(start), header.kernel_length)?;

    let mut params = boot_params { hdr: header.raw, acpi_rsdp_addr: rsdp, ..Default::default() };
    params.hdr.type_of_loader = LOADER_TYPE;
    params.hdr.code32_start = layout::RAM_1M as u32;
    params.hdr.cmd_line_ptr = low::CMDLINE as u32;
    if let Some(initrd) = initrd {
        // The header's limit is 32 bits wide, and `Kernel::load` kept below it.
        params.hdr.ramdisk_image = u32::try_from(initrd.address).unwrap_or_default();
        params.hdr.ramdisk_size = u32::try_from(initrd.length).unwrap_or_default();
    }
    let map = memory_map(memory);
    params.e820_entries = u8::try_from(map.len()).unwrap_or_default();
    for (entry, (addr, size, type_)) in params.e820_table.iter_mut().zip(map) {
        *entry = boot_e820_entry { addr, size, r#type: type_ };
    }
    memory.write_slice(params.as_slice(), GuestAddress(low::ZERO_PAGE))?;
    Ok(Entry::Linux64 { rip: start + ENTRY_64 })
}
