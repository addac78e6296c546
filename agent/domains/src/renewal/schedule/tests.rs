use proptest::prelude::*;

use super::*;

const HOUR: u64 = 3600;
const SHIFTS: [u16; 3] = [7 * 60, 15 * 60, 23 * 60];

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Returns a day's clock: 2026-11-28, this late.
fn clock(hours: i64, minutes: i64) -> LocalTime {
    LocalTime(20_785 * DAY + hours * HOUR.cast_signed() + minutes * 60)
}

/// A PC with one domain that runs, and clocks that are moved.
struct World {
    schedule: Schedule,
    now: ScheduleTime,
    runs: Option<DomainUsage>,
    /// What was begun.
    begun: Vec<DueReason>,
}

impl World {
    fn new(rules: Rules, local: LocalTime) -> Self {
        let now = ScheduleTime { time: seconds(1000), local };
        let runs = Some(DomainUsage { since: now.time, used: None });
        Self { schedule: Schedule::new(rules, local), now, runs, begun: Vec::new() }
    }

    fn shifts(local: LocalTime) -> Self {
        Self::new(Rules { at: SHIFTS.to_vec(), when_idle: None }, local)
    }

    fn idle(minutes: u64) -> Self {
        let when_idle = Some(seconds(minutes * 60));
        Self::new(Rules { at: Vec::new(), when_idle }, clock(12, 0))
    }

    fn look(&mut self) {
        if let Some(Output::Begin(due)) = self.schedule.look(self.now, self.runs) {
            self.begun.push(due);
            self.runs = Some(DomainUsage { since: self.now.time, used: None });
        }
    }

    /// Lets time pass, with a look in every second that it is asked for.
    fn pass(&mut self, time: Duration) {
        let until = self.now.time + time;
        while self.now.time < until {
            let wait = self.schedule.wait(self.now, self.runs).unwrap_or(time);
            let step = wait.max(seconds(1)).min(until - self.now.time);
            self.now.time += step;
            self.now.local = self.now.local.plus(step);
            self.look();
        }
    }

    fn set(&mut self, local: LocalTime) {
        self.now.local = local;
        self.look();
    }

    /// Has somebody work there.
    fn work(&mut self) {
        if let Some(runs) = &mut self.runs {
            runs.used = Some(self.now.time);
        }
        self.look();
    }

    fn counts(&self) -> Option<Countdown> {
        self.schedule.countdown(self.now.time)
    }

    fn put_off(&mut self) -> bool {
        self.schedule.put_off(self.now).is_some()
    }
}

// Shows: I-4.
#[test]
fn a_domain_begins_anew_at_each_of_its_times_a_minute_after_it_was_said() {
    let mut world = World::shifts(clock(6, 0));
    world.pass(seconds(HOUR - 1));
    assert_eq!(world.counts(), None);
    world.pass(seconds(1));
    let counts = world.counts().unwrap();
    assert_eq!((counts.due, counts.left, counts.may_put_off), (DueReason::Time, COUNTDOWN, true));
    world.pass(seconds(59));
    assert_eq!(world.counts().unwrap().left, seconds(1));
    assert!(world.begun.is_empty());
    world.pass(seconds(1));
    assert_eq!(world.begun, [DueReason::Time]);
    world.pass(seconds(24 * HOUR));
    assert_eq!(world.begun.len(), 4, "three times a day");
}

#[test]
fn a_renewal_is_put_off_once_and_then_it_happens() {
    let mut world = World::shifts(clock(14, 59));
    world.pass(seconds(90));
    assert!(world.put_off());
    assert_eq!(world.counts(), None);
    assert!(!world.put_off(), "there is nothing to be put off");
    world.pass(PUT_OFF - seconds(1));
    assert!(world.begun.is_empty() && world.counts().is_none());
    world.pass(seconds(1));
    assert!(!world.counts().unwrap().may_put_off);
    assert!(!world.put_off(), "not again");
    world.pass(COUNTDOWN);
    assert_eq!(world.begun, [DueReason::Time]);
    // The next one can be put off again.
    world.pass(seconds(8 * HOUR) - PUT_OFF - COUNTDOWN);
    assert!(world.counts().unwrap().may_put_off);
}

#[test]
fn a_countdown_that_the_pc_slept_through_runs_from_its_start() {
    let mut world = World::shifts(clock(14, 59));
    world.pass(seconds(60));
    let whole = world.counts().unwrap().left;
    world.now.time += 10 * COUNTDOWN;
    world.schedule.count_anew(world.now.time);
    world.look();
    assert!(world.begun.is_empty(), "nobody can have seen it");
    assert_eq!(world.counts().unwrap().left, whole);
    world.pass(COUNTDOWN);
    assert_eq!(world.begun, [DueReason::Time]);
    // Where none runs there is none to begin.
    world.schedule.count_anew(world.now.time);
    assert_eq!(world.counts(), None);
}

#[test]
fn what_is_put_off_waits_for_its_time_and_no_longer_however_the_clock_is_set() {
    for (set, left) in [(clock(12, 0), PUT_OFF), (clock(15, 10), seconds(5 * 60))] {
        let mut world = World::shifts(clock(14, 59));
        world.pass(seconds(60));
        assert!(world.put_off());
        world.set(set);
        world.pass(left - seconds(1));
        assert_eq!(world.counts(), None, "{set:?}");
        world.pass(seconds(1));
        assert!(world.counts().is_some(), "{set:?}");
    }
    let mut world = World::shifts(clock(14, 59));
    world.pass(seconds(60));
    assert!(world.put_off());
    world.set(clock(15, 16));
    assert!(world.counts().is_some(), "a clock that is set forth has shown its time");
}

#[test]
fn a_domain_that_does_not_run_when_its_time_comes_or_began_anew_since_is_left_as_it_is() {
    let mut world = World::shifts(clock(6, 59));
    let runs = world.runs.take();
    world.pass(seconds(120));
    world.runs = runs;
    world.pass(seconds(HOUR));
    assert!(world.begun.is_empty() && world.counts().is_none(), "it was off");
    let mut world = World::shifts(clock(6, 59));
    world.pass(seconds(90));
    assert!(world.counts().is_some());
    world.runs = Some(DomainUsage { since: world.now.time, used: None });
    world.look();
    assert_eq!(world.counts(), None, "it began anew during the countdown");
    world.pass(seconds(HOUR));
    assert!(world.begun.is_empty());
}

#[test]
fn what_runs_since_before_its_time_is_due_for_the_agent_that_takes_it_up() {
    let rules = || Rules { at: SHIFTS.to_vec(), when_idle: None };
    let taken_up = |since: LocalTime| {
        let mut world = World::new(rules(), clock(7, 30));
        world.schedule = Schedule::new(rules(), since);
        world.look();
        world.counts().is_some()
    };
    assert!(taken_up(clock(6, 59)));
    assert!(!taken_up(clock(7, 1)));
}

#[test]
fn summer_time_makes_no_time_come_twice_and_leaves_none_out() {
    let at_night = || Rules { at: vec![2 * 60 + 30], when_idle: None };
    let mut world = World::new(at_night(), clock(1, 0));
    world.pass(seconds(2 * HOUR - 1));
    assert_eq!(world.begun.len(), 1);
    // 03:00 is 02:00 again.
    world.set(clock(2, 0));
    world.pass(seconds(23 * HOUR));
    assert_eq!(world.begun.len(), 1, "not twice in one night");
    world.pass(seconds(2 * HOUR));
    assert_eq!(world.begun.len(), 2);
    // 02:00 is 03:00: there is no 02:30.
    let mut world = World::new(at_night(), clock(1, 0));
    world.pass(seconds(HOUR - 1));
    world.set(clock(3, 0));
    world.pass(COUNTDOWN);
    assert_eq!(world.begun.len(), 1);
}

#[test]
fn a_clock_that_was_a_day_ahead_keeps_nothing_from_its_time() {
    let mut world = World::shifts(clock(6, 0));
    world.set(clock(24 + 7, 5));
    world.pass(COUNTDOWN);
    assert_eq!(world.begun.len(), 1);
    world.set(clock(7, 6));
    world.pass(seconds(7 * HOUR));
    assert_eq!(world.begun.len(), 1);
    world.pass(seconds(HOUR));
    assert_eq!(world.begun.len(), 2, "at 15:00 by the clock as it is now");
}

#[test]
fn a_desktop_that_was_used_and_stands_idle_begins_anew_and_one_that_was_not_does_not() {
    let mut world = World::idle(30);
    world.pass(seconds(9 * HOUR));
    assert!(world.begun.is_empty() && world.counts().is_none(), "nobody worked there");
    world.work();
    world.pass(seconds(29 * 60));
    world.work();
    world.pass(seconds(30 * 60 - 1));
    assert_eq!(world.counts(), None);
    world.pass(seconds(1));
    assert_eq!(world.counts().unwrap().due, DueReason::Idle);
    world.pass(COUNTDOWN);
    assert_eq!(world.begun, [DueReason::Idle]);
    world.pass(seconds(9 * HOUR));
    assert_eq!(world.begun.len(), 1, "it was not used since");
}

#[test]
fn who_works_there_again_before_an_idle_desktop_begins_anew_keeps_it() {
    let mut world = World::idle(30);
    world.work();
    world.pass(seconds(30 * 60 + 30));
    assert!(world.counts().is_some());
    world.work();
    assert_eq!(world.counts(), None);
    world.pass(seconds(30 * 60 - 1));
    assert!(world.begun.is_empty());
    world.pass(seconds(1));
    assert!(world.put_off(), "it is idle anew, and can be put off");
    world.pass(seconds(60));
    world.work();
    world.pass(PUT_OFF);
    assert!(world.begun.is_empty() && world.counts().is_none());
    // Without that it is done once that time is over.
    world.pass(seconds(30 * 60) - PUT_OFF);
    assert!(world.put_off());
    world.pass(PUT_OFF + COUNTDOWN);
    assert_eq!(world.begun, [DueReason::Idle]);
}

#[test]
fn a_time_of_day_that_comes_while_an_idle_desktop_is_counted_down_is_not_lost() {
    let rules = Rules { at: SHIFTS.to_vec(), when_idle: Some(seconds(60)) };
    let mut world = World::new(rules, clock(6, 58));
    world.work();
    world.pass(seconds(90));
    assert_eq!(world.counts().unwrap().due, DueReason::Idle);
    world.pass(seconds(29));
    world.pass(seconds(1));
    world.work();
    assert!(
        world.begun == [DueReason::Time]
            || world.counts().is_some_and(|counts| counts.due == DueReason::Time)
    );
    world.pass(COUNTDOWN);
    assert_eq!(world.begun.len(), 1, "once for both");
}

fn rules() -> impl Strategy<Value = Rules> {
    let minute = prop_oneof![Just(0), Just(1439), 0_u16..1440];
    prop::collection::btree_set(minute, 1..6)
        .prop_map(|at| Rules { at: at.into_iter().collect(), when_idle: None })
}

/// Returns how often one of the times lies after `from` and not after `to`.
fn times_between(rules: &Rules, from: LocalTime, to: LocalTime) -> usize {
    std::iter::successors(rules.first_after(from), |at| rules.first_after(*at))
        .take_while(|at| *at <= to)
        .count()
}

/// Looks, and ends the countdown at once; whether one had begun.
fn is_due(world: &mut World) -> bool {
    world.look();
    let due = world.counts().is_some();
    if due {
        // However often the clock is set at one moment, what begins anew does so later than it last did.
        world.now.time += Duration::from_nanos(1);
        world.runs = Some(DomainUsage { since: world.now.time, used: None });
    }
    due
}

proptest! {
    #[test]
    fn every_time_that_is_passed_makes_a_domain_due_once_and_nothing_else_does(
        rules in rules(),
        start in 0..3 * DAY,
        steps in prop::collection::vec(1_u64..1800, 1..300),
    ) {
        let mut world = World::new(rules.clone(), LocalTime(start));
        for step in steps {
            let before = world.now.local;
            world.now.time += seconds(step);
            world.now.local = before.plus(seconds(step));
            let passed = times_between(&rules, before, world.now.local);
            prop_assert_eq!(is_due(&mut world), passed > 0, "one for all that were passed");
        }
    }

    #[test]
    fn whatever_the_clock_is_set_to_no_time_comes_twice_within_the_slack_and_none_is_too_far_away(
        rules in rules(),
        start in 10 * DAY..13 * DAY,
        steps in prop::collection::vec((0_u64..7200, prop_oneof![Just(0), -3 * DAY..3 * DAY, -3600_i64..3600]), 1..100),
        within in any::<bool>(),
    ) {
        let slack = SLACK.as_secs().cast_signed();
        let mut world = World::new(rules.clone(), LocalTime(start));
        let (mut highest, mut last_passed) = (LocalTime(start), LocalTime(start));
        for (step, set) in steps {
            world.now.time += seconds(step);
            world.now.local = LocalTime(world.now.local.plus(seconds(step)).0 + set);
            if within {
                world.now.local = world.now.local.max(LocalTime(highest.0 - slack));
            }
            let due = is_due(&mut world);
            let (local, next) = (world.now.local, world.schedule.next.unwrap());
            if within && due {
                prop_assert!(times_between(&rules, last_passed, local) > 0, "a time comes twice");
                last_passed = local;
            }
            if within && local > highest {
                prop_assert_eq!(due, times_between(&rules, highest, local) > 0);
            }
            prop_assert!(next > local && next.0 - local.0 <= rules.longest_gap() + slack);
            prop_assert_eq!(Some(next), rules.first_after(LocalTime(next.0 - 1)), "one of its times");
            highest = highest.max(local);
        }
    }

    #[test]
    fn nothing_that_happens_puts_a_renewal_off_twice_or_keeps_it_from_being_done(
        events in prop::collection::vec((0_u8..4, 0_u64..1200), 0..60),
        idle in prop::option::of(60_u64..1800),
    ) {
        let rules = Rules { at: SHIFTS.to_vec(), when_idle: idle.map(seconds) };
        let mut world = World::new(rules, clock(6, 59));
        let mut due_since = None;
        for (event, time) in events {
            match event {
                0 => world.pass(seconds(time)),
                1 => { world.put_off(); }
                2 => world.work(),
                _ => world.set(LocalTime(world.now.local.0 - i64::try_from(time).unwrap())),
            }
            let of_time = |stage: Stage| matches!(
                stage,
                Stage::Counting { due: DueReason::Time, .. } | Stage::PutOff { due: DueReason::Time, .. }
            );
            match (of_time(world.schedule.stage), due_since) {
                (true, None) => due_since = Some(world.now.time),
                (true, Some(since)) => {
                    // Each set of the clock may cost it the time of one put off at most, and it is not put off twice.
                    let most = seconds(1200 * 60) + PUT_OFF + COUNTDOWN * 2;
                    prop_assert!(world.now.time - since <= most);
                }
                (false, _) => due_since = None,
            }
        }
        if due_since.is_some() {
            let before = world.begun.len();
            world.pass(PUT_OFF + COUNTDOWN * 2);
            prop_assert!(world.begun.len() > before, "it is done in the end");
        }
    }
}
