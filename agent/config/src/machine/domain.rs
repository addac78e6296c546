//! One `[domain.NAME]` of the machine file.

use std::path::{Path, PathBuf};

use policy::language::Network;
use toml_edit::{Table, TableLike, Value};
use vmm_control::MemorySize;
use vmm_control::limits::{CMDLINE_MAX, CPUS_MAX, DISKS_MAX, PASSTHROUGH_MAX, PORTS_MAX};

use super::pci::{self, element};
use super::reader::{Reader, Span, with_article};
use super::values::{self, Wrong};
use super::{Context, DOMAINS_MAX, Disk, DomainEntry, Kind, Serial, VmHardware};
use crate::roster::Member;
use clipboard::service::GUEST_PORT;
use handover::Wanted;

/// A domain as read, with the places that later checks point at.
pub(crate) struct Draft {
    pub(crate) name: String,
    pub(crate) body: Body,
}

pub(crate) enum Body {
    External,
    /// Boxed: large beside the other.
    Vm(Box<VmDraft>),
}

pub(crate) struct VmDraft {
    memory: MemorySize,
    cpus: u8,
    kernel: Option<PathBuf>,
    initrd: Option<PathBuf>,
    cmdline: String,
    pub(crate) disks: Vec<(Disk, Span)>,
    pub(crate) nic: Option<(Wanted, Span)>,
    pub(crate) passthrough: Vec<(Wanted, Span)>,
    serial: Serial,
    ports: Vec<String>,
}

impl Draft {
    /// The checked entry; `None` when something that must be there was not (a problem says so).
    pub(crate) fn finish(self) -> Option<DomainEntry> {
        let kind = match self.body {
            Body::External => Kind::External,
            Body::Vm(vm) => Kind::Vm(Box::new(VmHardware {
                memory: vm.memory,
                cpus: vm.cpus,
                kernel: vm.kernel?,
                initrd: vm.initrd,
                cmdline: vm.cmdline,
                disks: vm.disks.into_iter().map(|(disk, _)| disk).collect(),
                nic: vm.nic.map(|(wanted, _)| wanted),
                passthrough: vm.passthrough.into_iter().map(|(wanted, _)| wanted).collect(),
                serial: vm.serial,
                ports: vm.ports,
            })),
        };
        Some(DomainEntry { name: self.name, kind })
    }
}

pub(crate) fn read_all(reader: &mut Reader, top: &Table, context: Context<'_>) -> Vec<Draft> {
    let domains = reader.table(top, "domain").map(|(table, _)| table);
    let mut drafts = Vec::new();
    if let Some(domains) = domains {
        for (name, item) in domains.iter() {
            let header = super::reader::key_span(domains, name).unwrap_or(0..0);
            if drafts.len() >= DOMAINS_MAX {
                reader.problem(
                    header,
                    format!("more than {DOMAINS_MAX} domains on one PC"),
                    "remove some",
                );
                break;
            }
            let Some(table) = item.as_table_like() else {
                reader.problem(
                    header,
                    format!("`{name}` is not a domain"),
                    format!("write its hardware under a header [domain.{name}]"),
                );
                continue;
            };
            let member = member(reader, name, &header, context.roster);
            drafts.push(read_one(reader, name, &header, table, member, context.images));
        }
    }
    let named = |name: &str| domains.is_some_and(|domains| domains.contains_key(name));
    for missing in context.roster.unwrap_or_default().iter().filter(|m| !named(&m.name)) {
        reader.problem(
            reader.end..reader.end,
            format!("the policy's domain `{}` has no hardware on this PC", missing.name),
            format!("add a section [domain.{}] with its kernel, memory and NIC", missing.name),
        );
    }
    drafts
}

fn member<'a>(
    reader: &mut Reader,
    name: &str,
    header: &Span,
    roster: Option<&'a [Member]>,
) -> Option<&'a Member> {
    let roster = roster?;
    let found = roster.iter().find(|member| member.name == name);
    if found.is_none() {
        let names: Vec<&str> = roster.iter().map(|member| member.name.as_str()).collect();
        let help = match policy::document::nearest(name, names.iter().copied()) {
            Some(near) => format!("did you mean [domain.{near}]?"),
            None => format!(
                "remove it, or ask the security office to add it to the policy, which has: {}",
                names.join(", ")
            ),
        };
        reader.problem(header.clone(), format!("the policy has no domain `{name}`"), help);
    }
    found
}

const VM_KEYS: &[&str] = &[
    "vmm",
    "memory",
    "cpus",
    "kernel",
    "initrd",
    "cmdline",
    "disks",
    "nic",
    "passthrough",
    "serial",
    "ports",
];

fn read_one(
    reader: &mut Reader,
    name: &str,
    header: &Span,
    table: &dyn TableLike,
    member: Option<&Member>,
    images: &Path,
) -> Draft {
    let place = format!("[domain.{name}]");
    reader.only_known(table, VM_KEYS, &place);
    let external = match reader.string(table, "vmm") {
        Some(("external", _)) => true,
        Some(("bulkhead", _)) | None => false,
        Some((other, span)) => {
            reader.problem(
                span,
                format!("`{other}` is not a kind of VMM"),
                "write `vmm = \"external\"` for a guest somebody else runs, or leave the line out",
            );
            false
        }
    };
    let body = if external {
        no_hardware(reader, name, table);
        Body::External
    } else {
        Body::Vm(Box::new(read_vm(reader, name, header, table, member, images)))
    };
    Draft { name: name.to_owned(), body }
}

fn no_hardware(reader: &mut Reader, name: &str, table: &dyn TableLike) {
    for (key, item) in table.iter().filter(|(key, _)| *key != "vmm" && VM_KEYS.contains(key)) {
        let span = super::reader::key_span(table, key).or_else(|| item.span()).unwrap_or(0..0);
        reader.problem(
            span,
            format!("`{key}` means nothing for {name}, which an external VMM runs"),
            "remove this line, or the line `vmm = \"external\"`",
        );
    }
}

fn read_vm(
    reader: &mut Reader,
    name: &str,
    header: &Span,
    table: &dyn TableLike,
    member: Option<&Member>,
    images: &Path,
) -> VmDraft {
    let file = |reader: &mut Reader, key| reader.parsed(table, key, |text| image(images, text));
    let kernel = file(reader, "kernel");
    if !table.contains_key("kernel") {
        reader.problem(
            header.clone(),
            format!("{name} has no kernel"),
            "add `kernel = \"...\"`, absolute or relative to the images directory",
        );
    }
    VmDraft {
        memory: reader
            .parsed(table, "memory", values::memory)
            .unwrap_or(MemorySize::DOMAIN_DEFAULT),
        cpus: read_cpus(reader, table),
        kernel,
        initrd: file(reader, "initrd"),
        cmdline: reader.parsed(table, "cmdline", cmdline).unwrap_or_default(),
        disks: read_disks(reader, table, images),
        nic: read_nic(reader, name, header, table, member),
        passthrough: capped(reader, table, "passthrough", PASSTHROUGH_MAX - 1)
            .into_iter()
            .filter_map(|(value, span)| Some((pci::passthrough(reader, value, &span)?, span)))
            .collect(),
        serial: reader.parsed(table, "serial", serial).unwrap_or_default(),
        ports: read_ports(reader, table),
    }
}

fn read_cpus(reader: &mut Reader, table: &dyn TableLike) -> u8 {
    let Some((count, span)) = reader.integer(table, "cpus") else { return 1 };
    match u8::try_from(count) {
        Ok(count) if (1..=CPUS_MAX).contains(&count) => count,
        _ => {
            reader.problem(
                span,
                format!("cpus = {count} is out of range"),
                format!("write 1 to {CPUS_MAX}"),
            );
            1
        }
    }
}

fn read_disks(reader: &mut Reader, table: &dyn TableLike, images: &Path) -> Vec<(Disk, Span)> {
    let mut disks = Vec::new();
    for (value, span) in capped(reader, table, "disks", DISKS_MAX) {
        let Some(entry) = value.as_inline_table() else {
            reader.problem(
                span,
                format!("a disk is {} here", with_article(value.type_name())),
                "write it as { path = \"root.img\", readonly = true }",
            );
            continue;
        };
        reader.only_known(entry, &["path", "readonly"], "a disk");
        if !entry.contains_key("path") {
            reader.problem(span, "this disk has no path", "add `path = \"...\"`");
            continue;
        }
        let place = reader.string(entry, "path").map_or(span, |(_, span)| span);
        let readonly = reader.boolean(entry, "readonly").unwrap_or(false);
        if let Some(path) = reader.parsed(entry, "path", |text| image(images, text)) {
            disks.push((Disk { path, readonly }, place));
        }
    }
    disks
}

fn read_nic(
    reader: &mut Reader,
    name: &str,
    header: &Span,
    table: &dyn TableLike,
    member: Option<&Member>,
) -> Option<(Wanted, Span)> {
    let network = member.map(|member| member.network);
    let Some(item) = table.get("nic") else {
        if network == Some(Network::Passthrough) {
            reader.problem(
                header.clone(),
                format!("{name} has no NIC, and the policy gives it a network of its own"),
                "add `nic = \"0000:00:05.0\"` with the address `lspci -D` shows",
            );
        }
        return None;
    };
    let span = item.span().unwrap_or_else(|| header.clone());
    let wanted = pci::nic(reader, table, item, span.clone())?;
    match network {
        Some(Network::None) => reader.problem(
            span.clone(),
            format!("{name} is given a NIC, and the policy says it has no network"),
            "remove this line, or have the policy changed to network = \"passthrough\"",
        ),
        Some(Network::Vlan) => reader.problem(
            span.clone(),
            format!("{name} is given a whole NIC, and the policy says it has a VLAN"),
            "have the policy changed to network = \"passthrough\"; VLANs are not available yet in this version",
        ),
        Some(Network::Passthrough) | None => {}
    }
    Some((wanted, span))
}

fn read_ports(reader: &mut Reader, table: &dyn TableLike) -> Vec<String> {
    let mut ports: Vec<String> = Vec::new();
    for (value, span) in capped(reader, table, "ports", PORTS_MAX - 1) {
        let Some(port) = element(reader, value, &span, "ports", values::port_name) else {
            continue;
        };
        if ports.contains(&port) {
            reader.problem(span, format!("port `{port}` is named twice"), "remove one of them");
        } else {
            ports.push(port);
        }
    }
    // Every guest may have a clipboard; the policy says what crosses.
    if !ports.iter().any(|port| port == GUEST_PORT) {
        ports.push(GUEST_PORT.to_owned());
    }
    ports
}

fn capped<'a>(
    reader: &mut Reader,
    table: &'a dyn TableLike,
    key: &str,
    most: usize,
) -> Vec<(&'a Value, Span)> {
    let mut list = reader.list(table, key);
    if let Some((_, span)) = list.get(most) {
        reader.problem(
            span.clone(),
            format!("`{key}` has more than {most} entries"),
            "remove some",
        );
        list.truncate(most);
    }
    list
}

fn image(images: &Path, text: &str) -> Result<PathBuf, Wrong> {
    if text.is_empty() {
        return Err(("an empty path names no file".to_owned(), "write the file's name".to_owned()));
    }
    // It would hide in a log.
    if text.chars().any(char::is_control) {
        return Err((
            "a path with a control character is not taken".to_owned(),
            "rename the file".to_owned(),
        ));
    }
    Ok(images.join(text))
}

fn cmdline(text: &str) -> Result<String, Wrong> {
    if text.len() > CMDLINE_MAX {
        return Err((
            format!("the command line has {} bytes", text.len()),
            format!("Linux takes at most {CMDLINE_MAX}; shorten it"),
        ));
    }
    if text.chars().any(char::is_control) {
        return Err((
            "the command line holds a control character".to_owned(),
            "write it on one line, with spaces between its words".to_owned(),
        ));
    }
    Ok(text.to_owned())
}

fn serial(text: &str) -> Result<Serial, Wrong> {
    match text.split_once('=') {
        None if text == "null" => Ok(Serial::Null),
        Some(("file", file)) if !file.is_empty() && !file.chars().any(char::is_control) => {
            Ok(Serial::File(PathBuf::from(file)))
        }
        _ => Err((
            format!("`{text}` is nowhere a serial port can go"),
            "write serial = \"null\" or serial = \"file=NAME\"".to_owned(),
        )),
    }
}
