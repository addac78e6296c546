//! Decoded pixels, and a PNG of them.

use image::metadata::Orientation;
use image::{ColorType, ImageDecoder, ImageError};
use png::BitDepth;
use zeroize::Zeroizing;

use super::png_rows::{Header, write};
use worker_link::Refused;

/// Pixels as they are stored, rows from the top, samples in the machine's order of bytes. Wiped when dropped.
pub(super) struct Pixels {
    width: u32,
    height: u32,
    colour: png::ColorType,
    depth: BitDepth,
    /// Bytes of a pixel.
    size: usize,
    bytes: Zeroizing<Vec<u8>>,
}

impl Pixels {
    /// Decodes a picture. The caller has looked at its size.
    ///
    /// # Errors
    /// It is damaged; or, without an error, its samples are of a kind that a PNG has not.
    pub(super) fn decode(decoder: impl ImageDecoder) -> Result<Self, Option<ImageError>> {
        use png::ColorType::{Grayscale, GrayscaleAlpha, Rgb, Rgba};
        let (width, height) = decoder.dimensions();
        let kind = decoder.color_type();
        let (colour, depth) = match kind {
            ColorType::L8 => (Grayscale, BitDepth::Eight),
            ColorType::La8 => (GrayscaleAlpha, BitDepth::Eight),
            ColorType::Rgb8 => (Rgb, BitDepth::Eight),
            ColorType::Rgba8 => (Rgba, BitDepth::Eight),
            ColorType::L16 => (Grayscale, BitDepth::Sixteen),
            ColorType::La16 => (GrayscaleAlpha, BitDepth::Sixteen),
            ColorType::Rgb16 => (Rgb, BitDepth::Sixteen),
            ColorType::Rgba16 => (Rgba, BitDepth::Sixteen),
            _ => return Err(None),
        };
        let size = usize::from(kind.bytes_per_pixel());
        let total = usize::try_from(decoder.total_bytes()).unwrap_or(usize::MAX);
        let mut bytes = Zeroizing::new(vec![0; total]);
        decoder.read_image(&mut bytes)?;
        Ok(Self { width, height, colour, depth, size, bytes })
    }

    fn sample(&self) -> usize {
        if self.depth == BitDepth::Sixteen { 2 } else { 1 }
    }

    fn has_alpha(&self) -> bool {
        matches!(self.colour, png::ColorType::GrayscaleAlpha | png::ColorType::Rgba)
    }

    /// Returns whether it is transparent everywhere. Programs that know nothing of transparency write such pictures, and show them.
    pub(super) fn is_invisible(&self) -> bool {
        let alpha = self.size.saturating_sub(self.sample());
        let transparent =
            |pixel: &[u8]| pixel.get(alpha..).is_some_and(|alpha| alpha.iter().all(|b| *b == 0));
        self.has_alpha() && self.bytes.chunks_exact(self.size).all(transparent)
    }

    /// Takes their share of transparency out of the colours: they become those that they are of.
    pub(super) fn take_alpha_out(&mut self) {
        if !self.has_alpha() {
            return;
        }
        let whole = |colour: u32, alpha: u32, most: u32| {
            let shared = (colour * most + alpha / 2).checked_div(alpha).unwrap_or(0);
            shared.min(most)
        };
        for pixel in self.bytes.chunks_exact_mut(self.size) {
            match self.depth {
                BitDepth::Sixteen => {
                    let samples = pixel.as_chunks_mut::<2>().0;
                    let Some((alpha, colours)) = samples.split_last_mut() else { continue };
                    let alpha = u16::from_ne_bytes(*alpha).into();
                    for colour in colours {
                        let of = whole(u16::from_ne_bytes(*colour).into(), alpha, 0xffff);
                        *colour = u16::try_from(of).unwrap_or(u16::MAX).to_ne_bytes();
                    }
                }
                _ => {
                    let Some((alpha, colours)) = pixel.split_last_mut() else { continue };
                    for colour in colours {
                        let of = whole((*colour).into(), (*alpha).into(), 0xff);
                        *colour = u8::try_from(of).unwrap_or(u8::MAX);
                    }
                }
            }
        }
    }

    /// Encodes a PNG of it, turned as it is shown; `opaque` leaves the transparency out. `about` is how large it may become.
    pub(super) fn encode(
        &self,
        orientation: Orientation,
        opaque: bool,
        about: usize,
        most: usize,
    ) -> Result<Zeroizing<Vec<u8>>, Refused> {
        let (width, height) = match orientation {
            Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH => (self.height, self.width),
            _ => (self.width, self.height),
        };
        let colour = match self.colour {
            png::ColorType::GrayscaleAlpha if opaque => png::ColorType::Grayscale,
            png::ColorType::Rgba if opaque => png::ColorType::Rgb,
            colour => colour,
        };
        let used = if opaque { self.size.saturating_sub(self.sample()) } else { self.size };
        let mut row = Zeroizing::new(Vec::new());
        let mut y = 0;
        write(Header { width, height, colour, depth: self.depth }, about, most, |out| {
            let as_stored = orientation == Orientation::NoTransforms && used == self.size;
            if as_stored && self.depth == BitDepth::Eight {
                let length = usize::try_from(width).ok()? * self.size;
                let start = usize::try_from(y).ok()? * length;
                y += 1;
                return out.write_all(self.bytes.get(start..start + length)?).ok();
            }
            row.clear();
            for x in 0..width {
                let (x, y) = self.stored_at(orientation, x, y);
                let pixel = (y * usize::try_from(self.width).ok()? + x) * self.size;
                let pixel = self.bytes.get(pixel..pixel + used)?;
                match self.depth {
                    BitDepth::Sixteen => {
                        for sample in pixel.as_chunks::<2>().0 {
                            row.extend_from_slice(&u16::from_ne_bytes(*sample).to_be_bytes());
                        }
                    }
                    _ => row.extend_from_slice(pixel),
                }
            }
            y += 1;
            out.write_all(&row).ok()
        })
    }

    /// Returns where the pixel is stored that is shown here (Exif 2.32, tag 0x112).
    fn stored_at(&self, orientation: Orientation, x: u32, y: u32) -> (usize, usize) {
        let right = |at: u32| self.width.saturating_sub(1).saturating_sub(at);
        let bottom = |at: u32| self.height.saturating_sub(1).saturating_sub(at);
        let (x, y) = match orientation {
            Orientation::NoTransforms => (x, y),
            Orientation::FlipHorizontal => (right(x), y),
            Orientation::Rotate180 => (right(x), bottom(y)),
            Orientation::FlipVertical => (x, bottom(y)),
            Orientation::Rotate90FlipH => (y, x),
            Orientation::Rotate90 => (y, bottom(x)),
            Orientation::Rotate270FlipH => (right(y), bottom(x)),
            Orientation::Rotate270 => (right(y), x),
        };
        (usize::try_from(x).unwrap_or(usize::MAX), usize::try_from(y).unwrap_or(usize::MAX))
    }
}
