//! What the policy says of a paste.

use std::sync::Arc;

use audit::events::ClipboardPaste;
use monitor::{Basis, Owed, recorded};
use policy::decide::{Decision, Paste as Asked, PasteVerdict, Reason};
use policy::language::MediaType;

use super::crossing::{Crossing, Stage, Wanted};
use super::limits::ASK_FOR;
use super::words::{Outcome, denied, label};
use super::{DomainIndex, Mediator, Output, Paste, Ticket, Time, hash};
use crate::content::{self, Changes, Rejected};
use crate::judgement::{Judgement, judge};
use crate::vdagent::Secret;

/// A paste as it was asked for.
pub(super) struct Pressed {
    pub(super) from: DomainIndex,
    pub(super) to: DomainIndex,
    pub(super) media_type: MediaType,
    pub(super) content: Secret,
    pub(super) sha256: String,
    pub(super) ticket: Option<Ticket>,
}

impl Mediator {
    /// Has the policy decide on a paste, and does what it says.
    pub(super) fn judge(&mut self, pressed: Pressed, now: Time) {
        let Pressed { from, to, media_type, content, sha256, ticket } = pressed;
        let policy = Arc::clone(&self.policy);
        let (source, target) = (self.name(from), self.name(to));
        let paste =
            Asked { from: &source, to: &target, media_type, content: Some(&content), size: None };
        let Judgement { paste: PasteVerdict { verdict, inspect, bytes, .. }, sanitized } =
            judge(&policy, &paste);
        let mut unfit: Option<Rejected> = None;
        let mut changes = Changes::default();
        let mut final_type = media_type;
        let mut crosses = Secret::clone(&content);
        match sanitized {
            Ok(Some(sanitized)) => {
                (changes, final_type) = (sanitized.changes, sanitized.media_type);
                if !changes.none() {
                    crosses = Arc::new(sanitized.bytes);
                }
            }
            Ok(None) => {}
            Err(problem) => unfit = Some(problem),
        }
        let decision = if unfit.is_some() { Decision::Deny } else { verdict.decision() };
        let by = (decision.word(), verdict.rule().map(|rule| rule.id.value.to_string()));
        let unchanged = Arc::ptr_eq(&crosses, &content);
        let looked = || inspect.iter().map(|detector| detector.name().to_owned()).collect();
        let event = ClipboardPaste {
            domain: target.clone(),
            verdict: recorded(decision),
            rule: by.1.clone(),
            policy: policy.serial(),
            answer: None,
            break_glass: false,
            bytes,
            from: source.clone(),
            hits: match verdict.reason() {
                Reason::Found(detector) => Some(vec![detector.name().to_owned()]),
                _ => None,
            },
            inspected: (!inspect.is_empty()).then(looked),
            normalised: (!changes.none()).then(|| changes.to_string()),
            sha256: if unchanged { sha256 } else { hash(&crosses) },
            to: target.clone(),
            r#type: media_type.word().to_owned(),
            unfit: unfit.as_ref().map(ToString::to_string),
        };
        let amount = content::amount(final_type, &crosses, changes.first_of);
        let what =
            format!("{amount} from {} to {}", label(&policy, &source), label(&policy, &target));
        if let Some(problem) = unfit {
            self.out.push(Output::Note(event.into()));
            let words = format!("Not pasted: {what}.\nReason: {problem}.");
            return self.complete(ticket, Outcome::no(words).by(&by));
        }
        if matches!(decision, Decision::Deny | Decision::ReadOnly) {
            self.out.push(Output::Note(event.into()));
            let words = denied(&policy, &what, &verdict);
            return self.complete(ticket, Outcome::no(words).by(&by));
        }
        self.last_id += 1;
        let id = self.last_id;
        let judged = (media_type, bytes);
        let paste = Paste { id, from, to, judged, media_type: final_type, content: crosses };
        let basis = Basis { policy: policy.serial(), break_glass: false };
        let wanted = Wanted { basis, owed: Owed::of(&verdict), event, paste };
        let stage = if wanted.owed.answer {
            let preview = content::preview(final_type, &wanted.paste.content);
            let text = format!("Paste {what}?\n{preview}");
            self.out.push(Output::Ask(ticket, id, text));
            Stage::Asking { until: now.saturating_add(ASK_FOR), wanted: Box::new(wanted) }
        } else {
            self.authorize(wanted);
            Stage::Recording
        };
        self.crossing = Some(Crossing { id, stage, ticket, to, by, what });
    }
}
