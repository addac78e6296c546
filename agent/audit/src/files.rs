//! The files of a log: `audit-<first seq, 12 digits>.jsonl`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const PREFIX: &str = "audit-";
const SUFFIX: &str = ".jsonl";
const DIGITS: usize = 12;

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LogFile {
    /// The seq of its first entry, as its name says.
    pub(crate) first: u64,
    pub(crate) path: PathBuf,
}

/// The files of a directory, oldest first. What is named otherwise is none of the log's.
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

pub(crate) fn path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{PREFIX}{first:0DIGITS$}{SUFFIX}"))
}

pub(crate) fn sync(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}
