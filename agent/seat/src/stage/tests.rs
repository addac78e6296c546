//! The seat without a screen.

use std::path::Path;
use std::sync::{Arc, Mutex};

use policy::Policy;
use seat_link::{Channel, ToAgent, Update};

use super::*;
use crate::core::Report;
use crate::devices::{Description, InputRoles};
use base::mailbox::ThreadHandle;
use control::reports::SeatReport;

/// Makes a stage, and the end of whoever it speaks with.
fn stage() -> (Stage, ThreadHandle<Command, SeatEvent>) {
    let (stage, daemon, _) = stage_with_mediators();
    (stage, daemon)
}

/// Makes the same, with what mediators are told.
fn stage_with_mediators()
-> (Stage, ThreadHandle<Command, SeatEvent>, std::sync::mpsc::Receiver<ToMediators>) {
    stage_at(&tempfile::tempdir().unwrap().path().join("seat.json"))
}

/// Makes the same, as it was left by what is written down there.
fn stage_at(
    left: &Path,
) -> (Stage, ThreadHandle<Command, SeatEvent>, std::sync::mpsc::Receiver<ToMediators>) {
    let policy = Arc::new(Policy::parse("test", policy_tools::STARTER).unwrap());
    let names: Vec<String> =
        policy.domains().iter().map(|domain| domain.name.to_string()).collect();
    let (daemon, ends) = ThreadHandle::new("seat").unwrap();
    let report = Arc::new(Mutex::new(SeatReport::default()));
    let (told, mediators) = std::sync::mpsc::channel();
    let written = left.to_owned();
    let mediate = Box::new(move |what| {
        let locked = || SavedStateFile::at(&written).left().is_some_and(|left| left.locked);
        // Not every test keeps its directory.
        let kept = written.parent().is_some_and(Path::exists);
        assert!(what != ToMediators::Locked || !kept || locked(), "written down before it is told");
        // Not every test listens.
        let _ = told.send(what);
    });
    let seat_policy = SeatPolicy::new(&policy, &names);
    let saved_state = SavedStateFile::at(left);
    let this = Daemon { ends, mediators: mediate, report, used: crate::LastInput::new(2) };
    let stage = Stage::new(Backend::None, names, seat_policy, this, saved_state).unwrap();
    (stage, daemon, mediators)
}

#[test]
fn what_is_asked_again_while_it_is_asked_is_shown_and_waits_to_be_read_again() {
    let (mut stage, daemon) = stage();
    let id = u64::MAX;
    let choose = || Command::Choose(id, "Open break-glass?".into(), vec!["a".into(), "b".into()]);
    for again in [choose, choose, choose] {
        daemon.send(again());
        stage.commands();
        assert!(stage.notices.shown().1.is_some(), "its box is to be shown");
        assert!(stage.core.pointer_is_ours(), "and the pointer is the seat's");
        assert_eq!(stage.seen, None, "nobody has read it");
        stage.feed(Input::Shown(id, true), None);
        stage.seen = Some(id);
    }
    assert!(daemon.events().is_empty(), "nobody answered");
    daemon.send(Command::Withdraw(id));
    stage.commands();
    assert!(stage.notices.shown().1.is_none());
    assert!(!stage.core.pointer_is_ours());
}

#[test]
fn a_keyboard_that_says_more_than_is_read_lets_its_keys_go_and_fills_no_log() {
    let (mut stage, daemon) = stage();
    let keyboard = Description {
        name: "keyboard".into(),
        vendor: 1,
        product: 2,
        serial: None,
        port: None,
        abilities: InputRoles { keyboard: true, pointer: false },
    };
    stage.on_device_events(vec![DeviceEvent::Plugged(1, keyboard)]);
    assert!(matches!(daemon.events()[..], [SeatEvent::Plugged(..)]));
    let a = || Report { keys: vec![(30, true)], ..Report::default() };
    for _ in 0..100 {
        stage.on_device_events(vec![DeviceEvent::Report(1, a(), Moment::now())]);
        assert!(stage.core.holds(1, 30));
        stage.on_device_events(vec![DeviceEvent::Dropped(1)]);
        assert!(!stage.core.holds(1, 30));
    }
    assert!(daemon.events().is_empty());
}

#[test]
fn what_happens_at_a_seat_without_a_screen_is_told_at_once_and_not_with_what_happens_next() {
    let (mut stage, mut daemon, mediators) = stage_with_mediators();
    daemon.run(move || stage.run()).unwrap();
    // Nothing else wakes the thread for a minute.
    let told = |daemon: &ThreadHandle<Command, SeatEvent>| {
        let until = std::time::Instant::now() + Duration::from_secs(10);
        loop {
            let mut events = daemon.events();
            if !events.is_empty() || std::time::Instant::now() > until {
                assert!(events.len() <= 1, "{events:?}");
                return events.pop();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    daemon.send(Command::Switch(1));
    assert_eq!(told(&daemon), Some(SeatEvent::Switched { from: 0, to: 1 }));
    daemon.send(Command::Lock);
    assert_eq!(told(&daemon), Some(SeatEvent::Locked { idle: false }));
    assert_eq!(mediators.try_iter().collect::<Vec<_>>(), [ToMediators::Locked]);
    daemon.stop(());
}

#[test]
fn a_vmm_that_keeps_its_pixels_from_being_read_holds_up_neither_the_other_desktop_nor_a_switch() {
    let (mut stage, daemon) = stage();
    let size = stage.layout.guest();
    let update = Update { picture: Some(size), damage: Rect::all(size), ..Update::default() };
    let update = ToAgent::Update(update).encode();
    let vmms: Vec<Channel> = (0..2)
        .map(|index| {
            let (ours, theirs) = seat_link::pair().unwrap();
            daemon.send(Command::Attach(index, ours));
            Channel::new(theirs).unwrap()
        })
        .collect();
    stage.commands();
    let go_on = stage.domains[0].withhold(size);
    vmms.iter().for_each(|vmm| assert!(vmm.send(&update).unwrap()));
    let shows = |stage: &Stage| [0, 1].map(|index: usize| stage.domains[index].picture().is_some());
    let until = Moment::now() + Duration::from_secs(10);
    let rounds = |stage: &mut Stage, wanted| {
        while shows(stage) != wanted {
            assert!(Moment::now() < until, "{:?}", shows(stage));
            let ready = stage.wait();
            stage.round(ready);
        }
    };
    rounds(&mut stage, [false, true]);
    daemon.send(Command::Switch(1));
    let ready = stage.wait();
    stage.round(ready);
    assert_eq!(stage.core.front(), 1);
    // More than there are reads.
    (0..size.frame_bytes().div_ceil(4096)).for_each(|_| go_on.send(()).unwrap());
    rounds(&mut stage, [true, true]);
}

#[test]
fn the_daemon_hears_that_the_seat_comes_round_whatever_its_waits_end_for() {
    let (mut stage, daemon) = stage();
    daemon.probe();
    assert!(!daemon.is_responsive());
    // A wait that ended for the end of a flip alone.
    stage.round(ReadySources { screen: true, ..ReadySources::default() });
    assert!(daemon.is_responsive());
}

#[test]
fn a_seat_that_was_locked_is_locked_by_the_next_agent_and_shows_the_domain_that_was_in_front() {
    let dir = tempfile::tempdir().unwrap();
    let left = dir.path().join("seat.json");
    for (tell, locked) in [(Command::Lock, true), (Command::Unlock, false)] {
        let (mut stage, daemon, _) = stage_at(&left);
        daemon.send(Command::Switch(1));
        daemon.send(tell);
        stage.commands();
        // It is killed: nothing is carried out any more.
        drop((stage, daemon));
        let (mut next, daemon, _) = stage_at(&left);
        assert_eq!((next.core.front(), next.core.locked()), (1, locked));
        next.carry_out_deferred();
        let told = daemon.events();
        assert_eq!(told.contains(&SeatEvent::Locked { idle: false }), locked, "{told:?}");
        assert!(told.contains(&SeatEvent::Switched { from: 0, to: 1 }), "{told:?}");
    }
    std::fs::write(&left, "{}").unwrap();
    assert!(stage_at(&left).0.core.locked(), "nobody can say whether it was");
}
