//! Several threads at one disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::Instant;

use super::*;
use crate::testing::fuse::{Answer, Asked, FuseDisk};

/// How long what has to happen may take on a loaded machine.
const AT_LAST: Duration = Duration::from_secs(20);
/// Requests in flight at once, at most.
const SLOTS: usize = 16;

fn at_last(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < AT_LAST, "{what}");
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// Counts helpers that have a request.
#[derive(Clone, Default)]
struct AtWork(Arc<AtomicUsize>);

impl ThreadWatch for AtWork {
    fn at_work(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn at_rest(&self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A disk with helpers, and a driver that has many requests on their way.
struct Many {
    bench: Bench,
    at_work: AtWork,
    /// Slots of the requests on their way, by the head of their chains.
    flying: BTreeMap<u16, usize>,
    free: Vec<usize>,
}

impl Many {
    fn on(image: NamedTempFile, slow: Duration, idle: Duration) -> Self {
        let at_work = AtWork::default();
        let watches =
            (0..HELPERS).map(|_| Box::new(at_work.clone()) as Box<dyn ThreadWatch>).collect();
        let disk = Disk::open(image.path(), false, "many").unwrap();
        let blk = Blk::build(disk, |pool| pool.with_helpers(watches, slow, Some(idle))).unwrap();
        let bench = Bench::with(image, blk, u64::MAX);
        Self { bench, at_work, flying: BTreeMap::new(), free: (0..SLOTS).collect() }
    }

    /// Offers a request with a sector of data, of which the first bytes are `first`; returns its slot. The device is not notified.
    fn offer(&mut self, kind: u32, sector: u64, first: u64) -> usize {
        let slot = self.free.pop().unwrap();
        let at = |base: u64| base + slot as u64 * 0x1000;
        let mut header = [0; 16];
        header[..4].copy_from_slice(&kind.to_le_bytes());
        header[8..].copy_from_slice(&sector.to_le_bytes());
        let memory = &self.bench.memory;
        memory.write_slice(&header, GuestAddress(at(DATA))).unwrap();
        memory.write_obj(first, GuestAddress(at(DATA) + 0x200)).unwrap();
        memory.write_obj(0xff_u8, GuestAddress(at(DATA) + 0x100)).unwrap();
        let mut buffers = vec![readable(at(DATA), 16)];
        match kind {
            request::IN => buffers.push(writable(at(DATA) + 0x200, 512)),
            request::OUT => buffers.push(readable(at(DATA) + 0x200, 512)),
            _ => {}
        }
        buffers.push(writable(at(DATA) + 0x100, 1));
        let head = self.bench.driver.offer(&buffers);
        assert_eq!(self.flying.insert(head, slot), None);
        slot
    }

    fn notify(&mut self) {
        self.bench.blk.queue_notified(0);
    }

    /// Takes one that is done, as slot and status.
    fn done(&mut self) -> Option<(usize, u8)> {
        let (head, _) = self.bench.driver.used()?;
        let slot = self.flying.remove(&head).expect("given back once");
        self.free.push(slot);
        let status = GuestAddress(DATA + slot as u64 * 0x1000 + 0x100);
        Some((slot, self.bench.memory.read_obj(status).unwrap()))
    }

    fn all_done(&mut self) {
        at_last("all is given back", || {
            while let Some((_, status)) = self.done() {
                assert_eq!(status, OK);
            }
            self.flying.is_empty()
        });
    }

    fn helpers(&self) -> usize {
        self.bench.blk.pool.helpers()
    }
}

fn image() -> NamedTempFile {
    let image = NamedTempFile::new().unwrap();
    image.as_file().set_len(SECTORS * 512).unwrap();
    image
}

/// A disk that takes a millisecond for each read.
fn slow(image: &NamedTempFile) -> Option<FuseDisk> {
    FuseDisk::over(image.path(), SECTORS * 512, |_| {
        std::thread::sleep(Duration::from_millis(1));
        Answer::Done
    })
}

#[test]
fn one_request_at_a_time_is_never_handed_over() {
    let image = image();
    let Some(_disk) = slow(&image) else { return };
    let mut many = Many::on(image, Duration::ZERO, AT_LAST);
    for sector in 0..20 {
        many.offer(request::IN, sector, 0);
        many.notify();
        assert!(many.done().is_some(), "it was done by the device's own thread");
    }
    assert_eq!((many.helpers(), many.bench.recorder.interrupts()), (0, 20));
}

#[test]
fn a_disk_that_is_fast_has_one_thread_and_announces_a_batch_once() {
    let mut many = Many::on(image(), AT_LAST, AT_LAST);
    for sector in 0..10 {
        many.offer(request::IN, sector, 0);
    }
    many.notify();
    many.all_done();
    assert_eq!((many.helpers(), many.bench.recorder.interrupts()), (0, 1));
}

#[test]
fn helpers_come_while_requests_wait_and_go_when_none_does() {
    let image = image();
    let Some(_disk) = slow(&image) else { return };
    let mut many = Many::on(image, SLOW, Duration::from_millis(100));
    for round in 0..3 {
        for sector in 0..SLOTS as u64 {
            many.offer(request::IN, sector, 0);
        }
        many.notify();
        assert_eq!(many.helpers(), HELPERS, "{round}");
        many.all_done();
        at_last("they are told to be at rest", || many.at_work.0.load(Ordering::SeqCst) == 0);
        at_last("they go", || many.helpers() == 0);
    }
}

#[test]
fn three_helpers_hang_in_a_disk_at_once_and_the_device_lets_go_when_the_last_has_come_back() {
    let image = image();
    let mut reads = 0;
    let disk = FuseDisk::over(image.path(), SECTORS * 512, move |_| {
        reads += 1;
        if reads == 1 { Answer::Done } else { Answer::Never }
    });
    let Some(disk) = disk else { return };
    let mut many = Many::on(image, Duration::ZERO, AT_LAST);
    for sector in 0..4 {
        many.offer(request::IN, sector, 0);
    }
    // The first is done by this thread, the others are handed over.
    many.notify();
    at_last("three are at work", || many.at_work.0.load(Ordering::SeqCst) == HELPERS);
    assert!(many.done().is_some() && many.done().is_none());

    let start = Instant::now();
    many.bench.blk.reset();
    assert!(start.elapsed() < Duration::from_secs(1), "a reset waits for nobody");
    assert!(!many.bench.blk.has_let_go(), "the disk may still write to guest memory");
    drop(disk); // the calls return, with an error
    at_last("it lets go", || many.bench.blk.has_let_go());
    assert_eq!(many.done(), None, "of what was cut short the driver hears nothing");
    many.bench.blk.end();
    assert_eq!(many.helpers(), 0);
}

#[test]
fn what_belongs_to_an_activation_is_not_given_back_to_the_next() {
    let image = image();
    let Some(_disk) = slow(&image) else { return };
    let mut many = Many::on(image, Duration::ZERO, AT_LAST);
    for sector in 0..8 {
        many.offer(request::IN, sector, 0);
    }
    many.notify();
    many.bench.blk.reset();
    let driver = DriverQueue::new(&many.bench.memory, 1, QUEUE_SIZE);
    let (activation, recorder) = activation(&many.bench.memory, &[&driver], 0);
    // Not what a transport does: it waits until the device has let go.
    many.bench.blk.activate(activation).unwrap();
    many.bench.driver = driver;
    at_last("helpers are done", || many.bench.blk.has_let_go());
    assert_eq!(many.bench.driver.used(), None);
    assert_eq!(recorder.interrupts(), 0);
}

#[test]
fn a_broken_ring_that_a_helper_finds_stops_the_device() {
    let image = image();
    let Some(_disk) = slow(&image) else { return };
    let mut many = Many::on(image, Duration::ZERO, AT_LAST);
    for sector in 0..2 {
        many.offer(request::IN, sector, 0);
    }
    many.notify();
    // The second is with a helper, which finds this one itself when it is done, or this thread does.
    many.bench.driver.offer(&[readable(DATA, 16)]);
    at_last("the device asks for a reset", || {
        many.notify();
        many.bench.recorder.asked_for_reset()
    });
    at_last("helpers are done", || many.bench.blk.has_let_go());
}

#[test]
fn what_comes_behind_a_flush_that_takes_long_is_served_meanwhile() {
    let image = image();
    let (go_on, held) = mpsc::channel::<()>();
    let (mut syncs, mut held) = (0, Some(held));
    let on_its_way = Arc::new(AtomicBool::new(false));
    let asked_for = Arc::clone(&on_its_way);
    let disk = FuseDisk::over(image.path(), SECTORS * 512, move |asked| {
        if matches!(asked, Asked::Sync) {
            syncs += 1;
            match syncs {
                // By which the disk is known for slow.
                1 => std::thread::sleep(SLOW * 100),
                _ => {
                    asked_for.store(true, Ordering::SeqCst);
                    return held.take().map_or(Answer::Done, Answer::When);
                }
            }
        }
        Answer::Done
    });
    let Some(_disk) = disk else { return };
    let mut many = Many::on(image, SLOW, AT_LAST);
    many.offer(request::FLUSH, 0, 0);
    many.notify();
    assert!(many.done().is_some(), "the first is done by the device's own thread");
    many.offer(request::FLUSH, 0, 0);
    many.notify();
    at_last("the disk has been asked", || on_its_way.load(Ordering::SeqCst));
    many.offer(request::IN, 1, 0);
    many.notify();
    let mut first = None;
    at_last("the read is given back", || {
        first = many.done();
        first.is_some()
    });
    assert_eq!(first.map(|(_, status)| status), Some(OK));
    assert_eq!(many.flying.len(), 1, "the flush is on its way");
    go_on.send(()).unwrap();
    many.all_done();
}

/// What a disk with a volatile cache has, each sector by the first bytes of what was written there.
#[derive(Default)]
struct Media {
    cached: BTreeMap<u64, u64>,
    durable: BTreeMap<u64, u64>,
}

/// What the driver does.
#[derive(Clone, Copy, Debug)]
enum Move {
    Write,
    Flush,
    Notify,
    Collect,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let step = prop_oneof![
        4 => Just(Move::Write),
        2 => Just(Move::Flush),
        2 => Just(Move::Notify),
        1 => Just(Move::Collect),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// After a cut there is at least what a flush promised: every write that was completed before it was asked for. A
    /// flush that failed has lost what was cached, and no later one succeeds.
    #[test]
    fn what_a_flush_promised_is_there_after_a_cut(steps in moves(), fails in 0..12_usize, seed: u64) {
        let image = image();
        let media = Arc::new(Mutex::new(Media::default()));
        let (at_disk, mut syncs, mut random) = (Arc::clone(&media), 0, seed);
        let disk = FuseDisk::over(image.path(), SECTORS * 512, move |asked| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            std::thread::sleep(Duration::from_micros(random >> 56));
            let mut media = at_disk.lock().unwrap();
            match asked {
                Asked::Write { at, first, .. } => {
                    media.cached.insert(at / 512, first);
                }
                Asked::Sync => {
                    syncs += 1;
                    let mut cached = std::mem::take(&mut media.cached);
                    if syncs == fails {
                        return Answer::Failed(libc::EIO);
                    }
                    media.durable.append(&mut cached);
                }
                Asked::Read(_) => {}
            }
            Answer::Done
        });
        let Some(disk) = disk else { return Ok(()) };
        let mut many = Many::on(image, Duration::ZERO, Duration::from_millis(50));
        let mut completed = BTreeSet::new();
        let mut written = BTreeMap::new(); // by slot
        let mut promised: BTreeMap<usize, BTreeSet<u64>> = BTreeMap::new(); // by slot of the flush
        let (mut next, mut failed) = (0, false);
        let ends = [Move::Notify, Move::Collect];
        for step in steps.into_iter().chain(ends) {
            let last = matches!(step, Move::Collect);
            match step {
                Move::Write if !many.free.is_empty() && next < SECTORS => {
                    let slot = many.offer(request::OUT, next, next + 1);
                    written.insert(slot, next);
                    next += 1;
                }
                Move::Flush if !many.free.is_empty() => {
                    let slot = many.offer(request::FLUSH, 0, 0);
                    promised.insert(slot, completed.clone());
                }
                Move::Write | Move::Flush | Move::Notify => many.notify(),
                Move::Collect => many.notify(),
            }
            let start = Instant::now();
            loop {
                while let Some((slot, status)) = many.done() {
                    if let Some(sector) = written.remove(&slot) {
                        prop_assert_eq!(status, OK);
                        completed.insert(sector);
                    }
                    let Some(before) = promised.remove(&slot) else { continue };
                    failed |= status != OK;
                    // What other flushes that are on their way find out is not known here yet.
                    if status == OK {
                        let media = media.lock().unwrap();
                        for sector in before {
                            prop_assert_eq!(media.durable.get(&sector), Some(&(sector + 1)));
                        }
                    }
                }
                if !last || many.flying.is_empty() {
                    break;
                }
                prop_assert!(start.elapsed() < AT_LAST, "all is given back");
            }
        }
        if failed {
            many.offer(request::FLUSH, 0, 0);
            many.notify();
            let mut status = None;
            at_last("the flush is given back", || {
                status = many.done().map(|(_, status)| status);
                status.is_some()
            });
            prop_assert_eq!(status, Some(IOERR));
        }
        many.bench.blk.end();
        drop(disk);
    }

    /// Reads find what was written before, whichever threads do both.
    #[test]
    fn what_many_threads_wrote_is_read_back(rounds in 1..4_u64) {
        let mut many = Many::on(image(), Duration::ZERO, Duration::from_millis(50));
        for round in 0..rounds {
            for batch in 0..SECTORS / SLOTS as u64 {
                let sectors = batch * SLOTS as u64..(batch + 1) * SLOTS as u64;
                for sector in sectors.clone() {
                    many.offer(request::OUT, sector, round << 32 | sector);
                }
                many.notify();
                many.all_done();
                let slots: Vec<_> = sectors.map(|sector| (many.offer(request::IN, sector, 0), sector)).collect();
                many.notify();
                many.all_done();
                for (slot, sector) in slots {
                    let place = GuestAddress(DATA + slot as u64 * 0x1000 + 0x200);
                    prop_assert_eq!(many.bench.memory.read_obj::<u64>(place).unwrap(), round << 32 | sector);
                }
            }
        }
    }
}
