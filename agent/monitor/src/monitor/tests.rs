mod non_interference;

use std::fs;
use std::path::Path;

use audit::events::{AgentStopped, UsbAttached, UsbJudged, Verdict};
use audit::{Entry, Limits};

use policy::decide::Decision;

use super::*;
use crate::authorize::recorded;
use crate::core::REQUESTS_MAX;

const A: MediatorId = MediatorId::new("a");
const B: MediatorId = MediatorId::new("b");

#[derive(Debug, PartialEq, Eq)]
struct Effect(u8);

impl Grant for Effect {
    type Event = UsbAttached;
    type Owed = Owed;
}

/// An effect whose entry has a verdict.
#[derive(Debug)]
struct Judged;

impl Grant for Judged {
    type Event = UsbJudged;
    type Owed = Owed;
}

/// An effect that no rule decides on.
#[derive(Debug)]
struct Ruleless;

impl Grant for Ruleless {
    type Event = UsbAttached;
    type Owed = NoRule;
}

fn monitor(state: &Path) -> Monitor {
    let mut monitor = Monitor::new(Recorder::open(state, Limits::default()), 1, &[A, B]);
    monitor.started(A);
    monitor.started(B);
    monitor
}

fn attached(number: u64) -> UsbAttached {
    UsbAttached { domain: format!("request {number}"), bus_id: "1-4".to_owned(), request: None }
}

fn request(number: u64, owed: Owed) -> Request<Effect> {
    let basis = Basis { policy: 1, break_glass: false };
    let event = attached(number);
    Request { number, basis, owed, event, grant: Effect(7) }
}

fn entries(state: &Path) -> Vec<Entry> {
    let mut entries = Vec::new();
    audit::each(&recorder::directory(state), |_, entry| {
        entries.push(entry);
        Ok(())
    })
    .unwrap();
    entries
}

fn is_on_the_record(state: &Path, number: u64) -> bool {
    let domain = format!("request {number}");
    entries(state).iter().any(|entry| entry.domain.as_deref() == Some(domain.as_str()))
}

#[test]
fn a_permit_carries_the_entry_that_is_on_the_disk_already() {
    let dir = tempfile::tempdir().unwrap();
    let mut monitor = monitor(dir.path());
    let permit = monitor.authorize(A, request(1, Owed::nothing())).unwrap();
    let all = entries(dir.path());
    let entry = all.iter().find(|entry| entry.seq == permit.entry()).unwrap();
    assert_eq!(entry.kind, "usb-attached");
    assert_eq!((permit.grant(), permit.grant().0), (&Effect(7), 7));
    assert_eq!(permit.into_grant(), Effect(7));
}

// Shows: K-1.3.2, K-3.3.3.
#[test]
fn without_a_log_nothing_is_permitted_and_everything_is_revoked() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(recorder::directory(dir.path()), "in the way").unwrap();
    let mut monitor = monitor(dir.path());
    let refused = monitor.authorize(A, request(1, Owed::nothing())).unwrap_err();
    assert_eq!(refused.denial, Denial::Unrecorded);
    assert!(refused.to_string().contains("audit"), "{refused}");
    let revoked = [Event::Revoke(A, Cause::Record), Event::Revoke(B, Cause::Record)];
    assert_eq!(monitor.wait(), Some(Duration::ZERO));
    assert_eq!(monitor.events(), revoked);
    monitor.note(&[AgentStopped {}.into()]);
    assert_eq!(monitor.events(), [], "once");
}

#[test]
fn a_log_that_fails_between_requests_is_found_by_the_next_entry_whatever_it_is_about() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(recorder::directory(dir.path()), "in the way").unwrap();
    let mut monitor = monitor(dir.path());
    monitor.note(&[AgentStopped {}.into()]);
    assert!(monitor.events().contains(&Event::Revoke(B, Cause::Record)));
}

#[test]
fn what_is_withheld_for_another_reason_revokes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut monitor = monitor(dir.path());
    monitor.withhold(Some("the policy cannot be remembered".to_owned()));
    let refused = monitor.authorize(A, request(1, Owed::nothing())).unwrap_err();
    assert_eq!(refused.to_string(), "it cannot be recorded: the policy cannot be remembered");
    assert_eq!(monitor.events(), []);
    monitor.withhold(None);
    let _ = monitor.authorize(A, request(1, Owed::nothing())).unwrap();
}

#[test]
fn a_verdict_of_other_rules_is_on_the_record_and_permits_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut monitor = monitor(dir.path());
    monitor.enforce(2, None);
    let refused = monitor.authorize(A, request(3, Owed::nothing())).unwrap_err();
    assert_eq!(refused.denial, Denial::Stale);
    assert!(entries(dir.path()).iter().any(|entry| entry.kind == "usb-attached"));
}

#[test]
fn a_yes_under_another_policy_is_on_the_record_and_refused_as_the_rules_changed() {
    let dir = tempfile::tempdir().unwrap();
    let mut monitor = monitor(dir.path());
    let answer = Owed { answer: true, ..Owed::nothing() };
    let id = RequestId { mediator: A, number: 1 };
    let question = monitor.ask(id, Duration::from_secs(60)).unwrap();
    assert_eq!(monitor.answer(question, true), Some(id));
    monitor.enforce(2, None);
    let refused = monitor.authorize(A, request(1, answer)).unwrap_err();
    assert_eq!(refused.denial, Denial::Stale);
    assert!(is_on_the_record(dir.path(), 1));
}

#[test]
fn what_needs_break_glass_is_permitted_until_its_last_moment_whether_or_not_anybody_has_closed_it()
{
    let dir = tempfile::tempdir().unwrap();
    let mut monitor = monitor(dir.path());
    let basis = Basis { policy: 1, break_glass: true };
    let wanted = |number| Request { basis, ..request(number, Owed::nothing()) };
    monitor.enforce(1, Some(Moment::now() + Duration::from_secs(600)));
    let _ = monitor.authorize(A, wanted(1)).unwrap();
    monitor.enforce(1, Some(Moment::now()));
    assert_eq!(monitor.authorize(A, wanted(2)).unwrap_err().denial, Denial::Stale);
    assert_eq!(monitor.events(), []);
    monitor.enforce(1, None);
    assert!(monitor.events().contains(&Event::Revoke(A, Cause::BreakGlass)));
}

#[test]
fn whatever_a_request_is_refused_for_its_entry_is_on_the_record_unless_the_log_failed() {
    let dir = tempfile::tempdir().unwrap();
    let mut monitor = monitor(dir.path());
    let mut refused = |number, owed| monitor.authorize(A, request(number, owed)).unwrap_err();
    let none = Owed::nothing();
    assert_eq!(refused(1, Owed { inspection: true, ..none }).denial, Denial::Uninspected);
    assert_eq!(refused(2, Owed { answer: true, ..none }).denial, Denial::Unanswered);
    assert_eq!(refused(3, Owed { read_only: true, ..none }).denial, Denial::Writable);
    for number in 4..4 + u64::try_from(REQUESTS_MAX).unwrap() {
        monitor.ask(RequestId { mediator: A, number }, Duration::from_secs(60)).unwrap();
    }
    let mut refused = |number| monitor.authorize(A, request(number, none)).unwrap_err();
    assert_eq!(refused(4).denial, Denial::Repeated);
    assert_eq!(refused(100).denial, Denial::TooMany);
    monitor.died(A);
    let refused = monitor.authorize(A, request(101, none)).unwrap_err();
    assert_eq!(refused.denial, Denial::NotRunning);
    for number in [1, 2, 3, 4, 100, 101] {
        assert!(is_on_the_record(dir.path(), number), "{number}");
    }
    monitor.withhold(Some("the policy cannot be remembered".to_owned()));
    let refused = monitor.authorize(B, request(102, none)).unwrap_err();
    assert_eq!(refused.denial, Denial::Unrecorded);
    assert!(!is_on_the_record(dir.path(), 102));
}

/// A request whose entry says this of the verdict.
fn judged(number: u64, verdict: Verdict, owed: Owed) -> Request<Judged> {
    let event = UsbJudged {
        domain: Some(format!("request {number}")),
        verdict,
        rule: None,
        policy: 1,
        break_glass: false,
        bus_id: String::new(),
        device: String::new(),
        name: None,
        request: None,
        seat_keeps_interfaces: None,
        to: None,
    };
    let basis = Basis { policy: 1, break_glass: false };
    Request { number, basis, owed, event, grant: Judged }
}

#[test]
fn a_mediator_that_hides_what_a_verdict_owes_or_that_it_is_no_gets_no_permit() {
    let owing = |decision| {
        let of = Owed { decision: Some(decision), ..Owed::nothing() };
        Owed { answer: decision == Decision::Ask, read_only: decision == Decision::ReadOnly, ..of }
    };
    let decisions = [Decision::Allow, Decision::Ask, Decision::ReadOnly, Decision::Deny];
    let dir = tempfile::tempdir().unwrap();
    let mut monitor = monitor(dir.path());
    let mut number = 0;
    for recorded_as in decisions {
        for owed in decisions.map(owing).into_iter().chain([Owed::nothing()]) {
            number += 1;
            let id = RequestId { mediator: A, number };
            let question = monitor.ask(id, Duration::from_secs(60)).unwrap();
            assert_eq!(monitor.answer(question, true), Some(id));
            let request = judged(number, recorded(recorded_as), owed);
            let denial = monitor.authorize(A, request).map_err(|refused| refused.denial).err();
            let expected = match recorded_as {
                _ if owed.decision != Some(recorded_as) => Some(Denial::OtherVerdict),
                Decision::Allow | Decision::Ask => None,
                Decision::ReadOnly => Some(Denial::Writable),
                Decision::Deny => Some(Denial::Denied),
            };
            assert_eq!(denial, expected, "{recorded_as:?} {owed:?}");
            assert!(is_on_the_record(dir.path(), number));
            // The yes was for this request once, whatever came of it.
            let again = monitor.authorize(A, judged(number, Verdict::Ask, owing(Decision::Ask)));
            assert_eq!(again.unwrap_err().denial, Denial::Unanswered);
        }
    }
}

#[test]
fn what_the_agent_may_not_do_itself_is_not_written_down_as_done() {
    let dir = tempfile::tempdir().unwrap();
    let mut monitor = monitor(dir.path());
    let id = monitor.own(A);
    let refused = monitor.authorize_own(A, Some(id), attached(1), Ruleless).unwrap_err();
    assert_eq!(refused.denial, Denial::Unanswered);
    assert!(!is_on_the_record(dir.path(), 1));
}

#[test]
fn an_answer_goes_to_the_mediator_that_asked_and_to_no_other_of_the_same_number() {
    let dir = tempfile::tempdir().unwrap();
    let mut monitor = monitor(dir.path());
    let (of_a, of_b) = (RequestId { mediator: A, number: 1 }, RequestId { mediator: B, number: 1 });
    let within = Duration::from_secs(60);
    let (first, second) = (monitor.ask(of_a, within).unwrap(), monitor.ask(of_b, within).unwrap());
    assert_ne!(first, second);
    assert_eq!(monitor.answer(second, true), Some(of_b));
    assert_eq!(monitor.answer(second, true), None, "once");
    assert_eq!(monitor.answer(QuestionId::from_number(u64::MAX), true), None);
    let answer = Owed { answer: true, ..Owed::nothing() };
    let refused = monitor.authorize(A, request(1, answer)).unwrap_err();
    // A's own question still stands.
    assert_eq!(refused.denial, Denial::Repeated);
    let _ = monitor.authorize(B, request(1, answer)).unwrap();
    assert_eq!(monitor.answer(first, false), Some(of_a));
    monitor.withdraw(of_a);
    assert_eq!(monitor.events(), []);
}

#[test]
fn a_yes_that_comes_too_late_is_silence() {
    let dir = tempfile::tempdir().unwrap();
    let mut monitor = monitor(dir.path());
    let id = RequestId { mediator: A, number: 1 };
    let question = monitor.ask(id, Duration::ZERO).unwrap();
    assert_eq!(monitor.answer(question, true), None);
    assert_eq!(monitor.events(), [Event::Silence(id)]);
    let question = monitor.ask(id, Duration::ZERO).unwrap();
    assert!(monitor.wait().is_some_and(|wait| wait.is_zero()));
    monitor.poll();
    assert_eq!(monitor.events(), [Event::Hide(question), Event::Silence(id)]);
}

#[test]
fn a_mediator_that_dies_takes_its_questions_off_the_screen() {
    let dir = tempfile::tempdir().unwrap();
    let mut monitor = monitor(dir.path());
    let id = RequestId { mediator: A, number: 1 };
    let question = monitor.ask(id, Duration::from_secs(60)).unwrap();
    monitor.died(A);
    assert_eq!(monitor.events(), [Event::Hide(question)]);
    assert_eq!(monitor.answer(question, true), None);
    let refused = monitor.authorize(A, request(2, Owed::nothing())).unwrap_err();
    assert_eq!(refused.denial, Denial::NotRunning);
}
