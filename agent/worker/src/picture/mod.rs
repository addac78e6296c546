//! Decodes one picture that a guest copied, in a process that sees nothing but it.
//!
//! Its job is its standard input and its answer its standard output, two files in memory of which one cannot be changed and the other neither grows nor shrinks;
//! the agent reads the answer when it has ended.

pub(crate) mod calls;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;

use sandboxing::Limits;
use worker_link::{ANSWER_HEADER, Answer, CONTENT_MAX, JOB_HEADER, Job, MEMORY_MAX, TIME_MAX};

use super::enclosure::{Arguments, Enclosed, THREADS_MAX};
use super::{WorkerError, step};

use calls::calls;

/// File descriptors: the standard streams, what they are copied to, and the one that Landlock is set up by.
const FILES_MAX: u64 = 8;
const JOB_BYTES: u64 = JOB_HEADER as u64;
const ANSWER_BYTES: u64 = ANSWER_HEADER as u64;

pub(super) fn run(arguments: &Arguments) -> Result<(), WorkerError> {
    let limits = Limits {
        file_bytes: u64::from(CONTENT_MAX) + ANSWER_BYTES,
        files: FILES_MAX,
        memory: Some(MEMORY_MAX),
        processor_time: Some(TIME_MAX.as_secs()),
        // It has one, and no call that makes another.
        threads: Some(THREADS_MAX),
    };
    let (job, answer) = Enclosed::enter(arguments, &limits)?.filter(&calls(), &[])?;
    decode(job.into(), &answer.into())
}

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
