//! The clipboard's client, with a monitor and a log on a disk.

use std::sync::atomic::{AtomicBool, Ordering};

use ::audit::events::{ClipboardPaste, Verdict};
use clipboard::mediator::{ClipboardMediator, Outcome, Output, Time};
use clipboard::vdagent::spec::{capability, content};
use control::protocol::ClipboardState;
use monitor::Stop;
use monitor::mediator_thread::Ends;
use policy::decide::Decision;
use worker_link::clipboard::Event;

use super::super::mediator::Mediator;
use super::super::tests::{NOT_RUNNING, dies, ends, entry, monitor, of, policy_with, seat, told};
use super::*;

const FROM: usize = 0;
const TO: usize = 1;

fn policy() -> Arc<Policy> {
    let rule = "[[clipboard]]\nid = \"out\"\nfrom = \"clinical\"\nto = \"internet\"\n\
                types = [\"text/plain\"]\naction = \"allow\"\n";
    policy_with(rule)
}

/// What the clipboard wants once something was copied and pasted.
fn wanted() -> Request<Paste> {
    let names = ["clinical".to_owned(), "internet".to_owned()];
    let mut mediator = ClipboardMediator::new(&names, policy());
    let now = Time::from_secs(1);
    let capabilities = 1 << capability::CLIPBOARD_BY_DEMAND;
    let hears = |mediator: &mut ClipboardMediator, guest: usize, event: Event| {
        let mut content = |_| Ok(b"x".to_vec().into());
        mediator.heard(guest, event, &mut content, now).unwrap();
    };
    for guest in [FROM, TO] {
        mediator.connected(guest);
        hears(&mut mediator, guest, Event::Announce { request: false, capabilities });
    }
    let (number, kind) = (1, content::UTF8_TEXT);
    hears(&mut mediator, FROM, Event::Grab(vec![kind]));
    mediator.hotkey(Hotkey::Copy, FROM, None, now);
    hears(&mut mediator, FROM, Event::Ready { number });
    hears(&mut mediator, FROM, Event::Content { number, kind, length: 1 });
    mediator.hotkey(Hotkey::Paste, TO, None, now);
    let wanted = mediator.outputs().into_iter().find_map(|output| match output {
        Output::Report(ClipboardEvent::Authorize(request)) => Some(request),
        _ => None,
    });
    wanted.unwrap()
}

/// A client whose thread does as it is told.
fn client(does: impl FnOnce(Ends<Command, ClipboardEvent>) + Send + 'static) -> ClipboardClient {
    ClipboardClient {
        clipboard: monitor::spawn(CLIPBOARD, Ok, does).unwrap(),
        names: vec!["clinical".to_owned(), "internet".to_owned()],
        agents: vec![true; 2],
        operations: Operations::default(),
        screen: None,
        preparing: false,
    }
}

#[test]
fn what_a_clipboard_wanted_that_died_is_permitted_to_nobody_and_log_status_banner_and_answers_say_so()
 {
    for last in [dies, ends] {
        let dir = tempfile::tempdir().unwrap();
        let (mut monitor, seat) = (monitor(dir.path()), seat(dir.path()));
        let mut client = client(move |ends| {
            ends.send(ClipboardEvent::Authorize(wanted()));
            last();
        });
        let waits = client.operations.begin(1000).ticket;
        assert_eq!((client.banner_note(), client.fault(&policy())), (None, None));
        assert!(client.has_agent("internet"));
        client.clipboard.join();
        for _ in 0..2 {
            client.process_events(&seat, &mut monitor);
            let [paste, not_delivered] =
                ["clipboard", "clipboard-not-delivered"].map(|kind| of(kind, Some("internet")));
            assert_eq!(told(dir.path()), [paste, not_delivered, of("failed", None)], "once");
            assert_eq!(entry(dir.path(), 1).detail["why"], NOT_RUNNING);
            assert_eq!(entry(dir.path(), 2).detail["what"], "clipboard");
            let note = "Copy and paste do not work: call IT";
            assert_eq!(client.banner_note().as_deref(), Some(note));
            let fault = "NOTHING IS COPIED OR PASTED between domains: the clipboard has failed; restart the agent";
            assert_eq!(client.fault(&policy()).as_deref(), Some(fault));
            assert_eq!(client.outcome(1000, waits).clipboard.unwrap().words, FAILED);
            let refused = client.ask(1000, Hotkey::Paste, "internet", &seat);
            assert_eq!(refused.error.as_deref(), Some(FAILED));
            assert!(!client.has_agent("internet"));
        }
        assert!(client.is_responsive(), "the watchdog leaves the agent alone: its guests run on");
        client.stop(Stop::GiveBack, &mut monitor);
        assert_eq!(told(dir.path()).len(), 3);
    }
}

#[test]
fn when_the_agent_ends_the_clipboard_ends_and_all_that_it_said_is_on_the_record() {
    let dir = tempfile::tempdir().unwrap();
    let mut monitor = monitor(dir.path());
    let ended = Arc::new(AtomicBool::new(false));
    let end = Arc::clone(&ended);
    let mut client = client(move |ends| {
        while !ends.is_stopped() {
            let _ = ends.next();
        }
        let taken = ::audit::events::ClipboardTaken { domain: "internet".to_owned() };
        ends.send(ClipboardEvent::Note(taken.into()));
        ends.send(ClipboardEvent::Authorize(wanted()));
        end.store(true, Ordering::Release);
    });
    client.stop(Stop::GiveBack, &mut monitor);
    assert!(ended.load(Ordering::Acquire), "nothing can be taken after this");
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
