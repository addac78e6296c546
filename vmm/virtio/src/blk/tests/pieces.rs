//! Much work at once, and disks that fail.

use super::*;
use crate::blk::executor::{PIECE_BYTES, RANGE_PIECE_BYTES};
use crate::testing::fuse::{Answer, Asked, FuseDisk};

/// Buffers of a read of 31 MiB; they share their place in guest memory.
fn much() -> Vec<Buffer> {
    vec![writable(DATA, SIZE_MAX); 248]
}

/// Offers a request of `kind` without serving it.
fn offer(bench: &mut Bench, kind: u32, data: &[Buffer]) {
    let mut header = [0; 16];
    header[..4].copy_from_slice(&kind.to_le_bytes());
    bench.memory.write_slice(&header, GuestAddress(HEADER)).unwrap();
    let mut buffers = vec![readable(HEADER, 16)];
    buffers.extend_from_slice(data);
    buffers.push(writable(STATUS, 1));
    bench.driver.offer(&buffers);
}

/// Makes 32 ranges of 1 GiB each, all of a disk of 1 GiB.
fn all_ranges(bench: &mut Bench) -> Vec<Buffer> {
    let mut raw = Vec::new();
    for _ in 0..MAX_RANGES {
        raw.extend(0_u64.to_le_bytes());
        raw.extend(MAX_RANGE_SECTORS.to_le_bytes());
        raw.extend(0_u32.to_le_bytes());
    }
    bench.put(&raw);
    vec![readable(DATA, u32::try_from(raw.len()).unwrap())]
}

#[test]
fn between_any_two_pieces_of_a_request_a_reset_is_noticed() {
    let sectors = u64::from(MAX_RANGE_SECTORS);
    let whole = 31 * (1 << 20) / PIECE_BYTES;
    let freed = 32 * usize::try_from((1 << 30) / RANGE_PIECE_BYTES).unwrap();
    for (kind, pieces) in [(request::IN, whole), (request::DISCARD, freed)] {
        let mut bench = Bench::new(sectors, false);
        let data = if kind == request::IN { much() } else { all_ranges(&mut bench) };
        offer(&mut bench, kind, &data);
        bench.blk.queue_notified(0);
        assert!(bench.driver.used().is_some());
        // Before the request, before each piece, and before the next request, which is not there.
        assert_eq!(bench.recorder.looks(), 1 + pieces + 1, "{kind}");

        for look in [1, 2, 3, pieces + 1] {
            let mut bench = Bench::new(sectors, false);
            let data = if kind == request::IN { much() } else { all_ranges(&mut bench) };
            bench.recorder.stop_at_look(look);
            offer(&mut bench, kind, &data);
            bench.blk.queue_notified(0);
            assert_eq!(bench.recorder.looks(), look, "{kind}: nothing is begun after it");
            assert_eq!(bench.driver.used(), None, "{kind}: and nothing given back");
            assert!(!bench.recorder.asked_for_reset(), "nobody is to blame");
        }
    }
}

#[test]
fn between_any_two_requests_of_a_batch_a_reset_is_noticed() {
    let mut bench = Bench::new(SECTORS, false);
    for _ in 0..10 {
        offer(&mut bench, request::GET_ID, &[writable(DATA, 20)]);
    }
    bench.recorder.stop_at_look(4);
    bench.blk.queue_notified(0);
    let served = std::iter::from_fn(|| bench.driver.used()).count();
    assert_eq!(served, 3);
    assert_eq!(bench.recorder.interrupts(), 0, "a device that is reset says nothing");
}

#[test]
fn ranges_are_cut_at_whole_pieces_and_lose_nothing() {
    let range = Range { offset: 3 * SECTOR, len: 3 * RANGE_PIECE_BYTES, unmap: true };
    let pieces: Vec<_> = range.pieces(RANGE_PIECE_BYTES).collect();
    assert_eq!(pieces.len(), 4);
    assert!(pieces.iter().skip(1).all(|piece| piece.offset.is_multiple_of(RANGE_PIECE_BYTES)));
    assert!(pieces.iter().all(|piece| piece.len <= RANGE_PIECE_BYTES && piece.unmap));
    let mut ends = pieces.iter().map(|piece| piece.offset + piece.len);
    let starts = pieces.iter().map(|piece| piece.offset).skip(1);
    assert!(ends.clone().zip(starts).all(|(end, start)| end == start));
    assert_eq!(
        (pieces[0].offset, ends.next_back()),
        (range.offset, Some(range.offset + range.len))
    );
    assert_eq!(Range::default().pieces(RANGE_PIECE_BYTES).count(), 0);
}

use spec::SECTOR;

/// The kernel reports a lost write once; the next `fdatasync` succeeds.
#[test]
fn a_flush_that_failed_stays_failed_whatever_the_driver_resets() {
    let image = NamedTempFile::new().unwrap();
    let mut first = true;
    let disk = FuseDisk::over(image.path(), SECTORS * 512, move |asked| match asked {
        Asked::Sync if std::mem::take(&mut first) => Answer::Failed(libc::EIO),
        _ => Answer::Done,
    });
    let Some(disk) = disk else { return };
    let mut bench = Bench::on(image, false, u64::MAX);
    assert_eq!(bench.run(request::OUT, 0, &[readable(DATA, 512)]).0, OK);
    for _ in 0..3 {
        assert_eq!(bench.run(request::FLUSH, 0, &[]).0, IOERR);
    }
    assert_eq!(bench.run(request::OUT, 0, &[readable(DATA, 512)]).0, OK, "promises nothing");
    assert_eq!(bench.run(request::IN, 0, &[writable(DATA, 512)]).0, OK);

    bench.blk.reset();
    bench.blk.config.reset();
    bench.driver = DriverQueue::new(&bench.memory, 1, QUEUE_SIZE);
    // Without a flush every write is a promise.
    let features = bench.blk.features() & !feature::FLUSH & !RING_FEATURES;
    let (activation, _) = activation(&bench.memory, &[&bench.driver], features);
    bench.blk.activate(activation).unwrap();
    assert_eq!(bench.run(request::FLUSH, 0, &[]).0, IOERR);
    assert_eq!(bench.run(request::OUT, 0, &[readable(DATA, 512)]).0, IOERR);
    drop(disk);
}

#[test]
fn a_write_through_write_that_failed_ends_all_promises_as_a_flush_does() {
    let image = NamedTempFile::new().unwrap();
    let mut first = true;
    let disk = FuseDisk::over(image.path(), SECTORS * 512, move |asked| match asked {
        Asked::Write { .. } if std::mem::take(&mut first) => Answer::Failed(libc::EIO),
        _ => Answer::Done,
    });
    let Some(disk) = disk else { return };
    let mut bench = Bench::on(image, false, !feature::FLUSH);
    for _ in 0..2 {
        assert_eq!(bench.run(request::OUT, 0, &[readable(DATA, 512)]).0, IOERR);
    }
    assert_eq!(bench.run(request::FLUSH, 0, &[]).0, IOERR);
    drop(disk);
}
