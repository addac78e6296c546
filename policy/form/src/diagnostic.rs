//! What is wrong with a text that a person wrote: where, what, and what to write instead.
//!
//! Nothing here knows about policies. Any file with a [`Source`] can be complained about in the same way, so that the
//! officer's `policy.toml` and IT's `machine.toml` read alike.
//!
//! Offsets are bytes; lines and columns count from 1, columns in characters, as editors show them.

mod findings;
mod secret;
mod source;
mod span;

use std::fmt;

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, SourceSpan};
use printable::StyledPage;
use serde::Serialize;

pub use findings::Findings;
pub use findings::LeftOut;
pub use secret::without_secrets;
use source::Columns;
pub use source::Source;
pub use span::{Span, Spanned};

/// Columns of a rendered report: what a terminal and a printed page both hold.
const WIDTH: usize = 100;

/// Reports rendered for a person before the rest is only counted: nobody reads the ten-thousandth.
const RENDERED: usize = 50;

/// Other places that a report points at: nobody looks at the twentieth, and each is a piece of text to show.
const RELATED_MAX: usize = 8;

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The text is refused.
    Error,
    /// The text is accepted; somebody should look.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether the text is refused for it.
    pub severity: Severity,
    /// The piece of the text that it is about.
    pub span: Span,
    /// What is wrong: lowercase, no full stop.
    pub message: String,
    /// What to do about it.
    pub help: String,
    /// Other places that belong to the matter, each with a word on why.
    pub related: Vec<(Span, String)>,
    /// How many warnings of its kind were found before it.
    of_its_kind: usize,
    /// Whether it is about what harms nobody.
    harmless: bool,
}

impl Diagnostic {
    /// Makes the diagnostic of something for which the text is refused.
    pub fn error(span: Span, message: impl Into<String>, help: impl Into<String>) -> Self {
        // Whoever wrote the text may have written it for a terminal.
        let fit = |text: String| printable::line(&text).to_string();
        let (message, help) = (fit(message.into()), fit(help.into()));
        let related = Vec::new();
        Self {
            severity: Severity::Error,
            span,
            message,
            help,
            related,
            of_its_kind: 0,
            harmless: false,
        }
    }

    /// Makes the diagnostic of something for which the text is not refused.
    pub fn warning(span: Span, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(span, message, help) }
    }

    /// Returns the same, shown after all that may do harm.
    #[must_use]
    pub fn harmless(self) -> Self {
        Self { harmless: true, ..self }
    }

    /// Returns the same, of which the text is refused or not.
    #[must_use]
    pub fn of_severity(self, severity: Severity) -> Self {
        Self { severity, ..self }
    }

    /// Returns where it stands among all that was found.
    fn place(&self) -> impl Ord + '_ {
        (self.span, self.severity, self.message.as_str())
    }

    /// Returns how soon a person is shown it: errors, then of each kind of warning the first, the second and so on, and last what harms nobody.
    fn sort_key(&self) -> impl Ord + '_ {
        (self.severity, self.harmless, self.of_its_kind, self.place())
    }

    /// Points at another place too, unless there are many already.
    #[must_use]
    pub fn and(mut self, span: Span, word: impl Into<String>) -> Self {
        if self.related.len() < RELATED_MAX {
            self.related.push((span, printable::line(&word.into()).to_string()));
        }
        self
    }
}

/// A diagnostic as `--json` prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Located {
    /// Whether the text is refused for it.
    pub severity: Severity,
    /// The line that it starts on, from 1.
    pub line: usize,
    /// Column, from 1, in characters.
    pub column: usize,
    /// The offset of its first byte in the text.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
    /// The piece of the text that it is about.
    pub text: String,
    /// What is wrong: lowercase, no full stop.
    pub message: String,
    /// What to do about it.
    pub help: String,
}

/// Everything found in one text, in the order of the text.
#[derive(Clone, Debug)]
pub struct Diagnostics {
    source: Source,
    list: Vec<Diagnostic>,
    /// Found, and not in the list.
    left_out: LeftOut,
}

impl Diagnostics {
    /// Collects what was found in `source`, in any order.
    #[must_use]
    pub fn new(source: Source, mut list: Vec<Diagnostic>) -> Self {
        list.sort_by(|a, b| a.place().cmp(&b.place()));
        Self { source, list, left_out: LeftOut::default() }
    }

    /// Collects the same of findings that were counted.
    pub fn of(source: Source, found: Findings) -> Self {
        let (list, left_out) = found.into_parts();
        Self { left_out, ..Self::new(source, list) }
    }

    /// Returns the same with as many more errors, which were found and are only counted.
    pub fn and_more_errors(mut self, errors: usize) -> Self {
        self.left_out.errors = self.left_out.errors.saturating_add(errors);
        self
    }

    /// Returns the same with a few more in the list.
    pub fn and(self, more: Vec<Diagnostic>) -> Self {
        let Self { source, mut list, left_out } = self;
        list.extend(more);
        Self { left_out, ..Self::new(source, list) }
    }

    /// Returns how many more were found and are only counted.
    #[must_use]
    pub fn left_out(&self) -> LeftOut {
        self.left_out
    }

    /// Returns the text they are about.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Returns all of them.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.list.iter()
    }

    /// Returns whether nothing was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Returns whether the text is refused.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|found| found.severity == Severity::Error)
    }

    /// Returns those of one severity, as `--json` prints them.
    #[must_use]
    pub fn located(&self, severity: Severity) -> Vec<Located> {
        let mut columns = Columns::of(&self.source);
        let chosen = self.list.iter().filter(|found| found.severity == severity);
        chosen.map(|found| self.locate(found, &mut columns)).collect()
    }

    /// Renders them for a person: each with its line shown, the offending text underlined, and the remedy.
    #[must_use]
    pub fn render(&self, colours: bool) -> StyledPage {
        let theme =
            if colours { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler = GraphicalReportHandler::new_themed(theme).with_width(WIDTH).with_links(false);
        let mut out = String::new();
        let source = self.source.shown();
        let mut columns = Columns::of(&self.source);
        for diagnostic in self.shown() {
            let report = Report { source: &source, diagnostic };
            if !source.can_be_quoted(diagnostic)
                || handler.render_report(&mut out, &report).is_err()
            {
                out.push_str(&self.one_line(diagnostic, &mut columns));
            }
            out.push('\n');
        }
        if let Some(rest) = self.rest() {
            out.push_str(&rest);
            out.push('\n');
        }
        // Every text that is in it was made fit to be shown: the colours are the renderer's.
        StyledPage::rendered(&out)
    }

    /// Returns those that a person is shown, in the order of the text: all, or those whose turn comes first if there are more than anybody reads.
    fn shown(&self) -> Vec<&Diagnostic> {
        let mut shown: Vec<&Diagnostic> = self.list.iter().collect();
        shown.sort_by(|a, b| a.sort_key().cmp(&b.sort_key()));
        shown.truncate(RENDERED);
        shown.sort_by(|a, b| a.place().cmp(&b.place()));
        shown
    }

    /// Returns how many there are besides those that are shown.
    fn rest(&self) -> Option<String> {
        let errors = self.list.iter().filter(|found| found.severity == Severity::Error).count();
        let shown = errors.min(RENDERED);
        let more = LeftOut {
            errors: self.left_out.errors.saturating_add(errors - shown),
            warnings: self
                .left_out
                .warnings
                .saturating_add((self.list.len() - errors).saturating_sub(RENDERED - shown)),
        };
        let count = |number: usize, one: &str| {
            let number = u64::try_from(number).unwrap_or(u64::MAX);
            printable::counted(number, one, &format!("{one}s"))
        };
        let which = match more {
            LeftOut { errors: 0, warnings: 0 } => return None,
            LeftOut { errors: 0, warnings } => count(warnings, "warning"),
            LeftOut { errors, warnings: 0 } => count(errors, "error"),
            LeftOut { errors, warnings } => {
                format!("{} and {}", count(errors, "error"), count(warnings, "warning"))
            }
        };
        Some(format!("… and {} more: {which}", more.all()))
    }

    fn locate(&self, found: &Diagnostic, columns: &mut Columns<'_>) -> Located {
        Located {
            severity: found.severity,
            line: self.source.line(found.span.start),
            column: columns.at(found.span.start),
            start: found.span.start,
            end: found.span.end,
            text: self.source.slice(found.span).chars().take(printable::LINE_MAX).collect(),
            message: found.message.clone(),
            help: found.help.clone(),
        }
    }

    fn one_line(&self, found: &Diagnostic, columns: &mut Columns<'_>) -> String {
        let Located { line, column, message, help, .. } = self.locate(found, columns);
        format!("{}:{line}:{column}: {message}; {help}", printable::line(self.source.name()))
    }
}

impl fmt::Display for Diagnostics {
    /// Writes one line for each, up to as many as somebody reads: `file:line:column: message; help`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut columns = Columns::of(&self.source);
        let lines = self.shown().into_iter().map(|found| self.one_line(found, &mut columns));
        let lines: Vec<String> = lines.chain(self.rest()).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Diagnostics {}

/// One diagnostic as miette wants to see it.
#[derive(Debug)]
struct Report<'a> {
    source: &'a Source,
    diagnostic: &'a Diagnostic,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.diagnostic.message)
    }
}

impl std::error::Error for Report<'_> {}

impl miette::Diagnostic for Report<'_> {
    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.diagnostic.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(&self.diagnostic.help))
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        Some(self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let related = self.diagnostic.related.iter();
        let quoted = |span: Span| {
            let Span { start, end } = self.source.quoted(span);
            SourceSpan::from((start, end.saturating_sub(start)))
        };
        let related = related
            .map(move |(span, word)| LabeledSpan::new_with_span(Some(word.clone()), quoted(*span)));
        let primary = LabeledSpan::new_primary_with_span(None, quoted(self.diagnostic.span));
        Some(Box::new(std::iter::once(primary).chain(related)))
    }
}
