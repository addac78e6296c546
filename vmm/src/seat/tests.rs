use link::{Event, ToAgent, Update};

use super::*;

struct Bench {
    agent: Channel,
    seat: Seat,
}

impl Bench {
    fn new() -> Self {
        let (ours, theirs) = link::pair().unwrap();
        let seat = Seat::new(Channel::new(theirs).unwrap()).unwrap();
        Self { agent: Channel::new(ours).unwrap(), seat }
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
        self.seat.end.take()
    }
}

#[test]
fn one_update_is_on_its_way_and_the_next_holds_all_that_came_meanwhile() {
    let mut bench = Bench::new();
    let outbox = Arc::clone(&bench.seat.end.outbox);
    let mut screen = Screen(Arc::clone(&outbox));
    screen.picture(Some(Size { width: 8, height: 8 }));
    for x in 0..1000 {
        screen.damage(Rect { x: x % 5, y: 1, width: 1, height: 1 });
    }
    outbox.change(|news| news.leds = 2);
    let first = bench.update().unwrap();
    assert_eq!((first.picture, first.leds), (Some(Size { width: 8, height: 8 }), 0));
    assert_eq!(bench.update(), None);
    assert!(bench.say(&ToVmm::Taken));
    let second = bench.update().unwrap();
    assert_eq!((second.damage, second.leds), (Rect { x: 0, y: 1, width: 5, height: 1 }, 2));
    assert!(bench.say(&ToVmm::Taken));
    assert_eq!(bench.update(), None);
}

#[test]
fn what_an_agent_that_did_not_read_was_not_told_it_is_told_when_it_goes_on() {
    let mut bench = Bench::new();
    let junk = vec![0; 1000];
    while bench.seat.end.channel.send(&junk).unwrap() {}
    bench.seat.end.outbox.change(|news| news.leds = 2);
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
    assert!(!bench.seat.end.take());
}
