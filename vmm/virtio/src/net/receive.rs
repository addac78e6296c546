//! Frames from the tap to the guest.
//!
//! A frame is read straight into the guest's first buffer, and what does not fit there into a
//! spill of ours, from which it goes into further buffers if the driver can merge them (virtio 1.2
//! section 5.1.6.4). If those are not there yet the frame is kept, and the tap not read, until
//! they come.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::fd::AsFd;

use super::spec::{HEADER_BYTES, MAX_FRAME, NUM_BUFFERS, RECEIVE_QUEUE};
use super::tap::Tap;
use crate::{Chain, CheckedQueue, Interrupt, Progress, QueueError};

/// The most frames moved before the transmit side has its turn.
const BUDGET: usize = 64;

/// The most buffers one frame is spread over: a small buffer is a driver's choice, and a frame in
/// single bytes not a frame worth having.
const MAX_BUFFERS: usize = 256;

/// The most frames thrown away at the start: twice a tap's default queue length.
const MAX_STALE: usize = 2000;

pub(super) struct Receiver {
    queue: CheckedQueue,
    /// Whether the driver merges buffers.
    mergeable: bool,
    spill: Vec<u8>,
    kept: Option<Kept>,
}

/// A frame that needs more buffers than there were.
struct Kept {
    /// Full ones, and how many bytes are in each.
    chains: VecDeque<(Chain, usize)>,
    /// What is left lies in the spill from here on,
    from: usize,
    /// The end of the used part, excluded.
    to: usize,
}

/// What became of an attempt.
enum Attempt {
    Done,
    NoBuffers,
    NoFrames,
}

impl Receiver {
    pub(super) fn new(queue: CheckedQueue, mergeable: bool) -> Self {
        Self { queue, mergeable, spill: vec![0; HEADER_BYTES + MAX_FRAME], kept: None }
    }

    /// Moves frames while there are both frames and buffers. Both sides tell when there are more.
    pub(super) fn run(
        &mut self,
        tap: &Tap,
        interrupt: &dyn Interrupt,
    ) -> Result<Progress, QueueError> {
        let mut progress = Progress::Unfinished;
        for _ in 0..BUDGET {
            let attempt = if self.kept.is_some() { self.finish()? } else { self.receive(tap)? };
            if !matches!(attempt, Attempt::Done) {
                progress = Progress::Emptied;
                break;
            }
        }
        self.queue.announce(interrupt, RECEIVE_QUEUE)?;
        Ok(progress)
    }

    fn receive(&mut self, tap: &Tap) -> Result<Attempt, QueueError> {
        let Some(chain) = self.queue.pop_or_wait()? else { return Ok(Attempt::NoBuffers) };
        let mut buffer = chain.writer();
        if buffer.left() < HEADER_BYTES {
            return Err(QueueError::Request("a receive buffer too small for a header"));
        }
        match buffer.read_spilling(tap.as_fd(), &mut self.spill) {
            Ok(len) if len > HEADER_BYTES => {
                let first = len.min(chain.writable_len());
                let spilled = len - first;
                if spilled == 0 {
                    set_buffers(&chain, 1)?;
                    self.queue.add_used(chain, first)?;
                } else if self.mergeable {
                    let chains = VecDeque::from([(chain, first)]);
                    self.kept = Some(Kept { chains, from: 0, to: spilled });
                } else {
                    self.queue.put_back(chain); // too long for this driver: dropped
                }
                Ok(Attempt::Done)
            }
            // Shorter than its header is no frame.
            Ok(len) if len > 0 => {
                self.queue.put_back(chain);
                Ok(Attempt::Done)
            }
            result => {
                self.queue.put_back(chain);
                match result {
                    // An interface that is down, or gone, has no frames.
                    Ok(_) => Ok(Attempt::NoFrames),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        Ok(Attempt::NoFrames)
                    }
                    Err(error) => {
                        tracing::debug!(error = &error as &dyn std::error::Error, "tap");
                        Ok(Attempt::NoFrames)
                    }
                }
            }
        }
    }

    /// Goes on with the kept frame.
    fn finish(&mut self) -> Result<Attempt, QueueError> {
        let Some(mut kept) = self.kept.take() else { return Ok(Attempt::Done) };
        while kept.from < kept.to {
            if kept.chains.len() >= MAX_BUFFERS {
                return self.give_up(kept);
            }
            let Some(chain) = self.queue.pop_or_wait()? else {
                self.kept = Some(kept);
                return Ok(Attempt::NoBuffers);
            };
            let len = chain.writable_len().min(kept.to - kept.from);
            let part = self.spill.get(kept.from..kept.from + len).unwrap_or_default();
            let too_small = |_| QueueError::Request("a receive buffer without room");
            chain.writer().write_all(part).map_err(too_small)?;
            kept.from += len;
            kept.chains.push_back((chain, len));
        }
        if let Some((first, _)) = kept.chains.front() {
            set_buffers(first, kept.chains.len())?;
        }
        self.queue.add_used_together(kept.chains)?;
        Ok(Attempt::Done)
    }

    /// Drops the frame; its buffers go back as they are, the last one first.
    fn give_up(&mut self, kept: Kept) -> Result<Attempt, QueueError> {
        for (chain, _) in kept.chains.into_iter().rev() {
            self.queue.put_back(chain);
        }
        Ok(Attempt::Done)
    }

    /// Throws away what the tap holds from before the driver was there.
    pub(super) fn discard(&mut self, tap: &Tap) {
        for _ in 0..MAX_STALE {
            if !matches!(tap.file().read(&mut self.spill), Ok(len) if len > 0) {
                break;
            }
        }
    }
}

fn set_buffers(first: &Chain, count: usize) -> Result<(), QueueError> {
    let small = |_| QueueError::Request("a receive buffer too small for a header");
    let count = u16::try_from(count).unwrap_or(u16::MAX).to_le_bytes();
    let (_, mut field) = first.writer().split_at(NUM_BUFFERS).map_err(small)?;
    field.write_all(&count).map_err(small)
}
