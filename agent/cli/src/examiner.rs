//! `bulkhead-agent`, started for what it can do and this program cannot: it links what looks at screens, input devices and USB, and what
//! changes a PC. It prints one JSON document, which is shown here.

use std::ffi::OsStr;
use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use config::files::find_program;
use serde::de::DeserializeOwned;

/// The name of the agent's program.
const PROGRAM: &str = "bulkhead-agent";
/// Longest document that is read, in bytes: a few hundred bytes for each of what a PC has.
const DOCUMENT_MAX: u64 = 4 << 20;
/// The exit status of a Rust program that panicked.
const PANICKED: i32 = 101;

/// What it is started for.
pub(super) struct Task {
    /// The subcommand of `bulkhead-agent` that does it.
    pub(super) command: &'static str,
    /// Who does it, for messages: `the doctor examines a PC`.
    pub(super) who: &'static str,
    /// What it was doing when it crashed.
    pub(super) doing: &'static str,
    /// What it has not done.
    pub(super) not_done: &'static str,
    /// Whether it may ask the person who started this.
    pub(super) asks: bool,
}

impl Task {
    /// Runs the subcommand with the flags that are set and the options that have a value; returns what it printed, or why there is nothing.
    pub(super) fn run<T: DeserializeOwned>(
        &self,
        flags: &[(&str, bool)],
        options: &[(&str, Option<&PathBuf>)],
    ) -> Result<T, String> {
        let flags = flags.iter().filter(|(_, is_set)| *is_set).map(|(flag, _)| OsStr::new(flag));
        let options = options.iter().filter_map(|(option, path)| Some((option, (*path)?)));
        let options = options.flat_map(|(option, path)| [OsStr::new(option), path.as_os_str()]);
        let program = find_program(PROGRAM).ok_or_else(|| {
            format!(
                "{} on which {PROGRAM} is installed, and there is none beside this program or in PATH: install Bulkhead's package, or run this on a ward PC",
                self.who
            )
        })?;
        let failed =
            |error: &dyn std::fmt::Display| format!("cannot run {}: {error}", program.display());
        let mut child = Command::new(&program)
            .arg(self.command)
            .args(flags.chain(options))
            .stdin(if self.asks { Stdio::inherit() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| failed(&error))?;
        let mut text = Vec::new();
        // The pipe is closed behind it, so that a program that says more ends too.
        let read = child.stdout.take().map(|out| out.take(DOCUMENT_MAX).read_to_end(&mut text));
        let ended = child.wait().map_err(|error| failed(&error))?;
        read.transpose().map_err(|error| failed(&error))?;
        if !ended.success() {
            return Err(self.nothing(&program, ended));
        }
        serde_json::from_slice(&text).map_err(|_| {
            format!(
                "what {} printed cannot be read: it and this program are of different versions",
                program.display()
            )
        })
    }

    /// Returns why there is nothing of a program that ended so.
    fn nothing(&self, program: &Path, ended: ExitStatus) -> String {
        let program = program.display();
        if ended.code() == Some(PANICKED) || ended.signal().is_some() {
            return format!(
                "{program} crashed while {} ({ended}), which is a fault of Bulkhead's unless somebody ended it: report it with what it said",
                self.doing
            );
        }
        format!("{program} {} ({ended}): are it and this program of one version?", self.not_done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_examiner_that_crashed_is_told_from_one_of_another_version() {
        let task = Task {
            command: "doctor",
            who: "the doctor examines a PC",
            doing: "it examined this PC",
            not_done: "has not examined this PC",
            asks: false,
        };
        // As wait(2) has them: a panic, SIGSEGV, and clap's refusal of what it does not know.
        for (status, says) in [
            (PANICKED << 8, "crashed while it examined this PC"),
            (11, "crashed while it examined this PC"),
            (2 << 8, "are it and this program of one version?"),
        ] {
            let why =
                task.nothing(Path::new("/usr/bin/bulkhead-agent"), ExitStatus::from_raw(status));
            assert!(why.contains(says), "{status}: {why}");
        }
    }
}
