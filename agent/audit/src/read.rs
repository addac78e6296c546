//! Reading line by line, in bounded memory, whatever is in the files.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::entry::{Entry, LINE_MAX};
use crate::files::{self, LogFile};

/// The lines of one file.
pub(crate) struct Reader {
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
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: open(path)?, whole: 0 })
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
/// There is no log in the directory, a file cannot be read, or `take` failed.
pub fn each(dir: &Path, take: impl FnMut(&[u8], Entry) -> io::Result<()>) -> io::Result<()> {
    Follower::open(dir)?.each_new(take)
}

/// A log that is read while it is written.
#[derive(Debug)]
pub struct Follower {
    dir: PathBuf,
    /// The file that is read, by its first entry.
    first: u64,
    file: BufReader<File>,
    /// The beginning of a line whose end is not there yet.
    begun: Vec<u8>,
    /// What is in this file is longer than any entry, and its end is not looked for.
    spoilt: bool,
}

impl Follower {
    /// At the beginning of a log.
    ///
    /// # Errors
    /// There is no log in the directory, or it cannot be read.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        // The oldest may go meanwhile, to make room.
        for LogFile { first, path } in files::of_log(dir)? {
            match open(&path) {
                Ok(file) => {
                    let dir = dir.to_owned();
                    return Ok(Self { dir, first, file, begun: Vec::new(), spoilt: false });
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// Hands every entry that has come since the last time to `take`.
    ///
    /// # Errors
    /// A file cannot be read, or `take` failed.
    pub fn each_new(
        &mut self,
        mut take: impl FnMut(&[u8], Entry) -> io::Result<()>,
    ) -> io::Result<()> {
        // To the file that is the last one now: a writer that never rests does not hold the reader for ever.
        let files = files::list(&self.dir)?;
        self.rest(&mut take)?;
        let read = self.first;
        for LogFile { first, path } in files.into_iter().filter(|file| file.first > read) {
            match open(&path) {
                Ok(file) => {
                    (self.first, self.file, self.spoilt) = (first, file, false);
                    self.begun.clear();
                    self.rest(&mut take)?;
                }
                // Dropped to make room.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What is left of this file.
    fn rest(&mut self, take: &mut impl FnMut(&[u8], Entry) -> io::Result<()>) -> io::Result<()> {
        while !self.spoilt {
            let room = (LINE_MAX + 1).saturating_sub(self.begun.len());
            let room = u64::try_from(room).unwrap_or(u64::MAX);
            if (&mut self.file).take(room).read_until(b'\n', &mut self.begun)? == 0 {
                break;
            }
            if self.begun.pop_if(|last| *last == b'\n').is_some() {
                if let Some(entry) = Entry::parse(&self.begun) {
                    take(&self.begun, entry)?;
                }
                self.begun.clear();
            } else if self.begun.len() > LINE_MAX {
                self.spoilt = true;
            }
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<BufReader<File>> {
    Ok(BufReader::with_capacity(1 << 16, File::open(path)?))
}
