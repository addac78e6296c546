//! The entry function of the fuzz target `vmm_words`.

use std::collections::VecDeque;

use vmm_control::Answer;

use super::capture::Lines;

/// Reads what a VMM says, on its control socket and in its log.
///
/// # Panics
/// A line depends on where its bytes were cut, has characters that steer a terminal, or an answer is another one once it is written and read.
pub fn vmm_words(input: &[u8]) {
    let (mut lines, mut whole) = (Lines::default(), VecDeque::new());
    lines.push(input, &mut whole);
    let (mut lines, mut pieces) = (Lines::default(), VecDeque::new());
    input.chunks(3).for_each(|bytes| lines.push(bytes, &mut pieces));
    assert_eq!(whole, pieces);
    for line in &whole {
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
    for line in input.split(|byte| *byte == b'\n') {
        if let Ok(answer) = Answer::read(line) {
            assert_eq!(Answer::read(&answer.line()).ok(), Some(answer));
        }
    }
}
