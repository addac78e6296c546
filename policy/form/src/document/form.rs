//! A table being read.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use toml::de::{DeTable, DeValue};

use super::{Sink, Value, nearest};
use crate::diagnostic::{Diagnostic, Span, Spanned};
use crate::version::{Newer, Version};

/// A table being read. Close it, or its unknown and missing keys go unnoticed.
#[derive(Debug)]
#[must_use = "close() finds the unknown and the missing keys"]
pub struct Form<'s> {
    name: String,
    span: Span,
    table: &'s DeTable<'s>,
    asked: Vec<&'static str>,
    /// Keys, and tables, of which everything was said.
    settled: Vec<&'static str>,
    /// Required and not there, with what to do.
    missing: Vec<(&'static str, String)>,
    /// It is the whole text: its keys stand before the first header.
    is_top: bool,
    sink: &'s Sink,
}

impl<'s> Value<'s> {
    /// Reads a table; `name` is what the reports call it.
    #[must_use]
    pub fn form(self, name: &str) -> Option<Form<'s>> {
        self.sink.note_header(name);
        match self.value {
            DeValue::Table(table) => Some(Form::new(name.to_owned(), self.span, table, self.sink)),
            _ if name.starts_with('[') && self.has_headers() => self.wrong(
                format!("{name} is one table, and double brackets start a list of them"),
                format!("write {name} once, in single brackets"),
            ),
            _ if name.starts_with("[[") => {
                self.not_a("a table", format!("start it with {name} on a line of its own"))
            }
            _ if name.starts_with('[') => self.not_a(
                "a table",
                format!("write {name} on a line of its own, and its keys on the lines below it"),
            ),
            _ => self
                .not_a("a table", format!("write what {name} is as keys with values, in braces")),
        }
    }
}

impl<'s> Form<'s> {
    fn new(name: String, span: Span, table: &'s DeTable<'s>, sink: &'s Sink) -> Self {
        Self {
            name,
            span,
            table,
            asked: Vec::new(),
            settled: Vec::new(),
            missing: Vec::new(),
            is_top: false,
            sink,
        }
    }

    /// Makes the form of the whole text.
    pub(super) fn top(table: &'s DeTable<'s>, sink: &'s Sink) -> Self {
        Self { is_top: true, ..Self::new("the file".to_owned(), Span::default(), table, sink) }
    }

    /// Returns where the table stands: its header, or its braces.
    #[must_use]
    pub fn span(&self) -> Span {
        self.span
    }

    /// Returns where mistakes that concern more than one value are reported to.
    #[must_use]
    pub fn sink(&self) -> &'s Sink {
        self.sink
    }

    /// Reads the value of a key that may be missing. `None` if it is, or if `read` found a mistake in it.
    pub fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(Value<'s>) -> Option<T>,
    ) -> Option<T> {
        self.asked.push(key);
        let (_, value) = self.table.get_key_value(key)?;
        read(Value::new(value.get_ref(), value.span().into(), self.sink))
    }

    /// Reads the same for a key that came with a version: older ones refuse a policy that has it.
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

    /// Reads the value of a key that must be there; `example` is what its writer is told to write when it is not.
    pub fn required<T>(
        &mut self,
        key: &'static str,
        example: &str,
        read: impl FnOnce(Value<'s>) -> Option<T>,
    ) -> Option<T> {
        let place = if self.is_top { " before the first section" } else { "" };
        self.required_or(key, || format!("add it{place}, such as `{key} = {example}`"), read)
    }

    /// Reads the same for a key that no example says enough of; `help` is all that its writer is told when it is not there.
    pub fn required_or<T>(
        &mut self,
        key: &'static str,
        help: impl FnOnce() -> String,
        read: impl FnOnce(Value<'s>) -> Option<T>,
    ) -> Option<T> {
        if !self.table.contains_key(key) {
            self.missing.push((key, help()));
        }
        self.optional(key, read)
    }

    /// Reads the key `format`, in which a text says what it is written in. `None` if that is a later one than `known`: nothing more is
    /// to be read then. `what` is what the text is to its writer.
    #[must_use]
    pub fn format(&mut self, known: u32, what: &str) -> Option<()> {
        self.format_among(known..=known, what).map(drop)
    }

    /// Reads the format where several are known. Returns which one it is; one that says nothing that can be read is looked at as
    /// the oldest one, and the mistake is reported.
    #[must_use]
    pub fn format_among(&mut self, known: RangeInclusive<u32>, what: &str) -> Option<u32> {
        let mut is_later = false;
        let (oldest, newest) = (*known.start(), *known.end());
        let write = format!("write `format = {newest}`");
        let found = self.required("format", &newest.to_string(), |value| {
            match value.written_number().map(Option::unwrap_or_default) {
                Some(number) if (u64::from(oldest)..=u64::from(newest)).contains(&number) => {
                    u32::try_from(number).ok()
                }
                Some(number) if number > u64::from(newest) => {
                    is_later = true;
                    value.wrong(
                        format!("this {what} is written for a newer Bulkhead"),
                        format!(
                            "update this PC's Bulkhead, or write the {what} in format {newest}"
                        ),
                    )
                }
                Some(_) => value.wrong("there is no such format", write),
                None => value.not_a("a whole number", write + value.without_quotes()),
            }
        });
        (!is_later).then_some(found.unwrap_or(oldest))
    }

    /// Reads the tables of `[[key]]`, each as a form; empty if there is no such key. `None` if there are more than
    /// `most`, of which none is read: what comes after may cost more than each its share.
    pub fn each<T>(
        &mut self,
        key: &'static str,
        most: usize,
        read: impl FnMut(Form<'s>) -> Option<T>,
    ) -> Option<Vec<T>> {
        self.sink.note_header(&format!("[[{key}]]"));
        let mut too_many = false;
        let tables = self.optional(key, |value| match value.items() {
            Some(items) if items.len() > most => {
                too_many = true;
                let first = items.get(most).map_or(value.span(), |item| item.span().into());
                let message = format!("there are more than {most} [[{key}]]");
                let help = format!("remove some: {} are written", items.len());
                self.sink.report(Diagnostic::error(first, message, help));
                None
            }
            Some(_) => value.list(usize::MAX),
            None if value.raw().starts_with('[') => value.wrong(
                format!(
                    "[{key}] in single brackets starts one table, and `{key}` is a list of tables"
                ),
                format!("start each one with [[{key}]], in double brackets"),
            ),
            None => value.wrong(
                format!("`{key}` is not written as a list of tables"),
                format!("start each one with [[{key}]]"),
            ),
        });
        let forms =
            tables.into_iter().flatten().filter_map(|value| value.form(&format!("[[{key}]]")));
        let read = forms.filter_map(read).collect();
        (!too_many).then_some(read)
    }

    /// Returns whether the key was written at all.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Returns whether `[[key]]` was never written: there is no such key, or its list is empty.
    #[must_use]
    pub fn has_none(&self, key: &str) -> bool {
        self.table.get(key).is_none_or(
            |value| matches!(value.get_ref(), DeValue::Array(items) if items.is_empty()),
        )
    }

    /// Returns the keys that were written and not yet asked for.
    #[must_use]
    pub fn remaining(&self) -> Vec<Spanned<&'s str>> {
        let known = |key: &str| self.asked.contains(&key) || self.settled.contains(&key);
        let unasked = self.table.keys().filter(|key| !known(key.get_ref().as_ref()));
        unasked.map(|key| Spanned::new(key.get_ref().as_ref(), key.span().into())).collect()
    }

    /// Reports the keys that were written here and belong into the table `inner`, all at once and with what to write in their place, and
    /// returns whether there are any. It is called before `inner` is asked for: where that is not written, nothing more is said of it.
    pub fn belong_into(&mut self, inner: &'static str, keys: &[&'static str]) -> bool {
        let mut beside: Vec<(&'static str, Span, Span)> = Vec::new();
        for key in keys {
            if let Some((written, value)) = self.table.get_key_value(*key) {
                beside.push((key, written.span().into(), value.span().into()));
            }
        }
        beside.sort_by_key(|(_, span, _)| *span);
        let Some((_, first, _)) = beside.first().copied() else { return false };
        self.settled.extend(beside.iter().map(|(key, ..)| *key));
        let there = self.table.get(inner);
        if there.is_none() {
            self.settled.push(inner);
        }
        self.sink.report_with(|| {
            let named: Vec<String> = beside.iter().map(|(key, ..)| format!("`{key}`")).collect();
            let message = match named.as_slice() {
                [one] => format!("{} has no key {one}: it belongs into `{inner}`", self.name),
                many => format!(
                    "{} has no keys {}: they belong into `{inner}`",
                    self.name,
                    many.join(", ")
                ),
            };
            let pair = |(key, _, value): &(&str, Span, Span)| {
                format!("{key} = {}", self.sink.written(*value).trim())
            };
            let pairs: Vec<String> = beside.iter().map(pair).collect();
            let braces = |table: &toml::Spanned<DeValue<'_>>| {
                let written = self.sink.written(table.span().into()).trim();
                written.strip_prefix('{')?.strip_suffix('}').map(|inside| inside.trim().to_owned())
            };
            let help = match there.map(braces) {
                None => format!("write {inner} = {{ {} }}", pairs.join(", ")),
                Some(Some(inside)) if inside.is_empty() => {
                    format!("write {inner} = {{ {} }}", pairs.join(", "))
                }
                Some(Some(inside)) => {
                    format!("write {inner} = {{ {inside}, {} }}", pairs.join(", "))
                }
                Some(None) => format!("move it into `{inner}`"),
            };
            Diagnostic::error(first, message, help)
        });
        true
    }

    /// Returns what is in a table whose keys are names that the writer chose, in the order of the text.
    #[must_use]
    pub fn named(self) -> Vec<(Spanned<&'s str>, Value<'s>)> {
        let entry =
            |(key, value): (&'s toml::Spanned<Cow<'s, str>>, &'s toml::Spanned<DeValue<'s>>)| {
                let name = Spanned::new(key.get_ref().as_ref(), key.span().into());
                (name, Value::new(value.get_ref(), value.span().into(), self.sink))
            };
        let mut entries: Vec<_> = self.table.iter().map(entry).collect();
        entries.sort_by_key(|(name, _)| name.span);
        entries
    }

    /// Reports every key that nobody asked for, and every one that is missing; a missing one that was meant by an
    /// unknown one is not reported twice.
    pub fn close(mut self) {
        for key in self.remaining() {
            // What was meant is not looked for where nobody is told.
            if self.sink.only_counts() {
                self.sink.count();
                continue;
            }
            let meant = nearest(&key, self.asked.iter().copied());
            self.missing.retain(|(missing, _)| Some(*missing) != meant);
            let message = format!("{} has no key `{}`", self.name, *key);
            let help = match meant {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("remove it; known here: {}", self.asked.join(", ")),
            };
            self.sink.report(Diagnostic::error(key.span, message, help));
        }
        for (key, help) in self.missing.iter().filter(|(key, _)| !self.settled.contains(key)) {
            self.sink.report_with(|| {
                Diagnostic::error(self.span, format!("{} has no `{key}`", self.name), help)
            });
        }
    }
}
