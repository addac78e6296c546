//! A value being read.

use std::fmt;
use std::ops::RangeInclusive;

use toml::de::DeValue;

use notation::{Mistake, meant};

use super::{Sink, nearest};
use crate::diagnostic::{Diagnostic, Span, Spanned};

/// What people's editors put in place of straight quotation marks, and those themselves.
const QUOTES: [char; 8] = ['"', '\'', '“', '”', '‘', '’', '«', '»'];

/// Characters of a value that a remedy writes out anew.
const SHOWN_MAX: usize = 200;

/// A value being read.
#[derive(Clone, Copy, Debug)]
pub struct Value<'s> {
    pub(super) value: &'s DeValue<'s>,
    pub(super) span: Span,
    pub(super) sink: &'s Sink,
    /// It is not TOML: a word without quotes, a number that TOML does not know.
    bare: bool,
}

impl<'s> Value<'s> {
    pub(super) fn new(value: &'s DeValue<'s>, span: Span, sink: &'s Sink) -> Self {
        match sink.bare(span) {
            Some(span) => Self { value, span, sink, bare: true },
            None => Self { value, span, sink, bare: false },
        }
    }

    /// Returns where the value stands in the text.
    #[must_use]
    pub fn span(self) -> Span {
        self.span
    }

    /// Returns where warnings about it go.
    #[must_use]
    pub fn sink(self) -> &'s Sink {
        self.sink
    }

    /// Reports a mistake here, and is `None` so that a reader can end with it.
    pub fn wrong<T>(self, message: impl Into<String>, help: impl Into<String>) -> Option<T> {
        self.sink.report(Diagnostic::error(self.span, message, help));
        None
    }

    /// Reports `result`'s mistake here, if it is one.
    pub fn checked<T>(self, result: Result<T, Mistake>) -> Option<T> {
        result
            .map_err(|Mistake { message, help, at }| {
                let span = at.and_then(|at| self.part(at)).unwrap_or(self.span);
                self.sink.report(Diagnostic::error(span, message, help));
            })
            .ok()
    }

    /// Remarks on a part of the string, or on all of it where its parts cannot be shown.
    #[track_caller]
    pub fn remark_at(self, at: Span, words: impl FnOnce() -> (String, String)) {
        let span = self.part(at).unwrap_or(self.span);
        self.sink.remark(|| {
            let (message, help) = words();
            Diagnostic::warning(span, message, help)
        });
    }

    /// Warns of the whole value.
    #[track_caller]
    pub fn remark(self, words: impl FnOnce() -> (String, String)) {
        self.sink.remark(|| {
            let (message, help) = words();
            Diagnostic::warning(self.span, message, help)
        });
    }

    /// Returns where a part of a string stands, if the string is written as it is, without escapes.
    fn part(self, at: Span) -> Option<Span> {
        let DeValue::String(text) = self.value else { return None };
        let inner = self.raw().get(1..)?;
        let as_it_is = inner.get(..text.len()) == Some(text) && inner.len() == text.len() + 1;
        // What is missing is missing before the next character.
        let next = text.get(at.start..)?.chars().next().map_or(1, char::len_utf8);
        let (start, end) = (at.start, at.end.max(at.start + next));
        let first = self.span.start + 1;
        as_it_is.then_some(Span { start: first + start, end: first + end })
    }

    /// Reports the same for a mistake that takes work to word: its message and what to do.
    pub fn wrong_with<T>(self, words: impl FnOnce() -> (String, String)) -> Option<T> {
        self.sink.report_with(|| {
            let (message, help) = words();
            Diagnostic::error(self.span, message, help)
        });
        None
    }

    /// Returns `value` with the place of this one.
    pub fn spanned<T>(self, value: T) -> Spanned<T> {
        Spanned::new(value, self.span)
    }

    /// Returns the value as it stands in the text.
    pub(super) fn raw(self) -> &'s str {
        self.sink.written(self.span).trim()
    }

    /// Returns what was written, whether or not it was written in quotes.
    #[must_use]
    pub fn plain(self) -> &'s str {
        match self.value {
            DeValue::String(text) if !self.bare => text,
            _ if self.bare => self.raw().trim_matches(QUOTES),
            _ => self.raw(),
        }
    }

    /// Returns what was written in quotes.
    #[must_use]
    pub fn text(self) -> Option<&'s str> {
        match self.value {
            DeValue::String(text) if !self.bare => Some(text),
            _ => None,
        }
    }

    /// Returns `, without quotes`, if it has some.
    pub(super) fn without_quotes(self) -> &'static str {
        if self.text().is_some() { ", without quotes" } else { "" }
    }

    /// Reads a string; anything else is reported.
    #[must_use]
    pub fn string(self) -> Option<&'s str> {
        if let Some(text) = self.text() {
            return Some(text);
        }
        let help = match self.items() {
            Some([one]) if matches!(one.get_ref(), DeValue::String(_)) => {
                format!("write {}, without brackets", self.sink.written(one.span().into()))
            }
            Some(_) => "write one text, in quotes and without brackets".to_owned(),
            None if self.is_table() || self.plain().is_empty() => {
                "write a text, in quotes".to_owned()
            }
            None => format!("write {}, in quotes", quoted(self.plain())),
        };
        self.not_a("a string", help)
    }

    /// Reads a string that has a type of its own.
    #[must_use]
    pub fn parsed<T: std::str::FromStr<Err = Mistake>>(self) -> Option<T> {
        self.checked(self.string()?.parse())
    }

    /// Returns whether a whole number was written.
    #[must_use]
    pub fn is_integer(self) -> bool {
        matches!(self.value, DeValue::Integer(_)) && !self.bare
    }

    /// Returns whether a table was written.
    #[must_use]
    pub fn is_table(self) -> bool {
        matches!(self.value, DeValue::Table(_))
    }

    /// Reads `true` or `false`; anything else is reported.
    #[must_use]
    pub fn boolean(self) -> Option<bool> {
        match self.value {
            DeValue::Boolean(value) if !self.bare => Some(*value),
            _ => {
                let help = match meant::yes_or_no(self.plain()) {
                    Some(meant) => format!("write {meant}{}", self.without_quotes()),
                    None => "write true or false, without quotes".to_owned(),
                };
                self.not_a("true or false", help)
            }
        }
    }

    /// Reads a whole number inside `range`. `what` says what it counts.
    #[must_use]
    pub fn integer<N>(self, what: &str, range: RangeInclusive<N>) -> Option<N>
    where
        N: Copy + PartialOrd + fmt::Display + TryFrom<u64>,
    {
        self.number(what, range, meant::whole, "")
    }

    /// Reads a size in bytes inside `range`.
    #[must_use]
    pub fn size(self, what: &str, range: RangeInclusive<u64>) -> Option<u64> {
        self.number(what, range, meant::size, ": sizes are in bytes")
    }

    fn number<N>(
        self,
        what: &str,
        range: RangeInclusive<N>,
        meant: impl FnOnce(&str) -> Option<u64>,
        why: &str,
    ) -> Option<N>
    where
        N: Copy + PartialOrd + fmt::Display + TryFrom<u64>,
    {
        let fitting =
            |number: u64| N::try_from(number).ok().filter(|number| range.contains(number));
        let (start, end) = (range.start(), range.end());
        let any = format!("write a whole number from {start} to {end}{}", self.without_quotes());
        if let Some(written) = self.written_number() {
            return match written.and_then(fitting) {
                Some(number) => Some(number),
                None => self.wrong(format!("{what} is out of range"), any),
            };
        }
        let help = match meant(self.plain()).and_then(fitting) {
            Some(number) => format!("write {number}{}{why}", self.without_quotes()),
            None => any,
        };
        self.not_a("a whole number", help)
    }

    /// Reads the whole number that was written; `Some(None)` if it is negative or larger than any.
    pub(super) fn written_number(self) -> Option<Option<u64>> {
        match self.value {
            DeValue::Integer(written) if !self.bare => {
                let digits = written.as_str().trim_start_matches('+');
                Some(u64::from_str_radix(digits, written.radix()).ok())
            }
            _ => None,
        }
    }

    /// Reads a number of a USB device, which `lsusb` prints in `digits` hexadecimal digits. Written in decimal it is
    /// taken, and remarked on where it may be the hexadecimal one with its `0x` forgotten.
    #[must_use]
    pub fn device_number<N: TryFrom<u16>>(self, what: &str, digits: usize) -> Option<N> {
        let shown = |number: u16| format!("0x{number:0digits$x}");
        let most = u16::MAX.checked_shr(16_u32.saturating_sub(4 * u32::try_from(digits).ok()?))?;
        let range = format!("write a number from {} to {}", shown(0), shown(most));
        if let Some(written) = self.written_number() {
            let fits = |number: &u16| *number <= most;
            let Some(number) = written.and_then(|n| u16::try_from(n).ok()).filter(fits) else {
                return self.wrong(format!("{what} is out of range"), range);
            };
            let raw = self.raw();
            // One digit is the same in both, and more than lsusb prints were not copied from there.
            if let Some(other) = meant::hexadecimal(raw, digits).filter(|other| *other != number)
                && raw.bytes().all(|b| b.is_ascii_digit())
            {
                self.sink.remark(|| {
                    Diagnostic::warning(
                        self.span,
                        format!("{what} {raw} is written in decimal and means {}; lsusb prints this number in hexadecimal", shown(number)),
                        format!(
                            "write {} if lsusb prints {other:0digits$x}, {} if it prints {number:0digits$x}",
                            shown(other),
                            shown(number)
                        ),
                    )
                });
            }
            return N::try_from(number).ok();
        }
        let plain = self.plain();
        let help = match (meant::hexadecimal(plain, digits), meant::vendor_and_product(plain)) {
            (Some(number), _) => format!("write {}{}", shown(number), self.without_quotes()),
            (None, Some((vendor, product))) => {
                format!("write vendor = 0x{vendor:04x}, product = 0x{product:04x}")
            }
            (None, None) => format!("{range}{}", self.without_quotes()),
        };
        self.not_a(what, help)
    }

    /// Reads one of a few words, each with its meaning.
    #[must_use]
    pub fn choice<T: Copy>(self, what: &str, words: &[(&str, T)]) -> Option<T> {
        let (written, known) = (self.plain(), words.iter().map(|(word, _)| *word));
        let meaning = words.iter().find(|(word, _)| *word == written);
        if let (Some((_, meaning)), Some(_)) = (meaning, self.text()) {
            return Some(*meaning);
        }
        if self.text().is_none() {
            return self.wrong_with(|| {
                let help = match nearest(written, known.clone()) {
                    Some(known) => format!("write \"{known}\", in quotes"),
                    None => format!("write one of: {}", quoted_list(known)),
                };
                (format!("expected a string, found {}", self.found()), help)
            });
        }
        self.wrong_with(|| {
            let help = match nearest(written, known.clone()) {
                Some(known) => format!("did you mean \"{known}\"?"),
                None => format!("write one of: {}", known.collect::<Vec<_>>().join(", ")),
            };
            (format!("\"{}\" is not {what}", written.escape_debug()), help)
        })
    }

    /// Reads the items of an array.
    pub(super) fn items(self) -> Option<&'s [toml::Spanned<DeValue<'s>>]> {
        match self.value {
            DeValue::Array(items) => Some(items),
            _ => None,
        }
    }

    /// Returns whether it was written as a list of tables, each below a header in double brackets.
    #[must_use]
    pub fn has_headers(self) -> bool {
        let is_table =
            |item: &toml::Spanned<DeValue<'_>>| matches!(item.get_ref(), DeValue::Table(_));
        // `[[1]]` is a list in a list.
        self.items().and_then(<[_]>::first).is_some_and(is_table) && self.raw().starts_with("[[")
    }

    /// Reads an array of at most `most` items.
    #[must_use]
    pub fn list(self, most: usize) -> Option<Vec<Value<'s>>> {
        let Some(items) = self.items() else {
            let help = match self.text() {
                _ if self.is_table() => self.as_list_of_tables(),
                Some(text) if text.contains(',') => {
                    format!("write [{}]", quoted_list(text.split(',').map(str::trim)))
                }
                Some(_) => format!("write [{}]", self.raw()),
                None if self.bare => format!("write [{}]", quoted(self.plain())),
                None => format!("write [{}]", self.raw()),
            };
            return self.not_a("a list", help);
        };
        if items.len() > most {
            return self.wrong(
                format!("this list has {} entries, more than {most}", items.len()),
                "remove some",
            );
        }
        let item = |item: &'s toml::Spanned<DeValue<'s>>| {
            Value::new(item.get_ref(), item.span().into(), self.sink)
        };
        Some(items.iter().map(item).collect())
    }

    /// Returns what to write instead of one table where a list of them is wanted.
    fn as_list_of_tables(self) -> String {
        let raw = self.raw();
        let short = raw.len() <= SHOWN_MAX && !raw.contains('\n');
        if raw.starts_with('{') && short {
            format!("write [{raw}], each entry in braces and a comma between two")
        } else if raw.starts_with('[') && short {
            format!("start each entry with [{raw}], in double brackets")
        } else {
            "write a list in brackets, each entry in braces: [{ … }, { … }]".to_owned()
        }
    }

    /// Reads an array of at most `most` items, each of which is read; `None` if any of them is wrong.
    pub fn list_of<T>(self, most: usize, read: impl Fn(Value<'s>) -> Option<T>) -> Option<Vec<T>> {
        let items: Vec<Option<T>> = self.list(most)?.into_iter().map(read).collect();
        items.into_iter().collect()
    }

    /// Returns what was found, for a message.
    fn found(self) -> String {
        let kind = match self.value {
            _ if self.bare => {
                let raw: String = self.raw().chars().take(SHOWN_MAX).collect();
                return if raw.is_empty() { "nothing".to_owned() } else { format!("`{raw}`") };
            }
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        kind.to_owned()
    }

    /// Reports that something else was expected, with what to write instead.
    pub fn not_a<T>(self, expected: &str, help: impl Into<String>) -> Option<T> {
        self.wrong(format!("expected {expected}, found {}", self.found()), help)
    }
}

/// Returns a text as TOML writes it; in single quotes where a backslash would begin an escape.
#[must_use]
pub fn quoted(text: &str) -> String {
    let text: String = text.chars().take(SHOWN_MAX).collect();
    match text.contains(['\\', '"']) && !text.contains('\'') {
        true => format!("'{text}'"),
        false => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
    }
}

fn quoted_list<'w>(words: impl Iterator<Item = &'w str>) -> String {
    words.map(quoted).collect::<Vec<_>>().join(", ")
}
