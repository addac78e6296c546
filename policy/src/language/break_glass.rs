//! `[break_glass]`: what an emergency opens, and for how long.

use std::time::Duration;

use super::duration;
use super::name::RuleId;
use crate::diagnostic::Spanned;
use crate::document::{Form, Value};

/// Half an hour: an emergency, not a shift.
const DEFAULT: Duration = Duration::from_secs(30 * 60);

/// Rules of the longest `allow_usb`; each rule is looked for in it.
const LISTED_MAX: usize = 64;

/// What an emergency opens. A policy without it has no break-glass.
#[derive(Clone, Debug)]
pub struct BreakGlass {
    /// It closes by itself after this long.
    pub max_duration: Duration,
    /// Whether the clinician must say why.
    pub reason_required: bool,
    /// The USB rules, marked `break_glass = true`, that count while it is open.
    pub allow_usb: Vec<Spanned<RuleId>>,
}

impl BreakGlass {
    pub(crate) fn read(mut form: Form<'_>) -> Self {
        let max_duration = form.optional("max_duration", |v| {
            duration::read(v, "the longest break-glass", 60..=86_400)
        });
        let reason_required = form.optional("reason_required", Value::boolean);
        let allow_usb =
            form.optional("allow_usb", |v| v.list_of(LISTED_MAX, |v| Some(v.spanned(v.parsed()?))));
        form.close();
        Self {
            max_duration: max_duration.unwrap_or(DEFAULT),
            reason_required: reason_required.unwrap_or(true),
            allow_usb: allow_usb.unwrap_or_default(),
        }
    }
}
