//! `bulkhead policy check`: is this policy fit to be signed?

use std::fmt;

use printable::StyledPage;
use serde::Serialize;

use crate::lint::lint;
use policy::Policy;
use policy::diagnostic::{Diagnostics, Located, Severity};
use policy::version::Version;

/// Everything there is to say about a policy's text.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whether it may be put in force: there are no errors.
    pub ok: bool,
    /// For what it is refused; the first, if there are many.
    pub errors: Vec<Located>,
    /// How many errors there are besides; left out if there is none.
    #[serde(skip_serializing_if = "is_none")]
    pub more_errors: usize,
    /// What somebody should look at; the first hundred of each kind, if there are many.
    pub warnings: Vec<Located>,
    /// How many warnings there are besides; left out if there is none.
    #[serde(skip_serializing_if = "is_none")]
    pub more_warnings: usize,
    /// What is looked at once these errors are corrected; `None` if all was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<&'static str>,
    /// The older version that was asked about, if this one takes the policy.
    #[serde(skip)]
    refused_by: Option<Version>,
    #[serde(skip)]
    found: Diagnostics,
}

/// What the last step of a check looks at, which needs a policy that can be read.
const LAST_STEP: &str = "warnings, [[expect]] and colours are looked at once it can be read";

/// Reads a policy, lints it, and holds it against its own expectations.
#[must_use]
pub fn check(source_name: &str, text: &str) -> Report {
    Report::of(match Policy::draft(source_name, text) {
        Ok(policy) => (lint(&policy), None),
        Err(found) => (found, Some(LAST_STEP)),
    })
}

/// Checks the same for PCs of another version: what those would refuse it for is an error, too.
#[must_use]
pub fn check_for(version: Version, source_name: &str, text: &str) -> Report {
    match Policy::draft(source_name, text) {
        Ok(policy) => {
            let own = lint(&policy);
            let refused_by = (!own.has_errors()).then_some(version);
            let both = own.and(policy.refused_by(version));
            Report { refused_by, ..Report::of((both, None)) }
        }
        Err(found) => Report::of((found, Some(LAST_STEP))),
    }
}

fn is_none(number: &usize) -> bool {
    *number == 0
}

impl Report {
    fn of((found, next): (Diagnostics, Option<&'static str>)) -> Self {
        Self {
            ok: !found.has_errors(),
            errors: found.located(Severity::Error),
            more_errors: found.left_out().errors,
            warnings: found.located(Severity::Warning),
            more_warnings: found.left_out().warnings,
            next,
            refused_by: None,
            found,
        }
    }

    /// Renders the outcome for a person: each finding with its line underlined, then the sum.
    #[must_use]
    pub fn render(&self, colours: bool) -> StyledPage {
        let mut page = self.found.render(colours);
        page.push(&format!("{self}\n"));
        page
    }
}

impl fmt::Display for Report {
    /// Writes whether it is fit, and how many errors and warnings there are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |number: usize, what: &str| match number {
            0 => format!("no {what}s"),
            1 => format!("1 {what}"),
            many => format!("{many} {what}s"),
        };
        let (errors, warnings) = (
            count(self.errors.len() + self.more_errors, "error"),
            count(self.warnings.len() + self.more_warnings, "warning"),
        );
        let fit = match (self.ok, self.refused_by) {
            (true, _) => "fit to be signed".to_owned(),
            (false, None) => "refused".to_owned(),
            (false, Some(version)) => format!("fit for this version; refused by {version}"),
        };
        let name = self.found.source().name();
        match self.next {
            Some(next) => write!(f, "{name}: {fit}: {errors}; {next}"),
            None => write!(f, "{name}: {fit}: {errors}, {warnings}"),
        }
    }
}
