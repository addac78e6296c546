//! Serves one USB device to the VMM of one domain, in a process that has the stream to that VMM, the device's open node, and nothing else.
//!
//! ```text
//!  VMM <-- standard input --> pump: Session <--> Filter <--> Export <--> open node <--> device
//!  agent <-- standard output --> channel: what is served; begun, refused, detached; authorise
//! ```
//! | module | |
//! | --- | --- |
//! | [`channel`] | the agent, as it is heard and told |
//! | [`pump`] | passes packets between the stream, the filter and the device |
//! | [`calls`] | what it may ask of the kernel |
//!
//! What is served comes from the agent, which has opened the node and taken from it all rights over what is not served. The worker decides nothing: it
//! holds guest and device to what was permitted, and says what it saw.

pub(crate) mod calls;
mod channel;
mod pump;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Wake, Waker};

use nix::sys::eventfd::{EfdFlags, EventFd};
use sandboxing::Limits;
use usbexport::{Export, Served};
use usbfilter::{Filter, Pinned, Rules};
use usbredir::packet::Speed;
use worker_link::usb::{JOB_MAX, Job, Message};

use super::enclosure::{Arguments, Enclosed, THREADS_MAX};
use super::{WorkerError, explain, step};

use calls::{IOCTLS_OF_A_PART, IOCTLS_OF_A_WHOLE, REFUSED};

use channel::{AgentsAuthority, Channel};
use pump::Pump;

/// File descriptors: standard streams, what they are copied to, the node twice, the job, and what the threads wait with.
const FILES_MAX: u64 = 16;
/// Address space, in bytes: the program, the reserve of each thread's allocator (128 MiB while it is set up), and many times what may be with the kernel for a device (1 MiB).
const MEMORY_MAX: u64 = 512 << 20;

/// What wakes the thread that serves the device, for the device's transfers.
struct TransferWaker(EventFd);

impl Wake for TransferWaker {
    fn wake(self: Arc<Self>) {
        // A full counter wakes it as well.
        let _ = self.0.write(1);
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<(), WorkerError> {
    let limits = Limits {
        file_bytes: 0,
        files: FILES_MAX,
        memory: Some(MEMORY_MAX),
        // It lives as long as its device is plugged in.
        processor_time: None,
        threads: Some(THREADS_MAX),
    };
    let enclosed = Enclosed::enter(arguments, &limits)?;
    // The agent's word, before there is any other: descriptors are received here and never again.
    let (start, node, job) = channel::receive_start(&enclosed.output)?;
    let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
    let waker = EventFd::from_flags(flags).map_err(step("make what wakes it"))?;
    let ioctls = if start.whole { IOCTLS_OF_A_WHOLE } else { IOCTLS_OF_A_PART };
    let numbers: Vec<_> = ioctls.iter().map(|(number, _)| *number).collect();
    sandboxing::refuse(REFUSED)?;
    let (stream, output) = enclosed.filter(&calls::calls(), &numbers)?;
    serve(stream.into(), Channel::new(output), waker, node, job.into())
}

/// Serves the device until the agent or the VMM ends it, or it ends by itself.
fn serve(
    stream: UnixStream,
    channel: Channel,
    waker: EventFd,
    node: OwnedFd,
    job: File,
) -> Result<(), WorkerError> {
    let mut bytes = Vec::new();
    let most = u64::try_from(JOB_MAX).unwrap_or(u64::MAX);
    job.take(most).read_to_end(&mut bytes).map_err(step("read its job"))?;
    let job = Job::read(&bytes)?;
    let channel = Rc::new(channel);
    let waker = Arc::new(TransferWaker(waker));
    let opened = open(node, job, &channel, Waker::from(Arc::clone(&waker)));
    match opened {
        Ok((filter, export)) => {
            let mut pump = Pump::new(stream, filter, export, Rc::clone(&channel), waker);
            channel.tell(&Message::Begun)?;
            let end = pump.run()?;
            let counts = pump.disconnect();
            channel.tell(&end.detached(counts))?;
            pump.close();
        }
        Err(why) => channel.tell(&Message::Failed(why))?,
    }
    Ok(())
}

/// Has the device, and what holds it and its guest to what was permitted; otherwise why not, in words.
fn open(
    node: OwnedFd,
    job: Job,
    channel: &Rc<Channel>,
    waker: Waker,
) -> Result<(Filter, Export), String> {
    let Job { read_only, speed, share, budget, descriptors, others } = job;
    let read = Pinned::from_sysfs(&descriptors).map_err(|error| error.to_string())?;
    let pinned = Pinned { others, ..read };
    let rules = if read_only { Rules::ReadOnly } else { Rules::Allow };
    let filter = Filter::of(rules, pinned, share.clone()).map_err(|error| error.to_string())?;
    let filter = filter.within(usize::try_from(budget).unwrap_or(usize::MAX));
    let served = Served::new(descriptors, share, speed_of(speed));
    let served = served.map_err(|error| error.to_string())?;
    let authority = Box::new(AgentsAuthority(Rc::clone(channel)));
    // The library takes it for granted that it can start its thread, and panics where the worker's user has as many as it may.
    let opened = catch_unwind(AssertUnwindSafe(|| Export::open(node, served, authority, waker)));
    let export = opened.map_err(|fault| format!("its worker cannot begin: {}", said(&*fault)))?;
    Ok((filter, export.map_err(|error| explain(&error))?))
}

/// Returns what a panic said.
fn said(fault: &(dyn Any + Send)) -> &str {
    let text = fault.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| fault.downcast_ref::<&str>().copied()).unwrap_or("it does not say why")
}

const fn speed_of(speed: worker_link::usb::Speed) -> Speed {
    match speed {
        worker_link::usb::Speed::Unknown => Speed::Unknown,
        worker_link::usb::Speed::Low => Speed::Low,
        worker_link::usb::Speed::Full => Speed::Full,
        worker_link::usb::Speed::High => Speed::High,
        worker_link::usb::Speed::Super => Speed::Super,
    }
}
