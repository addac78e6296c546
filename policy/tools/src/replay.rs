//! `bulkhead policy replay`: what a policy would have decided of flows that were decided before.
//!
//! A record holds no content. A detector that looked then is believed; one that did not cannot be asked now, and is named.

use policy::Policy;
use policy::decide::{Decision, Paste};
use policy::language::MediaType;
use policy::request::{Context, UsbDescription, UsbRequest};

use crate::explain::{Explanation, explain_paste, explain_settled};

/// A flow that was decided, as the record of it says.
#[derive(Clone, Debug)]
pub enum RecordedFlow {
    /// Something was to be pasted.
    Paste {
        /// The domain it was copied in.
        from: String,
        /// The domain it was to come into.
        to: String,
        media_type: MediaType,
        bytes: u64,
        /// The detectors that found something.
        hits: Vec<String>,
        /// The detectors that looked.
        inspected: Vec<String>,
        /// Why the content itself could not cross under any policy.
        unfit: Option<String>,
    },
    /// A USB device was to come into a domain.
    Device {
        /// What it was, with what its HID functions showed themselves to be.
        device: UsbDescription,
        /// The domain to which somebody attached it by hand.
        to: Option<String>,
        /// Whether break-glass was open.
        break_glass: bool,
    },
}

/// What a policy decides of a recorded flow.
#[derive(Clone, Debug)]
pub struct ReplayedVerdict {
    pub verdict: Decision,
    /// The rule that decides; `None` where none matches.
    pub rule: Option<String>,
    /// Why it was decided so, in a sentence.
    pub reason: String,
    /// Detectors that would have to look and did not look then: what one of them finds would deny the flow.
    pub unasked: Vec<String>,
}

impl RecordedFlow {
    /// Returns the flow in words.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Paste { from, to, media_type, bytes, .. } => {
                let size = printable::counted(*bytes, "byte", "bytes");
                format!("{from} to {to}, {}, {size}", media_type.word())
            }
            Self::Device { device, to: Some(to), .. } => format!("{device} by hand to {to}"),
            Self::Device { device, to: None, .. } => device.to_string(),
        }
    }

    /// Decides on it again.
    #[must_use]
    pub fn decided_by(&self, policy: &Policy) -> ReplayedVerdict {
        match self {
            Self::Paste { from, to, media_type, bytes, hits, inspected, unfit } => {
                let media_type = *media_type;
                let paste = Paste { from, to, media_type, content: None, size: Some(*bytes) };
                let explanation = explain_paste(policy, &paste);
                let hit = explanation.inspect.iter().find(|name| hits.contains(name));
                match (unfit, hit) {
                    // Damaged, or not what it claimed to be: no policy lets that through.
                    (Some(unfit), _) => ReplayedVerdict::denied(&explanation, unfit.clone()),
                    (None, Some(name)) => {
                        let reason = format!("the detector {name} found something then");
                        ReplayedVerdict::denied(&explanation, reason)
                    }
                    (None, None) => {
                        let asked = explanation.inspect.iter();
                        let unasked = asked.filter(|name| !inspected.contains(name)).cloned();
                        ReplayedVerdict {
                            unasked: unasked.collect(),
                            ..ReplayedVerdict::of(explanation)
                        }
                    }
                }
            }
            Self::Device { device, to, break_glass } => {
                let request = UsbRequest { device: device.device(), to: to.as_deref() };
                // What the record does not say of an input device, the device did not say either.
                let context = Context { break_glass: *break_glass };
                ReplayedVerdict::of(explain_settled(policy, &request, &context))
            }
        }
    }
}

impl ReplayedVerdict {
    fn of(explanation: Explanation) -> Self {
        let Explanation { verdict, rule, reason, .. } = explanation;
        Self { verdict, rule, reason, unasked: Vec::new() }
    }

    fn denied(explanation: &Explanation, reason: String) -> Self {
        let (verdict, rule) = (Decision::Deny, explanation.rule.clone());
        Self { verdict, rule, reason, unasked: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: &str = "[[clipboard]]\nid = \"in\"\nfrom = \"internet\"\nto = \"clinical\"\ntypes = [\"text/plain\"]\n\
                        action = \"allow\"\ninspect = [\"korean-rrn\", \"kr-phone\"]\n";

    fn paste(hits: &[&str], inspected: &[&str], unfit: Option<&str>) -> ReplayedVerdict {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let text = format!("{}{RULE}", crate::STARTER);
        let policy = Policy::parse("policy.toml", &text).unwrap();
        let recorded = RecordedFlow::Paste {
            from: "internet".to_owned(),
            to: "clinical".to_owned(),
            media_type: MediaType::TextPlain,
            bytes: 10,
            hits: owned(hits),
            inspected: owned(inspected),
            unfit: unfit.map(str::to_owned),
        };
        assert_eq!(recorded.words(), "internet to clinical, text/plain, 10 bytes");
        recorded.decided_by(&policy)
    }

    #[test]
    fn a_detector_that_looked_then_is_believed_and_one_that_did_not_is_named() {
        let both = ["korean-rrn", "kr-phone"];
        let clean = paste(&[], &both, None);
        assert_eq!((clean.verdict, clean.unasked.len()), (Decision::Allow, 0));
        let unasked = paste(&[], &["kr-phone"], None);
        assert_eq!(
            (unasked.verdict, unasked.unasked),
            (Decision::Allow, vec!["korean-rrn".into()])
        );
        let hit = paste(&["kr-phone"], &both, None);
        assert_eq!((hit.verdict, hit.rule.as_deref()), (Decision::Deny, Some("in")));
        assert!(hit.reason.contains("kr-phone"));
        let unfit = paste(&[], &both, Some("no picture"));
        assert_eq!((unfit.verdict, unfit.reason.as_str()), (Decision::Deny, "no picture"));
    }
}
