//! Properties that hold whatever guest and device do, and devices that answer wrongly.

use proptest::prelude::*;
use usbredir::{Body, Packet, Status};

use crate::stick::{INPUT, OUTPUT};
use crate::testing::{Bench, Data, bulk, cbw};
use crate::{Event, FAULTS_MAX, Out, Rules, Violation};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_guest_writes_to_a_read_only_device_and_every_one_can_recover(
        data in proptest::collection::vec(any::<u8>(), 0..2048)
    ) {
        crate::fuzz::fuzz_guest(&data);
    }

    #[test]
    fn no_device_breaks_the_filter_or_opens_it(
        data in proptest::collection::vec(any::<u8>(), 0..2048)
    ) {
        crate::fuzz::fuzz_device(&data);
    }

    #[test]
    fn descriptors_are_read_or_refused_and_shown_without_uas(
        data in proptest::collection::vec(any::<u8>(), 0..256)
    ) {
        crate::fuzz::fuzz_descriptors(&data);
    }
}

/// Starts a command of one block with the device; the answers are the test's.
fn running() -> (Bench, Out) {
    let mut bench = Bench::new(Rules::ReadOnly);
    let mut out = Out::default();
    let read = cbw(1, 512, true, 0, &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    send(&mut bench, &mut out, 1, OUTPUT, read);
    answer(&mut bench, &mut out, 1, bulk(OUTPUT, 31, Vec::new()));
    out.to_guest.clear();
    (bench, out)
}

fn send(bench: &mut Bench, out: &mut Out, id: u64, endpoint: u8, data: Vec<u8>) {
    let body = bulk(endpoint, data.len() as u32, data);
    bench.filter.from_guest(Packet { id, body }, out);
}

fn answer(bench: &mut Bench, out: &mut Out, id: u64, body: Body) {
    bench.filter.from_device(Packet { id, body }, out);
}

fn last_status(out: &mut Out) -> Status {
    match out.to_guest.pop() {
        Some(Packet { body: Body::Bulk(bulk), .. }) => bulk.status,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_status_that_is_none_stalls_until_reset_recovery() {
    let good = [&b"USBS"[..], &[1, 0, 0, 0, 0, 0, 0, 0, 0]].concat();
    let with = |at: usize, to: u8| {
        let mut csw = good.clone();
        csw[at] = to;
        csw
    };
    let cases = [
        (good.clone(), Status::Success),
        (with(0, b'X'), Status::Success), // its first signature, which is learnt
        (with(4, 2), Status::Success),    // another tag, which the guest's driver judges
        (with(10, 1), Status::Success),   // a residue of more than all of it, which is cut
        ([with(0, b'X')[..4].to_vec(), with(4, 2)[4..].to_vec()].concat(), Status::Stall),
        (with(12, 3), Status::Stall),
        (good[..12].to_vec(), Status::Stall),
    ];
    for (csw, expected) in cases {
        let (mut bench, mut out) = running();
        let ask = bulk(INPUT, 512, Vec::new());
        bench.filter.from_guest(Packet { id: 2, body: ask }, &mut out);
        answer(&mut bench, &mut out, 2, bulk(INPUT, 512, vec![0; 512]));
        let ask = bulk(INPUT, 64, Vec::new());
        bench.filter.from_guest(Packet { id: 3, body: ask }, &mut out);
        answer(&mut bench, &mut out, 3, bulk(INPUT, csw.len() as u32, csw.clone()));
        assert_eq!(last_status(&mut out), expected, "{csw:02x?}");
        send(&mut bench, &mut out, 4, OUTPUT, cbw(9, 0, false, 0, &[0; 6]));
        assert_eq!(bench.filter.in_flight(), usize::from(expected == Status::Success));
    }
}

#[test]
fn a_device_is_asked_for_no_more_than_its_data_and_then_for_a_status() {
    let (mut bench, mut out) = running();
    let ask = bulk(INPUT, 100_000, Vec::new());
    out.to_device.clear();
    bench.filter.from_guest(Packet { id: 2, body: ask }, &mut out);
    assert_eq!(out.to_device, [Packet { id: 2, body: bulk(INPUT, 512, Vec::new()) }]);
    answer(&mut bench, &mut out, 2, bulk(INPUT, 512, vec![0; 512]));
    out.to_device.clear();
    let ask = bulk(INPUT, 512, Vec::new());
    bench.filter.from_guest(Packet { id: 3, body: ask }, &mut out);
    assert_eq!(out.to_device, [Packet { id: 3, body: bulk(INPUT, 13, Vec::new()) }]);
}

#[test]
fn a_phase_error_passes_to_the_guest_and_needs_reset_recovery() {
    let (mut bench, mut out) = running();
    let ask = |id| Packet { id, body: bulk(INPUT, 512, Vec::new()) };
    bench.filter.from_guest(ask(2), &mut out);
    answer(&mut bench, &mut out, 2, bulk(INPUT, 0, Vec::new()));
    bench.filter.from_guest(ask(3), &mut out);
    let csw = [&b"USBS"[..], &[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 2]].concat();
    answer(&mut bench, &mut out, 3, bulk(INPUT, 13, csw));
    assert_eq!(last_status(&mut out), Status::Success);
    send(&mut bench, &mut out, 4, OUTPUT, cbw(2, 0, false, 0, &[0; 6]));
    assert_eq!(last_status(&mut out), Status::Stall);
}

#[test]
fn a_stall_or_a_short_answer_ends_the_data_and_the_status_comes_next() {
    for (status, length) in [(Status::Stall, 0), (Status::Success, 100)] {
        let (mut bench, mut out) = running();
        let ask = |id| Packet { id, body: bulk(INPUT, 512, Vec::new()) };
        bench.filter.from_guest(ask(2), &mut out);
        let mut short = bulk(INPUT, length, vec![0; length as usize]);
        if let Body::Bulk(bulk) = &mut short {
            bulk.status = status;
        }
        answer(&mut bench, &mut out, 2, short);
        assert_eq!(last_status(&mut out), status);
        out.to_device.clear();
        bench.filter.from_guest(ask(3), &mut out);
        assert_eq!(out.to_device, [Packet { id: 3, body: bulk(INPUT, 13, Vec::new()) }]);
    }
}

#[test]
fn a_reset_that_the_device_refuses_mends_nothing() {
    let mut bench = Bench::new(Rules::ReadOnly);
    let mut out = Out::default();
    send(&mut bench, &mut out, 1, OUTPUT, vec![0; 5]);
    let reset = crate::testing::control(0x21, 0xff, 0, 0, 0);
    bench.filter.from_guest(Packet { id: 2, body: reset.clone() }, &mut out);
    let Body::Control(mut refused) = reset else { panic!() };
    refused.status = Status::Stall;
    answer(&mut bench, &mut out, 2, Body::Control(refused));
    bench.clear_halt(OUTPUT);
    bench.clear_halt(INPUT);
    send(&mut bench, &mut out, 3, OUTPUT, cbw(1, 0, false, 0, &[0; 6]));
    assert_eq!(last_status(&mut out), Status::Stall);
}

#[test]
fn a_device_that_never_ends_its_answers_rightly_is_taken_away() {
    let mut bench = Bench::new(Rules::ReadOnly);
    let mut out = Out::default();
    for round in 0..u64::from(FAULTS_MAX) {
        let id = round * 10;
        assert!(!bench.filter.is_closed());
        send(&mut bench, &mut out, id, OUTPUT, cbw(1, 0, false, 0, &[0; 6]));
        answer(&mut bench, &mut out, id, bulk(OUTPUT, 31, Vec::new()));
        let ask = bulk(INPUT, 13, Vec::new());
        bench.filter.from_guest(Packet { id: id + 1, body: ask }, &mut out);
        answer(&mut bench, &mut out, id + 1, bulk(INPUT, 13, vec![0; 13]));
        bench.filter.from_guest(Packet { id: id + 2, body: Body::Reset }, &mut out);
    }
    assert_eq!(out.events, [Event::Violation(Violation::TooManyFaults)]);
    assert!(bench.filter.is_closed());
}

#[test]
fn more_transfers_than_can_be_known_are_answered_with_an_error() {
    let mut bench = Bench::new(Rules::ReadOnly);
    let mut out = Out::default();
    for id in 0..10_000 {
        let body = if id % 2 == 0 {
            bulk(INPUT, 512, Vec::new())
        } else {
            crate::testing::control(0x80, 0, 0, 0, 2)
        };
        bench.filter.from_guest(Packet { id, body }, &mut out);
        assert!(bench.filter.in_flight() <= crate::IN_FLIGHT_MAX);
        out.to_guest.clear();
    }
}

// Shows: C-10.
#[test]
fn a_guest_has_no_more_of_the_kernels_memory_for_a_device_than_its_drivers_use() {
    const LARGEST: u32 = 128 * 1024;
    let mut bench = Bench::new(Rules::Allow);
    let ask = |id| Packet { id, body: bulk(INPUT, LARGEST, Vec::new()) };
    let mut out = Out::default();
    // The device says nothing to any of them.
    (0..200).for_each(|id| bench.filter.from_guest(ask(id), &mut out));
    let taken = out.to_device.len();
    // What the kernel remembers each by counts, too, and the rest of its last packet.
    let each = crate::traffic::kernel_bytes(LARGEST);
    assert_eq!(taken, crate::BYTES_IN_FLIGHT_MAX / each);
    assert_eq!(bench.filter.bytes_in_flight(), taken * each);
    assert_eq!((out.to_guest.len(), last_status(&mut out)), (200 - taken, Status::IoError));
    assert!(matches!(out.events[..], [Event::Refused { what: crate::Refusal::TooMany, times: 1 }]));
    // To the device it is the same, and what takes no data is not held up.
    send(&mut bench, &mut out, 300, OUTPUT, vec![0; LARGEST as usize]);
    assert_eq!(last_status(&mut out), Status::IoError);
    let passed = out.to_device.len();
    let status = crate::testing::control(0x80, 0, 0, 0, 2);
    bench.filter.from_guest(Packet { id: 301, body: status }, &mut out);
    assert_eq!(out.to_device.len(), passed + 1);
    // What was answered makes room, and so on for as long as the guest likes.
    let mut oldest: Vec<u64> = (0..taken as u64).collect();
    for id in 1000..2000 {
        answer(&mut bench, &mut out, oldest.remove(0), bulk(INPUT, 0, Vec::new()));
        out.to_device.clear();
        bench.filter.from_guest(ask(id), &mut out);
        assert_eq!(out.to_device.len(), 1, "{id}");
        oldest.push(id);
    }
}

#[test]
fn a_transfer_of_no_bytes_takes_of_the_kernels_memory_what_it_takes_there() {
    let mut bench = Bench::new(Rules::Allow);
    let mut out = Out::default();
    let mut taken = 0;
    for (id, length) in [(1, 0), (2, 1), (3, 1024)] {
        bench.filter.from_guest(Packet { id, body: bulk(INPUT, length, Vec::new()) }, &mut out);
        taken += length as usize + 1024 + 512;
        assert_eq!(bench.filter.bytes_in_flight(), taken, "{length}");
    }
}

/// What a driver that keeps the protocol asks for.
#[derive(Clone, Debug)]
enum Ask {
    Read { address: u8, blocks: u8, opcode: u8 },
    Write { address: u8, blocks: u8 },
    Unmap,
    Inquiry(u8),
    Capacity,
    TestUnitReady,
    Sense,
    OutOfRange,
    Attention,
    Recover,
    Reset,
}

fn asks() -> impl Strategy<Value = Ask> {
    prop_oneof![
        4 => (0..60_u8, 1..5_u8, prop::sample::select(vec![0x08, 0x28, 0xa8, 0x88]))
            .prop_map(|(address, blocks, opcode)| Ask::Read { address, blocks, opcode }),
        3 => (0..60_u8, 1..5_u8).prop_map(|(address, blocks)| Ask::Write { address, blocks }),
        1 => Just(Ask::Unmap),
        1 => (1..64_u8).prop_map(Ask::Inquiry),
        1 => Just(Ask::Capacity),
        1 => Just(Ask::TestUnitReady),
        2 => Just(Ask::Sense),
        1 => Just(Ask::OutOfRange),
        1 => Just(Ask::Attention),
        1 => Just(Ask::Recover),
        1 => Just(Ask::Reset),
    ]
}

/// What came of it: data, status, residue.
type Came = Option<(Vec<u8>, u8, u32)>;

fn ask(bench: &mut Bench, ask: &Ask) -> Came {
    match *ask {
        Ask::Read { address, blocks, opcode } => {
            let cdb: &[u8] = match opcode {
                0x08 => &[8, 0, 0, address, blocks, 0],
                0xa8 => &[0xa8, 0, 0, 0, 0, address, 0, 0, 0, blocks, 0, 0],
                0x88 => &[0x88, 0, 0, 0, 0, 0, 0, 0, 0, address, 0, 0, 0, blocks, 0, 0],
                _ => &[0x28, 0, 0, 0, 0, address, 0, 0, blocks, 0],
            };
            bench.command(cdb, Data::In(u32::from(blocks) * 512))
        }
        Ask::Write { address, blocks } => {
            let cdb = [0x2a, 0, 0, 0, 0, address, 0, 0, blocks, 0];
            bench.command(&cdb, Data::Out(&vec![0xee; usize::from(blocks) * 512]))
        }
        Ask::Unmap => bench.command(&[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], Data::Out(&[0; 24])),
        Ask::Inquiry(most) => bench.command(&[0x12, 0, 0, 0, most, 0], Data::In(most.into())),
        Ask::Capacity => bench.command(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], Data::In(8)),
        Ask::TestUnitReady => bench.command(&[0; 6], Data::None),
        Ask::Sense => bench.command(&[3, 0, 0, 0, 18, 0], Data::In(18)),
        Ask::OutOfRange => bench.command(&[0x28, 0, 0, 0, 0x10, 0, 0, 0, 1, 0], Data::In(512)),
        Ask::Attention => {
            bench.stick.attention = Some((6, 0x28));
            None
        }
        Ask::Recover => {
            bench.recover();
            None
        }
        Ask::Reset => {
            bench.guest(Packet { id: 0, body: Body::Reset });
            None
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_driver_that_keeps_the_protocol_sees_the_device_itself_but_for_its_writes(
        asked in proptest::collection::vec(asks(), 0..60)
    ) {
        let mut filtered = Bench::new(Rules::ReadOnly);
        // The same stick, which nobody writes to.
        let mut bare = Bench::new(Rules::Allow);
        let mut refused = false;
        for one in &asked {
            let came = ask(&mut filtered, one);
            match one {
                Ask::Write { .. } | Ask::Unmap => {
                    let (data, status, residue) = came.unwrap();
                    let length = match one {
                        Ask::Write { blocks, .. } => u32::from(*blocks) * 512,
                        _ => 24,
                    };
                    assert_eq!((data.len(), status, residue), (0, 1, length));
                    refused = true;
                }
                Ask::Sense if refused => {
                    let (data, status, residue) = came.unwrap();
                    assert_eq!((data[2], data[12], status, residue), (7, 0x27, 0, 0));
                    refused = false;
                }
                _ => {
                    assert_eq!(came, ask(&mut bare, one), "{one:?}");
                    refused &= matches!(one, Ask::Inquiry(_) | Ask::Attention);
                }
            }
        }
        assert_eq!(filtered.stick.data_out, 0);
        assert!(!filtered.stick.harmed && !bare.stick.harmed);
        assert!(!filtered.filter.is_closed());
    }
}
