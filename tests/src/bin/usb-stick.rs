//! A USB stick that does not exist, as the host's end of a usbredir stream: `usb-stick SOCKET BLOCKS [filtered]`.
//!
//! Connects to a VMM's `--usb` socket and serves the filter's reference stick until it is killed, with the read-only filter before it if that is said. `usb-stick SOCKET noise` sends what is no
//! usbredir instead, and ends when it is put out.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test program may end on what it cannot do"
)]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use usbfilter::stick::{Stick, pinned};
use usbfilter::{Filter, Out, Rules};
use usbredir::{Body, Role, Session};

fn main() {
    let [socket, blocks, how] = [1, 2, 3].map(|n| std::env::args().nth(n).unwrap_or_default());
    let mut stream = UnixStream::connect(&socket).expect("a VMM listens there");
    if blocks == "noise" {
        return noise(&mut stream);
    }
    let mut stick = Stick::new(blocks.parse().expect("a number of blocks"));
    // Nobody is here to hide UAS from the guest, whose kernel would want its driver for it.
    stick.descriptors = pinned(false);
    let mut filter = (how == "filtered")
        .then(|| Filter::new(Rules::ReadOnly, pinned(false)).expect("a stick for the filter"));
    let mut out = Out::default();
    let mut session = Session::new(Role::Host, "usb-stick");
    let mut buffer = vec![0; 65536];
    let mut answers = Vec::new();
    loop {
        while !session.output().is_empty() {
            let count = stream.write(session.output()).expect("the VMM takes it");
            session.sent(count);
        }
        let room = session.room().min(buffer.len());
        let count = stream.read(&mut buffer[..room]).expect("the VMM is there");
        if count == 0 {
            return;
        }
        session.feed(&buffer[..count]);
        while let Some(packet) = session.next().expect("the VMM speaks usbredir") {
            let hello = matches!(packet.body, Body::Hello { .. });
            match &mut filter {
                _ if hello => answers.extend(Stick::hello()),
                None => stick.take(packet, &mut answers),
                Some(filter) => {
                    filter.from_guest(packet, &mut out);
                    for packet in out.to_device.drain(..) {
                        stick.take(packet, &mut answers);
                    }
                }
            }
            if let Some(filter) = &mut filter {
                for answer in answers.drain(..) {
                    filter.from_device(answer, &mut out);
                }
                answers.append(&mut out.to_guest);
            }
        }
        for answer in answers.drain(..) {
            session.send(&answer).expect("it fits");
        }
    }
}

/// Sends a hello, then nonsense; the end of the stream is what is expected.
fn noise(stream: &mut UnixStream) {
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    let session = Session::new(Role::Host, "noise");
    stream.write_all(session.output()).expect("a hello");
    // The VMM may close before all of it is written.
    let _ = stream.write_all(&[0xa5; 4096]);
    let mut rest = Vec::new();
    let end = stream.read_to_end(&mut rest);
    let closed = match &end {
        Ok(_) => true,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    };
    println!("PUT-OUT {closed}");
}
