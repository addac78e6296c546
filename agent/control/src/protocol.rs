//! What the agent answers over the control socket; what it is asked is in [`super::commands`].

use serde::{Deserialize, Serialize};

use crate::reports::{ConfiguredInterface, NicReport, PressureReport, SeatReport, UsbReport};

/// Longest request line, in bytes.
pub const REQUEST_MAX: usize = 4096;
/// Longest request line of those who may apply a policy, which is in it.
pub const APPLY_MAX: usize = 16 << 20;
/// Longest answer line, in bytes: a policy may be in it.
pub const ANSWER_MAX: usize = 16 << 20;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Whether it was done.
    pub ok: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The outcome in words, where its asker should know more than `ok` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words: Option<String>,
    /// The answer to `status`.
    #[serde(default, flatten, skip_serializing_if = "Option::is_none")]
    pub status: Option<StatusReport>,
    /// How far an operation of the clipboard is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clipboard: Option<ClipboardReport>,
    /// The USB devices plugged in, where the answer has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usb: Option<Vec<UsbReport>>,
    /// The answer to `policy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_text: Option<String>,
}

impl Answer {
    /// Answers that it is done, or why not.
    #[must_use]
    pub fn of(result: Result<Option<StatusReport>, String>) -> Self {
        match result {
            Ok(status) => Self {
                ok: true,
                error: None,
                words: None,
                status,
                clipboard: None,
                usb: None,
                policy_text: None,
            },
            Err(error) => Self { error: Some(error), ok: false, ..Self::of(Ok(None)) },
        }
    }

    /// Answers with the text of the policy in force.
    #[must_use]
    pub fn of_policy(text: String) -> Self {
        Self { policy_text: Some(text), ..Self::of(Ok(None)) }
    }

    /// Answers with the USB devices.
    #[must_use]
    pub fn of_usb(list: Vec<UsbReport>) -> Self {
        Self { usb: Some(list), ..Self::of(Ok(None)) }
    }

    /// Answers how far an operation of the clipboard is.
    #[must_use]
    pub fn of_clipboard(report: ClipboardReport) -> Self {
        Self { clipboard: Some(report), ..Self::of(Ok(None)) }
    }
}

/// An operation of the clipboard that the command line asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClipboardReport {
    pub ticket: u64,
    /// How far it is.
    pub state: ClipboardState,
    /// Whether it did what it was pressed for, once it has ended.
    pub done: bool,
    /// The policy's verdict, if it was asked.
    pub verdict: Option<String>,
    /// The rule that decided.
    pub rule: Option<String>,
    /// The question, or how it ended.
    pub words: String,
}

impl ClipboardReport {
    /// Makes the report of an operation that has not ended.
    #[must_use]
    pub fn new(ticket: u64, state: ClipboardState, words: String) -> Self {
        Self { ticket, state, done: false, verdict: None, rule: None, words }
    }
}

/// How far an operation of the clipboard is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClipboardState {
    /// It is under way.
    Pending,
    /// A person has to say yes.
    Question,
    /// The operation has ended: `done` and `words` say how.
    Ended,
}

/// The state of the agent, its domains and its log, for `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReport {
    pub agent: AgentReport,
    /// The policy in force.
    pub policy: PolicyReport,
    /// Whether the audit log is written, and how far it is.
    pub audit: AuditReport,
    /// The host's own network.
    pub host_network: HostNetworkReport,
    /// Screen, keyboard and pointer.
    #[serde(default)]
    pub seat: SeatReport,
    /// Seconds until break-glass closes, while it is open.
    #[serde(default)]
    pub break_glass_seconds: Option<u64>,
    /// The domains, in the policy's order.
    pub domains: Vec<DomainReport>,
    /// What a person should know, in words.
    pub notes: Vec<String>,
}

impl StatusReport {
    /// Returns what is not as a ward needs it, in words: nothing can be recorded, or a domain is down that should not be. Empty, all is
    /// well.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        if !self.audit.ok {
            let why = self.audit.problem.as_deref().unwrap_or("the agent gives no reason");
            failures.push(format!("nothing can be recorded, so nothing crosses: {why}"));
        }
        failures.extend(self.domains.iter().filter_map(DomainReport::is_down));
        failures
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentReport {
    pub version: String,
    pub pid: u32,
    /// Seconds it has run.
    pub for_seconds: u64,
    /// Whether it is on its way out.
    pub stopping: bool,
    /// Whether it is built to survive the death of one of its threads, as what is shipped is.
    #[serde(default)]
    pub unwinds: bool,
}

/// The policy in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyReport {
    /// Where it was read.
    pub file: String,
    /// The policy's serial, which only grows.
    pub serial: u64,
    /// Who answers for the policy, as it says itself.
    pub issuer: String,
    /// Whether enough trusted officers signed it.
    pub signed: bool,
    #[serde(default)]
    pub signers: Vec<String>,
    /// Why this is the last good policy and not the one in the file.
    #[serde(default)]
    pub refused: Option<String>,
}

/// The state of the audit log, for `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditReport {
    /// Whether it is written.
    pub ok: bool,
    /// The number of its last entry; `None` where it could not be opened.
    pub entries: Option<u64>,
    /// Why it is not written, and nothing crosses.
    pub problem: Option<String>,
    /// What was wrong with its end when it was opened.
    #[serde(default)]
    pub broken: Option<String>,
    /// Why the state directory was found to be older than the agent remembers.
    #[serde(default)]
    pub went_back: Option<String>,
}

/// The host's own network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostNetworkReport {
    /// Whether the rule is kept: no configured IP interface but loopback, or no domain that the
    /// agent starts.
    pub ok: bool,
    /// Whether `allow_host_network` overrides it.
    pub allowed: bool,
    /// The host's configured interfaces but loopback.
    pub interfaces: Vec<ConfiguredInterface>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainReport {
    pub name: String,
    /// What people call it.
    pub label: String,
    /// `off`, `preparing`, `waiting`, `starting`, `running`, `stopping`, `releasing`, `retrying`,
    /// or `external`.
    pub state: String,
    /// Seconds it has been in that state.
    pub for_seconds: u64,
    /// Whether it is to run.
    pub wanted: bool,
    /// The process ID of its VMM, while there is one.
    pub pid: Option<i32>,
    /// VMMs started again after a failure.
    pub restarts: u64,
    /// Whether the VMM has stopped answering; its guest runs on.
    pub silent: bool,
    /// Seconds until it is tried again, when `retrying`.
    pub retry_in_seconds: Option<u64>,
    /// What last went wrong.
    pub problem: Option<String>,
    /// `passthrough`, `vlan` or `none`.
    pub network: String,
    /// Whether a SPICE agent runs in its guest, so that it can copy and paste.
    #[serde(default)]
    pub clipboard_agent: bool,
    /// What it has wanted more of than it got, for two minutes or longer.
    #[serde(default)]
    pub pressure: Vec<PressureReport>,
    /// Its PCI functions, the NIC first.
    pub pci: Vec<NicReport>,
}

/// Returns whether a state's word says that the guest runs.
#[must_use]
pub fn is_up(state: &str) -> bool {
    matches!(state, "running" | "external")
}

/// Returns whether a state's word says that the domain is on its way, up or down.
#[must_use]
pub fn is_on_its_way(state: &str) -> bool {
    matches!(state, "preparing" | "waiting" | "starting" | "stopping" | "releasing")
}

/// Seconds after which a VMM that has not answered since it was started is no slow one.
const ANSWER_SECONDS: u64 = 60;

impl DomainReport {
    /// Returns why it is down though it should not be; `None` if it runs, is on its way, or is off because somebody, or its guest, wanted
    /// that.
    #[must_use]
    pub fn is_down(&self) -> Option<String> {
        let Self { name, state, wanted, problem, for_seconds, .. } = self;
        let up = is_up(state);
        let mute = state == "starting" && *for_seconds >= ANSWER_SECONDS;
        if !wanted || up || !(state == "retrying" || mute || problem.is_some()) {
            return None;
        }
        Some(match problem {
            Some(problem) => format!("{name} is down ({state}): {problem}"),
            None if mute => {
                format!("{name} is down: its VMM has not answered for {for_seconds} s")
            }
            None => format!("{name} is down ({state})"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(state: &str, wanted: bool, problem: Option<&str>, for_seconds: u64) -> DomainReport {
        DomainReport {
            name: "clinical".to_owned(),
            label: "CLINICAL".to_owned(),
            state: state.to_owned(),
            for_seconds,
            wanted,
            pid: None,
            restarts: 0,
            silent: false,
            retry_in_seconds: None,
            problem: problem.map(str::to_owned),
            network: "none".to_owned(),
            clipboard_agent: false,
            pressure: Vec::new(),
            pci: Vec::new(),
        }
    }

    #[test]
    fn a_domain_is_down_if_it_should_run_and_does_not_for_a_fault() {
        for (state, wanted, problem, seconds) in [
            ("retrying", true, Some("its NIC is gone"), 1),
            ("preparing", true, Some("its NIC is gone"), 1),
            ("starting", true, None, 60),
        ] {
            let why = domain(state, wanted, problem, seconds).is_down();
            assert!(why.is_some_and(|why| why.contains("clinical is down")), "{state}");
        }
        for (state, wanted, problem, seconds) in [
            ("running", true, None, 1),
            ("external", true, None, 1),
            ("preparing", true, None, 1),
            ("starting", true, None, 59),
            ("off", false, Some("the guest did not shut down in time"), 1),
            ("stopping", false, None, 1),
        ] {
            let why = domain(state, wanted, problem, seconds).is_down();
            assert_eq!(why, None, "{state}");
        }
    }

    #[test]
    fn an_answer_without_status_is_short_and_reads_back() {
        let text = serde_json::to_string(&Answer::of(Err("no".into()))).unwrap();
        assert_eq!(text, r#"{"ok":false,"error":"no"}"#);
        assert_eq!(serde_json::from_str::<Answer>(&text).unwrap(), Answer::of(Err("no".into())));
    }
}
