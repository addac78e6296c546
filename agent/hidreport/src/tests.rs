use proptest::prelude::*;

use super::*;

/// What is found of keys and pointers; whether it is input is looked at by itself.
const NOTHING: Uses = Uses { types: false, points: false, input: false, whole: true };
const TYPES: Uses = Uses { types: true, ..NOTHING };
const POINTS: Uses = Uses { points: true, ..NOTHING };

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len() / 2)
        .map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap())
        .collect()
}

fn of(text: &str) -> Uses {
    Uses { input: false, ..Uses::of(&hex(text)) }
}

/// Makes a field of one bit each, in an application collection.
fn in_application(usage: &[u8], body: &[u8]) -> Uses {
    let field = [0x15, 0, 0x25, 1, 0x75, 1, 0x95, 1];
    let report = [&field[..], usage, &[0xa1, 1], body, &[0xc0]].concat();
    Uses { input: false, ..Uses::of(&report) }
}

#[test]
fn a_receiver_whose_keys_are_in_a_consumer_control_types() {
    assert_eq!(of(include_str!("../tests/descriptors/microsoft-045e-00db.hex")), TYPES);
}

#[test]
fn a_gamepad_with_a_physical_pointer_collection_is_no_mouse() {
    assert_eq!(of(include_str!("../tests/descriptors/sony-054c-0268.hex")), NOTHING);
}

#[test]
fn touch_screens_touchpads_and_pens_point() {
    for text in [
        include_str!("../tests/descriptors/elan-04f3-2674-asus-q405ua.hex"),
        include_str!("../tests/descriptors/penmount-14e1-3500.hex"),
        include_str!("../tests/descriptors/elo-04e7-0080.hex"),
        include_str!("../tests/descriptors/atmel-03eb-8409.hex"),
        // The least of a touch screen: tip switch, X and Y.
        "050d0904a10185010922a1020942150025017501950181029507810305 0126ff0f751095010930810209318102c0c0",
    ] {
        assert_eq!(of(text), POINTS, "{text}");
    }
    for usage in 1..=6 {
        assert_eq!(in_application(&[0x05, 0x0d, 0x09, usage], &[]), POINTS);
    }
}

#[test]
fn keys_type_however_they_are_named_and_whatever_collection_they_are_in() {
    let applications: [&[u8]; 6] = [
        &[0x05, 0x0c, 0x09, 1],
        &[0x05, 1, 0x09, 4],
        &[0x05, 1, 0x09, 5],
        &[0x05, 1, 0x0a, 0x80, 0],
        &[0x06, 0, 0xff, 0x09, 1],
        &[],
    ];
    let keys: [&[u8]; 7] = [
        &[0x05, 7, 0x09, 4, 0x81, 2],
        // By range; by usages of four bytes; a page after the usage.
        &[0x05, 7, 0x19, 0, 0x29, 0xff, 0x81, 0],
        &[0x0b, 4, 0, 7, 0, 0x81, 2],
        &[0x1b, 0, 0, 7, 0, 0x2b, 0x65, 0, 7, 0, 0x81, 0],
        &[0x05, 9, 0x09, 4, 0x05, 7, 0x81, 2],
        // Back from a pushed state.
        &[0x05, 7, 0xa4, 0x05, 0x0c, 0xb4, 0x09, 4, 0x81, 2],
        // In the first branch of a set, and before it.
        &[0x05, 7, 0xa9, 1, 0x09, 4, 0xa9, 0, 0xa9, 1, 0x0b, 1, 0, 0x0c, 0, 0xa9, 0, 0x81, 2],
    ];
    for application in applications {
        for body in keys {
            let found = in_application(application, body);
            assert_eq!(found, TYPES, "{application:02x?} {body:02x?}");
        }
    }
}

#[test]
fn what_is_no_input_or_no_key_does_not_type() {
    let consumer = &[0x05, 0x0c, 0x09, 1];
    let bodies: [&[u8]; 7] = [
        // An output and a feature report, a constant field, errors, none at all, lamps.
        &[0x05, 7, 0x09, 4, 0x91, 2],
        &[0x05, 7, 0x09, 4, 0xb1, 2],
        &[0x05, 7, 0x09, 4, 0x81, 3],
        &[0x05, 7, 0x19, 0, 0x29, 3, 0x81, 0],
        &[0x05, 7, 0x95, 0, 0x09, 4, 0x81, 2],
        &[0x05, 8, 0x19, 1, 0x29, 5, 0x81, 2],
        // Volume.
        &[0x09, 0xe9, 0x09, 0xea, 0x81, 2],
    ];
    for body in bodies {
        assert_eq!(in_application(consumer, body), NOTHING, "{body:02x?}");
    }
    // A security key (page f1d0), as it is.
    let fido = "06d0f10901a1010920150026ff0075089540810209211500 26ff00750895409102c0";
    assert_eq!(of(fido), NOTHING);
}

#[test]
fn consumer_and_system_controls_with_arrows_enter_or_delete_type() {
    for usage in [0x42_u16, 0x46, 0x48, 0x84, 0x26a] {
        let [low, high] = usage.to_le_bytes();
        let found = in_application(&[0x05, 0x0c, 0x09, 1], &[0x0a, low, high, 0x81, 2]);
        assert_eq!(found, TYPES, "{usage:x}");
    }
    let system = |usage| in_application(&[0x05, 1, 0x09, 0x80], &[0x09, usage, 0x81, 2]);
    assert_eq!((system(0x8d), system(0x81)), (TYPES, NOTHING), "an arrow; the power switch");
}

#[test]
fn what_moves_or_clicks_points_wherever_it_is() {
    let joystick = |body: &[u8]| in_application(&[0x05, 1, 0x09, 4], body);
    assert_eq!(joystick(&[0x09, 0x30, 0x81, 6]), POINTS, "relative X");
    assert_eq!(joystick(&[0x09, 0x30, 0x81, 2]), NOTHING, "a stick's X");
    assert_eq!(joystick(&[0x05, 9, 0x19, 1, 0x29, 0x20, 0x81, 2]), NOTHING, "its buttons");
    assert_eq!(joystick(&[0x05, 0x0d, 0x09, 0x42, 0x81, 2]), POINTS, "a tip switch");
    let consumer = |body: &[u8]| in_application(&[0x05, 0x0c, 0x09, 1], body);
    let physical = [0x05, 1, 0x09, 1, 0xa1, 0, 0x05, 9, 0x09, 1, 0x81, 2, 0xc0];
    assert_eq!(consumer(&physical), POINTS, "a button in a physical Pointer collection");
    assert_eq!(consumer(&[0x05, 9, 0x09, 1, 0x81, 2]), NOTHING, "a button of its own");
    assert_eq!(consumer(&[0x05, 9, 0x09, 17, 0x81, 2]), POINTS, "Linux calls it a left button");
    let lazy = in_application(&[0x05, 1, 0x09, 0x80], &[0x19, 0, 0x29, 0x31, 0x81, 6]);
    assert_eq!(lazy, NOTHING, "Linux makes no axes of a System Control");
}

#[test]
fn a_collection_that_drivers_are_chosen_by_counts_whatever_is_in_it() {
    assert_eq!(of("05010906a101c0"), TYPES);
    assert_eq!(of("05010902a101c0"), POINTS);
    assert_eq!(of("0b06000100a101c0"), TYPES, "of four bytes");
    assert_eq!(of("0906 0501 a101c0"), TYPES, "the page after it");
    assert_eq!(of("05010904a1010901a100c0c0"), NOTHING, "physical, and inside another");
    assert_eq!(of("05010904a1010902a101c0c0"), POINTS, "an application inside another");
    assert_eq!(of("05010902a100c0"), POINTS, "the outermost");
}

#[test]
fn media_keys_and_gamepads_are_input_and_security_keys_and_what_is_the_vendors_own_are_not() {
    for (text, input) in [
        ("050c0901a101c0", true),
        ("05010980a101c0", true),
        ("05010905a101c0", true),
        ("05010906a101c0", true),
        ("0600ff0901a10105010904a100c0c0", true),
        ("0600ff0901a10105010904a102c0c0", false),
        ("06d0f10901a101c0", false),
        ("0600ff0901a101c0", false),
        ("05200901a101c0", false),
    ] {
        assert_eq!(Uses::of(&hex(text)).input, input, "{text}");
    }
}

#[test]
fn a_descriptor_that_makes_no_sense_is_never_said_to_be_harmless() {
    let consumer = "050c0901a101";
    for (text, why) in [
        ("", "none"),
        ("c0", "ends what has not begun"),
        ("050c0901a101", "does not end"),
        ("050c0901a101c005", "is cut in an item"),
        ("fe0100 00", "a long item"),
        ("f0", "a long item of another type"),
        ("b4", "pops what was not pushed"),
        ("a4a4a4a4a4", "pushes too much"),
        ("8500", "report 0"),
        ("860001", "report 256"),
        ("760140", "a field too wide"),
        ("960130", "too many fields"),
        ("d400", "a global item that there is not"),
        ("a901a901", "delimiters in delimiters"),
        ("a900", "a delimiter that was not opened"),
        ("050c0901a101 1501 2500 81 02 c0", "a range backwards"),
        ("1b00ffffff 2bffffffff", "a range without an end"),
    ] {
        assert!(!of(text).whole, "{text} {why}");
        assert!(!of(&format!("05010906a101c0{text}")).whole || text.is_empty(), "{text} {why}");
    }
    // What was found before is found: a host's driver may mend such a thing.
    assert!(of("05010906a101c0 b4").types);
    // Longer than what is read: what comes after may be anything.
    let long = [hex(consumer), vec![0x08; DESCRIPTOR_MAX], hex("c0")].concat();
    assert!(!Uses::of(&long).whole);
    let [begun, ended] = [hex(consumer), hex("c0")];
    let filled = |bytes: usize| [&begun[..], &vec![0x08; bytes - 7], &ended].concat();
    assert!(Uses::of(&filled(DESCRIPTOR_MAX - 1)).whole);
    assert!(!Uses::of(&filled(DESCRIPTOR_MAX)).whole);
}

#[test]
fn a_range_over_the_cap_counts_from_its_beginning_as_in_linux() {
    // 0x70000 to what would be e.g. 0x000000e7: Linux takes the first of them.
    let vendors = |body: &[u8]| in_application(&[0x06, 0, 0xff, 0x09, 1], body);
    let found = vendors(&[0x1b, 0, 0, 7, 0, 0x29, 0xe7, 0x81, 0]);
    assert!(!found.types, "named by one byte they are of the page that is set");
    assert!(vendors(&[0x1b, 0, 0, 7, 0, 0x2b, 0, 0, 0, 0, 0x81, 0]).types);
}

#[test]
fn the_longest_and_widest_descriptor_is_read_in_bounded_time() {
    let field = [0x19, 0, 0x2a, 0xff, 0x2f, 0x81, 0];
    let mut report = vec![0x05, 0x0c, 0x09, 1, 0xa1, 1, 0x15, 0, 0x25, 1, 0x75, 0, 0x95, 1];
    while report.len() + field.len() < DESCRIPTOR_MAX - 1 {
        report.extend(field);
    }
    report.push(0xc0);
    assert!(Uses::of(&report).whole);
}

proptest! {
    #[test]
    fn any_bytes_are_read(report in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Uses::of(&report);
    }

    /// Items with small numbers, as real ones have.
    #[test]
    fn what_was_found_stays_found_when_something_follows(
        items in prop::collection::vec((0..16_u8, 0..3_u8, 0..40_u8), 0..60),
    ) {
        let report: Vec<u8> =
            items.iter().flat_map(|(tag, kind, data)| [tag << 4 | kind << 2 | 1, *data]).collect();
        let mut before = Uses::default();
        for end in (0..=report.len()).step_by(2) {
            let now = Uses::of(&report[..end]);
            prop_assert!(now.types >= before.types && now.points >= before.points);
            before = now;
        }
    }

    #[test]
    fn a_key_is_seen_in_whatever_stands_around_it(
        around in prop::collection::vec((any::<u16>(), 0..3_u8), 0..6),
        key in 4..=0xe7_u8,
        others in prop::collection::vec(any::<u8>(), 0..5),
    ) {
        let mut report = vec![0x15, 0, 0x25, 1, 0x75, 1, 0x95, 1];
        for (usage, kind) in &around {
            let [low, high] = usage.to_le_bytes();
            report.extend([0x05, 0x01, 0x0a, low, high, 0xa1, *kind]);
        }
        report.extend(others.iter().flat_map(|other| [0x05, 0x0c, 0x09, *other]));
        report.extend([0x0b, key, 0, 7, 0, 0x81, 2]);
        report.extend(around.iter().map(|_| 0xc0));
        let found = Uses::of(&report);
        prop_assert!(found.types && found.whole);
    }
}
