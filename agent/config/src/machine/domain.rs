//! One `[domain.NAME]` of the machine file.

use std::path::Path;

use form::diagnostic::{Diagnostic, Span, Spanned};
use form::document::{Form, Sink, Value, nearest, quoted};
use policy::language::Network;
use vmm_control::MemorySize;
use vmm_control::limits::{CPUS_MAX, DISKS_MAX, PASSTHROUGH_MAX, PORTS_MAX};

use super::pci;
use super::values::{cmdline, image, memory, port_name, serial, word};
use super::{Boot, Context, DOMAINS_MAX, Disk, DomainHardware, Kind, Serial, VmHardware};
use crate::domain_policies::DomainPolicy;
use base::layout::MEDIATORS_PORTS;
use claims::ClaimedFunction;
use images::manifest::HEALTH_PORT;

/// Cores that a domain can have of its own.
const CORES_MAX: u8 = 64;

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
    cores: Option<u8>,
    boot: Option<Boot>,
    pub(crate) disks: Vec<(Disk, Span)>,
    pub(crate) nic: Option<(ClaimedFunction, Span)>,
    pub(crate) passthrough: Vec<(ClaimedFunction, Span)>,
    serial: Serial,
    ports: Vec<String>,
}

impl Draft {
    /// Returns the checked entry; `None` when something that must be there was not (a problem says so).
    pub(crate) fn finish(self) -> Option<DomainHardware> {
        let kind = match self.body {
            Body::External => Kind::External,
            Body::Vm(vm) => Kind::Vm(Box::new(VmHardware {
                memory: vm.memory,
                cpus: vm.cpus,
                cores: vm.cores,
                boot: vm.boot?,
                disks: vm.disks.into_iter().map(|(disk, _)| disk).collect(),
                nic: vm.nic.map(|(wanted, _)| wanted),
                passthrough: vm.passthrough.into_iter().map(|(wanted, _)| wanted).collect(),
                serial: vm.serial,
                ports: vm.ports,
            })),
        };
        Some(DomainHardware { name: self.name, kind })
    }
}

/// Returns every `[domain.NAME]`, in the order of the file; `end` is where one that is missing is reported.
pub(super) fn read_all(top: &mut Form<'_>, end: Span, context: Context<'_>) -> Vec<Draft> {
    let sink = top.sink();
    let is_written = top.has("domain");
    let form = top.optional("domain", |v| match v.is_table() {
        true => v.form("`domain`"),
        false => v.wrong(
            "`domain` is not written as one section for each domain",
            "start each domain with [domain.NAME], in single brackets, NAME being its name in the policy",
        ),
    });
    let mut drafts = Vec::new();
    if is_written && form.is_none() {
        // It is not known which domains are there.
        return drafts;
    }
    let entries = form.map(Form::named).unwrap_or_default();
    if let Some((name, _)) = entries.get(DOMAINS_MAX) {
        let message = format!("more than {DOMAINS_MAX} domains on one PC");
        sink.report(Diagnostic::error(name.span, message, "remove some"));
    }
    for (name, value) in entries.iter().take(DOMAINS_MAX) {
        let Some(form) = value.form(&format!("[domain.{}]", name.value)) else { continue };
        let policy = domain_policy(*name, sink, context.domain_policies);
        drafts.push(read_one(form, *name, policy, context.images));
    }
    let named = |policy: &&DomainPolicy| entries.iter().any(|(name, _)| name.value == policy.name);
    for missing in
        context.domain_policies.unwrap_or_default().iter().filter(|policy| !named(policy))
    {
        sink.report(Diagnostic::error(
            end,
            format!("the policy's domain `{}` has no hardware on this PC", missing.name),
            format!(
                "run `bulkhead setup`, which writes it and can take it back; by hand: add a section [domain.{}] with its kernel, memory and NIC",
                missing.name
            ),
        ));
    }
    drafts
}

fn domain_policy<'a>(
    name: Spanned<&str>,
    sink: &Sink,
    domain_policies: Option<&'a [DomainPolicy]>,
) -> Option<&'a DomainPolicy> {
    let domain_policies = domain_policies?;
    let found = domain_policies.iter().find(|policy| policy.name == name.value);
    if found.is_none() {
        let names: Vec<&str> = domain_policies.iter().map(|policy| policy.name.as_str()).collect();
        let help = match nearest(name.value, names.iter().copied()) {
            Some(near) => format!("did you mean [domain.{near}]?"),
            None => format!(
                "remove it, or ask the security office to add it to the policy, which has: {}",
                names.join(", ")
            ),
        };
        let message = format!("the policy has no domain `{}`", name.value);
        sink.report(Diagnostic::error(name.span, message, help));
    }
    found
}

/// Who runs a domain: whether somebody else does.
const VMM: [(&str, bool); 2] = [("bulkhead", false), ("external", true)];
/// The keys of the hardware of a domain that the agent runs; an external domain has none of them.
pub const HARDWARE: [&str; 12] = [
    "memory",
    "cpus",
    "cores",
    "image",
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
    mut form: Form<'_>,
    name: Spanned<&str>,
    policy: Option<&DomainPolicy>,
    images: &Path,
) -> Draft {
    let vmm = |v: Value<'_>| {
        let help =
            "write `vmm = \"external\"` for a guest somebody else runs, or leave the line out";
        word(v, "a kind of VMM", &VMM, help)
    };
    let body = match form.optional("vmm", vmm) {
        Some(true) => {
            no_hardware(&mut form, name.value);
            Body::External
        }
        _ => Body::Vm(Box::new(read_vm(&mut form, name, policy, images))),
    };
    form.close();
    Draft { name: name.value.to_owned(), body }
}

fn no_hardware(form: &mut Form<'_>, name: &str) {
    for key in HARDWARE {
        let _: Option<()> = form.optional(key, |value| {
            value.wrong(
                format!("`{key}` means nothing for {name}, which an external VMM runs"),
                "remove this line, or the line `vmm = \"external\"`",
            )
        });
    }
}

fn read_vm(
    form: &mut Form<'_>,
    name: Spanned<&str>,
    policy: Option<&DomainPolicy>,
    images: &Path,
) -> VmDraft {
    let disk = |v: Value<'_>| read_disk(v, images);
    let function = |v: Value<'_>| Some((pci::passthrough(v)?, v.span()));
    let boot = read_boot(form, name, images);
    let has_image = matches!(boot, Some(Boot::Image(_)));
    VmDraft {
        memory: form.optional("memory", memory).unwrap_or(MemorySize::DOMAIN_DEFAULT),
        cpus: form
            .optional("cpus", |v| v.integer("the number of vCPUs", 1..=CPUS_MAX))
            .unwrap_or(1),
        cores: form.optional("cores", |v| {
            v.integer("the number of whole cores of its own", 1..=CORES_MAX)
        }),
        boot,
        disks: read_list(form, name, DISKS, disk),
        nic: read_nic(form, name, policy),
        passthrough: read_list(form, name, PASSTHROUGH, function),
        serial: form.optional("serial", |v| v.checked(serial(v.string()?))).unwrap_or_default(),
        ports: read_ports(form, name, has_image),
    }
}

/// What an image brings itself.
const BROUGHT: [&str; 3] = ["kernel", "initrd", "cmdline"];

fn read_boot(form: &mut Form<'_>, name: Spanned<&str>, images: &Path) -> Option<Boot> {
    if form.has("image") {
        for key in BROUGHT {
            let _: Option<()> = form.optional(key, |value| {
                value.wrong(
                    format!("`{key}` stands beside `image`, which brings its own"),
                    "remove this line, or the line with `image`; a disk that the guest writes stays among `disks`",
                )
            });
        }
        return form.optional("image", Value::parsed).map(Boot::Image);
    }
    let file = |v: Value<'_>| v.checked(image(images, v.string()?));
    let kernel = form.required("kernel", &quoted(&format!("{}/vmlinuz", name.value)), file);
    let initrd = form.optional("initrd", file);
    let cmdline = form.optional("cmdline", |v| v.checked(cmdline(v.string()?))).unwrap_or_default();
    Some(Boot::Files { kernel: kernel?, initrd, cmdline })
}

/// A key with a list.
#[derive(Clone, Copy)]
struct List {
    key: &'static str,
    /// Entries it may have.
    most: usize,
    /// What an entry looks like, for messages.
    entry: &'static str,
}

const DISKS: List = List { key: "disks", most: DISKS_MAX, entry: "{ path = … }" };
const PASSTHROUGH: List =
    List { key: "passthrough", most: PASSTHROUGH_MAX - 1, entry: "{ address = … }" };
/// Most ports of a guest that a machine file names.
const NAMED_PORTS_MAX: usize = 16;
// A VMM takes them with those of all mediators and the one on which a guest says that it is up.
const _: () = assert!(NAMED_PORTS_MAX + MEDIATORS_PORTS.len() < PORTS_MAX);
const PORTS: List = List { key: "ports", most: NAMED_PORTS_MAX, entry: "\"…\"" };

/// Returns a disk as the file has it.
fn disk_of(path: &str) -> String {
    format!("{{ path = {} }}", quoted(path))
}

/// Reads what can be read of a list.
fn read_list<T>(
    form: &mut Form<'_>,
    domain: Spanned<&str>,
    List { key, most, entry }: List,
    read: impl Fn(Value<'_>) -> Option<T>,
) -> Vec<T> {
    let list = form.optional(key, |value| match value.text() {
        // One disk's file; one of what else there are lists of is written as it is, in brackets.
        Some(path) if key == DISKS.key => {
            value.not_a("a list", format!("write [{}]", disk_of(path)))
        }
        // What stands below such a header, and was meant for the domain, would be lost to it.
        _ if value.has_headers() => value.wrong(
            format!("`{key}` is one list, and double brackets start a table of its own"),
            format!("write {key} = [{entry}, {entry}] below [domain.{}]", domain.value),
        ),
        _ => value.list(most),
    });
    let list = list.unwrap_or_default();
    list.into_iter().filter_map(read).collect()
}

fn read_disk(value: Value<'_>, images: &Path) -> Option<(Disk, Span)> {
    if let Some(path) = value.text() {
        return value.not_a("a disk", format!("write it as {}", disk_of(path)));
    }
    let mut form = value.form("a disk")?;
    let path = form.required("path", "\"root.img\"", |v| {
        Some((v.checked(image(images, v.string()?))?, v.span()))
    });
    let readonly = form.optional("readonly", Value::boolean).unwrap_or(false);
    form.close();
    let (path, span) = path?;
    Some((Disk { path, readonly }, span))
}

fn read_nic(
    form: &mut Form<'_>,
    name: Spanned<&str>,
    policy: Option<&DomainPolicy>,
) -> Option<(ClaimedFunction, Span)> {
    let network = policy.map(|policy| policy.network);
    if !form.has("nic") && network == Some(Network::Passthrough) {
        form.sink().report(Diagnostic::error(
            name.span,
            format!("{} has no NIC, and the policy gives it a network of its own", name.value),
            "add `nic = \"0000:00:05.0\"` with the address `lspci -D` shows",
        ));
    }
    form.optional("nic", |value| {
        let wanted = pci::nic(value)?;
        match network {
            Some(Network::None) => value.wrong(
                format!("{} is given a NIC, and the policy says it has no network", name.value),
                "remove this line, or have the policy changed to network = \"passthrough\"",
            ),
            Some(Network::Vlan) => value.wrong(
                format!("{} is given a whole NIC, and the policy says it has a VLAN", name.value),
                "have the policy changed to network = \"passthrough\"; VLANs are not available yet in this version",
            ),
            Some(Network::Passthrough) | None => Some((wanted, value.span())),
        }
    })
}

fn read_ports(form: &mut Form<'_>, domain: Spanned<&str>, has_image: bool) -> Vec<String> {
    let sink = form.sink();
    let port = |v: Value<'_>| Some(v.spanned(v.checked(port_name(v.string()?))?));
    let ports = read_list(form, domain, PORTS, port);
    sink.all_different(
        ports.iter().map(|port| (port.value.as_str(), port.span)),
        |port, span, first| {
            let message = format!("port `{port}` is named twice");
            Diagnostic::error(span, message, "remove one of them").and(first, "the other one")
        },
    );
    let mut ports: Vec<String> = ports.into_iter().map(|port| port.value).collect();
    // Every guest may have a clipboard; the policy says what crosses. That of an image may say that it is up.
    let health = has_image.then_some(HEALTH_PORT);
    for port in MEDIATORS_PORTS.iter().copied().chain(health) {
        if !ports.iter().any(|named| named == port) {
            ports.push(port.to_owned());
        }
    }
    ports
}
