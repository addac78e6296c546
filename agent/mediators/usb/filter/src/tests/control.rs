//! Control requests, and descriptors in their answers.

use usbredir::packet::{DeviceConnect, EndpointType, Interface, endpoint_index};
use usbredir::{Body, Packet, Status};

use crate::descriptors::{Device, PinnedDescriptor};
use crate::stick::{INPUT, OUTPUT, Stick, configuration, pinned};
use crate::testing::{Bench, bulk, control};
use crate::{Change, Event, Filter, Out, Pinned, Refusal, Rules, Violation};

/// Makes a device with one interface of a class for each triple, each with endpoints of its own: an
/// interrupt IN, a bulk IN, a bulk OUT.
fn of_classes(classes: &[(u8, u8, u8)]) -> Pinned {
    let mut raw = vec![9, 2, 0, 0, classes.len() as u8, 1, 0, 0x80, 50];
    for (number, (class, subclass, protocol)) in (0..).zip(classes) {
        let address = number * 3 + 1;
        raw.extend([9, 4, number, 0, 3, *class, *subclass, *protocol, 0]);
        raw.extend([7, 5, 0x80 | address, 3, 8, 0, 10]);
        raw.extend([7, 5, 0x81 + address, 2, 64, 0, 0, 7, 5, address + 2, 2, 64, 0, 0]);
    }
    let total = raw.len() as u16;
    raw[2..4].copy_from_slice(&total.to_le_bytes());
    Pinned { configurations: vec![raw], ..pinned(false) }
}

fn passes(filter: &mut Filter, body: Body) -> bool {
    let mut out = Out::default();
    filter.from_guest(Packet { id: 1, body }, &mut out);
    let passed = !out.to_device.is_empty();
    assert_ne!(passed, !out.to_guest.is_empty(), "it passes or is answered: {out:?}");
    if !passed {
        assert!(matches!(&out.events[..], [Event::Refused { .. }]), "{out:?}");
    }
    passed
}

fn class_passes(classes: &[(u8, u8, u8)], request: (u8, u8), index: u16) -> bool {
    let mut filter = Filter::new(Rules::Allow, of_classes(classes)).unwrap();
    passes(&mut filter, control(request.0, request.1, 0, index, 1))
}

#[test]
fn vendor_requests_pass_to_serial_adapters_and_to_nothing_that_stores_or_authenticates() {
    let vendor = |classes: &[_]| {
        [(0x40, 0), (0xc0, 5), (0x41, 1)].map(|request| class_passes(classes, request, 0))
    };
    assert_eq!(vendor(&[(0xff, 0xff, 0)]), [true; 3]);
    assert_eq!(vendor(&[(0x02, 2, 1), (0x0a, 0, 0), (0xff, 0, 0)]), [true; 3]);
    for class in [0x01, 0x02, 0x03, 0x06, 0x07, 0x08, 0x0b, 0x0e, 0xe0, 0xfe] {
        assert_eq!(vendor(&[(class, 6, 0x50)]), [false; 3], "{class:02x}");
        if class != 0x02 {
            assert_eq!(vendor(&[(0xff, 0, 0), (class, 6, 0x50)]), [false; 3], "{class:02x}");
        }
    }
}

#[test]
fn class_requests_pass_to_interfaces_that_exist_and_never_to_firmware_update() {
    assert!(class_passes(&[(0x0b, 0, 0)], (0xa1, 2), 0), "a smart-card reader");
    assert!(class_passes(&[(0x03, 0, 0)], (0x21, 9), 0), "HID");
    assert!(!class_passes(&[(0x03, 0, 0)], (0x21, 9), 1), "there is no interface 1");
    assert!(!class_passes(&[(0xff, 0, 0), (0xfe, 1, 1)], (0x21, 0), 1), "DFU_DETACH");
    assert!(!class_passes(&[(0xff, 0, 0), (0xfe, 1, 2)], (0x21, 1), 1), "DFU_DNLOAD");
    assert!(!class_passes(&[(0x0b, 0, 0)], (0x61, 0), 0), "a reserved type");
    assert!(class_passes(&[(0x07, 1, 2)], (0xa1, 0), 0x0001), "a printer's name, alternate 1");
    assert!(!class_passes(&[(0x0b, 0, 0)], (0x20, 0), 0), "to the whole device");
}

#[test]
fn storage_gets_its_reset_and_its_highest_unit_and_no_other_class_request() {
    for rules in [Rules::Allow, Rules::ReadOnly] {
        let mut bench = Bench::new(rules);
        assert_eq!(bench.control((0xa1, 0xfe), 0, 0, 1), Some((Status::Success, vec![0])));
        assert_eq!(bench.control((0x21, 0xff), 0, 0, 0), Some((Status::Success, vec![])));
        bench.stick.requests.clear();
        for (request, value, index, length) in [
            ((0x21, 0xff), 1, 0, 0),
            ((0x21, 0xff), 0, 1, 0),
            ((0x21, 0xff), 0, 0, 8),
            ((0xa1, 0xfe), 0, 0, 2),
            ((0x21, 0), 0, 0, 12),
            ((0xa1, 0x55), 0, 0, 1),
            ((0x20, 0xff), 0, 0, 0),
            ((0x22, 0xff), 0, 0x81, 0),
        ] {
            let (status, _) = bench.control(request, value, index, length).unwrap();
            assert_eq!(status, Status::Stall, "{request:02x?}");
        }
        assert_eq!(bench.stick.requests, []);
    }
}

#[test]
fn standard_requests_reach_only_what_exists_and_never_change_descriptors_or_address() {
    for (request, value, index, length, expected) in [
        ((0x00, 9), 1, 0, 0, true),
        ((0x00, 9), 0, 0, 0, true),
        ((0x00, 9), 2, 0, 0, false),
        ((0x01, 11), 0, 0, 0, true),
        ((0x01, 11), 1, 0, 0, false), // UAS
        ((0x01, 11), 0, 1, 0, false),
        ((0x02, 1), 0, 0x81, 0, true),
        ((0x02, 1), 0, 0x02, 0, true),
        ((0x02, 1), 0, 0x83, 0, false), // a pipe of UAS
        ((0x02, 3), 0, 0x81, 0, false), // halting storage
        ((0x00, 3), 1, 0, 0, true),
        ((0x00, 3), 2, 0x0100, 0, false), // a test mode
        ((0x00, 3), 2, 0, 0, false),
        ((0x00, 5), 1, 0, 0, false),       // SET_ADDRESS
        ((0x00, 7), 0x0100, 0, 18, false), // SET_DESCRIPTOR
        ((0x00, 48), 0, 0, 6, true),
        ((0x00, 48), 0, 0, 7, false),
        ((0x80, 6), 0x0700, 0, 255, false), // the other speed
        ((0x80, 6), 0x0201, 0, 255, false), // a second configuration
        ((0x80, 6), 0x0101, 0, 255, false),
        ((0x80, 6), 0x0303, 0x0409, 255, true),
        ((0x80, 8), 0, 0, 1, true),
        ((0x82, 0), 0, 0x81, 2, true),
        ((0x81, 6), 0x2200, 7, 64, false),
        ((0x81, 6), 0x2200, 0, 64, true),
        ((0x81, 6), 0x0201, 0, 64, false),
        ((0x83, 6), 0, 0, 1, false),
    ] {
        let mut filter = Filter::new(Rules::ReadOnly, pinned(true)).unwrap();
        let (request_type, number) = request;
        let passed = passes(&mut filter, control(request_type, number, value, index, length));
        assert_eq!(passed, expected, "{request:02x?} {value:04x} {index:04x}");
    }
}

#[test]
fn configurations_settings_and_endpoints_that_do_not_exist_are_refused() {
    let mut bench = Bench::new(Rules::Allow);
    let passed = bench.passed;
    assert_eq!(
        bench.ask(Body::SetConfiguration(3)),
        Some(Body::ConfigurationStatus { status: Status::Stall, configuration: 0 })
    );
    assert_eq!(
        bench.ask(Body::SetAltSetting { interface: 0, alternate: 1 }),
        Some(Body::AltSettingStatus { status: Status::Stall, interface: 0, alternate: 0 })
    );
    for endpoint in [0x83, 0x04, 0x01, 0x80, 0x00] {
        assert_eq!(
            bench.ask(bulk(endpoint, 0, Vec::new())),
            Some(Body::Bulk(usbredir::packet::Bulk {
                endpoint,
                status: Status::Stall,
                length: 0,
                stream: 0,
                data: Vec::new()
            }))
        );
    }
    assert_eq!(
        bench.ask(Body::StartInterruptReceiving { endpoint: 0x81 }),
        Some(Body::InterruptReceivingStatus { status: Status::Stall, endpoint: 0x81 })
    );
    assert_eq!(bench.passed, passed);
    assert!(bench.events.contains(&Event::Refused { what: Refusal::Endpoint(0x83), times: 1 }));
}

#[test]
fn requests_that_contradict_themselves_are_invalid_and_long_ones_cut() {
    let mut bench = Bench::new(Rules::Allow);
    let Body::Control(mut odd) = control(0x00, 9, 1, 0, 0) else { panic!() };
    odd.data = vec![1];
    let Some(Body::Control(answer)) = bench.ask(Body::Control(odd)) else { panic!() };
    assert_eq!(answer.status, Status::Invalid);
    let Some(Body::Bulk(answer)) = bench.ask(bulk(OUTPUT, 2, vec![1])) else { panic!() };
    assert_eq!(answer.status, Status::Invalid);
    let Some(Body::Bulk(answer)) = bench.ask(bulk(INPUT, u32::MAX, Vec::new())) else { panic!() };
    assert_eq!(answer.status, Status::Invalid);
    let mut out = Out::default();
    let body = control(0x80, 6, 0x0300, 0, 65535);
    bench.filter.from_guest(Packet { id: 1, body }, &mut out);
    let [Packet { body: Body::Control(passed), .. }] = &out.to_device[..] else { panic!() };
    assert_eq!(passed.length, crate::CONTROL_BYTES_MAX);
}

#[test]
fn the_guest_sees_a_configuration_without_uas_whatever_length_it_asks_for() {
    for rules in [Rules::Allow, Rules::ReadOnly] {
        let mut bench = Bench::new(rules);
        let shown = configuration(false);
        for asked in [0, 4, 9, 31, 32, 33, 60, 109, 255, 4096] {
            let due = &shown[..shown.len().min(asked.into())];
            let (status, data) = bench.control((0x80, 6), 0x0200, 0, asked).unwrap();
            assert_eq!((status, &data[..]), (Status::Success, due), "{asked}");
        }
        assert_eq!(bench.events, []);
    }
}

#[test]
fn a_setting_of_uas_in_the_host_ends_own_words_is_hidden_too() {
    let mut filter = Filter::new(Rules::ReadOnly, pinned(true)).unwrap();
    let mut out = Out::default();
    for Packet { id, mut body } in Stick::hello() {
        match &mut body {
            Body::InterfaceInfo(list) => list[0].protocol = 0x62,
            Body::EndpointInfo(endpoints) => {
                endpoints[endpoint_index(0x83)].kind = EndpointType::Bulk;
                endpoints[endpoint_index(0x04)].kind = EndpointType::Bulk;
            }
            _ => {}
        }
        filter.from_device(Packet { id, body }, &mut out);
    }
    assert_eq!(out.to_guest, Stick::hello());
    assert_eq!(out.events, []);
}

#[test]
fn a_device_that_comes_back_different_is_not_shown_to_the_guest() {
    type Alter = fn(&mut Pinned);
    let cases: [(Alter, u16, Change); 3] = [
        (|new| new.device[8] ^= 1, 0x0100, Change::Device),
        (|new| new.configurations[0][14] = 3, 0x0200, Change::Configuration(0)),
        (|new| new.configurations[0].push(0), 0x0200, Change::Configuration(0)),
    ];
    for (alter, value, change) in cases {
        let mut bench = Bench::new(Rules::ReadOnly);
        bench.guest(Packet { id: 1, body: Body::Reset });
        alter(&mut bench.stick.descriptors);
        assert_eq!(bench.control((0x80, 6), value, 0, 255), None);
        assert_eq!(bench.events, [Event::Changed(change)]);
        assert!(bench.filter.is_closed());
        assert_eq!(bench.write(&[0; 31]), None, "nothing passes any more");
        let mut filter = Filter::new(Rules::ReadOnly, pinned(true)).unwrap();
        let mut out = Out::default();
        filter.read_again(&bench.stick.descriptors, &mut out);
        assert_eq!(out.events, [Event::Changed(change)]);
    }
}

#[test]
fn a_device_announced_as_another_is_changed() {
    let mut hello = Stick::hello();
    let Some(Packet { body: Body::DeviceConnect(connect), .. }) = hello.pop() else { panic!() };
    let cases = [
        (Body::DeviceConnect(DeviceConnect { product: 7, ..connect }), Change::Device),
        (Body::DeviceConnect(DeviceConnect { version: 7, ..connect }), Change::Device),
        (
            Body::InterfaceInfo(vec![Interface { number: 0, class: 3, subclass: 1, protocol: 1 }]),
            Change::Interfaces,
        ),
        (
            {
                let mut endpoints = Box::new([Default::default(); 32]);
                let other: &mut usbredir::packet::EndpointInfo = &mut endpoints[17];
                other.kind = EndpointType::Interrupt;
                Body::EndpointInfo(endpoints)
            },
            Change::Endpoints,
        ),
    ];
    for (body, change) in cases {
        let mut filter = Filter::new(Rules::Allow, pinned(true)).unwrap();
        let mut out = Out::default();
        filter.from_device(Packet { id: 0, body }, &mut out);
        assert_eq!((out.events, out.to_guest), (vec![Event::Changed(change)], vec![]));
    }
    let mut filter = Filter::new(Rules::Allow, pinned(true)).unwrap();
    let mut out = Out::default();
    let unversioned = Body::DeviceConnect(DeviceConnect { version: 0, ..connect });
    filter.from_device(Packet { id: 0, body: unversioned }, &mut out);
    assert_eq!(out.events, [], "the version is not always said");
}

#[test]
fn a_serial_number_that_was_pinned_is_compared() {
    let serial = PinnedDescriptor {
        configuration: None,
        kind: 3,
        index: 3,
        target: 0x0409,
        bytes: vec![4, 3, 65, 0],
    };
    let pinned = Pinned { others: vec![serial], ..pinned(false) };
    for (said, changed) in [(vec![4, 3, 65, 0], false), (vec![4, 3, 66, 0], true)] {
        let mut filter = Filter::new(Rules::Allow, pinned.clone()).unwrap();
        let mut out = Out::default();
        let Body::Control(ask) = control(0x80, 6, 0x0303, 0x0409, 255) else { panic!() };
        filter.from_guest(Packet { id: 1, body: Body::Control(ask.clone()) }, &mut out);
        let answer = usbredir::packet::Control { data: said, ..ask };
        filter.from_device(Packet { id: 1, body: Body::Control(answer) }, &mut out);
        assert_eq!(out.events.contains(&Event::Changed(Change::Descriptor(3))), changed);
        assert_eq!(out.to_guest.is_empty(), changed);
    }
}

/// Returns what becomes of a GET_DESCRIPTOR of the guest's that the device answers so.
fn told(filter: &mut Filter, kind: u8, target: u16, said: &[u8]) -> (Vec<Event>, Option<Vec<u8>>) {
    let mut out = Out::default();
    let request_type = if kind == 0x22 { 0x81 } else { 0x80 };
    let value = u16::from(kind) << 8;
    let Body::Control(ask) = control(request_type, 6, value, target, 4096) else { panic!() };
    filter.from_guest(Packet { id: 7, body: Body::Control(ask.clone()) }, &mut out);
    let answer = usbredir::packet::Control { data: said.to_vec(), ..ask };
    filter.from_device(Packet { id: 7, body: Body::Control(answer) }, &mut out);
    let shown = out.to_guest.into_iter().find_map(|packet| match packet.body {
        Body::Control(control) if control.status == Status::Success => Some(control.data),
        _ => None,
    });
    (out.events, shown)
}

fn configured(filter: &mut Filter, configuration: u8) {
    let mut out = Out::default();
    filter.from_guest(Packet { id: 9, body: Body::SetConfiguration(configuration) }, &mut out);
    let status = Status::Success;
    let body = Body::ConfigurationStatus { status, configuration };
    filter.from_device(Packet { id: 9, body }, &mut out);
}

#[test]
fn a_guest_is_shown_the_report_descriptor_that_was_judged_for_the_configuration_it_is_in() {
    let report = |configuration, byte| PinnedDescriptor {
        configuration: Some(configuration),
        kind: 0x22,
        index: 0,
        target: 0,
        bytes: vec![byte; 3],
    };
    let mut two = of_classes(&[(3, 0, 0)]);
    let mut second = two.configurations[0].clone();
    second[5] = 2;
    two.configurations.push(second);
    two.device[17] = 2;
    two.others = vec![report(1, 0xaa), report(2, 0xbb)];
    let changed = vec![Event::Changed(Change::Descriptor(0x22))];
    for (configuration, own, others) in [(1, 0xaa, 0xbb), (2, 0xbb, 0xaa)] {
        let mut filter = Filter::new(Rules::Allow, two.clone()).unwrap();
        configured(&mut filter, configuration);
        assert_eq!(told(&mut filter, 0x22, 0, &[own; 3]), (vec![], Some(vec![own; 3])));
        assert_eq!(told(&mut filter, 0x22, 0, &[others; 3]), (changed.clone(), None));
    }
    // Nobody has read it: it reaches nobody.
    two.others.clear();
    let mut filter = Filter::new(Rules::Allow, two.clone()).unwrap();
    assert_eq!(told(&mut filter, 0x22, 0, &[0xaa; 3]), (vec![], None));
    // It had none when it was judged.
    two.others = vec![PinnedDescriptor { bytes: Vec::new(), ..report(1, 0) }];
    let mut filter = Filter::new(Rules::Allow, two).unwrap();
    configured(&mut filter, 1);
    assert_eq!(told(&mut filter, 0x22, 0, &[0xaa; 3]), (changed, None));
}

#[test]
fn what_nobody_asked_before_the_guest_stays_what_it_was_first() {
    let mut filter = Filter::new(Rules::Allow, of_classes(&[(0x0b, 0, 0)])).unwrap();
    for said in [&[4, 3][..], &[4, 3, 65, 0], &[4, 3, 65]] {
        assert_eq!(told(&mut filter, 3, 0x0409, said), (vec![], Some(said.to_vec())));
    }
    let sloppy = [4, 3, 65, 0, 0xde, 0xad];
    assert_eq!(told(&mut filter, 3, 0x0409, &sloppy), (vec![], Some(vec![4, 3, 65, 0])));
    let changed = vec![Event::Changed(Change::Descriptor(3))];
    assert_eq!(told(&mut filter, 3, 0x0409, &[4, 3, 66, 0]), (changed, None));
    let mut filter = Filter::new(Rules::Allow, of_classes(&[(0x0b, 0, 0)])).unwrap();
    let shown = (0..500).filter(|language| told(&mut filter, 3, *language, &[2, 3]).1.is_some());
    assert_eq!(shown.count(), 128, "what is remembered is bounded");
}

#[test]
fn answers_of_another_kind_or_with_more_data_than_asked_are_a_violation() {
    let ask = |id, body| {
        let mut filter = Filter::new(Rules::Allow, of_classes(&[(0x0b, 0, 0)])).unwrap();
        let mut out = Out::default();
        filter.from_guest(Packet { id, body }, &mut out);
        assert_eq!(out.to_device.len(), 1, "{out:?}");
        filter
    };
    let cases = [
        (bulk(0x82, 8, Vec::new()), bulk(0x82, 9, vec![0; 9])),
        (bulk(0x82, 8, Vec::new()), bulk(0x03, 8, Vec::new())),
        (bulk(0x03, 1, vec![0]), bulk(0x03, 1, vec![0])),
        (bulk(0x82, 8, Vec::new()), control(0x80, 0, 0, 0, 2)),
        (control(0x80, 0, 0, 0, 2), control(0x80, 8, 0, 0, 1)),
        (Body::GetConfiguration, bulk(0x82, 8, Vec::new())),
    ];
    for (question, answer) in cases {
        let mut filter = ask(1, question);
        let mut out = Out::default();
        filter.from_device(Packet { id: 1, body: answer }, &mut out);
        assert_eq!(out.events, [Event::Violation(Violation::WrongAnswer)]);
        assert_eq!(out.to_guest, []);
    }
    // And of read-only storage.
    let test_unit_ready = crate::testing::cbw(1, 0, false, 0, &[0; 6]);
    for answer in [bulk(INPUT, 13, vec![0; 13]), bulk(OUTPUT, 31, vec![0; 31])] {
        let mut filter = Filter::new(Rules::ReadOnly, pinned(true)).unwrap();
        let mut out = Out::default();
        let body = bulk(OUTPUT, 31, test_unit_ready.clone());
        filter.from_guest(Packet { id: 1, body }, &mut out);
        filter.from_device(Packet { id: 1, body: answer }, &mut out);
        assert_eq!(out.events, [Event::Violation(Violation::WrongAnswer)]);
        assert_eq!(out.to_guest, []);
    }
}

#[test]
fn a_configuration_cut_short_by_the_device_is_an_error_and_not_half_shown() {
    let mut filter = Filter::new(Rules::ReadOnly, pinned(true)).unwrap();
    let mut out = Out::default();
    let Body::Control(ask) = control(0x80, 6, 0x0200, 0, 255) else { panic!() };
    filter.from_guest(Packet { id: 1, body: Body::Control(ask.clone()) }, &mut out);
    let data = configuration(true)[..40].to_vec();
    let answer = usbredir::packet::Control { data, ..ask };
    filter.from_device(Packet { id: 1, body: Body::Control(answer) }, &mut out);
    let [Packet { body: Body::Control(shown), .. }] = &out.to_guest[..] else { panic!() };
    assert_eq!((shown.status, &shown.data[..]), (Status::IoError, &[][..]));
}

#[test]
fn answers_to_nothing_count_only_while_nothing_goes_well() {
    let mut filter = Filter::new(Rules::Allow, of_classes(&[(0x0b, 0, 0)])).unwrap();
    let mut out = Out::default();
    for id in 0..100 {
        let stray = bulk(0x82, 0, Vec::new());
        filter.from_device(Packet { id: 1000, body: stray }, &mut out);
        filter.from_guest(Packet { id, body: bulk(0x82, 8, Vec::new()) }, &mut out);
        filter.from_device(Packet { id, body: bulk(0x82, 8, vec![0; 8]) }, &mut out);
    }
    assert_eq!((&out.events[..], out.to_guest.len()), (&[][..], 100));
    for _ in 0..crate::FAULTS_MAX {
        let stray = bulk(0x82, 0, Vec::new());
        filter.from_device(Packet { id: 1000, body: stray }, &mut out);
    }
    assert_eq!(out.events, [Event::Violation(Violation::TooManyFaults)]);
}

#[test]
fn an_id_in_use_is_not_taken_twice() {
    let mut filter = Filter::new(Rules::ReadOnly, pinned(true)).unwrap();
    let mut out = Out::default();
    for body in [control(0x80, 0, 0, 0, 2), control(0x80, 8, 0, 0, 1)] {
        filter.from_guest(Packet { id: 1, body }, &mut out);
    }
    for body in [bulk(INPUT, 13, Vec::new()), bulk(INPUT, 512, Vec::new())] {
        filter.from_guest(Packet { id: 2, body }, &mut out);
    }
    assert_eq!((out.to_device.len(), out.to_guest.len(), filter.in_flight()), (1, 0, 2));
    assert_eq!(out.events, [Event::Refused { what: Refusal::Packet, times: 1 }]);
}

#[test]
fn only_what_is_with_the_device_is_cancelled_there() {
    let mut filter = Filter::new(Rules::ReadOnly, pinned(true)).unwrap();
    let mut out = Out::default();
    filter.from_guest(Packet { id: 1, body: control(0x80, 0, 0, 0, 2) }, &mut out);
    filter.from_guest(Packet { id: 2, body: bulk(INPUT, 13, Vec::new()) }, &mut out);
    filter.from_guest(Packet { id: 3, body: Body::SetConfiguration(1) }, &mut out);
    out.to_device.clear();
    for id in [1, 2, 3, 4] {
        filter.from_guest(Packet { id, body: Body::CancelDataPacket }, &mut out);
    }
    assert_eq!(out.to_device, [Packet { id: 1, body: Body::CancelDataPacket }]);
}

#[test]
fn a_function_beside_read_only_storage_is_used_as_ever() {
    let mut pinned = pinned(false);
    let raw = &mut pinned.configurations[0];
    raw[4] = 2;
    raw.extend([9, 4, 1, 0, 3, 0x0b, 0, 0, 0]);
    raw.extend([7, 5, 0x83, 3, 8, 0, 10, 7, 5, 0x84, 2, 0, 2, 0, 7, 5, 0x04, 2, 0, 2, 0]);
    raw[2] = raw.len() as u8;
    let ask = |body| {
        let mut filter = Filter::new(Rules::ReadOnly, pinned.clone()).unwrap();
        passes(&mut filter, body)
    };
    assert!(ask(bulk(0x04, 512, vec![0x2a; 512])));
    assert!(ask(bulk(0x84, 512, Vec::new())));
    assert!(ask(control(0x21, 0x01, 0, 1, 0)), "CCID ABORT");
    assert!(ask(Body::StartInterruptReceiving { endpoint: 0x83 }));
    assert!(!ask(bulk(OUTPUT, 512, vec![0x2a; 512])));
    assert!(!ask(control(0x21, 0x01, 0, 0, 0)));
    assert!(!ask(control(0x40, 1, 0, 0, 0)), "a vendor request");
}

#[test]
fn a_class_triple_is_told_once_for_policy() {
    let device = Device::read(&pinned(true)).unwrap();
    assert_eq!(device.functions(), [(8, 6, 0x50), (8, 6, 0x62)]);
}
