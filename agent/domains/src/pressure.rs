//! Whether a domain presses: has, for long, wanted more of the PC than it got. Pure: what the kernel says goes in, what changed comes out.
//!
//! The kernel counts for each cgroup how much of the time something in it waited for a processor, for memory or for a disk (pressure
//! stall information, `Documentation/accounting/psi.rst`). Both ends need what lasts, so that a guest which presses and stops again and
//! again changes little:
//!
//! ```text
//!           at least BEGINS for LONG                      below ENDS for LONG
//!   calm ------------------------------> pressing ------------------------------> calm
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use super::lifecycle::Time;

/// How long it has to press, or to be calm again, before that is said. What a guest's start takes is shorter.
pub const LONG: Duration = Duration::from_secs(120);
/// How often it is looked at. The kernel's own figures are means of a minute.
pub const LOOK_EVERY: Duration = Duration::from_secs(10);

/// What a domain may wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    Processor,
    Memory,
    Disk,
}

impl Resource {
    pub const ALL: [Self; 3] = [Self::Processor, Self::Memory, Self::Disk];

    /// Returns the file in a cgroup that tells.
    #[must_use]
    pub fn file(self) -> &'static str {
        match self {
            Self::Processor => "cpu.pressure",
            Self::Memory => "memory.pressure",
            Self::Disk => "io.pressure",
        }
    }

    /// Returns one word, for the audit log and scripts.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Processor => "processor",
            Self::Memory => "memory",
            Self::Disk => "disk",
        }
    }

    /// Returns what is said of a domain that presses.
    #[must_use]
    pub fn says(self) -> &'static str {
        match self {
            Self::Processor => "wants more processor time than it gets",
            Self::Memory => "is short of memory",
            Self::Disk => "waits for the disk most of the time",
        }
    }

    /// Returns from which percentage of the time on it presses, and below which it is calm. Waiting for a disk or a processor half of the time is what a
    /// busy desktop may do for long; memory is fetched again and again long before that.
    fn bounds(self) -> (u8, u8) {
        match self {
            Self::Processor | Self::Disk => (60, 20),
            Self::Memory => (20, 5),
        }
    }
}

/// Reads the percentage of the last minute in which something of the group waited: `avg60` of the line `some`.
#[must_use]
pub fn percentage(text: &str) -> Option<u8> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let average = some.split(' ').find_map(|field| field.strip_prefix("avg60="))?;
    let (whole, _) = average.split_once('.')?;
    whole.parse().ok().filter(|percent| *percent <= 100)
}

/// The begin or the end of an episode; percentages are of the last minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Began {
        resource: Resource,
        percent: u8,
    },
    /// `most` is the highest percentage in between.
    Ended {
        resource: Resource,
        most: u8,
        lasted: Duration,
    },
}

/// An episode in which a domain waits for one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PressureEpisode {
    pub resource: Resource,
    pub since: Time,
    /// The share of the last minute in which it waited, when last looked at, in percent.
    pub percent: u8,
    most: u8,
}

/// The state of one resource.
#[derive(Clone, Copy, Debug)]
enum Gauge {
    Calm {
        /// Since when it is over the bound.
        over: Option<Time>,
    },
    Pressing {
        what: PressureEpisode,
        /// Since when it is below the bound.
        below: Option<Time>,
    },
}

/// The pressure that one domain's VMM is under: what it waits for.
#[derive(Debug, Default)]
pub struct Pressure {
    /// The resources that were looked at; any other is calm.
    gauges: BTreeMap<Resource, Gauge>,
}

impl Pressure {
    /// Takes what the kernel says now of a resource.
    pub fn take(&mut self, now: Time, resource: Resource, percent: u8) -> Option<Change> {
        let (begins, ends) = resource.bounds();
        let gauge = self.gauges.entry(resource).or_insert(Gauge::Calm { over: None });
        match gauge {
            Gauge::Calm { over } if percent < begins => {
                *over = None;
                None
            }
            Gauge::Calm { over } => {
                let since = *over.get_or_insert(now);
                (now.saturating_sub(since) >= LONG).then(|| {
                    let what = PressureEpisode { resource, since, percent, most: percent };
                    *gauge = Gauge::Pressing { what, below: None };
                    Change::Began { resource, percent }
                })
            }
            Gauge::Pressing { what, below } => {
                what.percent = percent;
                what.most = what.most.max(percent);
                if percent >= ends {
                    *below = None;
                    return None;
                }
                let since = *below.get_or_insert(now);
                if now.saturating_sub(since) < LONG {
                    return None;
                }
                let ended = what.ended(now);
                *gauge = Gauge::Calm { over: None };
                Some(ended)
            }
        }
    }

    /// Ends what was pressing, as there is no VMM any more.
    pub fn end(&mut self, now: Time) -> Vec<Change> {
        let ended = self.pressing().map(|what| what.ended(now)).collect();
        self.gauges.clear();
        ended
    }

    /// Returns for what it presses now.
    pub fn pressing(&self) -> impl Iterator<Item = PressureEpisode> + '_ {
        self.gauges.values().filter_map(|gauge| match gauge {
            Gauge::Pressing { what, .. } => Some(*what),
            Gauge::Calm { .. } => None,
        })
    }
}

impl PressureEpisode {
    fn ended(&self, now: Time) -> Change {
        let lasted = now.saturating_sub(self.since);
        Change::Ended { resource: self.resource, most: self.most, lasted }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use Resource::{Disk, Memory, Processor};

    /// Returns what a look every [`LOOK_EVERY`] brings.
    fn looks(pressure: &mut Pressure, from: Time, percents: &[u8]) -> Vec<(u64, Change)> {
        let mut found = Vec::new();
        let mut now = from;
        for percent in percents {
            now += LOOK_EVERY;
            let change = pressure.take(now, Processor, *percent);
            found.extend(change.map(|change| (now.as_secs(), change)));
        }
        found
    }

    #[test]
    fn a_domain_presses_when_it_has_waited_for_two_minutes_and_is_calm_when_it_has_not() {
        let mut pressure = Pressure::default();
        let began = looks(&mut pressure, Time::ZERO, &[90; 13]);
        assert_eq!(began, [(130, Change::Began { resource: Processor, percent: 90 })]);
        let what: Vec<PressureEpisode> = pressure.pressing().collect();
        assert_eq!((what.len(), what[0].since.as_secs(), what[0].percent), (1, 10, 90));
        assert_eq!(looks(&mut pressure, Time::from_secs(130), &[95, 30]), []);
        let ended = looks(&mut pressure, Time::from_secs(150), &[19; 13]);
        let lasted = Duration::from_secs(270);
        assert_eq!(ended, [(280, Change::Ended { resource: Processor, most: 95, lasted })]);
        assert_eq!(pressure.pressing().count(), 0);
    }

    #[test]
    fn neither_a_short_burst_nor_a_short_pause_changes_anything() {
        let mut pressure = Pressure::default();
        for _ in 0..20 {
            assert_eq!(looks(&mut pressure, Time::ZERO, &[99, 99, 99, 59]), [], "bursts");
        }
        let mut pressure = Pressure::default();
        assert_eq!(looks(&mut pressure, Time::ZERO, &[60; 13]).len(), 1);
        for round in 0..20 {
            let from = Time::from_secs(130 + 120 * round);
            assert_eq!(
                looks(&mut pressure, from, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 20]),
                [],
                "pauses"
            );
        }
        assert_eq!(pressure.pressing().count(), 1);
    }

    #[test]
    fn what_pressed_has_ended_with_its_vmm_and_the_next_one_begins_anew() {
        let mut pressure = Pressure::default();
        looks(&mut pressure, Time::ZERO, &[90; 13]);
        let lasted = Duration::from_secs(190);
        let ended = Change::Ended { resource: Processor, most: 90, lasted };
        assert_eq!(pressure.end(Time::from_secs(200)), [ended]);
        assert_eq!(pressure.end(Time::from_secs(200)), []);
        assert_eq!(looks(&mut pressure, Time::from_secs(200), &[90; 12]), []);
    }

    #[test]
    fn each_resource_counts_by_itself_and_memory_sooner() {
        let mut pressure = Pressure::default();
        for look in 0..13 {
            let now = LOOK_EVERY * look;
            assert_eq!(pressure.take(now, Processor, 30), None);
            let memory = pressure.take(now, Memory, 30);
            assert_eq!(memory.is_some(), look == 12);
            assert_eq!(pressure.take(now, Disk, 30), None);
        }
        assert_eq!(pressure.pressing().map(|what| what.resource).collect::<Vec<_>>(), [Memory]);
    }

    #[test]
    fn what_the_kernel_writes_is_read_and_nothing_else() {
        let kernel = "some avg10=3.00 avg60=71.49 avg300=9.00 total=123\nfull avg10=0.00 avg60=1.00 avg300=0.00 total=0\n";
        assert_eq!(percentage(kernel), Some(71));
        assert_eq!(percentage("some avg10=0.00 avg60=100.00 avg300=0.00 total=0\n"), Some(100));
        for other in [
            "",
            "full avg10=0.00 avg60=1.00 avg300=0.00 total=0\n",
            "some avg10=0.00 avg300=0.00 total=0\n",
            "some avg60=101.00\n",
            "some avg60=-1.00\n",
            "some avg60=71\n",
            "some avg60=.50\n",
            "someavg60=1.00\n",
        ] {
            assert_eq!(percentage(other), None, "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_guest_does_begin_and_end_take_turns_and_lie_two_minutes_apart(
            percents in prop::collection::vec(0u8..=100, 0..400)
        ) {
            let mut pressure = Pressure::default();
            let mut last = None;
            for (at, change) in looks(&mut pressure, Time::ZERO, &percents) {
                let began = matches!(change, Change::Began { .. });
                if let Some((before, had_begun)) = last {
                    prop_assert!(at - before >= LONG.as_secs() && began != had_begun);
                } else {
                    prop_assert!(began);
                }
                last = Some((at, began));
            }
        }

        #[test]
        fn no_text_is_too_strange_to_be_read(text in "(some )?(avg60=)?[0-9a-z.=\\n ]{0,40}") {
            let read = percentage(&text);
            prop_assert!(read.is_none_or(|percent| percent <= 100));
        }
    }
}
