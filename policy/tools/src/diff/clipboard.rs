//! Clipboard flows that are decided otherwise.
//!
//! For one pair of domains and one type a policy is a staircase over sizes, so two policies differ on whole stretches
//! between the steps of either; what each says is asked of [`Policy::decide`] itself.

use std::collections::{BTreeSet, HashMap};

use super::{Change, Flow, Outcome};
use form::effort;
use policy::Policy;
use policy::decide::{Decision, Obligation};
use policy::language::MediaType;
use policy::request::{ClipboardRequest, Context, Request};

pub(super) fn changes(old: &Policy, new: &Policy) -> Vec<Change> {
    let mut found = Changes::default();
    let names = domain_names(old, new);
    for from in &names {
        for to in names.iter().filter(|to| *to != from) {
            for (_, media_type) in MediaType::WORDS {
                for change in of_type(old, new, from, to, media_type) {
                    found.add(from, to, change, media_type);
                }
            }
        }
    }
    found.list
}

/// Returns the domains of either policy.
pub(super) fn domain_names<'p>(old: &'p Policy, new: &'p Policy) -> Vec<&'p str> {
    let mut names: Vec<&str> = Vec::new();
    for domain in old.domains().iter().chain(new.domains()) {
        if !names.contains(&domain.name.as_str()) {
            names.push(domain.name.as_str());
        }
    }
    names
}

fn of_type(old: &Policy, new: &Policy, from: &str, to: &str, media_type: MediaType) -> Vec<Change> {
    let mut ends: BTreeSet<u64> = BTreeSet::from([u64::MAX]);
    ends.extend(ends_of_steps(old, from, to, media_type));
    ends.extend(ends_of_steps(new, from, to, media_type));
    let mut found: Vec<Change> = Vec::new();
    let mut start = 0;
    for end in ends {
        effort::spend(1);
        let request = ClipboardRequest { from, to, media_type, bytes: end };
        let (before, after) = (outcome(old, request), outcome(new, request));
        let min_bytes = start;
        start = end.saturating_add(1);
        if before.is_like(&after) {
            continue;
        }
        let max_bytes = (end < u64::MAX).then_some(end);
        match found.last_mut() {
            Some(Change {
                before: b,
                after: a,
                flow: Flow::Clipboard { max_bytes: last, .. },
                ..
            }) if *b == before
                && *a == after
                && last.is_some_and(|last| last.checked_add(1) == Some(min_bytes)) =>
            {
                *last = max_bytes;
            }
            _ => {
                let (from, to) = (from.to_owned(), to.to_owned());
                let flow =
                    Flow::Clipboard { from, to, types: vec![media_type], min_bytes, max_bytes };
                found.push(Change::new(flow, before, after));
            }
        }
    }
    found
}

fn ends_of_steps(policy: &Policy, from: &str, to: &str, media_type: MediaType) -> Vec<u64> {
    match (policy.domain_id(from), policy.domain_id(to)) {
        (Some(from), Some(to)) => policy
            .index()
            .clipboard
            .steps(from, to, media_type)
            .iter()
            .map(|step| step.up_to)
            .collect(),
        _ => Vec::new(),
    }
}

fn outcome(policy: &Policy, request: ClipboardRequest<'_>) -> Outcome {
    let verdict = policy.decide(&Request::Clipboard(request), &Context::default());
    let inspect = verdict.obligations().find_map(|obligation| match obligation {
        Obligation::Inspect(detectors) => {
            Some(detectors.iter().map(|detector| detector.value.clone()).collect())
        }
        _ => None,
    });
    let inspect: Vec<_> = inspect.unwrap_or_default();
    Outcome::of(&verdict, &inspect)
}

/// Changes, each with the types for which it is the same.
#[derive(Default)]
struct Changes<'p> {
    list: Vec<Change>,
    /// By what two changes have in common that differ in the type alone; what the outcomes inspect besides is compared.
    places: HashMap<ChangeKey<'p>, Vec<usize>>,
}

/// From and to, the smallest and the largest size, and of both outcomes the verdict and the rule's line.
type ChangeKey<'p> = (&'p str, &'p str, u64, Option<u64>, [(Decision, Option<usize>); 2]);

impl<'p> Changes<'p> {
    /// Adds a change, to one that differs in the type alone if there is one.
    fn add(&mut self, from: &'p str, to: &'p str, change: Change, media_type: MediaType) {
        let Flow::Clipboard { min_bytes, max_bytes, .. } = &change.flow else { return };
        let outcomes = [&change.before, &change.after].map(|says| (says.verdict, says.line));
        let places = self.places.entry((from, to, *min_bytes, *max_bytes, outcomes)).or_default();
        for place in places.iter() {
            effort::spend(1);
            if let Some(other) = self.list.get_mut(*place)
                && (&other.before, &other.after) == (&change.before, &change.after)
                && let Flow::Clipboard { types, .. } = &mut other.flow
            {
                types.push(media_type);
                return;
            }
        }
        places.push(self.list.len());
        self.list.push(change);
    }
}
