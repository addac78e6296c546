//! Sticks that are not as the specification has them, driven as Linux drives one, without the filter and with it.

use proptest::prelude::*;

use super::descriptors::hexadecimal;
use crate::stick::{INPUT, MaxLun, OUTPUT, Quirks, Stick};
use crate::testing::linux::{Driver, Ended};
use crate::testing::{Bench, Data, bulk, cbw};
use crate::{Event, Filter, Out, Refusal, Rules};

const INQUIRY: &[u8] = &[0x12, 0, 0, 0, 36, 0];
const TEST_UNIT_READY: &[u8] = &[0; 6];
const READ_CAPACITY: &[u8] = &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const MODE_SENSE: &[u8] = &[0x1a, 0, 0x3f, 0, 192, 0];
const MODE_SENSE_10: &[u8] = &[0x5a, 0, 0x3f, 0, 0, 0, 0, 0, 192, 0];
const READ: &[u8] = &[0x28, 0, 0, 0, 0, 3, 0, 0, 16, 0];
const WRITE: &[u8] = &[0x2a, 0, 0, 0, 0, 3, 0, 0, 2, 0];

/// What Linux does with a stick that was plugged in.
const START: [(&[u8], u32); 6] = [
    (INQUIRY, 36),
    (TEST_UNIT_READY, 0),
    (READ_CAPACITY, 8),
    (MODE_SENSE, 192),
    (MODE_SENSE_10, 192),
    (READ, 16 * 512),
];

fn data(length: u32) -> Data<'static> {
    if length == 0 { Data::None } else { Data::In(length) }
}

fn untouched(stick: &Stick) {
    assert_eq!(stick.medium, Stick::new(64).medium);
    assert_eq!((stick.data_out, stick.harmed), (0, false));
}

/// A stick and its driver, without the filter's following and with it.
struct Both {
    bare: (Bench, Driver),
    filtered: (Bench, Driver),
}

impl Both {
    fn new(quirks: &Quirks, ignores_tags: bool) -> Self {
        let of = |rules| {
            let driver = Driver::new(ignores_tags);
            (Bench::with(rules, quirks.clone()), driver)
        };
        Self { bare: of(Rules::Allow), filtered: of(Rules::ReadOnly) }
    }

    /// Sends the same command to both. It has to end alike, but for the bit that says write-protected; what is an error without the
    /// filter may end better.
    fn agree(&mut self, cdb: &[u8], length: u32) -> Ended {
        let (bench, driver) = &mut self.bare;
        let mut without = driver.command(bench, cdb, data(length));
        let (bench, driver) = &mut self.filtered;
        let with = driver.command(bench, cdb, data(length));
        let parameter = match cdb[0] {
            0x1a => Some(2),
            0x5a => Some(3),
            _ => None,
        };
        if let (Ended::Good(bytes, _), Some(at)) = (&mut without, parameter)
            && let Some(parameter) = bytes.get_mut(at)
        {
            *parameter |= 0x80;
        }
        let as_good = match (&with, &without) {
            (_, Ended::Error) => true,
            (Ended::Good(ours, missing), Ended::Good(theirs, most)) => {
                ours == theirs && missing <= most
            }
            _ => with == without,
        };
        let quirks = &self.bare.0.stick.quirks;
        assert!(as_good, "{cdb:02x?} of {quirks:?}: {with:?} instead of {without:?}");
        assert!(self.filtered.1.resets <= self.bare.1.resets, "{cdb:02x?}");
        assert!(!self.filtered.0.filter.is_closed(), "{:?}", self.filtered.0.events);
        with
    }

    fn start(&mut self) -> Vec<Ended> {
        START.iter().map(|(cdb, length)| self.agree(cdb, *length)).collect()
    }

    /// Writes to the filtered one alone.
    fn write(&mut self) -> Ended {
        let (bench, driver) = &mut self.filtered;
        let ended = driver.command(bench, WRITE, Data::Out(&[0xee; 1024]));
        untouched(&bench.stick);
        ended
    }
}

/// Reads as it does without the filter, without a reset, and cannot be written to.
fn reads(quirks: &Quirks) -> Vec<Ended> {
    let mut both = Both::new(quirks, false);
    let ended = both.start();
    assert_eq!((both.bare.1.resets, both.filtered.1.resets), (0, 0), "{quirks:?}");
    assert_eq!(both.write(), Ended::Failed(7, 0x27), "{quirks:?}");
    untouched(&both.bare.0.stick);
    ended
}

#[test]
fn a_residue_larger_than_the_command_is_cut_to_it_and_the_stick_is_read() {
    for residue in [0, 1, 36, 4096, u32::MAX] {
        let ended = reads(&Quirks { residue: Some(residue), ..Quirks::default() });
        assert_eq!(ended[5], Ended::Good(Stick::new(64).medium[3 * 512..19 * 512].to_vec(), 0));
    }
    // And what a driver sees that does not cut it itself.
    let mut bench =
        Bench::with(Rules::ReadOnly, Quirks { residue: Some(u32::MAX), ..Quirks::default() });
    assert_eq!(bench.command(TEST_UNIT_READY, Data::None), Some((Vec::new(), 0, 0)));
    assert_eq!(bench.command(READ_CAPACITY, Data::In(8)).unwrap().2, 8);
}

#[test]
fn the_signature_of_the_first_status_is_learnt_and_shown_as_the_specification_has_it() {
    for signature in [*b"USBU", [0; 4], [0xff; 4]] {
        let ended = reads(&Quirks { signature: Some(signature), ..Quirks::default() });
        assert!(matches!(ended[5], Ended::Good(..)));
    }
    let mut bench =
        Bench::with(Rules::ReadOnly, Quirks { signature: Some(*b"USBU"), ..Quirks::default() });
    for _ in 0..2 {
        bench.write(&cbw(7, 0, false, 0, TEST_UNIT_READY)).unwrap();
        assert_eq!(bench.read(13).unwrap().1[..4], *b"USBS");
    }
    // Another one later is none of a status, until the device begins anew.
    bench.stick.quirks.signature = Some(*b"USBV");
    assert_eq!(bench.command(TEST_UNIT_READY, Data::None), None);
    bench.guest(usbredir::Packet { id: 0, body: usbredir::Body::Reset });
    assert_eq!(bench.command(TEST_UNIT_READY, Data::None), Some((Vec::new(), 0, 0)));
}

#[test]
fn a_status_in_place_of_the_data_is_the_status_and_is_not_changed() {
    let ended = reads(&Quirks { skips: vec![0x1a, 0x5a], ..Quirks::default() });
    assert_eq!(ended[3..5], [Ended::Good(Vec::new(), 192), Ended::Good(Vec::new(), 192)]);
    let every = Quirks { skips: vec![0x12, 0x1a, 0x5a, 0x28], ..Quirks::default() };
    assert_eq!(reads(&every)[5], Ended::Good(Vec::new(), 16 * 512));
    let mut bench = Bench::with(Rules::ReadOnly, every);
    bench.write(&cbw(7, 192, true, 0, MODE_SENSE)).unwrap();
    let status = [&b"USBS"[..], &[7, 0, 0, 0, 192, 0, 0, 0, 0]].concat();
    assert_eq!(bench.read(192).unwrap().1, status);
}

#[test]
fn thirteen_bytes_of_data_that_are_no_status_are_data() {
    let mut bench = Bench::new(Rules::ReadOnly);
    let mut out = Out::default();
    let packet = |id, body| usbredir::Packet { id, body };
    bench
        .filter
        .from_guest(packet(1, bulk(OUTPUT, 31, cbw(7, 192, true, 0, MODE_SENSE))), &mut out);
    bench.filter.from_device(packet(1, bulk(OUTPUT, 31, Vec::new())), &mut out);
    bench.filter.from_guest(packet(2, bulk(INPUT, 192, Vec::new())), &mut out);
    out.to_guest.clear();
    let mode = vec![12, 0, 0, 8, 0, 0, 0, 0, 0, 0, 2, 0, 0];
    bench.filter.from_device(packet(2, bulk(INPUT, 13, mode.clone())), &mut out);
    let mut protected = mode;
    protected[2] = 0x80;
    assert_eq!(out.to_guest, [packet(2, bulk(INPUT, 13, protected))]);
    // Nor if its statuses are signed with what data may begin with.
    let mut bench =
        Bench::with(Rules::ReadOnly, Quirks { signature: Some([0; 4]), ..Quirks::default() });
    assert_eq!(bench.command(TEST_UNIT_READY, Data::None), Some((Vec::new(), 0, 0)));
    let capacity = [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 13, 0, 0];
    let (data, status, residue) = bench.command(&capacity, Data::In(32)).unwrap();
    assert_eq!((data.len(), status, residue), (13, 0, 19));
}

#[test]
fn a_status_with_another_tag_is_for_the_guests_driver_to_judge() {
    let quirks = Quirks { tag: Some([9; 4]), ..Quirks::default() };
    // Linux has a list of such devices, and reads them.
    let mut known = Both::new(&quirks, true);
    assert!(known.start().iter().all(|ended| matches!(ended, Ended::Good(..))));
    assert_eq!((known.bare.1.resets, known.filtered.1.resets), (0, 0));
    assert_eq!(known.write(), Ended::Failed(7, 0x27));
    // One that is not on it ends with an error, as without the filter, and is not taken away for it.
    let mut unknown = Both::new(&quirks, false);
    assert!(unknown.start().iter().all(|ended| *ended == Ended::Error));
    unknown.write();
}

#[test]
fn empty_packets_stalls_and_odd_answers_to_get_max_lun_are_as_without_the_filter() {
    reads(&Quirks { empty_packet: true, ..Quirks::default() });
    reads(&Quirks { stalls_status: true, ..Quirks::default() });
    reads(&Quirks { empty_packet: true, stalls_status: true, ..Quirks::default() });
    for max_lun in [
        MaxLun::Stall,
        MaxLun::Bytes(Vec::new()),
        MaxLun::Bytes(vec![16]),
        MaxLun::Bytes(vec![255]),
    ] {
        let quirks = Quirks { max_lun, ..Quirks::default() };
        let mut both = Both::new(&quirks, false);
        for (bench, driver) in [&mut both.bare, &mut both.filtered] {
            assert_eq!(driver.max_lun(bench), 0, "{quirks:?}");
        }
        both.start();
        assert_eq!(both.filtered.1.resets, 0);
    }
}

#[test]
fn more_data_than_asked_for_end_the_command_as_without_the_filter() {
    let ended = reads(&Quirks { babbles: vec![0x12, 0x1a], ..Quirks::default() });
    assert_eq!((&ended[0], &ended[3]), (&Ended::Long, &Ended::Long));
    assert!(matches!(ended[5], Ended::Good(..)));
}

/// The configurations of two sticks with a third endpoint, which Bulk-Only Transport has no use for.
const THIRD_ENDPOINT: [&str; 2] = [
    "1201000200000040a00e682100010102030109022700010100803209040000030806500007058102000200070502020002000705830302000a",
    "12011001000000083835150000010102030109022700010100803209040000030806500007058102400000070502024000000705830308000a",
];

#[test]
fn a_stick_with_a_third_endpoint_is_given_read_only_without_it() {
    for text in THIRD_ENDPOINT {
        Filter::new(Rules::ReadOnly, hexadecimal(text)).unwrap();
    }
    let third = |address: u8, transfer: u8| {
        let mut pinned = crate::stick::pinned(false);
        let raw = &mut pinned.configurations[0];
        raw.extend([7, 5, address, transfer, 0, 2, 10]);
        (raw[2], raw[13]) = (raw.len() as u8, 3);
        let mut bench = Bench::new(Rules::ReadOnly);
        bench.filter = Filter::new(Rules::ReadOnly, pinned).unwrap();
        bench
    };
    // Nothing is asked of it, and nothing goes there: nobody knows what the device does with that.
    let mut bench = third(0x83, 3);
    let start = usbredir::Body::StartInterruptReceiving { endpoint: 0x83 };
    let passed = bench.passed;
    bench.ask(start);
    assert_eq!((bench.passed, &bench.events[..]), (passed, &[refused(0x83)][..]));
    for (address, transfer) in [(0x03, 2), (0x84, 2)] {
        let mut bench = third(address, transfer);
        let write = cbw(1, 512, false, 0, WRITE);
        let (length, bytes) = if address == 0x03 { (31, write) } else { (512, Vec::new()) };
        bench.ask(bulk(address, length, bytes));
        assert_eq!((bench.passed, &bench.events[..]), (passed, &[refused(address)][..]));
        assert!(bench.read_blocks(3, 2).is_some());
        untouched(&bench.stick);
    }
}

fn refused(endpoint: u8) -> Event {
    Event::Refused { what: Refusal::Endpoint(endpoint), times: 1 }
}

fn quirks() -> impl Strategy<Value = Quirks> {
    let opcodes =
        || prop::collection::vec(prop::sample::select(vec![0x03, 0x12, 0x1a, 0x25, 0x28]), 0..3);
    let lun = prop_oneof![
        Just(MaxLun::Stall),
        prop::collection::vec(any::<u8>(), 0..3).prop_map(MaxLun::Bytes)
    ];
    let residue = prop::option::of(prop_oneof![Just(0), Just(u32::MAX), 0..9000_u32, any::<u32>()]);
    let signature = prop::option::of(prop_oneof![Just(*b"USBU"), any::<[u8; 4]>()]);
    let tag = prop::option::weighted(0.2, any::<[u8; 4]>());
    (residue, signature, tag, opcodes(), opcodes(), any::<[bool; 2]>(), lun).prop_map(
        |(residue, signature, tag, skips, babbles, [empty_packet, stalls_status], max_lun)| {
            // A status with neither signature nor tag of its own is none.
            let signature = signature.filter(|_| tag.is_none());
            Quirks { residue, signature, tag, skips, babbles, empty_packet, stalls_status, max_lun }
        },
    )
}

/// Returns what a driver asks for: anything that reads, and writes of every kind.
fn commands() -> impl Strategy<Value = Vec<(Vec<u8>, u32, bool)>> {
    let read = prop::sample::select(START.to_vec())
        .prop_map(|(cdb, length)| (cdb.to_vec(), length, false));
    let write = (
        prop::sample::select(vec![
            0x0a, 0x2a, 0xaa, 0x8a, 0x2e, 0x41, 0x42, 0x04, 0x3b, 0x55, 0x85,
        ]),
        0..4_u8,
    )
        .prop_map(|(opcode, blocks)| {
            let mut cdb = vec![opcode; 1];
            cdb.resize(16, 0);
            for at in [4, 8, 9, 13] {
                cdb[at] = blocks;
            }
            (cdb, u32::from(blocks) * 512, true)
        });
    prop::collection::vec(prop_oneof![3 => read, 2 => write], 0..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn no_write_gets_through_to_a_stick_with_any_quirk_that_linux_drives(
        quirks in quirks(), commands in commands(), ignores_tags in any::<bool>()
    ) {
        let mut bench = Bench::with(Rules::ReadOnly, quirks);
        bench.watch = Some(crate::fuzz::harmless);
        let mut driver = Driver::new(ignores_tags);
        driver.max_lun(&mut bench);
        for (cdb, length, writes) in commands {
            let bytes = vec![0xee; length as usize];
            let data = if writes && length > 0 { Data::Out(&bytes) } else { data(length) };
            let ended = driver.command(&mut bench, &cdb, data);
            assert!(!writes || !matches!(ended, Ended::Good(..)), "{cdb:02x?}");
        }
        untouched(&bench.stick);
    }

    #[test]
    fn no_guest_writes_to_a_stick_with_any_quirk_whatever_it_sends(
        quirks in quirks(), data in prop::collection::vec(any::<u8>(), 0..1024)
    ) {
        crate::fuzz::fuzz_quirks(quirks, &data);
    }

    #[test]
    fn what_reads_without_the_filter_reads_with_it_with_no_more_resets(
        quirks in quirks(),
        commands in prop::collection::vec(prop::sample::select(START.to_vec()), 0..24),
        ignores_tags in any::<bool>()
    ) {
        let mut both = Both::new(&quirks, ignores_tags);
        for (cdb, length) in commands {
            both.agree(cdb, length);
        }
    }
}
