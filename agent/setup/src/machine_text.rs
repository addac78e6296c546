//! The machine file as text: what is decided goes into the file that is there, of which everything else stays as it was written.

use config::machine::HARDWARE;
use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, TableLike, Value};

use crate::proposal::{Decisions, DomainDecision, Image};

/// What a machine file begins with that setup writes.
const FRESH: &str = "\
# Which hardware this ward PC has, and which domain gets it; it grants no flow. Written by `bulkhead setup`, which leaves alone what is changed by hand.
# Every key is explained in the handbook for IT, page machine-file; `bulkhead doctor` says what this PC lacks.
format = 1
";

/// Why the text cannot be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TextError {
    #[error("the machine file is no TOML that can be edited: {0}")]
    Parse(#[from] toml_edit::TomlError),
    #[error(
        "`{0}` of the machine file is no table: write it as a section of its own, and run this again"
    )]
    NoTable(String),
}

/// Writes the decisions into the text of the machine file; `None` where none is filled in.
pub(crate) fn write(text: Option<&str>, decisions: &Decisions) -> Result<String, TextError> {
    let mut document: DocumentMut = text.unwrap_or(FRESH).parse()?;
    if let Some(allow) = decisions.allow_host_network {
        set(document.as_table_mut(), "allow_host_network", allow.into());
    }
    if decisions.screen.is_some() || decisions.card.is_some() {
        let seat = table(document.as_table_mut(), "seat", false)?;
        if let Some(screen) = decisions.screen {
            set(seat, "backend", if screen { "kms" } else { "none" }.into());
            if !screen {
                seat.remove("card");
            }
        }
        if let Some(card) = &decisions.card {
            set(seat, "card", card.into());
        }
    }
    for decision in &decisions.domains {
        let domains = table(document.as_table_mut(), "domain", true)?;
        let domain = table(domains, &decision.name, false)?;
        write_domain(domain, decision);
    }
    Ok(document.to_string())
}

fn write_domain(domain: &mut dyn TableLike, decision: &DomainDecision) {
    let DomainDecision { external, memory, cpus, nic, image, installed, cmdline, .. } = decision;
    if *external {
        if domain.get("vmm").and_then(Item::as_str) != Some("external") {
            // Of hardware an external domain has none.
            for key in HARDWARE {
                domain.remove(key);
            }
            set(domain, "vmm", "external".into());
        }
        return;
    }
    if domain.get("vmm").and_then(Item::as_str) == Some("external") {
        domain.remove("vmm");
    }
    if let Some(memory) = memory {
        set(domain, "memory", memory.into());
    }
    if let Some(cpus) = cpus {
        set(domain, "cpus", i64::from(*cpus).into());
    }
    if let Some(Image { kernel, initrd, cmdline, disks }) = image {
        if let Some(kernel) = kernel {
            set(domain, "kernel", kernel.into());
        }
        if let Some(initrd) = initrd {
            set(domain, "initrd", initrd.into());
        }
        if !cmdline.is_empty() {
            set(domain, "cmdline", cmdline.into());
        }
        if !disks.is_empty() {
            let disks: Array = disks.iter().map(|(path, readonly)| disk(path, *readonly)).collect();
            set(domain, "disks", disks.into());
        }
    }
    if let Some((image, own)) = installed {
        set(domain, "image", image.as_str().into());
        if !own.is_empty() {
            let disks: Array = own.iter().map(|path| disk(path, false)).collect();
            set(domain, "disks", disks.into());
        }
    }
    if let Some(cmdline) = cmdline {
        set(domain, "cmdline", cmdline.into());
    }
    // What a table says as a value, a value can say.
    if let Some(nic) = nic.as_ref().and_then(|text| text.parse::<Value>().ok()) {
        set(domain, "nic", nic);
    }
}

fn disk(path: &str, readonly: bool) -> Value {
    let mut disk = InlineTable::new();
    disk.insert("path", path.into());
    if readonly {
        disk.insert("readonly", true.into());
    }
    Value::InlineTable(disk)
}

/// Returns the table below a key, made where there is none.
fn table<'t>(
    parent: &'t mut dyn TableLike,
    key: &str,
    implicit: bool,
) -> Result<&'t mut dyn TableLike, TextError> {
    let item = parent.entry(key).or_insert_with(|| {
        let mut table = Table::new();
        table.set_implicit(implicit);
        Item::Table(table)
    });
    item.as_table_like_mut().ok_or_else(|| TextError::NoTable(key.to_owned()))
}

/// Sets a value; spaces and the comment behind the former one stay.
fn set(table: &mut dyn TableLike, key: &str, value: Value) {
    let mut value = value;
    let former = table.get(key).and_then(Item::as_value);
    if let Some(former) = former {
        *value.decor_mut() = former.decor().clone();
    } else {
        value.decor_mut().clear();
    }
    table.insert(key, Item::Value(value));
}
