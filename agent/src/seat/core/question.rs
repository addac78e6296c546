//! The question that is open: when an answer counts, and when there is none any more.

use std::time::Duration;

use super::chord::ChoiceKey;
use super::{Core, Output, Time, chord};

/// How long its box must have been on the screen before an answer counts. Nobody reads faster: what is typed before
/// then was meant for something else.
pub const READ_FOR: Duration = Duration::from_millis(500);
/// How long a question is open; then the answer is no. Longer than any mediator waits for its own.
pub const OPEN_FOR: Duration = Duration::from_secs(30);

/// A question, as long as it is open.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    id: u64,
    /// How many things there are to choose from; `None` asks for yes or no.
    choices: Option<usize>,
    /// Which of them the arrow keys marked.
    marked: Option<usize>,
    /// When it is answered no.
    until: Time,
    /// Since when its box has been on the screen.
    shown: Option<Time>,
}

impl Question {
    /// What a key does to it; whether it is answered by that.
    fn key(&mut self, code: u16, out: &mut Vec<Output>) -> bool {
        let Some(choices) = self.choices else {
            let answer = chord::answer(code);
            out.extend(answer.map(|yes| Output::Answered(self.id, yes)));
            return answer.is_some();
        };
        let chosen = match chord::choice(code) {
            Some(ChoiceKey::Leave) => {
                out.push(Output::Answered(self.id, false));
                return true;
            }
            Some(ChoiceKey::Number(number)) => Some(number),
            Some(ChoiceKey::Enter) => self.marked,
            Some(ChoiceKey::Down) => return self.mark(|mark| mark.map_or(0, |mark| mark + 1), out),
            Some(ChoiceKey::Up) => {
                return self.mark(|mark| mark.unwrap_or(0).wrapping_sub(1), out);
            }
            None => None,
        };
        let chosen = chosen.filter(|chosen| *chosen < choices);
        out.extend(chosen.map(|chosen| Output::Chosen(self.id, chosen)));
        chosen.is_some()
    }

    /// Marks another one, from the last on to the first and back.
    fn mark(&mut self, next: impl Fn(Option<usize>) -> usize, out: &mut Vec<Output>) -> bool {
        let Some(last) = self.choices.and_then(|choices| choices.checked_sub(1)) else {
            return false;
        };
        let marked = match next(self.marked) {
            // Below the first lies the number that is larger than all.
            usize::MAX => last,
            next if next > last => 0,
            next => next,
        };
        self.marked = Some(marked);
        out.push(Output::Marked(self.id, marked));
        false
    }
}

impl Core {
    /// Asks; `choices` is how many there are to choose from, or `None` for yes or no.
    pub(super) fn ask(&mut self, id: u64, choices: Option<usize>, out: &mut Vec<Output>) {
        self.end_question(out);
        self.let_go(|hold| hold.is_shared(), out);
        let until = self.now.saturating_add(OPEN_FOR);
        self.question = Some(Question { id, choices, marked: None, until, shown: None });
        if self.locked {
            self.end_question(out);
        }
    }

    pub(super) fn withdraw(&mut self, id: u64) {
        self.question.take_if(|question| question.id == id);
    }

    /// Its box is on the screen from now on, or not any more.
    pub(super) fn question_shown(&mut self, id: u64, shown: bool) {
        if let Some(question) = self.question.as_mut().filter(|question| question.id == id) {
            question.shown = shown.then(|| question.shown.unwrap_or(self.now));
        }
    }

    /// A key was pressed while it is open.
    pub(super) fn answer(&mut self, code: u16, out: &mut Vec<Output>) {
        let now = self.now;
        self.question.take_if(|question| {
            let read = question.shown.is_some_and(|shown| now.saturating_sub(shown) >= READ_FOR);
            read && question.key(code, out)
        });
    }

    pub(super) fn question_deadline(&self) -> Option<Time> {
        self.question.map(|question| question.until)
    }

    pub(super) fn question_times_out(&mut self, out: &mut Vec<Output>) {
        if self.question_deadline().is_some_and(|until| self.now >= until) {
            self.end_question(out);
        }
    }

    /// A question that cannot be answered any more is answered no.
    pub(super) fn end_question(&mut self, out: &mut Vec<Output>) {
        if let Some(question) = self.question.take() {
            out.push(Output::Answered(question.id, false));
        }
    }
}
