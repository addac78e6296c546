//! What the screen says of domains.

use std::time::Duration;

use super::DomainRuntime;
use super::lifecycle::{Phase, State, Time};
use super::pressure::Pressure;
use super::runtime::VmmMismatch;
use seat::DomainText;

/// What the screen says of a domain that failed again and again: what the person there can do, and who else can.
const LEFT_OFF: &str = "failed again and again and is left off\nCall IT. It is tried every half hour, and when you switch to another desktop and back";
/// What the screen says of a domain that has no image it could start from, or a damaged one.
const NO_IMAGE: &str =
    "is off: its image cannot be started\nCall IT. It starts by itself once that is put right";
/// What is said of a VMM that the kernel does not end.
const HANGS: &str = "hangs and cannot be ended; call IT";
/// How long a VMM that was killed takes to be gone, at most, if the kernel can end it at all.
const ENDED_BY: Duration = Duration::from_secs(30);

/// Returns what the screen says of a domain's state.
#[must_use]
pub fn domain_text(runtime: &DomainRuntime, now: Time) -> DomainText {
    let label = &runtime.policy().label;
    let life = runtime.lifecycle();
    let state = life.state();
    let cannot_end = now.saturating_sub(life.since()) >= ENDED_BY;
    let placeholder = match state {
        _ if runtime.outdated() == Some(VmmMismatch::SeatLink) => {
            "runs, and cannot be shown until it is restarted; call IT"
        }
        State::Off if runtime.lifecycle().is_left_off() => LEFT_OFF,
        State::Off => "is switched off",
        State::Running { answered: true, .. } => "runs, and shows nothing yet",
        State::Stopping(Phase::Hung { .. }) if cannot_end => HANGS,
        State::Stopping(Phase::Hung { .. }) if life.wanted() => {
            "did not answer any more and is started again"
        }
        State::Stopping(_) | State::Releasing { .. } => "is shutting down",
        State::Backoff { .. } if runtime.waits_for_image() => NO_IMAGE,
        State::Backoff { .. } => "stopped by itself and is started again",
        _ => "is starting",
    };
    let banner_note = match state {
        State::Backoff { .. } if runtime.waits_for_image() => {
            Some(format!("{label} is off: its image cannot be started; call IT"))
        }
        State::Backoff { .. } => Some(format!("{label} stopped by itself and is started again")),
        State::Stopping(Phase::Hung { .. }) if cannot_end => Some(format!("{label} {HANGS}")),
        State::Stopping(Phase::Hung { .. }) if life.wanted() => {
            Some(format!("{label} did not answer any more and is started again"))
        }
        State::Off if runtime.lifecycle().is_left_off() => {
            Some(format!("{label} failed again and again and is left off; call IT"))
        }
        State::Off if runtime.lifecycle().problem().is_some() => {
            Some(format!("{label} is off because of a fault; call IT"))
        }
        _ if runtime.waits().is_some() => {
            Some(format!("{label} waits for this PC's disk, which does not answer; call IT"))
        }
        _ if runtime.is_silent() => Some(format!("{label} does not answer; call IT")),
        _ => pressed(label, runtime.pressure()),
    };
    DomainText { placeholder: placeholder.to_owned(), banner_note }
}

/// Returns the message for a desktop that has wanted more of a resource than it got, for long.
fn pressed(label: &str, pressure: &Pressure) -> Option<String> {
    let says: Vec<&str> = pressure.pressing().map(|what| what.resource.says()).collect();
    (!says.is_empty()).then(|| format!("{label} may be slow: it {}", says.join(", and ")))
}

/// Returns what the screen says of a domain that another VMM has.
#[must_use]
pub fn external() -> DomainText {
    DomainText { placeholder: "is shown by another program".to_owned(), banner_note: None }
}

/// Returns what the banner says of a domain whose image did not come into force.
#[must_use]
pub fn image_note(runtime: &DomainRuntime) -> Option<String> {
    runtime
        .image_problem()
        .map(|_| format!("{} could not be renewed as IT wanted; tell IT", runtime.policy().label))
}

/// Returns what is said after a sleep of the PC that domains of these labels are restarted for.
#[must_use]
pub fn slept(labels: &[String]) -> String {
    format!(
        "This PC slept, which its network cards do not survive: {} restarted. Call IT",
        restarted(labels)
    )
}

/// Returns `A is`, `A and B are` or `A, B and C are`.
fn restarted(labels: &[String]) -> String {
    match labels.split_last() {
        Some((last, [])) => format!("{last} is"),
        Some((last, others)) => format!("{} and {last} are", others.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pressure::{LOOK_EVERY, Resource};

    #[test]
    fn the_banner_says_in_plain_words_which_desktop_presses_and_for_what_while_it_does() {
        let mut pressure = Pressure::default();
        assert_eq!(pressed("INTERNET", &pressure), None);
        for look in 0..=12 {
            let now = LOOK_EVERY * look;
            let _ = pressure.take(now, Resource::Processor, 90);
            let _ = pressure.take(now, Resource::Memory, 90);
        }
        assert_eq!(
            pressed("INTERNET", &pressure).as_deref(),
            Some(
                "INTERNET may be slow: it wants more processor time than it gets, and is short of memory"
            )
        );
        let _ = pressure.end(LOOK_EVERY * 13);
        assert_eq!(pressed("INTERNET", &pressure), None);
    }

    #[test]
    fn a_notice_names_the_desktops_that_are_restarted() {
        let words = |names: &[&str]| {
            let labels: Vec<String> = names.iter().map(|name| name.to_uppercase()).collect();
            restarted(&labels)
        };
        assert_eq!(words(&["clinical"]), "CLINICAL is");
        assert_eq!(words(&["clinical", "lab", "internet"]), "CLINICAL, LAB and INTERNET are");
    }
}
