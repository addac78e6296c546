//! The audit log as the agent uses it: opened at start, tried again when it failed, and never waited for by a desktop.
//!
//! ```text
//!  mediators, policy, break-glass --record--> Recorder --> audit::Log --> <state>/audit
//!                                  <-- Err: nothing crosses
//!  domains, seat ------------------note-----> (as above; a failure holds nothing up)
//!                                                 |
//!                                                 +--> heads elsewhere: state, runtime, beside the policy
//! ```
//!
//! [`Recorder::record`] returns when the entries are on the disk, or says why they are not: what wants to cross asks by it. [`Recorder::note`] is for what
//! happens anyway: care goes on while the log cannot be written, and `status` says so.
//!
//! - A log that failed is tried again after ten seconds ([`Recorder::poll`], [`Recorder::wait`]); until then nothing crosses.
//! - How far the log went is remembered in places outside of its directory, so that one that was emptied or put back is noticed at the next start ([`Recorder::found`]).
//! - What can be asked again and again is counted before it is written: [`tally`].
//! - While nothing may cross for another reason the owner withholds entries ([`Recorder::withhold`]): asking by [`Recorder::record`] is refused, and the log is kept.
//!
//! What an entry looks like, how it is chained and verified, is the crate `audit`'s; who may permit by it is `monitor`'s.
// A print waits for its reader, and panics when that is gone.
#![deny(clippy::print_stderr)]
#![forbid(unsafe_code)]

pub mod tally;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clock::Moment;

use audit::{AuditEvent, AuditKey, Head, Limits, Log, LogError, RecoveryReport, Settings};

use base::accounts::Accounts;
use base::layout;
use printable::explain;

/// How long after a failure the log is tried again.
const RETRY: Duration = Duration::from_secs(10);
/// Members of this group may read the audit log, and thus verify it; without it, root alone.
pub const AUDITOR_GROUP: &str = "bulkhead-auditor";
/// The file in which how far the log went is remembered, outside the log's directory.
const REMEMBERED: &str = "audit.head";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The agent's end of the log.
#[derive(Debug)]
pub struct Recorder {
    state: PathBuf,
    settings: Settings,
    log: Option<Log>,
    /// Why nothing is recorded, from the first cause on.
    problem: Option<String>,
    /// What was wrong with the log when it was opened, since the agent runs.
    found: RecoveryReport,
    forgotten: Option<String>,
    /// Why nothing may cross though the log can be written.
    withheld: Option<String>,
    retry_at: Moment,
}

/// What stands between the first cause and the latest.
const LAST_TRY: &str = "; at the last try: ";

/// Returns what is said of a state directory that is an older one.
#[must_use]
pub fn went_back(what: &str) -> String {
    format!(
        "THE STATE DIRECTORY WENT BACK: {what}. Somebody put back a backup, deleted or exchanged it; unless IT did so, call the security office"
    )
}

/// Returns where the log of an agent lies.
#[must_use]
pub fn directory(state: &Path) -> PathBuf {
    state.join("audit")
}

/// Returns where its key lies; the public half is beside it as `.pub`.
#[must_use]
pub fn key_file(state: &Path) -> PathBuf {
    state.join("keys").join("audit.key")
}

/// Returns where how far the log went is remembered in a directory.
#[must_use]
pub fn remembered_in(directory: &Path) -> PathBuf {
    directory.join(REMEMBERED)
}

impl Recorder {
    /// Returns what the banner says of the audit log.
    pub fn banner_notes(&self) -> impl Iterator<Item = String> + use<> {
        let unwritten = self.problem().map(|_| {
            "Nothing can cross between desktops: the audit log cannot be written".to_owned()
        });
        let went_back = self.found().went_back.as_ref().map(|_| {
            "The records of this PC were put back or deleted; call the security office".to_owned()
        });
        unwritten.into_iter().chain(went_back)
    }

    /// Returns what `status` says of the audit log besides how it is.
    pub fn notes(&self) -> impl Iterator<Item = String> + use<> {
        let unwritten = self
            .problem()
            .map(|problem| format!("NOTHING CROSSES, as it cannot be recorded: {problem}"));
        let broken = self.found().broken.as_ref().map(|what| {
            format!("THE AUDIT LOG IS BROKEN: {what}; look with `bulkhead audit verify`")
        });
        let went_back = self.found().went_back.as_deref().map(went_back);
        unwritten.into_iter().chain(broken).chain(went_back)
    }

    /// Opens the log, which is remembered in its state directory alone. See [`Self::open_remembered`].
    #[must_use]
    pub fn open(state: &Path, limits: Limits) -> Self {
        Self::open_remembered(state, limits, &[])
    }

    /// Opens the log. It is there even if that fails: then it records nothing, and says so. How far it went is remembered in these directories
    /// besides the state's: whoever puts back or deletes all of the state has not done so there.
    #[must_use]
    pub fn open_remembered(state: &Path, limits: Limits, elsewhere: &[PathBuf]) -> Self {
        let boot = fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned();
        let mut settings = Settings::new(&directory(state), limits, &boot);
        let directories = std::iter::once(state).chain(elsewhere.iter().map(PathBuf::as_path));
        settings.remembered_in = directories.map(remembered_in).collect();
        settings.remembered_in.dedup();
        settings.readers = Accounts::host().group(AUDITOR_GROUP).ok().flatten();
        let mut this = Self {
            state: state.to_owned(),
            settings,
            log: None,
            problem: None,
            found: RecoveryReport::default(),
            forgotten: None,
            withheld: None,
            retry_at: Moment::now(),
        };
        this.try_open();
        this
    }

    fn try_open(&mut self) {
        let opened = (|| {
            let key = key_file(&self.state);
            if let Some(keys) = key.parent() {
                layout::directory(keys, 0o700).map_err(|e| explain(&e))?;
            }
            if let Some(group) = self.settings.readers {
                layout::share(&self.state, group).map_err(|e| explain(&e))?;
            }
            let key = AuditKey::open(&key).map_err(|e| explain(&e))?;
            Log::open_with(self.settings.clone(), key).map_err(|e| explain(&e))
        })();
        self.retry_at = Moment::now() + RETRY;
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
                if let Some(what) = &found.went_back {
                    tracing::error!("{}", went_back(what));
                }
                if self.problem.take().is_some() {
                    tracing::info!("the audit log can be written again");
                }
                self.log = Some(log);
                // What was found once is not forgotten because the log was opened anew.
                self.found.torn = found.torn.or(self.found.torn);
                self.found.broken = found.broken.or(self.found.broken.take());
                self.found.went_back = found.went_back.or(self.found.went_back.take());
                self.complain_of_forgetting();
            }
            Err(problem) => self.failed(problem),
        }
    }

    /// Keeps the first cause: that the log cannot be opened anew is what comes of it.
    fn failed(&mut self, problem: String) {
        let Some(first) = &mut self.problem else {
            tracing::error!("nothing may cross, as the audit log cannot be written: {problem}");
            self.problem = Some(problem);
            // Set by the first failure alone: whoever records often must not put the next try off for ever.
            self.retry_at = Moment::now() + RETRY;
            return;
        };
        let cause = first.split(LAST_TRY).next().unwrap_or_default();
        if problem == cause || problem == *first {
            return;
        }
        let both = format!("{cause}{LAST_TRY}{problem}");
        if *first != both {
            tracing::error!("the audit log still cannot be written: {problem}");
            *first = both;
        }
    }

    fn complain_of_forgetting(&mut self) {
        let now = self.log.as_ref().and_then(Log::forgotten).map(str::to_owned);
        if now != self.forgotten
            && let Some(why) = &now
        {
            tracing::warn!("how far the audit log goes cannot be remembered beside it: {why}");
        }
        self.forgotten = now;
    }

    /// Writes down that the clock was set, signs what has been without a signature for long enough, and tries again what failed.
    pub fn poll(&mut self) {
        self.try_again();
        let Some(log) = self.log.as_mut().filter(|_| self.problem.is_none()) else { return };
        match log.note_step().and_then(|_| log.sign_if_due()) {
            Ok(()) => self.complain_of_forgetting(),
            Err(error) => self.failed(explain(&error)),
        }
    }

    /// Returns in what time [`Self::poll`] has something to do.
    #[must_use]
    pub fn wait(&self) -> Option<Duration> {
        if self.log.is_none() || self.problem.is_some() {
            return Some(self.retry_at.saturating_duration_since(Moment::now()));
        }
        self.log.as_ref()?.checkpoint_in()
    }

    fn try_again(&mut self) {
        if (self.log.is_none() || self.problem.is_some()) && Moment::now() >= self.retry_at {
            self.log = None;
            self.try_open();
        }
    }

    /// Records events; when this is `Ok` they are on the disk. Returns the number of the first of the entries.
    ///
    /// # Errors
    /// Why they are not. Whatever they would have permitted must not happen.
    pub fn record(&mut self, events: &[AuditEvent]) -> Result<u64, String> {
        match &self.withheld {
            Some(why) => Err(why.clone()),
            None => self.append(events),
        }
    }

    /// Lets nothing cross for another reason than the log, or no longer; returns whether that is news.
    pub fn withhold(&mut self, why: Option<String>) -> bool {
        let news = self.withheld != why;
        self.withheld = why;
        news
    }

    fn append(&mut self, events: &[AuditEvent]) -> Result<u64, String> {
        self.try_again();
        let Some(log) = &mut self.log else {
            return Err(self.problem.clone().unwrap_or_default());
        };
        match log.append(events) {
            Ok(numbers) => {
                self.problem = None;
                self.complain_of_forgetting();
                Ok(*numbers.start())
            }
            // The cause is known already, and this is what came of it.
            Err(LogError::Failed(_)) if self.problem.is_some() => {
                Err(self.problem.clone().unwrap_or_default())
            }
            Err(error) => {
                self.failed(explain(&error));
                Err(self.problem.clone().unwrap_or_default())
            }
        }
    }

    /// Records what happens whether or not it is recorded: a desktop that starts, an agent that ends. Returns the number of the first of the
    /// entries, if they are on the disk.
    pub fn note(&mut self, events: &[AuditEvent]) -> Option<u64> {
        // `append` has said why they are not, and `status` goes on saying it.
        self.append(events).ok()
    }

    /// Returns why nothing is recorded, or may cross.
    #[must_use]
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref().or(self.withheld.as_deref())
    }

    /// Returns whether the log can be written, whatever else nothing may cross for.
    #[must_use]
    pub const fn is_kept(&self) -> bool {
        self.problem.is_none()
    }

    /// Returns whether nothing may cross for another reason than the log.
    #[must_use]
    pub const fn is_withheld(&self) -> bool {
        self.withheld.is_some()
    }

    /// Returns what was wrong with the log when it was opened.
    #[must_use]
    pub fn found(&self) -> &RecoveryReport {
        &self.found
    }

    /// Returns how far the log goes.
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
    use audit::events::AgentStopped;

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
            recorder.record(&[AgentStopped {}.into()]).unwrap_err();
            recorder.failed("still no room".to_owned());
        }
        assert_eq!(recorder.retry_at, due);
        recorder.retry_at = Moment::now();
        recorder.record(&[AgentStopped {}.into()]).unwrap();
        assert!(recorder.problem().is_none());
    }

    #[test]
    fn the_first_cause_is_what_is_said_until_the_log_is_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::open(dir.path(), Limits::default());
        recorder.failed("no room".to_owned());
        assert_eq!(recorder.problem(), Some("no room"));
        recorder.failed("read-only".to_owned());
        recorder.failed("rights".to_owned());
        assert_eq!(recorder.problem(), Some("no room; at the last try: rights"));
        recorder.retry_at = Moment::now();
        recorder.poll();
        assert_eq!(recorder.problem(), None);
    }

    #[test]
    fn what_is_new_is_signed_without_anything_else_happening() {
        let dir = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::open(dir.path(), Limits::default());
        assert_eq!(recorder.wait(), None);
        recorder.note(&[AgentStopped {}.into()]);
        let wait = recorder.wait().unwrap();
        assert!(wait <= audit::CHECKPOINT_AFTER && wait > Duration::from_secs(50), "{wait:?}");
    }

    #[test]
    fn a_clock_that_was_set_is_written_down_and_signed_in_the_next_turn_without_anything_else_happening()
     {
        thread_local! { static SET: std::cell::Cell<u64> = const { std::cell::Cell::new(0) } }
        let dir = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::open(dir.path(), Limits::default());
        recorder.log = None;
        recorder.settings.clock = || {
            let now = audit::ClockReading::now();
            audit::ClockReading { wall: now.wall - Duration::from_secs(SET.get()), ..now }
        };
        recorder.try_open();
        recorder.note(&[AgentStopped {}.into()]);
        let before = recorder.head().unwrap().seq;
        recorder.poll();
        assert_eq!(recorder.head().unwrap().seq, before);
        SET.set(3600);
        recorder.poll();
        assert_eq!(recorder.head().unwrap().seq, before + 2, "the step and a checkpoint");
        assert_eq!(recorder.wait(), None, "all is signed");
        recorder.poll();
        assert_eq!(recorder.head().unwrap().seq, before + 2);
    }

    #[test]
    fn what_was_found_at_the_start_is_not_forgotten_when_the_log_is_opened_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (state, elsewhere) = (dir.path().join("state"), dir.path().join("etc"));
        fs::create_dir_all(&elsewhere).unwrap();
        let open = || {
            Recorder::open_remembered(&state, Limits::default(), std::slice::from_ref(&elsewhere))
        };
        open().close();
        fs::remove_dir_all(&state).unwrap();
        let mut recorder = open();
        assert!(recorder.found().went_back.is_some());
        recorder.failed("no room".to_owned());
        recorder.retry_at = Moment::now();
        recorder.record(&[AgentStopped {}.into()]).unwrap();
        assert!(recorder.found().went_back.is_some());
    }

    // Shows: K-1.3.2, K-3.3.3.
    #[test]
    fn a_log_that_cannot_be_written_says_so_and_is_taken_up_again() {
        let dir = tempfile::tempdir().unwrap();
        // A file where the directory should be.
        fs::write(directory(dir.path()), "in the way").unwrap();
        let mut recorder = Recorder::open(dir.path(), Limits::default());
        assert!(recorder.problem().unwrap().contains("audit"));
        recorder.record(&[AgentStopped {}.into()]).unwrap_err();
        assert!(recorder.head().is_none());
        fs::remove_file(directory(dir.path())).unwrap();
        recorder.record(&[AgentStopped {}.into()]).unwrap_err();
        recorder.retry_at = Moment::now();
        recorder.record(&[AgentStopped {}.into()]).unwrap();
        assert!(recorder.problem().is_none());
        assert_eq!(recorder.head().unwrap().seq, 3, "opened, signed, tested");
        recorder.close();
        let key = fs::metadata(key_file(dir.path())).unwrap();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&key.permissions()) & 0o777, 0o600);
    }

    #[test]
    fn the_screen_says_that_the_state_directory_went_back_and_that_nothing_can_be_recorded() {
        let dir = tempfile::tempdir().unwrap();
        let (state, beside) = (dir.path().join("state"), dir.path().join("etc"));
        fs::create_dir_all(&beside).unwrap();
        let open =
            || Recorder::open_remembered(&state, Limits::default(), std::slice::from_ref(&beside));
        let recorder = open();
        assert_eq!(recorder.banner_notes().count(), 0);
        recorder.close();
        fs::remove_dir_all(&state).unwrap();
        fs::create_dir_all(&state).unwrap();
        let said: Vec<String> = open().banner_notes().collect();
        assert!(said[0].contains("put back or deleted"), "{said:?}");
        fs::remove_dir_all(&state).unwrap();
        fs::create_dir_all(&state).unwrap();
        fs::write(state.join("audit"), "in the way").unwrap();
        let said: Vec<String> = open().banner_notes().collect();
        assert!(said[0].contains("cannot be written"), "{said:?}");
    }
}
