//! A card's other outputs: what is not used is dark.
//!
//! A card shows on each monitor what one of its CRTCs scans out. Before the agent takes the screen, that is the host's
//! console, on every monitor; being the card's master keeps the console from being drawn, and what stood there would
//! stay, frozen, beside the desktops. So each CRTC but ours is switched off when the screen is taken. None comes on again
//! by itself while there is a master (`docs/design/decisions/0004-console.md`).

use std::io;

use drm::control::crtc;

/// A card's CRTCs, as far as switching them off goes.
pub(super) trait Crtcs {
    /// Returns all of them.
    ///
    /// # Errors
    /// The card does not answer.
    fn all(&self) -> io::Result<Vec<crtc::Handle>>;

    /// Returns whether one scans something out.
    ///
    /// # Errors
    /// The card does not answer.
    fn is_lit(&self, crtc: crtc::Handle) -> io::Result<bool>;

    /// Switches one off, with the monitors on it.
    ///
    /// # Errors
    /// The card refuses.
    fn disable(&self, crtc: crtc::Handle) -> io::Result<()>;
}

/// Switches off every CRTC but `ours`; says how many could not be, and why the last.
pub(super) fn switch_off_others(
    card: &impl Crtcs,
    ours: crtc::Handle,
) -> Option<(usize, io::Error)> {
    let crtcs = match card.all() {
        Ok(crtcs) => crtcs,
        Err(error) => return Some((1, error)),
    };
    let mut left = None;
    for crtc in crtcs.into_iter().filter(|crtc| *crtc != ours) {
        // One that does not say is switched off as well.
        if !card.is_lit(crtc).unwrap_or(true) {
            continue;
        }
        if let Err(error) = card.disable(crtc) {
            let count = left.map_or(0, |(count, _)| count);
            left = Some((count + 1, error));
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use super::*;

    /// CRTCs by number: what each shows.
    #[derive(Default)]
    struct Card {
        shows: RefCell<BTreeMap<u32, Option<&'static str>>>,
        silent: Option<u32>,
        stubborn: Option<u32>,
    }

    fn handle(number: u32) -> crtc::Handle {
        drm::control::from_u32(number).unwrap()
    }

    impl Crtcs for Card {
        fn all(&self) -> io::Result<Vec<crtc::Handle>> {
            Ok(self.shows.borrow().keys().map(|number| handle(*number)).collect())
        }

        fn is_lit(&self, crtc: crtc::Handle) -> io::Result<bool> {
            if self.silent == Some(crtc.into()) {
                return Err(io::ErrorKind::Other.into());
            }
            Ok(self.shows.borrow().get(&crtc.into()).is_some_and(Option::is_some))
        }

        fn disable(&self, crtc: crtc::Handle) -> io::Result<()> {
            if self.stubborn == Some(crtc.into()) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            self.shows.borrow_mut().insert(crtc.into(), None);
            Ok(())
        }
    }

    fn card() -> Card {
        let shows =
            [(41, Some("console")), (52, Some("console")), (63, None), (74, Some("console"))];
        Card { shows: RefCell::new(shows.into()), ..Card::default() }
    }

    #[test]
    fn a_monitor_that_is_not_used_shows_the_hosts_console_no_longer() {
        let card = card();
        assert!(switch_off_others(&card, handle(52)).is_none());
        let shown: Vec<Option<&str>> = card.shows.borrow().values().copied().collect();
        assert_eq!(shown, [None, Some("console"), None, None], "ours is left to the new mode");
    }

    #[test]
    fn an_output_that_does_not_go_dark_keeps_no_other_lit_and_is_told_of() {
        let card = Card { stubborn: Some(41), silent: Some(63), ..card() };
        let (count, _) = switch_off_others(&card, handle(52)).unwrap();
        assert_eq!(count, 1);
        assert_eq!(card.shows.borrow()[&74], None);
        assert_eq!(card.shows.borrow()[&63], None);
    }
}
