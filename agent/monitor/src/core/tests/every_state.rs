//! The promises in every state of a small world: two mediators with a request each, both of which die and come back, two policies, break-glass
//! with its time, a log that fails, answers that come late or never.

use std::collections::{BTreeMap, BTreeSet};

use statewalk::{World, bytes_of, walk};

use super::*;

/// A fault, planted between the core and those it tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Nobody is told that break-glass is over.
    KeepsWhatBreakGlassAllowed,
    /// An entry that is lost permits as one that is on the disk.
    PermitsWithoutRecord,
    /// What is on the disk is permitted each time that is said.
    PermitsTwice,
    /// A question that nobody waits for stays on the screen.
    LeavesQuestions,
    /// What is refused after its entry was written is said to be on no record.
    DeniesTheRecord,
    /// What was agreed to under another policy is refused as if nobody had agreed.
    ForgetsTheYes,
}

/// A basis in order: the policy, and whether break-glass has to be open.
type Rules = (u64, bool);

/// What can happen.
#[derive(Clone, Copy, Debug)]
enum Happens {
    Told(Input),
    /// A mediator asks, and waits so long.
    Asks(RequestId, Time),
    /// Break-glass is open for so long from now on.
    Opens(Time),
    Passes(Time),
    /// What was permitted ends by itself.
    Ends(RequestId),
}

/// The core, and somebody who watches what it permits.
#[derive(Clone)]
struct Small {
    core: Core,
    now: Time,
    fault: Option<Fault>,
    /// Questions on the screen, each until when it is waited for.
    shown: BTreeMap<RequestId, Time>,
    /// What was agreed to, until when that counts.
    agreed: BTreeMap<RequestId, Time>,
    recording: BTreeMap<RequestId, Basis>,
    effects: BTreeSet<(RequestId, Rules)>,
    kept: bool,
    runs: BTreeSet<MediatorId>,
}

const REQUESTS: [RequestId; 2] = [id(A, 1), id(B, 1)];

impl Small {
    fn new(fault: Option<Fault>) -> Self {
        Self {
            core: core(),
            now: AT_ONCE,
            fault,
            shown: BTreeMap::new(),
            agreed: BTreeMap::new(),
            recording: BTreeMap::new(),
            effects: BTreeSet::new(),
            kept: true,
            runs: BTreeSet::from([A, B]),
        }
    }

    fn feed(&mut self, input: Input) -> Result<(), String> {
        let policy = self.core.in_force.policy;
        let mut out = self.core.step(self.now, input);
        if self.core.in_force.policy != policy {
            self.agreed.clear();
        }
        match (self.fault, input) {
            (Some(Fault::KeepsWhatBreakGlassAllowed), _) => {
                out.retain(|output| !matches!(output, Output::Revoke(_, Cause::BreakGlass)));
            }
            (Some(Fault::PermitsWithoutRecord), Input::Written(id, EntryOutcome::Lost))
                if out.contains(&Output::Deny(id, Denial::Unrecorded)) =>
            {
                out = vec![Output::Permit(id)];
            }
            (Some(Fault::PermitsTwice), Input::Written(id, EntryOutcome::OnDisk))
                if out.is_empty() =>
            {
                out.push(Output::Permit(id));
            }
            (Some(Fault::LeavesQuestions), _) => {
                out.retain(|output| !matches!(output, Output::Hide(_)));
            }
            (Some(Fault::DeniesTheRecord), Input::Written(id, EntryOutcome::OnDisk))
                if out.contains(&Output::Deny(id, Denial::Stale)) =>
            {
                out = vec![Output::Deny(id, Denial::Unrecorded)];
            }
            (Some(Fault::ForgetsTheYes), Input::Authorize(id, _, ANSWER, _))
                if out.contains(&Output::Deny(id, Denial::Stale)) =>
            {
                out = vec![Output::Deny(id, Denial::Unanswered)];
            }
            _ => {}
        }
        self.expect(input);
        let decisions = out.iter().filter(|output| {
            matches!(
                output,
                Output::Show(_) | Output::Record(_) | Output::Permit(_) | Output::Deny(..)
            )
        });
        let decisions = decisions.count();
        let wants_one = matches!(input, Input::Ask(..) | Input::Authorize(..));
        if decisions > 1 || wants_one && decisions == 0 {
            return Err(format!("{decisions} answers to one request"));
        }
        let revoked = out.iter().filter(|output| matches!(output, Output::Revoke(..))).count();
        if revoked > self.runs.len() {
            return Err("a mediator takes back twice for one change".to_owned());
        }
        out.into_iter().try_for_each(|output| self.sees(input, output))
    }

    /// Expects what an input means, whatever comes of it.
    fn expect(&mut self, input: Input) {
        match input {
            Input::Started(mediator) => {
                self.runs.insert(mediator);
            }
            Input::Died(mediator) => {
                self.runs.remove(&mediator);
                self.agreed.retain(|id, _| id.mediator != mediator);
                self.recording.retain(|id, _| id.mediator != mediator);
                self.effects.retain(|(id, _)| id.mediator != mediator);
            }
            Input::Withdraw(id) => {
                self.agreed.remove(&id);
            }
            Input::LogKept(kept) => self.kept = kept,
            Input::Written(_, EntryOutcome::OnDisk) => self.kept = true,
            Input::Written(_, EntryOutcome::Lost) => self.kept = false,
            _ => {}
        }
    }

    fn sees(&mut self, input: Input, output: Output) -> Result<(), String> {
        let Self { now, runs, .. } = self;
        let kept = match output {
            Output::Show(id) => {
                let Input::Ask(_, until) = input else { return Err("nobody asks".to_owned()) };
                self.shown.insert(id, until).is_none() && runs.contains(&id.mediator)
            }
            Output::Hide(id) => self.shown.remove(&id).is_some(),
            Output::Answered(id, true) => {
                self.agreed.insert(id, *now + AGREED_FOR);
                let until = self.shown.remove(&id);
                input == Input::Answer(id, true) && until.is_some_and(|until| *now < until)
            }
            Output::Answered(id, false) => {
                self.shown.remove(&id);
                true
            }
            Output::Record(id) => {
                let Input::Authorize(of, basis, owed, _) = input else {
                    return Err("nobody wants a permit".to_owned());
                };
                let agreed = self.agreed.remove(&id).is_some_and(|until| *now < until);
                let new = self.recording.insert(id, basis).is_none();
                let owes = owed.answer && !agreed;
                new && of == id && !owes && self.core.in_force.holds(basis, *now)
            }
            Output::Permit(id) => {
                let Some(basis) = self.recording.remove(&id) else {
                    return Err("a permit for what is not recorded".to_owned());
                };
                self.effects.insert((id, (basis.policy, basis.break_glass)));
                input == Input::Written(id, EntryOutcome::OnDisk)
                    && runs.contains(&id.mediator)
                    && self.core.in_force.holds(basis, *now)
            }
            // A refused request is on the record, and whoever made it is told whether: by that it knows what it has to write down itself.
            Output::Deny(id, denial) => match input {
                Input::Authorize(_, basis, ..) => {
                    self.agreed.remove(&id);
                    // That nobody agreed counts under the rules in force.
                    let void =
                        denial == Denial::Unanswered && !self.core.in_force.holds(basis, *now);
                    denial != Denial::Unrecorded && !void
                }
                Input::Written(_, written) => {
                    self.recording.remove(&id);
                    (denial == Denial::Unrecorded) == (written != EntryOutcome::OnDisk)
                }
                _ => true,
            },
            Output::Revoke(mediator, cause) => {
                // As a mediator does: it ends what it would not be granted again, and all if nothing is recorded.
                let in_force = self.core.in_force;
                self.effects.retain(|(id, (policy, break_glass))| {
                    let stands =
                        cause != Cause::Record && stands(in_force, basis(*policy, *break_glass));
                    id.mediator != mediator || stands
                });
                runs.contains(&mediator)
            }
        };
        if kept { Ok(()) } else { Err(format!("{output:?} for {input:?}")) }
    }

    /// Checks what holds in every state.
    fn holds(&self) -> Result<(), String> {
        for (id, (policy, break_glass)) in &self.effects {
            if !stands(self.core.in_force, basis(*policy, *break_glass)) {
                return Err("an effect outlives its rules".to_owned());
            }
            if !self.kept || !self.runs.contains(&id.mediator) {
                return Err("an effect outlives its record or its mediator".to_owned());
            }
        }
        let waits =
            |id: &RequestId| matches!(self.core.requests.get(id), Some(Stage::Asked { .. }));
        if !self.shown.keys().all(waits) {
            return Err("a question is shown and nobody waits for its answer".to_owned());
        }
        Ok(())
    }
}

impl World for Small {
    type Event = Happens;
    type Identity = Box<[u8]>;

    fn events(&self) -> Vec<Happens> {
        let mut events = vec![Happens::Passes(AGREED_FOR), Happens::Opens(AGREED_FOR)];
        for request in REQUESTS {
            let told = [
                Input::Answer(request, true),
                Input::Answer(request, false),
                Input::Withdraw(request),
                Input::Authorize(request, basis(1, false), NOTHING, false),
                Input::Authorize(request, basis(1, true), ANSWER, false),
                Input::Authorize(request, basis(2, false), ANSWER, false),
                Input::Written(request, EntryOutcome::OnDisk),
                Input::Written(request, EntryOutcome::Lost),
                Input::Written(request, EntryOutcome::Withheld),
                Input::Started(request.mediator),
                Input::Died(request.mediator),
            ];
            events.extend(told.map(Happens::Told));
            events.extend([Happens::Asks(request, AGREED_FOR * 2), Happens::Ends(request)]);
        }
        let told = [
            Input::InForce(rules(1, false)),
            Input::InForce(rules(2, false)),
            Input::LogKept(true),
            Input::LogKept(false),
            Input::Tick,
        ];
        events.extend(told.map(Happens::Told));
        events
    }

    fn identity(&self) -> Box<[u8]> {
        let left = |until: &Time| until.saturating_sub(self.now);
        let stages = self.core.requests.iter().map(|(id, stage)| match stage {
            Stage::Asked { until } => (*id, 0, left(until), None),
            Stage::Agreed { until } => (*id, 1, left(until), None),
            Stage::Recording(basis) => (*id, 2, AT_ONCE, Some(*basis)),
        });
        let until = |all: &BTreeMap<RequestId, Time>| -> Vec<_> {
            all.iter().map(|(id, until)| (*id, left(until))).collect()
        };
        let break_glass = self.core.in_force.break_glass.as_ref().map(left);
        let rules = (self.core.in_force.policy, break_glass);
        let core = (rules, self.core.kept, &self.core.mediators);
        let watched = (until(&self.shown), until(&self.agreed), &self.recording);
        bytes_of(&(core, stages.collect::<Vec<_>>(), watched, &self.effects, self.kept, &self.runs))
    }

    fn step(&mut self, event: &Happens) -> Result<(), String> {
        match *event {
            Happens::Told(input) => self.feed(input)?,
            Happens::Asks(request, wait) => self.feed(Input::Ask(request, self.now + wait))?,
            Happens::Opens(time) => {
                let break_glass = Some(self.now + time);
                self.feed(Input::InForce(InForce { policy: 1, break_glass }))?;
            }
            Happens::Passes(time) => {
                self.now += time;
                self.agreed.retain(|_, until| self.now < *until);
            }
            Happens::Ends(request) => self.effects.retain(|(id, _)| *id != request),
        }
        self.holds()
    }
}

// 2,593 states, the farthest 20 events away.
#[test]
fn no_effect_comes_without_its_permit_and_none_outlives_it_in_any_state_there_is() {
    let seen = walk(Small::new(None), usize::MAX).unwrap_or_else(|broken| panic!("{broken:?}"));
    assert!(seen.complete && seen.states >= 2_500, "{seen:?}");
}

#[test]
fn a_planted_fault_is_found_by_the_shortest_way() {
    for (fault, length, words) in [
        (Fault::KeepsWhatBreakGlassAllowed, 6, "an effect outlives its rules"),
        (Fault::PermitsWithoutRecord, 2, "Permit"),
        (Fault::PermitsTwice, 1, "a permit for what is not recorded"),
        (Fault::LeavesQuestions, 2, "a question is shown and nobody waits"),
        (Fault::DeniesTheRecord, 3, "Unrecorded"),
        (Fault::ForgetsTheYes, 1, "Unanswered"),
    ] {
        let broken = walk(Small::new(Some(fault)), 7).expect_err("it is not found");
        assert!(broken.promise.contains(words), "{fault:?}: {broken:?}");
        assert_eq!(broken.way.len(), length, "{fault:?}: {broken:?}");
    }
}
