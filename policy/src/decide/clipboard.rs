//! Clipboard rules, arranged as staircases.
//!
//! Of the rules for one pair of domains and one type, a rule matches every size up to its own largest. A later rule is
//! therefore reached only by what is larger than all the earlier ones take: what remains of the list climbs, and the
//! first rule that matches is the first step at least as high as the size, found by bisection.

use super::Decision;
use super::verdict::{Reason, Verdict};
use crate::language::{ClipboardAction, ClipboardRule, DomainId, MediaType};
use crate::policy::Policy;
use crate::request::ClipboardRequest;

/// What decides sizes up to `up_to` that no step below it takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// The largest size, in bytes.
    pub(crate) up_to: u64,
    /// Index into the list of rules.
    pub(crate) rule: usize,
}

/// A staircase for each pair of domains and each type.
#[derive(Clone, Debug)]
pub(crate) struct ClipboardIndex {
    domains: usize,
    /// By [`Self::at`]; in each, both `up_to` and `rule` ascend strictly.
    staircases: Vec<Vec<Step>>,
}

impl ClipboardIndex {
    pub(crate) fn new(domains: usize, rules: &[ClipboardRule]) -> Self {
        let count = domains * domains * MediaType::WORDS.len();
        let mut index = Self { domains, staircases: vec![Vec::new(); count] };
        for (rule, written) in rules.iter().enumerate() {
            let up_to = written.max_bytes.map_or(u64::MAX, |max| *max);
            for media_type in &written.types {
                let at = index.at(*written.from, *written.to, **media_type);
                if let Some(steps) = index.staircases.get_mut(at)
                    && steps.last().is_none_or(|top| up_to > top.up_to)
                {
                    steps.push(Step { up_to, rule });
                }
            }
        }
        index
    }

    /// The rules that decide something for these domains and this type.
    pub(crate) fn steps(&self, from: DomainId, to: DomainId, media_type: MediaType) -> &[Step] {
        self.staircases.get(self.at(from, to, media_type)).map_or(&[], Vec::as_slice)
    }

    /// The first rule that matches.
    fn first(
        &self,
        from: DomainId,
        to: DomainId,
        media_type: MediaType,
        bytes: u64,
    ) -> Option<usize> {
        let steps = self.steps(from, to, media_type);
        steps.get(steps.partition_point(|step| step.up_to < bytes)).map(|step| step.rule)
    }

    fn at(&self, from: DomainId, to: DomainId, media_type: MediaType) -> usize {
        (from.index() * self.domains + to.index()) * MediaType::WORDS.len() + media_type as usize
    }
}

impl Policy {
    pub(super) fn decide_clipboard(&self, request: &ClipboardRequest<'_>) -> Verdict<'_> {
        let ClipboardRequest { media_type, bytes, .. } = *request;
        let (Some(from_id), Some(to_id)) =
            (self.domain_id(request.from), self.domain_id(request.to))
        else {
            return Verdict::denied(Reason::UnknownDomain);
        };
        let (Some(from), Some(to)) = (self.domain_by_id(from_id), self.domain_by_id(to_id)) else {
            return Verdict::denied(Reason::UnknownDomain);
        };
        if from_id == to_id {
            return Verdict::denied(Reason::SameDomain(from));
        }
        let first = self.index().clipboard.first(from_id, to_id, media_type, bytes);
        let Some(rule) = first.and_then(|first| self.clipboard().get(first)) else {
            return Verdict::denied(Reason::NoClipboardRule { from, to, media_type });
        };
        let decision = permitted(rule, media_type);
        if decision == Decision::Deny && *rule.action != ClipboardAction::Deny {
            return Verdict::by_rule(Decision::Deny, &rule.head, Reason::Unreadable(media_type));
        }
        let reason = Reason::ClipboardRule { rule, from, to, media_type };
        Verdict::by_rule(decision, &rule.head, reason)
            .into_domain(to)
            .inspecting(&rule.inspect, media_type)
    }
}

/// What a rule that matches content of this type says, before anything has looked into the content.
pub(crate) fn permitted(rule: &ClipboardRule, media_type: MediaType) -> Decision {
    match *rule.action {
        ClipboardAction::Deny => Decision::Deny,
        _ if !rule.inspect.is_empty() && !media_type.is_readable() => Decision::Deny,
        ClipboardAction::Allow => Decision::Allow,
        ClipboardAction::Ask => Decision::Ask,
    }
}
