//! The escape tool: what somebody who has taken a thread of a VMM over tries in place of the device code,
//! in the real sandbox of a real machine with every device. Which function of the PC's is passed through is
//! said by the environment ([`FUNCTION`]); without it none is, and of [`function`] it is only seen which filter ends what.
//!
//! The machine is put together and closed in, as always. Then each attempt runs in a process of its own,
//! forked from it with all its descriptors: once with the filter of each role, where it must end as
//! [`attempts`] say, and once with none, which shows what the other layers stop. [`limits`] tries every
//! system call number, and every argument next to one that is allowed. `docs/design/sandbox.md` is made from both.
//!
//! In the simulated ward PC, which has functions to pass through, this test runs with one and without the walk
//! of [`limits`] (`tests/tests/ward_pc/escape.rs`).
//!
//! The machine is a child process of the test, because a sandbox cannot be left again; the test itself,
//! root's and outside, is whom it tries to reach.

mod attempts;
mod deeds;
mod document;
mod function;
mod limits;

use std::fmt;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork, getppid};
use virtio::GuestMemory;
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use super::{Role, build, roles, signals};
use crate::sandbox;
use function::Function;
use limits::Allowlist;

const CHILD: &str = "BULKHEAD_TEST_ESCAPE_DIR";
/// The PCI address of the function that the machine is to have. It is bound to vfio-pci.
const FUNCTION: &str = "BULKHEAD_TEST_ESCAPE_FUNCTION";
/// Set to leave out the walk over numbers and arguments, which takes ten thousand processes.
const WITHOUT_WALK: &str = "BULKHEAD_TEST_ESCAPE_WITHOUT_WALK";
const NAME: &str =
    "machine::escape::whoever_takes_over_a_thread_of_a_vmm_finds_no_way_out_in_any_role";
/// Seconds that one attempt may take.
const PATIENCE: u32 = 20;
/// An abstract name that is listened on outside of the VMM.
const ABSTRACT: &[u8] = b"bulkhead-escape";

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It got what it wanted.
    Out,
    /// The kernel said no.
    Refused(Errno),
    /// It was the end of the process.
    Died(Signal),
}

/// Of a call that the filter forbids.
const FORBIDDEN: Verdict = Verdict::Died(Signal::SIGSYS);

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Out => f.write_str("passes"),
            Self::Refused(errno) => write!(f, "{errno:?}"),
            Self::Died(signal) => write!(f, "{signal}"),
        }
    }
}

/// What there is to reach, from inside.
struct World {
    /// A process of root's, outside.
    victim: i32,
    /// Every descriptor of the machine's.
    open: Vec<RawFd>,
    disk: RawFd,
    tap: RawFd,
    listener: RawFd,
    /// A connected socket, on which a descriptor of a directory of the host's waits.
    given: RawFd,
    function: Function,
}

/// How many processes tried something.
static TRIED: AtomicUsize = AtomicUsize::new(0);

/// Does `deed` in a process of its own, after `prepare`.
fn attempt(prepare: impl FnOnce(), deed: impl FnOnce() -> Result<(), Errno>) -> Verdict {
    TRIED.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the child uses memory of its own, of which no other thread holds a lock: there is none.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            nix::unistd::alarm::set(PATIENCE);
            prepare();
            let code = deed().map_or_else(|errno| errno as i32, |()| 0);
            // SAFETY: ends the process.
            unsafe { libc::_exit(code) }
        }
        ForkResult::Parent { child } => match waitpid(child, None).unwrap() {
            WaitStatus::Exited(_, 0) => Verdict::Out,
            WaitStatus::Exited(_, code) => Verdict::Refused(Errno::from_raw(code)),
            WaitStatus::Signaled(_, signal, _) => Verdict::Died(signal),
            other => panic!("{other:?}"),
        },
    }
}

// Shows: K-1.3.3.
#[test]
fn whoever_takes_over_a_thread_of_a_vmm_finds_no_way_out_in_any_role() {
    if let Some(dir) = std::env::var_os(CHILD) {
        return tool(Path::new(&dir));
    }
    if !nix::unistd::geteuid().is_root() || !Path::new("/dev/kvm").exists() {
        eprintln!("not tested: it takes root and /dev/kvm");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    roles::lay_out(dir.path());
    let output = Command::new(std::env::current_exe().unwrap())
        .args([NAME, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, dir.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    eprint!("{said}");
    assert!(output.status.success(), "{}", output.status);
    // A tool that tried nothing found nothing either.
    let walked = is_walking() == said.contains(WALKED);
    assert!(walked && said.contains(FINISHED), "it did not make every attempt");
}

/// Said by a tool that made every attempt.
const FINISHED: &str = "escape tool: every attempt was made";
/// Said besides by one that tried every number and argument.
const WALKED: &str = "escape tool: every number and argument was tried";

fn is_walking() -> bool {
    std::env::var_os(WITHOUT_WALK).is_none()
}

/// Runs the tool: a machine that is closed in, and everything tried in it. What it finds it says.
fn tool(dir: &Path) {
    let mut stderr = std::io::stderr();
    roles::own_network();
    signals::block().unwrap();
    let mut spec = roles::vm_spec(dir);
    let address = std::env::var(FUNCTION).ok();
    if let Some(address) = &address {
        spec.vfio.push(address.parse().unwrap());
    }
    let machine = build::build(&spec).unwrap();
    keep_from_attempts(&machine.memory);
    let _outside = listen_on_abstract_name();
    let world = World::look_around(dir, address.as_deref());
    sandbox::enter(&spec.sandbox, machine.file_bytes_max).unwrap();
    if !world.function.stands_in {
        let function = &world.function;
        writeln!(stderr, "escape tool: the machine has the function {function}").unwrap();
    }

    let mut found = Vec::new();
    for role in Role::ALL {
        let lists = Allowlist::of(role);
        found.extend(attempts::findings(&world, role, &lists));
    }
    found.extend(attempts::findings_without_filter(&world));
    found.extend(function::planted(&world));
    if is_walking() {
        for role in Role::ALL {
            found.extend(limits::findings(role, &Allowlist::of(role)));
        }
        found.extend(planted(&world));
        writeln!(stderr, "{WALKED}").unwrap();
    }
    for finding in &found {
        writeln!(stderr, "{finding}").unwrap();
    }
    let processes = TRIED.load(Ordering::Relaxed);
    writeln!(stderr, "{FINISHED}, by {processes} processes").unwrap();
    std::process::exit(i32::from(!found.is_empty()));
}

/// Keeps the guest's memory out of the attempts' processes. The IOMMU of a function pins it, and what is pinned is
/// copied for every process that is forked.
fn keep_from_attempts(memory: &GuestMemory) {
    for region in memory.iter() {
        let length = usize::try_from(region.len()).unwrap();
        // SAFETY: it stays as it is for this process; no other uses it.
        let kept = unsafe { libc::madvise(region.as_ptr().cast(), length, libc::MADV_DONTFORK) };
        assert_eq!(kept, 0, "{}", Errno::last());
    }
}

/// Tries whether the tool notices filters that are wider than they should be; returns what it does not notice.
fn planted(world: &World) -> Vec<String> {
    let mut unnoticed = Vec::new();
    for role in Role::ALL {
        for (what, lists) in limits::widened(role) {
            if limits::findings_at(role, &lists, &what).next().is_none() {
                unnoticed
                    .push(format!("{role:?}: nobody notices a filter that is wider by {what}"));
            }
        }
        for (call, number) in attempts::PLANTED {
            let lists = Allowlist::of(role).with(*number);
            if attempts::findings(world, role, &lists).next().is_none() {
                unnoticed.push(format!("{role:?}: no attempt notices a filter that allows {call}"));
            }
        }
    }
    unnoticed
}

fn listen_on_abstract_name() -> UnixListener {
    UnixListener::bind_addr(&SocketAddr::from_abstract_name(ABSTRACT).unwrap()).unwrap()
}

impl World {
    /// Finds what is there, while there is a `/proc` to look into.
    fn look_around(dir: &Path, function: Option<&str>) -> Self {
        let (given, giver) = UnixDatagram::pair().unwrap();
        let directory =
            nix::fcntl::open("/etc", OFlag::O_DIRECTORY | OFlag::O_RDONLY, Mode::empty()).unwrap();
        giver.send_with_fd(&b"a directory"[..], directory.as_raw_fd()).unwrap();
        drop(directory);
        let given = OwnedFd::from(given).into_raw_fd();
        std::mem::forget(giver);

        let open: Vec<(RawFd, std::path::PathBuf)> = std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter_map(|entry| {
                let number = entry.file_name().to_str()?.parse().ok()?;
                Some((number, std::fs::read_link(entry.path()).ok()?))
            })
            .filter(|(_, what)| !what.starts_with("/proc"))
            .collect();
        let at =
            |path: &Path| open.iter().find(|(_, what)| what == path).map(|(number, _)| *number);
        // The first listener there is: the machine's own are among its subscribers.
        let listening = |number: &RawFd| {
            // SAFETY: it is open, and stays so.
            let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(*number) };
            nix::sys::socket::getsockopt(&fd.as_fd(), nix::sys::socket::sockopt::AcceptConn)
                == Ok(true)
        };
        Self {
            victim: getppid().as_raw(),
            disk: at(&dir.join("disk")).unwrap(),
            tap: at(Path::new("/dev/net/tun")).unwrap(),
            listener: open.iter().map(|(number, _)| *number).find(listening).unwrap(),
            given,
            function: function
                .map_or_else(Function::stand_in, |address| Function::find(address, &open)),
            open: open.into_iter().map(|(number, _)| number).collect(),
        }
    }
}
