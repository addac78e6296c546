//! The worker that decodes a picture: started for it, killed when nobody waits for it any more, and believed nothing.
//!
//! ```text
//!  picture --> job: file in memory, sealed -----> stdin  +--------+
//!                                                        | worker |   ended: the answer is read once, into memory of this process,
//!  Sanitized <-- answer: file in memory <-------- stdout +--------+   and checked there
//!               of fixed length
//! ```
//! Nothing else goes between the two: no socket, no descriptor, no wait. A worker that died, answers what is no answer, or a picture that is none, is
//! [`Rejected::NotDecoded`]. The agent decodes no picture itself, whatever became of the worker.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use nix::sys::signal::Signal;
use worker_link::{ANSWER_HEADER, Answer, CONTENT_MAX, Job, MEMORY_MAX, Role, USER};
use workers::group::Group;
use workers::process::words;
use workers::{Process, Program};
use zeroize::Zeroizing;

use super::memory;
use crate::grant::Secret;
use clipboard_content::{self as content, Changes, Rejected, Sanitized};

/// Workers that were killed and are not gone yet. While there are more the next waits: each has memory until it is gone.
const ENDING_MAX: usize = 4;
const ANSWER_BYTES: u64 = ANSWER_HEADER as u64;
/// Memory of all workers together, in bytes: what one may have mapped, its answer, and the kernel's on its behalf. Those that are ending give theirs back
/// before the next needs it, or that one is killed.
pub const GROUP_MEMORY_MAX: u64 = MEMORY_MAX + CONTENT_MAX as u64 + (32 << 20);

/// A process that decodes one picture. Killed when it is dropped.
#[derive(Debug)]
pub struct Worker {
    process: Process,
    /// Where its answer is when it has ended.
    answer: File,
    most: u32,
    /// The cgroup it is in, and how many processes had been killed there for memory before it was started.
    group: Option<(Group, u64)>,
}

impl Worker {
    /// Starts `program` with this picture.
    ///
    /// # Errors
    /// There is no memory, process or descriptor for it, or this PC does not run the program.
    pub fn start(program: &mut Program, job: Job, picture: &[u8]) -> io::Result<Self> {
        let group = program.group().map(|group| (group.clone(), group.killed_for_memory()));
        let input = memory::file("bulkhead-picture")?;
        (&input).write_all(&job.header())?;
        (&input).write_all(picture)?;
        (&input).seek(SeekFrom::Start(0))?;
        memory::seal(&input)?;
        let length = ANSWER_BYTES + u64::from(job.most);
        let answer = memory::of_length("bulkhead-answer", length)?;
        // It is silent from before it reads its job.
        let ours = answer.try_clone()?;
        let process = Process::start(program, Role::Picture, USER, input.into(), ours.into())?;
        Ok(Self { process, answer, most: job.most, group })
    }

    /// Returns its process number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Returns what becomes readable when it has ended.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.process.fd()
    }

    /// Returns what came of it, as type `declared`, once it has ended.
    pub fn outcome(
        &mut self,
        declared: policy::language::MediaType,
    ) -> Option<Result<Sanitized, Rejected>> {
        let status = self.process.ended()?;
        Some(match self.answered(status) {
            Ok((changes, png)) => content::of_worker(png, changes).inspect_err(|_| {
                tracing::warn!("what decodes pictures answered with what is no picture of its own");
            }),
            Err(Unanswered::Refused(why)) => Err(content::refused(declared, why)),
            Err(Unanswered::Failed(how)) if self.was_killed_for_memory(status) => {
                tracing::warn!("what decodes pictures failed: {how}: its memory was used up");
                Err(Rejected::TooMuchMemory)
            }
            Err(Unanswered::Failed(how)) => {
                tracing::warn!("what decodes pictures failed: {how}");
                Err(Rejected::NotDecoded)
            }
        })
    }

    /// Returns whether the kernel killed it because its cgroup had no memory left.
    fn was_killed_for_memory(&self, status: Option<ExitStatus>) -> bool {
        let killed = status.and_then(|status| status.signal()) == Some(Signal::SIGKILL as i32);
        let more = |(group, before): &(Group, u64)| group.killed_for_memory() > *before;
        killed && self.group.as_ref().is_some_and(more)
    }

    /// Reads the answer, once.
    fn answered(
        &self,
        status: Option<ExitStatus>,
    ) -> Result<(Changes, Zeroizing<Vec<u8>>), Unanswered> {
        if !status.is_some_and(|status| status.success()) {
            return Err(Unanswered::Failed(words(status)));
        }
        let failed = |error: &dyn std::error::Error| Unanswered::Failed(error.to_string());
        let mut header = [0; ANSWER_HEADER];
        self.answer.read_exact_at(&mut header, 0).map_err(|error| failed(&error))?;
        let answer = Answer::read(&header, u64::from(self.most)).map_err(|error| failed(&error))?;
        match answer {
            Answer::Refused(why) => Err(Unanswered::Refused(why)),
            Answer::Encoded { turned, made_opaque, first_of, length } => {
                let mut png = Zeroizing::new(vec![0; usize::try_from(length).unwrap_or(0)]);
                self.answer.read_exact_at(&mut png, ANSWER_BYTES).map_err(|e| failed(&e))?;
                Ok((Changes { turned, made_opaque, first_of, ..Changes::default() }, png))
            }
        }
    }
}

/// Why there is no picture.
enum Unanswered {
    Refused(worker_link::Refused),
    Failed(String),
}

/// The worker that is at work, if any, and those that are ending.
#[derive(Debug)]
pub(super) struct Decoders {
    /// The program; `None`: there is none, and no picture crosses.
    program: Option<Program>,
    /// The picture that waits until another worker is gone.
    waiting: Option<Waiting>,
    running: Option<Running>,
    ending: Vec<Process>,
}

#[derive(Debug)]
struct Waiting {
    id: u64,
    job: Job,
    picture: Secret,
}

#[derive(Debug)]
struct Running {
    id: u64,
    worker: Worker,
    declared: policy::language::MediaType,
}

impl Decoders {
    pub(super) fn new(program: Option<Program>) -> Self {
        Self { program, waiting: None, running: None, ending: Vec::new() }
    }

    /// Starts one for the picture of this crossing, or has it wait until those that were killed are gone; `false`: it cannot be started, which the log says.
    pub(super) fn start(&mut self, id: u64, job: Job, picture: Secret) -> bool {
        self.end_running();
        self.waiting = Some(Waiting { id, job, picture });
        self.start_waiting().is_none()
    }

    /// Starts the one that waits, if there is room for it. Returns its number if it cannot be started.
    fn start_waiting(&mut self) -> Option<u64> {
        self.ending.retain_mut(|process| !process.is_gone());
        if self.ending.len() >= ENDING_MAX {
            return None;
        }
        let Waiting { id, job, picture } = self.waiting.take()?;
        let Some(program) = &mut self.program else {
            tracing::warn!(
                "no picture can be decoded: install bulkhead-worker beside bulkhead-agent and restart it"
            );
            return Some(id);
        };
        match Worker::start(program, job, &picture) {
            Ok(worker) => {
                let declared = content::declared(job.kind);
                self.running = Some(Running { id, worker, declared });
                None
            }
            Err(error) => {
                tracing::warn!(
                    "no picture can be decoded: {} does not start: {error}",
                    program.path().display()
                );
                Some(id)
            }
        }
    }

    /// Ends the one of this crossing.
    pub(super) fn stop(&mut self, id: u64) {
        self.waiting.take_if(|waiting| waiting.id == id);
        if self.running.as_ref().is_some_and(|running| running.id == id) {
            self.end_running();
        }
    }

    fn end_running(&mut self) {
        let Some(Running { worker: Worker { mut process, .. }, .. }) = self.running.take() else {
            return;
        };
        if !process.end() {
            self.ending.push(process);
        }
    }

    /// Returns what came of the one that is at work, once it has ended, with the number of its crossing; starts the one that waits.
    pub(super) fn ended(&mut self) -> Option<(u64, Result<Sanitized, Rejected>)> {
        if let Some(id) = self.start_waiting() {
            return Some((id, Err(Rejected::NotDecoded)));
        }
        let running = self.running.as_mut()?;
        let outcome = running.worker.outcome(running.declared)?;
        let id = running.id;
        self.running = None;
        Some((id, outcome))
    }

    /// Returns what becomes readable when one has ended, for polling.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let running = self.running.iter().map(|running| running.worker.fd());
        running.chain(self.ending.iter().map(|process| process.fd()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use worker_link::Kind;

    use super::*;
    use crate::service::until;

    const JOB: Job = Job { kind: Kind::Png, most: 1000 };

    fn workers(dir: &std::path::Path, script: &str) -> Decoders {
        Decoders::new(Some(Program::shell(dir, script)))
    }

    fn picture() -> Secret {
        Arc::new(Zeroizing::new(b"picture".to_vec()))
    }

    #[test]
    fn a_picture_waits_for_workers_that_are_ending_and_is_not_denied_for_them() {
        let dir = tempfile::tempdir().unwrap();
        let mut workers = workers(dir.path(), "exec sleep 600");
        for id in 0..ENDING_MAX as u64 {
            // It is ending, and takes its time.
            assert!(workers.start(id, JOB, picture()));
            workers.ending.push(workers.running.take().unwrap().worker.process);
        }
        assert!(workers.start(100, JOB, picture()) && workers.running.is_none());
        workers.stop(100);
        assert!(workers.waiting.is_none(), "nobody waits for it any more");
        assert!(workers.start(101, JOB, picture()));
        assert!(workers.ended().is_none() && workers.running.is_none());
        workers.ending.first_mut().unwrap().end();
        let id = until(|| {
            assert!(workers.ended().is_none());
            workers.running.as_ref().map(|running| running.id)
        });
        assert_eq!(id, 101);
    }

    #[test]
    fn a_worker_that_is_killed_for_memory_is_told_from_one_that_is_killed_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        let group = dir.path().join("group");
        fs::create_dir(&group).unwrap();
        let ends = |killed: u64, by: &str| {
            let events = |count: u64| format!("oom 9\noom_kill {count}\n");
            fs::write(group.join("memory.events"), events(4)).unwrap();
            // What the kernel does: it counts, then kills.
            let counts = format!("printf 'oom 9\\noom_kill {killed}\\n' > \"$4/memory.events\"");
            let program = Program::shell(dir.path(), &format!("{counts}\n{by}"));
            let mut program = program.in_cgroup(group.clone());
            let mut worker = Worker::start(&mut program, JOB, b"picture").unwrap();
            until(|| worker.outcome(policy::language::MediaType::ImagePng)).unwrap_err()
        };
        assert_eq!(ends(5, "kill -9 $$"), Rejected::TooMuchMemory);
        assert_eq!(ends(4, "kill -9 $$"), Rejected::NotDecoded);
        assert_eq!(ends(5, "exit 1"), Rejected::NotDecoded);
    }
}
