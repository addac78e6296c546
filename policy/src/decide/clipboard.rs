//! Content of the clipboard: the first rule for its domains and type whose size it does not exceed.

use super::Decision;
use super::verdict::{Reason, Verdict};
use crate::language::{ClipboardAction, ClipboardRule, MediaType};
use crate::policy::Policy;
use crate::request::ClipboardRequest;

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
        let index = &self.index().clipboard;
        let first = index.first(from_id, to_id, media_type, bytes);
        let Some(rule) = first.and_then(|first| self.clipboard().get(first)) else {
            let too_large = !index.steps(from_id, to_id, media_type).is_empty();
            return Verdict::denied(Reason::NoClipboardRule { from, to, media_type, too_large });
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

/// Returns what a rule that matches content of this type says, before anything has looked into the content.
#[must_use]
pub fn permitted(rule: &ClipboardRule, media_type: MediaType) -> Decision {
    match *rule.action {
        ClipboardAction::Deny => Decision::Deny,
        _ if !rule.inspect.is_empty() && !media_type.is_readable() => Decision::Deny,
        ClipboardAction::Allow => Decision::Allow,
        ClipboardAction::Ask => Decision::Ask,
    }
}
