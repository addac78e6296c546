//! The files a person wrote, read and checked against each other, and the VMM's own file.

use std::env;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use policy::Policy;
use policy::diagnostic::Diagnostics;
use policy::enforcement::{self, Said};

use crate::control::protocol::PolicyReport;
use crate::machine::{Context, Kind, Machine};
use crate::policy_store::{InForce, PolicyStore, Refusal, Unsaved};
use crate::roster::{self, Member};

/// Largest file read, in bytes: a hundred times what a hospital writes.
pub(crate) const FILE_MAX: u64 = 4 << 20;
/// The VMM's name.
const VMM: &str = "bulkhead-vmm";

/// Both files.
pub struct Files {
    /// This PC's hardware.
    pub machine: Machine,
    /// The policy's domains.
    pub roster: Vec<Member>,
    /// The policy, for `status`.
    pub policy: PolicyReport,
    /// The policy itself.
    pub rules: Arc<Policy>,
    /// What of it is not remembered yet.
    pub unsaved: Unsaved,
}

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A file cannot be read.
    #[error("cannot read the {what} {}: create it, or name another with --{option}", path.display())]
    Read {
        /// Which.
        what: &'static str,
        /// The option that names it.
        option: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
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

impl Files {
    /// Reads both. Every problem of a file is reported at once, and nothing is written.
    pub fn read(machine: &Path, store: &PolicyStore, images: &Path) -> Result<Self, FilesError> {
        let in_force = store.load()?;
        let roster = roster::of(&in_force.policy);
        let machine = read_machine(machine, images, &roster)?;
        let policy = report(store, &in_force);
        let InForce { policy: rules, unsaved, .. } = in_force;
        Ok(Self { machine, roster, policy, rules: Arc::new(rules), unsaved })
    }
}

/// Something that the policy in force says and nothing on this PC enforces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unenforced {
    /// What, and what is so instead.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl Files {
    /// What the policy says and nothing on this PC enforces: because this version does not, or because a domain's VMM is somebody else's.
    #[must_use]
    pub fn unenforced(&self) -> Vec<Unenforced> {
        let unenforced = |said: Said| Unenforced {
            what: format!("the policy's {said}"),
            remedy: said.gap.remedy.to_owned(),
        };
        let external =
            self.machine.domains.iter().filter(|domain| matches!(domain.kind, Kind::External));
        let keys = enforcement::of_the_vmm().collect::<Vec<_>>().join(", ");
        let elsewhere = external.map(|domain| Unenforced {
            what: format!(
                "{} is external: what the policy says of its {keys} is not enforced by Bulkhead",
                domain.name
            ),
            remedy: "see that whoever runs its VMM gives it the network, disks and share that the policy says".to_owned(),
        });
        self.rules.unenforced().into_iter().map(unenforced).chain(elsewhere).collect()
    }
}

/// The machine file, checked against the policy's domains.
pub fn read_machine(
    machine: &Path,
    images: &Path,
    roster: &[Member],
) -> Result<Machine, FilesError> {
    let text = read_machine_text(machine)?;
    let context = Context { images, roster: Some(roster) };
    Machine::parse(&machine.display().to_string(), &text, context).map_err(FilesError::Machine)
}

/// What `status` says of the policy in force.
#[must_use]
pub fn report(store: &PolicyStore, in_force: &InForce) -> PolicyReport {
    PolicyReport {
        file: store.file().display().to_string(),
        serial: in_force.policy.serial(),
        issuer: in_force.policy.issuer().to_owned(),
        signed: !in_force.signers.is_empty(),
        signers: in_force.signers.clone(),
        refused: in_force.refused.clone(),
    }
}

/// The policy's text.
pub fn read_policy_text(path: &Path) -> Result<String, FilesError> {
    read_text(path, "policy", "policy")
}

/// A policy's text from standard input.
pub fn read_policy_from_stdin() -> Result<String, FilesError> {
    read_all(Path::new("standard input"), "policy", "policy", || Ok(io::stdin().lock()))
}

/// The machine file's text.
pub fn read_machine_text(path: &Path) -> Result<String, FilesError> {
    read_text(path, "machine file", "machine")
}

fn read_text(path: &Path, what: &'static str, option: &'static str) -> Result<String, FilesError> {
    read_all(path, what, option, || fs::File::open(path))
}

fn read_all<R: Read>(
    path: &Path,
    what: &'static str,
    option: &'static str,
    open: impl FnOnce() -> io::Result<R>,
) -> Result<String, FilesError> {
    let read = || -> io::Result<String> {
        let mut text = String::new();
        let count = open()?.take(FILE_MAX + 1).read_to_string(&mut text)?;
        if u64::try_from(count).unwrap_or(u64::MAX) > FILE_MAX {
            return Err(io::Error::other(format!("it is larger than {} MiB", FILE_MAX >> 20)));
        }
        Ok(text)
    };
    read().map_err(|source| FilesError::Read { what, option, path: path.to_owned(), source })
}

/// The VMM is not where it should be.
#[derive(Debug, thiserror::Error)]
#[error("there is no {VMM} {where_}: install it beside bulkhead-agent, or name it with --vmm")]
pub struct VmmNotFound {
    where_: String,
}

/// The VMM's file: the one given, or the one beside this program, or the first in `PATH`.
pub fn find_vmm(given: Option<&Path>) -> Result<PathBuf, VmmNotFound> {
    if let Some(given) = given {
        let found = fs::canonicalize(given).ok().filter(|path| path.is_file());
        return found.ok_or_else(|| VmmNotFound { where_: format!("at {}", given.display()) });
    }
    let beside = env::current_exe().ok().and_then(|own| Some(own.parent()?.join(VMM)));
    let path = env::var_os("PATH").unwrap_or_default();
    beside
        .into_iter()
        .chain(env::split_paths(&path).map(|directory| directory.join(VMM)))
        .find(|candidate| candidate.is_absolute() && candidate.is_file())
        .ok_or_else(|| VmmNotFound { where_: "beside this program or in PATH".to_owned() })
}
