//! The keyboard in a device: whether a driver of the host's has it.

use usbdescriptors::Share;

use super::{CHANGES_MAX, Effect, KEPT, NO_DRIVER, Note, Notice, OFFERS_MAX, State, Step};

impl<P> Step<'_, P> {
    /// Offers a keyboard or mouse to the seat's driver again, which has let go of it, or did not take it when it was offered. At a
    /// port that is owned, while the rest is in use, no driver is asked; so the rest is let go first, and used again after that.
    pub(super) fn input_drivers(&mut self, any: bool, all: bool, busy: bool) {
        let Some(input) = self.life.watched_input().cloned() else { return };
        let used = matches!(self.life.state, State::Attached { .. });
        self.life.known.driven_in_part = any;
        if all {
            self.life.known.offers = 0;
            return;
        }
        if !used {
            return self.offer(input, busy);
        }
        self.take_away("the PC lost its keyboard or mouse");
        // After the rest has been let go: one task after the other.
        self.effect(Effect::GiveToHost(input));
        let times = self.life.known.driverless.saturating_add(1);
        self.life.known.driverless = times;
        if times < CHANGES_MAX {
            self.judge();
        } else {
            let why = "the PC loses the keyboard when the rest is used";
            self.failed(format!("{KEPT}, the rest is not used any more: {why}"));
        }
    }

    /// Asks the host's drivers to take the keyboard of a device that nobody uses. If none does time and again, that is said once, and none
    /// is asked any more.
    fn offer(&mut self, input: Share, busy: bool) {
        let known = &mut self.life.known;
        if busy || known.offers >= OFFERS_MAX {
            return;
        }
        known.offers = known.offers.saturating_add(1);
        if known.offers < OFFERS_MAX {
            return self.effect(Effect::GiveToHost(input));
        }
        if !known.driven_in_part {
            self.note(Note::Failed { request: None, why: NO_DRIVER.to_owned() });
            self.notice(Notice::NoDriver);
        }
    }
}
