//! Carries out what a device's life-cycle wants done, and tells it what came of that.

use std::time::Duration;

use clock::Moment;
use monitor::{Denial, Permit, Request};
use usbfilter::Filter;
use usbhost::BusId;

use super::place::{Place, PlaceContext, Task};
use super::terms::Terms;
use super::{Broker, PLACES_MAX, pace};
use crate::UsbEvent;
use crate::attached::{Attachment, Connection as VmmConnection, DomainSocket};
use crate::grant::{Admitted, UsbAdmission, UsbGrant};
use crate::lifecycle::{AGAIN, Connection, Effect, Event};

impl Broker {
    /// Has the life-cycle of a device handle an event now.
    pub(super) fn drive(&mut self, id: &BusId, event: Event<Permit<UsbGrant>>) {
        self.drive_at(Moment::now(), id, event);
    }

    /// Has the life-cycle of a device handle an event, and what is answered to its effects.
    pub(super) fn drive_at(&mut self, now: Moment, id: &BusId, event: Event<Permit<UsbGrant>>) {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            let Some(device) = self.devices.get_mut(id) else { return };
            for effect in device.lifecycle.handle(now, &mut self.numbers, event) {
                // An effect that is answered is the last of its list.
                next = self.carry_out(id, effect);
            }
        }
    }

    /// Carries out one effect; the answer to it, if it is answered at once.
    fn carry_out(
        &mut self,
        id: &BusId,
        effect: Effect<Permit<UsbGrant>>,
    ) -> Option<Event<Permit<UsbGrant>>> {
        match effect {
            Effect::AskPace => {
                let wait = self.pace.wait(id);
                if wait.is_zero() {
                    self.pace.count(id);
                }
                return Some(Event::Pace(wait));
            }
            Effect::Read { task } => {
                return self.task(id, task, Task::Read).err().map(Event::NoThread);
            }
            Effect::GiveToHost(share) => self.task_without_answer(id, Task::GiveToHost(share)),
            Effect::Deauthorize => self.task_without_answer(id, Task::Deauthorize),
            Effect::Judge => return Some(Event::Judged(self.judge(id))),
            Effect::Admit { request, grant } => {
                let device = self.devices.get(id)?;
                let verdict = device.given(grant.domain.clone()).zip(device.terms);
                // What nobody decided is not permitted.
                let Some((event, Terms { basis, owed })) = verdict else {
                    return Some(Event::Refused { request, denial: Denial::Uninspected });
                };
                let grant = UsbAdmission { grant, basis };
                let request = Request { number: request, basis, owed, event, grant };
                self.send(UsbEvent::Admit(request));
            }
            Effect::Connect { admitted, again } => {
                let connection = self.connect(id, &admitted, again);
                return Some(Event::Connected { admitted, connection });
            }
            Effect::Authorize { request, grant } => {
                let device = self.devices.get(id)?;
                let event = device.attached(&grant);
                // What nobody decided is not permitted.
                let Some(Terms { basis, owed }) = device.terms else {
                    return Some(Event::Refused { request, denial: Denial::Uninspected });
                };
                let request = Request { number: request, basis, owed, event, grant };
                self.send(UsbEvent::Authorize(request));
            }
            Effect::Disconnect => self.devices.get_mut(id)?.connection = None,
            Effect::Start { task, permit } => {
                let why = self.start(id, task, permit).err()?;
                return Some(Event::NotStarted { task, why });
            }
            Effect::Detach { task } => {
                if let Some(attachment) = self.devices.get(id)?.attachments.get(&task) {
                    attachment.close();
                }
            }
            Effect::Cut { task } => {
                self.devices.get_mut(id)?.attachments.remove(&task);
            }
            Effect::Note(note) => {
                let device = self.devices.get(id)?;
                let entry = device.entry(note, &self.policy, self.break_glass)?;
                self.send(UsbEvent::Note(entry));
            }
            Effect::Notice(notice) => {
                let text = self.devices.get(id)?.text(notice, self.policy.issuer());
                self.send(UsbEvent::Notice(pace::socket(id).to_owned(), text));
            }
            Effect::Look => self.look_at = Moment::now(),
        }
        None
    }

    /// Has the thread of a place do something of which nobody waits for the end. A device for which there is no thread was never switched
    /// on.
    fn task_without_answer(&mut self, id: &BusId, task: Task) {
        let number = self.numbers.next();
        if let Err(why) = self.task(id, number, task) {
            tracing::warn!("{id}: {why}");
        }
    }

    /// Has the thread of a place do something, or says why there is no thread.
    pub(super) fn task(&mut self, id: &BusId, number: u64, task: Task) -> Result<(), String> {
        if !self.places.contains_key(id) {
            if self.places.len() >= PLACES_MAX {
                return Err("too many USB devices are plugged in".to_owned());
            }
            let (sysfs, grants) = (self.sysfs.clone(), self.authorization.grants());
            let reports = self.reports.0.clone();
            let context = PlaceContext { sysfs, grants, reports, wake: self.ends.waker() };
            let place = Place::open(id.clone(), context)
                .map_err(|error| format!("there is no thread for it: {error}"))?;
            self.places.insert(id.clone(), place);
        }
        if let Some(place) = self.places.get_mut(id) {
            place.queue(number, task);
        }
        Ok(())
    }

    /// Connects a device to the VMM of the domain that it is admitted to, if that takes it now.
    fn connect(&mut self, id: &BusId, admitted: &Admitted, again: bool) -> Connection {
        let grant = admitted.grant();
        let Some(device) = self.devices.get(id) else { return Connection::NotYet(AGAIN) };
        let Some(identity) = &device.identity else {
            return Connection::Impossible("it was not read".to_owned());
        };
        // A filter that cannot be made is found out before the guest sees anything.
        let pinned = identity.vetted.pinned().clone();
        if let Err(error) = Filter::of(grant.rules, pinned, grant.share.clone()) {
            return Connection::Impossible(error.to_string());
        }
        if let Some(why) = self.has_no_workers(&grant.domain) {
            return Connection::Impossible(why.to_owned());
        }
        // What served it last has not let it go: it could not be served before.
        let hangs = self.places.get(id).is_some_and(Place::is_serving);
        if let Some(device) = self.devices.get_mut(id) {
            device.hangs = hangs;
        }
        // Nor would it be served before the thread is done with what it does otherwise, such as wait for a driver of the host's.
        if hangs || self.places.get(id).is_some_and(|place| place.busy > 0) {
            return Connection::NotYet(AGAIN);
        }
        // A VMM that takes it and lets it go again and again has to wait.
        let wait = if again { self.pace.wait(id) } else { Duration::ZERO };
        if !wait.is_zero() {
            return Connection::NotYet(wait.max(AGAIN));
        }
        let Some(connection) = self.free_connection(admitted) else {
            return Connection::NotYet(AGAIN);
        };
        if again {
            self.pace.count(id);
        }
        if let Some(device) = self.devices.get_mut(id) {
            device.connection = Some(connection);
        }
        Connection::Made
    }

    /// Returns why nothing serves the devices of this domain, if nothing does.
    fn has_no_workers(&self, domain: &str) -> Option<&'static str> {
        let sockets = self.domains.iter().filter(|(name, _)| name == domain);
        sockets.flat_map(|(_, sockets)| sockets).find_map(DomainSocket::has_no_workers)
    }

    /// Makes a connection to the VMM of the domain that a device is admitted to, by a socket that no other device has.
    fn free_connection(&self, admitted: &Admitted) -> Option<VmmConnection> {
        let taken = |socket: &&DomainSocket| {
            self.devices.values().any(|device| {
                let connected = device.connection.iter().map(VmmConnection::path);
                let attached = device.attachments.values().map(Attachment::path);
                connected.chain(attached).any(|path| path == socket.path)
            })
        };
        let (_, sockets) =
            self.domains.iter().find(|(name, _)| *name == admitted.grant().domain)?;
        let mut free = sockets.iter().filter(|socket| !taken(socket));
        free.find_map(|socket| socket.connect(admitted).ok())
    }

    /// Has the thread of a place serve the device there over its connection.
    fn start(&mut self, id: &BusId, task: u64, permit: Permit<UsbGrant>) -> Result<(), String> {
        let device = self.devices.get_mut(id).ok_or("it is gone")?;
        let connection = device.connection.take().ok_or("its domain has hung up")?;
        let identity = device.identity.as_ref().ok_or("it was not read")?;
        let (attachment, serving) = Attachment::start(permit, connection, identity.vetted.clone())
            .map_err(|error| error.to_string())?;
        self.task(id, task, Task::Serve(Box::new(serving)))?;
        if let Some(device) = self.devices.get_mut(id) {
            device.attachments.insert(task, attachment);
        }
        Ok(())
    }
}
