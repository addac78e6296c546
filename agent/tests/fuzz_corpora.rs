//! The inputs that the fuzz targets of `agent/fuzz` begin with.
#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in tests and does not know that this is one"
)]

use std::path::Path;

use fuzzinput::corpus::{Target, run};

const TARGETS: [Target; 16] = [
    ("audit", audit::fuzz::log),
    ("clipboard", clipboard::fuzz::mediator),
    ("clipboard_content", clipboard::fuzz::content),
    ("control_requests", control::fuzz::requests),
    ("edid", seat::fuzz::edid),
    ("hid_report", |data| {
        let _ = hidreport::Uses::of(data);
    }),
    ("image_bundle", images::fuzz::bundle),
    ("pictures", pictures::fuzz),
    ("program_bundle", program::fuzz::bundle),
    ("usb_descriptors", usbfilter::fuzz::fuzz_descriptors),
    ("usb_device", usbfilter::fuzz::fuzz_device),
    ("usb_guest", usbfilter::fuzz::fuzz_guest),
    ("vmm_words", domains::fuzz::vmm_words),
    ("worker_clipboard", worker_link::clipboard::fuzz),
    ("worker_link", worker_link::fuzz),
    ("worker_usb", worker_link::usb::fuzz),
];

#[test]
fn what_the_fuzz_targets_begin_with_breaks_no_reader_and_no_mediator() {
    run(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz"), &TARGETS).unwrap();
}
