//! The workers' program, read once: what is started each time is in memory by then, and is that of the agent that starts it.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use worker_link::Role;

use super::group::Group;

/// Most bytes of the program; one that is built without optimisation has 18 MiB.
const PROGRAM_MAX: u64 = 128 << 20;
/// `MFD_EXEC` (memfd_create(2), Linux 6.3): it may be executed, also where that is not so of others by `vm.memfd_noexec`.
const MAY_BE_EXECUTED: u32 = 0x10;

/// A program of which nothing changes and nothing is on a disk any more, so that starting it waits for none. Clones share it, and may run in cgroups of their own.
#[derive(Clone, Debug)]
pub struct Program {
    /// What it was read from, for messages.
    path: PathBuf,
    /// A sealed file in memory.
    file: Option<Arc<File>>,
    /// The cgroup that its processes run in.
    group: Option<Group>,
    /// What the program at `path` is given before all else: a script, if that is a shell.
    #[cfg(any(test, feature = "testing"))]
    script: Option<PathBuf>,
}

impl Program {
    /// Reads the program at `path`. What becomes of that file later counts for nothing.
    ///
    /// # Errors
    /// There is none, it is too large, or the kernel executes no file in memory (`vm.memfd_noexec` is 2).
    pub fn read(path: &Path) -> io::Result<Self> {
        let mut program = fileopen::regular(path)?.take(PROGRAM_MAX + 1);
        let mut file = memory()?;
        if io::copy(&mut program, &mut file)? > PROGRAM_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let seals = SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_WRITE;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals | SealFlag::F_SEAL_SEAL))?;
        Ok(Self {
            path: path.to_owned(),
            file: Some(Arc::new(file)),
            group: None,
            #[cfg(any(test, feature = "testing"))]
            script: None,
        })
    }

    /// Returns where it was read from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sets the directory of the cgroup that its processes are started in, whose limits the caller has set.
    #[must_use]
    pub fn in_cgroup(self, directory: PathBuf) -> Self {
        Self { group: Some(Group::at(directory)), ..self }
    }

    /// Returns the cgroup that its processes run in. One that is not there any more is given up, which the log says once.
    pub fn group(&mut self) -> Option<&Group> {
        if let Some(gone) = self.group.take_if(|group| !group.is_there()) {
            tracing::warn!(
                "the cgroup {} is gone: from here on workers run without its limits; restart bulkhead-agent",
                gone.path().display()
            );
        }
        self.group.as_ref()
    }

    /// Returns how it is started in this role, by this process: with the number that it runs under as root, the number of this process, and the cgroup that it is to enter.
    pub(super) fn command(&self, role: Role, user: u32) -> Command {
        let mut command = match &self.file {
            // In the process that is to be it, whose descriptors are this one's until it is.
            Some(file) => Command::new(format!("/proc/self/fd/{}", file.as_raw_fd())),
            None => Command::new(&self.path),
        };
        #[cfg(any(test, feature = "testing"))]
        command.args(&self.script);
        command.args([role.word(), &user.to_string(), &std::process::id().to_string()]);
        command.args(self.group.as_ref().map(Group::path));
        command
    }
}

#[cfg(any(test, feature = "testing"))]
impl Program {
    /// Makes a program of a script, which its interpreter finds by its name only.
    #[must_use]
    pub const fn script(path: PathBuf) -> Self {
        Self { path, file: None, group: None, script: None }
    }

    /// Writes a script into `directory`, and makes a program of the shell with it. The script itself is not executed: while another thread starts a process,
    /// that has the file open for writing too, and the kernel executes no such file (`ETXTBSY`).
    ///
    /// # Panics
    /// It cannot be written.
    #[must_use]
    #[expect(clippy::unwrap_used, reason = "only tests call it")]
    pub fn shell(directory: &Path, text: &str) -> Self {
        let script = directory.join("program");
        std::fs::write(&script, format!("{text}\n")).unwrap();
        Self { script: Some(script), ..Self::script("/bin/sh".into()) }
    }
}

fn memory() -> io::Result<File> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let executable = flags | MFdFlags::from_bits_retain(MAY_BE_EXECUTED);
    let made = match memfd_create("bulkhead-worker", executable) {
        // A kernel before 6.3 does not know the flag: all may be executed.
        Err(Errno::EINVAL) => memfd_create("bulkhead-worker", flags),
        made => made,
    };
    Ok(File::from(made?))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_program_is_started_as_it_was_read_whatever_became_of_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("worker");
        fs::copy("/bin/echo", &path).unwrap();
        let program = Program::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::copy("/bin/false", &path).unwrap();
        let output = program.command(Role::Picture, 7).arg("as it was").output().unwrap();
        let said = format!("picture 7 {} as it was\n", std::process::id());
        assert_eq!(output.stdout, said.as_bytes());
        // Nobody changes it in memory either.
        let mut file = &**program.file.as_ref().unwrap();
        assert!(file.write_all(b"x").is_err() && file.set_len(1).is_err());
        assert!(Program::read(&dir.path().join("none")).is_err());
        assert!(Program::read(Path::new("/dev/zero")).is_err(), "without end");
    }

    #[test]
    fn a_cgroup_that_is_gone_is_given_up_and_what_is_started_is_not_sent_there() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("group");
        fs::create_dir(&place).unwrap();
        let mut program = Program::script("/bin/echo".into()).in_cgroup(place.clone());
        let said = |program: &Program| program.command(Role::Usb, 7).output().unwrap().stdout;
        assert!(program.group().is_some());
        let with = format!("usb 7 {} {}\n", std::process::id(), place.display());
        assert_eq!(said(&program), with.as_bytes());
        fs::remove_dir(&place).unwrap();
        assert!(program.group().is_none());
        assert_eq!(said(&program), format!("usb 7 {}\n", std::process::id()).as_bytes());
    }
}
