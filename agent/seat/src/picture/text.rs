//! Text: an outline font with Hangul from the host's packages; a built-in bitmap font without, if there is none.

use std::path::{Path, PathBuf};

use font8x8::UnicodeFonts;
use unicode_normalization::UnicodeNormalization;

use super::canvas::{Canvas, Colour};
use super::font::OutlineFont;

/// The Debian package to install when no font is found.
pub const FONT_PACKAGE: &str = "fonts-nanum";

/// Where fonts are looked for: IT's own choice first.
const PLACES: [&str; 5] = [
    "/usr/share/bulkhead/font.ttf",
    "/usr/share/fonts/truetype/nanum/NanumGothicBold.ttf",
    "/usr/share/fonts/truetype/nanum/NanumGothic.ttf",
    "/usr/share/fonts/opentype/noto/NotoSansCJK-Bold.ttc",
    "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc",
];

/// Largest font file read, in bytes.
const FILE_MAX: u64 = 64 << 20;

/// Longest text drawn, in characters: more than a line of the widest screen.
const TEXT_MAX: usize = 400;

/// No font was found.
#[derive(Debug, thiserror::Error)]
#[error("no font with Korean letters is installed, so that the banner can show Latin letters only; install the package {FONT_PACKAGE}, or put a TrueType font at {}", PLACES[0])]
pub struct FontError;

/// What text is drawn with.
pub enum Face {
    /// Glyphs are drawn from the outlines of a font.
    Outline(OutlineFont),
    /// Eight by eight dots, enlarged; Latin letters only.
    Dots,
}

impl Face {
    /// Opens the first of the host's fonts that can be read.
    ///
    /// # Errors
    /// There is none; [`Face::Dots`] is left.
    pub fn of_the_host() -> Result<Self, FontError> {
        PLACES.iter().map(PathBuf::from).find_map(|path| Self::read(&path)).ok_or(FontError)
    }

    fn read(path: &Path) -> Option<Self> {
        let font = fileopen::read(path, FILE_MAX).ok()?;
        OutlineFont::new(font).map(Self::Outline)
    }

    /// Returns how wide a text is, in pixels, at a height of `size` pixels.
    #[must_use]
    pub fn width(&self, text: &str, size: u32) -> u32 {
        match self {
            Self::Outline(font) => pixels(font.width(shown(text), scale(size))),
            Self::Dots => {
                let count = u32::try_from(shown(text).count()).unwrap_or(0);
                count * dot(size) * 8
            }
        }
    }

    /// Draws a text whose line begins at `x` and whose top is at `y`.
    pub fn draw(
        &self,
        canvas: &mut Canvas,
        (x, y): (i32, i32),
        size: u32,
        colour: Colour,
        text: &str,
    ) {
        match self {
            Self::Outline(font) => outline(font, canvas, (x, y), size, colour, text),
            Self::Dots => dots(canvas, (x, y), size, colour, text),
        }
    }

    /// Returns as much of a text as fits into `width` pixels, with an ellipsis where some of it does not.
    #[must_use]
    pub fn fitted(&self, text: &str, size: u32, width: u32) -> String {
        if self.width(text, size) <= width {
            return text.to_owned();
        }
        let mut kept: Vec<char> = shown(text).collect();
        while !kept.is_empty() {
            kept.pop();
            let shorter: String = kept.iter().chain(&['…']).collect();
            if self.width(&shorter, size) <= width {
                return shorter;
            }
        }
        String::new()
    }

    /// Returns a text broken into lines of at most `width` pixels, between words where it can be.
    #[must_use]
    pub fn broken(&self, text: &str, size: u32, width: u32) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for paragraph in text.split('\n') {
            let mut line = String::new();
            for word in paragraph.split_whitespace() {
                let longer =
                    if line.is_empty() { word.to_owned() } else { format!("{line} {word}") };
                if self.width(&longer, size) > width && !line.is_empty() {
                    lines.push(std::mem::replace(&mut line, word.to_owned()));
                } else {
                    line = longer;
                }
            }
            lines.push(line);
        }
        lines
    }
}

/// Returns the characters that are drawn: composed, so that Hangul is whole syllables. What cannot be seen leaves a mark where it
/// stood.
fn shown(text: &str) -> impl Iterator<Item = char> + '_ {
    let mark = |c| if printable::is_shown(c) { c } else { '\u{fffd}' };
    text.nfc().take(TEXT_MAX).map(mark)
}

#[allow(clippy::cast_precision_loss, reason = "sizes are a few dozen pixels")]
const fn scale(size: u32) -> f32 {
    size as f32
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped before")]
fn pixels(length: f32) -> u32 {
    length.ceil().clamp(0.0, 1e6) as u32
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "positions on a screen; coverage is from 0 to 1"
)]
fn outline(
    font: &OutlineFont,
    canvas: &mut Canvas,
    (x, y): (i32, i32),
    size: u32,
    colour: Colour,
    text: &str,
) {
    font.draw(shown(text), (x as f32, y as f32), scale(size), |x, y, coverage| {
        canvas.mix(x, y, colour, (coverage.clamp(0.0, 1.0) * 255.0) as u8);
    });
}

/// Returns the pixels of a dot, so that eight of them are about `size`.
fn dot(size: u32) -> u32 {
    (size / 9).max(1)
}

fn dots(canvas: &mut Canvas, (x, y): (i32, i32), size: u32, colour: Colour, text: &str) {
    let dot = i32::try_from(dot(size)).unwrap_or(1);
    for (place, c) in (0i32..).zip(shown(text)) {
        let glyph = font8x8::BASIC_FONTS.get(c).or_else(|| font8x8::BASIC_FONTS.get('?'));
        for (row, bits) in (0i32..).zip(glyph.unwrap_or_default()) {
            for column in (0..8).filter(|column| bits >> column & 1 == 1) {
                let (left, top) = (x + (place * 8 + column) * dot, y + row * dot);
                for (dx, dy) in (0..dot).flat_map(|dx| (0..dot).map(move |dy| (dx, dy))) {
                    canvas.mix(left + dx, top + dy, colour, 255);
                }
            }
        }
    }
}
