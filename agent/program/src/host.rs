//! The PC itself: dpkg, systemd and the command line of the agent, each asked as a person would.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use clock::Moment;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use policy::signature::TrustStore;

use crate::manifest::{Architecture, PACKAGE, PackageVersion};
use crate::package::last_line;
use crate::readiness::{Readiness, Sample, Verdict};
use crate::record::Has;
use crate::update::{Pc, Proof};

/// The agent's service.
const AGENT: &str = "bulkhead-agent.service";
/// The service that installs what waits.
pub const UPDATE: &str = "bulkhead-update.service";
/// There while systemd is process 1.
const SYSTEMD: &str = "/run/systemd/system";
/// The command line that the package brings.
const PROGRAM: &str = "/usr/bin/bulkhead";
/// What apt and whoever else has packages installed lock (dpkg(1), `DPKG_FRONTEND_LOCKED`), and how long that is waited for.
const FRONTEND: &str = "/var/lib/dpkg/lock-frontend";
const FRONTEND_WAIT: Duration = Duration::from_secs(10 * 60);
/// Between two looks at the agent's service; systemd starts it again after 500 ms.
const STEP: Duration = Duration::from_millis(250);
/// What `bulkhead status` ends with if no agent answers.
const NO_AGENT: i32 = 2;

/// Runs a program and returns what it says.
fn ask(program: &str, arguments: &[&str]) -> Result<Output, String> {
    command(program, arguments).output().map_err(|error| not_started(program, &error))
}

fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    command.env("LC_ALL", "C.UTF-8").env("DEBIAN_FRONTEND", "noninteractive");
    // Where it matters, this process has the lock.
    command.env("DPKG_FRONTEND_LOCKED", "1");
    command
}

fn not_started(program: &str, error: &io::Error) -> String {
    format!("`{program}` cannot be started: {error}")
}

/// Returns what a program said, on one line and cut.
fn whole(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    let words: Vec<&str> = said.split_whitespace().collect();
    images::notes::cut(printable::line(&words.join(" ")).to_string())
}

/// Runs a program, and returns the first line of what it says if it succeeds.
fn line(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = ask(program, arguments)?;
    if !output.status.success() {
        return Err(format!("`{program}`: {}", last_line(&output.stderr)));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

/// Returns the architecture of this PC's packages.
///
/// # Errors
/// dpkg does not say; in words.
pub fn architecture() -> Result<Architecture, String> {
    let said = line("dpkg", &["--print-architecture"])?;
    said.parse::<Architecture>().map_err(|mistake| mistake.message)
}

/// Returns the version of Bulkhead's package that is installed whole.
///
/// # Errors
/// None is, or dpkg does not say; in words.
pub fn version() -> Result<PackageVersion, String> {
    let format = "--showformat=${db:Status-Abbrev} ${Version}\\n";
    let said = line("dpkg-query", &["--show", format, PACKAGE]).map_err(|_| {
        format!("the package `{PACKAGE}` is not installed on this system: only one that was installed is updated")
    })?;
    let mut words = said.split_whitespace();
    match (words.next(), words.next()) {
        (Some("ii"), Some(version)) => {
            version.parse::<PackageVersion>().map_err(|mistake| mistake.message)
        }
        _ => Err(format!(
            "the package `{PACKAGE}` is not installed whole (dpkg says \"{}\"): `dpkg --configure -a` finishes what was interrupted",
            printable::line(&said)
        )),
    }
}

/// Returns what this PC has, beside what is offered.
///
/// # Errors
/// dpkg does not say, or the offered package cannot be read; in words.
pub fn has(offered: &PackageVersion, package: &File) -> Result<Has, String> {
    let version = version()?;
    let older = ask("dpkg", &["--compare-versions", offered.as_str(), "lt", version.as_str()])?;
    let own = ask("dpkg-query", &["--control-show", PACKAGE, "md5sums"])?;
    let theirs = crate::package::digests(package).map_err(|error| printable::explain(&error))?;
    let offered_is_this = version == *offered && own.status.success() && own.stdout == theirs;
    Ok(Has { version, offered_is_older: older.status.success(), offered_is_this })
}

/// Returns whether systemd is there to be asked.
#[must_use]
pub fn has_systemd() -> bool {
    Path::new(SYSTEMD).is_dir()
}

/// Has what waits installed at once and after a power cut.
///
/// # Errors
/// systemd does not; in words.
pub fn start_update() -> Result<(), String> {
    line("systemctl", &["--quiet", "enable", UPDATE])?;
    line("systemctl", &["start", "--no-block", UPDATE]).map(drop)
}

/// Has what waits installed with the next boot.
///
/// # Errors
/// systemd does not; in words.
pub fn enable_update() -> Result<(), String> {
    line("systemctl", &["--quiet", "enable", UPDATE]).map(drop)
}

/// Returns whether the service is at work.
#[must_use]
pub fn is_at_work() -> bool {
    let said = line("systemctl", &["show", "--property=ActiveState", "--value", UPDATE]);
    said.is_ok_and(|state| matches!(state.as_str(), "activating" | "reloading"))
}

/// This PC.
pub struct Host<T, S> {
    trust: T,
    say: S,
    /// Locked.
    frontend: Option<File>,
}

impl<T: FnMut() -> Result<TrustStore, String>, S: FnMut(&str)> Host<T, S> {
    /// Returns this PC, whose trust store is read by `trust`, and which says by `say` what it does.
    pub const fn new(trust: T, say: S) -> Self {
        Self { trust, say, frontend: None }
    }
}

impl<T: FnMut() -> Result<TrustStore, String>, S: FnMut(&str)> Pc for Host<T, S> {
    fn trust(&mut self) -> Result<TrustStore, String> {
        (self.trust)()
    }

    fn take_dpkg(&mut self) -> Result<(), String> {
        if self.frontend.is_some() {
            return Ok(());
        }
        let cannot = |error: io::Error| format!("{FRONTEND} cannot be locked: {error}");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o640);
        let file = fileopen::regular_with(Path::new(FRONTEND), &mut options).map_err(cannot)?;
        let began = Moment::now();
        let mut said = false;
        while !lock(&file).map_err(cannot)? {
            if !said {
                self.say("waits until somebody else's work with packages is done");
                said = true;
            }
            if began.elapsed() > FRONTEND_WAIT {
                return Err(format!(
                    "somebody else has packages installed or removed ({FRONTEND} is locked)"
                ));
            }
            thread::sleep(STEP);
        }
        self.frontend = Some(file);
        Ok(())
    }

    fn settle(&mut self) {
        // Of this package alone: what others left half done is not for this service's sandbox.
        if version().is_ok() {
            return;
        }
        match ask("dpkg", &["--force-confold", "--configure", PACKAGE]) {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                self.say(&format!("`dpkg --configure {PACKAGE}`: {}", last_line(&output.stderr)));
            }
            Err(why) => self.say(&why),
        }
    }

    fn install(&mut self, package: &File) -> Result<(), String> {
        // dpkg and its helpers open it by this name; what is behind it, nobody can change.
        let path = format!("/proc/{}/fd/{}", std::process::id(), package.as_raw_fd());
        let output = ask("dpkg", &["--force-confold", "--install", &path])?;
        if output.status.success() {
            return Ok(());
        }
        for said in String::from_utf8_lossy(&output.stderr).lines() {
            self.say(&printable::line(said).to_string());
        }
        Err(format!("dpkg does not install it: {}", whole(&output.stderr)))
    }

    fn version(&mut self) -> Result<PackageVersion, String> {
        version()
    }

    fn prove(&mut self) -> Proof {
        if !has_systemd() {
            return Proof::NoAgent;
        }
        let before = match sample() {
            Ok(sample) if sample.state == "inactive" => return Proof::NoAgent,
            Ok(sample) => sample,
            Err(why) => return Proof::Fails(why),
        };
        while let Err(why) = line("systemctl", &["restart", "--no-block", AGENT]) {
            // A PC that shuts down starts nothing, which says nothing of the agent: it is looked at again after the next boot.
            if !is_shutting_down() {
                return Proof::Fails(why);
            }
            thread::sleep(STEP);
        }
        let (began, mut readiness) = (Moment::now(), Readiness::new(before.pid));
        loop {
            thread::sleep(STEP);
            // systemd may be reading its files anew.
            let unknown = |_| Sample { state: "unknown".to_owned(), pid: 0 };
            let sample = sample().unwrap_or_else(unknown);
            match readiness.see(began.elapsed(), &sample) {
                Verdict::Wait => {}
                Verdict::Ask if answers() => return Proof::Works,
                Verdict::Ask => {}
                Verdict::Fails(why) => return Proof::Fails(why),
            }
        }
    }

    fn say(&mut self, words: &str) {
        (self.say)(words);
    }
}

/// Locks a file as dpkg does, by a record lock over all of it; `false`: somebody else has it.
fn lock(file: &File) -> io::Result<bool> {
    let whole = nix::libc::flock {
        l_type: i16::try_from(nix::libc::F_WRLCK).unwrap_or_default(),
        l_whence: 0, // SEEK_SET
        l_start: 0,
        l_len: 0, // to the end, wherever that will be
        l_pid: 0,
    };
    match fcntl(file, FcntlArg::F_SETLK(&whole)) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Returns whether the PC is about to be off.
fn is_shutting_down() -> bool {
    let said = ask("systemctl", &["is-system-running"]);
    said.is_ok_and(|output| output.stdout.trim_ascii() == b"stopping")
}

/// Returns what systemd says of the agent's service.
fn sample() -> Result<Sample, String> {
    let output =
        ask("systemctl", &["show", "--property=ActiveState", "--property=ExecMainPID", AGENT])?;
    let text = String::from_utf8_lossy(&output.stdout);
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
    let state = value("ActiveState=").ok_or("systemd does not say how the agent is")?;
    let pid = value("ExecMainPID=").and_then(|pid| pid.parse().ok()).unwrap_or(0);
    Ok(Sample { state: state.to_owned(), pid })
}

/// Returns whether the agent answers the command line that came with it.
fn answers() -> bool {
    let status = command(PROGRAM, &["status"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.code().is_some_and(|code| code < NO_AGENT))
}
