//! Arbitrary bytes play the guest, and the device, against the filter. Whatever they do: what reaches
//! a read-only device on its OUT endpoint are commands that cannot write, the medium stays as it is,
//! nothing grows, nothing panics, and a reset recovery makes a device that behaves readable.
#![allow(
    clippy::cast_possible_truncation,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a property for tests"
)]

use fuzzinput::FuzzInput;
use usbredir::packet::{Interface, Interrupt, MAX_DATA};
use usbredir::{Body, Packet, Status};

use crate::descriptors::{Device, Pinned};
use crate::stick::{INPUT, OUTPUT, Quirks, Stick, pinned};
use crate::testing::{Bench, Data, bulk, cbw, control};
use crate::{BYTES_IN_FLIGHT_MAX, Filter, IN_FLIGHT_MAX, Out, Rules};

/// Actions of one stream.
const ACTIONS_MAX: usize = 1024;
/// Opcodes that may reach a read-only device. Written down again, apart from the list that is tested.
const HARMLESS: [u8; 26] = [
    0x00, 0x03, 0x08, 0x12, 0x1a, 0x1b, 0x1e, 0x23, 0x25, 0x28, 0x2f, 0x43, 0x46, 0x4a, 0x51, 0x52,
    0x5a, 0x88, 0x8f, 0x9e, 0xa0, 0xa8, 0xad, 0xaf, 0xbd, 0x00,
];
/// Opcodes worth trying: reads, writes, and what is easily confused.
const OPCODES: [u8; 32] = [
    0x00, 0x03, 0x12, 0x1a, 0x5a, 0x25, 0x9e, 0x28, 0x28, 0x08, 0xa8, 0x88, 0xa0, 0x23, 0x35, 0x91,
    0x2a, 0x0a, 0xaa, 0x8a, 0x2e, 0x41, 0x42, 0x93, 0x15, 0x55, 0x04, 0x3b, 0x85, 0xa1, 0xc0, 0x2f,
];

/// Asserts that a packet may reach a read-only device.
pub(crate) fn harmless(packet: &Packet) {
    match &packet.body {
        Body::Bulk(bulk) if bulk.endpoint == OUTPUT => {
            assert_eq!((bulk.data.len(), bulk.length), (31, 31));
            let opcode = bulk.data.get(15).copied().unwrap_or(0xff);
            assert!(HARMLESS.contains(&opcode), "{opcode:02x} reached the device");
            let length: Option<u64> =
                bulk.data.get(8..12).map(|bytes| bytes.iter().map(|byte| u64::from(*byte)).sum());
            let from_device = bulk.data.get(12).is_some_and(|flags| flags & 0x80 != 0);
            assert!(length == Some(0) || from_device, "a command with data for the device");
        }
        Body::Bulk(bulk) => {
            assert_eq!((bulk.endpoint, bulk.data.len()), (INPUT, 0));
            assert!(bulk.length as usize <= MAX_DATA);
        }
        Body::Control(control) => {
            assert!(control.data.is_empty() || control.request == 48, "data in a control request");
            assert!(control.request_type & 0x40 == 0, "a vendor request");
            let class = control.request_type & 0x20 != 0;
            assert!(!class || matches!(control.request, 0xfe | 0xff), "a class request");
            assert!(class || !matches!(control.request, 5 | 7), "an address or descriptor");
        }
        Body::Interrupt(_) | Body::StartInterruptReceiving { .. } => panic!("there is no such"),
        _ => {}
    }
}

/// Drives a guest of arbitrary packets at a read-only stick that behaves. Afterwards it recovers and reads.
pub fn fuzz_guest(data: &[u8]) {
    let mut bench = Bench::new(Rules::ReadOnly);
    let last = play(&mut bench, data);
    assert!(!bench.filter.is_closed(), "the device did nothing wrong: {:?}", bench.events);
    // As a driver does: what it waits for no longer it takes back.
    for id in 0..=last {
        bench.guest(Packet { id, body: Body::CancelDataPacket });
    }
    bench.guest(Packet { id: 0, body: Body::DeviceDisconnectAck });
    bench.recover();
    bench.stick.attention = None;
    let read = bench.read_blocks(5, 3);
    let due = bench.stick.medium.get(5 * 512..8 * 512);
    assert_eq!(read.as_deref(), due, "a reset recovery makes it readable");
    let refused = bench.command(&[0x2a, 0, 0, 0, 0, 1, 0, 0, 1, 0], Data::Out(&[0xee; 512]));
    assert_eq!(refused, Some((Vec::new(), 1, 512)));
    assert_eq!(bench.sense(), Some((7, 0x27, 0)));
}

/// Does the same at a stick that does not keep to the specification: it may be taken away, and not be written to.
pub fn fuzz_quirks(quirks: Quirks, data: &[u8]) {
    play(&mut Bench::with(Rules::ReadOnly, quirks), data);
}

/// Has the guest send what the bytes say. The last ID that it used.
fn play(bench: &mut Bench, data: &[u8]) -> u64 {
    let mut stream = FuzzInput::new(data);
    bench.watch = Some(harmless);
    if stream.index(4) == 0 {
        bench.stick.kind = 5;
    }
    let mut last = 0;
    for _ in 0..ACTIONS_MAX {
        let Some(action) = stream.byte() else { break };
        match action % 16 {
            0 => {
                bench.read_blocks(0, 2);
            }
            1 => {
                bench.command(&[0x2a, 0, 0, 0, 0, 1, 0, 0, 1, 0], Data::Out(&[0xee; 512]));
            }
            2 => bench.recover(),
            3 => {
                bench.sense();
            }
            4 => bench.stick.attention = Some((6, 0x28)),
            _ => {
                let body = any_body(&mut stream);
                // Now and then an ID that is in use.
                if !matches!(body, Body::CancelDataPacket) && stream.index(8) != 0 {
                    last += 1;
                }
                bench.guest(Packet { id: last, body });
            }
        }
        bench.inbox.clear();
        assert!(bench.filter.in_flight() <= IN_FLIGHT_MAX);
        assert!(bench.filter.bytes_in_flight() <= BYTES_IN_FLIGHT_MAX);
        assert!(!bench.stick.harmed, "{:02x?}", bench.stick.commands);
        assert_eq!(bench.stick.data_out, 0);
    }
    assert_eq!(bench.stick.medium, Stick::new(64).medium);
    last
}

/// Drives a guest of arbitrary packets, and a device of arbitrary answers.
pub fn fuzz_device(data: &[u8]) {
    let mut stream = FuzzInput::new(data);
    let rules = if stream.index(4) == 0 { Rules::Allow } else { Rules::ReadOnly };
    let Ok(mut filter) = Filter::new(rules, pinned(stream.index(2) == 0)) else { return };
    let mut stick = Stick::new(8);
    let mut asked: Vec<Packet> = Vec::new();
    let mut id = 0;
    for _ in 0..ACTIONS_MAX {
        let Some(action) = stream.byte() else { break };
        let mut out = Out::default();
        match action % 4 {
            0 => {
                let body = any_body(&mut stream);
                if !matches!(body, Body::CancelDataPacket) {
                    id += 1;
                }
                filter.from_guest(Packet { id, body }, &mut out);
            }
            1 if !asked.is_empty() => {
                let at = stream.index(asked.len());
                let mut answers = Vec::new();
                let packet = asked.remove(at);
                // It only knows what its descriptors have.
                if rules == Rules::ReadOnly {
                    stick.take(packet, &mut answers);
                }
                for answer in answers {
                    filter.from_device(answer, &mut out);
                }
            }
            2 if !asked.is_empty() => {
                let at = stream.index(asked.len());
                let packet = asked.remove(at);
                filter.from_device(answer(packet, &mut stream), &mut out);
            }
            _ => {
                let id = stream.number(1);
                let body = unasked(&mut stream);
                filter.from_device(Packet { id, body }, &mut out);
            }
        }
        for packet in &out.to_device {
            if rules == Rules::ReadOnly {
                harmless(packet);
            }
        }
        asked.append(&mut out.to_device);
        // What is with a device that does not answer is bounded; resets and the like are its own.
        asked.retain(|packet| {
            matches!(packet.body, Body::Bulk(_) | Body::Control(_) | Body::SetConfiguration(_))
        });
        asked.truncate(IN_FLIGHT_MAX);
        assert!(filter.in_flight() <= IN_FLIGHT_MAX);
        assert!(filter.bytes_in_flight() <= BYTES_IN_FLIGHT_MAX);
        if filter.is_closed() {
            break;
        }
    }
}

/// Returns an answer to a packet, right or wrong.
fn answer(packet: Packet, stream: &mut FuzzInput<'_>) -> Packet {
    let Packet { id, body } = packet;
    let body = match body {
        Body::Bulk(mut bulk) => {
            bulk.status = any_status(stream);
            if bulk.endpoint & 0x80 != 0 {
                let most = (bulk.length as usize).min(1024);
                let length = match stream.index(8) {
                    0 => stream.index(64),
                    1 => most.saturating_add(1),
                    _ => most,
                };
                bulk.data = any_bytes(stream, length.min(64));
                bulk.data.resize(length, 0x55);
                if bulk.length == 13 && stream.index(2) == 0 {
                    // A CSW that is nearly one.
                    let tag = stream.number(1) as u8;
                    let status = stream.index(4) as u8;
                    bulk.data = [b'U', b'S', b'B', b'S', tag, 0, 0, 0, 0, 0, 0, 0, status].into();
                }
                bulk.length = bulk.data.len() as u32;
            } else {
                bulk.data.clear();
                if stream.index(8) == 0 {
                    bulk.length = stream.number(1) as u32;
                }
            }
            if stream.index(64) == 0 {
                bulk.endpoint = stream.number(1) as u8;
            }
            Body::Bulk(bulk)
        }
        Body::Control(mut control) => {
            control.status = any_status(stream);
            let length = stream.index(usize::from(control.length).saturating_add(2));
            control.data = any_bytes(stream, length);
            Body::Control(control)
        }
        Body::SetConfiguration(configuration) => {
            Body::ConfigurationStatus { status: any_status(stream), configuration }
        }
        other => other,
    };
    Packet { id, body }
}

/// Returns what a device's end may say of itself, true or not.
fn unasked(stream: &mut FuzzInput<'_>) -> Body {
    let mut hello = Stick::hello().into_iter().map(|packet| packet.body);
    match stream.index(16) {
        0 => Body::DeviceDisconnect,
        1 => Body::InterfaceInfo(vec![
            Interface {
                number: stream.index(2) as u8,
                class: one_of(stream, &[8, 8, 3]),
                subclass: 6,
                protocol: one_of(stream, &[0x50, 0x62]),
            };
            stream.index(3)
        ]),
        2 => {
            let status = any_status(stream);
            Body::InterruptReceivingStatus { status, endpoint: stream.number(1) as u8 }
        }
        3 => Body::AltSettingStatus { status: any_status(stream), interface: 0, alternate: 1 },
        4 => any_body(stream),
        at => hello.nth(at % 3).unwrap_or(Body::DeviceDisconnect),
    }
}

/// Reads arbitrary descriptors, and ones that are nearly right: read or refused, and what the guest is
/// shown of those that are taken can be read again and has no UAS.
pub fn fuzz_descriptors(data: &[u8]) {
    let mut stream = FuzzInput::new(data);
    let pinned = if stream.index(4) == 0 {
        let Ok(pinned) = Pinned::from_sysfs(stream.rest()) else { return };
        pinned
    } else {
        let mut pinned = pinned(stream.index(2) == 0);
        for _ in 0..stream.index(8) {
            let at = stream.index(128);
            let to = stream.number(1) as u8;
            let whole = pinned.configurations.iter_mut().flatten();
            if let Some(byte) = whole.chain(&mut pinned.device).nth(at) {
                *byte = to;
            }
        }
        pinned
    };
    let read = Device::read(&pinned);
    for rules in [Rules::Allow, Rules::ReadOnly] {
        let Ok(mut filter) = Filter::new(rules, pinned.clone()) else { continue };
        assert!(read.is_ok());
        let mut shown = Pinned { configurations: Vec::new(), ..pinned.clone() };
        for (index, whole) in (0..).zip(&pinned.configurations) {
            let mut out = Out::default();
            let Body::Control(mut ask) = control(0x80, 6, 0x0200 | index, 0, 4096) else { return };
            let id = u64::from(index);
            filter.from_guest(Packet { id, body: Body::Control(ask.clone()) }, &mut out);
            ask.data.clone_from(whole);
            filter.from_device(Packet { id, body: Body::Control(ask) }, &mut out);
            let answers = out.to_guest.into_iter().filter_map(|packet| match packet.body {
                Body::Control(control) => Some(control.data),
                _ => None,
            });
            shown.configurations.extend(answers);
        }
        let again = Device::read(&shown);
        assert!(again.is_ok(), "what is shown is valid: {shown:02x?}");
        let uas = |device: Device| {
            device.settings().any(|setting| (setting.class, setting.protocol) == (8, 0x62))
        };
        assert!(!again.is_ok_and(uas), "UAS is shown");
    }
}

fn one_of<T: Copy + Default>(input: &mut FuzzInput<'_>, list: &[T]) -> T {
    list.get(input.index(list.len())).copied().unwrap_or_default()
}

fn any_status(input: &mut FuzzInput<'_>) -> Status {
    match input.index(12) {
        0 => Status::Stall,
        1 => Status::Cancelled,
        2 => Status::Babble,
        3 => Status::IoError,
        4 => Status::Timeout,
        5 => Status::Invalid,
        _ => Status::Success,
    }
}

fn any_bytes(input: &mut FuzzInput<'_>, length: usize) -> Vec<u8> {
    (0..length).map(|_| input.byte().unwrap_or(0x2a)).collect()
}

/// Returns a length that is mostly one that means something.
fn any_length(input: &mut FuzzInput<'_>) -> u32 {
    match input.index(10) {
        0 => 0,
        1 => 13,
        2 => 18,
        3 => 31,
        4 => 36,
        5 => 8,
        6 | 7 => 512 * input.index(9) as u32,
        8 => input.number(2) as u32,
        _ => input.number(4) as u32,
    }
}

/// Returns a CBW that is mostly one.
fn any_cbw(input: &mut FuzzInput<'_>) -> Vec<u8> {
    let opcode = if input.index(4) == 0 { input.number(1) as u8 } else { one_of(input, &OPCODES) };
    let blocks = input.index(5) as u8;
    let (mut cdb, mut length) = (vec![opcode], u32::from(blocks) * 512);
    cdb.resize(one_of(input, &[6, 10, 12, 16, 16, 16]), 0);
    if input.index(4) == 0 {
        for byte in cdb.iter_mut().skip(1) {
            *byte = input.number(1) as u8;
        }
    }
    // The length where most commands of this size have it.
    for at in [4, 8, 9, 13] {
        if let Some(byte) = cdb.get_mut(at) {
            *byte = blocks;
        }
    }
    if input.index(3) == 0 {
        length = any_length(input);
    }
    let from_device = input.index(3) != 0;
    let lun = if input.index(8) == 0 { input.number(1) as u8 } else { 0 };
    let mut bytes = cbw(input.number(1) as u32, length, from_device, lun, &cdb);
    if input.index(6) == 0 {
        let at = input.index(bytes.len());
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= input.number(1) as u8;
        }
    }
    if input.index(16) == 0 {
        bytes.truncate(input.index(32));
    }
    bytes
}

fn any_control(input: &mut FuzzInput<'_>) -> Body {
    let (request_type, request) = match input.index(8) {
        0 => (0x21, 0xff),
        1 => (0xa1, 0xfe),
        2 => (0x02, 1),
        3 => (0x80, 6),
        4 => (0x00, 9),
        5 => (0x01, 11),
        _ => (input.number(1) as u8, input.number(1) as u8),
    };
    let value = match input.index(4) {
        0 => input.number(2) as u16,
        1 => 0x0100,
        2 => 0x0200,
        _ => 0,
    };
    let index = match input.index(4) {
        0 => input.number(2) as u16,
        1 => INPUT.into(),
        2 => OUTPUT.into(),
        _ => 0,
    };
    let length = if request_type & 0x80 == 0 { input.index(4) } else { input.index(256) };
    let length = if input.index(2) == 0 { 0 } else { length as u16 };
    let mut body = control(request_type, request, value, index, length);
    if let (0, Body::Control(control)) = (input.index(16), &mut body) {
        control.endpoint ^= input.number(1) as u8;
        control.length ^= input.number(1) as u16;
    }
    body
}

/// Returns anything a guest may send, and what it may not.
fn any_body(input: &mut FuzzInput<'_>) -> Body {
    let endpoint = one_of(input, &[INPUT, OUTPUT, 0x83, 0x04, 0x00, 0x80, 0x01]);
    match input.index(20) {
        0..4 => {
            let bytes = any_cbw(input);
            bulk(OUTPUT, bytes.len() as u32, bytes)
        }
        4..6 => {
            let length = one_of(input, &[0, 1, 31, 512, 512, 1024, 64]);
            let bytes = vec![input.number(1) as u8; length];
            bulk(OUTPUT, bytes.len() as u32, bytes)
        }
        6..10 => bulk(INPUT, any_length(input), Vec::new()),
        10..14 => any_control(input),
        14 => Body::SetConfiguration(input.index(3) as u8),
        15 => {
            Body::SetAltSetting { interface: input.index(2) as u8, alternate: input.index(2) as u8 }
        }
        16 => Body::Reset,
        17 => Body::CancelDataPacket,
        18 => {
            let length = any_length(input);
            let bytes = input.index(40);
            bulk(endpoint, length, any_bytes(input, bytes))
        }
        _ => match input.index(8) {
            0 => Body::GetConfiguration,
            1 => Body::GetAltSetting { interface: input.index(2) as u8 },
            2 => Body::StartInterruptReceiving { endpoint },
            3 => Body::StopInterruptReceiving { endpoint },
            4 => Body::DeviceDisconnectAck,
            5 => {
                let bytes = input.index(40);
                let data = any_bytes(input, bytes);
                let length = data.len() as u16;
                let status = any_status(input);
                Body::Interrupt(Interrupt { endpoint, status, length, data })
            }
            6 => Body::DeviceDisconnect,
            _ => Body::Hello { version: String::new(), capabilities: Vec::new() },
        },
    }
}
