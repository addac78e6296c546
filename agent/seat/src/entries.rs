//! What the audit log says of the seat: events go in, entries come out.

use audit::AuditEvent;
use audit::events::{
    InputPlugged, InputUnplugged, SeatLinkLost, SeatLocked, SeatSwitched, SeatUnlocked,
};

use crate::SeatEvent;
use crate::core::DomainIndex;

/// Returns what is recorded of an event, at a seat with the domains of these names; `None` for what somebody there asks or answers, which whoever is asked records.
#[must_use]
pub fn of(event: &SeatEvent, names: &[String]) -> Option<AuditEvent> {
    let name = |index: DomainIndex| names.get(index).map_or("?", String::as_str).to_owned();
    Some(match event {
        SeatEvent::Switched { from, to } => {
            SeatSwitched { domain: name(*to), from: name(*from) }.into()
        }
        SeatEvent::Locked { idle } => SeatLocked { idle: *idle }.into(),
        SeatEvent::Unlocked => SeatUnlocked {}.into(),
        SeatEvent::Plugged(device, domain) => {
            let device = device.as_str().to_owned();
            InputPlugged { domain: domain.map(name), device }.into()
        }
        SeatEvent::Unplugged(device) => {
            InputUnplugged { device: device.as_str().to_owned() }.into()
        }
        SeatEvent::LinkLost(domain, problem) => {
            SeatLinkLost { domain: name(*domain), problem: problem.clone() }.into()
        }
        SeatEvent::BreakGlass | SeatEvent::Answered(..) | SeatEvent::Chosen(..) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_at_the_seat_is_recorded_by_the_names_of_domains_and_what_is_asked_there_is_not()
    {
        let names = ["clinical".to_owned(), "internet".to_owned()];
        let of = |event| of(&event, &names);
        let switched = SeatSwitched { domain: "internet".to_owned(), from: "clinical".to_owned() };
        assert_eq!(of(SeatEvent::Switched { from: 0, to: 1 }), Some(switched.into()));
        let lost = SeatLinkLost { domain: "?".to_owned(), problem: "gone".to_owned() };
        assert_eq!(of(SeatEvent::LinkLost(7, "gone".to_owned())), Some(lost.into()));
        assert_eq!(of(SeatEvent::Locked { idle: true }), Some(SeatLocked { idle: true }.into()));
        for asked in [SeatEvent::BreakGlass, SeatEvent::Answered(1, true), SeatEvent::Chosen(1, 0)]
        {
            assert_eq!(of(asked), None);
        }
    }
}
