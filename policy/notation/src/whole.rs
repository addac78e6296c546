//! Whole numbers.

use std::fmt;
use std::ops::RangeInclusive;

use crate::Mistake;
use crate::mistake::shown;

/// Reads a whole number inside `range`, in decimal digits. `example` is one that people write.
///
/// # Errors
/// What is wrong with it, and what to write.
pub fn whole<N>(text: &str, range: RangeInclusive<N>, example: N) -> Result<N, Mistake>
where
    N: Copy + PartialOrd + fmt::Display + TryFrom<u64>,
{
    let write =
        || format!("write one from {} to {}, such as {example}", range.start(), range.end());
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Mistake::new(format!("`{}` is not a whole number", shown(text)), write()));
    }
    let number = text.parse::<u64>().ok().and_then(|number| N::try_from(number).ok());
    number
        .filter(|number| range.contains(number))
        .ok_or_else(|| Mistake::new(format!("{} is out of range", shown(text)), write()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_number_is_in_its_range_or_refused_with_the_range_and_one_of_it() {
        assert_eq!(whole("16", 1..=16_u8, 2), Ok(16));
        assert_eq!(whole("007", 1..=16_u8, 2), Ok(7));
        for wrong in
            ["", "x", "-1", "+2", "2.0", " 2", "２", "0", "17", "256", "99999999999999999999999"]
        {
            let mistake = whole(wrong, 1..=16_u8, 2).unwrap_err();
            assert_eq!(mistake.help, "write one from 1 to 16, such as 2", "{wrong}");
        }
    }
}
