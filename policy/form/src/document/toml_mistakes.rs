//! What is not TOML, in words that say what to write instead.
//!
//! The parser goes on after a mistake, and what it took for a value is read like any other: whoever expects a number there
//! also knows what number was meant by `08e6` or `5 MB`.

use std::collections::{BTreeMap, BTreeSet};

use toml::de::{DeTable, DeValue, Error};

use super::Sink;
use super::sink::MISTAKES_MAX;
use super::value::quoted;
use crate::diagnostic::{Diagnostic, Diagnostics, Source, Span};

/// Returns everything that is not TOML in `source`, once a line: what follows on the same line follows from it.
pub(super) fn explained(
    source: &Source,
    root: &DeTable<'_>,
    mistakes: &[Error],
    read: impl FnOnce(&Sink),
) -> Diagnostics {
    let text = source.text();
    let mut lines: BTreeMap<usize, (&Error, Span)> = BTreeMap::new();
    for mistake in mistakes {
        let span = mistake.span().map_or(Span { start: text.len(), end: text.len() }, Span::from);
        lines.entry(source.line(span.start)).or_insert((mistake, span));
    }
    let lines = without_consequences(source, lines);
    let values = values(root);
    let kept = lines.iter().take(MISTAKES_MAX);
    let places: Vec<(&Error, Span, Option<Span>)> =
        kept.map(|(mistake, span)| (*mistake, *span, value_at(source, &values, *span))).collect();

    let is_quoted = |value: &Span| source.slice(*value).starts_with(['"', '\'']);
    let ends: Vec<Option<Diagnostic>> =
        places.iter().map(|(_, span, value)| line_end(source, *span, *value)).collect();
    let mut bare: Vec<Span> = places.iter().filter_map(|(.., value)| *value).collect();
    bare.retain(|value| !is_quoted(value));
    bare.sort_unstable();
    bare.dedup_by_key(|value| value.start);
    let scratch = Sink::with_bare(source, bare);
    read(&scratch);
    let headers = Headers::of(source, &scratch);
    let said = scratch.found();

    let worded = |(mistake, span, value): &(&Error, Span, Option<Span>)| match value {
        Some(value) if is_quoted(value) => in_quotes(source, mistake, *span, *value),
        Some(value) => match said.iter().find(|said| said.span == *value) {
            Some(said) => said.clone(),
            None => Diagnostic::error(
                *value,
                not_toml(mistake),
                format!(
                    "write {}, in quotes, if it is a text",
                    quoted(source.slice(*value).trim())
                ),
            ),
        },
        None => elsewhere(source, mistake, *span, &headers),
    };
    let found = places.iter().zip(ends).map(|(place, end)| end.unwrap_or_else(|| worded(place)));
    let left_out = lines.len().saturating_sub(MISTAKES_MAX);
    Diagnostics::new(source.clone(), found.collect()).and_more_errors(left_out)
}

/// Returns the same without the keys of a table that was started twice: each of them is "there already".
fn without_consequences<'e>(
    source: &Source,
    lines: BTreeMap<usize, (&'e Error, Span)>,
) -> Vec<(&'e Error, Span)> {
    let mut next_header = 0;
    let mut kept = Vec::new();
    for (line, (mistake, span)) in lines {
        let duplicate = mistake.message().contains("duplicate key");
        if duplicate && line < next_header {
            continue;
        }
        if duplicate && is_header(source.line_text(line)) {
            let last = source.line(source.text().len());
            let header = (line + 1..=last).find(|line| is_header(source.line_text(*line)));
            next_header = header.unwrap_or(last + 1);
        }
        kept.push((mistake, span));
    }
    kept
}

fn is_header(line: &str) -> bool {
    line.trim_start().starts_with('[')
}

/// Returns every value that is neither list nor table, in the order of the text.
fn values(root: &DeTable<'_>) -> Vec<Span> {
    let mut found = Vec::new();
    let mut left: Vec<(&DeValue<'_>, Span)> =
        root.values().map(|value| (value.get_ref(), value.span().into())).collect();
    while let Some((value, span)) = left.pop() {
        match value {
            DeValue::Table(table) => {
                left.extend(table.values().map(|value| (value.get_ref(), value.span().into())));
            }
            DeValue::Array(items) => {
                left.extend(items.iter().map(|item| (item.get_ref(), item.span().into())));
            }
            _ => found.push(span),
        }
    }
    found.sort_unstable();
    found
}

/// Returns the value that a mistake is in or right behind, with all that was written for it.
fn value_at(source: &Source, values: &[Span], mistake: Span) -> Option<Span> {
    let after = values.partition_point(|value| value.start <= mistake.start);
    let value = *values.get(after.checked_sub(1)?)?;
    let line_end = source.text().get(value.start..)?.find('\n').map(|at| value.start + at);
    let line_end = line_end.unwrap_or(source.text().len());
    let rest = |from: usize| source.slice(Span { start: from, end: line_end });
    if value.start == value.end {
        // `colour = #1b7f3b` is a comment to TOML.
        let word = rest(value.start).trim();
        let is_comment = word.contains(' ') || !word.starts_with('#');
        let length = if is_comment { 0 } else { rest(value.start).trim_end().len() };
        let same_line = mistake.start <= line_end;
        return same_line.then_some(Span { start: value.start, end: value.start + length });
    }
    if mistake.start < value.end {
        return Some(value);
    }
    // `5,000,000` is a 5 and something else to TOML.
    let quoted = source.slice(value).starts_with(['"', '\'']);
    if quoted {
        return (mistake.start == value.end && mistake.start == line_end).then_some(value);
    }
    let behind = mistake.start == value.end && !rest(value.end).starts_with(['}', ']']);
    let written = rest(value.start).split('#').next().unwrap_or_default().trim_end();
    let whole = Span { start: value.start, end: value.start + written.len() };
    (behind && whole.end > value.end).then_some(whole)
}

/// Explains a value that is well written, and behind it what other languages end a line with: `serial = 7,` and `label = "WARD";`.
fn line_end(source: &Source, mistake: Span, value: Option<Span>) -> Option<Diagnostic> {
    let text = source.text();
    let is_end = |c: char| matches!(c, ',' | ';');
    let line_end =
        text.get(mistake.start..)?.find('\n').map_or(text.len(), |at| mistake.start + at);
    // Of a number, and of a word without quotes, the mistake is the whole.
    let bare = value.filter(|value| !source.slice(*value).starts_with(['"', '\'']));
    let from = bare.map_or(mistake.start, |value| value.start);
    let rest = text.get(from..line_end)?;
    let rest = rest.split('#').next().unwrap_or_default().trim_end();
    let before = rest.trim_end_matches(|c: char| is_end(c) || c == ' ');
    let (kept, ends) = rest.split_at_checked(before.len())?;
    let at = |length: usize| Span { start: from + kept.len(), end: from + kept.len() + length };
    let shown = ends.trim();
    if !shown.is_empty() && (kept.is_empty() || bare.is_some() && !kept.contains(is_end)) {
        let end = at(ends.len());
        let end = Span { start: end.end - ends.trim_start().len(), ..end };
        return Some(Diagnostic::error(
            end,
            format!("this is not TOML: a line ends with its value, and not with `{shown}`"),
            format!("remove the `{shown}`"),
        ));
    }
    // `serial = 7, format = 1`
    let line_start = text.get(..from)?.rfind('\n').map_or(0, |at| at + 1);
    let is_key = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let before = text.get(line_start..from)?.trim_end().trim_end_matches(is_key).trim_end();
    let is_open = before.matches(['{', '[']).count() > before.matches(['}', ']']).count();
    let start = match (rest.starts_with(is_end), before.ends_with(is_end)) {
        (true, _) => from,
        (false, true) => line_start + before.len() - 1,
        (false, false) => return None,
    };
    let span = Span { start, end: start + 1 };
    (rest.contains('=') && !is_open).then(|| {
        Diagnostic::error(
            span,
            "this is not TOML: each key stands on a line of its own",
            format!("begin a new line instead of `{}`", source.slice(span)),
        )
    })
}

/// What a header starts.
enum Kind {
    Table,
    /// One of a list of them.
    List,
    /// Nothing: what is of this kind has a name behind it, as `[domain.clinical]`.
    Named,
    /// The reader did not come to ask for it, and there are lists.
    Unknown,
}

/// What is known of a text's headers.
struct Headers {
    /// Those that the reader asked for.
    asked: BTreeSet<String>,
    /// Whether what is read has lists of tables: the reader asked for one, or it asked for nothing and the text has one.
    has_lists: bool,
}

impl Headers {
    fn of(source: &Source, read: &Sink) -> Self {
        let asked = read.headers();
        let starts_list = |line: &str| line.trim_start().starts_with("[[");
        let has_lists = match asked.is_empty() {
            true => source.text().lines().any(starts_list),
            false => asked.iter().any(|header| starts_list(header)),
        };
        Self { asked, has_lists }
    }

    fn kind(&self, name: &str) -> Kind {
        let named = format!("[{name}.");
        if self.asked.contains(&format!("[[{name}]]")) {
            Kind::List
        } else if self.asked.contains(&format!("[{name}]")) {
            Kind::Table
        } else if self.asked.iter().any(|asked| asked.starts_with(&named)) {
            Kind::Named
        } else if !self.has_lists {
            Kind::Table
        } else {
            Kind::Unknown
        }
    }
}

fn not_toml(mistake: &Error) -> String {
    format!("this is not TOML: {}", mistake.message().replace('\n', ", "))
}

fn in_quotes(source: &Source, mistake: &Error, span: Span, value: Span) -> Diagnostic {
    let raw = source.slice(value);
    let closed = raw.len() > 1 && raw.chars().next() == raw.chars().next_back();
    let inner = raw.trim_matches('"');
    let help = match raw.chars().next() {
        Some('"') if closed && raw.contains('\\') && !inner.contains(['\'', '\n']) => format!(
            "in double quotes a backslash begins an escape; write it in single quotes: '{inner}'"
        ),
        Some(quote) if !closed => {
            format!("end the text with the quotation mark it starts with: {quote}")
        }
        _ => "see https://toml.io on strings".to_owned(),
    };
    Diagnostic::error(if closed { value } else { span }, not_toml(mistake), help)
}

/// Explains a mistake that is not in a value.
fn elsewhere(source: &Source, mistake: &Error, span: Span, headers: &Headers) -> Diagnostic {
    let line = source.line_text(source.line(span.start));
    let written = line.trim();
    if mistake.message().contains("duplicate key") {
        return duplicate(source, span, written, headers);
    }
    let wrong = |help: String| Diagnostic::error(span, not_toml(mistake), help);
    if ["//", "--", "/*", ";", "%", "<!--"].iter().any(|comment| written.starts_with(comment)) {
        return wrong("write a comment behind a `#`".to_owned());
    }
    if is_header(line) && !written.contains('=') {
        let name = written.trim_matches(|c: char| matches!(c, '[' | ']') || c.is_whitespace());
        let name: String = name.chars().take(80).collect();
        let of_a_list =
            format!("write [[{name}]], with two brackets at either end and nothing behind them");
        return wrong(match headers.kind(&name) {
            Kind::List => of_a_list,
            Kind::Table => {
                format!("write [{name}], with one bracket at either end and nothing behind it")
            }
            Kind::Named => format!("start each one with [{name}.NAME], in single brackets"),
            Kind::Unknown if written.starts_with("[[") => of_a_list,
            Kind::Unknown => format!(
                "write [{name}], or [[{name}]] if it is one of a list, with nothing behind it"
            ),
        });
    }
    if mistake.message().contains("missing comma") {
        let next: String = source
            .slice(Span { start: span.start, end: source.text().len() })
            .chars()
            .take_while(|c| !c.is_whitespace() && !matches!(c, '=' | ',' | '}' | ']'))
            .take(80)
            .collect();
        return wrong(match next.as_str() {
            "" => "write a comma between two values".to_owned(),
            next => format!("write a comma before `{next}`"),
        });
    }
    let key_end = written.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-')));
    let (key, rest) = written.split_at(key_end.unwrap_or(written.len()));
    let rest = rest.trim_start_matches([':', '=', ' ', '\t']).trim_end_matches([',', ';', ' ']);
    let help = match (key, rest) {
        ("", _) => "see https://toml.io; strings need quotes, keys an equals sign".to_owned(),
        (key, "") => format!("write a value behind it: `{key} = …`"),
        (key, rest) => {
            let rest: String = rest.chars().take(80).collect();
            let word = rest.chars().next().is_some_and(char::is_alphabetic);
            let rest =
                if word && !matches!(&*rest, "true" | "false") { quoted(&rest) } else { rest };
            format!("write `{key} = {rest}`, with one equals sign and one value")
        }
    };
    Diagnostic::error(span, not_toml(mistake), help)
}

fn duplicate(source: &Source, span: Span, line: &str, headers: &Headers) -> Diagnostic {
    let name = line.split(']').next().unwrap_or(line).trim_matches(['[', ' ']);
    if !is_header(line) {
        let key = source.slice(span);
        return Diagnostic::error(
            span,
            format!("the key `{key}` is there already"),
            "remove one of the two: a table has each key once",
        );
    }
    // No list of ours is inside a table.
    if name.contains('.') && !line.starts_with("[[") {
        let help = "remove one of the two, or give it the name that was meant";
        return Diagnostic::error(span, format!("[{name}] is there twice"), help);
    }
    let help = match (headers.kind(name), line.starts_with("[[")) {
        (Kind::Table, _) => {
            format!("write [{name}] once, in single brackets, with all of its keys below it")
        }
        (Kind::Named, _) => format!("start each one with [{name}.NAME], in single brackets"),
        (_, true) => format!("write the first one as [[{name}]] too, in double brackets"),
        (Kind::List, false) => format!("start each one with [[{name}]], in double brackets"),
        (Kind::Unknown, false) => format!(
            "start each of a list with [[{name}]], in double brackets; what is no list is written once"
        ),
    };
    Diagnostic::error(span, format!("[{name}] is there already, as one table"), help)
}
