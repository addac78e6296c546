//! The question that is open: when an answer counts, and when there is none any more.

use std::time::Duration;

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
    /// When it is answered no.
    until: Time,
    /// Since when its box has been on the screen.
    shown: Option<Time>,
}

impl Core {
    pub(super) fn ask(&mut self, id: u64, out: &mut Vec<Output>) {
        self.end_question(out);
        self.let_go(|hold| hold.is_shared(), out);
        let until = self.now.saturating_add(OPEN_FOR);
        self.question = Some(Question { id, until, shown: None });
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
        let counts = |question: &mut Question| {
            question.shown.is_some_and(|shown| now.saturating_sub(shown) >= READ_FOR)
        };
        if let Some(yes) = chord::answer(code)
            && let Some(question) = self.question.take_if(counts)
        {
            out.push(Output::Answered(question.id, yes));
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

    /// A question that cannot be answered any more is answered no.
    pub(super) fn end_question(&mut self, out: &mut Vec<Output>) {
        if let Some(question) = self.question.take() {
            out.push(Output::Answered(question.id, false));
        }
    }
}
