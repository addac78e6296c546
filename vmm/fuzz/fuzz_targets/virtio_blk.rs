#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| virtio::blk::fuzz::run(data));
