//! Arbitrary input of a fuzz entry function, read from its front as what the function needs: numbers, choices, bytes. Whatever it
//! holds, reading it ends and succeeds: what is missing at its end is zero.
//!
//! ```
//! use fuzzinput::FuzzInput;
//!
//! let mut input = FuzzInput::new(&[2, 0, 64, 7]);
//! let choices = ["read", "write", "flush"];
//! assert_eq!(choices[input.index(choices.len())], "flush");
//! assert_eq!(input.number(2), 64, "the highest byte first");
//! assert_eq!(input.rest(), [7]);
//! ```
//!
//! It makes no structure of its own and keeps no statistics: a fuzzer that learns from coverage does that. [`corpus`] runs the inputs
//! that fuzz targets begin with.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod corpus;

/// The input that is not read yet.
#[derive(Clone, Debug)]
pub struct FuzzInput<'a>(&'a [u8]);

impl<'a> FuzzInput<'a> {
    /// Begins to read an input.
    #[must_use]
    pub const fn new(input: &'a [u8]) -> Self {
        Self(input)
    }

    /// Returns what is not read yet.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// Reads a byte; `None` at the end.
    pub fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// Reads so many bytes, or as many as there are.
    pub fn take(&mut self, bytes: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(bytes.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Reads a number of so many bytes, the highest first; of more than eight the last eight count.
    pub fn number(&mut self, bytes: usize) -> u64 {
        (0..bytes).fold(0, |number, _| number << 8 | u64::from(self.byte().unwrap_or(0)))
    }

    /// Reads a number below `end`, of which the first 256 can come; 0 if `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number(1) % end.max(1)
    }

    /// Reads a place in a list of this length, of which the first 256 can come; 0 if the list is empty.
    pub fn index(&mut self, length: usize) -> usize {
        usize::from(self.byte().unwrap_or(0)) % length.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_the_front_and_what_is_missing_is_zero() {
        let mut input = FuzzInput::new(&[1, 2, 3, 9, 9, 7]);
        assert_eq!((input.byte(), input.number(2)), (Some(1), 0x0203));
        assert_eq!((input.below(4), input.index(5)), (1, 4));
        assert_eq!(input.rest(), [7]);
        let mut whole = input.clone();
        assert_eq!((whole.take(0), whole.take(9), whole.take(1)), (&[][..], &[7][..], &[][..]));
        assert_eq!((input.number(2), input.byte()), (0x0700, None));
        assert_eq!((input.below(0), input.index(0)), (0, 0));
    }
}
