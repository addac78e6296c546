//! Which domain gets which NIC: by an answer, by the machine file, or asked.

use std::collections::BTreeMap;

use config::domain_policies::DomainPolicy;
use config::machine::{DomainHardware, Kind};
use handover::ClaimedFunction;

use super::{Basis, ProposalError, asked, entry};
use crate::answers::NicAnswer;
use crate::dialogue::{Dialogue, Question};
use crate::hardware::{Hardware, Nic};
use crate::session::Traffic;

pub(super) fn too_few(hardware: &Hardware, with_nic: &[&DomainPolicy]) -> String {
    let names: Vec<&str> = with_nic.iter().map(|policy| policy.name.as_str()).collect();
    let nics: Vec<String> = hardware.nics.iter().map(Nic::to_string).collect();
    let mut text = format!(
        "the policy gives each of {} a NIC of its own, and this PC has {} that can be handed over",
        names.join(", "),
        printable::counted(u64::try_from(nics.len()).unwrap_or(u64::MAX), "NIC", "NICs"),
    );
    if !nics.is_empty() {
        text.push_str(&format!(" ({})", nics.join("; ")));
    }
    text.push_str(": put in a network card for each domain that has none");
    for why in &hardware.unfit {
        text.push_str(&format!("\n  not to be had: {why}"));
    }
    text
}

/// Returns the NICs that the answers and the machine file give.
pub(super) fn given_nics<'a>(
    basis: &Basis<'a>,
    with_nic: &[&'a DomainPolicy],
    obstacles: &mut Vec<String>,
) -> BTreeMap<&'a str, &'a Nic> {
    let mut given: BTreeMap<&str, &Nic> = BTreeMap::new();
    let answered = |policy: &DomainPolicy| basis.answers.domains.get(&policy.name)?.nic.as_ref();
    // The answers first: what the machine file gave to another domain is then that one's no more.
    let (first, then): (Vec<&DomainPolicy>, Vec<&DomainPolicy>) =
        with_nic.iter().copied().partition(|policy| answered(policy).is_some());
    for policy in first {
        let Some(answer) = answered(policy) else { continue };
        let fitting: Vec<&Nic> =
            basis.hardware.nics.iter().filter(|nic| fits(answer, nic)).collect();
        let key = format!("`domain.{}.nic` of the answer file", policy.name);
        match fitting.as_slice() {
            [only] => match taken_by(&given, only) {
                Some(other) => obstacles
                    .push(format!("{key} is the NIC that {other} has ({only}): name another one")),
                None => drop(given.insert(&policy.name, only)),
            },
            [] => obstacles.push(format!(
                "{key} = {answer} fits no NIC of this PC that can be handed over; it has: {}",
                listed(basis.hardware)
            )),
            several => obstacles.push(format!(
                "{key} fits {} NICs: add `slot`, `mac` or `address`. This PC has: {}",
                several.len(),
                listed(basis.hardware)
            )),
        }
    }
    for policy in then {
        let before = entry(basis.existing, &policy.name);
        let kept = basis.hardware.nics.iter().find(|nic| keeps(before, nic));
        if let Some(nic) = kept.filter(|nic| taken_by(&given, nic).is_none()) {
            given.insert(&policy.name, nic);
        }
    }
    given
}

fn taken_by<'a>(given: &BTreeMap<&'a str, &Nic>, nic: &Nic) -> Option<&'a str> {
    let mut owners = given.iter();
    owners.find(|(_, own)| own.function.address == nic.function.address).map(|(name, _)| *name)
}

fn fits(answer: &NicAnswer, nic: &Nic) -> bool {
    let NicAnswer { address, mac, slot, interface } = answer;
    address.is_none_or(|address| address == nic.function.address)
        && mac.as_ref().is_none_or(|mac| nic.has_mac(mac))
        && slot.as_ref().is_none_or(|slot| nic.function.places.contains(slot))
        && interface.as_ref().is_none_or(|interface| nic.carries(interface))
}

/// Returns whether the machine file gives this NIC to the domain, by whatever can be compared now.
pub(super) fn keeps(before: Option<&DomainHardware>, nic: &Nic) -> bool {
    let Some(DomainHardware { kind: Kind::Vm(vm), .. }) = before else { return false };
    let Some(ClaimedFunction { address, pins, .. }) = &vm.nic else { return false };
    let shows_mac = !nic.function.interfaces.is_empty();
    *address == nic.function.address
        && pins.id.as_ref().is_none_or(|id| *id == nic.function.id())
        && pins.slot.as_ref().is_none_or(|slot| nic.function.places.contains(slot))
        && pins.mac.as_ref().is_none_or(|mac| !shows_mac || nic.has_mac(mac))
}

fn listed(hardware: &Hardware) -> String {
    let nics: Vec<String> = hardware.nics.iter().map(Nic::to_string).collect();
    if nics.is_empty() { "none".to_owned() } else { nics.join("; ") }
}

/// Asks for those that are open; where one is left for one domain, it is that one's.
pub(super) fn asked_nics<'a>(
    basis: &Basis<'a>,
    mut given: BTreeMap<&'a str, &'a Nic>,
    left: &[&'a DomainPolicy],
    dialogue: &mut dyn Dialogue,
    unasked: &mut Vec<Question>,
) -> Result<BTreeMap<&'a str, &'a Nic>, ProposalError> {
    for policy in left {
        let free: Vec<&Nic> =
            basis.hardware.nics.iter().filter(|nic| taken_by(&given, nic).is_none()).collect();
        // A card that was exchanged or moved is nobody's to replace unasked: what is left may be in another network.
        let before = entry(basis.existing, &policy.name);
        let had_one =
            matches!(before, Some(DomainHardware { kind: Kind::Vm(vm), .. }) if vm.nic.is_some());
        if let [only] = free.as_slice()
            && !had_one
        {
            given.insert(&policy.name, only);
            continue;
        }
        let choice = |nic: &&Nic| match basis.interfaces.through(nic) {
            Some(Traffic::Session) => format!("{nic} - YOUR SESSION COMES IN OVER THIS ONE"),
            Some(Traffic::DefaultRoute) => format!("{nic} - this PC's default route"),
            None => nic.to_string(),
        };
        let question = Question {
            key: format!("domain.{}.nic", policy.name),
            text: if had_one {
                format!(
                    "The NIC that the machine file gives {0} is not there as it says: moved, exchanged, or of another model. Which NIC is in the network of {0}?",
                    policy.label
                )
            } else {
                format!("Which NIC is in the network of {}?", policy.label)
            },
            choices: free.iter().map(choice).collect(),
        };
        let chosen = asked(dialogue, question, unasked)?;
        if let Some(nic) = chosen.and_then(|at| free.get(at)) {
            given.insert(&policy.name, nic);
        }
    }
    Ok(given)
}
