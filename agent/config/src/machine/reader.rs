//! Typed access to TOML tables that collects problems instead of stopping at the first.

use std::ops::Range;

use toml_edit::{Item, TableLike, Value};

use policy::diagnostic::Diagnostic;
use policy::document::nearest;

use super::values::Wrong;

/// A place in the text, in bytes.
pub(crate) type Span = Range<usize>;

/// Problems of one file; the first ones are what a person can use.
const PROBLEMS_MAX: usize = 100;

pub(crate) struct Reader {
    pub(crate) problems: Vec<Diagnostic>,
    /// Where something is missing.
    pub(crate) end: usize,
}

impl Reader {
    pub(crate) fn new(text: &str) -> Self {
        Self { problems: Vec::new(), end: text.trim_end().len() }
    }

    pub(crate) fn problem(
        &mut self,
        span: Span,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Diagnostic::error(span.into(), message, help));
        }
    }

    pub(crate) fn only_known(&mut self, table: &dyn TableLike, known: &[&str], place: &str) {
        for (key, item) in table.iter() {
            if known.contains(&key) {
                continue;
            }
            let help = match nearest(key, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("remove it; known here: {}", known.join(", ")),
            };
            let span = key_span(table, key).or_else(|| item.span()).unwrap_or(0..0);
            self.problem(span, format!("`{key}` is not a key of {place}"), help);
        }
    }

    pub(crate) fn string<'a>(
        &mut self,
        table: &'a dyn TableLike,
        key: &str,
    ) -> Option<(&'a str, Span)> {
        let item = table.get(key)?;
        match item.as_str() {
            Some(text) => Some((text, span(item))),
            None => self.wrong_type(key, item, "a string, in quotes"),
        }
    }

    pub(crate) fn integer(&mut self, table: &dyn TableLike, key: &str) -> Option<(i64, Span)> {
        let item = table.get(key)?;
        match item.as_integer() {
            Some(number) => Some((number, span(item))),
            None => self.wrong_type(key, item, "a whole number, without quotes"),
        }
    }

    pub(crate) fn boolean(&mut self, table: &dyn TableLike, key: &str) -> Option<bool> {
        let item = table.get(key)?;
        match item.as_bool() {
            Some(value) => Some(value),
            None => self.wrong_type(key, item, "true or false, without quotes"),
        }
    }

    pub(crate) fn table<'a>(
        &mut self,
        table: &'a dyn TableLike,
        key: &str,
    ) -> Option<(&'a dyn TableLike, Span)> {
        let item = table.get(key)?;
        match item.as_table_like() {
            Some(inner) => Some((inner, key_span(table, key).unwrap_or_else(|| span(item)))),
            None => self.wrong_type(key, item, "a table"),
        }
    }

    pub(crate) fn list<'a>(
        &mut self,
        table: &'a dyn TableLike,
        key: &str,
    ) -> Vec<(&'a Value, Span)> {
        let Some(item) = table.get(key) else { return Vec::new() };
        match item.as_array() {
            Some(array) => array
                .iter()
                .map(|value| (value, value.span().unwrap_or_else(|| span(item))))
                .collect(),
            None => self.wrong_type(key, item, "a list, in square brackets").unwrap_or_default(),
        }
    }

    /// A string with a syntax of its own.
    pub(crate) fn parsed<T>(
        &mut self,
        table: &dyn TableLike,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        let (text, span) = self.string(table, key)?;
        match parse(text) {
            Ok(value) => Some(value),
            Err((message, help)) => {
                self.problem(span, message, help);
                None
            }
        }
    }

    fn wrong_type<T>(&mut self, key: &str, item: &Item, wanted: &str) -> Option<T> {
        let is = with_article(item.type_name());
        self.problem(span(item), format!("`{key}` is {is} here"), format!("write {wanted}"));
        None
    }
}

/// `a string`, `an integer`.
pub(crate) fn with_article(kind: &str) -> String {
    let article = if kind.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {kind}")
}

pub(crate) fn key_span(table: &dyn TableLike, key: &str) -> Option<Span> {
    table.get_key_value(key)?.0.span()
}

fn span(item: &Item) -> Span {
    item.span().unwrap_or(0..0)
}
