//! Whether a file is a kernel that `bulkhead-vmm` starts: what its loader asks of one (`vmm/src/boot`) for a guest that has as much memory as any.
//! Who packs a bundle learns it, and not the ward. A test holds the two against each other (`tests/tests/kernels.rs`).
//!
//! | begins with | is | has |
//! | --- | --- | --- |
//! | `\x7fELF` | a `vmlinux` | 64 bits for x86-64, something to load where a guest has memory, and a note with a PVH entry (Xen `elfnote.h`, `XEN_ELFNOTE_PHYS32_ENTRY`) |
//! | anything else | a `bzImage` | `HdrS` at 0x202, protocol 2.12 or newer, a 64-bit entry, room below 3 GiB (Linux `Documentation/arch/x86/boot.rst`) |

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Where the setup header of a bzImage is, and how long the part of it that is looked at.
const SETUP: u64 = 0x1f1;
const SETUP_LENGTH: usize = 0x26c - 0x1f1;
/// `HdrS`, little-endian.
const MAGIC: u64 = 0x5372_6448;
/// Protocol 2.12 brought the flag that says whether there is a 64-bit entry.
const VERSION_MIN: u64 = 0x020c;
/// The 64-bit entry is so far into the kernel behind the setup.
const ENTRY_64: u64 = 0x200;
const SECTOR: u64 = 512;
/// `XEN_ELFNOTE_PHYS32_ENTRY`.
const NOTE_PHYS32_ENTRY: u64 = 18;
const PT_LOAD: u64 = 1;
const PT_NOTE: u64 = 4;
/// `e_machine` of x86-64.
const EM_X86_64: u64 = 62;
/// Most program headers and bytes of notes that are looked at, as the loader does.
const HEADERS_MAX: u64 = 64;
const NOTES_MAX: u64 = 64 << 10;

/// Where a guest's memory begins that a kernel is loaded into, and where it ends at the latest before the devices' addresses
/// (`vmm/src/layout.rs`), in bytes.
const RAM_BEGIN: u64 = 1 << 20;
const RAM_END: u64 = 3 << 30;

/// What is wrong with a kernel.
pub(crate) type KernelFault = &'static str;
const NEITHER: KernelFault = "it has neither an ELF nor a Linux boot header";

/// Finds out whether the file has, from `begin` on, a kernel of `length` bytes.
///
/// # Errors
/// The file cannot be read; within that, what is wrong with the kernel.
pub(crate) fn check(file: &File, begin: u64, length: u64) -> io::Result<Result<(), KernelFault>> {
    let kernel = Kernel { file, begin, length };
    match kernel.read(0, 4)?.as_deref() {
        Some(b"\x7fELF") => elf(&kernel),
        _ => bzimage(&kernel),
    }
}

/// A kernel within a file.
struct Kernel<'a> {
    file: &'a File,
    begin: u64,
    length: u64,
}

impl Kernel<'_> {
    /// Reads so many bytes; `None` if it ends before.
    fn read(&self, at: u64, length: usize) -> io::Result<Option<Vec<u8>>> {
        let end = u64::try_from(length).ok().and_then(|length| at.checked_add(length));
        if end.is_none_or(|end| end > self.length) {
            return Ok(None);
        }
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, self.begin.saturating_add(at))?;
        Ok(Some(bytes))
    }
}

/// Reads a little-endian number of so many bytes; zero where the bytes end before it does.
fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    let place = at.checked_add(length).and_then(|end| bytes.get(at..end)).unwrap_or_default();
    place.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn bzimage(kernel: &Kernel<'_>) -> io::Result<Result<(), KernelFault>> {
    let Some(setup) = kernel.read(SETUP, SETUP_LENGTH)? else { return Ok(Err(NEITHER)) };
    // From the setup's beginning: boot.rst, "The Real-Mode Kernel Header".
    let field = |offset: usize, length| number(&setup, offset.saturating_sub(0x1f1), length);
    if field(0x202, 4) != MAGIC {
        return Ok(Err(NEITHER));
    }
    let (loaded_high, kernel_64) = (field(0x211, 1) & 1 == 1, field(0x236, 2) & 1 == 1);
    if field(0x206, 2) < VERSION_MIN || !loaded_high || !kernel_64 {
        return Ok(Err("it is not a 64-bit kernel of Linux 3.8 or newer"));
    }
    let sectors = match field(0x1f1, 1) {
        0 => 4,
        sectors => sectors,
    };
    let there = kernel.length.saturating_sub(sectors.saturating_add(1).saturating_mul(SECTOR));
    // In paragraphs of 16 bytes, of which the last may be missing.
    let promised = field(0x1f4, 4).saturating_mul(16);
    if there <= ENTRY_64 || there.saturating_add(16) <= promised {
        return Ok(Err("it is cut off"));
    }
    let (preferred, while_it_starts) = (field(0x258, 8), field(0x260, 4));
    let takes = RAM_BEGIN.max(preferred).saturating_add(there.max(while_it_starts));
    Ok(if preferred > RAM_END {
        Err("it wants to be loaded above 3 GiB")
    } else if takes > RAM_END {
        Err("it needs more memory below 3 GiB than any guest has")
    } else {
        Ok(())
    })
}

fn elf(kernel: &Kernel<'_>) -> io::Result<Result<(), KernelFault>> {
    let Some(header) = kernel.read(0, 64)? else { return Ok(Err("its ELF header is cut off")) };
    if header.get(4..6) != Some(&[2, 1]) || number(&header, 18, 2) != EM_X86_64 {
        return Ok(Err("it is an ELF file, but not for x86-64"));
    }
    let (table, count) = (number(&header, 32, 8), number(&header, 56, 2));
    if number(&header, 54, 2) != 56 || !(1..=HEADERS_MAX).contains(&count) {
        return Ok(Err("its ELF program headers make no sense"));
    }
    let (mut loads, mut has_entry) = (false, false);
    for index in 0..count {
        let Some(raw) = kernel.read(table.saturating_add(index.saturating_mul(56)), 56)? else {
            return Ok(Err("its program headers are cut off"));
        };
        let (offset, in_file) = (number(&raw, 8, 8), number(&raw, 32, 8));
        match number(&raw, 0, 4) {
            PT_LOAD if number(&raw, 40, 8) > 0 => {
                if offset.checked_add(in_file).is_none_or(|end| end > kernel.length) {
                    return Ok(Err("it is cut off"));
                }
                let (address, in_memory) = (number(&raw, 24, 8), number(&raw, 40, 8));
                let end = address.checked_add(in_memory);
                let is_ram = address >= RAM_BEGIN && end.is_some_and(|end| end <= RAM_END);
                if in_file > in_memory || !is_ram {
                    return Ok(Err("it wants to be loaded where no guest has memory"));
                }
                loads = true;
            }
            PT_NOTE if !has_entry => {
                let length = usize::try_from(in_file.min(NOTES_MAX)).unwrap_or_default();
                let Some(notes) = kernel.read(offset, length)? else {
                    return Ok(Err("its notes are cut off"));
                };
                has_entry = names_entry(&notes);
            }
            _ => {}
        }
    }
    Ok(match (has_entry, loads) {
        (false, _) => Err("it is an ELF file without a PVH entry (CONFIG_PVH is off)"),
        (true, false) => Err("it has nothing to load"),
        (true, true) => Ok(()),
    })
}

/// Returns whether one of the notes is that of the PVH entry: name `Xen`, and an address.
fn names_entry(notes: &[u8]) -> bool {
    let padded = |at: usize| {
        usize::try_from(number(notes, at, 4)).ok().and_then(|size| size.checked_next_multiple_of(4))
    };
    let mut at = 0_usize;
    while at.checked_add(12).is_some_and(|end| end <= notes.len()) {
        let name = at.saturating_add(12);
        let sizes = padded(at).zip(padded(at.saturating_add(4)));
        let Some((name_size, value_size)) = sizes else { return false };
        let value = name.saturating_add(name_size);
        let end = value.saturating_add(value_size);
        if end > notes.len() {
            return false;
        }
        let is_entry = number(notes, at.saturating_add(8), 4) == NOTE_PHYS32_ENTRY;
        if is_entry && notes.get(name..value) == Some(b"Xen\0") && value_size >= 4 {
            return true;
        }
        at = end;
    }
    false
}

/// Returns what is wrong with a file as a kernel, for the test that holds this against the VMM.
///
/// # Errors
/// The file cannot be read.
#[cfg(any(test, feature = "testing"))]
pub fn check_kernel_for_tests(file: &File) -> io::Result<Result<(), &'static str>> {
    check(file, 0, file.metadata()?.len())
}

/// Makes a bzImage that does nothing, and ends with this text: for tests.
#[cfg(any(test, feature = "testing"))]
#[must_use]
pub fn bzimage_for_tests(text: &str) -> Vec<u8> {
    let mut bytes = vec![0_u8; 4096];
    let mut put = |at: usize, field: &[u8]| {
        for (to, from) in bytes.iter_mut().skip(at).zip(field) {
            *to = *from;
        }
    };
    put(0x1f1, &[4]);
    put(0x202, b"HdrS");
    put(0x206, &[0x0f, 0x02]);
    put(0x211, &[1]);
    put(0x236, &[1]);
    bytes.extend(text.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn checked(bytes: &[u8]) -> Result<(), KernelFault> {
        let mut file = tempfile::tempfile().unwrap();
        // Within a bundle others stand before it and behind.
        file.write_all(b"before").unwrap();
        file.write_all(bytes).unwrap();
        file.write_all(b"behind").unwrap();
        check(&file, 6, bytes.len() as u64).unwrap()
    }

    /// A vmlinux with one segment and one note.
    fn vmlinux() -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[18] = 62;
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = 2;
        for (kind, offset, size) in [(1_u32, 200_u64, 8_u64), (4, 176, 24)] {
            let mut header = [0; 56];
            header[..4].copy_from_slice(&kind.to_le_bytes());
            header[8..16].copy_from_slice(&offset.to_le_bytes());
            header[32..40].copy_from_slice(&size.to_le_bytes());
            header[40..48].copy_from_slice(&size.to_le_bytes());
            header[24..32].copy_from_slice(&(16_u64 << 20).to_le_bytes());
            bytes.extend(header);
        }
        for word in [4_u32, 8, 18] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(b"Xen\0");
        bytes.extend([0; 8]);
        bytes.extend(b"the code");
        bytes
    }

    #[test]
    fn a_bzimage_and_a_vmlinux_with_a_pvh_entry_are_kernels_and_nothing_else_is() {
        let good = bzimage_for_tests("");
        assert_eq!((checked(&good), checked(&vmlinux())), (Ok(()), Ok(())));
        assert_eq!(checked(b"a kernel"), Err(NEITHER));
        assert_eq!(checked(&[0; 5000]), Err(NEITHER));
        assert_eq!(checked(b"\x7fELF"), Err("its ELF header is cut off"));
        let with = |bytes: &[u8], at: usize, to: u8| {
            let mut changed = bytes.to_vec();
            changed[at] = to;
            checked(&changed).unwrap_err()
        };
        assert!(with(&good, 0x206, 0x0b).contains("Linux 3.8"));
        assert!(with(&good, 0x236, 0).contains("Linux 3.8"));
        assert!(with(&good, 0x1f5, 0xff).contains("cut off"));
        assert!(checked(&good[..3000]).unwrap_err().contains("cut off"));
        assert!(with(&good, 0x25b, 0xc1).contains("above 3 GiB"));
        assert!(with(&good, 0x263, 0xc0).contains("than any guest has"));
        let good = vmlinux();
        for (place, to) in [(91, 0xc0), (95, 0xff), (91, 0), (104, 7)] {
            assert!(with(&good, place, to).contains("no guest has memory"), "{place}");
        }
        assert!(with(&good, 18, 3).contains("x86-64"));
        assert!(with(&good, 56, 0).contains("make no sense"));
        assert!(with(&good, 184, 17).contains("without a PVH entry"));
        assert!(with(&good, 64, 9).contains("nothing to load"));
        assert!(checked(&good[..good.len() - 1]).unwrap_err().contains("cut off"));
    }

    proptest! {
        #[test]
        fn whatever_a_file_holds_it_is_a_kernel_or_none(
            elf: bool, at in 0_usize..240, bytes in prop::collection::vec(any::<u8>(), 0..80), cut in 0_usize..240
        ) {
            let mut file = if elf { vmlinux() } else { bzimage_for_tests("") };
            for (to, from) in file.iter_mut().skip(at).zip(&bytes) {
                *to = *from;
            }
            file.truncate(file.len() - cut.min(file.len()));
            let _ = checked(&file);
        }
    }
}
