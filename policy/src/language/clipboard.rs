//! `[[clipboard]]`: what may be pasted from one domain into another.

use super::domain::DomainId;
use super::vocabulary::{Head, Vocabulary};
use crate::detect::Detector;
use crate::diagnostic::Spanned;
use crate::document::Form;
use crate::terms::{MediaType, words};

words! {
    /// What a clipboard rule does with what it matches.
    ClipboardAction {
        /// Lets it cross.
        Allow = "allow",
        /// Lets it cross if the clinician says yes.
        Ask = "ask",
        /// Stops it.
        Deny = "deny",
    }
}

/// A rule of `[[clipboard]]`. All of `from`, `to`, `types` and `max_bytes` must fit for it to match.
#[derive(Clone, Debug)]
pub struct ClipboardRule {
    /// Its id and place.
    pub head: Head,
    /// The domain whose clipboard it is.
    pub from: Spanned<DomainId>,
    /// The domain that it would be pasted in.
    pub to: Spanned<DomainId>,
    /// Which types; never empty.
    pub types: Vec<Spanned<MediaType>>,
    /// The largest size it matches, in bytes; `None` matches every size.
    pub max_bytes: Option<Spanned<u64>>,
    /// What the rule decides.
    pub action: Spanned<ClipboardAction>,
    /// What must not be found inside; a hit denies.
    pub inspect: Vec<Spanned<Detector>>,
}

impl ClipboardRule {
    pub(crate) fn read(mut form: Form<'_>, known: &mut Vocabulary) -> Option<Self> {
        let head = known.rule(&mut form);
        let from = form.required("from", "\"internet\"", |v| known.domain(v));
        let to = form.required("to", "\"clinical\"", |v| {
            let to = known.domain(v)?;
            if from.is_some_and(|from| *from == *to) {
                return v.wrong(
                    "`from` and `to` are the same domain",
                    "name two domains; nothing crosses inside one",
                );
            }
            Some(to)
        });
        let types = form.required("types", "[\"text/plain\"]", |v| {
            let types = v.list_of(MediaType::WORDS.len(), |v| {
                Some(v.spanned(v.choice("a clipboard type", &MediaType::WORDS)?))
            })?;
            if types.is_empty() {
                return v.wrong(
                    "no type is listed, so the rule matches nothing",
                    "name the types that may cross, or remove the rule",
                );
            }
            Some(types)
        });
        let max_bytes = form.optional("max_bytes", |v| {
            Some(v.spanned(v.size("the largest size in bytes", 1..=MAX_BYTES)?))
        });
        let action = form.required("action", "\"deny\"", |v| {
            Some(v.spanned(v.choice("an action on the clipboard", &ClipboardAction::WORDS)?))
        });
        let inspect = form.optional("inspect", |v| v.list_of(INSPECT_MAX, |v| known.detector(v)));
        form.close();
        Some(Self {
            head: head?,
            from: from?,
            to: to?,
            types: types?,
            max_bytes,
            action: action?,
            inspect: inspect.unwrap_or_default(),
        })
    }

    /// Returns whether it matches contents of this size.
    #[must_use]
    pub fn fits(&self, bytes: u64) -> bool {
        self.max_bytes.is_none_or(|max| bytes <= *max)
    }
}

/// Detectors of the longest `inspect`: each reads all that crosses.
const INSPECT_MAX: usize = 67;

/// The largest `max_bytes`: the largest integer TOML knows.
const MAX_BYTES: u64 = i64::MAX.unsigned_abs();
