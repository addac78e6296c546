use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::*;

/// AOC AG493US3R4 (linuxhw/EDID): 3840x1080 in the base block, 5120x1440 at 165 Hz preferred by DisplayID.
const AOC: &str = include_str!("../../tests/aoca301.edid.hex");

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<char> = hex.chars().filter(char::is_ascii_hexdigit).collect();
    let pairs = digits.chunks_exact(2).map(String::from_iter);
    pairs.map(|pair| u8::from_str_radix(&pair, 16).unwrap()).collect()
}

fn size(width: u32, height: u32) -> Size {
    Size { width, height }
}

/// Makes a block that begins so.
fn block(start: &[u8]) -> Vec<u8> {
    let mut block = start.to_vec();
    block.resize(BLOCK, 0);
    block
}

/// Makes a base block of this revision and with these features, without timings.
fn base(revision: u8, features: u8) -> Vec<u8> {
    let mut base = block(&[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]);
    (base[18], base[19], base[24]) = (1, revision, features);
    base
}

/// Makes 1920x1080 at 60 Hz, as a base block or CTA block has it; interlaced, if so.
fn full_hd(interlaced: bool) -> [u8; 18] {
    let mut timing =
        [0x02, 0x3a, 0x80, 0x18, 0x71, 0x38, 0x2d, 0x40, 0x58, 0x2c, 0x45, 0, 0, 0, 0, 0, 0, 0x1e];
    if interlaced {
        (timing[5], timing[7], timing[17]) = (0x1c, 0x20, 0x9e);
    }
    timing
}

#[test]
fn a_size_that_only_displayid_prefers_is_read_beside_the_base_blocks() {
    assert_eq!(preferred_sizes(&bytes(AOC)), [size(3840, 1080), size(5120, 1440)]);
    // DisplayID 2.0, type VII: 7680x4320 preferred, 3840x2160 not.
    let timing = |flags: u8, [a, b]: [u8; 2], [c, d]: [u8; 2]| {
        [vec![0xff, 0xff, 0, flags, a, b, 0, 0, 0, 0, 0, 0, c, d], vec![0; 6]].concat()
    };
    let timings = [timing(0, [0xff, 0x0e], [0x6f, 8]), timing(0x88, [0xff, 0x1d], [0xdf, 0x10])];
    let section =
        [&[0x70, 0x20, 43 + 5, 0, 0, 0x7e, 0, 2, 1, 1, 0x22, 0, 40][..], &timings.concat()];
    let edid = [base(4, 0), block(&section.concat())].concat();
    assert_eq!(preferred_sizes(&edid), [size(7680, 4320)]);
}

#[test]
fn the_first_timing_of_a_base_block_is_preferred_where_it_says_so() {
    for (revision, features, preferred) in [(3, 0, false), (3, 2, true), (4, 0, true)] {
        let mut edid = base(revision, features);
        edid[54..72].copy_from_slice(&full_hd(false));
        let sizes = preferred_sizes(&edid);
        assert_eq!(sizes == [size(1920, 1080)], preferred, "1.{revision} {features}: {sizes:?}");
    }
    let mut edid = base(4, 0);
    edid[54..72].copy_from_slice(&full_hd(true));
    assert_eq!(preferred_sizes(&edid), [size(1920, 1080)], "interlaced");
    assert_eq!(preferred_sizes(&base(4, 0)), [], "no timing");
}

#[test]
fn the_format_that_a_cta_block_prefers_is_a_number_or_a_timing_by_its_place() {
    let cta = |format: u8| {
        let data = [0x41, 0x10, 0xe3, 0x0d, format, 0x10];
        let head = [&[2, 3, 4 + 6, 0][..], &data, &full_hd(false)].concat();
        [base(3, 0), block(&head)].concat()
    };
    assert_eq!(preferred_sizes(&cta(97)), [size(3840, 2160)]);
    assert_eq!(preferred_sizes(&cta(199)), [size(7680, 4320)]);
    assert_eq!(preferred_sizes(&cta(129)), [size(1920, 1080)], "the first timing");
    for other in [0, 1, 130, 145, 254, 255] {
        assert_eq!(preferred_sizes(&cta(other)), [], "{other}");
    }
}

/// Every EDID that is at hand, cut off anywhere.
#[test]
fn every_edid_at_hand_is_read_wherever_it_ends() {
    let places = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let folders = places.map(|place| place.join("shared/cases/edid-mode-choice"));
    let files = folders.filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    let hex = |path: &Path| path.extension().is_some_and(|end| end == "hex");
    let files = files.map(|file| file.path()).filter(|path| hex(path));
    let texts = files.map(|path| fs::read_to_string(path).unwrap()).chain([AOC.to_owned()]);
    for edid in texts.map(|text| bytes(&text)) {
        assert!(edid.len() >= BLOCK && edid.starts_with(&[0, 0xff]));
        for end in 0..=edid.len() {
            assert!(preferred_sizes(&edid[..end]).len() <= SIZES_MAX);
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_of_a_monitor_stop_it_or_make_more_than_a_few_sizes(
        noise in prop::collection::vec(any::<u8>(), 0..6 * BLOCK),
        changes in prop::collection::vec((0usize..3 * BLOCK, any::<u8>()), 0..40),
        kinds in prop::collection::vec(prop::sample::select(vec![CTA, DISPLAY_ID]), 5),
    ) {
        let mut edid = bytes(AOC);
        for (at, byte) in changes {
            edid[at] = byte;
        }
        prop_assert!(preferred_sizes(&edid).len() <= SIZES_MAX);
        let mut edid = [base(4, 0), noise].concat();
        for (block, kind) in edid.chunks_mut(BLOCK).skip(1).zip(kinds) {
            block[0] = kind;
        }
        prop_assert!(preferred_sizes(&edid).len() <= SIZES_MAX);
    }
}
