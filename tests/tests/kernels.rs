//! Who packs a guest image learns what its ward's VMM would say of the kernel in it: both checks take and refuse the same files.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "clippy.toml allows it in tests and does not know that this is one"
)]

use std::io::Write;

use images::{bzimage_for_tests, check_kernel_for_tests};
use proptest::prelude::*;
use vmm::boot::Kernel;

/// As much memory below the devices' addresses as any guest has, and some above.
const MEMORY: &str = "4G";
/// Where a `bzImage` of [`bzimage_for_tests`] says what the two read: setup's sectors, length, `HdrS`, version, flags, and what it takes.
const BZIMAGE_FIELDS: [std::ops::Range<usize>; 6] =
    [0x1f1..0x1f2, 0x1f4..0x1f8, 0x202..0x208, 0x211..0x212, 0x236..0x238, 0x258..0x264];

/// A `vmlinux` with one segment and one note.
fn vmlinux() -> Vec<u8> {
    let mut bytes = vec![0; 64];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(0, b"\x7fELF\x02\x01");
    put(18, &[62]);
    put(32, &[64]);
    put(54, &[56]);
    put(56, &[2]);
    let mut header = |kind: u32, offset: u64, address: u64, in_file: u64, in_memory: u64| {
        let mut header = [0; 56];
        header[..4].copy_from_slice(&kind.to_le_bytes());
        for (at, field) in [(8, offset), (24, address), (32, in_file), (40, in_memory)] {
            header[at..at + 8].copy_from_slice(&field.to_le_bytes());
        }
        bytes.extend(header);
    };
    header(1, 200, 16 << 20, 8, 4096);
    header(4, 176, 0, 24, 24);
    for word in [4_u32, 8, 18] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(b"Xen\0");
    bytes.extend([0; 8]);
    bytes.extend(b"the code");
    bytes
}

/// What both say of a file: nothing where they take it, and else why not.
fn said(bytes: &[u8]) -> [Option<String>; 2] {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let packed = check_kernel_for_tests(file.as_file()).unwrap();
    let opened = Kernel::open(file.path(), None, "", MEMORY.parse().unwrap());
    [packed.err().map(str::to_owned), opened.err().map(|error| error.to_string())]
}

fn with(mut bytes: Vec<u8>, at: usize, field: &[u8]) -> Vec<u8> {
    bytes[at..at + field.len()].copy_from_slice(field);
    bytes
}

#[test]
fn what_is_packed_as_a_kernel_is_what_a_vmm_starts() {
    let bzimage = || bzimage_for_tests(&"code".repeat(300));
    let long = |kernel: Vec<u8>| [kernel, vec![0; 70 << 10]].concat();
    for (what, bytes) in [
        ("a bzImage", bzimage()),
        (
            "one whose last paragraph is not all there",
            with(bzimage_for_tests(&"x".repeat(1201)), 0x1f4, &[172]),
        ),
        ("one that names no sectors of its setup", with(bzimage(), 0x1f1, &[0])),
        ("one that takes all there is", with(bzimage(), 0x258, &0xbfff_0000_u64.to_le_bytes())),
        ("a vmlinux", vmlinux()),
        ("one that fills memory", with(vmlinux(), 104, &0xbf00_0000_u64.to_le_bytes())),
        ("one with more notes than are read", with(long(vmlinux()), 152, &[0, 0, 1, 1])),
    ] {
        assert_eq!(said(&bytes), [None, None], "{what}");
    }
    for (what, bytes) in [
        ("nothing", Vec::new()),
        ("two bytes", b"ab".to_vec()),
        ("a text", vec![b'x'; 5000]),
        ("a bzImage without its header's end", bzimage()[..0x268].to_vec()),
        ("one of old", with(bzimage(), 0x206, &[0x0b])),
        ("one that is loaded low", with(bzimage(), 0x211, &[0])),
        ("one without a 64-bit entry", with(bzimage(), 0x236, &[0])),
        ("one that is cut off", bzimage()[..3000].to_vec()),
        ("one that promises more", with(bzimage(), 0x1f4, &[0xff; 4])),
        ("one for above 3 GiB", with(bzimage(), 0x258, &0xc000_0001_u64.to_le_bytes())),
        ("one for the end of all", with(bzimage(), 0x258, &[0xff; 8])),
        ("one that takes too much", with(bzimage(), 0x260, &[0xff; 4])),
        ("one just too large", with(bzimage(), 0x258, &0xbfff_ffff_u64.to_le_bytes())),
        ("an ELF header", b"\x7fELF".to_vec()),
        ("one of 32 bits", with(vmlinux(), 4, &[1])),
        ("one for another processor", with(vmlinux(), 18, &[3])),
        ("program headers of another size", with(vmlinux(), 54, &[32])),
        ("none of them", with(vmlinux(), 56, &[0, 0])),
        ("too many", with(vmlinux(), 56, &[65, 0])),
        ("some behind the file", with(vmlinux(), 32, &[0xff; 8])),
        ("nothing to load", with(vmlinux(), 64, &[9])),
        ("a segment behind the file", with(vmlinux(), 72, &[0xff; 8])),
        ("one below memory", with(vmlinux(), 88, &0xf_ffff_u64.to_le_bytes())),
        ("one above it", with(vmlinux(), 88, &0xbfff_f001_u64.to_le_bytes())),
        ("one around the end of all addresses", with(vmlinux(), 88, &[0xff; 8])),
        ("one larger in the file than in memory", with(vmlinux(), 104, &[7, 0])),
        ("no note", with(vmlinux(), 120, &[9])),
        ("a note that is cut off", with(vmlinux(), 152, &[0xff])),
        ("one of somebody else's", with(vmlinux(), 188, b"Yen\0")),
        ("one of another kind", with(vmlinux(), 184, &[17])),
        ("one with too short an address", with(vmlinux(), 180, &[0])),
        ("one that has no end", with(vmlinux(), 176, &[0xff; 4])),
    ] {
        let said = said(&bytes);
        assert!(said.iter().all(Option::is_some), "{what}: {said:?}");
    }
}

/// A byte as it may stand there by mistake.
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![Just(0), Just(1), Just(0xff), any::<u8>()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whatever_is_in_its_headers_a_file_is_a_kernel_to_both_or_to_neither(
        elf: bool, changes in prop::collection::vec((any::<prop::sample::Index>(), byte()), 0..5), cut in prop_oneof![4 => Just(0_usize), 1 => 0_usize..3000]
    ) {
        let (mut bytes, places): (_, Vec<usize>) = match elf {
            true => (vmlinux(), (0..200).collect()),
            false => (bzimage_for_tests(&"code".repeat(300)), BZIMAGE_FIELDS.into_iter().flatten().collect()),
        };
        for (place, byte) in changes {
            bytes[places[place.index(places.len())]] = byte;
        }
        bytes.truncate(bytes.len() - cut.min(bytes.len()));
        let [packed, opened] = said(&bytes);
        prop_assert_eq!(packed.is_none(), opened.is_none(), "packed: {:?}, opened: {:?}", packed, opened);
    }
}
