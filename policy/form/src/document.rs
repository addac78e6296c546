//! A TOML text read as forms to be filled in.
//!
//! A [`Form`] is a table whose keys are asked for one by one. Whatever was never asked for when the form is closed is an
//! unknown key, and the keys that *were* asked for are the suggestions; so the list of known keys is the reading code
//! itself and cannot fall out of step with it. A [`Value`] knows its place and reports by itself when it is not what was
//! expected, with what to write instead of *this* value. Reading goes on after a mistake: every mistake is reported at
//! once, and once.

use crate::diagnostic::{Diagnostic, Diagnostics, Source, Span};

/// Bytes of the longest text that is read: tens of thousands of rules.
pub const TEXT_MAX: usize = 4 << 20;

pub mod duration;
mod encoding;
mod form;
mod nearest;
mod sink;
mod toml_mistakes;
mod value;

pub use encoding::{NotText, text};
pub use form::Form;
pub use nearest::nearest;
pub use notation::Mistake;
pub use sink::Sink;
pub use value::{Value, quoted};

use toml::de::DeTable;

/// Reads `source` as TOML and hands its top-level table to `read`, which returns `None` only after reporting why.
///
/// # Errors
/// Everything that is wrong.
pub fn read<T>(
    source: &Source,
    read: impl FnOnce(Form<'_>) -> Option<T>,
) -> Result<T, Diagnostics> {
    let sink = Sink::new(source);
    if source.text().len() > TEXT_MAX {
        let message = format!("the file is longer than {} MiB", TEXT_MAX >> 20);
        sink.report(Diagnostic::error(Span::default(), message, "is this the right file?"));
        return Err(sink.found());
    }
    if let Some(secret) = source.secret() {
        sink.report(secret);
        return Err(sink.found());
    }
    let (root, mistakes) = DeTable::parse_recoverable(source.text());
    if !mistakes.is_empty() {
        return Err(toml_mistakes::explained(source, root.get_ref(), &mistakes, |sink| {
            read(Form::top(root.get_ref(), sink));
        }));
    }
    let value = read(Form::top(root.get_ref(), &sink));
    let found = sink.found();
    match value {
        Some(value) if !found.has_errors() => Ok(value),
        _ => Err(found),
    }
}
