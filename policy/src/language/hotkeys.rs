//! `[hotkeys]`: the chords that mean the same in every domain.

use super::chord::{Chord, Key, Modifiers};
use crate::diagnostic::{Span, Spanned};
use crate::document::Form;

/// The chords that mean the same in every domain.
#[derive(Clone, Debug)]
pub struct Hotkeys {
    /// Takes the clipboard of the domain in front.
    pub copy: Spanned<Chord>,
    /// Offers what was taken to the domain in front.
    pub paste: Spanned<Chord>,
    /// What locks the screen.
    pub lock: Spanned<Chord>,
    /// What opens break-glass.
    pub break_glass: Spanned<Chord>,
}

/// Makes the chord of Ctrl, Alt and the key of this input event code.
const fn ctrl_alt(code: u16) -> Spanned<Chord> {
    let modifiers = Modifiers { ctrl: true, alt: true, shift: false, logo: false };
    Spanned::new(Chord { modifiers, key: Key::from_code(code) }, Span { start: 0, end: 0 })
}

impl Default for Hotkeys {
    /// Returns the default hotkeys: Ctrl+Alt with C, V, L and B.
    fn default() -> Self {
        Self {
            copy: ctrl_alt(46),
            paste: ctrl_alt(47),
            lock: ctrl_alt(38),
            break_glass: ctrl_alt(48),
        }
    }
}

impl Hotkeys {
    pub(crate) fn read(mut form: Form<'_>) -> Self {
        let default = Self::default();
        let mut chord =
            |key, default| form.optional(key, |v| Some(v.spanned(v.parsed()?))).unwrap_or(default);
        let hotkeys = Self {
            copy: chord("copy", default.copy),
            paste: chord("paste", default.paste),
            lock: chord("lock", default.lock),
            break_glass: chord("break_glass", default.break_glass),
        };
        form.close();
        hotkeys
    }

    /// Goes through the hotkeys, each with its key in the file.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, Spanned<Chord>)> {
        [
            ("copy", self.copy),
            ("paste", self.paste),
            ("lock", self.lock),
            ("break_glass", self.break_glass),
        ]
        .into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::Hotkeys;

    #[test]
    fn the_default_hotkeys_are_the_documented_ones() {
        let shown: Vec<String> =
            Hotkeys::default().iter().map(|(_, chord)| chord.to_string()).collect();
        assert_eq!(shown, ["Ctrl+Alt+C", "Ctrl+Alt+V", "Ctrl+Alt+L", "Ctrl+Alt+B"]);
    }
}
