use super::*;
use ::audit::Limits;
use recorder::Recorder;

fn policy(section: &str) -> Policy {
    let text = policy_tools::STARTER.to_owned() + section;
    Policy::parse("test", &text).unwrap()
}

fn monitor(state: &std::path::Path) -> Monitor {
    let recorder = Recorder::open(state, Limits::default());
    let mut monitor = Monitor::new(recorder, 1, &[BREAK_GLASS]);
    monitor.started(BREAK_GLASS);
    monitor
}

fn named(name: &str) -> Opener<'_> {
    Opener { name, agreed: None }
}

#[test]
fn it_opens_for_a_reason_and_a_time_within_the_policys_and_closes_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let mut monitor = monitor(dir.path());
    let mut break_glass = BreakGlass::default();
    let none = policy("");
    if none.break_glass().is_none() {
        let refused = break_glass
            .open(&none, &mut monitor, named("uid 1"), Some("x"), None, Moment::now())
            .unwrap_err();
        assert!(refused.contains("provides no break-glass"));
        let with = policy("\n[break_glass]\nmax_duration = \"10m\"\nreason_required = true\n");
        check(&mut break_glass, &with, &mut monitor);
    } else {
        check(&mut break_glass, &none, &mut monitor);
    }
}

#[test]
fn the_reason_that_was_chosen_at_the_seat_is_on_the_record_and_none_is_taken_for_another() {
    let dir = tempfile::tempdir().unwrap();
    let mut monitor = monitor(dir.path());
    let mut break_glass = BreakGlass::default();
    let policy = policy("\n[break_glass]\nreasons = [\"의식 없는 환자\", \"system down\"]\n");
    let reasons: Vec<String> = {
        let rules = policy.break_glass().unwrap();
        rules.reasons.iter().map(|reason| reason.value.clone()).collect()
    };
    let asked = |break_glass: &mut BreakGlass, monitor: &mut Monitor| {
        let id = monitor.own(BREAK_GLASS);
        let question = monitor.ask(id, ASK_FOR).unwrap();
        let what = Question::Open(reasons.clone());
        break_glass.asked = Some(StandingQuestion { id, question, what });
        (id, question)
    };
    let answer = |break_glass: &mut BreakGlass, monitor: &mut Monitor, answer: Answer| {
        let (id, question) = asked(break_glass, monitor);
        assert_eq!(monitor.answer(question, answer.agrees()), Some(id));
        break_glass.answered(&policy, monitor, (id, answer), Moment::now())
    };
    for chosen in [Answer::Yes, Answer::No, Answer::Chosen(2), Answer::Chosen(usize::MAX)] {
        answer(&mut break_glass, &mut monitor, chosen);
        assert!(!break_glass.is_open(), "{chosen:?}");
    }
    // Chosen, and said to nobody: the monitor knows of no yes.
    let (id, _) = asked(&mut break_glass, &mut monitor);
    break_glass.answered(&policy, &mut monitor, (id, Answer::Chosen(1)), Moment::now()).unwrap();
    assert!(!break_glass.is_open());
    let words = answer(&mut break_glass, &mut monitor, Answer::Chosen(1));
    assert_eq!(words.as_deref(), Some("Break-glass is open."));
    assert!(break_glass.is_open());
    // An answer to what does not stand is about other rules.
    let id = monitor.own(BREAK_GLASS);
    let words = break_glass
        .answered(&policy, &mut monitor, (id, Answer::Chosen(0)), Moment::now())
        .unwrap();
    assert!(words.contains("the policy has changed since it was asked"), "{words}");
    assert_eq!(break_glass.answered(&policy, &mut monitor, (id, Answer::No), Moment::now()), None);
    drop(monitor);
    let log: String = std::fs::read_dir(dir.path().join("audit"))
        .unwrap()
        .filter_map(|entry| std::fs::read_to_string(entry.unwrap().path()).ok())
        .collect();
    assert_eq!(log.matches("break-glass-opened").count(), 1);
    assert!(log.contains("system down") && !log.contains("의식 없는 환자"), "{log}");
}

#[test]
fn what_was_asked_when_a_policy_came_is_off_the_screen_and_its_yes_is_told_why_it_opens_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut monitor = monitor(dir.path());
    let mut break_glass = BreakGlass::default();
    let mut forgotten = |break_glass: &mut BreakGlass, what| {
        let id = monitor.own(BREAK_GLASS);
        let question = monitor.ask(id, ASK_FOR).unwrap();
        break_glass.asked = Some(StandingQuestion { id, question, what });
        break_glass.forget_question(&mut monitor);
        // The policy in force, applied again: nothing else takes the question away.
        monitor.enforce(1, None);
        assert_eq!(monitor.events(), [crate::monitor::Event::Hide(question)]);
        assert_eq!(monitor.answer(question, true), None);
        question
    };
    let question = forgotten(&mut break_glass, Question::Open(Vec::new()));
    let words = break_glass.answered_late(question, Answer::Yes).unwrap();
    assert!(words.contains("the policy has changed since it was asked"), "{words}");
    assert!(words.contains("press its keys again"), "{words}");
    assert_eq!(break_glass.answered_late(question, Answer::Yes), None, "once");
    let question = forgotten(&mut break_glass, Question::Open(Vec::new()));
    assert_eq!(break_glass.answered_late(question, Answer::No), None);
    let question = forgotten(&mut break_glass, Question::Close);
    let words = break_glass.answered_late(question, Answer::Yes);
    assert_eq!(words.as_deref(), Some("Break-glass is closed."));
    assert!(!break_glass.is_open());
}

#[test]
fn it_is_open_until_the_moment_that_was_permitted_however_late_the_permit_comes() {
    let dir = tempfile::tempdir().unwrap();
    let mut monitor = monitor(dir.path());
    let mut break_glass = BreakGlass::default();
    let until = Moment::now();
    break_glass.extend(Permit::new(OpeningGrant(until), 1));
    assert_eq!(break_glass.until(), Some(until));
    assert!(break_glass.expire(&mut monitor, Moment::now()), "its time is over already");
}

#[test]
fn it_is_closed_with_words_when_the_record_of_its_opening_may_be_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut monitor = monitor(dir.path());
    let mut break_glass = BreakGlass::default();
    assert_eq!(break_glass.record_lost(&mut monitor), None);
    break_glass.extend(Permit::new(OpeningGrant(Moment::now() + ASK_FOR), 1));
    let words = break_glass.record_lost(&mut monitor).unwrap();
    assert!(words.contains("the audit log cannot be written"), "{words}");
    assert!(!break_glass.is_open());
}

#[test]
fn opened_again_it_is_never_open_for_less_and_recorded_as_prolonged_only_if_it_is_open_longer() {
    let dir = tempfile::tempdir().unwrap();
    let mut monitor = monitor(dir.path());
    let text = policy_tools::STARTER.to_owned();
    let text = match text.contains("\n[break_glass]") {
        true => text,
        false => text + "\n[break_glass]\nmax_duration = \"10m\"\nreason_required = true\n",
    };
    let policy = Policy::parse("test", &text).unwrap();
    let mut break_glass = BreakGlass::default();
    let mut open = |seconds: u64| {
        let time = Some(Duration::from_secs(seconds));
        break_glass
            .open(&policy, &mut monitor, named("kim"), Some("CPR"), time, Moment::now())
            .unwrap()
    };
    assert_eq!(open(60).to_string(), "break-glass is open for 1 minute");
    let shorter = open(10);
    assert!(shorter.left > Duration::from_secs(50), "{shorter:?}");
    let longer = open(120);
    assert_eq!(longer.left, Duration::from_secs(120));
    assert!(longer.to_string().contains("was open already"), "{longer}");
    monitor.close();
    let mut entries = Vec::new();
    let log = recorder::directory(dir.path());
    ::audit::each(&log, |_, entry| {
        entries.push(entry);
        Ok(())
    })
    .unwrap();
    entries.retain(|entry: &::audit::Entry| entry.kind.starts_with("break-glass"));
    let (again, longer) = ("break-glass-asked-again", "break-glass-prolonged");
    let kinds: Vec<&str> = entries.iter().map(|entry| entry.kind.as_str()).collect();
    assert_eq!(kinds, ["break-glass-opened", again, longer], "what was so, and no more");
    let seconds = |name: &str| entries.get(1).and_then(|entry| entry.detail.get(name)?.as_u64());
    assert_eq!(seconds("seconds_asked"), Some(10));
    assert!(seconds("seconds").is_some_and(|left| left > 50), "how long it stays open");
}

fn check(break_glass: &mut BreakGlass, policy: &Policy, monitor: &mut Monitor) {
    let most = policy.break_glass().unwrap().max_duration;
    let too_long = Some(most + Duration::from_secs(1));
    break_glass
        .open(policy, monitor, named("uid 1"), Some("CPR"), too_long, Moment::now())
        .unwrap_err();
    break_glass.open(policy, monitor, named("uid 1"), Some("  "), None, Moment::now()).unwrap_err();
    assert!(!break_glass.is_open());
    break_glass
        .open(policy, monitor, named("uid 1"), Some("CPR"), Some(Duration::ZERO), Moment::now())
        .unwrap();
    assert!(break_glass.is_open() && break_glass.banner_note(Moment::now()).is_some());
    assert!(break_glass.expire(monitor, Moment::now()), "its time is over");
    assert!(!break_glass.is_open() && !break_glass.expire(monitor, Moment::now()));
    assert_eq!(
        monitor.recorder().head().unwrap().seq,
        4,
        "the log was opened and signed, it was opened and closed"
    );
}

#[test]
fn its_hotkey_asks_with_the_policys_reasons_or_whether_to_close_it_and_says_why_it_asks_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut monitor = monitor(dir.path());
    let mut break_glass = BreakGlass::default();
    let with = policy("\n[break_glass]\nmax_duration = \"10m\"\nreasons = [\"system down\"]\n");
    let SeatPrompt::Question { question, text, choices } = break_glass.hotkey(&with, &mut monitor)
    else {
        panic!("nothing is asked");
    };
    assert!(text.starts_with("Open break-glass for 10 minutes? Why?\n"), "{text}");
    assert_eq!(choices, ["system down"]);
    let id = monitor.answer(question, true).unwrap();
    let now = Moment::now();
    break_glass.answered(&with, &mut monitor, (id, Answer::Chosen(0)), now).unwrap();
    assert_eq!(break_glass.left(now + Duration::from_secs(60)), Some(Duration::from_secs(540)));
    assert_eq!(
        break_glass.banner_note(now + Duration::from_secs(599)).as_deref(),
        Some("BREAK-GLASS is open for 1 min; all of it is recorded")
    );
    let SeatPrompt::Question { text, choices, .. } = break_glass.hotkey(&with, &mut monitor) else {
        panic!("nothing is asked");
    };
    assert_eq!((text.as_str(), choices.len()), ("Close break-glass now?", 0));
    assert!(break_glass.close(&mut monitor, "a test"));
    let in_words = policy("\n[break_glass]\nmax_duration = \"10m\"\nreason_required = true\n");
    let SeatPrompt::Notice(words) = break_glass.hotkey(&in_words, &mut monitor) else {
        panic!("it is asked without words");
    };
    assert!(words.contains("bulkhead break-glass --reason"), "{words}");
}
