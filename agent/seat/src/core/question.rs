//! The question that is open: when an answer counts, and when there is none any more.

use std::time::Duration;

use super::hotkeys::ChoiceKey;
use super::{Core, Output, Time, hotkeys};

/// How long its box must have been on the screen before a key counts, and how long no key must have been pressed before
/// [`Enter`](ChoiceKey::Enter) does. Nobody reads faster: what comes sooner was meant for something else, or is typed by a
/// scanner, whose codes often end with Enter.
pub const READ_FOR: Duration = Duration::from_millis(500);
/// How long a question is open; then the answer is no. Longer than any mediator waits for its own.
pub const OPEN_FOR: Duration = Duration::from_secs(30);

/// A question, as long as it is open.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    id: u64,
    /// How many things there are to choose from; `None` asks for yes or no.
    choices: Option<usize>,
    /// Which of them a digit or the arrow keys marked.
    marked: Option<usize>,
    /// When it is answered no.
    until: Time,
    /// Since when its box has been on the screen.
    shown: Option<Time>,
    /// When a key other than Enter was last pressed while it was open.
    last_key: Option<Time>,
}

impl Question {
    /// Returns what it is at `now`, whatever the time: all that its answer depends on.
    #[cfg(test)]
    pub(super) fn at(&self, now: Time) -> impl std::hash::Hash + use<> {
        let age = |since: Option<Time>| since.map(|since| now.saturating_sub(since).min(READ_FOR));
        let times = (self.until.saturating_sub(now), age(self.shown), age(self.last_key));
        (self.id, self.choices, self.marked, times)
    }

    /// Returns what a key does to it; whether it is answered by that. Nothing says yes or chooses but Enter.
    fn key(&mut self, now: Time, code: u16, out: &mut Vec<Output>) -> bool {
        let long_enough = |since: Time| now.saturating_sub(since) >= READ_FOR;
        if !self.shown.is_some_and(long_enough) {
            return false;
        }
        let quiet = self.last_key.is_none_or(long_enough);
        let answer = match (hotkeys::choice(code), self.choices) {
            (Some(ChoiceKey::Enter), _) if !quiet => return false,
            (Some(ChoiceKey::Enter), None) => Output::Answered(self.id, true),
            (Some(ChoiceKey::Enter), Some(_)) => match self.marked {
                Some(marked) => Output::Chosen(self.id, marked),
                None => return false,
            },
            (Some(ChoiceKey::Leave), _) => Output::Answered(self.id, false),
            (Some(ChoiceKey::Number(number)), Some(choices)) => {
                if number < choices {
                    self.mark(|_| number, out);
                }
                return false;
            }
            (Some(ChoiceKey::Down), Some(_)) => {
                self.mark(|mark| mark.map_or(0, |mark| mark + 1), out);
                return false;
            }
            (Some(ChoiceKey::Up), Some(_)) => {
                self.mark(|mark| mark.unwrap_or(0).wrapping_sub(1), out);
                return false;
            }
            (None, None) if hotkeys::is_no(code) => Output::Answered(self.id, false),
            _ => return false,
        };
        out.push(answer);
        true
    }

    /// Marks another one, from the last on to the first and back.
    fn mark(&mut self, next: impl Fn(Option<usize>) -> usize, out: &mut Vec<Output>) {
        let Some(last) = self.choices.and_then(|choices| choices.checked_sub(1)) else { return };
        let marked = match next(self.marked) {
            // Below the first lies the number that is larger than all.
            usize::MAX => last,
            next if next > last => 0,
            next => next,
        };
        self.marked = Some(marked);
        out.push(Output::Marked(self.id, marked));
    }
}

impl Core {
    /// Shows a question; `choices` is how many there are to choose from, or `None` for yes or no.
    pub(super) fn ask(&mut self, id: u64, choices: Option<usize>, out: &mut Vec<Output>) {
        self.end_question(out);
        self.release_keys(|hold| hold.is_shared(), out);
        let until = self.now.saturating_add(OPEN_FOR);
        let (marked, shown, last_key) = (None, None, None);
        self.question = Some(Question { id, choices, marked, until, shown, last_key });
        if self.locked {
            self.end_question(out);
        }
    }

    pub(super) fn withdraw(&mut self, id: u64) {
        self.question.take_if(|question| question.id == id);
    }

    /// Takes it that its box is on the screen from now on, or not any more.
    pub(super) fn question_shown(&mut self, id: u64, shown: bool) {
        if let Some(question) = self.question.as_mut().filter(|question| question.id == id) {
            question.shown = shown.then(|| question.shown.unwrap_or(self.now));
        }
    }

    /// Handles a key that was pressed while the question is open.
    pub(super) fn answer(&mut self, code: u16, out: &mut Vec<Output>) {
        let now = self.now;
        self.question.take_if(|question| question.key(now, code, out));
    }

    /// Takes it that a key was pressed, whatever it did: [`READ_FOR`] has to pass before Enter counts. An Enter that did not count puts
    /// off none: who presses it again and again would wait for ever, and a scanner's follows its code at once.
    pub(super) fn question_key(&mut self, code: u16) {
        if matches!(hotkeys::choice(code), Some(ChoiceKey::Enter)) {
            return;
        }
        if let Some(question) = &mut self.question {
            question.last_key = Some(self.now);
        }
    }

    pub(super) fn question_deadline(&self) -> Option<Time> {
        self.question.map(|question| question.until)
    }

    pub(super) fn question_times_out(&mut self, out: &mut Vec<Output>) {
        if self.question_deadline().is_some_and(|until| self.now >= until) {
            self.end_question(out);
        }
    }

    /// Answers no to a question that cannot be answered any more.
    pub(super) fn end_question(&mut self, out: &mut Vec<Output>) {
        if let Some(question) = self.question.take() {
            out.push(Output::Answered(question.id, false));
        }
    }
}
