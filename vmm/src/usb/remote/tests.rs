use usbredir::packet::DeviceConnect;
use xhci::Setup;

use super::*;

fn connect() -> Packet {
    let device = DeviceConnect {
        speed: RemoteSpeed::Full,
        class: 0,
        subclass: 0,
        protocol: 0,
        vendor: 1,
        product: 2,
        version: 3,
    };
    Packet { id: 0, body: Body::DeviceConnect(device) }
}

fn there() -> Remote {
    let mut remote = Remote::default();
    assert_eq!(remote.arrived(connect()), Ok(vec![Effect::Attach(Speed::Full)]));
    remote
}

fn interrupt_packet(endpoint: u8, data: &[u8]) -> Packet {
    let length = u16::try_from(data.len()).unwrap();
    let (status, data) = (RemoteStatus::Success, data.to_vec());
    Packet { id: 7, body: Body::Interrupt(Interrupt { endpoint, status, length, data }) }
}

fn complete(id: u64, status: Status, data: &[u8]) -> Effect {
    Effect::Complete(TransferId::from_number(id), status, Answer::In(data.to_vec()))
}

fn send(id: u64, body: Body) -> Effect {
    Effect::Send(Packet { id, body })
}

fn transfer(id: u64, endpoint: u8, request: Request) -> Transfer {
    Transfer {
        id: TransferId::from_number(id),
        port: xhci::PortId::new(1),
        endpoint: EndpointAddress::new(endpoint),
        request,
    }
}

fn control(request_type: u8, request: u8, value: u16, payload: Payload) -> Request {
    let length = match &payload {
        Payload::In(most) => u16::try_from(*most).unwrap(),
        Payload::Out(data) => u16::try_from(data.len()).unwrap(),
    };
    Request::Control { setup: Setup { request_type, request, value, index: 0, length }, payload }
}

fn wants_interrupt(id: u64, bytes: u32) -> Transfer {
    transfer(
        id,
        0x81,
        Request::Interrupt { payload: Payload::In(bytes), interval: 1000, packet: 8 },
    )
}

#[test]
fn bulk_and_control_go_under_an_id_of_their_own_and_come_back_as_the_transfers_end() {
    let mut remote = there();
    let out = transfer(5, 0x02, Request::Bulk(Payload::Out(vec![1, 2, 3])));
    let status = RemoteStatus::Success;
    let bulk = |endpoint, status, length, data: &[u8]| {
        Body::Bulk(Bulk { endpoint, status, length, stream: 0, data: data.to_vec() })
    };
    assert_eq!(remote.submit(out), [send(1, bulk(2, status, 3, &[1, 2, 3]))]);
    let done = Packet { id: 1, body: bulk(2, status, 3, &[]) };
    let ended = Effect::Complete(TransferId::from_number(5), Status::Success, Answer::Out(3));
    assert_eq!(remote.arrived(done.clone()), Ok(vec![ended]));
    assert_eq!(remote.arrived(done), Ok(vec![]), "an answer to nothing");

    let read = transfer(6, 0x81, Request::Bulk(Payload::In(4)));
    assert_eq!(remote.submit(read), [send(2, bulk(0x81, status, 4, &[]))]);
    let more = Packet { id: 2, body: bulk(0x81, status, 6, &[9; 6]) };
    assert_eq!(remote.arrived(more), Ok(vec![complete(6, Status::Babble, &[9; 4])]));

    let descriptor = transfer(7, 0, control(0x80, 6, 0x0100, Payload::In(18)));
    let effects = remote.submit(descriptor);
    let [Effect::Send(Packet { id: 3, body: Body::Control(packet) })] = &effects[..] else {
        panic!("{effects:?}");
    };
    assert_eq!((packet.endpoint, packet.length, packet.data.len()), (0x80, 18, 0));
    let stalled = Control { status: RemoteStatus::Stall, length: 0, ..packet.clone() };
    let stalled = Packet { id: 3, body: Body::Control(stalled) };
    assert_eq!(remote.arrived(stalled), Ok(vec![complete(7, Status::Stall, &[])]));
}

#[test]
fn configurations_and_settings_have_packets_of_their_own() {
    let mut remote = there();
    let set = transfer(1, 0, control(0x00, 9, 2, Payload::Out(Vec::new())));
    assert_eq!(remote.submit(set), [send(1, Body::SetConfiguration(2))]);
    let status = RemoteStatus::Success;
    let body = Body::ConfigurationStatus { status, configuration: 2 };
    let ended = Effect::Complete(TransferId::from_number(1), Status::Success, Answer::Out(0));
    assert_eq!(remote.arrived(Packet { id: 1, body }), Ok(vec![ended]));
    let get = transfer(2, 0, control(0x80, 8, 0, Payload::In(1)));
    assert_eq!(remote.submit(get), [send(2, Body::GetConfiguration)]);
    let body = Body::ConfigurationStatus { status, configuration: 2 };
    let answer = remote.arrived(Packet { id: 2, body });
    assert_eq!(answer, Ok(vec![complete(2, Status::Success, &[2])]));
    let set = transfer(3, 0, control(0x01, 11, 1, Payload::Out(Vec::new())));
    assert_eq!(remote.submit(set), [send(3, Body::SetAltSetting { interface: 0, alternate: 1 })]);
}

#[test]
fn interrupt_data_are_polled_for_from_the_first_transfer_until_the_endpoint_stops() {
    let mut remote = there();
    assert_eq!(remote.arrived(interrupt_packet(0x81, &[1])), Ok(vec![]), "nobody asked");
    let start = send(1, Body::StartInterruptReceiving { endpoint: 0x81 });
    assert_eq!(remote.submit(wants_interrupt(1, 8)), [start]);
    let first = remote.arrived(interrupt_packet(0x81, &[2]));
    assert_eq!(first, Ok(vec![complete(1, Status::Success, &[2])]));
    for early in 0..EARLY_MAX as u8 + 5 {
        assert_eq!(remote.arrived(interrupt_packet(0x81, &[early])), Ok(vec![]));
    }
    for kept in 5..EARLY_MAX as u8 + 5 {
        let effects = remote.submit(wants_interrupt(2, 8));
        assert_eq!(effects, [complete(2, Status::Success, &[kept])]);
    }
    assert_eq!(remote.submit(wants_interrupt(3, 8)), [], "it polls already");
    let effects = remote.stopped(EndpointAddress::new(0x81));
    let [Effect::Send(Packet { id: stop, body })] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(*body, Body::StopInterruptReceiving { endpoint: 0x81 });
    assert_eq!(remote.stopped(EndpointAddress::new(0x81)), []);
    assert_eq!(remote.arrived(interrupt_packet(0x81, &[9])), Ok(vec![]), "on its way");
    assert_eq!(remote.submit(wants_interrupt(4, 8)), [complete(4, Status::Success, &[9])], "kept");

    // How the stop went comes when the guest has started the endpoint again, and is nothing to that.
    let effects = remote.submit(wants_interrupt(5, 8));
    let body = Body::StartInterruptReceiving { endpoint: 0x81 };
    assert!(matches!(&effects[..], [Effect::Send(packet)] if packet.body == body));
    let body = Body::InterruptReceivingStatus { status: RemoteStatus::Cancelled, endpoint: 0x81 };
    assert_eq!(remote.arrived(Packet { id: *stop, body }), Ok(vec![]));
    let data = remote.arrived(interrupt_packet(0x81, &[1]));
    assert_eq!(data, Ok(vec![complete(5, Status::Success, &[1])]));
}

#[test]
fn a_report_of_several_packets_is_one_transfer() {
    let mut remote = there();
    remote.submit(wants_interrupt(1, 20));
    assert_eq!(remote.arrived(interrupt_packet(0x81, &[1; 8])), Ok(vec![]));
    assert_eq!(remote.arrived(interrupt_packet(0x81, &[2; 8])), Ok(vec![]));
    let whole = [&[1; 8][..], &[2; 8], &[3; 4]].concat();
    let end = remote.arrived(interrupt_packet(0x81, &[3; 4]));
    assert_eq!(end, Ok(vec![complete(1, Status::Success, &whole)]));

    for packet in [&[4; 8][..], &[5; 2], &[6; 8]] {
        assert_eq!(remote.arrived(interrupt_packet(0x81, packet)), Ok(vec![]));
    }
    let early = [&[4; 8][..], &[5; 2]].concat();
    assert_eq!(remote.submit(wants_interrupt(2, 20)), [complete(2, Status::Success, &early)]);
    assert_eq!(remote.submit(wants_interrupt(3, 20)), []);
    let end = remote.arrived(interrupt_packet(0x81, &[]));
    assert_eq!(end, Ok(vec![complete(3, Status::Success, &[6; 8])]), "an empty packet ends it");
    remote.submit(wants_interrupt(4, 12));
    remote.arrived(interrupt_packet(0x81, &[7; 8])).unwrap();
    let end = remote.arrived(interrupt_packet(0x81, &[8; 8]));
    let whole = [&[7; 8][..], &[8; 4]].concat();
    assert_eq!(end, Ok(vec![complete(4, Status::Babble, &whole)]));
}

#[test]
fn what_cannot_be_sent_ends() {
    let mut remote = there();
    let ended = |remote: &mut Remote, effects: Vec<Effect>| {
        let [Effect::Send(packet)] = &effects[..] else { panic!("{effects:?}") };
        remote.unsent(packet)
    };
    let set = remote.submit(transfer(1, 0, control(0x00, 9, 2, Payload::Out(Vec::new()))));
    let out = |id| Effect::Complete(TransferId::from_number(id), Status::Error, Answer::Out(0));
    assert_eq!(ended(&mut remote, set), [out(1)]);
    let bulk = remote.submit(transfer(2, 0x81, Request::Bulk(Payload::In(4))));
    assert_eq!(ended(&mut remote, bulk), [complete(2, Status::Error, &[])]);
    let start = remote.submit(wants_interrupt(3, 8));
    assert_eq!(ended(&mut remote, start), [complete(3, Status::Error, &[])]);
    assert_eq!(remote.submit(wants_interrupt(4, 8)).len(), 1, "it is started again");
}

#[test]
fn ids_stay_within_32_bits_whatever_the_transfers_are_called() {
    let mut remote = Remote { last_id: u32::MAX - 1, ..there() };
    for number in [0x1_0000_0000_0001, 0x2_0000_0000_0001, 0x3_0000_0000_0001] {
        let effects = remote.submit(transfer(number, 0x81, Request::Bulk(Payload::In(4))));
        let [Effect::Send(Packet { id, .. })] = &effects[..] else { panic!("{effects:?}") };
        assert!(*id != 0 && *id <= u32::MAX.into());
    }
}

#[test]
fn an_interrupt_endpoint_that_stalls_is_started_again_by_the_next_transfer() {
    let mut remote = there();
    remote.submit(wants_interrupt(1, 8));
    let body = Body::InterruptReceivingStatus { status: RemoteStatus::Stall, endpoint: 0x81 };
    let stalled = remote.arrived(Packet { id: 0, body });
    assert_eq!(stalled, Ok(vec![complete(1, Status::Stall, &[])]));
    let start = send(2, Body::StartInterruptReceiving { endpoint: 0x81 });
    assert_eq!(remote.submit(wants_interrupt(2, 8)), [start], "started again");
}

#[test]
fn a_cancelled_transfer_is_cancelled_over_there_and_its_answer_dropped() {
    let mut remote = there();
    remote.submit(transfer(5, 0x81, Request::Bulk(Payload::In(4))));
    let id = TransferId::from_number(5);
    assert_eq!(remote.cancel(id), [send(1, Body::CancelDataPacket)]);
    assert_eq!(remote.cancel(id), []);
    remote.submit(wants_interrupt(6, 8));
    assert_eq!(remote.cancel(TransferId::from_number(6)), []);
    assert_eq!(remote.arrived(interrupt_packet(0x81, &[1])), Ok(vec![]), "kept for the next");
    assert_eq!(remote.submit(wants_interrupt(7, 8)), [complete(7, Status::Success, &[1])]);
}

fn bulk(endpoint: u8, status: RemoteStatus, length: u32, data: &[u8]) -> Body {
    Body::Bulk(Bulk { endpoint, status, length, stream: 0, data: data.to_vec() })
}

#[test]
fn a_stopped_transfer_comes_back_with_what_was_moved() {
    let cancelled = RemoteStatus::Cancelled;
    let mut remote = there();
    remote.submit(transfer(5, 0x81, Request::Bulk(Payload::In(4))));
    assert_eq!(remote.stop(TransferId::from_number(5)), [send(1, Body::CancelDataPacket)]);
    let answer = Packet { id: 1, body: bulk(0x81, cancelled, 2, &[1, 2]) };
    assert_eq!(remote.arrived(answer), Ok(vec![complete(5, Status::Stopped, &[1, 2])]));

    remote.submit(transfer(6, 0x02, Request::Bulk(Payload::Out(vec![1; 8]))));
    assert_eq!(remote.stop(TransferId::from_number(6)), [send(2, Body::CancelDataPacket)]);
    let answer = remote.arrived(Packet { id: 2, body: bulk(2, cancelled, 5, &[]) });
    let id = TransferId::from_number(6);
    assert_eq!(answer, Ok(vec![Effect::Complete(id, Status::Stopped, Answer::Out(5))]));

    // Of a control transfer there is no half: it is left to its end.
    remote.submit(transfer(7, 0, control(0x80, 8, 0, Payload::In(1))));
    assert_eq!(remote.stop(TransferId::from_number(7)), []);
    let body = Body::ConfigurationStatus { status: RemoteStatus::Success, configuration: 2 };
    let answer = remote.arrived(Packet { id: 3, body });
    assert_eq!(answer, Ok(vec![complete(7, Status::Success, &[2])]));

    // What nobody stopped and was cancelled all the same has failed.
    remote.submit(transfer(8, 0x81, Request::Bulk(Payload::In(4))));
    let answer = remote.arrived(Packet { id: 4, body: bulk(0x81, cancelled, 0, &[]) });
    assert_eq!(answer, Ok(vec![complete(8, Status::Error, &[])]));

    // Two packets of a longer report are there.
    remote.submit(wants_interrupt(9, 20));
    remote.arrived(interrupt_packet(0x81, &[1; 8])).unwrap();
    let stopped = remote.stop(TransferId::from_number(9));
    assert_eq!(stopped, [complete(9, Status::Stopped, &[1; 8])]);
    assert_eq!(remote.stop(TransferId::from_number(9)), []);
}

#[test]
fn what_a_device_said_before_its_endpoint_was_stopped_is_not_lost_but_ends_with_its_setting() {
    let stopped = || {
        let mut remote = there();
        remote.submit(wants_interrupt(1, 8));
        remote.arrived(interrupt_packet(0x81, &[1])).unwrap();
        remote.arrived(interrupt_packet(0x81, &[2])).unwrap();
        remote.stopped(EndpointAddress::new(0x81));
        remote
    };
    let mut remote = stopped();
    assert_eq!(remote.submit(wants_interrupt(2, 8)), [complete(2, Status::Success, &[2])]);
    let anew: [fn(&mut Remote); 3] = [
        |remote| drop(remote.reset()),
        |remote| {
            remote.submit(transfer(2, 0, control(0x00, 9, 2, Payload::Out(Vec::new()))));
        },
        |remote| {
            remote.submit(transfer(2, 0, control(0x01, 11, 1, Payload::Out(Vec::new()))));
        },
    ];
    for set_up in anew {
        let mut remote = stopped();
        set_up(&mut remote);
        let effects = remote.submit(wants_interrupt(3, 8));
        assert!(matches!(&effects[..], [Effect::Send(_)]), "{effects:?}");
    }
}

/// With packets of 64 KiB on fifteen endpoints it was 15 MiB, and 120 MiB with eight peers.
#[test]
fn a_hostile_peer_and_its_guest_can_have_no_more_than_a_megabyte_of_interrupt_data_held() {
    let mut remote = there();
    for endpoint in 0x81..=0x8f {
        let payload = Payload::In(1);
        let packet = 1024;
        let request = Request::Interrupt { payload, interval: 1000, packet };
        remote.submit(transfer(u64::from(endpoint), endpoint, request));
        for _ in 0..2 * EARLY_MAX {
            let longest = interrupt_packet(endpoint, &vec![1; INTERRUPT_MAX]);
            remote.arrived(longest).unwrap();
        }
    }
    let held = |remote: &Remote| -> usize {
        let early = remote.receiving.values().flat_map(|receiving| &receiving.early);
        early.map(|(_, data)| data.capacity()).sum()
    };
    assert!(held(&remote) <= 1 << 20, "{} bytes", held(&remote));
    let longer = remote.arrived(interrupt_packet(0x81, &vec![1; INTERRUPT_MAX + 1]));
    assert_eq!(longer, Err(StreamViolation::LongInterrupt(INTERRUPT_MAX + 1)));
}

#[test]
fn a_device_that_goes_is_detached_acknowledged_and_may_come_again() {
    let mut remote = there();
    remote.submit(transfer(5, 0x81, Request::Bulk(Payload::In(4))));
    let gone = remote.arrived(Packet { id: 0, body: Body::DeviceDisconnect });
    assert_eq!(gone, Ok(vec![Effect::Detach, send(0, Body::DeviceDisconnectAck)]));
    let effects = remote.submit(transfer(6, 0x81, Request::Bulk(Payload::In(4))));
    assert_eq!(effects, [complete(6, Status::Error, &[])]);
    assert!(remote.arrived(connect()).is_ok());
    assert_eq!(remote.arrived(connect()), Err(StreamViolation::SecondDevice));
}
