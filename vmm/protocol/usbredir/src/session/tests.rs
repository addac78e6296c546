#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::prelude::*;

use super::*;
use crate::packet::{
    Bulk, Control, DeviceConnect, ENDPOINTS, EndpointInfo, EndpointType, Interface, Interrupt,
    Speed, Status,
};

fn status() -> impl Strategy<Value = Status> {
    prop::sample::select(vec![
        Status::Success,
        Status::Cancelled,
        Status::Invalid,
        Status::IoError,
        Status::Stall,
        Status::Timeout,
        Status::Babble,
    ])
}

fn data() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..300),
        1 => (0usize..=MAX_DATA).prop_map(|length| vec![7; length]),
    ]
}

/// Makes data as it goes in packets from this end.
fn with_data(from: Role) -> impl Strategy<Value = (u8, u32, Vec<u8>)> {
    (0u8..16, any::<bool>(), data()).prop_map(move |(number, towards_device, data)| {
        let endpoint = if towards_device { number } else { number | 0x80 };
        let length = u32::try_from(data.len()).unwrap();
        let carries = towards_device == (from == Role::Guest);
        (endpoint, length, if carries { data } else { Vec::new() })
    })
}

fn data_packet(from: Role) -> impl Strategy<Value = Body> {
    let control = (with_data(from), any::<(u8, u8, u16, u16)>(), status()).prop_map(
        |((endpoint, length, mut data), (request, request_type, value, index), status)| {
            let length = u16::try_from(length).unwrap_or(u16::MAX);
            data.truncate(length.into());
            let request_type = request_type & 0x7f | endpoint & 0x80;
            Body::Control(Control {
                endpoint,
                request,
                request_type,
                status,
                value,
                index,
                length,
                data,
            })
        },
    );
    let bulk = (with_data(from), status(), any::<u32>()).prop_map(
        |((endpoint, length, data), status, stream)| {
            Body::Bulk(Bulk { endpoint, status, length, stream, data })
        },
    );
    let interrupt =
        (with_data(from), status()).prop_map(|((endpoint, length, mut data), status)| {
            let length = u16::try_from(length).unwrap_or(u16::MAX);
            data.truncate(length.into());
            Body::Interrupt(Interrupt { endpoint, status, length, data })
        });
    prop_oneof![control, bulk, interrupt]
}

fn from_host() -> BoxedStrategy<Body> {
    let device = (any::<(u8, u8, u8, u16, u16, u16)>(), 0u8..4).prop_map(
        |((class, subclass, protocol, vendor, product, version), speed)| {
            let speed = [Speed::Low, Speed::Full, Speed::High, Speed::Super][usize::from(speed)];
            Body::DeviceConnect(DeviceConnect {
                speed,
                class,
                subclass,
                protocol,
                vendor,
                product,
                version,
            })
        },
    );
    let interface = any::<(u8, u8, u8, u8)>().prop_map(|(number, class, subclass, protocol)| {
        Interface { number, class, subclass, protocol }
    });
    let interfaces = prop::collection::vec(interface, 0..=32).prop_map(Body::InterfaceInfo);
    let endpoints = any::<(u8, u8, u16)>().prop_map(|(interval, interface, max_packet_size)| {
        let one = EndpointInfo { kind: EndpointType::Bulk, interval, interface, max_packet_size };
        let mut all = Box::new([EndpointInfo::default(); ENDPOINTS]);
        all[usize::from(interval) % ENDPOINTS] = one;
        Body::EndpointInfo(all)
    });
    prop_oneof![
        device,
        interfaces,
        endpoints,
        Just(Body::DeviceDisconnect),
        (status(), any::<u8>()).prop_map(|(status, configuration)| Body::ConfigurationStatus {
            status,
            configuration
        }),
        (status(), any::<(u8, u8)>()).prop_map(|(status, (interface, alternate))| {
            Body::AltSettingStatus { status, interface, alternate }
        }),
        (status(), any::<u8>())
            .prop_map(|(status, endpoint)| Body::InterruptReceivingStatus { status, endpoint }),
        data_packet(Role::Host),
    ]
    .boxed()
}

fn from_guest() -> BoxedStrategy<Body> {
    prop_oneof![
        Just(Body::Reset),
        Just(Body::DeviceDisconnectAck),
        Just(Body::GetConfiguration),
        Just(Body::CancelDataPacket),
        any::<u8>().prop_map(Body::SetConfiguration),
        any::<(u8, u8)>()
            .prop_map(|(interface, alternate)| Body::SetAltSetting { interface, alternate }),
        any::<u8>().prop_map(|interface| Body::GetAltSetting { interface }),
        any::<u8>().prop_map(|endpoint| Body::StartInterruptReceiving { endpoint }),
        any::<u8>().prop_map(|endpoint| Body::StopInterruptReceiving { endpoint }),
        data_packet(Role::Guest),
    ]
    .boxed()
}

/// Returns what arrives at the other end, given to it in pieces of these sizes, again and again.
fn carry(from: &mut Session, to: &mut Session, pieces: &[usize]) -> Vec<Packet> {
    let mut arrived = Vec::new();
    let mut sizes = pieces.iter().cycle();
    loop {
        let size = (*sizes.next().unwrap()).min(from.output().len()).min(to.room());
        let taken = to.feed(&from.output()[..size]);
        assert_eq!(taken, size);
        from.sent(size);
        while let Some(packet) = to.next().unwrap() {
            arrived.push(packet);
        }
        if from.output().is_empty() {
            return arrived;
        }
    }
}

fn introduced() -> (Session, Session) {
    let (mut host, mut guest) = (Session::new(Role::Host, "a"), Session::new(Role::Guest, "b"));
    carry(&mut host, &mut guest, &[1]);
    carry(&mut guest, &mut host, &[1000]);
    (host, guest)
}

proptest! {
    #[test]
    fn every_packet_arrives_as_it_was_sent_however_the_stream_is_cut(
        bodies in prop::collection::vec((any::<u64>(), from_host(), from_guest()), 1..8),
        pieces in prop::collection::vec(1usize..5000, 1..5),
    ) {
        let (mut host, mut guest) = introduced();
        for (id, host_body, guest_body) in bodies {
            let packet = Packet { id, body: host_body };
            host.send(&packet).unwrap();
            prop_assert_eq!(carry(&mut host, &mut guest, &pieces), vec![packet]);
            let mut packet = Packet { id, body: guest_body };
            match &mut packet.body {
                // In a request the status means nothing, and is read as success.
                Body::Control(Control { status, .. })
                | Body::Bulk(Bulk { status, .. })
                | Body::Interrupt(Interrupt { status, .. }) => *status = Status::Success,
                _ => {}
            }
            guest.send(&packet).unwrap();
            prop_assert_eq!(carry(&mut guest, &mut host, &pieces), vec![packet]);
        }
    }

    #[test]
    fn an_end_without_capabilities_gets_what_it_can_read(
        id in any::<u32>(), caps in any::<u32>(), body in from_host(),
    ) {
        let mut host = Session::new(Role::Host, "a");
        let mut guest = Session::new(Role::Guest, "b");
        // The guest's hello with other capabilities.
        let mut hello = Vec::new();
        let body_of_hello = Body::Hello { version: "old".into(), capabilities: vec![caps] };
        wire::encode(
            &Packet { id: 0, body: body_of_hello }, Role::Guest, Capabilities::default(), &mut hello,
        ).unwrap();
        host.feed(&hello);
        host.next().unwrap();
        carry(&mut host, &mut guest, &[64]);
        guest.agreed = Some(Capabilities::OURS.and(Capabilities(caps)));
        let mut packet = Packet { id: id.into(), body };
        if host.send(&packet).is_ok() {
            let caps = host.agreed().unwrap();
            match &mut packet.body {
                Body::DeviceConnect(device) if !caps.has(capability::CONNECT_DEVICE_VERSION) => {
                    device.version = 0;
                }
                Body::EndpointInfo(endpoints) if !caps.has(capability::EP_INFO_MAX_PACKET_SIZE) => {
                    endpoints.iter_mut().for_each(|endpoint| endpoint.max_packet_size = 0);
                }
                _ => {}
            }
            prop_assert_eq!(carry(&mut host, &mut guest, &[100]), vec![packet]);
        }
    }

    #[test]
    fn any_bytes_give_packets_or_an_error_and_little_is_kept(
        bytes in prop::collection::vec(any::<u8>(), 0..2000), role in any::<bool>(),
    ) {
        crate::fuzz::session(&[&[u8::from(role)], &bytes[..]].concat());
    }
}

/// Makes a packet as raw bytes, with short IDs.
fn raw(kind: u32, length: u32, body: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &length.to_le_bytes(), &[0; 4], body].concat()
}

/// Makes a guest's end that has heard a hello without capabilities.
fn plain_guest() -> Session {
    let mut guest = Session::new(Role::Guest, "b");
    guest.feed(&raw(kind::HELLO, 64, &[b'x'; 64]));
    assert!(matches!(guest.next(), Ok(Some(Packet { body: Body::Hello { .. }, .. }))));
    guest
}

#[test]
fn what_makes_no_sense_ends_the_stream() {
    let mut guest = Session::new(Role::Guest, "b");
    guest.feed(&raw(kind::RESET, 0, &[]));
    assert_eq!(guest.next(), Err(Error::NoHello(kind::RESET)));
    for (bytes, error) in [
        (raw(kind::HELLO, 64, &[0; 64]), Error::SecondHello),
        (raw(kind::RESET, 0, &[]), Error::Unexpected(kind::RESET)),
        (raw(12, 3, &[0; 3]), Error::Unexpected(12)),
        (raw(999, 0, &[]), Error::Unexpected(999)),
        (raw(kind::BULK_PACKET, u32::MAX, &[]), Error::Length { kind: 101, length: u32::MAX }),
        (raw(kind::DEVICE_CONNECT, 7, &[0; 7]), Error::Length { kind: 1, length: 7 }),
        (raw(kind::DEVICE_CONNECT, 8, &[9; 8]), Error::Field(1)),
        (raw(kind::INTERFACE_INFO, 132, &[0xff; 132]), Error::Field(4)),
        (raw(kind::EP_INFO, 96, &[9; 96]), Error::Field(5)),
        (raw(kind::CONFIGURATION_STATUS, 2, &[7, 0]), Error::Field(8)),
        // Two bytes are claimed, one is there; and data towards the device that comes from it.
        (raw(kind::INTERRUPT_PACKET, 5, &[0x81, 0, 2, 0, 1]), Error::Field(103)),
        (raw(kind::INTERRUPT_PACKET, 5, &[0x01, 0, 1, 0, 1]), Error::Field(103)),
    ] {
        let mut guest = plain_guest();
        guest.feed(&bytes);
        assert_eq!(guest.next(), Err(error), "{bytes:?}");
    }
}

#[test]
fn what_a_request_says_of_its_end_is_not_read() {
    let mut host = Session::new(Role::Host, "a");
    host.feed(&raw(kind::HELLO, 64, &[b'x'; 64]));
    host.next().unwrap();
    // As QEMU sends it: rubbish in the field.
    host.feed(&raw(kind::CONTROL_PACKET, 10, &[0x80, 6, 0x80, 0xc7, 0, 1, 0, 0, 18, 0]));
    let packet = host.next().unwrap().unwrap();
    assert!(matches!(packet.body, Body::Control(Control { status: Status::Success, .. })));
}

#[test]
fn filters_are_skipped() {
    let mut guest = plain_guest();
    guest.feed(&raw(kind::FILTER_FILTER, 9, b"-1,-1,-1\0"));
    guest.feed(&raw(kind::DEVICE_DISCONNECT, 0, &[]));
    assert_eq!(guest.next(), Ok(Some(Packet { id: 0, body: Body::DeviceDisconnect })));
}

#[test]
fn what_waits_for_a_slow_peer_takes_little_more_room_than_it_has_bytes() {
    let (mut host, _) = introduced();
    let length = u32::try_from(MAX_DATA).unwrap();
    let mut bulk = || {
        let data = vec![0; MAX_DATA];
        let bulk = Bulk { endpoint: 0x81, status: Status::Success, length, stream: 0, data };
        host.send(&Packet { id: 0, body: Body::Bulk(bulk) }).unwrap();
        // It reads, but never enough.
        host.sent(MAX_DATA / 2);
        (host.output().len(), host.output.capacity())
    };
    for _ in 0..64 {
        let (bytes, room) = bulk();
        assert!(room <= bytes + 3 * PACKET_MAX, "{room} bytes of room for {bytes}");
    }
}

#[test]
fn what_an_end_may_not_say_is_not_sent() {
    let (mut host, _) = introduced();
    let before = host.output().len();
    host.send(&Packet { id: 0, body: Body::Reset }).unwrap_err();
    let lies =
        Bulk { endpoint: 0x81, status: Status::Success, length: 2, stream: 0, data: vec![0] };
    host.send(&Packet { id: 0, body: Body::Bulk(lies) }).unwrap_err();
    let long = vec![0; MAX_DATA + 1];
    let length = u32::try_from(long.len()).unwrap();
    let long = Bulk { endpoint: 0x81, status: Status::Success, length, stream: 0, data: long };
    host.send(&Packet { id: 0, body: Body::Bulk(long) }).unwrap_err();
    assert_eq!(host.output().len(), before);
}
