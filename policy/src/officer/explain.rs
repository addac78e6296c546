//! `bulkhead policy explain`: what would happen, by which rule, and why.

use std::fmt;

use serde::Serialize;

use crate::decide::{Decision, Obligation};
use crate::language::{ClipboardRule, UsbClass, UsbRule};
use crate::policy::Policy;
use crate::request::{ClipboardRequest, Context, Request, UsbRequest};

/// A verdict, explained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The verdict.
    pub verdict: Decision,
    /// The rule that decides; `None` where none matches.
    pub rule: Option<String>,
    /// The line it starts on, from 1.
    pub line: Option<usize>,
    /// Why, in words.
    pub reason: String,
    /// The domain it goes to.
    pub to: Option<String>,
    /// What is owed, in one word each.
    pub obligations: Vec<&'static str>,
    /// The detectors that are still to look into it.
    pub inspect: Vec<String>,
    /// Where no rule matches: the rules that do not for one thing only.
    pub nearly: Vec<NearMiss>,
}

/// A rule that misses a request by one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NearMiss {
    /// The rule.
    pub rule: String,
    /// The line it starts on, from 1.
    pub line: usize,
    /// What does not fit.
    pub but: String,
}

impl Policy {
    /// Decides and explains. `content`, if given, is what the detectors look into.
    #[must_use]
    pub fn explain(
        &self,
        request: &Request<'_>,
        context: &Context,
        content: Option<&[u8]>,
    ) -> Explanation {
        let verdict = self.decide(request, context);
        let verdict = match content {
            Some(content) => verdict.inspected(content),
            None => verdict,
        };
        let mut inspect = Vec::new();
        let mut obligations = Vec::new();
        for obligation in verdict.obligations() {
            obligations.push(obligation.word());
            if let Obligation::Inspect(detectors) = obligation {
                inspect.extend(detectors.iter().map(|detector| detector.name().to_owned()));
            }
        }
        Explanation {
            verdict: verdict.decision(),
            rule: verdict.rule().map(|rule| rule.id.to_string()),
            line: verdict.rule().map(|rule| rule.line),
            reason: verdict.reason().to_string(),
            to: verdict.to().map(|to| to.name.to_string()),
            obligations,
            inspect,
            nearly: match (verdict.rule(), request) {
                (Some(_), _) => Vec::new(),
                (None, Request::Clipboard(request)) => self.nearly_clipboard(request),
                (None, Request::Usb(request)) => self.nearly_usb(request, context),
            },
        }
    }

    fn nearly_clipboard(&self, request: &ClipboardRequest<'_>) -> Vec<NearMiss> {
        let (from, to) = (self.domain_id(request.from), self.domain_id(request.to));
        let between = |rule: &&ClipboardRule| Some(*rule.from) == from && Some(*rule.to) == to;
        let miss = |rule: &ClipboardRule| {
            let typed = rule.types.iter().any(|media_type| **media_type == request.media_type);
            let but = match (typed, rule.fits(request.bytes), rule.max_bytes) {
                (true, false, Some(max)) => format!("only up to {} bytes", *max),
                (false, true, _) => {
                    let types: Vec<&str> =
                        rule.types.iter().map(|media_type| media_type.word()).collect();
                    format!("only {}", types.join(", "))
                }
                _ => return None,
            };
            Some(NearMiss { rule: rule.head.id.to_string(), line: rule.head.line, but })
        };
        self.clipboard().iter().filter(between).filter_map(miss).collect()
    }

    fn nearly_usb(&self, request: &UsbRequest<'_>, context: &Context) -> Vec<NearMiss> {
        let miss = |rule: &UsbRule| {
            let but = self.only_miss(rule, request, context)?;
            Some(NearMiss { rule: rule.head.id.to_string(), line: rule.head.line, but })
        };
        self.usb().iter().filter_map(miss).collect()
    }

    /// The one thing in which a device is not what a rule wants, if it is one and something else fits.
    fn only_miss(
        &self,
        rule: &UsbRule,
        request: &UsbRequest<'_>,
        context: &Context,
    ) -> Option<String> {
        let device = &request.device;
        let has =
            |class: &UsbClass| device.functions.iter().any(|function| function.class == *class);
        let matches = &rule.matches;
        // What the rule gives: whether it fits, and what to say if it does not.
        let given = [
            rule.class().map(|class| (has(&class), format!("only {class} devices"))),
            matches
                .vendor
                .map(|vendor| (vendor == device.vendor, format!("only vendor {vendor:#06x}"))),
            matches
                .product
                .map(|product| (product == device.product, format!("only product {product:#06x}"))),
            matches.serial.as_deref().map(|serial| {
                (
                    Some(serial) == device.serial,
                    format!("only serial number \"{}\"", serial.escape_debug()),
                )
            }),
            matches
                .port
                .as_deref()
                .map(|port| (Some(port) == device.port, format!("only port {port}"))),
        ];
        let (fits, misses): (Vec<_>, Vec<_>) =
            given.into_iter().flatten().partition(|(fits, _)| *fits);
        let elsewhere = rule
            .to
            .filter(|to| request.to.is_some_and(|to_name| self.domain_id(to_name) != Some(**to)));
        let elsewhere = elsewhere.and_then(|to| self.domain_by_id(*to));
        let closed = rule.only_in_break_glass() && !context.break_glass;
        let mut all = misses
            .into_iter()
            .map(|(_, words)| words)
            .chain(elsewhere.map(|domain| format!("only to {}", domain.name.value)))
            .chain(closed.then(|| "only while break-glass is open".to_owned()));
        let only = all.next()?;
        (all.next().is_none() && !fits.is_empty()).then_some(only)
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verdict, rule, line, reason, to, obligations, inspect, nearly } = self;
        writeln!(f, "verdict   {verdict}")?;
        match (rule, line) {
            (Some(rule), Some(line)) => writeln!(f, "rule      {rule}, line {line}")?,
            _ => writeln!(f, "rule      none: what no rule allows is denied")?,
        }
        writeln!(f, "why       {reason}")?;
        if let Some(to) = to {
            writeln!(f, "to        {to}")?;
        }
        writeln!(f, "owed      {}", obligations.join(", "))?;
        if !inspect.is_empty() {
            writeln!(f, "inspect   {} (a hit denies)", inspect.join(", "))?;
        }
        for NearMiss { rule, line, but } in nearly {
            writeln!(f, "nearly    {rule}, line {line}: {but}")?;
        }
        Ok(())
    }
}
