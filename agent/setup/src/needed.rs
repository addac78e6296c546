//! What this PC needs to be a ward PC: the answers, what there is, the proposal, and the changes that lead from the one to the other.

use std::path::Path;

use config::machine::{Boot, Context, DomainHardware, Kind, Machine, Seat};
use handover::host_use::Screen;
use images::store::Store;
use printable::explain;

use crate::answers::{self, Answers};
use crate::change::{self, Change};
use crate::dialogue::{Dialogue, Question};
use crate::effects::Effects;
use crate::proposal::{self, Basis, ProposalError};
use crate::session::Interfaces;
use crate::{
    Caller, Options, Pc, Stop, configured, encryption, groups, hardware, machine_text, plan,
};

/// What this PC needs.
pub(crate) struct Needed {
    /// In the order in which they are made.
    pub(crate) changes: Vec<Change>,
    /// What a person has to know besides.
    pub(crate) notes: Vec<String>,
    /// What a person has to do once the changes are made.
    pub(crate) afterwards: String,
}

/// Returns which changes this PC needs, in the order in which they are made, and what a person has to know besides. Asks for what neither the answer file
/// nor the PC says.
///
/// # Errors
/// Why this PC cannot be set up as it is, or that nobody answers.
pub(crate) fn changes(
    pc: &Pc,
    caller: &Caller,
    options: &Options,
    dialogue: &mut dyn Dialogue,
    effects: &mut dyn Effects,
) -> Result<Needed, Stop> {
    let refused = |error: &dyn std::error::Error| Stop::refused(explain(error));
    let domain_policies = configured::domain_policies(options)?;
    let answers = match &options.answers {
        Some(path) => {
            let accounts = pc.accounts();
            answers::read(path, &domain_policies, &accounts).map_err(|error| refused(&error))?
        }
        None => Answers::default(),
    };
    encryption::is_named_rightly(pc, options, &answers).map_err(|error| refused(&error))?;
    let existing = configured::machine(options, &domain_policies)?;
    let machine = existing.as_ref().map(|(_, machine)| machine);
    let screen = match machine.map(|machine| &machine.seat) {
        Some(Seat::None) => Screen::None,
        Some(Seat::Kms { card: Some(card) }) => Screen::Card(card.clone()),
        Some(Seat::Kms { card: None }) | None => Screen::First,
    };
    let hardware = hardware::look(pc, &screen)
        .map_err(|why| Stop::refused(format!("{}: {}", why.what(), why.remedy())))?;
    let interfaces = Interfaces::of(pc, caller.ssh_connection.as_deref());
    let basis = Basis {
        images: &options.images,
        domain_policies: &domain_policies,
        existing: machine,
        answers: &answers,
        hardware: &hardware,
        interfaces: &interfaces,
    };
    let proposal = proposal::propose(&basis, dialogue).map_err(unproposed)?;
    let text = existing.as_ref().map(|(text, _)| text.as_str());
    let text = machine_text::write(text, &proposal.decisions).map_err(|error| refused(&error))?;
    let context = Context { images: &options.images, domain_policies: Some(&domain_policies) };
    let name = options.machine.display().to_string();
    let machine = Machine::parse(&name, &text, context).map_err(|found| {
        Stop::refused(format!(
            "what would stand in the machine file does not hold together, and nothing was changed\n{}",
            found.render(false).trim_end()
        ))
    })?;
    if hardware.iommu == hardware::Iommu::On {
        hardware::judge_together(pc, &proposal.nics, &machine.claims())
            .map_err(|why| Stop::refused(format!("{}: {}", why.what(), why.remedy())))?;
    }
    let enable = enable(pc, &answers, dialogue)?;
    let mut notes = proposal.notes;
    notes.extend(machine.keeping_nothing(&domain_policies).iter().map(|found| {
        format!("NOTHING IS KEPT IN {}: {}; {}", found.domain, found.what(), found.remedy())
    }));
    notes.extend(groups::missing(&machine));
    notes.extend(groups::overlaps(&pc.accounts()));
    if enable {
        notes.extend(without_images(&machine, &options.images));
    }
    if !machine.allow_host_network && !proposal.nics.is_empty() {
        notes.extend(interfaces.left(&proposal.nics));
    }
    let goal = plan::Goal {
        machine: &options.machine,
        text,
        answers: &answers,
        hardware: &hardware,
        hands_over: !proposal.nics.is_empty(),
        enable,
    };
    let guests = machine.claims().disks;
    let mut changes = plan::changes(pc, &goal).map_err(|error| refused(&error))?;
    notes.extend(
        encryption::add(pc, options, &answers, &guests, effects, &mut changes)
            .map_err(|error| refused(&error))?,
    );
    let needs_iommu = !proposal.nics.is_empty() && hardware.iommu != hardware::Iommu::On;
    Ok(Needed { changes, notes, afterwards: afterwards(&machine, needs_iommu, enable) })
}

/// Returns what a person has to do once this PC is set up so: `needs_iommu` if its kernel uses the IOMMU from the next start on only, `starts` if the agent
/// starts at each boot.
fn afterwards(machine: &Machine, needs_iommu: bool, starts: bool) -> String {
    let mut said = "look at `bulkhead doctor`".to_owned();
    said += match (needs_iommu, starts) {
        (true, true) => {
            ", and MAKE THE FIRST RESTART A RESCUE START (`bulkhead.rescue` in the boot menu, install.md) to run it once more: only then is it seen whether each NIC can be handed over"
        }
        (true, false) => {
            ", restart the PC, and run it once more: only then is it seen whether each NIC can be handed over"
        }
        (false, _) => {
            "; restart the PC, or, where Bulkhead runs already, `systemctl restart bulkhead-agent` and `bulkhead restart NAME` for each domain that was changed"
        }
    };
    let is_own = |domain: &DomainHardware| matches!(domain.kind, Kind::Vm(_));
    if starts && !machine.allow_host_network && machine.domains.iter().any(is_own) {
        let log_in = match machine.seat {
            Seat::Kms { .. } => " and no log-in on its screen",
            Seat::None => "",
        };
        said += &format!(
            "; FROM THE NEXT ORDINARY START ON THE HOST HAS NO NETWORK{log_in}: settle beforehand how you will reach it (install.md, \"Getting at the host\")"
        );
    }
    said
}

/// Returns what is to be said of desktops without a kernel before the agent starts at each boot.
fn without_images(machine: &Machine, images: &Path) -> Vec<String> {
    let missing = machine.domains.iter().filter_map(|domain| match &domain.kind {
        Kind::Vm(vm) => match &vm.boot {
            Boot::Files { kernel, .. } if !kernel.is_file() => {
                Some((&domain.name, format!("{} is missing; put it there", kernel.display())))
            }
            Boot::Image(name) => {
                let why = Store::at(images).next(name, &domain.name).err()?;
                Some((&domain.name, explain(&why)))
            }
            Boot::Files { .. } => None,
        },
        Kind::External => None,
    });
    let said = missing.map(|(name, why)| {
        format!(
            "AT THE NEXT BOOT {name} DOES NOT COME UP, and this PC has no network and no log-in on its screen either: {why}; do that before you restart the PC"
        )
    });
    said.collect()
}

/// Returns whether the agent is to start at each boot.
fn enable(pc: &Pc, answers: &Answers, dialogue: &mut dyn Dialogue) -> Result<bool, Stop> {
    if let Some(answer) = answers.enable {
        return Ok(answer);
    }
    if change::is_enabled(pc) {
        return Ok(true);
    }
    let question = Question {
        key: "enable".to_owned(),
        text: "Is Bulkhead to start at each boot? From the next one on the host has no network of its own.".to_owned(),
        choices: vec![
            "true: it starts at each boot".to_owned(),
            "false: not yet; `systemctl enable bulkhead-agent` has it start later".to_owned(),
        ],
    };
    let mut unasked = Vec::new();
    match proposal::asked(dialogue, question, &mut unasked).map_err(unproposed)? {
        Some(place) => Ok(place == 0),
        None => Err(unproposed(ProposalError::Unasked(unasked))),
    }
}

fn unproposed(why: ProposalError) -> Stop {
    match why {
        ProposalError::Obstacles(obstacles) => {
            let list: String = obstacles.iter().map(|what| format!("\n* {what}")).collect();
            Stop::refused(format!("this PC cannot be set up, and nothing was changed:{list}"))
        }
        ProposalError::Unasked(questions) => Stop::misused(format!(
            "nobody is here to answer, and nothing was changed; answer in a file (--answers FILE), or run this in a terminal:{}",
            listed(&questions)
        )),
        ProposalError::NotUnderstood(question) => Stop::misused(format!(
            "no answer was understood, and nothing was changed; run this again and write the number of a choice, or answer in a file (--answers FILE):{}",
            listed(&[question])
        )),
    }
}

/// Returns questions with their keys and choices.
fn listed(questions: &[Question]) -> String {
    let list = questions.iter().map(|Question { key, text, choices }| {
        let choices: String = choices.iter().map(|choice| format!("\n    {choice}")).collect();
        format!("\n* `{key}`: {text}{choices}")
    });
    list.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_done_afterwards_goes_by_the_pc_and_not_by_what_this_run_changed() {
        let machine = |text: &str| {
            let context = Context { images: Path::new("/images"), domain_policies: None };
            Machine::parse("machine.toml", &format!("format = 1\n{text}"), context).unwrap()
        };
        let ward = machine("[seat]\nbackend = \"kms\"\n[domain.a]\nkernel = \"k\"\n");
        let blind = machine("[seat]\nbackend = \"none\"\n[domain.a]\nkernel = \"k\"\n");
        let open = machine("allow_host_network = true\n[domain.a]\nkernel = \"k\"\n");
        let external = machine("[domain.a]\nvmm = \"external\"\n");
        let (rescue, network, log_in) = ("RESCUE START", "NO NETWORK", "no log-in");
        let ways = [
            (&ward, true, true, &[rescue, network, log_in][..]),
            (&ward, false, true, &[network, log_in, "bulkhead restart NAME"][..]),
            (&ward, true, false, &["restart the PC, and run it once more"][..]),
            (&ward, false, false, &["bulkhead restart NAME"][..]),
            (&blind, false, true, &[network, "bulkhead restart NAME"][..]),
            (&open, true, true, &[rescue][..]),
            (&external, false, true, &["bulkhead restart NAME"][..]),
        ];
        for (machine, needs_iommu, starts, words) in ways {
            let said = afterwards(machine, needs_iommu, starts);
            for word in [rescue, network, log_in, "bulkhead restart NAME"] {
                assert_eq!(said.contains(word), words.contains(&word), "{word}: {said}");
            }
            assert!(words.iter().all(|word| said.contains(word)), "{said}");
        }
    }
}
