//! Vendor requests of printers and scanners.

use usbredir::{Body, Packet};

use super::descriptors::hexadecimal;
use crate::testing::control;
use crate::{Event, Filter, HARMLESS, Out, Refusal, Rules};

/// A multifunction printer of Brother's: a printer, and a scanner that is vendor-specific.
const BROTHER: &str = "1201000200000040f904d00200010102030109023700020100803209040000020701020007050102000200070582020002000904010002ffffff000705030200020007058402000200";

fn passes(device: &str, body: Body) -> bool {
    let mut filter = Filter::new(Rules::Allow, hexadecimal(device)).unwrap();
    let mut out = Out::default();
    filter.from_guest(Packet { id: 1, body }, &mut out);
    let passed = !out.to_device.is_empty();
    assert_eq!(passed, out.events.is_empty(), "{out:?}");
    passed
}

#[test]
fn the_scanner_of_a_multifunction_printer_opens_and_closes() {
    // As SANE's brother_mfp opens, closes and asks it.
    for (request, value, length) in [(1, 2, 5), (2, 2, 5), (3, 0, 255)] {
        assert!(passes(BROTHER, control(0xc0, request, value, 0, length)), "{request}");
    }
}

#[test]
fn a_vendor_request_that_is_not_the_known_one_to_the_letter_does_not_pass() {
    for (request_type, request, value, index, length) in [
        (0x40, 1, 2, 0, 0),   // to the device
        (0xc0, 1, 3, 0, 5),   // another value
        (0xc0, 1, 2, 1, 5),   // another index
        (0xc0, 1, 2, 0, 256), // more than it answers
        (0xc0, 4, 2, 0, 5),   // another request
        (0xc1, 1, 2, 0, 5),   // to an interface
        (0xc1, 0, 77, 0, 1),  // another maker's
    ] {
        let body = control(request_type, request, value, index, length);
        assert!(!passes(BROTHER, body), "{request_type:02x} {request} {value} {index} {length}");
    }
    // Another maker's, and the maker's own without a printer.
    let open = || control(0xc0, 1, 2, 0, 5);
    assert!(!passes(&BROTHER.replace("f904d002", "e1040000"), open()));
    let without = BROTHER.replace("09040000020701020007", "09040000020b01020007");
    assert!(!passes(&without, open()));
}

#[test]
fn the_channel_of_a_printer_of_hps_is_chosen_at_its_printer_alone() {
    let hp = BROTHER.replace("f904d002", "f0030417");
    for channel in [0, 77, 78] {
        assert!(passes(&hp, control(0xc1, 0, channel, 0, 1)));
    }
    assert!(!passes(&hp, control(0xc1, 0, 77, 1, 1)), "that is the scanner");
    assert!(!passes(&hp, control(0xc1, 0, 256, 0, 1)));
    assert!(!passes(&hp, control(0xc0, 0, 77, 0, 1)));
}

#[test]
fn what_passes_without_being_understood_moves_no_data_to_a_device() {
    for known in HARMLESS {
        assert!(matches!(known.request_type, 0xc0 | 0xc1), "{}", known.what);
    }
    let what = Refusal::Control { request_type: 0x40, request: 1 };
    let mut filter = Filter::new(Rules::Allow, hexadecimal(BROTHER)).unwrap();
    let mut out = Out::default();
    filter.from_guest(Packet { id: 1, body: control(0x40, 1, 2, 0, 0) }, &mut out);
    assert_eq!(out.events, [Event::Refused { what, times: 1 }]);
}
