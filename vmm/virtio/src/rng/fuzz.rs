//! A guest that does its worst to the entropy device.
#![allow(clippy::expect_used, reason = "a fuzz target stops where the host fails it")]

use super::Rng;
use crate::fuzz::{Stream, drive};

/// Drives the entropy device.
pub fn run(data: &[u8]) {
    drive(Rng::new().expect("descriptors"), Stream::new(data), |_, _| ());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn the_entropy_device_survives_any_guest(
            data in proptest::collection::vec(any::<u8>(), 0..1500),
        ) {
            super::run(&data);
        }
    }
}
