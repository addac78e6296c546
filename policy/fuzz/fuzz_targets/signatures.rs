#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| policy_tools::fuzz::signatures(data));
