//! System calls that need `unsafe`, each behind a safe function.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

fn c(text: impl AsRef<OsStr>) -> CString {
    CString::new(text.as_ref().as_bytes()).unwrap_or_default()
}

fn check(result: i64) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Mounts what every program expects and opens the console as standard output.
pub(crate) fn mount_all() {
    for (kind, at) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        let _ = std::fs::create_dir(at);
        let (kind, at) = (c(kind), c(at));
        // SAFETY: three C strings that outlive the call, no data argument.
        unsafe { libc::mount(kind.as_ptr(), at.as_ptr(), kind.as_ptr(), 0, std::ptr::null()) };
    }
    if let Ok(console) = File::options().read(true).write(true).open("/dev/console") {
        for fd in 0..3 {
            // SAFETY: duplicates an open descriptor onto standard ones, which nobody else owns.
            unsafe { libc::dup2(console.as_raw_fd(), fd) };
        }
        if console.as_raw_fd() < 3 {
            std::mem::forget(console);
        }
    }
}

/// `finit_module(2)`; a module that is there already is fine.
pub(crate) fn load_module(path: &str) -> io::Result<()> {
    let file = File::open(path)?;
    // SAFETY: an open descriptor, an empty parameter string, no flags.
    let result =
        unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
    match check(result) {
        Err(error) if error.raw_os_error() != Some(libc::EEXIST) => Err(error),
        _ => Ok(()),
    }
}

fn restart(how: libc::c_int) -> ! {
    // SAFETY: no arguments but the command; does not return on success.
    unsafe {
        libc::sync();
        libc::reboot(how);
    }
    loop {
        std::thread::park();
    }
}

/// Off, at once.
pub(crate) fn power_off() -> ! {
    restart(libc::RB_POWER_OFF)
}

/// Anew, at once.
pub(crate) fn reboot() -> ! {
    restart(libc::RB_AUTOBOOT)
}

/// `KEY_POWER` of linux/input-event-codes.h, and `EV_KEY`.
const KEY_POWER: u16 = 116;
const EV_KEY: u16 = 1;

/// Waits for the ACPI power button and powers off, as a desktop would.
pub(crate) fn power_off_on_button() {
    let mut button = loop {
        if let Ok(file) = File::open("/dev/input/event0") {
            break file;
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
    };
    // struct input_event on x86-64: two 8-byte times, type, code, value.
    let mut event = [0u8; 24];
    while button.read_exact(&mut event).is_ok() {
        let [.., t0, t1, c0, c1, v0, _, _, _] = event;
        let (kind, code) = (u16::from_le_bytes([t0, t1]), u16::from_le_bytes([c0, c1]));
        if (kind, code, v0) == (EV_KEY, KEY_POWER, 1) {
            println!("PROBE-POWER-BUTTON");
            power_off();
        }
    }
}

/// Sends one raw frame out of an interface, whatever its source address says.
pub(crate) fn send_frame(interface: &str, frame: &[u8]) -> io::Result<()> {
    let name = c(interface);
    // SAFETY: a C string; the socket is owned at once; the address is a plain structure whose size
    // is given; the frame's length is its own.
    unsafe {
        let index = libc::if_nametoindex(name.as_ptr());
        let protocol = i32::from((libc::ETH_P_ALL as u16).to_be());
        let fd = check(libc::socket(libc::AF_PACKET, libc::SOCK_RAW, protocol).into())?;
        let socket = OwnedFd::from_raw_fd(fd as i32);
        let mut address: libc::sockaddr_ll = std::mem::zeroed();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_ifindex = index as i32;
        address.sll_halen = 6;
        check(libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as u32,
        ) as i64)?;
    }
    Ok(())
}
