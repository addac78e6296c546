//! Where the passphrase of an officer's key comes from: the terminal, without echo, or a file for those who have none.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use clap::Args;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use zeroize::Zeroizing;

use super::{unechoed, values};
use base::secrets::NoDump;

/// Bytes of the longest passphrase.
const LONGEST: usize = 1024;

/// Where a passphrase comes from.
#[derive(Debug, Args)]
pub(super) struct Source {
    /// Read the passphrase from the first line of FILE, instead of asking for it on the terminal
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Read it from this open file descriptor, from where that is to the end of the line
    #[arg(long, value_name = "N", conflicts_with = "passphrase_file", value_parser = values::descriptor)]
    passphrase_fd: Option<u32>,
}

impl Source {
    /// Reads the passphrase; `None` if no file is named and there is no terminal to ask on.
    pub(super) fn read(
        &self,
        question: &str,
        kept: &NoDump,
    ) -> Result<Option<Zeroizing<String>>, String> {
        let (opened, name) = match (&self.passphrase_file, self.passphrase_fd) {
            (Some(file), _) => {
                (fileopen::given(file).map(OwnedFd::from), file.display().to_string())
            }
            (None, Some(number)) => (own(number), format!("the file descriptor {number}")),
            (None, None) => return ask(question, kept),
        };
        let read = opened.map_err(|error| error.to_string()).and_then(|file| first_line(&file));
        read.map(Some).map_err(|why| format!("cannot read the passphrase from {name}: {why}"))
    }

    /// Reads one that is new: on the terminal it is asked for twice.
    pub(super) fn choose(
        &self,
        question: &str,
        kept: &NoDump,
    ) -> Result<Option<Zeroizing<String>>, String> {
        let Some(chosen) = self.read(question, kept)? else { return Ok(None) };
        if self.passphrase_file.is_some() || self.passphrase_fd.is_some() {
            return Ok(Some(chosen));
        }
        match ask("The same again: ", kept)? {
            Some(again) if again == chosen => Ok(Some(chosen)),
            _ => Err("the two passphrases are not the same; nothing was written".to_owned()),
        }
    }
}

/// Where the passphrase comes from that a key is to have from now on.
#[derive(Debug, Args)]
pub(super) struct NewSource {
    /// Read the new passphrase from the first line of FILE, instead of asking for it on the terminal
    #[arg(long, value_name = "FILE")]
    new_passphrase_file: Option<PathBuf>,
    /// Read it from this open file descriptor; after the old one, if that is the same descriptor
    #[arg(long, value_name = "N", conflicts_with = "new_passphrase_file", value_parser = values::descriptor)]
    new_passphrase_fd: Option<u32>,
    /// Take the passphrase off, for a medium that is encrypted itself
    #[arg(long, conflicts_with_all = ["new_passphrase_file", "new_passphrase_fd"])]
    no_passphrase: bool,
}

impl NewSource {
    /// Reads the new passphrase; `None` if there is to be none, which nobody gets without asking for it.
    pub(super) fn choose(&self, kept: &NoDump) -> Result<Option<Zeroizing<String>>, String> {
        if self.no_passphrase {
            return Ok(None);
        }
        let source = Source {
            passphrase_file: self.new_passphrase_file.clone(),
            passphrase_fd: self.new_passphrase_fd,
        };
        source.choose("New passphrase: ", kept)?.map(Some).ok_or_else(|| {
            "there is no terminal to ask for the new passphrase on: give --new-passphrase-file or --new-passphrase-fd, \
             or --no-passphrase to take it off"
                .to_owned()
        })
    }
}

fn ask(question: &str, _kept: &NoDump) -> Result<Option<Zeroizing<String>>, String> {
    if !io::stdin().is_terminal() {
        return Ok(None);
    }
    let answer = unechoed::ask(question);
    answer.map(Some).map_err(|error| format!("the terminal cannot be asked: {error}"))
}

/// Opens a descriptor of this process by its number: the same that whoever started it has open, a pipe or a socket too, and at the place in
/// it where that is.
fn own(number: u32) -> io::Result<OwnedFd> {
    let number = i32::try_from(number).map_err(|_| Errno::EBADF)?;
    let this = pidfd_open(getpid(), PidfdFlags::empty())?;
    pidfd_getfd(this, number, PidfdGetfdFlags::empty()).map_err(|error| match error {
        rustix::io::Errno::BADF => {
            io::Error::other("it is not open: open it in the shell, as in `3< FILE`")
        }
        other => other.into(),
    })
}

/// Reads what comes before the first newline. Nothing behind it is read: it may be somebody else's, and need not be text.
fn first_line(file: &OwnedFd) -> Result<Zeroizing<String>, String> {
    if file.is_terminal() {
        return Err(
            "it is a terminal, which would show what is typed: leave it out, and you are asked"
                .to_owned(),
        );
    }
    let mut line = Zeroizing::new(Vec::with_capacity(LONGEST + 2));
    let mut byte = Zeroizing::new([0]);
    loop {
        match nix::unistd::read(file, byte.as_mut_slice()) {
            Ok(0) => break,
            Ok(_) if *byte == *b"\n" => break,
            // One more is the `\r` of a line that an editor on Windows ended.
            Ok(_) if line.len() > LONGEST => return Err(too_long()),
            Ok(_) => line.extend_from_slice(byte.as_slice()),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                let mut wait = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
                match poll(&mut wait, PollTimeout::NONE) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(error) => return Err(error.desc().to_owned()),
                }
            }
            Err(error) => return Err(error.desc().to_owned()),
        }
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    let text = policy::document::text(&line).map_err(|error| error.to_string())?;
    if text.is_empty() {
        return Err("its first line is empty".to_owned());
    }
    if text.len() > LONGEST {
        return Err(too_long());
    }
    Ok(Zeroizing::new(text.to_owned()))
}

fn too_long() -> String {
    format!("its first line is longer than {LONGEST} bytes")
}
