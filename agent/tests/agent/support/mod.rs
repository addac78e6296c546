//! A ward PC of processes: the real `bulkhead-agent` and `bulkhead`, and a stand-in for the VMM
//! (this test program itself, started again) that shows how VMMs end, hang and talk.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

pub(crate) use crate::artefacts::program;

/// Longest any test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(30);

const TWO_DOMAINS: &str = include_str!("../../../../policy/tests/fixtures/two-domains.toml");

pub const MACHINE: &str = r#"
format = 1
allow_host_network = true
stop_deadline = "2s"
[domain.clinical]
kernel = "vmlinuz"
ports = ["probe"]
[domain.internet]
kernel = "vmlinuz"
"#;

pub struct Ward {
    dir: tempfile::TempDir,
}

pub struct Agent {
    child: Child,
}

impl Ward {
    pub fn new(machine: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let ward = Self { dir };
        fs::write(ward.at("machine.toml"), machine).unwrap();
        let policy =
            TWO_DOMAINS.replace("\"passthrough\"", "\"none\"").replace("serial = 1", "serial = 7");
        fs::write(ward.at("policy.toml"), policy).unwrap();
        let own = std::env::current_exe().unwrap();
        let script = format!(
            "#!/bin/sh\n[ \"$1\" = --version ] && echo bulkhead-vmm stand-in && exit\nSTAND_IN_WARD='{}' STAND_IN_ARGS=\"$*\" exec '{}' the_stand_in_vmm --exact --ignored --nocapture --test-threads=1\n",
            ward.dir.path().display(),
            own.display(),
        );
        fs::write(ward.at("vmm"), script).unwrap();
        fs::set_permissions(ward.at("vmm"), fs::Permissions::from_mode(0o755)).unwrap();
        ward
    }

    /// Makes the stand-in from a file of this ward's own, so that it can be replaced.
    pub fn with_a_vmm_of_its_own(self) -> Self {
        let own = std::env::current_exe().unwrap();
        if fs::hard_link(&own, self.at("stand-in")).is_err() {
            fs::copy(&own, self.at("stand-in")).unwrap();
        }
        let script = fs::read_to_string(self.at("vmm")).unwrap();
        let script = script.replace(own.to_str().unwrap(), self.at("stand-in").to_str().unwrap());
        fs::write(self.at("vmm"), script).unwrap();
        self
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Sets how a domain's next VMMs behave; see [`stand_in`].
    pub fn behave(&self, domain: &str, behaviour: &str) {
        fs::write(self.at(&format!("behaviour-{domain}")), behaviour).unwrap();
    }

    /// Returns what happened to a domain's VMMs, in order.
    pub fn events(&self, domain: &str) -> Vec<String> {
        let text = fs::read_to_string(self.at(&format!("events-{domain}"))).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    pub fn agent_command(&self) -> Command {
        let mut command = Command::new(program("bulkhead-agent"));
        command
            .arg("--machine")
            .arg(self.at("machine.toml"))
            .arg("--policy")
            .arg(self.at("policy.toml"))
            .arg("--images")
            .arg(self.at("images"))
            .arg("--state")
            .arg(self.at("state"))
            .arg("--runtime")
            .arg(self.at("run"))
            .arg("--vmm")
            .arg(self.at("vmm"))
            .stdin(Stdio::null());
        command
    }

    pub fn start_agent(&self) -> Agent {
        self.start(self.agent_command())
    }

    pub fn start(&self, mut command: Command) -> Agent {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.at("log")).unwrap();
        let child = command.stderr(log).spawn().unwrap();
        let agent = Agent { child };
        self.wait("the agent to answer", || self.bulkhead(&["status"]).status.code() != Some(2));
        agent
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.at("log")).unwrap_or_default()
    }

    pub fn bulkhead(&self, args: &[&str]) -> Output {
        self.bulkhead_command(args).output().unwrap()
    }

    pub fn bulkhead_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program("bulkhead"));
        command.env("BULKHEAD_RUNTIME", self.at("run")).args(args).stdin(Stdio::null());
        command
    }

    pub fn status(&self) -> Value {
        let output = self.bulkhead(&["status", "--json"]);
        // 1: something is not as a ward needs it, which a test may want.
        assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub fn domain(&self, name: &str) -> Value {
        let status = self.status();
        let domains = status["domains"].as_array().unwrap();
        domains.iter().find(|domain| domain["name"] == name).unwrap().clone()
    }

    pub fn pid(&self, name: &str) -> i64 {
        self.domain(name)["pid"].as_i64().unwrap()
    }

    pub fn wait_for_state(&self, name: &str, state: &str) {
        self.wait(&format!("{name} to be {state}"), || self.domain(name)["state"] == state);
    }

    pub fn wait(&self, what: &str, holds: impl Fn() -> bool) {
        let until = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < until, "waited in vain for {what}; log:\n{}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Agent {
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// Kills the agent with SIGKILL: it can do nothing any more.
    pub fn kill(mut self) {
        self.signal(Signal::SIGKILL);
        self.wait();
    }

    /// Ends the agent with SIGTERM; returns how it ended.
    pub fn stop(mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    pub fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "the agent does not end");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Ward {
    /// Ends VMMs that a failed test left: they outlive their agent.
    fn drop(&mut self) {
        for domain in ["clinical", "internet"] {
            let socket = self.at("run").join(domain).join("vmm.sock");
            if let Ok(mut vmm) = UnixStream::connect(socket) {
                let _ = vmm.write_all(b"{\"command\":\"stop\"}\n");
            }
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // A test failed: the agent ends its VMMs, and is waited for only so long.
            self.signal(Signal::SIGTERM);
            thread::sleep(Duration::from_millis(500));
            self.signal(Signal::SIGTERM);
            let until = Instant::now() + Duration::from_secs(15);
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < until {
                thread::sleep(Duration::from_millis(50));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

pub fn alive(pid: i64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim().starts_with('Z'))
}

/// Is a process in the VMM's place. Behaviours: `obey` (default) answers its control socket and powers off when asked; `ignore` answers and does nothing; `crash` fails at once, saying why; `crash-2` fails twice, then obeys; `silent`
/// takes questions and never answers; `flood` obeys and never stops talking; `mute` has no control socket; `late` has one after two seconds; `up` obeys, and its guest says that its desktop is there.
pub fn stand_in() {
    let ward = PathBuf::from(std::env::var_os("STAND_IN_WARD").expect("started by an agent"));
    let args = std::env::var("STAND_IN_ARGS").unwrap();
    let spec = vmm_control::VmSpec::read(io::stdin()).unwrap();
    let socket = spec.control_socket.as_deref().unwrap();
    let domain = socket.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
    let events = ward.join(format!("events-{domain}"));
    let note = |what: &str| {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&events).unwrap();
        writeln!(file, "{what}").unwrap();
    };
    note(&args);
    fs::write(ward.join(format!("spec-{domain}")), spec.to_json().unwrap()).unwrap();
    let behaviour = fs::read_to_string(ward.join(format!("behaviour-{domain}")));
    let behaviour = behaviour.unwrap_or_else(|_| "obey".to_owned());
    let starts =
        || fs::read_to_string(&events).unwrap().lines().filter(|l| l.starts_with("run ")).count();
    if behaviour == "crash" || behaviour == "crash-2" && starts() <= 2 {
        eprintln!("bulkhead-vmm: the kernel \x1b[31mfile is empty");
        std::process::exit(1);
    }
    if behaviour == "mute" {
        thread::sleep(PATIENCE * 4);
    }
    if behaviour == "late" {
        thread::sleep(Duration::from_secs(2));
    }
    if behaviour == "flood" {
        thread::spawn(|| {
            loop {
                let _ = io::stderr().write_all(&[b'x'; 3000]);
                eprintln!();
            }
        });
    }
    // Not for ever, should the agent lose it.
    thread::spawn(|| {
        thread::sleep(PATIENCE * 4);
        std::process::exit(3);
    });
    let health = spec.ports.iter().find(|port| port.name == "org.bulkhead.health");
    if let Some(port) = health.filter(|_| behaviour == "up") {
        let listener = UnixListener::bind(&port.socket).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let _ = stream.unwrap().write_all(b"up\n");
            }
        });
    }
    let listener = UnixListener::bind(socket).unwrap();
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        while let Some(Ok(line)) = lines.next() {
            let request: Value = serde_json::from_str(&line).unwrap();
            if behaviour == "silent" {
                continue;
            }
            let command = request["command"].as_str().unwrap().to_owned();
            stream.write_all(b"{\"ok\":true,\"state\":\"running\"}\n").unwrap();
            if command != "status" {
                note(&command);
            }
            if behaviour != "ignore" && matches!(command.as_str(), "power-button" | "stop") {
                // The test's runner has begun a line.
                eprintln!("\n{}", vmm_control::ENDED_IN_ORDER);
                std::process::exit(0);
            }
        }
    }
}
