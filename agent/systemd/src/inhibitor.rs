//! An inhibitor lock of logind's: the PC is not to sleep while domains run.
//!
//! vfio-pci does not tell a guest's drivers that the PC sleeps: a passed-through NIC is dead when it wakes. What systemd is told at the boot
//! ([`claim`](crate::claim)) is what keeps the PC awake. The agent holds an inhibitor lock of logind's besides, which works however the agent was
//! started, keeps what logind does for lids and keys from being tried at all, and is in the list of `systemd-inhibit --list`.
//!
//! The lock is held by systemd's own program, which speaks D-Bus so that the agent does not:
//!
//! ```text
//!  agent --stdin--> systemd-inhibit ... cat     the lock lasts as long as cat; cat ends when the agent's end of stdin is closed,
//!                                               by whatever ends the agent
//! ```

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clock::Moment;

/// What takes the lock (systemd-inhibit(1)).
const PROGRAM: &str = "/usr/bin/systemd-inhibit";
const ARGUMENTS: [&str; 5] = [
    "--what=sleep:idle:handle-suspend-key:handle-hibernate-key:handle-lid-switch",
    "--who=Bulkhead",
    "--why=The desktops' network cards do not survive a sleep of this PC",
    "--mode=block",
    "/bin/cat",
];
/// How soon it is tried again when it was not to be had, or was lost.
const AGAIN: Duration = Duration::from_secs(60);

/// A lock that keeps logind from having the PC sleep as long as it lives, taken anew when it is lost.
pub struct Inhibitor {
    program: PathBuf,
    held: Option<Child>,
    /// When it is tried next; `None` while it is held.
    try_at: Option<Moment>,
    /// Whether it has been said that it is not to be had.
    warned: bool,
}

impl Default for Inhibitor {
    fn default() -> Self {
        Self::new()
    }
}

impl Inhibitor {
    /// Makes an inhibitor that takes its lock in the first [`Self::poll`].
    #[must_use]
    pub fn new() -> Self {
        Self::by(Path::new(PROGRAM))
    }

    fn by(program: &Path) -> Self {
        let program = program.to_owned();
        Self {
            program,
            held: None,
            try_at: Some(Moment::since_start(Duration::ZERO)),
            warned: false,
        }
    }

    /// Takes it, and takes it again if it was lost. Does not wait for it.
    pub fn poll(&mut self, now: Moment) {
        if let Some(child) = &mut self.held {
            let ended = match child.try_wait() {
                Ok(None) => return,
                Ok(Some(status)) => status.to_string(),
                Err(error) => error.to_string(),
            };
            self.held = None;
            self.failed(now, &format!("{} ended: {ended}", self.program.display()));
        }
        if self.try_at.is_some_and(|at| now >= at) {
            match self.start() {
                Ok(child) => (self.held, self.try_at) = (Some(child), None),
                Err(error) => {
                    self.failed(
                        now,
                        &format!("{} cannot be started: {error}", self.program.display()),
                    );
                }
            }
        }
    }

    /// Returns when [`Self::poll`] is needed though nothing came. That the program ended comes as a signal.
    #[must_use]
    pub fn due(&self) -> Option<Moment> {
        self.try_at
    }

    fn start(&self) -> std::io::Result<Child> {
        // A group of its own: what a terminal signals to the agent is not for it to end by, as the agent takes its time to stop.
        Command::new(&self.program)
            .args(ARGUMENTS)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
    }

    fn failed(&mut self, now: Moment, why: &str) {
        self.try_at = Some(now + AGAIN);
        if !std::mem::replace(&mut self.warned, true) {
            tracing::warn!(
                "no inhibitor lock keeps this PC from sleeping ({why}); whether systemd's configuration does, `bulkhead doctor` says"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A stand-in for systemd-inhibit that notes what it is asked and then does this.
    fn program(dir: &Path, then: &str) -> PathBuf {
        let path = dir.join("inhibit");
        let asked = dir.join("asked");
        let text = format!("#!/bin/sh\nprintf '%s\\n' \"$@\" >> {}\n{then}\n", asked.display());
        // By another process: a thread that starts one meanwhile would have this one's file open for writing there too, and the kernel executes no such file.
        let write = ["-c", "printf %s \"$1\" > \"$0\" && chmod 755 \"$0\""];
        let mut shell = Command::new("sh");
        assert!(shell.args(write).arg(&path).arg(text).status().unwrap().success());
        path
    }

    fn asked(dir: &Path) -> String {
        fs::read_to_string(dir.join("asked")).unwrap_or_default()
    }

    fn within_ten_seconds(mut holds: impl FnMut() -> bool) -> bool {
        (0..1000).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            holds()
        })
    }

    #[test]
    fn the_lock_is_held_for_sleep_and_for_what_a_lid_or_a_key_does_until_the_agent_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let mut inhibitor = Inhibitor::by(&program(dir.path(), "shift 4; exec \"$@\""));
        inhibitor.poll(Moment::now());
        assert!(within_ten_seconds(|| asked(dir.path()).ends_with("/bin/cat\n")));
        let said = asked(dir.path());
        assert!(said.contains("--mode=block\n"), "{said}");
        for what in
            ["=sleep:", ":idle:", "handle-suspend-key", "handle-hibernate-key", "handle-lid-switch"]
        {
            assert!(said.contains(what), "{said}");
        }
        inhibitor.poll(Moment::now());
        assert_eq!(inhibitor.due(), None, "it is held, and taken once");
        assert_eq!(asked(dir.path()), said);
        // As it is when the agent is no more: its end of the pipe is closed.
        let mut child = inhibitor.held.take().unwrap();
        assert!(child.try_wait().unwrap().is_none());
        drop(child.stdin.take());
        assert!(within_ten_seconds(|| child.try_wait().unwrap().is_some()));
    }

    #[test]
    fn a_lock_that_is_not_to_be_had_or_was_lost_is_tried_again_after_a_while_and_said_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut inhibitor = Inhibitor::by(&program(dir.path(), "exit 1"));
        let start = Moment::now();
        inhibitor.poll(start);
        assert!(within_ten_seconds(|| {
            inhibitor.poll(start);
            inhibitor.held.is_none()
        }));
        assert!(inhibitor.warned);
        assert_eq!(inhibitor.due(), Some(start + AGAIN));
        let before = asked(dir.path());
        inhibitor.poll(start + AGAIN - Duration::from_secs(1));
        assert_eq!(asked(dir.path()), before, "not before its time");
        inhibitor.poll(start + AGAIN);
        assert!(within_ten_seconds(|| asked(dir.path()).len() > before.len()));
        let mut inhibitor = Inhibitor::by(&dir.path().join("missing"));
        inhibitor.poll(start);
        assert_eq!(inhibitor.due(), Some(start + AGAIN));
    }
}
