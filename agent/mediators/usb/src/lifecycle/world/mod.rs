//! The exhaustive check: every state that a small world can bring a device into.
//!
//! One place, two domains, two requests by hand. Devices are pulled out, plugged in again and reset, and may come back as something else; the thread of
//! the place hangs, fails and says things late; policies change; the audit log fails and is back; VMMs die and start; answers of the log
//! lie in the mailbox for as long as they like. `model.rs` says what may happen and `checks.rs` which worlds are walked; [`World::promises`] says what must hold in each state, [`World::carry_out`] what at each effect.

mod checks;
mod model;

use std::collections::VecDeque;
use std::time::Duration;

use clock::Moment;
use monitor::testing;
use monitor::{Basis, Denial};
use usbdescriptors::Share;
use usbfilter::Rules;

use super::*;
use crate::grant::UsbAdmission;

const START: Moment = Moment::since_start(Duration::from_secs(1000));
/// All deadlines but those of a reset and of being read have passed.
const SOON: Moment = Moment::since_start(Duration::from_secs(1005));
/// That of being read has passed, too.
const AFTER_READING: Moment =
    Moment::since_start(Duration::from_secs(1000 + READ_WITHIN.as_secs()));
const LATER: Moment = Moment::since_start(Duration::from_secs(2000));
/// The policy in force, after each step. Those before are all the same: none comes into force again.
const SERIAL: u64 = 2;
const SERIAL_BEFORE: u64 = 1;
const DOMAINS: [&str; 2] = ["a", "b"];
/// Messages to and from the daemon that wait at a time before anything new happens: one that comes late, and one that does not.
const MESSAGES_MAX: usize = 2;

/// What is plugged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Reader,
    Keyboard,
    KeyboardWithReader,
    HostsDisk,
}

impl Kind {
    fn reading(self) -> Reading {
        let input = || Some(Share::Interfaces([0].into()));
        let findings = Findings { descriptors: vec![self as u8], ..Findings::default() };
        Reading::Device(match self {
            Self::HostsDisk => return Reading::HostNeeds,
            Self::Reader => findings,
            Self::Keyboard => {
                Findings { is_the_seats: true, types_or_points: true, input: input(), ..findings }
            }
            Self::KeyboardWithReader => {
                Findings { types_or_points: true, seats_part: input(), input: input(), ..findings }
            }
        })
    }
}

/// A permit: of the entry that was asked for by this request, for this grant.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Permit {
    request: u64,
    grant: UsbGrant,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Job {
    Read,
    GiveToHost(Share),
    Deauthorize,
    /// To this domain; the guest has it, or had it.
    Serve {
        domain: String,
        share: Share,
        begun: bool,
        left: bool,
    },
}

/// What the monitor is asked to permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Wanted {
    Admission,
    Attachment,
}

/// A message to the monitor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Asked {
    request: u64,
    wanted: Wanted,
    grant: UsbGrant,
    /// It is an admission, and what it was decided by is no more: the device, the rules, the record or what was asked for by hand.
    stale: bool,
}

/// A message in the mailbox: that it is permitted, or why not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Answer {
    asked: Asked,
    denied: Option<Denial>,
}

/// The state of a place and of everything around it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    life: Lifecycle,
    numbers: Numbers,
    plugged: Option<Kind>,
    /// The kernel has configured it: its interfaces can be given to somebody.
    authorised: bool,
    /// What of it drivers of the host's were given.
    hosts: Option<Share>,
    /// There is a thread.
    thread: bool,
    tasks: VecDeque<(u64, Job)>,
    /// Attachments that were told to leave.
    told: Vec<u64>,
    /// Streams that are not cut, by the task that serves them, and their domain.
    streams: Vec<(u64, String)>,
    /// A connection over which nothing has gone.
    connection: Option<String>,
    asked: VecDeque<Asked>,
    answers: VecDeque<Answer>,
    /// The log can be written.
    log: bool,
    /// What it may have by a verdict that is in the log, and was neither lost nor made void since, and the rules of that.
    verdict: Option<(UsbGrant, Basis)>,
    /// The agent ends.
    ended: bool,
    /// The domain to which the policy gives such devices.
    policy: Option<usize>,
    /// The policy's serial: each has another, also if it gives the same.
    serial: u64,
}

impl World {
    fn new() -> Self {
        Self {
            life: Lifecycle::default(),
            numbers: Numbers::default(),
            plugged: None,
            authorised: false,
            hosts: None,
            thread: false,
            tasks: VecDeque::new(),
            told: Vec::new(),
            streams: Vec::new(),
            connection: None,
            asked: VecDeque::new(),
            answers: VecDeque::new(),
            log: true,
            verdict: None,
            ended: false,
            policy: Some(0),
            serial: SERIAL,
        }
    }

    /// Returns the rules in force.
    fn basis(&self) -> Basis {
        Basis { policy: self.serial, break_glass: false }
    }

    /// Returns what the policy gives of what is known of the device.
    fn grant(&self) -> Option<UsbGrant> {
        self.life.known.findings.as_ref()?;
        let domain = DOMAINS[self.policy?];
        let wanted = self.life.by_hand().is_none_or(|wanted| wanted == domain);
        let rest = || Share::Interfaces([1].into());
        wanted.then(|| UsbGrant {
            bus_id: "1-4".parse().unwrap(),
            address: 7,
            domain: domain.to_owned(),
            label: String::new(),
            rules: Rules::Allow,
            share: self.life.kept().map_or(Share::Whole, |_| rest()),
            rule: None,
            why: String::new(),
        })
    }

    /// Checks what must hold whatever has happened.
    fn promises(&self) -> Result<(), String> {
        let holds = |holds: bool, promise: &str| {
            if holds { Ok(()) } else { Err(promise.to_owned()) }
        };
        let attached = match self.life.state() {
            State::Attached { task, admitted, .. } => Some((*task, admitted.grant())),
            _ => None,
        };
        holds(self.streams.len() <= 1, "it is attached to one domain at most")?;
        let connected = self.connection.is_none() || self.streams.is_empty();
        holds(connected, "no VMM is connected while another may have it")?;
        let waits = matches!(self.life.state(), State::Authorizing { .. });
        holds(waits == self.connection.is_some(), "a connection is dropped with its reason")?;
        let known = |task| {
            attached.is_some_and(|(served, _)| served == task)
                || self.life.detaching.iter().any(|one| one.task == task && one.until.is_some())
        };
        holds(self.streams.iter().all(|(task, _)| known(*task)), "no stream is forgotten")?;
        holds(self.life.detaching.len() <= 1, "there is an end to what is remembered")?;
        if let Some((task, grant)) = attached {
            holds(self.streams.contains(&(task, grant.domain.clone())), "it has its stream")?;
            let now = self.grant();
            let same = now.is_some_and(|now| now.gives_the_same_as(grant));
            holds(same, "no attachment outlives its rule")?;
            holds(self.log, "no attachment outlives its record")?;
        }
        if let Some(admitted) = self.admitted() {
            holds(self.is_in_the_log(admitted), "no verdict outlives its record")?;
            let in_force = attached.is_some() || admitted.basis() == self.basis();
            holds(in_force, "a verdict by which it waits is of the rules in force")?;
        }
        let asked = self.asked.iter().chain(self.answers.iter().map(|answer| &answer.asked));
        let unanswered = asked.filter(|asked| asked.wanted == Wanted::Attachment).count();
        holds(unanswered == self.life.unanswered.len(), "each request is remembered")?;
        let hosts = matches!(self.life.state(), State::Host(_));
        holds(!hosts || self.streams.is_empty(), "what the host has no domain has")?;
        let idle = self.tasks.is_empty() && self.asked.is_empty() && self.answers.is_empty();
        if idle && matches!(self.life.state(), State::Blocked(_) | State::Off) {
            let given_up = match self.life.kept() {
                Some(kept) => self.hosts.as_ref() == Some(kept),
                None => !self.authorised && self.hosts.is_none(),
            };
            holds(given_up && self.streams.is_empty(), "authority is given up in each end")?;
        }
        Ok(())
    }

    /// Returns the verdict that gives it to a domain that has it or is to have it.
    fn admitted(&self) -> Option<&Admitted> {
        match self.life.state() {
            State::Waiting { admitted, .. }
            | State::Authorizing { admitted, .. }
            | State::Attached { admitted, .. } => Some(admitted),
            _ => None,
        }
    }

    fn is_in_the_log(&self, admitted: &Admitted) -> bool {
        self.verdict.as_ref() == Some(&(admitted.grant().clone(), admitted.basis()))
    }

    /// Makes the verdicts void that are not recorded until now: what they are about is no more.
    fn outdate(&mut self) {
        let answered = self.answers.iter_mut().map(|answer| &mut answer.asked);
        for asked in self.asked.iter_mut().chain(answered) {
            asked.stale = asked.wanted == Wanted::Admission;
        }
    }

    fn ask(&mut self, request: u64, wanted: Wanted, grant: UsbGrant) {
        self.asked.push_back(Asked { request, wanted, grant, stale: false });
    }

    /// Has the thread do its first task, which must not be what somebody else is about.
    fn serve(&self, share: &Share) -> Result<(), String> {
        let apart = match (&self.hosts, share) {
            (None, _) => true,
            (Some(Share::Interfaces(hosts)), Share::Interfaces(given)) => hosts.is_disjoint(given),
            _ => false,
        };
        if apart { Ok(()) } else { Err("what the host has no domain has".to_owned()) }
    }

    fn queued(&self) -> usize {
        self.tasks.iter().filter(|(_, job)| !matches!(job, Job::Serve { .. })).count()
    }

    fn task(&mut self, number: u64, job: Job) {
        self.thread = true;
        self.tasks.push_back((number, job));
    }

    /// Carries out an effect; the answer to it.
    fn carry_out(
        &mut self,
        effect: Effect<Permit>,
        lucky: bool,
    ) -> Result<Option<Event<Permit>>, String> {
        let begins = matches!(
            effect,
            Effect::AskPace
                | Effect::Read { .. }
                | Effect::Judge
                | Effect::Admit { .. }
                | Effect::Connect { .. }
                | Effect::Authorize { .. }
                | Effect::Start { .. }
        );
        if self.ended && begins {
            return Err("an agent that ends begins nothing".to_owned());
        }
        match effect {
            Effect::AskPace => {
                let wait = if lucky { Duration::ZERO } else { AGAIN };
                return Ok(Some(Event::Pace(wait)));
            }
            Effect::Read { task } => {
                if !self.thread && !lucky {
                    return Ok(Some(Event::NoThread("no thread".to_owned())));
                }
                self.task(task, Job::Read);
            }
            Effect::GiveToHost(share) => {
                let number = self.numbers.next();
                self.task(number, Job::GiveToHost(share));
            }
            Effect::Deauthorize => {
                let number = self.numbers.next();
                self.task(number, Job::Deauthorize);
            }
            Effect::Judge => {
                let grant = self.grant().ok_or_else(|| "no rule".to_owned());
                return Ok(Some(Event::Judged(Judgement { grant, denied: lucky })));
            }
            Effect::Admit { request, grant } => self.ask(request, Wanted::Admission, grant),
            Effect::Connect { admitted, .. } => {
                if !self.is_in_the_log(&admitted) || admitted.basis() != self.basis() {
                    let promise = "a VMM is connected without a verdict of now on the disk";
                    return Err(promise.to_owned());
                }
                if !lucky {
                    let connection = Connection::NotYet(AGAIN);
                    return Ok(Some(Event::Connected { admitted, connection }));
                }
                self.connection = Some(admitted.grant().domain.clone());
                return Ok(Some(Event::Connected { admitted, connection: Connection::Made }));
            }
            Effect::Authorize { request, grant } => self.ask(request, Wanted::Attachment, grant),
            Effect::Disconnect => self.connection = None,
            Effect::Start { task, permit } => {
                let connection = self.connection.take().ok_or("nothing to serve it over")?;
                let is_recorded = self.life.grant() == Some(&permit.grant);
                if connection != permit.grant.domain || !is_recorded {
                    return Err("it is attached without a grant on the disk".to_owned());
                }
                if !lucky {
                    return Ok(Some(Event::NotStarted { task, why: "no descriptor".to_owned() }));
                }
                let share = self.life.grant().ok_or("no grant")?.share.clone();
                self.streams.push((task, connection.clone()));
                let job = Job::Serve { domain: connection, share, begun: false, left: false };
                self.task(task, job);
            }
            Effect::Detach { task } => self.told.push(task),
            Effect::Cut { task } => self.streams.retain(|(of, _)| *of != task),
            Effect::Note(_) | Effect::Notice(_) | Effect::Look => {}
        }
        Ok(None)
    }

    /// Numbers everything anew and puts deadlines to the start, as neither matters but for what is equal.
    fn settle(&mut self) {
        let tasks: Vec<u64> = self.tasks.iter().map(|(number, _)| *number).collect();
        self.told.retain(|task| tasks.contains(task));
        let mut live: Vec<u64> = Vec::new();
        self.each_number(|number| live.push(*number));
        live.sort_unstable();
        live.dedup();
        self.each_number(|number| {
            let at = live.iter().position(|one| one == number).unwrap_or_default();
            *number = u64::try_from(at).unwrap() + 1;
        });
        self.numbers = Numbers(u64::try_from(live.len()).unwrap());
        match &mut self.life.state {
            State::Throttled { until } => *until = START,
            // Later than the others, which may pass without it.
            State::Reading { until: Some(until), .. } => *until = START + READ_WITHIN,
            State::Unadmitted { retry, .. } | State::Waiting { retry, .. } => *retry = START,
            _ => {}
        }
        for detaching in &mut self.life.detaching {
            detaching.until = detaching.until.map(|_| START);
        }
        let in_force = self.basis();
        let settled = |basis: Basis| Basis {
            policy: if basis == in_force { SERIAL } else { SERIAL_BEFORE },
            ..basis
        };
        if let State::Waiting { admitted, .. }
        | State::Authorizing { admitted, .. }
        | State::Attached { admitted, .. } = &mut self.life.state
        {
            admitted.set_basis(settled(admitted.basis()));
            self.verdict = self.verdict.take().map(|(grant, basis)| (grant, settled(basis)));
        } else {
            self.verdict = None;
        }
        self.serial = SERIAL;
        // It only makes the VMM wait, who may do that here at any time.
        self.life.known.joined = false;
        // What is counted is none, or the last but one of as many as there may be, or too many.
        let last_but_one = |count: u32, most: u32| match count {
            0 => 0,
            count => count.clamp(most - 1, most),
        };
        let known = &mut self.life.known;
        known.changes = known.changes.map(|count| last_but_one(count, CHANGES_MAX));
        known.driverless = last_but_one(known.driverless, CHANGES_MAX);
        known.offers = last_but_one(known.offers, OFFERS_MAX);
        if let Some(lost) = &mut self.life.lost {
            lost.when = START;
            lost.times = last_but_one(lost.times, CHANGES_MAX);
        }
    }

    fn each_number(&mut self, mut on: impl FnMut(&mut u64)) {
        match &mut self.life.state {
            State::Reading { task, .. } | State::Attached { task, .. } => on(task),
            State::Recording { request, .. } | State::Authorizing { request, .. } => on(request),
            _ => {}
        }
        let renumbered = std::mem::take(&mut self.life.unanswered).into_iter();
        self.life.unanswered = renumbered
            .map(|(mut number, domain)| {
                on(&mut number);
                (number, domain)
            })
            .collect();
        self.life.detaching.iter_mut().for_each(|one| on(&mut one.task));
        self.tasks.iter_mut().for_each(|(number, _)| on(number));
        self.told.iter_mut().for_each(&mut on);
        self.streams.iter_mut().for_each(|(task, _)| on(task));
        self.asked.iter_mut().for_each(|asked| on(&mut asked.request));
        self.answers.iter_mut().for_each(|answer| on(&mut answer.asked.request));
    }
}
