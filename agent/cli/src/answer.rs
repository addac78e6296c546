//! How a command ends: with one answer, for a person or for a script, and the exit status that goes with it.
//!
//! An [`Outcome`] is made here alone, and only while the answer is given; so no command can end without one, and with `--json` every
//! answer has the same two keys beside its own:
//!
//! | key | is |
//! | --- | --- |
//! | `ok` | whether the exit status is 0 |
//! | `error` | why it is not, in words; null if it is |

use std::borrow::Cow;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use policy::diagnostic::{Diagnostics, Severity, without_secrets};
use printable::is_shown;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Common, colours, complain, complain_styled, write};

/// The exit status of an answer that was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) struct Outcome {
    status: u8,
}

/// Why there is nothing to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// The answer is no, or something is invalid.
    No,
    /// There is no agent to ask, or not one of this version; or no `bulkhead-agent` that examines this PC.
    NoAgent,
    /// Asked for what is not there, or makes no sense: no answer can be given.
    Misuse,
}

/// What a script reads.
#[derive(Serialize)]
struct Document<'a> {
    ok: bool,
    error: Option<&'a str>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// What a line of a stream has before its own keys.
const LINE_IS_OK: &[u8] = br#"{"ok":true,"error":null,"#;

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        Self {
            status: match failure {
                Failure::No => 1,
                Failure::NoAgent | Failure::Misuse => 2,
            },
        }
    }
}

impl From<Outcome> for ExitCode {
    fn from(Outcome { status }: Outcome) -> Self {
        Self::from(status)
    }
}

impl Common {
    /// Answers yes, with what a script reads of it and what a person does.
    pub(super) fn done(&self, fields: &impl Serialize, words: impl FnOnce()) -> Outcome {
        self.answer(Ok(()), fields, words)
    }

    /// Answers yes or no, with what a script reads of it and what a person does. Why it is no, the script is told beside it; the person's
    /// words say it themselves.
    pub(super) fn answer(
        &self,
        verdict: Result<(), String>,
        fields: &impl Serialize,
        words: impl FnOnce(),
    ) -> Outcome {
        self.print_answer(verdict.as_ref().err().map(String::as_str), fields, words);
        Outcome { status: u8::from(verdict.is_err()) }
    }

    /// Answers no, or that there is nothing, and why.
    pub(super) fn fail(&self, failure: Failure, why: &str) -> Outcome {
        self.fail_with(failure, why, &())
    }

    /// Answers so with what a script reads beside it; a person is told why.
    pub(super) fn fail_with(
        &self,
        failure: Failure,
        why: &str,
        fields: &impl Serialize,
    ) -> Outcome {
        self.print_answer(Some(why), fields, || complain(&format!("bulkhead: {why}\n")));
        failure.into()
    }

    /// Answers no where a text has mistakes: a person sees each with its line, and last what does not come of it.
    pub(super) fn refuse(&self, failure: Failure, found: &Diagnostics, so: &str) -> Outcome {
        self.print_answer(Some(&found.to_string()), &(), || {
            complain_styled(&found.render(colours(&io::stderr())));
            let shown = found.iter().filter(|found| found.severity == Severity::Error).count();
            let errors = shown.saturating_add(found.left_out().errors);
            let errors = u64::try_from(errors).unwrap_or(u64::MAX);
            let errors = printable::counted(errors, "error", "errors");
            let name = found.source().name();
            complain(&format!("{}: {so}: {errors}\n", printable::line(name)));
        });
        failure.into()
    }

    /// Prints an answer: for a script all of it, for a person what `words` prints.
    fn print_answer(&self, error: Option<&str>, fields: &impl Serialize, words: impl FnOnce()) {
        if self.json {
            document(error, fields);
        } else {
            words();
        }
    }
}

impl Outcome {
    /// Returns the outcome of a stream that went out whole; for scripts its lines are what [`line()`] makes.
    pub(super) const fn all() -> Self {
        Self { status: 0 }
    }
}

/// Returns a line of a stream, which is a JSON object, with the keys of every answer; `None` if it is no object with a key.
pub(super) fn line(object: &[u8]) -> Option<Vec<u8>> {
    let keys = object.strip_prefix(b"{")?;
    keys.starts_with(b"\"").then(|| [LINE_IS_OK, keys].concat())
}

/// Says why a file cannot be written.
pub(super) fn unwritten(path: &Path, error: &io::Error) -> String {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let why = match folder.filter(|folder| !folder.exists()) {
        Some(folder) if error.kind() == io::ErrorKind::NotFound => {
            format!("there is no folder {}: make it, or name another", folder.display())
        }
        _ => error.to_string(),
    };
    format!("cannot write {}: {why}", path.display())
}

/// Says why this process was not understood, in the form in which it was asked for answers.
pub(super) fn misunderstood(error: &clap::Error) -> ExitCode {
    // Help and version are texts that were asked for.
    let asked_for = !error.use_stderr();
    let mut words = std::env::args_os().skip(1).take_while(|word| word != "--");
    if asked_for || !words.any(|word| word == "--json") {
        let shown = error.render().to_string();
        // It repeats words of the command line, which may be somebody else's, and a secret key that does not belong there.
        let is_fit = |word: OsString| word.to_str().is_some_and(|word| word.chars().all(is_shown));
        match without_secrets(&shown) {
            // In colours, where there are some.
            Cow::Borrowed(_) if std::env::args_os().all(is_fit) => drop(error.print()),
            shown => complain(&shown),
        }
    } else {
        let why = error.render().to_string();
        document(Some(why.trim().trim_start_matches("error: ")), &());
    }
    ExitCode::from(if asked_for { 0 } else { 2 })
}

fn document(error: Option<&str>, fields: &impl Serialize) {
    let mut rest = match serde_json::to_value(fields) {
        Ok(Value::Object(rest)) => rest,
        Ok(Value::Null) | Err(_) => Map::new(),
        Ok(other) => Map::from_iter([("answer".to_owned(), other)]),
    };
    // They are this module's to say.
    rest.remove("ok");
    rest.remove("error");
    let document = Document { ok: error.is_none(), error, rest };
    let text = match document.rest.is_empty() {
        // It may end a stream of lines.
        true => serde_json::to_string(&document),
        false => serde_json::to_string_pretty(&document),
    };
    if let Ok(text) = text {
        write(io::stdout(), &printable::json(&format!("{text}\n")));
    }
}
