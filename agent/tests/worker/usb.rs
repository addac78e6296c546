//! The role that serves a USB device, in its sandbox. There is no device here: its node is a file, with which the worker gets as far as to ask the first thing of it.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::sys::memfd::{MFdFlags, memfd_create};
use worker_link::usb::{Job, Message, Speed, Start};
use worker_link::{Role, user_of_domain};
use workers::{Channel, Process};

use super::*;

pub(super) const DEVICE: [u8; 18] = [18, 1, 0, 2, 0, 0, 0, 64, 9, 18, 0x42, 0, 0, 1, 0, 0, 0, 1];
/// A card reader.
const CONFIGURATION: [u8; 18] = [9, 2, 18, 0, 1, 1, 0, 0x80, 50, 9, 4, 0, 0, 0, 11, 0, 0, 0];

/// A worker of the first domain's that waits for its job, and what speaks with it.
struct Waiting {
    process: Process,
    channel: Channel,
    job: std::io::PipeWriter,
    vmm: UnixStream,
}

fn node(descriptors: &[u8]) -> OwnedFd {
    let mut file = File::from(memfd_create("bulkhead-node", MFdFlags::MFD_CLOEXEC).unwrap());
    file.write_all(descriptors).unwrap();
    file.rewind().unwrap();
    file.into()
}

/// Starts one whose job comes through a pipe: until it is there, it waits, and has closed its sandbox.
fn waiting(whole: bool) -> Waiting {
    let (stream, vmm) = UnixStream::pair().unwrap();
    stream.set_nonblocking(true).unwrap();
    let (channel, end) = Channel::pair().unwrap();
    let (reader, job) = std::io::pipe().unwrap();
    let node = node(&[&DEVICE[..], &CONFIGURATION].concat());
    channel.send(&Start { whole }.write(), &[node.as_fd(), reader.as_fd()]).unwrap();
    let program = Program::read(&program()).unwrap();
    let user = user_of_domain(0).unwrap();
    let process = Process::start(&program, Role::Usb, user, stream.into(), end).unwrap();
    Waiting { process, channel, job, vmm }
}

/// Waits for the worker's next word; nothing if it has ended.
pub(super) fn hears(channel: &Channel) -> Option<Message> {
    let mut fds = [PollFd::new(channel.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::from(30_000u16)).unwrap(), 1, "it says nothing");
    let bytes = channel.receive().ok()?.unwrap();
    Some(Message::read(&bytes).unwrap())
}

fn job(descriptors: Vec<u8>) -> Vec<u8> {
    let share = usbdescriptors::Share::Whole;
    let (speed, budget, others) = (Speed::Full, 1 << 20, Vec::new());
    Job { read_only: false, speed, share, budget, descriptors, others }.write()
}

#[test]
fn a_worker_that_serves_a_usb_device_is_its_domains_nowhere_and_may_do_nothing_else() {
    // What somebody forgot to close in the agent.
    let leaked = File::open("/etc/hostname").unwrap();
    fcntl(&leaked, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let mut worker = waiting(true);
    drop(leaked);
    let pid = Pid::from_raw(i32::try_from(worker.process.id()).unwrap());
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        assert!(!status.contains("zombie"), "it has ended: {:?}", hears(&worker.channel));
        if field(&status, "Seccomp:") == "2" {
            break;
        }
        assert!(Instant::now() < deadline, "{status}");
        std::thread::sleep(Duration::from_millis(5));
    }
    let limits =
        [("Max file size", 0), ("Max open files", 16), ("Max address space", 512u64 << 20)];
    if is_nobody_nowhere(pid, 63_998, &limits) {
        steps_back(pid);
        let mut sockets = 0;
        let mut devices = 0;
        for name in held(pid) {
            let known =
                ["socket:", "/memfd:bulkhead-node", "pipe:", "anon_inode:[eventfd]", "/dev/null"];
            assert!(known.iter().any(|known| name.starts_with(known)), "it holds {name}");
            sockets += usize::from(name.starts_with("socket:"));
            devices += usize::from(name.starts_with("/memfd:bulkhead-node"));
        }
        // The stream and the channel, each once more as it was started with; one device.
        assert_eq!((sockets, devices), (4, 1));
    }

    // With its job it goes on, in the sandbox: as far as there is a device.
    worker.job.write_all(&job([&DEVICE[..], &CONFIGURATION].concat())).unwrap();
    drop(worker.job);
    let Some(Message::Failed(why)) = hears(&worker.channel) else { panic!("it says nothing") };
    assert!(why.contains("(open)"), "{why}");
    assert_eq!(hears(&worker.channel), None);
    assert!(ended(&mut worker.process).success());
    // Its guest was told nothing.
    assert_eq!(std::io::Read::read(&mut worker.vmm, &mut [0; 8]).unwrap(), 0);
}

pub(super) fn ended(process: &mut Process) -> std::process::ExitStatus {
    let mut fds = [PollFd::new(process.fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::from(30_000u16)).unwrap(), 1, "it does not end");
    process.ended().unwrap().unwrap()
}

#[test]
fn a_device_that_is_not_the_one_that_was_judged_is_not_touched() {
    for (descriptors, says) in [
        // Another product's.
        (
            [&DEVICE[..10], &[0x43], &DEVICE[11..], &CONFIGURATION].concat(),
            "something else of itself",
        ),
        // One that no library is to be given.
        (DEVICE.to_vec(), "does not have the configurations"),
        (Vec::new(), "malformed"),
    ] {
        let worker = waiting(true);
        let Waiting { mut process, channel, mut job, vmm: _vmm } = worker;
        job.write_all(&self::job(descriptors)).unwrap();
        drop(job);
        let Some(Message::Failed(why)) = hears(&channel) else { panic!("it says nothing") };
        assert!(why.contains(says), "{why}");
        assert!(ended(&mut process).success());
    }
}

#[test]
fn what_is_no_job_of_this_version_is_told_from_every_other_end() {
    let Waiting { mut process, channel, mut job, vmm: _vmm } = waiting(false);
    job.write_all(b"a job of another version's").unwrap();
    drop(job);
    assert_eq!(hears(&channel), None);
    assert_eq!(ended(&mut process).code(), Some(i32::from(NO_JOB)));
}

#[test]
fn a_worker_without_its_agent_ends() {
    let Waiting { mut process, channel, job, vmm: _vmm } = waiting(true);
    drop((channel, job));
    assert!(!ended(&mut process).success());
}
