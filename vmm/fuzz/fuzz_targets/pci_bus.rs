#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| virtio_pci::fuzz::fuzz_bus(data));
