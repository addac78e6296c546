use std::fs;

use super::*;

const NANUM: &str = "/usr/share/fonts/truetype/nanum/NanumGothicBold.ttf";

fn file() -> Vec<u8> {
    fs::read(NANUM).expect("Debian's package fonts-nanum is installed (scripts/setup)")
}

fn font(file: Vec<u8>) -> OutlineFont {
    OutlineFont::new(file).expect("an outline font")
}

fn widths(font: &OutlineFont, text: &str, size: f32) -> f32 {
    font.width(text.chars(), size)
}

/// Coverage of a square of 16 pixels, from 0 to 255, with the text's line at its top.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "coverage is from 0 to 1"
)]
fn drawn(font: &OutlineFont, text: &str) -> [[u8; 16]; 16] {
    let mut square = [[0; 16]; 16];
    font.draw(text.chars(), (0.0, 0.0), 16.0, |x, y, coverage| {
        let (x, y) = (usize::try_from(x).unwrap(), usize::try_from(y).unwrap());
        let pixel = square.get_mut(y).and_then(|row| row.get_mut(x));
        let share = (coverage.clamp(0.0, 1.0) * 255.0) as u8;
        *pixel.unwrap_or_else(|| panic!("{x},{y} is covered by {share}")) = share;
    });
    square
}

/// Makes the square that is written as sixteen rows of hexadecimal digits.
fn square(rows: [&str; 16]) -> [[u8; 16]; 16] {
    rows.map(|row| std::array::from_fn(|x| u8::from_str_radix(&row[x * 2..x * 2 + 2], 16).unwrap()))
}

// The squares and widths are those of ab_glyph 0.2.32, by which text was drawn before.
#[test]
fn a_hangul_syllable_and_a_latin_letter_look_as_another_font_stack_draws_them() {
    let font = font(file());
    let syllable = square([
        "00000000000000000000000000000000",
        "000000000000000000202a0000000000",
        "00006ae5e5e5840000b4e30000000000",
        "020c346666663e0c02b4e30000000000",
        "68ffffffffffffff61b4e30000000000",
        "1237374f775b373712b4e30000000000",
        "000083fafcfeb00700b4f28a85000000",
        "003bff810a51fe7400b4f9c9c3000000",
        "0053ff410012f78d00b4e30000000000",
        "000cd5e9a0daf12a00b4e30000000000",
        "00000d73a0831e0000b4e30000000000",
        "0000178f3900000000acdb0000000000",
        "000030ff6c0000000000000000000000",
        "00002effbf8b8b8b8b8b8b3900000000",
        "000007aec9c9c9c9c9c9c95500000000",
        "00000000000000000000000000000000",
    ]);
    let letter = square([
        "00000000000000000000000000000000",
        "00000000000000000000000000000000",
        "00000000000000000000000000000000",
        "00000000000000000000000000000000",
        "00000000000000000000000000000000",
        "0000154e4e0a40150000000000000000",
        "0041eefffde1ff660000000000000000",
        "00d4df2510b9fe660000000000000000",
        "16fe7a00003aff660000000000000000",
        "2fff5d00001aff660000000000000000",
        "13fe7e00003eff660000000000000000",
        "00bdec4c38cfff640000000000000000",
        "0020ceffffd6ff4a0000000000000000",
        "001407292d91f7190000000000000000",
        "008eeec6dcfe7b000000000000000000",
        "002d839f884200000000000000000000",
    ]);
    for (text, expected) in [("한", syllable), ("g", letter)] {
        let found = drawn(&font, text);
        let pairs = found.as_flattened().iter().zip(expected.as_flattened());
        let most = pairs.map(|(found, expected)| found.abs_diff(*expected)).max();
        assert!(most <= Some(1), "{text}: {found:02x?}");
    }
}

#[test]
fn text_is_as_wide_as_another_font_stack_makes_it() {
    let font = font(file());
    for (text, size, expected) in [
        ("한", 16.0, 13.078_261),
        ("g", 16.0, 8.431_305),
        ("한글", 24.0, 39.234_783),
        ("임상망 INTERNET", 20.0, 133.217_38),
        ("붙여넣을 수 없습니다", 36.0, 282.365_23),
        ("", 24.0, 0.0),
    ] {
        let found = widths(&font, text, size);
        assert!((found - expected).abs() < 0.01, "{text} at {size}: {found}");
    }
}

#[test]
fn what_the_font_has_no_glyph_for_leaves_a_mark() {
    let font = font(file());
    let missing = drawn(&font, "\u{10ffff}");
    assert!(missing.as_flattened().iter().any(|coverage| *coverage > 100), "{missing:02x?}");
}

#[test]
fn what_is_no_font_or_has_no_outlines_is_refused() {
    let whole = file();
    for bad in [Vec::new(), vec![0; 64], whole[..100].to_vec(), b"ttcf".to_vec()] {
        assert!(OutlineFont::new(bad).is_none());
    }
    // Without its table of outlines, which is found by its name.
    let mut renamed = whole;
    let name = renamed.windows(4).position(|four| four == b"glyf").unwrap();
    renamed[name] = b'x';
    assert!(OutlineFont::new(renamed).is_none());
}

#[test]
fn a_glyph_that_is_wider_than_eight_lines_is_not_drawn() {
    let font = font(file());
    // As a font whose line is a thousandth of its glyphs: `size` pixels are its height.
    let flat = OutlineFont { height: font.height / 1000.0, ..font };
    flat.draw("한".chars(), (0.0, 0.0), 16.0, |x, y, _| panic!("drawn at {x},{y}"));
}

#[test]
fn a_broken_font_ends_nothing() {
    let whole = file();
    for start in (0..4000).step_by(7) {
        let mut broken = whole.clone();
        for byte in &mut broken[start..start + 5] {
            *byte ^= 0xff;
        }
        let Some(font) = OutlineFont::new(broken) else { continue };
        let mut pixels = 0_u64;
        font.draw("한g…".chars(), (-3.0, 5.0), 24.0, |_, _, _| pixels += 1);
        assert!(pixels <= 3 * (8 * 24) * (8 * 24), "{start}: {pixels}");
        assert!(!widths(&font, "한글 g", 24.0).is_nan(), "{start}");
    }
}
