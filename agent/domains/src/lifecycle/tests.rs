mod trouble;

use super::*;
use proptest::prelude::*;

const STOP_DEADLINE: Duration = Duration::from_secs(30);

#[test]
fn what_may_be_left_of_a_domain_that_stays_off_goes_back_to_the_host_and_it_can_be_started() {
    let mut lifecycle = Lifecycle::new(STOP_DEADLINE);
    assert_eq!(lifecycle.handle(Time::ZERO, Event::LeftOff), Some(Action::Release));
    assert!(!lifecycle.wanted());
    assert_eq!(lifecycle.handle(Time::ZERO, Event::LeftOff), None);
    assert_eq!(lifecycle.handle(Time::ZERO, Event::Released(Ok(()))), None);
    assert_eq!(lifecycle.state(), State::Off);
    assert_eq!(lifecycle.handle(Time::ZERO, Event::Start), Some(Action::Prepare));
    assert_eq!(lifecycle.handle(Time::ZERO, Event::LeftOff), None);
}

/// What the world does to a lifecycle.
#[derive(Debug, Clone)]
enum Step {
    Ask(Event),
    /// The background job comes through, or fails.
    Work(bool),
    Gate(bool),
    /// The VMM ends.
    Exit(Exit),
    /// It is seen to hang.
    Hangs,
    Answer,
    /// One that an earlier agent left is found, where it may be: while the domain is off and nobody is at its devices.
    Found(bool),
    Wait(u64),
    /// Whether the next VMMs can be started.
    Startable(bool),
    /// What is prepared, or being prepared, is not to start any more.
    Supersede,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        Just(Step::Ask(Event::Start)),
        Just(Step::Ask(Event::Restart)),
        Just(Step::Ask(Event::Slept { lost_devices: true })),
        Just(Step::Ask(Event::TryAgain)),
        Just(Step::Hangs),
        any::<bool>().prop_map(|now| Step::Ask(Event::Stop { now })),
        any::<bool>().prop_map(Step::Work),
        Just(Step::Work(true)),
        any::<bool>().prop_map(Step::Gate),
        Just(Step::Gate(true)),
        Just(Step::Exit(Exit::PoweredOff)),
        Just(Step::Exit(Exit::Failed("it fell over".into()))),
        Just(Step::Answer),
        any::<bool>().prop_map(Step::Found),
        (0u64..700).prop_map(Step::Wait),
        any::<bool>().prop_map(Step::Startable),
        Just(Step::Supersede),
    ];
    prop::collection::vec(step, 0..60)
}

/// A domain and everything around it, with the promises checked at every action.
struct World {
    lifecycle: Lifecycle,
    now: Time,
    vmm: bool,
    devices: bool,
    work: Option<Action>,
    startable: bool,
    superseded: bool,
    spawned: u32,
    pressed: u32,
    killed: u32,
}

impl World {
    fn new() -> Self {
        Self {
            lifecycle: Lifecycle::new(STOP_DEADLINE),
            now: Time::ZERO,
            vmm: false,
            devices: false,
            work: None,
            startable: true,
            superseded: false,
            spawned: 0,
            pressed: 0,
            killed: 0,
        }
    }

    fn after(steps: Vec<Step>) -> Self {
        let mut world = Self::new();
        for step in steps {
            world.step(step);
        }
        world.startable = true;
        world
    }

    fn feed(&mut self, event: Event) {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            let action = self.lifecycle.handle(self.now, event);
            next = action.and_then(|action| self.perform(action));
        }
        assert_eq!(self.lifecycle.state().has_vmm(), self.vmm, "{:?}", self.lifecycle.state());
    }

    fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Prepare | Action::Release => {
                assert!(!self.vmm, "devices are not touched while a VMM has them");
                let busy = || Err("busy".to_owned());
                match (self.work, action) {
                    (Some(_), Action::Prepare) => return Some(Event::Prepared(busy())),
                    (Some(_), _) => return Some(Event::Released(busy())),
                    (None, _) => self.work = Some(action),
                }
                None
            }
            Action::AskGate => None,
            Action::Spawn => {
                assert!(!self.vmm, "one VMM a domain");
                assert!(self.devices, "no VMM without its devices");
                if std::mem::take(&mut self.superseded) {
                    return Some(Event::Superseded);
                }
                if !self.startable {
                    return Some(Event::Spawned(Err("no such file".into())));
                }
                self.vmm = true;
                self.spawned += 1;
                Some(Event::Spawned(Ok(())))
            }
            Action::PressPowerButton => {
                assert!(self.vmm);
                self.pressed += 1;
                None
            }
            Action::EndVmm => {
                assert!(self.vmm);
                None
            }
            Action::KillVmm => {
                assert!(self.vmm);
                self.killed += 1;
                None
            }
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Ask(event) => self.feed(event),
            Step::Work(comes_through) => self.work(comes_through),
            Step::Gate(open) if self.lifecycle.state() == State::Gated => {
                self.feed(Event::Gate(if open { Ok(()) } else { Err("a network".into()) }));
            }
            Step::Exit(exit) if self.vmm => self.exit(exit),
            Step::Answer if self.vmm => self.feed(Event::Answered),
            Step::Hangs if self.vmm => self.feed(Event::Hangs("it does not come round".into())),
            Step::Found(answered)
                if self.lifecycle.state() == State::Off && self.work.is_none() && !self.vmm =>
            {
                (self.vmm, self.devices) = (true, true);
                self.feed(Event::Found { answered });
            }
            Step::Wait(seconds) => self.wait(Duration::from_secs(seconds)),
            Step::Startable(startable) => self.startable = startable,
            Step::Supersede => self.superseded = true,
            Step::Gate(_) | Step::Exit(_) | Step::Answer | Step::Hangs | Step::Found(_) => {}
        }
    }

    fn work(&mut self, comes_through: bool) {
        let result = if comes_through { Ok(()) } else { Err("it does not let go".into()) };
        match self.work.take() {
            Some(Action::Prepare) => {
                self.devices |= comes_through;
                self.feed(Event::Prepared(result));
            }
            Some(_) => {
                self.devices &= !comes_through;
                self.feed(Event::Released(result));
            }
            None => {}
        }
    }

    fn exit(&mut self, exit: Exit) {
        // The process is gone before the machine hears of it.
        self.vmm = false;
        let action = self.lifecycle.handle(self.now, Event::Exited(exit));
        if let Some(event) = action.and_then(|action| self.perform(action)) {
            self.feed(event);
        }
    }

    /// Lets time go by as the event loop does: a tick at each deadline.
    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(deadline) = self.lifecycle.deadline().filter(|at| *at <= until) {
            self.now = self.now.max(deadline);
            self.feed(Event::Tick);
        }
        self.now = until;
    }

    /// Has everything around the domain work, except that the guest does what it likes.
    fn cooperate(&mut self, time: Duration, guest_obeys: bool) {
        let until = self.now + time;
        while self.now < until {
            self.work(true);
            self.step(Step::Gate(true));
            let asked = matches!(self.lifecycle.state(), State::Stopping(_));
            if self.vmm && asked && (guest_obeys || self.killed > 0) {
                self.exit(Exit::PoweredOff);
            }
            self.wait(Duration::from_secs(1));
        }
    }
}

proptest! {
    #[test]
    fn a_domain_that_is_stopped_is_off_in_bounded_time_whatever_its_guest_does(before in steps()) {
        let mut world = World::after(before);
        world.feed(Event::Stop { now: false });
        world.killed = 0;
        world.cooperate(STOP_DEADLINE + END_GRACE + Duration::from_secs(5), false);
        prop_assert_eq!(world.lifecycle.state(), State::Off);
        prop_assert!(!world.vmm && !world.devices);
    }

    #[test]
    fn a_domain_that_is_started_runs_in_bounded_time_once_nothing_is_in_its_way(before in steps()) {
        let mut world = World::after(before);
        world.feed(Event::Start);
        for _ in 0..(STOP_DEADLINE + BACKOFF_MAX).as_secs() {
            world.step(Step::Answer);
            world.cooperate(Duration::from_secs(1), true);
        }
        prop_assert!(matches!(world.lifecycle.state(), State::Running { .. }), "{:?}", world.lifecycle);
    }

    #[test]
    fn a_delay_is_never_longer_than_the_longest(before in steps()) {
        let world = World::after(before);
        if let State::Backoff { until } = world.lifecycle.state() {
            prop_assert!(until <= world.now + BACKOFF_MAX);
            prop_assert!(world.lifecycle.problem().is_some());
        }
    }

    #[test]
    fn a_domain_nobody_wants_starts_no_vmm(before in steps(), after in steps()) {
        let mut world = World::after(before);
        world.feed(Event::Stop { now: false });
        let spawned = world.spawned;
        for step in after.into_iter().filter(|s| !matches!(s, Step::Ask(Event::Start | Event::Restart) | Step::Found(_))) {
            world.step(step);
        }
        prop_assert_eq!(world.spawned, spawned);
    }
}

fn running() -> World {
    let mut world = World::new();
    world.feed(Event::Start);
    world.work(true);
    world.step(Step::Gate(true));
    world.feed(Event::Answered);
    assert_eq!(world.lifecycle.state().word(), "running");
    world
}

#[test]
fn a_guest_that_powers_off_stays_off_and_its_devices_go_back() {
    let mut world = running();
    world.exit(Exit::PoweredOff);
    assert_eq!(world.work, Some(Action::Release));
    world.work(true);
    world.wait(Duration::from_secs(3600));
    assert_eq!((world.lifecycle.state(), world.spawned), (State::Off, 1));
}

#[test]
fn a_vmm_that_keeps_failing_is_restarted_after_ever_longer_delays_and_then_left_off() {
    let mut world = running();
    let mut delays = Vec::new();
    for _ in 0..7 {
        world.exit(Exit::Failed("it fell over".into()));
        let State::Backoff { until } = world.lifecycle.state() else { panic!() };
        delays.push((until - world.now).as_secs());
        world.wait(until - world.now);
        world.work(true);
        world.step(Step::Gate(true));
    }
    assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60]);
    assert_eq!((world.lifecycle.restarts(), world.spawned), (7, 8));
    assert!(!world.lifecycle.has_given_up());
    world.exit(Exit::Failed("it fell over".into()));
    assert_eq!(world.work, Some(Action::Release));
    world.work(true);
    world.wait(TRY_LEFT_OFF - Duration::from_secs(1));
    assert_eq!((world.lifecycle.state(), world.spawned), (State::Off, 8));
    assert!(world.lifecycle.is_left_off() && !world.lifecycle.wanted());
    assert!(world.lifecycle.problem().is_some_and(|p| p.contains("it fell over")));
}

/// Makes a domain that was left off.
fn left_off() -> World {
    let mut world = running();
    while !world.lifecycle.is_left_off() {
        world.step(Step::Exit(Exit::Failed("it fell over".into())));
        world.work(true);
        world.step(Step::Gate(true));
        world.wait(Duration::from_secs(1));
    }
    world
}

#[test]
fn a_domain_that_was_left_off_is_tried_once_by_who_looks_at_it_and_anew_by_who_starts_it() {
    let mut world = left_off();
    world.feed(Event::TryAgain);
    world.cooperate(Duration::from_secs(1), true);
    assert_eq!((world.spawned, world.lifecycle.is_left_off()), (9, false));
    world.exit(Exit::Failed("it fell over".into()));
    world.work(true);
    assert!(world.lifecycle.is_left_off(), "{:?}", world.lifecycle);

    world.feed(Event::TryAgain);
    world.cooperate(HEALTHY_AFTER, true);
    world.exit(Exit::Failed("it fell over".into()));
    assert_eq!(world.lifecycle.state().word(), "retrying", "it had run well");

    let mut world = left_off();
    world.wait(TRY_LEFT_OFF);
    world.cooperate(Duration::from_secs(1), true);
    assert!(matches!(world.lifecycle.state(), State::Running { .. }), "tried by itself");

    let mut world = running();
    while !world.lifecycle.has_given_up() {
        world.step(Step::Exit(Exit::Failed("it fell over".into())));
        if !world.lifecycle.has_given_up() {
            world.cooperate(Duration::from_secs(1), true);
        }
    }
    assert_eq!(world.lifecycle.state().word(), "releasing");
    world.feed(Event::TryAgain);
    world.cooperate(Duration::from_secs(5), true);
    assert!(matches!(world.lifecycle.state(), State::Running { .. }), "once its devices are back");

    let mut world = left_off();
    world.feed(Event::Start);
    for _ in 0..7 {
        world.cooperate(BACKOFF_MAX, true);
        world.step(Step::Exit(Exit::Failed("it fell over".into())));
        assert!(!world.lifecycle.has_given_up());
    }
    let mut world = running();
    world.feed(Event::Stop { now: false });
    world.exit(Exit::PoweredOff);
    world.work(true);
    world.feed(Event::TryAgain);
    assert_eq!((world.lifecycle.state(), world.work), (State::Off, None), "somebody wants it off");
}
