//! How a device gets into its domain: it waits until the VMM takes it, and is served once that is on the record.

use std::path::PathBuf;
use std::time::Duration;

use audit::events::UsbAttached;
use clock::Moment;
use usbfilter::Filter;
use usbhost::BusId;

use super::device::{Grant, Joining, State};
use super::place::Task;
use super::{AGAIN, Broker};
use crate::Happening;
use crate::attached::join;

impl Broker {
    /// Connects devices whose domain takes them now.
    pub(super) fn try_waiting(&mut self, now: Moment) {
        let due: Vec<BusId> = self
            .devices
            .iter()
            .filter(|(_, device)| match &device.state {
                State::Waiting(_, at) | State::Later(at) => now >= *at,
                _ => false,
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in due {
            if matches!(self.devices.get(&id).map(|device| &device.state), Some(State::Later(_))) {
                self.comes(&id);
            } else if let Err(why) = self.join(&id) {
                self.failed(&id, why);
            }
        }
    }

    /// `Ok` if its domain takes it, or does not take it yet.
    fn join(&mut self, id: &BusId) -> Result<(), String> {
        let taken: Vec<&PathBuf> = self
            .devices
            .values()
            .filter_map(|device| match &device.state {
                State::Attached(_, attached, _) => Some(&attached.path),
                State::Joining(_, joining, _) => Some(&joining.path),
                _ => None,
            })
            .collect();
        let Some(device) = self.devices.get(id) else { return Ok(()) };
        // A VMM that takes it and lets it go again and again has to wait.
        let again = device.joined;
        let wait = if again { self.pace.wait(id) } else { Duration::ZERO };
        let State::Waiting(grant, _) = &device.state else { return Ok(()) };
        let grant = grant.clone();
        let identity = device.identity.as_ref().ok_or("it was not read")?;
        // A filter that cannot be made is found out before the guest sees anything.
        let pinned = identity.vetted.pinned().clone();
        let filter = Filter::of(grant.rules, pinned, grant.share.clone())
            .map_err(|error| error.to_string())?;
        let sockets = self.domains.iter().find(|(name, _)| *name == grant.domain);
        let mut free = sockets
            .into_iter()
            .flat_map(|(_, all)| all)
            .filter(|door| !taken.contains(&&door.path));
        let mut connect = || free.find_map(|door| Some((door.path.clone(), door.enter().ok()?)));
        let connected = if wait.is_zero() { connect() } else { None };
        let Some(device) = self.devices.get_mut(id) else { return Ok(()) };
        let Some((path, stream)) = connected else {
            device.state = State::Waiting(grant, Moment::now() + wait.max(AGAIN));
            return Ok(());
        };
        device.joined = true;
        if again {
            self.pace.count(id);
        }
        let event = UsbAttached {
            domain: grant.domain.clone(),
            bus_id: id.as_str().to_owned(),
            request: device.request,
        };
        self.last_id += 1;
        device.state =
            State::Joining(self.last_id, Box::new(Joining { path, stream, filter }), grant);
        self.tell(Happening::Record(self.last_id, event.into()));
        Ok(())
    }

    /// It is on the record: serves it to its domain.
    pub(super) fn serve(&mut self, id: &BusId, joining: Joining, grant: Grant) {
        let Joining { path, stream, filter } = joining;
        let vetted = self.devices.get(id).and_then(|device| device.identity.as_ref());
        let Some(vetted) = vetted.map(|identity| identity.vetted.clone()) else { return };
        let vetted = vetted.sharing(grant.share.clone());
        let served = join(path, stream, filter, vetted)
            .map_err(|error| format!("there is no file descriptor for it: {error}"))
            .and_then(|(attached, serving)| {
                Ok((attached, self.task(id, Task::Serve(Box::new(serving)))?))
            });
        match (served, self.devices.get_mut(id)) {
            (Ok((attached, number)), Some(device)) => {
                device.begun = false;
                device.state = State::Attached(number, Box::new(attached), grant);
            }
            (Err(why), _) => self.failed(id, why),
            (Ok(_), None) => {}
        }
    }
}
