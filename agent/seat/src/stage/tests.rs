//! The seat without a screen.

use std::path::Path;
use std::sync::Mutex;

use nix::sys::eventfd::EfdFlags;
use policy::Policy;

use super::*;
use crate::core::Report;
use crate::devices::{Abilities, Description};
use base::mailbox::Life;
use control::reports::SeatReport;

/// A stage, what it is told by, what it tells, and its life.
fn stage() -> (Stage, mpsc::Sender<Command>, mpsc::Receiver<Happening>, Life) {
    stage_at(&tempfile::tempdir().unwrap().path().join("seat.json"))
}

/// The same, as it was left by what is written down there.
fn stage_at(left: &Path) -> (Stage, mpsc::Sender<Command>, mpsc::Receiver<Happening>, Life) {
    let policy = Arc::new(Policy::parse("test", policy_tools::STARTER).unwrap());
    let names: Vec<String> =
        policy.domains().iter().map(|domain| domain.name.to_string()).collect();
    let (life, pulse) = Life::new().unwrap();
    let (told, happenings) = mpsc::channel();
    let report = Arc::new(Mutex::new(SeatReport::default()));
    let daemon = Daemon { happenings: told, pulse, report };
    let (commands, inbox) = mpsc::channel();
    let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap());
    let look = SeatPolicy::new(&policy, &names);
    let memory = Memory::at(left);
    let stage = Stage::new(Backend::None, names, look, daemon, inbox, wake, memory).unwrap();
    (stage, commands, happenings, life)
}

#[test]
fn what_is_asked_again_while_it_is_asked_is_shown_and_waits_to_be_read_again() {
    let (mut stage, commands, happenings, _life) = stage();
    let id = u64::MAX;
    let choose = || Command::Choose(id, "Open break-glass?".into(), vec!["a".into(), "b".into()]);
    for again in [choose, choose, choose] {
        commands.send(again()).unwrap();
        stage.commands();
        assert!(stage.notices.shown().1.is_some(), "its box is to be shown");
        assert!(stage.core.pointer_is_ours(), "and the pointer is the seat's");
        assert_eq!(stage.seen, None, "nobody has read it");
        stage.feed(Input::Shown(id, true), None);
        stage.seen = Some(id);
    }
    assert!(happenings.try_iter().next().is_none(), "nobody answered");
    commands.send(Command::Withdraw(id)).unwrap();
    stage.commands();
    assert!(stage.notices.shown().1.is_none());
    assert!(!stage.core.pointer_is_ours());
}

#[test]
fn a_keyboard_that_says_more_than_is_read_lets_its_keys_go_and_fills_no_log() {
    let (mut stage, _commands, happenings, _life) = stage();
    let keyboard = Description {
        name: "keyboard".into(),
        vendor: 1,
        product: 2,
        serial: None,
        port: None,
        abilities: Abilities { keyboard: true, pointer: false },
    };
    stage.happened(vec![Happened::Plugged(1, keyboard)]);
    assert!(matches!(happenings.try_iter().collect::<Vec<_>>()[..], [Happening::Plugged(..)]));
    let a = || Report { keys: vec![(30, true)], ..Report::default() };
    for _ in 0..100 {
        stage.happened(vec![Happened::Report(1, a(), Moment::now())]);
        assert!(stage.core.holds(1, 30));
        stage.happened(vec![Happened::Dropped(1)]);
        assert!(!stage.core.holds(1, 30));
    }
    assert!(happenings.try_iter().next().is_none());
}

#[test]
fn what_happens_at_a_seat_without_a_screen_is_told_at_once_and_not_with_what_happens_next() {
    let (mut stage, commands, happenings, _life) = stage();
    let wake = Arc::clone(&stage.wake);
    let thread = std::thread::spawn(move || stage.run());
    let tell = |command| {
        commands.send(command).unwrap();
        wake.write(1).unwrap();
    };
    // Nothing else wakes the thread for a minute.
    let told = || happenings.recv_timeout(Duration::from_secs(10));
    tell(Command::Switch(1));
    assert_eq!(told(), Ok(Happening::Switched { from: 0, to: 1 }));
    tell(Command::Lock);
    assert_eq!(told(), Ok(Happening::Locked { idle: false }));
    tell(Command::Stop);
    thread.join().unwrap();
}

#[test]
fn a_seat_that_was_locked_is_locked_by_the_next_agent_and_shows_the_domain_that_was_in_front() {
    let dir = tempfile::tempdir().unwrap();
    let left = dir.path().join("seat.json");
    for (tell, locked) in [(Command::Lock, true), (Command::Unlock, false)] {
        let (mut stage, commands, happenings, _life) = stage_at(&left);
        commands.send(Command::Switch(1)).unwrap();
        commands.send(tell).unwrap();
        stage.commands();
        // It is killed: nothing is carried out any more.
        drop((stage, happenings));
        let (mut next, _commands, happenings, _life) = stage_at(&left);
        assert_eq!((next.core.front(), next.core.locked()), (1, locked));
        next.carry_out_deferred();
        let told: Vec<_> = happenings.try_iter().collect();
        assert_eq!(told.contains(&Happening::Locked { idle: false }), locked, "{told:?}");
        assert!(told.contains(&Happening::Switched { from: 0, to: 1 }), "{told:?}");
    }
    std::fs::write(&left, "{}").unwrap();
    assert!(stage_at(&left).0.core.locked(), "nobody can say whether it was");
}
