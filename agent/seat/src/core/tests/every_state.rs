//! The promises in every state that small seats can be in: two domains, and few keys, devices and questions, in every order.
//!
//! Each walk ends because there is no other state: what it shows holds for any number of these events. Keys that are down may be pressed again,
//! as those that repeat are; as many as a hand holds are down at once. The numbers of states are those of two domains in front in turn, locked and
//! not, with everything that is held, withheld, asked and pinned.

use std::collections::BTreeSet;
use std::rc::Rc;

use proptest::prelude::TestCaseError;
use seat_link::{Rect, ToVmm};
use statewalk::{Broken, World, bytes_of, walk};

use super::onlooker::Onlooker;
use super::*;
use crate::domain::Delivery;

const ESCAPE: u16 = 1;
/// After this an idle seat locks.
const IDLE: Duration = Duration::from_secs(45);

/// What can happen.
#[derive(Clone, Debug)]
enum Happens {
    /// A key goes down, or repeats, or up.
    Key(DeviceId, u16, bool),
    /// Anything else that the seat is told.
    Told(Input),
    /// Time passes; nobody has looked at it yet.
    Passes(Duration),
    /// A domain's VMM takes nothing more, or takes everything again.
    Full(DomainIndex, bool),
    /// What a VMM missed is made good, as the seat's thread does every so often.
    CatchUp(DomainIndex),
    /// A domain's VMM is gone, or another is there.
    There(DomainIndex, bool),
}

/// A fault, planted between the core and those it tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// What is down in the domain that is switched from stays down.
    LeavesKeysDown,
    /// The key of a chord goes to the domain in front.
    TellsOfTheChord,
    /// A locked seat passes keys on.
    PassesWhileLocked,
    /// Keys go to the other domain.
    Misdirects,
    /// A key that is held across a switch counts as pressed anew when it repeats.
    ForgetsWhatIsHeld,
    /// Hotkeys are not heard.
    HearsNoChord,
    /// Enter answers a question at once.
    AnswersAtOnce,
    /// A VMM that missed something is told the next key all the same.
    GoesOnAfterALoss,
}

/// A VMM's end of its link, as its guest feels it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Vmm {
    gone: bool,
    full: bool,
    delivery: Delivery,
    down: BTreeSet<u16>,
}

impl Vmm {
    fn told(&mut self, message: &ToVmm, fault: Option<Fault>) {
        let Self { gone, full, delivery, down } = self;
        let mut send = |message: &ToVmm| receive(down, *full, *gone, message);
        if fault == Some(Fault::GoesOnAfterALoss) {
            send(message);
        } else {
            delivery.pass(message, &mut send);
        }
    }

    fn catch_up(&mut self) {
        let Self { gone, full, delivery, down } = self;
        delivery.catch_up(&mut |message| receive(down, *full, *gone, message));
    }
}

/// Has a guest take a message, if it gets it; returns whether the link took it.
fn receive(down: &mut BTreeSet<u16>, full: bool, gone: bool, message: &ToVmm) -> bool {
    match message {
        // As the link does: that it is gone is noticed where it is read.
        _ if gone => return true,
        _ if full => return false,
        ToVmm::ReleaseAll => down.clear(),
        ToVmm::Input(_, events) => {
            for event in events.iter().filter(|event| event.kind == codes::EV_KEY) {
                if event.value == 0 {
                    down.remove(&event.code)
                } else {
                    down.insert(event.code)
                };
            }
        }
        _ => {}
    }
    true
}

/// What a small world is made of.
#[derive(Default)]
struct Alphabet {
    keys: Vec<(DeviceId, u16)>,
    /// Keys that are down at once.
    most: usize,
    others: Vec<Happens>,
    idle_lock: Option<Duration>,
    fault: Option<Fault>,
}

#[derive(Clone)]
struct Small {
    alphabet: Rc<Alphabet>,
    seat: Seat,
    onlooker: Onlooker,
    vmms: [Vmm; 2],
}

impl Small {
    fn of(alphabet: Alphabet) -> Self {
        let mut seat = Seat::new();
        seat.feed(Input::Settings(Settings { idle_lock: alphabet.idle_lock, ..settings() }));
        let onlooker = Onlooker::of(&seat);
        Self { alphabet: Rc::new(alphabet), seat, onlooker, vmms: Default::default() }
    }

    fn feed(&mut self, input: Input) -> Result<(), TestCaseError> {
        let before = (self.seat.core.front(), self.seat.core.locked());
        let out = if self.alphabet.fault == Some(Fault::HearsNoChord) {
            let deaf = Settings { hotkeys: Hotkeys::default(), ..settings() };
            self.seat.feed(Input::Settings(deaf));
            self.seat.feed(input.clone())
        } else {
            self.seat.feed(input.clone())
        };
        let out = self.spoilt(&input, out, before.1);
        self.onlooker.judges(&self.seat, &input, &out, before)?;
        for output in out {
            if let Output::Send(domain, target, events) = output {
                let fault = self.alphabet.fault;
                self.vmms[domain].told(&ToVmm::Input(target, events), fault);
            }
        }
        Ok(())
    }

    /// Returns what comes of an input with the fault that is planted.
    fn spoilt(&mut self, input: &Input, mut out: Vec<Output>, locked: bool) -> Vec<Output> {
        let key = match input {
            Input::Report(_, report) => report.keys.first().copied(),
            _ => None,
        };
        let switched = out.iter().any(|output| matches!(output, Output::Switched { .. }));
        let pressed = out.iter().any(|output| matches!(output, Output::Pressed(..)));
        match (self.alphabet.fault, key) {
            (Some(Fault::LeavesKeysDown), _) if switched => {
                out.retain(|output| !matches!(output, Output::Send(..)));
            }
            (Some(Fault::TellsOfTheChord), Some((code, true))) if pressed => {
                out.push(told(self.seat.core.front(), code, 1));
            }
            (Some(Fault::PassesWhileLocked), Some((code, true))) if locked => {
                out.push(told(self.seat.core.front(), code, 1));
            }
            (Some(Fault::Misdirects), _) => {
                for output in &mut out {
                    if let Output::Send(domain, ..) = output {
                        *domain = 1 - *domain;
                    }
                }
            }
            (Some(Fault::ForgetsWhatIsHeld), _) if switched => {
                self.seat.core.devices.values_mut().for_each(|device| device.held.clear());
            }
            (Some(Fault::AnswersAtOnce), Some((ENTER, true))) if self.onlooker.is_asked() => {
                self.seat.core.question = None;
                out = vec![Output::Answered(1, true)];
            }
            _ => {}
        }
        out
    }
}

impl World for Small {
    type Event = Happens;
    type Identity = Box<[u8]>;

    fn events(&self) -> Vec<Happens> {
        let mut events = Vec::new();
        for &(id, code) in &self.alphabet.keys {
            let held = self.onlooker.is_held(id, code);
            if held || self.onlooker.holds() < self.alphabet.most {
                events.push(Happens::Key(id, code, true));
            }
            if held {
                events.push(Happens::Key(id, code, false));
            }
        }
        // Of the time that a question is open, its end and so much after its begin are told apart.
        let begins = OPEN_FOR.saturating_sub(READ_FOR * 2);
        let left =
            self.seat.core.question_deadline().map(|until| until.saturating_sub(self.seat.now));
        let long_open = left.is_some_and(|left| left < begins);
        let others = self.alphabet.others.iter().filter(|event| {
            !(long_open && matches!(event, Happens::Passes(time) if *time == READ_FOR))
        });
        events.extend(others.cloned());
        events
    }

    fn identity(&self) -> Box<[u8]> {
        let Seat { core, now } = &self.seat;
        let Core { front, locked, devices, down, withheld, gesture, pointer, .. } = core;
        let idle = core.settings.idle_lock.map(|most| (*now - core.last_input).min(most));
        let empty = core.geometry.pictures[0].is_empty();
        let question = core.question.map(|question| question.at(*now));
        let keys = (front, locked, devices, down, withheld, gesture);
        let rest = (pointer, empty, idle, question, self.onlooker.at(*now), &self.vmms);
        bytes_of(&(keys, rest))
    }

    fn step(&mut self, event: &Happens) -> Result<(), String> {
        let judged = match event.clone() {
            Happens::Key(id, code, down) => self
                .feed(Input::Report(id, Report { keys: vec![(code, down)], ..Report::default() })),
            Happens::Told(input) => self.feed(input),
            Happens::Passes(time) => {
                self.seat.now += time;
                Ok(())
            }
            Happens::Full(domain, full) => {
                self.vmms[domain].full = full;
                Ok(())
            }
            Happens::CatchUp(domain) => {
                self.vmms[domain].catch_up();
                Ok(())
            }
            Happens::There(domain, there) => {
                self.vmms[domain] = Vmm { gone: !there, ..Vmm::default() };
                Ok(())
            }
        };
        judged.map_err(|error| error.to_string())?;
        for (vmm, down) in self.vmms.iter().zip(&self.onlooker.down) {
            // One that missed something lets everything go before it is told anything.
            if !vmm.delivery.has_lost_input() && !vmm.down.is_subset(down) {
                return Err(format!("a guest has {:?} down, and {down:?} is held", vmm.down));
            }
        }
        Ok(())
    }
}

fn inputs(inputs: impl IntoIterator<Item = Input>) -> Vec<Happens> {
    inputs.into_iter().map(Happens::Told).collect()
}

/// Makes the world of every chord, a letter, the lock and the switches that the daemon asks for, on one keyboard that comes and goes.
fn hotkeys() -> Alphabet {
    let keys = [CTRL, ALT, A, ONE, TWO, C, V, L, B];
    let together = Report { keys: vec![(CTRL, false), (ALT, false)], ..Report::default() };
    Alphabet {
        keys: keys.map(|code| (KEYBOARD, code)).to_vec(),
        most: 4,
        others: inputs([
            Input::Report(KEYBOARD, together),
            Input::Switch(0),
            Input::Switch(1),
            Input::Lock,
            Input::Unlock,
            Input::Unplugged(KEYBOARD),
            Input::Plugged(KEYBOARD, None),
        ]),
        ..Alphabet::default()
    }
}

/// Makes the world of two keyboards and a scanner that is pinned, and is not any more, to one domain or the other.
fn devices() -> Alphabet {
    let keys = [(KEYBOARD, CTRL), (KEYBOARD, ALT), (KEYBOARD, A), (KEYBOARD, TWO)];
    let others = [(SECOND, RIGHT_CTRL), (SECOND, A), (SCANNER, A)];
    Alphabet {
        keys: [&keys[..], &others].concat(),
        most: 4,
        others: inputs([
            Input::Switch(0),
            Input::Lock,
            Input::Unlock,
            Input::Unplugged(SECOND),
            Input::Plugged(SECOND, None),
            Input::Plugged(SCANNER, None),
            Input::Plugged(SCANNER, Some(0)),
            Input::Plugged(SCANNER, Some(1)),
        ]),
        ..Alphabet::default()
    }
}

/// Makes the world of VMMs that take nothing, die and come back, under a keyboard.
fn links() -> Alphabet {
    let of = |domain| {
        [
            Happens::Full(domain, true),
            Happens::Full(domain, false),
            Happens::CatchUp(domain),
            Happens::There(domain, false),
            Happens::There(domain, true),
        ]
    };
    let seat = inputs([Input::Switch(0), Input::Switch(1), Input::Lock, Input::Unlock]);
    Alphabet {
        keys: vec![(KEYBOARD, SHIFT), (KEYBOARD, A), (SECOND, A)],
        most: 3,
        others: [of(0).to_vec(), of(1).to_vec(), seat].concat(),
        ..Alphabet::default()
    }
}

/// Makes the world of a pointer in the banner and on a picture that comes and goes, its buttons and its wheel, and a chord.
fn pointer() -> Alphabet {
    let to = |x, y| Report { motion: Some(Motion::To(x, y)), ..Report::default() };
    let wheel = Report { wheel: vec![(8, 1)], ..Report::default() };
    let mut hidden = geometry();
    hidden.pictures[0] = Rect::default();
    Alphabet {
        keys: vec![(KEYBOARD, CTRL), (KEYBOARD, ALT), (KEYBOARD, TWO), (MOUSE, LEFT)],
        most: 4,
        others: inputs([
            Input::Report(MOUSE, to(POSITION_MAX * 9 / 10, 0)),
            Input::Report(MOUSE, to(0, 0)),
            Input::Report(MOUSE, to(POSITION_MAX / 2, POSITION_MAX / 2)),
            Input::Report(MOUSE, wheel),
            Input::Geometry(geometry()),
            Input::Geometry(hidden),
            Input::Switch(0),
            Input::Lock,
            Input::Unlock,
            Input::Ask(1),
            Input::Withdraw(1),
        ]),
        ..Alphabet::default()
    }
}

/// Questions, what answers them and what does not, and time.
fn questions() -> Alphabet {
    let keys = [A, ONE, ENTER, ESCAPE];
    let seat = inputs([
        Input::Ask(1),
        Input::Choose(1, 2),
        Input::Shown(1, true),
        Input::Shown(1, false),
        Input::Withdraw(1),
        Input::Switch(0),
        Input::Switch(1),
        Input::Lock,
        Input::Unlock,
        Input::Tick,
    ]);
    Alphabet {
        keys: keys.map(|code| (KEYBOARD, code)).to_vec(),
        most: 2,
        others: [vec![Happens::Passes(READ_FOR), Happens::Passes(OPEN_FOR)], seat].concat(),
        ..Alphabet::default()
    }
}

/// Makes the world in which nobody does anything for so long that the screen locks, with keys held on a keyboard and a scanner.
fn idleness() -> Alphabet {
    Alphabet {
        keys: vec![(KEYBOARD, CTRL), (KEYBOARD, A), (SECOND, A), (SCANNER, A)],
        most: 3,
        others: [
            vec![Happens::Passes(IDLE / 3), Happens::Passes(IDLE)],
            inputs([Input::Tick, Input::Switch(0), Input::Switch(1), Input::Unlock]),
        ]
        .concat(),
        idle_lock: Some(IDLE),
        ..Alphabet::default()
    }
}

/// Visits every state there is, and finds that there are as many as it takes to believe it.
fn walked(alphabet: Alphabet, at_least: usize) {
    let seen = walk(Small::of(alphabet), usize::MAX).unwrap_or_else(|broken| panic!("{broken:?}"));
    assert!(seen.complete && seen.states >= at_least, "{seen:?}");
}

// 9,568 states, the farthest 9 events away.
#[test]
fn every_chord_pressed_in_any_way_keeps_every_promise() {
    walked(hotkeys(), 9_000);
}

// 15,852 states, the farthest 15 events away.
#[test]
fn two_keyboards_and_a_pinned_scanner_keep_every_promise() {
    walked(devices(), 15_000);
}

// 11,536 states, the farthest 16 events away.
#[test]
fn vmms_that_take_nothing_die_and_come_back_have_nothing_down_that_nobody_holds() {
    walked(links(), 11_000);
}

// 4,730 states, the farthest 14 events away.
#[test]
fn a_pointer_that_goes_anywhere_keeps_every_promise() {
    walked(pointer(), 4_500);
}

// 2,600 states, the farthest 12 events away.
#[test]
fn questions_and_time_keep_every_promise() {
    walked(questions(), 2_500);
}

// 1,000 states, the farthest 10 events away.
#[test]
fn a_seat_at_which_nobody_does_anything_keeps_every_promise() {
    walked(idleness(), 1_000);
}

#[test]
fn a_planted_fault_is_found_by_the_shortest_way() {
    let found = |alphabet: Alphabet, fault| {
        let alphabet = Alphabet { fault: Some(fault), ..alphabet };
        let Broken { way, promise } = walk(Small::of(alphabet), 8).expect_err("it is not found");
        (way.len(), promise)
    };
    for (fault, events, words) in [
        (Fault::LeavesKeysDown, 2, "a key is down in the domain that was switched from"),
        (Fault::TellsOfTheChord, 3, "was told and nobody pressed it anew"),
        (Fault::PassesWhileLocked, 2, "locked, and something was told"),
        (Fault::Misdirects, 1, "a key typed by itself is lost"),
        (Fault::ForgetsWhatIsHeld, 3, "was told and nobody pressed it anew"),
        (Fault::HearsNoChord, 3, "was told and nobody pressed it anew"),
    ] {
        let (length, promise) = found(hotkeys(), fault);
        assert!(promise.contains(words), "{fault:?}: {promise}");
        assert_eq!(length, events, "{fault:?}: {promise}");
    }
    let (length, promise) = found(questions(), Fault::AnswersAtOnce);
    assert!(promise.contains("yes to what nobody can have read"), "{promise}");
    assert_eq!(length, 2);
    let (length, promise) = found(links(), Fault::GoesOnAfterALoss);
    assert!(promise.contains("is held"), "{promise}");
    assert_eq!(length, 3);
}
