//! `bulkhead-worker`: a process of the agent's that sees one thing of one guest, and nothing else.
//!
//! The agent starts it in a role, with two descriptors as its standard input and output. It closes its sandbox before it reads its first byte, of which
//! nobody knows what it is ([`enclosure`]).
//!
//! | role | what it does | what it is given | module |
//! | --- | --- | --- | --- |
//! | `picture` | decodes one picture, and ends | the job and the answer, two files in memory | [`picture`] |
//! | `clipboard` | reads what one guest says of its clipboard | that guest's stream, the channel to the agent, and a file in memory for content | [`clipboard`] |
//! | `usb` | serves one USB device to the VMM of one domain | the stream to the VMM, a channel to the agent; by that the device's open node, and the job | [`usb`] |
//!
//! What each may ask the kernel for is in its `calls`, each with its reason; any other system call is its end.
//!
//! Started by an ordinary user, as tests do, it keeps that user and the host's namespaces, and closes the other layers.
#![deny(clippy::print_stdout)]
#![forbid(unsafe_code)]

mod clipboard;
mod enclosure;
#[cfg(test)]
mod filter_tests;
mod picture;
mod standard;
mod usb;

use std::io::{self, Write as _};
use std::process::ExitCode;

use sandboxing::SandboxError;
use worker_link::{Malformed, NO_JOB, Role};

use enclosure::Arguments;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum WorkerError {
    #[error("could not {0}")]
    Step(&'static str, #[source] io::Error),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error("the agent is gone")]
    Orphan,
    #[error("there is no job")]
    NoJob(#[from] Malformed),
    #[error("there is no such role")]
    NoRole,
    #[error("its job came without what it is about")]
    NoFiles,
}

fn step<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> WorkerError {
    move |error| WorkerError::Step(what, error.into())
}

/// Does what its arguments say: the role, the number that it runs under as root, its agent's process, and the directory of the cgroup that it enters, if any.
#[must_use]
pub fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|word| word == "--version") {
        let said = writeln!(io::stdout(), "bulkhead-worker {}", env!("CARGO_PKG_VERSION"));
        return said.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Heard while nothing hostile has been read; later it goes nowhere.
            let text = format!(
                "bulkhead-worker: {}; it is started by bulkhead-agent, and by nobody else\n",
                explain(&error)
            );
            let _ = io::stderr().write_all(text.as_bytes());
            match error {
                WorkerError::NoJob(_) | WorkerError::NoRole => ExitCode::from(NO_JOB),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// Returns an error with its causes.
fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

fn run() -> Result<(), WorkerError> {
    let arguments = Arguments::read(std::env::args_os().skip(1)).ok_or(WorkerError::NoRole)?;
    match arguments.role {
        Role::Picture => picture::run(&arguments),
        Role::Clipboard => clipboard::run(&arguments),
        Role::Usb => usb::run(&arguments),
    }
}
