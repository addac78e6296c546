//! The whole VMM with guests of a few instructions, which any KVM runs. Without /dev/kvm they say so
//! and prove nothing.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use virtio::testing::fuse::{Answer, FuseDisk};

/// Longest a guest of a few instructions takes, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Returns code that writes a byte to the first serial port.
const fn print(byte: u8) -> [u8; 8] {
    [0xba, 0xf8, 0x03, 0x00, 0x00, 0xb0, byte, 0xee] // mov edx, 0x3f8; mov al, byte; out dx, al
}

const POWER_OFF: [u8; 11] = [
    0xba, 0x01, 0x06, 0x00, 0x00, // mov edx, 0x601
    0xb0, 0x34, // mov al, SLP_EN | S5
    0xee, // out dx, al
    0xf4, 0xeb, 0xfd, // hlt; jmp to it
];

/// Wakes the second vCPU and waits until it has run.
const WAKE_THE_OTHER: [u8; 98] = [
    // Its code, in real mode at 0x10000: mov ax, 0x1100; mov ds, ax; mov word [0], 1; hlt; jmp to it.
    0xc7, 0x05, 0x00, 0x00, 0x01, 0x00, 0xb8, 0x00, 0x11, 0x8e, //
    0xc7, 0x05, 0x04, 0x00, 0x01, 0x00, 0xd8, 0xc7, 0x06, 0x00, //
    0xc7, 0x05, 0x08, 0x00, 0x01, 0x00, 0x00, 0x01, 0x00, 0xf4, //
    0xc7, 0x05, 0x0c, 0x00, 0x01, 0x00, 0xeb, 0xfd, 0x00, 0x00, //
    0xc7, 0x05, 0x00, 0x10, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, // mov dword [0x11000], 0
    0xc7, 0x05, 0xf0, 0x00, 0xe0, 0xfe, 0xff, 0x01, 0x00, 0x00, // local APIC on
    0xc7, 0x05, 0x00, 0x03, 0xe0, 0xfe, 0x00, 0x45, 0x0c, 0x00, // INIT to all others
    0xb9, 0x00, 0x00, 0x01, 0x00, 0xe2, 0xfe, // mov ecx, 0x10000; loop
    0xc7, 0x05, 0x00, 0x03, 0xe0, 0xfe, 0x10, 0x46, 0x0c, 0x00, // start at 0x10000
    0xf3, 0x90, // pause
    0x83, 0x3d, 0x00, 0x10, 0x01, 0x00, 0x00, // cmp dword [0x11000], 0
    0x74, 0xf5, // je pause
];

/// Makes a PVH ELF with one loadable segment at 1 MiB (ELF gABI; Xen PVH "direct boot").
fn kernel(code: &[u8]) -> Vec<u8> {
    const ADDRESS: u32 = 1 << 20;
    const CODE_AT: usize = 64 + 2 * 56;
    let mut note: Vec<u8> = [4u32, 4, 18].into_iter().flat_map(u32::to_le_bytes).collect();
    note.extend(b"Xen\0");
    note.extend(ADDRESS.to_le_bytes());
    let mut image = vec![0; CODE_AT];
    image[..6].copy_from_slice(b"\x7fELF\x02\x01");
    image[18..20].copy_from_slice(&62u16.to_le_bytes());
    image[32..40].copy_from_slice(&64u64.to_le_bytes());
    image[54..56].copy_from_slice(&56u16.to_le_bytes());
    image[56..58].copy_from_slice(&2u16.to_le_bytes());
    let mut header = |index: usize, kind: u32, offset: u64, address: u64, length: u64| {
        let base = 64 + 56 * index;
        image[base..base + 4].copy_from_slice(&kind.to_le_bytes());
        for (field, value) in [(8, offset), (24, address), (32, length), (40, length)] {
            image[base + field..base + field + 8].copy_from_slice(&value.to_le_bytes());
        }
    };
    header(0, 1, CODE_AT as u64, ADDRESS.into(), code.len() as u64);
    header(1, 4, (CODE_AT + code.len()) as u64, 0, note.len() as u64);
    image.extend(code);
    image.extend(note);
    image
}

struct Guest {
    vmm: Child,
    dir: tempfile::TempDir,
}

impl Guest {
    /// Starts a VMM; `None` without /dev/kvm.
    fn start(cpus: u8, code: &[&[u8]]) -> Option<Self> {
        Self::start_with(cpus, code, &[])
    }

    fn start_with(cpus: u8, code: &[&[u8]], arguments: &[&str]) -> Option<Self> {
        Self::start_with_serial(cpus, code, "", arguments)
    }

    /// Starts a VMM; `serial` is where it prints, if not to the file that [`Self::printed`] reads.
    fn start_with_serial(
        cpus: u8,
        code: &[&[u8]],
        serial: &str,
        arguments: &[&str],
    ) -> Option<Self> {
        if !Path::new("/dev/kvm").exists() {
            eprintln!("no /dev/kvm: this test proves nothing here");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("kernel"), kernel(&code.concat())).unwrap();
        let own_log = format!("file={}", dir.path().join("serial").display());
        let vmm = Command::new(env!("CARGO_BIN_EXE_bulkhead-vmm"))
            .args(["run", "--memory", "64M", "--log-level", "warn", "--kernel"])
            .arg(dir.path().join("kernel"))
            .args(["--cpus", &cpus.to_string(), "--serial"])
            .arg(if serial.is_empty() { &own_log } else { serial })
            .arg("--api-socket")
            .arg(dir.path().join("api"))
            .args(arguments)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Some(Self { vmm, dir })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn printed(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.path("serial")).unwrap_or_default()).into()
    }

    fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        let start = Instant::now();
        while !holds(self) {
            assert!(start.elapsed() < PATIENCE, "{what}; it printed `{}`", self.printed());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn until_printed(&mut self, count: usize) {
        self.until("the guest does not start", |guest| guest.printed().len() >= count);
    }

    fn ends(&mut self) -> ExitStatus {
        let mut status = None;
        self.until("the guest does not end", |guest| {
            status = guest.vmm.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    fn command(&self, name: &str) -> String {
        let answer = self.ask(name);
        assert!(answer.contains("\"ok\":true"), "{name}: {answer}");
        answer
    }

    /// Asks the VMM; returns its answer, whatever it is.
    fn ask(&self, name: &str) -> String {
        let mut socket = UnixStream::connect(self.path("api")).unwrap();
        writeln!(socket, "{{\"command\":\"{name}\"}}").unwrap();
        let mut answer = String::new();
        BufReader::new(socket).read_line(&mut answer).unwrap();
        answer
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Gone already, mostly.
        let _ = self.vmm.kill();
        let _ = self.vmm.wait();
    }
}

/// Ends the work beside the test even where the test fails.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn no_start_loses_a_vcpu_however_busy_the_pc_is() {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let _done = Done(&done);
        for _ in 0..20 {
            let code = [&print(b'B')[..], &WAKE_THE_OTHER, &print(b'A'), &POWER_OFF];
            let Some(mut guest) = Guest::start(2, &code) else { break };
            let status = guest.ends();
            assert!(status.success(), "{status}");
            assert_eq!(guest.printed(), "BA");
        }
    });
}

#[test]
fn a_guest_that_resets_itself_starts_anew_each_time() {
    let count = [
        0xff, 0x05, 0x00, 0x00, 0x30, 0x00, // inc dword [0x300000]
        0x83, 0x3d, 0x00, 0x00, 0x30, 0x00, 0x05, // cmp dword [0x300000], 5
        0x73, 0x07, // jae past the reset
        0xb0, 0xfe, 0xe6, 0x64, // mov al, 0xfe; out 0x64, al
        0xf4, 0xeb, 0xfd, // hlt; jmp to it
    ];
    let Some(mut guest) = Guest::start(2, &[&print(b'R'), &count, &POWER_OFF]) else { return };
    assert!(guest.ends().success());
    assert_eq!(guest.printed(), "RRRRR");
}

#[test]
fn every_reset_from_outside_starts_a_guest_that_reads_a_device_at_its_entry() {
    let read = [0xa1, 0x00, 0x00, 0x00, 0xe0, 0xeb, 0xf9]; // mov eax, [0xe0000000]; jmp to it
    let Some(mut guest) = Guest::start(1, &[&print(b'S'), &read]) else { return };
    for start in 1..=20 {
        guest.until_printed(start);
        assert_eq!(guest.printed(), "S".repeat(start));
        guest.command("reset");
    }
    guest.until_printed(21);
    guest.command("stop");
    assert!(guest.ends().success());
}

#[test]
fn nothing_the_guest_had_begun_before_a_reset_is_written_over_the_kernel_loaded_for_the_next() {
    // It prints X where its image is not what the loader put there.
    let check = [
        0x81, 0x3d, 0x80, 0x00, 0x10, 0x00, 0x78, 0x56, 0x34,
        0x12, // cmp dword [0x100080], 0x12345678
        0x74, 0x08, // je past the next
    ];
    let overwrite = [
        0xbe, 0x00, 0x00, 0x00, 0xe0, // mov esi, 0xe0000000
        0xbf, 0x80, 0x00, 0x10, 0x00, // mov edi, 0x100080
        0xa5, // movsd
        0xeb, 0xf3, // jmp to the first
    ];
    let code = [&check[..], &print(b'X'), &print(b'S'), &overwrite].concat();
    let code = [&code[..], &vec![0; 0x80 - code.len()], &0x1234_5678u32.to_le_bytes()].concat();
    let Some(mut guest) = Guest::start(1, &[&code]) else { return };
    for start in 1..=20 {
        guest.until_printed(start);
        assert_eq!(guest.printed(), "S".repeat(start));
        guest.command("reset");
    }
    guest.until_printed(21);
    assert_eq!(guest.printed(), "S".repeat(21));
}

#[test]
fn a_guest_is_told_that_it_was_paused() {
    let until_told = [
        0xb9, 0x01, 0x4d, 0x56, 0x4b, // mov ecx, MSR_KVM_SYSTEM_TIME_NEW
        0xb8, 0x01, 0x00, 0x30, 0x00, // mov eax, 0x300000 | enabled
        0x31, 0xd2, // xor edx, edx
        0x0f, 0x30, // wrmsr
        0xba, 0xf8, 0x03, 0x00, 0x00, 0xb0, b'B', 0xee, // prints B
        0xf6, 0x05, 0x1d, 0x00, 0x30, 0x00, 0x02, // test flags, PVCLOCK_GUEST_STOPPED
        0x75, 0x07, // jnz past the loop
        0xa1, 0x00, 0x00, 0x00,
        0xe0, // mov eax, [0xe0000000]: an exit, so that flags are written
        0xeb, 0xf0, // jmp to the test
    ];
    let Some(mut guest) = Guest::start(1, &[&until_told, &print(b'P'), &POWER_OFF]) else { return };
    guest.until_printed(1);
    guest.command("pause");
    assert!(guest.command("status").contains("\"state\":\"paused\""));
    assert_eq!(guest.printed(), "B");
    guest.command("resume");
    assert!(guest.ends().success());
    assert_eq!(guest.printed(), "BP");
}

/// Stores of one, two and four bytes.
fn store8(address: u32, value: u8) -> Vec<u8> {
    [&[0xc6, 0x05][..], &address.to_le_bytes(), &[value]].concat()
}
fn store16(address: u32, value: u16) -> Vec<u8> {
    [&[0x66, 0xc7, 0x05][..], &address.to_le_bytes(), &value.to_le_bytes()].concat()
}
fn store32(address: u32, value: u32) -> Vec<u8> {
    [&[0xc7, 0x05][..], &address.to_le_bytes(), &value.to_le_bytes()].concat()
}

/// Reads the first sector of the first disk (virtio 1.2 sections 3.1, 4.1.4 and 5.2.6).
fn read_a_sector() -> Vec<u8> {
    const CONFIG: u32 = 0xe000_0000 + (1 << 15); // device 1 in ECAM
    const BAR: u32 = 0xd000_0000;
    const TABLE: u32 = 0x21_0000;
    const AVAIL: u32 = 0x21_1000;
    const USED: u32 = 0x21_2000;
    const HEADER: u32 = 0x21_3000; // all zeroes: a read from sector 0
    const DATA: u32 = 0x21_4000;
    const STATUS: u32 = 0x21_5000;
    let descriptor = |index: u32, address: u32, length: u32, flags: u32| {
        let at = TABLE + 16 * index;
        let flags_and_next = flags | (index + 1) << 16;
        [
            store32(at, address),
            store32(at + 4, 0),
            store32(at + 8, length),
            store32(at + 12, flags_and_next),
        ]
        .concat()
    };
    [
        store32(CONFIG + 0x10, BAR),
        store32(CONFIG + 0x14, 0),
        store16(CONFIG + 4, 6), // memory and bus mastering
        store8(BAR + 20, 0),
        store8(BAR + 20, 3),
        store32(BAR + 8, 1),
        store32(BAR + 12, 1), // VIRTIO_F_VERSION_1
        store8(BAR + 20, 11),
        store16(BAR + 22, 0),
        store16(BAR + 24, 64),
        store32(BAR + 32, TABLE),
        store32(BAR + 36, 0),
        store32(BAR + 40, AVAIL),
        store32(BAR + 44, 0),
        store32(BAR + 48, USED),
        store32(BAR + 52, 0),
        store16(BAR + 28, 1),
        store8(BAR + 20, 15),
        descriptor(0, HEADER, 16, 1),
        descriptor(1, DATA, 512, 3),
        descriptor(2, STATUS, 1, 2),
        store32(AVAIL, 1 << 16),
        store16(BAR + 0x1000, 0),
    ]
    .concat()
}

/// Returns the state letter of a process (proc(5)).
fn process_state(pid: u32) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().unwrap_or_default().split_whitespace().next().unwrap_or("").into()
}

#[test]
fn a_disk_that_hangs_holds_up_neither_the_control_socket_nor_a_reset_nor_the_end() {
    // What is promised is 100 ms; without it, it is as long as the disk hangs.
    const SOON: Duration = Duration::from_secs(5);
    let image = tempfile::NamedTempFile::new().unwrap();
    let (begun, hangs) = mpsc::channel();
    let disk = FuseDisk::over(image.path(), 64 * 512, move |_| {
        begun.send(()).unwrap();
        Answer::Never
    });
    let Some(disk) = disk else { return };
    let path = format!("path={}", image.path().display());
    let code = [&read_a_sector()[..], &print(b'R'), &[0xeb, 0xfe]]; // jmp to itself
    let Some(mut guest) = Guest::start_with(1, &code, &["--disk", &path]) else { return };
    hangs.recv_timeout(PATIENCE).unwrap();
    guest.until_printed(1);
    let start = Instant::now();
    guest.command("status");
    guest.command("pause");
    guest.command("resume");
    guest.command("reset");
    // The disk may still write to the guest's memory, so the guest does not start.
    guest.until("the reset is not taken up", |guest| guest.ask("pause").contains("being reset"));
    assert!(guest.command("status").contains("\"resets\":0"));
    guest.command("stop");
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    // All that is left of it is the thread in the disk's call, which the kernel waits for.
    let pid = guest.vmm.id();
    guest.until("the VMM does not end", |_| process_state(pid) == "Z");
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    assert_eq!(guest.printed(), "R");
    drop(disk);
    assert!(guest.ends().success());
}

#[test]
fn a_guest_starts_anew_when_the_disk_that_held_its_reset_up_has_answered() {
    let image = tempfile::NamedTempFile::new().unwrap();
    let (begun, hangs) = mpsc::channel();
    let disk = FuseDisk::over(image.path(), 64 * 512, move |_| {
        begun.send(()).unwrap();
        Answer::Never
    });
    let Some(disk) = disk else { return };
    let path = format!("path={}", image.path().display());
    let code = [&read_a_sector()[..], &print(b'R'), &[0xeb, 0xfe]]; // jmp to itself
    let Some(mut guest) = Guest::start_with(1, &code, &["--disk", &path]) else { return };
    hangs.recv_timeout(PATIENCE).unwrap();
    guest.until_printed(1);
    guest.command("reset");
    guest.until("the reset is not taken up", |guest| guest.ask("pause").contains("being reset"));
    drop(disk);
    guest.until_printed(2);
    assert!(guest.command("status").contains("\"resets\":1"));
    guest.command("stop");
    assert!(guest.ends().success());
}

#[test]
fn a_serial_log_that_hangs_holds_up_neither_the_control_socket_nor_a_reset_nor_the_end() {
    const SOON: Duration = Duration::from_secs(5);
    let log = tempfile::NamedTempFile::new().unwrap();
    let (begun, hangs) = mpsc::channel();
    let disk = FuseDisk::over(log.path(), 512, move |_| {
        let _ = begun.send(());
        Answer::Never
    });
    let Some(disk) = disk else { return };
    let serial = format!("file={}", log.path().display());
    let code = [&print(b'R')[..], &[0xeb, 0xf6]]; // jmp to the first
    let Some(mut guest) = Guest::start_with_serial(1, &code, &serial, &[]) else { return };
    hangs.recv_timeout(PATIENCE).unwrap();
    let start = Instant::now();
    guest.command("status");
    guest.command("pause");
    guest.command("resume");
    guest.command("reset");
    guest.until("it does not reset", |guest| guest.command("status").contains("\"resets\":1"));
    guest.command("stop");
    // All that is left of it is the thread in the disk's call, which the kernel waits for.
    let pid = guest.vmm.id();
    guest.until("the VMM does not end", |_| process_state(pid) == "Z");
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    drop(disk);
    assert!(guest.ends().success());
}
