//! Who gets a device.

use audit::AuditEvent;
use audit::events::{UsbFailed, UsbJudged, UsbUnreadable, Verdict};
use clock::Moment;
use policy::decide::Decision;
use policy::request::{Context, Request, UsbFunction, UsbRequest};
use usbdescriptors::Share;
use usbfilter::Rules;
use usbhost::BusId;

use super::device::{Device, Grant, KEPT, State};
use super::place::{Reading, Task};
use super::{AGAIN, Broker, CHANGES_MAX};
use crate::Happening;
use usbsysfs::Identity;

/// Why the host has a device.
const SEATS: &str = "the seat's own: a keyboard, a mouse, a touch screen, a pen or a hub";
const HOSTS: &str = "the host itself runs from it";
/// Why the seat does not take a keyboard.
const TURNED: &str = "a keyboard or mouse that appears in a device in use is not accepted; leave it unplugged for a minute, and plug it in again if it is meant to have one";
/// Why a device does not reach its domain.
const UNRECORDED: &str = "the audit log cannot be written";

/// A decision, as the log has it.
fn recorded(decision: Decision) -> Verdict {
    match decision {
        Decision::Allow => Verdict::Allow,
        Decision::Ask => Verdict::Ask,
        Decision::Deny => Verdict::Deny,
        Decision::ReadOnly => Verdict::ReadOnly,
    }
}

/// What the policy says of a device.
struct Decided {
    decision: Decision,
    rule: Option<String>,
    /// What it was asked about.
    functions: Vec<UsbFunction>,
    /// Where it goes, or why it does not.
    grant: Result<Grant, String>,
}

impl Broker {
    /// A device is there: has its thread find out what it is.
    pub(super) fn arrived(&mut self, id: &BusId) {
        let task = self.task(id, Task::Read);
        if let Err(why) = &task {
            self.come_to_nothing(id, why);
        }
        let Some(device) = self.devices.get_mut(id) else { return };
        device.state = match task {
            Ok(number) => State::Reading(number),
            Err(why) => State::Blocked(why),
        };
    }

    /// Somebody takes it away. Before it was looked at it may be the seat's, or what the host runs from: it is switched off when it is
    /// known to be neither.
    pub(super) fn detach(&mut self, id: &BusId, request: Option<u64>) {
        const BY_HAND: &str = "it was taken away by hand";
        self.come_to_nothing(id, BY_HAND);
        let reading = match self.devices.get(id).map(|device| &device.state) {
            Some(State::Reading(task) | State::Leaving(task)) => Ok(*task),
            Some(State::Later(_)) => self.task(id, Task::Read),
            _ => {
                if let Some(device) = self.devices.get_mut(id) {
                    device.request = request;
                }
                self.take_away(id, BY_HAND);
                // If it was in no domain there is nothing to tell of it.
                self.request_of(id);
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
                self.come_to_nothing(id, HOSTS);
            }
            Ok(Reading::Device(identity)) => {
                let found = identity.vetted.found();
                let lost = self.lost.get_mut(id).filter(|_| device.changes.is_none());
                let changes = lost.map_or(0, |lost| lost.comes(&found.descriptors));
                let another = Some(found.address) != device.plugged.address;
                let leaves = leaves && !identity.is_the_seats();
                let had = device.identity.as_ref().is_some_and(Identity::types_or_points);
                let new = !had && identity.types_or_points();
                device.identity = Some(*identity);
                let changes = *device.changes.get_or_insert(changes);
                // For as long as it is plugged in.
                device.turned |= new && changes > 0;
                let turned = device.turned;
                if another {
                    // It is not the one that was there; the next look finds this one.
                    self.look_at = Moment::now();
                } else if leaves {
                    self.switch_off(id, State::Off);
                } else if turned {
                    self.turned(id);
                } else if changes < CHANGES_MAX {
                    self.judge(id);
                } else {
                    self.restless(id);
                }
            }
            Err(_) if leaves => self.switch_off(id, State::Off),
            Err(why) => {
                let shown = device.shown();
                self.notice(id, format!("{shown} is not used:\n{why}."));
                self.unreadable(id, why);
            }
        }
    }

    /// The seat takes no keyboard that came by a change: it would be of a device that a guest had, or that hides what it is.
    fn turned(&mut self, id: &BusId) {
        let text = self.devices.get(id).and_then(|device| device.identity.as_ref());
        let event = UsbJudged {
            domain: None,
            verdict: Verdict::Deny,
            rule: None,
            policy: self.policy.serial(),
            break_glass: self.break_glass,
            bus_id: id.as_str().to_owned(),
            device: text.map(Identity::text).unwrap_or_default(),
            name: None,
            request: None,
            seat_keeps_interfaces: None,
            to: None,
        };
        self.tell(Happening::Note(event.into()));
        self.failed(id, TURNED.to_owned());
    }

    fn unreadable(&mut self, id: &BusId, why: String) {
        let (bus_id, request) = (id.as_str().to_owned(), self.request_of(id));
        self.unused(id, UsbUnreadable { bus_id, request, why: why.clone() }, why);
    }

    /// A device that cannot be used is switched off, which `event` says.
    fn unused(&mut self, id: &BusId, event: impl Into<AuditEvent>, why: String) {
        self.tell(Happening::Note(event.into()));
        self.switch_off(id, State::Blocked(why));
    }

    /// A device is to be judged anew. One of which the seat keeps a part is known, and is not read again: that could take its keyboard from
    /// its driver.
    pub(super) fn again(&mut self, id: &BusId) {
        let Some(device) = self.devices.get(id) else { return };
        let busy = matches!(device.state, State::Reading(_) | State::Leaving(_) | State::Later(_));
        let known = device.identity.as_ref().is_some_and(|identity| identity.unread.is_none());
        if device.kept().is_some() && known && !busy {
            self.judge(id);
        } else {
            self.arrived(id);
        }
    }

    /// Asks the policy.
    pub(super) fn judge(&mut self, id: &BusId) {
        let Some(device) = self.devices.get_mut(id) else { return };
        let Some(identity) = &device.identity else { return };
        if identity.is_the_seats() {
            device.state = State::Host(SEATS);
            self.come_to_nothing(id, SEATS);
            // One for which there is no thread is not used.
            let _ = self.task(id, Task::GiveToHost(Share::Whole));
            return;
        }
        let (kept, unread) = (device.kept(), identity.unread.clone());
        if let Some(kept) = kept.clone() {
            // Before anything else, and before the port is owned by whoever uses the rest.
            let _ = self.task(id, Task::GiveToHost(kept));
        }
        if let Some(why) = unread {
            let why = format!("{KEPT}, the rest is not used: {why}");
            let words = format!("{}: {why}.", self.shown(id));
            self.notice(id, words);
            return self.unreadable(id, why);
        }
        let Some(device) = self.devices.get(id) else { return };
        let (Some(decided), Some(identity)) = (self.decide(device), &device.identity) else {
            return;
        };
        let shown = device.shown();
        let mut event = UsbJudged {
            domain: None,
            verdict: recorded(decided.decision),
            rule: decided.rule,
            policy: self.policy.serial(),
            break_glass: self.break_glass,
            bus_id: id.as_str().to_owned(),
            device: identity.text_with(&decided.functions),
            name: Some(device.called().to_owned()),
            request: device.request,
            seat_keeps_interfaces: match &kept {
                Some(Share::Interfaces(kept)) => Some(kept.iter().copied().collect()),
                _ => None,
            },
            to: device.by_hand.clone(),
        };
        let grant = match decided.grant {
            Ok(grant) => grant,
            Err(why) => {
                let issuer = self.policy.issuer();
                let words = match kept {
                    Some(_) => format!("{shown}: {why}.\nQuestions: {issuer}"),
                    None => format!("{shown} is blocked.\nThe policy: {why}.\nQuestions: {issuer}"),
                };
                self.tell(Happening::Note(event.into()));
                self.notice(id, words);
                if decided.decision != Decision::Deny {
                    let (bus_id, request) = (id.as_str().to_owned(), self.request_of(id));
                    return self.unused(id, UsbFailed { bus_id, request, why: why.clone() }, why);
                }
                // The verdict is how a request for it ended.
                self.request_of(id);
                return self.switch_off(id, State::Blocked(why));
            }
        };
        event.domain = Some(grant.domain.clone());
        self.last_id += 1;
        if let Some(device) = self.devices.get_mut(id) {
            device.state = State::Recording(self.last_id, grant);
        }
        self.tell(Happening::Record(self.last_id, event.into()));
    }

    /// What the policy says of a device that was read, or of what the seat does not keep of it.
    fn decide(&self, device: &Device) -> Option<Decided> {
        let identity = device.identity.as_ref()?;
        let request =
            UsbRequest { device: identity.description.device(), to: device.by_hand.as_deref() };
        let context = Context { break_glass: self.break_glass };
        let rest = device.kept().and_then(|_| self.policy.decide_rest(&request, &context));
        let (verdict, functions, why) = match rest {
            Some(rest) => {
                let why = rest.to_string();
                (rest.verdict, Some(rest.functions).filter(|given| !given.is_empty()), why)
            }
            None => {
                // Its report descriptors have been read: what they do not say stays unsaid.
                let verdict = self.policy.decide(&Request::Usb(request), &context).settled();
                (verdict, None, verdict.reason().to_string())
            }
        };
        let (decision, to) = (verdict.decision(), verdict.to());
        let rule = verdict.rule().map(|rule| rule.id.value.to_string());
        let rules = match decision {
            Decision::Allow => Some(Rules::Allow),
            Decision::ReadOnly => Some(Rules::ReadOnly),
            _ => None,
        };
        let share = match (&functions, device.kept()) {
            _ if identity.unread.is_some() => Err(why.clone()),
            (Some(given), _) => identity
                .part(given)
                .map_err(|error| format!("{KEPT}, the rest is not used: {error}")),
            (None, Some(_)) => Err(why.clone()),
            (None, None) => Ok(Share::Whole),
        };
        let grant = match (to.zip(rules).filter(|_| verdict.permits()), share) {
            (Some((to, rules)), Ok(share)) => {
                let (domain, label) = (to.name.to_string(), to.label.value.clone());
                Ok(Grant { domain, label, rules, share, rule: rule.clone(), why })
            }
            (Some(_), Err(indivisible)) => Err(indivisible),
            (None, _) => Err(why),
        };
        // What the log says the policy was asked about can be asked again: the part that goes, or all of it.
        let functions = functions.unwrap_or_else(|| identity.description.functions.clone());
        Some(Decided { decision, rule, functions, grant })
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
            (State::Joining(_, joining, grant), true) => {
                device.request = None;
                self.serve(&id, *joining, grant);
            }
            // It had its verdict, and waits until its being there can be recorded too.
            (State::Joining(_, _, grant), false) => {
                device.state = State::Waiting(grant, Moment::now() + AGAIN);
                if !again {
                    self.unrecorded(&id);
                }
            }
            _ => {
                self.come_to_nothing(&id, UNRECORDED);
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
                | State::Attached(_, _, grant) => {
                    Some((grant.domain.clone(), grant.rules, grant.share.clone()))
                }
            };
            if has != self.would_get(device) {
                self.take_away(&id, "the rules changed");
                self.again(&id);
            }
        }
    }

    fn would_get(&self, device: &Device) -> Option<(String, Rules, Share)> {
        let grant = self.decide(device)?.grant.ok()?;
        Some((grant.domain, grant.rules, grant.share))
    }
}
