//! What a process may do with an interface of the USB device that it has open: `usb-rights PID INTERFACE`, as root.
//!
//! Takes a copy of the process's own open node, with the rights that this has, and asks the kernel for the interface by it. Writes the kernel's answer, such as `EACCES` where
//! the node has no right to it or `EBUSY` where it has and a driver is there first, and `OK` where it was had, which is let go again in its first setting.
#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test program may end on what it cannot do"
)]

use std::fs::{self, File};

use nix::errno::Errno;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

fn main() {
    let [pid, interface] = [1, 2].map(|n| std::env::args().nth(n).unwrap_or_default());
    let number = pid.parse().ok().and_then(Pid::from_raw).expect("the number of a process");
    let process = pidfd_open(number, PidfdFlags::empty()).expect("the process");
    let interface = interface.parse().expect("the number of an interface");
    let files = fs::read_dir(format!("/proc/{pid}/fd")).expect("what it has open");
    let node = files
        .flatten()
        .find(|file| fs::read_link(file.path()).is_ok_and(|path| path.starts_with("/dev/bus/usb")));
    let node = node.expect("it has a USB device open").file_name();
    let node = node.to_string_lossy().parse().expect("the number of a descriptor");
    let copy = pidfd_getfd(&process, node, PidfdGetfdFlags::empty()).expect("a copy of it");
    match usbport::choose_first_setting(&File::from(copy), interface) {
        Ok(()) => println!("OK"),
        Err(error) => {
            println!("{:?}", Errno::from_raw(error.raw_os_error().unwrap_or_default()));
        }
    }
}
