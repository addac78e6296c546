//! How a worker ends, and what is said of it.

use super::super::super::Afterwards;
use super::*;

fn is_dead(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.map_or(true, |stat| stat.contains(") Z "))
}

fn is_dead_within(pid: u32, most: Duration) -> bool {
    let until = Moment::now() + most;
    while !is_dead(pid) && Moment::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    is_dead(pid)
}

/// What the broker does with the worker's process when it is told something.
type Tell<'a> = dyn Fn(u32, &mpsc::Sender<DeviceThreadCommand>, &Cut, &DeviceThreadEvent) + 'a;

/// Attends to this script, with or without its VMM, and calls `tell` with its process.
fn attend_telling(
    script: &str,
    vmm_gone: bool,
    tell: &Tell<'_>,
) -> (Result<(), NotServed>, Duration) {
    let (_dir, worker, vmm) = started(script);
    if vmm_gone {
        vmm.shutdown(std::net::Shutdown::Both).unwrap();
    }
    let (cut, pid) = (Cut::default(), worker.process.id());
    cut.take(worker.killed_by().unwrap());
    let (waker, (sender, commands)) = (waker(), mpsc::channel());
    let began = Moment::now();
    let outcome = Attendant {
        worker,
        commands: &commands,
        waker: &waker,
        cut: &cut,
        authorise: &|| None,
        tell: &|event| tell(pid, &sender, &cut, &event),
        begin_within: Duration::from_secs(60),
        look_every: LOOK_EVERY,
        what: "a device".to_owned(),
    }
    .attend()
    .outcome;
    (outcome, began.elapsed())
}

// Shows: C-8.
#[test]
fn a_worker_that_says_that_it_leaves_and_stays_is_killed_as_one_that_says_nothing() {
    let script = format!("{BEGUN}; {}; exec sleep 1000", detached(2, "leaving"));
    // The broker lets it go as soon as it is told.
    let killed = Cell::new(false);
    let (outcome, _) = attend_telling(&script, false, &|pid, sender, cut, event| {
        if matches!(event, DeviceThreadEvent::Detached(..)) {
            cut.cut();
            sender.send(DeviceThreadCommand::Cut).unwrap();
            killed.set(is_dead_within(pid, Duration::from_secs(10)));
        }
    });
    assert!(outcome.is_ok() && killed.get(), "it had the device for longer");
    // Nor does one whose broker is busy have the device for long.
    let (outcome, took) = attend_telling(&script, false, &|_, _, _, _| {});
    assert!(outcome.is_ok() && took < Duration::from_secs(10), "{took:?}");
    // Nor when it is only told so.
    let (outcome, took) = attend_telling(&script, false, &|_, sender, _, event| {
        if matches!(event, DeviceThreadEvent::Detached(..)) {
            sender.send(DeviceThreadCommand::Cut).unwrap();
        }
    });
    assert!(outcome.is_ok() && took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn a_worker_that_is_to_close_waits_once_for_no_turn_to_have_its_interfaces_authorised() {
    let now = Moment::now();
    let mut turn = Turn::new(now, LOOK_EVERY);
    turn.hear(now, &Message::Begun.write()).unwrap();
    let ask = |turn: &mut Turn| {
        turn.hear(now, &Message::Authorise.write()).unwrap();
    };
    for _ in 0..8 {
        ask(&mut turn);
        assert_eq!(turn.owed(now), Some(Duration::ZERO));
        turn.authorised(now);
    }
    ask(&mut turn);
    assert!(turn.owed(now).unwrap() > Duration::from_millis(500), "longer than it has to close");
    turn.closing = true;
    assert_eq!(turn.owed(now), Some(Duration::ZERO), "its reset ends, and it hears that it closes");
    turn.authorised(now);
    ask(&mut turn);
    assert!(turn.owed(now).unwrap() > Duration::from_millis(500), "one that only asks waits");
}

#[test]
fn a_worker_that_hangs_up_on_its_agent_is_told_of_at_once_and_not_as_ended_by_what_the_agent_did() {
    let said = RefCell::new(Vec::new());
    let script = format!("{BEGUN}; exec >&- 2>&-; exec sleep 1000");
    let (outcome, _) = attend_telling(&script, false, &|pid, _, _, event| {
        said.borrow_mut().push((format!("{event:?}"), is_dead(pid)));
    });
    assert!(outcome.is_ok());
    let said = said.into_inner();
    let [_, (detached, was_dead)] = &said[..] else { panic!("{said:?}") };
    assert!(detached.contains("it hung up on its agent"), "{detached}");
    assert!(!detached.contains("signal"), "{detached}");
    assert!(!was_dead, "the broker hears of it before the kernel lets it go");
}

#[test]
fn a_device_that_is_gone_when_its_interfaces_come_anew_was_pulled_out_and_nothing_failed() {
    let came =
        attend_with(&format!(r"{BEGUN}; printf '\001'; exec sleep 1000"), None, &|_, _, _| {});
    let DetachReason::NoDevice(said) = came.detached() else { panic!("{came:?}") };
    assert!(said.contains("another by now, or gone") && !said.contains(FAILED), "{said}");
}

#[test]
fn a_worker_whose_vmm_goes_before_the_guest_has_the_device_does_not_keep_it_for_nobody() {
    let (outcome, took) =
        attend_telling("exec sleep 1000", true, &|_, _, _, event| panic!("{event:?}"));
    assert!(outcome.is_ok(), "it waits for its domain again: {outcome:?}");
    assert!(took < Duration::from_secs(30), "{took:?}");
    // One that has begun has its time from then.
    let now = Moment::now();
    let mut turn = Turn::new(now, LOOK_EVERY);
    turn.gone = Some(now);
    let later = now + GONE_WITHIN;
    turn.hear(later, &Message::Begun.write()).unwrap();
    assert_eq!(turn.gone, Some(later));
}

#[test]
fn a_device_is_reset_when_nothing_is_left_of_its_worker_also_by_a_thread_that_fails() {
    for fails in [false, true] {
        let (_dir, worker, _vmm) = started("exec sleep 1000");
        let pid = worker.process.id();
        let resets = Cell::new(0);
        let reset = || {
            assert!(!Path::new(&format!("/proc/{pid}")).exists(), "it still has the device");
            resets.set(resets.get() + 1);
        };
        let serve = std::panic::AssertUnwindSafe(|| {
            let afterwards = Afterwards::new(&reset);
            let _worker = worker;
            afterwards.arm();
            assert!(!fails, "a fault");
        });
        assert_eq!(std::panic::catch_unwind(serve).is_err(), fails);
        assert_eq!(resets.get(), 1);
    }
    // One that no worker had stays as it is.
    drop(Afterwards::new(&|| panic!("nobody had it")));
}

#[test]
fn what_a_worker_carried_that_was_killed_before_anybody_heard_it_begin_is_not_said_to_be_nothing() {
    for (says, carried_nothing) in [
        ("", true),
        (r"printf '\001'", true),
        (BEGUN, false),
        (r"printf '\001'; printf '\002'", false),
        ("printf noise", false),
    ] {
        let (_dir, mut worker, vmm) = started(&format!("{says}\nprintf said >&0; exec sleep 1000"));
        // All that it says is there, and its thread has not come round to it.
        vmm.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        (&vmm).read_exact(&mut [0; 4]).unwrap();
        worker.process.end();
        let (cut, waker, (_sender, commands)) = (Cut::default(), waker(), mpsc::channel());
        let attendant = Attendant {
            worker,
            commands: &commands,
            waker: &waker,
            cut: &cut,
            authorise: &|| None,
            tell: &|event| panic!("{event:?}"),
            begin_within: Duration::from_secs(60),
            look_every: LOOK_EVERY,
            what: "a device".to_owned(),
        };
        assert_eq!(attendant.has_nothing_unheard(), carried_nothing, "{says}");
    }
}
