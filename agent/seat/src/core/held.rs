//! What is held down on devices, and what domains were told of it.

use std::collections::BTreeMap;

use policy::language::Modifiers;
use seat_link::{Event, Target};

use super::{Core, DeviceId, DomainIndex, Output, Report, codes, hotkeys, is_button};

/// Who was told that a key is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Hold {
    Told(DomainIndex),
    /// Nobody yet: it may be part of a chord.
    Withheld,
    /// Nobody, and nobody will be until it is pressed anew.
    Nobody,
}

/// An input device and what is held down on it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Device {
    /// The one domain it types into.
    pub(super) pin: Option<DomainIndex>,
    /// What is down on it.
    pub(super) held: BTreeMap<u16, Hold>,
    /// Where its own pointer is, if it is pinned: pixels of the screen.
    pub(super) position: (i32, i32),
}

/// A key held on a device, for [`Core::release_keys`].
#[derive(Clone, Copy, Debug)]
pub(super) struct HeldKey {
    pinned: bool,
    code: u16,
}

impl HeldKey {
    /// Returns whether it is on a device that follows the domain in front.
    pub(super) fn is_shared(self) -> bool {
        !self.pinned
    }
}

impl Core {
    /// Returns the modifiers held on devices that may press hotkeys.
    pub(super) fn modifiers(&self) -> Modifiers {
        let mut modifiers = Modifiers::default();
        for device in self.devices.values().filter(|device| device.pin.is_none()) {
            for code in device.held.keys() {
                hotkeys::add_modifier(&mut modifiers, *code);
            }
        }
        modifiers
    }

    pub(super) fn modifier_held(&self) -> bool {
        self.modifiers() != Modifiers::default()
    }

    /// Tells a domain that a key is down, unless it knows.
    pub(super) fn down(&mut self, domain: DomainIndex, code: u16, out: &mut Vec<Output>) -> Hold {
        let Some(down) = self.down.get_mut(domain) else { return Hold::Nobody };
        let count = down.entry(code).or_insert(0);
        *count += 1;
        if *count == 1 {
            out.push(key_event(domain, code, 1));
        }
        Hold::Told(domain)
    }

    /// Tells a domain that a key is up, once no device holds it there any more.
    pub(super) fn up(&mut self, domain: DomainIndex, code: u16, out: &mut Vec<Output>) {
        let Some(down) = self.down.get_mut(domain) else { return };
        let Some(count) = down.get_mut(&code) else { return };
        *count = count.saturating_sub(1);
        if *count == 0 {
            down.remove(&code);
            out.push(key_event(domain, code, 0));
        }
    }

    /// Sends the modifiers that turned out to begin no hotkey to the domain in front.
    pub(super) fn send_withheld(&mut self, out: &mut Vec<Output>) {
        for (id, code) in std::mem::take(&mut self.withheld) {
            let hold = self.down(self.front, code, out);
            if let Some(device) = self.devices.get_mut(&id) {
                device.held.insert(code, hold);
            }
        }
    }

    /// Discards withheld modifiers that come up in one report, which were not tapped one by one: a hand let go of a
    /// chord it did not finish, or the keyboard was pulled, for which the kernel lets everything go at once.
    pub(super) fn discard_withheld_released_together(&mut self, id: DeviceId, report: &Report) {
        let Some(device) = self.devices.get_mut(&id) else { return };
        let is_up = |code: u16| report.keys.contains(&(code, false));
        let together = |(code, hold): (&u16, &Hold)| *hold == Hold::Withheld && is_up(*code);
        if device.held.iter().filter(|held| together(*held)).count() < 2 {
            return;
        }
        for (code, hold) in &mut device.held {
            if *hold == Hold::Withheld && is_up(*code) {
                *hold = Hold::Nobody;
            }
        }
        self.withheld.retain(|(device, code)| *device != id || !is_up(*code));
    }

    /// Releases every held key that `which` selects in the domain that saw it pressed; the key is ignored until it
    /// is pressed again.
    pub(super) fn release_keys(&mut self, which: impl Fn(HeldKey) -> bool, out: &mut Vec<Output>) {
        let mut ups = Vec::new();
        for device in self.devices.values_mut() {
            let pinned = device.pin.is_some();
            for (&code, hold) in &mut device.held {
                if which(HeldKey { pinned, code })
                    && let Hold::Told(domain) = std::mem::replace(hold, Hold::Nobody)
                {
                    ups.push((domain, code));
                }
            }
        }
        let Self { devices, withheld, .. } = self;
        withheld.retain(|(id, code)| {
            let device = devices.get(id);
            device.and_then(|device| device.held.get(code)) == Some(&Hold::Withheld)
        });
        for (domain, code) in ups {
            self.up(domain, code, out);
        }
    }

    /// Discards the withheld modifiers of a hotkey, which were never meant for a domain.
    pub(super) fn release_modifiers(&mut self, out: &mut Vec<Output>) {
        self.release_keys(|held| held.is_shared() && hotkeys::is_modifier(held.code), out);
    }
}

fn key_event(domain: DomainIndex, code: u16, value: i32) -> Output {
    let target = if is_button(code) { Target::Pointer } else { Target::Keyboard };
    Output::Send(domain, target, vec![Event { kind: codes::EV_KEY, code, value }, Event::SYN])
}
