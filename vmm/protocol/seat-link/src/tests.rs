use std::io::Read;
use std::os::fd::AsFd;

use proptest::prelude::*;

use super::*;

fn channels() -> (Channel, Channel) {
    let (a, b) = pair().unwrap();
    (Channel::new(a).unwrap(), Channel::new(b).unwrap())
}

fn event() -> impl Strategy<Value = Event> {
    (any::<u16>(), any::<u16>(), any::<i32>()).prop_map(|(kind, code, value)| Event {
        kind,
        code,
        value,
    })
}

fn to_vmm() -> impl Strategy<Value = ToVmm> {
    let target = prop_oneof![Just(Target::Keyboard), Just(Target::Pointer)];
    prop_oneof![
        (1..=Size::MAX, 1..=Size::MAX)
            .prop_map(|(width, height)| Size { width, height })
            .prop_filter("more pixels than any screen", |size| size.is_screen())
            .prop_map(ToVmm::Display),
        (target, prop::collection::vec(event(), 0..=Event::MAX))
            .prop_map(|(target, events)| ToVmm::Input(target, events)),
        Just(ToVmm::ReleaseAll),
        Just(ToVmm::UpdateAck),
    ]
}

fn update() -> impl Strategy<Value = Update> {
    let cursor = prop_oneof![
        Just(CursorChange::Same),
        Just(CursorChange::Hidden),
        (0..CURSOR_SIDE, 0..CURSOR_SIDE, any::<u8>()).prop_map(|(hot_x, hot_y, byte)| {
            let pixels = vec![byte; CURSOR_BYTES];
            CursorChange::Shown(Box::new(Cursor { hot_x, hot_y, pixels }))
        }),
    ];
    let picture = prop::option::of(
        (1..u32::MAX, 1..u32::MAX).prop_map(|(width, height)| Size { width, height }),
    );
    (picture, any::<[u32; 4]>(), any::<u8>(), any::<bool>(), cursor).prop_map(
        |(picture, [x, y, width, height], leds, stalled, cursor)| Update {
            picture,
            damage: Rect { x, y, width, height },
            leds,
            stalled,
            cursor,
        },
    )
}

proptest! {
    #[test]
    fn what_is_encoded_reads_back(message in to_vmm(), update in update()) {
        let packet = message.encode();
        prop_assert!(packet.len() <= PACKET_MAX);
        prop_assert_eq!(ToVmm::decode(&packet), Ok(message));
        let message = ToAgent::Update(update);
        let packet = message.encode();
        prop_assert!(packet.len() <= PACKET_MAX);
        prop_assert_eq!(ToAgent::decode(&packet), Ok(message));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(fuzz(&bytes));
    }

    #[test]
    fn a_message_cut_short_or_longer_is_refused(message in to_vmm(), extra in 1usize..7) {
        let mut packet = message.encode();
        packet.extend(std::iter::repeat_n(0, extra));
        // Seven bytes are less than an event, so that none can be taken for one more.
        prop_assert!(ToVmm::decode(&packet).is_err());
    }

    #[test]
    fn what_two_rectangles_share_lies_in_both(a in any::<[u16; 4]>(), b in any::<[u16; 4]>()) {
        let rect = |[x, y, w, h]: [u16; 4]| Rect {
            x: x.into(), y: y.into(), width: w.into(), height: h.into()
        };
        let (a, b) = (rect(a), rect(b));
        let shared = a.shared(b);
        if !shared.is_empty() {
            for whole in [a, b] {
                prop_assert!(shared.x >= whole.x && shared.right() <= whole.right());
                prop_assert!(shared.y >= whole.y && shared.bottom() <= whole.bottom());
            }
        }
        let around = a.around(b);
        for part in [a, b].into_iter().filter(|part| !part.is_empty()) {
            prop_assert_eq!(around.shared(part), part);
        }
    }
}

#[test]
fn a_display_of_no_or_endless_size_is_refused() {
    for (width, height) in [(0, 1), (1, 0), (8193, 1), (8192, 4321), (8192, 8192), (1, u32::MAX)] {
        let packet = ToVmm::Display(Size { width, height }).encode();
        assert_eq!(ToVmm::decode(&packet), Err(Malformed::Field("size")));
    }
}

#[test]
fn packets_keep_their_bounds_and_the_end_is_seen() {
    let (a, b) = channels();
    let mut buffer = [0; PACKET_MAX];
    assert!(matches!(b.receive(&mut buffer).unwrap(), Packet::Nothing));
    assert!(a.send(b"one").unwrap() && a.send(b"three").unwrap());
    assert!(matches!(b.receive(&mut buffer).unwrap(), Packet::Message(b"one", None)));
    assert!(matches!(b.receive(&mut buffer).unwrap(), Packet::Message(b"three", None)));
    drop(a);
    assert!(matches!(b.receive(&mut buffer).unwrap(), Packet::Closed));
    assert!(b.send(b"late").is_err());
}

#[test]
fn a_peer_that_does_not_read_makes_no_one_wait() {
    let (a, _b) = channels();
    let full = (0..100_000).find(|_| !a.send(&[0; 1000]).unwrap());
    assert!(full.is_some());
}

#[test]
fn a_file_goes_with_a_packet_to_who_asks_for_it_only() {
    let (a, b) = channels();
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, b"pixels").unwrap();
    let mut buffer = [0; PACKET_MAX];
    for _ in 0..2 {
        std::io::Seek::rewind(&mut file).unwrap();
        assert!(a.send_file(b"take this", file.as_fd()).unwrap());
    }
    let Packet::Message(b"take this", Some(mut taken)) = b.receive_file(&mut buffer).unwrap()
    else {
        panic!("no file came");
    };
    let mut text = String::new();
    taken.read_to_string(&mut text).unwrap();
    assert_eq!(text, "pixels");
    assert!(matches!(b.receive(&mut buffer).unwrap(), Packet::Message(b"take this", None)));
}
