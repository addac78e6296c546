//! Hotkeys: `Ctrl+Alt+1`.

use std::fmt;
use std::str::FromStr;

use crate::document::{Mistake, nearest};

/// A key pressed while exactly these modifiers, left or right, are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Chord {
    /// The modifiers that are held, and no others.
    pub modifiers: Modifiers,
    /// The key that is pressed while they are.
    pub key: Key,
}

/// Modifier keys held; left and right are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Modifiers {
    /// Whether Ctrl is held.
    pub ctrl: bool,
    /// Whether Alt is held.
    pub alt: bool,
    /// Whether Shift is held.
    pub shift: bool,
    /// The key with the logo.
    pub logo: bool,
}

/// A key by its Linux input event code (`linux/input-event-codes.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(u16);

impl Key {
    pub(crate) const fn from_code(code: u16) -> Self {
        Self(code)
    }

    /// Returns the `KEY_*` code, as evdev delivers it.
    #[must_use]
    pub const fn code(self) -> u16 {
        self.0
    }

    /// Returns whether it is a key that types nothing, so that it may stand without a modifier.
    fn stands_alone(self) -> bool {
        matches!(self.0, 59..=68 | 70 | 87 | 88 | 99 | 119 | 183..=194)
    }
}

/// Every key a chord can end in. Escape, Tab and Enter are missing on purpose: they are what a person presses in haste.
///
/// Rows of keys with consecutive codes, each with the code of its first.
const ROWS: [(u16, &str); 12] = [
    (2, "1 2 3 4 5 6 7 8 9 0 Minus Equal"),
    (16, "Q W E R T Y U I O P"),
    (30, "A S D F G H J K L"),
    (44, "Z X C V B N M"),
    (57, "Space"),
    (59, "F1 F2 F3 F4 F5 F6 F7 F8 F9 F10"),
    (70, "ScrollLock"),
    (87, "F11 F12"),
    (99, "PrintScreen"),
    (102, "Home Up PageUp Left Right End Down PageDown Insert Delete"),
    (119, "Pause"),
    (183, "F13 F14 F15 F16 F17 F18 F19 F20 F21 F22 F23 F24"),
];

const MODIFIERS: [&str; 4] = ["Ctrl", "Alt", "Shift", "Super"];

/// Keys that people look for and no hotkey ends in.
const NEVER: [&str; 13] = [
    "Escape",
    "Esc",
    "Tab",
    "Enter",
    "Return",
    "Backspace",
    "CapsLock",
    "NumLock",
    "Menu",
    "Hangul",
    "Hanja",
    "한/영",
    "한자",
];

/// What keys are called besides, on keyboards and in other programs.
const ALSO: [(&str, &str); 27] = [
    ("Control", "Ctrl"),
    ("Strg", "Ctrl"),
    ("Option", "Alt"),
    ("Win", "Super"),
    ("Windows", "Super"),
    ("Meta", "Super"),
    ("Cmd", "Super"),
    ("Command", "Super"),
    ("컨트롤", "Ctrl"),
    ("시프트", "Shift"),
    ("Del", "Delete"),
    ("Ins", "Insert"),
    ("PgUp", "PageUp"),
    ("PgDn", "PageDown"),
    ("PgDown", "PageDown"),
    ("PrtSc", "PrintScreen"),
    ("PrtScn", "PrintScreen"),
    ("Print", "PrintScreen"),
    ("SysRq", "PrintScreen"),
    ("Break", "Pause"),
    ("Spacebar", "Space"),
    ("ArrowUp", "Up"),
    ("ArrowDown", "Down"),
    ("ArrowLeft", "Left"),
    ("ArrowRight", "Right"),
    ("-", "Minus"),
    ("=", "Equal"),
];

/// Returns the name that a policy has for a key or modifier; the word itself if nobody calls one so.
fn called(word: &str) -> &str {
    let word = word.trim();
    let also = ALSO.iter().find(|(also, _)| also.eq_ignore_ascii_case(word));
    let modifier = MODIFIERS.iter().find(|modifier| modifier.eq_ignore_ascii_case(word));
    also.map(|(_, name)| *name).or(modifier.copied()).unwrap_or(word)
}

/// Returns every key's name and code.
fn keys() -> impl Iterator<Item = (&'static str, u16)> + Clone {
    ROWS.into_iter().flat_map(|(first, row)| row.split(' ').zip(first..))
}

impl FromStr for Chord {
    type Err = Mistake;

    fn from_str(text: &str) -> Result<Self, Mistake> {
        if let Some(joined) = joined_by_plus(text) {
            return Err(Mistake::new(
                format!("\"{}\" is not a hotkey", text.escape_debug()),
                format!("join the keys by +: \"{joined}\""),
            ));
        }
        let (held, key) = match text.rsplit_once('+') {
            Some((held, key)) => (held.split('+').collect(), key),
            None => (Vec::new(), text),
        };
        let mut modifiers = Modifiers::default();
        for word in held {
            let flag = match word.trim().to_ascii_lowercase().as_str() {
                "ctrl" => &mut modifiers.ctrl,
                "alt" => &mut modifiers.alt,
                "shift" => &mut modifiers.shift,
                "super" => &mut modifiers.logo,
                _ => return Err(unknown("modifier", word, MODIFIERS)),
            };
            if std::mem::replace(flag, true) {
                return Err(Mistake::new(
                    format!("\"{}\" is held twice in this hotkey", word.escape_debug()),
                    format!(
                        "name each modifier once: take one `{}` away",
                        word.trim().escape_debug()
                    ),
                ));
            }
        }
        let key = key.trim();
        if key.is_empty() || MODIFIERS.contains(&called(key)) {
            return Err(Mistake::new(
                format!("the hotkey \"{}\" has no key to press", text.escape_debug()),
                "end it with a key that is no modifier, as \"Ctrl+Alt+1\"",
            ));
        }
        let Some((_, code)) = keys().find(|(name, _)| name.eq_ignore_ascii_case(key)) else {
            if NEVER.iter().any(|never| never.eq_ignore_ascii_case(key)) {
                return Err(Mistake::new(
                    format!("no hotkey ends in \"{}\"", key.escape_debug()),
                    "desktops need this key, and it is pressed in haste: hold Ctrl and Alt with a letter or a digit, as \"Ctrl+Alt+1\"",
                ));
            }
            return Err(unknown("key", key, keys().map(|(name, _)| name)));
        };
        let chord = Self { modifiers, key: Key(code) };
        if !(modifiers.ctrl || modifiers.alt || modifiers.logo || chord.key.stands_alone()) {
            return Err(Mistake::new(
                format!("the hotkey \"{}\" would be pressed by typing", text.escape_debug()),
                format!("hold Ctrl, Alt or Super with it: \"Ctrl+Alt+{}\"", chord.key),
            ));
        }
        Ok(chord)
    }
}

/// Returns `Ctrl-Alt-1` and `ctrl alt 1` as they are to be written; `None` for anything else.
fn joined_by_plus(text: &str) -> Option<Chord> {
    if text.contains('+') || !text.trim().contains([' ', '-']) {
        return None;
    }
    text.split([' ', '-'])
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join("+")
        .parse()
        .ok()
}

fn unknown<'k>(
    what: &str,
    word: &str,
    known: impl IntoIterator<Item = &'k str, IntoIter: Clone>,
) -> Mistake {
    let (name, known) = (called(word), known.into_iter());
    let meant = known.clone().find(|known| *known == name).or_else(|| nearest(word, known));
    let help = match meant {
        Some(known) => format!("did you mean \"{known}\"?"),
        None if what == "modifier" => "hold Ctrl, Alt, Shift or Super, and press one key".into(),
        None => {
            "name a letter, a digit, F1 to F24, or another key as the handbook lists them".into()
        }
    };
    Mistake::new(format!("no {what} is called \"{}\"", word.escape_debug()), help)
}

impl fmt::Display for Chord {
    /// Writes the chord as the handbook does, whatever the officer wrote: `Ctrl+Alt+Shift+Super+KEY`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Modifiers { ctrl, alt, shift, logo } = self.modifiers;
        for (held, name) in [(ctrl, "Ctrl+"), (alt, "Alt+"), (shift, "Shift+"), (logo, "Super+")] {
            f.write_str(if held { name } else { "" })?;
        }
        self.key.fmt(f)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = keys().find(|(_, code)| *code == self.0);
        f.write_str(named.map_or("?", |(name, _)| name))
    }
}

impl serde::Serialize for Chord {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chord_is_the_same_in_whatever_order_and_case_its_modifiers_are_written() {
        let chord: Chord = "alt+CTRL+page_up".replace('_', "").parse().unwrap();
        assert_eq!(chord, "Ctrl+Alt+PageUp".parse().unwrap());
        assert_eq!(chord.to_string(), "Ctrl+Alt+PageUp");
    }

    #[test]
    fn every_key_reads_back_as_it_is_printed() {
        for (name, code) in keys() {
            let chord: Chord = format!("Ctrl+{name}").parse().unwrap();
            assert_eq!(chord.key.code(), code);
            assert_eq!(chord.to_string(), format!("Ctrl+{name}"));
        }
    }

    #[test]
    fn a_chord_that_typing_would_press_is_refused() {
        for typed in ["A", "Shift+1", "Shift+Space"] {
            let mistake = typed.parse::<Chord>().unwrap_err();
            assert!(mistake.message.contains("typing"), "{typed}: {mistake}");
        }
        "ScrollLock".parse::<Chord>().unwrap();
        "Shift+F12".parse::<Chord>().unwrap();
    }

    #[test]
    fn a_misspelt_key_or_modifier_is_named_with_the_nearest_one() {
        assert_eq!("Crtl+Alt+1".parse::<Chord>().unwrap_err().help, "did you mean \"Ctrl\"?");
        assert_eq!(
            "Ctrl+ScrolLock".parse::<Chord>().unwrap_err().help,
            "did you mean \"ScrollLock\"?"
        );
        for (written, meant) in [
            ("Control+Alt+1", "did you mean \"Ctrl\"?"),
            ("Win+1", "did you mean \"Super\"?"),
            ("Ctrl+Alt+PgUp", "did you mean \"PageUp\"?"),
            ("Ctrl+Alt+-", "did you mean \"Minus\"?"),
        ] {
            assert_eq!(written.parse::<Chord>().unwrap_err().help, meant, "{written}");
        }
        for never in ["Alt+Tab", "Ctrl+Alt+Esc", "Ctrl+Enter", "Ctrl+한/영"] {
            let mistake = never.parse::<Chord>().unwrap_err();
            assert!(mistake.message.starts_with("no hotkey ends in"), "{mistake}");
        }
        for unfinished in ["Ctrl+Alt", "Ctrl+Alt+", "Super", "Ctrl+Control"] {
            let mistake = unfinished.parse::<Chord>().unwrap_err();
            assert!(mistake.message.contains("no key to press"), "{mistake}");
        }
        "Ctrl+Ctrl+1".parse::<Chord>().unwrap_err();
        "Ctrl++".parse::<Chord>().unwrap_err();
        "".parse::<Chord>().unwrap_err();
    }
}
