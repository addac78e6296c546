#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| worker_link::clipboard::fuzz(input));
