use std::path::Path;

use ::audit::events::{ClipboardPaste, Verdict};
use ::audit::{Entry, Limits};
use base::mailbox::Ends;
use clipboard::mediator::{Mediator as Decides, Outcome, Output, Time};
use clipboard::vdagent::spec::{capability, content, kind};
use config::machine::{Context, Machine};
use control::protocol::ClipboardState;
use policy::decide::Decision;
use recorder::Recorder;

use super::*;

const FROM: usize = 0;
const TO: usize = 1;

fn policy() -> Arc<Policy> {
    let domains = include_str!("../../../../../policy/tests/fixtures/two-domains.toml");
    let rule = "\n[[clipboard]]\nid = \"out\"\nfrom = \"clinical\"\nto = \"internet\"\n\
                types = [\"text/plain\"]\naction = \"allow\"\n";
    Arc::new(Policy::parse("test", &format!("{domains}{rule}")).unwrap())
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn message(kind: u32, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(body.len()).unwrap();
    [words(&[1, size + 20, 1, kind, 0, 0, size]), body.to_vec()].concat()
}

/// What the clipboard wants once something was copied and pasted.
fn wanted() -> Request<Paste> {
    let names = ["clinical".to_owned(), "internet".to_owned()];
    let mut mediator = Decides::new(&names, policy());
    let now = Time::from_secs(1);
    let able = 1 << capability::CLIPBOARD_BY_DEMAND | 1 << capability::CLIPBOARD_SELECTION;
    for guest in [FROM, TO] {
        mediator.connected(guest);
        let announces = message(kind::ANNOUNCE_CAPABILITIES, &words(&[0, able]));
        mediator.received(guest, &announces, now);
    }
    let text = words(&[0, content::UTF8_TEXT]);
    mediator.received(FROM, &message(kind::CLIPBOARD_GRAB, &text), now);
    mediator.hotkey(Hotkey::Copy, FROM, None, now);
    let gives = [&text[..], b"x"].concat();
    mediator.received(FROM, &message(kind::CLIPBOARD, &gives), now);
    mediator.hotkey(Hotkey::Paste, TO, None, now);
    let wanted = mediator.outputs().into_iter().find_map(|output| match output {
        Output::Authorize(request) => Some(request),
        _ => None,
    });
    wanted.unwrap()
}

/// A client whose thread does as it is told.
fn client(does: impl FnOnce(Ends<Command, ClipboardEvent>) + Send + 'static) -> ClipboardClient {
    let (mut clipboard, ends) = base::mailbox::Mediator::new("clipboard").unwrap();
    clipboard.run(move || does(ends)).unwrap();
    ClipboardClient {
        clipboard,
        names: vec!["clinical".to_owned(), "internet".to_owned()],
        agents: vec![true; 2],
        operations: Operations::default(),
        screen: None,
        preparing: false,
        dead: false,
    }
}

fn monitor(state: &Path) -> Monitor {
    let recorder = Recorder::open(state, Limits::default());
    let mut monitor = Monitor::new(recorder, policy().serial(), &[CLIPBOARD]);
    monitor.started(CLIPBOARD);
    monitor
}

fn seat(dir: &Path) -> SeatClient {
    let text = "format = 1\nallow_host_network = true\n[domain.clinical]\nkernel = \"vmlinuz\"\n";
    let machine = Machine::parse("test", text, Context { images: dir, domain_policies: None })
        .unwrap_or_else(|_| panic!());
    let [images, state, runtime] = ["images", "state", "run"].map(|name| dir.join(name));
    let layout = Layout { images, state, runtime };
    SeatClient::start(&machine, &layout, &policy(), Box::new(|_| {})).unwrap()
}

fn entries(state: &Path) -> Vec<Entry> {
    let mut entries = Vec::new();
    ::audit::each(&recorder::directory(state), |_, entry| {
        entries.push(entry);
        Ok(())
    })
    .unwrap();
    entries.retain(|entry| entry.kind != "log-opened" && entry.kind != "checkpoint");
    entries
}

/// Of each entry its kind, and to which domain it is about.
fn told(state: &Path) -> Vec<(String, Option<String>)> {
    entries(state).into_iter().map(|entry| (entry.kind, entry.domain)).collect()
}

fn of(kind: &str, domain: Option<&str>) -> (String, Option<String>) {
    (kind.to_owned(), domain.map(str::to_owned))
}

#[test]
fn what_a_clipboard_wanted_that_died_is_permitted_to_nobody_and_two_entries_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut monitor = monitor(dir.path());
    let mut client = client(|ends| ends.send(ClipboardEvent::Authorize(wanted())));
    client.clipboard.join();
    client.process_events(&seat(dir.path()), &mut monitor);
    let paste = of("clipboard", Some("internet"));
    let not_delivered = of("clipboard-not-delivered", Some("internet"));
    assert_eq!(told(dir.path()), [paste, not_delivered, of("failed", None)]);
}

#[test]
fn when_the_agent_ends_the_clipboard_ends_and_all_that_it_said_is_on_the_record() {
    let dir = tempfile::tempdir().unwrap();
    let mut monitor = monitor(dir.path());
    let mut client = client(|ends| {
        while !ends.is_stopped() {
            let _ = ends.next();
        }
        let taken = ::audit::events::ClipboardTaken { domain: "internet".to_owned() };
        ends.send(ClipboardEvent::Note(taken.into()));
        ends.send(ClipboardEvent::Authorize(wanted()));
    });
    client.stop(Stop::GiveBack, &mut monitor);
    assert!(client.clipboard.is_dead(), "nothing can be taken after this");
    let taken = of("clipboard-taken", Some("internet"));
    let paste = of("clipboard", Some("internet"));
    assert_eq!(told(dir.path()), [taken, paste, of("clipboard-not-delivered", Some("internet"))]);
}

#[test]
fn what_one_user_played_another_learns_nothing_of_and_does_not_answer() {
    let dir = tempfile::tempdir().unwrap();
    let (mut monitor, seat) = (monitor(dir.path()), seat(dir.path()));
    let mut client = client(|ends| {
        ends.send(ClipboardEvent::Ask(Some(1), 1, "Paste 1 character?\nx".to_owned()));
        while !ends.is_stopped() {
            let _ = ends.next();
        }
    });
    let (owner, other) = (1000, 1001);
    let played = client.ask(owner, Hotkey::Paste, "internet", &seat);
    assert_eq!(played.clipboard.unwrap().ticket, 1);
    while client.outcome(owner, 1).clipboard.unwrap().state != ClipboardState::Question {
        client.process_events(&seat, &mut monitor);
        std::thread::yield_now();
    }
    let refused = [client.outcome(other, 1), client.answer(other, 1, true, &mut monitor)];
    for refused in refused {
        assert!(refused.clipboard.is_none() && refused.error.unwrap().contains("not yours"));
    }
    assert_eq!(client.outcome(owner, 1).clipboard.unwrap().state, ClipboardState::Question);
    let answered = client.answer(owner, 1, true, &mut monitor);
    assert_eq!(answered.clipboard.unwrap().state, ClipboardState::Pending);
    let wanted = wanted();
    let event = ClipboardPaste { verdict: Verdict::Ask, ..wanted.event.clone() };
    let owed = monitor::testing::owed(Decision::Ask);
    let wanted = Request { number: 1, owed, event, ..wanted };
    let _ = monitor.authorize(CLIPBOARD, wanted).unwrap();
}

#[test]
fn what_has_ended_stays_so_whoever_answers_a_question_that_was_not_asked() {
    let dir = tempfile::tempdir().unwrap();
    let mut monitor = monitor(dir.path());
    let mut client = client(|_| {});
    client.operations.begin(1000);
    let words = "Ready".to_owned();
    client.operations.completed(1, Outcome { done: false, verdict: None, rule: None, words });
    let answered = client.answer(1000, 1, true, &mut monitor);
    assert_eq!(answered.error.as_deref(), Some("nothing is asked any more"));
    assert_eq!(client.outcome(1000, 1).clipboard.unwrap().state, ClipboardState::Ended);
}
