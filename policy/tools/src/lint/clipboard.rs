//! Clipboard rules that decide nothing, or more than they should.

use super::{named, unreachable, warn};
use policy::Policy;
use policy::diagnostic::{Diagnostic, Findings, Spanned};
use policy::language::{ClipboardAction, ClipboardRule, Head, MediaType};

pub(super) fn lint(policy: &Policy, found: &mut Findings) {
    for (number, rule) in policy.clipboard().iter().enumerate() {
        reach(policy, number, rule, found);
        trust(policy, rule, found);
        inspection(rule, found);
        if let (ClipboardAction::Deny, Some(max)) = (*rule.action, rule.max_bytes) {
            warn(
                max.span,
                "this rule denies the small and leaves the big to the rules below it",
                "remove `max_bytes` from it",
                found,
            );
        }
    }
}

/// Checks that rules decide something: a rule decides for a type exactly if it is a step of that type's staircase.
fn reach(policy: &Policy, number: usize, rule: &ClipboardRule, found: &mut Findings) {
    let mut dead: Vec<(Spanned<MediaType>, &Head)> = Vec::new();
    for media_type in &rule.types {
        let steps = policy.index().clipboard.steps(*rule.from, *rule.to, **media_type);
        if steps.binary_search_by_key(&number, |step| step.rule).is_ok() {
            continue;
        }
        let up_to = rule.max_bytes.map_or(u64::MAX, |max| *max);
        let instead = steps.get(steps.partition_point(|step| step.up_to < up_to));
        if let Some(instead) = instead.and_then(|step| policy.clipboard().get(step.rule)) {
            dead.push((*media_type, &instead.head));
        }
    }
    if dead.len() == rule.types.len() {
        found.push(unreachable(&rule.head, dead.into_iter().map(|(_, head)| head)));
        return;
    }
    for (media_type, instead) in dead {
        found.push(
            Diagnostic::warning(
                media_type.span,
                format!("for {} the rule `{}` is never reached", *media_type, rule.head.id.value),
                format!(
                    "{} decides first: remove the type here, or move the rule up",
                    named(instead)
                ),
            )
            .harmless()
            .and(instead.id.span, "decides first"),
        );
    }
}

/// Checks what crosses between priorities: `high` domains hold what must not leave and must not be harmed.
fn trust(policy: &Policy, rule: &ClipboardRule, found: &mut Findings) {
    let (Some(from), Some(to)) = (policy.domain_by_id(*rule.from), policy.domain_by_id(*rule.to))
    else {
        return;
    };
    if from.is_high() && !to.is_high() && *rule.action == ClipboardAction::Allow {
        warn(
            rule.action.span,
            format!(
                "the rule `{}` lets content out of {} unasked",
                rule.head.id.value, *from.label
            ),
            "write `action = \"ask\"`, so that somebody has looked at what leaves",
            found,
        );
    }
    let readable = rule.types.iter().any(|media_type| media_type.is_readable());
    let crosses = *rule.action != ClipboardAction::Deny;
    if to.is_high() && !from.is_high() && crosses && readable && rule.inspect.is_empty() {
        warn(
            rule.action.span,
            format!(
                "the rule `{}` lets content into {} that nothing looks into",
                rule.head.id.value, *to.label
            ),
            "add for example `inspect = [\"korean-rrn\"]`",
            found,
        );
    }
}

fn inspection(rule: &ClipboardRule, found: &mut Findings) {
    let Some(first) = rule.inspect.first() else {
        return;
    };
    if *rule.action == ClipboardAction::Deny {
        warn(
            first.span,
            "nothing is looked into that is denied anyway",
            "remove `inspect` from this rule",
            found,
        );
        return;
    }
    for media_type in rule.types.iter().filter(|media_type| !media_type.is_readable()) {
        warn(
            media_type.span,
            format!("detectors cannot look into {}, so this rule denies every one", **media_type),
            "give pictures a rule of their own, without `inspect`",
            found,
        );
    }
}
