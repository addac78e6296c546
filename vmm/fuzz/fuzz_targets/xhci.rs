#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| xhci::fuzz::fuzz_controller(data));
