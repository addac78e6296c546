//! The policy's own tests: a policy that breaks what its `[[expect]]` promise is not put in force.

use super::{Paste, Verdict};
use crate::diagnostic::{Diagnostic, Findings};
use crate::language::{Expectation, ExpectedRequest};
use crate::policy::Policy;
use crate::request::{Context, Request, UsbRequest};

impl Policy {
    /// Finds an error for each expectation that does not hold.
    #[must_use]
    pub fn broken_expectations(&self) -> Findings {
        let mut found = Findings::default();
        self.expectations()
            .iter()
            .filter_map(|expected| self.broken(expected))
            .for_each(|broken| found.push(broken));
        found
    }

    fn broken(&self, expected: &Expectation) -> Option<Diagnostic> {
        let verdict = self.answer(expected)?;
        let rule = verdict.rule();
        let by = match rule {
            Some(rule) => format!("`{}` (line {})", rule.id.value, rule.line),
            None => "no rule".to_owned(),
        };
        let found = if verdict.decision() != *expected.verdict {
            Diagnostic::error(
                expected.verdict.span,
                format!(
                    "expected {}, but the answer is {}, by {by}",
                    *expected.verdict,
                    verdict.decision()
                ),
                format!("{}: correct the rules, or the expectation", verdict.reason()),
            )
        } else {
            let wanted = expected.rule.as_ref()?;
            if rule.is_some_and(|rule| rule.id.value == wanted.value) {
                return None;
            }
            Diagnostic::error(
                wanted.span,
                format!("expected the rule `{}` to decide, but {by} does", wanted.value),
                format!("{}: correct the rules, or the expectation", verdict.reason()),
            )
        };
        Some(match rule {
            Some(rule) => found.and(rule.id.span, "decides"),
            None => found,
        })
    }

    fn answer(&self, expected: &Expectation) -> Option<Verdict<'_>> {
        let context = Context { break_glass: expected.break_glass };
        Some(match &expected.request {
            ExpectedRequest::Clipboard { from, to, media_type, bytes, text } => {
                let (from, to) = (self.domain_by_id(*from)?, self.domain_by_id(*to)?);
                let paste = Paste {
                    from: from.name.as_str(),
                    to: to.name.as_str(),
                    media_type: *media_type,
                    content: text.as_ref().map(String::as_bytes),
                    size: *bytes,
                };
                self.decide_paste(&paste).verdict
            }
            ExpectedRequest::Usb { device, to } => {
                let to = to.and_then(|to| self.domain_by_id(to)).map(|domain| domain.name.as_str());
                self.decide(&Request::Usb(UsbRequest { device: device.device(), to }), &context)
            }
        })
    }
}
