//! What the filter lets through, tried under it alone: no other layer is closed.

use std::fs::File;
use std::io::{IoSlice, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream;
use std::process::Command as Program;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::{prctl, signal};
use nix::unistd::Pid;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SocketFlags, SocketType, sendmsg,
    socketpair,
};
use sandboxing::libc;

use super::*;
use crate::filter_tests::{self, Deed, load, tried};

fn stream() -> BorrowedFd<'static> {
    rustix::stdio::stdin()
}

fn channel() -> BorrowedFd<'static> {
    rustix::stdio::stdout()
}

fn hole(content: &File) -> nix::Result<()> {
    let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(content, hole, 0, CONTENT_MAX.into())
}

fn sends_a_descriptor() {
    let files = [stream()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&files)));
    let flags = SendFlags::NOSIGNAL;
    tried(sendmsg(channel(), &[IoSlice::new(b"take this")], &mut ancillary, flags));
}

fn receives_a_descriptor() {
    let mut bytes = [0; 8];
    let mut none = RecvAncillaryBuffer::default();
    let mut buffer = [IoSliceMut::new(&mut bytes)];
    tried(recvmsg(channel(), &mut buffer, &mut none, RecvFlags::DONTWAIT));
}

/// With the file for content.
const DEEDS: &[Deed<File>] = &[
    ("nothing", |_| {}, true),
    ("read the guest's stream", |_| tried(take(stream(), &mut [0; 8]).unwrap()), true),
    ("look for a command", |_| tried(command(channel()).unwrap()), true),
    ("say what it read", |_| tried(send(channel(), b"said", SendFlags::NOSIGNAL).unwrap()), true),
    ("write content", |content| content.write_all_at(b"text", 3).unwrap(), true),
    ("give the memory of content back", |content| hole(&content).unwrap(), true),
    ("wait a moment", |_| tried(wait(stream(), channel(), Time::from_millis(1)).unwrap()), true),
    ("allocate memory", |_| assert_eq!(vec![1u8; 8 << 20].last(), Some(&1)), true),
    ("know the time", |_| tried(now()), true),
    ("know another's processor time", |_| tried(filter_tests::time_of_another().unwrap()), false),
    ("write to the guest", |_| tried(rustix::io::write(stream(), b"text")), false),
    ("send to the guest", |_| tried(send(stream(), b"text", SendFlags::NOSIGNAL)), false),
    ("send in haste", |_| tried(send(channel(), b"x", SendFlags::DONTWAIT)), false),
    ("write to the channel", |_| tried(rustix::io::write(channel(), b"text")), false),
    ("read the channel as a file", |_| tried(rustix::io::read(channel(), &mut [0; 8])), false),
    (
        "take the guest's bytes as commands",
        |_| tried(recv(stream(), &mut [0; 8], RecvFlags::DONTWAIT)),
        false,
    ),
    (
        "end the guest's stream",
        |_| tried(rustix::net::shutdown(stream(), rustix::net::Shutdown::Both)),
        false,
    ),
    ("have the agent's writes wait", |_| tried(rustix::io::ioctl_fionbio(stream(), false)), false),
    ("pass a descriptor on", |_| sends_a_descriptor(), false),
    ("receive a descriptor", |_| receives_a_descriptor(), false),
    ("copy a descriptor", |content| tried(content.try_clone()), false),
    ("make its file longer", |content| tried(content.set_len(1 << 30)), false),
    (
        "have memory for its file",
        |content| tried(fallocate(&content, FallocateFlags::empty(), 0, 4096)),
        false,
    ),
    ("open a file", |_| tried(File::open("/etc/hostname")), false),
    ("make a socket", |_| tried(UnixStream::pair()), false),
    ("start a thread", |_| tried(std::thread::Builder::new().spawn(|| ())), false),
    ("start a process", |_| tried(Program::new("/bin/true").status()), false),
    ("ask for a process", |_| tried(signal::kill(Pid::this(), None)), false),
    ("be dumped", |_| tried(prctl::set_dumpable(true)), false),
    ("take its death signal back", |_| tried(prctl::set_pdeathsig(None)), false),
    ("sleep", |_| std::thread::sleep(Time::from_millis(1)), false),
];

/// Starts a child with a guest that has said something, and an agent that has as well.
fn started(child: &mut Program) {
    let (mut guest, stream) = UnixStream::pair().unwrap();
    guest.write_all(b"something").unwrap();
    let flags = SocketFlags::CLOEXEC;
    let (agent, channel) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    send(&agent, &Command::Forget { number: 7 }.message(), SendFlags::NOSIGNAL).unwrap();
    // The child is waited for: they are open as long as it lives.
    OPEN.with_borrow_mut(|open| *open = vec![guest.into(), agent]);
    child.stdin(OwnedFd::from(stream)).stdout(channel);
}

thread_local! {
    static OPEN: std::cell::RefCell<Vec<OwnedFd>> = const { std::cell::RefCell::new(Vec::new()) };
}

#[test]
fn the_reader_of_a_guest_reads_it_and_tells_the_agent_and_dies_of_anything_else() {
    let name = "clipboard::tests::the_reader_of_a_guest_reads_it_and_tells_the_agent_and_dies_of_anything_else";
    let content = || tempfile::tempfile().unwrap();
    filter_tests::does_what_it_may(name, || load(&calls()), DEEDS, content, started);
}

/// Calls of its own that it may make with nothing in their arguments.
const WITH_NOTHING: [i64; 4] =
    [libc::SYS_read, libc::SYS_pwrite64, libc::SYS_poll, libc::SYS_restart_syscall];

#[test]
fn the_reader_of_a_guest_dies_of_every_system_call_that_is_not_on_its_list() {
    let name =
        "clipboard::tests::the_reader_of_a_guest_dies_of_every_system_call_that_is_not_on_its_list";
    filter_tests::dies_of_every_other_call(name, || load(&calls()), &WITH_NOTHING);
}

#[test]
fn the_memory_of_content_is_given_back_when_nobody_wants_it_any_more_and_no_sooner() {
    let content = File::from(memfd_create("content", MFdFlags::MFD_CLOEXEC).unwrap());
    content.set_len(CONTENT_MAX.into()).unwrap();
    let seen = content.try_clone().unwrap();
    let holds = || {
        let mut text = [0; 4];
        seen.read_exact_at(&mut text, 0).unwrap();
        assert_eq!(seen.metadata().unwrap().len(), u64::from(CONTENT_MAX));
        text == *b"text"
    };
    let mut outlet = Outlet { channel: channel(), content, last: 0, holds: false };
    for (number, command, kept) in [
        (1, Command::GiveUp { number: 1 }, false),
        (2, Command::Forget { number: 2 }, false),
        (3, Command::Expect { number: 4, most: 7 }, false),
        (5, Command::GiveUp { number: 4 }, true),
        (6, Command::Forget { number: 5 }, true),
    ] {
        outlet.told(Command::Expect { number, most: CONTENT_MAX }).unwrap();
        outlet.content(0, b"text").unwrap();
        assert!(holds());
        outlet.told(command).unwrap();
        assert_eq!(holds(), kept, "{command:?}");
        outlet.told(Command::Expect { number: number + 1, most: CONTENT_MAX }).unwrap();
        assert_eq!(seen.metadata().unwrap().blocks(), 0, "what was there goes before the next");
    }
}

#[test]
fn what_comes_first_brings_the_file_for_content_or_the_worker_knows_no_job() {
    let pair = || {
        let flags = SocketFlags::CLOEXEC;
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
    };
    let begins = |message: &[u8], with: bool| {
        let (agent, worker) = pair();
        let file = tempfile::tempfile().unwrap();
        let files = [file.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if with {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(&files)));
        }
        sendmsg(&agent, &[IoSlice::new(message)], &mut ancillary, SendFlags::NOSIGNAL).unwrap();
        start(worker.as_fd())
    };
    begins(&START, true).unwrap().write_all_at(b"x", 0).unwrap();
    for (message, with) in [(&START[..], false), (b"BHCLIP02", true), (b"BH", true)] {
        assert!(matches!(begins(message, with), Err(WorkerError::NoJob(_))), "{message:?}");
    }
}
