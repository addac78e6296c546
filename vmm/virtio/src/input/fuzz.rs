//! A guest that does its worst to the input devices.
#![allow(clippy::expect_used, reason = "a fuzz target stops where the host fails it")]

use super::{Input, Kind};
use crate::fuzz::{Stream, drive};

/// Drives both input devices' queues and configuration, with a person at them.
pub fn run(data: &[u8]) {
    let kind =
        if data.first().is_some_and(|byte| byte & 1 == 1) { Kind::Pointer } else { Kind::Keyboard };
    let (device, handle) = Input::new(kind, Box::new(|_| ())).expect("descriptors");
    drive(device, Stream::new(data), |stream, _| match stream.byte() % 4 {
        0 => handle.release_all(),
        count => {
            for _ in 0..count {
                let (kind, code) = (stream.u16() % 20, stream.u16() % 0x300);
                handle.send(&[seat_link::Event { kind, code, value: i32::from(stream.byte()) }]);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn the_input_devices_survive_any_guest(
            data in proptest::collection::vec(any::<u8>(), 0..1500),
        ) {
            super::run(&data);
        }
    }
}
