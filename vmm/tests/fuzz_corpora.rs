//! The inputs that the fuzz targets of `vmm/fuzz` begin with.
#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in tests and does not know that this is one"
)]

use std::path::Path;

use fuzzinput::corpus::{Target, run};

const TARGETS: [Target; 11] = [
    ("link", |data| assert!(seat_link::fuzz(data))),
    ("pci_bus", virtio_pci::fuzz::fuzz_bus),
    ("usbredir", usbredir::fuzz::session),
    ("virtio_blk", virtio::blk::fuzz::run),
    ("virtio_console", virtio::console::fuzz::run),
    ("virtio_gpu", virtio::gpu::fuzz::run),
    ("virtio_input", virtio::input::fuzz::run),
    ("virtio_net", virtio::net::fuzz::run),
    ("virtio_queue", virtio::fuzz::fuzz_queue),
    ("virtio_rng", virtio::rng::fuzz::run),
    ("xhci", xhci::fuzz::fuzz_controller),
];

#[test]
fn what_the_fuzz_targets_begin_with_breaks_no_device_and_no_reader() {
    run(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz"), &TARGETS).unwrap();
}
