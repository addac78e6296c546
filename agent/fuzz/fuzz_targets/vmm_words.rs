#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| domains::fuzz::vmm_words(input));
