//! A guest and a network that do their worst to the network device.
#![allow(clippy::expect_used, reason = "a fuzz target stops where the host fails it")]

use std::fs::File;
use std::os::fd::AsRawFd;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};

use super::{Mac, Net, Tap};
use crate::fuzz::{Stream, drive};

/// Drives the network device, on a socket in place of a tap.
pub fn run(data: &[u8]) {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let (network, tap) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).expect("descriptors");
    let tap = Tap::stand_in(File::from(tap));
    let net = Net::new(tap, Mac::derived("fuzz")).expect("descriptors");
    drive(net, Stream::new(data), |stream, _| {
        let fd = network.as_raw_fd();
        if stream.byte() & 1 == 0 {
            let mut frame = stream.take(64).to_vec();
            frame.resize(frame.len() + usize::from(stream.u16()), 0x11);
            // Full is as good as any.
            let _ = send(fd, &frame, MsgFlags::empty());
        } else {
            let mut frame = [0; 64];
            let _ = recv(fd, &mut frame, MsgFlags::MSG_TRUNC);
        }
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn the_network_device_survives_any_guest_and_any_network(
            data in proptest::collection::vec(any::<u8>(), 0..1500),
        ) {
            super::run(&data);
        }
    }
}
