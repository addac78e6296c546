//! The control socket: one JSON object a line each way.
//!
//! | request | answer beyond `"ok": true` |
//! | --- | --- |
//! | `{"command":"status"}` | `state` (`starting`, `running`, `paused`), `pid`, `vcpus`, `memory_mib`, `resets`, and `hung` if a thread hangs |
//! | `{"command":"power-button"}` | |
//! | `{"command":"reset"}`, `{"command":"stop"}` | |
//! | `{"command":"pause"}`, `{"command":"resume"}` | |
//!
//! Errors: `{"ok":false,"error":TEXT}`.

use serde::{Deserialize, Serialize};

/// Longest line of a request, in bytes.
pub const REQUEST_MAX: usize = 4096;
/// Longest line of an answer, in bytes.
pub const ANSWER_MAX: usize = 4096;

/// What a client may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// Tell the state of the vCPUs, memory, resets and threads.
    Status,
    /// Press the guest's power button.
    PowerButton,
    /// Start the guest anew, whatever it is doing.
    Reset,
    /// End the VMM at once; the guest is not asked.
    Stop,
    /// Stop the vCPUs; devices go on.
    Pause,
    /// Let the vCPUs go on.
    Resume,
}

/// A line that is no message of this protocol.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// A line of a client's is no request.
    #[error("not a request")]
    Request(#[source] serde_json::Error),
    /// A line of the VMM's is no answer.
    #[error("not an answer")]
    Answer(#[source] serde_json::Error),
}

/// A line of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The command that the VMM is to carry out.
    pub command: Command,
}

/// What the guest's vCPUs do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// They do not run yet.
    Starting,
    /// The guest's vCPUs run.
    Running,
    /// They were stopped by a request.
    Paused,
}

/// The answer to `status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// What the vCPUs do.
    pub state: State,
    /// The process ID of the VMM.
    pub pid: u32,
    /// How many vCPUs the guest has.
    pub vcpus: u8,
    /// Guest RAM in MiB.
    pub memory_mib: u64,
    /// How often the guest was reset since the VMM started.
    pub resets: u64,
    /// A thread that hangs, if one does; of several one that waits for nothing of the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hung: Option<HungThread>,
}

/// A thread of the VMM that does not come round, although it was woken again and again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HungThread {
    /// Its name, as the kernel has it: `vcpu0`, `blk1`, `gpu`.
    pub thread: String,
    /// Since when it was woken in vain, in seconds.
    pub seconds: u64,
    /// Whether it serves a file of the host's, so that most likely the host's disk does not answer: another VMM would wait for it as well.
    pub waits_for_host: bool,
}

/// A line of the VMM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Whether the command was carried out.
    pub ok: bool,
    /// The state, where it was asked for.
    #[serde(flatten)]
    pub status: Option<Status>,
    /// Why it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Request {
    /// Returns the line that asks it, with its end.
    #[must_use]
    pub fn line(self) -> Vec<u8> {
        line(&self)
    }

    /// Reads a line.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(line: &[u8]) -> Result<Self, LineError> {
        serde_json::from_slice(line).map_err(LineError::Request)
    }
}

impl Answer {
    /// Makes the answer that everything was done.
    #[must_use]
    pub const fn done(status: Option<Status>) -> Self {
        Self { ok: true, status, error: None }
    }

    /// Makes the answer that it was not done, and why.
    #[must_use]
    pub const fn refused(error: String) -> Self {
        Self { ok: false, status: None, error: Some(error) }
    }

    /// Returns the line that says it, with its end.
    #[must_use]
    pub fn line(&self) -> Vec<u8> {
        line(self)
    }

    /// Reads a line.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(line: &[u8]) -> Result<Self, LineError> {
        serde_json::from_slice(line).map_err(LineError::Answer)
    }
}

/// Writes a value as a line of JSON. Plain structs with texts as keys: there is nothing JSON could not hold.
fn line(value: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec(value).unwrap_or_else(|_| b"{\"ok\":false}".to_vec());
    text.push(b'\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_are_the_lines_they_always_were() {
        for (command, word) in [
            (Command::Status, "status"),
            (Command::PowerButton, "power-button"),
            (Command::Reset, "reset"),
            (Command::Stop, "stop"),
            (Command::Pause, "pause"),
            (Command::Resume, "resume"),
        ] {
            let line = Request { command }.line();
            assert_eq!(line, format!("{{\"command\":\"{word}\"}}\n").as_bytes());
            assert_eq!(Request::read(&line).unwrap(), Request { command });
        }
        assert_eq!(Answer::done(None).line(), b"{\"ok\":true}\n");
        let status = Status {
            state: State::Paused,
            pid: 7,
            vcpus: 2,
            memory_mib: 512,
            resets: 1,
            hung: None,
        };
        let answer = Answer::done(Some(status));
        let line = "{\"ok\":true,\"state\":\"paused\",\"pid\":7,\"vcpus\":2,\"memory_mib\":512,\"resets\":1}\n";
        assert_eq!(answer.line(), line.as_bytes());
        assert_eq!(Answer::read(line.as_bytes()).unwrap(), answer);
        let refused = Answer::refused("it is not paused".to_owned());
        assert_eq!(refused.line(), b"{\"ok\":false,\"error\":\"it is not paused\"}\n");
        assert_eq!(Answer::read(&refused.line()).unwrap(), refused);
        assert!(Request::read(b"{\"command\":\"status\",\"x\":1}").is_err());
    }
}
