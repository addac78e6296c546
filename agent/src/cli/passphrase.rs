//! Where the passphrase of an officer's key comes from: the terminal, without echo, or a file for those who have none.

use std::fs;
use std::io::{self, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use clap::Args;
use zeroize::Zeroizing;

use super::values;

/// Bytes of the longest passphrase.
const LONGEST: u64 = 1024;

/// Where a passphrase comes from.
#[derive(Debug, Args)]
pub(super) struct Source {
    /// Read the passphrase from the first line of FILE, instead of asking for it on the terminal
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Read it from this open file descriptor
    #[arg(long, value_name = "N", conflicts_with = "passphrase_file", value_parser = values::descriptor)]
    passphrase_fd: Option<u32>,
}

impl Source {
    /// The passphrase; `None` if no file is named and there is no terminal to ask on.
    pub(super) fn read(&self, question: &str) -> Result<Option<Zeroizing<String>>, String> {
        let file = match (&self.passphrase_file, self.passphrase_fd) {
            (Some(file), _) => file.clone(),
            (None, Some(descriptor)) => PathBuf::from(format!("/proc/self/fd/{descriptor}")),
            (None, None) => return ask(question),
        };
        first_line(&file).map(Some)
    }

    /// The same for one that is new: on the terminal it is asked for twice.
    pub(super) fn choose(&self, question: &str) -> Result<Option<Zeroizing<String>>, String> {
        let Some(chosen) = self.read(question)? else { return Ok(None) };
        if self.passphrase_file.is_some() || self.passphrase_fd.is_some() {
            return Ok(Some(chosen));
        }
        match ask("The same again: ")? {
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
    /// Read it from this open file descriptor
    #[arg(long, value_name = "N", conflicts_with = "new_passphrase_file", value_parser = values::descriptor)]
    new_passphrase_fd: Option<u32>,
    /// Take the passphrase off, for a medium that is encrypted itself
    #[arg(long, conflicts_with_all = ["new_passphrase_file", "new_passphrase_fd"])]
    no_passphrase: bool,
}

impl NewSource {
    /// The new passphrase; `None` if there is to be none, which nobody gets without asking for it.
    pub(super) fn choose(&self) -> Result<Option<Zeroizing<String>>, String> {
        if self.no_passphrase {
            return Ok(None);
        }
        let source = Source {
            passphrase_file: self.new_passphrase_file.clone(),
            passphrase_fd: self.new_passphrase_fd,
        };
        source.choose("New passphrase: ")?.map(Some).ok_or_else(|| {
            "there is no terminal to ask for the new passphrase on: give --new-passphrase-file or --new-passphrase-fd, \
             or --no-passphrase to take it off"
                .to_owned()
        })
    }
}

fn ask(question: &str) -> Result<Option<Zeroizing<String>>, String> {
    if !io::stdin().is_terminal() {
        return Ok(None);
    }
    let answer = rpassword::prompt_password(question);
    let answer = answer.map_err(|error| format!("the terminal cannot be asked: {error}"))?;
    Ok(Some(Zeroizing::new(answer)))
}

fn first_line(file: &Path) -> Result<Zeroizing<String>, String> {
    let failed = |why: &str| format!("cannot read the passphrase from {}: {why}", file.display());
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(LONGEST).unwrap_or(0) + 1));
    fs::File::open(file)
        .and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes))
        .map_err(|error| failed(&error.to_string()))?;
    let text = policy::document::text(&bytes).map_err(|error| failed(&error.to_string()))?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(failed("its first line is empty"));
    }
    if u64::try_from(line.len()).unwrap_or(u64::MAX) > LONGEST {
        return Err(failed(&format!("its first line is longer than {LONGEST} bytes")));
    }
    Ok(Zeroizing::new(line.to_owned()))
}
