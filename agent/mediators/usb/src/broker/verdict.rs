//! What a device gets by the policy: asked when it was read, and again when the rules change.

use audit::events::UsbJudged;
use monitor::{Basis, Owed, recorded};
use policy::decide::Decision;
use policy::request::{Context, Request, UsbFunction, UsbRequest};
use usbdescriptors::Share;
use usbfilter::Rules;
use usbhost::BusId;

use super::Broker;
use super::device::Device;
use super::terms::Terms;
use crate::grant::UsbGrant;
use crate::lifecycle::{Event, Judgement, KEPT};

/// What the policy says of a device.
struct Decided {
    decision: Decision,
    rule: Option<String>,
    /// What it was asked about.
    functions: Vec<UsbFunction>,
    /// Where it goes, or why it does not.
    grant: Result<UsbGrant, String>,
    terms: Terms,
}

impl Broker {
    /// Asks the policy about a device that was read, and keeps the entry of its verdict.
    pub(super) fn judge(&mut self, id: &BusId) -> Judgement {
        let unread = Judgement { grant: Err("it was not read".to_owned()), denied: true };
        let Some(device) = self.devices.get(id) else { return unread };
        let (Some(decided), Some(identity)) = (self.decide(device), &device.identity) else {
            return unread;
        };
        let verdict = UsbJudged {
            domain: None,
            verdict: recorded(decided.decision),
            rule: decided.rule,
            policy: self.policy.serial(),
            break_glass: self.break_glass,
            bus_id: id.as_str().to_owned(),
            device: identity.text_with(&decided.functions),
            name: Some(device.called().to_owned()),
            request: device.lifecycle.request(),
            seat_keeps_interfaces: match device.lifecycle.kept() {
                Some(Share::Interfaces(kept)) => Some(kept.iter().copied().collect()),
                _ => None,
            },
            to: device.lifecycle.by_hand().map(str::to_owned),
        };
        if let Some(device) = self.devices.get_mut(id) {
            device.verdict = Some(Box::new(verdict));
            device.terms = Some(decided.terms);
        }
        Judgement { grant: decided.grant, denied: decided.decision == Decision::Deny }
    }

    /// Re-evaluates all devices after a change of rules: what one would not get any more is taken back.
    pub(super) fn judge_all(&mut self) {
        let all: Vec<BusId> = self.devices.keys().cloned().collect();
        for id in all {
            let Some(device) = self.devices.get(&id) else { continue };
            let decided = self.decide(device);
            let terms = decided.as_ref().map(|decided| decided.terms);
            let would_get = decided.and_then(|decided| decided.grant.ok());
            if let Some(device) = self.devices.get_mut(&id) {
                device.terms = terms;
            }
            self.drive(&id, Event::RulesChanged { would_get, basis: self.basis() });
        }
    }

    /// Decides what a device gets that was read, or the part of it that the seat does not keep.
    fn decide(&self, device: &Device) -> Option<Decided> {
        let (identity, life) = (device.identity.as_ref()?, &device.lifecycle);
        let request = UsbRequest { device: identity.description.device(), to: life.by_hand() };
        let context = Context { break_glass: self.break_glass };
        let rest = life.kept().and_then(|_| self.policy.decide_rest(&request, &context));
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
        let share = match (&functions, life.kept()) {
            _ if identity.unread.is_some() => Err(why.clone()),
            (Some(given), _) => identity
                .part(given)
                .map_err(|error| format!("{KEPT}, the rest is not used: {error}")),
            (None, Some(_)) => Err(why.clone()),
            (None, None) => Ok(Share::Whole),
        };
        let grant = match (to.zip(rules).filter(|_| verdict.permits()), share) {
            (Some((to, rules)), Ok(share)) => {
                let found = identity.vetted.found();
                Ok(UsbGrant {
                    bus_id: found.bus_id.clone(),
                    address: found.address,
                    domain: to.name.to_string(),
                    label: to.label.value.clone(),
                    rules,
                    share,
                    rule: rule.clone(),
                    why,
                })
            }
            (Some(_), Err(indivisible)) => Err(indivisible),
            (None, _) => Err(why),
        };
        // What the log says the policy was asked about can be asked again: the part that goes, or all of it.
        let functions = functions.unwrap_or_else(|| identity.description.functions.clone());
        let terms = Terms { basis: self.basis(), owed: Owed::of(&verdict) };
        Some(Decided { decision, rule, functions, grant, terms })
    }

    /// Returns the rules that count. A verdict that was reached while break-glass was open is asked for anew when that has ended.
    pub(super) fn basis(&self) -> Basis {
        Basis { policy: self.policy.serial(), break_glass: self.break_glass }
    }
}
