use std::convert::Infallible;

use proptest::prelude::*;
use worker_link::clipboard::Nonsense;

use super::*;
use crate::spec::{PORT_CLIENT, PROTOCOL, content, kind};

const NOW: Time = Time::ZERO;
const MOST: u32 = 1 << 20;
const CAPABLE: u32 = 1 << capability::CLIPBOARD_BY_DEMAND | 1 << capability::CLIPBOARD_SELECTION;

#[derive(Debug, Default, PartialEq, Eq)]
struct Heard {
    events: Vec<Event>,
    content: Vec<u8>,
}

impl Sink for Heard {
    type Error = Infallible;

    fn event(&mut self, event: Event) -> Result<(), Infallible> {
        self.events.push(event);
        Ok(())
    }

    fn content(&mut self, at: u32, bytes: &[u8]) -> Result<(), Infallible> {
        self.content.truncate(at as usize);
        assert_eq!(self.content.len(), at as usize, "no part is left out");
        self.content.extend(bytes);
        Ok(())
    }
}

#[derive(Default)]
struct Guest {
    reader: GuestReader,
    heard: Heard,
}

impl Guest {
    fn capable() -> Self {
        let mut guest = Self::default();
        guest.says(&announce(true));
        guest.hears();
        guest
    }

    fn says(&mut self, bytes: &[u8]) {
        self.reader.received(bytes, NOW, &mut self.heard).unwrap();
    }

    fn told(&mut self, command: Command) {
        self.heard.events.extend(self.reader.command(command));
    }

    fn expect(&mut self, number: u32) {
        self.told(Command::Expect { number, most: MOST });
    }

    fn hears(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.heard.events)
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn message(kind: u32, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(body.len()).unwrap();
    [words(&[PORT_CLIENT, size + 20, PROTOCOL, kind, 0, 0, size]), body.to_vec()].concat()
}

fn announce(request: bool) -> Vec<u8> {
    message(kind::ANNOUNCE_CAPABILITIES, &words(&[u32::from(request), CAPABLE]))
}

fn give(text: &[u8]) -> Vec<u8> {
    message(kind::CLIPBOARD, &[&words(&[0, content::UTF8_TEXT]), text].concat())
}

fn ready(number: u32) -> Event {
    Event::Ready { number }
}

fn content(number: u32, length: usize) -> Event {
    let length = u32::try_from(length).unwrap();
    Event::Content { number, kind: content::UTF8_TEXT, length }
}

#[test]
fn the_answer_to_a_request_is_content_and_what_nobody_asked_for_is_nothing() {
    let mut guest = Guest::capable();
    guest.says(&give(b"unasked"));
    assert_eq!(guest.hears(), []);
    guest.expect(1);
    guest.says(&give(b"an answer"));
    guest.says(&give(b"another"));
    assert_eq!(guest.hears(), [ready(1), content(1, 9)]);
    assert_eq!(guest.heard.content, b"an answer");
}

#[test]
fn content_is_passed_on_as_it_comes_and_none_is_kept() {
    let mut guest = Guest::capable();
    guest.expect(1);
    let text = vec![b'x'; 200_000];
    for part in give(&text).chunks(1000) {
        guest.says(part);
        assert!(guest.reader.kept() < 5000);
    }
    let progress = Event::Progress { number: 1 };
    let heard = [ready(1), progress.clone(), progress.clone(), progress, content(1, text.len())];
    assert_eq!(guest.hears(), heard);
    assert!(guest.heard.content == text);
}

#[test]
fn a_request_waits_for_the_late_answer_to_the_one_before() {
    let mut guest = Guest::capable();
    guest.expect(1);
    guest.told(Command::GiveUp { number: 1 });
    guest.expect(2);
    assert_eq!(guest.hears(), [ready(1)], "the second waits");
    guest.told(Command::GiveUp { number: 1 });
    assert!(guest.hears().is_empty());
    guest.says(&give(b"late"));
    assert_eq!(guest.hears(), [ready(2)]);
    guest.says(&give(b"in time"));
    assert_eq!(guest.hears(), [content(2, 7)]);
    assert_eq!(guest.heard.content, b"in time");
}

#[test]
fn of_several_requests_that_wait_the_last_is_made_and_also_if_nobody_wants_its_answer_any_more() {
    let mut guest = Guest::capable();
    guest.expect(1);
    for number in 2..5 {
        guest.told(Command::GiveUp { number: number - 1 });
        guest.expect(number);
    }
    guest.told(Command::GiveUp { number: 4 });
    guest.says(&give(b"late"));
    assert_eq!(guest.hears(), [ready(1), ready(4)]);
    guest.says(&give(b"unwanted"));
    guest.expect(5);
    assert_eq!(guest.hears(), [ready(5)], "the answer to the fourth has come");
}

#[test]
fn a_request_given_up_in_the_middle_of_its_answer_leaves_nothing_to_wait_for() {
    let mut guest = Guest::capable();
    guest.expect(1);
    let answer = give(b"half of it, and the other half");
    let (one, other) = answer.split_at(answer.len() - 10);
    guest.says(one);
    guest.told(Command::GiveUp { number: 1 });
    guest.expect(2);
    assert_eq!(guest.hears(), [ready(1), ready(2)]);
    guest.says(other);
    guest.says(&give(b"whole"));
    assert_eq!(guest.hears(), [content(2, 5)]);
    assert_eq!(guest.heard.content, b"whole");
}

#[test]
fn a_guests_agent_that_begins_anew_owes_nothing_and_one_that_says_more_of_itself_does() {
    let mut guest = Guest::capable();
    guest.expect(1);
    guest.told(Command::GiveUp { number: 1 });
    guest.expect(2);
    guest.says(&announce(true));
    guest.says(&give(b"of the one before"));
    let begins = |request| Event::Announce { request, capabilities: CAPABLE };
    assert_eq!(guest.hears(), [ready(1), begins(true)]);
    guest.expect(3);
    guest.says(&announce(false));
    guest.says(&give(b"its own"));
    assert_eq!(guest.hears(), [ready(3), begins(false), content(3, 7)]);
}

#[test]
fn a_request_that_was_not_made_after_all_is_not_waited_for() {
    let mut guest = Guest::capable();
    guest.expect(1);
    guest.told(Command::GiveUp { number: 1 });
    guest.expect(2);
    guest.told(Command::Forget { number: 1 });
    assert_eq!(guest.hears(), [ready(1), ready(2)]);
    guest.told(Command::Forget { number: 1 });
    guest.told(Command::GiveUp { number: 1 });
    guest.says(&give(b"of the second"));
    assert_eq!(
        guest.hears(),
        [content(2, 13)],
        "what is said of an earlier one counts for nothing"
    );
}

#[test]
fn more_than_is_accepted_is_said_and_dropped() {
    let mut guest = Guest::capable();
    guest.told(Command::Expect { number: 1, most: 4 });
    guest.says(&give(b"12345"));
    guest.expect(2);
    guest.says(&give(b"12345"));
    assert_eq!(
        guest.hears(),
        [ready(1), Event::TooLarge { number: 1, bytes: 5 }, ready(2), content(2, 5)]
    );
}

#[test]
fn nothing_is_read_of_a_stream_that_made_no_sense() {
    let mut guest = Guest::capable();
    guest.says(&words(&[3, 20]));
    assert!(guest.reader.is_over());
    guest.says(&announce(true));
    assert_eq!(guest.hears(), [Event::Nonsense(Nonsense::Port(3))]);
}

#[test]
fn a_guest_is_read_no_faster_than_its_allowance_but_for_what_it_was_asked_for() {
    let mut guest = Guest::capable();
    let flood = announce(false).repeat(20_000);
    guest.says(&flood);
    assert!(guest.reader.wait(NOW) > Time::ZERO);
    guest.expect(1);
    assert_eq!(guest.reader.wait(NOW), Time::ZERO);
    guest.says(&give(&vec![b'x'; 500_000]));
    assert!(guest.reader.wait(NOW) > Time::ZERO, "it has answered");
    let mut taken = 0usize;
    for tenth in 1..100 {
        let now = Time::from_millis(tenth * 100);
        if guest.reader.wait(now).is_zero() {
            guest.reader.received(&flood[..8192], now, &mut guest.heard).unwrap();
            taken += 8192;
        }
    }
    assert!(taken < 4 << 20, "{taken} bytes in ten seconds");
}

#[test]
fn that_a_guest_is_read_whose_agent_does_not_announce_itself_is_told_once_a_second() {
    let mut guest = Guest::default();
    let mut told = Vec::new();
    for tenth in 0..100u64 {
        let now = Time::from_millis(tenth * 100);
        // It holds back for four seconds.
        if !(30..70).contains(&tenth) {
            guest.reader.received(&give(b"nobody asked"), now, &mut guest.heard).unwrap();
        }
        let heard = guest.hears();
        if !heard.is_empty() {
            assert_eq!(heard, [Event::Unannounced]);
            told.push(tenth);
        }
    }
    assert_eq!(told, [10, 20, 70, 80, 90]);
    let mut guest = Guest::capable();
    for second in 0..100 {
        guest.reader.received(&give(b"a"), Time::from_secs(second), &mut guest.heard).unwrap();
    }
    assert_eq!(guest.hears(), [], "it has announced itself");
}

proptest! {
    #[test]
    fn that_a_guest_is_read_is_told_no_oftener_and_no_later_than_each_second_until_it_announces_itself(
        pauses in prop::collection::vec(0u64..1000, 1..60),
        announces in 0usize..60,
        request in any::<bool>(),
    ) {
        let mut guest = Guest::default();
        let (mut now, mut last) = (Time::ZERO, Time::ZERO);
        for (read, pause) in pauses.into_iter().enumerate() {
            let said = if read == announces { announce(request) } else { give(b"unasked") };
            guest.reader.received(&said, now, &mut guest.heard).unwrap();
            let told = guest.hears().contains(&Event::Unannounced);
            prop_assert_eq!(told, read < announces && now - last >= UNANNOUNCED_EVERY);
            if told {
                last = now;
            }
            now += Time::from_millis(pause);
        }
    }

    #[test]
    fn however_a_stream_is_cut_up_the_same_is_read(
        answers in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..4),
        noise in prop::collection::vec(any::<u8>(), 0..60),
        cuts in prop::collection::vec(1usize..200, 0..20),
    ) {
        let mut stream = announce(true);
        stream.extend(answers.iter().flat_map(|answer| [give(answer), announce(false)].concat()));
        stream.extend(noise);
        let read = |cuts: &[usize]| {
            let mut guest = Guest::default();
            guest.expect(1);
            let mut rest = &stream[..];
            for cut in cuts {
                let (part, after) = rest.split_at((*cut).min(rest.len()));
                guest.says(part);
                rest = after;
            }
            guest.says(rest);
            guest.heard
        };
        prop_assert_eq!(read(&cuts), read(&[]));
    }
}
