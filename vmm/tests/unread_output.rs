//! A VMM whose output nobody reads: the real program, a tiny guest, and `/dev/kvm`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Prints for ever: `mov dx, 0x3f8; mov al, 'x'; out dx, al; jmp -3`.
const PRINTS: &[u8] = &[0x66, 0xba, 0xf8, 0x03, 0xb0, b'x', 0xee, 0xeb, 0xfd];
/// Resets at once: `mov al, 0xfe; out 0x64, al; jmp -2`.
const RESETS: &[u8] = &[0xb0, 0xfe, 0xe6, 0x64, 0xeb, 0xfe];
/// A guest of one instruction, an endless loop (`jmp $`).
const SPINS: &[u8] = &[0xeb, 0xfe];

/// Much longer than an answer takes, on a busy machine.
const SOON: Duration = Duration::from_secs(20);

struct Vmm {
    child: Child,
    api: PathBuf,
    _dir: tempfile::TempDir,
}

impl Vmm {
    /// Starts a VMM; `None` where there is no KVM.
    fn start(payload: &[u8], arguments: &[&str], streams: [Stdio; 3]) -> Option<Self> {
        if !Path::new("/dev/kvm").exists() {
            eprintln!("not tested: there is no /dev/kvm");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let (kernel, api) = (dir.path().join("kernel"), dir.path().join("api"));
        std::fs::write(&kernel, elf(payload)).unwrap();
        let [stdin, stdout, stderr] = streams;
        let child = Command::new(env!("CARGO_BIN_EXE_bulkhead-vmm"))
            .args(["run", "--memory=64M", "--kernel"])
            .arg(kernel)
            .arg("--api-socket")
            .arg(&api)
            .args(arguments)
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .unwrap();
        Some(Self { child, api, _dir: dir })
    }

    /// Returns its answer to `status`.
    fn status(&mut self) -> String {
        let started = Instant::now();
        loop {
            assert_eq!(self.child.try_wait().unwrap(), None, "it runs");
            assert!(started.elapsed() < SOON, "it answers");
            std::thread::sleep(Duration::from_millis(20));
            let Ok(mut client) = UnixStream::connect(&self.api) else { continue };
            client.set_read_timeout(Some(SOON)).unwrap();
            client.write_all(b"{\"command\":\"status\"}\n").unwrap();
            let mut answer = String::new();
            BufReader::new(client).read_line(&mut answer).unwrap();
            assert!(answer.contains("\"ok\":true"), "{answer}");
            return answer;
        }
    }

    fn resets(&mut self) -> u64 {
        let status = self.status();
        let (_, count) = status.split_once("\"resets\":").unwrap();
        count.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
    }

    /// Ends it as a person would, from its terminal.
    fn interrupt(self) -> ExitStatus {
        self.signal(Signal::SIGINT)
    }

    /// Returns how it ends after a signal.
    fn signal(mut self, signal: Signal) -> ExitStatus {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < SOON, "it ends when it is told to");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Vmm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes a kernel of these instructions: PVH, entered in 32-bit protected mode (ELF gABI, Xen PVH).
fn elf(payload: &[u8]) -> Vec<u8> {
    const AT: u32 = 0x10_0000;
    let mut note = Vec::new();
    for word in [4u32, 4, 18] {
        note.extend(word.to_le_bytes());
    }
    note.extend(b"Xen\0");
    note.extend(AT.to_le_bytes());
    let mut image = vec![0; 64 + 2 * 56];
    image[..6].copy_from_slice(b"\x7fELF\x02\x01");
    image[18] = 62;
    image[32] = 64;
    image[54] = 56;
    image[56] = 2;
    let payload_at = image.len() as u64;
    let note_at = payload_at + payload.len() as u64;
    let mut header = |index: usize, kind: u8, offset: u64, at: u64, size: usize| {
        let base = 64 + 56 * index;
        image[base] = kind;
        for (field, value) in [(8, offset), (24, at), (32, size as u64), (40, size as u64)] {
            image[base + field..base + field + 8].copy_from_slice(&value.to_le_bytes());
        }
    };
    header(0, 1, payload_at, AT.into(), payload.len());
    header(1, 4, note_at, 0, note.len());
    image.extend(payload);
    image.extend(note);
    image
}

#[test]
fn a_vmm_outlives_the_agent_that_read_its_log() {
    let (log, stderr) = UnixStream::pair().unwrap();
    let streams = [Stdio::null(), Stdio::null(), OwnedFd::from(stderr).into()];
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("seat");
    let seat = format!("--seat=socket={}", socket.display());
    let Some(mut vmm) = Vmm::start(SPINS, &["--serial=null", &seat], streams) else { return };
    vmm.status();
    let agent = seat_link::connect(&socket).unwrap();
    vmm.status();
    drop(log);
    // It has something to say of that, to nobody.
    drop(agent);
    vmm.status();
    seat_link::connect(&socket).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    vmm.status();
    assert!(vmm.interrupt().success());
}

#[test]
fn a_vmm_answers_and_ends_while_nobody_reads_what_its_guest_prints() {
    let streams = [Stdio::null(), Stdio::piped(), Stdio::null()];
    let Some(mut vmm) = Vmm::start(PRINTS, &["--serial=stdio"], streams) else { return };
    // More than a pipe holds; the guest prints for nobody from then on.
    std::thread::sleep(Duration::from_secs(2));
    vmm.status();
    let mut stdout = vmm.child.stdout.take().unwrap();
    assert!(vmm.interrupt().success());
    let mut printed = Vec::new();
    stdout.read_to_end(&mut printed).unwrap();
    assert!(printed.len() >= 4096, "{} bytes", printed.len());
    assert!(printed.iter().all(|byte| *byte == b'x'));
}

#[test]
fn a_vmm_answers_and_ends_while_nobody_reads_its_log_and_its_guest_resets_for_ever() {
    let streams = [Stdio::null(), Stdio::null(), Stdio::piped()];
    let Some(mut vmm) = Vmm::start(RESETS, &["--serial=null", "--log-level=trace"], streams) else {
        return;
    };
    std::thread::sleep(Duration::from_secs(2));
    vmm.status();
    let mut log = vmm.child.stderr.take().unwrap();
    assert!(vmm.interrupt().success());
    let mut lines = String::new();
    log.read_to_string(&mut lines).unwrap();
    let lines = lines.lines().count();
    assert!((1..200).contains(&lines), "{lines} lines");
}

#[test]
fn a_guest_that_resets_for_ever_is_slowed_down() {
    let streams = [Stdio::null(), Stdio::null(), Stdio::null()];
    let Some(mut vmm) = Vmm::start(RESETS, &["--serial=null"], streams) else { return };
    let started = Instant::now();
    while vmm.resets() < 3 {
        assert!(started.elapsed() < SOON, "it resets");
    }
    std::thread::sleep(Duration::from_secs(4));
    let resets = vmm.resets();
    // A burst, and one more every two seconds.
    let most = 11 + started.elapsed().as_secs() / 2;
    assert!(resets <= most, "{resets} resets, at most {most}");
    assert!(vmm.interrupt().success());
}

#[test]
fn a_guest_that_does_not_hear_its_power_button_is_switched_off_after_the_stop_timeout_with_status_1()
 {
    // One that does nothing, and one that resets instead.
    for guest in [SPINS, RESETS] {
        let streams = [Stdio::null(), Stdio::null(), Stdio::piped()];
        let arguments = ["--serial=null", "--log-level=error", "--stop-timeout=2s"];
        let Some(mut vmm) = Vmm::start(guest, &arguments, streams) else { return };
        vmm.status();
        let mut log = vmm.child.stderr.take().unwrap();
        let asked = Instant::now();
        // As `timeout` does, which signals the program and then its group.
        let pid = Pid::from_raw(i32::try_from(vmm.child.id()).unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        let ended = vmm.signal(Signal::SIGTERM);
        assert_eq!(ended.code(), Some(1));
        assert!(asked.elapsed() >= Duration::from_secs(2), "it had its time");
        let mut said = String::new();
        log.read_to_string(&mut said).unwrap();
        assert!(said.contains("did not shut down in time after SIGTERM"), "{said}");
    }
}
