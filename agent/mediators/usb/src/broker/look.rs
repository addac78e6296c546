//! Finds out which devices were plugged in and which were pulled out, and whether keyboards have their drivers.
//!
//! What cannot be seen now is not gone: a look for which there is no descriptor or memory changes nothing, and the next one is soon.

use std::io;

use clock::Moment;
use printable::explain;
use usbhost::{BusId, Plugged};

use super::device::Device;
use super::{AGAIN, Broker};
use crate::lifecycle::Event;

/// What went wrong with the last look, so that each is said once for as long as it lasts.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    switches: Option<String>,
    devices: Option<String>,
}

/// Keeps what is wrong now, and returns it if that is news.
fn news(trouble: &mut Option<String>, now: Option<String>) -> Option<&str> {
    let is_news = now != *trouble;
    *trouble = now;
    trouble.as_deref().filter(|_| is_news)
}

impl Broker {
    /// Finds out which devices were plugged in and which were pulled out.
    pub(super) fn look(&mut self) {
        // Before the switches are set: whatever is found now, its controller was there by then.
        let plugged = self.sysfs.plugged();
        let switched = self.authorization.apply_to_new_controllers();
        self.look_at(plugged, switched.err().map(|error| explain(&error)));
    }

    /// Takes up what a look has found, and what came of setting the switches of controllers that are new.
    pub(super) fn look_at(
        &mut self,
        plugged: io::Result<Vec<Plugged>>,
        unswitched: Option<String>,
    ) {
        if let Some(why) = news(&mut self.troubles.switches, unswitched) {
            tracing::error!("{why}");
        }
        let unseen = plugged.as_ref().err().map(|error| error.to_string());
        if let Some(why) = news(&mut self.troubles.devices, unseen) {
            tracing::error!(
                "cannot see which USB devices are plugged in, and leaves all as it is until that is seen again: {why}"
            );
        }
        match plugged {
            Ok(plugged) => {
                self.compare(plugged);
                self.look_at_keyboards();
            }
            Err(_) => self.look_at = self.look_at.min(Moment::now() + AGAIN),
        }
        self.tick_all(Moment::now(), |_| true);
        self.devices.retain(|_, device| !device.lifecycle.is_over());
        let devices = &self.devices;
        self.places.retain(|id, place| {
            place.busy > 0 || devices.get(id).is_some_and(|device| device.plugged.is_some())
        });
    }

    /// Compares what is plugged in with what is known.
    fn compare(&mut self, plugged: Vec<Plugged>) {
        let gone = |device: &&mut Device| {
            device.plugged.as_ref().is_some_and(|known| {
                !plugged.iter().any(|one| {
                    // One that is being reset may still be the one that was there.
                    one.bus_id == known.bus_id
                        && (one.address.is_none() || one.address == known.address)
                })
            })
        };
        let gone: Vec<BusId> =
            self.devices.values_mut().filter(gone).map(|device| device.id.clone()).collect();
        for id in gone {
            self.drive(&id, Event::Unplugged);
            if let Some(device) = self.devices.get_mut(&id) {
                (device.plugged, device.identity) = (None, None);
                (device.verdict, device.terms) = (None, None);
            }
        }
        for plugged in plugged {
            let id = plugged.bus_id.clone();
            if self.devices.get(&id).is_some_and(|device| device.plugged.is_some()) {
                continue;
            }
            // Which one it is shows when its reset is over; and whoever authorised it while its controller's switch is not set would give each of its
            // interfaces to the host's drivers. The next look finds it again.
            if plugged.address.is_none() || !self.authorization.keeps_drivers_off(&id) {
                self.look_at = self.look_at.min(Moment::now() + AGAIN);
                continue;
            }
            let device = self.devices.entry(id.clone()).or_insert_with(|| Device::new(id.clone()));
            device.plugged = Some(plugged);
            self.drive(&id, Event::PluggedIn);
        }
    }

    /// Tells each device whether drivers of the host's have the keyboards and mice in it. Of one of which that cannot be seen nothing is told.
    pub(super) fn look_at_keyboards(&mut self) {
        let watched = |device: &Device| {
            let drivers = self.sysfs.drivers(&device.id, device.lifecycle.watched_input()?).ok()?;
            Some((device.id.clone(), drivers))
        };
        let all: Vec<_> = self.devices.values().filter_map(watched).collect();
        for (id, drivers) in all {
            let busy = self.places.get(&id).is_some_and(|place| place.busy > 0);
            self.drive(&id, Event::InputDrivers { any: drivers.any, all: drivers.all, busy });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::news;

    #[test]
    fn what_lasts_is_said_once_and_again_when_it_was_over_or_is_another() {
        let mut trouble = None;
        let said = [Some("no room"), Some("no room"), Some("no file"), None, Some("no file")]
            .map(|now| news(&mut trouble, now.map(str::to_owned)).map(str::to_owned));
        let [first, lasts, other, over, again] = said.each_ref().map(Option::as_deref);
        assert_eq!((first, lasts, other), (Some("no room"), None, Some("no file")));
        assert_eq!((over, again), (None, Some("no file")));
    }
}
