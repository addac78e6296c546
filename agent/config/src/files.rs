//! The files a person wrote, read as text, why they are refused, and the VMM's own file.

mod refusal;

use std::env;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use fileopen::NotRegular;
use policy::diagnostic::Diagnostics;
use policy::document::NotText;
use zeroize::Zeroizing;

use base::secrets::{Access, NoDump};

pub use refusal::{HigherSerial, Refusal};

/// Largest file read, in bytes: a hundred times what a hospital writes.
pub const FILE_MAX: u64 = 4 << 20;
const VMM: &str = "bulkhead-vmm";

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A file cannot be read.
    #[error("cannot read the {what} {}: {fault}{}", path.display(), option_of(fault, *option))]
    Read {
        what: &'static str,
        /// The option that names it, where one does.
        option: Option<&'static str>,
        path: PathBuf,
        fault: FileFault,
    },
    /// The policy is refused.
    #[error("{0}")]
    Policy(Diagnostics),
    /// The policy is refused for another reason than its text.
    #[error("the policy is refused")]
    Refused(#[source] Refusal),
    /// The machine file is refused.
    #[error("{0}")]
    Machine(Diagnostics),
}

/// Why a file cannot be read as text, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum FileFault {
    /// Nothing is at the path.
    #[error("it is not there: create it, or name another")]
    Missing,
    #[error("it is a folder: name the file in it")]
    Folder,
    /// It is a named pipe, a device or a socket.
    #[error("{0}")]
    NotRegular(NotRegular),
    /// Its permissions forbid it.
    #[error(
        "its permissions, or those of a folder it is in, do not let you: ask its owner, or run this as root"
    )]
    Denied,
    /// It is too large to be what it should be.
    #[error("it is larger than {0}: is this the right file?")]
    TooLarge(String),
    /// It is not UTF-8.
    #[error("{0}")]
    NotText(NotText),
    /// The disk, or something else.
    #[error("{0}")]
    Other(io::Error),
}

impl From<io::Error> for FileFault {
    fn from(error: io::Error) -> Self {
        match (error.kind(), NotRegular::of(&error)) {
            (io::ErrorKind::NotFound, _) => Self::Missing,
            (io::ErrorKind::IsADirectory, _) => Self::Folder,
            (_, Some(what)) => Self::NotRegular(what),
            (io::ErrorKind::PermissionDenied, None) => Self::Denied,
            _ => Self::Other(error),
        }
    }
}

impl From<FileFault> for io::Error {
    fn from(fault: FileFault) -> Self {
        match fault {
            FileFault::Other(error) => error,
            fault => Self::other(fault),
        }
    }
}

/// Returns ` with --policy` where a missing file can be named by that option.
fn option_of(fault: &FileFault, option: Option<&str>) -> String {
    match (fault, option) {
        (FileFault::Missing | FileFault::Folder, Some(option)) => format!(" with --{option}"),
        _ => String::new(),
    }
}

/// Returns the bytes in what was opened, of which there are at most `most`.
pub fn bytes_in(file: impl Read, most: u64) -> Result<Vec<u8>, FileFault> {
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    fits(&bytes, most)?;
    Ok(bytes)
}

/// Returns the text in a regular file of at most `most` bytes.
pub fn text_of(path: &Path, most: u64) -> Result<String, FileFault> {
    text_in(bytes_in(fileopen::regular(path)?, most)?, most)
}

/// Returns the same of a file that somebody named on the command line.
pub fn text_given(path: &Path, most: u64) -> Result<String, FileFault> {
    text_in(bytes_in(fileopen::given(path)?, most)?, most)
}

/// Returns the same of a secret. Its bytes are read into room that is never moved, and wiped.
pub fn secret_in(
    file: &fs::File,
    most: u64,
    _kept: &NoDump,
) -> Result<Zeroizing<String>, FileFault> {
    // One byte more tells what is too large, and another that the end was reached.
    let room = usize::try_from(most).unwrap_or(0).saturating_add(2);
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    fits(&bytes, most)?;
    let text = policy::document::text(&bytes).map_err(FileFault::NotText)?;
    Ok(Zeroizing::new(text.to_owned()))
}

fn fits(bytes: &[u8], most: u64) -> Result<(), FileFault> {
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) <= most {
        return Ok(());
    }
    Err(FileFault::TooLarge(if most >= 1 << 20 {
        format!("{} MiB", most >> 20)
    } else {
        format!("{} KiB", most >> 10)
    }))
}

/// Returns the text in bytes that were read from a file, which may be as many as `most`.
pub fn text_in(bytes: Vec<u8>, most: u64) -> Result<String, FileFault> {
    fits(&bytes, most)?;
    policy::document::text(&bytes).map_err(FileFault::NotText)?;
    // It was looked at above.
    String::from_utf8(bytes).map_err(|error| FileFault::Other(io::Error::other(error)))
}

/// Returns the text of the policy that is to be in force on this PC.
pub fn read_policy_in_force(path: &Path) -> Result<String, FilesError> {
    with_path(path, "policy", Some("policy"), text_of(path, FILE_MAX))
}

/// Returns a policy's text, of a file that somebody named.
pub fn read_policy_text(path: &Path) -> Result<String, FilesError> {
    with_path(path, "policy", None, text_given(path, FILE_MAX))
}

/// Returns a policy's text from standard input.
pub fn read_policy_from_stdin() -> Result<String, FilesError> {
    let text = bytes_in(io::stdin().lock(), FILE_MAX).and_then(|bytes| text_in(bytes, FILE_MAX));
    with_path(Path::new("standard input"), "policy", None, text)
}

/// Returns the machine file's text.
pub fn read_machine_text(path: &Path) -> Result<String, FilesError> {
    with_path(path, "machine file", Some("machine"), text_of(path, FILE_MAX))
}

/// Adds to a fault which file has it.
fn with_path(
    path: &Path,
    what: &'static str,
    option: Option<&'static str>,
    read: Result<String, FileFault>,
) -> Result<String, FilesError> {
    read.map_err(|fault| FilesError::Read { what, option, path: path.to_owned(), fault })
}

/// Largest signature file, trust store and key, in bytes.
const SMALL_MAX: u64 = 64 << 10;

/// Returns a small file's text; `None` if there is no such file.
pub fn read_small(path: &Path) -> io::Result<Option<String>> {
    match text_of(path, SMALL_MAX) {
        Ok(text) => Ok(Some(text)),
        Err(FileFault::Missing) => Ok(None),
        Err(fault) => Err(fault.into()),
    }
}

/// Returns a secret key's text, and who besides its owner may read its file; `None` if there is no such file. No copy of it is left in memory.
pub fn read_secret(path: &Path, kept: &NoDump) -> io::Result<Option<(Zeroizing<String>, Access)>> {
    let read = || -> Result<_, FileFault> {
        let file = fileopen::given(path)?;
        let access = Access::of(&file)?;
        Ok((secret_in(&file, SMALL_MAX, kept)?, access))
    };
    match read() {
        Ok(read) => Ok(Some(read)),
        Err(FileFault::Missing) => Ok(None),
        Err(fault) => Err(fault.into()),
    }
}

/// Returns where the signatures of a policy lie.
#[must_use]
pub fn signature_file(policy: &Path) -> PathBuf {
    let mut name = policy.as_os_str().to_owned();
    name.push(".sig");
    name.into()
}

/// The VMM is not where it should be.
#[derive(Debug, thiserror::Error)]
#[error("there is no {VMM} {where_}: install it beside bulkhead-agent, or name it with --vmm")]
pub struct VmmNotFound {
    where_: String,
}

/// Returns the VMM's file: the one given, or the one beside this program, or the first in `PATH`.
pub fn find_vmm(given: Option<&Path>) -> Result<PathBuf, VmmNotFound> {
    if let Some(given) = given {
        let found = fs::canonicalize(given).ok().filter(|path| path.is_file());
        return found.ok_or_else(|| VmmNotFound { where_: format!("at {}", given.display()) });
    }
    find_program(VMM)
        .ok_or_else(|| VmmNotFound { where_: "beside this program or in PATH".to_owned() })
}

/// Returns the file of another program of ours: the one beside this program, or the first in `PATH`.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    beside(name).or_else(|| {
        env::split_paths(&path)
            .map(|directory| directory.join(name))
            .find(|candidate| is_program(candidate))
    })
}

/// Returns the file of a program of ours that has to be of this program's version: the one beside it, and no other.
#[must_use]
pub fn beside(name: &str) -> Option<PathBuf> {
    let own = env::current_exe().ok()?;
    Some(own.parent()?.join(name)).filter(|candidate| is_program(candidate))
}

fn is_program(path: &Path) -> bool {
    path.is_absolute() && path.is_file()
}
