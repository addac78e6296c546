//! The officer's own patterns: regular expressions that take time linear in the text, whatever the pattern.

use std::fmt;

use regex::{Regex, RegexBuilder};
use regex_syntax::ast::parse::Parser;
use regex_syntax::ast::{
    AssertionKind, Ast, ClassPerl, ClassPerlKind, ClassSetItem, Flag, Position, Span, Visitor,
    visit,
};
use regex_syntax::hir::{Hir, HirKind};
use unicode_normalization::{UnicodeNormalization as _, is_nfc};

use crate::document::Mistake;

/// Memory a compiled pattern may take, in bytes: enough for any number format, and `\w{1000}{1000}` is refused.
const COMPILED_MAX: usize = 1 << 20;

/// Characters of the longest pattern. Its parts are taken apart before anybody knows how large it will be, and a
/// two-letter `\w` becomes some 6 KiB.
const PATTERN_MAX: usize = 1000;

/// A compiled regular expression. Cheap to clone.
///
/// The engine is a finite automaton (crate `regex`): no look-around, no back-references, and so no text that makes it slow.
#[derive(Clone, Debug, Default)]
pub struct Pattern(Option<Regex>);

impl Pattern {
    /// Compiles it.
    ///
    /// # Errors
    /// When it is not a regular expression, is too large, or matches the empty text and so everything.
    pub fn new(text: &str) -> Result<Self, Mistake> {
        if text.len() > PATTERN_MAX {
            return Err(Mistake::new(
                format!("this regular expression is longer than {PATTERN_MAX} bytes"),
                "write several [[detector]]",
            ));
        }
        if !is_nfc(text) {
            let composed: String = text.nfc().collect();
            return Err(Mistake::new(
                "this regular expression is written in letters and marks apart (not in Unicode's form NFC), so it finds nothing",
                format!("write it composed: '{composed}'"),
            ));
        }
        let parsed = regex_syntax::parse(text).map_err(|error| not_an_expression(&error))?;
        let compiled =
            RegexBuilder::new(text).size_limit(COMPILED_MAX).dfa_size_limit(COMPILED_MAX).build();
        let regex = compiled.map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => {
                Mistake::new("this regular expression is too large", "repeat fewer things fewer times")
            }
            other => Mistake::new(
                format!("this is not a regular expression: {}", last_line(&other.to_string())),
                "see https://docs.rs/regex for the syntax; look-around and back-references do not exist",
            ),
        })?;
        if let Some(apart) = apart(&parsed) {
            let composed: String = apart.nfc().collect();
            return Err(Mistake::new(
                "this regular expression looks for letters and marks apart (not in Unicode's form NFC), so it finds nothing",
                format!(
                    "text is composed before it is looked into: write `{composed}` for `{}`",
                    apart.escape_unicode()
                ),
            ));
        }
        if regex.is_match("") {
            return Err(Mistake::new(
                "this regular expression finds itself in every text, even an empty one",
                "demand at least one character: write `+` for `*`, or leave out the last `?` or `|`",
            ));
        }
        Ok(Self(Some(regex)))
    }

    /// Returns the expression as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_ref().map_or("", Regex::as_str)
    }
}

/// Returns what is wrong with an expression, and where in it.
fn not_an_expression(error: &regex_syntax::Error) -> Mistake {
    let (what, span) = match error {
        regex_syntax::Error::Parse(error) => (error.kind().to_string(), *error.span()),
        regex_syntax::Error::Translate(error) => (error.kind().to_string(), *error.span()),
        // A kind of later versions of the library.
        other => (last_line(&other.to_string()), Span::splat(Position::new(0, 1, 1))),
    };
    let at = crate::diagnostic::Span { start: span.start.offset, end: span.end.offset };
    Mistake::new(
        format!("this is not a regular expression: {what}, at character {}", span.start.column),
        "see https://docs.rs/regex for the syntax; look-around and back-references do not exist",
    )
    .at(at)
}

/// Returns the last line of a message: the engine's draw the pattern first and say what is wrong last.
fn last_line(message: &str) -> String {
    let last = message.lines().last().unwrap_or_default().trim();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}

/// Returns literal text in an expression that no composed text contains.
fn apart(hir: &Hir) -> Option<String> {
    let mut left = vec![hir];
    while let Some(hir) = left.pop() {
        match hir.kind() {
            HirKind::Literal(literal) => {
                let text = std::str::from_utf8(&literal.0).unwrap_or_default();
                if !is_nfc(text) {
                    return Some(text.to_owned());
                }
            }
            HirKind::Repetition(repetition) => left.push(&repetition.sub),
            HirKind::Capture(capture) => left.push(&capture.sub),
            HirKind::Concat(parts) | HirKind::Alternation(parts) => left.extend(parts),
            HirKind::Empty | HirKind::Class(_) | HirKind::Look(_) => {}
        }
    }
    None
}

impl Pattern {
    /// Returns the first part of it for which Hangul is made of word characters, as `\b` and `\w` are unless the expression says
    /// otherwise: between the last digit of a number and a Korean particle is no `\b`.
    #[must_use]
    pub fn words_of_every_script(&self) -> Option<&str> {
        let text = self.as_str();
        let ast = Parser::new().parse(text).ok()?;
        let span = visit(&ast, WordsOfEveryScript { unicode: vec![true], found: None }).ok()??;
        text.get(span.start.offset..span.end.offset)
    }
}

/// A backslash that is written twice before what one would have made a class, or a plain character: `\\d` for `\d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DoubledBackslash {
    /// Both, and what stands behind them.
    pub(crate) at: crate::diagnostic::Span,
    before: char,
}

/// What a backslash before it makes of a letter, in the officer's words. The other characters stand for themselves then.
const CLASSES: [(char, &str); 10] = [
    ('d', "a digit"),
    ('D', "what is no digit"),
    ('w', "a letter or digit"),
    ('W', "what is no letter or digit"),
    ('s', "a space"),
    ('S', "what is no space"),
    ('b', "the edge of a word"),
    ('B', "the inside of a word"),
    ('p', "a kind of character"),
    ('P', "another kind of character"),
];

/// Characters that mean something in an expression unless a backslash stands before them, and seldom stand behind a backslash that is
/// looked for.
const PLAIN: [char; 6] = ['.', '+', '(', '[', '$', '^'];

impl DoubledBackslash {
    /// Returns what to write.
    pub(crate) fn remedy(self) -> String {
        let c = self.before;
        format!(
            "write `\\{c}` in single quotes, where a backslash stands as it is; if a backslash is to be found, write `[\\\\]{c}`"
        )
    }
}

impl fmt::Display for DoubledBackslash {
    /// Writes what it is, as a message.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = self.before;
        match CLASSES.iter().find(|(letter, _)| *letter == c) {
            Some((_, class)) => {
                write!(f, "`\\\\{c}` finds a backslash and the letter {c}, not {class}")
            }
            None => write!(f, "`\\\\{c}` finds a backslash, not the character `{c}`"),
        }
    }
}

impl Pattern {
    /// Returns the first backslash that is written twice and was probably meant once. Where two are looked for in a row, or one behind
    /// a colon, the expression is about paths.
    pub(crate) fn doubled_backslash(&self) -> Option<DoubledBackslash> {
        let text = self.as_str();
        let ast = Parser::new().parse(text).ok()?;
        let found = visit(&ast, Backslashes::default()).ok()?;
        let next = found.iter().skip(1);
        if found.iter().zip(next).any(|(one, next)| one.end.offset == next.start.offset) {
            return None;
        }
        found.iter().find_map(|span| {
            let (start, end) = (span.start.offset, span.end.offset);
            let of_a_drive = text.get(..start)?.ends_with(':');
            let before = text.get(end..)?.chars().next().filter(|_| !of_a_drive)?;
            let meant =
                CLASSES.iter().any(|(letter, _)| *letter == before) || PLAIN.contains(&before);
            let at = crate::diagnostic::Span { start, end: end + before.len_utf8() };
            meant.then_some(DoubledBackslash { at, before })
        })
    }
}

/// The backslashes that an expression looks for, outside of brackets.
#[derive(Default)]
struct Backslashes(Vec<Span>);

impl Visitor for Backslashes {
    type Output = Vec<Span>;
    type Err = ();

    fn finish(self) -> Result<Vec<Span>, ()> {
        Ok(self.0)
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), ()> {
        if let Ast::Literal(literal) = ast
            && literal.c == '\\'
        {
            self.0.push(literal.span);
        }
        Ok(())
    }
}

struct WordsOfEveryScript {
    /// Whether the flag `u` is set, in each group that is open.
    unicode: Vec<bool>,
    found: Option<Span>,
}

impl WordsOfEveryScript {
    fn is_unicode(&self) -> bool {
        self.unicode.last().copied().unwrap_or(true)
    }

    fn find(&mut self, span: Span) {
        if self.is_unicode() {
            self.found.get_or_insert(span);
        }
    }

    fn class(&mut self, class: &ClassPerl) {
        if class.kind == ClassPerlKind::Word {
            self.find(class.span);
        }
    }
}

impl Visitor for WordsOfEveryScript {
    type Output = Option<Span>;
    type Err = ();

    fn finish(self) -> Result<Option<Span>, ()> {
        Ok(self.found)
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), ()> {
        match ast {
            Ast::Flags(set) => {
                let unicode = set.flags.flag_state(Flag::Unicode).unwrap_or(self.is_unicode());
                self.unicode.pop();
                self.unicode.push(unicode);
            }
            Ast::Group(group) => {
                let flags = group.flags().and_then(|flags| flags.flag_state(Flag::Unicode));
                self.unicode.push(flags.unwrap_or(self.is_unicode()));
            }
            Ast::Assertion(assertion) => match assertion.kind {
                AssertionKind::StartLine
                | AssertionKind::EndLine
                | AssertionKind::StartText
                | AssertionKind::EndText => {}
                _ => self.find(assertion.span),
            },
            Ast::ClassPerl(class) => self.class(class),
            _ => {}
        }
        Ok(())
    }

    fn visit_post(&mut self, ast: &Ast) -> Result<(), ()> {
        if matches!(ast, Ast::Group(_)) {
            self.unicode.pop();
        }
        Ok(())
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), ()> {
        if let ClassSetItem::Perl(class) = item {
            self.class(class);
        }
        Ok(())
    }
}

impl Pattern {
    /// Returns whether it is found in a text.
    pub(super) fn is_in(&self, text: &str) -> bool {
        self.0.as_ref().is_some_and(|regex| regex.is_match(text))
    }
}

#[cfg(test)]
mod tests {
    use super::Pattern;
    use crate::detect::{Content, Detector};
    use crate::language::MediaType;

    fn found(pattern: &str, media_type: MediaType, text: &str) -> bool {
        let detector =
            Detector::Pattern("chart-number".parse().unwrap(), Pattern::new(pattern).unwrap());
        detector.finds(&Content::of(media_type, text.as_bytes()).unwrap())
    }

    #[test]
    fn a_chart_number_is_found_however_it_is_written() {
        for text in [
            "see MRN-12345678 please",
            "MRN12345678",
            "MRN 1234 5678",
            "MRN - 1234-5678.",
            "ＭＲＮ１２３４５６７８",
            "M\u{200b}R\u{200b}N12345678",
        ] {
            assert!(found(r"\bMRN-?\d{8}\b", MediaType::TextPlain, text), "{text:?}");
        }
        assert!(found(r"\bMRN-?\d{8}\b", MediaType::TextHtml, "<b>MRN</b>&#45;1234<i>5678</i>"));
        assert!(found(
            r"\bMRN-?\d{8}\b",
            MediaType::FileList,
            "copy\nfile:///home/a/MRN%2D12345678.txt"
        ));
        assert!(!found(r"\bMRN-?\d{8}\b", MediaType::TextPlain, "MRN-1234567"));
    }

    // Shows: P-2.
    #[test]
    fn a_number_before_a_korean_particle_is_found_where_words_are_those_of_ascii() {
        let text = "MRN12345678입니다";
        assert!(found(r"(?-u:\b)MRN-?\d{8}(?-u:\b)", MediaType::TextPlain, text));
        assert!(!found(r"\bMRN-?\d{8}\b", MediaType::TextPlain, text));
        for (pattern, part) in [
            (r"\bMRN-?\d{8}\b", Some(r"\b")),
            (r"MRN\B", Some(r"\B")),
            (r"MRN-?\d{8}\b{end}", Some(r"\b{end}")),
            (r"[\w-]+@", Some(r"\w")),
            (r"(?-u:\b)MRN(?u:\W)x", Some(r"\W")),
            (r"(?-u:\b)MRN-?\d{8}(?-u:\b)", None),
            (r"(?-u)\bMRN[\w]", None),
            (r"((?-u)\bMRN)\b", Some(r"\b")),
            (r"^MRN$", None),
        ] {
            assert_eq!(Pattern::new(pattern).unwrap().words_of_every_script(), part, "{pattern}");
        }
    }

    #[test]
    fn a_backslash_that_was_written_twice_by_habit_is_told_from_one_that_is_looked_for() {
        for (pattern, part) in [
            (r"MRN-?\\d{8}", Some(r"\\d")),
            (r"(\\bMRN)", Some(r"\\b")),
            (r"(진료|\\s+)번호", Some(r"\\s")),
            (r"\\+82", Some(r"\\+")),
            (r"a\\.b", Some(r"\\.")),
            (r"MRN-?\d{8}", None),
            (r"[\\]d", None),
            (r"[\\d]+x", None),
            (r"\\\\server\\data", None),
            (r"C:\\data", None),
        ] {
            let found = Pattern::new(pattern).unwrap().doubled_backslash();
            let found = found.and_then(|found| pattern.get(found.at.start..found.at.end));
            assert_eq!(found, part, "{pattern}");
        }
    }

    // Shows: P-2.
    #[test]
    fn text_is_found_whether_its_letters_are_whole_or_in_parts() {
        let apart =
            |text: &str| unicode_normalization::UnicodeNormalization::nfd(text).collect::<String>();
        for (pattern, text) in [
            ("대외비|진단서", "대외비 진단서 초안"),
            (r"환자명\s*[:：]\s*[가-힣]{2,4}", "환자명: 홍길동"),
            (r"환자명\s*[:：]\s*[가-힣]{2,4}", "환자명： 홍길동"),
            ("né", "né Dupont"),
            ("Müller", "Ｍüller"),
            ("Muller", "Müller"),
        ] {
            assert!(found(pattern, MediaType::TextPlain, text), "{pattern}");
            assert!(found(pattern, MediaType::TextPlain, &apart(text)), "{pattern}, apart");
            if !unicode_normalization::is_nfc(&apart(pattern)) {
                let mistake = Pattern::new(&apart(pattern)).unwrap_err();
                assert_eq!(mistake.help, format!("write it composed: '{pattern}'"));
            }
        }
        let mistake = Pattern::new(r"\x{1112}\x{1161}\x{11ab}자").unwrap_err();
        assert!(mistake.help.contains("write `한자` for"), "{mistake}");
    }

    #[test]
    fn a_pattern_that_would_find_itself_everywhere_is_refused() {
        for pattern in [r"\d*", "", "a|", "(x)?"] {
            Pattern::new(pattern).unwrap_err();
        }
    }

    #[test]
    fn a_pattern_that_would_take_too_much_memory_is_refused() {
        let mistake = Pattern::new(r"(\w{100}){100}{100}").unwrap_err();
        assert!(mistake.message.contains("too large"), "{mistake}");
    }

    #[test]
    fn a_pattern_that_makes_other_engines_take_for_ever_takes_linear_time() {
        let text = "a".repeat(100_000);
        assert!(!found("(a+)+b", MediaType::TextPlain, &text));
    }
}
