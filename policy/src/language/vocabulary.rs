//! The names a rule may use, known before the rules are read so that a wrong one is reported where it stands.

use std::collections::HashMap;

use super::domain::DomainId;
use crate::detect::{BuiltIn, Detector};
use crate::diagnostic::{Diagnostic, Source, Span, Spanned};
use crate::document::{Form, Mistake, Value, nearest};
use crate::terms::{Name, RuleId, name};

/// What has been named so far.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    source: Source,
    pub(crate) domains: Vec<Spanned<Name>>,
    /// What domains were advised to be called whose names are wrong where they are given.
    advised: Vec<String>,
    /// The officer's own detectors.
    pub(crate) detectors: Vec<Detector>,
    /// Names of domains and detectors that are wrong where they are given, which is reported there and not again wherever
    /// they are used; `None` where no name could be read at all.
    unnamed: Vec<Option<Unnamed>>,
    rules: HashMap<RuleId, Span>,
}

/// A name that is none.
#[derive(Debug)]
struct Unnamed {
    written: String,
    /// The name that it was advised to be.
    fitting: Option<String>,
}

impl Vocabulary {
    pub(crate) fn new(source: &Source) -> Self {
        Self {
            source: source.clone(),
            domains: Vec::new(),
            advised: Vec::new(),
            detectors: Vec::new(),
            unnamed: Vec::new(),
            rules: HashMap::new(),
        }
    }

    /// Reads the name that a domain or a detector is given.
    pub(crate) fn name(&mut self, form: &mut Form<'_>, example: &str) -> Option<Spanned<Name>> {
        let mut written = None;
        let name = form.required("name", example, |v| {
            let plain = v.plain();
            written = Some(Unnamed { written: plain.to_owned(), fitting: name::fitting(plain) });
            Some(v.spanned(v.parsed()?))
        });
        if name.is_none() {
            self.unnamed.push(written);
        }
        name
    }

    /// Reads the name that a domain is given. Other rules know it even if the rest of the domain is wrong.
    pub(crate) fn domain_name(&mut self, form: &mut Form<'_>) -> Option<Spanned<Name>> {
        let name = self.name(form, "\"clinical\"");
        match &name {
            Some(name) => self.domains.push(name.clone()),
            None => {
                let wrong = self.unnamed.last().and_then(Option::as_ref);
                self.advised.extend(wrong.and_then(|wrong| wrong.fitting.clone()));
            }
        }
        name
    }

    /// Returns whether a name that nothing has was meant for something whose name is wrong where it is given.
    fn is_reported(&self, written: &str) -> bool {
        if self.unnamed.is_empty() {
            return false;
        }
        let fitting = name::fitting(written);
        let meant = |wrong: &Unnamed| {
            wrong.written == written || (fitting.is_some() && wrong.fitting == fitting)
        };
        self.unnamed.iter().any(|wrong| wrong.as_ref().is_none_or(meant))
    }

    /// Reads the name of a domain.
    pub(crate) fn domain(&self, value: Value<'_>) -> Option<Spanned<DomainId>> {
        let written = value.string()?;
        let at = self.domains.iter().position(|name| name.as_str() == written);
        if let Some(id) = at.and_then(|at| u16::try_from(at).ok()) {
            return Some(value.spanned(DomainId(id)));
        }
        // Where none could be read, that is the mistake.
        if self.domains.is_empty() || self.is_reported(written) {
            return None;
        }
        value.wrong_with(|| {
            let advised = self.advised.iter().map(String::as_str);
            let known = self.domains.iter().map(|name| name.as_str()).chain(advised);
            let Mistake { message, help, .. } = no_domain(written, known.clone());
            match EVERY_DOMAIN.contains(&written) {
                true => {
                    let known: Vec<&str> = known.collect();
                    let help = format!(
                        "a rule is for one domain: write one for each of {}; in a [[usb]] rule that denies, leave `to` out for all of them",
                        known.join(", ")
                    );
                    (message, help)
                }
                false => (message, help),
            }
        })
    }

    /// Reads the name of a detector.
    pub(crate) fn detector(&self, value: Value<'_>) -> Option<Spanned<Detector>> {
        let written = value.string()?;
        if let Some(found) = self.detectors.iter().find(|known| known.name() == written) {
            return Some(value.spanned(found.clone()));
        }
        if let Some((_, built_in)) = BuiltIn::WORDS.iter().find(|(word, _)| *word == written) {
            return Some(value.spanned(Detector::BuiltIn(*built_in)));
        }
        if self.is_reported(written) {
            return None;
        }
        value.wrong_with(|| {
            let own = self.detectors.iter().map(Detector::name);
            let known = own.chain(BuiltIn::WORDS.iter().map(|(word, _)| *word));
            let help = match nearest(written, known.clone()) {
                Some(known) => format!("did you mean \"{known}\"?"),
                None => format!(
                    "write one of: {}; or add a [[detector]] of that name",
                    known.collect::<Vec<_>>().join(", ")
                ),
            };
            (format!("no detector is called \"{}\"", written.escape_debug()), help)
        })
    }

    /// Reads a rule's id and its place. Ids are unique in the whole file: the audit names a rule by nothing else.
    pub(crate) fn rule(&mut self, form: &mut Form<'_>) -> Option<Head> {
        let id: Spanned<RuleId> =
            form.required("id", "\"a-name-for-the-audit\"", |v| Some(v.spanned(v.parsed()?)))?;
        let span = form.span();
        if let Some(first) = self.rules.insert(id.value.clone(), id.span) {
            form.sink().report_with(|| already_taken(&id, "rule", first));
        }
        Some(Head { line: self.source.line(span.start), id, span })
    }
}

/// What people write for all domains.
const EVERY_DOMAIN: [&str; 7] = ["*", "all", "any", "both", "every", "모두", "전체"];

/// Reports that there is no domain of a name, with the one that may be meant.
pub(crate) fn no_domain<'n>(
    written: &str,
    known: impl Iterator<Item = &'n str> + Clone,
) -> Mistake {
    let help = match nearest(written, known.clone()) {
        Some(known) => format!("did you mean \"{known}\"?"),
        None => format!("write one of: {}", known.collect::<Vec<_>>().join(", ")),
    };
    Mistake::new(format!("no domain is called \"{}\"", written.escape_debug()), help)
}

/// Reports that `name` was given before, at `first`.
pub(crate) fn already_taken<T>(name: &Spanned<T>, what: &str, first: Span) -> Diagnostic
where
    T: std::ops::Deref<Target = str>,
{
    let message = format!("another {what} is already called \"{}\"", &***name);
    Diagnostic::error(name.span, message, "give this one a name of its own")
        .and(first, "the other one")
}

/// What every rule starts with.
#[derive(Clone, Debug)]
pub struct Head {
    /// What the audit calls it.
    pub id: Spanned<RuleId>,
    /// Where the rule stands.
    pub span: Span,
    /// The line it starts on, from 1.
    pub line: usize,
}
