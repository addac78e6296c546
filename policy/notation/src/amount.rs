//! A number with its unit.

/// A number and what stands behind it as its unit, as they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Amount<'a> {
    /// `None` if it is too large.
    pub(crate) number: Option<u64>,
    /// White space between the two.
    pub(crate) gap: &'a str,
    /// Letters; empty if there are none.
    pub(crate) unit: &'a str,
}

impl<'a> Amount<'a> {
    /// Returns the amount that a text begins with, and what follows it.
    pub(crate) fn first(text: &'a str) -> Option<(Self, &'a str)> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) =
            text.split_at_checked(digits).filter(|(number, _)| !number.is_empty())?;
        let (gap, rest) = rest.split_at_checked(rest.len() - rest.trim_start().len())?;
        let letters = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
        let (unit, rest) = rest.split_at_checked(letters)?;
        Some((Self { number: number.parse().ok(), gap, unit }, rest))
    }

    /// Returns the amount that a text is, with nothing around it.
    pub(crate) fn only(text: &'a str) -> Option<Self> {
        let (amount, rest) = Self::first(text)?;
        rest.is_empty().then_some(amount)
    }

    /// Returns whether it is written as an option is: in one word, or with one space.
    pub(crate) fn is_close(&self) -> bool {
        self.gap.is_empty() || self.gap == " "
    }
}
