//! The answer file: what setup would ask, answered beforehand, so that it can run with nobody watching.
//!
//! ```toml
//! format = 1
//! enable = true
//! [domain.clinical]
//! nic = { slot = "2" }
//! [roles]
//! it = ["kim"]
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use base::accounts::Accounts;
use config::domain_policies::DomainPolicy;
use config::files::{FileFault, text_given};
use config::machine::{pci, values};
use control::roles::{IT_GROUP, OFFICER_GROUP, USER_GROUP};
use form::diagnostic::{Diagnostic, Diagnostics, Source};
use form::document::{self, Form, Mistake, Value, nearest};
use handover::PciAddress;
use recorder::AUDITOR_GROUP;
use vmm_control::MemorySize;
use vmm_control::limits::CPUS_MAX;

use crate::volume::{UnlockBy, VolumeRequest};

/// The only format there is.
const FORMAT: u32 = 1;
/// Largest answer file, in bytes: a few dozen lines.
const FILE_MAX: u64 = 64 << 10;
/// People whom one file gives one role.
const PEOPLE_MAX: usize = 200;
/// PCRs of a TPM, and the last of them.
const PCRS_MAX: usize = 24;
const HIGHEST_PCR: u8 = 23;
/// Longest name of an account that Linux has, in bytes.
const NAME_MAX: usize = 32;
/// Accounts with which a name that is none is compared.
const COMPARED_MAX: usize = 1000;
/// Longest name of an interface, in bytes (`IFNAMSIZ` less its terminator).
const INTERFACE_MAX: usize = 15;

/// Who may have which role, by the key in the file and the group of the host.
const ROLES: [(&str, &str); 4] = [
    ("user", USER_GROUP),
    ("it", IT_GROUP),
    ("officer", OFFICER_GROUP),
    ("auditor", AUDITOR_GROUP),
];

/// What only a domain that the agent runs has.
const HARDWARE: [&str; 3] = ["nic", "memory", "cpus"];

/// What was answered beforehand.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Answers {
    /// Whether Bulkhead starts at each boot.
    pub(crate) enable: Option<bool>,
    /// Whether the host may have a network besides.
    pub(crate) allow_host_network: Option<bool>,
    /// Whether there is a screen.
    pub(crate) screen: Option<bool>,
    /// The node of the card with the screen.
    pub(crate) card: Option<String>,
    pub(crate) domains: BTreeMap<String, DomainAnswers>,
    /// Groups, and who is to be in them.
    pub(crate) members: Vec<(&'static str, String)>,
    /// Whether state and images go onto an encrypted volume.
    pub(crate) encrypted_state: VolumeRequest,
}

/// What was answered of one domain.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct DomainAnswers {
    /// Whether somebody else runs it.
    pub(crate) external: Option<bool>,
    pub(crate) nic: Option<NicAnswer>,
    pub(crate) memory: Option<MemorySize>,
    pub(crate) cpus: Option<u8>,
}

impl DomainAnswers {
    /// Returns a key of what a domain that somebody else runs has not.
    pub(crate) fn hardware(&self) -> Option<&'static str> {
        let given = [self.nic.is_some(), self.memory.is_some(), self.cpus.is_some()];
        HARDWARE.into_iter().zip(given).find_map(|(key, given)| given.then_some(key))
    }
}

/// Which NIC is meant; everything that is said must hold.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct NicAnswer {
    pub(crate) address: Option<PciAddress>,
    pub(crate) mac: Option<String>,
    pub(crate) slot: Option<String>,
    pub(crate) interface: Option<String>,
}

impl fmt::Display for NicAnswer {
    /// Writes the answer as the file has it: `{ slot = "2" }`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, mac, slot, interface } = self;
        let address = address.as_ref().map(ToString::to_string);
        let given = [("address", &address), ("mac", mac), ("slot", slot), ("interface", interface)];
        let given = given.into_iter().filter_map(|(key, value)| {
            Some(format!("{key} = \"{}\"", printable::line(value.as_ref()?)))
        });
        write!(f, "{{ {} }}", given.collect::<Vec<_>>().join(", "))
    }
}

/// Why there are no answers.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnswersError {
    #[error("cannot read the answer file {path}: {fault}")]
    Read { path: String, fault: FileFault },
    #[error("cannot read this PC's accounts")]
    Accounts(#[from] io::Error),
    #[error("the answer file has mistakes, and nothing was changed\n{}", .0.render(false).trim_end())]
    Mistakes(Diagnostics),
}

/// Returns the groups of the roles.
pub(crate) fn groups() -> impl Iterator<Item = &'static str> {
    ROLES.into_iter().map(|(_, group)| group)
}

/// Reads an answer file, which may name the domains of `domain_policies` and the users among `accounts`.
pub(crate) fn read(
    path: &Path,
    domain_policies: &[DomainPolicy],
    accounts: &Accounts,
) -> Result<Answers, AnswersError> {
    let name = path.display().to_string();
    let text = text_given(path, FILE_MAX)
        .map_err(|fault| AnswersError::Read { path: name.clone(), fault })?;
    parse(&name, &text, domain_policies, &accounts.users()?).map_err(AnswersError::Mistakes)
}

/// Reads the text of one.
pub(crate) fn parse(
    name: &str,
    text: &str,
    domain_policies: &[DomainPolicy],
    users: &BTreeSet<String>,
) -> Result<Answers, Diagnostics> {
    document::read(&Source::new(name, text), |form| whole(form, domain_policies, users))
}

fn whole(
    mut form: Form<'_>,
    domain_policies: &[DomainPolicy],
    users: &BTreeSet<String>,
) -> Option<Answers> {
    form.format(FORMAT, "answer file")?;
    let mut answers = Answers {
        enable: form.optional("enable", Value::boolean),
        allow_host_network: form.optional("allow_host_network", Value::boolean),
        ..Answers::default()
    };
    form.optional("seat", |value| {
        let mut seat = value.form("[seat]")?;
        answers.screen = seat
            .optional("backend", |v| v.choice("a seat backend", &[("kms", true), ("none", false)]));
        answers.card = seat.optional("card", |v| match answers.screen {
            Some(false) => v.wrong(
                "`card` means nothing for a PC without a screen",
                "remove this line, or the line `backend = \"none\"`",
            ),
            _ => v.checked(node(v.string()?)),
        });
        seat.close();
        Some(())
    });
    let sink = form.sink();
    let named = form.optional("domain", |value| Some(value.form("`domain`")?.named()));
    for (name, value) in named.unwrap_or_default() {
        let known = domain_policies.iter().map(|policy| policy.name.as_str());
        if !known.clone().any(|known| known == name.value) {
            let help = match nearest(name.value, known.clone()) {
                Some(near) => format!("did you mean [domain.{near}]?"),
                None => format!("it has: {}", known.collect::<Vec<_>>().join(", ")),
            };
            let message = format!("the policy has no domain `{}`", name.value.escape_debug());
            sink.report(Diagnostic::error(name.span, message, help));
        }
        let Some(form) = value.form(&format!("[domain.{}]", name.value.escape_debug())) else {
            continue;
        };
        answers.domains.insert(name.value.to_owned(), domain(form, name.value));
    }
    form.optional("roles", |value| {
        let mut roles = value.form("[roles]")?;
        for (key, group) in ROLES {
            let people = roles.optional(key, |v| {
                v.list_of(PEOPLE_MAX, |user| user.checked(account(user.string()?, key, users)))
            });
            answers.members.extend(people.into_iter().flatten().map(|user| (group, user)));
        }
        roles.close();
        Some(())
    });
    if let Some(wish) = form.optional("encrypted_state", encrypted_state) {
        answers.encrypted_state = wish;
    }
    form.close();
    Some(answers)
}

fn domain(mut form: Form<'_>, name: &str) -> DomainAnswers {
    let external = form
        .optional("vmm", |v| v.choice("a kind of VMM", &[("bulkhead", false), ("external", true)]));
    if external == Some(true) {
        for key in HARDWARE {
            let _: Option<()> = form.optional(key, |value| {
                value.wrong(
                    format!("`{key}` means nothing for {name}, which an external VMM runs"),
                    "remove this line, or the line `vmm = \"external\"`",
                )
            });
        }
        form.close();
        return DomainAnswers { external, ..DomainAnswers::default() };
    }
    let answers = DomainAnswers {
        external,
        nic: form.optional("nic", nic),
        memory: form.optional("memory", values::memory),
        cpus: form.optional("cpus", |v| v.integer("the number of vCPUs", 1..=CPUS_MAX)),
    };
    form.close();
    answers
}

fn encrypted_state(value: Value<'_>) -> Option<VolumeRequest> {
    let mut form = value.form("[encrypted_state]")?;
    let path = |v: Value<'_>| v.checked(absolute(v.string()?));
    let wish = VolumeRequest {
        volume: form.optional("volume", path),
        erase: form.optional("erase", path),
        unlock: form.optional("unlock", |v| {
            let words = [
                ("tpm2", UnlockBy::Tpm2),
                ("passphrase", UnlockBy::Passphrase),
                ("key-file", UnlockBy::KeyFile),
            ];
            v.choice("what opens the volume", &words)
        }),
        pcrs: form.optional("pcrs", |v| {
            v.list_of(PCRS_MAX, |pcr| pcr.integer("a PCR of the TPM", 0..=HIGHEST_PCR))
        }),
        key_file: form.optional("key_file", path),
        recovery_key_file: form.optional("recovery_key_file", path),
    };
    form.close();
    Some(wish)
}

fn absolute(text: &str) -> Result<PathBuf, Mistake> {
    if text.starts_with('/') && !text.chars().any(char::is_control) {
        return Ok(PathBuf::from(text));
    }
    Err(Mistake::new(
        format!("\"{}\" is not the whole path of a file or device", text.escape_debug()),
        "write it from the root, such as /dev/disk/by-partlabel/state",
    ))
}

fn nic(value: Value<'_>) -> Option<NicAnswer> {
    if !value.is_table() {
        let address = value.checked(pci::pci_address(value.string()?))?;
        return Some(NicAnswer { address: Some(address), ..NicAnswer::default() });
    }
    let mut form = value.form("`nic`")?;
    let answer = NicAnswer {
        address: form.optional("address", |v| v.checked(pci::pci_address(v.string()?))),
        mac: form.optional("mac", |v| v.checked(pci::mac(v.string()?))),
        slot: form.optional("slot", |v| v.checked(pci::slot(v.string()?))),
        interface: form.optional("interface", |v| v.checked(interface(v.string()?))),
    };
    let is_empty = !["address", "mac", "slot", "interface"].iter().any(|key| form.has(key));
    form.close();
    if is_empty {
        return value.wrong(
            "this names no NIC",
            "write one of address, mac, slot and interface, such as nic = { slot = \"2\" }",
        );
    }
    Some(answer)
}

fn interface(text: &str) -> Result<String, Mistake> {
    let fits = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
    if (1..=INTERFACE_MAX).contains(&text.len()) && text.bytes().all(fits) {
        return Ok(text.to_owned());
    }
    Err(Mistake::new(
        format!("\"{}\" is the name of no interface", text.escape_debug()),
        "write it as `ip link` shows it, such as \"enp3s0\"",
    ))
}

fn node(text: &str) -> Result<String, Mistake> {
    if text.starts_with("/dev/") && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    Err(Mistake::new(
        format!("\"{}\" is no device", text.escape_debug()),
        "write its node, such as \"/dev/dri/card0\"",
    ))
}

/// Returns the name of an account that is among `users`, which no program takes for an option.
fn account(text: &str, role: &str, users: &BTreeSet<String>) -> Result<String, Mistake> {
    let first = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    let rest = |byte: u8| first(byte) || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    let fits = text.len() <= NAME_MAX && text.bytes().all(rest);
    if fits && text.bytes().next().is_some_and(first) {
        if users.contains(text) {
            return Ok(text.to_owned());
        }
        let make = format!("make the account (`adduser {text}`), or take the name out");
        let help = match nearest(text, users.iter().take(COMPARED_MAX).map(String::as_str)) {
            Some(near) => format!("did you mean \"{}\"? if not, {make}", near.escape_debug()),
            None => make,
        };
        let message = format!("this PC has no account {text}, which is to have the role `{role}`");
        return Err(Mistake::new(message, help));
    }
    Err(Mistake::new(
        format!("\"{}\" is the name of no account", text.escape_debug()),
        "write a log-in name of this PC's, such as \"kim\"",
    ))
}
