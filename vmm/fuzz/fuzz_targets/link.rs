#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| assert!(seat_link::fuzz(data)));
