//! Two domains share nothing: no PCI function, and no disk that either may write.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use form::diagnostic::Diagnostic;
use form::document::Sink;

use super::Disk;
use super::domain::{Body, Draft};
use crate::domain_policies::DomainPolicy;
use claims::PciAddress;

pub(crate) fn check(sink: &Sink, drafts: &[Draft], domain_policies: Option<&[DomainPolicy]>) {
    functions(sink, drafts);
    disks(sink, drafts, domain_policies);
}

fn functions(sink: &Sink, drafts: &[Draft]) {
    let mut owners: HashMap<PciAddress, &str> = HashMap::new();
    for draft in drafts {
        let Body::Vm(vm) = &draft.body else { continue };
        for (wanted, span) in vm.nic.iter().chain(&vm.passthrough) {
            let address = wanted.address;
            match owners.insert(address, &draft.name) {
                None => {}
                Some(owner) if owner == draft.name => sink.report(Diagnostic::error(
                    *span,
                    format!("{address} is named twice in {owner}"),
                    "name each function once, as `nic` or in `passthrough`",
                )),
                Some(owner) => sink.report(Diagnostic::error(
                    *span,
                    format!("{address} already belongs to {owner}"),
                    format!("give {} a NIC of its own; `lspci -D` lists this PC's", draft.name),
                )),
            }
        }
    }
}

/// What makes two paths one disk.
#[derive(PartialEq, Eq, Hash)]
enum Identity {
    /// The same inode, however it is reached.
    File { device: u64, inode: u64 },
    /// The same block or character device, however its node is called.
    Device(u64),
    /// Not there yet: the path with what exists of it resolved.
    Path(PathBuf),
}

fn disks(sink: &Sink, drafts: &[Draft], domain_policies: Option<&[DomainPolicy]>) {
    let mut users: HashMap<Identity, (&str, bool)> = HashMap::new();
    for draft in drafts {
        let Body::Vm(vm) = &draft.body else { continue };
        let discards = domain_policies
            .and_then(|domain_policies| {
                domain_policies.iter().find(|policy| policy.name == draft.name)
            })
            .is_some_and(|policy| policy.discard);
        for (disk, span) in &vm.disks {
            let writes = writes_the_file(disk, discards);
            let (owner, shared_write) = match users.get(&identity(&disk.path)) {
                None => {
                    users.insert(identity(&disk.path), (&draft.name, writes));
                    continue;
                }
                Some((owner, owner_writes)) => (*owner, writes || *owner_writes),
            };
            if !shared_write {
                continue;
            }
            let path = disk.path.display();
            let message = if owner == draft.name {
                format!("{path} is already a disk of {owner}, and one of the two may write it")
            } else {
                format!("{path} already belongs to {owner}, and one of the two may write it")
            };
            let help = "give each its own copy, or write `readonly = true` at both";
            sink.report(Diagnostic::error(*span, message, help));
        }
    }
}

/// Returns a domain that forgets writes to a copy; the file itself is only read.
fn writes_the_file(disk: &Disk, discards: bool) -> bool {
    !disk.readonly && !discards
}

fn identity(path: &Path) -> Identity {
    use std::os::unix::fs::FileTypeExt;
    if let Ok(meta) = fs::metadata(path) {
        if meta.file_type().is_block_device() || meta.file_type().is_char_device() {
            return Identity::Device(meta.rdev());
        }
        return Identity::File { device: meta.dev(), inode: meta.ino() };
    }
    Identity::Path(resolve(path))
}

/// Resolves the part of a path that exists, and the rest by its text.
fn resolve(path: &Path) -> PathBuf {
    let mut resolved = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                resolved.pop();
            }
            other => {
                resolved.push(other);
                if let Ok(real) = fs::canonicalize(&resolved) {
                    resolved = real;
                }
            }
        }
    }
    resolved
}
