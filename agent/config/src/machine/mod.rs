//! The machine file: which hardware this PC has, and which domain gets it. Written by IT; grants
//! no flow. The format is described in `docs/it/machine-file.md`.
//!
//! [`Machine::parse`] is strict: an unknown key, a wrong type or a contradiction is a diagnostic with
//! its place, and all of them are reported at once. Whether the named files and devices exist
//! is not asked here, so that a PC with one broken domain still starts the others: `bulkhead
//! doctor` and the start of the domain tell.

mod audit_limits;
mod domain;
pub mod pci;
mod sharing;
#[cfg(test)]
mod tests;
pub mod values;

use std::path::{Path, PathBuf};
use std::time::Duration;

use form::diagnostic::{Diagnostics, Source, Span};
use form::document::{self, Form, Value};
use vmm_control::MemorySize;
use vmm_control::limits::DISKS_MAX;

use crate::domain_policies::DomainPolicy;
use claims::{ClaimedFunction, Claims, PciAddress, Screen};
use images::manifest::{ImageName, Manifest, Version};

pub use domain::HARDWARE;

/// The only format there is.
const FORMAT: u32 = 1;
/// How long a guest may take to shut down when the machine file says nothing.
pub const STOP_DEADLINE_DEFAULT: Duration = Duration::from_secs(30);
/// Domains one PC may have; each costs memory and a NIC long before this.
const DOMAINS_MAX: usize = 16;

/// A machine file that held together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// What the `[seat]` table says of screen and input.
    pub seat: Seat,
    /// IT took the risk of a host with an IP network.
    pub allow_host_network: bool,
    /// How long a guest has to shut down after its power button was pressed.
    pub stop_deadline: Duration,
    /// How much of the audit log is kept.
    pub audit: audit::Limits,
    /// The domains, in the order of the policy (of the file, when there was no policy to follow).
    pub domains: Vec<DomainHardware>,
}

/// One `[domain.NAME]`: who runs the domain, and on which hardware.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainHardware {
    /// Its name, as in the policy.
    pub name: String,
    /// Whether the agent runs its VMM, with which hardware, or somebody else does.
    pub kind: Kind,
}

/// Who runs a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// The agent, as a `bulkhead-vmm`.
    Vm(Box<VmHardware>),
    /// Somebody else; the agent only mediates.
    External,
}

/// What a domain run by the agent is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmHardware {
    pub memory: MemorySize,
    pub cpus: u8,
    /// Cores of the PC that no other domain's VMM runs on; `None` if it has none of its own.
    pub cores: Option<u8>,
    /// What its guest starts from.
    pub boot: Boot,
    /// Disks, in the order the guest sees them; behind those of the image, if it starts from one.
    pub disks: Vec<Disk>,
    /// The NIC handed over.
    pub nic: Option<ClaimedFunction>,
    /// Other functions handed over.
    pub passthrough: Vec<ClaimedFunction>,
    /// Where the first serial port goes.
    pub serial: Serial,
    /// Named console ports, each a socket `<runtime>/<domain>/<name>.sock`.
    pub ports: Vec<String>,
}

impl VmHardware {
    /// Returns every PCI function handed over, the NIC first.
    pub fn pci_functions(&self) -> impl Iterator<Item = PciAddress> + '_ {
        self.pci_devices().map(|wanted| wanted.address)
    }

    /// Returns the same, with what the machine file says of each.
    pub fn pci_devices(&self) -> impl Iterator<Item = &ClaimedFunction> + '_ {
        self.nic.iter().chain(&self.passthrough)
    }

    /// Checks that an image can run on it: its memory, its disks beside those of the machine file, and this version of Bulkhead.
    ///
    /// # Errors
    /// It cannot.
    pub fn fits(&self, image: &Manifest) -> Result<(), HardwareMismatch> {
        let Manifest { name, serial, needs, .. } = image;
        let (name, serial) = (name.clone(), *serial);
        if let Some(needed) = needs.memory.filter(|it| it.bytes() > self.memory.bytes()) {
            return Err(HardwareMismatch::Memory { name, serial, needed, given: self.memory });
        }
        if let Some(needed) = needs.bulkhead.filter(|needed| *needed > Version::own()) {
            return Err(HardwareMismatch::Bulkhead { name, serial, needed, own: Version::own() });
        }
        let (brought, own) = (image.disks(), self.disks.len());
        if brought.saturating_add(own) > DISKS_MAX {
            return Err(HardwareMismatch::Disks { name, serial, brought, own });
        }
        Ok(())
    }
}

/// Why an image cannot run on a domain's hardware, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HardwareMismatch {
    #[error(
        "image {name} {serial} needs a memory of {needed}, and machine.toml gives this domain {given}: write `memory = \"{needed}\"`"
    )]
    Memory { name: ImageName, serial: u64, needed: MemorySize, given: MemorySize },
    #[error(
        "image {name} {serial} needs Bulkhead {needed} or newer, and this is {own}: update Bulkhead, or roll back"
    )]
    Bulkhead { name: ImageName, serial: u64, needed: Version, own: Version },
    #[error(
        "image {name} {serial} has {brought} disks, machine.toml gives this domain {own}, and a guest has at most {DISKS_MAX}: remove some of `disks`"
    )]
    Disks { name: ImageName, serial: u64, brought: usize, own: usize },
}

/// What a guest starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Boot {
    /// Files that IT laid down.
    Files {
        /// Kernel image, absolute.
        kernel: PathBuf,
        /// Initial RAM disk, absolute.
        initrd: Option<PathBuf>,
        /// Kernel command line.
        cmdline: String,
    },
    /// An image that was installed, with the disks that it brings.
    Image(ImageName),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Raw image or block device, absolute.
    pub path: PathBuf,
    /// Whether the guest may only read it.
    pub readonly: bool,
}

/// Where a guest's serial port goes: `serial = "..."`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Serial {
    /// Its output is thrown away.
    #[default]
    Null,
    /// A file; relative to `<state>/log`.
    File(PathBuf),
}

/// What the seat has for a screen: the `[seat]` table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seat {
    /// A screen by KMS; the card, or the first one that has a screen.
    Kms { card: Option<PathBuf> },
    /// No seat: the command line does what the hotkeys do.
    None,
}

/// What a machine file is read against.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Where relative images lie.
    pub images: &'a Path,
    /// The policy's domains; `None` leaves the two files' agreement unchecked.
    pub domain_policies: Option<&'a [DomainPolicy]>,
}

/// A domain whose guest loses all that is saved in it when it restarts, though the policy has it kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeepsNothing {
    /// The domain's name.
    pub domain: String,
}

impl KeepsNothing {
    /// Returns what is wrong, as a sentence.
    #[must_use]
    pub fn what(&self) -> String {
        format!(
            "nothing that is saved in {0} outlives its restart: the policy says persistence = \"keep\", and the machine file gives it no disk that it may write",
            self.domain
        )
    }

    /// Returns what to do.
    #[must_use]
    pub fn remedy(&self) -> String {
        format!(
            "unless {0}/home.img is in the folder of images already, make it there (`[ -e {0}/home.img ] || {{ mkdir -p {0} && truncate -s 16G {0}/home.img && mke2fs -t ext4 -m 0 -L {0} {0}/home.img; }}`); put {{ path = \"{0}/home.img\" }} behind what `disks` of [domain.{0}] in the machine file has; then `systemctl restart bulkhead-agent` and `bulkhead restart {0}`. Or have the policy say persistence = \"discard\"",
            self.domain
        )
    }
}

impl Machine {
    /// Reads a machine file. `source_name` is what the messages call it.
    ///
    /// # Errors
    /// Every problem in it, in the order of the file.
    pub fn parse(source_name: &str, text: &str, context: Context<'_>) -> Result<Self, Diagnostics> {
        let source = Source::new(source_name, text);
        let end = text.trim_end().len();
        document::read(&source, |form| read(form, Span { start: end, end }, context))
    }

    /// Returns what handing functions over has to know of the whole file.
    #[must_use]
    pub fn claims(&self) -> Claims {
        let mut claims = Claims {
            screen: match &self.seat {
                Seat::None => Screen::None,
                Seat::Kms { card: None } => Screen::First,
                Seat::Kms { card: Some(card) } => Screen::Card(card.clone()),
            },
            ..Claims::default()
        };
        for DomainHardware { name, kind } in &self.domains {
            let Kind::Vm(vm) = kind else { continue };
            claims.domains.extend(vm.pci_functions().map(|address| (address, name.clone())));
            claims.disks.extend(vm.disks.iter().map(|disk| disk.path.clone()));
        }
        claims
    }

    /// Returns each domain that is to keep what its guest saves, by its policy, and has no disk that its guest may write; with the words for it and the remedy.
    #[must_use]
    pub fn keeping_nothing(&self, domain_policies: &[DomainPolicy]) -> Vec<KeepsNothing> {
        let keeps = |name: &str| domain_policies.iter().any(|it| it.name == name && !it.discard);
        let writes = |kind: &Kind| match kind {
            Kind::Vm(vm) => vm.disks.iter().any(|disk| !disk.readonly),
            // Whoever runs its VMM gives it its disks.
            Kind::External => true,
        };
        let found = self.domains.iter().filter(|it| keeps(&it.name) && !writes(&it.kind));
        found.map(|it| KeepsNothing { domain: it.name.clone() }).collect()
    }

    /// Returns the entry of a domain.
    #[must_use]
    pub fn domain(&self, name: &str) -> Option<&DomainHardware> {
        self.domains.iter().find(|entry| entry.name == name)
    }
}

fn read(mut form: Form<'_>, end: Span, context: Context<'_>) -> Option<Machine> {
    form.format(FORMAT, "machine file")?;
    let seat = form.optional("seat", |v| Some(read_seat(v.form("[seat]")?)));
    let allow_host_network = form.optional("allow_host_network", Value::boolean);
    let stop_deadline =
        form.optional("stop_deadline", |v| values::time(v, "the time to shut down"));
    let audit = form.optional("audit", |v| Some(audit_limits::read(v.form("[audit]")?)));
    let drafts = domain::read_all(&mut form, end, context);
    sharing::check(form.sink(), &drafts, context.domain_policies);
    form.close();
    let mut domains: Vec<DomainHardware> =
        drafts.into_iter().filter_map(domain::Draft::finish).collect();
    if let Some(domain_policies) = context.domain_policies {
        domains.sort_by_key(|entry| domain_policies.iter().position(|m| m.name == entry.name));
    }
    Some(Machine {
        seat: seat.unwrap_or(Seat::None),
        allow_host_network: allow_host_network.unwrap_or(false),
        stop_deadline: stop_deadline.unwrap_or(STOP_DEADLINE_DEFAULT),
        audit: audit.unwrap_or_default(),
        domains,
    })
}

/// Whether there is a screen.
const BACKENDS: [(&str, bool); 2] = [("kms", true), ("none", false)];

fn read_seat(mut form: Form<'_>) -> Seat {
    let card = form.optional("card", |v| v.string().map(PathBuf::from));
    let screen = form.optional("backend", |v| {
        let help = "write `backend = \"kms\"` for a screen, or `backend = \"none\"`";
        values::word(v, "a seat backend", &BACKENDS, help)
    });
    form.close();
    match screen.unwrap_or(true) {
        true => Seat::Kms { card },
        false => Seat::None,
    }
}
