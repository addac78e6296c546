//! What differs besides flows.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::clipboard::domain_names;
use crate::lint::colours;
use notation::duration::written;
use policy::Policy;
use policy::diagnostic::Spanned;
use policy::enforcement::{Gap, MARK};
use policy::language::{
    BreakGlass, Chord, Domain, DomainId, Egress, Expectation, ExpectedRequest, Network,
    Persistence, Prefix, TimeOfDay,
};
use policy::legible::look_alike;

/// A setting that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Which, as a path: `domain.internet.persistence`.
    pub setting: String,
    /// What it was; `None` if it is new.
    pub before: Option<String>,
    /// What it is; `None` if it is gone.
    pub after: Option<String>,
    /// Whether more may happen than before, or something comes to mean another than it did.
    pub widened: bool,
    /// What is so instead, where this version does not enforce it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_enforced: Option<&'static str>,
    /// What it means that there is none.
    #[serde(skip)]
    none: &'static str,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.widened { "+" } else { "~" };
        let (before, after) = (self.before.as_deref(), self.after.as_deref());
        write!(f, "{mark} setting        {}", self.setting)?;
        write!(
            f,
            "\n      was {}\n      now {}",
            before.unwrap_or(self.none),
            after.unwrap_or(self.none)
        )?;
        match self.not_enforced {
            Some(instead) => write!(f, "\n      {MARK}: {instead}"),
            None => Ok(()),
        }
    }
}

/// What was found so far.
#[derive(Default)]
struct Settings(Vec<Setting>);

impl Settings {
    /// Notes a setting if it differs; `widened` says whether that loosens anything.
    fn note(
        &mut self,
        setting: String,
        before: Option<String>,
        after: Option<String>,
        widened: bool,
    ) -> Option<&mut Setting> {
        if before == after {
            return None;
        }
        let (not_enforced, none) = (None, "absent");
        self.0.push(Setting { setting, before, after, widened, not_enforced, none });
        self.0.last_mut()
    }
}

impl Setting {
    /// Returns what it means that there is none.
    fn none_is(&mut self, none: &'static str) -> &mut Self {
        self.none = none;
        self
    }

    /// Marks a change as not enforced, with what is so instead.
    fn marked(&mut self, gap: Option<&'static Gap>) {
        self.not_enforced = gap.map(|gap| gap.instead);
    }
}

pub(super) fn changes(old: &Policy, new: &Policy) -> Vec<Setting> {
    let mut found = Settings::default();
    let (before, after) = (Some(old.issuer().to_owned()), Some(new.issuer().to_owned()));
    found.note("issuer".to_owned(), before, after, false);
    let chords = (meanings(old), meanings(new));
    let moved = |chord: &Chord| {
        let (before, after) = (chords.0.get(chord), chords.1.get(chord));
        before.is_some() && before != after
    };
    for name in domain_names(old, new) {
        match (old.domain(name), new.domain(name)) {
            (Some(before), Some(after)) => {
                domain(name, before, after, &mut found);
                face(name, old, (before, after), moved(&after.hotkey), &mut found);
            }
            (before, after) => {
                let label =
                    |domain: Option<&Domain>| domain.map(|domain| domain.label.value.clone());
                let is_new = after.is_some();
                found
                    .note(format!("domain.{name}"), label(before), label(after), is_new)
                    .map(|setting| setting.none_is("no such desktop"));
            }
        }
    }
    let front = |policy: &Policy| policy.domains().first().map(|domain| domain.name.to_string());
    found.note("the domain in front at start".to_owned(), front(old), front(new), false);
    for ((key, before), (_, after)) in old.hotkeys().iter().zip(new.hotkeys().iter()) {
        let (was, is) = (Some(before.to_string()), Some(after.to_string()));
        found.note(format!("hotkeys.{key}"), was, is, moved(&after));
    }
    idle_lock(old, new, &mut found);
    break_glass(old, new, &mut found);
    promises(old, new, &mut found);
    found.0
}

/// Returns what each chord does.
fn meanings(policy: &Policy) -> HashMap<Chord, String> {
    let domains = policy
        .domains()
        .iter()
        .map(|domain| (*domain.hotkey, format!("domain {}", domain.name.value)));
    let fixed = policy.hotkeys().iter().map(|(key, chord)| (*chord, key.to_owned()));
    domains.chain(fixed).collect()
}

/// Compares by what a clinician knows a desktop. What stood for one desktop and stands for another leads the hand astray: what was
/// meant for the one is typed into the other.
fn face(
    name: &str,
    old: &Policy,
    (before, after): (&Domain, &Domain),
    chord_moved: bool,
    found: &mut Settings,
) {
    let path = |key: &str| format!("domain.{name}.{key}");
    let others = || old.domains().iter().filter(|other| other.name.value != before.name.value);
    let was = Some(before.label.value.clone());
    let taken = others().any(|other| look_alike(&other.label, &after.label));
    found.note(path("label"), was, Some(after.label.value.clone()), taken);
    let nearer = |other: &Domain| {
        let own = colours::apart(*before.colour, *after.colour);
        colours::apart(*other.colour, *after.colour) < own.min(colours::APART)
    };
    let (was, is) = (Some(before.colour.to_string()), Some(after.colour.to_string()));
    found.note(path("colour"), was, is, others().any(nearer));
    let (was, is) = (Some(before.hotkey.to_string()), Some(after.hotkey.to_string()));
    found.note(path("hotkey"), was, is, chord_moved);
}

/// Compares what the policy promises of itself. A promise that is gone is one that nobody holds the next change against.
fn promises(old: &Policy, new: &Policy, found: &mut Settings) {
    let all = |policy: &Policy| -> BTreeSet<String> {
        policy.expectations().iter().map(|expected| promise(policy, expected)).collect()
    };
    let (before, after) = (all(old), all(new));
    let shown = |promise: &String| Some(printable::line(promise).to_string());
    for gone in before.difference(&after) {
        found
            .note("expect".to_owned(), shown(gone), None, true)
            .map(|setting| setting.none_is("no longer promised"));
    }
    for made in after.difference(&before) {
        found
            .note("expect".to_owned(), None, shown(made), false)
            .map(|setting| setting.none_is("not promised"));
    }
}

/// Returns an expectation in one line, whole.
fn promise(policy: &Policy, expected: &Expectation) -> String {
    let name = |id: DomainId| {
        policy.domain_by_id(id).map(|domain| domain.name.as_str()).unwrap_or_default()
    };
    let request = match &expected.request {
        ExpectedRequest::Clipboard { from, to, media_type, bytes, text } => {
            let size = bytes.map(|bytes| printable::counted(bytes, "byte", "bytes"));
            let size = size.map(|size| format!(" of {size}")).unwrap_or_default();
            let text = text.as_ref().map(|text| format!(" that says \"{text}\""));
            let (from, to, text) = (name(*from), name(*to), text.unwrap_or_default());
            format!("clipboard {from} -> {to}: {media_type}{size}{text}")
        }
        ExpectedRequest::Usb { device, to } => {
            let to = to.map(|to| format!(" attached to {}", name(to))).unwrap_or_default();
            format!("USB {device}{to}")
        }
    };
    let rule = expected.rule.as_ref().map(|rule| format!(" by `{}`", rule.value));
    let open = if expected.break_glass { " while break-glass is open" } else { "" };
    format!("{request}{open}: {}{}", *expected.verdict, rule.unwrap_or_default())
}

/// Compares the idle lock that counts, whichever domains come, go or ask for another.
fn idle_lock(old: &Policy, new: &Policy, found: &mut Settings) {
    let shown = |idle: Option<Duration>| idle.map(|idle| written(idle.as_secs()));
    let (before, after) = (old.idle_lock(), new.idle_lock());
    let later = before.is_some_and(|before| after.is_none_or(|after| after > before));
    found
        .note("the shortest idle_lock".to_owned(), shown(before), shown(after), later)
        .map(|setting| setting.none_is("never locks"));
}

fn domain(name: &str, before: &Domain, after: &Domain, found: &mut Settings) {
    let path = |key: &str| format!("domain.{name}.{key}");
    let both = |before: &dyn fmt::Display, after: &dyn fmt::Display| {
        (Some(before.to_string()), Some(after.to_string()))
    };

    let (was, is) = both(&*before.network, &*after.network);
    if let Some(setting) = found.note(path("network"), was, is, *after.network != Network::None) {
        setting.marked(after.network_gap());
    }
    let (was, is) = both(&before.persistence, &after.persistence);
    found.note(path("persistence"), was, is, after.persistence == Persistence::Keep);
    renewals(name, before, after, found);
    let (was, is) = both(&before.priority, &after.priority);
    found.note(path("priority"), was, is, false);

    let idle = |domain: &Domain| domain.idle_lock.map(|idle| written(idle.as_secs()));
    found
        .note(path("idle_lock"), idle(before), idle(after), false)
        .map(|setting| setting.none_is("asks for no lock"));
    egress(name, before, after, found);
}

/// Compares renewals: what begins anew less often, or later, keeps for longer what was stored in it.
fn renewals(name: &str, before: &Domain, after: &Domain, found: &mut Settings) {
    let times = |domain: &Domain| -> BTreeSet<TimeOfDay> {
        domain.renew_at.iter().flat_map(|at| &at.value).map(|time| time.value).collect()
    };
    let shown = |times: &BTreeSet<TimeOfDay>| {
        let times: Vec<String> = times.iter().map(ToString::to_string).collect();
        (!times.is_empty()).then(|| times.join(", "))
    };
    let (was, is) = (times(before), times(after));
    let fewer = !was.is_subset(&is);
    found
        .note(format!("domain.{name}.renew_at"), shown(&was), shown(&is), fewer)
        .map(|setting| setting.none_is("at no time"));
    let idle = |domain: &Domain| domain.renew_when_idle.map(|idle| idle.value);
    let shown = |idle: Option<Duration>| idle.map(|idle| written(idle.as_secs()));
    let (was, is) = (idle(before), idle(after));
    let later = was.is_some_and(|was| is.is_none_or(|is| is > was));
    found
        .note(format!("domain.{name}.renew_when_idle"), shown(was), shown(is), later)
        .map(|setting| setting.none_is("never"));
}

/// Places are compared as sets of addresses: two halves are the whole. Without a list there is no limit.
fn egress(name: &str, before: &Domain, after: &Domain, found: &mut Settings) {
    let no_limit = || Some("anywhere, without a limit".to_owned());
    let path = || format!("domain.{name}.egress");
    let gap = after.egress_gap().or_else(|| before.egress_gap());
    let mut note = |was, is, wider| {
        if let Some(setting) = found.note(path(), was, is, wider) {
            setting.none_is("not allowed").marked(gap);
        }
    };
    match (before.egress.as_deref(), after.egress.as_deref()) {
        (None, None) => {}
        (None, Some(after)) => note(no_limit(), Some(places(plain(after))), false),
        (Some(before), None) => note(Some(places(plain(before))), no_limit(), true),
        (Some(before), Some(after)) => {
            for entry in after.iter().filter(|entry| !is_covered(entry, plain(before))) {
                note(None, Some(entry.to_string()), true);
            }
            for entry in before.iter().filter(|entry| !is_covered(entry, plain(after))) {
                note(Some(entry.to_string()), None, false);
            }
        }
    }
}

fn plain(entries: &[Spanned<Egress>]) -> impl Iterator<Item = &Egress> {
    entries.iter().map(|entry| &entry.value)
}

fn places<'e>(entries: impl Iterator<Item = &'e Egress>) -> String {
    let places: Vec<String> = entries.map(Egress::to_string).collect();
    if places.is_empty() { "nowhere".to_owned() } else { places.join("; ") }
}

/// Returns whether these entries together allow all that `entry` does.
fn is_covered<'e>(entry: &Egress, others: impl Iterator<Item = &'e Egress>) -> bool {
    let same_service =
        others.filter(|other| (other.port, other.proto) == (entry.port, entry.proto));
    let prefixes: Vec<Prefix> = same_service.map(|other| other.to).collect();
    cover(entry.to, &prefixes)
}

/// Returns whether these ranges together hold every address of `range`. Halves it as long as a smaller range lies inside.
fn cover(range: Prefix, ranges: &[Prefix]) -> bool {
    if ranges.iter().any(|other| other.contains(range)) {
        return true;
    }
    let inside: Vec<Prefix> =
        ranges.iter().filter(|other| range.contains(**other)).copied().collect();
    if inside.is_empty() {
        return false;
    }
    let half = range.length + 1;
    let upper = range.bits() | (1 << (128 - u32::from(half)));
    cover(range.sibling(range.bits(), half), &inside) && cover(range.sibling(upper, half), &inside)
}

fn break_glass(old: &Policy, new: &Policy, found: &mut Settings) {
    let (before, after) = (old.break_glass(), new.break_glass());
    let longest =
        |policy: &Policy| policy.break_glass().map(|open| written(open.max_duration.as_secs()));
    let longer = match (before, after) {
        (Some(before), Some(after)) => after.max_duration > before.max_duration,
        (_, after) => after.is_some(),
    };
    found
        .note("break_glass.max_duration".to_owned(), longest(old), longest(new), longer)
        .map(|setting| setting.none_is("no break-glass"));
    if let (Some(before), Some(after)) = (before, after) {
        let (was, is) = (before.reason_required.to_string(), after.reason_required.to_string());
        found.note(
            "break_glass.reason_required".to_owned(),
            Some(was),
            Some(is),
            !after.reason_required,
        );
        let listed = |open: &BreakGlass| {
            let reasons: Vec<String> =
                open.reasons.iter().map(|reason| format!("\"{}\"", reason.value)).collect();
            (!reasons.is_empty()).then(|| reasons.join(", "))
        };
        let opens = after.opens_at_the_seat() && !before.opens_at_the_seat();
        found
            .note("break_glass.reasons".to_owned(), listed(before), listed(after), opens)
            .map(|setting| setting.none_is("none to choose from"));
    }
}

#[cfg(test)]
mod tests {
    use super::cover;
    use policy::language::Prefix;

    fn prefixes(text: &str) -> Vec<Prefix> {
        text.split_whitespace().map(|prefix| prefix.parse().unwrap()).collect()
    }

    #[test]
    fn two_halves_are_the_whole_and_three_quarters_are_not() {
        let whole = "10.0.0.0/8".parse().unwrap();
        assert!(cover(whole, &prefixes("10.0.0.0/9 10.128.0.0/9")));
        assert!(cover(whole, &prefixes("10.0.0.0/9 10.128.0.0/10 10.192.0.0/10")));
        assert!(!cover(whole, &prefixes("10.0.0.0/9 10.128.0.0/10")));
        assert!(cover(whole, &prefixes("0.0.0.0/0")));
        assert!(!cover(whole, &prefixes("::/0")));
        assert!(cover("::/0".parse().unwrap(), &prefixes("::/1 8000::/1")));
    }
}
