use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FallocateFlags, fallocate};
use nix::poll::{PollFd, PollFlags, poll};
use proptest::prelude::*;

use super::*;

const SIZE: Size = Size { width: 48, height: 32 };

/// Memory of which each read waits until it is let go on, or its other end is gone, and then fails.
pub(crate) struct Withheld(mpsc::Receiver<()>);

impl FileExt for Withheld {
    fn read_at(&self, to: &mut [u8], _: u64) -> io::Result<usize> {
        self.0.recv().map_err(io::Error::other)?;
        to.fill(0x5a);
        Ok(to.len())
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Makes a frame whose pixels are withheld, and what lets one read after the other go on.
pub(crate) fn withheld(size: Size) -> (Frame, mpsc::Sender<()>) {
    let (go_on, source) = mpsc::channel();
    let memory = memory("bulkhead-frame", size).unwrap();
    (Frame::with_source(memory, Withheld(source), size).unwrap(), go_on)
}

/// Waits until something is to be read there; false if nothing is for this many milliseconds.
pub(crate) fn readable(fd: BorrowedFd<'_>, millis: u16) -> bool {
    poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], millis).unwrap() == 1
}

/// Fetches a part of a frame and waits for it.
pub(crate) fn fetch(frame: &Frame, part: Rect) -> io::Result<()> {
    frame.fetch(part);
    assert!(readable(frame.fetched_fd(), 10_000));
    frame.fetched().unwrap()
}

/// Maps a frame's memory as its VMM does.
fn mapped(frame: &Frame) -> MmapRegion {
    let file = File::from(frame.fd().try_clone_to_owned().unwrap());
    MmapRegion::from_file(FileOffset::new(file, 0), frame.size().frame_bytes()).unwrap()
}

fn row(frame: &Frame, y: u32) -> Vec<u8> {
    let mut row = vec![0x77; frame.size().width as usize * 4];
    frame.copy_row(0, y, &mut row);
    row
}

/// Returns how many mappings of this process are of this file.
fn mappings(of: &File) -> usize {
    let inode = of.metadata().unwrap().ino().to_string();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let of_it = |line: &&str| {
        line.contains("memfd:bulkhead-frame") && line.split(' ').any(|word| word == inode)
    };
    maps.lines().filter(of_it).count()
}

#[test]
fn what_a_vmm_wrote_is_seen_once_it_was_fetched_and_nothing_of_it_before() {
    let frame = Frame::new(SIZE).unwrap();
    let vmm = mapped(&frame);
    vmm.as_volatile_slice().copy_from(&vec![0xaa_u8; SIZE.frame_bytes()]);
    assert_eq!(row(&frame, 3), vec![0; 48 * 4]);
    fetch(&frame, Rect { x: 0, y: 0, width: 48, height: 4 }).unwrap();
    assert_eq!(row(&frame, 3), vec![0xaa; 48 * 4]);
    assert_eq!(row(&frame, 4), vec![0; 48 * 4]);
    assert!(frame.fetched().is_none());
}

// A page of the VMM's that is touched can be waited for without end, and whoever waits for one in a mapping may keep the process from mapping anything.
#[test]
fn the_memory_that_a_vmm_has_is_nowhere_mapped_in_the_agent() {
    let frame = Frame::new(SIZE).unwrap();
    let vmm = mapped(&frame);
    assert_eq!(mappings(&frame.memory), 1, "the VMM's of this test");
    drop(vmm);
    fetch(&frame, Rect::all(SIZE)).unwrap();
    assert_eq!(row(&frame, 0), vec![0; 48 * 4]);
    assert_eq!(mappings(&frame.memory), 0);
}

#[test]
fn a_vmm_that_keeps_its_pages_makes_nobody_wait_and_its_frame_is_dropped_all_the_same() {
    let (frame, go_on) = withheld(SIZE);
    frame.fetch(Rect { x: 0, y: 0, width: 1, height: 2 });
    assert!(!readable(frame.fetched_fd(), 50) && frame.fetched().is_none());
    assert_eq!(row(&frame, 0), vec![0; 48 * 4]);
    // A read for each row.
    go_on.send(()).unwrap();
    assert!(!readable(frame.fetched_fd(), 50) && frame.fetched().is_none());
    go_on.send(()).unwrap();
    assert!(readable(frame.fetched_fd(), 10_000));
    frame.fetched().unwrap().unwrap();
    assert_eq!(row(&frame, 1)[..8], [0x5a, 0x5a, 0x5a, 0x5a, 0, 0, 0, 0]);
    frame.fetch(Rect { x: 0, y: 0, width: 1, height: 32 });
    let copy = Arc::downgrade(&frame.copy);
    drop(frame);
    // One more read, if it is in one, and the thread sees that nobody wants the rest.
    let _ = go_on.send(());
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while copy.strong_count() > 0 {
        assert!(std::time::Instant::now() < until, "the thread reads on");
        thread::yield_now();
    }
}

#[test]
fn memory_that_cannot_be_read_is_said_and_so_is_a_thread_that_failed() {
    let (frame, go_on) = withheld(SIZE);
    drop(go_on);
    assert!(fetch(&frame, Rect::all(SIZE)).is_err());
    struct Faulty;
    impl FileExt for Faulty {
        fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
            panic!("a fault of ours");
        }

        fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }
    let memory = memory("bulkhead-frame", SIZE).unwrap();
    let frame = Frame::with_source(memory, Faulty, SIZE).unwrap();
    assert!(fetch(&frame, Rect::all(SIZE)).is_err());
    assert!(fetch(&frame, Rect::all(SIZE)).is_err(), "and it stays so");
}

#[test]
fn a_vmm_that_punches_holes_and_writes_while_it_is_read_changes_its_own_pixels_alone() {
    let size = Size { width: 512, height: 512 };
    let frame = Frame::new(size).unwrap();
    let vmm = File::from(frame.fd().try_clone_to_owned().unwrap());
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            while !over.load(Ordering::Relaxed) {
                vmm.write_all_at(&vec![0xaa; size.frame_bytes()], 0).unwrap();
                fallocate(&vmm, flags, 0, i64::try_from(size.frame_bytes()).unwrap()).unwrap();
            }
        });
        for _ in 0..200 {
            fetch(&frame, Rect::all(size)).unwrap();
            for y in 0..size.height {
                assert!(row(&frame, y).iter().all(|byte| [0, 0xaa].contains(byte)));
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    fetch(&frame, Rect::all(size)).unwrap();
    assert_eq!(row(&frame, 511), vec![0; 512 * 4], "what was punched is black");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_part_that_is_fetched_is_that_part_and_no_more(
        (width, height) in (1u32..300, 1u32..100),
        (x, y) in (0u32..300, 0u32..100),
        (across, down) in (0u32..400, 0u32..200),
    ) {
        let size = Size { width, height };
        let frame = Frame::new(size).unwrap();
        let number = |at: usize| u8::try_from(at % 251).unwrap() | 1;
        let written: Vec<u8> = (0..size.frame_bytes()).map(number).collect();
        mapped(&frame).as_volatile_slice().copy_from(&written);
        let part = Rect { x, y, width: across, height: down };
        fetch(&frame, part).unwrap();
        for at in 0..height {
            for (place, byte) in row(&frame, at).into_iter().enumerate() {
                let left = u32::try_from(place / 4).unwrap();
                let inside = !part.shared(Rect { x: left, y: at, width: 1, height: 1 }).is_empty();
                let there = written[at as usize * width as usize * 4 + place];
                prop_assert_eq!(byte, if inside { there } else { 0 });
            }
        }
    }
}
