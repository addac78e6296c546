//! `bulkhead-worker`: decodes one picture that a guest copied, in a process that sees nothing but it.
//!
//! The agent starts it with the job as its standard input and the answer as its standard output, two files in memory (`worker_link`), and reads the
//! answer when it has ended. It closes its sandbox before it reads its first byte, of which nobody knows what it is:
//!
//! | what | how |
//! | --- | --- |
//! | user | [`USER`], which nothing else on the host has; no capability, none to be regained |
//! | files | an empty, read-only root, Landlock, no call that opens one; the two files that it was given, of which one cannot be changed and the other neither grows nor shrinks |
//! | network, IPC, host name, cgroups | namespaces of its own with nothing in them, no call that makes a socket |
//! | other processes | not dumpable, no call that signals, traces or makes one; no namespace of its own for their numbers, which it cannot use |
//! | memory, time | [`MEMORY_MAX`], [`TIME_MAX`], and those of the cgroup that the agent names; the first to end when the PC has no memory left; ends with its agent |
//! | system calls | those of [`CALLS`], each with its reason; any other is its end |
//!
//! Started by an ordinary user, as tests do, it keeps that user and the host's namespaces, and closes the other layers.
#![deny(clippy::print_stdout)]
#![forbid(unsafe_code)]

mod calls;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::ExitCode;

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{Pid, dup2_stderr, geteuid, getppid};
use sandboxing::{Limits, SandboxError};
use worker_link::{
    ANSWER_HEADER, Answer, CONTENT_MAX, JOB_HEADER, Job, MEMORY_MAX, Malformed, NO_JOB, TIME_MAX,
    USER,
};

pub use calls::CALLS;

/// File descriptors: the standard streams, what they are copied to, and the one that Landlock is set up by.
const FILES_MAX: u64 = 8;

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
}

fn step<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> WorkerError {
    move |error| WorkerError::Step(what, error.into())
}

/// Decodes the picture that standard input holds, and writes the answer to standard output.
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
            let mut text = format!("bulkhead-worker: {error}");
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                text += &format!(": {error}");
                cause = error.source();
            }
            text += "; it is started by bulkhead-agent, for one picture each\n";
            let _ = io::stderr().write_all(text.as_bytes());
            match error {
                WorkerError::NoJob(_) => ExitCode::from(NO_JOB),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn run() -> Result<(), WorkerError> {
    let mut arguments = std::env::args_os().skip(1);
    // Its agent says who it is: one that has ended by now has left it to somebody else already.
    let agent = arguments
        .next()
        .map_or(Some(getppid()), |agent| Some(Pid::from_raw(agent.to_str()?.parse().ok()?)));
    if let Some(group) = arguments.next() {
        // Before all else: whatever it takes counts there. Nobody waits for the kernel to move it.
        let place = Path::new(&group).join("cgroup.procs");
        let entered =
            OpenOptions::new().write(true).open(place).and_then(|mut file| file.write_all(b"0"));
        entered.map_err(step("enter its cgroup"))?;
    }
    // It is started by the number of a descriptor.
    prctl::set_name(c"bulkhead-worker").map_err(step("take its name"))?;
    sandboxing::close_others(None).map_err(step("close what it was started with"))?;
    // Before the agent, whose own place it would have: that is never the first.
    let first_to_end = fs::write("/proc/self/oom_score_adj", "1000");
    if geteuid().is_root() {
        first_to_end.map_err(step("be the first to end when memory is short"))?;
    }
    for resource in [Resource::RLIMIT_MEMLOCK, Resource::RLIMIT_NICE, Resource::RLIMIT_RTPRIO] {
        setrlimit(resource, 0, 0).map_err(step("give up locked memory and priority"))?;
    }
    let open = |stream: io::Result<_>, what| stream.map(File::from).map_err(step(what));
    let job = open(io::stdin().as_fd().try_clone_to_owned(), "take its job")?;
    let answer = open(io::stdout().as_fd().try_clone_to_owned(), "take the place of its answer")?;
    let null = OpenOptions::new().write(true).open("/dev/null");
    let null = null.map_err(step("open /dev/null"))?;
    let limits = Limits {
        file_bytes: u64::from(CONTENT_MAX) + ANSWER_BYTES,
        files: FILES_MAX,
        memory: Some(MEMORY_MAX),
        processor_time: Some(TIME_MAX.as_secs()),
    };
    // The agent's kernel has Landlock, or every VMM's log says that it has not.
    let _ = sandboxing::enter(Some((USER, USER)), &limits)?;
    // After the change of user, which takes this back.
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(step("end with its agent"))?;
    if Some(getppid()) != agent {
        return Err(WorkerError::Orphan);
    }
    dup2_stderr(&null).map_err(step("fall silent"))?;
    drop(null);
    sandboxing::load(CALLS.iter().copied(), std::iter::empty())?;
    decode(job, &answer)
}

const JOB_BYTES: u64 = JOB_HEADER as u64;
const ANSWER_BYTES: u64 = ANSWER_HEADER as u64;

/// Answers a job. What stands before the picture is written last: without it there is no answer.
fn decode(job: File, answer: &File) -> Result<(), WorkerError> {
    let most = u64::from(CONTENT_MAX) + JOB_BYTES;
    // In one piece from the beginning: what is not filled takes no memory.
    let mut bytes = Vec::with_capacity(usize::try_from(most).unwrap_or(0) + 1);
    job.take(most).read_to_end(&mut bytes).map_err(step("read its job"))?;
    let (job, picture) = Job::read(&bytes)?;
    let header = match pictures::encode_anew(job.kind, picture, job.most.try_into().unwrap_or(0)) {
        Ok(encoded) => {
            answer.write_all_at(&encoded.png, ANSWER_BYTES).map_err(step("write the picture"))?;
            Answer::Encoded {
                turned: encoded.turned,
                made_opaque: encoded.made_opaque,
                first_of: encoded.first_of,
                // It has no more than `most`.
                length: u32::try_from(encoded.png.len()).unwrap_or(0),
            }
        }
        Err(why) => Answer::Refused(why),
    };
    answer.write_all_at(&header.header(), 0).map_err(step("write its answer"))
}

#[cfg(test)]
mod tests;
