//! What differs besides flows.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::clipboard::domain_names;
use crate::language::{BreakGlass, Domain, Egress, Network, Persistence, Prefix, duration};
use crate::policy::Policy;

/// A setting that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Which, as a path: `domain.internet.persistence`.
    pub setting: String,
    /// What it was; `None` if it is new.
    pub before: Option<String>,
    /// What it is; `None` if it is gone.
    pub after: Option<String>,
    /// Whether more may happen than before.
    pub widened: bool,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.widened { "+" } else { "~" };
        let (before, after) = (self.before.as_deref(), self.after.as_deref());
        write!(f, "{mark} setting        {}", self.setting)?;
        write!(
            f,
            "\n      was {}\n      now {}",
            before.unwrap_or("absent"),
            after.unwrap_or("absent")
        )
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
    ) {
        if before != after {
            self.0.push(Setting { setting, before, after, widened });
        }
    }
}

pub(super) fn changes(old: &Policy, new: &Policy) -> Vec<Setting> {
    let mut found = Settings::default();
    for name in domain_names(old, new) {
        match (old.domain(name), new.domain(name)) {
            (Some(before), Some(after)) => domain(name, before, after, &mut found),
            (before, after) => {
                let label =
                    |domain: Option<&Domain>| domain.map(|domain| domain.label.value.clone());
                found.note(format!("domain.{name}"), label(before), label(after), after.is_some());
            }
        }
    }
    let front = |policy: &Policy| policy.domains().first().map(|domain| domain.name.to_string());
    found.note("the domain in front at start".to_owned(), front(old), front(new), false);
    for ((key, before), (_, after)) in old.hotkeys().iter().zip(new.hotkeys().iter()) {
        let (before, after) = (Some(before.to_string()), Some(after.to_string()));
        found.note(format!("hotkeys.{key}"), before, after, false);
    }
    idle_lock(old, new, &mut found);
    break_glass(old, new, &mut found);
    found.0
}

/// The one that counts, whichever domains come, go or ask for another.
fn idle_lock(old: &Policy, new: &Policy, found: &mut Settings) {
    let shown = |idle: Option<Duration>| idle.map(|idle| duration::written(idle.as_secs()));
    let (before, after) = (old.idle_lock(), new.idle_lock());
    let later = before.is_some_and(|before| after.is_none_or(|after| after > before));
    found.note("the shortest idle_lock".to_owned(), shown(before), shown(after), later);
}

fn domain(name: &str, before: &Domain, after: &Domain, found: &mut Settings) {
    let path = |key: &str| format!("domain.{name}.{key}");
    let both = |before: &dyn fmt::Display, after: &dyn fmt::Display| {
        (Some(before.to_string()), Some(after.to_string()))
    };

    let (was, is) = both(&*before.label, &*after.label);
    found.note(path("label"), was, is, false);
    let (was, is) = both(&*before.colour, &*after.colour);
    found.note(path("colour"), was, is, false);
    let (was, is) = both(&*before.hotkey, &*after.hotkey);
    found.note(path("hotkey"), was, is, false);
    let (was, is) = both(&*before.network, &*after.network);
    found.note(path("network"), was, is, *after.network != Network::None);
    let (was, is) = both(&before.persistence, &after.persistence);
    found.note(path("persistence"), was, is, after.persistence == Persistence::Keep);
    let (was, is) = both(&before.priority, &after.priority);
    found.note(path("priority"), was, is, false);

    let idle = |domain: &Domain| domain.idle_lock.map(|idle| duration::written(idle.as_secs()));
    found.note(path("idle_lock"), idle(before), idle(after), false);
    egress(name, before, after, found);
}

/// Places are compared as sets of addresses: two halves are the whole.
fn egress(name: &str, before: &Domain, after: &Domain, found: &mut Settings) {
    let everywhere = || Some("anywhere".to_owned());
    let path = format!("domain.{name}.egress");
    match (&before.egress, &after.egress) {
        (None, None) => {}
        (None, Some(after)) => {
            found.note(path, everywhere(), Some(places(after.iter().map(|e| &e.value))), false)
        }
        (Some(before), None) => {
            found.note(path, Some(places(before.iter().map(|e| &e.value))), everywhere(), true)
        }
        (Some(before), Some(after)) => {
            for entry in
                after.iter().filter(|entry| !is_covered(entry, before.iter().map(|e| &e.value)))
            {
                found.note(path.clone(), None, Some(entry.to_string()), true);
            }
            for entry in
                before.iter().filter(|entry| !is_covered(entry, after.iter().map(|e| &e.value)))
            {
                found.note(path.clone(), Some(entry.to_string()), None, false);
            }
        }
    }
}

fn places<'e>(entries: impl Iterator<Item = &'e Egress>) -> String {
    let places: Vec<String> = entries.map(Egress::to_string).collect();
    if places.is_empty() { "nowhere".to_owned() } else { places.join("; ") }
}

/// Whether these entries together allow all that `entry` does.
fn is_covered<'e>(entry: &Egress, others: impl Iterator<Item = &'e Egress>) -> bool {
    let same_service =
        others.filter(|other| (other.port, other.proto) == (entry.port, entry.proto));
    let prefixes: Vec<Prefix> = same_service.map(|other| other.to).collect();
    cover(entry.to, &prefixes)
}

/// Whether these ranges together hold every address of `range`. Halves it as long as a smaller range lies inside.
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
    let longest = |policy: &Policy| {
        policy.break_glass().map(|open| duration::written(open.max_duration.as_secs()))
    };
    let longer = match (before, after) {
        (Some(before), Some(after)) => after.max_duration > before.max_duration,
        (_, after) => after.is_some(),
    };
    found.note("break_glass.max_duration".to_owned(), longest(old), longest(new), longer);
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
        found.note(
            "break_glass.reasons".to_owned(),
            listed(before),
            listed(after),
            after.opens_at_the_seat() && !before.opens_at_the_seat(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::cover;
    use crate::language::Prefix;

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
