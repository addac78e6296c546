//! A guest that does its worst to the block device.
#![allow(clippy::expect_used, reason = "a fuzz target stops where the host fails it")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::{Blk, Disk};
use crate::fuzz::{Stream, TAIL, drive};

/// Sectors of the disk.
const SECTORS: u64 = 24;

/// Drives the block device, on an image in memory.
pub fn run(data: &[u8]) {
    let mut stream = Stream::new(data);
    let image = memfd_create(c"image", MFdFlags::MFD_CLOEXEC).expect("memory file");
    let image = File::from(image);
    image.set_len(SECTORS * 512).expect("memory");
    image.write_all_at(&TAIL, SECTORS * 512).expect("memory");
    let read_only = stream.byte() & 3 == 0;
    let file = image.try_clone().expect("descriptors");
    let disk = Disk::from_file(file, Path::new("image"), read_only, "fuzz").expect("a disk");

    drive(Blk::new(disk).expect("descriptors"), stream, |_, _| ());

    let mut bytes = Vec::new();
    let length = image.metadata().expect("memory file").len();
    assert_eq!(length, SECTORS * 512 + TAIL.len() as u64);
    bytes.resize(usize::try_from(length).expect("small"), 0);
    image.read_exact_at(&mut bytes, 0).expect("memory");
    let (disk, tail) = bytes.split_at(bytes.len() - TAIL.len());
    assert_eq!(tail, TAIL, "written beyond the last sector");
    assert!(!read_only || disk.iter().all(|&byte| byte == 0), "written though read-only");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        // Shows: K-3.1.1, K-5.6.2.
        #[test]
        fn the_block_device_survives_any_guest_and_keeps_to_its_sectors(
            data in proptest::collection::vec(any::<u8>(), 0..1500),
        ) {
            super::run(&data);
        }
    }
}
