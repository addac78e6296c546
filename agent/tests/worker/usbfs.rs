//! A USB device of a test's own: a node that takes the requests of usbfs, as a real file that this process serves through `/dev/fuse`. Whoever has it open asks the
//! kernel, and the kernel asks here; the memory of who asks is read and written as usbfs does it. Sources: `linux/fuse.h`, `linux/usbdevice_fs.h`.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// What a device does with a control request of these eight bytes.
pub(super) enum Answer {
    /// It has these data.
    Data(Vec<u8>),
    /// It refuses it.
    Stall,
    /// It says nothing, until the request is taken back.
    Nothing,
}

/// What was asked of the node besides transfers, by the request's number.
pub(super) type Requests = Arc<Mutex<Vec<u32>>>;

pub(super) const RESET: u32 = 0x5514;
pub(super) const CLAIM: u32 = 0x8004_550f;
pub(super) const RELEASE: u32 = 0x8004_5510;
const SUBMIT: u32 = 0x8038_550a;
const REAP: u32 = 0x4008_550d;
const DISCARD: u32 = 0x550b;

/// Bytes of `struct usbdevfs_urb`.
const URB: usize = 56;
/// Bytes of `struct fuse_in_header`.
const HEADER: usize = 40;
/// Code of the message that a file may be polled anew.
const NOTIFY_POLL: i32 = 1;

mod opcode {
    pub(super) const FORGET: u32 = 2;
    pub(super) const GETATTR: u32 = 3;
    pub(super) const OPEN: u32 = 14;
    pub(super) const READ: u32 = 15;
    pub(super) const RELEASE: u32 = 18;
    pub(super) const FLUSH: u32 = 25;
    pub(super) const INIT: u32 = 26;
    pub(super) const INTERRUPT: u32 = 36;
    pub(super) const IOCTL: u32 = 39;
    pub(super) const POLL: u32 = 40;
    pub(super) const BATCH_FORGET: u32 = 42;
}

/// The node of a device.
pub(super) struct Usbfs {
    dir: tempfile::TempDir,
    pub(super) requests: Requests,
    server: Option<JoinHandle<()>>,
}

impl Usbfs {
    /// Plugs in a device with these descriptors, which answers control requests so and no other transfer. `None`, and a word why, where a test may not mount.
    pub(super) fn plug(
        descriptors: Vec<u8>,
        control: impl FnMut([u8; 8]) -> Answer + Send + 'static,
    ) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("node");
        File::create(&place).unwrap();
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse");
        let mounted = device.map_err(|error| error.to_string()).and_then(|device| {
            let fd = device.as_raw_fd();
            // The worker is another user.
            let options = format!("fd={fd},rootmode=100666,user_id=0,group_id=0,allow_other");
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
            mount(Some("usbfs"), &place, Some("fuse"), flags, Some(&*options))
                .map(|()| device)
                .map_err(|error| error.to_string())
        });
        let device = match mounted {
            Ok(device) => device,
            Err(error) => {
                eprintln!("NOT TESTED: a node of a test's own needs root and /dev/fuse: {error}");
                return None;
            }
        };
        let requests = Requests::default();
        let mut node = Node {
            device,
            descriptors,
            control: Box::new(control),
            requests: Arc::clone(&requests),
            pending: Vec::new(),
            ended: VecDeque::new(),
            polled: None,
        };
        let server = std::thread::spawn(move || node.serve());
        Some(Self { dir, requests, server: Some(server) })
    }

    fn place(&self) -> PathBuf {
        self.dir.path().join("node")
    }

    pub(super) fn open(&self) -> File {
        OpenOptions::new().read(true).write(true).open(self.place()).unwrap()
    }

    /// Returns how often this was asked for.
    pub(super) fn asked(&self, request: u32) -> usize {
        self.requests.lock().unwrap().iter().filter(|one| **one == request).count()
    }
}

impl Drop for Usbfs {
    fn drop(&mut self) {
        let _ = umount2(&self.place(), MntFlags::MNT_FORCE | MntFlags::MNT_DETACH);
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

/// A transfer that has not ended.
struct Transfer {
    /// Where it is in the memory of who asked for it.
    urb: u64,
    thread: u32,
}

/// The device behind its node.
struct Node {
    /// `/dev/fuse`.
    device: File,
    descriptors: Vec<u8>,
    control: Box<dyn FnMut([u8; 8]) -> Answer + Send>,
    requests: Requests,
    pending: Vec<Transfer>,
    /// Transfers that have ended and were not reaped.
    ended: VecDeque<u64>,
    /// Who is told that there are any.
    polled: Option<u64>,
}

/// A number of so many bytes in what the kernel asks, or the memory of who asked.
fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

impl Node {
    fn serve(&mut self) {
        let mut buffer = vec![0; (1 << 20) + 4096];
        loop {
            let length = match self.device.read(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return, // unmounted
                Err(_) => continue,                                                 // taken back
            };
            let request = &buffer[..length];
            let answer = match word(request, 4) {
                opcode::FORGET | opcode::BATCH_FORGET | opcode::INTERRUPT => continue,
                opcode::INIT => Ok(init(word(request, HEADER + 8))),
                opcode::GETATTR => Ok(attributes(self.descriptors.len() as u64)),
                // FOPEN_DIRECT_IO: nothing is kept of what is read.
                opcode::OPEN => Ok([[0; 8], [1, 0, 0, 0, 0, 0, 0, 0]].concat()),
                opcode::READ => {
                    let at = usize::try_from(long(request, HEADER + 8)).unwrap();
                    let most = word(request, HEADER + 16) as usize;
                    let rest = self.descriptors.get(at..).unwrap_or_default();
                    Ok(rest[..rest.len().min(most)].to_vec())
                }
                opcode::RELEASE | opcode::FLUSH => Ok(Vec::new()),
                opcode::IOCTL => {
                    let (asked, at) = (word(request, HEADER + 12), long(request, HEADER + 16));
                    match self.ioctl(word(request, 32), asked, at) {
                        Ok(()) => Ok(vec![0; 16]),
                        Err(error) => Err(error.raw_os_error().unwrap_or(libc::EIO)),
                    }
                }
                opcode::POLL => {
                    self.polled = Some(long(request, HEADER + 8));
                    let ready = if self.ended.is_empty() { 0 } else { libc::POLLOUT };
                    Ok([u32::try_from(ready).unwrap().to_le_bytes(), [0; 4]].concat())
                }
                _ => Err(libc::ENOSYS),
            };
            let (error, body) = answer.map_or_else(|error| (-error, Vec::new()), |body| (0, body));
            let unique = long(request, 8);
            self.write(error, unique, &body);
        }
    }

    fn write(&mut self, error: i32, unique: u64, body: &[u8]) {
        let length = u32::try_from(16 + body.len()).unwrap();
        let head = [length.to_le_bytes(), error.to_le_bytes()].concat();
        // Fails when the request was taken back.
        let _ = self.device.write(&[&head[..], &unique.to_le_bytes(), body].concat());
    }

    /// Does what a thread asks for, of which `at` is the argument.
    fn ioctl(&mut self, thread: u32, request: u32, at: u64) -> io::Result<()> {
        let errno = |number| io::Error::from_raw_os_error(number);
        match request {
            SUBMIT => return self.submit(thread, at),
            REAP => {
                let urb = self.ended.pop_front().ok_or_else(|| errno(libc::EAGAIN))?;
                return memory(thread)?.write_all_at(&urb.to_le_bytes(), at);
            }
            DISCARD => {
                let known = self.pending.iter().position(|transfer| transfer.urb == at);
                let transfer = self.pending.remove(known.ok_or_else(|| errno(libc::EINVAL))?);
                return self.end(&transfer, -libc::ENOENT, 0);
            }
            // As usbfs does with what is on its way.
            RESET => self.take_all_back()?,
            _ => {}
        }
        self.requests.lock().unwrap().push(request);
        Ok(())
    }

    fn submit(&mut self, thread: u32, at: u64) -> io::Result<()> {
        const CONTROL: u8 = 2;
        let memory = memory(thread)?;
        let mut urb = [0; URB];
        memory.read_exact_at(&mut urb, at)?;
        let transfer = Transfer { urb: at, thread };
        if urb[0] != CONTROL {
            self.pending.push(transfer);
            return Ok(());
        }
        let buffer = long(&urb, 16);
        let mut setup = [0; 8];
        memory.read_exact_at(&mut setup, buffer)?;
        match (self.control)(setup) {
            Answer::Data(mut data) => {
                data.truncate(u16::from_le_bytes([setup[6], setup[7]]).into());
                memory.write_all_at(&data, buffer + 8)?;
                self.end(&transfer, 0, data.len())
            }
            Answer::Stall => self.end(&transfer, -libc::EPIPE, 0),
            Answer::Nothing => {
                self.pending.push(transfer);
                Ok(())
            }
        }
    }

    fn take_all_back(&mut self) -> io::Result<()> {
        for transfer in std::mem::take(&mut self.pending) {
            self.end(&transfer, -libc::ENOENT, 0)?;
        }
        Ok(())
    }

    /// Ends a transfer with this status and so many bytes.
    fn end(&mut self, transfer: &Transfer, status: i32, length: usize) -> io::Result<()> {
        let memory = memory(transfer.thread)?;
        memory.write_all_at(&status.to_le_bytes(), transfer.urb + 4)?;
        let length = u32::try_from(length).unwrap();
        memory.write_all_at(&length.to_le_bytes(), transfer.urb + 28)?;
        self.ended.push_back(transfer.urb);
        if let Some(polled) = self.polled {
            self.write(NOTIFY_POLL, 0, &polled.to_le_bytes());
        }
        Ok(())
    }
}

/// Opens the memory of the process that this thread is of.
fn memory(thread: u32) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(format!("/proc/{thread}/mem"))
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
    for field in [0, 0, 0, libc::S_IFREG | 0o666, 1, 0, 0, 0, 4096, 0] {
        body.extend(u32::to_le_bytes(field));
    }
    body
}
