//! What the policy says of a paste.

use crate::mediator::ClipboardEvent;
use std::sync::Arc;

use audit::events::ClipboardPaste;
use monitor::{Basis, Owed, recorded};
use policy::decide::{Decision, Paste as Asked, PasteVerdict, Reason};

use super::crossing::{Crossing, Decoded, PendingPaste, Pressed, Stage, Told};
use super::limits::{ASK_FOR, DECODE_MAX, HELD_MAX, PREPARING_AFTER};
use super::words::{Outcome, denied, label};
use super::{ClipboardMediator, Output, Paste, Time, hash};
use crate::grant::Secret;
use clipboard_content::judgement::{Fit, Judgement, judge};
use clipboard_content::{self as content, Changes, Rejected, Sanitized};
use worker_link::Job;

impl ClipboardMediator {
    /// Has the policy decide on a paste, and does what it says. A picture that it does not deny is decoded first, elsewhere.
    pub(super) fn judge(&mut self, pressed: Pressed, now: Time) {
        self.last_id += 1;
        self.judge_decoded(self.last_id, pressed, None, now);
    }

    /// Handles what the worker made of the picture of the crossing of this number. One that has ended since then is not waited for.
    pub fn decoded(&mut self, id: u64, outcome: Result<Sanitized, Rejected>, now: Time) {
        let Some(crossing) = self.crossing.take_if(|crossing| crossing.decodes(id)) else { return };
        let Crossing { stage: Stage::Decoding { decoded, .. }, ticket, .. } = crossing else {
            return;
        };
        let pressed = Pressed { ticket, ..decoded.pressed };
        self.judge_decoded(id, pressed, Some(outcome), now);
    }

    /// Returns whether the picture of the crossing of this number is still waited for.
    #[must_use]
    pub fn decodes(&self, id: u64) -> bool {
        self.crossing.as_ref().is_some_and(|crossing| crossing.decodes(id))
    }

    fn judge_decoded(
        &mut self,
        id: u64,
        pressed: Pressed,
        decoded: Option<Result<Sanitized, Rejected>>,
        now: Time,
    ) {
        let policy = Arc::clone(&self.policy);
        let (source, target) = (self.name(pressed.from), self.name(pressed.to));
        let media_type = pressed.media_type;
        let content = Secret::clone(&pressed.content);
        let paste =
            Asked { from: &source, to: &target, media_type, content: Some(&content), size: None };
        let Judgement { paste: PasteVerdict { verdict, inspect, bytes, .. }, fit } =
            judge(&policy, &paste);
        let fit = match (fit, decoded) {
            (Ok(Fit::Picture(_)), Some(outcome)) => outcome.map(Fit::Sanitized),
            (fit, _) => fit,
        };
        let looked = || inspect.iter().map(|detector| detector.name().to_owned()).collect();
        let event = ClipboardPaste {
            domain: target.clone(),
            verdict: recorded(verdict.decision()),
            rule: verdict.rule().map(|rule| rule.id.value.to_string()),
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
            normalised: None,
            sha256: pressed.sha256.clone(),
            to: target.clone(),
            r#type: media_type.word().to_owned(),
            unfit: None,
        };
        let mut unfit: Option<Rejected> = None;
        let mut changes = Changes::default();
        let mut final_type = media_type;
        let mut crosses = Secret::clone(&content);
        match fit {
            Ok(Fit::Sanitized(sanitized)) => {
                (changes, final_type) = (sanitized.changes, sanitized.media_type);
                if !changes.none() {
                    crosses = Arc::new(sanitized.bytes);
                }
            }
            Ok(Fit::Picture(kind)) => {
                let by = (verdict.decision().word(), event.rule.clone());
                let job = Job { kind, most: HELD_MAX };
                return self.decode(id, job, Decoded { pressed, event }, by, now);
            }
            Ok(Fit::Unknown) => {}
            Err(problem) => unfit = Some(problem),
        }
        let Pressed { from, to, ticket, .. } = pressed;
        let decision = if unfit.is_some() { Decision::Deny } else { verdict.decision() };
        let by = (decision.word(), event.rule.clone());
        let unchanged = Arc::ptr_eq(&crosses, &content);
        let event = ClipboardPaste {
            verdict: recorded(decision),
            normalised: (!changes.none()).then(|| changes.to_string()),
            sha256: if unchanged { event.sha256 } else { hash(&crosses) },
            unfit: unfit.as_ref().map(ToString::to_string),
            ..event
        };
        let amount = content::amount(final_type, &crosses, changes.first_of);
        let what =
            format!("{amount} from {} to {}", label(&policy, &source), label(&policy, &target));
        if let Some(problem) = unfit {
            self.report(ClipboardEvent::Note(event.into()));
            let words = format!("Not pasted: {what}.\nReason: {problem}.");
            return self.complete(ticket, Outcome::no(words).by(&by));
        }
        if matches!(decision, Decision::Deny | Decision::ReadOnly) {
            self.report(ClipboardEvent::Note(event.into()));
            let words = denied(&policy, &what, &verdict);
            return self.complete(ticket, Outcome::no(words).by(&by));
        }
        let judged = (media_type, bytes);
        let paste = Paste { id, from, to, judged, media_type: final_type, content: crosses };
        let basis = Basis { policy: policy.serial(), break_glass: false };
        let wanted = PendingPaste { basis, owed: Owed::of(&verdict), event, paste };
        let stage = if wanted.owed.needs_answer() {
            let preview = content::preview(final_type, &wanted.paste.content);
            let text = format!("Paste {what}?\n{preview}");
            self.report(ClipboardEvent::Ask(ticket, id, text));
            Stage::Asking { until: now.saturating_add(ASK_FOR), wanted: Box::new(wanted) }
        } else {
            self.authorize(wanted);
            Stage::Recording
        };
        self.crossing = Some(Crossing { id, stage, ticket, to, by, what });
    }

    /// Has a picture decoded, by a process that lives for it alone.
    fn decode(
        &mut self,
        id: u64,
        job: Job,
        decoded: Decoded,
        by: (&'static str, Option<String>),
        now: Time,
    ) {
        let Pressed { from, to, media_type, content, ticket, .. } = &decoded.pressed;
        let (to, ticket) = (*to, *ticket);
        let amount = content::amount(*media_type, content, None);
        let policy = &self.policy;
        let (source, target) = (self.name(*from), self.name(to));
        let what =
            format!("{amount} from {} to {}", label(policy, &source), label(policy, &target));
        self.out.push(Output::Decode(id, job, Secret::clone(content)));
        let until = now.saturating_add(DECODE_MAX);
        let told = Told::From(now.saturating_add(PREPARING_AFTER));
        let stage = Stage::Decoding { told, until, decoded: Box::new(decoded) };
        self.crossing = Some(Crossing { id, stage, ticket, to, by, what });
    }
}
