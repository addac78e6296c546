//! The person who runs setup, if there is one.

use std::io::{self, BufRead, IsTerminal as _, Read as _, Write as _};

/// Longest line that is read, in bytes: an answer is a number or a word.
const LINE_MAX: u64 = 4096;
/// How often a question is asked again whose answer is none.
const TRIES: usize = 5;

/// A question with numbered choices.
#[derive(Debug, Clone)]
pub struct Question {
    /// Its key in an answer file: `domain.clinical.nic`.
    pub key: String,
    pub text: String,
    /// What can be chosen, one line each.
    pub choices: Vec<String>,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unanswered {
    /// Nobody is at a terminal, or who was there ended the input.
    Nobody,
    /// Somebody wrote something each time, and none of it is an answer.
    NotUnderstood,
}

/// Somebody, or something, that setup can ask.
pub trait Dialogue {
    /// Shows a text, and waits for nothing.
    fn show(&mut self, text: &str);
    /// Asks, and returns the place of the chosen one.
    ///
    /// # Errors
    /// Nobody answers, or nobody knows an answer.
    fn choose(&mut self, question: &Question) -> Result<usize, Unanswered>;
    /// Asks for a yes or a no.
    ///
    /// # Errors
    /// Nobody answers, or nobody knows an answer.
    fn confirm(&mut self, text: &str) -> Result<bool, Unanswered>;
}

/// The terminal that setup was started in: asks on standard error and reads standard input.
#[derive(Debug, Default)]
pub struct Terminal;

impl Dialogue for Terminal {
    fn show(&mut self, text: &str) {
        show(text);
    }

    fn choose(&mut self, question: &Question) -> Result<usize, Unanswered> {
        let Question { key, text, choices } = question;
        let lines = (1..).zip(choices);
        let lines: String =
            lines.map(|(number, choice)| format!("  {number}  {choice}\n")).collect();
        let last = choices.len();
        let prompt = format!("\n{text}\n{lines}1 to {last} (`{key}` in an answer file): ");
        let hint = format!("write a number from 1 to {last}");
        at_a_terminal(&prompt, &hint, |line| place(line, choices))
    }

    fn confirm(&mut self, text: &str) -> Result<bool, Unanswered> {
        at_a_terminal(&format!("\n{text} [y/n] "), "write y or n", yes_or_no)
    }
}

fn show(text: &str) {
    let mut out = io::stderr();
    // A reader that went away does not keep setup from its work.
    let _ = out.write_all(printable::page(text).as_bytes()).and_then(|()| out.flush());
}

fn at_a_terminal<T>(
    prompt: &str,
    hint: &str,
    understood: impl Fn(&str) -> Option<T>,
) -> Result<T, Unanswered> {
    if !io::stdin().is_terminal() {
        return Err(Unanswered::Nobody);
    }
    ask(&mut io::stdin().lock(), show, prompt, hint, understood)
}

/// Asks until there is an answer; says what one looks like before it asks again.
fn ask<T>(
    input: &mut impl BufRead,
    mut show: impl FnMut(&str),
    prompt: &str,
    hint: &str,
    understood: impl Fn(&str) -> Option<T>,
) -> Result<T, Unanswered> {
    for _ in 0..TRIES {
        show(prompt);
        let mut line = String::new();
        // The end of the input is no answer, and neither is what is no text.
        if input.by_ref().take(LINE_MAX).read_line(&mut line).unwrap_or(0) == 0 {
            return Err(Unanswered::Nobody);
        }
        if let Some(answer) = understood(line.trim()) {
            return Ok(answer);
        }
        show(&format!("that is none of the answers: {hint}\n"));
    }
    Err(Unanswered::NotUnderstood)
}

/// Returns what is meant by the answer to `[y/n]`. A number answers a question with numbered choices, and may have been written before this one was read.
fn yes_or_no(line: &str) -> Option<bool> {
    let is_number = line.parse::<u64>().is_ok();
    (!is_number).then(|| notation::meant::yes_or_no(line)).flatten()
}

/// Returns the place of the choice that is meant: by its number, by the word before its colon, or by a yes or no where it is between `true` and `false`.
fn place(line: &str, choices: &[String]) -> Option<usize> {
    if let Ok(number) = line.parse::<usize>() {
        return number.checked_sub(1).filter(|place| *place < choices.len());
    }
    let place_of = |word: &str| {
        let mut words = choices.iter().map(|choice| choice.split_once(": ").map(|(it, _)| it));
        words.position(|it| it.is_some_and(|it| it.eq_ignore_ascii_case(word)))
    };
    if let Some(place) = place_of(line) {
        return Some(place);
    }
    let (yes, no) = place_of("true").zip(place_of("false"))?;
    notation::meant::yes_or_no(line).map(|is_yes| if is_yes { yes } else { no })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks somebody who writes this; returns what came of it and all that was shown.
    fn asked<T>(
        written: &str,
        understood: impl Fn(&str) -> Option<T>,
    ) -> (Result<T, Unanswered>, String) {
        let mut shown = String::new();
        let show = |text: &str| shown.push_str(text);
        let answer =
            ask(&mut written.as_bytes(), show, "Which? ", "write a number from 1 to 2", understood);
        (answer, shown)
    }

    #[test]
    fn a_choice_is_made_by_its_number_by_its_word_or_by_a_yes_or_no() {
        let pair = ["true: it starts at each boot", "false: not yet"].map(str::to_owned);
        for (yes, no) in
            [("1", "2"), ("y", "n"), ("yes", "No"), ("true", "FALSE"), ("예", "아니오")]
        {
            assert_eq!((place(yes, &pair), place(no, &pair)), (Some(0), Some(1)), "{yes} {no}");
        }
        // No number but those that are shown, and a yes is the answer to no other question.
        let cards = ["0000:00:05.0, enp0s5 (no cable)", "0000:00:06.0, enp0s6"].map(str::to_owned);
        for line in ["0", "3", "y", "n", "true", "", "0000", "x"] {
            assert_eq!(place(line, &cards), None, "{line}");
        }
        assert_eq!((place("0", &pair), place("3", &pair), place("", &pair)), (None, None, None));
    }

    #[test]
    fn a_number_agrees_to_nothing() {
        for (yes, no) in [("y", "n"), ("Yes", "NO"), ("예", "아니오")] {
            assert_eq!((yes_or_no(yes), yes_or_no(no)), (Some(true), Some(false)), "{yes} {no}");
        }
        for line in ["1", "0", "01", "2", ""] {
            assert_eq!(yes_or_no(line), None, "{line}");
        }
        let (answer, shown) = asked("1\ny\n", yes_or_no);
        assert_eq!(answer, Ok(true));
        assert!(shown.contains("none of the answers"), "{shown}");
    }

    #[test]
    fn who_writes_what_is_no_answer_is_told_what_is_one_and_is_not_taken_for_nobody() {
        let number = |line: &str| line.parse::<usize>().ok();
        let (answer, shown) = asked("maybe\n2\n", number);
        assert_eq!(answer, Ok(2));
        assert_eq!(
            shown,
            "Which? that is none of the answers: write a number from 1 to 2\nWhich? "
        );
        assert_eq!(asked("a\nb\nc\nd\ne\n1\n", number).0, Err(Unanswered::NotUnderstood));
        assert_eq!(asked("a\n", number).0, Err(Unanswered::Nobody));
        assert_eq!(asked("", number).0, Err(Unanswered::Nobody));
    }
}
