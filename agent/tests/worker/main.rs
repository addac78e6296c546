//! `bulkhead-worker` in its sandbox, as the agent starts it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "clippy.toml allows it in tests and does not know that this is one"
)]

#[path = "../artefacts/mod.rs"]
mod artefacts;
mod groups;
mod readers;
mod served;
mod usb;
mod usbfs;

use std::fs;
use std::io::Cursor;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clipboard::service::decoding::Worker;
use clipboard_content::{HELD_MAX, Rejected, Sanitized, declared, picture};
use image::{DynamicImage, ImageFormat};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use policy::language::MediaType;
use worker_link::{Job, Kind, NO_JOB};
use workers::Program;

fn program() -> PathBuf {
    artefacts::program("bulkhead-worker")
}

fn start(kind: Kind, bytes: &[u8], most: u32) -> Worker {
    start_of(&mut Program::read(&program()).unwrap(), kind, bytes, most)
}

fn start_of(program: &mut Program, kind: Kind, bytes: &[u8], most: u32) -> Worker {
    Worker::start(program, Job { kind, most }, bytes).unwrap()
}

fn outcome(mut worker: Worker, kind: Kind) -> Result<Sanitized, Rejected> {
    let mut ended = [PollFd::new(worker.fd(), PollFlags::POLLIN)];
    let found = poll(&mut ended, PollTimeout::from(60_000u16)).unwrap();
    assert_eq!(found, 1, "it does not end");
    worker.outcome(declared(kind)).unwrap()
}

fn decode(kind: Kind, bytes: &[u8]) -> Result<Sanitized, Rejected> {
    outcome(start(kind, bytes, HELD_MAX), kind)
}

fn written(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Vec::new();
    image.write_to(&mut Cursor::new(&mut bytes), format).unwrap();
    bytes
}

/// Makes a picture in which no part looks like another.
fn noise(width: u32, height: u32) -> DynamicImage {
    let mut state = 1u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()
    };
    image::RgbaImage::from_fn(width, height, |_, _| image::Rgba(next())).into()
}

#[test]
fn a_worker_decodes_each_kind_of_picture_in_its_sandbox() {
    let picture = noise(300, 200);
    let opaque = DynamicImage::from(picture.to_rgb8());
    for (kind, format, picture) in [
        (Kind::Png, ImageFormat::Png, &picture),
        (Kind::Bmp, ImageFormat::Bmp, &opaque),
        (Kind::Tiff, ImageFormat::Tiff, &opaque),
        (Kind::Jpeg, ImageFormat::Jpeg, &opaque),
    ] {
        let before = written(picture, format);
        let after = decode(kind, &before).unwrap();
        assert_eq!(after.media_type, MediaType::ImagePng);
        assert!(after.changes.encoded_anew);
        let pixels = |bytes: &[u8]| image::load_from_memory(bytes).unwrap().to_rgba8();
        assert_eq!(pixels(&before), pixels(&after.bytes), "{kind:?}");
    }
    // As large as a screenshot gets, and a PNG of sixteen bits.
    let screenshot = image::RgbImage::from_fn(3840, 2160, |x, y| {
        image::Rgb([x.to_le_bytes()[0], y.to_le_bytes()[0], (x ^ y).to_le_bytes()[0]])
    });
    decode(Kind::Bmp, &written(&screenshot.into(), ImageFormat::Bmp)).unwrap();
    decode(Kind::Png, &written(&picture.to_rgba16().into(), ImageFormat::Png)).unwrap();
}

#[test]
fn a_picture_that_is_none_too_large_or_a_bomb_is_refused_as_what_it_is() {
    let small = written(&noise(8, 8), ImageFormat::Png);
    let not_as_declared = Rejected::NotAsDeclared(MediaType::ImageJpeg);
    assert_eq!(decode(Kind::Jpeg, &small).unwrap_err(), not_as_declared);
    assert_eq!(decode(Kind::Png, &small[..40]).unwrap_err(), Rejected::Damaged);
    assert_eq!(decode(Kind::Png, b"").unwrap_err(), Rejected::NotAsDeclared(MediaType::ImagePng));
    let large =
        outcome(start(Kind::Png, &written(&noise(90, 90), ImageFormat::Png), 1000), Kind::Png);
    assert_eq!(large.unwrap_err(), Rejected::TooLarge);
    // Black, 20,000 by 2,100 pixels, in a hundredth of their size.
    let mut bomb = Vec::new();
    let mut encoder = png::Encoder::new(&mut bomb, 20_000, 2_100);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_compression(png::Compression::Fastest);
    let mut whole = encoder.write_header().unwrap();
    let mut rows = whole.stream_writer().unwrap();
    for _ in 0..2_100 {
        std::io::Write::write_all(&mut rows, &[0; 20_000]).unwrap();
    }
    rows.finish().unwrap();
    whole.finish().unwrap();
    assert!(bomb.len() < 420_000, "{} bytes", bomb.len());
    assert_eq!(decode(Kind::Png, &bomb).unwrap_err(), Rejected::TooLarge);
    // The same pixels, in a picture that says it has others.
    let mut says = |width: u32, height: u32| {
        bomb[16..20].copy_from_slice(&width.to_be_bytes());
        bomb[20..24].copy_from_slice(&height.to_be_bytes());
        let sum = crc32(&bomb[12..29]);
        bomb[29..33].copy_from_slice(&sum.to_be_bytes());
        decode(Kind::Png, &bomb)
    };
    assert_eq!(says(16_384, 2_442).unwrap_err(), Rejected::TooLarge);
    // What there is besides is passed over.
    let after = says(8, 8).unwrap().bytes;
    assert_eq!(image::load_from_memory(&after).unwrap().to_rgba8().dimensions(), (8, 8));
    assert!(after.len() < 200, "{} bytes", after.len());
}

/// PNG (third edition) annex D.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum: u32, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            sum >> 1 ^ (0xedb8_8320 & 0u32.wrapping_sub(sum & 1))
        })
    })
}

/// The decoders take minutes for it as they are built for tests: seen on the programs of scripts/build.
#[test]
fn the_largest_picture_fits_into_a_workers_memory_and_time() {
    if std::env::var_os("BULKHEAD_ARTEFACTS").is_none() {
        return;
    }
    // Sixteen bits, transparent everywhere: decoded as a whole.
    let mut invisible = Vec::new();
    let (width, height) = (6300, 6300);
    let mut encoder = png::Encoder::new(&mut invisible, width, height);
    encoder.set_color(png::ColorType::Rgba);
    encoder.set_depth(png::BitDepth::Sixteen);
    encoder.set_compression(png::Compression::Fastest);
    let mut whole = encoder.write_header().unwrap();
    let mut rows = whole.stream_writer().unwrap();
    let row = vec![0; usize::try_from(width).unwrap() * 8];
    for _ in 0..height {
        std::io::Write::write_all(&mut rows, &row).unwrap();
    }
    rows.finish().unwrap();
    whole.finish().unwrap();
    let jpeg = image::RgbImage::from_pixel(7000, 5700, image::Rgb([200, 100, 50]));
    let jpeg = written(&jpeg.into(), ImageFormat::Jpeg);
    let began = Instant::now();
    assert!(decode(Kind::Png, &invisible).unwrap().changes.made_opaque);
    decode(Kind::Jpeg, &jpeg).unwrap();
    eprintln!("the two largest pictures took {:?}", began.elapsed());
}

fn field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("{status} has no {name}")).trim().to_owned()
}

/// Starts a worker that has much to do, and stops it when its sandbox is closed.
fn stopped_at_work() -> (Worker, Pid) {
    stopped_at_work_of(&mut Program::read(&program()).unwrap())
}

/// A picture that takes 17 MiB as it is copied.
fn large() -> Vec<u8> {
    written(&DynamicImage::from(noise(2400, 2400).to_rgb8()), ImageFormat::Bmp)
}

fn stopped_at_work_of(program: &mut Program) -> (Worker, Pid) {
    let worker = start_of(program, Kind::Bmp, &large(), HELD_MAX);
    let pid = Pid::from_raw(i32::try_from(worker.id()).unwrap());
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        assert!(!status.contains("zombie"), "it ended before it was stopped");
        if field(&status, "Seccomp:") == "2" {
            break;
        }
        assert!(Instant::now() < deadline, "{status}");
    }
    kill(pid, Signal::SIGSTOP).unwrap();
    (worker, pid)
}

#[test]
fn a_worker_at_work_is_nobody_nowhere_and_may_do_nothing() {
    // What somebody forgot to close in the agent.
    let leaked = fs::File::open("/etc/hostname").unwrap();
    fcntl(&leaked, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let (worker, pid) = stopped_at_work();
    drop(leaked);
    let limits = [
        ("Max open files", 8),
        ("Max address space", worker_link::MEMORY_MAX),
        ("Max cpu time", worker_link::TIME_MAX.as_secs()),
    ];
    if is_nobody_nowhere(pid, worker_link::USER, &limits) {
        for name in held(pid) {
            let ours = ["/memfd:bulkhead-picture", "/memfd:bulkhead-answer", "/dev/null"];
            assert!(ours.iter().any(|ours| name.starts_with(ours)), "it holds {name}");
        }
        writes_nothing_but_its_answer(&|name| format!("/proc/{pid}/{name}"));
    }
    drop(worker);
}

/// Shows of a worker whose sandbox is closed what is so of every worker, that it has this number and these limits besides, and one thread. Returns whether all of it was
/// looked at, which takes root.
fn is_nobody_nowhere(pid: Pid, user: u32, limits: &[(&str, u64)]) -> bool {
    let at = |name: &str| format!("/proc/{pid}/{name}");
    let status = fs::read_to_string(at("status")).unwrap();
    assert_eq!(field(&status, "Seccomp:"), "2");
    assert_eq!(field(&status, "NoNewPrivs:"), "1");
    assert_eq!(field(&status, "Threads:"), "1");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(u64::from_str_radix(&field(&status, set), 16), Ok(0), "{set}");
    }
    if !Uid::effective().is_root() {
        return false;
    }
    let user = user.to_string();
    for ids in ["Uid:", "Gid:"] {
        assert!(field(&status, ids).split_whitespace().all(|id| id == user), "{status}");
    }
    assert_eq!(field(&status, "Groups:"), "");
    assert_eq!(u64::from_str_radix(&field(&status, "CapBnd:"), 16), Ok(0));
    let found = fs::read_to_string(at("limits")).unwrap();
    let none = [
        ("Max core file size", 0),
        ("Max processes", 32),
        ("Max locked memory", 0),
        ("Max nice priority", 0),
        ("Max realtime priority", 0),
    ];
    for (limit, most) in none.iter().chain(limits) {
        let line = found.lines().find_map(|line| line.strip_prefix(limit)).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[..2], [most.to_string(), most.to_string()], "{limit}");
    }
    for namespace in ["mnt", "net", "ipc", "uts", "cgroup"] {
        let own = fs::read_link(format!("/proc/self/ns/{namespace}")).unwrap();
        assert_ne!(fs::read_link(at(&format!("ns/{namespace}"))).unwrap(), own);
    }
    assert_eq!(fs::read_dir(at("root")).unwrap().count(), 0, "it sees files");
    assert_eq!(fs::read_to_string(at("oom_score_adj")).unwrap().trim(), "1000");
    true
}

/// Shows of a worker that lives on that it steps back behind others.
fn steps_back(pid: Pid) {
    let behind = (nice(std::process::id()) + 10).min(19);
    assert_eq!(nice(pid), behind, "it wins over the seat where nothing else holds it");
}

/// Returns what a process has open, by name, in order.
fn held(pid: Pid) -> Vec<String> {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let mut held: Vec<String> =
        fds.map(|fd| fs::read_link(fd.unwrap().path()).unwrap().display().to_string()).collect();
    held.sort();
    held
}

/// A worker may write into any descriptor that it has: its job takes nothing, and its answer nothing behind its end.
fn writes_nothing_but_its_answer(at: &dyn Fn(&str) -> String) {
    let open = |fd: u32| fs::OpenOptions::new().write(true).open(at(&format!("fd/{fd}"))).unwrap();
    let (job, answer) = (open(0), open(1));
    let refused = |done: std::io::Result<usize>| done.unwrap_err().raw_os_error();
    assert_eq!(refused(job.write_at(b"x", 0)), Some(Errno::EPERM as i32));
    let end = answer.metadata().unwrap().len();
    assert_eq!(answer.write_at(b"x", end - 1).unwrap(), 1);
    assert_eq!(refused(answer.write_at(b"x", end)), Some(Errno::EPERM as i32));
    assert!(answer.set_len(end + 1).is_err() && answer.set_len(0).is_err());
}

#[test]
fn a_worker_killed_in_the_middle_of_a_picture_denies_that_picture_and_no_other() {
    let (worker, pid) = stopped_at_work();
    kill(pid, Signal::SIGKILL).unwrap();
    assert_eq!(outcome(worker, Kind::Bmp).unwrap_err(), Rejected::NotDecoded);
    decode(Kind::Png, &written(&noise(20, 20), ImageFormat::Png)).unwrap();
}

#[test]
fn a_worker_that_nobody_waits_for_any_more_is_gone() {
    let (worker, pid) = stopped_at_work();
    drop(worker);
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if stat.is_empty() || stat.contains(") Z ") {
            return;
        }
        assert!(Instant::now() < deadline, "{stat}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs itself as an agent that is killed.
#[test]
fn a_worker_ends_with_its_agent_even_while_it_is_stopped() {
    const CHILD: &str = "BULKHEAD_TEST_AGENT_OF_A_WORKER";
    if let Some(file) = std::env::var_os(CHILD) {
        let (_worker, pid) = stopped_at_work();
        fs::write(&file, format!("{pid}\n")).unwrap();
        std::thread::sleep(Duration::from_secs(60));
        return;
    }
    // The worker is left to this process: to one of another session its group would be an orphan, and the kernel would end it for being stopped.
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let told = dir.path().join("pid");
    let mut agent = Command::new(std::env::current_exe().unwrap())
        .args(["a_worker_ends_with_its_agent_even_while_it_is_stopped", "--exact"])
        .env(CHILD, &told)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let wait = || {
        assert!(Instant::now() < deadline, "it does not happen");
        std::thread::sleep(Duration::from_millis(5));
    };
    let pid = loop {
        match fs::read_to_string(&told) {
            Ok(text) if text.ends_with('\n') => break text.trim().to_owned(),
            _ => wait(),
        }
    };
    agent.kill().unwrap();
    agent.wait().unwrap();
    loop {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if stat.is_empty() || stat.contains(") Z ") {
            break;
        }
        wait();
    }
    // Whose agent is gone before it asks has been left to another process.
    let others = ["picture", "63999", "1"];
    let output = Command::new(program()).args(others).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("the agent is gone"), "{text}");
}

#[test]
fn a_worker_that_somebody_else_starts_says_who_starts_it_and_answers_nothing() {
    let output = Command::new(program()).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(i32::from(NO_JOB)));
    assert!(output.stdout.is_empty());
    let version = Command::new(program()).arg("--version").output().unwrap();
    assert!(String::from_utf8_lossy(&version.stdout).starts_with("bulkhead-worker "));
}

#[test]
fn its_user_is_no_domains_and_it_takes_what_a_guest_may_send() {
    // Domains' users go up from there.
    const { assert!(worker_link::USER < domains::spec::SANDBOX_ID_BASE) };
    const { assert!(worker_link::USER_FIRST < worker_link::USER) };
    assert_eq!(picture(MediaType::ImagePng), Some(Kind::Png));
}

/// Returns how far a process steps back behind others.
fn nice(pid: impl std::fmt::Display) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    fields.split(' ').nth(16).unwrap().parse().unwrap()
}
