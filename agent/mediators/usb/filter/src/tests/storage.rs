//! Read-only storage, as a driver meets it.

use usbredir::packet::Bulk;
use usbredir::{Body, Packet, Status};

use crate::stick::{INPUT, OUTPUT, Stick};
use crate::testing::{Bench, Data, bulk, cbw, read_through};
use crate::{CommandRefusal, Event, Refusal, Rules};

const WRITE_10: [u8; 10] = [0x2a, 0, 0, 0, 0, 3, 0, 0, 2, 0];

fn read_only() -> Bench {
    Bench::new(Rules::ReadOnly)
}

fn untouched(bench: &Bench) {
    assert_eq!(bench.stick.medium, Stick::new(64).medium);
    assert_eq!((bench.stick.data_out, bench.stick.harmed), (0, false));
}

#[test]
fn blocks_are_read_and_bytes_and_commands_counted() {
    let mut bench = read_only();
    let data = bench.read_blocks(3, 16).unwrap();
    assert_eq!(data, bench.stick.medium[3 * 512..19 * 512]);
    let counts = bench.filter.counts();
    assert_eq!(counts.commands.get(&0x28), Some(&1));
    assert_eq!((counts.to_device, counts.to_guest), (31, 16 * 512 + 13));
    assert_eq!(bench.events, []);
}

#[test]
fn a_write_fails_with_data_protect_and_its_data_go_nowhere() {
    let mut bench = read_only();
    let passed = bench.passed;
    let (_, status, residue) = bench.command(&WRITE_10, Data::Out(&[0xaa; 1024])).unwrap();
    assert_eq!((status, residue), (1, 1024));
    assert_eq!(bench.sense(), Some((7, 0x27, 0)));
    assert_eq!(bench.passed, passed, "nothing of this reached the device");
    // And the sense data are gone, as they are from a device.
    assert_eq!(bench.sense(), Some((0, 0, 0)));
    untouched(&bench);
    let what = Refusal::Command { opcode: 0x2a, why: CommandRefusal::Writes };
    assert_eq!(bench.events, [Event::Refused { what, times: 1 }]);
    assert!(bench.read_blocks(0, 1).is_some());
}

#[test]
fn refusals_are_told_once_and_then_counted() {
    let mut bench = read_only();
    for _ in 0..5 {
        bench.command(&WRITE_10, Data::Out(&[0; 1024])).unwrap();
    }
    let mut out = crate::Out::default();
    bench.filter.flush(&mut out);
    let what = Refusal::Command { opcode: 0x2a, why: CommandRefusal::Writes };
    assert_eq!(bench.events, [Event::Refused { what, times: 1 }]);
    assert_eq!(out.events, [Event::Refused { what, times: 4 }]);
    assert_eq!(bench.filter.counts().refused, 5);
}

#[test]
fn every_command_that_is_not_on_the_list_stays_here() {
    const LISTED: [u8; 19] = [
        0x00, 0x03, 0x08, 0x12, 0x1a, 0x1b, 0x1e, 0x23, 0x25, 0x28, 0x2f, 0x5a, 0x88, 0x8f, 0x9e,
        0xa0, 0xa8, 0xaf, 0x35,
    ];
    for opcode in 0..=0xff_u8 {
        for data in [Data::None, Data::In(512), Data::Out(&[0; 512])] {
            let mut bench = read_only();
            let mut cdb = [0; 16];
            cdb[0] = opcode;
            let (_, status, _) = bench.command(&cdb, data).unwrap();
            if !LISTED.contains(&opcode) && opcode != 0x91 {
                assert_eq!(status, 1, "{opcode:02x}");
                assert_eq!(bench.stick.commands, [], "{opcode:02x}");
                let (key, ..) = bench.sense().unwrap();
                assert!(key == 7 || key == 5);
            }
            if matches!(data, Data::Out(_)) {
                assert_eq!((status, bench.stick.commands.len()), (1, 0), "{opcode:02x}");
            }
            untouched(&bench);
        }
    }
}

#[test]
fn what_writes_is_refused_as_protected_and_what_asks_as_unknown() {
    for (opcode, key) in [
        (0x04, 7), // FORMAT UNIT
        (0x15, 7), // MODE SELECT (6)
        (0x1d, 7), // SEND DIAGNOSTIC
        (0x3b, 7), // WRITE BUFFER
        (0x41, 7), // WRITE SAME (10)
        (0x42, 7), // UNMAP
        (0x48, 7), // SANITIZE
        (0x51, 7), // XPWRITE (10), or READ DISC INFORMATION
        (0x5f, 7), // PERSISTENT RESERVE OUT
        (0x83, 7), // EXTENDED COPY
        (0x85, 7), // ATA PASS-THROUGH (16)
        (0xa1, 7), // ATA PASS-THROUGH (12)
        (0xb5, 7), // SECURITY PROTOCOL OUT
        (0xc0, 7), // a vendor's
        (0x4d, 5), // LOG SENSE
        (0xa3, 5), // MAINTENANCE IN
    ] {
        let mut bench = read_only();
        bench.command(&[opcode; 16], Data::None).unwrap();
        assert_eq!(bench.sense().unwrap().0, key, "{opcode:02x}");
    }
}

#[test]
fn a_refused_command_that_wants_data_stalls_and_has_them_all_as_residue() {
    let mut bench = read_only();
    let cdb = [0x4d, 0, 0, 0, 0, 0, 0, 0, 64, 0];
    assert_eq!(bench.write(&cbw(7, 64, true, 0, &cdb)), Some(Status::Success));
    assert_eq!(bench.read(64), Some((Status::Stall, Vec::new())));
    assert_eq!(bench.read(13), Some((Status::Stall, Vec::new())), "until the halt is taken away");
    assert_eq!(bench.clear_halt(INPUT), Some(Status::Success));
    let (status, csw) = bench.read(13).unwrap();
    assert_eq!((status, &csw[8..]), (Status::Success, &[64, 0, 0, 0, 1][..]));
}

#[test]
fn a_refused_write_of_gigabytes_is_stalled_rather_than_taken() {
    let mut bench = read_only();
    let cdb = [0xaa, 0, 0, 0, 0, 0, 0, 0x40, 0, 0, 0, 0];
    assert_eq!(bench.write(&cbw(7, 1 << 31, false, 0, &cdb)), Some(Status::Success));
    assert_eq!(bench.write(&[0; 512]), Some(Status::Stall));
    bench.clear_halt(OUTPUT);
    let (status, csw) = bench.read(13).unwrap();
    assert_eq!((status, csw[12]), (Status::Success, 1));
    assert!(bench.read_blocks(0, 1).is_some());
}

#[test]
fn more_data_than_announced_are_a_stall_until_reset_recovery() {
    let mut bench = read_only();
    assert_eq!(bench.write(&cbw(7, 512, false, 0, &WRITE_10)), Some(Status::Success));
    assert_eq!(bench.write(&[0; 513]), Some(Status::Stall));
    bench.clear_halt(OUTPUT);
    bench.clear_halt(INPUT);
    assert_eq!(bench.read(13).unwrap().0, Status::Stall);
    bench.recover();
    assert!(bench.read_blocks(0, 1).is_some());
    untouched(&bench);
}

#[test]
fn the_medium_is_reported_write_protected_however_the_answer_is_cut() {
    let mut bench = read_only();
    let (data, ..) = bench.command(&[0x1a, 0, 0x3f, 0, 192, 0], Data::In(192)).unwrap();
    assert_eq!(data, [3, 0, 0x80, 0]);
    let cdb = [0x5a, 0, 0x3f, 0, 0, 0, 0, 0, 8, 0];
    let (data, ..) = bench.command(&cdb, Data::In(8)).unwrap();
    assert_eq!(data, [0, 6, 0, 0x80, 0, 0, 0, 0]);
    bench.write(&cbw(9, 8, true, 0, &cdb)).unwrap();
    let pieces: Vec<u8> = [3, 1, 4].iter().flat_map(|most| bench.read(*most).unwrap().1).collect();
    assert_eq!(pieces, [0, 6, 0, 0x80, 0, 0, 0, 0]);
    assert_eq!(bench.read(13).unwrap().1.len(), 13);
}

#[test]
fn a_cd_drive_keeps_its_mode_parameters_and_gets_its_own_commands() {
    let mut bench = read_only();
    let toc = [0x43, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(bench.command(&toc, Data::None).unwrap().1, 1, "nobody knows yet what it is");
    bench.stick.kind = 5;
    bench.command(&[0x12, 0, 0, 0, 36, 0], Data::In(36)).unwrap();
    let (data, ..) = bench.command(&[0x5a, 0, 0x2a, 0, 0, 0, 0, 0, 8, 0], Data::In(8)).unwrap();
    assert_eq!(data[3], 0);
    bench.command(&toc, Data::None);
    assert_eq!(bench.stick.commands.last(), Some(&0x43));
}

#[test]
fn a_cache_is_synchronized_without_the_device() {
    let mut bench = read_only();
    let cdb = [0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(bench.command(&cdb, Data::None), Some((Vec::new(), 0, 0)));
    assert_eq!(bench.stick.commands, []);
}

#[test]
fn sense_data_of_the_device_are_neither_lost_nor_mixed_up_with_ours() {
    let mut bench = read_only();
    bench.stick.attention = Some((6, 0x28));
    assert_eq!(bench.command(&[0; 6], Data::None).unwrap().1, 1);
    // The guest does not ask, and writes.
    assert_eq!(bench.command(&WRITE_10, Data::Out(&[0; 1024])).unwrap().1, 1);
    assert_eq!(bench.sense(), Some((7, 0x27, 0)));
    assert_eq!(bench.sense(), Some((6, 0x28, 0)));
    // A command that goes well between the refusal and the question ends what was to be told.
    bench.command(&WRITE_10, Data::Out(&[0; 1024])).unwrap();
    bench.command(&[0; 6], Data::None).unwrap();
    assert_eq!(bench.sense(), Some((0, 0, 0)));
    // INQUIRY does not.
    bench.command(&WRITE_10, Data::Out(&[0; 1024])).unwrap();
    bench.command(&[0x12, 0, 0, 0, 36, 0], Data::In(36)).unwrap();
    assert_eq!(bench.sense(), Some((7, 0x27, 0)));
}

#[test]
fn sense_data_come_in_the_format_and_length_that_was_asked_for() {
    let mut bench = read_only();
    bench.command(&WRITE_10, Data::Out(&[0; 1024])).unwrap();
    let asked = [0x03, 1, 0, 0, 252, 0];
    let (mut data, status, residue) = bench.command(&asked, Data::In(252)).unwrap();
    assert!(data.split_off(8).iter().all(|pad| *pad == 0));
    assert_eq!((data, status, residue), (vec![0x72, 7, 0x27, 0, 0, 0, 0, 0], 0, 244));
    // More than a command can ask for ends with a stall.
    bench.command(&WRITE_10, Data::Out(&[0; 1024])).unwrap();
    bench.write(&cbw(5, 4096, true, 0, &[3, 0, 0, 0, 18, 0])).unwrap();
    assert_eq!(bench.read(4096).unwrap().1.len(), 255);
    assert_eq!(bench.read(13).unwrap().0, Status::Stall);
    bench.clear_halt(INPUT);
    assert_eq!(
        bench.read(13).unwrap().1[8..],
        (4096 - 18_u32).to_le_bytes().into_iter().chain([0]).collect::<Vec<u8>>()
    );
    bench.command(&WRITE_10, Data::Out(&[0; 1024])).unwrap();
    let (data, _, residue) = bench.command(&[0x03, 0, 0, 0, 4, 0], Data::In(4)).unwrap();
    assert_eq!((data, residue), (vec![0x70, 0, 7, 0], 0));
}

#[test]
fn a_command_whose_length_or_direction_disagrees_goes_nowhere() {
    let read = [0x28, 0, 0, 0, 0, 0, 0, 0, 2, 0];
    for (cdb, data) in [
        (&read[..], Data::In(512)),
        (&read, Data::In(1025)),
        (&read, Data::Out(&[0; 1024])),
        (&read, Data::None),
        (&[0x12, 0, 0, 0, 36, 0], Data::In(35)),
        (&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], Data::In(12)),
        (&[0, 0, 0, 0, 0, 0], Data::In(1)),
        (&[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], Data::Out(&[0; 8])),
        // BYTCHK: the host would send data.
        (&[0x2f, 2, 0, 0, 0, 0, 0, 0, 1, 0], Data::Out(&[0; 512])),
        (&[0x2f, 2, 0, 0, 0, 0, 0, 0, 1, 0], Data::None),
        // A power condition.
        (&[0x1b, 0, 0, 0, 0x30, 0], Data::None),
        // A CDB of ten bytes in six.
        (&[0x28, 0, 0, 0, 0, 0], Data::None),
        // A service action that is none of ours.
        (&[0x9e, 0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0], Data::In(32)),
    ] {
        let mut bench = read_only();
        assert_eq!(bench.command(cdb, data).unwrap().1, 1, "{cdb:02x?} {data:?}");
        assert_eq!(bench.stick.commands, []);
        assert_eq!(bench.sense().unwrap().0, 5);
    }
    let mut bench = read_only();
    for lun in 0..16 {
        bench.write(&cbw(1, 0, false, lun, &[0; 6])).unwrap();
        assert_eq!(bench.read(13).unwrap().1[12], u8::from(lun > 0), "there is one unit");
    }
    assert_eq!(bench.stick.commands, [0]);
}

#[test]
fn a_cbw_is_written_anew_without_what_is_beyond_its_command() {
    let mut bench = read_only();
    let mut out = crate::Out::default();
    let mut bytes = cbw(5, 0, false, 0, &[0; 6]);
    bytes[21..].fill(0xee);
    let body = bulk(OUTPUT, 31, bytes);
    bench.filter.from_guest(Packet { id: 1, body }, &mut out);
    let [Packet { id: 1, body: Body::Bulk(Bulk { data, .. }) }] = &out.to_device[..] else {
        panic!("{out:?}")
    };
    assert_eq!(data[21..], [0; 10]);
}

#[test]
fn what_is_no_cbw_stalls_both_pipes_until_reset_recovery() {
    let good = cbw(1, 0, false, 0, &[0; 6]);
    let change = |at: usize, to: u8| {
        let mut bytes = good.clone();
        bytes[at] = to;
        bytes
    };
    let bad = [
        Vec::new(),
        vec![0; 512],
        vec![0; 31],
        good[..30].to_vec(),
        [&good[..], &[0]].concat(),
        change(0, b'X'),
        change(12, 0x40),
        change(13, 0x10),
        change(14, 0),
        change(14, 17),
    ];
    for bytes in bad {
        let mut bench = read_only();
        assert_eq!(bench.write(&bytes), Some(Status::Stall), "{bytes:02x?}");
        for _ in 0..2 {
            assert_eq!(bench.read(13).unwrap().0, Status::Stall);
            assert_eq!(bench.write(&good), Some(Status::Stall));
            bench.clear_halt(INPUT);
            bench.clear_halt(OUTPUT);
        }
        assert_eq!(bench.stick.commands, []);
        bench.recover();
        assert!(bench.read_blocks(1, 2).is_some());
    }
}

#[test]
fn a_second_command_before_the_status_is_a_stall_and_does_not_pass() {
    let mut bench = read_only();
    let read = cbw(1, 512, true, 0, &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    assert_eq!(bench.write(&read), Some(Status::Success));
    assert_eq!(bench.write(&read), Some(Status::Stall));
    assert_eq!(bench.read(512).unwrap().0, Status::Stall);
    assert_eq!(bench.stick.commands, [0x28]);
    bench.recover();
    assert!(bench.read_blocks(1, 2).is_some());
}

#[test]
fn transfers_asked_for_early_wait_for_their_phase() {
    let mut bench = read_only();
    let (data, status) = (bench.id(), bench.id());
    bench.guest(Packet { id: data, body: bulk(INPUT, 512, Vec::new()) });
    bench.guest(Packet { id: status, body: bulk(INPUT, 13, Vec::new()) });
    assert_eq!(bench.inbox, []);
    let read = cbw(1, 512, true, 0, &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    assert_eq!(bench.write(&read), Some(Status::Success));
    let ids: Vec<(u64, u32)> = bench
        .inbox
        .iter()
        .map(|packet| match &packet.body {
            Body::Bulk(bulk) => (packet.id, bulk.length),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ids, [(data, 512), (status, 13)]);
}

#[test]
fn a_transfer_can_be_cancelled_in_every_state() {
    let read = cbw(1, 1024, true, 0, &[0x28, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
    let write = cbw(1, 1024, false, 0, &WRITE_10);
    // Before a command; in the data phase; while data are dropped; after a stall.
    for prefix in [&[][..], &[&read[..]], &[&write[..]], &[&[0; 5][..]]] {
        let mut bench = read_only();
        for bytes in prefix {
            bench.write(bytes);
        }
        let id = bench.id();
        bench.guest(Packet { id, body: bulk(INPUT, 512, Vec::new()) });
        bench.guest(Packet { id, body: Body::CancelDataPacket });
        bench.guest(Packet { id, body: Body::CancelDataPacket });
        let answers = bench.inbox.iter().filter(|packet| packet.id == id).count();
        assert_eq!(answers, 1, "{prefix:02x?}");
        bench.recover();
        assert!(bench.read_blocks(1, 2).is_some(), "{prefix:02x?}");
    }
}

#[test]
fn a_cancelled_transfer_of_data_is_cancelled_with_the_device() {
    let mut bench = read_only();
    let read = cbw(1, 1024, true, 0, &[0x28, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
    let mut out = crate::Out::default();
    let packet = |id, body| Packet { id, body };
    bench.filter.from_guest(packet(1, bulk(OUTPUT, 31, read)), &mut out);
    bench.filter.from_device(packet(1, bulk(OUTPUT, 31, Vec::new())), &mut out);
    bench.filter.from_guest(packet(2, bulk(INPUT, 1024, Vec::new())), &mut out);
    out.to_device.clear();
    bench.filter.from_guest(packet(2, Body::CancelDataPacket), &mut out);
    assert_eq!(out.to_device, [packet(2, Body::CancelDataPacket)]);
}

#[test]
fn a_reset_takes_back_what_is_with_the_device_and_its_late_answer_changes_nothing() {
    let mut bench = read_only();
    let mut out = crate::Out::default();
    let packet = |id, body| Packet { id, body };
    let read = cbw(1, 1024, true, 0, &[0x28, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
    bench.filter.from_guest(packet(1, bulk(OUTPUT, 31, read)), &mut out);
    out.to_device.clear();
    bench.filter.from_guest(packet(2, Body::Reset), &mut out);
    assert_eq!(out.to_device, [packet(1, Body::CancelDataPacket), packet(2, Body::Reset)]);
    out.to_guest.clear();
    bench.filter.from_device(packet(1, bulk(OUTPUT, 31, Vec::new())), &mut out);
    let [Packet { id: 1, body: Body::Bulk(late) }] = &out.to_guest[..] else { panic!("{out:?}") };
    assert_eq!(late.status, Status::Cancelled);
    assert!(bench.read_blocks(5, 1).is_some());
}

#[test]
fn a_reset_by_configuration_or_setting_ends_a_stall() {
    for body in
        [Body::SetConfiguration(1), Body::SetAltSetting { interface: 0, alternate: 0 }, Body::Reset]
    {
        let mut bench = read_only();
        bench.write(&[0; 7]);
        bench.ask(body);
        assert!(bench.read_blocks(1, 2).is_some());
    }
}

#[test]
fn a_device_plugged_in_again_begins_anew() {
    let mut bench = read_only();
    bench.write(&[0; 5]);
    let mut out = crate::Out::default();
    bench.device(Packet { id: 0, body: Body::DeviceDisconnect });
    // Sent before the guest knew.
    let lost = crate::testing::control(0x80, 0, 0, 0, 2);
    bench.filter.from_guest(Packet { id: 5, body: lost }, &mut out);
    assert_eq!(bench.filter.in_flight(), 1);
    bench.stick = Stick::new(64);
    for packet in Stick::hello() {
        bench.device(packet);
    }
    assert_eq!(bench.filter.in_flight(), 0);
    assert!(bench.read_blocks(5, 1).is_some());
}

#[test]
fn a_cbw_in_pieces_of_whole_packets_is_one_command() {
    let mut pinned = crate::stick::pinned(false);
    // Full speed, 8 bytes a packet.
    pinned.configurations[0][29..31].copy_from_slice(&[8, 0]);
    let mut bench = read_only();
    bench.filter = crate::Filter::new(Rules::ReadOnly, pinned).unwrap();
    let bytes = cbw(1, 0, false, 0, &[0; 6]);
    for (piece, last) in [(&bytes[..8], false), (&bytes[8..24], false), (&bytes[24..], true)] {
        assert_eq!(bench.write(piece), Some(Status::Success));
        assert_eq!(bench.stick.commands.len(), usize::from(last));
    }
    assert_eq!(bench.read(13).unwrap().1[12], 0);
    // What a reset came between is none.
    assert_eq!(bench.write(&bytes[..16]), Some(Status::Success));
    bench.recover();
    assert!(bench.read_blocks(0, 1).is_some());
}

#[test]
fn allowed_storage_is_written_and_its_commands_counted() {
    let mut bench = Bench::new(Rules::Allow);
    let data = [0x5c; 1024];
    assert_eq!(bench.command(&WRITE_10, Data::Out(&data)), Some((Vec::new(), 0, 0)));
    assert_eq!(bench.stick.medium[3 * 512..5 * 512], data);
    assert_eq!(bench.read_blocks(3, 2).unwrap(), data);
    let commands = bench.filter.counts().commands;
    assert_eq!(commands.into_iter().collect::<Vec<_>>(), [(0x28, 1), (0x2a, 1)]);
}

#[test]
fn bulk_data_pass_without_being_copied() {
    for rules in [Rules::Allow, Rules::ReadOnly] {
        let mut bench = Bench::new(rules);
        let mut out = crate::Out::default();
        let blocks = 128;
        let read = cbw(1, 65536, true, 0, &[0x28, 0, 0, 0, 0, 0, 0, 0, blocks, 0]);
        bench.write(&read).unwrap();
        let packet = Packet { id: 9, body: bulk(INPUT, 65536, Vec::new()) };
        bench.filter.from_guest(packet, &mut out);
        let data = vec![1; 65536];
        let place = data.as_ptr();
        bench.filter.from_device(Packet { id: 9, body: bulk(INPUT, 65536, data) }, &mut out);
        let [Packet { id: 9, body: Body::Bulk(came) }] = &out.to_guest[..] else { panic!() };
        assert_eq!((came.data.as_ptr(), came.data.len()), (place, 65536));
        assert_eq!(read_through(&mut Bench::new(rules).filter, 1000), Some(1000 * 65536));
    }
}
