//! A text and its places.

use std::sync::Arc;

use miette::{MietteError, SourceSpan};

use super::secret::Secret;
use super::span::Span;
use super::{Diagnostic, secret};
use crate::effort;

/// Bytes of the longest line that a report quotes.
const QUOTED_MAX: usize = 400;

/// Lines of the longest quotation: of a longer piece of text only its first line is shown.
const QUOTED_LINES_MAX: usize = 8;

/// A named text. Cheap to clone. Secret keys in it are not shown, by whatever quotes it.
#[derive(Clone, Debug)]
pub struct Source {
    name: Arc<str>,
    text: Arc<str>,
    /// Where each line starts; never empty, ascending.
    lines: Arc<[usize]>,
    /// The secret key in it that has to be told of.
    secret: Option<Secret>,
}

impl Source {
    /// Makes a source. `name` is what the reports call the text: a path, usually.
    #[must_use]
    pub fn new(name: &str, text: &str) -> Self {
        let after_newline = text.match_indices('\n').map(|(at, _)| at + 1);
        let secrets = secret::secrets(text);
        Self {
            name: name.into(),
            text: secret::hidden(text, &secrets).into(),
            lines: std::iter::once(0).chain(after_newline).collect(),
            secret: Secret::gravest(text, &secrets),
        }
    }

    /// Returns the same text for a terminal: what is not shown leaves its place to something as long.
    pub(super) fn shown(&self) -> Self {
        Self {
            text: printable::same_length(&self.text).into(),
            name: printable::line(&self.name).to_string().into(),
            ..self.clone()
        }
    }

    /// Returns what is wrong with a file that has a secret key in it. Nothing else of it is to be read.
    #[must_use]
    pub fn secret(&self) -> Option<Diagnostic> {
        self.secret.map(Secret::complaint)
    }

    /// Returns the name given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the whole text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the line of a byte, from 1.
    #[must_use]
    pub fn line(&self, offset: usize) -> usize {
        self.lines.partition_point(|&start| start <= offset)
    }

    /// Returns the column of a byte in its line, from 1, in characters.
    #[must_use]
    pub fn column(&self, offset: usize) -> usize {
        Columns::of(self).at(offset)
    }

    /// Returns where a line starts, counted from 0; the end of the text for one that is not there.
    fn line_start(&self, line: usize) -> usize {
        self.lines.get(line).copied().unwrap_or(self.text.len())
    }

    /// Returns the text of a line, from 1, without its end.
    #[must_use]
    pub fn line_text(&self, line: usize) -> &str {
        let (start, end) = (self.line_start(line.saturating_sub(1)), self.line_start(line));
        self.slice(Span { start, end }).trim_end_matches(['\r', '\n'])
    }

    /// Returns whether the lines that a report quotes are as long as lines are.
    pub(super) fn can_be_quoted(&self, found: &Diagnostic) -> bool {
        // One more line on either side is quoted for context.
        let fits = |span: Span| {
            let span = self.quoted(span);
            let (first, last) = (self.line(span.start).saturating_sub(2), self.line(span.end) + 1);
            (first..last)
                .all(|line| self.line_start(line + 1) - self.line_start(line) <= QUOTED_MAX)
        };
        fits(found.span) && found.related.iter().all(|(span, _)| fits(*span))
    }

    /// Returns what of a piece of text a report shows: all of it, or its first line.
    pub(super) fn quoted(&self, span: Span) -> Span {
        let first = self.line(span.start);
        if self.line(span.end) - first < QUOTED_LINES_MAX {
            return span;
        }
        let shown = self.line_text(first).len() + self.line_start(first.saturating_sub(1));
        Span { start: span.start, end: shown.clamp(span.start, span.end) }
    }

    /// Returns the text at `span`; empty where `span` is outside the text or cuts a character.
    #[must_use]
    pub fn slice(&self, span: Span) -> &str {
        self.text.get(span.start..span.end).unwrap_or_default()
    }
}

/// Columns of places that are asked for in the order of the text: a long line is gone through once, however many of them are in it.
#[derive(Debug)]
pub(super) struct Columns<'s> {
    source: &'s Source,
    /// The last place, and its column.
    last: (usize, usize),
}

impl<'s> Columns<'s> {
    pub(super) const fn of(source: &'s Source) -> Self {
        Self { source, last: (0, 1) }
    }

    /// Returns the column of a byte in its line, from 1, in characters.
    pub(super) fn at(&mut self, offset: usize) -> usize {
        let start = self.source.line_start(self.source.line(offset).saturating_sub(1));
        let (from, before) = match self.last {
            last if (start..=offset).contains(&last.0) => last,
            _ => (start, 1),
        };
        let between = self.source.slice(Span { start: from, end: offset });
        effort::spend(between.len());
        self.last = (offset, before + between.chars().count());
        self.last.1
    }
}

impl miette::SourceCode for Source {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn miette::SpanContents<'a> + 'a>, MietteError> {
        // The lines that can be asked for, and one more at either end: miette would go through the text from its first byte.
        let end = span.offset().saturating_add(span.len());
        let first = self.line(span.offset()).saturating_sub(before.saturating_add(2));
        let start = self.line_start(first);
        let last = self.line(end).saturating_add(after).saturating_add(1);
        let window = self.slice(Span { start, end: self.line_start(last) });
        effort::spend(window.len());
        let inside = SourceSpan::from((span.offset().saturating_sub(start), span.len()));
        let shown = window.read_span(&inside, before, after)?;
        // How many are shown, by which miette joins what is near. (Its own count is of all lines up to there.)
        let lines = shown.data().iter().filter(|byte| **byte == b'\n').count();
        Ok(Box::new(miette::MietteSpanContents::new_named(
            self.name.to_string(),
            shown.data(),
            SourceSpan::from((shown.span().offset().saturating_add(start), shown.span().len())),
            shown.line().saturating_add(first),
            shown.column(),
            lines,
        )))
    }
}
