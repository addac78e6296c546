//! What is said of a device: entries for the audit log, and texts for the screen.

use std::collections::BTreeMap;

use audit::AuditEvent;
use audit::events::{
    UsbAttached, UsbCounted, UsbDetached, UsbFailed, UsbJudged, UsbUnreadable, Verdict,
};
use policy::Policy;
use usbfilter::{Counts, Rules};

use super::device::{Device, NO_DRIVER_REMEDY};
use crate::grant::UsbGrant;
use crate::lifecycle::{Detaching, NO_DRIVER, Note, Notice, UNRECORDED};
use usbsysfs::Identity;

/// What to do with a device that breaks the rules.
const REMEDY: &str =
    "Plug it in again. If it is blocked again, take another one, and give this one to IT.";

impl Device {
    /// Returns the entry of a note, under this policy; nothing if it is about a verdict that was never reached.
    pub(super) fn entry(
        &self,
        note: Note,
        policy: &Policy,
        break_glass: bool,
    ) -> Option<AuditEvent> {
        let bus_id = self.id.as_str().to_owned();
        Some(match note {
            Note::Denied => (**self.verdict.as_ref()?).clone().into(),
            Note::Turned => UsbJudged {
                domain: None,
                verdict: Verdict::Deny,
                rule: None,
                policy: policy.serial(),
                break_glass,
                bus_id,
                device: self.identity.as_ref().map(Identity::text).unwrap_or_default(),
                name: None,
                request: None,
                seat_keeps_interfaces: None,
                to: None,
            }
            .into(),
            Note::Failed { request, why } => UsbFailed { bus_id, request, why }.into(),
            Note::Unreadable { request, why } => UsbUnreadable { bus_id, request, why }.into(),
            Note::NotAttached { domain, why } => not_attached(domain, bus_id, why),
            Note::Detached { detaching, counts } => detached(bus_id, detaching, counts.as_ref()),
            Note::Counted { detaching, counts } => UsbCounted {
                domain: detaching.domain,
                bus_id,
                bytes_to_device: counts.to_device,
                bytes_to_guest: counts.to_guest,
                commands: commands(&counts),
                refused: counts.refused,
                why: detaching.why,
            }
            .into(),
        })
    }

    /// Returns the entry that says that it is attached, as it is granted.
    pub(super) fn attached(&self, grant: &UsbGrant) -> UsbAttached {
        UsbAttached {
            domain: grant.domain.clone(),
            bus_id: self.id.as_str().to_owned(),
            request: self.lifecycle.request(),
        }
    }

    /// Returns the entry of the verdict that gives it to this domain; nothing if there was none.
    pub(super) fn given(&self, domain: String) -> Option<UsbJudged> {
        let verdict = (**self.verdict.as_ref()?).clone();
        Some(UsbJudged { domain: Some(domain), ..verdict })
    }

    /// Returns the text of a notice. Questions about the policy go to its issuer.
    pub(super) fn text(&self, notice: Notice, issuer: &str) -> String {
        let shown = self.shown();
        match notice {
            Notice::NotUsed(why) => format!("{shown} is not used:\n{why}."),
            Notice::RestNotUsed(why) => format!("{shown}: {why}."),
            Notice::Denied(why) if self.lifecycle.kept().is_some() => {
                format!("{shown}: {why}.\nQuestions: {issuer}")
            }
            Notice::Denied(why) => {
                format!("{shown} is blocked.\nThe policy: {why}.\nQuestions: {issuer}")
            }
            Notice::NotConnected(why) => format!("{shown} is not connected:\n{why}."),
            Notice::Unrecorded => format!("{shown} is not connected:\n{UNRECORDED}. Call IT."),
            Notice::Connected(grant) => {
                let without = match grant.rules {
                    Rules::ReadOnly => ", without writing",
                    Rules::Allow if grant.share.is_whole() => "",
                    Rules::Allow => ",\nwithout its keyboard or mouse",
                };
                let connected = format!("{shown} connected to {}{without}", grant.label);
                let lines: Vec<String> =
                    [connected].into_iter().chain(self.limits(&grant)).collect();
                lines.join("\n")
            }
            Notice::Disconnected(label, why) => {
                format!("{shown} disconnected from {label}:\n{why}.")
            }
            Notice::Blocked(why) => format!("{shown} is blocked:\n{why}.\n{REMEDY}"),
            Notice::NoDriver => format!("{shown}:\n{NO_DRIVER}.\n{NO_DRIVER_REMEDY}."),
        }
    }
}

/// Returns the entry that a device whose entry says it is attached is not.
#[must_use]
pub fn not_attached(domain: String, bus_id: String, why: String) -> AuditEvent {
    UsbDetached {
        domain,
        bus_id,
        bytes_to_device: None,
        bytes_to_guest: None,
        commands: None,
        device_hangs: None,
        refused: None,
        request: None,
        why,
    }
    .into()
}

/// Returns the entry that it has left, and what was transferred, if that is known.
fn detached(bus_id: String, detaching: Detaching, counts: Option<&Counts>) -> AuditEvent {
    UsbDetached {
        domain: detaching.domain,
        bus_id,
        bytes_to_device: counts.map(|counts| counts.to_device),
        bytes_to_guest: counts.map(|counts| counts.to_guest),
        commands: counts.map(commands),
        device_hangs: detaching.until.is_none().then_some(true),
        refused: counts.map(|counts| counts.refused),
        request: detaching.request,
        why: detaching.why,
    }
    .into()
}

/// Returns SCSI commands by operation code, in two hexadecimal digits.
fn commands(counts: &Counts) -> BTreeMap<String, u64> {
    counts.commands.iter().map(|(code, times)| (format!("{code:02x}"), *times)).collect()
}
