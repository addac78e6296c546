//! A simulated network: an Ethernet segment with a server on it, on the test's side of a NIC.
//!
//! QEMU's `stream` netdev connects to a Unix socket and sends each frame after its length (4 bytes, big
//! endian). The server is a smoltcp host that answers ARP, neighbour discovery, pings and HTTP; every
//! frame that comes out of the PC is recorded.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr, Ipv6Address};

use crate::Outcome;

/// Frames kept for markers; older ones are only counted.
const FRAMES_MAX: usize = 20_000;
const FRAME_MAX: usize = 65_536;
const POLL: Duration = Duration::from_millis(5);

/// What came out of the PC on this network.
#[derive(Default)]
struct Seen {
    frames: VecDeque<Vec<u8>>,
    by_source: BTreeMap<String, u64>,
}

/// One network with its server.
pub struct Network {
    /// What the server calls it.
    pub name: String,
    /// The server's IPv4 address.
    pub server: [u8; 4],
    /// The Unix socket QEMU connects to.
    pub socket: PathBuf,
    seen: Arc<Mutex<Seen>>,
    inject: Arc<Mutex<VecDeque<Vec<u8>>>>,
    ending: Arc<AtomicBool>,
}

impl Network {
    /// Starts a network whose server has `server` (a /24) and a link-local IPv6 address.
    pub fn start(dir: &Path, name: &str, server: [u8; 4]) -> Outcome<Self> {
        let socket = dir.join(format!("{name}.net"));
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket)?;
        let this = Self {
            name: name.to_owned(),
            server,
            socket,
            seen: Arc::default(),
            inject: Arc::default(),
            ending: Arc::default(),
        };
        let (seen, inject, ending) =
            (Arc::clone(&this.seen), Arc::clone(&this.inject), Arc::clone(&this.ending));
        let name = name.to_owned();
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                serve(stream, &name, server, &seen, &inject, &ending);
                if ending.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        Ok(this)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the server's IPv4 address as text.
    pub fn server_text(&self) -> String {
        self.server.map(|b| b.to_string()).join(".")
    }

    /// Returns the server's IPv6 link-local address as text.
    pub fn server_link_local(&self) -> String {
        link_local(self.server).to_string()
    }

    /// Returns how many frames came with each source address.
    pub fn sources(&self) -> BTreeMap<String, u64> {
        self.seen().by_source.clone()
    }

    /// Returns whether any frame held these bytes.
    pub fn saw(&self, marker: &[u8]) -> bool {
        self.seen().frames.iter().any(|f| f.windows(marker.len()).any(|w| w == marker))
    }

    /// Returns the last frames that came out of the PC, in hexadecimal.
    pub fn last_frames(&self, count: usize) -> String {
        let seen = self.seen();
        let hex = |f: &Vec<u8>| f.iter().take(80).map(|b| format!("{b:02x}")).collect::<String>();
        seen.frames.iter().rev().take(count).map(hex).collect::<Vec<_>>().join("\n")
    }

    /// Sends a frame into the PC.
    pub fn inject(&self, frame: Vec<u8>) {
        self.inject.lock().unwrap_or_else(PoisonError::into_inner).push_back(frame);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        let _ = std::fs::remove_file(&self.socket);
    }
}

fn link_local([a, b, c, d]: [u8; 4]) -> Ipv6Address {
    let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    Ipv6Address::new(0xfe80, 0, 0, 0, 0, 0, high, low)
}

/// The wire as smoltcp sees it: frames in, frames out.
#[derive(Default)]
struct Wire {
    incoming: VecDeque<Vec<u8>>,
    outgoing: Vec<Vec<u8>>,
}

struct Received(Vec<u8>);
struct Sending<'a>(&'a mut Vec<Vec<u8>>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut frame = vec![0; length];
        let result = f(&mut frame);
        self.0.push(frame);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending<'_>)> {
        let frame = self.incoming.pop_front()?;
        Some((Received(frame), Sending(&mut self.outgoing)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        Some(Sending(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

/// Serves one connection of QEMU until it ends.
fn serve(
    mut stream: UnixStream,
    name: &str,
    server: [u8; 4],
    seen: &Mutex<Seen>,
    inject: &Mutex<VecDeque<Vec<u8>>>,
    ending: &AtomicBool,
) {
    let [a, b, c, d] = server;
    let mac = EthernetAddress([0x02, 0xee, a, b, c, d]);
    let mut wire = Wire::default();
    let mut interface = Interface::new(Config::new(mac.into()), &mut wire, Instant::now());
    interface.update_ip_addrs(|addresses| {
        let _ = addresses.push(IpCidr::new(IpAddress::v4(a, b, c, d), 24));
        let _ = addresses.push(IpCidr::new(link_local(server).into(), 64));
    });
    let mut sockets = SocketSet::new(Vec::new());
    let buffer = || tcp::SocketBuffer::new(vec![0; 4096]);
    let http: Vec<_> = (0..4).map(|_| sockets.add(tcp::Socket::new(buffer(), buffer()))).collect();

    if stream.set_read_timeout(Some(POLL)).is_err() {
        return;
    }
    let mut bytes = Vec::new();
    let mut chunk = vec![0; FRAME_MAX];
    while !ending.load(Ordering::Relaxed) {
        match stream.read(&mut chunk) {
            Ok(0) => return,
            Ok(n) => bytes.extend_from_slice(&chunk[..n]),
            Err(e)
                if matches!(
                    e.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) => {}
            Err(_) => return,
        }
        while let Some(frame) = next_frame(&mut bytes) {
            record(seen, &frame);
            wire.incoming.push_back(frame);
        }
        interface.poll(Instant::now(), &mut wire, &mut sockets);
        for handle in &http {
            answer_http(sockets.get_mut::<tcp::Socket>(*handle), name);
        }
        interface.poll(Instant::now(), &mut wire, &mut sockets);
        wire.outgoing.extend(inject.lock().unwrap_or_else(PoisonError::into_inner).drain(..));
        for frame in wire.outgoing.drain(..) {
            let length = u32::try_from(frame.len()).unwrap_or(0).to_be_bytes();
            if stream.write_all(&length).and_then(|()| stream.write_all(&frame)).is_err() {
                return;
            }
        }
    }
}

fn next_frame(bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let frame = bytes.get(4..4 + length)?.to_vec();
    bytes.drain(..4 + length);
    Some(frame)
}

fn record(seen: &Mutex<Seen>, frame: &[u8]) {
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    let source = frame.get(6..12).unwrap_or_default();
    let source = source.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":");
    *seen.by_source.entry(source).or_default() += 1;
    if seen.frames.len() == FRAMES_MAX {
        seen.frames.pop_front();
    }
    seen.frames.push_back(frame.to_vec());
}

/// Answers whoever asks on port 80 with a page that names the network.
fn answer_http(socket: &mut tcp::Socket<'_>, name: &str) {
    if !socket.is_open() {
        let _ = socket.listen(80);
    }
    if socket.can_recv() {
        // Whatever the question, in however many pieces: the answer is who we are.
        let asked = socket.recv(|data| (data.len(), !data.is_empty()));
        if asked == Ok(true) && socket.can_send() {
            let body = format!("this is the {name} network\n");
            let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = socket.send_slice((head + &body).as_bytes());
            socket.close();
        }
    }
}
