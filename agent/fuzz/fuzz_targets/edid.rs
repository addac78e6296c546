#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| seat::fuzz::edid(data));
