//! A picture in memory that can be drawn on.

use seat_link::{Rect, Size};

/// A colour, eight bits a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Colour {
    pub red: u8,
    pub green: u8,
    pub blue: u8,
}

impl Colour {
    pub const BLACK: Self = Self::grey(0);
    pub const WHITE: Self = Self::grey(255);

    #[must_use]
    pub const fn grey(level: u8) -> Self {
        Self { red: level, green: level, blue: level }
    }

    /// Returns the four bytes of a pixel.
    #[must_use]
    pub const fn pixel(self) -> [u8; 4] {
        [self.blue, self.green, self.red, 0xff]
    }

    /// Returns black or white, whichever reads better on it (WCAG 2.1, relative luminance, without the gamma).
    #[must_use]
    pub fn ink(self) -> Self {
        let [red, green, blue] = [self.red, self.green, self.blue].map(u32::from);
        if red * 299 + green * 587 + blue * 114 > 140_000 { Self::BLACK } else { Self::WHITE }
    }

    /// Makes a mixture: `share` of 255 parts of `other`.
    #[must_use]
    pub fn mixed(self, other: Self, share: u8) -> Self {
        let mix = |a: u8, b: u8| {
            let sum = u32::from(a) * (255 - u32::from(share)) + u32::from(b) * u32::from(share);
            u8::try_from((sum + 127) / 255).unwrap_or(u8::MAX)
        };
        Self {
            red: mix(self.red, other.red),
            green: mix(self.green, other.green),
            blue: mix(self.blue, other.blue),
        }
    }
}

/// A picture in memory. Only rows that have something drawn on them are kept: most of a screen that the agent paints is its ground.
#[derive(Clone, Debug)]
pub struct Canvas {
    size: Size,
    /// A row of the ground.
    ground: Box<[u8]>,
    /// From the top down, as many as it has; `None` is a row of the ground.
    rows: Vec<Option<Box<[u8]>>>,
}

impl PartialEq for Canvas {
    fn eq(&self, other: &Self) -> bool {
        self.size == other.size && (0..self.size.height).all(|y| self.row(y) == other.row(y))
    }
}

impl Eq for Canvas {}

impl Canvas {
    /// Makes a picture of one colour.
    #[must_use]
    pub fn new(size: Size, colour: Colour) -> Self {
        let ground = colour.pixel().repeat(size.width as usize).into_boxed_slice();
        Self { size, ground, rows: vec![None; size.height as usize] }
    }

    /// Returns the pixels across and down.
    #[must_use]
    pub fn size(&self) -> Size {
        self.size
    }

    /// Returns the bytes of a row; none beyond the last.
    #[must_use]
    pub fn row(&self, y: u32) -> &[u8] {
        match self.rows.get(y as usize) {
            Some(Some(row)) => row,
            Some(None) => &self.ground,
            None => &[],
        }
    }

    /// Returns how many rows it keeps.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.rows.iter().flatten().count()
    }

    /// Fills the part of `rect` that is on it.
    pub fn fill(&mut self, rect: Rect, colour: Colour) {
        let rect = rect.within(self.size);
        for y in rect.y..rect.bottom() {
            for pixel in self.span(y, rect.x, rect.width).chunks_exact_mut(4) {
                pixel.copy_from_slice(&colour.pixel());
            }
        }
    }

    /// Mixes one pixel with a colour, `share` of 255 parts; outside nothing happens.
    pub fn mix(&mut self, x: i32, y: i32, colour: Colour, share: u8) {
        let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y)) else { return };
        if x >= self.size.width || y >= self.size.height {
            return;
        }
        let span = self.span(y, x, 1);
        if let [blue, green, red, ..] = *span {
            let mixed = Colour { red, green, blue }.mixed(colour, share);
            span.copy_from_slice(&mixed.pixel());
        }
    }

    /// Returns the colour of a pixel.
    #[must_use]
    pub fn colour(&self, x: u32, y: u32) -> Option<Colour> {
        match self.row(y).get(x as usize * 4..)? {
            [blue, green, red, ..] => Some(Colour { red: *red, green: *green, blue: *blue }),
            _ => None,
        }
    }

    /// Returns a part of a row to be drawn on; none where it is not all on the picture.
    fn span(&mut self, y: u32, x: u32, width: u32) -> &mut [u8] {
        let Some(row) = self.rows.get_mut(y as usize) else { return Default::default() };
        let start = x as usize * 4;
        let row = row.get_or_insert_with(|| self.ground.clone());
        row.get_mut(start..start + width as usize * 4).unwrap_or_default()
    }
}
