//! A device whose thread does not come back: a disk that hangs in a system call.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use tempfile::NamedTempFile;
use virtio::blk::{Blk, Disk, HELPERS, ThreadWatch};
use virtio::testing::fuse::{Answer, FuseDisk};
use vm_memory::Bytes;

use super::*;

/// What is promised is 100 ms; a machine that runs other tests as well may be slower, and a disk that
/// hangs is slower than any machine.
const SOON: Duration = Duration::from_secs(1);
/// How long what has to happen may take on a loaded machine.
const AT_LAST: Duration = Duration::from_secs(20);

const SECTOR: usize = 512;
const RINGS: u64 = 0x1000;
const HEADER: u64 = 0x4_0000;
const STATUS: u64 = 0x4_1000;
const DATA: u64 = 0x5_0000;

fn promptly<T>(what: &str, act: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = act();
    assert!(start.elapsed() < SOON, "{what} took {:?}", start.elapsed());
    result
}

fn at_last(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < AT_LAST, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Makes a disk that hangs in every read, in a machine whose disk thread runs; and a channel on which
/// it says that it has begun to.
fn hanging() -> Option<(Driver, FuseDisk, mpsc::Receiver<()>)> {
    let image = NamedTempFile::new().unwrap();
    let (begun, hangs) = mpsc::channel();
    let disk = FuseDisk::over(image.path(), 64 * SECTOR as u64, move |_| {
        begun.send(()).unwrap();
        Answer::Never
    })?;
    let blk = Blk::new(Disk::open(image.path(), false, "hangs").unwrap()).unwrap();
    Some((served(blk), disk, hangs))
}

/// Makes a machine with this disk, whose thread runs.
fn served(blk: Blk) -> Driver {
    let mut driver = Driver::of(Box::new(blk));
    let mut events = std::mem::replace(&mut driver.events, EventManager::new().unwrap());
    std::thread::spawn(move || {
        loop {
            events.run().unwrap();
        }
    });
    driver
}

struct Unwatched;

impl ThreadWatch for Unwatched {
    fn at_work(&self) {}
    fn at_rest(&self) {}
}

impl Driver {
    /// Offers a read of one sector so many times over at once, and notifies.
    fn read_sectors(&self, times: u16) {
        let put = |at: u64, bytes: &[u8]| self.memory.write_slice(bytes, GuestAddress(at)).unwrap();
        let parts = [(HEADER, 16, 1u16), (DATA, SECTOR as u32, 1 | 2), (STATUS, 1, 2)];
        for (index, (address, length, flags)) in (0u16..).zip(parts) {
            let mut raw = address.to_le_bytes().to_vec();
            raw.extend(length.to_le_bytes());
            raw.extend(flags.to_le_bytes());
            raw.extend((index + 1).to_le_bytes());
            put(RINGS + 16 * u64::from(index), &raw);
        }
        put(DATA, &[0x5a; SECTOR]);
        put(RINGS + 0x4000, &[0; 128]);
        put(RINGS + 0x4002, &times.to_le_bytes());
        self.write(spec::NOTIFY, &[0, 0]);
    }

    fn read_sector(&self) {
        self.read_sectors(1);
    }

    fn data(&self) -> [u8; SECTOR] {
        let mut data = [0; SECTOR];
        self.memory.read_slice(&mut data, GuestAddress(DATA)).unwrap();
        data
    }

    fn ready_to_read(&self) {
        self.negotiate(spec::VERSION_1);
        self.enable_msix();
        self.set_up_queue(0, 64, RINGS);
        self.write(20, &[15]);
    }
}

#[test]
fn no_vcpu_waits_for_a_disk_that_hangs_and_a_reset_is_complete_when_it_has_let_go() {
    let Some((driver, disk, hangs)) = hanging() else { return };
    driver.ready_to_read();
    driver.read_sector();
    hangs.recv_timeout(AT_LAST).unwrap();

    promptly("reading its capacity", || assert_eq!(driver.read(spec::DEVICE), [64, 0, 0, 0]));
    promptly("turning its write cache off", || driver.write(spec::DEVICE + 32, &[0]));
    promptly("resetting it", || driver.write(20, &[0]));
    for _ in 0..10 {
        promptly("polling its status", || assert_ne!(driver.status(), 0, "it may write to memory"));
        std::thread::sleep(Duration::from_millis(5));
    }
    // A driver that does not wait is not heard.
    driver.write(20, &[1]);
    driver.write(22, &[7, 0]);
    assert_eq!(driver.data(), [0x5a; SECTOR]);

    drop(disk); // the call returns, with an error
    at_last("the reset completes", || driver.status() == 0);
    assert_eq!(driver.read::<2>(22), [0, 0], "as new");
    assert_eq!(driver.read::<1>(spec::DEVICE + 32), [1], "its write cache too");
    assert!(!driver.recorder.take(1), "of what was cut short the driver hears nothing");
    driver.ready_to_read();
    assert_eq!(driver.status(), 15);
    driver.read_sector();
    at_last("it works again", || driver.recorder.take(1));
}

#[test]
fn a_reset_is_complete_when_the_last_of_a_disks_threads_has_let_go_though_its_own_thread_is_idle() {
    let image = NamedTempFile::new().unwrap();
    let (begun, hangs) = mpsc::channel();
    let mut reads = 0;
    let disk = FuseDisk::over(image.path(), 64 * SECTOR as u64, move |_| {
        reads += 1;
        begun.send(()).unwrap();
        if reads == 1 { Answer::Done } else { Answer::Never }
    });
    let Some(disk) = disk else { return };
    let watches = (0..HELPERS).map(|_| Box::new(Unwatched) as Box<dyn ThreadWatch>).collect();
    let file = Disk::open(image.path(), false, "hangs").unwrap();
    let driver = served(Blk::with_helpers(file, Duration::ZERO, watches).unwrap());
    driver.ready_to_read();
    // The first is done by the disk's own thread, the others by helpers.
    let all = 1 + HELPERS;
    driver.read_sectors(u16::try_from(all).unwrap());
    for _ in 0..all {
        hangs.recv_timeout(AT_LAST).unwrap();
    }
    at_last("the first is announced", || driver.recorder.take(1));
    promptly("resetting it", || driver.write(20, &[0]));
    for _ in 0..10 {
        promptly("polling its status", || assert_ne!(driver.status(), 0, "it may write to memory"));
        promptly("asking the machine", || assert!(!driver.bus.is_reset()));
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(disk); // the calls return, with an error
    at_last("the reset completes", || driver.status() == 0);
    assert!(!driver.recorder.take(1), "of what was cut short the driver hears nothing");
}

#[test]
fn the_machines_reset_never_waits_for_a_disk_that_hangs_and_is_complete_when_it_has_let_go() {
    let Some((driver, disk, hangs)) = hanging() else { return };
    driver.ready_to_read();
    driver.read_sector();
    hangs.recv_timeout(AT_LAST).unwrap();
    promptly("the reset", || driver.bus.reset());
    promptly("a second one", || driver.bus.reset());
    for _ in 0..10 {
        promptly("asking whether it is complete", || assert!(!driver.bus.is_reset()));
    }
    drop(disk);
    at_last("the reset completes", || driver.bus.is_reset());
}

#[test]
fn a_device_at_rest_is_reset_before_the_write_returns() {
    let driver = Driver::new();
    driver.ready(spec::VERSION_1);
    driver.write(20, &[0]);
    assert_eq!(driver.status(), 0, "drivers that do not poll are many");
    assert!(driver.bus.is_reset());
}
