//! What the agent itself draws: banner, notices, lock. Pure: pixels in memory.
//!
//! Everything is XRGB8888, little-endian, as frame memory is.

mod banner;
mod canvas;
mod card;
mod font;
mod look;
mod overlay;
#[cfg(test)]
mod tests;
mod text;

pub use banner::{Banner, banner, banner_rows};
pub use canvas::{Canvas, Colour};
pub use card::{card, lock_screen};
pub use look::{Look, Pattern};
pub use overlay::{Prompt, overlay};
pub use text::{FONT_PACKAGE, Face, FontError};
