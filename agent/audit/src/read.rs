//! Reading line by line, in bounded memory, whatever is in the files.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use crate::entry::{Entry, LINE_MAX};
use crate::files;

/// The lines of one file.
pub struct Reader {
    file: BufReader<File>,
    /// Bytes of whole lines read so far.
    pub(crate) whole: u64,
}

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// With a newline at its end, which is not in it.
    Whole(Vec<u8>),
    /// The file ends in the middle of it, or it is longer than any entry.
    Torn,
}

impl Reader {
    /// Opens a file.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: BufReader::with_capacity(1 << 16, File::open(path)?), whole: 0 })
    }

    pub(crate) fn line(&mut self) -> io::Result<Option<Line>> {
        let most = u64::try_from(LINE_MAX).unwrap_or(u64::MAX) + 1;
        let mut line = Vec::with_capacity(512);
        if (&mut self.file).take(most).read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        if line.last() != Some(&b'\n') {
            return Ok(Some(Line::Torn));
        }
        self.whole += u64::try_from(line.len()).unwrap_or(0);
        line.pop();
        Ok(Some(Line::Whole(line)))
    }
}

/// Hands every entry of a log to `take`, oldest first. What is no entry is passed over: `verify` speaks of it.
///
/// # Errors
/// A file cannot be read.
pub fn each(dir: &Path, mut take: impl FnMut(&[u8], Entry) -> io::Result<()>) -> io::Result<()> {
    for file in files::list(dir)? {
        let mut reader = Reader::open(&file.path)?;
        while let Some(line) = reader.line()? {
            let Line::Whole(line) = line else { break };
            if let Some(entry) = Entry::parse(&line) {
                take(&line, entry)?;
            }
        }
    }
    Ok(())
}
