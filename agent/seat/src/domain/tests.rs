use super::*;
use crate::frame::tests::{readable, withheld};

const SIZE: Size = Size { width: 64, height: 32 };

fn pair() -> (SeatDomain, Channel) {
    let (ours, theirs) = seat_link::pair().unwrap();
    let mut domain = SeatDomain::default();
    domain.attach(ours, SIZE).unwrap();
    (domain, Channel::new(theirs).unwrap())
}

impl SeatDomain {
    /// Has its pixels withheld until each read is let go on.
    pub(crate) fn withhold(&mut self, size: Size) -> std::sync::mpsc::Sender<()> {
        let (frame, go_on) = withheld(size);
        self.frame = Some(frame);
        go_on
    }
}

/// Takes the next thing that this domain has to say.
fn taken(domain: &mut SeatDomain) -> Result<DomainUpdate, LinkError> {
    assert!(readable(domain.fd().expect("something to wait for"), 10_000));
    domain.take(&mut [0; PACKET_MAX])
}

/// An update that says this part of a picture as large as the screen is new.
fn damaged(damage: Rect) -> Vec<u8> {
    ToAgent::Update(Update { picture: Some(SIZE), damage, ..Update::default() }).encode()
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
    assert_eq!(taken(&mut domain).unwrap(), DomainUpdate::default());
    assert!(taken(&mut domain).unwrap().picture, "as soon as it is read");
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
fn an_update_counts_and_is_answered_when_its_pixels_were_read_and_nobody_waits_for_that() {
    let (mut domain, vmm) = pair();
    let go_on = domain.withhold(SIZE);
    let shown = domain.picture().is_some();
    vmm.send(&damaged(Rect { x: 2, y: 3, width: 4, height: 1 })).unwrap();
    assert_eq!(taken(&mut domain).unwrap(), DomainUpdate::default());
    assert!(matches!(received(&vmm), Some(ToVmm::Display(_))));
    for _ in 0..3 {
        assert!(!readable(domain.fd().unwrap(), 20));
        assert_eq!(domain.take(&mut [0; PACKET_MAX]).unwrap(), DomainUpdate::default());
        assert!(!domain.is_ack_pending() && domain.picture().is_some() == shown);
        domain.acknowledge();
        assert_eq!(received(&vmm), None, "it is owed an answer");
        // What is typed goes on to it meanwhile.
        domain.input(Target::Keyboard, vec![Event::SYN]);
        assert_eq!(received(&vmm), Some(ToVmm::Input(Target::Keyboard, vec![Event::SYN])));
    }
    go_on.send(()).unwrap();
    let change = taken(&mut domain).unwrap();
    assert!(change.picture && domain.picture().is_some() && domain.is_ack_pending());
    assert!(domain.fd().is_none(), "it says nothing before it is answered");
    domain.acknowledge();
    assert_eq!(received(&vmm), Some(ToVmm::UpdateAck));
    // Of a picture that was there before, what is new.
    vmm.send(&damaged(Rect { x: 0, y: 0, width: 1, height: 2 })).unwrap();
    assert_eq!(taken(&mut domain).unwrap(), DomainUpdate::default());
    go_on.send(()).unwrap();
    assert!(!readable(domain.fd().unwrap(), 20), "one row of two");
    go_on.send(()).unwrap();
    assert!(!taken(&mut domain).unwrap().picture);
}

#[test]
fn an_update_without_a_pixel_counts_at_once_and_one_whose_pixels_cannot_be_read_costs_the_link() {
    let (mut domain, vmm) = pair();
    let go_on = domain.withhold(SIZE);
    let lights = Update { leds: 2, damage: Rect::all(SIZE), ..Update::default() };
    vmm.send(&ToAgent::Update(lights).encode()).unwrap();
    assert!(taken(&mut domain).unwrap().lights);
    domain.acknowledge();
    vmm.send(&damaged(Rect::all(SIZE))).unwrap();
    assert_eq!(taken(&mut domain).unwrap(), DomainUpdate::default());
    drop(go_on);
    assert!(matches!(taken(&mut domain), Err(LinkError::Frame(_))));
}

#[test]
fn a_vmm_whose_pixels_are_withheld_when_the_monitor_changes_or_it_ends_keeps_nobody() {
    let (mut domain, vmm) = pair();
    let _go_on = domain.withhold(SIZE);
    vmm.send(&damaged(Rect::all(SIZE))).unwrap();
    assert_eq!(taken(&mut domain).unwrap(), DomainUpdate::default());
    let other = Size { width: 32, height: 16 };
    domain.resize(other).unwrap();
    assert!(taken(&mut domain).unwrap().picture, "read in the new memory, in which it is black");
    assert_eq!(
        domain.picture().map(|(frame, picture)| (frame.size(), picture)),
        Some((other, SIZE))
    );
    domain.acknowledge();
    let _go_on = domain.withhold(SIZE);
    vmm.send(&damaged(Rect::all(SIZE))).unwrap();
    assert_eq!(taken(&mut domain).unwrap(), DomainUpdate::default());
    domain.detach();
    assert!(domain.fd().is_none() && domain.picture().is_none());
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
