//! QEMU's machine protocol: pressing keys, plugging devices, looking at the screen.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::patience::patience;
use crate::{Failure, Outcome};

/// Longest a command may take.
const DEADLINE: Duration = Duration::from_secs(20);
/// Longest until a device is gone that was asked to go: the PC's kernel lets one in a slot go after five seconds.
const UNPLUGGED: Duration = Duration::from_secs(30);

/// A connection to QEMU.
pub struct Qmp(BufReader<UnixStream>);

impl Qmp {
    /// Connects to QEMU and leaves its negotiation mode.
    pub fn connect(path: &Path) -> Outcome<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        let mut this = Self(BufReader::new(stream));
        this.read()?;
        this.execute("qmp_capabilities", json!({}))?;
        Ok(this)
    }

    fn read(&mut self) -> Outcome<Value> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }

    /// Runs a command and returns what it answers; events in between are passed over.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Outcome<Value> {
        let request = json!({"execute": command, "arguments": arguments});
        self.0.get_mut().write_all(format!("{request}\n").as_bytes())?;
        loop {
            let mut reply = self.read()?;
            if reply["error"].is_object() {
                return Err(Failure(format!("{command}: {}", reply["error"]["desc"])));
            }
            if reply.get("return").is_some() {
                return Ok(reply["return"].take());
            }
        }
    }

    /// Unplugs a device, and waits until the PC has let it go: until then its slot is taken.
    pub fn unplug(&mut self, id: &str) -> Outcome {
        self.execute("device_del", json!({"id": id}))?;
        let end = Instant::now() + patience(UNPLUGGED);
        loop {
            let there = self.execute("qom-list", json!({"path": "/machine/peripheral"}))?;
            let mut names = there.as_array().into_iter().flatten().map(|entry| &entry["name"]);
            if !names.any(|name| name == id) {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(Failure(format!("the PC does not let go of {id}: {there}")));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Sends a command of the monitor for people; returns what it prints.
    pub fn monitor(&mut self, line: &str) -> Outcome<String> {
        let answer = self.execute("human-monitor-command", json!({"command-line": line}))?;
        Ok(answer.as_str().unwrap_or_default().to_owned())
    }

    /// Saves a picture of the screen as PNG.
    pub fn screendump(&mut self, to: &Path) -> Outcome {
        self.execute("screendump", json!({"filename": to, "format": "png"})).map(drop)
    }
}
