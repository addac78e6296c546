//! What worked on a PC before an update, and so has to work after it: read from what `bulkhead status --json` says. Pure.
//!
//! Whichever version's command line was asked, the other version reads the answer: the few keys that are read here keep their names, which a test holds to
//! the types that the agent answers with.

use std::collections::BTreeSet;

use control::protocol::{is_on_its_way, is_up};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What works on a PC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkingState {
    /// The domains whose guests run.
    #[serde(default)]
    pub domains: BTreeSet<String>,
    /// The plug of the screen that the agent drives, as `HDMI-A-1`; none if it drives none.
    #[serde(default)]
    pub screen: Option<String>,
    /// The serial of the policy, if it is the one in the file.
    #[serde(default)]
    pub policy: Option<u64>,
    /// The audit log is written.
    #[serde(default)]
    pub audit: bool,
}

/// What an agent says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentStatus {
    works: WorkingState,
    /// Domains that are off because somebody, or their guests, wanted that.
    off: BTreeSet<String>,
    /// A domain is on its way up.
    coming: bool,
}

impl AgentStatus {
    /// Reads what `bulkhead status --json` wrote; `None` if that holds no status.
    #[must_use]
    pub fn read(json: &[u8]) -> Option<Self> {
        let status: Value = serde_json::from_slice(json).ok()?;
        // An answer without a status has nothing of it, and this always is.
        status.get("agent").filter(|agent| agent.is_object())?;
        let text = |value: &Value, key: &str| value.get(key)?.as_str().map(ToOwned::to_owned);
        let mut said = Self::default();
        for domain in status.get("domains").and_then(Value::as_array).into_iter().flatten() {
            let Some(name) = text(domain, "name") else { continue };
            let state = text(domain, "state").unwrap_or_default();
            if is_up(&state) {
                said.works.domains.insert(name);
            } else if domain.get("wanted").and_then(Value::as_bool) == Some(false) {
                said.off.insert(name);
            } else if is_on_its_way(&state) {
                said.coming = true;
            }
        }
        if let Some(seat) = status.get("seat")
            && text(seat, "backend").as_deref() == Some("kms")
        {
            let plug = |screen: String| screen.split(' ').next().map(ToOwned::to_owned);
            said.works.screen = text(seat, "screen").and_then(plug);
        }
        if let Some(policy) = status.get("policy")
            && policy.get("refused").is_none_or(Value::is_null)
        {
            said.works.policy = policy.get("serial").and_then(Value::as_u64);
        }
        let audit = status.get("audit").and_then(|audit| audit.get("ok")?.as_bool());
        said.works.audit = audit.unwrap_or(false);
        Some(said)
    }

    /// Returns whether more works soon: a domain is on its way up.
    #[must_use]
    pub const fn is_on_its_way(&self) -> bool {
        self.coming
    }

    /// Returns what works.
    #[must_use]
    pub fn works(self) -> WorkingState {
        self.works
    }
}

impl WorkingState {
    /// Returns what worked and does not any more, in words; nothing of what did not work before, of a domain that somebody switched off, or of a
    /// screen that somebody pulled out: `is_pulled` says that of a plug.
    #[must_use]
    pub fn lost(&self, now: &AgentStatus, is_pulled: impl Fn(&str) -> bool) -> Vec<String> {
        let AgentStatus { works, off, .. } = now;
        let down = self.domains.iter().filter(|name| !works.domains.contains(*name));
        let down = down.filter(|name| !off.contains(*name));
        let mut lost: Vec<String> =
            down.map(|name| format!("the domain {} does not run", printable::line(name))).collect();
        if let Some(plug) = &self.screen
            && works.screen.is_none()
            && !is_pulled(plug)
        {
            lost.push(format!("the screen at {} is not driven", printable::line(plug)));
        }
        if let Some(serial) = self.policy
            && works.policy.is_none_or(|now| now < serial)
        {
            lost.push(format!("the policy with the serial {serial} is not taken from its file"));
        }
        if self.audit && !works.audit {
            lost.push("the audit log is not written".to_owned());
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use control::protocol::{Answer, StatusReport};
    use control::reports::SeatReport;

    /// What the command line writes of an agent's answer: its types say which keys there are.
    fn said(clinical: &str, screen: &str, policy: &str, audit: bool) -> AgentStatus {
        let domain = |name: &str, state: &str| {
            format!(
                "{{\"name\": \"{name}\", \"label\": \"\", \"for_seconds\": 9, \"restarts\": 0, \"silent\": false, \"network\": \"none\", \"pci\": [], {state}}}"
            )
        };
        let text = format!(
            "{{\"agent\": {{\"version\": \"0.2.0\", \"pid\": 1, \"for_seconds\": 9, \"stopping\": false}},
                \"policy\": {{\"file\": \"p\", \"serial\": 7, \"issuer\": \"\", \"signed\": true, \"refused\": {policy}}},
                \"audit\": {{\"ok\": {audit}}}, \"host_network\": {{\"ok\": true, \"allowed\": false, \"interfaces\": []}},
                \"domains\": [{}, {}], \"notes\": []}}",
            domain("clinical", clinical), domain("internet", UP)
        );
        let mut report: StatusReport = serde_json::from_str(&text).unwrap();
        let screen = serde_json::from_str(screen).unwrap();
        report.seat = SeatReport { backend: "kms".to_owned(), screen, ..SeatReport::default() };
        let answer = Answer::of(Ok(Some(report)));
        AgentStatus::read(serde_json::to_string(&answer).unwrap().as_bytes()).unwrap()
    }

    const UP: &str = "\"state\": \"running\", \"wanted\": true";
    const DOWN: &str = "\"state\": \"retrying\", \"wanted\": true";
    const OFF: &str = "\"state\": \"off\", \"wanted\": false";
    const SCREEN: &str = "\"HDMI-A-1 1920x1080\"";

    #[test]
    fn what_worked_before_has_to_work_and_what_did_not_does_not() {
        let well = said(UP, SCREEN, "null", true);
        let worked = well.clone().works();
        assert_eq!(worked.screen.as_deref(), Some("HDMI-A-1"));
        let never = |_: &str| false;
        assert!(worked.lost(&well, never).is_empty());
        for (now, says) in [
            (said(DOWN, SCREEN, "null", true), "the domain clinical does not run"),
            (said(UP, "null", "null", true), "the screen at HDMI-A-1 is not driven"),
            (said(UP, SCREEN, "\"its line 3\"", true), "the policy with the serial 7"),
            (said(UP, SCREEN, "null", false), "the audit log is not written"),
        ] {
            let lost = worked.lost(&now, never);
            assert!(lost.len() == 1 && lost[0].contains(says), "{lost:?}");
            // Where it was so before, it is no fault of the update's.
            assert!(now.clone().works().lost(&now, never).is_empty());
            assert!(now.works().lost(&well, never).is_empty());
        }
        // A domain that there is no more; an agent of which nothing can be read.
        let nothing = AgentStatus::read(b"{\"agent\": {}}").unwrap();
        assert_eq!(worked.lost(&nothing, never).len(), 5);
    }

    #[test]
    fn what_somebody_switched_off_or_pulled_out_meanwhile_is_not_held_against_the_update() {
        let worked = said(UP, SCREEN, "null", true).works();
        assert!(worked.lost(&said(OFF, SCREEN, "null", true), |_| false).is_empty());
        assert!(worked.lost(&said(UP, "null", "null", true), |plug| plug == "HDMI-A-1").is_empty());
    }

    #[test]
    fn a_domain_that_is_on_its_way_up_is_waited_for_and_one_that_fails_or_is_off_is_not() {
        let starting = "\"state\": \"starting\", \"wanted\": true";
        assert!(said(starting, SCREEN, "null", true).is_on_its_way());
        for other in [UP, DOWN, OFF] {
            assert!(!said(other, SCREEN, "null", true).is_on_its_way());
        }
    }

    #[test]
    fn whatever_is_no_status_says_nothing() {
        for text in ["", "{", "[]", "{\"ok\": true}", "{\"agent\": null}", "{\"agent\": 3}"] {
            assert_eq!(AgentStatus::read(text.as_bytes()), None, "{text}");
        }
        let odd = b"{\"agent\": {}, \"domains\": [1, {\"name\": 2}, {}], \"seat\": [], \"policy\": 1, \"audit\": null}";
        assert_eq!(AgentStatus::read(odd), Some(AgentStatus::default()));
    }
}
