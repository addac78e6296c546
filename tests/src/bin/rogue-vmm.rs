//! A VMM that a guest took over: runs the clinical domain as it should, and for the Internet domain says to the
//! agent what no VMM would. Which of its tricks it plays next is counted in `/tmp/rogue`.
#![allow(clippy::expect_used, reason = "a test program may end on what it cannot do")]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};
use seat_link::{Channel, Cursor, CursorChange, PACKET_MAX, Packet, Rect, Size, ToAgent, Update};
use vmm_control::VmSpec;

const VMM: &str = "/share/bulkhead-vmm";
const COUNT: &str = "/tmp/rogue";
const HUGE: Rect = Rect { x: u32::MAX, y: 7, width: u32::MAX, height: u32::MAX };

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut told = Vec::new();
    std::io::stdin().read_to_end(&mut told).expect("what to run");
    let spec = VmSpec::read(told.as_slice()).expect("what to run");
    let seat = spec.seat_socket.expect("a PC with a seat");
    if !seat.to_string_lossy().contains("/internet/") {
        // It was read from a pipe, to its end: the VMM gets one of its own, which has room for it.
        let (again, mut write) = std::io::pipe().expect("a pipe");
        write.write_all(&told).expect("room in a pipe");
        drop(write);
        let error = Command::new(VMM).args(&arguments).stdin(again).exec();
        eprintln!("{VMM}: {error}");
        std::process::exit(1);
    }
    let trick: u32 =
        fs::read_to_string(COUNT).ok().and_then(|n| n.trim().parse().ok()).unwrap_or(0);
    fs::write(COUNT, (trick + 1).to_string()).expect("a file in /tmp");
    let channel = Channel::new(agent_of(&seat).expect("an agent")).expect("the link");
    eprintln!("rogue: trick {trick}");
    match trick {
        0 => nonsense(&channel),
        1 => flood(&channel),
        2 => numbers(&channel),
        _ => {}
    }
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}

/// Waits for the agent at the seat's socket.
fn agent_of(seat: &Path) -> nix::Result<OwnedFd> {
    let listener = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    bind(listener.as_raw_fd(), &UnixAddr::new(seat)?)?;
    listen(&listener, Backlog::new(1)?)?;
    let (agent, _) = UnixListener::from(listener).accept().map_err(|_| nix::Error::ECONNABORTED)?;
    Ok(agent.into())
}

/// Sends bytes that are no message, and a file with them.
fn nonsense(channel: &Channel) {
    let file = File::open("/proc/self/exe").expect("itself");
    let _ = channel.send_file(&[0xff; 5000], file.as_fd());
    for length in 1..2000 {
        let _ = channel.send(&vec![0x81; length]);
    }
}

/// Updates without end, none of which waits for the last to be taken; nothing is ever read.
fn flood(channel: &Channel) {
    let update = Update { damage: HUGE, ..Update::default() };
    let packet = ToAgent::Update(update).encode();
    for _ in 0..1_000_000 {
        if channel.send(&packet).is_err() {
            return;
        }
    }
}

/// Sends well-formed updates with numbers that cannot be, and a cursor that covers everything; in turn, for ever.
fn numbers(channel: &Channel) {
    let sizes = [(u32::MAX, u32::MAX), (1, u32::MAX), (8192, 4320), (1280, 776), (1, 1)];
    let mut buffer = [0; PACKET_MAX];
    for round in 0usize.. {
        let (width, height) = sizes.get(round % sizes.len()).copied().unwrap_or_default();
        let cursor = Cursor { hot_x: 63, hot_y: 0, pixels: vec![0xff; seat_link::CURSOR_BYTES] };
        let update = Update {
            picture: Some(Size { width, height }),
            damage: if round % 2 == 0 { HUGE } else { Rect { x: 0, y: 0, ..HUGE } },
            leds: 0xff,
            stalled: round % 3 == 0,
            cursor: CursorChange::Shown(Box::new(cursor)),
        };
        if channel.send(&ToAgent::Update(update).encode()).is_err() {
            return;
        }
        // Waits for its turn, as a good VMM would.
        loop {
            match channel.receive_file(&mut buffer) {
                Ok(Packet::Message([5], _)) => break,
                Ok(Packet::Closed) | Err(_) => return,
                Ok(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }
}
