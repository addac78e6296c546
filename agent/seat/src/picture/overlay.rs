//! The box over a domain's picture: a notice, a question, or a question with a list to choose from.

use seat_link::{Rect, Size};

use super::canvas::{Canvas, Colour};
use super::text::Face;
use crate::notices::Question;

/// Height of the letters, in pixels, where there is room for all lines.
const LETTERS: u32 = 20;
/// Height of the smallest letters that are drawn so that a list fits on a low screen.
const SMALLEST: u32 = 12;
/// Pixels between the letters of two lines.
const BETWEEN: u32 = 8;
/// Pixels between the edge and the text, beside it and above it.
const MARGIN: (u32, u32) = (24, 16);
/// Pixels of the frame.
const FRAME: u32 = 3;
/// Lines that say what the keys do to a list: one in English, one in Korean.
const KEYS: usize = 2;
/// Lines of the longest text.
const LINES_MAX: usize = 10;

/// What somebody at the seat is to do with what the box says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prompt<'a> {
    Notice,
    /// Say yes or no.
    YesNo,
    /// Choose one of these.
    Choice {
        /// What there is, each with the digit of its place; nine at most have one.
        choices: &'a [String],
        /// Which one a digit or the arrow keys marked.
        marked: Option<usize>,
    },
}

impl<'a> Prompt<'a> {
    pub(crate) fn of(question: &'a Question) -> Self {
        match question.choices.as_slice() {
            [] => Self::YesNo,
            choices => Self::Choice { choices, marked: question.marked },
        }
    }
}

/// One line of the box, and whether it is the marked one.
struct Line {
    text: String,
    marked: bool,
}

impl Line {
    fn plain(text: String) -> Self {
        Self { text, marked: false }
    }
}

/// Draws a notice or question in a box, for a part of the screen that has this much room. Where a line of a list is marked, the
/// box is as large as where none is.
#[must_use]
pub fn overlay(face: &Face, room: Size, text: &str, prompt: Prompt<'_>) -> Canvas {
    let width = room.width;
    let narrow = (width * 6 / 10).max(width.min(400)).saturating_sub(2 * MARGIN.0).max(8);
    // A line of a list is not broken, so that each reason is one line: it may be wider.
    let wide = (width * 9 / 10).saturating_sub(2 * MARGIN.0).max(8);
    let size = letters(room, face.broken(text, LETTERS, narrow).len().min(LINES_MAX), prompt);
    let mut lines: Vec<Line> =
        face.broken(text, size, narrow).into_iter().take(LINES_MAX).map(Line::plain).collect();
    match prompt {
        Prompt::Notice => {}
        Prompt::YesNo => {
            lines.push(Line::plain(String::new()));
            lines.push(Line::plain("Enter: yes    Esc: no".to_owned()));
            lines.push(Line::plain("Enter: 예    Esc: 아니요".to_owned()));
        }
        Prompt::Choice { choices, marked } => {
            lines.push(Line::plain(String::new()));
            for (place, choice) in choices.iter().enumerate() {
                let text = face.fitted(&format!("{}   {choice}", place + 1), size, wide);
                lines.push(Line { text, marked: marked == Some(place) });
            }
            lines.push(Line::plain(String::new()));
            for keys in keys_of_a_list(choices.len()) {
                lines.push(Line::plain(face.fitted(&keys, size, wide)));
            }
        }
    }
    let longest = lines.iter().map(|line| face.width(&line.text, size)).max().unwrap_or(0);
    let step = size + BETWEEN;
    let rows = u32::try_from(lines.len()).unwrap_or(0) * step + 2 * MARGIN.1;
    let all = Size { width: longest.min(wide) + 2 * MARGIN.0, height: rows };
    let (yellow, ground) = (Colour { red: 255, green: 196, blue: 0 }, Colour::grey(32));
    let edge = if prompt == Prompt::Notice { Colour::WHITE } else { yellow };
    let mut canvas = Canvas::new(all, edge);
    let inside = Size { width: all.width - 2 * FRAME, height: all.height - 2 * FRAME };
    canvas.fill(Rect { x: FRAME, y: FRAME, width: inside.width, height: inside.height }, ground);
    for (row, line) in (0u32..).zip(&lines) {
        let top = MARGIN.1 + row * step;
        if line.marked {
            let bar = Rect {
                x: MARGIN.0 / 2,
                y: top.saturating_sub(BETWEEN / 2),
                width: all.width - MARGIN.0,
                height: step,
            };
            canvas.fill(bar, yellow);
        }
        let ink = if line.marked { ground } else { Colour::WHITE };
        let at = (i32::try_from(MARGIN.0).unwrap_or(0), i32::try_from(top).unwrap_or(0));
        face.draw(&mut canvas, at, size, ink, &line.text);
    }
    canvas
}

/// Returns what the keys do to a list of so many.
fn keys_of_a_list(choices: usize) -> [String; KEYS] {
    [
        format!("1-{choices}, arrows: mark    0.5 s later Enter: choose    Esc: leave"),
        format!("1-{choices}, 화살표: 표시    0.5초 뒤 Enter: 선택    Esc: 닫기"),
    ]
}

/// Returns the height of the letters with which a list of choices fits below each other; other boxes are low enough.
fn letters(room: Size, text: usize, prompt: Prompt<'_>) -> u32 {
    let Prompt::Choice { choices, .. } = prompt else { return LETTERS };
    let lines = u32::try_from(text + choices.len() + 2 + KEYS).unwrap_or(u32::MAX);
    let step = room.height.saturating_sub(2 * MARGIN.1) / lines.max(1);
    step.saturating_sub(BETWEEN).clamp(SMALLEST, LETTERS)
}
