//! Reading line by line, in bounded memory, whatever is in the files.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use fileopen::NotRegular;

use crate::entry::{Entry, LINE_MAX};
use crate::files::{self, LogFile};
use crate::flaws::{Flaws, Watch};
use crate::head::Head;

/// The lines of one file.
pub(crate) struct Reader {
    file: BufReader<File>,
    /// Bytes of whole lines read so far.
    pub(crate) whole: u64,
}

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// A line with a newline at its end, which is not in it.
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

/// Hands every entry of a log to `take`, oldest first. What is no entry is passed over: see [`Follower::take_flaws`], and `verify`.
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
    /// Bytes and whole lines read of it.
    read: u64,
    lines: u64,
    /// The beginning of a line whose end is not there yet; those of `read`, too.
    begun: Vec<u8>,
    /// What is in this file is longer than any entry, and its end is not looked for.
    spoilt: bool,
    watch: Watch,
}

impl Follower {
    /// Begins to follow a log, at its beginning.
    ///
    /// # Errors
    /// There is no log in the directory, or it cannot be read.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        // Before anything else: what it speaks of is on the disk already.
        let head = Head::read(dir);
        // The oldest may go meanwhile, to make room.
        for LogFile { first, path } in files::of_log(dir)? {
            match open(&path) {
                Ok(file) => {
                    let watch = Watch::new(dir, head, first);
                    let (dir, begun, spoilt) = (dir.to_owned(), Vec::new(), false);
                    return Ok(Self { dir, first, file, read: 0, lines: 0, begun, spoilt, watch });
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
    /// A file cannot be read, `take` failed, or the log is not the one any more that was read so far.
    pub fn each_new(
        &mut self,
        mut take: impl FnMut(&[u8], Entry) -> io::Result<()>,
    ) -> io::Result<()> {
        // To the file that is the last one now: a writer that never rests does not hold the reader for ever.
        let files = files::list(&self.dir)?;
        self.begin_line_anew()?;
        self.rest(&mut take)?;
        self.check()?;
        let followed = self.first;
        let oldest = files.first().map(|file| file.first);
        for LogFile { first, path } in files.into_iter().filter(|file| file.first > followed) {
            match open(&path) {
                Ok(file) => {
                    self.end_of_file();
                    self.watch.next_file(first, oldest == Some(first));
                    (self.first, self.file, self.spoilt) = (first, file, false);
                    (self.read, self.lines) = (0, 0);
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

    /// Checks that what is read is still the log's, and as long as it was.
    fn check(&self) -> io::Result<()> {
        let path = files::path(&self.dir, self.first);
        let now = match path.metadata() {
            Ok(now) => now,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Dropped to make room, if there are newer ones.
                return match files::list(&self.dir)?.last() {
                    Some(last) if last.first > self.first => Ok(()),
                    _ => Err(other_log(&path, "is gone, and there is no newer one")),
                };
            }
            Err(error) => return Err(error),
        };
        let opened = self.file.get_ref().metadata()?;
        if (now.dev(), now.ino()) != (opened.dev(), opened.ino()) {
            return Err(other_log(&path, "is another file than the one that was read"));
        }
        if now.len() < self.whole() {
            return Err(other_log(&path, "is shorter than what was read of it"));
        }
        Ok(())
    }

    /// Returns how many bytes of whole lines were read of this file.
    fn whole(&self) -> u64 {
        self.read.saturating_sub(u64::try_from(self.begun.len()).unwrap_or(u64::MAX))
    }

    /// Forgets the line that was begun: if it was never written whole, it is put aside when the log is opened anew, and others take its place.
    fn begin_line_anew(&mut self) -> io::Result<()> {
        if !self.begun.is_empty() && !self.spoilt {
            self.read = self.whole();
            self.file.seek(SeekFrom::Start(self.read))?;
            self.begun.clear();
        }
        Ok(())
    }

    /// Reads what is left of this file.
    fn rest(&mut self, take: &mut impl FnMut(&[u8], Entry) -> io::Result<()>) -> io::Result<()> {
        while !self.spoilt {
            let room = (LINE_MAX + 1).saturating_sub(self.begun.len());
            let room = u64::try_from(room).unwrap_or(u64::MAX);
            let more = (&mut self.file).take(room).read_until(b'\n', &mut self.begun)?;
            if more == 0 {
                break;
            }
            self.read = self.read.saturating_add(u64::try_from(more).unwrap_or(u64::MAX));
            if self.begun.pop_if(|last| *last == b'\n').is_some() {
                self.lines += 1;
                let path = files::path(&self.dir, self.first);
                match Entry::parse(&self.begun) {
                    Some(entry) => {
                        self.watch.entry(&path, self.lines, &self.begun, &entry);
                        take(&self.begun, entry)?;
                    }
                    None => {
                        let what = "this is no entry of an audit log";
                        self.watch.of_line(&path, self.lines, what);
                    }
                }
                self.begun.clear();
            } else if self.begun.len() > LINE_MAX {
                self.spoilt = true;
                let path = files::path(&self.dir, self.first);
                let what = "the line is longer than any entry: the rest of this file was not read";
                self.watch.of_line(&path, self.lines + 1, what);
            }
        }
        Ok(())
    }

    /// Examines the end of this file, in which nothing more is to come.
    fn end_of_file(&mut self) {
        let path = files::path(&self.dir, self.first);
        if self.spoilt {
            // It was said.
        } else if !self.begun.is_empty() {
            // A torn line that the agent has put aside since is gone from the file, which is recorded.
            let read = self.file.stream_position().ok();
            let left = self.file.get_ref().metadata().map(|file| file.len()).ok();
            if left >= read {
                self.watch.of_line(&path, self.lines + 1, "the line is cut off");
            }
        } else if self.lines == 0 {
            self.watch.of_line(&path, 0, "the file is empty");
        }
    }

    /// Returns whether nothing looks as if its writer were in the middle of it.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.begun.is_empty() && self.lines > 0 && self.watch.begins_well()
    }

    /// Takes what was read so far for all there is: what is missing at the end is a flaw then.
    pub fn note_end(&mut self) {
        self.end_of_file();
        self.watch.end();
    }

    /// Takes the places at which the log does not hold, as far as they show while it is read; what was taken before is not among them.
    pub fn take_flaws(&mut self) -> Option<Flaws> {
        self.watch.take()
    }
}

fn other_log(path: &Path, what: &str) -> io::Error {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    io::Error::other(format!(
        "the log is not the one any more that was followed: {file} {what}; somebody emptied or exchanged it, or put an older one back. Look with `bulkhead audit verify`, and follow it anew"
    ))
}

/// What has the name of a log's file and is none.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {what}")]
struct NoLogFile {
    name: String,
    what: NotRegular,
}

/// Returns what stands in the place of the file that could not be opened, if it is no file.
pub(crate) fn no_file(error: &io::Error) -> Option<NotRegular> {
    error.get_ref()?.downcast_ref::<NoLogFile>().map(|found| found.what)
}

fn open(path: &Path) -> io::Result<BufReader<File>> {
    let file = fileopen::regular(path).map_err(|error| match NotRegular::of(&error) {
        Some(what) => {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            io::Error::new(error.kind(), NoLogFile { name, what })
        }
        None => error,
    })?;
    Ok(BufReader::with_capacity(1 << 16, file))
}
