//! What setup does to a PC: files, folders, and programs of the distribution. A test stands in for it, fails at any step and looks what is left.

use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

use base::{durable, programs};
use nix::unistd::{Gid, Uid};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Who owns a file and who may read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

impl Attributes {
    /// Returns those of a new file of whoever runs setup, which is root.
    #[must_use]
    pub fn new(mode: u32) -> Self {
        Self { mode, uid: Uid::effective().as_raw(), gid: Gid::effective().as_raw() }
    }

    /// Reads those of a file.
    #[must_use]
    pub fn of(metadata: &fs::Metadata) -> Self {
        Self { mode: metadata.mode() & 0o7777, uid: metadata.uid(), gid: metadata.gid() }
    }
}

/// The ways in which setup changes a PC. Each is done and on the disk when it returns, or not begun.
pub trait Effects {
    /// Gives a file this content, in one piece.
    ///
    /// # Errors
    /// The disk is full or read-only, or the folder is not there; the file is as it was.
    fn replace(&mut self, path: &Path, content: &[u8], attributes: Attributes) -> io::Result<()>;

    /// Removes a file, if it is there.
    ///
    /// # Errors
    /// It cannot be removed.
    fn remove(&mut self, path: &Path) -> io::Result<()>;

    /// Makes a folder that others may have these rights in.
    ///
    /// # Errors
    /// It cannot be made, or is there.
    fn make_folder(&mut self, path: &Path, mode: u32) -> io::Result<()>;

    /// Removes a folder, if it is there and empty.
    ///
    /// # Errors
    /// It cannot be removed.
    fn remove_folder(&mut self, path: &Path) -> io::Result<()>;

    /// Runs a program of the distribution and waits for its end.
    ///
    /// # Errors
    /// It is not there, or says that it failed.
    fn run(&mut self, program: &str, arguments: &[&str]) -> io::Result<()>;

    /// Runs a program of the distribution, and returns what it wrote to its standard output, which may be a secret.
    ///
    /// # Errors
    /// It is not there, or says that it failed.
    fn output(&mut self, program: &str, arguments: &[&str]) -> io::Result<Zeroizing<String>>;

    /// Returns whether somebody sits at a terminal who could read what is shown once.
    fn has_terminal(&mut self) -> bool;

    /// Shows a secret on the terminal, and nowhere that goes into a file.
    ///
    /// # Errors
    /// There is no terminal.
    fn show_once(&mut self, text: &str) -> io::Result<()>;
}

/// The terminal of whoever started setup, wherever its output goes.
const TERMINAL: &str = "/dev/tty";

/// The effects on the PC that this runs on.
#[derive(Debug, Default)]
pub struct ThisPc;

impl Effects for ThisPc {
    fn replace(&mut self, path: &Path, content: &[u8], attributes: Attributes) -> io::Result<()> {
        durable::replace(path, content, attributes.mode)?;
        let made = Attributes::of(&fs::metadata(path)?);
        // The caller's umask may have taken something.
        if made.mode != attributes.mode {
            fs::set_permissions(path, fs::Permissions::from_mode(attributes.mode))?;
        }
        if (made.uid, made.gid) != (attributes.uid, attributes.gid) {
            chown(path, Some(attributes.uid), Some(attributes.gid))?;
        }
        Ok(())
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        durable::remove(path)
    }

    fn make_folder(&mut self, path: &Path, mode: u32) -> io::Result<()> {
        fs::DirBuilder::new().mode(mode).create(path)?;
        fileopen::directory(durable::directory(path))?.sync_all()
    }

    fn remove_folder(&mut self, path: &Path) -> io::Result<()> {
        match fs::remove_dir(path) {
            Ok(()) => fileopen::directory(durable::directory(path))?.sync_all(),
            // Somebody put something there since.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn run(&mut self, program: &str, arguments: &[&str]) -> io::Result<()> {
        programs::run(program, arguments)?;
        // The journal goes on only when what the program did is on the disk; which disks, it does not say.
        nix::unistd::sync();
        Ok(())
    }

    fn output(&mut self, program: &str, arguments: &[&str]) -> io::Result<Zeroizing<String>> {
        let said = Zeroizing::new(programs::output(program, arguments)?);
        nix::unistd::sync();
        let text = std::str::from_utf8(&said).map_err(io::Error::other)?;
        Ok(Zeroizing::new(text.to_owned()))
    }

    fn has_terminal(&mut self) -> bool {
        // Somebody who is asked, too: Ansible's sessions may have a terminal that nobody looks at.
        io::stdin().is_terminal() && fs::OpenOptions::new().write(true).open(TERMINAL).is_ok()
    }

    fn show_once(&mut self, text: &str) -> io::Result<()> {
        let mut terminal = fs::OpenOptions::new().write(true).open(TERMINAL)?;
        terminal.write_all(printable::page(text).as_bytes())
    }
}
