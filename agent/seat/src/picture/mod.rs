//! What the agent itself draws: banner, notices, lock. Pure: pixels in memory.
//!
//! Everything is XRGB8888, little-endian, as frame memory is.

mod appearance;
mod banner;
mod canvas;
mod card;
mod font;
mod overlay;
#[cfg(test)]
mod tests;
mod text;

pub use appearance::{DomainAppearance, Pattern};
pub use banner::{Banner, banner, banner_rows};
pub use canvas::{Canvas, Colour};
pub use card::{card, lock_screen};
pub use overlay::{Prompt, overlay};
pub use text::{FONT_PACKAGE, Face, FontError};
