//! How long a person has neither a picture nor keys while there is no agent.

use std::time::{Duration, Instant};

use tests::guest::Probe;
use tests::patience::patience;
use tests::seat::{Colour, Person};
use tests::{Outcome, WardPc, ensure};

use super::seat::{in_front, keys};

/// What a person did without.
#[derive(Debug)]
pub(super) struct SeatGap {
    /// From the last picture of the agent that went to the first of the next one.
    pub(super) picture: Duration,
    /// From the same moment until the guest in front had a key that was pressed.
    pub(super) keys: Duration,
}

/// Waits until the screen no longer has the banner of the domain in front, which has this colour and this guest, and measures what follows.
pub(super) fn measured(
    pc: &WardPc,
    colour: Colour,
    guest: &Probe<'_>,
    until_gone: Duration,
    until_back: Duration,
) -> Outcome<SeatGap> {
    let mut person = Person::at(pc)?;
    let waits = Instant::now();
    let mut seen = Instant::now();
    loop {
        let looks = Instant::now();
        if person.look()?.banner_colour() != colour {
            break;
        }
        seen = looks;
        ensure!(waits.elapsed() < patience(until_gone), "the agent's picture stays");
    }
    person.see("the banner again", until_back, in_front(colour))?;
    let picture = seen.elapsed();
    keys(guest)?;
    loop {
        person.types(&["c"])?;
        if !keys(guest)?.is_empty() {
            return Ok(SeatGap { picture, keys: seen.elapsed() });
        }
        ensure!(seen.elapsed() < patience(until_back), "no key arrives");
    }
}
