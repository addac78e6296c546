//! What is wrong with a text that a person wrote: where, what, and what to write instead.
//!
//! Nothing here knows about policies. Any file with a [`Source`] can be complained about in the same way, so that the
//! officer's `policy.toml` and IT's `machine.toml` read alike.
//!
//! Offsets are bytes; lines and columns count from 1, columns in characters, as editors show them.

mod secret;

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError, SourceSpan};
use printable::StyledPage;
use serde::Serialize;

pub use secret::without_secrets;

/// Columns of a rendered report: what a terminal and a printed page both hold.
const WIDTH: usize = 100;

/// Reports rendered for a person before the rest is only counted: nobody reads the ten-thousandth.
const RENDERED: usize = 50;

/// Bytes of the longest line that a report quotes.
const QUOTED_MAX: usize = 400;

/// Lines of the longest quotation: of a longer piece of text only its first line is shown.
const QUOTED_LINES_MAX: usize = 8;

/// A piece of the text, in bytes, end excluded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl From<Range<usize>> for Span {
    fn from(range: Range<usize>) -> Self {
        Self { start: range.start, end: range.end }
    }
}

/// A value and where it was written.
#[derive(Clone, Copy, Debug)]
pub struct Spanned<T> {
    /// What was written.
    pub value: T,
    /// Where.
    pub span: Span,
}

impl<T> Spanned<T> {
    /// `value`, written at `span`.
    pub const fn new(value: T, span: Span) -> Self {
        Self { value, span }
    }
}

impl<T> Deref for Spanned<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

/// A named text. Cheap to clone. Secret keys in it are not shown, by whatever quotes it.
#[derive(Clone, Debug)]
pub struct Source {
    name: Arc<str>,
    text: Arc<str>,
    /// Where each line starts; never empty, ascending.
    lines: Arc<[usize]>,
    /// The first secret key in it.
    secret: Option<Span>,
}

impl Source {
    /// `name` is what the reports call the text: a path, usually.
    #[must_use]
    pub fn new(name: &str, text: &str) -> Self {
        let after_newline = text.match_indices('\n').map(|(at, _)| at + 1);
        let secrets = secret::secrets(text);
        Self {
            name: name.into(),
            text: secret::hidden(text, &secrets).into(),
            lines: std::iter::once(0).chain(after_newline).collect(),
            secret: secrets.first().copied(),
        }
    }

    /// What is wrong with a file that has a secret key in it. Nothing else of it is to be read.
    #[must_use]
    pub fn secret(&self) -> Option<Diagnostic> {
        self.secret.map(secret::complaint)
    }

    /// The name given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Line of a byte, from 1.
    #[must_use]
    pub fn line(&self, offset: usize) -> usize {
        self.lines.partition_point(|&start| start <= offset)
    }

    /// Column of a byte in its line, from 1, in characters.
    #[must_use]
    pub fn column(&self, offset: usize) -> usize {
        let line = self.line(offset);
        let start = self.lines.get(line.saturating_sub(1)).copied().unwrap_or(0);
        self.slice(Span { start, end: offset }).chars().count() + 1
    }

    /// Where a line starts, counted from 0; the end of the text for one that is not there.
    fn line_start(&self, line: usize) -> usize {
        self.lines.get(line).copied().unwrap_or(self.text.len())
    }

    /// The text of a line, from 1, without its end.
    #[must_use]
    pub fn line_text(&self, line: usize) -> &str {
        let (start, end) = (self.line_start(line.saturating_sub(1)), self.line_start(line));
        self.slice(Span { start, end }).trim_end_matches(['\r', '\n'])
    }

    /// Whether the lines that a report quotes are as long as lines are.
    fn can_be_quoted(&self, found: &Diagnostic) -> bool {
        // One more line on either side is quoted for context.
        let fits = |span: Span| {
            let span = self.quoted(span);
            let (first, last) = (self.line(span.start).saturating_sub(2), self.line(span.end) + 1);
            (first..last)
                .all(|line| self.line_start(line + 1) - self.line_start(line) <= QUOTED_MAX)
        };
        fits(found.span) && found.related.iter().all(|(span, _)| fits(*span))
    }

    /// What of a piece of text a report shows: all of it, or its first line.
    fn quoted(&self, span: Span) -> Span {
        let first = self.line(span.start);
        if self.line(span.end) - first < QUOTED_LINES_MAX {
            return span;
        }
        let shown = self.line_text(first).len() + self.line_start(first.saturating_sub(1));
        Span { start: span.start, end: shown.clamp(span.start, span.end) }
    }

    /// The text at `span`; empty where `span` is outside the text or cuts a character.
    #[must_use]
    pub fn slice(&self, span: Span) -> &str {
        self.text.get(span.start..span.end).unwrap_or_default()
    }
}

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
    /// The offending text.
    pub span: Span,
    /// What is wrong: lowercase, no full stop.
    pub message: String,
    /// What to do about it.
    pub help: String,
    /// Other places that belong to the matter, each with a word on why.
    pub related: Vec<(Span, String)>,
}

impl Diagnostic {
    /// Something for which the text is refused.
    pub fn error(span: Span, message: impl Into<String>, help: impl Into<String>) -> Self {
        // Whoever wrote the text may have written it for a terminal.
        let fit = |text: String| printable::line(&text).to_string();
        let (message, help) = (fit(message.into()), fit(help.into()));
        Self { severity: Severity::Error, span, message, help, related: Vec::new() }
    }

    /// Something for which the text is not refused.
    pub fn warning(span: Span, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(span, message, help) }
    }

    /// Points at another place too.
    #[must_use]
    pub fn and(mut self, span: Span, word: impl Into<String>) -> Self {
        self.related.push((span, printable::line(&word.into()).to_string()));
        self
    }
}

/// A diagnostic as `--json` prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Located {
    /// Whether the text is refused for it.
    pub severity: Severity,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1, in characters.
    pub column: usize,
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
    /// The offending text.
    pub text: String,
    /// What is wrong.
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
    left_out: usize,
}

impl Diagnostics {
    /// What was found in `source`, in any order.
    #[must_use]
    pub fn new(source: Source, mut list: Vec<Diagnostic>) -> Self {
        list.sort_by(|a, b| {
            (a.span, a.severity, &a.message).cmp(&(b.span, b.severity, &b.message))
        });
        Self { source, list, left_out: 0 }
    }

    /// As many more were found and are only counted.
    #[must_use]
    pub fn and_more(self, left_out: usize) -> Self {
        Self { left_out, ..self }
    }

    /// How many more were found and are only counted; errors all.
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// The text they are about.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.list.iter()
    }

    /// Nothing was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether the text is refused.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|found| found.severity == Severity::Error)
    }

    /// Those of one severity, as `--json` prints them.
    #[must_use]
    pub fn located(&self, severity: Severity) -> Vec<Located> {
        let chosen = self.list.iter().filter(|found| found.severity == severity);
        chosen.map(|found| self.locate(found)).collect()
    }

    /// For a person: each with its line shown, the offending text underlined, and the remedy.
    #[must_use]
    pub fn render(&self, colours: bool) -> StyledPage {
        let theme =
            if colours { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler = GraphicalReportHandler::new_themed(theme).with_width(WIDTH).with_links(false);
        let mut out = String::new();
        // Spans are of the text as it is: what is not shown leaves its place to something as long.
        let source = Source {
            text: printable::same_length(&self.source.text).into(),
            name: printable::line(&self.source.name).to_string().into(),
            ..self.source.clone()
        };
        for diagnostic in self.list.iter().take(RENDERED) {
            let report = Report { source: &source, diagnostic };
            if !source.can_be_quoted(diagnostic)
                || handler.render_report(&mut out, &report).is_err()
            {
                out.push_str(&self.one_line(diagnostic));
            }
            out.push('\n');
        }
        if let rest @ 1.. = self.list.len().saturating_sub(RENDERED) + self.left_out {
            out.push_str(&format!("… and {rest} more\n"));
        }
        // Every text that is in it was made fit to be shown: the colours are the renderer's.
        StyledPage::rendered(&out)
    }

    fn locate(&self, found: &Diagnostic) -> Located {
        Located {
            severity: found.severity,
            line: self.source.line(found.span.start),
            column: self.source.column(found.span.start),
            start: found.span.start,
            end: found.span.end,
            text: self.source.slice(found.span).chars().take(printable::LINE_MAX).collect(),
            message: found.message.clone(),
            help: found.help.clone(),
        }
    }

    fn one_line(&self, found: &Diagnostic) -> String {
        let Located { line, column, message, help, .. } = self.locate(found);
        format!("{}:{line}:{column}: {message}; {help}", printable::line(&self.source.name))
    }
}

impl fmt::Display for Diagnostics {
    /// One line for each, up to as many as somebody reads: `file:line:column: message; help`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, found) in self.list.iter().take(RENDERED).enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(f, "{newline}{}", self.one_line(found))?;
        }
        match self.list.len().saturating_sub(RENDERED) + self.left_out {
            0 => Ok(()),
            rest => write!(f, "\n… and {rest} more"),
        }
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
        let related = related.map(|(span, word)| {
            LabeledSpan::new_with_span(Some(word.clone()), self.source.quoted(*span))
        });
        let primary =
            LabeledSpan::new_primary_with_span(None, self.source.quoted(self.diagnostic.span));
        Some(Box::new(std::iter::once(primary).chain(related)))
    }
}

impl From<Span> for SourceSpan {
    fn from(span: Span) -> Self {
        (span.start, span.end.saturating_sub(span.start)).into()
    }
}

impl miette::SourceCode for Source {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn miette::SpanContents<'a> + 'a>, MietteError> {
        let shown = self.text.read_span(span, before, after)?;
        // How many are shown, by which miette joins what is near. (Its own count is of all lines up to there.)
        let lines = shown.data().iter().filter(|byte| **byte == b'\n').count();
        Ok(Box::new(miette::MietteSpanContents::new_named(
            self.name.to_string(),
            shown.data(),
            *shown.span(),
            shown.line(),
            shown.column(),
            lines,
        )))
    }
}
