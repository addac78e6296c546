//! The files of a log: `audit-<first seq, 12 digits>.jsonl`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const PREFIX: &str = "audit-";
const SUFFIX: &str = ".jsonl";
const DIGITS: usize = 12;

/// One file of a log, by the number of its first entry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LogFile {
    /// The seq of its first entry, as its name says.
    pub(crate) first: u64,
    pub(crate) path: PathBuf,
}

/// Returns the log's files in a directory, oldest first. What is named otherwise is none of the log's.
pub(crate) fn list(dir: &Path) -> io::Result<Vec<LogFile>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let digits = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX));
        let digits = digits.filter(|digits| {
            digits.len() == DIGITS && digits.bytes().all(|digit| digit.is_ascii_digit())
        });
        if let Some(first) = digits.and_then(|digits| digits.parse().ok()) {
            files.push(LogFile { first, path });
        }
    }
    files.sort();
    Ok(files)
}

/// Returns the files of a log, which has at least one.
///
/// # Errors
/// There is none: see [`none_of_a_log`].
pub(crate) fn of_log(dir: &Path) -> io::Result<Vec<LogFile>> {
    let files = list(dir)?;
    if files.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, none_of_a_log(dir)?));
    }
    Ok(files)
}

/// Returns what is wrong with a directory that holds nothing of a log: emptied, or its files are called something else.
pub(crate) fn none_of_a_log(dir: &Path) -> io::Result<String> {
    let mut others = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        if Path::new(&name).extension().is_some_and(|extension| extension != "new") {
            others.push(name.to_string_lossy().into_owned());
        }
    }
    others.retain(|name| name != crate::key::PUBLIC_FILE);
    others.sort();
    let empty = "the log is missing: there is no file audit-000000000001.jsonl or a later one here";
    Ok(match (others.first(), others.len()) {
        (None, _) => empty.to_owned(),
        (Some(only), 1) => format!("{empty}, but files of other names: `{only}`"),
        (Some(first), count) => {
            format!("{empty}, but {count} files of other names, as `{first}`")
        }
    })
}

pub(crate) fn path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{PREFIX}{first:0DIGITS$}{SUFFIX}"))
}

pub(crate) fn sync(dir: &Path) -> io::Result<()> {
    fileopen::directory(dir)?.sync_all()
}
