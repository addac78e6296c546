//! Screen, keyboard and pointer.

use super::Finding;
use config::machine::Seat;
use printable::explain;
use seat::devices;
use seat::kms::{self, ScreenError};
use seat::picture::Face;

/// Asks after what the machine file's seat needs.
pub(super) fn examine(seat: &Seat) -> Vec<Finding> {
    let Seat::Kms { card } = seat else {
        return vec![Finding::ok("seat", "none: the command line does what the hotkeys do")];
    };
    let mut findings = vec![screen(kms::look(card.as_deref()))];
    let found = devices::abilities();
    findings.push(match (found.keyboard, found.pointer) {
        (true, true) => Finding::ok("seat-input", "a keyboard and a pointer are there"),
        (true, false) => Finding::ok("seat-input", "a keyboard is there, and no pointer"),
        (false, true) => Finding::warn(
            "seat-input",
            "no keyboard is there",
            "plug one in; until then the pointer can switch domains in the banner",
        ),
        (false, false) => Finding::fail(
            "seat-input",
            "neither keyboard nor pointer is there",
            "plug in a USB keyboard; if one is plugged in, load its driver (modprobe usbhid hid-generic evdev) and look whether the host has authorized it",
        ),
    });
    findings.push(match Face::of_the_host() {
        Ok(_) => Finding::ok("seat-font", "a font with Korean letters is installed"),
        Err(problem) => Finding::warn(
            "seat-font",
            "no font with Korean letters: labels and notices show Latin letters only",
            problem.to_string(),
        ),
    });
    findings
}

fn screen(found: Result<(std::path::PathBuf, kms::Monitor, bool), ScreenError>) -> Finding {
    match found {
        Ok((card, monitor, free)) => {
            let seat_link::Size { width, height } = monitor.size;
            let what = format!("{} on {}, {width}x{height}", monitor.name, card.display());
            if free {
                Finding::ok("seat-screen", what)
            } else {
                Finding::warn(
                    "seat-screen",
                    format!("{what}; a program draws there now"),
                    "all is well if that is bulkhead-agent; otherwise stop the display manager (systemctl disable --now display-manager)",
                )
            }
        }
        Err(error) => Finding::fail("seat-screen", "there is no screen", explain(&error)),
    }
}
