//! Whether content may cross, and what of it: the policy's word and what it takes to be fit, for the agent and for `explain`.

use policy::Policy;
use policy::decide::{Decision, Paste, PasteVerdict, Reason};

use crate::content::{self, Changes, HELD_MAX, Rejected, Sanitized};

/// What is to become of a paste.
#[derive(Debug)]
pub struct Judgement<'p> {
    /// What the policy says.
    pub paste: PasteVerdict<'p>,
    /// What would cross, or why nothing can, whatever the policy says. `None` where the policy said no to a picture (decoding it
    /// costs more than a no is worth), or the content is not known.
    pub sanitized: Result<Option<Sanitized>, Rejected>,
}

/// Has the policy decide on a paste, and sanitises its content. Text is judged as it would be pasted, a picture as it was copied.
#[must_use]
pub fn judge<'p>(policy: &'p Policy, paste: &Paste<'_>) -> Judgement<'p> {
    let mut verdict = policy.decide_paste(paste);
    let most = usize::try_from(HELD_MAX).unwrap_or(usize::MAX);
    let sanitized = match (verdict.cleaned.take(), paste.content) {
        (Some(cleaned), _) => {
            let changes = Changes { text: cleaned.changes, ..Changes::default() };
            Ok(Some(Sanitized { media_type: paste.media_type, bytes: cleaned.bytes, changes }))
        }
        _ if matches!(verdict.verdict.reason(), Reason::NotText) => Err(Rejected::NotText),
        (None, Some(content)) if verdict.verdict.decision() != Decision::Deny => {
            content::sanitize(paste.media_type, content, most).map(Some)
        }
        _ => Ok(None),
    };
    Judgement { paste: verdict, sanitized }
}
