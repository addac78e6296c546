use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use proptest::prelude::*;
use tempfile::NamedTempFile;
use vm_memory::{Bytes, GuestAddress};

use super::spec::{RANGE_UNMAP, request};
use super::*;
mod pieces;
mod pool;

use crate::GuestMemory;
use crate::testing::{Buffer, DriverQueue, Recorder, activation, memory, readable, writable};

const HEADER: u64 = 0x2_0000;
const STATUS: u64 = 0x2_1000;
const DATA: u64 = 0x10_0000;
const SECTORS: u64 = 64;

const OK: u8 = Status::Ok as u8;
const IOERR: u8 = Status::IoErr as u8;
const UNSUPPORTED: u8 = Status::Unsupported as u8;
use spec::Status;

/// A disk in a machine, seen from its driver.
struct Bench {
    memory: GuestMemory,
    driver: DriverQueue,
    blk: Blk,
    recorder: Arc<Recorder>,
    image: NamedTempFile,
}

impl Bench {
    fn new(sectors: u64, read_only: bool) -> Self {
        Self::with_features(sectors, read_only, u64::MAX)
    }

    fn with_features(sectors: u64, read_only: bool, wanted: u64) -> Self {
        let image = NamedTempFile::new().unwrap();
        image.as_file().set_len(sectors * 512).unwrap();
        Self::on(image, read_only, wanted)
    }

    fn on(image: NamedTempFile, read_only: bool, wanted: u64) -> Self {
        let disk = Disk::open(image.path(), read_only, "data-1").unwrap();
        Self::with(image, Blk::new(disk).unwrap(), wanted)
    }

    fn with(image: NamedTempFile, mut blk: Blk, wanted: u64) -> Self {
        let memory = memory(0x100_0000);
        let driver = DriverQueue::new(&memory, 0, QUEUE_SIZE);
        let features = blk.features() & wanted & !RING_FEATURES;
        let (activation, recorder) = activation(&memory, &[&driver], features);
        blk.activate(activation).unwrap();
        Self { memory, driver, blk, recorder, image }
    }

    /// Runs one request; returns its status byte and used length.
    fn run(&mut self, kind: u32, sector: u64, data: &[Buffer]) -> (u8, u32) {
        let mut header = [0; 16];
        header[..4].copy_from_slice(&kind.to_le_bytes());
        header[8..].copy_from_slice(&sector.to_le_bytes());
        self.memory.write_slice(&header, GuestAddress(HEADER)).unwrap();
        self.memory.write_obj(0xff_u8, GuestAddress(STATUS)).unwrap();
        let mut buffers = vec![readable(HEADER, 16)];
        buffers.extend_from_slice(data);
        buffers.push(writable(STATUS, 1));
        let head = self.driver.offer(&buffers);
        self.blk.queue_notified(0);
        let (used, len) = self.driver.used().unwrap();
        assert_eq!(used, head);
        (self.memory.read_obj(GuestAddress(STATUS)).unwrap(), len)
    }

    fn range(&mut self, kind: u32, ranges: &[(u64, u32, u32)]) -> u8 {
        let mut raw = Vec::new();
        for &(sector, sectors, flags) in ranges {
            raw.extend_from_slice(&sector.to_le_bytes());
            raw.extend_from_slice(&sectors.to_le_bytes());
            raw.extend_from_slice(&flags.to_le_bytes());
        }
        self.put(&raw);
        self.run(kind, 0, &[readable(DATA, u32::try_from(raw.len()).unwrap())]).0
    }

    fn put(&self, data: &[u8]) {
        self.memory.write_slice(data, GuestAddress(DATA)).unwrap();
    }

    fn get(&self, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.memory.read_slice(&mut data, GuestAddress(DATA)).unwrap();
        data
    }

    fn on_disk(&self) -> Vec<u8> {
        std::fs::read(self.image.path()).unwrap()
    }
}

#[test]
fn what_is_written_is_read_back_and_lands_in_the_file() {
    let mut bench = Bench::new(SECTORS, false);
    let data: Vec<u8> = (0..1024_u32).map(|i| (i % 251) as u8).collect();
    bench.put(&data);
    assert_eq!(bench.run(request::OUT, 3, &[readable(DATA, 1024)]), (OK, 1));
    assert_eq!(&bench.on_disk()[3 * 512..5 * 512], data);
    bench.put(&[0; 1024]);
    let parts = [writable(DATA, 100), writable(DATA + 100, 924)];
    assert_eq!(bench.run(request::IN, 3, &parts), (OK, 1025));
    assert_eq!(bench.get(1024), data);
    assert_eq!(bench.recorder.interrupts(), 2);
}

#[test]
fn a_read_only_disk_says_so_and_refuses_writes_with_ioerr() {
    let mut bench = Bench::new(SECTORS, true);
    assert_ne!(bench.blk.features() & feature::RO, 0);
    assert_eq!(bench.blk.features() & (feature::DISCARD | feature::CONFIG_WCE), 0);
    bench.put(&[1; 512]);
    assert_eq!(bench.run(request::OUT, 0, &[readable(DATA, 512)]), (IOERR, 1));
    assert_eq!(bench.range(request::WRITE_ZEROES, &[(0, 1, 0)]), UNSUPPORTED);
    assert_eq!(bench.run(request::IN, 0, &[writable(DATA, 512)]).0, OK);
    assert!(bench.on_disk().iter().all(|&byte| byte == 0));
}

#[test]
fn nothing_beyond_the_last_sector_is_read_or_written() {
    let mut bench = Bench::new(SECTORS, false);
    for sector in [SECTORS - 1, SECTORS, SECTORS + 1, u64::MAX, u64::MAX / 512, 1 << 55] {
        let written = bench.run(request::OUT, sector, &[readable(DATA, 1024)]);
        assert_eq!(written, (IOERR, 1), "{sector}");
        let read = bench.run(request::IN, sector, &[writable(DATA, 1024)]);
        assert_eq!(read, (IOERR, 0), "{sector}");
    }
    assert_eq!(bench.run(request::IN, SECTORS - 1, &[writable(DATA, 512)]), (OK, 513));
    assert_eq!(bench.on_disk().len(), 64 * 512);
}

#[test]
fn data_that_is_not_whole_sectors_is_refused() {
    let mut bench = Bench::new(SECTORS, false);
    assert_eq!(bench.run(request::OUT, 0, &[readable(DATA, 513)]).0, IOERR);
    assert_eq!(bench.run(request::IN, 0, &[writable(DATA, 511)]).0, IOERR);
}

#[test]
fn the_id_is_told_and_a_long_buffer_is_not_claimed_to_be_full() {
    let mut bench = Bench::new(SECTORS, false);
    assert_eq!(bench.run(request::GET_ID, 0, &[writable(DATA, 20)]), (OK, 21));
    assert_eq!(bench.get(20), b"data-1\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    assert_eq!(bench.run(request::GET_ID, 0, &[writable(DATA, 64)]), (OK, 20));
    assert_eq!(bench.run(request::GET_ID, 0, &[writable(DATA, 4)]), (OK, 5));
}

#[test]
fn unknown_requests_are_unsupported() {
    let mut bench = Bench::new(SECTORS, false);
    for kind in [2, 3, 5, 10, 14, 99, u32::MAX] {
        assert_eq!(bench.run(kind, 0, &[]), (UNSUPPORTED, 1));
    }
}

#[test]
fn a_flush_succeeds_on_any_disk() {
    assert_eq!(Bench::new(SECTORS, false).run(request::FLUSH, 0, &[]), (OK, 1));
    assert_eq!(Bench::new(SECTORS, true).run(request::FLUSH, 0, &[]), (OK, 1));
}

#[test]
fn a_request_without_room_for_a_status_stops_the_device() {
    let mut bench = Bench::new(SECTORS, false);
    bench.driver.offer(&[readable(HEADER, 16)]);
    bench.blk.queue_notified(0);
    assert!(bench.recorder.asked_for_reset());
    assert_eq!(bench.driver.used(), None);
}

#[test]
fn a_request_with_half_a_header_gets_ioerr() {
    let mut bench = Bench::new(SECTORS, false);
    let head = bench.driver.offer(&[readable(HEADER, 8), writable(STATUS, 1)]);
    bench.blk.queue_notified(0);
    assert_eq!(bench.driver.used(), Some((head, 1)));
    assert_eq!(bench.memory.read_obj::<u8>(GuestAddress(STATUS)).unwrap(), IOERR);
}

#[test]
fn header_data_and_status_may_share_descriptors() {
    let mut bench = Bench::new(SECTORS, false);
    let mut raw = vec![0; 16];
    raw[0] = 1; // OUT
    raw[8] = 2; // sector
    raw.extend_from_slice(&[7; 512]);
    bench.put(&raw);
    bench.driver.offer(&[readable(DATA, 16 + 512), writable(STATUS, 1)]);
    bench.blk.queue_notified(0);
    assert_eq!(bench.driver.used().unwrap().1, 1);

    raw[0] = 0; // IN
    bench.put(&raw[..16]);
    bench.driver.offer(&[readable(DATA, 16), writable(DATA + 0x1000, 513)]);
    bench.blk.queue_notified(0);
    assert_eq!(bench.driver.used().unwrap().1, 513);
    let mut read = [0xff; 513];
    bench.memory.read_slice(&mut read, GuestAddress(DATA + 0x1000)).unwrap();
    assert_eq!(read[..512], [7; 512]);
    assert_eq!(read[512], OK);
}

#[test]
fn a_batch_is_announced_once() {
    let mut bench = Bench::new(SECTORS, false);
    bench.memory.write_slice(&[0; 16], GuestAddress(HEADER)).unwrap();
    for _ in 0..10 {
        bench.driver.offer(&[readable(HEADER, 16), writable(DATA, 512), writable(STATUS, 1)]);
    }
    bench.blk.queue_notified(0);
    for _ in 0..10 {
        assert_eq!(bench.driver.used().unwrap().1, 513);
    }
    assert_eq!(bench.recorder.interrupts(), 1);
}

#[test]
fn zeroed_and_discarded_ranges_read_as_zeroes() {
    let kinds =
        [(request::WRITE_ZEROES, 0), (request::WRITE_ZEROES, RANGE_UNMAP), (request::DISCARD, 0)];
    // Where tests write may be in memory, which cannot zero a range without a hole; where this program is usually can.
    let program = std::env::current_exe().unwrap();
    let places = [std::env::temp_dir(), program.parent().unwrap().to_owned()];
    for (place, (kind, flags)) in places.iter().flat_map(|place| kinds.map(|kind| (place, kind))) {
        let image = NamedTempFile::new_in(place).unwrap();
        image.as_file().set_len(SECTORS * 512).unwrap();
        let mut bench = Bench::on(image, false, u64::MAX);
        assert_ne!(bench.blk.features() & feature::DISCARD, 0, "TMPDIR supports no hole punching");
        bench.put(&[0xaa; 64 * 512]);
        assert_eq!(bench.run(request::OUT, 0, &[readable(DATA, 64 * 512)]).0, OK);
        assert_eq!(bench.range(kind, &[(1, 2, flags), (8, 0, flags), (62, 2, flags)]), OK);
        let on_disk = bench.on_disk();
        for (sector, bytes) in on_disk.chunks(512).enumerate() {
            let expected = if [1, 2, 62, 63].contains(&sector) { 0 } else { 0xaa };
            assert!(bytes.iter().all(|&byte| byte == expected), "{kind} {flags} {sector}");
        }
    }
}

#[test]
fn a_request_with_one_bad_range_does_nothing() {
    let mut bench = Bench::new(SECTORS, false);
    bench.put(&[0xaa; 64 * 512]);
    bench.run(request::OUT, 0, &[readable(DATA, 64 * 512)]);
    let zeroes = request::WRITE_ZEROES;
    for bad in [(SECTORS, 1, 0), (SECTORS - 1, 2, 0), (u64::MAX, 2, 0), (0, u32::MAX, 0)] {
        assert_eq!(bench.range(zeroes, &[(0, 4, 0), bad]), IOERR, "{bad:?}");
    }
    assert_eq!(bench.range(zeroes, &[(0, 4, 0), (0, 1, 2)]), UNSUPPORTED);
    assert_eq!(bench.range(request::DISCARD, &[(0, 4, 0), (0, 1, RANGE_UNMAP)]), UNSUPPORTED);
    assert_eq!(bench.range(zeroes, &[]), IOERR);
    assert_eq!(bench.range(zeroes, &[(0, 1, 0); MAX_RANGES + 1]), IOERR);
    assert_eq!(bench.run(zeroes, 0, &[readable(DATA, 17)]).0, IOERR);
    assert!(bench.on_disk().iter().all(|&byte| byte == 0xaa));
}

#[test]
fn a_file_that_got_shorter_reads_as_ioerr() {
    let mut bench = Bench::new(SECTORS, false);
    bench.image.as_file().set_len(512 + 100).unwrap();
    assert_eq!(bench.run(request::IN, 0, &[writable(DATA, 1024)]).0, IOERR);
    assert_eq!(bench.run(request::IN, 0, &[writable(DATA, 512)]), (OK, 513));
}

#[test]
fn the_write_cache_follows_what_was_negotiated_and_written() {
    let cache = |bench: &Bench| {
        let mut value = [9];
        bench.blk.config().read(spec::config::WRITEBACK, &mut value);
        (value[0], !bench.blk.config.writeback())
    };
    let mut bench = Bench::new(SECTORS, false);
    assert_eq!(cache(&bench), (1, false));
    bench.blk.config().write(spec::config::WRITEBACK, &[0]);
    assert_eq!(cache(&bench), (0, true));
    bench.put(&[5; 512]);
    assert_eq!(bench.run(request::OUT, 0, &[readable(DATA, 512)]), (OK, 1));
    bench.blk.config().write(spec::config::WRITEBACK, &[7]);
    bench.blk.config().write(spec::config::WRITEBACK, &[1, 1]);
    assert_eq!(cache(&bench), (0, true));
    bench.blk.reset();
    bench.blk.config.reset();
    assert_eq!(cache(&bench), (1, false));

    let bench = Bench::with_features(SECTORS, false, !feature::FLUSH);
    assert_eq!(cache(&bench), (0, true), "no flush, so every write is durable");

    let bench = Bench::with_features(SECTORS, false, !feature::CONFIG_WCE);
    bench.blk.config().write(spec::config::WRITEBACK, &[0]);
    assert_eq!(cache(&bench), (1, false), "not negotiated");
}

#[test]
fn the_configuration_tells_capacity_limits_and_topology() {
    let bench = Bench::new(SECTORS, false);
    let mut space = [0xff; 80];
    bench.blk.config().read(0, &mut space);
    let le32 = |at: usize| u32::from_le_bytes(space[at..at + 4].try_into().unwrap());
    assert_eq!(space[..8], SECTORS.to_le_bytes());
    assert_eq!((le32(8), le32(12), le32(20)), (SIZE_MAX, SEG_MAX, 512));
    assert_eq!((space[24], space[25], space[26]), (3, 0, 8), "4096-byte physical blocks");
    assert_eq!((le32(36), le32(40), le32(44)), (MAX_RANGE_SECTORS, 32, 8));
    assert_eq!((le32(48), le32(52), space[56]), (MAX_RANGE_SECTORS, 32, 1));
    assert_eq!(space[72..], [0; 8], "beyond the end reads as zero");
    let mut beyond = [0xff; 4];
    bench.blk.config().read(usize::MAX, &mut beyond);
    assert_eq!(beyond, [0; 4]);
}

fn open(path: &Path, read_only: bool) -> Result<Disk, DiskError> {
    Disk::open(path, read_only, "")
}

#[test]
fn a_disk_in_use_is_refused_and_free_again_when_closed() {
    let image = NamedTempFile::new().unwrap();
    image.as_file().set_len(4096).unwrap();
    let writer = open(image.path(), false).unwrap();
    assert!(matches!(open(image.path(), false), Err(DiskError::InUse { .. })));
    assert!(matches!(open(image.path(), true), Err(DiskError::InUse { .. })));
    drop(writer);
    let one = open(image.path(), true).unwrap();
    let two = open(image.path(), true).unwrap();
    let refused = open(image.path(), false).unwrap_err().to_string();
    assert!(refused.contains("in use by another VMM"), "{refused}");
    drop((one, two));
    open(image.path(), false).unwrap();
}

#[test]
fn what_is_not_a_disk_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let missing = open(&dir.path().join("no.img"), false).unwrap_err();
    assert!(matches!(missing, DiskError::Missing(_)));
    for read_only in [false, true] {
        assert!(matches!(open(dir.path(), read_only), Err(DiskError::Directory(_))));
    }
    let short = dir.path().join("short.img");
    File::create(&short).unwrap().write_all(&[0; 511]).unwrap();
    assert!(matches!(open(&short, true), Err(DiskError::Empty { bytes: 511, .. })));
    assert!(matches!(open(Path::new("/dev/null"), true), Err(DiskError::NotADisk(_))));
    let pipe = dir.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for read_only in [false, true] {
        assert!(matches!(open(&pipe, read_only), Err(DiskError::NotADisk(_))));
    }
    let image = dir.path().join("disk.img");
    File::create(&image).unwrap().set_len(512).unwrap();
    let long = Disk::open(&image, true, "an-id-of-more-than-twenty-bytes");
    assert!(matches!(long, Err(DiskError::IdTooLong { .. })));
}

#[test]
fn only_a_disk_that_is_written_has_a_file_of_its_length_to_write() {
    let image = NamedTempFile::new().unwrap();
    image.as_file().set_len(4096).unwrap();
    assert_eq!(open(image.path(), false).unwrap().writable_file_bytes(), 4096);
    assert_eq!(open(image.path(), true).unwrap().writable_file_bytes(), 0);
}

#[test]
fn a_length_that_is_not_whole_sectors_is_rounded_down() {
    let image = NamedTempFile::new().unwrap();
    image.as_file().set_len(512 * 3 + 511).unwrap();
    assert_eq!(open(image.path(), true).unwrap().sectors(), 3);
}

/// One step of a driver that plays by the rules.
#[derive(Clone, Debug)]
enum Step {
    Write { sector: u64, sectors: u64, fill: u8 },
    Read { sector: u64, sectors: u64 },
    Zero { sector: u64, sectors: u32, unmap: bool },
    Discard { sector: u64, sectors: u32 },
    Flush,
    Cache(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let sector = 0..SECTORS + 4;
    let sectors = 0..9_u64;
    prop_oneof![
        (sector.clone(), sectors.clone(), any::<u8>())
            .prop_map(|(sector, sectors, fill)| Step::Write { sector, sectors, fill }),
        (sector.clone(), sectors).prop_map(|(sector, sectors)| Step::Read { sector, sectors }),
        (sector.clone(), 0..9_u32, any::<bool>()).prop_map(|(sector, sectors, unmap)| Step::Zero {
            sector,
            sectors,
            unmap
        }),
        (sector, 0..9_u32).prop_map(|(sector, sectors)| Step::Discard { sector, sectors }),
        Just(Step::Flush),
        any::<bool>().prop_map(Step::Cache),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The disk is at every moment what a plain array would be.
    #[test]
    fn any_sequence_of_requests_leaves_the_disk_as_a_model_has_it(
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut bench = Bench::new(SECTORS, false);
        let mut model = vec![0_u8; 64 * 512];
        let area = |sector: u64, sectors: u64| {
            let range = usize::try_from(sector * 512).unwrap()
                ..usize::try_from((sector + sectors) * 512).unwrap();
            (sector + sectors <= SECTORS).then_some(range)
        };
        for step in steps {
            match step {
                Step::Write { sector, sectors, fill } => {
                    let len = usize::try_from(sectors * 512).unwrap();
                    let data: Vec<u8> = (0..len).map(|i| fill.wrapping_add(i.to_le_bytes()[0] / 7)).collect();
                    bench.put(&data);
                    let buffer = readable(DATA, u32::try_from(len).unwrap());
                    let (status, _) = bench.run(request::OUT, sector, &[buffer]);
                    let area = area(sector, sectors);
                    prop_assert_eq!(status == OK, area.is_some());
                    if let Some(area) = area {
                        model[area].copy_from_slice(&data);
                    }
                }
                Step::Read { sector, sectors } => {
                    let len = usize::try_from(sectors * 512).unwrap();
                    let buffer = writable(DATA, u32::try_from(len).unwrap());
                    let (status, _) = bench.run(request::IN, sector, &[buffer]);
                    let area = area(sector, sectors);
                    prop_assert_eq!(status == OK, area.is_some());
                    if let Some(area) = area {
                        prop_assert_eq!(&bench.get(len), &model[area]);
                    }
                }
                Step::Zero { sector, sectors, unmap } => {
                    let status =
                        bench.range(request::WRITE_ZEROES, &[(sector, sectors, unmap.into())]);
                    let area = area(sector, sectors.into());
                    prop_assert_eq!(status == OK, area.is_some());
                    if let Some(area) = area {
                        model[area].fill(0);
                    }
                }
                Step::Discard { sector, sectors } => {
                    let status = bench.range(request::DISCARD, &[(sector, sectors, 0)]);
                    let area = area(sector, sectors.into());
                    prop_assert_eq!(status == OK, area.is_some());
                    if let Some(area) = area {
                        model[area].fill(0);
                    }
                }
                Step::Flush => prop_assert_eq!(bench.run(request::FLUSH, 0, &[]).0, OK),
                Step::Cache(on) => bench.blk.config().write(spec::config::WRITEBACK, &[on.into()]),
            }
        }
        prop_assert_eq!(bench.on_disk(), model);
    }

    /// Whatever the header says, the file keeps its length and what lies beyond the last whole
    /// sector, and the request is answered.
    #[test]
    fn any_request_stays_on_the_disk(kind in 0_u32..16, sector: u64, near in 0_u64..70, far: bool,
                                     len in 0_u32..0x2000, write: bool, junk: [u8; 32]) {
        let mut bench = Bench::new(SECTORS, false);
        bench.image.as_file().write_all_at(b"tail", SECTORS * 512).unwrap();
        bench.put(&junk);
        let buffer = Buffer { address: DATA, len, writable: write };
        bench.run(kind, if far { sector } else { near }, &[buffer]);
        let on_disk = bench.on_disk();
        prop_assert_eq!(on_disk.len(), 64 * 512 + 4);
        prop_assert_eq!(&on_disk[64 * 512..], b"tail");
    }
}
