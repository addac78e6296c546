use super::*;
use seat_link::Update;

const SIZE: Size = Size { width: 64, height: 32 };

fn pair() -> (SeatDomain, Channel) {
    let (ours, theirs) = seat_link::pair().unwrap();
    let mut domain = SeatDomain::default();
    domain.attach(ours, SIZE).unwrap();
    (domain, Channel::new(theirs).unwrap())
}

fn received(vmm: &Channel) -> Option<ToVmm> {
    let mut buffer = [0; PACKET_MAX];
    match vmm.receive(&mut buffer).unwrap() {
        Packet::Message(packet, _) => Some(ToVmm::decode(packet).unwrap()),
        _ => None,
    }
}

#[test]
fn a_vmm_gets_frame_memory_it_cannot_shrink() {
    let (_domain, vmm) = pair();
    let mut buffer = [0; PACKET_MAX];
    let Packet::Message(packet, Some(file)) = vmm.receive_file(&mut buffer).unwrap() else {
        panic!("no frame memory");
    };
    assert_eq!(ToVmm::decode(packet), Ok(ToVmm::Display(SIZE)));
    assert_eq!(file.metadata().unwrap().len(), SIZE.frame_bytes() as u64);
    assert!(file.set_len(0).is_err() && file.set_len(1 << 30).is_err());
}

#[test]
fn a_vmm_that_does_not_wait_or_talks_nonsense_loses_its_link() {
    let mut buffer = [0; PACKET_MAX];
    let update = ToAgent::Update(Update { picture: Some(SIZE), ..Update::default() }).encode();
    let (mut domain, vmm) = pair();
    vmm.send(&update).unwrap();
    assert!(domain.take(&mut buffer).unwrap().picture);
    domain.acknowledge();
    vmm.send(&update).unwrap();
    assert_eq!(domain.take(&mut buffer).unwrap(), DomainUpdate::default());
    vmm.send(&update).unwrap();
    assert!(matches!(domain.take(&mut buffer), Err(LinkError::UnsolicitedUpdate)));
    let (mut domain, vmm) = pair();
    vmm.send(b"nonsense").unwrap();
    assert!(matches!(domain.take(&mut buffer), Err(LinkError::Malformed(_))));
    drop(vmm);
    assert!(matches!(domain.take(&mut buffer), Err(LinkError::Closed)));
}

#[test]
fn keys_lost_on_a_vmm_that_did_not_read_are_let_go_when_it_reads_though_nobody_types_any_more() {
    let (mut domain, vmm) = pair();
    let key = |value| vec![Event { kind: 1, code: 30, value }, Event::SYN];
    assert!(!domain.must_catch_up());
    for _ in 0..1000 {
        domain.input(Target::Keyboard, key(1));
    }
    // The switch away from it, of which it hears nothing.
    domain.input(Target::Keyboard, key(0));
    domain.catch_up();
    assert!(domain.must_catch_up(), "it has not read anything");
    let mut last = None;
    while let Some(message) = received(&vmm) {
        last = Some(message);
        domain.catch_up();
    }
    assert_eq!(last, Some(ToVmm::ReleaseAll));
    assert!(!domain.must_catch_up());
}

#[test]
fn a_vmm_that_did_not_read_is_given_the_new_screen_when_it_reads() {
    let (mut domain, vmm) = pair();
    while domain.send(&ToVmm::UpdateAck) {}
    let other = Size { width: 32, height: 16 };
    domain.resize(other).unwrap();
    assert!(domain.must_catch_up());
    let mut buffer = [0; PACKET_MAX];
    let mut displays = Vec::new();
    while let Packet::Message(packet, file) = vmm.receive_file(&mut buffer).unwrap() {
        if let Ok(ToVmm::Display(size)) = ToVmm::decode(packet) {
            displays.push((size, file.is_some()));
        }
        domain.catch_up();
    }
    assert_eq!(displays, [(SIZE, true), (other, true)]);
    assert!(!domain.must_catch_up());
}

#[test]
fn a_vmm_that_takes_nothing_makes_nobody_wait_and_lets_everything_go_afterwards() {
    let (mut domain, vmm) = pair();
    let key = |value| vec![Event { kind: 1, code: 30, value }, Event::SYN];
    for _ in 0..10_000 {
        domain.input(Target::Keyboard, key(1));
    }
    assert!(domain.delivery.has_lost_input());
    while received(&vmm).is_some() {}
    domain.input(Target::Keyboard, key(0));
    assert_eq!(received(&vmm), Some(ToVmm::ReleaseAll));
    assert_eq!(received(&vmm), Some(ToVmm::Input(Target::Keyboard, key(0))));
}
