//! Which known word the writer may have meant.

use crate::effort;

/// Longest word compared: the distance takes time in the square of it, and the words come from a file.
const LONGEST: usize = 64;

/// Returns the known word nearest to `written`, if it is near enough for a slip of the hand: at most a third of its letters, and not all of them.
#[must_use]
pub fn nearest<'k>(written: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let written: Vec<char> = written.chars().take(LONGEST).flat_map(char::to_lowercase).collect();
    let measured = known.into_iter().map(|word| (distance(&written, word), word));
    let (slips, word) = measured.min_by_key(|(slips, _)| *slips)?;
    let letters = word.chars().count();
    // Of a word of one letter nothing is left after one slip: any other letter would be as near.
    (slips < letters.max(1) && slips <= letters.div_ceil(3)).then_some(word)
}

/// Counts the letters to insert, drop, replace or swap with their neighbour (optimal string alignment), letter case aside.
fn distance(written: &[char], known: &str) -> usize {
    let known: Vec<char> = known.chars().take(LONGEST).flat_map(char::to_lowercase).collect();
    effort::spend(written.len() * known.len());
    let at = |row: &[usize], column: usize| row.get(column).copied().unwrap_or(usize::MAX / 2);
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=known.len()).collect();
    for (i, &a) in written.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &b) in known.iter().enumerate() {
            let mut least = (at(&above, j) + usize::from(a != b))
                .min(at(&above, j + 1) + 1)
                .min(at(&row, j) + 1);
            let swapped =
                i > 0 && j > 0 && written.get(i - 1) == Some(&b) && known.get(j - 1) == Some(&a);
            if swapped {
                least = least.min(at(&before, j - 1) + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    at(&above, known.len())
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_slip_of_the_hand_finds_the_word_that_was_meant() {
        let keys = ["hotkey", "label", "colour", "idle_lock", "to"];
        assert_eq!(nearest("color", keys), Some("colour"));
        assert_eq!(nearest("hoktey", keys), Some("hotkey"));
        assert_eq!(nearest("Label", keys), Some("label"));
        assert_eq!(nearest("idlelock", keys), Some("idle_lock"));
    }

    #[test]
    fn a_different_word_is_not_taken_for_a_slip() {
        assert_eq!(nearest("bandwidth", ["hotkey", "label", "to"]), None);
        assert_eq!(nearest("x", []), None);
        assert_eq!((nearest("", ["1", "Q"]), nearest("Ω", ["1", "Q"])), (None, None));
    }
}
