//! What the policy says of a paste.

use std::sync::Arc;

use audit::Event;
use policy::decide::{Decision, Obligation, Reason};
use policy::language::MediaType;
use policy::request::{ClipboardRequest, Context, Request};

use super::limits::{ASK_FOR, HELD_MAX};
use super::words::{Outcome, denied, label};
use super::{Crossing, DomainIndex, Mediator, Output, Stage, Ticket, Time, hash};
use crate::content::{self, Changes, Unfit};
use crate::vdagent::Secret;

/// A paste as it was asked for.
pub(super) struct Wanted {
    pub(super) from: DomainIndex,
    pub(super) to: DomainIndex,
    pub(super) media_type: MediaType,
    pub(super) content: Secret,
    pub(super) sha256: String,
    pub(super) ticket: Option<Ticket>,
}

impl Mediator {
    /// Has the policy decide on a paste, and does what it says.
    pub(super) fn judge(&mut self, wanted: Wanted, now: Time) {
        let Wanted { from, to, media_type, content, sha256, ticket } = wanted;
        let policy = Arc::clone(&self.policy);
        let (source, target) = (self.name(from), self.name(to));
        let high = |name: &str| policy.domain(name).is_some_and(policy::language::Domain::is_high);
        let strict = high(&target) && !high(&source);
        let is_text = matches!(media_type, MediaType::TextPlain | MediaType::FileList);
        let most = usize::try_from(HELD_MAX).unwrap_or(usize::MAX);
        // Text is judged as it would be pasted. A picture is judged as it was copied: decoding it costs more than a no is worth.
        let early = is_text.then(|| content::fit(media_type, &content, strict, most));
        let bytes = match &early {
            Some(Ok(fit)) => fit.bytes.as_ref().map_or(content.len(), |bytes| bytes.len()),
            _ => content.len(),
        };
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let request = ClipboardRequest { from: &source, to: &target, media_type, bytes };
        let mut verdict = policy.decide(&Request::Clipboard(request), &Context::default());
        let inspected: Vec<&str> = verdict
            .obligations()
            .filter_map(|owed| match owed {
                Obligation::Inspect(detectors) => Some(detectors.iter().map(|d| d.value.name())),
                _ => None,
            })
            .flatten()
            .collect();
        let mut unfit: Option<Unfit> = None;
        let mut changes = Changes::default();
        let mut final_type = media_type;
        let mut crosses = Secret::clone(&content);
        if verdict.decision() != Decision::Deny {
            match early.unwrap_or_else(|| content::fit(media_type, &content, strict, most)) {
                Ok(fit) => {
                    (changes, final_type) = (fit.changes, fit.media_type);
                    if let Some(bytes) = fit.bytes {
                        crosses = Arc::new(bytes);
                    }
                    verdict = verdict.inspected(&crosses);
                }
                Err(problem) => unfit = Some(problem),
            }
        }
        let decision = if unfit.is_some() { Decision::Deny } else { verdict.decision() };
        let by = (decision.word(), verdict.rule().map(|rule| rule.id.value.to_string()));
        let unchanged = Arc::ptr_eq(&crosses, &content);
        let mut event = Event::new("clipboard")
            .of(&target)
            .with("from", source.as_str())
            .with("to", target.as_str())
            .with("type", media_type.word())
            .with("bytes", bytes)
            .with("sha256", if unchanged { sha256 } else { hash(&crosses) })
            .with("break_glass", false);
        (event.verdict, event.rule, event.policy) =
            (Some(by.0), by.1.clone(), Some(policy.serial()));
        if !inspected.is_empty() {
            event = event.with("inspected", inspected);
        }
        if let Reason::Found(detector) = verdict.reason() {
            event = event.with("hits", vec![detector.name()]);
        }
        if !changes.none() {
            event = event.with("normalised", changes.to_string());
        }
        let amount = content::amount(final_type, &crosses);
        let what =
            format!("{amount} from {} to {}", label(&policy, &source), label(&policy, &target));
        if let Some(problem) = unfit {
            let event = event.with("unfit", problem.to_string());
            self.out.push(Output::Note(event));
            let words = format!("Not pasted: {what}.\nReason: {problem}.");
            return self.say(ticket, Outcome::no(words).by(&by));
        }
        self.last_id += 1;
        let id = self.last_id;
        let stage = match decision {
            Decision::Deny | Decision::ReadOnly => {
                self.out.push(Output::Note(event));
                let words = denied(&policy, &what, &verdict);
                return self.say(ticket, Outcome::no(words).by(&by));
            }
            Decision::Ask => {
                let preview = content::preview(final_type, &crosses);
                let text = format!("Paste {what}?\n{preview}");
                self.out.push(Output::Ask(ticket, id, text));
                Stage::Asking { until: now.saturating_add(ASK_FOR) }
            }
            Decision::Allow => {
                self.out.push(Output::Record(id, event.clone()));
                Stage::Recording
            }
        };
        self.crossing = Some(Crossing {
            id,
            stage,
            ticket,
            from,
            to,
            judged: (media_type, bytes),
            media_type: final_type,
            content: crosses,
            event,
            by,
            what,
        });
    }
}
