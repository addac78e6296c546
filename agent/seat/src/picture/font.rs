//! An outline font: how wide its text is, and which pixels its glyphs cover.
//!
//! `skrifa` reads the file (TrueType, OpenType with CFF outlines, collections); nothing is hinted. `ab_glyph_rasterizer` fills the outlines.
//! A font comes from the host's own packages, but a broken one must not end the agent: the size of a glyph and its number of curves are bounded here.

#[cfg(test)]
mod tests;

use ab_glyph_rasterizer::{Point, Rasterizer, point};
use skrifa::instance::{LocationRef, Size};
use skrifa::outline::{DrawSettings, OutlinePen};
use skrifa::{FontRef, GlyphId, MetadataProvider};

/// Largest width and height of a glyph that is drawn, in heights of a line; Hangul syllables have about one.
const BOX_MAX: f32 = 8.0;

/// Number of lines and curves from which on a glyph is not drawn: far more than a letter has.
const SEGMENTS_MAX: usize = 1 << 14;

/// A font whose glyphs are outlines.
pub struct OutlineFont {
    file: Vec<u8>,
    /// From the top of a line to its baseline, in font units.
    ascent: f32,
    /// From the top of a line to its bottom, in font units.
    height: f32,
}

impl OutlineFont {
    /// Reads the first font of a file; `None` if it has no outlines or no height.
    pub fn new(file: Vec<u8>) -> Option<Self> {
        let font = FontRef::from_index(&file, 0).ok()?;
        font.outline_glyphs().format()?;
        let metrics = font.metrics(Size::unscaled(), LocationRef::default());
        let (ascent, height) = (metrics.ascent, metrics.ascent - metrics.descent);
        (height >= 1.0).then_some(Self { file, ascent, height })
    }

    /// Returns how wide a line of `text` is that is `size` pixels high, in pixels.
    pub fn width(&self, text: impl Iterator<Item = char>, size: f32) -> f32 {
        let Ok(font) = FontRef::from_index(&self.file, 0) else { return 0.0 };
        let charmap = font.charmap();
        let widths = font.glyph_metrics(Size::unscaled(), LocationRef::default());
        let advance = |c| widths.advance_width(charmap.map(c).unwrap_or(GlyphId::NOTDEF));
        text.map(|c| advance(c).unwrap_or(0.0)).sum::<f32>() * size / self.height
    }

    /// Draws a line of `text` that is `size` pixels high and whose top left corner is at `x` and `y`: calls `mix` with each pixel around
    /// a glyph and the share of it that the glyph covers, from 0 to 1.
    pub fn draw(
        &self,
        text: impl Iterator<Item = char>,
        (x, y): (f32, f32),
        size: f32,
        mut mix: impl FnMut(i32, i32, f32),
    ) {
        let Ok(font) = FontRef::from_index(&self.file, 0) else { return };
        let (charmap, glyphs) = (font.charmap(), font.outline_glyphs());
        let widths = font.glyph_metrics(Size::unscaled(), LocationRef::default());
        let scale = size / self.height;
        let baseline = y + self.ascent * scale;
        let mut at = x;
        for c in text {
            let id = charmap.map(c).unwrap_or(GlyphId::NOTDEF);
            let mut outline = Outline::new(scale, point(at, baseline));
            at += widths.advance_width(id).unwrap_or(0.0) * scale;
            let Some(glyph) = glyphs.get(id) else { continue };
            let settings = DrawSettings::unhinted(Size::unscaled(), LocationRef::default());
            if glyph.draw(settings, &mut outline).is_ok() {
                outline.fill(size * BOX_MAX, &mut mix);
            }
        }
    }
}

/// A line or a curve of an outline.
enum Segment {
    Line([Point; 2]),
    Quadratic([Point; 3]),
    Cubic([Point; 4]),
}

/// The outline of one glyph where it is drawn, in pixels from the top left of the canvas.
struct Outline {
    scale: f32,
    origin: Point,
    segments: Vec<Segment>,
    /// Where the pen is, and where its contour began.
    pen: Point,
    start: Point,
    /// The smallest box around all points; empty as long as there is none.
    least: Point,
    most: Point,
}

impl Outline {
    fn new(scale: f32, origin: Point) -> Self {
        Self {
            scale,
            origin,
            segments: Vec::new(),
            pen: origin,
            start: origin,
            least: point(f32::INFINITY, f32::INFINITY),
            most: point(f32::NEG_INFINITY, f32::NEG_INFINITY),
        }
    }

    /// Returns where a point of the font lies: a font's y axis goes up, a canvas's down.
    fn place(&mut self, x: f32, y: f32) -> Point {
        let placed = point(self.origin.x + x * self.scale, self.origin.y - y * self.scale);
        self.least = point(self.least.x.min(placed.x), self.least.y.min(placed.y));
        self.most = point(self.most.x.max(placed.x), self.most.y.max(placed.y));
        placed
    }

    fn push(&mut self, segment: Segment, end: Point) {
        self.pen = end;
        if self.segments.len() < SEGMENTS_MAX {
            self.segments.push(segment);
        }
    }

    /// Calls `mix` with each pixel of the outline's box, unless the outline has too many segments or its box is wider or higher than `most` pixels.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "bounded before; coordinates on a screen"
    )]
    fn fill(&self, most: f32, mix: &mut impl FnMut(i32, i32, f32)) {
        let (left, top) = (self.least.x.floor(), self.least.y.floor());
        let (width, height) = (self.most.x.ceil() - left, self.most.y.ceil() - top);
        let drawn = (1.0..=most).contains(&width) && (1.0..=most).contains(&height);
        // `drawn` is also false for an outline without a point, or with one that is no number.
        if !drawn || self.segments.len() >= SEGMENTS_MAX {
            return;
        }
        let mut rasterizer = Rasterizer::new(width as usize, height as usize);
        let inside = |at: Point| point(at.x - left, at.y - top);
        for segment in &self.segments {
            match *segment {
                Segment::Line([a, b]) => rasterizer.draw_line(inside(a), inside(b)),
                Segment::Quadratic([a, b, c]) => {
                    rasterizer.draw_quad(inside(a), inside(b), inside(c));
                }
                Segment::Cubic([a, b, c, d]) => {
                    rasterizer.draw_cubic(inside(a), inside(b), inside(c), inside(d));
                }
            }
        }
        rasterizer.for_each_pixel_2d(|dx, dy, coverage| {
            let (dx, dy) = (i32::try_from(dx).unwrap_or(0), i32::try_from(dy).unwrap_or(0));
            mix(left as i32 + dx, top as i32 + dy, coverage);
        });
    }
}

impl OutlinePen for Outline {
    fn move_to(&mut self, x: f32, y: f32) {
        self.pen = self.place(x, y);
        self.start = self.pen;
    }

    fn line_to(&mut self, x: f32, y: f32) {
        let end = self.place(x, y);
        self.push(Segment::Line([self.pen, end]), end);
    }

    fn quad_to(&mut self, cx: f32, cy: f32, x: f32, y: f32) {
        let (control, end) = (self.place(cx, cy), self.place(x, y));
        self.push(Segment::Quadratic([self.pen, control, end]), end);
    }

    fn curve_to(&mut self, cx0: f32, cy0: f32, cx1: f32, cy1: f32, x: f32, y: f32) {
        let (first, second, end) = (self.place(cx0, cy0), self.place(cx1, cy1), self.place(x, y));
        self.push(Segment::Cubic([self.pen, first, second, end]), end);
    }

    fn close(&mut self) {
        self.push(Segment::Line([self.pen, self.start]), self.start);
    }
}
