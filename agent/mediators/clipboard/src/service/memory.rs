//! Files in memory that go to and from workers.

use std::fs::File;
use std::io;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// Makes an empty one, which is not passed on by mistake. Its name is for whoever looks at the process.
pub(super) fn file(name: &str) -> io::Result<File> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    Ok(File::from(memfd_create(name, flags)?))
}

/// Makes one of this length, which it keeps, whoever has it.
pub(super) fn of_length(name: &str, length: u64) -> io::Result<File> {
    let file = file(name)?;
    file.set_len(length)?;
    let seals = SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file)
}

/// Has nobody change it any more.
pub(super) fn seal(file: &File) -> io::Result<()> {
    let length = SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK;
    let seals = length | SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SEAL;
    fcntl(file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(())
}
