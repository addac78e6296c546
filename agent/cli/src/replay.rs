//! `bulkhead policy replay`: what a draft would have decided otherwise, for the flows that are in the audit log.
//!
//! | entry of kind | what is read of it |
//! | --- | --- |
//! | [`ClipboardPaste`] | `from`, `to`, `type`, `bytes`; `hits`, the detectors that found something; `unfit`, why the content itself could not cross |
//! | [`UsbJudged`] | `device`, as `--device` of `explain` takes it, with what its HID functions showed themselves to be; `to`, if somebody attached it by hand; `break_glass` |
//!
//! The log holds no content. A detector that looked then is believed; one that did not cannot be asked now, and is named.

use std::io;
use std::path::Path;

use audit::events::{ClipboardPaste, UsbJudged, Verdict};
use audit::{AuditEvent, Entry, Filter, Flaws, Follower};
use policy::Policy;
use policy::request::UsbDescription;
use policy_tools::replay::{RecordedFlow, ReplayedVerdict};
use serde::Serialize;

use super::audit::{cannot_read, does_not_hold, local_time, read_to_the_end};
use super::explain::media_type;
use super::{Common, Outcome, complain, in_force, print};

/// Differences that are listed; the rest are counted.
const LISTED_MAX: usize = 1000;

/// One flow that would come out otherwise.
#[derive(Debug, Serialize)]
struct Difference {
    seq: u64,
    time: String,
    /// The same as a person here reads a clock.
    #[serde(skip)]
    local: String,
    kind: String,
    flow: String,
    was: String,
    would_be: String,
    rule: Option<String>,
    reason: String,
    /// Detectors that would have to look and did not look then.
    unasked: Vec<String>,
}

#[derive(Debug, Default, Serialize)]
struct Replay {
    /// Entries of the log, whether or not they are wanted.
    entries: u64,
    flows: u64,
    different: u64,
    /// Entries of flows that do not say what they were.
    unreadable: u64,
    differences: Vec<Difference>,
}

pub(super) fn replay(common: &Common, file: Option<&Path>, log: &Path, filter: &Filter) -> Outcome {
    let policy = match in_force::read(common, file) {
        Ok(policy) => policy,
        Err(outcome) => return outcome,
    };
    let mut replay = Replay::default();
    let mut go = || -> io::Result<Option<Flaws>> {
        let mut follower = Follower::open(log)?;
        read_to_the_end(&mut follower, |_, entry| {
            replay.entries += 1;
            if filter.wants(&entry) {
                replay.take(&policy, &entry);
            }
            Ok(())
        })?;
        Ok(follower.take_flaws())
    };
    let flaws = match go() {
        Ok(flaws) => flaws,
        Err(error) => return cannot_read(common, log, &error),
    };
    let flawed = flaws.map(|flaws| does_not_hold(common, log, &flaws));
    let differs = (replay.different > 0).then(|| replay.sum());
    let why: Vec<String> = differs.into_iter().chain(flawed.clone()).collect();
    let verdict = if why.is_empty() { Ok(()) } else { Err(why.join("; ")) };
    common.answer(verdict, &replay, || {
        print(&replay.in_words());
        if let Some(flawed) = flawed {
            complain(&format!("bulkhead: {flawed}\n"));
        }
    })
}

impl Replay {
    fn take(&mut self, policy: &Policy, entry: &Entry) {
        if !matches!(entry.kind.as_str(), ClipboardPaste::KIND | UsbJudged::KIND) {
            return;
        }
        let flow = match AuditEvent::read(entry) {
            Some(AuditEvent::ClipboardPaste(paste)) => of_paste(paste),
            Some(AuditEvent::UsbJudged(judged)) => of_device(judged),
            // Another version's that does not say enough.
            _ => None,
        };
        let Some((was, recorded)) = flow else {
            self.unreadable += 1;
            return;
        };
        self.flows += 1;
        let ReplayedVerdict { verdict, rule, reason, unasked } = recorded.decided_by(policy);
        let (was, would_be) = (was.word(), verdict.word());
        if would_be == was {
            return;
        }
        self.different += 1;
        if self.differences.len() < LISTED_MAX {
            self.differences.push(Difference {
                seq: entry.seq,
                time: entry.time.clone(),
                local: local_time(entry),
                kind: entry.kind.clone(),
                flow: recorded.words(),
                was: was.to_owned(),
                would_be: would_be.to_owned(),
                rule,
                reason,
                unasked,
            });
        }
    }

    fn in_words(&self) -> String {
        let mut text = String::new();
        for different in &self.differences {
            let Difference { seq, local, kind, flow, was, would_be, reason, unasked, .. } =
                different;
            text += &format!(
                "{local} {seq:>7} {kind} {flow}: was {was}, would be {would_be}: {reason}"
            );
            if !unasked.is_empty() {
                text += &format!(
                    " (unless {} finds something: the content was not kept)",
                    unasked.join(" or ")
                );
            }
            text.push('\n');
        }
        let more = self.different.saturating_sub(u64::try_from(LISTED_MAX).unwrap_or(u64::MAX));
        if more > 0 {
            text += &format!("and {more} more\n");
        }
        text + &self.sum() + "\n"
    }

    fn sum(&self) -> String {
        let mut text = match self.flows {
            0 => format!(
                "nothing was compared: of the {} in the log, none that is wanted is a flow that can be decided again",
                printable::counted(self.entries, "entry", "entries")
            ),
            flows => format!(
                "{} decided again, {} would come out otherwise",
                printable::counted(flows, "flow", "flows"),
                self.different
            ),
        };
        if self.unreadable > 0 {
            let entries = printable::counted(self.unreadable, "entry does", "entries do");
            text += &format!("; {entries} not say enough to be decided again");
        }
        text
    }
}

/// Returns the verdict then, and the flow.
fn of_paste(paste: ClipboardPaste) -> Option<(Verdict, RecordedFlow)> {
    let ClipboardPaste { from, to, bytes, verdict, unfit, .. } = paste;
    let media_type = media_type(&paste.r#type).ok()?;
    let (hits, inspected) = (paste.hits.unwrap_or_default(), paste.inspected.unwrap_or_default());
    Some((verdict, RecordedFlow::Paste { from, to, media_type, bytes, hits, inspected, unfit }))
}

/// Returns the same of a device.
fn of_device(judged: UsbJudged) -> Option<(Verdict, RecordedFlow)> {
    let UsbJudged { device, to, break_glass, verdict, .. } = judged;
    let device: UsbDescription = device.parse().ok()?;
    Some((verdict, RecordedFlow::Device { device, to, break_glass }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_another_version_that_does_not_say_enough_is_counted_and_nothing_is_guessed() {
        let policy = Policy::parse("test", policy_tools::STARTER).unwrap();
        let mut replay = Replay::default();
        for (kind, detail) in [
            ("clipboard", "{}"),
            ("clipboard", "{\"from\":\"internet\",\"to\":\"clinical\"}"),
            ("usb", "{\"bus_id\":\"1-4\"}"),
            ("file-sent", "{}"),
        ] {
            let line = format!(
                "{{\"seq\":1,\"time\":\"2026-11-23T15:04:05.000000Z\",\"boot\":\"b\",\"kind\":\"{kind}\",\"verdict\":\"allow\",\"detail\":{detail},\"prev\":\"\",\"hash\":\"\"}}"
            );
            replay.take(&policy, &Entry::parse(line.as_bytes()).unwrap());
        }
        assert_eq!((replay.flows, replay.different, replay.unreadable), (0, 0, 3));
        assert!(replay.sum().ends_with("; 3 entries do not say enough to be decided again"));
    }
}
