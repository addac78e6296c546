#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| usbredir::fuzz::session(data));
