//! A whole `bulkhead-agent`, with two guests that are played.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clipboard::vdagent::spec::kind;

use crate::guest::{Guest, give, take};
use crate::policy;

/// The whole agent.
pub(crate) struct Agent {
    child: Child,
    dir: PathBuf,
    guests: [Guest; 2],
}

impl Agent {
    /// Starts this program, with everything of its own in a folder.
    pub(crate) fn start(program: &Path, dir: &Path) -> Self {
        let machine = "format = 1\n[seat]\nbackend = \"none\"\n[domain.clinical]\nvmm = \"external\"\n[domain.internet]\nvmm = \"external\"\n";
        fs::write(dir.join("machine.toml"), machine).unwrap();
        fs::write(dir.join("policy.toml"), policy()).unwrap();
        let mut command = Command::new(program);
        for (option, name) in [
            ("--machine", "machine.toml"),
            ("--policy", "policy.toml"),
            ("--state", "state"),
            ("--runtime", "run"),
        ] {
            command.arg(option).arg(dir.join(name));
        }
        let child = command.stderr(Stdio::null()).spawn().unwrap();
        let guests = ["clinical", "internet"]
            .map(|name| Guest::connect(&dir.join("run").join(name).join("vdagent.sock")));
        thread::sleep(Duration::from_millis(300));
        Self { child, dir: dir.to_owned(), guests }
    }

    fn ask(&self, request: &str) -> String {
        let mut stream = UnixStream::connect(self.dir.join("run/control.sock")).unwrap();
        stream.write_all(format!("{request}\n").as_bytes()).unwrap();
        let mut answer = Vec::new();
        let mut byte = [0];
        while stream.read_exact(&mut byte).is_ok() && byte != *b"\n" {
            answer.push(byte[0]);
        }
        String::from_utf8(answer).unwrap()
    }

    pub(crate) fn copy(&mut self, from: usize, number: u32, bytes: &[u8]) {
        self.guests[from].grab(number);
        thread::sleep(Duration::from_millis(50));
        let name = ["clinical", "internet"][from];
        self.ask(&format!("{{\"command\":\"copy\",\"domain\":\"{name}\"}}"));
        self.guests[from].wait_for(kind::CLIPBOARD_REQUEST);
        self.guests[from].send(&give(number, bytes));
        thread::sleep(Duration::from_millis(100));
    }

    pub(crate) fn paste(&mut self, to: usize, number: u32) -> Duration {
        let name = ["clinical", "internet"][to];
        let request = format!("{{\"command\":\"paste\",\"domain\":\"{name}\"}}");
        let start = Instant::now();
        self.ask(&request);
        let (end, _) = take(&mut self.guests[to], number);
        end - start
    }

    /// Returns a figure of its memory, in bytes.
    pub(crate) fn memory(&self, what: &str) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(what)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
