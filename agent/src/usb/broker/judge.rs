//! Who gets a device.

use std::sync::Arc;
use std::time::Instant;

use audit::Event;
use policy::decide::{Decision, Obligation};
use policy::request::{Context, Request, UsbRequest};
use usbfilter::Rules;
use usbhost::BusId;

use super::Broker;
use super::device::{Device, Grant, State};
use crate::supervisor::devices::explain;
use crate::usb::Happening;
use crate::usb::identity::Identity;

/// Why the host has a device.
const SEATS: &str = "the seat's own: a keyboard, a mouse or a hub";
const HOSTS: &str = "the host itself runs from it";

impl Broker {
    /// A device is there: finds out what it is, and has it judged.
    pub(super) fn arrived(&mut self, id: &BusId) {
        let mounts = ["/proc/mounts", "/proc/swaps"]
            .map(|file| std::fs::read_to_string(file).unwrap_or_default())
            .concat();
        if self.sysfs.host_needs(id, &mounts) {
            tracing::warn!("{id}: {HOSTS}; it is left alone");
            if let Some(device) = self.devices.get_mut(id) {
                device.state = State::Host(HOSTS);
            }
            return;
        }
        if let Err(why) = self.identify(id) {
            let name = self.devices.get(id).map(|d| d.found.name.clone()).unwrap_or_default();
            self.tell(Happening::Note(
                Event::new("usb-unreadable").with("bus_id", id.as_str()).with("why", why.as_str()),
            ));
            self.tell(Happening::Notice(format!("USB device {name} is not used:\n{why}.")));
            return self.switch_off(id, State::Blocked(why));
        }
        self.judge(id);
    }

    fn identify(&mut self, id: &BusId) -> Result<(), String> {
        let known = self.devices.get(id).ok_or("it is gone")?;
        if !known.found.authorised {
            self.authority.read(id).map_err(|error| explain(&error))?;
        }
        let found = self.sysfs.find(id).ok_or("it is gone")?;
        let mut identity = Identity::of(&found, &[])?;
        let hid = identity.hid_interfaces();
        // What is a keyboard by its boot interface need not be asked, and must not be taken from its driver.
        if !hid.is_empty() && !identity.is_the_seats() {
            let reports = usbhost::export::report_descriptors(&self.sysfs, &found, &hid);
            let reports = reports.map_err(|error| explain(&error))?;
            identity = Identity::of(&found, &reports)?;
        }
        if !identity.is_the_seats() {
            self.authority.withdraw(id).map_err(|error| explain(&error))?;
        }
        if let Some(device) = self.devices.get_mut(id) {
            device.found = found;
            device.identity = Some(identity);
        }
        Ok(())
    }

    /// Asks the policy.
    pub(super) fn judge(&mut self, id: &BusId) {
        let Some(device) = self.devices.get_mut(id) else { return };
        let Some(identity) = &device.identity else { return };
        if identity.is_the_seats() {
            device.state = State::Host(SEATS);
            if let Err(error) = self.authority.give_to_host(id) {
                tracing::warn!("{}", explain(&error));
            }
            return;
        }
        let policy = Arc::clone(&self.policy);
        let request =
            UsbRequest { device: identity.description.device(), to: device.by_hand.as_deref() };
        let context = Context { break_glass: self.break_glass };
        let verdict = policy.decide(&Request::Usb(request), &context);
        let unseen =
            verdict.obligations().any(|owed| matches!(owed, Obligation::ConfirmNoKeyboard));
        let decision = if unseen { Decision::Deny } else { verdict.decision() };
        let why = if unseen {
            "it does not say whether it is a keyboard".to_owned()
        } else {
            verdict.reason().to_string()
        };
        let rule = verdict.rule().map(|rule| rule.id.value.to_string());
        let grant = match (decision, verdict.to()) {
            (Decision::Allow, Some(to)) => Some((to, Rules::Allow)),
            (Decision::ReadOnly, Some(to)) => Some((to, Rules::ReadOnly)),
            _ => None,
        };
        let name = if device.found.name.is_empty() { "USB device" } else { &device.found.name };
        let mut event = Event::new("usb")
            .with("device", identity.text())
            .with("bus_id", id.as_str())
            .with("name", name)
            .with("break_glass", self.break_glass);
        if let Some(by_hand) = &device.by_hand {
            event = event.with("to", by_hand.as_str());
        }
        (event.verdict, event.rule, event.policy) =
            (Some(decision.word()), rule.clone(), Some(policy.serial()));
        let Some((to, rules)) = grant else {
            let words =
                format!("{name} is blocked.\nThe policy: {why}.\nQuestions: {}", policy.issuer());
            self.tell(Happening::Note(event));
            self.tell(Happening::Notice(words));
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

    pub(super) fn recorded(&mut self, event: u64, done: bool) {
        let waits =
            |device: &Device| matches!(&device.state, State::Recording(id, _) if *id == event);
        let Some(id) = self.devices.iter().find(|(_, d)| waits(d)).map(|(id, _)| id.clone()) else {
            return;
        };
        if !done {
            let why = "the audit log cannot be written".to_owned();
            self.tell(Happening::Notice(format!("USB device is not connected:\n{why}. Call IT.")));
            return self.switch_off(&id, State::Blocked(why));
        }
        if let Some(device) = self.devices.get_mut(&id)
            && let State::Recording(_, grant) = &device.state
        {
            device.state = State::Waiting(grant.clone(), Instant::now());
        }
    }

    /// Other rules: those who would get something else lose what they have; all are judged anew.
    pub(super) fn judge_all(&mut self) {
        let all: Vec<BusId> = self.devices.keys().cloned().collect();
        for id in all {
            let Some(device) = self.devices.get(&id) else { continue };
            let has = match &device.state {
                State::Host(_) | State::Off => continue,
                State::Blocked(_) => None,
                State::Recording(_, grant)
                | State::Waiting(grant, _)
                | State::Attached(_, grant) => Some((grant.domain.clone(), grant.rules)),
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
        let verdict = self.policy.decide(&Request::Usb(request), &context);
        let rules = match verdict.decision() {
            Decision::Allow => Rules::Allow,
            Decision::ReadOnly => Rules::ReadOnly,
            _ => return None,
        };
        verdict.permits().then(|| Some((verdict.to()?.name.to_string(), rules)))?
    }
}
