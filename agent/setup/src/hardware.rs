//! What this PC has, as far as setup decides by it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use handover::host_use::{HostUse, Screen};
use handover::judge::{self, HandoverRefusal};
use handover::processor::{Vendor, has_flag};
use handover::{Claims, PciAddress, Role};
use hostpci::Function;

use crate::Pc;

/// Network controllers that are looked at: more than a PC has slots.
const NICS_MAX: usize = 64;

/// What this PC has.
#[derive(Debug)]
pub(crate) struct Hardware {
    /// The NICs that can be handed over.
    pub(crate) nics: Vec<Nic>,
    /// Why the others cannot, each with its remedy.
    pub(crate) unfit: Vec<String>,
    /// The graphics cards, by the name of their nodes.
    pub(crate) cards: Vec<Card>,
    /// Memory in MiB, if the kernel says so.
    pub(crate) memory_mib: Option<u64>,
    /// Processors that Linux sees.
    pub(crate) cpus: u8,
    pub(crate) vendor: Vendor,
    /// Whether the processor virtualises: its flag says so, or KVM is there without it.
    pub(crate) virtualises: bool,
    pub(crate) iommu: Iommu,
}

/// Whether there is an IOMMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Iommu {
    /// The kernel uses it.
    On,
    /// Firmware announces it, and the kernel does not use it.
    Offered,
    /// Firmware announces none.
    Missing,
}

/// A graphics card and the monitors on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Card {
    /// Its node: `/dev/dri/card0`, or the name of it that stays where cards are added.
    pub(crate) node: String,
    /// The outputs that a monitor is connected to: `HDMI-A-1`.
    pub(crate) connected: Vec<String>,
}

/// A NIC that can be handed over.
#[derive(Debug, Clone)]
pub(crate) struct Nic {
    pub(crate) function: Function,
    /// Whether a cable is in each of its interfaces.
    links: BTreeMap<String, Link>,
}

/// Whether a cable is in an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Up,
    Down,
    /// The interface is off, and does not say.
    Unknown,
}

impl Nic {
    /// Returns whether one of its interfaces has this name.
    pub(crate) fn carries(&self, interface: &str) -> bool {
        self.function.interfaces.iter().any(|own| own.name == interface)
    }

    /// Returns whether one of its interfaces has this MAC address.
    pub(crate) fn has_mac(&self, mac: &str) -> bool {
        self.function.interfaces.iter().any(|own| own.mac.as_deref() == Some(mac))
    }
}

impl fmt::Display for Nic {
    /// Writes the NIC in a line: `0000:03:00.0, enp3s0 (52:54:00:12:34:56, cable in), slot 2, 8086:10d3, driver e1000e`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Function { address, interfaces, places, driver, .. } = &self.function;
        write!(f, "{address}")?;
        for interface in interfaces {
            let link = match self.links.get(&interface.name) {
                Some(Link::Up) => "cable in",
                Some(Link::Down) => "no cable",
                Some(Link::Unknown) | None => "switched off",
            };
            let mac = interface.mac.as_deref().unwrap_or("no MAC address");
            write!(f, ", {} ({mac}, {link})", printable::line(&interface.name))?;
        }
        let slots: Vec<String> =
            places.iter().map(|place| printable::line(place).to_string()).collect();
        match slots.as_slice() {
            [] => write!(f, ", no slot")?,
            slots => write!(f, ", slot {}", slots.join(" or "))?,
        }
        write!(f, ", {}, driver {}", self.function.id(), driver.as_deref().unwrap_or("none"))
    }
}

/// Looks at the PC.
///
/// # Errors
/// Nobody knows what the host lives from, so that no device can be given away.
pub(crate) fn look(pc: &Pc, screen: &Screen) -> Result<Hardware, HandoverRefusal> {
    let cpuinfo = pc.proc_text("cpuinfo");
    let iommu = iommu(pc);
    let host_use = HostUse::look(&pc.sysfs, screen, &[]).map_err(HandoverRefusal::HostUnknown)?;
    let (mut nics, mut unfit) = (Vec::new(), Vec::new());
    for address in pc.sysfs.network_controllers().into_iter().take(NICS_MAX) {
        match nic(pc, address, iommu, &host_use) {
            Ok(nic) => nics.push(nic),
            Err(refused) => unfit.push(format!("{}: {}", refused.what(), refused.remedy())),
        }
    }
    let processors = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    Ok(Hardware {
        nics,
        unfit,
        cards: cards(pc),
        memory_mib: memory_mib(pc),
        cpus: u8::try_from(processors).unwrap_or(u8::MAX).max(1),
        vendor: Vendor::of(&cpuinfo),
        virtualises: has_flag(&cpuinfo, "vmx") || has_flag(&cpuinfo, "svm") || opens_kvm(pc),
        iommu,
    })
}

/// Asks of one NIC what the hand-over will ask. Its IOMMU group is known only where the IOMMU is on.
fn nic(
    pc: &Pc,
    address: PciAddress,
    iommu: Iommu,
    host_use: &HostUse,
) -> Result<Nic, HandoverRefusal> {
    let function = pc.sysfs.inspect(address)?;
    judge::kind(&function, Role::Nic)?;
    judge::not_in_use(&function, host_use)?;
    judge::usable(&pc.sysfs, &function)?;
    if iommu == Iommu::On {
        judge::isolated(&pc.sysfs, &function, "", &Claims::default(), host_use)?;
    }
    let device = pc.sysfs.pci_device(address).join("net");
    let links = function.interfaces.iter();
    let links = links.map(|own| (own.name.clone(), link(&device.join(&own.name)))).collect();
    Ok(Nic { function, links })
}

/// Asks once more, now that it is known which domain gets what: one IOMMU group is never two domains'.
pub(crate) fn judge_together(
    pc: &Pc,
    nics: &[(&Nic, &str)],
    claims: &Claims,
) -> Result<(), HandoverRefusal> {
    let host_use = HostUse::look(&pc.sysfs, &claims.screen, &claims.disks)
        .map_err(HandoverRefusal::HostUnknown)?;
    for (nic, domain) in nics {
        judge::not_in_use(&nic.function, &host_use)?;
        judge::isolated(&pc.sysfs, &nic.function, domain, claims, &host_use)?;
    }
    Ok(())
}

fn link(interface: &Path) -> Link {
    // An interface that is off has no carrier to read.
    match fs::read_to_string(interface.join("carrier")).as_deref().map(str::trim) {
        Ok("1") => Link::Up,
        Ok("0") => Link::Down,
        _ => Link::Unknown,
    }
}

/// Returns whether KVM can be opened, which is what a guest needs: a PC that is itself virtual may hide the flag.
fn opens_kvm(pc: &Pc) -> bool {
    File::options().read(true).write(true).open(pc.root.join("dev/kvm")).is_ok()
}

fn iommu(pc: &Pc) -> Iommu {
    let groups = fs::read_dir(pc.sysfs.path("kernel/iommu_groups")).map_or(0, Iterator::count);
    // Firmware announces an IOMMU that is switched on by one of these ACPI tables.
    let tables = pc.sysfs.path("firmware/acpi/tables");
    match groups {
        0 if ["DMAR", "IVRS"].iter().any(|table| tables.join(table).exists()) => Iommu::Offered,
        0 => Iommu::Missing,
        _ => Iommu::On,
    }
}

fn memory_mib(pc: &Pc) -> Option<u64> {
    let text = pc.proc_text("meminfo");
    let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
    Some(line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()? / 1024)
}

fn cards(pc: &Pc) -> Vec<Card> {
    let folder = pc.sysfs.path("class/drm");
    let names = crate::names_in(&folder);
    let is_card = |name: &&String| {
        name.strip_prefix("card")
            .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    };
    let card = |name: &String| {
        let outputs = format!("{name}-");
        let connected = names.iter().filter_map(|output| {
            let short = output.strip_prefix(&outputs)?;
            let status = fs::read_to_string(folder.join(output).join("status")).ok()?;
            (status.trim() == "connected").then(|| short.to_owned())
        });
        Card { node: node(pc, &folder.join(name), name), connected: connected.collect() }
    };
    names.iter().filter(is_card).map(card).collect()
}

/// Returns the name of a card's node that does not change when a card is added, where there is one.
fn node(pc: &Pc, card: &Path, name: &str) -> String {
    let device: PathBuf = fs::canonicalize(card.join("device")).unwrap_or_default();
    let address = device.file_name().and_then(|last| PciAddress::from_full(last.to_str()?).ok());
    if let Some(address) = address {
        let stable = format!("dev/dri/by-path/pci-{address}-card");
        if pc.root.join(&stable).exists() {
            return format!("/{stable}");
        }
    }
    format!("/dev/dri/{name}")
}
