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

/// Loads a module by `finit_module(2)`; a module that is there already is fine.
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

/// Powers the guest off at once.
pub(crate) fn power_off() -> ! {
    restart(libc::RB_POWER_OFF)
}

/// Resets the guest at once.
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

/// Writes into a file at an offset.
pub(crate) fn write_at(path: &std::path::Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    File::options().write(true).open(path)?.write_all_at(bytes, offset)
}

/// Memory that another party may change: a device's registers, or pages a device reads and writes.
pub(crate) struct Mapping {
    base: *mut u8,
    len: usize,
}

impl Mapping {
    /// Maps all of a device's memory, as sysfs has it.
    pub(crate) fn of_file(path: &std::path::Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(path)?;
        let len = file.metadata()?.len() as usize;
        Self::map(len, libc::MAP_SHARED, file.as_raw_fd())
    }

    /// Maps zeroed pages that stay where they are.
    pub(crate) fn locked(len: usize) -> io::Result<Self> {
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_LOCKED | libc::MAP_POPULATE;
        Self::map(len, flags, -1)
    }

    fn map(len: usize, flags: libc::c_int, fd: libc::c_int) -> io::Result<Self> {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at a place the kernel chooses; the result is checked.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, fd, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { base: base.cast(), len })
    }

    /// Returns guest-physical addresses of its pages (Documentation/admin-guide/mm/pagemap.rst).
    pub(crate) fn physical_pages(&self) -> io::Result<Vec<u64>> {
        use std::os::unix::fs::FileExt;
        const PAGE: usize = 4096;
        let pagemap = File::open("/proc/self/pagemap")?;
        let first = self.base as usize / PAGE;
        (first..first + self.len / PAGE)
            .map(|page| {
                let mut raw = [0; 8];
                pagemap.read_exact_at(&mut raw, page as u64 * 8)?;
                Ok((u64::from_le_bytes(raw) & ((1 << 55) - 1)) * PAGE as u64)
            })
            .collect()
    }

    pub(crate) fn clear(&mut self) {
        for at in (0..self.len).step_by(4) {
            self.write_u32(at, 0);
        }
    }

    fn at<T>(&self, offset: usize) -> *mut T {
        assert!(offset.is_multiple_of(size_of::<T>()) && offset + size_of::<T>() <= self.len);
        // SAFETY: within the mapping, as just checked, and aligned.
        unsafe { self.base.add(offset).cast() }
    }

    pub(crate) fn read_u8(&self, offset: usize) -> u8 {
        // SAFETY: `at` gives a place in the mapping, which lives as long as `self`.
        unsafe { self.at::<u8>(offset).read_volatile() }
    }

    pub(crate) fn read_u16(&self, offset: usize) -> u16 {
        // SAFETY: as above.
        unsafe { self.at::<u16>(offset).read_volatile() }
    }

    pub(crate) fn write_u8(&mut self, offset: usize, value: u8) {
        // SAFETY: as above.
        unsafe { self.at::<u8>(offset).write_volatile(value) }
    }

    pub(crate) fn write_u16(&mut self, offset: usize, value: u16) {
        // SAFETY: as above.
        unsafe { self.at::<u16>(offset).write_volatile(value) }
    }

    pub(crate) fn write_u32(&mut self, offset: usize, value: u32) {
        // SAFETY: as above.
        unsafe { self.at::<u32>(offset).write_volatile(value) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own and nobody has a reference into it.
        unsafe { libc::munmap(self.base.cast(), self.len) };
    }
}

/// `struct sg_io_hdr` of `<scsi/sg.h>`.
#[repr(C)]
struct SgIoHdr {
    interface_id: i32,
    dxfer_direction: i32,
    cmd_len: u8,
    mx_sb_len: u8,
    iovec_count: u16,
    dxfer_len: u32,
    dxferp: *mut u8,
    cmdp: *const u8,
    sbp: *mut u8,
    timeout: u32,
    flags: u32,
    pack_id: i32,
    usr_ptr: *mut u8,
    status: u8,
    masked_status: u8,
    msg_status: u8,
    sb_len_wr: u8,
    host_status: u16,
    driver_status: u16,
    resid: i32,
    duration: u32,
    info: u32,
}

/// Sends a SCSI command with data to the device (`SG_IO`): its status and sense data.
pub(crate) fn scsi_out(file: &File, cdb: &[u8], data: &mut [u8]) -> io::Result<(u8, Vec<u8>)> {
    const SG_IO: libc::Ioctl = 0x2285;
    const TO_DEVICE: i32 = -2;
    const NONE: i32 = -1;
    let mut sense = vec![0; 64];
    let mut header = SgIoHdr {
        interface_id: i32::from(b'S'),
        dxfer_direction: if data.is_empty() { NONE } else { TO_DEVICE },
        cmd_len: u8::try_from(cdb.len()).unwrap_or(u8::MAX),
        mx_sb_len: 64,
        iovec_count: 0,
        dxfer_len: u32::try_from(data.len()).unwrap_or(0),
        dxferp: data.as_mut_ptr(),
        cmdp: cdb.as_ptr(),
        sbp: sense.as_mut_ptr(),
        timeout: 30_000,
        flags: 0,
        pack_id: 0,
        usr_ptr: std::ptr::null_mut(),
        status: 0,
        masked_status: 0,
        msg_status: 0,
        sb_len_wr: 0,
        host_status: 0,
        driver_status: 0,
        resid: 0,
        duration: 0,
        info: 0,
    };
    // SAFETY: the header is the kernel's structure, and its pointers are of buffers as long as it says, which outlive the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), SG_IO, &raw mut header) };
    check(result.into())?;
    sense.truncate(header.sb_len_wr.into());
    Ok((header.status, sense))
}

/// KEY_MAX of linux/input-event-codes.h, in the bytes of a set of bits.
const KEY_BYTES: usize = 0x300 / 8;
mod requests {
    #![allow(unreachable_pub, missing_docs, reason = "made by a macro")]
    // EVIOCGKEY of linux/input.h: the set of keys that are down.
    nix::ioctl_read_buf!(evdev_keys, b'E', 0x18, u8);
}

/// Returns the keys and buttons of an input device that are down, by their codes.
pub(crate) fn keys_down(device: &File) -> io::Result<Vec<u16>> {
    let mut bits = [0u8; KEY_BYTES];
    // SAFETY: the kernel writes no more than the buffer's length, which is in the request's number.
    unsafe { requests::evdev_keys(device.as_raw_fd(), &mut bits) }?;
    Ok((0u16..)
        .zip(bits.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1)))
        .filter_map(|(code, is_down)| is_down.then_some(code))
        .collect())
}
