//! The process of a worker, and what ends it.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::Signal;
use rustix::process::pidfd_send_signal;
use worker_link::Role;
use worker_link::usb::{Job, Start};
use workers::group::Group;
use workers::process::words;
use workers::{Channel, Process, Program};

/// How long a killed worker is waited for until it is looked at again, in milliseconds.
const ENDED_LOOK: u16 = 1000;

/// What serves the devices of one domain.
#[derive(Clone, Debug)]
pub struct DomainWorkers {
    /// The program, in the domain's cgroup if it has one.
    pub program: Program,
    /// The number that they run under, if the agent is root: no other domain's.
    pub user: u32,
}

#[cfg(test)]
impl DomainWorkers {
    /// Makes those of a test's whose threads are its own, which starts none.
    pub(crate) fn none() -> Self {
        Self { program: Program::script("/nonexistent/bulkhead-worker".into()), user: 0 }
    }
}

/// What the broker ends a worker by, whatever its thread waits for.
#[derive(Debug, Default)]
pub(in super::super) struct Cut {
    done: AtomicBool,
    /// The worker, once it has been started.
    worker: Mutex<Option<OwnedFd>>,
}

impl Cut {
    /// Kills the worker, or has it be when it has been started.
    pub(in super::super) fn cut(&self) {
        self.done.store(true, Ordering::SeqCst);
        if let Some(worker) = &*self.worker() {
            // One that has ended needs it no more.
            let _ = pidfd_send_signal(worker, rustix::process::Signal::KILL);
        }
    }

    /// Returns whether the guest is to have nothing of the device any more.
    pub(in super::super) fn is_done(&self) -> bool {
        self.done.load(Ordering::SeqCst)
    }

    /// Takes the worker that is to be killed, by a descriptor of the process.
    pub(in super::super) fn take(&self, worker: OwnedFd) {
        *self.worker() = Some(worker);
        if self.is_done() {
            self.cut();
        }
    }

    fn worker(&self) -> MutexGuard<'_, Option<OwnedFd>> {
        self.worker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The process that serves a device. Killed when it is dropped, which waits until nothing of it is left: it has the device's node.
#[derive(Debug)]
pub(in super::super) struct DeviceWorker {
    pub(super) process: Process,
    pub(super) channel: Channel,
    /// The stream to its VMM, of which nothing is read or written here: it tells when that has gone.
    pub(super) vmm: OwnedFd,
    /// The cgroup it is in, and how many processes had been killed there for memory before it was started.
    group: Option<(Group, u64)>,
}

impl DeviceWorker {
    /// Starts a worker with the stream to the VMM, and hands it the device's node and what is to be served of it.
    ///
    /// # Errors
    /// There is no memory, process or descriptor for it, or this PC does not run the program.
    pub(in super::super) fn start(
        workers: &DomainWorkers,
        stream: OwnedFd,
        node: OwnedFd,
        job: &Job,
    ) -> io::Result<Self> {
        let mut program = workers.program.clone();
        let group = program.group().map(|group| (group.clone(), group.killed_for_memory()));
        let written = sealed(&job.write())?;
        let (channel, workers_end) = Channel::pair()?;
        // It is there before the worker is: one that ends at once has ended, and nothing else.
        let start = Start { whole: job.share.is_whole() };
        channel.send(&start.write(), &[node.as_fd(), written.as_fd()])?;
        let vmm = stream.try_clone()?;
        let process = Process::start(&program, Role::Usb, workers.user, stream, workers_end)?;
        Ok(Self { process, channel, vmm, group })
    }

    /// Returns what the process can be killed by.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub(in super::super) fn killed_by(&self) -> io::Result<OwnedFd> {
        self.process.fd().try_clone_to_owned()
    }

    /// Waits until nothing of the process is left, and returns how it ended.
    pub(super) fn end(&mut self) -> Option<ExitStatus> {
        loop {
            if let Some(status) = self.process.ended() {
                return status;
            }
            self.process.end();
            let mut ended = [PollFd::new(self.process.fd(), PollFlags::POLLIN)];
            // One that the kernel does not let go is waited for: until then it has the device.
            match poll(&mut ended, PollTimeout::from(ENDED_LOOK)) {
                Ok(_) | Err(Errno::EINTR) => {}
                // Without a way to wait it is asked for again and again.
                Err(_) => std::thread::sleep(Duration::from_millis(ENDED_LOOK.into())),
            }
        }
    }

    /// Returns how it ended, in words, if it does so by itself within this time.
    pub(super) fn ended_by_itself(&mut self, within: Duration) -> Option<String> {
        let mut ended = [PollFd::new(self.process.fd(), PollFlags::POLLIN)];
        // One that is not waited for to the end has not ended.
        let _ = poll(&mut ended, PollTimeout::try_from(within).unwrap_or(PollTimeout::ZERO));
        let status = self.process.ended()?;
        Some(self.ended_how(status))
    }

    /// Returns how it ended, in words.
    fn ended_how(&self, status: Option<ExitStatus>) -> String {
        let killed = status.and_then(|status| status.signal()) == Some(Signal::SIGKILL as i32);
        let more = |(group, before): &(Group, u64)| group.killed_for_memory() > *before;
        if killed && self.group.as_ref().is_some_and(more) {
            return "its memory was used up".to_owned();
        }
        words(status)
    }
}

impl Drop for DeviceWorker {
    fn drop(&mut self) {
        self.end();
    }
}

/// Makes a file in memory that nobody changes.
fn sealed(bytes: &[u8]) -> io::Result<File> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = File::from(memfd_create("bulkhead-usb", flags)?);
    file.write_all(bytes)?;
    file.seek(SeekFrom::Start(0))?;
    let length = SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK;
    fcntl(&file, FcntlArg::F_ADD_SEALS(length | SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SEAL))?;
    Ok(file)
}
