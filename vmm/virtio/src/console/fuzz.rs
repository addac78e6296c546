//! A guest and clients that do their worst to the console device.
#![allow(clippy::expect_used, reason = "a fuzz target stops where the host fails it")]

use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::signal::{SigSet, Signal};

use super::{Console, NamedPort};
use crate::fuzz::{Stream, drive};

/// Drives the console device with a console and two ports, and clients that come and go.
pub fn run(data: &[u8]) {
    // A Rust program ignores it before it begins; libFuzzer's begins in C++, and would end where a client has hung up.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGPIPE);
    signals.thread_block().expect("a signal can be blocked");
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let address = |port: u8| {
        let name = format!("bulkhead-fuzz-{}-{number}-{port}", std::process::id());
        SocketAddr::from_abstract_name(name).expect("a short name")
    };
    let listener = |port| UnixListener::bind_addr(&address(port)).expect("an unused name");
    let named = [("one", 1), ("two", 2)]
        .map(|(name, port)| NamedPort { name: name.into(), listener: listener(port) });
    let console = Console::new(Some(listener(0)), named.into()).expect("good names");

    let mut clients: Vec<UnixStream> = Vec::new();
    drive(console, Stream::new(data), |stream, _| match stream.byte() % 4 {
        0 if clients.len() < 8 => {
            let client = UnixStream::connect_addr(&address(stream.byte() % 3));
            clients.extend(client.inspect(|it| it.set_nonblocking(true).expect("a socket")));
        }
        1 => drop(clients.pop()),
        // Either may find the device has hung up, or that there is nothing to read.
        2 => drop(clients.last_mut().map(|client| client.write(stream.take(64)))),
        _ => drop(clients.last_mut().map(|client| client.read(&mut [0; 4096]))),
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn the_console_device_survives_any_guest_and_any_client(
            data in proptest::collection::vec(any::<u8>(), 0..1500),
        ) {
            super::run(&data);
        }
    }
}
