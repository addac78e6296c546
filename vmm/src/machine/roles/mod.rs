//! Every device of a machine, driven from a thread of every role that reaches it, in the closed
//! sandbox, each thread with its filter on: what a filter forgets ends the process.
//!
//! The machine is a child process, because a sandbox cannot be left again. The test is its agent,
//! its clients and its peers. Passed-through functions are not here: the simulated ward PC has them.

mod driver;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use clap::Parser;
use event_manager::EventManager;
use ratelimit::Rate;
use seat_link::{Channel, PACKET_MAX, Size, ToVmm};
use tracing::level_filters::LevelFilter;
use vmm_control::VmSpec;

use super::build::{self, Machine};
use super::devices::KINDS;
use super::{Role, Subscriber};
use crate::boot::tests::pvh_elf;
use crate::cli::{Cli, Command as CliCommand};
use crate::port_io::PortBus;
use crate::sandbox;
use crate::serial::LOG_MAX;
pub(super) use driver::BUFFER;
use driver::{Driver, bar, config, functions};

const CHILD: &str = "BULKHEAD_TEST_MACHINE_DIR";
/// Said by the machine when it is closed in.
const CLOSED: &str = "the sandbox is closed around thread ";
/// Times that the guest is reset in between.
const ROUNDS: u32 = 2;
/// Resets of each device while it is at work, a round.
const RESETS_AT_WORK: usize = 10;
/// Random accesses of a round.
const ACCESSES: usize = 10_000;
const DEADLINE: Duration = Duration::from_secs(300);

/// A boot payload of one instruction, an endless loop (`jmp $`).
const PAYLOAD: &[u8] = &[0xeb, 0xfe];

#[test]
fn every_device_works_from_every_thread_that_reaches_it_under_that_threads_filter() {
    if let Some(dir) = std::env::var_os(CHILD) {
        return machine(Path::new(&dir));
    }
    if !nix::unistd::geteuid().is_root() || !Path::new("/dev/kvm").exists() {
        eprintln!("not tested: it takes root and /dev/kvm");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    lay_out(dir.path());

    let (mut said, stderr) = UnixStream::pair().unwrap();
    let name = "machine::roles::every_device_works_from_every_thread_that_reaches_it_under_that_threads_filter";
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(OwnedFd::from(stderr))
        .spawn()
        .unwrap();

    let mut log = String::new();
    said.set_read_timeout(Some(DEADLINE)).unwrap();
    read_until(&mut said, &mut log, CLOSED);
    let thread: String = log.rsplit(CLOSED).next().unwrap().lines().take(1).collect();
    let place = format!("/proc/{}/task/{thread}/mountinfo", child.id());
    let mounts = std::fs::read_to_string(place).unwrap();
    assert_eq!(mounts.lines().count(), 1, "its only mount is its root: {mounts}");
    assert!(mounts.contains(" / / ") && mounts.contains("tmpfs"), "{mounts}");

    let mut agent = next_agent(dir.path()).unwrap();
    let mut clients: Vec<_> = ["api", "port", "usb"]
        .map(|name| UnixStream::connect(dir.path().join(name)).unwrap())
        .into();
    said.write_all(b"go").unwrap();
    said.set_nonblocking(true).unwrap();
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if started.elapsed() > DEADLINE {
            child.kill().unwrap();
        }
        be_the_rest_of_the_world(&agent, &mut clients, dir.path());
        // Agents die, and others come; too many may wait already, or the machine be at its end.
        if let Some(next) = next_agent(dir.path()) {
            agent = next;
        }
        let mut chunk = [0; 65536];
        if let Ok(count) = said.read(&mut chunk) {
            log += &String::from_utf8_lossy(&chunk[..count]);
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    assert!(status.success(), "{status}\n{log}");
    let serial = std::fs::read(dir.path().join("serial")).unwrap();
    let serial = String::from_utf8_lossy(&serial);
    assert!(
        serial.contains("starts over here]\n") && serial.contains("guest prints"),
        "{}",
        serial.len()
    );
    // The fault that a driver made was said from the threads that found it.
    for device in ["virtio-blk", "virtio-gpu", "virtio-net"] {
        assert!(log.contains(device), "{device} is not in\n{log}");
    }
}

/// Lays out the files of a machine.
pub(super) fn lay_out(dir: &Path) {
    let at = |name: &str| dir.join(name);
    std::fs::write(at("kernel"), pvh_elf(0x10_0000, PAYLOAD, 0x1000)).unwrap();
    for disk in ["disk", "readonly"] {
        std::fs::File::create(at(disk)).unwrap().set_len(4 << 20).unwrap();
    }
    // A log that is full: the next byte starts it over.
    std::fs::File::create(at("serial")).unwrap().set_len(LOG_MAX - 5).unwrap();
}

/// Makes a network of this thread's own, with the machine's tap.
pub(super) fn own_network() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    make_tap("tap0").unwrap();
    let status = Command::new("ip").args(["link", "set", "tap0", "up"]).status().unwrap();
    assert!(status.success(), "the tap is not up");
}

/// Makes a tap that stays (linux/if_tun.h), which the simulated ward PC has no command for.
fn make_tap(name: &str) -> std::io::Result<()> {
    const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
    const TUNSETPERSIST: libc::c_ulong = 0x4004_54cb;
    let file = std::fs::File::options().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: a zeroed request is a valid one; the kernel reads and writes only this structure.
    let (set, kept) = unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as i16;
        let set = libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request);
        (set, libc::ioctl(file.as_raw_fd(), TUNSETPERSIST, 1))
    };
    if set < 0 || kept < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

fn read_until(from: &mut UnixStream, log: &mut String, text: &str) {
    let mut chunk = [0; 4096];
    while !(log.contains(text) && log.ends_with('\n')) {
        let count = from.read(&mut chunk).unwrap_or(0);
        assert!(count > 0, "the machine did not start:\n{log}");
        *log += &String::from_utf8_lossy(&chunk[..count]);
    }
}

/// Connects an agent that takes the seat and gives the guest a screen.
fn next_agent(dir: &Path) -> Option<Channel> {
    let agent = Channel::new(seat_link::connect(&dir.join("seat")).ok()?).unwrap();
    let size = Size { width: 640, height: 480 };
    let flags = nix::sys::memfd::MFdFlags::MFD_CLOEXEC;
    let frame = std::fs::File::from(nix::sys::memfd::memfd_create("frame", flags).unwrap());
    frame.set_len(size.frame_bytes() as u64).unwrap();
    // The machine may have ended since it was connected to.
    agent.send_file(&ToVmm::Display(size).encode(), frame.as_fd()).ok()?;
    Some(agent)
}

/// Does what the agent, clients and peers do: take updates, send input, come, send, read and go.
fn be_the_rest_of_the_world(agent: &Channel, clients: &mut [UnixStream], dir: &Path) {
    let mut packet = Box::new([0; PACKET_MAX]);
    while let Ok(seat_link::Packet::Message(..)) = agent.receive(&mut packet) {
        let _ = agent.send(&ToVmm::UpdateAck.encode());
    }
    let _ = agent.send(&ToVmm::ReleaseAll.encode());
    let hello: [&[u8]; 3] = [b"{\"command\":\"status\"}\nnonsense\n", b"to the guest", b"nonsense"];
    for ((client, name), text) in clients.iter_mut().zip(["api", "port", "usb"]).zip(hello) {
        client.set_nonblocking(true).unwrap();
        let _ = client.write_all(text);
        let mut answer = [0; 4096];
        let _ = client.read(&mut answer);
        let _ = client.shutdown(Shutdown::Write);
        // It may be full, or the machine at its end.
        if let Ok(next) = UnixStream::connect(dir.join(name)) {
            *client = next;
        }
    }
}

/// Runs the machine: its own threads, vCPUs in an endless loop, and one thread that does what a
/// vCPU's exits lead to.
fn machine(dir: &Path) {
    own_network();
    crate::allocator::share_one_heap();
    logging::install_panic_hook("machine");
    logging::init(LevelFilter::DEBUG, Rate { burst: 64, every: Duration::from_secs(1) }).unwrap();
    let spec = vm_spec(dir);
    let mut machine = build::build(&spec).unwrap();
    let mut running = machine.start(&spec).unwrap();
    let turns = Arc::new(Turns::default());
    let guest = {
        let (turns, sandbox) = (Arc::clone(&turns), spec.sandbox.clone());
        let (bus, memory) = (Arc::clone(&machine.pci), machine.memory.clone());
        let ports = Arc::clone(&machine.ports);
        std::thread::Builder::new()
            .name("guest".into())
            .spawn(move || {
                sandbox::filter_thread(&sandbox, Role::Vcpu).unwrap();
                for round in 0..ROUNDS {
                    turns.wait_for(2 * round + 1);
                    drive(&bus, &memory, &ports, round);
                    turns.go_on();
                }
            })
            .unwrap()
    };
    sandbox::filter_thread(&spec.sandbox, Role::Main).unwrap();
    tracing::info!("{CLOSED}{}", nix::unistd::gettid());
    let mut go = [0; 2];
    nix::unistd::read(std::io::stderr(), &mut go).unwrap();

    for round in 0..ROUNDS {
        let entry = machine.load().unwrap();
        running.control.open(Some(entry));
        turns.go_on();
        while turns.current() != 2 * round + 2 {
            assert!(!guest.is_finished(), "the guest's thread ended");
            serve(&machine, &mut running.main);
        }
        running.control.close();
        machine.reset_devices().unwrap();
    }
    guest.join().unwrap();
    running.control.end();
    machine.pci.reset();
    running.device_threads.end(DEADLINE);
    running.log.end(DEADLINE);
    logging::write_last("done\n");
    std::process::exit(0);
}

fn serve(machine: &Machine, main: &mut EventManager<Subscriber>) {
    main.run_with_timeout(5).unwrap();
    // What random writes to the power registers ask for is not done.
    if let Some(crate::vcpu::Event::Failed(why)) = machine.events.take() {
        panic!("{why}");
    }
}

/// Makes a machine with every device there is but passed-through functions, of the files of [`lay_out`].
pub(super) fn vm_spec(dir: &Path) -> VmSpec {
    let at = |name: &str| dir.join(name).display().to_string();
    let arguments = [
        "bulkhead-vmm".into(),
        "run".into(),
        format!("--kernel={}", at("kernel")),
        "--memory=64M".into(),
        "--cpus=2".into(),
        format!("--disk=path={}", at("disk")),
        format!("--disk=path={},readonly", at("readonly")),
        "--net=tap=tap0".into(),
        format!("--serial=file={}", at("serial")),
        format!("--port=name=test,socket={}", at("port")),
        format!("--usb=socket={}", at("usb")),
        format!("--api-socket={}", at("api")),
        format!("--seat=socket={}", at("seat")),
    ];
    match Cli::try_parse_from(arguments).unwrap().command {
        CliCommand::Run(args) => args.spec().unwrap(),
    }
}

/// Whose turn it is: the guest's when it is odd.
#[derive(Default)]
struct Turns {
    turn: AtomicU32,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Turns {
    fn current(&self) -> u32 {
        self.turn.load(Ordering::Acquire)
    }

    fn go_on(&self) {
        let _held = self.lock.lock().unwrap();
        self.turn.fetch_add(1, Ordering::AcqRel);
        self.changed.notify_all();
    }

    fn wait_for(&self, turn: u32) {
        let mut held = self.lock.lock().unwrap();
        while self.current() < turn {
            held = self.changed.wait(held).unwrap();
        }
    }
}

/// Drives everything a vCPU's exits reach: what drivers do, what broken ones do, and then anything.
fn drive(bus: &pci::Bus, memory: &virtio::GuestMemory, ports: &PortBus, round: u32) {
    for byte in b"the guest prints\n" {
        ports.write(crate::layout::port::SERIAL, &[*byte]);
    }
    let mut kinds = Vec::new();
    for function in functions(bus) {
        let Some(mut driver) = Driver::find(bus, memory, function) else { continue };
        kinds.push(driver.kind);
        let requests = requests().find(|requests| requests.kind == driver.kind);
        let Some(requests) = requests else {
            panic!("no requests are known for a device of kind {}", driver.kind)
        };
        driver.start();
        (requests.usual)(&mut driver);
        driver.stop();
        // A device that is at work carries its reset out on the thread that works.
        for _ in 0..RESETS_AT_WORK {
            driver.start();
            for _ in 0..UNANSWERED {
                (requests.unanswered)(&mut driver);
            }
            driver.stop();
        }
        driver.start();
        driver.break_rules();
        driver.start();
    }
    kinds.sort_unstable();
    let mut all: Vec<u16> =
        requests().flat_map(|of| std::iter::repeat_n(of.kind, of.functions)).collect();
    all.sort_unstable();
    assert_eq!(kinds, all, "every virtio device was driven");

    let mut random = Random(u64::from(round) + 1);
    let functions = functions(bus);
    for _ in 0..ACCESSES {
        let function = functions[random.below(functions.len() as u64) as usize];
        let (width, value) = (1 << random.below(3), random.next().to_le_bytes());
        let (at, mut data) = (random.below(0x400), value);
        match random.below(8) {
            // BARs that move, vectors that come and go, memory space that is switched off.
            0 => bus.ecam_write(function + (at & 0xff), &value[..width]),
            1 => bus.ecam_read(function + at, &mut data[..width]),
            2 => ports.write(at as u16, &value[..width]),
            3 => ports.read(at as u16, &mut data[..width]),
            4 => {
                bus.mmio_read(bar(bus, function) + random.below(0x4000), &mut data[..width]);
            }
            _ => {
                bus.mmio_write(bar(bus, function) + random.below(0x4000), &value[..width]);
            }
        }
    }
    assert_ne!(config(bus, functions[0], 0, 2), 0xffff);
}

/// How a driver uses one kind of virtio function.
pub(super) struct Requests {
    /// Its device ID of virtio 1.2 section 5.
    pub(super) kind: u16,
    /// How many of them the machine of [`configuration`] has.
    pub(super) functions: usize,
    /// Makes requests of each sort that the device takes, and one that makes no sense, and waits for the answers.
    pub(super) usual: fn(&mut Driver<'_>),
    /// Makes a request that nobody waits for.
    pub(super) unanswered: fn(&mut Driver<'_>),
}

/// Requests of a row that nobody waits for.
const UNANSWERED: usize = 8;

/// Returns how every kind of virtio function is used.
fn requests() -> impl Iterator<Item = &'static Requests> {
    KINDS.iter().flat_map(|kind| kind.requests)
}

/// Numbers that are the same in every run (Knuth's MMIX generator).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0.rotate_right(29)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
