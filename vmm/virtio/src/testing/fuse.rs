//! A disk that does what a test wants: hangs, fails, is slow. A real file of a real file system, which
//! this process serves through `/dev/fuse`, so that everything between the device and it is the kernel's.
//!
//! The file is the file system's root, mounted over an ordinary file. Reads give zeroes, writes go
//! nowhere. Source: `linux/fuse.h`.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// What the kernel asks of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// So many bytes.
    Read(u32),
    /// So many bytes, where, and how they begin.
    Write {
        /// The offset in the file, in bytes.
        at: u64,
        /// How many bytes.
        bytes: u32,
        /// The first eight of them.
        first: u64,
    },
    /// `fdatasync`.
    Sync,
}

/// What the disk does.
#[derive(Debug)]
pub enum Answer {
    /// Does what was asked.
    Done,
    /// Fails with an error number.
    Failed(i32),
    /// Done once somebody says so; what is asked meanwhile is answered meanwhile.
    When(Receiver<()>),
    /// Hangs, until the disk is dropped; half a minute at most.
    Never,
}

/// A disk of a file system of the test's own, whose answers it can hold back or spoil.
#[derive(Debug)]
pub struct FuseDisk {
    place: PathBuf,
    /// Dropped with the disk, which ends the watchdog.
    _watched: Sender<()>,
    server: Option<JoinHandle<()>>,
}

/// How long what hangs does.
const HANGS: Duration = Duration::from_secs(30);
/// Longest request: the header and what is written.
const REQUEST_MAX: usize = (1 << 20) + 4096;
/// Bytes of `struct fuse_in_header`.
const HEADER: usize = 40;
/// Stands for the answer to what a disk has no need of; no answer is like it.
const NO_SUCH_CALL: &[u8] = b"ENOSYS";

mod opcode {
    pub(super) const FORGET: u32 = 2;
    pub(super) const GETATTR: u32 = 3;
    pub(super) const SETATTR: u32 = 4;
    pub(super) const OPEN: u32 = 14;
    pub(super) const READ: u32 = 15;
    pub(super) const WRITE: u32 = 16;
    pub(super) const RELEASE: u32 = 18;
    pub(super) const FSYNC: u32 = 20;
    pub(super) const FLUSH: u32 = 25;
    pub(super) const INIT: u32 = 26;
    pub(super) const INTERRUPT: u32 = 36;
    pub(super) const BATCH_FORGET: u32 = 42;
}

impl FuseDisk {
    /// Mounts a disk of `bytes` that does what `behave` says, mounted over the file at `place`.
    /// `None`, and a word why, where a test may not mount.
    pub fn over(
        place: &Path,
        bytes: u64,
        behave: impl FnMut(Asked) -> Answer + Send + 'static,
    ) -> Option<Self> {
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse");
        let mounted = device.map_err(|error| error.to_string()).and_then(|device| {
            let options = format!("fd={},rootmode=100600,user_id=0,group_id=0", device.as_raw_fd());
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
            mount(Some("disk"), place, Some("fuse"), flags, Some(&*options))
                .map(|()| device)
                .map_err(|error| error.to_string())
        });
        match mounted {
            Ok(device) => {
                let server = std::thread::spawn(move || serve(device, bytes, behave));
                let (watched, watching) = channel();
                let over = place.to_owned();
                // A test that waits for what hangs would hang for ever, and could not even be killed.
                std::thread::spawn(move || {
                    if watching.recv_timeout(HANGS) == Err(RecvTimeoutError::Timeout) {
                        unmount(&over);
                    }
                });
                Some(Self { place: place.to_owned(), _watched: watched, server: Some(server) })
            }
            Err(error) => {
                eprintln!(
                    "NOT TESTED: a file system of a test's own needs root and /dev/fuse: {error}"
                );
                None
            }
        }
    }
}

impl Drop for FuseDisk {
    fn drop(&mut self) {
        // Ends whatever hangs, and then the server.
        unmount(&self.place);
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

fn unmount(place: &Path) {
    let _ = umount2(place, MntFlags::MNT_FORCE | MntFlags::MNT_DETACH);
}

fn serve(mut device: File, bytes: u64, mut behave: impl FnMut(Asked) -> Answer) {
    let mut buffer = vec![0; REQUEST_MAX];
    loop {
        let request = match device.read(&mut buffer) {
            Ok(length) => buffer.get(..length).unwrap_or_default(),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return, // unmounted
            Err(_) => continue, // a request that was taken back
        };
        let word = |at: usize| -> u32 {
            let bytes = request.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
            u32::from_le_bytes(bytes.unwrap_or_default())
        };
        let size = word(HEADER + 16);
        let (asked, body) = match word(4) {
            opcode::FORGET | opcode::BATCH_FORGET | opcode::INTERRUPT => continue,
            opcode::INIT => (None, init(word(HEADER + 8))),
            opcode::GETATTR | opcode::SETATTR => (None, attributes(bytes)),
            // No handle; FOPEN_DIRECT_IO, so that nothing is kept of what is read and written.
            opcode::OPEN => (None, [[0; 8], [1, 0, 0, 0, 0, 0, 0, 0]].concat()),
            opcode::RELEASE | opcode::FLUSH => (None, Vec::new()),
            opcode::READ => (Some(Asked::Read(size)), vec![0; size as usize]),
            opcode::WRITE => {
                let at = u64::from(word(HEADER + 8)) | u64::from(word(HEADER + 12)) << 32;
                // Behind `struct fuse_write_in`.
                let data = HEADER + 40;
                let first = u64::from(word(data)) | u64::from(word(data + 4)) << 32;
                let asked = Asked::Write { at, bytes: size, first };
                (Some(asked), u64::from(size).to_le_bytes().to_vec())
            }
            opcode::FSYNC => (Some(Asked::Sync), Vec::new()),
            _ => (None, NO_SUCH_CALL.to_vec()),
        };
        let answer = match asked {
            Some(asked) => behave(asked),
            None if body == NO_SUCH_CALL => Answer::Failed(libc::ENOSYS),
            None => Answer::Done,
        };
        let (error, body, held) = match answer {
            Answer::Done => (0, body, None),
            Answer::When(held) => (0, body, Some(held)),
            Answer::Failed(error) => (-error, Vec::new(), None),
            Answer::Never => continue,
        };
        let mut reply = (16 + body.len() as u32).to_le_bytes().to_vec();
        reply.extend(error.to_le_bytes());
        reply.extend(request.get(8..16).unwrap_or_default());
        reply.extend(body);
        // Fails when the request was taken back.
        match held.zip(device.try_clone().ok()) {
            None => {
                let _ = device.write(&reply);
            }
            Some((held, mut device)) => {
                std::thread::spawn(move || {
                    if held.recv().is_ok() {
                        let _ = device.write(&reply);
                    }
                });
            }
        }
    }
}

/// Returns the bytes of `struct fuse_init_out`.
fn init(readahead: u32) -> Vec<u8> {
    let mut body = Vec::new();
    for field in [7, 31, readahead, 0, 16 | 12 << 16, 1 << 20, 1] {
        body.extend(u32::to_le_bytes(field));
    }
    body.resize(64, 0);
    body
}

/// Returns `fuse_attr_out`: a file of this size.
fn attributes(bytes: u64) -> Vec<u8> {
    let mut body = vec![0; 16];
    for field in [1, bytes, bytes.div_ceil(512), 0, 0, 0] {
        body.extend(u64::to_le_bytes(field));
    }
    for field in [0, 0, 0, libc::S_IFREG | 0o600, 1, 0, 0, 0, 4096, 0] {
        body.extend(u32::to_le_bytes(field));
    }
    body
}
