//! Hotkeys that desktops need for themselves: the PC keeps every key of a hotkey from all of them.

use super::warn;
use policy::Policy;
use policy::diagnostic::{Findings, Span, Spanned};
use policy::language::Chord;

/// What is held, which keys are pressed (a space between two, [`ANY`] for all but the [`RARE`]), and what it is for in the desktops. The
/// first that fits counts.
const NEEDED: [(&str, &str, &str); 24] = [
    (
        "",
        FUNCTION_KEYS,
        "programs use the function keys: F1 shows help, F5 loads a page anew, F11 fills the screen",
    ),
    ("", "PrintScreen", "desktops take a picture of the screen by it"),
    (
        "Shift",
        FUNCTION_KEYS,
        "programs use the function keys with Shift too: Shift+F10 opens a menu",
    ),
    ("Shift", "PrintScreen", "desktops take a picture of a part of the screen by it"),
    ("Ctrl", "C X V", "programs copy, cut and paste by Ctrl with C, X and V"),
    ("Ctrl", "Space", "Korean, Chinese and Japanese input is switched on and off by it"),
    (
        "Ctrl",
        ANY,
        "programs use Ctrl with one key: Ctrl+S saves, Ctrl+F searches, Ctrl+Home goes to the beginning",
    ),
    (
        "Ctrl+Shift",
        ANY,
        "programs use Ctrl and Shift with one key: Ctrl+Shift+T opens a tab anew, Ctrl+Shift+End marks all to the end",
    ),
    ("Alt", "F4", "it closes the window in front"),
    ("Alt", "Left Right Home", "browsers go back, forward and home by it"),
    ("Alt", "PrintScreen", "it takes a picture of one window, and is the SysRq key of Linux"),
    ("Alt", "Space", "it opens a window's menu, and switches Korean input on some keyboards"),
    (
        "Alt",
        ANY,
        "programs open their menus by Alt and a letter, and windows are steered by Alt and other keys",
    ),
    (
        "Alt+Shift",
        ANY,
        "desktops switch the keyboard's language by Alt and Shift, programs use it with letters",
    ),
    ("Super", "L", "it locks the desktop in front: Windows and GNOME"),
    ("Super", "Space", "desktops switch the keyboard's language by it"),
    (
        "Super",
        ANY,
        "desktops keep it for themselves: Super+D shows the desktop, Super+Left moves a window",
    ),
    (
        "Shift+Super",
        ANY,
        "desktops keep it for themselves: Shift+Super+S takes a picture of a part of the screen",
    ),
    ("Ctrl+Super", "D F4 Left Right", "Windows opens, closes and changes its work spaces by it"),
    ("Ctrl+Alt", "Delete", "Windows and Linux sign in, lock and restart by it"),
    ("Ctrl+Alt", "End", "a remote desktop is sent Ctrl+Alt+Delete by it"),
    ("Ctrl+Alt", "Up Down Left Right", "desktops change their work space or turn the screen by it"),
    ("Ctrl+Alt", FUNCTION_KEYS, "Linux changes its console by it"),
    ("Ctrl+Alt+Shift", "Up Down Left Right", "desktops move a window to another work space by it"),
];

const FUNCTION_KEYS: &str = "F1 F2 F3 F4 F5 F6 F7 F8 F9 F10 F11 F12";
const ANY: &str = "*";
/// Keys that few keyboards have, or few programs know.
const RARE: &str = "ScrollLock F13 F14 F15 F16 F17 F18 F19 F20 F21 F22 F23 F24";

pub(super) fn lint(policy: &Policy, found: &mut Findings) {
    let fixed = policy.hotkeys().iter().map(|(_, chord)| chord);
    let all: Vec<Spanned<Chord>> =
        policy.domains().iter().map(|domain| domain.hotkey).chain(fixed).collect();
    let mut taken: Vec<Chord> = all.iter().map(|chord| **chord).collect();
    // A default stands nowhere in the text, and is none of these.
    for chord in all.iter().filter(|chord| chord.span != Span::default()) {
        let Some(why) = needed_for(**chord) else { continue };
        let help = match free(&taken, **chord) {
            Some(free) => {
                taken.push(free);
                format!("write \"{free}\", which programs leave alone")
            }
            None => {
                "hold Ctrl and Alt with a letter or a digit, which programs leave alone".to_owned()
            }
        };
        warn(
            chord.span,
            format!("no desktop gets {} any more, and it is needed there: {why}", **chord),
            help,
            found,
        );
    }
}

/// Returns what desktops need a chord for.
fn needed_for(chord: Chord) -> Option<&'static str> {
    let written = chord.to_string();
    let (held, key) = written.rsplit_once('+').unwrap_or(("", &written));
    let is_in = |keys: &str| keys.split(' ').any(|one| one == key);
    let fits = |keys: &str| if keys == ANY { !is_in(RARE) } else { is_in(keys) };
    NEEDED.iter().find(|(needs, keys, _)| *needs == held && fits(keys)).map(|(.., why)| *why)
}

/// Returns a chord that nobody needs and no other hotkey has: with the same key, or a digit.
fn free(taken: &[Chord], chord: Chord) -> Option<Chord> {
    let same = chord.key.to_string();
    let keys = std::iter::once(same.as_str()).chain("1 2 3 4 5 6 7 8 9".split(' '));
    let chords = keys.filter_map(|key| format!("Ctrl+Alt+{key}").parse().ok());
    let is_free = |free: &Chord| needed_for(*free).is_none() && !taken.contains(free);
    chords.into_iter().find(is_free)
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::language::Hotkeys;

    fn needed(chord: &str) -> bool {
        needed_for(chord.parse().unwrap()).is_some()
    }

    #[test]
    fn every_row_names_keys_that_a_hotkey_can_have_and_none_is_hidden_by_another() {
        for (row, (held, keys, why)) in NEEDED.iter().enumerate() {
            for key in keys.split(' ').map(|key| if key == ANY { "K" } else { key }) {
                let written =
                    if held.is_empty() { key.to_owned() } else { format!("{held}+{key}") };
                let chord: Chord = written.parse().unwrap();
                assert_eq!(chord.to_string(), written, "row {row}");
                assert_eq!(needed_for(chord), Some(*why), "row {row}: {written}");
            }
        }
        for key in RARE.split(' ') {
            assert!(!needed(&format!("Ctrl+{key}")), "{key}");
        }
    }

    #[test]
    fn the_defaults_and_what_a_remedy_proposes_are_needed_nowhere() {
        for (_, chord) in Hotkeys::default().iter() {
            assert!(needed_for(*chord).is_none(), "{}", *chord);
        }
        for needed in
            ["Ctrl+C", "F5", "Ctrl+Alt+Delete", "Alt+F4", "Super+L", "Ctrl+Alt+F1", "Ctrl+Shift+V"]
        {
            let chord = needed.parse().unwrap();
            assert!(needed_for(chord).is_some(), "{needed}");
            assert!(free(&[], chord).is_some_and(|free| needed_for(free).is_none()), "{needed}");
        }
        for left in ["ScrollLock", "Ctrl+Alt+1", "Ctrl+Alt+Shift+B", "F13", "Ctrl+Super+1"] {
            assert!(!needed(left), "{left}");
        }
    }
}
