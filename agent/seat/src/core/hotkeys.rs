//! Hotkeys: which keys mean something to the seat itself.

use policy::Policy;
use policy::language::{Chord, Modifiers};

use super::DomainIndex;

/// What a hotkey does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Brings a domain to the front.
    Switch(DomainIndex),
    /// Takes the clipboard of the domain in front.
    Copy,
    /// Offers what was taken to the domain in front.
    Paste,
    /// Locks the screen, or asks to unlock it.
    Lock,
    /// Opens break-glass.
    BreakGlass,
}

/// Every hotkey of a policy: the keys, and what they do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hotkeys(Vec<(Chord, Action)>);

impl Hotkeys {
    /// Takes the hotkeys of a policy, for the domains of these names in this order.
    #[must_use]
    pub fn of(policy: &Policy, names: &[String]) -> Self {
        let mut all = Vec::new();
        for (index, name) in names.iter().enumerate() {
            if let Some(domain) = policy.domain(name) {
                all.push((domain.hotkey.value, Action::Switch(index)));
            }
        }
        let hotkeys = policy.hotkeys();
        all.extend([
            (hotkeys.copy.value, Action::Copy),
            (hotkeys.paste.value, Action::Paste),
            (hotkeys.lock.value, Action::Lock),
            (hotkeys.break_glass.value, Action::BreakGlass),
        ]);
        Self(all)
    }

    /// Returns what this key does while exactly these modifiers are held.
    pub(super) fn find(&self, modifiers: Modifiers, code: u16) -> Option<Action> {
        let found = self
            .0
            .iter()
            .find(|(chord, _)| chord.modifiers == modifiers && chord.key.code() == code);
        found.map(|(_, action)| *action)
    }

    /// Returns whether a hotkey may begin with these modifiers.
    pub(super) fn may_begin(&self, held: Modifiers) -> bool {
        self.0.iter().any(|(chord, _)| {
            let wanted = chord.modifiers;
            (wanted.ctrl || !held.ctrl)
                && (wanted.alt || !held.alt)
                && (wanted.shift || !held.shift)
                && (wanted.logo || !held.logo)
        })
    }
}

/// Adds a key to the modifiers held; false if it is none. Left and right are the same.
pub(super) fn add_modifier(held: &mut Modifiers, code: u16) -> bool {
    let flag = match code {
        29 | 97 => &mut held.ctrl,
        56 | 100 => &mut held.alt,
        42 | 54 => &mut held.shift,
        125 | 126 => &mut held.logo,
        _ => return false,
    };
    *flag = true;
    true
}

/// Returns whether a key is a modifier.
pub(super) fn is_modifier(code: u16) -> bool {
    add_modifier(&mut Modifiers::default(), code)
}

/// Returns whether a key says no to a question beside Escape: N. No letter says yes, as a scanner types letters.
pub(super) fn is_no(code: u16) -> bool {
    code == 49
}

/// What a key does to a question. Where there is nothing to choose from, only Enter and Escape do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChoiceKey {
    /// Marks the one of this number; the first is 0.
    Number(usize),
    /// Marks the one before.
    Up,
    /// Marks the one after.
    Down,
    /// Chooses the one that is marked; says yes.
    Enter,
    /// Chooses nothing; says no.
    Leave,
}

/// Returns what a key does to a question: digits, above the letters or on the keypad, Enter, Escape and the arrows.
pub(super) fn choice(code: u16) -> Option<ChoiceKey> {
    /// The keypad's 1 to 9, by their codes.
    const KEYPAD: [u16; 9] = [79, 80, 81, 75, 76, 77, 71, 72, 73];
    Some(match code {
        1 => ChoiceKey::Leave,
        2..=10 => ChoiceKey::Number(usize::from(code - 2)),
        28 | 96 => ChoiceKey::Enter,
        103 => ChoiceKey::Up,
        108 => ChoiceKey::Down,
        _ => ChoiceKey::Number(KEYPAD.iter().position(|key| *key == code)?),
    })
}
