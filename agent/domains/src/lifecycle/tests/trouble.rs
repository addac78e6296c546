//! VMMs that hang or fail, hosts that cannot have one, and sleeps of the PC.

use super::*;

#[test]
fn a_vmm_that_hangs_is_killed_until_it_is_gone_and_started_again_with_the_reason() {
    let mut world = running();
    world.feed(Event::Hangs("vcpu0 does not come round".into()));
    assert_eq!((world.lifecycle.state().word(), world.killed), ("stopping", 1));
    world.feed(Event::Hangs("still".into()));
    world.wait(KILL_AGAIN * 3);
    assert_eq!((world.killed, world.vmm), (4, true), "the kernel holds it");
    world.exit(Exit::Failed("it was killed by signal 9".into()));
    assert_eq!(world.lifecycle.state(), State::Backoff { until: world.now + BACKOFF_FIRST });
    assert_eq!(world.lifecycle.problem(), Some("vcpu0 does not come round"));
    world.cooperate(Duration::from_secs(3), true);
    assert_eq!((world.spawned, world.lifecycle.restarts()), (2, 1));
}

#[test]
fn a_vmm_that_never_answers_is_ended_and_left_off_when_none_of_its_kind_does() {
    let mut world = World::new();
    world.feed(Event::Start);
    world.work(true);
    world.step(Step::Gate(true));
    world.wait(FIRST_ANSWER);
    assert_eq!((world.lifecycle.state().word(), world.killed), ("stopping", 1));
    assert!(world.lifecycle.problem().is_some_and(|p| p.contains("did not answer")));
    world.cooperate((FIRST_ANSWER + BACKOFF_MAX + Duration::from_secs(10)) * 8, true);
    assert!(world.lifecycle.is_left_off(), "{:?}", world.lifecycle);
    let mut world = running();
    world.wait(FIRST_ANSWER * 10);
    assert_eq!(world.killed, 0, "one that has answered is asked by others than time");
}

#[test]
fn a_hang_of_a_guest_that_is_shutting_down_changes_nothing_and_a_hung_one_can_be_stopped() {
    let mut world = running();
    world.feed(Event::Stop { now: false });
    world.feed(Event::Hangs("vcpu0 does not come round".into()));
    assert_eq!(world.killed, 0);
    let mut world = running();
    world.feed(Event::Hangs("vcpu0 does not come round".into()));
    world.feed(Event::Stop { now: false });
    world.exit(Exit::Failed("it was killed by signal 9".into()));
    world.work(true);
    assert_eq!((world.lifecycle.state(), world.spawned), (State::Off, 1));
}

#[test]
fn a_vmm_that_was_healthy_for_a_while_is_restarted_at_once_again() {
    let mut world = running();
    for _ in 0..3 {
        world.wait(HEALTHY_AFTER);
        world.exit(Exit::Failed("it fell over".into()));
        assert_eq!(world.lifecycle.state(), State::Backoff { until: world.now + BACKOFF_FIRST });
        world.wait(BACKOFF_FIRST);
        world.work(true);
        world.step(Step::Gate(true));
    }
}

#[test]
fn a_guest_that_ignores_its_power_button_is_asked_again_and_then_switched_off() {
    let mut world = running();
    world.feed(Event::Stop { now: false });
    world.wait(STOP_DEADLINE - Duration::from_secs(1));
    assert_eq!((world.pressed, world.killed), (3, 0));
    world.wait(Duration::from_secs(1) + END_GRACE);
    assert_eq!(world.killed, 1);
    world.exit(Exit::Failed("signal 9".into()));
    world.work(true);
    assert_eq!(world.lifecycle.state(), State::Off);
    assert!(world.lifecycle.problem().is_some_and(|p| p.contains("power button")));
}

#[test]
fn a_restart_keeps_the_devices_and_starts_one_new_vmm() {
    let mut world = running();
    world.feed(Event::Restart);
    world.exit(Exit::PoweredOff);
    assert_eq!(world.work, Some(Action::Prepare));
    world.work(true);
    world.step(Step::Gate(true));
    assert_eq!((world.spawned, world.lifecycle.restarts()), (2, 0));
}

#[test]
fn what_is_not_to_start_any_more_is_prepared_anew_at_once_and_nothing_has_failed() {
    let mut world = World::new();
    world.feed(Event::Start);
    world.work(true);
    world.step(Step::Supersede);
    world.step(Step::Gate(true));
    assert_eq!((world.lifecycle.state().word(), world.work), ("preparing", Some(Action::Prepare)));
    assert_eq!((world.spawned, world.lifecycle.problem()), (0, None));
    world.work(true);
    world.step(Step::Gate(true));
    assert_eq!((world.spawned, world.lifecycle.restarts()), (1, 0));
}

#[test]
fn a_host_with_a_network_keeps_the_domain_waiting_and_tells_why() {
    let mut world = World::new();
    world.feed(Event::Start);
    world.work(true);
    world.step(Step::Gate(false));
    assert_eq!((world.lifecycle.state().word(), world.spawned), ("retrying", 0));
    assert_eq!(world.lifecycle.problem(), Some("a network"));
    world.wait(BACKOFF_FIRST);
    world.work(true);
    world.step(Step::Gate(true));
    world.feed(Event::Answered);
    assert_eq!((world.spawned, world.lifecycle.problem()), (1, None));
}

#[test]
fn a_vmm_that_an_earlier_agent_left_is_looked_after_as_one_that_was_started() {
    let found = |answered| {
        let mut world = World::new();
        world.step(Step::Found(answered));
        assert_eq!(world.lifecycle.state().word(), if answered { "running" } else { "starting" });
        assert!(world.lifecycle.wanted() && world.spawned == 0);
        world
    };
    let mut world = found(true);
    world.exit(Exit::Failed("it fell over".into()));
    assert_eq!((world.lifecycle.state().word(), world.lifecycle.restarts()), ("retrying", 1));
    let mut world = found(true);
    world.exit(Exit::PoweredOff);
    world.work(true);
    assert_eq!(world.lifecycle.state(), State::Off);
    let mut world = found(false);
    world.feed(Event::Restart);
    assert_eq!(world.pressed, 1);
    world.exit(Exit::PoweredOff);
    world.cooperate(STOP_DEADLINE, true);
    assert!(matches!(world.lifecycle.state(), State::Running { .. }) && world.spawned == 1);
}

#[test]
fn a_domain_whose_devices_did_not_survive_a_sleep_of_the_pc_is_restarted_and_says_why() {
    let mut world = running();
    world.feed(Event::Slept { lost_devices: true });
    assert_eq!((world.lifecycle.state().word(), world.pressed), ("stopping", 1));
    assert!(world.lifecycle.wanted());
    assert!(world.lifecycle.problem().is_some_and(|problem| problem.contains("the PC slept")));
    // Once more while it is on its way.
    world.feed(Event::Slept { lost_devices: true });
    world.exit(Exit::PoweredOff);
    assert_eq!(world.work, Some(Action::Prepare), "not given back in between");
    world.cooperate(Duration::from_secs(5), true);
    world.feed(Event::Answered);
    assert_eq!((world.lifecycle.state().word(), world.spawned), ("running", 2));
    assert_eq!((world.lifecycle.restarts(), world.lifecycle.problem()), (0, None));
}

#[test]
fn a_vmm_that_is_starting_while_the_pc_sleeps_has_its_time_after_it() {
    for lost_devices in [false, true] {
        let mut world = World::new();
        world.feed(Event::Start);
        world.work(true);
        world.step(Step::Gate(true));
        // The clock goes on, and the first thing that is seen afterwards is that there was a sleep.
        world.now += FIRST_ANSWER * 10;
        world.feed(Event::Slept { lost_devices });
        world.feed(Event::Tick);
        assert_eq!(world.killed, 0);
        let restarted = world.lifecycle.state().word() == "stopping";
        assert_eq!(restarted, lost_devices);
    }
}

#[test]
fn a_guest_that_is_dead_after_a_sleep_is_switched_off_and_started_again() {
    let mut world = running();
    world.feed(Event::Slept { lost_devices: true });
    world.cooperate(STOP_DEADLINE + END_GRACE + Duration::from_secs(5), false);
    assert_eq!(world.spawned, 2);
}

#[test]
fn a_sleep_of_the_pc_starts_no_domain_that_nobody_wants() {
    let mut world = World::new();
    world.feed(Event::Slept { lost_devices: true });
    assert_eq!((world.lifecycle.state(), world.lifecycle.wanted()), (State::Off, false));
    let mut world = running();
    world.feed(Event::Stop { now: false });
    world.feed(Event::Slept { lost_devices: true });
    world.exit(Exit::PoweredOff);
    world.work(true);
    assert_eq!((world.lifecycle.state(), world.spawned), (State::Off, 1));
}
