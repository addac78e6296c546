//! Who gets a device.

use std::sync::Arc;

use audit::Event;
use clock::Moment;
use policy::decide::Decision;
use policy::request::{Context, Request, UsbRequest};
use usbfilter::Rules;
use usbhost::BusId;

use super::device::{Device, Grant, State};
use super::place::{Reading, Task};
use super::{AGAIN, Broker, CHANGES_MAX};
use crate::usb::Happening;

/// Why the host has a device.
const SEATS: &str = "the seat's own: a keyboard, a mouse, a touch screen, a pen or a hub";
const HOSTS: &str = "the host itself runs from it";
/// Why a device does not reach its domain.
const UNRECORDED: &str = "the audit log cannot be written";

impl Broker {
    /// A device is there: has its thread find out what it is.
    pub(super) fn arrived(&mut self, id: &BusId) {
        let task = self.task(id, Task::Read);
        let Some(device) = self.devices.get_mut(id) else { return };
        device.state = match task {
            Ok(number) => State::Reading(number),
            Err(why) => State::Blocked(why),
        };
    }

    /// Somebody takes it away. Before it was looked at it may be the seat's, or what the host runs from: it is switched off when it is
    /// known to be neither.
    pub(super) fn detach(&mut self, id: &BusId) {
        let reading = match self.devices.get(id).map(|device| &device.state) {
            Some(State::Reading(task) | State::Leaving(task)) => Ok(*task),
            Some(State::Later(_)) => self.task(id, Task::Read),
            _ => {
                self.take_away(id, "it was taken away by hand");
                return self.switch_off(id, State::Off);
            }
        };
        if let Some(device) = self.devices.get_mut(id) {
            device.state = match reading {
                Ok(task) => State::Leaving(task),
                Err(why) => State::Blocked(why),
            };
        }
    }

    /// Its thread has found out.
    pub(super) fn read(&mut self, id: &BusId, reading: Result<Reading, String>) {
        let Some(device) = self.devices.get_mut(id) else { return };
        let leaves = matches!(device.state, State::Leaving(_));
        match reading {
            Ok(Reading::Hosts) => {
                tracing::warn!("{id}: {HOSTS}; it is left alone");
                device.state = State::Host(HOSTS);
            }
            Ok(Reading::Device(identity)) => {
                let found = identity.vetted.found();
                let lost = self.lost.get_mut(id).filter(|_| device.changes.is_none());
                let changes = lost.map_or(0, |lost| lost.comes(&found.descriptors));
                let another = Some(found.address) != device.plugged.address;
                let leaves = leaves && !identity.is_the_seats();
                device.identity = Some(*identity);
                let changes = *device.changes.get_or_insert(changes);
                if another {
                    // It is not the one that was there; the next look finds this one.
                    self.look_at = Moment::now();
                } else if leaves {
                    self.switch_off(id, State::Off);
                } else if changes < CHANGES_MAX {
                    self.judge(id);
                } else {
                    self.restless(id);
                }
            }
            Err(_) if leaves => self.switch_off(id, State::Off),
            Err(why) => {
                let shown = device.shown();
                self.tell(Happening::Note(
                    Event::new("usb-unreadable")
                        .with("bus_id", id.as_str())
                        .with("why", why.as_str()),
                ));
                self.notice(id, format!("{shown} is not used:\n{why}."));
                self.switch_off(id, State::Blocked(why));
            }
        }
    }

    /// Asks the policy.
    pub(super) fn judge(&mut self, id: &BusId) {
        let Some(device) = self.devices.get_mut(id) else { return };
        let Some(identity) = &device.identity else { return };
        if identity.is_the_seats() {
            device.state = State::Host(SEATS);
            // One for which there is no thread is not used.
            let _ = self.task(id, Task::GiveToHost);
            return;
        }
        let policy = Arc::clone(&self.policy);
        let request =
            UsbRequest { device: identity.description.device(), to: device.by_hand.as_deref() };
        let context = Context { break_glass: self.break_glass };
        // Its report descriptors have been read: what they do not say stays unsaid.
        let verdict = policy.decide(&Request::Usb(request), &context).settled();
        let (decision, why) = (verdict.decision(), verdict.reason().to_string());
        let rule = verdict.rule().map(|rule| rule.id.value.to_string());
        let grant = match (decision, verdict.to()) {
            (Decision::Allow, Some(to)) => Some((to, Rules::Allow)),
            (Decision::ReadOnly, Some(to)) => Some((to, Rules::ReadOnly)),
            _ => None,
        };
        let shown = device.shown();
        let mut event = Event::new("usb")
            .with("device", identity.text())
            .with("bus_id", id.as_str())
            .with("name", device.called())
            .with("break_glass", self.break_glass);
        if let Some(by_hand) = &device.by_hand {
            event = event.with("to", by_hand.as_str());
        }
        (event.verdict, event.rule, event.policy) =
            (Some(decision.word()), rule.clone(), Some(policy.serial()));
        let Some((to, rules)) = grant else {
            let words =
                format!("{shown} is blocked.\nThe policy: {why}.\nQuestions: {}", policy.issuer());
            self.tell(Happening::Note(event));
            self.notice(id, words);
            return self.switch_off(id, State::Blocked(why));
        };
        let domain = to.name.to_string();
        event = event.of(&domain);
        self.last_id += 1;
        let label = to.label.value.clone();
        let grant = Grant { domain, label, rules, rule, why };
        if let Some(device) = self.devices.get_mut(id) {
            device.state = State::Recording(self.last_id, grant);
        }
        self.tell(Happening::Record(self.last_id, event));
    }

    /// The event of a verdict, or of a device that joins its domain, is on the disk, or is not.
    pub(super) fn recorded(&mut self, event: u64, done: bool) {
        let waits = |device: &Device| match &device.state {
            State::Recording(id, _) | State::Joining(id, _, _) => *id == event,
            _ => false,
        };
        let Some((id, device)) = self.devices.iter_mut().find(|(_, device)| waits(device)) else {
            return;
        };
        let id = id.clone();
        let again = device.unrecorded;
        device.unrecorded = !done;
        match (std::mem::replace(&mut device.state, State::Off), done) {
            (State::Recording(_, grant), true) => {
                device.state = State::Waiting(grant, Moment::now());
            }
            (State::Joining(_, joining, grant), true) => self.serve(&id, *joining, grant),
            // It had its verdict, and waits until its being there can be recorded too.
            (State::Joining(_, _, grant), false) => {
                device.state = State::Waiting(grant, Moment::now() + AGAIN);
                if !again {
                    self.unrecorded(&id);
                }
            }
            _ => {
                self.unrecorded(&id);
                self.switch_off(&id, State::Blocked(UNRECORDED.to_owned()));
            }
        }
    }

    fn unrecorded(&self, id: &BusId) {
        let words = format!("{} is not connected:\n{UNRECORDED}. Call IT.", self.shown(id));
        self.notice(id, words);
    }

    /// Other rules: those who would get something else lose what they have; all are judged anew.
    pub(super) fn judge_all(&mut self) {
        let all: Vec<BusId> = self.devices.keys().cloned().collect();
        for id in all {
            let Some(device) = self.devices.get(&id) else { continue };
            let has = match &device.state {
                State::Host(_)
                | State::Off
                | State::Reading(_)
                | State::Leaving(_)
                | State::Later(_) => continue,
                State::Blocked(_) => None,
                State::Recording(_, grant)
                | State::Waiting(grant, _)
                | State::Joining(_, _, grant)
                | State::Attached(_, _, grant) => Some((grant.domain.clone(), grant.rules)),
            };
            if has != self.would_get(device) {
                self.take_away(&id, "the rules changed");
                self.arrived(&id);
            }
        }
    }

    fn would_get(&self, device: &Device) -> Option<(String, Rules)> {
        let identity = device.identity.as_ref()?;
        let request =
            UsbRequest { device: identity.description.device(), to: device.by_hand.as_deref() };
        let context = Context { break_glass: self.break_glass };
        let verdict = self.policy.decide(&Request::Usb(request), &context).settled();
        let rules = match verdict.decision() {
            Decision::Allow => Rules::Allow,
            Decision::ReadOnly => Rules::ReadOnly,
            _ => return None,
        };
        verdict.permits().then(|| Some((verdict.to()?.name.to_string(), rules)))?
    }
}
