//! `[break_glass]`: what an emergency opens, and for how long.

use std::time::Duration;

use unicode_normalization::UnicodeNormalization as _;

use crate::diagnostic::{Diagnostic, Span, Spanned};
use crate::document::{Form, Value, duration};
use crate::terms::RuleId;
use crate::version::Version;

/// Half an hour: an emergency, not a shift.
const DEFAULT: Duration = Duration::from_secs(30 * 60);

/// Rules of the longest `allow_usb`; each rule is looked for in it.
const LISTED_MAX: usize = 64;

/// Reasons to choose from: each has a digit of its own on the keyboard.
pub const REASONS_MAX: usize = 9;

/// Characters of the longest reason: a line of the box that shows them, on a small screen, in Hangul.
const REASON_MAX: usize = 40;

/// The version that read the first policy with `reasons`.
const REASONS_SINCE: Version = Version::new(0, 2, 0);

/// What an emergency opens. A policy without it has no break-glass.
#[derive(Clone, Debug)]
pub struct BreakGlass {
    /// It closes by itself after this long.
    pub max_duration: Duration,
    /// Whether the clinician must say why.
    pub reason_required: bool,
    /// What the clinician can choose from as the reason, at the seat; at most [`REASONS_MAX`].
    pub reasons: Vec<Spanned<String>>,
    /// The USB rules, marked `break_glass = true`, that count while it is open.
    pub allow_usb: Vec<Spanned<RuleId>>,
    /// Where the section begins.
    pub span: Span,
}

impl BreakGlass {
    pub(crate) fn read(mut form: Form<'_>) -> Self {
        let span = form.span();
        let max_duration = form.optional("max_duration", |v| {
            duration::read(v, "the longest break-glass", 60..=86_400)
        });
        let reason_required = form.optional("reason_required", Value::boolean);
        let reasons = form.optional_since(REASONS_SINCE, "reasons", reasons);
        let allow_usb =
            form.optional("allow_usb", |v| v.list_of(LISTED_MAX, |v| Some(v.spanned(v.parsed()?))));
        let reasons = reasons.unwrap_or_default();
        form.sink().all_different(
            reasons.iter().map(|reason| (reason.value.as_str(), reason.span)),
            |reason, span, first| {
                let message = format!("the reason \"{reason}\" is listed twice");
                Diagnostic::error(span, message, "remove one").and(first, "the other one")
            },
        );
        form.close();
        Self {
            max_duration: max_duration.unwrap_or(DEFAULT),
            reason_required: reason_required.unwrap_or(true),
            reasons,
            allow_usb: allow_usb.unwrap_or_default(),
            span,
        }
    }

    /// Returns whether somebody at the seat can open it, by its chord: no reason is asked for, or there are some to choose from.
    #[must_use]
    pub fn opens_at_the_seat(&self) -> bool {
        !self.reason_required || !self.reasons.is_empty()
    }
}

fn reasons(value: Value<'_>) -> Option<Vec<Spanned<String>>> {
    let written = value.list(REASONS_MAX)?;
    match written.is_empty() {
        true => value.wrong(
            "there is no reason to choose from",
            "write one at least, as [\"unconscious patient\", \"system down\"]; or leave the key out",
        ),
        // Those that are wrong have been reported; the others are still held against each other.
        false => Some(written.into_iter().filter_map(reason).collect()),
    }
}

/// Returns a reason as the box at the seat shows it: whole syllables, on one line.
fn reason(value: Value<'_>) -> Option<Spanned<String>> {
    let text: String = value.string()?.nfc().collect();
    let fits = (1..=REASON_MAX).contains(&text.chars().count()) && text.trim() == text;
    if !fits || !text.chars().all(printable::is_shown) {
        return value.wrong(
            "the box at the seat cannot show this reason",
            format!(
                "write 1 to {REASON_MAX} characters that can be seen, and no space at either end"
            ),
        );
    }
    Some(value.spanned(text))
}
