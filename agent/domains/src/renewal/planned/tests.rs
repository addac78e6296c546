use super::*;

const SEVEN: u16 = 7 * 60;
const SECOND: Duration = Duration::from_secs(1);

/// A domain that the policy has begin anew at seven, or when nobody has worked there for ten minutes.
fn domain(name: &str, used: Option<Time>) -> DomainFacts {
    DomainFacts {
        name: name.to_owned(),
        label: name.to_uppercase(),
        rules: Some(Rules { at: vec![SEVEN], when_idle: Some(Duration::from_secs(600)) }),
        state: State::Running { from: Time::ZERO, answered: true },
        problem: None,
        runs_since: Some(Time::ZERO),
        used,
        vmm_age: None,
    }
}

fn seat(front: &str) -> SeatFacts {
    SeatFacts { can_ask: true, front: front.to_owned() }
}

/// Clocks that show this many seconds after five to seven, when this agent has run for as long.
fn at(seconds: u64) -> ScheduleTime {
    let five_to_seven = i64::from(SEVEN) * 60 - 300;
    let local = LocalTime(five_to_seven + i64::try_from(seconds).unwrap());
    ScheduleTime { time: Duration::from_secs(seconds), local }
}

/// Renewals that were looked at five minutes before seven.
fn looked(domains: &[DomainFacts]) -> Renewals {
    let mut renewals = Renewals::default();
    assert_eq!(renewals.look(at(0), domains, &seat("lab")), []);
    renewals
}

#[test]
fn who_has_the_desktop_in_front_is_asked_at_the_start_and_once_more_and_it_begins_all_the_same() {
    let domains = [domain("lab", None)];
    let mut renewals = looked(&domains);
    let (mut asked, mut said, mut begun) = (Vec::new(), Vec::new(), Vec::new());
    for second in 290..=370 {
        for effect in renewals.look(at(second), &domains, &seat("lab")) {
            match effect {
                Effect::Ask { text, choices } => {
                    assert_eq!(choices, ["In 15 minutes (once)"]);
                    assert!(text.starts_with("LAB begins anew in ") && text.contains("thrown"));
                    asked.push(second);
                }
                Effect::Reword(text) => said.push(text),
                Effect::Begin(name, due) => begun.push((second, name, due)),
                Effect::Withdraw => assert_eq!(second, 360, "there is nothing to put off"),
                Effect::Tell { .. } => panic!("who is asked is not told"),
            }
        }
        if second == 310 {
            assert_eq!(renewals.banner_notes(), ["LAB begins anew in 50 s"]);
            // As the seat shows no question for longer.
            assert_eq!(renewals.answered(None), None);
        }
    }
    assert_eq!(asked, [300, 340]);
    assert!(said[0].starts_with("LAB begins anew in 59 s."), "{said:?}");
    assert_eq!(begun, [(360, "lab".to_owned(), DueReason::Time)]);
}

#[test]
fn it_is_put_off_by_the_one_choice_there_is_and_the_second_time_it_is_told() {
    let domains = [domain("lab", None)];
    let mut renewals = looked(&domains);
    let ask = |renewals: &mut Renewals, second| renewals.look(at(second), &domains, &seat("lab"));
    assert!(matches!(ask(&mut renewals, 301)[..], [Effect::Ask { .. }]));
    let put_off = renewals.answered(Some(0)).unwrap();
    assert_eq!(put_off.words, "LAB begins anew at 07:15");
    let (by, why) = (THE_SEAT.to_owned(), "time".to_owned());
    let event = RenewalPutOff { domain: "lab".to_owned(), by, seconds: 900, why };
    assert_eq!(put_off.event, event.into());
    assert_eq!(renewals.answered(Some(0)), None, "nothing is asked");
    assert_eq!(ask(&mut renewals, 400), []);
    let source = "renewal of lab".to_owned();
    let told = ask(&mut renewals, 301 + 900);
    assert!(matches!(&told[..], [Effect::Tell { source: of, .. }] if *of == source), "{told:?}");
    // Any other choice puts nothing off.
    let mut renewals = looked(&domains);
    ask(&mut renewals, 301);
    assert_eq!(renewals.answered(Some(1)), None);
    assert!(renewals.banner_notes()[0].contains("begins anew"));
}

#[test]
fn who_works_elsewhere_or_left_the_desktop_idle_is_told_and_not_asked() {
    let domains = [domain("lab", None)];
    let mut renewals = looked(&domains);
    let told = renewals.look(at(300), &domains, &seat("clinical"));
    assert!(matches!(&told[..], [Effect::Tell { .. }]), "{told:?}");
    let domains = [domain("lab", Some(SECOND))];
    let mut renewals = Renewals::default();
    // Long after seven: ten minutes after somebody worked there.
    let later = |seconds: u64| ScheduleTime { local: at(3600 + seconds).local, ..at(seconds) };
    assert_eq!(renewals.look(later(600), &domains, &seat("lab")), []);
    let told = renewals.look(later(601), &domains, &seat("lab"));
    let [Effect::Tell { text, .. }] = &told[..] else { panic!("{told:?}") };
    assert!(text.contains("as nobody has worked there for long"), "{text}");
}

#[test]
fn a_question_waits_for_another_and_for_a_locked_screen_and_the_countdown_does_not() {
    let domains = [domain("lab", None)];
    let mut renewals = looked(&domains);
    let locked = SeatFacts { can_ask: false, ..seat("lab") };
    assert_eq!(renewals.look(at(300), &domains, &locked), []);
    let asked = renewals.look(at(320), &domains, &seat("lab"));
    assert!(matches!(&asked[..], [Effect::Ask { text, .. }] if text.contains("in 40 s")));
    // One that could not be asked is tried again.
    renewals.not_asked();
    let asked = renewals.look(at(321), &domains, &seat("lab"));
    assert!(matches!(&asked[..], [Effect::Ask { .. }]));
    // As under another policy, and as in the last seconds.
    assert_eq!(renewals.forget_question(), Some(Effect::Withdraw));
    assert_eq!(renewals.forget_question(), None);
    assert_eq!(renewals.look(at(357), &domains, &seat("lab")), [], "nobody could read it");
}

#[test]
fn an_agent_that_stops_takes_its_question_back_and_waits_for_nothing() {
    let domains = [domain("lab", None)];
    let mut renewals = looked(&domains);
    assert_eq!(renewals.wait(at(0).local), Some(Duration::from_secs(300)));
    renewals.look(at(300), &domains, &seat("lab"));
    assert_eq!(renewals.wait(at(300).local), Some(SECOND), "what is left is said by the second");
    assert_eq!(renewals.stop(), Some(Effect::Withdraw));
    assert_eq!(renewals.wait(at(301).local), None);
    assert!(renewals.banner_notes().is_empty());
}

#[test]
fn a_desktop_that_an_earlier_agent_started_counts_as_used_and_its_time_as_come_meanwhile() {
    // Started by an agent an hour ago; the next one comes at five past seven.
    let found = DomainFacts { vmm_age: Some(Duration::from_secs(3600)), ..domain("lab", None) };
    let mut renewals = Renewals::default();
    renewals.taken_up(std::slice::from_ref(&found));
    let five_past = ScheduleTime { local: at(600).local, ..at(1) };
    let asked = renewals.look(five_past, std::slice::from_ref(&found), &seat("lab"));
    assert!(matches!(&asked[..], [Effect::Ask { .. }]), "{asked:?}");
    // At five to seven nothing has come; ten minutes later nobody has worked there, for all that is known.
    let idle = DomainFacts { vmm_age: Some(SECOND), ..found };
    let mut renewals = Renewals::default();
    renewals.taken_up(std::slice::from_ref(&idle));
    let noon = |seconds: u64| ScheduleTime { local: at(5 * 3600 + seconds).local, ..at(seconds) };
    assert_eq!(renewals.look(noon(1), std::slice::from_ref(&idle), &seat("lab")), []);
    let told = renewals.look(noon(600), std::slice::from_ref(&idle), &seat("lab"));
    assert!(matches!(&told[..], [Effect::Tell { .. }]), "{told:?}");
}

#[test]
fn each_renewal_ends_on_the_record_with_why_it_began_and_how_it_went() {
    let mut renewals = Renewals::default();
    let why = RenewalReason::Command { by: "kim".to_owned(), request: Some(7) };
    assert!(matches!(why.began("lab"), AuditEvent::RenewalBegan(began) if began.by == "kim"));
    renewals.may_begin("lab").unwrap();
    renewals.began("lab", why, SECOND);
    assert!(renewals.may_begin("lab").unwrap_err().contains("being renewed already"));
    renewals.began("store", RenewalReason::Due(DueReason::Idle), SECOND);
    let starting = DomainFacts { state: State::Gated, ..domain("lab", None) };
    assert_eq!(renewals.ended(&[starting], SECOND * 5), []);
    let off = DomainFacts { state: State::Off, ..domain("store", None) };
    let events = renewals.ended(&[domain("lab", None), off], SECOND * 9);
    let ended = |domain: &str, outcome, problem: Option<&str>, request, why: &str| {
        let (domain, problem) = (domain.to_owned(), problem.map(str::to_owned));
        let why = why.to_owned();
        AuditEvent::from(RenewalEnded { domain, outcome, problem, request, seconds: 8, why })
    };
    let stopped = Some("it was stopped");
    assert_eq!(
        events,
        [
            ended("lab", Outcome::Done, None, Some(7), "command"),
            ended("store", Outcome::NotDone, stopped, None, "idle"),
        ]
    );
    renewals.may_begin("lab").unwrap();
    renewals.began("lab", RenewalReason::Due(DueReason::Time), SECOND);
    let left = Some("the agent ended before it did");
    assert_eq!(renewals.end(SECOND * 9), [ended("lab", Outcome::Begun, left, None, "time")]);
}
