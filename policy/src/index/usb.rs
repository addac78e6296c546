//! USB rules, arranged by where a device is bound for.

use super::devices::{DeviceIndex, Fields};
use crate::language::{BreakGlass, DomainId, UsbClass, UsbRule};
use crate::request::{Context, UsbDevice};

/// For every place a device can be bound for, the rules that have a say.
#[derive(Clone, Debug)]
pub struct UsbIndex {
    closed: DestinationIndex,
    open: DestinationIndex,
}

/// The rules that count while break-glass is closed, or open. A rule is in two of the indices at most, however many
/// domains there are.
#[derive(Clone, Debug)]
struct DestinationIndex {
    /// Plugged in: all of them, for their `to` is then where the device goes.
    nowhere: DeviceIndex,
    /// Attached by hand to a domain: those for that domain.
    domain: Vec<DeviceIndex>,
    /// And those for none in particular.
    any: DeviceIndex,
}

/// The rules that have a say over a device, in one index or two.
pub struct CandidateRules<'i>(&'i DeviceIndex, Option<&'i DeviceIndex>);

impl CandidateRules<'_> {
    /// Returns the first rule that matches everything that `fields` does.
    pub fn first_covering(&self, fields: &Fields<'_>) -> Option<usize> {
        self.first_of(|index| index.first_covering(fields))
    }

    /// Returns the first rule that matches a device's function.
    pub fn first(&self, device: &UsbDevice<'_>, class: UsbClass) -> Option<usize> {
        self.first_of(|index| index.first(device, Some(class)))
    }

    fn first_of(&self, find: impl Fn(&DeviceIndex) -> Option<usize>) -> Option<usize> {
        find(self.0).into_iter().chain(self.1.and_then(find)).min()
    }
}

impl UsbIndex {
    pub(crate) fn new(domains: usize, rules: &[UsbRule], break_glass: Option<&BreakGlass>) -> Self {
        let counting = |open: bool| -> DestinationIndex {
            let counts =
                |rule: &UsbRule| !rule.only_in_break_glass() || (open && listed(rule, break_glass));
            let all: Vec<(usize, &UsbRule)> =
                rules.iter().enumerate().filter(|(_, rule)| counts(rule)).collect();
            let index = |here: &dyn Fn(Option<usize>) -> bool| {
                let chosen = all.iter().filter(|(_, rule)| here(rule.to.map(|to| to.index())));
                DeviceIndex::new(
                    chosen.map(|(number, rule)| (*number, Fields::of(&rule.matches, rule.class()))),
                )
            };
            DestinationIndex {
                nowhere: index(&|_| true),
                domain: (0..domains).map(|domain| index(&|to| to == Some(domain))).collect(),
                any: index(&|to| to.is_none()),
            }
        };
        Self { closed: counting(false), open: counting(true) }
    }

    /// Returns the rules that have a say over a domain, with break-glass open or closed.
    pub fn bound_for(&self, break_glass: bool, to: DomainId) -> Option<CandidateRules<'_>> {
        self.rules(&Context { break_glass }, Some(to))
    }

    pub(crate) fn rules(
        &self,
        context: &Context,
        to: Option<DomainId>,
    ) -> Option<CandidateRules<'_>> {
        let bound = if context.break_glass { &self.open } else { &self.closed };
        match to {
            None => Some(CandidateRules(&bound.nowhere, None)),
            Some(to) => Some(CandidateRules(bound.domain.get(to.index())?, Some(&bound.any))),
        }
    }
}

/// Returns whether break-glass opens this rule.
pub fn listed(rule: &UsbRule, break_glass: Option<&BreakGlass>) -> bool {
    break_glass
        .is_some_and(|open| open.allow_usb.iter().any(|listed| listed.value == rule.head.id.value))
}
