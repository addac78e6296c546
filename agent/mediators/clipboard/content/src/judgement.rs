//! Whether content may cross, and what of it: the policy's word and what it takes to be fit, for the agent and for `explain`.

use policy::Policy;
use policy::decide::{Decision, Paste, PasteVerdict, Reason};
use worker_link::Kind;

use crate::{Changes, Rejected, Sanitized, picture, sanitize};

/// What of content is fit to cross.
#[derive(Debug)]
pub enum Fit {
    /// The content as it would cross: text, names of files, or a picture that was decoded and encoded anew.
    Sanitized(Sanitized),
    /// What a decoder makes of the picture, which runs elsewhere; the policy does not deny it.
    Picture(Kind),
    /// Nothing was looked at: the policy said no (decoding costs more than a no is worth), or the content is not known.
    Unknown,
}

/// What is to become of a paste.
#[derive(Debug)]
pub struct Judgement<'p> {
    /// What the policy says.
    pub paste: PasteVerdict<'p>,
    /// What would cross, or why nothing can, whatever the policy says.
    pub fit: Result<Fit, Rejected>,
}

/// Has the policy decide on a paste, and sanitises its content, if that is text. Text is judged as it would be pasted, a picture as it was copied.
#[must_use]
pub fn judge<'p>(policy: &'p Policy, paste: &Paste<'_>) -> Judgement<'p> {
    let mut verdict = policy.decide_paste(paste);
    let fit = match (verdict.cleaned.take(), paste.content) {
        (Some(cleaned), _) => {
            let changes = Changes { text: cleaned.changes, ..Changes::default() };
            let (media_type, bytes) = (paste.media_type, cleaned.bytes);
            Ok(Fit::Sanitized(Sanitized { media_type, bytes, changes }))
        }
        _ if matches!(verdict.verdict.reason(), Reason::NotText) => Err(Rejected::NotText),
        (None, Some(content)) if verdict.verdict.decision() != Decision::Deny => {
            match picture(paste.media_type) {
                Some(kind) => Ok(Fit::Picture(kind)),
                None => sanitize(paste.media_type, content).map(Fit::Sanitized),
            }
        }
        _ => Ok(Fit::Unknown),
    };
    Judgement { paste: verdict, fit }
}
