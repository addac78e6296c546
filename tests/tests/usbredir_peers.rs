//! Our end of usbredir against somebody else's: QEMU's `usb-redir`, with nothing but SeaBIOS in the machine.
//!
//! The firmware enumerates the stick, reads its first block through QEMU's xHCI and QEMU's guest end, and runs what is there: a program that says
//! a word on the serial port. Once without, once with the read-only filter in the stream.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use usbfilter::stick::{BLOCK, Stick, pinned};
use usbfilter::{Filter, Out, Rules};
use usbredir::{Body, Role, Session};

const WORD: &[u8] = b"READ BY QEMU";
const PATIENCE: Duration = Duration::from_secs(60);

/// Returns a boot sector that writes [`WORD`] to the first serial port and halts.
fn boot_sector() -> Vec<u8> {
    let mut code = vec![
        0x31, 0xc0, // xor ax, ax
        0x8e, 0xd8, // mov ds, ax
        0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xbe, 0x17, 0x7c, // mov si, 0x7c17
        0xfc, // cld
        0xac, // lodsb
        0x84, 0xc0, // test al, al
        0x74, 0x03, // jz halt
        0xee, // out dx, al
        0xeb, 0xf8, // jmp lodsb
        0xf4, // halt: hlt
        0xeb, 0xfd, // jmp halt
    ];
    code.resize(0x17, 0x90);
    code.extend(WORD);
    code.resize(510, 0);
    code.extend([0x55, 0xaa]);
    code
}

struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Boots QEMU from the stick; what came out of its serial port, and the stick's commands.
fn boots(filtered: bool) -> (Vec<u8>, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let (socket, serial) = (dir.path().join("usb.sock"), dir.path().join("serial"));
    let listener = UnixListener::bind(&socket).unwrap();
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-M", "q35", "-m", "64M", "-nodefaults", "-display", "none", "-net", "none"]);
    qemu.args(["-device", "qemu-xhci", "-device", "usb-redir,chardev=stick,bootindex=0"]);
    qemu.arg("-chardev").arg(format!("socket,id=stick,path={}", socket.display()));
    qemu.arg("-serial").arg(format!("file:{}", serial.display()));
    let _qemu = Qemu(qemu.stdin(Stdio::null()).spawn().unwrap());
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();

    let mut stick = Stick::new(4096);
    stick.descriptors = pinned(false);
    stick.medium[..BLOCK].copy_from_slice(&boot_sector());
    let mut filter = filtered.then(|| Filter::new(Rules::ReadOnly, pinned(false)).unwrap());
    let until = Instant::now() + PATIENCE;
    let mut session = Session::new(Role::Host, "bulkhead-test");
    let mut said = Vec::new();
    while Instant::now() < until && !said.windows(WORD.len()).any(|word| word == WORD) {
        serve(&stream, &mut session, &mut stick, filter.as_mut());
        said = std::fs::read(&serial).unwrap_or_default();
    }
    (said, stick.storage.commands)
}

/// Serves one round: reads what QEMU sent, answers it.
fn serve(
    mut stream: &UnixStream,
    session: &mut Session,
    stick: &mut Stick,
    filter: Option<&mut Filter>,
) {
    while !session.output().is_empty() {
        let count = stream.write(session.output()).unwrap();
        session.sent(count);
    }
    let mut buffer = vec![0; session.room().min(65536)];
    let Ok(count) = stream.read(&mut buffer) else { return };
    assert!(count > 0, "QEMU hung up");
    session.feed(&buffer[..count]);
    let mut answers = Vec::new();
    let mut out = Out::default();
    let mut filter = filter;
    while let Some(packet) = session.next().unwrap() {
        let hello = matches!(packet.body, Body::Hello { .. });
        match &mut filter {
            _ if hello => answers.extend(Stick::hello()),
            None => stick.take(packet, &mut answers),
            Some(filter) => {
                filter.from_guest(packet, &mut out);
                out.to_device.drain(..).for_each(|packet| stick.take(packet, &mut answers));
            }
        }
        if let Some(filter) = &mut filter {
            answers.drain(..).for_each(|answer| filter.from_device(answer, &mut out));
            answers.append(&mut out.to_guest);
        }
    }
    answers.iter().for_each(|answer| session.send(answer).unwrap());
}

#[test]
fn qemus_guest_end_reads_a_stick_through_ours_with_the_filter_and_without() {
    for filtered in [false, true] {
        let (said, commands) = boots(filtered);
        assert!(
            said.windows(WORD.len()).any(|word| word == WORD),
            "filtered: {filtered}; the serial port said {:?}; the stick was asked {commands:02x?}",
            String::from_utf8_lossy(&said)
        );
        assert!(commands.contains(&0x28), "READ (10)");
    }
}
