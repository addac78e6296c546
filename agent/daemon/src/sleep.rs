//! The PC is not to sleep while domains run, and what is done if it slept all the same.
//!
//! vfio-pci does not tell a guest's drivers that the PC sleeps: a passed-through NIC is dead when it wakes. What systemd is told at the boot
//! ([`super::claim`]) is what keeps the PC awake. The agent holds an inhibitor lock of logind's besides, which works however the agent was
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

use audit::events::PcSlept;
use base::durable;
use clock::{Moment, SleepWatch};

use super::Running;

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

/// Keeps logind from having the PC sleep as long as it lives.
pub(super) struct Inhibitor {
    program: PathBuf,
    held: Option<Child>,
    /// When it is tried next; `None` while it is held.
    try_at: Option<Moment>,
    /// Whether it has been said that it is not to be had.
    warned: bool,
}

impl Inhibitor {
    /// Makes an inhibitor that takes its lock in the first [`Self::poll`].
    pub(super) fn new() -> Self {
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
    pub(super) fn poll(&mut self, now: Moment) {
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
    pub(super) fn due(&self) -> Option<Moment> {
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

/// Tells of each sleep of the PC until it was seen to, also of one while no agent ran, whose guests run on with dead devices.
///
/// How long the PC slept in all is left in a file of the runtime directory once a sleep was seen to: an agent that dies in the midst of that
/// leaves it to the next one. The file is as old as the boot.
pub(super) struct Sleeps {
    watch: SleepWatch,
    path: PathBuf,
    /// While no agent ran.
    meanwhile: Option<Duration>,
}

impl Sleeps {
    /// Goes on where the agent before this one ended, and watches from now on if none did.
    pub(super) fn resume(path: &Path) -> Self {
        let known = durable::read(path).unwrap_or_else(|error| {
            tracing::warn!(
                "whether the PC slept while no agent ran is not known, as {} cannot be read: {error}",
                path.display()
            );
            None
        });
        let mut watch = known.map_or_else(SleepWatch::start, SleepWatch::resume);
        let meanwhile = watch.look();
        let this = Self { watch, path: path.to_owned(), meanwhile };
        if meanwhile.is_none() {
            this.remember();
        }
        this
    }

    /// Returns whether it slept while no agent ran.
    pub(super) fn slept_meanwhile(&self) -> bool {
        self.meanwhile.is_some()
    }

    /// Forgets a sleep while no agent ran, as no guest ran either: nothing is dead by it.
    pub(super) fn forget_sleep_meanwhile(&mut self) {
        if self.meanwhile.take().is_some() {
            self.remember();
        }
    }

    /// Returns how long the PC slept since the last look, if it did. Does not wait.
    pub(super) fn look(&mut self) -> Option<Duration> {
        let meanwhile = self.meanwhile.take();
        match (meanwhile, self.watch.look()) {
            (Some(one), Some(other)) => Some(one + other),
            (one, other) => one.or(other),
        }
    }

    /// Notes that what the last look found was seen to.
    pub(super) fn remember(&self) {
        if let Err(error) = durable::write(&self.path, &self.watch.lead()) {
            tracing::warn!(
                "a sleep of the PC while no agent runs will not be noticed, as {} cannot be written: {error}",
                self.path.display()
            );
        }
    }
}

impl Running {
    /// Handles that the PC slept for so long. Nobody knows who is in front of it now, and the guests' devices are dead: the screen is
    /// locked (the seat's own thread sees the sleep too, before it heeds a key), break-glass is closed, and the domains with devices of
    /// their own are restarted, which resets them.
    pub(super) fn slept(&mut self, time: Duration) {
        let seconds = time.as_secs().max(1);
        tracing::error!(
            seconds,
            "THIS PC SLEPT: the screen is locked, and domains with devices of their own are restarted; `bulkhead doctor` says what lets it sleep"
        );
        self.seat.lock_now();
        if self.break_glass.close(&mut self.monitor, "the PC slept") {
            self.rules_changed();
        }
        self.renewals.slept(self.supervisor.now());
        let domains = self.supervisor.slept();
        if !domains.is_empty() {
            let text = format!(
                "This PC slept, which its network cards do not survive: {} restarted. Call IT",
                restarted(&domains, |name| self.label(name))
            );
            self.seat.notice_of("sleep", text);
        }
        self.monitor.note(&[PcSlept { domains, seconds }.into()]);
    }

    fn label(&self, name: &str) -> String {
        let mut policies = self.supervisor.domains().iter().map(|runtime| runtime.policy());
        let policy = policies.find(|policy| policy.name == name);
        policy.map_or_else(|| name.to_owned(), |policy| policy.label.clone())
    }
}

/// Returns `A is`, `A and B are` or `A, B and C are`.
fn restarted(domains: &[String], label: impl Fn(&str) -> String) -> String {
    let labels: Vec<String> = domains.iter().map(|name| label(name)).collect();
    match labels.split_last() {
        Some((last, [])) => format!("{last} is"),
        Some((last, others)) => format!("{} and {last} are", others.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A stand-in for systemd-inhibit that notes what it is asked and then does this.
    fn program(dir: &Path, then: &str) -> PathBuf {
        let path = dir.join("inhibit");
        let asked = dir.join("asked");
        let text = format!("#!/bin/sh\nprintf '%s\\n' \"$@\" >> {}\n{then}\n", asked.display());
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
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

    #[test]
    fn a_sleep_while_no_agent_ran_is_told_until_it_was_seen_to_and_what_cannot_be_read_tells_of_none()
     {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("slept.json");
        let mut first = Sleeps::resume(&path);
        assert!(!first.slept_meanwhile());
        assert_eq!(first.look(), None);
        let lead: Duration = durable::read(&path).unwrap().unwrap();
        // What an agent leaves that ended before a sleep of a minute. Where this machine never slept there is nothing that it can have slept less.
        let earlier = Sleeps {
            watch: SleepWatch::go_on_of(clock::KernelClocks, Duration::ZERO),
            path: path.clone(),
            meanwhile: None,
        };
        earlier.remember();
        assert_eq!(durable::read::<Duration>(&path).unwrap(), Some(Duration::ZERO));
        let mut next = Sleeps { meanwhile: Some(Duration::from_secs(60)), ..Sleeps::resume(&path) };
        assert!(next.slept_meanwhile());
        assert!(next.look().is_some_and(|slept| slept >= Duration::from_secs(60)));
        assert_eq!(next.look(), None, "it is told once");
        next.remember();
        let mut alone =
            Sleeps { meanwhile: Some(Duration::from_secs(60)), ..Sleeps::resume(&path) };
        alone.forget_sleep_meanwhile();
        assert_eq!(alone.look(), None, "no guest ran meanwhile");
        assert!(
            durable::read::<Duration>(&path).unwrap().unwrap()
                >= lead.saturating_sub(Duration::from_millis(1))
        );
        for garbled in ["", "-1", "{\"secs\":\"long\"}"] {
            fs::write(&path, garbled).unwrap();
            assert!(!Sleeps::resume(&path).slept_meanwhile(), "{garbled}");
            assert!(durable::read::<Duration>(&path).unwrap().is_some(), "it is written anew");
        }
    }

    #[test]
    fn a_notice_names_the_desktops_that_are_restarted() {
        let words = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            restarted(&names, str::to_uppercase)
        };
        assert_eq!(words(&["clinical"]), "CLINICAL is");
        assert_eq!(words(&["clinical", "lab", "internet"]), "CLINICAL, LAB and INTERNET are");
    }
}
