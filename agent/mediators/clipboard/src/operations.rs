//! Hotkeys of the command line: what became of each, for the user who played it. Pure: what was asked and what came of it goes in, reports come out.

use std::collections::BTreeMap;

use control::protocol::{ClipboardReport, ClipboardState};
use monitor::QuestionId;

use crate::mediator::{Outcome, Ticket};

/// Operations that are remembered; the oldest is forgotten.
const OPERATIONS_MAX: usize = 64;

/// A hotkey that was played.
#[derive(Debug)]
struct Played {
    /// Whose: nobody else is told what became of it, or answers its question, which shows what would cross.
    uid: u32,
    report: ClipboardReport,
    question: Option<QuestionId>,
}

/// What became of the command line's hotkeys.
#[derive(Debug, Default)]
pub struct Operations {
    played: BTreeMap<Ticket, Played>,
    last: Ticket,
}

impl Operations {
    /// Begins an operation of a user's; its report names the ticket.
    pub fn begin(&mut self, uid: u32) -> ClipboardReport {
        self.last += 1;
        let report = ClipboardReport::new(self.last, ClipboardState::Pending, String::new());
        self.played.insert(self.last, Played { uid, report: report.clone(), question: None });
        while self.played.len() > OPERATIONS_MAX {
            self.played.pop_first();
        }
        report
    }

    /// Takes note that somebody has to say yes to it first, if it is still remembered.
    pub fn asked(&mut self, ticket: Ticket, question: QuestionId, text: String) {
        let report = ClipboardReport::new(ticket, ClipboardState::Question, text);
        self.update(report, Some(question));
    }

    /// Takes note of how it ended, if it is still remembered.
    pub fn completed(&mut self, ticket: Ticket, outcome: Outcome) {
        let report = ClipboardReport {
            ticket,
            state: ClipboardState::Ended,
            done: outcome.done,
            verdict: outcome.verdict.map(str::to_owned),
            rule: outcome.rule,
            words: outcome.words,
        };
        self.update(report, None);
    }

    fn update(&mut self, report: ClipboardReport, question: Option<QuestionId>) {
        if let Some(played) = self.played.get_mut(&report.ticket) {
            (played.report, played.question) = (report, question);
        }
    }

    /// Ends all that have not ended, with these words.
    pub fn fail(&mut self, words: &str) {
        for played in self.played.values_mut() {
            played.question = None;
            if played.report.state != ClipboardState::Ended {
                played.report.state = ClipboardState::Ended;
                words.clone_into(&mut played.report.words);
            }
        }
    }

    /// Returns what became of an operation, to the user who played it.
    ///
    /// # Errors
    /// It is not this user's. Whether another user has it is not said.
    pub fn report(&self, uid: u32, ticket: Ticket) -> Result<ClipboardReport, String> {
        let played = self.played.get(&ticket).filter(|played| played.uid == uid);
        played.map(|played| played.report.clone()).ok_or_else(|| unknown(ticket))
    }

    /// Takes the question that the user who played it answers, if one stands.
    ///
    /// # Errors
    /// It is not this user's.
    pub fn take_question(
        &mut self,
        uid: u32,
        ticket: Ticket,
    ) -> Result<Option<QuestionId>, String> {
        let played = self.played.get_mut(&ticket).filter(|played| played.uid == uid);
        let played = played.ok_or_else(|| unknown(ticket))?;
        let question = played.question.take();
        if question.is_some() {
            played.report.state = ClipboardState::Pending;
        }
        Ok(question)
    }
}

fn unknown(ticket: Ticket) -> String {
    format!("clipboard operation {ticket} has expired, or is not yours")
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUESTION: QuestionId = QuestionId::from_number(7);

    fn state(operations: &Operations, ticket: Ticket) -> ClipboardState {
        operations.report(1000, ticket).unwrap().state
    }

    #[test]
    fn the_oldest_operation_is_forgotten_and_the_others_are_their_users_alone() {
        let mut operations = Operations::default();
        for ticket in 1..=OPERATIONS_MAX as u64 + 1 {
            assert_eq!(operations.begin(1000).ticket, ticket);
        }
        assert!(operations.report(1000, 1).unwrap_err().contains("has expired"));
        assert_eq!(state(&operations, 2), ClipboardState::Pending);
        operations.asked(2, QUESTION, "Paste?".to_owned());
        assert!(operations.report(1001, 2).unwrap_err().contains("not yours"));
        operations.take_question(1001, 2).unwrap_err();
        assert_eq!(state(&operations, 2), ClipboardState::Question);
        assert_eq!(operations.take_question(1000, 2), Ok(Some(QUESTION)));
        assert_eq!(state(&operations, 2), ClipboardState::Pending);
        assert_eq!(operations.take_question(1000, 2), Ok(None), "it is answered once");
        // One that is not remembered any more comes to nothing.
        operations.asked(1, QUESTION, "Paste?".to_owned());
        operations.report(1000, 1).unwrap_err();
    }

    #[test]
    fn what_has_not_ended_ends_with_the_clipboard_and_what_has_stays_as_it_was() {
        let mut operations = Operations::default();
        for _ in 0..3 {
            operations.begin(1000);
        }
        let words = "Pasted.".to_owned();
        let outcome = Outcome { done: true, verdict: Some("allow"), rule: None, words };
        operations.completed(1, outcome);
        operations.asked(2, QUESTION, "Paste?".to_owned());
        operations.fail("the clipboard has failed");
        let report = operations.report(1000, 1).unwrap();
        assert_eq!((report.done, report.words.as_str()), (true, "Pasted."));
        for ticket in [2, 3] {
            let report = operations.report(1000, ticket).unwrap();
            assert_eq!(report.state, ClipboardState::Ended);
            assert_eq!((report.done, report.words.as_str()), (false, "the clipboard has failed"));
            assert_eq!(operations.take_question(1000, ticket), Ok(None));
        }
    }
}
