//! Two desktops of nothing but an X server and the SPICE agent, and `bulkhead-agent` between them.

use std::fs;
use std::io::{BufRead, BufReader, Cursor, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

pub(crate) const TEXT: &str = "UTF8_STRING";
pub(crate) const PNG: &str = "image/png";

/// Longest any part waits for anything.
const PATIENCE: Duration = Duration::from_secs(30);
/// What the mediator lets one desktop do at once is used up by then; see `limits::HOTKEYS`.
const REST: Duration = Duration::from_secs(10);

const DOMAINS: [&str; 2] = ["clinical", "internet"];

const TWO_DOMAINS: &str = include_str!("../../../policy/tests/fixtures/two-domains.toml");
const RULES: &str = r#"
[[clipboard]]
id = "text-in"
from = "internet"
to = "clinical"
types = ["text/plain"]
max_bytes = 4096
action = "allow"
inspect = ["korean-rrn"]
[[clipboard]]
id = "pictures-in"
from = "internet"
to = "clinical"
types = ["image/png"]
action = "allow"
[[clipboard]]
id = "out"
from = "clinical"
to = "internet"
types = ["text/plain", "image/png"]
action = "allow"
"#;

const MACHINE: &str = r#"
format = 1
[seat]
backend = "none"
[domain.clinical]
vmm = "external"
[domain.internet]
vmm = "external"
"#;

/// Makes a policy of two domains without networks, with these rules.
fn policy(rules: &str) -> String {
    TWO_DOMAINS.replace("\"passthrough\"", "\"none\"") + rules
}

/// How long a grab of a guest's agent may take to be heard.
const HEARD_WITHIN: Duration = Duration::from_secs(5);

/// A process that is killed when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
}

/// A program that has something in its clipboard.
pub(crate) struct Owner(Running);

impl Owner {
    /// Has the VMM answer no more.
    pub(crate) fn freeze(&self) {
        signal(&self.0.0, Signal::SIGSTOP);
    }
}

struct Desktop {
    display: String,
    agents: Option<(Running, Running)>,
    _server: Running,
}

pub(crate) struct Desktops {
    dir: tempfile::TempDir,
    desktops: Vec<Desktop>,
    agent: Option<Running>,
}

fn program(name: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(name);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn spawn(command: &mut Command) -> Child {
    let name = command.get_program().to_string_lossy().into_owned();
    command.spawn().unwrap_or_else(|error| {
        panic!("cannot run {name}: {error}; scripts/setup installs what the tests need")
    })
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < until, "waited {PATIENCE:?} for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

impl Desktops {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("policy.toml"), policy(RULES)).unwrap();
        fs::write(dir.path().join("machine.toml"), MACHINE).unwrap();
        let at = |name: &str| dir.path().join(name);
        let log = fs::File::create(at("agent.log")).unwrap();
        let mut agent = program(crate::artefacts::program("bulkhead-agent"));
        for (option, name) in [
            ("--machine", "machine.toml"),
            ("--policy", "policy.toml"),
            ("--state", "state"),
            ("--runtime", "run"),
        ] {
            agent.arg(option).arg(at(name));
        }
        let agent = Running(spawn(agent.stderr(log)));
        let desktops = DOMAINS.iter().map(|_| Desktop::start()).collect();
        let mut this = Self { dir, desktops, agent: Some(agent) };
        wait_for("bulkhead-agent", || this.bulkhead(&["status"]).status.success());
        for desktop in [0, 1] {
            this.start_agents(desktop);
        }
        this
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = program(crate::artefacts::program("bulkhead"));
        command.env("BULKHEAD_RUNTIME", self.at("run")).args(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn bulkhead(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    pub(crate) fn status(&self) -> Value {
        serde_json::from_slice(&self.bulkhead(&["status", "--json"]).stdout).unwrap()
    }

    /// Returns where a domain's agent connects.
    pub(crate) fn socket(&self, desktop: usize) -> PathBuf {
        self.at("run").join(DOMAINS[desktop]).join("vdagent.sock")
    }

    fn daemon_log(&self, desktop: usize) -> PathBuf {
        self.at(&format!("vdagentd-{}.log", DOMAINS[desktop]))
    }

    pub(crate) fn start_agents(&mut self, desktop: usize) {
        let (socket, session) = (self.socket(desktop), self.at(&format!("session-{desktop}")));
        let log = fs::File::create(self.daemon_log(desktop)).unwrap();
        let _ = fs::remove_file(&session);
        let mut daemon = program("spice-vdagentd");
        daemon.args(["-x", "-X", "-f", "-d", "-d", "-u", "/dev/null", "-s"]).arg(socket);
        let daemon = Running(spawn(
            daemon.arg("-S").arg(&session).stdout(log.try_clone().unwrap()).stderr(log),
        ));
        wait_for("spice-vdagentd", || session.exists());
        let mut agent = program("spice-vdagent");
        agent.args(["-x", "-s", "/dev/null", "-S"]).arg(&session);
        let agent = Running(spawn(agent.env("DISPLAY", &self.desktops[desktop].display)));
        self.desktops[desktop].agents = Some((daemon, agent));
        self.wait_for_agent(desktop, true);
        let log = self.daemon_log(desktop);
        wait_for("spice-vdagent", || count(&log, "is now the active session") > 0);
    }

    pub(crate) fn stop_agents(&mut self, desktop: usize) {
        self.desktops[desktop].agents = None;
        self.wait_for_agent(desktop, false);
    }

    fn wait_for_agent(&self, desktop: usize, there: bool) {
        wait_for("the agent to come or go", || {
            self.status()["domains"][desktop]["clipboard_agent"] == there
        });
    }

    /// Has the daemon in the guest stop reading and writing.
    pub(crate) fn freeze_agent(&self, desktop: usize) {
        signal(&self.desktops[desktop].agents.as_ref().unwrap().0.0, Signal::SIGSTOP);
    }

    pub(crate) fn thaw_agent(&self, desktop: usize) {
        signal(&self.desktops[desktop].agents.as_ref().unwrap().0.0, Signal::SIGCONT);
    }

    pub(crate) fn own_without_waiting(&self, desktop: usize, target: &str, what: &[u8]) -> Owner {
        let mut xclip = program("xclip");
        xclip.args(["-quiet", "-selection", "clipboard", "-t", target, "-i"]);
        xclip.env("DISPLAY", &self.desktops[desktop].display).stdin(Stdio::piped());
        let mut xclip = Running(spawn(&mut xclip));
        xclip.0.stdin.take().unwrap().write_all(what).unwrap();
        Owner(xclip)
    }

    /// Has a program copy, and waits until the guest's agent has said so.
    pub(crate) fn own(&self, desktop: usize, target: &str, what: &[u8]) -> Owner {
        let log = self.daemon_log(desktop);
        let before = count(&log, "received clipboard grab");
        let owner = self.own_without_waiting(desktop, target, what);
        wait_for("the guest's agent to see the copy", || {
            count(&log, "received clipboard grab") > before
        });
        owner
    }

    /// Returns what a program that pastes finds.
    pub(crate) fn find(&self, desktop: usize, target: &'static str) -> Vec<u8> {
        self.find_in_background(desktop, target).join().unwrap()
    }

    pub(crate) fn find_in_background(
        &self,
        desktop: usize,
        target: &'static str,
    ) -> JoinHandle<Vec<u8>> {
        let display = self.desktops[desktop].display.clone();
        thread::spawn(move || {
            let until = Instant::now() + PATIENCE;
            // The guest's agent makes the offer known a moment after the mediator has made it.
            loop {
                let out = program("xclip")
                    .args(["-selection", "clipboard", "-t", target, "-o"])
                    .env("DISPLAY", &display)
                    .stdout(Stdio::piped())
                    .output()
                    .unwrap();
                if out.status.success() {
                    return out.stdout;
                }
                assert!(Instant::now() < until, "nothing to paste as {target}");
                thread::sleep(Duration::from_millis(20));
            }
        })
    }

    /// Presses the copy hotkey; returns what it says, as an error if it failed. What the guest's agent has said goes through its reader, which steps back
    /// behind whatever runs beside it: who hears that nothing is copied presses again.
    pub(crate) fn copy(&self, from: usize) -> Result<String, String> {
        let until = Instant::now() + HEARD_WITHIN;
        loop {
            let said = said(&self.bulkhead(&["clipboard", "copy", "--from", DOMAINS[from]]));
            match said {
                Err(words) if words.contains("Nothing is copied in") && Instant::now() < until => {
                    thread::sleep(Duration::from_millis(500));
                }
                said => return said,
            }
        }
    }

    pub(crate) fn copy_in_background(&self, from: usize) -> JoinHandle<Result<String, String>> {
        let mut command = self.command(&["clipboard", "copy", "--from", DOMAINS[from]]);
        thread::spawn(move || said(&command.output().unwrap()))
    }

    /// Presses the paste hotkey. The desktop's own agent has made it known when this is over.
    pub(crate) fn paste(&self, to: usize) -> Result<String, String> {
        let log = self.daemon_log(to);
        let before = count(&log, "sent clipboard grab");
        let words = said(&self.bulkhead(&["clipboard", "paste", "--to", DOMAINS[to]]))?;
        wait_for("the offer in the guest", || count(&log, "sent clipboard grab") > before);
        // The session's agent owns the X selection a moment later.
        thread::sleep(Duration::from_millis(150));
        Ok(words)
    }

    /// Waits until chords count again.
    pub(crate) fn rest(&self) {
        thread::sleep(REST);
    }

    /// Replays the log: under the policy it was written under, the log's flows are decided as they were; under one without rules they are not.
    pub(crate) fn replay(&self) {
        let log = self.at("state/audit").display().to_string();
        let replay = |policy: &str| {
            self.bulkhead(&["policy", "replay", &self.at(policy).display().to_string(), &log])
        };
        let same = replay("policy.toml");
        assert!(same.status.success(), "{same:?}");
        assert!(!String::from_utf8_lossy(&same.stdout).starts_with("0 flows"), "{same:?}");
        fs::write(self.at("none.toml"), policy("")).unwrap();
        assert_eq!(replay("none.toml").status.code(), Some(1));
    }

    /// Ends the agent; everything it wrote down.
    pub(crate) fn stop_and_read_audit(&mut self) -> String {
        let agent = self.agent.take().unwrap();
        signal(&agent.0, Signal::SIGTERM);
        let mut agent = agent;
        wait_for("the agent to end", || agent.0.try_wait().unwrap().is_some());
        let verified =
            self.bulkhead(&["audit", "verify", &self.at("state/audit").to_string_lossy()]);
        assert!(verified.status.success(), "{verified:?}");
        let mut log = String::new();
        for entry in fs::read_dir(self.at("state/audit")).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "jsonl") {
                log += &fs::read_to_string(path).unwrap();
            }
        }
        log
    }
}

fn said(output: &Output) -> Result<String, String> {
    let words = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(words) } else { Err(words) }
}

fn count(log: &Path, what: &str) -> usize {
    fs::read_to_string(log).unwrap_or_default().matches(what).count()
}

impl Desktop {
    fn start() -> Self {
        let mut server = program("Xvfb");
        server.args(["-displayfd", "1", "-screen", "0", "640x480x24", "-nolisten", "tcp"]);
        let mut server = Running(spawn(server.stdout(Stdio::piped())));
        let mut number = String::new();
        BufReader::new(server.0.stdout.as_mut().unwrap()).read_line(&mut number).unwrap();
        assert!(!number.trim().is_empty(), "Xvfb gives no display");
        Self { display: format!(":{}", number.trim()), agents: None, _server: server }
    }
}

/// Makes plain text of so many bytes in which no part is like another.
pub(crate) fn pattern(size: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(size + 16);
    let mut number = 0u32;
    while text.len() < size {
        writeln!(text, "{number:x}").unwrap();
        number = number.wrapping_add(0x9e37_79b9);
    }
    text.truncate(size);
    text
}

/// Makes a PNG, with something after its end.
pub(crate) fn picture(width: u32, height: u32, after: &[u8]) -> Vec<u8> {
    let picture = image::RgbImage::from_fn(width, height, |x, y| {
        image::Rgb([x.to_le_bytes()[0], y.to_le_bytes()[0], (x ^ y).to_le_bytes()[0]])
    });
    let mut bytes = Vec::new();
    picture.write_to(&mut Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
    bytes.extend(after);
    bytes
}

/// Makes a PNG that does not get much smaller, made of these bytes.
pub(crate) fn noisy_picture(width: u32, height: u32, noise: &[u8]) -> Vec<u8> {
    let size = usize::try_from(width * height * 3).unwrap();
    let picture = image::RgbImage::from_raw(width, height, noise[..size].to_vec()).unwrap();
    let mut bytes = Vec::new();
    picture.write_to(&mut Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
    bytes
}
