//! Getting a Linux kernel into guest memory and the boot vCPU to its first instruction.
//!
//! 1. [`Kernel::open`] looks at the file: bzImage (64-bit boot protocol) or ELF with a PVH note.
//! 2. [`Kernel::load`] puts kernel, initrd and command line into memory and writes the boot
//!    parameters of the protocol; it can be called again for every reset, from the open files.
//! 3. The [`Entry`] it returns says in which mode and with which registers the vCPU starts.

mod bzimage;
mod pvh;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use virtio::GuestMemory;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use crate::layout;
use vmm_control::MemorySize;
use vmm_control::limits::CMDLINE_MAX;

/// Why a guest cannot be booted from these files.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// A file could not be opened.
    #[error("could not open {what} {}: {reason}", path.display())]
    Open {
        /// `kernel` or `initrd`.
        what: &'static str,
        path: PathBuf,
        /// In words, with the remedy.
        reason: String,
    },
    /// The file is no kernel that this VMM can boot.
    #[error("{} is not a kernel this VMM can boot: {reason}; give it a bzImage (vmlinuz) or a PVH ELF (vmlinux)", path.display())]
    NotAKernel {
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The guest's RAM has no room for the file.
    #[error("{what} {} needs {need} MiB but the guest has room for {room} MiB; raise --memory", path.display())]
    TooLarge {
        /// `kernel` or `initrd`.
        what: &'static str,
        path: PathBuf,
        /// What the file takes, in MiB.
        need: u64,
        /// What there is for it, in MiB.
        room: u64,
    },
    /// The command line is longer than Linux takes, which would cut it off. Its length in bytes.
    #[error("the kernel command line is {0} bytes long; Linux takes at most {max}; shorten --cmdline", max = CMDLINE_MAX)]
    CommandLine(usize),
    /// The command line has a zero byte in it.
    #[error("the kernel command line has a zero byte in it; remove it from --cmdline")]
    CommandLineZero,
    /// A write to guest memory failed: the layout is wrong.
    #[error("could not write the boot parameters to guest memory")]
    Memory(#[from] vm_memory::GuestMemoryError),
    /// The file changed or went away between opening and loading.
    #[error("could not read {what} {}", path.display())]
    Read {
        /// `kernel` or `initrd`.
        what: &'static str,
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// How the boot vCPU starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Long mode, `rsi` = boot parameters (Linux x86 boot protocol, "64-bit boot protocol").
    Linux64 {
        /// The address of the first instruction.
        rip: u64,
    },
    /// 32-bit protected mode without paging, `ebx` = start information (Xen "PVH direct boot").
    Pvh {
        /// The address of the first instruction.
        rip: u64,
    },
}

/// A file that stays open so that a reset can load it again from inside the sandbox.
struct Image {
    what: &'static str,
    path: PathBuf,
    file: File,
    length: u64,
}

impl Image {
    fn open(what: &'static str, path: &Path) -> Result<Self, BootError> {
        let fail = |reason: String| BootError::Open { what, path: path.to_owned(), reason };
        let file = File::open(path).map_err(|e| {
            fail(match e.kind() {
                io::ErrorKind::NotFound => "there is no such file; check the path".into(),
                io::ErrorKind::PermissionDenied => {
                    "permission denied; make it readable to the user who runs the VMM".into()
                }
                _ => e.to_string(),
            })
        })?;
        let metadata = file.metadata().map_err(|e| fail(e.to_string()))?;
        if metadata.is_dir() {
            return Err(fail("it is a directory; name the file in it".into()));
        }
        if metadata.len() == 0 {
            return Err(fail("it is empty; copy it again".into()));
        }
        Ok(Self { what, path: path.to_owned(), file, length: metadata.len() })
    }

    fn read_error(&self, source: io::Error) -> BootError {
        BootError::Read { what: self.what, path: self.path.clone(), source }
    }

    fn not_a_kernel(&self, reason: impl Into<String>) -> BootError {
        BootError::NotAKernel { path: self.path.clone(), reason: reason.into() }
    }

    fn too_large(&self, need: u64, room: u64) -> BootError {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        BootError::TooLarge {
            what: self.what,
            path: self.path.clone(),
            need: mib(need),
            room: room >> 20,
        }
    }

    /// Copies `length` bytes from `offset` of the file to guest memory.
    fn copy_to(
        &mut self,
        memory: &GuestMemory,
        offset: u64,
        to: GuestAddress,
        length: u64,
    ) -> Result<(), BootError> {
        self.file.seek(SeekFrom::Start(offset)).map_err(|e| self.read_error(e))?;
        let length = usize::try_from(length)
            .map_err(|_| self.read_error(io::ErrorKind::InvalidData.into()))?;
        memory
            .read_exact_volatile_from(to, &mut self.file, length)
            .map_err(|e| self.read_error(io::Error::other(e)))
    }

    /// Returns the first `N` bytes at `offset`.
    fn head<const N: usize>(&mut self, offset: u64) -> io::Result<[u8; N]> {
        let mut head = [0; N];
        self.file.seek(SeekFrom::Start(offset))?;
        self.file.read_exact(&mut head)?;
        Ok(head)
    }
}

enum Format {
    BzImage(bzimage::Header),
    Pvh(pvh::Program),
}

/// A kernel with its initrd and command line, ready to be loaded as often as needed.
pub struct Kernel {
    image: Image,
    format: Format,
    initrd: Option<Image>,
    cmdline: String,
}

/// An initrd in guest memory.
#[derive(Clone, Copy, Debug)]
struct LoadedInitrd {
    address: u64,
    length: u64,
}

impl Kernel {
    /// Opens the files and checks everything about them that can be wrong.
    pub fn open(
        kernel: &Path,
        initrd: Option<&Path>,
        cmdline: &str,
        memory: MemorySize,
    ) -> Result<Self, BootError> {
        if cmdline.len() > CMDLINE_MAX {
            return Err(BootError::CommandLine(cmdline.len()));
        }
        if cmdline.contains('\0') {
            return Err(BootError::CommandLineZero);
        }
        let mut image = Image::open("kernel", kernel)?;
        let magic: [u8; 4] =
            image.head(0).map_err(|_| image.not_a_kernel("it is only a few bytes long"))?;
        let format = if magic == *b"\x7fELF" {
            Format::Pvh(pvh::parse(&mut image)?)
        } else {
            Format::BzImage(bzimage::parse(&mut image)?)
        };
        let initrd = initrd.map(|path| Image::open("initrd", path)).transpose()?;
        let this = Self { image, format, initrd, cmdline: cmdline.to_owned() };
        this.check_room(memory)?;
        Ok(this)
    }

    /// Returns the first address after the kernel's own needs, in bytes.
    fn kernel_end(&self) -> u64 {
        match &self.format {
            Format::BzImage(header) => header.end(),
            Format::Pvh(program) => program.end(),
        }
    }

    fn check_room(&self, memory: MemorySize) -> Result<(), BootError> {
        if self.kernel_end() > layout::low_ram(memory) {
            return Err(self.image.too_large(self.kernel_end(), layout::low_ram(memory)));
        }
        if let Some(initrd) = &self.initrd {
            let room =
                self.initrd_ceiling(layout::low_ram(memory)).saturating_sub(self.kernel_end());
            if initrd.length.next_multiple_of(4096) > room {
                return Err(initrd.too_large(initrd.length, room));
            }
        }
        Ok(())
    }

    /// Returns the address that the initrd must end at or below this address.
    fn initrd_ceiling(&self, low_ram: u64) -> u64 {
        match &self.format {
            Format::BzImage(header) => low_ram.min(header.initrd_address_max().saturating_add(1)),
            Format::Pvh(_) => low_ram,
        }
    }

    /// Puts everything into memory. `rsdp` is where the ACPI tables start.
    pub fn load(&mut self, memory: &GuestMemory, rsdp: u64) -> Result<Entry, BootError> {
        let low_ram = memory.iter().next().map_or(0, |region| region.len());
        let ceiling = self.initrd_ceiling(low_ram);
        let kernel_end = self.kernel_end();
        let initrd = match &mut self.initrd {
            None => None,
            Some(image) => {
                let address = ceiling
                    .checked_sub(image.length)
                    .map(|address| address & !0xfff)
                    .filter(|address| *address >= kernel_end)
                    .ok_or_else(|| image.too_large(image.length, ceiling))?;
                image.copy_to(memory, 0, GuestAddress(address), image.length)?;
                Some(LoadedInitrd { address, length: image.length })
            }
        };
        let mut cmdline = self.cmdline.clone().into_bytes();
        cmdline.push(0);
        memory.write_slice(&cmdline, GuestAddress(layout::low::CMDLINE))?;
        match &self.format {
            Format::BzImage(header) => bzimage::load(&mut self.image, header, memory, initrd, rsdp),
            Format::Pvh(program) => pvh::load(&mut self.image, program, memory, initrd, rsdp),
        }
    }
}

/// Kinds of memory in an e820 map (ACPI 6.5 table 15.2).
const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;

/// Returns the memory map a guest is told: start, length in bytes, kind.
fn memory_map(memory: &GuestMemory) -> Vec<(u64, u64, u32)> {
    let mut map = vec![
        (0, layout::low::RAM_END, E820_RAM),
        (layout::low::ACPI, layout::RAM_1M - layout::low::ACPI, E820_RESERVED),
    ];
    for region in memory.iter() {
        let (start, end) = (region.start_addr().0, region.start_addr().0 + region.len());
        let start = start.max(layout::RAM_1M);
        if end > start {
            map.push((start, end - start, E820_RAM));
        }
    }
    map.push((layout::ECAM_START, layout::ECAM_SIZE, E820_RESERVED));
    map
}

#[cfg(test)]
pub(crate) mod tests;
