//! The init of a probe guest: a stock Debian kernel with this as its only program of ours, for the tests of the simulated ward PC.
//!
//! ```text
//!  test --question, a JSON line--> port org.bulkhead.probe --> answers --> block, network, seat, kernel, hostile, scsi
//!       <----answer, a JSON line----                         <--
//! ```
//!
//! It mounts what programs expect and loads the modules named in `/modules/order`, those in `/modules/order-seat` if it has a screen, and those in
//! `/modules/order-usb` if it has a USB controller. Then it answers a test's questions on the virtio-console port, one after the other.
//!
//! | module | |
//! | --- | --- |
//! | `answers` | what a test can ask, as a table, and how each question is answered |
//! | `request` | the fields of a question |
//! | `block`, `network`, `seat`, `kernel` | disks, network interfaces, screen and input, and what the kernel tells |
//! | `hostile`, `scsi` | what a hostile guest does: a GPU driver made of noise, and SCSI commands past the kernel's |
//! | `sys` | system calls that need `unsafe`, each behind a safe function |
//!
//! On its console it prints `PROBE-READY` with the seconds since the kernel started, `PROBE-POWER-BUTTON` when it powers off by the button,
//! `PROBE-MODULE` for a module that cannot be loaded, and `PROBE-NO-PORT` if the port does not come. With `probe.boot-only` on the kernel
//! command line it marks that it runs, prints `PROBE-INIT` and powers off: for counting what a boot costs.
//!
//! An answer has the `id` of its question, and says `ok` or why not; a line that is not JSON is answered without an `id`. A question is at most
//! 1 MiB long, and what a program printed is cut off at 64 KiB.
//!
//! It is for tests alone: whoever has the port's other end is root in this guest, and may have it run any program. `scripts/build-images` makes it
//! the `/init` of an image; no package has it.

#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "a test program: serde_json values are indexed by key, and sizes are small"
)]

mod answers;
mod block;
mod clipboard;
mod hostile;
mod kernel;
mod network;
mod request;
mod scsi;
mod seat;
mod sys;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Duration;

/// The port a test talks to.
const PORT: &str = "org.bulkhead.probe";
/// Longest question, in bytes.
const LINE_MAX: usize = 1 << 20;
/// How often to look for a port that is not there yet, or a client that is not.
const PAUSE: Duration = Duration::from_millis(20);
const PORT_TRIES: u32 = 500;

fn main() {
    sys::mount_all();
    let cmdline = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    if cmdline.split_whitespace().any(|word| word == "probe.boot-only") {
        mark();
        println!("PROBE-INIT {}", kernel::uptime());
        sys::power_off();
    }
    load_modules("order");
    if seat::has_screen() {
        load_modules("order-seat");
        seat::record();
    }
    if has_usb() {
        load_modules("order-usb");
    }
    println!("PROBE-READY {}", kernel::uptime());
    std::thread::spawn(sys::power_off_on_button);
    let mut tries = 0;
    let port = loop {
        match find_port(PORT) {
            Some(path) => break path,
            None if tries < PORT_TRIES => tries += 1,
            None => {
                println!("PROBE-NO-PORT {PORT}");
                loop {
                    std::thread::sleep(Duration::from_secs(3600));
                }
            }
        }
        std::thread::sleep(PAUSE);
    };
    loop {
        serve(&port);
        std::thread::sleep(PAUSE);
    }
}

/// Tells whoever traces the VMM that init runs: asks for a CPUID leaf that nobody else asks for, in the
/// range that belongs to hypervisors.
fn mark() {
    const LEAF: u32 = 0x4000_f4f4;
    let _ = std::hint::black_box(std::arch::x86_64::__cpuid(LEAF));
}

/// Returns whether there is a USB controller (class 0c03) on the bus.
fn has_usb() -> bool {
    let functions = fs::read_dir("/sys/bus/pci/devices").into_iter().flatten().flatten();
    functions
        .filter_map(|function| fs::read_to_string(function.path().join("class")).ok())
        .any(|class| class.starts_with("0x0c03"))
}

/// Loads modules in the order in which they depend on each other.
fn load_modules(order: &str) {
    let order = fs::read_to_string(format!("/modules/{order}")).unwrap_or_default();
    for name in order.split_whitespace() {
        if let Err(error) = sys::load_module(&format!("/modules/{name}")) {
            println!("PROBE-MODULE {name}: {error}");
        }
    }
}

/// Finds the device node of a named virtio-console port.
pub(crate) fn find_port(wanted: &str) -> Option<PathBuf> {
    for entry in fs::read_dir("/sys/class/virtio-ports").ok()?.flatten() {
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim() == wanted {
            return Some(PathBuf::from("/dev").join(entry.file_name()));
        }
    }
    None
}

/// Answers questions until the port fails; a client that leaves reads as an end of file.
fn serve(port: &PathBuf) {
    let Ok(mut port) = OpenOptions::new().read(true).write(true).open(port) else { return };
    let mut pending = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match port.read(&mut chunk) {
            Ok(0) => {
                pending.clear();
                std::thread::sleep(PAUSE);
            }
            Ok(n) => pending.extend_from_slice(chunk.get(..n).unwrap_or_default()),
            Err(_) => return,
        }
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            if !reply(&mut port, &line) {
                return;
            }
        }
        if pending.len() > LINE_MAX {
            pending.clear();
        }
    }
}

fn reply(port: &mut File, line: &[u8]) -> bool {
    let mut answer = answers::answer(line).to_string();
    answer.push('\n');
    port.write_all(answer.as_bytes()).is_ok()
}
