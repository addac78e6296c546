//! What is said over a picture: one question, or else one notice; a pure state machine.
//!
//! - A notice never takes the place of a question: it waits until that is answered.
//! - What a person's own hotkey brought is said at once. What a device or a guest brought waits until the notice before
//!   it could be read, and each source may cause only so many.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use ratelimit::{Rate, RateLimiter};

use super::core::Time;

/// How long a notice is shown.
const SHOWN_FOR: Duration = Duration::from_secs(6);
/// How long it is shown although others wait.
const SHOWN_AT_LEAST: Duration = Duration::from_millis(1500);
/// Notices that wait; of more, the last are left out.
const WAITING_MAX: usize = 4;
/// Notices that one source may cause. A person plugs no faster.
const NOTICES: Rate = Rate { burst: 5, every: Duration::from_secs(10) };
/// Sources told apart; those beyond share one allowance. There are as many as devices that are plugged in.
const SOURCES_MAX: usize = 64;

/// Who caused a notice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Somebody pressed a hotkey, or gave a command.
    Person,
    /// This device, or this domain's guest.
    Source(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) id: u64,
    pub(super) text: String,
    /// The choices; a question for yes or no has none.
    pub(super) choices: Vec<String>,
    /// The index of the choice that is marked.
    pub(super) marked: Option<usize>,
    /// How often its text was replaced.
    pub(super) told: u64,
}

/// The content of the box on the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoticeContent<'a> {
    Notice(&'a str),
    Question(&'a Question),
}

#[derive(Default)]
pub(super) struct Notices {
    question: Option<Question>,
    notice: Option<(String, Time)>,
    waiting: VecDeque<String>,
    limiters: BTreeMap<Cause, RateLimiter>,
    /// A number that changes with what is shown.
    number: u64,
}

impl Notices {
    /// Shows a question in place of the one before it.
    pub(super) fn ask(&mut self, now: Time, id: u64, text: String, choices: Vec<String>) {
        self.set_aside(now);
        self.question = Some(Question { id, text, choices, marked: None, told: 0 });
        self.number += 1;
    }

    /// Marks another choice. It is the same question in the same box: what was read of it stays read.
    pub(super) fn mark(&mut self, id: u64, marked: usize) {
        if let Some(question) = self.question.as_mut().filter(|question| question.id == id) {
            question.marked = Some(marked);
        }
    }

    /// Says it in other words, which mean the same: what was read of it stays read.
    pub(super) fn reword(&mut self, id: u64, text: String) {
        if let Some(question) = self.question.as_mut().filter(|question| question.id == id) {
            question.text = text;
            question.told += 1;
        }
    }

    /// Takes down a question that was answered, or withdrawn.
    pub(super) fn end_question(&mut self, now: Time, id: u64) {
        if self.question.take_if(|question| question.id == id).is_some() {
            self.number += 1;
            self.advance(now);
        }
    }

    /// Says something as soon as it may be said; `false` if its source has said too much already.
    pub(super) fn notice(&mut self, now: Time, cause: Cause, text: String) -> bool {
        match cause {
            Cause::Person if self.question.is_none() => {
                self.set_aside(now);
                self.notice = Some((text, now));
                self.number += 1;
            }
            Cause::Person => self.waiting.push_front(text),
            source => {
                if !self.allows(source, now) {
                    return false;
                }
                self.waiting.push_back(text);
            }
        }
        while self.waiting.len() > WAITING_MAX {
            self.waiting.pop_back();
        }
        self.advance(now);
        true
    }

    fn allows(&mut self, source: Cause, now: Time) -> bool {
        let known = self.limiters.contains_key(&source);
        let source = if known || self.limiters.len() < SOURCES_MAX {
            source
        } else {
            Cause::Source(String::new())
        };
        let fresh = || RateLimiter::new(NOTICES);
        self.limiters.entry(source).or_insert_with(fresh).take(1, now)
    }

    /// Puts back a notice that could not be read yet, to be shown again.
    fn set_aside(&mut self, now: Time) {
        if let Some((text, since)) = self.notice.take()
            && now.saturating_sub(since) < SHOWN_AT_LEAST
        {
            self.waiting.push_front(text);
        }
    }

    /// Takes down what was shown for long enough, and shows what waits.
    pub(super) fn advance(&mut self, now: Time) {
        if self.question.is_some() {
            return;
        }
        let time = if self.waiting.is_empty() { SHOWN_FOR } else { SHOWN_AT_LEAST };
        if self.notice.take_if(|(_, since)| now.saturating_sub(*since) >= time).is_some() {
            self.number += 1;
        }
        if self.notice.is_none()
            && let Some(text) = self.waiting.pop_front()
        {
            self.notice = Some((text, now));
            self.number += 1;
        }
    }

    /// Returns when [`Self::advance`] changes something.
    pub(super) fn deadline(&self) -> Option<Time> {
        let (_, since) = self.notice.as_ref().filter(|_| self.question.is_none())?;
        let time = if self.waiting.is_empty() { SHOWN_FOR } else { SHOWN_AT_LEAST };
        Some(since.saturating_add(time))
    }

    /// Returns what is shown, and a number that is another one whenever that is something else.
    pub(super) fn shown(&self) -> (u64, Option<NoticeContent<'_>>) {
        let said = match (&self.question, &self.notice) {
            (Some(question), _) => Some(NoticeContent::Question(question)),
            (None, Some((text, _))) => Some(NoticeContent::Notice(text)),
            (None, None) => None,
        };
        (self.number, said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(tenths: u64) -> Time {
        Duration::from_millis(tenths * 100)
    }

    fn device(name: &str) -> Cause {
        Cause::Source(name.to_owned())
    }

    #[test]
    fn a_notice_never_takes_the_place_of_a_question_and_is_shown_after_it() {
        let mut notices = Notices::default();
        notices.ask(seconds(0), 7, "paste?".to_owned(), Vec::new());
        let asked = notices.shown().0;
        let question = Question {
            id: 7,
            text: "paste?".to_owned(),
            choices: Vec::new(),
            marked: None,
            told: 0,
        };
        for cause in [device("1-1"), device("1-1"), Cause::Person] {
            notices.notice(seconds(1), cause, "words".to_owned());
            notices.advance(seconds(200));
            assert_eq!(notices.shown(), (asked, Some(NoticeContent::Question(&question))));
        }
        assert_eq!(notices.deadline(), None);
        notices.end_question(seconds(201), 8);
        assert_eq!(notices.shown(), (asked, Some(NoticeContent::Question(&question))));
        notices.end_question(seconds(201), 7);
        assert_eq!(notices.shown().1, Some(NoticeContent::Notice("words")));
    }

    #[test]
    fn marking_another_choice_leaves_it_the_question_that_was_read() {
        let mut notices = Notices::default();
        notices.ask(seconds(0), 7, "why?".to_owned(), vec!["a".to_owned(), "b".to_owned()]);
        let number = notices.shown().0;
        notices.mark(8, 0);
        notices.mark(7, 1);
        let (shown, said) = notices.shown();
        assert_eq!(shown, number);
        assert!(matches!(said, Some(NoticeContent::Question(Question { marked: Some(1), .. }))));
    }

    #[test]
    fn a_question_that_counts_down_stays_the_one_that_was_read_with_what_is_marked_in_it() {
        let mut notices = Notices::default();
        notices.ask(seconds(0), 7, "in 60 s".to_owned(), vec!["a".to_owned(), "b".to_owned()]);
        let number = notices.shown().0;
        notices.mark(7, 1);
        notices.reword(8, "another's".to_owned());
        notices.reword(7, "in 59 s".to_owned());
        let (shown, said) = notices.shown();
        assert_eq!(shown, number);
        let Some(NoticeContent::Question(question)) = said else { panic!("the question") };
        assert_eq!(
            (question.text.as_str(), question.marked, question.told),
            ("in 59 s", Some(1), 1)
        );
    }

    #[test]
    fn a_notice_that_a_question_covered_is_shown_again_if_nobody_could_have_read_it() {
        let mut notices = Notices::default();
        notices.notice(seconds(0), device("1-1"), "read".to_owned());
        notices.ask(seconds(20), 1, "?".to_owned(), Vec::new());
        notices.end_question(seconds(30), 1);
        assert_eq!(notices.shown().1, None);
        notices.notice(seconds(30), device("1-1"), "unread".to_owned());
        notices.ask(seconds(31), 2, "?".to_owned(), Vec::new());
        notices.end_question(seconds(40), 2);
        assert_eq!(notices.shown().1, Some(NoticeContent::Notice("unread")));
        notices.advance(seconds(100));
        assert_eq!(notices.shown().1, None);
    }

    #[test]
    fn a_device_that_causes_notices_again_and_again_is_slowed_down_and_hides_no_answer_to_a_person()
    {
        let mut notices = Notices::default();
        let flood = |notices: &mut Notices, at| {
            (0..100).filter(|n| notices.notice(seconds(at), device("1-1"), n.to_string())).count()
        };
        assert_eq!(flood(&mut notices, 0), 5);
        assert!(notices.notice(seconds(0), device("1-2"), "another".to_owned()));
        notices.notice(seconds(1), Cause::Person, "Not pasted".to_owned());
        assert_eq!(notices.shown().1, Some(NoticeContent::Notice("Not pasted")));
        assert_eq!(flood(&mut notices, 2), 0);
        notices.advance(seconds(15));
        assert_eq!(notices.shown().1, Some(NoticeContent::Notice("Not pasted")), "it can be read");
        assert_eq!(flood(&mut notices, 600), 5, "a minute later");
        assert!(notices.waiting.len() <= WAITING_MAX);
        for n in 0..1000 {
            notices.notice(seconds(601), device(&n.to_string()), String::new());
        }
        assert!(notices.limiters.len() <= SOURCES_MAX + 1);
    }
}
