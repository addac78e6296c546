use super::*;
use proptest::prelude::*;
use std::io::Write;

fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn open(bytes: &[u8]) -> Result<Kernel, BootError> {
    Kernel::open(file(bytes).path(), None, "", "64M".parse().unwrap())
}

/// Makes a bzImage of `sectors` setup sectors and a kernel of `length` bytes (Linux boot protocol).
fn bzimage(length: u32) -> Vec<u8> {
    let mut image = vec![0; 1024 + length as usize];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[1]);
    put(0x1f4, &(length / 16).to_le_bytes());
    put(0x202, b"HdrS");
    put(0x206, &0x020fu16.to_le_bytes());
    put(0x211, &[1]);
    put(0x22c, &0x7fff_ffffu32.to_le_bytes());
    put(0x236, &3u16.to_le_bytes());
    put(0x258, &(16u64 << 20).to_le_bytes());
    put(0x260, &(8u32 << 20).to_le_bytes());
    for (index, byte) in image[1024..].iter_mut().enumerate() {
        *byte = index as u8;
    }
    image
}

/// Makes a PVH ELF with one loadable segment and one note (ELF gABI, Xen PVH).
pub(crate) fn pvh_elf(address: u64, payload: &[u8], memory_size: u64) -> Vec<u8> {
    let mut image = vec![0; 64 + 2 * 56];
    image[..6].copy_from_slice(b"\x7fELF\x02\x01");
    image[18..20].copy_from_slice(&62u16.to_le_bytes());
    image[32..40].copy_from_slice(&64u64.to_le_bytes());
    image[54..56].copy_from_slice(&56u16.to_le_bytes());
    image[56..58].copy_from_slice(&2u16.to_le_bytes());
    let mut note = Vec::new();
    for word in [4u32, 4, 18] {
        note.extend(word.to_le_bytes());
    }
    note.extend(b"Xen\0");
    note.extend(0x0100_0200u32.to_le_bytes());
    let mut header = |index: usize, kind: u32, offset: u64, at: u64, file: u64, memory: u64| {
        let base = 64 + 56 * index;
        image[base..base + 4].copy_from_slice(&kind.to_le_bytes());
        for (field, value) in [(8, offset), (24, at), (32, file), (40, memory)] {
            image[base + field..base + field + 8].copy_from_slice(&value.to_le_bytes());
        }
    };
    header(0, 1, 176, address, payload.len() as u64, memory_size);
    header(1, 4, 176 + payload.len() as u64, 0, note.len() as u64, note.len() as u64);
    image.extend(payload);
    image.extend(note);
    image
}

fn memory() -> GuestMemory {
    crate::memory::allocate("64M".parse().unwrap(), false).unwrap()
}

#[test]
fn a_bzimage_is_loaded_with_its_command_line_and_initrd() {
    let kernel = file(&bzimage(64 << 10));
    let initrd = file(&[7; 5000]);
    let mut kernel =
        Kernel::open(kernel.path(), Some(initrd.path()), "quiet", "64M".parse().unwrap()).unwrap();
    let memory = memory();
    let entry = kernel.load(&memory, 0xe0000).unwrap();
    assert_eq!(entry, Entry::Linux64 { rip: 0x10_0200 });
    let read = |at: u64, length: usize| {
        let mut bytes = vec![0; length];
        memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
        bytes
    };
    assert_eq!(read(0x10_0000, 4), [0, 1, 2, 3]);
    assert_eq!(read(layout::low::CMDLINE, 6), b"quiet\0");
    let zero_page = layout::low::ZERO_PAGE;
    let word = |at: u64| u32::from_le_bytes(read(zero_page + at, 4).try_into().unwrap());
    let (initrd_at, initrd_size) = (word(0x218), word(0x21c));
    assert_eq!((initrd_at % 4096, initrd_size), (0, 5000));
    assert_eq!(read(u64::from(initrd_at), 2), [7, 7]);
    assert_eq!(u64::from(word(0x070)), 0xe0000, "where the ACPI tables start");
    assert_eq!(u64::from(word(0x228)), layout::low::CMDLINE);
    assert_eq!(kernel.load(&memory, 0xe0000).unwrap(), entry, "and again for a reset");
}

#[test]
fn a_pvh_elf_is_loaded_and_its_bss_cleared_even_after_a_reset() {
    let mut kernel = open(&pvh_elf(0x100_0000, b"code", 8192)).unwrap();
    let memory = memory();
    memory.write_slice(&[0xff; 9000], GuestAddress(0x100_0000)).unwrap();
    let entry = kernel.load(&memory, 0xe0000).unwrap();
    assert_eq!(entry, Entry::Pvh { rip: 0x0100_0200 });
    let mut bytes = vec![0; 9000];
    memory.read_slice(&mut bytes, GuestAddress(0x100_0000)).unwrap();
    assert_eq!(&bytes[..5], b"code\0");
    assert!(bytes[4..8192].iter().all(|b| *b == 0) && bytes[8192] == 0xff);
}

#[test]
fn bad_files_are_named_with_what_is_wrong() {
    let good = bzimage(64 << 10);
    let mut old = good.clone();
    old[0x206] = 0;
    let mut high = pvh_elf(0x100_0000, b"code", 4096);
    high[64 + 24 + 7] = 0xff;
    let cases: [(&[u8], &str); 9] = [
        (b"", "is empty"),
        (b"ab", "few bytes"),
        (&[b'x'; 5000], "neither an ELF nor a Linux boot header"),
        (&good[..30 << 10], "cut off"),
        (&good[..0x1f8], "neither an ELF nor a Linux boot header"),
        (&old, "64-bit kernel of Linux 3.8"),
        (b"\x7fELF", "cut off"),
        (&pvh_elf(0x100_0000, b"code", 4096)[..150], "cut off"),
        (&high, "no RAM"),
    ];
    for (bytes, says) in cases {
        let error = open(bytes).err().expect("refused").to_string();
        assert!(error.contains(says), "{error}");
    }
    let directory = tempfile::tempdir().unwrap();
    let size: MemorySize = "64M".parse().unwrap();
    let error = Kernel::open(directory.path(), None, "", size).err().unwrap().to_string();
    assert!(error.contains("is a directory"), "{error}");
    let error = Kernel::open(Path::new("/nonexistent"), None, "", size).err().unwrap().to_string();
    assert!(error.contains("no such file"), "{error}");
}

#[test]
fn what_does_not_fit_says_how_much_room_there_is() {
    let image = file(&bzimage(64 << 10));
    let size: MemorySize = "64M".parse().unwrap();
    let initrd = file(&[]);
    initrd.as_file().set_len(60 << 20).unwrap();
    let error = Kernel::open(image.path(), Some(initrd.path()), "", size).err().unwrap();
    let error = error.to_string();
    assert!(error.contains("needs 60 MiB but the guest has room for 40 MiB"), "{error}");
    let long = "x".repeat(2048);
    let error = Kernel::open(image.path(), None, &long, size).err().unwrap().to_string();
    assert!(error.contains("at most 2047"), "{error}");
    let big = pvh_elf(0x100_0000, b"code", 1 << 30);
    assert!(open(&big).err().unwrap().to_string().contains("raise --memory"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_kernel_file_makes_the_loader_panic(
        elf in any::<bool>(),
        cut in 0usize..2000,
        changes in prop::collection::vec((0usize..700, any::<u8>()), 0..20),
    ) {
        let mut image =
            if elf { pvh_elf(0x100_0000, b"code", 4096) } else { bzimage(4 << 10) };
        for (at, byte) in changes {
            if let Some(target) = image.get_mut(at) {
                *target = byte;
            }
        }
        image.truncate(image.len().saturating_sub(cut));
        if let Ok(mut kernel) = open(&image) {
            let _ = kernel.load(&memory(), 0xe0000);
        }
    }
}
