//! The PC itself: dpkg, systemd and the command line of the agent, each asked as a person would.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

use base::programs::{Program, ProgramOutcome};
use clock::Moment;
use form::document::Mistake;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use policy::signature::TrustStore;
use printable::explain;

use crate::manifest::{Architecture, PACKAGE, PackageVersion};
use crate::package::{self, PackageError};
use crate::passing::{self, NotInstalled};
use crate::readiness::{Readiness, Sample, Verdict};
use crate::record::InstalledPackage;
use crate::update::{Pc, Proof};
use crate::worked::{AgentStatus, WorkingState};

/// The unit of the agent.
const AGENT: &str = "bulkhead-agent.service";
/// The service that installs what waits.
pub const UPDATE: &str = "bulkhead-update.service";
/// There while systemd is process 1.
const SYSTEMD: &str = "/run/systemd/system";
/// The command line that the package brings, and the VMM.
const PROGRAM: &str = "/usr/bin/bulkhead";
const VMM: &str = "/usr/bin/bulkhead-vmm";
/// Where the kernel says of each plug of a screen whether one is there.
const PLUGS: &str = "/sys/class/drm";
/// Bytes of what it says, which is a word.
const STATUS_MAX: u64 = 64;
/// What apt and whoever else has packages installed lock (dpkg(1), `DPKG_FRONTEND_LOCKED`), and how long that is waited for.
const FRONTEND: &str = "/var/lib/dpkg/lock-frontend";
const FRONTEND_WAIT: Duration = Duration::from_secs(10 * 60);
/// What each program gets besides: nobody answers questions, where it matters this process has the lock, and the package need not refuse to be older: what is
/// installed was signed, and is proved afterwards.
const VARIABLES: [(&str, &str); 3] =
    [("DEBIAN_FRONTEND", "noninteractive"), ("DPKG_FRONTEND_LOCKED", "1"), ("BULKHEAD_OLDER", "1")];
/// How long a question may take, and how long dpkg on a slow disk: both together leave time in the unit's `TimeoutStartSec=`.
const QUESTION: Duration = Duration::from_secs(60);
const DPKG: Duration = Duration::from_secs(20 * 60);
/// Between two looks at the agent's service; systemd starts it again after 500 ms.
const STEP: Duration = Duration::from_millis(250);
/// How long domains that are on their way are waited for before an update, as after a boot.
const SETTLES: Duration = Duration::from_secs(60);
/// So many other packages may be unfinished before an update: more is a PC whose own installation was interrupted.
const UNFINISHED_MAX: usize = 64;
/// What `bulkhead status` ends with if no agent answers.
const NO_AGENT: i32 = 2;

/// What dpkg or systemd does not say or do, or what it says cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The program cannot be run, or does not end.
    #[error(transparent)]
    NotRun(#[from] io::Error),
    /// The program ended with an error, and said this.
    #[error("`{program}`: {said}")]
    Failed {
        /// The name of the program.
        program: &'static str,
        /// The last line of what it said.
        said: String,
    },
    /// The package is not there.
    #[error(
        "the package `{PACKAGE}` is not installed on this system: only one that was installed is updated"
    )]
    NotInstalled,
    /// What dpkg says of it.
    #[error(
        "the package `{PACKAGE}` is not installed whole (dpkg says \"{0}\"): `dpkg --configure -a` finishes what was interrupted"
    )]
    NotWhole(String),
    /// It is neither a version nor an architecture.
    #[error("{0}")]
    Unknown(String),
    /// The package that is offered.
    #[error(transparent)]
    Package(#[from] PackageError),
}

/// Runs a program and returns what it says.
fn ask(program: &str, arguments: &[&str]) -> io::Result<ProgramOutcome> {
    Program::new(program, arguments).with(&VARIABLES).within(QUESTION).run()
}

/// Returns what a program said, on one line and cut.
fn whole(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    let words: Vec<&str> = said.split_whitespace().collect();
    images::notes::cut(printable::line(&words.join(" ")).to_string())
}

/// Runs a program, and returns the first line of what it says if it succeeds.
fn line(program: &'static str, arguments: &[&str]) -> Result<String, HostError> {
    let ended = ask(program, arguments)?;
    if !ended.status.success() {
        return Err(HostError::Failed { program, said: ended.last_line() });
    }
    let text = String::from_utf8_lossy(&ended.output);
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

/// Returns the packages other than Bulkhead's that dpkg began to configure and has not, or whose triggers wait, of lines with state and name.
fn unfinished(said: &str) -> Vec<String> {
    let lines = said.lines().filter_map(|line| line.trim_end().split_once(' '));
    let lines = lines.map(|(state, name)| (state, name.trim_start()));
    // The second letter is the state: half-Configured (F), unpacked (U), triggers awaited (W), triggers pending (t); dpkg-query(1).
    let unfinished = lines.filter(|(state, name)| {
        let is_ours = name.split(':').next() == Some(PACKAGE);
        !is_ours && state.chars().nth(1).is_some_and(|letter| "FUWt".contains(letter))
    });
    unfinished.map(|(_, name)| name.to_owned()).collect()
}

/// Returns the architecture of this PC's packages.
///
/// # Errors
/// dpkg does not say.
pub fn architecture() -> Result<Architecture, HostError> {
    let said = line("dpkg", &["--print-architecture"])?;
    said.parse::<Architecture>().map_err(|mistake| HostError::Unknown(mistake.message))
}

/// Returns the version of Bulkhead's package that is installed whole.
///
/// # Errors
/// None is, or dpkg does not say.
pub fn version() -> Result<PackageVersion, HostError> {
    let format = "--showformat=${db:Status-Abbrev} ${Version}\\n";
    let said =
        line("dpkg-query", &["--show", format, PACKAGE]).map_err(|_| HostError::NotInstalled)?;
    let mut words = said.split_whitespace();
    match (words.next(), words.next()) {
        (Some("ii"), Some(version)) => {
            version.parse().map_err(|mistake: Mistake| HostError::Unknown(mistake.message))
        }
        _ => Err(HostError::NotWhole(printable::line(&said).to_string())),
    }
}

/// Returns what this PC has, beside what is offered.
///
/// # Errors
/// dpkg does not say, or the offered package cannot be read.
pub fn has(offered: &PackageVersion, package: &File) -> Result<InstalledPackage, HostError> {
    let version = version()?;
    let older = ["--compare-versions", offered.as_str(), "lt", version.as_str()];
    let older = ask("dpkg", &older)?;
    let own = ask("dpkg-query", &["--control-show", PACKAGE, "md5sums"])?;
    let theirs = package::digests(package)?;
    let offered_is_this = version == *offered && own.status.success() && own.output == theirs;
    Ok(InstalledPackage { version, offered_is_older: older.status.success(), offered_is_this })
}

/// Returns whether systemd is there to be asked.
#[must_use]
pub fn has_systemd() -> bool {
    Path::new(SYSTEMD).is_dir()
}

/// Starts the update that waits, and enables its service, so that it goes on after a power cut.
///
/// # Errors
/// systemd does not.
pub fn start_update() -> Result<(), HostError> {
    line("systemctl", &["--quiet", "enable", UPDATE])?;
    // An agent that ended again and again has it started each time, until systemd starts it no more for a while.
    let _ = line("systemctl", &["reset-failed", UPDATE]);
    line("systemctl", &["start", "--no-block", UPDATE]).map(drop)
}

/// Enables the service of the update that waits, which the next boot starts.
///
/// # Errors
/// systemd does not.
pub fn enable_update() -> Result<(), HostError> {
    line("systemctl", &["--quiet", "enable", UPDATE]).map(drop)
}

/// Returns whether the service is at work.
#[must_use]
pub fn is_at_work() -> bool {
    let said = line("systemctl", &["show", "--property=ActiveState", "--value", UPDATE]);
    said.is_ok_and(|state| matches!(state.as_str(), "activating" | "reloading"))
}

/// The PC that this runs on, by dpkg and systemd.
pub struct Host<T, S> {
    trust: T,
    say: S,
    /// dpkg's frontend lock, while it is held.
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

    fn unfinished(&mut self) -> Result<Vec<String>, String> {
        let format = "--showformat=${db:Status-Abbrev} ${Package}:${Architecture}\\n";
        let said = ask("dpkg-query", &["--show", format]).map_err(|error| error.to_string())?;
        if !said.status.success() {
            return Err(format!("`dpkg-query`: {}", said.last_line()));
        }
        let found = unfinished(&String::from_utf8_lossy(&said.output));
        if found.len() > UNFINISHED_MAX {
            return Err(format!(
                "{} packages of this PC are not configured whole: `dpkg --configure -a` finishes them",
                found.len()
            ));
        }
        Ok(found)
    }

    fn settle(&mut self, before: &[String]) {
        let others = match self.unfinished() {
            Ok(found) => found,
            Err(why) => {
                self.say(&why);
                Vec::new()
            }
        };
        // What somebody else left half done is not for this service's sandbox.
        let others = others.iter().filter(|package| !before.contains(package));
        let own = version().is_err().then_some(PACKAGE);
        let packages: Vec<&str> = own.into_iter().chain(others.map(String::as_str)).collect();
        if packages.is_empty() {
            return;
        }
        // All by one dpkg, within its time.
        match dpkg(&[&["--force-confold", "--configure"], &packages[..]].concat()) {
            Ok(ended) if ended.status.success() => {}
            Ok(ended) => self.say(&format!(
                "`dpkg --configure {}`: {}",
                packages.join(" "),
                ended.last_line()
            )),
            Err(error) => self.say(&error.to_string()),
        }
    }

    fn install(&mut self, package: &File) -> Result<(), NotInstalled> {
        // dpkg and its helpers open it by this name; what is behind it, nobody can change.
        let path = format!("/proc/{}/fd/{}", std::process::id(), package.as_raw_fd());
        let ended = match dpkg(&["--force-confold", "--install", &path]) {
            Ok(ended) => ended,
            Err(error) => return Err(passing::of(&error)),
        };
        if ended.status.success() {
            return Ok(());
        }
        for said in String::from_utf8_lossy(&ended.error).lines() {
            self.say(&printable::line(said).to_string());
        }
        let said = whole(&ended.error);
        if let Some(signal) = ended.status.signal() {
            let why = format!("dpkg was killed by signal {signal} while it installed it: {said}");
            return Err(NotInstalled::Passing(why));
        }
        let why = format!("dpkg does not install it: {said}");
        Err(match passing::is_said(&ended.error) {
            true => NotInstalled::Passing(why),
            false => NotInstalled::Lasting(why),
        })
    }

    fn version(&mut self) -> Result<PackageVersion, String> {
        version().map_err(|error| explain(&error))
    }

    fn works(&mut self) -> Option<WorkingState> {
        let began = Moment::now();
        loop {
            let said = agent_status().and_then(|json| AgentStatus::read(&json))?;
            if !said.is_on_its_way() || began.elapsed() >= SETTLES {
                return Some(said.works());
            }
            thread::sleep(STEP);
        }
    }

    fn prove(&mut self, worked: Option<&WorkingState>) -> Proof {
        if let Err(why) = vmm_starts() {
            return Proof::Fails(why);
        }
        if !has_systemd() {
            return Proof::Waits(format!(
                "nothing is proved where no systemd runs: `systemctl start {UPDATE}` once it does"
            ));
        }
        let before = match sample() {
            Ok(sample) if sample.state == "inactive" => {
                return Proof::Waits(format!(
                    "no agent runs that could show that it works: `systemctl start {AGENT}` has it proved"
                ));
            }
            Ok(sample) => sample,
            Err(why) => return Proof::Fails(why),
        };
        if let Err(why) = read_units() {
            self.say(&explain(&why));
        }
        while let Err(why) = line("systemctl", &["restart", "--no-block", AGENT]) {
            // A PC that shuts down starts nothing, which says nothing of the agent: it is looked at again after the next boot.
            if !is_shutting_down() {
                return Proof::Fails(explain(&why));
            }
            thread::sleep(STEP);
        }
        let (began, mut readiness) = (Moment::now(), Readiness::new(before.pid));
        loop {
            thread::sleep(STEP);
            // systemd may be reading its files anew.
            let unknown = |_| Sample { state: "unknown".to_owned(), pid: 0 };
            let sample = sample().unwrap_or_else(unknown);
            let verdict = match readiness.see(began.elapsed(), &sample) {
                Verdict::Ask => agent_status().map_or(Verdict::Wait, |json| {
                    readiness.answered(began.elapsed(), &lost(worked, &json))
                }),
                verdict => verdict,
            };
            match verdict {
                Verdict::Wait | Verdict::Ask => {}
                Verdict::Works => return Proof::Works,
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

/// Runs dpkg, for [`DPKG`] at most.
fn dpkg(arguments: &[&str]) -> io::Result<ProgramOutcome> {
    Program::new("dpkg", arguments).with(&VARIABLES).within(DPKG).run()
}

/// Looks whether the VMM runs on this PC at all. Guests that run have the one that they were started with.
fn vmm_starts() -> Result<(), String> {
    line(VMM, &["--version"])
        .map(drop)
        .map_err(|why| format!("its VMM does not start: {}", explain(&why)))
}

/// Reloads systemd's units if the agent's is another on the disk: what dpkg's script says of that is not waited for.
fn read_units() -> Result<(), HostError> {
    let needed = line("systemctl", &["show", "--property=NeedDaemonReload", "--value", AGENT])?;
    if needed == "yes" {
        line("systemctl", &["daemon-reload"])?;
    }
    Ok(())
}

/// Returns whether the PC is about to be off.
fn is_shutting_down() -> bool {
    let said = ask("systemctl", &["is-system-running"]);
    said.is_ok_and(|ended| ended.output.trim_ascii() == b"stopping")
}

/// Returns what systemd says of the agent's service.
fn sample() -> Result<Sample, String> {
    let show = ["show", "--property=ActiveState", "--property=ExecMainPID", AGENT];
    let ended = ask("systemctl", &show).map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&ended.output);
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
    let state = value("ActiveState=").ok_or("systemd does not say how the agent is")?;
    let pid = value("ExecMainPID=").and_then(|pid| pid.parse().ok()).unwrap_or(0);
    Ok(Sample { state: state.to_owned(), pid })
}

/// Returns what the agent answers the command line that is there; `None` if it does not.
fn agent_status() -> Option<Vec<u8>> {
    let ended = ask(PROGRAM, &["status", "--json"]).ok()?;
    ended.status.code().is_some_and(|code| code < NO_AGENT).then_some(ended.output)
}

/// Returns what worked and does not any more, by an agent's answer: one of which nothing can be read says of nothing that it works.
fn lost(worked: Option<&WorkingState>, json: &[u8]) -> Vec<String> {
    let now = AgentStatus::read(json).unwrap_or_default();
    worked.map(|worked| worked.lost(&now, is_pulled)).unwrap_or_default()
}

/// Returns whether the kernel says that there is no screen at a plug.
fn is_pulled(plug: &str) -> bool {
    let plugs = fs::read_dir(PLUGS).into_iter().flatten().flatten();
    let mut said = plugs.filter_map(|entry| {
        let name = entry.file_name();
        // card0-HDMI-A-1
        let (_, own) = name.to_str()?.split_once('-')?;
        (own == plug).then(|| fileopen::read(&entry.path().join("status"), STATUS_MAX).ok())?
    });
    said.any(|status| status.trim_ascii() == b"disconnected")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dpkg_has_not_configured_whole_is_found_and_our_package_is_not_among_it() {
        let said = "ii  adduser:all\niF  man-db:amd64\nit  libc-bin:amd64\niW  mailcap:all\niU  vim:amd64\nrc  old:amd64\niFR broken:all\niF  bulkhead:amd64\n\nnonsense\n";
        let found = ["man-db:amd64", "libc-bin:amd64", "mailcap:all", "vim:amd64", "broken:all"];
        assert_eq!(unfinished(said), found);
    }
}
