//! What is read out of a log: filters, and lines for the monitoring centre.

use std::time::Duration;

use audit::events::{ClipboardPaste, DomainChanged, SeatSwitched, UsbJudged, Verdict};
use audit::{Entry, Filter, rfc5424};

use crate::{Place, filled, paste};

#[test]
fn what_is_asked_for_by_domain_is_what_came_into_it_and_what_left_it_too() {
    let place = Place::new();
    let (mut log, _) = place.open();
    let crossed = |from: &str, to: &str| {
        let (from, domain) = (from.to_owned(), to.to_owned());
        ClipboardPaste { from, to: domain.clone(), domain, ..paste(1) }.into()
    };
    let [internet, clinical] = ["internet", "clinical"].map(str::to_owned);
    let (off, domain) = ("off".to_owned(), internet.clone());
    let to = clinical.clone();
    let state = DomainChanged { domain, from: off, to, pid: None, problem: None, request: None };
    let switched = SeatSwitched { domain: internet, from: clinical.clone() };
    let by_hand = UsbJudged {
        domain: None,
        verdict: Verdict::Deny,
        rule: None,
        policy: 7,
        break_glass: false,
        bus_id: "1-4".to_owned(),
        device: "vendor=0951,product=1666,interfaces=08/06/50".to_owned(),
        name: None,
        request: None,
        seat_keeps_interfaces: None,
        to: Some(clinical),
    };
    let events = [
        crossed("clinical", "internet"),
        crossed("internet", "clinical"),
        crossed("internet", "other"),
        state.into(),
        switched.into(),
        by_hand.into(),
    ];
    let seqs = log.append(&events).unwrap();
    log.close().unwrap();
    let filter = Filter { domain: Some("clinical".to_owned()), ..Filter::default() };
    let entries = place.entries();
    let wanted = entries.iter().filter(|entry| filter.wants(entry)).map(|entry| entry.seq);
    let wanted: Vec<_> = wanted.map(|seq| seq - seqs.start()).collect();
    // The state of a domain that is called like another domain is none of that one's.
    assert_eq!(wanted, [0, 1, 4, 5]);
}

// Shows: I-2.
#[test]
fn syslog_lines_are_escaped_and_filters_hold() {
    let (place, _) = filled(3);
    let entries = place.entries();
    let line = rfc5424(&entries[2], "ward pc");
    assert!(
        line.starts_with("<108>1 20")
            && line.contains(" wardpc bulkhead-agent - clipboard [bulkhead@32473 seq=\"3\""),
        "{line}"
    );
    assert!(
        line.contains("rule=\"rule \\\"one\\\"\"")
            && line.contains("normalised=\"한글   \\] \\\\\""),
        "{line}"
    );
    assert!(!line.contains('\n') && line.ends_with(']'));
    let wants = |filter: Filter| entries.iter().filter(|entry| filter.wants(entry)).count();
    let first = entries[0].wall().unwrap();
    let later = entries.last().unwrap().wall().unwrap() + Duration::from_micros(1);
    let between = |since, until| wants(Filter { since, until, ..Filter::default() });
    assert_eq!(between(Some(first), Some(later)), entries.len());
    assert_eq!(between(Some(later), None), 0);
    assert_eq!(between(None, Some(first)), 0);
    assert_eq!(
        wants(Filter {
            kind: Some("clipboard".to_owned()),
            verdict: Some("deny".to_owned()),
            ..Filter::default()
        }),
        3
    );
    assert_eq!(wants(Filter { domain: Some("internet".to_owned()), ..Filter::default() }), 0);
}

#[test]
fn nothing_of_an_entry_begins_a_syslog_line_of_its_own_or_steers_a_terminal() {
    let (place, _) = filled(1);
    let whole = place.entries().pop().unwrap();
    let evil = "2026\u{1b}[2J\n<0>1 - ward bulkhead-agent - all-is-well -";
    type Change = fn(&mut Entry, String);
    let changes: [Change; 8] = [
        |entry, text| entry.time = text,
        |entry, text| entry.boot = text,
        |entry, text| entry.kind = text,
        |entry, text| entry.domain = Some(text),
        |entry, text| entry.verdict = Some(text),
        |entry, text| entry.rule = Some(text),
        |entry, text| entry.detail = [(text.clone(), text.into())].into(),
        |entry, text| entry.detail = [("more".to_owned(), vec![text].into())].into(),
    ];
    for change in changes {
        let mut entry = whole.clone();
        change(&mut entry, evil.to_owned());
        let line = rfc5424(&entry, evil);
        assert!(!line.contains(|c: char| c.is_control()), "{line:?}");
    }
}
