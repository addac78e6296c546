use proptest::prelude::*;

use super::*;

fn with(parts: &[(usize, &[u8])]) -> Snapshot {
    let mut config = [0; SIZE as usize];
    config[0x06] = 0x10;
    for (at, bytes) in parts {
        config[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    Snapshot::new(config, [0; BARS])
}

fn ids(snapshot: &Snapshot) -> Vec<u8> {
    snapshot.capabilities().iter().map(|one| one.id).collect()
}

#[test]
fn a_vendor_capability_that_claims_too_much_does_not_cut_the_list() {
    // It claims 0xff bytes, over the two that follow it and beyond the end.
    let snapshot = with(&[
        (0x34, &[0x50]),
        (0x50, &[id::VENDOR, 0x60, 0xff, 0]),
        (0x60, &[id::POWER, 0x70]),
        (0x70, &[id::MSI, 0, 0x80, 0]),
    ]);
    assert_eq!(ids(&snapshot), [id::VENDOR, id::POWER, id::MSI]);
    let list = snapshot.capabilities();
    assert_eq!((list[0].end, list[0].whole), (0x60, false));
    assert!(list[1].whole && list[2].whole);
    // Last in the list, and in the middle of the space.
    let snapshot = with(&[
        (0x34, &[0x60]),
        (0x60, &[id::MSI, 0x50, 0x80, 0]),
        (0x50, &[id::VENDOR, 0, 0x78, 0]),
    ]);
    let list = snapshot.capabilities();
    assert_eq!((list[1].id, list[1].end, list[1].whole), (id::VENDOR, 0x60, false));
    assert!(list[0].whole);
}

#[test]
fn a_capability_that_would_leave_its_space_is_not_whole_and_what_follows_is_found() {
    let snapshot =
        with(&[(0x34, &[0xf8]), (0xf8, &[id::MSIX, 0x40, 0, 0]), (0x40, &[id::MSI, 0, 0, 0])]);
    let list = snapshot.capabilities();
    assert_eq!(
        list.iter().map(|one| (one.id, one.whole)).collect::<Vec<_>>(),
        [(id::MSIX, false), (id::MSI, true)]
    );
}

#[test]
fn bars_are_read_with_kind_and_size_and_sysfs_says_the_same() {
    let mut config = [0; SIZE as usize];
    config[0x10..0x14].copy_from_slice(&0xe404_0000u32.to_le_bytes());
    config[0x14..0x18].copy_from_slice(&0x0000_c001u32.to_le_bytes());
    config[0x18..0x1c].copy_from_slice(&0x0000_000cu32.to_le_bytes());
    let sizes = [0x1000, 32, 0x20000, 0, 0, 0];
    let bars = Snapshot::new(config, sizes).bars();
    let kinds: Vec<_> = bars.iter().flatten().map(|bar| (bar.size, bar.kind)).collect();
    let expected = [(0x1000, BarKind::Memory32), (32, BarKind::Io), (0x20000, BarKind::Memory64)];
    assert_eq!(kinds, expected);
    assert!(bars[2].unwrap().prefetchable && !bars[0].unwrap().prefetchable);
    let resources = "0x00000000e4040000 0x00000000e4040fff 0x0000000000040200\n\
        0x000000000000c000 0x000000000000c01f 0x0000000000040101\n\
        0x0000004000000000 0x000000400001ffff 0x000000000014220c\n\
        0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
        0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
        0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
        0x00000000e4000000 0x00000000e401ffff 0x0000000000046200\n";
    assert_eq!(Snapshot::from_sysfs(&config, resources).unwrap().bars(), bars);
    assert_eq!(Snapshot::from_sysfs(&config[..64], resources), None, "without root it is cut");
    assert_eq!(Snapshot::from_sysfs(&config, "nonsense"), None);
}

proptest! {
    #[test]
    fn whatever_hardware_says_its_capabilities_stay_in_their_space_and_apart(
        bytes in prop::collection::vec(any::<u8>(), 256),
        pointer: u8,
        links in prop::collection::vec((0usize..48, 0usize..48, prop::sample::select(vec![1u8, 3, 5, 9, 16, 17, 19])), 0..12),
    ) {
        let mut config: [u8; 256] = bytes.try_into().unwrap();
        config[0x06] |= 0x10;
        config[0x34] = pointer;
        for (at, next, id) in links {
            config[0x40 + at * 4] = id;
            config[0x40 + at * 4 + 1] = u8::try_from(0x40 + next * 4).unwrap();
        }
        let list = Snapshot::new(config, [0; BARS]).capabilities();
        prop_assert!(list.len() <= CAPABILITIES_MAX);
        for (index, one) in list.iter().enumerate() {
            prop_assert!(one.at >= HEADER_END && one.at < one.end && one.end <= SIZE);
            for other in &list[..index] {
                prop_assert!(one.end <= other.at || other.end <= one.at, "{one:?} {other:?}");
            }
        }
    }
}
