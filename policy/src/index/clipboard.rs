//! Clipboard rules, arranged as staircases.
//!
//! Of the rules for one pair of domains and one type, a rule matches every size up to its own largest. A later rule is
//! therefore reached only by what is larger than all the earlier ones take: what remains of the list climbs, and the
//! first rule that matches is the first step at least as high as the size, found by bisection.

use crate::language::{ClipboardRule, DomainId, MediaType};

/// What decides sizes up to `up_to` that no step below it takes.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// The largest size, in bytes.
    pub up_to: u64,
    /// Index into the list of rules.
    pub rule: usize,
}

/// A staircase for each pair of domains and each type.
#[derive(Clone, Debug)]
pub struct ClipboardIndex {
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

    /// Returns the rules that decide something for these domains and this type.
    pub fn steps(&self, from: DomainId, to: DomainId, media_type: MediaType) -> &[Step] {
        self.staircases.get(self.at(from, to, media_type)).map_or(&[], Vec::as_slice)
    }

    /// Returns the first rule that matches.
    pub fn first(
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
