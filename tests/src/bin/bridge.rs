//! Joins two listeners: `bridge ADDRESS ADDRESS`, each `HOST:PORT` or the path of a Unix socket. Connects to both, and carries what
//! each says to the other until one hangs up.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test program may end on what it cannot do"
)]

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How long whoever listens may take to begin.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(50);

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    fn connect(address: &str) -> io::Result<Self> {
        if address.contains('/') {
            UnixStream::connect(address).map(Self::Unix)
        } else {
            TcpStream::connect(address).map(Self::Tcp)
        }
    }

    fn patiently(address: &str) -> Self {
        let until = Instant::now() + PATIENCE;
        loop {
            match Self::connect(address) {
                Ok(stream) => return stream,
                Err(error) if Instant::now() > until => panic!("{address}: {error}"),
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
    }

    fn again(&self) -> io::Result<Self> {
        match self {
            Self::Unix(stream) => stream.try_clone().map(Self::Unix),
            Self::Tcp(stream) => stream.try_clone().map(Self::Tcp),
        }
    }

    fn end(&self) {
        // The other end may have done so already.
        let _ = match self {
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
        };
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buffer),
            Self::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(buffer),
            Self::Tcp(stream) => stream.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn main() {
    let [one, other] = [1, 2].map(|n| std::env::args().nth(n).expect("two addresses"));
    let [one, other] = [one, other].map(|address| Stream::patiently(&address));
    let carry = |mut from: Stream, mut to: Stream| {
        std::thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            from.end();
            to.end();
        })
    };
    let there = carry(one.again().expect("a descriptor"), other.again().expect("a descriptor"));
    let back = carry(other, one);
    there.join().expect("it is carried");
    back.join().expect("it is carried");
}
