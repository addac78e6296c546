//! A keyboard with a card reader in it, of which the guest has the reader.

use std::collections::BTreeSet;

use proptest::prelude::*;
use usbredir::packet::{Control, EndpointType, Interface, endpoint_index};
use usbredir::{Body, Packet, Status};

use crate::descriptors::{Device, kind, walk};
use crate::stick::pinned;
use crate::testing::{bulk, control};
use crate::{Change, Event, Filter, Out, Pinned, Rules, Share, Unsupported};

/// The number of the keyboard's interface, and what is the reader's.
const KEYBOARD: u8 = 0;
const READER: u8 = 2;
const READER_IN: u8 = 0x83;
const READER_OUT: u8 = 0x04;
const KEYS: u8 = 0x81;
const MEDIA_KEYS: u8 = 0x82;

/// Returns keyboard, media keys, an association of both with the reader, the reader.
fn keyboard_with_reader() -> Pinned {
    let mut raw = vec![9, 2, 0, 0, 3, 1, 0, 0xa0, 50];
    raw.extend([9, 4, KEYBOARD, 0, 1, 3, 1, 1, 0, 9, 0x21, 0x11, 1, 0, 1, 0x22, 65, 0]);
    raw.extend([7, 5, KEYS, 3, 8, 0, 10]);
    raw.extend([8, 11, 1, 2, 3, 0, 0, 0]);
    raw.extend([9, 4, 1, 0, 1, 3, 0, 0, 0, 9, 0x21, 0x11, 1, 0, 1, 0x22, 40, 0]);
    raw.extend([7, 5, MEDIA_KEYS, 3, 4, 0, 10]);
    raw.extend([9, 4, READER, 0, 2, 0x0b, 0, 0, 0, 5, 0x21, 0x10, 1, 0]);
    raw.extend([7, 5, READER_IN, 2, 64, 0, 0, 7, 5, READER_OUT, 2, 64, 0, 0]);
    let total = u16::try_from(raw.len()).unwrap();
    raw[2..4].copy_from_slice(&total.to_le_bytes());
    Pinned { configurations: vec![raw], ..pinned(false) }
}

fn share() -> Share {
    let device = Device::read(&keyboard_with_reader()).unwrap();
    Share::part(&device, BTreeSet::from([READER])).unwrap()
}

fn filter() -> Filter {
    Filter::of(Rules::Allow, keyboard_with_reader(), share()).unwrap()
}

/// Returns whether a packet reaches the device.
fn passes(filter: &mut Filter, body: Body) -> bool {
    let mut out = Out::default();
    filter.from_guest(Packet { id: 1, body }, &mut out);
    !out.to_device.is_empty()
}

/// Asserts that nothing that a guest sends may change the device as a whole, or concern another interface than the reader's.
fn is_the_readers(body: &Body) -> bool {
    match body {
        Body::Control(Control { request_type, index, .. }) => {
            let [target, _] = index.to_le_bytes();
            match (request_type & 0x1f, request_type & 0x80) {
                (0, 0x80) => request_type >> 5 & 3 == 0,
                (1, _) => target == READER,
                (2, 0x80) => [READER_IN, READER_OUT, 0, 0x80].contains(&target),
                (2, _) => [READER_IN, READER_OUT].contains(&target),
                _ => false,
            }
        }
        Body::Bulk(bulk) => [READER_IN, READER_OUT].contains(&bulk.endpoint),
        Body::Interrupt(interrupt) => [READER_IN, READER_OUT].contains(&interrupt.endpoint),
        Body::StartInterruptReceiving { endpoint } | Body::StopInterruptReceiving { endpoint } => {
            [READER_IN, READER_OUT].contains(endpoint)
        }
        Body::SetAltSetting { interface, .. } | Body::GetAltSetting { interface } => {
            *interface == READER
        }
        // Done for the interfaces of the part alone, or not at all, by whoever exports it.
        Body::SetConfiguration(value) => matches!(value, 0 | 1),
        Body::Reset | Body::GetConfiguration => true,
        Body::CancelDataPacket | Body::DeviceDisconnectAck => true,
        _ => false,
    }
}

#[test]
fn no_control_request_of_the_reader_s_guest_reaches_the_keyboard_or_changes_the_device() {
    let mut filter = filter();
    let mut passed = 0;
    for request_type in 0..=0xff_u8 {
        for request in 0..=0x40_u8 {
            for index in [0, 1, 2, 3, 0x81, 0x82, 0x83, 0x04, 0x0100, 0x0002, 0x0200] {
                for value in [0, 1, 48, 0x0100, 0x0200, 0x2200] {
                    let mut out = Out::default();
                    let body = control(request_type, request, value, index, 0);
                    filter.from_guest(Packet { id: passed, body }, &mut out);
                    for packet in out.to_device {
                        assert!(is_the_readers(&packet.body), "{:?}", packet.body);
                        passed += 1;
                        // So that there is room for more.
                        if let Body::Control(asked) = packet.body {
                            let status = Status::Stall;
                            let body = Body::Control(Control { status, ..asked });
                            let packet = Packet { id: packet.id, body };
                            filter.from_device(packet, &mut Out::default());
                        }
                    }
                }
            }
        }
    }
    assert!(passed > 100, "{passed}");
}

#[test]
fn what_the_reader_needs_passes() {
    let mut filter = filter();
    for body in [
        control(0x80, 6, 0x0200, 0, 0),
        control(0x81, 6, 0x2100, 2, 0),
        control(0xa1, 2, 0, 2, 1),
        control(0x21, 1, 0, 2, 0),
        control(0x02, 1, 0, u16::from(READER_IN), 0),
        bulk(READER_OUT, 10, vec![0; 10]),
        bulk(READER_IN, 64, Vec::new()),
        Body::SetConfiguration(1),
        Body::GetConfiguration,
        Body::SetAltSetting { interface: READER, alternate: 0 },
        Body::Reset,
    ] {
        let mut out = Out::default();
        filter.from_guest(Packet { id: 1, body: body.clone() }, &mut out);
        assert!(!out.to_device.is_empty(), "{body:?}");
        filter = self::filter();
    }
}

#[test]
fn the_guest_is_shown_a_device_with_the_reader_alone() {
    let (whole, mut filter) = (keyboard_with_reader(), filter());
    let raw = &whole.configurations[0];
    let length = u16::try_from(raw.len()).unwrap();
    let mut out = Out::default();
    let asked = control(0x80, 6, 0x0200, 0, length);
    filter.from_guest(Packet { id: 1, body: asked }, &mut out);
    let Some(Packet { id, body: Body::Control(asked) }) = out.to_device.pop() else { panic!() };
    let answer = Control { data: raw.clone(), ..asked };
    filter.from_device(Packet { id, body: Body::Control(answer) }, &mut out);
    let Some(Packet { body: Body::Control(shown), .. }) = out.to_guest.pop() else { panic!() };
    assert!(out.events.is_empty(), "{:?}", out.events);
    let kinds: Vec<u8> = walk(&shown.data).map(|descriptor| descriptor.unwrap().0).collect();
    assert_eq!(kinds, [kind::CONFIGURATION, kind::INTERFACE, 0x21, kind::ENDPOINT, kind::ENDPOINT]);
    let shown = Pinned { configurations: vec![shown.data], ..whole };
    assert_eq!(shown.configurations[0][4], 1, "an interface");
    let device = Device::read(&shown).unwrap();
    assert_eq!(device.functions(), [(0x0b, 0, 0)]);
}

#[test]
fn what_the_device_s_end_says_of_the_keyboard_never_reaches_the_reader_s_guest() {
    let said = |body: Body| {
        let mut out = Out::default();
        filter().from_device(Packet { id: 0, body }, &mut out);
        (out.to_guest, out.events)
    };
    let interface =
        |number, class, subclass, protocol| vec![Interface { number, class, subclass, protocol }];
    let (passed, events) = said(Body::InterfaceInfo(interface(READER, 0x0b, 0, 0)));
    assert!(!passed.is_empty() && events.is_empty(), "{events:?}");
    let (passed, events) = said(Body::InterfaceInfo(interface(KEYBOARD, 3, 1, 1)));
    assert!(passed.is_empty());
    assert_eq!(events, [Event::Changed(Change::Interfaces)]);
    let mut endpoints = Box::new([Default::default(); usbredir::packet::ENDPOINTS]);
    let keys: &mut usbredir::packet::EndpointInfo = &mut endpoints[endpoint_index(KEYS)];
    (keys.kind, keys.interface) = (EndpointType::Interrupt, KEYBOARD);
    let (passed, events) = said(Body::EndpointInfo(endpoints));
    assert!(passed.is_empty());
    assert_eq!(events, [Event::Changed(Change::Endpoints)]);
    let key = usbredir::packet::Interrupt {
        endpoint: KEYS,
        status: Status::Success,
        length: 8,
        data: vec![0, 0, 4, 0, 0, 0, 0, 0],
    };
    assert!(said(Body::Interrupt(key)).0.is_empty(), "a key that was pressed");
}

#[test]
fn storage_that_is_part_of_a_keyboard_goes_to_no_guest() {
    let mut whole = keyboard_with_reader();
    let raw = &mut whole.configurations[0];
    let reader = raw.windows(6).position(|bytes| bytes == [9, 4, READER, 0, 2, 0x0b]).unwrap();
    raw[reader + 5..reader + 8].copy_from_slice(&[8, 6, 0x50]);
    for rules in [Rules::Allow, Rules::ReadOnly] {
        let refused = Filter::of(rules, whole.clone(), share()).unwrap_err();
        assert_eq!(refused, Unsupported::Part.into());
    }
}

#[test]
fn descriptors_of_keyboards_with_something_besides_are_shown_without_the_keyboard() {
    // Every real one that is at hand: id and bytes as sysfs has them.
    for line in include_str!("../../../tests/keyboards_with_something_besides.txt").lines() {
        let (id, hex) = line.split_once(' ').unwrap();
        let bytes: Vec<u8> = (0..hex.len() / 2)
            .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
            .collect();
        let whole = Pinned::from_sysfs(&bytes).unwrap();
        let device = Device::read(&whole).unwrap();
        let others: BTreeSet<u8> = device
            .settings()
            .filter(|setting| setting.class != 3 && setting.class != 8)
            .map(|setting| setting.interface)
            .collect();
        if others.is_empty() {
            continue;
        }
        let share = Share::part(&device, others).unwrap_or_else(|error| panic!("{id}: {error}"));
        let shown = crate::shown::shown(&whole.configurations[0], &share).unwrap();
        let seen = Device::read(&Pinned { configurations: vec![shown], ..whole.clone() }).unwrap();
        assert!(seen.settings().all(|setting| setting.class != 3), "{id}");
        assert_eq!(seen.settings().count(), share.of(device).settings().count(), "{id}");
        Filter::of(Rules::Allow, whole, share).unwrap();
    }
}

fn any_body() -> impl Strategy<Value = Body> {
    let endpoint = prop::sample::select(vec![0, 0x80, KEYS, MEDIA_KEYS, READER_IN, READER_OUT, 1]);
    let data = prop::collection::vec(any::<u8>(), 0..9);
    prop_oneof![
        (any::<u8>(), any::<u8>(), any::<u16>(), any::<u16>(), 0..9_u16).prop_map(
            |(request_type, request, value, index, length)| {
                control(request_type, request, value, index, length)
            }
        ),
        (0..0x100_u16, 0..13_u8, 0..4_u16, 0..3_u16).prop_map(
            |(request_type, request, value, index)| {
                let [request_type, _] = request_type.to_le_bytes();
                control(request_type, request, value, index, 0)
            }
        ),
        (endpoint.clone(), data).prop_map(|(endpoint, data)| bulk(endpoint, 8, data)),
        endpoint.clone().prop_map(|endpoint| Body::StartInterruptReceiving { endpoint }),
        endpoint.prop_map(|endpoint| Body::StopInterruptReceiving { endpoint }),
        any::<u8>().prop_map(Body::SetConfiguration),
        (0..4_u8, 0..3_u8)
            .prop_map(|(interface, alternate)| Body::SetAltSetting { interface, alternate }),
        (0..4_u8).prop_map(|interface| Body::GetAltSetting { interface }),
        Just(Body::Reset),
    ]
}

proptest! {
    #[test]
    fn whatever_the_reader_s_guest_sends_nothing_of_it_reaches_the_keyboard(
        bodies in prop::collection::vec(any_body(), 0..60),
    ) {
        let mut filter = filter();
        for (id, body) in (0..).zip(bodies) {
            let mut out = Out::default();
            filter.from_guest(Packet { id, body }, &mut out);
            for packet in out.to_device {
                prop_assert!(is_the_readers(&packet.body), "{:?}", packet.body);
            }
        }
        let setting = Body::SetAltSetting { interface: KEYBOARD, alternate: 0 };
        prop_assert!(!passes(&mut filter, setting));
    }
}

#[test]
fn the_pipe_that_all_parts_share_cannot_be_halted_by_one() {
    for index in [0, 0x80] {
        assert!(!passes(&mut filter(), control(0x02, 3, 0, index, 0)), "{index:#x}");
    }
}
