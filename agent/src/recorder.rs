//! The audit log as the agent uses it: opened at start, tried again when it failed, and never waited for by a desktop.
//!
//! Flows ask whether their event is on the disk before they let anything through. Domains do not: care goes on while the log
//! cannot be written, and `status` says so.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use audit::{AuditKey, Event, Head, Limits, Log, Recovered};

use crate::layout;
use crate::supervisor::devices::explain;

/// How long after a failure the log is tried again.
const RETRY: Duration = Duration::from_secs(10);
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The agent's end of the log.
#[derive(Debug)]
pub struct Recorder {
    dir: PathBuf,
    key: PathBuf,
    limits: Limits,
    boot: String,
    log: Option<Log>,
    problem: Option<String>,
    /// What was wrong with the end of the log when it was opened.
    found: Recovered,
    retry_at: Instant,
}

/// Where the log of an agent lies.
#[must_use]
pub fn directory(state: &Path) -> PathBuf {
    state.join("audit")
}

/// Where its key lies; the public half is beside it as `.pub`.
#[must_use]
pub fn key_file(state: &Path) -> PathBuf {
    state.join("keys").join("audit.key")
}

impl Recorder {
    /// Opens the log. It is there even if that fails: then it records nothing, and says so.
    #[must_use]
    pub fn open(state: &Path, limits: Limits) -> Self {
        let boot = fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned();
        let mut this = Self {
            dir: directory(state),
            key: key_file(state),
            limits,
            boot,
            log: None,
            problem: None,
            found: Recovered::default(),
            retry_at: Instant::now(),
        };
        this.try_open();
        this
    }

    fn try_open(&mut self) {
        let opened = (|| {
            if let Some(keys) = self.key.parent() {
                layout::directory(keys, 0o700).map_err(|e| explain(&e))?;
            }
            let key = AuditKey::open(&self.key).map_err(|e| explain(&e))?;
            Log::open(&self.dir, key, self.limits, &self.boot).map_err(|e| explain(&e))
        })();
        self.retry_at = Instant::now() + RETRY;
        match opened {
            Ok((log, found)) => {
                if let Some(bytes) = found.torn {
                    tracing::warn!(
                        "the audit log's last line was not whole: {bytes} bytes put aside"
                    );
                }
                if let Some(what) = &found.broken {
                    tracing::error!(
                        "THE AUDIT LOG IS BROKEN and kept as it is: {what}; look with `bulkhead audit verify`"
                    );
                }
                if self.problem.take().is_some() {
                    tracing::info!("the audit log can be written again");
                }
                (self.log, self.found) = (Some(log), found);
            }
            Err(problem) => self.failed(problem),
        }
    }

    fn failed(&mut self, problem: String) {
        if self.problem.as_ref() != Some(&problem) {
            tracing::error!("nothing may cross, as the audit log cannot be written: {problem}");
        }
        // Set by the first failure alone: whoever records often must not put the next try off for ever.
        if self.problem.replace(problem).is_none() {
            self.retry_at = Instant::now() + RETRY;
        }
    }

    /// Records events; when this is `Ok` they are on the disk.
    ///
    /// # Errors
    /// Why they are not. Whatever they would have permitted must not happen.
    pub fn record(&mut self, events: &[Event]) -> Result<(), String> {
        if (self.log.is_none() || self.problem.is_some()) && Instant::now() >= self.retry_at {
            self.log = None;
            self.try_open();
        }
        let unavailable = || self.problem.clone().unwrap_or_default();
        let Some(log) = &mut self.log else { return Err(unavailable()) };
        match log.append(events) {
            Ok(_) => {
                self.problem = None;
                Ok(())
            }
            Err(error) => {
                let problem = explain(&error);
                self.failed(problem.clone());
                Err(problem)
            }
        }
    }

    /// Records what happens whether or not it is recorded: a desktop that starts, an agent that ends.
    pub fn note(&mut self, events: &[Event]) {
        // `record` has said it, and `status` goes on saying it.
        let _ = self.record(events);
    }

    /// Why nothing is recorded.
    #[must_use]
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// What was wrong with the log when it was opened.
    #[must_use]
    pub fn found(&self) -> &Recovered {
        &self.found
    }

    /// How far the log goes.
    #[must_use]
    pub fn head(&self) -> Option<Head> {
        self.log.as_ref().map(Log::head)
    }

    /// Ends the log with a checkpoint.
    pub fn close(self) {
        if let Some(log) = self.log
            && let Err(error) = log.close()
        {
            tracing::error!("{}", explain(&error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recording_again_and_again_does_not_put_the_next_try_off() {
        let dir = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::open(dir.path(), Limits::default());
        recorder.log = None;
        recorder.failed("no room".to_owned());
        let due = recorder.retry_at;
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(2));
            recorder.record(&[Event::new("test")]).unwrap_err();
            recorder.failed("still no room".to_owned());
        }
        assert_eq!(recorder.retry_at, due);
        recorder.retry_at = Instant::now();
        recorder.record(&[Event::new("test")]).unwrap();
        assert!(recorder.problem().is_none());
    }

    // Shows: K-1.3.2, K-3.3.3.
    #[test]
    fn a_log_that_cannot_be_written_says_so_and_is_taken_up_again() {
        let dir = tempfile::tempdir().unwrap();
        // A file where the directory should be.
        fs::write(directory(dir.path()), "in the way").unwrap();
        let mut recorder = Recorder::open(dir.path(), Limits::default());
        assert!(recorder.problem().unwrap().contains("audit"));
        recorder.record(&[Event::new("test")]).unwrap_err();
        assert!(recorder.head().is_none());
        fs::remove_file(directory(dir.path())).unwrap();
        recorder.record(&[Event::new("test")]).unwrap_err();
        recorder.retry_at = Instant::now();
        recorder.record(&[Event::new("test")]).unwrap();
        assert!(recorder.problem().is_none());
        assert_eq!(recorder.head().unwrap().seq, 1);
        recorder.close();
        let key = fs::metadata(key_file(dir.path())).unwrap();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&key.permissions()) & 0o777, 0o600);
    }
}
