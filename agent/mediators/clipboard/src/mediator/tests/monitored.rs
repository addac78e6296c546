//! The mediator with the monitor and a log on a disk, as the daemon has them speak: in every interleaving of guests' bytes, hotkeys, answers, policies,
//! failures of the log and deaths nothing crosses without its permit, and nothing outlives it.
//!
//! Commands wait in the mailbox of the mediator's thread until it takes them, and requests until the daemon comes round, while everything else goes on.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use audit::events::AgentStopped;
use audit::{Entry, Limits};
use monitor::core::Cause;
use monitor::{Denial, Event, Monitor, QuestionId, Request, RequestId};
use policy::Policy;
use policy::decide::Decision;
use policy::language::MediaType;
use policy::request::{ClipboardRequest, Context};
use proptest::collection::vec;
use proptest::prelude::*;
use recorder::Recorder;

use super::properties::{Model, Step, contents, guest, lie, number};
use super::world::{A, B, CAPABLE, TEXT, World, announce, policy_of, rule};
use crate::mediator::{Paste, hash};
use crate::service::{CLIPBOARD, Command};

/// Where the log lies that can be written no more once its file is full.
const ASIDE: &str = "aside";

/// Something that happens.
#[derive(Clone, Debug)]
enum Happens {
    /// To the mediator, of guests, hotkeys and time.
    To(Step),
    /// The daemon comes round, and takes what the mediator asks for.
    Daemon,
    /// The mediator's thread takes one command, or all.
    Takes,
    TakesAll,
    /// Somebody answers a question, of all that were ever shown.
    Answer(usize, bool),
    /// The policy of this number is put in force.
    Policy(usize),
    /// Something else is recorded, or nothing may be for a time.
    Note,
    Withhold(bool),
    /// The log can be written no more.
    LogFails,
    Dies,
    Starts,
}

fn happens() -> impl Strategy<Value = Happens> {
    let step = prop_oneof![
        6 => (any::<bool>(), guest()).prop_map(|(copy, guest)| Step::Hotkey(copy, guest)),
        4 => (guest(), vec(number(), 0..3)).prop_map(|(guest, types)| Step::Grab(guest, types)),
        5 => (guest(), number()).prop_map(|(guest, number)| Step::Request(guest, number)),
        8 => (guest(), number()).prop_map(|(guest, number)| Step::Content(guest, number)),
        1 => (guest(), vec(any::<u8>(), 0..40)).prop_map(|(guest, bytes)| Step::Bytes(guest, bytes)),
        4 => (guest(), lie()).prop_map(|(guest, event)| Step::Lies(guest, event)),
        1 => (0u64..70).prop_map(Step::Wait),
        1 => Just(Step::Lock),
        1 => guest().prop_map(Step::Reconnect),
    ];
    prop_oneof![
        16 => step.prop_map(Happens::To),
        8 => Just(Happens::Daemon),
        3 => Just(Happens::Takes),
        6 => Just(Happens::TakesAll),
        4 => (any::<usize>(), prop::bool::weighted(0.8)).prop_map(|(which, yes)| Happens::Answer(which, yes)),
        2 => (0..RULES.len()).prop_map(Happens::Policy),
        4 => (1..4u8).prop_map(Happens::usual),
        1 => Just(Happens::Note),
        1 => prop::bool::weighted(0.3).prop_map(Happens::Withhold),
        1 => Just(Happens::Dies),
        2 => Just(Happens::Starts),
    ]
}

impl Happens {
    /// What a paste takes, so that many get far.
    fn usual(step: u8) -> Self {
        match step {
            1 => Self::To(Step::Grab(B, vec![TEXT])),
            2 => Self::To(Step::Hotkey(true, B)),
            _ => Self::To(Step::Hotkey(false, A)),
        }
    }
}

/// From whom to whom, and what the rule says, by policy.
const RULES: [&[(&str, &str, &str)]; 4] = [
    &[],
    &[("b", "a", "allow")],
    &[("a", "b", "allow"), ("b", "a", "ask")],
    &[("a", "b", "ask"), ("b", "a", "allow")],
];

/// What is wrong on purpose, to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// The mediator is given what the monitor does not permit.
    PermitsItself,
    /// It is not told to take back what another policy does not allow, or what is on no record any more.
    KeepsOnPolicy,
    KeepsOnRecordLost,
}

/// A permit that the monitor gave.
#[derive(Debug)]
struct Given {
    to: usize,
    sha256: String,
    /// The policy, the life of the mediator's thread, and how often the log had failed, when it was given.
    policy: usize,
    life: u32,
    lost: u32,
}

struct Pair {
    world: World,
    model: Model,
    monitor: Monitor,
    mailbox: VecDeque<Command>,
    policies: Vec<Arc<Policy>>,
    in_force: usize,
    runs: bool,
    life: u32,
    lost: u32,
    questions: Vec<QuestionId>,
    agreed: BTreeSet<(u32, u64)>,
    given: Vec<Given>,
    /// What came to guests' programs.
    arrived: usize,
    fault: Option<Fault>,
    dir: tempfile::TempDir,
}

impl Pair {
    fn new(fault: Option<Fault>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Each entry begins a file, so that a log whose directory is gone fails soon.
        let limits = Limits { file_bytes: 1, ..Limits::default() };
        let mut monitor = Monitor::new(Recorder::open(dir.path(), limits), 1, &[CLIPBOARD]);
        monitor.started(CLIPBOARD);
        let policies = (1..).zip(RULES).map(|(serial, rules)| {
            let rules: String =
                rules.iter().map(|(from, to, action)| rule(from, to, action)).collect();
            policy_of(serial, &rules)
        });
        Self {
            world: World::ready(""),
            model: Model::default(),
            monitor,
            mailbox: VecDeque::new(),
            policies: policies.collect(),
            in_force: 0,
            runs: true,
            life: 0,
            lost: 0,
            questions: Vec::new(),
            agreed: BTreeSet::new(),
            given: Vec::new(),
            arrived: 0,
            fault,
            dir,
        }
    }

    fn happens(&mut self, happens: &Happens) -> Result<(), String> {
        match happens {
            Happens::To(step) if self.runs => self.model.play(&mut self.world, &[], step),
            Happens::To(_) => {}
            Happens::Daemon => self.daemon()?,
            Happens::Takes => self.takes(),
            Happens::TakesAll => {
                while !self.mailbox.is_empty() {
                    self.takes();
                }
            }
            Happens::Answer(which, yes) => {
                let question = which.checked_rem(self.questions.len());
                let question = question.map(|which| self.questions[which]);
                if let Some(id) = question.and_then(|question| self.monitor.answer(question, *yes))
                {
                    if *yes {
                        self.agreed.insert((self.life, id.number));
                    }
                    self.mailbox.push_back(Command::Answered(id.number, *yes));
                }
            }
            Happens::Policy(which) => {
                self.in_force = *which;
                self.monitor.enforce(u64::try_from(which + 1).unwrap(), None);
            }
            Happens::Note => {
                self.monitor.note(&[AgentStopped {}.into()]);
            }
            Happens::Withhold(withheld) => {
                let why = withheld.then(|| "the policy cannot be remembered".to_owned());
                self.monitor.withhold(why);
            }
            Happens::LogFails => {
                let log = recorder::directory(self.dir.path());
                if log.is_dir() {
                    fs::rename(&log, self.dir.path().join(ASIDE)).unwrap();
                    fs::write(&log, "in the way").unwrap();
                }
            }
            Happens::Dies => {
                self.monitor.died(CLIPBOARD);
                self.runs = false;
                // What it wanted last is heard after that, and what it was told is gone with it.
                self.daemon()?;
                self.mailbox.clear();
                self.life += 1;
                self.world = World::new(Arc::clone(&self.policies[self.in_force]));
            }
            Happens::Starts if !self.runs => {
                self.monitor.started(CLIPBOARD);
                self.runs = true;
                self.mailbox.clear();
                self.world = World::new(Arc::clone(&self.policies[self.in_force]));
                for guest in [A, B] {
                    self.world.connected(guest);
                    self.world.sends(guest, &announce(true, CAPABLE));
                }
            }
            Happens::Starts => {}
        }
        self.carry_out();
        self.check()
    }

    /// What the daemon does with what the monitor says, in the same turn.
    fn carry_out(&mut self) {
        for event in self.monitor.events() {
            match event {
                Event::Silence(id) => self.mailbox.push_back(Command::Answered(id.number, false)),
                Event::Hide(_) => {}
                Event::Revoke(_, Cause::Policy) => {
                    let policy = Arc::clone(&self.policies[self.in_force]);
                    if self.fault != Some(Fault::KeepsOnPolicy) || self.given.is_empty() {
                        self.mailbox.push_back(Command::Policy(policy));
                    }
                }
                Event::Revoke(_, Cause::Record) => {
                    self.lost += 1;
                    if self.fault != Some(Fault::KeepsOnRecordLost) {
                        self.mailbox.push_back(Command::RecordLost);
                    }
                }
                Event::Revoke(_, Cause::BreakGlass) => {}
            }
        }
    }

    /// What the daemon does with what the mediator says.
    fn daemon(&mut self) -> Result<(), String> {
        let id = |number| RequestId { mediator: CLIPBOARD, number };
        for (number, _) in std::mem::take(&mut self.world.asked) {
            match self.monitor.ask(id(number), Duration::from_secs(600)) {
                Ok(question) => self.questions.push(question),
                Err(_) => self.mailbox.push_back(Command::Answered(number, false)),
            }
        }
        for number in std::mem::take(&mut self.world.withdrawn) {
            self.monitor.withdraw(id(number));
        }
        for request in std::mem::take(&mut self.world.to_record) {
            self.authorize(request)?;
            self.carry_out();
        }
        Ok(())
    }

    fn authorize(&mut self, request: Request<Paste>) -> Result<(), String> {
        let (number, to, sha256) = (request.number, request.grant.to, hash(&request.grant.content));
        let needs_answer = request.owed.needs_answer();
        if self.fault == Some(Fault::PermitsItself) {
            let permit = monitor::testing::permit(request.grant, 1);
            self.mailbox.push_back(Command::Permitted(permit));
            return Ok(());
        }
        match self.monitor.authorize(CLIPBOARD, request) {
            Ok(permit) => {
                let entry = self.entry(permit.entry()).ok_or("a permit without its entry")?;
                let verdict = entry.verdict.as_deref();
                let is_its = entry.kind == "clipboard" && entry.detail["sha256"] == *sha256;
                if !is_its || verdict != Some(if needs_answer { "ask" } else { "allow" }) {
                    return Err(format!("a permit by another entry: {entry:?}"));
                }
                if needs_answer && !self.agreed.remove(&(self.life, number)) {
                    return Err(format!("a permit that nobody agreed to: {entry:?}"));
                }
                if !self.runs {
                    return Err("a permit for a thread that is no more".to_owned());
                }
                let (policy, life, lost) = (self.in_force, self.life, self.lost);
                self.given.push(Given { to, sha256, policy, life, lost });
                self.mailbox.push_back(Command::Permitted(permit));
            }
            Err(refused) if refused.denial == Denial::NotRunning && !self.runs => {}
            Err(refused) => self.mailbox.push_back(Command::Refused(number, refused.denial)),
        }
        Ok(())
    }

    /// The entry of this number, as it is on the disk.
    fn entry(&self, number: u64) -> Option<Entry> {
        let log = recorder::directory(self.dir.path());
        let log = if log.is_dir() { log } else { self.dir.path().join(ASIDE) };
        let mut found = None;
        audit::each(&log, |_, entry: Entry| {
            if entry.seq == number {
                found = Some(entry);
            }
            Ok(())
        })
        .ok()?;
        found
    }

    /// The mediator's thread takes a command.
    fn takes(&mut self) {
        let Some(command) = self.mailbox.pop_front().filter(|_| self.runs) else { return };
        let (mediator, now) = (&mut self.world.mediator, self.world.now);
        match command {
            Command::Answered(number, yes) => mediator.answered(number, yes),
            Command::Permitted(permit) => mediator.permitted(permit, now),
            Command::Refused(number, denial) => mediator.refused(number, denial),
            Command::RecordLost => mediator.record_lost(now),
            Command::Policy(policy) => mediator.policy(policy, now),
            Command::Hotkey(..) | Command::Locked | Command::Screen(_) => {}
        }
        self.world.settle();
    }

    /// Whatever comes to a guest's programs has a permit that stands, as far as the thread was told.
    fn check(&mut self) -> Result<(), String> {
        for guest in [A, B] {
            for bytes in contents(&mut self.world, guest) {
                // "There is nothing."
                if bytes.is_empty() {
                    continue;
                }
                self.arrived += 1;
                let sha256 = hash(&bytes);
                let stands = |given: &&Given| {
                    let told = given.lost == self.lost && self.allows(guest, given.policy);
                    let is_its =
                        given.to == guest && given.sha256 == sha256 && given.life == self.life;
                    // Until it has taken all commands it may not know.
                    is_its && (told || !self.mailbox.is_empty())
                };
                if !self.runs || !self.given.iter().any(|given| stands(&given)) {
                    return Err(format!("{} reached {guest}", String::from_utf8_lossy(&bytes)));
                }
            }
        }
        Ok(())
    }

    /// Whether the policy in force leaves what was permitted under that one to this guest.
    fn allows(&self, to: usize, permitted: usize) -> bool {
        let (from, to) = if to == A { ("b", "a") } else { ("a", "b") };
        let request = ClipboardRequest { from, to, media_type: MediaType::TextPlain, bytes: 4 };
        let request = policy::request::Request::Clipboard(request);
        let verdict = self.policies[self.in_force].decide(&request, &Context::default());
        permitted == self.in_force || verdict.decision() == Decision::Allow
    }

    /// Plays it, and then looks at what each guest still gets when everybody has come round.
    fn played(fault: Option<Fault>, all: &[Happens]) -> Result<Self, String> {
        let mut pair = Self::new(fault);
        let ask = |guest| Happens::To(Step::Request(guest, TEXT));
        let end = [Happens::Daemon, Happens::TakesAll, ask(A), ask(B)];
        all.iter().chain(&end).try_for_each(|happens| pair.happens(happens))?;
        Ok(pair)
    }
}

/// A text of B's is pasted in A, under the policy that allows it, and taken there.
fn pasted() -> Vec<Happens> {
    vec![
        Happens::Policy(1),
        Happens::TakesAll,
        Happens::usual(1),
        Happens::usual(2),
        Happens::To(Step::Content(B, TEXT)),
        Happens::usual(3),
        Happens::Daemon,
        Happens::TakesAll,
        Happens::To(Step::Request(A, TEXT)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn nothing_crosses_without_the_monitors_permit_or_outlives_it_whatever_dies_or_fails_when(
        before in vec(happens(), 0..60),
        fails in prop::option::weighted(0.4, Just([Happens::LogFails, Happens::Note])),
        after in vec(happens(), 0..40),
    ) {
        let all: Vec<Happens> = before.into_iter().chain(fails.into_iter().flatten()).chain(after).collect();
        Pair::played(None, &all).map_err(TestCaseError::fail)?;
        // From something that is offered.
        let all: Vec<Happens> = pasted().into_iter().chain(all).collect();
        let pair = Pair::played(None, &all).map_err(TestCaseError::fail)?;
        prop_assert!(pair.arrived > 0);
    }
}

#[test]
fn an_effect_without_a_permit_or_that_outlives_it_would_be_found() {
    let then = |all: &[Happens]| -> Vec<Happens> { [&pasted()[..], all].concat() };
    let fails = [Happens::LogFails, Happens::Note, Happens::Note];
    for (fault, all) in [
        (Fault::PermitsItself, then(&[])),
        (Fault::KeepsOnPolicy, then(&[Happens::Policy(0)])),
        (Fault::KeepsOnRecordLost, then(&fails)),
    ] {
        let right = Pair::played(None, &all).unwrap();
        assert!(right.arrived > 0);
        assert_eq!(right.lost, u32::from(fault == Fault::KeepsOnRecordLost));
        let found = Pair::played(Some(fault), &all).map(|_| ());
        let found = found.expect_err(&format!("{fault:?}"));
        assert!(found.ends_with("reached 0"), "{fault:?}: {found}");
    }
    // A death with the permit on its way, and with what was offered.
    for all in [&pasted()[..7], &pasted()] {
        let dead = [all, &[Happens::Dies, Happens::Starts, Happens::TakesAll]].concat();
        let pair = Pair::played(None, &dead).unwrap();
        assert_eq!((pair.given.len(), pair.life, pair.runs), (1, 1, true));
        assert_eq!(pair.arrived, usize::from(all.len() > 7));
    }
}
