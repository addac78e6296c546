//! What this PC is to be: which NIC is which domain's, how much memory and how many processors each has, which screen is the seat's.
//!
//! An answer goes before what the machine file says, and that before what setup proposes; a person is asked only for what none of them says
//! and the hardware leaves open.

mod nics;

use std::collections::BTreeMap;
use std::path::Path;

use config::domain_policies::DomainPolicy;
use config::machine::{Boot, DomainHardware, Kind, Machine, Seat};
use handover::pins::pinned;
use images::manifest::ImageName;
use images::store::Store;
use policy::language::Network;
use vmm_control::limits::CPUS_MAX;

use crate::answers::{Answers, DomainAnswers};
use crate::dialogue::{Dialogue, Question, Unanswered};
use crate::hardware::{Hardware, Iommu, Nic};
use crate::session::{Interfaces, Traffic};
use nics::{asked_nics, given_nics, keeps, too_few};

/// What the host keeps for itself, in MiB: the agent, the VMMs beside their guests' memory, frames, the disk cache.
const HOST_MIB: u64 = 1536;
/// The least that is proposed for a desktop, in MiB.
const DESKTOP_LEAST_MIB: u64 = 1024;
/// Sizes are multiples of this, in MiB.
const STEP_MIB: u64 = 256;

/// What is decided by.
pub(crate) struct Basis<'a> {
    /// Where relative images lie.
    pub(crate) images: &'a Path,
    pub(crate) domain_policies: &'a [DomainPolicy],
    /// The machine file, if one is filled in.
    pub(crate) existing: Option<&'a Machine>,
    pub(crate) answers: &'a Answers,
    pub(crate) hardware: &'a Hardware,
    pub(crate) interfaces: &'a Interfaces,
}

/// What is to be written into the machine file; `None` leaves what is there.
#[derive(Debug, Default)]
pub(crate) struct Decisions {
    /// Whether there is a screen.
    pub(crate) screen: Option<bool>,
    pub(crate) card: Option<String>,
    pub(crate) allow_host_network: Option<bool>,
    pub(crate) domains: Vec<DomainDecision>,
}

/// The same of one domain.
#[derive(Debug, Default)]
pub(crate) struct DomainDecision {
    pub(crate) name: String,
    /// Somebody else runs it.
    pub(crate) external: bool,
    pub(crate) memory: Option<String>,
    pub(crate) cpus: Option<u8>,
    /// As TOML: a table with the address and what pins it.
    pub(crate) nic: Option<String>,
    pub(crate) image: Option<Image>,
    /// The image of the store from which it starts, and the disks that it writes.
    pub(crate) installed: Option<(ImageName, Vec<String>)>,
    /// The kernel's command line of an image that was exchanged.
    pub(crate) cmdline: Option<String>,
}

/// The files of a domain's image, relative to the images' folder.
#[derive(Debug)]
pub(crate) struct Image {
    /// `None` leaves kernel and command line as they are.
    pub(crate) kernel: Option<String>,
    pub(crate) initrd: Option<String>,
    pub(crate) cmdline: String,
    /// Paths, and whether the guest may only read.
    pub(crate) disks: Vec<(String, bool)>,
}

/// What is decided, and what a person has to know of it.
pub(crate) struct Proposal<'a> {
    pub(crate) decisions: Decisions,
    /// The domains that are handed a NIC.
    pub(crate) nics: Vec<(&'a Nic, &'a str)>,
    pub(crate) notes: Vec<String>,
}

/// Why nothing is proposed.
#[derive(Debug)]
pub(crate) enum ProposalError {
    /// The PC or its policy does not do; each with its remedy.
    Obstacles(Vec<String>),
    /// Nobody answered these questions.
    Unasked(Vec<Question>),
    /// Somebody did, and not in a way that is understood.
    NotUnderstood(Question),
}

/// Asks, and notes a question that nobody answers.
///
/// # Errors
/// Somebody answered, and no answer is understood.
pub(crate) fn asked(
    dialogue: &mut dyn Dialogue,
    question: Question,
    unasked: &mut Vec<Question>,
) -> Result<Option<usize>, ProposalError> {
    match dialogue.choose(&question) {
        Ok(place) => Ok(Some(place)),
        Err(Unanswered::Nobody) => {
            unasked.push(question);
            Ok(None)
        }
        Err(Unanswered::NotUnderstood) => Err(ProposalError::NotUnderstood(question)),
    }
}

pub(crate) fn propose<'a>(
    basis: &Basis<'a>,
    dialogue: &mut dyn Dialogue,
) -> Result<Proposal<'a>, ProposalError> {
    let own: Vec<&DomainPolicy> =
        basis.domain_policies.iter().filter(|policy| !is_external(basis, policy)).collect();
    let with_nic: Vec<&DomainPolicy> =
        own.iter().copied().filter(|policy| policy.network == Network::Passthrough).collect();
    let mut obstacles = obstacles(basis, &own, &with_nic);
    let memory = memory(basis, &own, &mut obstacles);
    let given = given_nics(basis, &with_nic, &mut obstacles);
    let left: Vec<&DomainPolicy> =
        with_nic.iter().copied().filter(|m| !given.contains_key(m.name.as_str())).collect();
    let free = basis.hardware.nics.len().saturating_sub(given.len());
    if left.len() > free {
        obstacles.push(too_few(basis.hardware, &with_nic));
    }
    if !obstacles.is_empty() {
        return Err(ProposalError::Obstacles(obstacles));
    }
    let mut unasked = Vec::new();
    let nics = asked_nics(basis, given, &left, dialogue, &mut unasked)?;
    let (screen, card) = seat(basis, dialogue, &mut unasked)?;
    if !unasked.is_empty() {
        return Err(ProposalError::Unasked(unasked));
    }
    let mut notes = Vec::new();
    if screen == Some(true) && basis.hardware.cards.iter().all(|card| card.connected.is_empty()) {
        notes.push(
            "no monitor is seen on any graphics card: connect it before Bulkhead starts".to_owned(),
        );
    }
    for policy in own.iter().filter(|policy| policy.network == Network::Vlan) {
        notes.push(format!(
            "THE DESKTOP {0} HAS NO NETWORK: the policy gives it a VLAN (network = \"vlan\"), which this version does not enforce, so that no NIC is proposed for it; have the policy changed to network = \"passthrough\" if it is to have one",
            policy.name
        ));
    }
    let cpus = proposed_cpus(basis.hardware.cpus, own.len());
    let domains = basis.domain_policies.iter().map(|policy| {
        let name = policy.name.clone();
        if is_external(basis, policy) {
            return DomainDecision { name, external: true, ..DomainDecision::default() };
        }
        let before = entry(basis.existing, &policy.name);
        let answers = basis.answers.domains.get(&policy.name);
        let chosen = nics.get(policy.name.as_str()).filter(|nic| !keeps(before, nic));
        let mut decision = DomainDecision {
            name,
            memory: memory.get(policy.name.as_str()).cloned(),
            cpus: answers.and_then(|a| a.cpus).or((!is_vm(before)).then_some(cpus)),
            nic: chosen.map(|nic| pinned(&nic.function)),
            ..DomainDecision::default()
        };
        image(basis, before, &mut decision, &mut notes);
        decision
    });
    let domains = domains.collect();
    let nics: Vec<(&Nic, &str)> = basis
        .domain_policies
        .iter()
        .filter_map(|policy| Some((*nics.get(policy.name.as_str())?, policy.name.as_str())))
        .collect();
    notes.extend(nics.iter().filter_map(|(nic, domain)| session_warning(basis, nic, domain)));
    let allow_host_network = basis.answers.allow_host_network;
    let decisions = Decisions { screen, card, allow_host_network, domains };
    Ok(Proposal { decisions, nics, notes })
}

fn entry<'m>(machine: Option<&'m Machine>, name: &str) -> Option<&'m DomainHardware> {
    machine?.domain(name)
}

fn is_vm(entry: Option<&DomainHardware>) -> bool {
    matches!(entry, Some(DomainHardware { kind: Kind::Vm(_), .. }))
}

/// Returns whether somebody else runs a domain.
fn is_external(basis: &Basis<'_>, policy: &DomainPolicy) -> bool {
    let answer = basis.answers.domains.get(&policy.name).and_then(|answers| answers.external);
    let before = entry(basis.existing, &policy.name);
    answer.unwrap_or(matches!(before, Some(DomainHardware { kind: Kind::External, .. })))
}

/// Returns what of the PC and of the policy does not do, whatever is answered.
fn obstacles(basis: &Basis<'_>, own: &[&DomainPolicy], with_nic: &[&DomainPolicy]) -> Vec<String> {
    let Basis { hardware, .. } = basis;
    let mut obstacles = Vec::new();
    for policy in own.iter().filter(|policy| policy.network != Network::Passthrough) {
        if basis.answers.domains.get(&policy.name).is_some_and(|answers| answers.nic.is_some()) {
            obstacles.push(format!(
                "`domain.{0}.nic` of the answer file gives {0} a NIC, and the policy says network = \"{1}\": take that line out, or have the policy changed to network = \"passthrough\"",
                policy.name,
                policy.network.word()
            ));
        }
    }
    for policy in basis.domain_policies.iter().filter(|policy| is_external(basis, policy)) {
        let answers = basis.answers.domains.get(&policy.name);
        if let Some(key) = answers.and_then(DomainAnswers::hardware) {
            obstacles.push(format!(
                "`domain.{0}.{key}` of the answer file means nothing for {0}, which an external VMM runs by the machine file: take that line out, or add `vmm = \"bulkhead\"`",
                policy.name
            ));
        }
    }
    let is_without_screen = basis.existing.is_some_and(|machine| machine.seat == Seat::None);
    if basis.answers.card.is_some() && basis.answers.screen.is_none() && is_without_screen {
        obstacles.push("`seat.card` of the answer file means nothing, as the machine file says that there is no screen (`backend = \"none\"`): take that line out, or add `backend = \"kms\"`".to_owned());
    }
    if !own.is_empty() && !hardware.virtualises {
        obstacles.push(format!(
            "the processor does not offer virtualisation: {}",
            hardware.vendor.virtualisation_in_bios()
        ));
    }
    if !with_nic.is_empty() && hardware.iommu == Iommu::Missing {
        obstacles.push(format!(
            "this PC has no IOMMU, or it is switched off in the BIOS; without it a NIC that is handed over could write anywhere in this PC's memory: switch {} on in the BIOS, and run this again",
            hardware.vendor.iommu_in_bios()
        ));
    }
    let screen = basis.answers.screen.or(basis.existing.map(|m| m.seat != Seat::None));
    if screen.unwrap_or(true) && hardware.cards.is_empty() {
        obstacles.push("this PC has no graphics card that a Linux driver has: load its driver (`lspci -k | grep -A3 VGA` names it; firmware-amd-graphics or firmware-misc-nonfree may be missing), or answer backend = \"none\" below [seat] for a PC without a seat".to_owned());
    }
    for (at, nic) in hardware.nics.iter().enumerate() {
        let macs = nic.function.interfaces.iter().filter_map(|own| own.mac.as_deref());
        for mac in macs {
            let mut before = hardware.nics.iter().take(at);
            if let Some(other) = before.find(|other| other.has_mac(mac)) {
                obstacles.push(format!(
                    "two NICs have one MAC address, {mac}: {other}; {nic}. Take them out of the bond or bridge that they are in, or give one its own address again, and run this again"
                ));
            }
        }
    }
    obstacles
}

/// Returns whether there is a screen and on which card, as far as the machine file is to say something else than it does.
fn seat(
    basis: &Basis<'_>,
    dialogue: &mut dyn Dialogue,
    unasked: &mut Vec<Question>,
) -> Result<(Option<bool>, Option<String>), ProposalError> {
    let Basis { answers, hardware, existing, .. } = basis;
    let before = existing.map(|machine| &machine.seat);
    let screen = answers.screen.unwrap_or(before != Some(&Seat::None));
    let changes = before.is_none_or(|seat| (*seat != Seat::None) != screen);
    let said = changes.then_some(screen);
    if !screen || answers.card.is_some() {
        return Ok((said, answers.card.clone().filter(|_| screen)));
    }
    let with_monitor: Vec<_> =
        hardware.cards.iter().filter(|card| !card.connected.is_empty()).collect();
    // The agent takes the first card that has a monitor.
    if !changes || with_monitor.len() < 2 {
        return Ok((said, None));
    }
    let question = Question {
        key: "seat.card".to_owned(),
        text: "Which graphics card is the seat's?".to_owned(),
        choices: with_monitor
            .iter()
            .map(|card| format!("{}, monitor on {}", card.node, card.connected.join(", ")))
            .collect(),
    };
    let chosen = asked(dialogue, question, unasked)?.and_then(|at| with_monitor.get(at));
    Ok((said, chosen.map(|card| card.node.clone())))
}

/// Returns the memory of the domains for which it is to be written.
fn memory<'a>(
    basis: &Basis<'a>,
    own: &[&'a DomainPolicy],
    obstacles: &mut Vec<String>,
) -> BTreeMap<&'a str, String> {
    let (mut written, mut open, mut fixed) = (BTreeMap::new(), Vec::new(), 0);
    for policy in own {
        let answer = basis.answers.domains.get(&policy.name).and_then(|answers| answers.memory);
        let before = entry(basis.existing, &policy.name);
        match (answer, before) {
            (Some(size), before) => {
                fixed += size.bytes() >> 20;
                let same =
                    |e: &DomainHardware| matches!(&e.kind, Kind::Vm(vm) if vm.memory == size);
                if !before.is_some_and(same) {
                    written.insert(policy.name.as_str(), size_text(size.bytes() >> 20));
                }
            }
            (None, Some(DomainHardware { kind: Kind::Vm(vm), .. })) => {
                fixed += vm.memory.bytes() >> 20
            }
            (None, _) => open.push(*policy),
        }
    }
    let Some(total) = basis.hardware.memory_mib else {
        if !own.is_empty() {
            obstacles.push(
                "the kernel does not say how much memory this PC has: mount /proc".to_owned(),
            );
        }
        return written;
    };
    let room = total.saturating_sub(HOST_MIB).saturating_sub(fixed);
    // Where there is not enough for all that they might want, the one that matters more has twice as much.
    let weight = |policy: &DomainPolicy| if policy.high_priority { 2 } else { 1 };
    let weights: u64 = open.iter().map(|policy| weight(policy)).sum();
    let wanted = u64::try_from(open.len()).unwrap_or(u64::MAX).saturating_mul(DESKTOP_LEAST_MIB);
    if fixed > total.saturating_sub(HOST_MIB) || room < wanted {
        obstacles.push(format!(
            "this PC has {total} MiB of memory, of which the host keeps {HOST_MIB}: {fixed} MiB are given to domains by the answer file or the machine file, and each of the other {} needs {DESKTOP_LEAST_MIB} at least; put in more memory, or give the domains less",
            open.len()
        ));
        return written;
    }
    for policy in open {
        let share = room * weight(policy) / weights.max(1);
        let share = (share / STEP_MIB * STEP_MIB).max(DESKTOP_LEAST_MIB);
        written.insert(policy.name.as_str(), size_text(share));
    }
    written
}

/// Returns the size as the machine file has it: `4G`, `2560M`.
fn size_text(mib: u64) -> String {
    if mib.is_multiple_of(1024) { format!("{}G", mib / 1024) } else { format!("{mib}M") }
}

/// Proposes how many processors each of so many domains has; a flood in one is held by its weight, not by their number.
fn proposed_cpus(cpus: u8, domains: usize) -> u8 {
    let domains = u8::try_from(domains).unwrap_or(u8::MAX).max(1);
    (cpus / domains).clamp(1, CPUS_MAX)
}

/// Proposes the image's files for a domain that has none yet; for one that has its kernel, what else of the image came later.
fn image(
    basis: &Basis<'_>,
    before: Option<&DomainHardware>,
    decision: &mut DomainDecision,
    notes: &mut Vec<String>,
) {
    let name = decision.name.clone();
    let folder = basis.images.join(&name);
    let there = |file: &str| folder.join(file).is_file();
    let cmdline = config::files::read_small(&folder.join("cmdline")).ok().flatten();
    let cmdline = cmdline.map(|text| text.trim().to_owned());
    let path = |file: &str| format!("{name}/{file}");
    let disks = [("root.img", true), ("home.img", false)];
    let disks = disks.into_iter().filter(|(file, _)| there(file));
    let files = Image {
        kernel: Some(path("vmlinuz")),
        initrd: there("initrd").then(|| path("initrd")),
        cmdline: String::new(),
        disks: disks.map(|(file, readonly)| (path(file), readonly)).collect(),
    };
    if let Some(DomainHardware { kind: Kind::Vm(vm), .. }) = before {
        // Words that somebody added stay, as long as those of the image are there too.
        let Boot::Files { kernel, initrd, cmdline: own } = &vm.boot else {
            // The disk that its guest writes may have been made after setup ran.
            let keeps = basis.domain_policies.iter().any(|it| it.name == name && !it.discard);
            let is_new = keeps && vm.disks.is_empty() && there("home.img");
            if let (Boot::Image(image), true) = (&vm.boot, is_new) {
                decision.installed = Some((image.clone(), vec![path("home.img")]));
            }
            return;
        };
        let has = |word: &str| own.split_ascii_whitespace().any(|own| own == word);
        if *kernel != folder.join("vmlinuz") {
            return;
        }
        decision.cmdline = cmdline.filter(|text| !text.split_ascii_whitespace().all(has));
        // Setup may have run before the image was there. What the guest keeps is no image, and not the first disk.
        if !there("vmlinuz") {
            return;
        }
        let initrd = files.initrd.filter(|_| initrd.is_none());
        let disks = if vm.disks.is_empty() { files.disks } else { Vec::new() };
        if initrd.is_some() || !disks.is_empty() {
            let kernel = None;
            decision.image = Some(Image { kernel, initrd, cmdline: String::new(), disks });
        }
        return;
    }
    // Bundles that were installed come before files that somebody laid down.
    let is_installed = |name: &ImageName| {
        let record = Store::at(basis.images).record(name).ok().flatten();
        record.is_some_and(|record| record.installed().next().is_some())
    };
    if let Some(image) = name.parse::<ImageName>().ok().filter(is_installed) {
        let own = there("home.img").then(|| format!("{name}/home.img"));
        decision.installed = Some((image, own.into_iter().collect()));
        return;
    }
    if !there("vmlinuz") {
        notes.push(format!(
            "there is no image of {name} yet: install its bundle (`bulkhead images install FILE`), or copy its files to {}, and run this again before Bulkhead starts, as its command line belongs into the machine file",
            folder.display()
        ));
    }
    decision.image = Some(Image { cmdline: cmdline.unwrap_or_default(), ..files });
}

/// Returns what is said before the NIC goes that somebody needs now.
fn session_warning(basis: &Basis<'_>, nic: &Nic, domain: &str) -> Option<String> {
    Some(match basis.interfaces.through(nic)? {
        Traffic::Session => format!(
            "THIS SESSION COMES IN OVER THE NIC OF {domain} ({nic}): it ends when Bulkhead starts, and cannot be had over that NIC again"
        ),
        Traffic::DefaultRoute => format!(
            "this PC reaches its network over the NIC of {domain} ({nic}), and the host has none when Bulkhead has started: a session over it ends then"
        ),
    })
}
