//! What the filter lets through, tried under it alone: no other layer is closed.

use std::io::Seek as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command as Program;

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::{prctl, signal};
use nix::unistd::Pid;
use sandboxing::libc;
use usbdescriptors::Share;
use worker_link::usb::Speed as LinkSpeed;

use super::*;
use crate::filter_tests::{self, Deed, child, map, tried};

const DATA: i32 = libc::PROT_READ | libc::PROT_WRITE;
const OWN: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;

/// What a worker is given, and who speaks with it from threads that have no filter.
struct Given {
    stream: UnixStream,
    channel: OwnedFd,
    waker: EventFd,
    node: File,
    job: File,
    /// What the agent heard when the worker had done.
    agent: JoinHandle<Vec<Message>>,
}

impl Given {
    fn new() -> Self {
        let (stream, guests) = UnixStream::pair().unwrap();
        stream.set_nonblocking(true).unwrap();
        let (agent, channel) = Agent::pair();
        let pinned = pinned(false);
        let descriptors = [&pinned.device[..], &pinned.configurations[0]].concat();
        let file = |bytes: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            file.rewind().unwrap();
            file
        };
        // It answers as a node does, up to its first request.
        let node = file(&descriptors);
        let job = Job {
            read_only: true,
            speed: LinkSpeed::High,
            share: Share::Whole,
            budget: 1 << 20,
            descriptors,
            others: Vec::new(),
        };
        std::thread::spawn(move || {
            let mut guest = Guest::new(guests);
            let _ = guest.session.send(&Packet { id: 0, body: Body::GetConfiguration });
            while guest.stream.write_all(guest.session.output()).is_ok() {
                let count = guest.session.output().len();
                guest.session.sent(count);
                if guest.hears().is_none() {
                    break;
                }
            }
        });
        let agent = std::thread::spawn(move || {
            agent.tell(Command::Flush);
            agent.tell(Command::Close);
            std::iter::from_fn(|| agent.hears()).collect()
        });
        Self { stream, channel, waker: waker(), node, job: file(&job.write()), agent }
    }
}

/// As the library's thread may: in pieces that are no mapping of their own.
fn uses_memory() {
    let piece = |size: u8| vec![size; 60 << 10];
    std::thread::spawn(move || drop((0..100).map(piece).collect::<Vec<_>>())).join().unwrap();
}

/// The node is a file that is none: the library gets as far as to wait for it, with its thread and its timer, and fails there.
fn opens_a_device(given: Given) {
    let channel = Channel::new(given.channel);
    serve(given.stream, channel, given.waker, given.node.into(), given.job).unwrap();
    let told = given.agent.join().unwrap();
    assert!(
        matches!(&told[..], [Message::Failed(why)] if why.contains("(open)")),
        "the device was opened, or why not is not said: {told:?}"
    );
}

fn serves_a_stick(given: Given) {
    serve_stick(given.stream, given.channel, given.waker).unwrap();
    let told = given.agent.join().unwrap();
    assert!(matches!(told.last(), Some(Message::Detached { .. })), "{told:?}");
}

const DEEDS: &[Deed<Given>] = &[
    ("nothing", |_| {}, true),
    ("serve a stick", serves_a_stick, true),
    ("open a device", opens_a_device, true),
    ("map memory of its own", |_| map(DATA, OWN), true),
    ("start a thread", |_| std::thread::spawn(|| ()).join().unwrap(), true),
    ("have memory in a second thread, and give it back", |_| uses_memory(), true),
    ("map shared memory", |_| map(DATA, libc::MAP_SHARED | libc::MAP_ANONYMOUS), false),
    ("map a file, whichever", |_| map(DATA, libc::MAP_SHARED), false),
    ("map a file for itself, whichever", |_| map(DATA, libc::MAP_PRIVATE), false),
    ("map huge pages", |_| map(DATA, OWN | libc::MAP_HUGETLB), false),
    ("lock memory as it is mapped", |_| map(DATA, OWN | libc::MAP_LOCKED), false),
    ("map a program", |_| map(libc::PROT_READ | libc::PROT_EXEC, OWN), false),
    ("raise a limit", |_| tried(setrlimit(Resource::RLIMIT_CORE, 0, 0)), false),
    ("make a file longer", |given| tried(given.job.set_len(1 << 30)), false),
    ("open a file", |_| tried(File::open("/etc/hostname")), false),
    ("make a socket", |_| tried(UnixStream::pair()), false),
    ("start a process", |_| tried(Program::new("/bin/true").status()), false),
    ("ask for a process", |_| tried(signal::kill(Pid::this(), None)), false),
    ("signal the first process", |_| tried(signal::kill(Pid::from_raw(1), None)), false),
    ("know another's processor time", |_| tried(filter_tests::time_of_another().unwrap()), false),
    ("be dumped", |_| tried(prctl::set_dumpable(true)), false),
    ("take its death signal back", |_| tried(prctl::set_pdeathsig(None)), false),
    ("name itself", |_| tried(prctl::set_name(c"all is well")), true),
    (
        "end one direction of the stream",
        |given| tried(given.stream.shutdown(std::net::Shutdown::Write)),
        false,
    ),
    ("receive descriptors", |given| tried(channel::receive_start(&given.channel)), false),
];

fn load(ioctls: &[(libc::c_ulong, &str)]) {
    sandboxing::refuse(REFUSED).unwrap();
    sandboxing::load(calls::calls().into_iter(), ioctls.iter().map(|(number, _)| *number)).unwrap();
}

#[test]
fn a_worker_serves_its_device_and_dies_of_anything_else() {
    let name = "usb::tests::filter::a_worker_serves_its_device_and_dies_of_anything_else";
    filter_tests::does_what_it_may(name, || load(IOCTLS_OF_A_WHOLE), DEEDS, Given::new, |_| {});
}

/// Calls of its own that it may make with nothing in their arguments, or that are answered as if there were none.
const WITH_NOTHING: [i64; 20] = [
    libc::SYS_poll,
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_lseek,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_clone3,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_exit,
    libc::SYS_sched_yield,
    libc::SYS_clock_gettime,
    libc::SYS_restart_syscall,
];

/// What a worker may not ask of its node, nor of anything else: a number, and for whom.
const FORBIDDEN: [(libc::c_ulong, &str); 14] = [
    (0x8108_551b, "USBDEVFS_DISCONNECT_CLAIM: takes an interface from its driver"),
    (0xc010_5512, "USBDEVFS_IOCTL: speaks to a driver, or has one taken off"),
    (0x5516, "USBDEVFS_DISCONNECT"),
    (0x5517, "USBDEVFS_CONNECT"),
    (0x8004_5518, "USBDEVFS_CLAIM_PORT"),
    (0x8004_5519, "USBDEVFS_RELEASE_PORT"),
    (0x4004_551e, "USBDEVFS_DROP_PRIVILEGES"),
    (0x8008_551c, "USBDEVFS_ALLOC_STREAMS"),
    (0x5521, "USBDEVFS_FORBID_SUSPEND"),
    (0x5523, "USBDEVFS_WAIT_FOR_RESUME"),
    (0x8010_550e, "USBDEVFS_DISCSIGNAL: has signals sent"),
    (0x5412, "TIOCSTI: types into a terminal"),
    (0x5421, "FIONBIO"),
    (0x8004_ae00, "KVM's, whichever"),
];

#[test]
fn a_worker_dies_of_every_request_of_its_node_that_is_not_on_its_list() {
    const CHILD: &str = "BULKHEAD_TEST_REQUEST_OF_A_USB_WORKER";
    if let Ok(which) = std::env::var(CHILD) {
        let (share, number) = which.split_once('/').unwrap();
        load(if share == "whole" { IOCTLS_OF_A_WHOLE } else { IOCTLS_OF_A_PART });
        let _ = sandboxing::attempt_ioctl(number.parse().unwrap());
        std::process::exit(0);
    }
    let name =
        "usb::tests::filter::a_worker_dies_of_every_request_of_its_node_that_is_not_on_its_list";
    let mut cases: Vec<(&str, libc::c_ulong, &str, bool)> = Vec::new();
    for (number, what) in FORBIDDEN {
        cases.extend([("whole", number, what, false), ("part", number, what, false)]);
    }
    for (number, what) in IOCTLS_OF_A_WHOLE.iter().copied() {
        let of_a_part = IOCTLS_OF_A_PART.iter().any(|(own, _)| *own == number);
        cases.extend([("whole", number, what, true), ("part", number, what, of_a_part)]);
    }
    let whole_only = cases.iter().filter(|(share, _, what, may)| {
        *share == "part" && !may && !FORBIDDEN.iter().any(|(_, forbidden)| forbidden == what)
    });
    assert_eq!(whole_only.count(), 2, "a part is neither reset nor configured");
    for (share, number, what, may) in cases {
        let status = child(name, CHILD, &format!("{share}/{number}")).status().unwrap();
        assert_eq!(status.signal(), (!may).then_some(libc::SIGSYS), "{share}: {what}: {status}");
    }
}

/// What would tell of other processes, have the kernel write what a worker likes, or keep it from being killed.
#[test]
fn what_the_libraries_can_do_without_is_answered_as_by_a_kernel_that_has_it_not() {
    const CHILD: &str = "BULKHEAD_TEST_ANSWERED_TO_A_USB_WORKER";
    let absent = |done: std::io::Result<()>| {
        done.is_err_and(|error| error.raw_os_error() == Some(libc::ENOSYS))
    };
    let ask = || {
        [
            absent(sandboxing::attempt(libc::SYS_sched_getaffinity)),
            prctl::set_name(c"all is well") == Err(nix::errno::Errno::ENOSYS),
            absent(sandboxing::attempt(libc::SYS_clone3)),
            absent(sandboxing::attempt_ioctl(0xc018_5500)),
        ]
    };
    if let Ok(share) = std::env::var(CHILD) {
        assert_eq!(ask(), [false; 4]);
        load(if share == "whole" { IOCTLS_OF_A_WHOLE } else { IOCTLS_OF_A_PART });
        assert_eq!(ask(), [true; 4]);
        // Others of the same call are not answered so: this one has no descriptor.
        assert!(!absent(sandboxing::attempt_ioctl(0x550b)));
        std::process::exit(0);
    }
    let name = "usb::tests::filter::what_the_libraries_can_do_without_is_answered_as_by_a_kernel_that_has_it_not";
    for share in ["whole", "part"] {
        assert!(child(name, CHILD, share).status().unwrap().success(), "{share}");
    }
}

#[test]
fn a_worker_dies_of_every_system_call_that_is_not_on_its_list() {
    let name = "usb::tests::filter::a_worker_dies_of_every_system_call_that_is_not_on_its_list";
    filter_tests::dies_of_every_other_call(name, || load(IOCTLS_OF_A_WHOLE), &WITH_NOTHING);
}
