//! A TOML text read as forms to be filled in.
//!
//! A [`Form`] is a table whose keys are asked for one by one. Whatever was never asked for when the form is closed is an
//! unknown key, and the keys that *were* asked for are the suggestions; so the list of known keys is the reading code
//! itself and cannot fall out of step with it. A [`Value`] knows its place and reports by itself when it is not what was
//! expected. Reading goes on after a mistake: every mistake is reported at once.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::RangeInclusive;

use toml::de::{DeTable, DeValue};

use crate::diagnostic::{Diagnostic, Diagnostics, Source, Span, Spanned};
use crate::version::{Newer, Version};

/// Bytes of the longest text that is read: tens of thousands of rules.
pub const TEXT_MAX: usize = 4 << 20;

mod nearest;

pub use nearest::nearest;

/// Reads `source` as TOML and hands its top-level table to `read`, which returns `None` only after reporting why.
///
/// # Errors
/// Everything that is wrong.
pub fn read<T>(
    source: &Source,
    read: impl FnOnce(Form<'_>) -> Option<T>,
) -> Result<T, Diagnostics> {
    let sink = Sink::default();
    if source.text().len() > TEXT_MAX {
        let message = format!("the file is longer than {} MiB", TEXT_MAX >> 20);
        sink.report(Diagnostic::error(Span::default(), message, "is this the right file?"));
        return Err(sink.found(source));
    }
    let (root, mistakes) = DeTable::parse_recoverable(source.text());
    if !mistakes.is_empty() {
        mistakes.iter().for_each(|mistake| sink.report_with(|| not_toml(source, mistake)));
        return Err(sink.found(source));
    }
    let form = Form::new("the file".to_owned(), Span::default(), root.get_ref(), &sink);
    let value = read(form);
    let found = sink.found(source);
    match value {
        Some(value) if !found.has_errors() => Ok(value),
        _ => Err(found),
    }
}

fn not_toml(source: &Source, mistake: &toml::de::Error) -> Diagnostic {
    let end = source.text().len();
    let span = mistake.span().map_or(Span { start: end, end }, Span::from);
    let message = format!("this is not TOML: {}", mistake.message().replace('\n', ", "));
    Diagnostic::error(
        span,
        message,
        "see https://toml.io; strings need quotes, keys an equals sign",
    )
}

/// Mistakes of one text that are kept; the rest are counted. Nobody reads the hundredth, and a text of nothing but
/// mistakes must not take more memory for its reports than for itself.
const MISTAKES_MAX: usize = 100;

/// Where mistakes are reported to while reading goes on.
#[derive(Debug, Default)]
pub struct Sink {
    kept: RefCell<Vec<Diagnostic>>,
    left_out: Cell<usize>,
    newer: RefCell<Vec<Newer>>,
}

impl Sink {
    /// Adds one.
    pub fn report(&self, found: Diagnostic) {
        self.report_with(|| found);
    }

    /// Adds one that takes work to word, which is not done for those that are only counted.
    pub fn report_with(&self, found: impl FnOnce() -> Diagnostic) {
        if self.kept.borrow().len() < MISTAKES_MAX {
            let found = found();
            self.kept.borrow_mut().push(found);
        } else {
            self.left_out.set(self.left_out.get().saturating_add(1));
        }
    }

    /// Notes what only newer versions read; of more than [`MISTAKES_MAX`] the first.
    fn note_newer(&self, newer: impl FnOnce() -> Newer) {
        if self.newer.borrow().len() < MISTAKES_MAX {
            let newer = newer();
            self.newer.borrow_mut().push(newer);
        }
    }

    /// What was read that not every version reads.
    pub(crate) fn newer(&self) -> Vec<Newer> {
        self.newer.borrow().clone()
    }

    /// Whether anything was reported.
    #[must_use]
    pub fn has_mistakes(&self) -> bool {
        !self.kept.borrow().is_empty()
    }

    fn found(self, source: &Source) -> Diagnostics {
        Diagnostics::new(source.clone(), self.kept.into_inner()).and_more(self.left_out.get())
    }
}

/// Why a piece of text is not what it should be, before anyone knows where it stands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}; {help}")]
pub struct Mistake {
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: String,
}

impl Mistake {
    /// A mistake with its remedy.
    pub fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

/// A table being read. Close it, or its unknown keys go unnoticed.
#[derive(Debug)]
#[must_use = "close() finds the unknown keys"]
pub struct Form<'s> {
    name: String,
    span: Span,
    table: &'s DeTable<'s>,
    asked: Vec<&'static str>,
    sink: &'s Sink,
}

impl<'s> Form<'s> {
    fn new(name: String, span: Span, table: &'s DeTable<'s>, sink: &'s Sink) -> Self {
        Self { name, span, table, asked: Vec::new(), sink }
    }

    /// Where the table stands: its header, or its braces.
    #[must_use]
    pub fn span(&self) -> Span {
        self.span
    }

    /// Where mistakes that concern more than one value are reported to.
    #[must_use]
    pub fn sink(&self) -> &'s Sink {
        self.sink
    }

    /// The value of a key that may be missing. `None` if it is, or if `read` found a mistake in it.
    pub fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(Value<'s>) -> Option<T>,
    ) -> Option<T> {
        self.asked.push(key);
        let (_, value) = self.table.get_key_value(key)?;
        read(Value { value: value.get_ref(), span: value.span().into(), sink: self.sink })
    }

    /// The same for a key that came with a version: older ones refuse a policy that has it.
    pub fn optional_since<T>(
        &mut self,
        since: Version,
        key: &'static str,
        read: impl FnOnce(Value<'s>) -> Option<T>,
    ) -> Option<T> {
        if let Some((written, _)) = self.table.get_key_value(key) {
            self.sink.note_newer(|| Newer {
                span: written.span().into(),
                what: format!("the key `{key}` of {}", self.name),
                since,
            });
        }
        self.optional(key, read)
    }

    /// The value of a key that must be there; `example` is what the officer is told to write when it is not.
    pub fn required<T>(
        &mut self,
        key: &'static str,
        example: &str,
        read: impl FnOnce(Value<'s>) -> Option<T>,
    ) -> Option<T> {
        if !self.table.contains_key(key) {
            let message = format!("{} has no `{key}`", self.name);
            self.sink.report(Diagnostic::error(
                self.span,
                message,
                format!("add `{key} = {example}`"),
            ));
        }
        self.optional(key, read)
    }

    /// The tables of `[[key]]`, each as a form; empty if there is no such key. `None` if there are more than `most`, of
    /// which none is read: what comes after may cost more than each its share.
    pub fn each<T>(
        &mut self,
        key: &'static str,
        most: usize,
        read: impl FnMut(Form<'s>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let mut too_many = false;
        let tables = self.optional(key, |value| match value.value {
            DeValue::Array(items) if items.len() > most => {
                too_many = true;
                let first = items.get(most).map_or(value.span, |item| item.span().into());
                let message = format!("there are more than {most} [[{key}]]");
                let help = format!("remove some: {} are written", items.len());
                self.sink.report(Diagnostic::error(first, message, help));
                None
            }
            DeValue::Array(_) => value.list(usize::MAX),
            _ => value.wrong(
                format!("`{key}` is not written as a list of tables"),
                format!("start each one with [[{key}]]"),
            ),
        });
        let forms =
            tables.into_iter().flatten().filter_map(|value| value.form(&format!("[[{key}]]")));
        let read = forms.filter_map(read).collect();
        (!too_many).then_some(read)
    }

    /// Whether the key was written at all.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// The keys that were written and not yet asked for.
    #[must_use]
    pub fn remaining(&self) -> Vec<Spanned<&'s str>> {
        let unasked = self.table.keys().filter(|key| !self.asked.contains(&key.get_ref().as_ref()));
        unasked.map(|key| Spanned::new(key.get_ref().as_ref(), key.span().into())).collect()
    }

    /// Reports every key that nobody asked for.
    pub fn close(self) {
        for key in self.remaining() {
            self.sink.report_with(|| {
                let message = format!("{} has no key `{}`", self.name, *key);
                let help = match nearest(&key, self.asked.iter().copied()) {
                    Some(known) => format!("did you mean `{known}`?"),
                    None => format!("remove it; known here: {}", self.asked.join(", ")),
                };
                Diagnostic::error(key.span, message, help)
            });
        }
    }
}

/// A value being read.
#[derive(Clone, Copy, Debug)]
pub struct Value<'s> {
    value: &'s DeValue<'s>,
    span: Span,
    sink: &'s Sink,
}

impl<'s> Value<'s> {
    /// Where it stands.
    #[must_use]
    pub fn span(self) -> Span {
        self.span
    }

    /// Reports a mistake here, and is `None` so that a reader can end with it.
    pub fn wrong<T>(self, message: impl Into<String>, help: impl Into<String>) -> Option<T> {
        self.sink.report(Diagnostic::error(self.span, message, help));
        None
    }

    /// Reports `result`'s mistake here, if it is one.
    pub fn checked<T>(self, result: Result<T, Mistake>) -> Option<T> {
        result.map_err(|Mistake { message, help }| self.wrong::<T>(message, help)).ok()
    }

    /// The same for a mistake that takes work to word: its message and what to do.
    pub fn wrong_with<T>(self, words: impl FnOnce() -> (String, String)) -> Option<T> {
        self.sink.report_with(|| {
            let (message, help) = words();
            Diagnostic::error(self.span, message, help)
        });
        None
    }

    /// With its place.
    pub fn spanned<T>(self, value: T) -> Spanned<T> {
        Spanned::new(value, self.span)
    }

    /// A string.
    #[must_use]
    pub fn string(self) -> Option<&'s str> {
        match self.value {
            DeValue::String(text) => Some(text),
            _ => self.not_a("a string", "\"text\""),
        }
    }

    /// A string that has a type of its own.
    #[must_use]
    pub fn parsed<T: std::str::FromStr<Err = Mistake>>(self) -> Option<T> {
        self.checked(self.string()?.parse())
    }

    /// Whether a whole number was written.
    #[must_use]
    pub fn is_integer(self) -> bool {
        matches!(self.value, DeValue::Integer(_))
    }

    /// `true` or `false`.
    #[must_use]
    pub fn boolean(self) -> Option<bool> {
        match self.value {
            DeValue::Boolean(value) => Some(*value),
            _ => self.not_a("true or false", "true"),
        }
    }

    /// A whole number inside `range`. `what` says what it counts.
    #[must_use]
    pub fn integer<N>(self, what: &str, range: RangeInclusive<N>) -> Option<N>
    where
        N: Copy + PartialOrd + fmt::Display + TryFrom<u64>,
    {
        let DeValue::Integer(written) = self.value else {
            return self.not_a("a whole number", &range.start().to_string());
        };
        let number = u64::from_str_radix(written.as_str().trim_start_matches('+'), written.radix());
        match number.ok().and_then(|number| N::try_from(number).ok()) {
            Some(number) if range.contains(&number) => Some(number),
            _ => self.wrong(
                format!("{what} is out of range"),
                format!("write a whole number from {} to {}", range.start(), range.end()),
            ),
        }
    }

    /// One of a few words, each with its meaning.
    #[must_use]
    pub fn choice<T: Copy>(self, what: &str, words: &[(&str, T)]) -> Option<T> {
        let written = self.string()?;
        if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == written) {
            return Some(*meaning);
        }
        self.wrong_with(|| {
            let known = words.iter().map(|(word, _)| *word);
            let help = match nearest(written, known.clone()) {
                Some(known) => format!("did you mean \"{known}\"?"),
                None => format!("write one of: {}", known.collect::<Vec<_>>().join(", ")),
            };
            (format!("\"{}\" is not {what}", written.escape_debug()), help)
        })
    }

    /// An array of at most `most` items.
    #[must_use]
    pub fn list(self, most: usize) -> Option<Vec<Value<'s>>> {
        let DeValue::Array(items) = self.value else {
            return self.not_a("a list", "[ … ]");
        };
        if items.len() > most {
            return self.wrong(
                format!("this list has {} entries, more than {most}", items.len()),
                "remove some",
            );
        }
        let item = |item: &'s toml::Spanned<DeValue<'s>>| Value {
            value: item.get_ref(),
            span: item.span().into(),
            sink: self.sink,
        };
        Some(items.iter().map(item).collect())
    }

    /// An array of at most `most` items, each of which is read; `None` if any of them is wrong.
    pub fn list_of<T>(self, most: usize, read: impl Fn(Value<'s>) -> Option<T>) -> Option<Vec<T>> {
        let items: Vec<Option<T>> = self.list(most)?.into_iter().map(read).collect();
        items.into_iter().collect()
    }

    /// A table; `name` is what the reports call it.
    #[must_use]
    pub fn form(self, name: &str) -> Option<Form<'s>> {
        match self.value {
            DeValue::Table(table) => Some(Form::new(name.to_owned(), self.span, table, self.sink)),
            _ => self.not_a("a table", "{ key = value }"),
        }
    }

    fn not_a<T>(self, expected: &str, example: &str) -> Option<T> {
        let found = match self.value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.wrong(
            format!("expected {expected}, found {found}"),
            format!("write for example: {example}"),
        )
    }
}
