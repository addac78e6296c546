//! Digits and what stands between them.

/// Returns whether a person reads past this character inside a number.
pub(super) fn is_separator(c: char) -> bool {
    matches!(c, ' ' | '-' | '.' | '/' | '_' | '(' | ')' | '~' | '\u{b7}')
}

/// Separators in a row that still leave two digits in one number.
const GAP_MAX: usize = 5;

/// What stands between a digit and the digit before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gap {
    /// Nothing stands between them.
    Joined,
    /// Separators stand between them, on one line.
    Spaced,
    /// Separators and one line break.
    Line,
    /// Anything else: they belong to two numbers.
    Wall,
}

/// A digit of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Digit {
    /// The digit's value, 0 to 9.
    pub(super) value: u8,
    /// What stands before it.
    pub(super) gap: Gap,
}

/// Returns every digit of a folded text.
pub(super) fn digits(folded: &str) -> Vec<Digit> {
    let mut digits = Vec::new();
    let (mut separators, mut lines, mut wall) = (0, 0, true);
    for c in folded.chars() {
        let value = u8::try_from(c).ok().filter(u8::is_ascii_digit).map(|c| c - b'0');
        match value {
            Some(value) => {
                let gap = match (wall, lines, separators) {
                    (false, 0, 0) => Gap::Joined,
                    (false, 0, 1..=GAP_MAX) => Gap::Spaced,
                    (false, 1, 0..=GAP_MAX) => Gap::Line,
                    _ => Gap::Wall,
                };
                digits.push(Digit { value, gap });
                (separators, lines, wall) = (0, 0, false);
            }
            None if is_separator(c) => separators += 1,
            None if c == '\n' => lines += 1,
            None => wall = true,
        }
    }
    digits
}

/// Returns every run of `length` digits that could be a number by itself: it starts and ends where something stands
/// between digits, and no wall stands inside it.
pub(super) fn numbers(digits: &[Digit], length: usize) -> impl Iterator<Item = &[Digit]> {
    let ends =
        move |start: usize| digits.get(start + length).is_none_or(|next| next.gap != Gap::Joined);
    let whole = |number: &[Digit]| {
        number.first().is_some_and(|first| first.gap != Gap::Joined)
            && number.iter().skip(1).all(|digit| digit.gap != Gap::Wall)
    };
    digits
        .windows(length)
        .enumerate()
        .filter(move |(start, number)| whole(number) && ends(*start))
        .map(|(_, number)| number)
}

/// Returns what stands before each digit but the first, with the digit's place.
pub(super) fn gaps(number: &[Digit]) -> impl Iterator<Item = (usize, Gap)> {
    number.iter().enumerate().skip(1).map(|(place, digit)| (place, digit.gap))
}

/// Returns the number that some digits make.
pub(super) fn value(digits: &[Digit]) -> u32 {
    digits.iter().fold(0, |value, digit| value * 10 + u32::from(digit.value))
}
