//! What the policy says of a paste.

use std::sync::Arc;

use audit::events::ClipboardPaste;
use monitor::{Basis, Owed, recorded};
use policy::decide::{Decision, Paste as Asked, PasteVerdict, Reason};

use super::crossing::{Crossing, Pressed, Stage, Wanted};
use super::limits::{ASK_FOR, DECODE_MAX, HELD_MAX};
use super::words::{Outcome, denied, label};
use super::{Mediator, Output, Paste, Time, hash};
use crate::content::{self, Changes, Rejected, Sanitized};
use crate::judgement::{Fit, Judgement, judge};
use crate::vdagent::Secret;
use worker_link::Job;

impl Mediator {
    /// Has the policy decide on a paste, and does what it says. A picture that it does not deny is decoded first, elsewhere.
    pub(super) fn judge(&mut self, pressed: Pressed, now: Time) {
        self.last_id += 1;
        self.judge_decoded(self.last_id, pressed, None, now);
    }

    /// Handles what the worker made of the picture of the crossing of this number. One that has ended since then is not waited for.
    pub fn decoded(&mut self, id: u64, outcome: Result<Sanitized, Rejected>, now: Time) {
        let Some(crossing) = self.crossing.take_if(|crossing| crossing.decodes(id)) else { return };
        let Crossing { stage: Stage::Decoding { pressed, .. }, .. } = crossing else { return };
        self.judge_decoded(id, *pressed, Some(outcome), now);
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
                let by = (
                    verdict.decision().word(),
                    verdict.rule().map(|rule| rule.id.value.to_string()),
                );
                return self.decode(id, Job { kind, most: HELD_MAX }, pressed, by, now);
            }
            Ok(Fit::Unknown) => {}
            Err(problem) => unfit = Some(problem),
        }
        let Pressed { from, to, sha256, ticket, .. } = pressed;
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
    /// Has a picture decoded, by a process that lives for it alone.
    fn decode(
        &mut self,
        id: u64,
        job: Job,
        pressed: Pressed,
        by: (&'static str, Option<String>),
        now: Time,
    ) {
        let (to, ticket) = (pressed.to, pressed.ticket);
        let what = self.what(&pressed);
        self.out.push(Output::Decode(id, job, Secret::clone(&pressed.content)));
        let until = now.saturating_add(DECODE_MAX);
        let stage = Stage::Decoding { until, pressed: Box::new(pressed) };
        self.crossing = Some(Crossing { id, stage, ticket, to, by, what });
    }

    /// Returns what is to be pasted as it was copied, in words.
    fn what(&self, pressed: &Pressed) -> String {
        let amount = content::amount(pressed.media_type, &pressed.content, None);
        let (source, target) = (self.name(pressed.from), self.name(pressed.to));
        let policy = &self.policy;
        format!("{amount} from {} to {}", label(policy, &source), label(policy, &target))
    }

    /// Ends a paste whose picture was not decoded to its end, `why`.
    pub(super) fn not_decoded(
        &mut self,
        pressed: Pressed,
        by: &(&'static str, Option<String>),
        why: &str,
    ) {
        let words = format!("Not pasted: {}.\nReason: {why}.", self.what(&pressed));
        let event = ClipboardPaste {
            domain: self.name(pressed.to),
            verdict: recorded(Decision::Deny),
            rule: by.1.clone(),
            policy: self.policy.serial(),
            answer: None,
            break_glass: false,
            bytes: u64::try_from(pressed.content.len()).unwrap_or(u64::MAX),
            from: self.name(pressed.from),
            hits: None,
            inspected: None,
            normalised: None,
            sha256: pressed.sha256,
            to: self.name(pressed.to),
            r#type: pressed.media_type.word().to_owned(),
            unfit: Some(why.to_owned()),
        };
        self.out.push(Output::Note(event.into()));
        let by = (Decision::Deny.word(), by.1.clone());
        self.complete(pressed.ticket, Outcome::no(words).by(&by));
    }
}
