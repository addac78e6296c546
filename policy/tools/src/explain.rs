//! `bulkhead policy explain`: what would happen, by which rule, and why.

use std::fmt;

use serde::Serialize;

use policy::Policy;
use policy::carriage::Limit;
use policy::decide::{Decision, Obligation, PartialAdmission, Paste, PasteVerdict, Verdict};
use policy::enforcement;
use policy::language::{ClipboardRule, UsbClass, UsbRule};
use policy::request::{ClipboardRequest, Context, Request, UsbDevice, UsbRequest};

/// A verdict with its rule and its reason, as `explain` says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    pub verdict: Decision,
    /// The rule that decides; `None` where none matches.
    pub rule: Option<String>,
    /// The line it starts on, from 1.
    pub line: Option<usize>,
    /// Why it was decided so, in a sentence.
    pub reason: String,
    /// The domain it goes to.
    pub to: Option<String>,
    /// What is owed, in one word each.
    pub obligations: Vec<&'static str>,
    /// The detectors that are still to look into it.
    pub inspect: Vec<String>,
    /// What cleaning changed in the text that was judged; `None` if nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cleaned: Option<String>,
    /// Where no rule matches: the rules that do not for one thing only.
    pub nearly: Vec<NearMiss>,
    /// What cannot work all the same: of an admitted device, or a type that this version does not carry.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<String>,
}

/// A rule that misses a request by one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NearMiss {
    pub rule: String,
    /// The line it starts on, from 1.
    pub line: usize,
    /// What does not fit.
    pub but: String,
}

/// Decides a request and says why.
#[must_use]
pub fn explain(policy: &Policy, request: &Request<'_>, context: &Context) -> Explanation {
    match request {
        Request::Clipboard(ClipboardRequest { from, to, media_type, bytes }) => {
            let (media_type, size) = (*media_type, Some(*bytes));
            explain_paste(policy, &Paste { from, to, media_type, content: None, size })
        }
        Request::Usb(usb) => explained_usb(policy, usb, context, &policy.decide(request, context)),
    }
}

/// Decides on a device of which everything there is to find out is known, and explains.
#[must_use]
pub fn explain_settled(
    policy: &Policy,
    request: &UsbRequest<'_>,
    context: &Context,
) -> Explanation {
    let verdict = policy.decide(&Request::Usb(*request), context).settled();
    explained_usb(policy, request, context, &verdict)
}

fn explained_usb(
    policy: &Policy,
    request: &UsbRequest<'_>,
    context: &Context,
    verdict: &Verdict<'_>,
) -> Explanation {
    let nearly = match verdict.rule() {
        Some(_) => Vec::new(),
        None => nearly_usb(policy, request, context),
    };
    let rest = policy.decide_rest(request, context);
    let limits = match &rest {
        Some(PartialAdmission { verdict, functions }) => {
            Limit::of_rest(&UsbDevice { functions, ..request.device }, verdict.decision())
        }
        None => Limit::of(&request.device, verdict.decision()),
    };
    let limits = limits.iter().map(Limit::to_string).collect();
    let mut explanation = Explanation { nearly, limits, ..Explanation::of(verdict) };
    if let Some(rest) = rest {
        explanation.reason = format!("{}; {rest}", verdict.reason());
    }
    explanation
}

/// Decides on a paste, as the agent would, and explains.
#[must_use]
pub fn explain_paste(policy: &Policy, paste: &Paste<'_>) -> Explanation {
    let PasteVerdict { verdict, bytes, cleaned, .. } = policy.decide_paste(paste);
    let Paste { from, to, media_type, .. } = *paste;
    let nearly = match verdict.rule() {
        Some(_) => Vec::new(),
        None => nearly_clipboard(policy, &ClipboardRequest { from, to, media_type, bytes }),
    };
    let changes = cleaned.map(|cleaned| cleaned.changes).filter(|changes| !changes.none());
    let cleaned = changes.map(|changes| changes.to_string());
    let crosses = verdict.decision() != Decision::Deny;
    let gap = enforcement::of_type(media_type).filter(|_| crosses);
    let limits = gap.map(|gap| gap.instead.to_owned()).into_iter().collect();
    Explanation { nearly, cleaned, limits, ..Explanation::of(&verdict) }
}

fn nearly_clipboard(policy: &Policy, request: &ClipboardRequest<'_>) -> Vec<NearMiss> {
    let (from, to) = (policy.domain_id(request.from), policy.domain_id(request.to));
    let between = |rule: &&ClipboardRule| Some(*rule.from) == from && Some(*rule.to) == to;
    let miss = |rule: &ClipboardRule| {
        let typed = rule.types.iter().any(|media_type| **media_type == request.media_type);
        let but = match (typed, rule.fits(request.bytes), rule.max_bytes) {
            (true, false, Some(max)) => {
                format!("only up to {}", printable::counted(*max, "byte", "bytes"))
            }
            (false, true, _) => {
                let types: Vec<&str> =
                    rule.types.iter().map(|media_type| media_type.word()).collect();
                format!("only {}", types.join(", "))
            }
            _ => return None,
        };
        Some(NearMiss { rule: rule.head.id.to_string(), line: rule.head.line, but })
    };
    policy.clipboard().iter().filter(between).filter_map(miss).collect()
}

fn nearly_usb(policy: &Policy, request: &UsbRequest<'_>, context: &Context) -> Vec<NearMiss> {
    let miss = |rule: &UsbRule| {
        let but = only_miss(policy, rule, request, context)?;
        Some(NearMiss { rule: rule.head.id.to_string(), line: rule.head.line, but })
    };
    policy.usb().iter().filter_map(miss).collect()
}

/// Returns the one thing in which a device is not what a rule wants, if it is one and something else fits.
fn only_miss(
    policy: &Policy,
    rule: &UsbRule,
    request: &UsbRequest<'_>,
    context: &Context,
) -> Option<String> {
    let device = &request.device;
    let has = |class: &UsbClass| device.functions.iter().any(|function| function.class == *class);
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
            let instead = match (device.serial, device.port) {
                (Some(_), _) => String::new(),
                (None, None) => ", and this one has none: a rule can name its port".to_owned(),
                (None, Some(port)) => {
                    format!(", and this one has none: a rule can name its port, {port}")
                }
            };
            (
                Some(serial) == device.serial,
                format!("only serial number \"{}\"{instead}", serial.escape_debug()),
            )
        }),
        matches
            .port
            .as_deref()
            .map(|port| (Some(port) == device.port, format!("only port {port}"))),
    ];
    let (fits, misses): (Vec<_>, Vec<_>) = given.into_iter().flatten().partition(|(fits, _)| *fits);
    let elsewhere = rule
        .to
        .filter(|to| request.to.is_some_and(|to_name| policy.domain_id(to_name) != Some(**to)));
    let elsewhere = elsewhere.and_then(|to| policy.domain_by_id(*to));
    let closed = rule.only_in_break_glass() && !context.break_glass;
    let mut all = misses
        .into_iter()
        .map(|(_, words)| words)
        .chain(elsewhere.map(|domain| format!("only to {}", domain.name.value)))
        .chain(closed.then(|| "only while break-glass is open".to_owned()));
    let only = all.next()?;
    (all.next().is_none() && !fits.is_empty()).then_some(only)
}

impl Explanation {
    /// Returns the same with no for an answer, for a reason that is not the policy's: the content is unfit to cross.
    #[must_use]
    pub fn refused(self, reason: String) -> Self {
        let obligations = vec![Obligation::Audit.word()];
        Self { verdict: Decision::Deny, reason, obligations, inspect: Vec::new(), ..self }
    }

    fn of(verdict: &Verdict<'_>) -> Self {
        let mut inspect = Vec::new();
        let mut obligations = Vec::new();
        for obligation in verdict.obligations() {
            obligations.push(obligation.word());
            if let Obligation::Inspect(detectors) = obligation {
                inspect.extend(detectors.iter().map(|detector| detector.name().to_owned()));
            }
        }
        Self {
            verdict: verdict.decision(),
            rule: verdict.rule().map(|rule| rule.id.to_string()),
            line: verdict.rule().map(|rule| rule.line),
            reason: verdict.reason().to_string(),
            to: verdict.to().map(|to| to.name.to_string()),
            obligations,
            inspect,
            cleaned: None,
            nearly: Vec::new(),
            limits: Vec::new(),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verdict, rule, line, reason, to, obligations, inspect, cleaned, nearly, limits } =
            self;
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
        if let Some(cleaned) = cleaned {
            writeln!(f, "cleaned   {cleaned}")?;
        }
        for NearMiss { rule, line, but } in nearly {
            writeln!(f, "nearly    {rule}, line {line}: {but}")?;
        }
        for limit in limits {
            writeln!(f, "but       {limit}")?;
        }
        Ok(())
    }
}
