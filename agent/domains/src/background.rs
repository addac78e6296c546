//! Background jobs: slow work on threads of its own, which report to the event loop.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::thread;

use nix::sys::eventfd::{EfdFlags, EventFd};

/// Threads for jobs, one each. What they report comes out of one receiver, with the number that the job was started under.
pub(crate) struct BackgroundJobs<R> {
    reporter: mpsc::Sender<(usize, R)>,
    wake: Arc<EventFd>,
}

impl<R: Send + 'static> BackgroundJobs<R> {
    /// Makes the jobs' side and the receiver of their reports.
    ///
    /// # Errors
    /// The process has no file descriptor left.
    pub(crate) fn new() -> nix::Result<(Self, mpsc::Receiver<(usize, R)>)> {
        let (reporter, reports) = mpsc::channel();
        let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?);
        Ok((Self { reporter, wake }, reports))
    }

    /// Returns what is readable once something was reported.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Takes what is readable: the reports that came until now are in the receiver.
    pub(crate) fn awake(&self) {
        let _ = self.wake.read();
    }

    /// Runs `job` on a thread of its own; it reports under `index`.
    pub(crate) fn spawn(
        &self,
        index: usize,
        name: &str,
        job: impl FnOnce(&dyn Fn(R)) + Send + 'static,
    ) -> io::Result<()> {
        let (reporter, wake) = (self.reporter.clone(), self.wake.clone());
        thread::Builder::new().name(format!("devices-{name}")).spawn(move || {
            job(&|report| {
                // The receiver lives as long as the agent; a full eventfd is awake already.
                let _ = reporter.send((index, report));
                let _ = wake.write(1);
            });
        })?;
        Ok(())
    }
}

/// Runs a job and returns its outcome, a fault of ours in it included: nobody is to wait for a thread that is no more.
pub(crate) fn survived(job: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(job))
        .unwrap_or_else(|_| Err("the agent failed at it: report it with the log".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_fails_is_waited_for_by_nobody() {
        assert_eq!(survived(|| Ok(())), Ok(()));
        let failed = survived(|| panic!("a fault of ours"));
        assert!(failed.unwrap_err().contains("report it"));
    }
}
