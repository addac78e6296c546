use event_manager::{EventManager, SubscriberOps};
use seat_link::{Cursor, Event, ToAgent, Update};
use tempfile::TempDir;

use super::*;

struct Bench {
    agent: Channel,
    seat: Seat,
    place: TempDir,
}

impl Bench {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let mut seat = Seat::listen(&place.path().join("seat")).unwrap();
        let agent = connect(&place);
        let channel = seat.server.accept().unwrap();
        seat.server.begin(channel);
        Self { agent, seat, place }
    }

    /// Has the agent die, and another come.
    fn next_agent(&mut self) {
        self.agent = connect(&self.place);
        assert!(!self.seat.server.take(), "the first is gone");
        self.seat.server.end();
        let channel = self.seat.server.accept().unwrap();
        self.seat.server.begin(channel);
    }

    fn update(&self) -> Option<Update> {
        let mut buffer = [0; PACKET_MAX];
        match self.agent.receive(&mut buffer).unwrap() {
            Packet::Message(packet, _) => {
                let ToAgent::Update(update) = ToAgent::decode(packet).unwrap();
                Some(update)
            }
            _ => None,
        }
    }

    fn say(&mut self, message: &ToVmm) -> bool {
        self.agent.send(&message.encode()).unwrap();
        self.seat.server.take()
    }
}

fn connect(place: &TempDir) -> Channel {
    Channel::new(seat_link::connect(&place.path().join("seat")).unwrap()).unwrap()
}

#[test]
fn one_update_is_on_its_way_and_the_next_holds_all_that_came_meanwhile() {
    let mut bench = Bench::new();
    let outbox = Arc::clone(&bench.seat.server.outbox);
    let mut screen = Screen(Arc::clone(&outbox));
    screen.picture(Some(Size { width: 8, height: 8 }));
    for x in 0..1000 {
        screen.damage(Rect { x: x % 5, y: 1, width: 1, height: 1 });
    }
    outbox.change(|news| news.leds = 2);
    let first = bench.update().unwrap();
    assert_eq!((first.picture, first.leds), (Some(Size { width: 8, height: 8 }), 0));
    assert_eq!(bench.update(), None);
    assert!(bench.say(&ToVmm::UpdateAck));
    let second = bench.update().unwrap();
    assert_eq!((second.damage, second.leds), (Rect { x: 0, y: 1, width: 5, height: 1 }, 2));
    assert!(bench.say(&ToVmm::UpdateAck));
    assert_eq!(bench.update(), None);
}

#[test]
fn what_an_agent_that_did_not_read_was_not_told_it_is_told_when_it_goes_on() {
    let mut bench = Bench::new();
    let junk = vec![0; 1000];
    let channel = bench.seat.server.channel.clone().unwrap();
    while channel.send(&junk).unwrap() {}
    bench.seat.server.outbox.change(|news| news.leds = 2);
    let mut buffer = [0; PACKET_MAX];
    while matches!(bench.agent.receive(&mut buffer).unwrap(), Packet::Message(..)) {}
    assert!(bench.say(&ToVmm::Input(Target::Keyboard, vec![Event::SYN])));
    assert_eq!(bench.update().map(|update| update.leds), Some(2));
}

#[test]
fn messages_that_make_no_sense_are_passed_over_and_an_agent_that_is_gone_is_noticed() {
    let mut bench = Bench::new();
    assert!(bench.say(&ToVmm::Display(Size { width: 8, height: 8 })));
    bench.agent.send(&[0xff; 100]).unwrap();
    assert!(bench.say(&ToVmm::Input(Target::Keyboard, vec![Event::SYN; Event::MAX])));
    assert!(bench.say(&ToVmm::ReleaseAll));
    drop(bench.agent);
    assert!(!bench.seat.server.take());
}

#[test]
fn the_next_agent_is_told_lights_cursor_and_picture_although_they_are_not_new_to_the_guest() {
    let mut bench = Bench::new();
    let cursor = Cursor { hot_x: 1, hot_y: 2, pixels: vec![7; seat_link::CURSOR_BYTES] };
    let shown = CursorChange::Shown(Box::new(cursor));
    let outbox = Arc::clone(&bench.seat.server.outbox);
    outbox.change(|news| (news.leds, news.cursor) = (2, shown.clone()));
    let mut screen = Screen(Arc::clone(&outbox));
    screen.picture(Some(Size { width: 8, height: 8 }));
    assert_eq!(bench.update().map(|update| update.leds), Some(2));
    // The first dies with an update that it did not take, and things go on without one.
    screen.damage(Rect { x: 1, y: 1, width: 2, height: 2 });
    bench.next_agent();
    let first = bench.update().unwrap();
    assert_eq!((first.leds, &first.cursor, first.picture), (2, &shown, None));
    // Its frame memory brings the picture, as the GPU says it again.
    assert!(bench.say(&ToVmm::UpdateAck));
    screen.picture(Some(Size { width: 8, height: 8 }));
    screen.damage(Rect { x: 0, y: 0, width: 8, height: 8 });
    assert_eq!(bench.update().unwrap().picture, Some(Size { width: 8, height: 8 }));
}

#[test]
fn one_agent_at_a_time_has_the_seat_and_the_next_waits_for_its_end() {
    let place = tempfile::tempdir().unwrap();
    let server = Seat::listen(&place.path().join("seat")).unwrap().server;
    let outbox = Arc::clone(&server.outbox);
    let mut manager = EventManager::<SeatLinkServer>::new().unwrap();
    manager.add_subscriber(server);
    let mut turns = || {
        for _ in 0..10 {
            manager.run_with_timeout(1).unwrap();
        }
    };
    let lights = |agent: &Channel| match agent.receive(&mut [0; PACKET_MAX]).unwrap() {
        Packet::Message(packet, _) => {
            let ToAgent::Update(update) = ToAgent::decode(packet).unwrap();
            Some(update.leds)
        }
        _ => None,
    };
    let first = connect(&place);
    let second = connect(&place);
    turns();
    outbox.change(|news| news.leds = 2);
    assert_eq!((lights(&first), lights(&second)), (Some(2), None));
    drop(first);
    turns();
    assert_eq!(lights(&second), Some(2), "it is served as soon as the first is gone");
}

#[test]
fn whoever_is_not_the_user_that_started_the_vmm_does_not_get_the_seat() {
    let place = tempfile::tempdir().unwrap();
    let mut server = Seat::listen(&place.path().join("seat")).unwrap().server;
    server.owner = Uid::from_raw(geteuid().as_raw() + 1);
    let stranger = connect(&place);
    assert!(server.accept().is_none());
    assert!(matches!(stranger.receive(&mut [0; PACKET_MAX]).unwrap(), Packet::Closed));
}
