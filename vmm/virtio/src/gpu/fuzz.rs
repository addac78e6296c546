//! A guest that does its worst to the GPU.
#![allow(clippy::expect_used, reason = "a fuzz target stops where the host fails it")]

use std::fs::File;
use std::os::unix::fs::FileExt;

use nix::sys::memfd::{MFdFlags, memfd_create};
use seat_link::{CursorChange, Rect, Size};

use super::{Frame, Gpu, Viewer};
use crate::fuzz::{Stream, TAIL, drive};

/// Drives the GPU, on a screen of 40 by 30 pixels with guard bytes behind it, and another screen now and then.
pub fn run(data: &[u8]) {
    const SIZE: Size = Size { width: 40, height: 30 };
    let guarded = |size: Size| {
        let file = memory_file(size.frame_bytes() + TAIL.len());
        file.write_all_at(&TAIL, size.frame_bytes() as u64).expect("memory");
        file
    };
    let file = guarded(SIZE);
    let (gpu, handle) = Gpu::new(Box::new(Nobody)).expect("descriptors");
    handle.show_on(Frame::map(file.try_clone().expect("descriptors"), SIZE).expect("fits"));
    drive(gpu, Stream::new(data), |stream, _| {
        let size = Size { width: 1 + u32::from(stream.byte() % 64), height: 16 };
        handle.show_on(Frame::map(guarded(size), size).expect("fits"));
    });
    let mut tail = [0; TAIL.len()];
    file.read_exact_at(&mut tail, SIZE.frame_bytes() as u64).expect("memory");
    assert_eq!(tail, TAIL, "written beyond the last row");
}

/// Looks at a screen and takes what it is told without a word.
struct Nobody;

impl Viewer for Nobody {
    fn picture(&mut self, size: Option<Size>) {
        assert!(size.is_none_or(|size| size.width > 0 && size.height > 0));
    }
    fn damage(&mut self, rect: Rect) {
        assert!(rect.right() <= Size::MAX && rect.bottom() <= Size::MAX);
    }
    fn cursor(&mut self, _cursor: CursorChange) {}
}

fn memory_file(len: usize) -> File {
    let file = File::from(memfd_create("fuzz", MFdFlags::MFD_CLOEXEC).expect("memory"));
    file.set_len(len as u64).expect("memory");
    file
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn the_gpu_survives_any_guest(
            data in proptest::collection::vec(any::<u8>(), 0..1500),
        ) {
            super::run(&data);
        }
    }
}
