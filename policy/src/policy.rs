//! The policy as a whole.

use std::time::Duration;

use crate::detect::Detector;
use crate::diagnostic::{Diagnostic, Diagnostics, Findings, Source, Span, Spanned};
use crate::document::{self, Form, Mistake, Value};
use crate::index::Index;
use crate::language::{
    BreakGlass, ClipboardRule, DOMAINS_MAX, Domain, DomainId, Expectation, Hotkeys, InputRule,
    Name, UsbRule, Vocabulary, already_taken, coherence, no_domain,
};
use crate::legible::is_legible;
use crate::version::{Newer, Version};

/// The format of the language this crate reads. A policy says which one it is written in, so that an older Bulkhead
/// refuses what it would misread and a newer one can go on reading this.
pub const FORMAT: u32 = 1;

/// Detectors of the largest policy: each may take [`Pattern`](crate::detect::Pattern)'s memory.
const DETECTORS_MAX: usize = 64;
/// Rules of one kind, and expectations, of the largest policy.
const RULES_MAX: usize = 20_000;

/// A policy that is known to be well formed.
#[derive(Clone, Debug)]
pub struct Policy {
    source: Source,
    serial: Spanned<u64>,
    issuer: String,
    domains: Vec<Domain>,
    hotkeys: Hotkeys,
    detectors: Vec<(Detector, Span)>,
    clipboard: Vec<ClipboardRule>,
    usb: Vec<UsbRule>,
    input: Vec<InputRule>,
    break_glass: Option<BreakGlass>,
    expectations: Vec<Expectation>,
    newer: Vec<Newer>,
    index: Index,
    remarks: Findings,
}

impl Policy {
    /// Reads a policy that is to be put in force: it must also keep what its own `[[expect]]` promise. `source_name` is what the reports call it.
    ///
    /// # Errors
    /// Everything that is wrong with it, all at once.
    pub fn parse(source_name: &str, text: &str) -> Result<Self, Diagnostics> {
        let policy = Self::draft(source_name, text)?;
        match policy.broken_expectations() {
            broken if broken.is_empty() => Ok(policy),
            broken => Err(Diagnostics::of(policy.source, broken)),
        }
    }

    /// Reads a policy that is being written, for the officer's tools: its `[[expect]]` may still fail.
    ///
    /// # Errors
    /// Everything that is wrong with it, all at once.
    pub fn draft(source_name: &str, text: &str) -> Result<Self, Diagnostics> {
        let source = Source::new(source_name, text);
        document::read(&source, |form| Self::read(form, &source))
    }

    fn read(mut form: Form<'_>, source: &Source) -> Option<Self> {
        if form.has("officer") && !form.has("domain") {
            form.sink().report(Diagnostic::error(
                form.span(),
                "this is a trust store or an officer's .pub file, not a policy",
                "name the policy, which lists the domains: policy.toml",
            ));
            return None;
        }
        form.format(FORMAT, "policy")?;
        let serial = form.required("serial", "2", serial);
        let issuer = form.required("issuer", "\"Information Security Office\"", issuer);

        let mut known = Vocabulary::new(source);
        let mut names: Vec<Spanned<Name>> = Vec::new();
        let domains = form.each("domain", DOMAINS_MAX, |mut form| {
            let name = known.domain_name(&mut form);
            Domain::read(form, name)
        })?;
        let _: Vec<()> = form
            .each("detector", DETECTORS_MAX, |form| Detector::read(form, &mut known, &mut names))?;
        let hotkeys = form.optional("hotkeys", |v| Some(Hotkeys::read(v.form("[hotkeys]")?)));
        let clipboard =
            form.each("clipboard", RULES_MAX, |form| ClipboardRule::read(form, &mut known))?;
        let usb = form.each("usb", RULES_MAX, |form| UsbRule::read(form, &mut known))?;
        let input = form.each("input", RULES_MAX, |form| InputRule::read(form, &mut known))?;
        let break_glass =
            form.optional("break_glass", |v| Some(BreakGlass::read(v.form("[break_glass]")?)));
        let expectations =
            form.each("expect", RULES_MAX, |form| Expectation::read(form, &known, source))?;

        let sink = form.sink();
        if form.has_none("domain") {
            let end = Span { start: source.text().len(), end: source.text().len() };
            sink.report(Diagnostic::error(end, "the policy has no domain", "add a [[domain]]"));
        }
        sink.all_different(
            known.domains.iter().map(|name| (&**name, name.span)),
            |name, span, first| {
                already_taken(&Spanned::new((*name).clone(), span), "domain", first)
            },
        );
        let hotkeys = hotkeys.unwrap_or_default();
        coherence::domains(&domains, sink);
        coherence::chords(&domains, &hotkeys, sink);
        coherence::renewals(&domains, sink);
        if let Some(break_glass) = &break_glass {
            coherence::break_glass(break_glass, &usb, sink);
        }
        form.close();

        if sink.has_mistakes() {
            return None;
        }
        let index = Index::new(&domains, &clipboard, &usb, &input, break_glass.as_ref());
        Some(Self {
            source: source.clone(),
            serial: serial?,
            issuer: issuer?,
            domains,
            hotkeys,
            detectors: known
                .detectors
                .into_iter()
                .zip(names.iter().map(|name| name.span))
                .collect(),
            clipboard,
            usb,
            input,
            break_glass,
            expectations,
            newer: sink.newer(),
            index,
            remarks: sink.remarks(),
        })
    }

    /// Returns the serial. It only ever grows; an older policy is refused.
    #[must_use]
    pub fn serial(&self) -> u64 {
        self.serial.value
    }

    /// Returns the same, and where it stands.
    #[must_use]
    pub fn spanned_serial(&self) -> Spanned<u64> {
        self.serial
    }

    /// Returns who wrote it.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Returns the domains, in the order of the file: the first is in front at start.
    #[must_use]
    pub fn domains(&self) -> &[Domain] {
        &self.domains
    }

    /// Returns the domain of this name.
    #[must_use]
    pub fn domain(&self, name: &str) -> Option<&Domain> {
        self.domains.iter().find(|domain| domain.name.as_str() == name)
    }

    /// Returns the same for a name that somebody wrote.
    ///
    /// # Errors
    /// There is none of this name, with the one that may be meant.
    pub fn find_domain(&self, name: &str) -> Result<&Domain, Mistake> {
        self.domain(name)
            .ok_or_else(|| no_domain(name, self.domains.iter().map(|domain| domain.name.as_str())))
    }

    /// Returns the domain a rule means.
    #[must_use]
    pub fn domain_by_id(&self, id: DomainId) -> Option<&Domain> {
        self.domains.get(id.index())
    }

    /// Returns how long a PC may stand idle before its screen locks: the shortest that any domain asks for, so that what is in
    /// front is no reason to leave another desktop open for longer. `None` if none asks for it.
    #[must_use]
    pub fn idle_lock(&self) -> Option<Duration> {
        self.domains.iter().filter_map(|domain| Some(domain.idle_lock?.value)).min()
    }

    /// Returns why PCs of this version refuse it, although this one does not.
    #[must_use]
    pub fn refused_by(&self, version: Version) -> Vec<Diagnostic> {
        self.newer.iter().filter_map(|newer| newer.refused_by(version)).collect()
    }

    /// Returns the rules, arranged for finding the first that matches.
    #[must_use]
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Returns the chords that mean the same in every domain.
    #[must_use]
    pub fn hotkeys(&self) -> &Hotkeys {
        &self.hotkeys
    }

    /// Returns the officer's own detectors, each with the place of its name.
    #[must_use]
    pub fn detectors(&self) -> &[(Detector, Span)] {
        &self.detectors
    }

    /// Returns the clipboard rules, in the order of the file.
    #[must_use]
    pub fn clipboard(&self) -> &[ClipboardRule] {
        &self.clipboard
    }

    /// Returns the USB rules, in the order of the file.
    #[must_use]
    pub fn usb(&self) -> &[UsbRule] {
        &self.usb
    }

    /// Returns the input rules, in the order of the file.
    #[must_use]
    pub fn input(&self) -> &[InputRule] {
        &self.input
    }

    /// Returns what an emergency opens; `None` where there is no break-glass.
    #[must_use]
    pub fn break_glass(&self) -> Option<&BreakGlass> {
        self.break_glass.as_ref()
    }

    /// Returns the policy's own tests.
    #[must_use]
    pub fn expectations(&self) -> &[Expectation] {
        &self.expectations
    }

    /// Returns what was taken as it is written, and may not be what was meant.
    #[must_use]
    pub fn remarks(&self) -> &Findings {
        &self.remarks
    }

    /// Returns the text it was read from.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }
}

/// The largest serial: the largest integer TOML knows.
pub const SERIAL_MAX: u64 = i64::MAX.unsigned_abs();

/// Policies that must be able to follow one without a warning: a lifetime's.
pub(crate) const FOLLOWING_MIN: u64 = 100_000;

fn serial(value: Value<'_>) -> Option<Spanned<u64>> {
    let serial = value.integer("the serial", 1..=SERIAL_MAX)?;
    let left = SERIAL_MAX.saturating_sub(serial);
    // That none is left is an error of `check`.
    if (1..FOLLOWING_MIN).contains(&left) {
        value.remark(|| {
            let follow = match left {
                1 => "only one policy can follow this one".to_owned(),
                left => format!("only {left} policies can follow this one"),
            };
            (
                format!("{follow}: a serial only grows, and ends at {SERIAL_MAX}"),
                "count on from the policy in force: a PC that has taken this serial never goes back below it".to_owned(),
            )
        });
    }
    Some(value.spanned(serial))
}

fn issuer(value: Value<'_>) -> Option<String> {
    let text = value.string()?;
    if text.trim().is_empty() || !text.chars().all(printable::is_shown) {
        return value
            .wrong("the issuer has no readable name", "write who is responsible for this policy");
    }
    if !is_legible(text) {
        value.remark(|| {
            let message = "nobody can read who the issuer is: it shows no letter and no digit";
            (
                message.to_owned(),
                "write who is responsible for this policy: clinicians are told to ask them"
                    .to_owned(),
            )
        });
    }
    Some(text.to_owned())
}
