//! The report descriptors of real devices, where the file is there: half of what people have published
//! (`../shared/data/README.md`). The other half is kept for checking.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use hidreport::Uses;

/// Returns the rows of a file: source, device and report descriptor.
fn rows() -> Option<Vec<(String, String, Vec<u8>)>> {
    let places = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let mut files = places.map(|place| place.join("shared/data/hid-reports.tsv"));
    let text = files.find_map(|file| fs::read_to_string(file).ok())?;
    let row = |line: &str| {
        let mut columns = line.split('\t').map(str::to_owned);
        let (source, id, hex) = (columns.next()?, columns.next()?, columns.next()?);
        let bytes = (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16));
        Some((source, id, bytes.collect::<Result<_, _>>().ok()?))
    };
    Some(text.lines().filter(|line| !line.starts_with('#')).filter_map(row).collect())
}

/// Returns the usages of the outermost collections, read in the plainest way there is.
fn outermost(report: &[u8]) -> Vec<u32> {
    let (mut at, mut page, mut usage, mut depth, mut found) = (0, 0, 0, 0, Vec::new());
    while at < report.len() {
        let size = [0, 1, 2, 4][usize::from(report[at] & 3)];
        let value = report[at + 1..]
            .iter()
            .take(size)
            .rev()
            .fold(0_u32, |value, byte| value << 8 | u32::from(*byte));
        match report[at] & 0xfc {
            0x04 => page = value,
            0x08 => usage = if size == 4 { value } else { page << 16 | value },
            0xa0 => {
                if depth == 0 {
                    found.push(usage);
                }
                depth += 1;
            }
            0xc0 => depth -= 1,
            _ => {}
        }
        at += 1 + size;
    }
    found
}

#[test]
fn of_real_devices_every_one_that_types_or_points_is_known_and_no_other() {
    let Some(rows) = rows() else {
        println!("skipped: there is no ../shared/data/hid-reports.tsv");
        return;
    };
    assert!(rows.len() > 100, "{}", rows.len());
    let mut counts: BTreeMap<(bool, bool, bool), usize> = BTreeMap::new();
    for (source, id, report) in &rows {
        let uses = Uses::of(report);
        *counts.entry((uses.types, uses.points, uses.whole)).or_default() += 1;
        let outermost = outermost(report);
        let input = |usage: &u32| {
            matches!(usage, 0x1_0001 | 0x1_0002 | 0x1_0006 | 0x1_0007 | 0xd_0001..=0xd_0006)
        };
        if outermost.iter().any(input) {
            assert!(uses.types_or_points(), "{source} {id}: {outermost:x?}");
        }
        // What is left are controls of sound, power and calls, games, sensors, and what vendors keep to themselves.
        let harmless = |usage: &u32| matches!(usage, 0x1_0004 | 0x1_0005 | 0x1_0080 | 0xc_0001 | 0xb_0005 | 0x20_0000..=0x20_ffff | 0xff00_0000..);
        if !uses.types_or_points() {
            assert!(outermost.iter().all(harmless), "{source} {id}: {outermost:x?}");
        }
    }
    println!("{} descriptors (types, points, whole): {counts:?}", rows.len());
    // Of the rows that docs/it/hardware.md tells of: the seat's, nobody's, and those that are cut or make no sense.
    if rows.len() == 301 {
        let of = |which: fn((bool, bool, bool)) -> bool| -> usize {
            counts.iter().filter(|(uses, _)| which(**uses)).map(|(_, count)| count).sum()
        };
        let seats = of(|(types, points, _)| types || points);
        let nobodys = of(|(types, points, whole)| whole && !types && !points);
        let senseless = of(|(types, points, whole)| !whole && !types && !points);
        assert_eq!((seats, nobodys, senseless), (267, 25, 9), "docs/it/hardware.md says otherwise");
    }
}
