#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| usbfilter::fuzz::fuzz_guest(data));
