//! Opens regular files and directories, and waits for nothing that stands in their place.
//!
//! Whoever opens a named pipe waits until somebody opens its other end, which may be never; a device may have no end, or do something
//! because it was opened. So a file that somebody named, and one that the programs take for their own because of its name, is opened
//! without waiting, looked at, and used only if it is what it should be.
//!
//! | function | takes |
//! | --- | --- |
//! | [`regular`], [`regular_with`], [`read`] | a regular file |
//! | [`given`] | the same, and the unnamed pipe that a shell makes of `<(...)`: for files that a person names on the command line |
//! | [`directory`] | a directory |
//!
//! Files below `/sys`, `/proc` and `/dev` are the kernel's and not meant here.
#![forbid(unsafe_code)]

use std::fs::{self, File, FileType, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::statfs::{FsType, fstatfs};

/// The file system of pipes that have no name: `PIPEFS_MAGIC` of `linux/magic.h`.
const PIPEFS: FsType = FsType(0x5049_5045);

/// What stands where a regular file should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is a {0} and not a regular file: name another, or put the right file in its place")]
pub struct NotRegular(&'static str);

impl NotRegular {
    fn of_type(kind: FileType) -> Option<Self> {
        let word = match kind {
            kind if kind.is_file() => return None,
            kind if kind.is_dir() => "folder",
            kind if kind.is_fifo() => "named pipe",
            kind if kind.is_socket() => "socket",
            kind if kind.is_char_device() || kind.is_block_device() => "device",
            _ => "file of a special kind",
        };
        Some(Self(word))
    }

    /// Returns what an error of this crate says of the file, if it is for this that it was refused.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }
}

impl From<NotRegular> for io::Error {
    fn from(what: NotRegular) -> Self {
        let kind = match what.0 {
            "folder" => io::ErrorKind::IsADirectory,
            _ => io::ErrorKind::InvalidInput,
        };
        Self::new(kind, what)
    }
}

/// Opens a regular file to read it.
///
/// # Errors
/// It cannot be opened; or it is something else, see [`NotRegular::of`].
pub fn regular(path: &Path) -> io::Result<File> {
    regular_with(path, OpenOptions::new().read(true))
}

/// Opens a regular file as `options` say; their own flags are replaced.
///
/// # Errors
/// See [`regular`].
pub fn regular_with(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let file = open(path, options)?;
    match NotRegular::of_type(file.metadata()?.file_type()) {
        None => Ok(file),
        Some(other) => Err(other.into()),
    }
}

/// Opens a file that a person named on the command line, to read it. What a shell's `<(...)` writes is waited for, as
/// standard input is.
///
/// # Errors
/// See [`regular`].
pub fn given(path: &Path) -> io::Result<File> {
    let file = open(path, OpenOptions::new().read(true))?;
    let kind = file.metadata()?.file_type();
    let Some(other) = NotRegular::of_type(kind) else { return Ok(file) };
    if !kind.is_fifo() || fstatfs(&file)?.filesystem_type() != PIPEFS {
        return Err(other.into());
    }
    let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
    fcntl(&file, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
    Ok(file)
}

/// Opens a directory, to sync or to lock it.
///
/// # Errors
/// It cannot be opened, or is something else.
pub fn directory(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlag::O_DIRECTORY.bits()).open(path)
}

/// Reads the bytes of a regular file that has at most `most`.
///
/// # Errors
/// See [`regular`]; `FileTooLarge` if it has more.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    regular(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > most {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    // The standard library adds O_CLOEXEC.
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    options.custom_flags(flags.bits()).open(path).map_err(|error| {
        // What cannot be opened without waiting: a socket, or a named pipe to write to that nobody reads.
        if error.raw_os_error() != Some(Errno::ENXIO as i32) {
            return error;
        }
        let there = fs::metadata(path).ok().and_then(|file| NotRegular::of_type(file.file_type()));
        there.map_or(error, Into::into)
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;
    use std::sync::mpsc;
    use std::time::Duration;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    /// Returns what opening it comes to; a test that waits for ever says nothing.
    fn soon<T: Send + 'static>(open: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = mpsc::channel();
        std::thread::spawn(move || done.send(open()));
        result.recv_timeout(Duration::from_secs(20)).expect("it is not waited for")
    }

    #[test]
    fn what_is_no_regular_file_is_named_at_once_whether_it_would_be_read_or_written() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        mkfifo(&at("pipe"), Mode::S_IRWXU).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        fs::create_dir(at("folder")).unwrap();
        std::os::unix::fs::symlink(at("pipe"), at("link")).unwrap();
        for (path, word) in [
            (at("pipe"), "named pipe"),
            (at("link"), "named pipe"),
            (at("socket"), "socket"),
            (PathBuf::from("/dev/zero"), "device"),
        ] {
            let opened: [fn(&Path) -> io::Result<File>; 3] = [regular, given, |path| {
                regular_with(path, OpenOptions::new().write(true).create(true))
            }];
            for open in opened {
                let path = path.clone();
                let error = soon(move || open(&path)).unwrap_err();
                assert_eq!(NotRegular::of(&error), Some(NotRegular(word)));
                assert!(error.to_string().starts_with(&format!("it is a {word} and not")));
            }
        }
        let pipe = at("pipe");
        assert!(soon(move || directory(&pipe)).is_err());
        assert!(directory(&at("folder")).is_ok());
        assert_eq!(regular(&at("folder")).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        assert_eq!(regular(&at("nothing")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_is_read_up_to_the_size_that_it_may_have() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "12345").unwrap();
        assert_eq!(read(&file, 5).unwrap(), b"12345");
        assert_eq!(read(&file, 4).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn what_a_shell_gives_as_a_file_is_waited_for_and_read() {
        let (reader, mut writer) = io::pipe().unwrap();
        let path = PathBuf::from(format!("/proc/self/fd/{}", reader.as_raw_fd()));
        assert!(regular(&path).is_err());
        let mut file = given(&path).unwrap();
        drop(reader);
        let late = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            writer.write_all(b"late").unwrap();
        });
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        late.join().unwrap();
        assert_eq!(text, "late");
    }
}
