//! What may happen in the world, and how that goes on.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};

use clock::Moment;
use usbfilter::Counts;

use super::*;
use crate::attached::{DetachReason, Served};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    PlugIn(Kind),
    PullOut,
    /// The thread has read what is there, or what has come in its place.
    ReadIt(Kind),
    ReadAnother,
    CannotRead,
    /// The thread has done what nobody waits for, or has let the device go.
    Done,
    Begin,
    CannotServe,
    /// The guest has it no more; the reason's number.
    Leave(usize),
    ThreadFails,
    /// The daemon writes down what it was asked to first.
    Write,
    /// The broker takes the first message.
    Deliver,
    /// A policy comes that gives such devices to this domain, or to none.
    Policy(Option<usize>),
    LogFails,
    LogIsBack,
    Attach(usize),
    Detach,
    Look {
        any: bool,
        all: bool,
    },
    AgentEnds,
    Tick,
    /// It has been read for too long.
    TickReading,
    TickLater,
}

pub(super) type Handle =
    fn(&mut Lifecycle, Moment, &mut Numbers, Event<Permit>) -> Vec<Effect<Permit>>;

/// The world with a life-cycle as it is, or with one that has a fault.
pub(super) struct Life {
    /// What may be plugged in, and may turn into each other.
    pub(super) kinds: Vec<Kind>,
    /// Domains that policies and people name.
    pub(super) domains: usize,
    /// Tasks that wait for the thread before anything new happens, besides one of serving it.
    pub(super) queued: usize,
    /// Why it may leave a domain by itself.
    pub(super) reasons: Vec<DetachReason>,
    /// What is left when a device is pulled out, where it is known that another can be plugged in.
    pub(super) seen: RefCell<HashSet<World>>,
    pub(super) handle: Handle,
}

fn counts() -> Counts {
    Counts { to_device: 0, to_guest: 0, commands: BTreeMap::new(), refused: 0 }
}

impl Life {
    fn drive(
        &self,
        world: &mut World,
        now: Moment,
        event: Event<Permit>,
        lucky: bool,
    ) -> Result<(), String> {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            let before = world.life.request();
            // Entries that were written before name it: the verdict's, the attachment's.
            let ends_well = matches!(event, Event::Permitted { .. } | Event::AttachByHand { .. });
            // The log says by now that it is attached.
            let in_the_log = match &event {
                Event::Permitted { .. } => true,
                Event::Refused { request, denial } => {
                    *denial != Denial::Unrecorded && world.life.unanswered.contains_key(request)
                }
                _ => false,
            };
            let effects = (self.handle)(&mut world.life, now, &mut world.numbers, event);
            let says_more = |effect: &Effect<Permit>| {
                matches!(effect, Effect::Start { .. } | Effect::Note(Note::NotAttached { .. }))
            };
            if in_the_log && !effects.iter().any(says_more) {
                return Err("the log says what became of each attachment".to_owned());
            }
            let ended = effects.iter().filter(|effect| match effect {
                Effect::Note(Note::Failed { request, .. } | Note::Unreadable { request, .. }) => {
                    request.is_some() && *request == before
                }
                Effect::Note(Note::Denied | Note::NotAttached { .. }) => before.is_some(),
                _ => false,
            });
            let (ended, gone) = (ended.count(), before.is_some() && world.life.request() != before);
            if gone && ended == 0 && !ends_well {
                return Err("how a request by hand ended is written down".to_owned());
            }
            for effect in effects {
                if next.is_some() {
                    return Err("an effect that is answered is the last of its list".to_owned());
                }
                next = world.carry_out(effect, lucky)?;
            }
        }
        Ok(())
    }

    /// Has the thread end its first task.
    fn done(&self, world: &mut World, lucky: bool) -> Result<(), String> {
        match world.tasks.pop_front() {
            Some((_, Job::GiveToHost(share))) => {
                world.hosts = world.plugged.map(|_| share);
                if world.streams.iter().any(|_| world.hosts == Some(Share::Whole)) {
                    return Err("what the host has no domain has".to_owned());
                }
                Ok(())
            }
            Some((_, Job::Deauthorize)) => {
                (world.authorised, world.hosts) = (false, None);
                Ok(())
            }
            Some((task, Job::Serve { .. })) => self.drive(
                world,
                START,
                Event::Served { task, served: Served { outcome: Ok(()), carried_nothing: false } },
                lucky,
            ),
            _ => Ok(()),
        }
    }

    fn step(&self, world: &mut World, step: Step, lucky: bool) -> Result<(), String> {
        let first = world.tasks.front().map_or(0, |(task, _)| *task);
        let event = match step {
            Step::PlugIn(kind) => {
                world.plugged = Some(kind);
                Event::PluggedIn
            }
            Step::PullOut => {
                world.outdate();
                (world.plugged, world.authorised, world.hosts) = (None, false, None);
                Event::Unplugged
            }
            Step::ReadIt(kind) => {
                world.tasks.pop_front();
                world.plugged = world.plugged.map(|_| kind);
                world.authorised = world.plugged.is_some();
                // What is not the seat's is taken from the host's drivers by being read.
                match (kind, &mut world.hosts) {
                    (Kind::Reader, hosts) => *hosts = None,
                    (Kind::KeyboardWithReader, Some(hosts)) => {
                        *hosts = Share::Interfaces([0].into());
                    }
                    _ => {}
                }
                let reading = Ok(kind.reading());
                Event::Read { task: first, reading }
            }
            Step::ReadAnother => {
                world.tasks.pop_front();
                world.authorised = world.plugged.is_some();
                let reading = Ok(Reading::Another(Findings::default()));
                Event::Read { task: first, reading }
            }
            Step::CannotRead => {
                world.tasks.pop_front();
                world.authorised = world.plugged.is_some();
                Event::Read { task: first, reading: Err(String::new()) }
            }
            Step::Done => return self.done(world, lucky),
            Step::Begin => {
                if let Some((_, Job::Serve { share, begun, .. })) = world.tasks.front_mut() {
                    *begun = true;
                    let share = share.clone();
                    world.serve(&share)?;
                }
                Event::Begun { task: first }
            }
            Step::CannotServe => {
                world.tasks.pop_front();
                let outcome = Err(String::new().into());
                Event::Served { task: first, served: Served { outcome, carried_nothing: true } }
            }
            Step::Leave(reason) => {
                if let Some((_, Job::Serve { left, .. })) = world.tasks.front_mut() {
                    *left = true;
                }
                let reason = (!world.told.contains(&first)).then(|| self.reasons[reason].clone());
                Event::Left { task: first, reason, counts: Some(counts()) }
            }
            Step::ThreadFails => {
                world.tasks.pop_front();
                Event::ThreadFailed { task: first }
            }
            Step::Write => {
                let Some(asked) = world.asked.pop_front() else { return Ok(()) };
                let denied = match (world.log, lucky, asked.wanted) {
                    (true, true, _) => None,
                    (true, false, Wanted::Admission) => Some(Denial::Stale),
                    (true, false, Wanted::Attachment) => Some(Denial::Writable),
                    (false, true, Wanted::Admission) => Some(Denial::Writable),
                    (false, true, Wanted::Attachment) => Some(Denial::Stale),
                    (false, false, _) => Some(Denial::Unrecorded),
                };
                world.answers.push_back(Answer { asked, denied });
                return Ok(());
            }
            Step::Deliver => {
                let Some(answer) = world.answers.pop_front() else { return Ok(()) };
                return self.deliver(world, answer, lucky);
            }
            Step::Policy(policy) => {
                world.outdate();
                (world.policy, world.serial) = (policy, world.serial + 1);
                Event::RulesChanged { would_get: world.grant(), basis: world.basis() }
            }
            Step::LogFails => {
                world.outdate();
                (world.log, world.verdict) = (false, None);
                Event::RecordLost
            }
            Step::LogIsBack => {
                world.log = true;
                return Ok(());
            }
            Step::Attach(domain) => {
                world.outdate();
                Event::AttachByHand {
                    domain: DOMAINS[domain].to_owned(),
                    request: u64::try_from(domain).ok(),
                }
            }
            Step::Detach => {
                world.outdate();
                Event::DetachByHand { request: Some(2) }
            }
            Step::Look { any, all } => {
                Event::InputDrivers { any, all, busy: !world.tasks.is_empty() }
            }
            Step::AgentEnds => {
                world.outdate();
                world.ended = true;
                Event::AgentEnds
            }
            Step::Tick | Step::TickReading | Step::TickLater => Event::Tick,
        };
        let now = match step {
            Step::Tick => SOON,
            Step::TickReading => AFTER_READING,
            Step::TickLater => LATER,
            _ => START,
        };
        self.drive(world, now, event, lucky)?;
        let attached = match world.life.state() {
            State::Attached { task, .. } => *task,
            _ => 0,
        };
        if step == Step::Tick && world.streams.iter().any(|(task, _)| *task != attached) {
            return Err("what is revoked is cut in time".to_owned());
        }
        Ok(())
    }

    /// Has the broker take an answer of the monitor's. One to what was decided by something that is no more admits the device to nothing.
    fn deliver(&self, world: &mut World, answer: Answer, lucky: bool) -> Result<(), String> {
        let Answer { asked: Asked { request, wanted, grant, stale }, denied } = answer;
        let event = match (denied, wanted) {
            (Some(denial), _) => Event::Refused { request, denial },
            (None, Wanted::Attachment) => {
                Event::Permitted { request, permit: Permit { request, grant } }
            }
            (None, Wanted::Admission) => {
                let basis = match stale {
                    true => Basis { policy: SERIAL_BEFORE, break_glass: false },
                    false => world.basis(),
                };
                if !stale {
                    world.verdict = Some((grant.clone(), basis));
                }
                let permit = testing::permit(UsbAdmission { grant, basis }, request);
                Event::Admitted { request, permit }
            }
        };
        let before = stale.then(|| world.life.clone());
        self.drive(world, START, event, lucky)?;
        match before {
            Some(before) if before != world.life => Err("a stale record starts nothing".to_owned()),
            _ => Ok(()),
        }
    }

    /// Returns what happens if from now on nothing goes wrong.
    fn next_if_all_goes_well(world: &World) -> Option<Step> {
        match world.tasks.front() {
            Some((_, Job::Read)) => {
                return Some(Step::ReadIt(world.plugged.unwrap_or(Kind::Reader)));
            }
            Some((task, Job::Serve { begun: false, .. })) => {
                return Some(if world.told.contains(task) {
                    Step::CannotServe
                } else {
                    Step::Begin
                });
            }
            Some((task, Job::Serve { left: false, .. })) if world.told.contains(task) => {
                return Some(Step::Leave(0));
            }
            Some((_, Job::Serve { left: false, .. })) | None => {}
            Some(_) => return Some(Step::Done),
        }
        if !world.answers.is_empty() {
            return Some(Step::Deliver);
        }
        if !world.asked.is_empty() {
            return Some(Step::Write);
        }
        world.life.deadline().map(|_| Step::Tick)
    }

    /// Checks that a device that is pulled out, whatever it was about, and plugged in again comes to where it belongs.
    fn comes_back(&self, world: &World) -> Result<(), String> {
        let mut world = world.clone();
        let stuck = |step: Step, world: &World| {
            format!("a device that was pulled out can come back: {step:?} in {world:?}")
        };
        let (pull, plug) = (Step::PullOut, Step::PlugIn(Kind::Reader));
        let back = [pull, Step::LogIsBack, Step::Policy(Some(0)), Step::TickLater, plug];
        for step in back {
            self.step(&mut world, step, true)?;
            if step == pull {
                world.settle();
                if !self.seen.borrow_mut().insert(world.clone()) {
                    return Ok(());
                }
            }
            for _ in 0..20 {
                let Some(step) = Self::next_if_all_goes_well(&world) else { break };
                self.step(&mut world, step, true)?;
            }
            world.settle();
            if step == Step::TickLater && !world.life.is_over() {
                return Err(stuck(step, &world));
            }
        }
        match world.life.state() {
            State::Attached { begun: true, .. } => Ok(()),
            _ => Err(stuck(plug, &world)),
        }
    }
}

/// A state of the world, to be walked from.
#[derive(Clone)]
pub(super) struct Walked<'a> {
    pub(super) life: &'a Life,
    pub(super) world: World,
}

impl statewalk::World for Walked<'_> {
    type Event = (Step, bool);
    type Identity = Box<[u8]>;

    fn identity(&self) -> Self::Identity {
        statewalk::bytes_of(&self.world)
    }

    fn events(&self) -> Vec<Self::Event> {
        let Self { life, world } = self;
        let mut steps = Vec::new();
        match world.tasks.front() {
            Some((_, Job::Read)) => {
                steps.extend([Step::CannotRead, Step::ReadAnother, Step::ThreadFails]);
                // It may show something else of itself than before.
                steps.extend(life.kinds.iter().map(|kind| Step::ReadIt(*kind)));
            }
            Some((_, Job::Serve { begun: false, .. })) => {
                steps.extend([Step::Begin, Step::CannotServe, Step::ThreadFails]);
            }
            Some((task, Job::Serve { left: false, .. })) if world.told.contains(task) => {
                steps.extend([Step::Leave(0), Step::ThreadFails]);
            }
            Some((_, Job::Serve { left: false, .. })) => {
                steps.extend((0..life.reasons.len()).map(Step::Leave));
                steps.push(Step::ThreadFails);
            }
            Some((_, Job::Serve { .. } | Job::GiveToHost(_) | Job::Deauthorize)) => {
                steps.push(Step::Done);
            }
            None => {}
        }
        if !world.asked.is_empty() {
            steps.push(Step::Write);
        }
        if !world.answers.is_empty() {
            steps.push(Step::Deliver);
        }
        if world.life.deadline().is_some() {
            steps.push(Step::Tick);
        }
        if matches!(world.life.state(), State::Reading { until: Some(_), .. }) {
            steps.push(Step::TickReading);
        }
        if world.life.lost.is_some() {
            steps.push(Step::TickLater);
        }
        let waiting = world.asked.len() + world.answers.len();
        if world.queued() <= life.queued && waiting < MESSAGES_MAX && !world.ended {
            steps.push(Step::AgentEnds);
            match world.plugged {
                None => steps.extend(life.kinds.iter().map(|kind| Step::PlugIn(*kind))),
                Some(_) => steps.push(Step::PullOut),
            }
            // One of them is another one that gives the same.
            let policies = [None].into_iter().chain((0..life.domains).map(Some));
            steps.extend(policies.map(Step::Policy));
            steps.push(if world.log { Step::LogFails } else { Step::LogIsBack });
            if world.plugged.is_some() {
                steps.extend((0..life.domains).map(Step::Attach));
                steps.push(Step::Detach);
            }
            // Which takes a device with a keyboard from its domain as well as its reasons of its own do: one or the other.
            if life.reasons.len() == 1 && world.life.watched_input().is_some() {
                for (any, all) in [(false, false), (true, false), (true, true)] {
                    steps.push(Step::Look { any, all });
                }
            }
        }
        steps.into_iter().flat_map(|step| [(step, true), (step, false)]).collect()
    }

    fn step(&mut self, (step, lucky): &Self::Event) -> Result<(), String> {
        let Self { life, world } = self;
        life.step(world, *step, *lucky)?;
        if world.plugged.is_none() && world.tasks.is_empty() {
            world.thread = false;
        }
        world.settle();
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        self.world.promises()?;
        if self.world.ended { Ok(()) } else { self.life.comes_back(&self.world) }
    }
}
