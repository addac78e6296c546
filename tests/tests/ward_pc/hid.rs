//! What types or points, held against the kernel's own parser and mapping: `uhid` makes a HID device of each report descriptor, and the
//! capabilities of the input devices that Linux makes of it are what `hidreport` must have foreseen.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use hidreport::Uses;
use tests::ward::Ward;
use tests::ward_test;
use tests::{Outcome, ensure};

/// Devices at once, each with a process that holds it.
const BATCH: usize = 120;
/// Descriptors of the generator's.
const GENERATED: u64 = 160;
/// `UHID_CREATE2` and `BUS_USB` (linux/uhid.h, linux/input.h).
const CREATE: [u8; 4] = [11, 0, 0, 0];
const USB: [u8; 2] = [3, 0];
/// Longest that fits one shell line in octal.
const LINE_MAX: usize = 2000;

#[ward_test]
fn whatever_linux_makes_a_keyboard_or_pointer_of_was_foreseen_from_its_report_descriptor(
    ward: &Ward,
) -> Outcome {
    ward.pc.sh("modprobe uhid && [ -c /dev/uhid ]")?;
    let real = real_descriptors();
    if real.is_empty() {
        ward.pc.progress("no ../shared/data/hid-reports.tsv: the generator's descriptors alone");
    }
    let all: Vec<Vec<u8>> = real.into_iter().chain((1..=GENERATED).map(generated)).collect();
    let (mut inputs, mut foreseen) = (0, 0);
    for (number, batch) in all.chunks(BATCH).enumerate() {
        let made = made_of(ward, batch)?;
        for (at, report) in batch.iter().enumerate() {
            let Some((types, points)) = made.get(&at).copied() else { continue };
            let uses = Uses::of(report);
            let place = number * BATCH + at;
            ensure!(uses.types || !types, "{place}: Linux types from {report:02x?}");
            ensure!(uses.points || !points, "{place}: Linux points by {report:02x?}");
            inputs += 1;
            foreseen += usize::from(uses.types_or_points());
        }
    }
    let words = format!("{} descriptors, {inputs} input devices, {foreseen} foreseen", all.len());
    ward.pc.progress(&words);
    ensure!(inputs > all.len() / 2 && foreseen > inputs / 2, "{words}");
    Ok(())
}

/// Returns what Linux makes of each: whether it types, and points. None where it makes no input device.
fn made_of(ward: &Ward, batch: &[Vec<u8>]) -> Outcome<BTreeMap<usize, (bool, bool)>> {
    ward.pc.sh("rm -rf /tmp/hid && mkdir /tmp/hid")?;
    for (at, report) in batch.iter().enumerate() {
        let length = u16::try_from(report.len()).unwrap_or(u16::MAX).to_le_bytes();
        let product = u32::try_from(at).unwrap_or_default().to_le_bytes();
        let ids = [&[9, 18, 0, 0][..], &product, &[0; 8]].concat();
        let event = [&CREATE[..], &[0; 256], &length, &USB, &ids, report].concat();
        for part in event.chunks(LINE_MAX) {
            let octal = part.iter().fold(String::new(), |mut octal, byte| {
                let _ = write!(octal, "\\{byte:03o}");
                octal
            });
            ward.pc.sh(&format!("printf '{octal}' >> /tmp/hid/{at}"))?;
        }
    }
    // Each is there as long as somebody has /dev/uhid open for it. The kernel has them parsed by a thread of its own: all are there when
    // no more have come for two seconds.
    let hold = "rm -f /tmp/hid.pids; for event in /tmp/hid/*; do \
                ( exec 3<>/dev/uhid; dd if=$event bs=8192 count=1 >&3 2>/dev/null; exec sleep 120 ) >/dev/null 2>&1 & \
                echo $! >> /tmp/hid.pids; done; last=none; \
                while now=$(ls -d /sys/bus/hid/devices/0003:1209:*/input/* 2>/dev/null | wc -l); [ $now != $last ]; do \
                last=$now; sleep 2; done";
    let shown = "for device in /sys/bus/hid/devices/0003:1209:*; do \
                 for input in $device/input/input*/capabilities; do [ -d $input ] || continue; \
                 echo \"${device##*/};$(cat $input/key);$(cat $input/rel)\"; done; done";
    let text = ward.pc.sh(&format!("{hold}; {shown}"))?;
    let mut made: BTreeMap<usize, (bool, bool)> = BTreeMap::new();
    for line in text.lines() {
        let mut columns = line.split(';');
        let (Some(device), Some(keys), Some(axes)) =
            (columns.next(), columns.next(), columns.next())
        else {
            continue;
        };
        let at = device.split(':').nth(2).and_then(|rest| rest.split('.').next());
        let Some(at) = at.and_then(|hex| usize::from_str_radix(hex, 16).ok()) else { continue };
        let keys = bits(keys);
        // The main block, the keypad, the arrows and those about them; not what controls sound and power.
        let types = keys.iter().any(|key| matches!(key, 1..=88 | 96..=111));
        let clicks = keys.iter().any(|key| matches!(key, 0x110..=0x117 | 0x140..=0x14f));
        let points = clicks || bits(axes).iter().any(|axis| *axis < 2);
        let entry = made.entry(at).or_default();
        *entry = (entry.0 || types, entry.1 || points);
    }
    // They are gone before the next come.
    ward.pc.sh("kill $(cat /tmp/hid.pids); while ls -d /sys/bus/hid/devices/0003:1209:* >/dev/null 2>&1; do sleep 1; done")?;
    Ok(made)
}

/// Returns the numbers of the bits that are set in what sysfs shows: words of 64 bits, the highest first.
fn bits(text: &str) -> Vec<usize> {
    let words = text.split_whitespace().rev().enumerate();
    let of = |(at, word): (usize, &str)| {
        let word = u64::from_str_radix(word, 16).unwrap_or_default();
        (0..64).filter(move |bit| word >> bit & 1 != 0).map(move |bit| at * 64 + bit)
    };
    words.flat_map(of).collect()
}

/// Reads those of real devices that are at hand.
fn real_descriptors() -> Vec<Vec<u8>> {
    let places = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let mut files = places.map(|place| place.join("shared/data/hid-reports.tsv"));
    let text = files.find_map(|file| fs::read_to_string(file).ok()).unwrap_or_default();
    let row = |line: &str| {
        let hex = line.split('\t').nth(2)?;
        let byte = |at: usize| u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok();
        (0..hex.len() / 2).map(byte).collect::<Option<Vec<u8>>>()
    };
    text.lines().filter(|line| !line.starts_with('#')).filter_map(row).collect()
}

/// Makes a descriptor as no device has it, the same each time: collections in collections, usages by range, of four bytes, before their
/// page, delimited, pushed and popped.
fn generated(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        u8::try_from(state % below).unwrap_or_default()
    };
    let mut report = vec![0x15, 0, 0x25, 1, 0x75, 1, 0x95, 2];
    let applications: [[u8; 4]; 6] = [
        [0x05, 1, 0x09, 4],
        [0x05, 1, 0x09, 5],
        [0x05, 1, 0x09, 0x80],
        [0x05, 0x0c, 0x09, 1],
        [0x05, 1, 0x09, 8],
        [0x05, 1, 0x09, 6],
    ];
    report.extend(applications.get(usize::from(next(6))).into_iter().flatten());
    report.extend([0xa1, 1]);
    let pages = [0x01, 0x07, 0x09, 0x0c, 0x0d, 0x0b];
    let mut open = 1;
    for _ in 0..2 + next(6) {
        let page = pages.get(usize::from(next(6))).copied().unwrap_or(1);
        let usage = match page {
            1 => 0x30 + next(9),
            0x0d => 0x30 + next(0x20),
            _ => next(0xff),
        };
        match next(7) {
            0 => report.extend([0x05, page, 0x09, usage]),
            1 => report.extend([0x05, page, 0x19, usage, 0x29, usage.saturating_add(next(20))]),
            2 => report.extend([0x0b, usage, 0, page, 0]),
            3 => report.extend([0x05, 0x0c, 0x09, usage, 0x05, page]),
            4 => report.extend([0x05, page, 0xa4, 0x05, 0x08, 0xb4, 0x09, usage]),
            5 => report
                .extend([0x05, page, 0xa9, 1, 0x09, usage, 0xa9, 0, 0xa9, 1, 0x09, 4, 0xa9, 0]),
            _ => {
                report.extend([0x05, 1, 0x09, 1 + next(6), 0xa1, next(3)]);
                open += 1;
                continue;
            }
        }
        let flags = [0, 2, 2, 3, 6].get(usize::from(next(5))).copied().unwrap_or(2);
        let kind = [0x81, 0x81, 0x81, 0x91, 0xb1].get(usize::from(next(5))).copied();
        report.extend([kind.unwrap_or(0x81), flags]);
    }
    report.extend((0..open).map(|_| 0xc0_u8));
    report
}
