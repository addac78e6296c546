//! The person who runs setup, if there is one.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};

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

/// Somebody, or something, that setup can ask.
pub trait Dialogue {
    /// Shows a text, and waits for nothing.
    fn show(&mut self, text: &str);
    /// Asks, and returns the place of the chosen one, or `None` where nobody answers.
    fn choose(&mut self, question: &Question) -> Option<usize>;
    /// Asks for a yes or a no; `None` where nobody answers.
    fn confirm(&mut self, text: &str) -> Option<bool>;
}

/// The terminal that setup was started in: asks on standard error and reads standard input.
#[derive(Debug, Default)]
pub struct Terminal;

impl Terminal {
    /// Asks until there is an answer; `None` where nobody is there, or nobody knows one.
    fn ask<T>(&mut self, prompt: &str, understood: impl Fn(&str) -> Option<T>) -> Option<T> {
        if !io::stdin().is_terminal() {
            return None;
        }
        for _ in 0..TRIES {
            self.show(prompt);
            let mut line = String::new();
            // The end of the input is no answer.
            if io::stdin().lock().take(LINE_MAX).read_line(&mut line).ok()? == 0 {
                return None;
            }
            if let Some(answer) = understood(line.trim()) {
                return Some(answer);
            }
        }
        None
    }
}

impl Dialogue for Terminal {
    fn show(&mut self, text: &str) {
        let mut out = io::stderr();
        // A reader that went away does not keep setup from its work.
        let _ = out.write_all(printable::page(text).as_bytes()).and_then(|()| out.flush());
    }

    fn choose(&mut self, question: &Question) -> Option<usize> {
        let Question { key, text, choices } = question;
        let lines = (1..).zip(choices);
        let lines: String =
            lines.map(|(number, choice)| format!("  {number}  {choice}\n")).collect();
        let prompt =
            format!("\n{text}\n{lines}1 to {} (`{key}` in an answer file): ", choices.len());
        self.ask(&prompt, |line| {
            let number = line.parse::<usize>().ok()?;
            number.checked_sub(1).filter(|place| *place < choices.len())
        })
    }

    fn confirm(&mut self, text: &str) -> Option<bool> {
        self.ask(&format!("\n{text} [y/n] "), notation::meant::yes_or_no)
    }
}
