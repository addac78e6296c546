#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| clipboard::fuzz::content(input));
