//! Where a serial port prints.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, Write};
use std::path::Path;

/// A guest can print for ever; its log is started over at this many bytes.
pub const LOG_MAX: u64 = 16 << 20;

/// Written where a log starts over.
const STARTED_OVER: &[u8] = b"[log reached its size limit and starts over here]\n";

/// A sink for bytes.
pub enum Output {
    /// The VMM's standard output.
    Stdout,
    /// Nowhere.
    Null,
    /// A file of at most [`LOG_MAX`] bytes.
    File {
        /// Open for writing, positioned at its end.
        file: File,
        /// Its length, in bytes.
        length: u64,
    },
}

impl Output {
    /// Appends to the file at `path`, creating it readable to its owner alone.
    pub fn file(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        let mut file =
            OpenOptions::new().create(true).write(true).truncate(false).mode(0o600).open(path)?;
        let length = file.seek(io::SeekFrom::End(0))?;
        Ok(Self::File { file, length })
    }
}

impl Write for Output {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout => io::stdout().lock().write(data),
            Self::Null => Ok(data.len()),
            Self::File { file, length } => {
                if *length + data.len() as u64 > LOG_MAX {
                    file.set_len(0)?;
                    file.rewind()?;
                    file.write_all(STARTED_OVER)?;
                    *length = STARTED_OVER.len() as u64;
                }
                let written = file.write(data)?;
                *length += written as u64;
                Ok(written)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout => io::stdout().lock().flush(),
            Self::Null | Self::File { .. } => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_never_grows_past_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut output = Output::file(&path).unwrap();
        let block = [b'x'; 1 << 20];
        for _ in 0..40 {
            output.write_all(&block).unwrap();
            assert!(std::fs::metadata(&path).unwrap().len() <= LOG_MAX);
        }
        drop(output);
        let before = std::fs::metadata(&path).unwrap().len();
        Output::file(&path).unwrap().write_all(b"more").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), before + 4, "reopening appends");
    }
}
