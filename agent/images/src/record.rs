//! Which images of one name are installed, which is in force, and which may be: pure, and written down by the store.
//!
//! ```text
//!  install --> installed --activate--> pending --the domain's next start--> current --> previous
//!                                         ^                                               |
//!                                         '------------------- rollback ------------------'
//! ```
//!
//! Arrival is not activation. The floor is the highest that any bundle of this name brought; nothing below it is activated or rolled back
//! to, and it never goes down, also when everything is removed. Nor is the newest serial forgotten, and what it stands for: nothing older
//! arrives, and nothing else by its serial.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// The only format there is.
const FORMAT: u32 = 1;
/// Images of one name that are kept at once: one in force, one before, one to come, and one to spare.
pub const INSTALLED_MAX: usize = 4;

/// What is written down of the images of one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    format: u32,
    /// The lowest serial that may come into force.
    floor: u64,
    /// In force: a domain that starts has it, unless another is pending.
    current: Option<u64>,
    /// Was in force before the current one.
    previous: Option<u64>,
    /// Comes into force when a domain with this image starts next.
    pending: Option<u64>,
    /// In force, newer than the one before, and its guest has not come up yet.
    trial: Option<Trial>,
    /// Came into force, and is not in the audit log for certain.
    begun: Option<Begun>,
    /// Was to come into force with a start and could not.
    refused: Option<Refused>,
    /// The newest that ever was installed, also when it was removed since.
    newest: Option<Newest>,
    installed: BTreeMap<u64, Installed>,
}

/// An image whose guest has to come up, in the domain with whose start it came into force. Other domains with this image say nothing of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Trial {
    serial: u64,
    domain: String,
}

/// An image that came into force with the start of a domain. It stands here until that is in the audit log, whatever becomes of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Begun {
    /// The serial of the image.
    pub serial: u64,
    /// The domain with whose start it came into force.
    pub domain: String,
}

/// An image that is to come into force, and could not with the last start of a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refused {
    /// The serial of the image.
    pub serial: u64,
    /// The domain that was started.
    pub domain: String,
    /// Why not, and what to do.
    pub why: String,
}

/// The newest image of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Newest {
    serial: u64,
    manifest: Digest,
}

/// What is written down of one image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Installed {
    /// The digest of its manifest.
    pub manifest: Digest,
    /// Bytes of its files.
    pub size: u64,
    /// Who had signed it when it was installed, by the trust store of then.
    pub signers: Vec<String>,
    /// Their public keys, in the same order.
    pub keys: Vec<String>,
    /// The serial of that trust store; one of the first format has none.
    pub trust: Option<u64>,
}

/// Where an installed image stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// A domain that starts has it.
    InForce,
    /// It comes into force at the next start.
    Pending,
    /// It was in force before, and may be again.
    Previous,
    /// It is installed, and neither in force, pending nor previous.
    Installed,
    /// It is there, and may not come into force any more.
    BelowFloor,
}

/// Why something is not done with an image. Each says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSo {
    /// The PC does not have it.
    #[error("serial {0} is not installed: `bulkhead images list` shows what is")]
    NotInstalled(u64),
    /// Its floor forbids it.
    #[error(
        "serial {serial} is below the floor {floor}, under which no image comes into force any more: take a newer bundle"
    )]
    BelowFloor {
        /// The serial that was asked for.
        serial: u64,
        /// The lowest serial that may come into force.
        floor: u64,
    },
    /// A newer one was installed before.
    #[error(
        "serial {serial} is older than {newest}, which was installed: `bulkhead images rollback` returns to the previous one; another is packed with a higher serial"
    )]
    Older {
        /// The serial that was to be installed.
        serial: u64,
        /// The newest that was installed.
        newest: u64,
    },
    /// The serial stands for something else.
    #[error(
        "another image with the serial {0} was installed: one serial stands for one content; have it packed with a higher one"
    )]
    OtherContent(u64),
    /// There are as many as are kept.
    #[error(
        "{INSTALLED_MAX} images of this name are installed: remove one with `bulkhead images remove` first"
    )]
    TooMany,
    /// Nothing to go back to.
    #[error(
        "there is no previous image to go back to: install and activate another, or start its domains from files (`kernel` in machine.toml)"
    )]
    NoPrevious,
    /// Another command came in between.
    #[error(
        "another command changed what is to come into force meanwhile: `bulkhead images list` shows it; try again"
    )]
    ChangedMeanwhile,
    /// It is in force or to come, so that it is not removed.
    #[error("serial {0} {1}: activate another first, and start its domains anew")]
    Wanted(u64, &'static str),
}

impl Default for Record {
    fn default() -> Self {
        Self {
            format: FORMAT,
            floor: 1,
            current: None,
            previous: None,
            pending: None,
            trial: None,
            begun: None,
            refused: None,
            newest: None,
            installed: BTreeMap::new(),
        }
    }
}

impl Record {
    /// Returns whether this program can go on with it: it is of the known format, and speaks of nothing that is not installed.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let named = [self.current, self.previous, self.pending];
        self.format == FORMAT
            && self.installed.len() <= INSTALLED_MAX
            && named.iter().flatten().all(|serial| self.installed.contains_key(serial))
            && self
                .installed
                .keys()
                .all(|serial| self.newest.is_some_and(|it| *serial <= it.serial))
    }

    /// Returns the lowest serial that may come into force.
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// Returns the serial in force.
    #[must_use]
    pub fn current(&self) -> Option<u64> {
        self.current
    }

    /// Returns the serial that is to come into force.
    #[must_use]
    pub fn pending(&self) -> Option<u64> {
        self.pending
    }

    /// Returns which image came into force, if it is not in the audit log for certain.
    #[must_use]
    pub fn begun(&self) -> Option<&Begun> {
        self.begun.as_ref()
    }

    /// Takes note that the audit log says that this image came into force.
    pub fn recorded(&mut self, begun: &Begun) {
        self.begun = self.begun.take().filter(|it| it != begun);
    }

    /// Returns why the image that is to come into force could not with the last start of a domain.
    #[must_use]
    pub fn refused(&self) -> Option<&Refused> {
        self.refused.as_ref().filter(|refused| self.pending == Some(refused.serial))
    }

    /// Takes note that the image that is to come into force cannot with this start.
    pub fn refuse(&mut self, refused: Refused) {
        self.refused = Some(refused);
    }

    /// Returns the serial that a domain gets that starts now.
    #[must_use]
    pub fn next(&self) -> Option<u64> {
        self.pending.or(self.current)
    }

    /// Returns what is installed, the newest first, and where it stands.
    pub fn installed(&self) -> impl Iterator<Item = (u64, Standing, &Installed)> {
        self.installed.iter().rev().map(|(serial, entry)| (*serial, self.standing(*serial), entry))
    }

    /// Returns what is written down of a serial.
    ///
    /// # Errors
    /// It is not installed.
    pub fn entry(&self, serial: u64) -> Result<&Installed, NotSo> {
        self.installed.get(&serial).ok_or(NotSo::NotInstalled(serial))
    }

    fn standing(&self, serial: u64) -> Standing {
        let is = |which: Option<u64>| which == Some(serial);
        match serial {
            _ if is(self.current) => Standing::InForce,
            _ if is(self.pending) => Standing::Pending,
            _ if serial < self.floor => Standing::BelowFloor,
            _ if is(self.previous) => Standing::Previous,
            _ => Standing::Installed,
        }
    }

    /// Says whether an image may arrive; `true` if just this one is there already.
    ///
    /// # Errors
    /// It may not.
    pub fn admits(&self, serial: u64, manifest: Digest) -> Result<bool, NotSo> {
        match self.installed.get(&serial) {
            Some(there) if there.manifest == manifest => return Ok(true),
            Some(_) => return Err(NotSo::OtherContent(serial)),
            None => {}
        }
        if serial < self.floor {
            return Err(NotSo::BelowFloor { serial, floor: self.floor });
        }
        match self.newest {
            Some(newest) if serial < newest.serial => {
                Err(NotSo::Older { serial, newest: newest.serial })
            }
            Some(newest) if serial == newest.serial && manifest != newest.manifest => {
                Err(NotSo::OtherContent(serial))
            }
            _ if self.installed.len() >= INSTALLED_MAX => Err(NotSo::TooMany),
            _ => Ok(false),
        }
    }

    /// Takes an image that has arrived whole, and its floor. What was to come into force and is below that does not.
    ///
    /// # Errors
    /// It may not arrive.
    pub fn arrive(&mut self, serial: u64, floor: u64, entry: Installed) -> Result<(), NotSo> {
        if !self.admits(serial, entry.manifest)? {
            self.newest = Some(Newest { serial, manifest: entry.manifest });
        }
        self.installed.insert(serial, entry);
        self.floor = self.floor.max(floor);
        // What was to come may not come any more.
        self.pending = self.pending.filter(|pending| *pending >= self.floor);
        Ok(())
    }

    /// Lets a serial come into force at the next start; without one the newest. Returns which.
    ///
    /// # Errors
    /// It may not.
    pub fn activate(&mut self, serial: Option<u64>) -> Result<u64, NotSo> {
        let newest = || self.installed.keys().next_back().copied();
        let serial = serial.or_else(newest).ok_or(NotSo::NoPrevious)?;
        self.entry(serial)?;
        if serial < self.floor {
            return Err(NotSo::BelowFloor { serial, floor: self.floor });
        }
        self.pending = Some(serial).filter(|serial| self.current != Some(*serial));
        self.refused = None;
        Ok(serial)
    }

    /// Takes back an activation that has not come into force; without one, lets the previous image come into force at the next start.
    /// Returns the serial of that start; `None` if no image was in force before the activation, so that there is none for it.
    ///
    /// # Errors
    /// There is none, or it is below the floor.
    pub fn roll_back(&mut self) -> Result<Option<u64>, NotSo> {
        if self.pending.take().is_some() {
            self.refused = None;
            return Ok(self.current);
        }
        let previous = self.previous.ok_or(NotSo::NoPrevious)?;
        self.activate(Some(previous)).map(Some)
    }

    /// Takes note that a domain starts, and returns the serial it gets, and whether that comes into force with it; `None` if nothing is activated.
    pub fn start(&mut self, domain: &str) -> Option<(u64, bool)> {
        let Some(pending) = self.pending.take() else { return Some((self.current?, false)) };
        self.refused = None;
        self.begun = Some(Begun { serial: pending, domain: domain.to_owned() });
        self.previous = self.current.replace(pending);
        // Who goes back knows the older one.
        let is_newer = self.previous.is_none_or(|previous| previous < pending);
        self.trial = is_newer.then(|| Trial { serial: pending, domain: domain.to_owned() });
        Some((pending, true))
    }

    /// Returns whether this image is in force since a start of this domain, and the domain's guest has not come up since.
    #[must_use]
    pub fn is_on_trial(&self, serial: u64, domain: &str) -> bool {
        let own = |trial: &Trial| trial.serial == serial && trial.domain == domain;
        self.current == Some(serial) && self.trial.as_ref().is_some_and(own)
    }

    /// Ends the trial of an image whose guest came up in this domain, or never says whether it does.
    pub fn came_up(&mut self, serial: u64, domain: &str) {
        if self.is_on_trial(serial, domain) {
            self.trial = None;
        }
    }

    /// Ends the trial of an image whose guest did not come up in this domain: the image before is in force again, whose serial is returned. The
    /// trial is over also if there is none to go back to. What is pending stays pending, unless it is the image before.
    ///
    /// # Errors
    /// There is no image before, or it is below the floor: it stays.
    pub fn give_up(&mut self, serial: u64, domain: &str) -> Result<u64, NotSo> {
        if !self.is_on_trial(serial, domain) {
            return Err(NotSo::NoPrevious);
        }
        self.trial = None;
        let previous = self.previous.ok_or(NotSo::NoPrevious)?;
        if previous < self.floor {
            return Err(NotSo::BelowFloor { serial: previous, floor: self.floor });
        }
        (self.current, self.previous) = (Some(previous), None);
        self.pending = self.pending.filter(|pending| *pending != previous);
        Ok(previous)
    }

    /// Forgets a serial.
    ///
    /// # Errors
    /// It is in force, or to come.
    pub fn remove(&mut self, serial: u64) -> Result<(), NotSo> {
        match self.standing(serial) {
            Standing::InForce => return Err(NotSo::Wanted(serial, "is in force")),
            Standing::Pending => {
                return Err(NotSo::Wanted(serial, "comes into force at the next start"));
            }
            Standing::Previous | Standing::Installed | Standing::BelowFloor => {}
        }
        self.installed.remove(&serial).ok_or(NotSo::NotInstalled(serial))?;
        if self.previous == Some(serial) {
            self.previous = None;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(content: &str) -> Installed {
        Installed {
            manifest: Digest::of(content.as_bytes()),
            size: 1,
            signers: Vec::new(),
            keys: Vec::new(),
            trust: None,
        }
    }

    fn with(serials: &[(u64, u64)]) -> Record {
        let mut record = Record::default();
        for (serial, floor) in serials {
            record.arrive(*serial, *floor, entry(&serial.to_string())).unwrap();
        }
        record
    }

    #[test]
    fn arrival_is_not_activation_and_activation_comes_with_the_next_start() {
        let mut record = with(&[(1, 1)]);
        assert_eq!((record.next(), record.start("a")), (None, None));
        assert_eq!(record.activate(None), Ok(1));
        assert_eq!((record.current(), record.next()), (None, Some(1)));
        assert_eq!(record.start("a"), Some((1, true)));
        assert_eq!(record.start("a"), Some((1, false)));
        record.arrive(2, 1, entry("2")).unwrap();
        assert_eq!(record.start("a"), Some((1, false)));
        record.activate(Some(2)).unwrap();
        assert_eq!(record.roll_back(), Ok(Some(1)), "it had not come into force");
        record.activate(Some(2)).unwrap();
        assert_eq!(record.start("a"), Some((2, true)));
        assert_eq!(record.roll_back(), Ok(Some(1)));
        assert_eq!(record.start("a"), Some((1, true)));
    }

    #[test]
    fn a_first_activation_that_has_not_come_into_force_is_taken_back_and_another_comes_instead() {
        let mut record = with(&[(1, 1)]);
        record.activate(None).unwrap();
        assert_eq!(record.roll_back(), Ok(None));
        assert_eq!((record.next(), record.start("a")), (None, None));
        assert_eq!(record.roll_back(), Err(NotSo::NoPrevious));
        record.remove(1).unwrap();
        record.arrive(2, 1, entry("2")).unwrap();
        record.activate(None).unwrap();
        assert_eq!(record.start("a"), Some((2, true)));
    }

    #[test]
    fn what_came_into_force_stands_there_until_it_is_in_the_audit_log() {
        let mut record = with(&[(1, 1), (2, 1)]);
        record.activate(Some(1)).unwrap();
        assert_eq!(record.begun(), None);
        record.start("a");
        let begun = record.begun().unwrap().clone();
        assert_eq!((begun.serial, begun.domain.as_str()), (1, "a"));
        record.start("b");
        assert_eq!(record.begun(), Some(&begun), "it was in force already");
        record.recorded(&Begun { serial: 2, ..begun.clone() });
        assert_eq!(record.begun(), Some(&begun), "another is in the log");
        record.recorded(&begun);
        assert_eq!(record.begun(), None);
    }

    #[test]
    fn why_an_image_could_not_come_into_force_is_said_for_as_long_as_it_is_to() {
        let mut record = with(&[(1, 1), (2, 1), (3, 1)]);
        let activate = |record: &mut Record, serial| {
            record.activate(Some(serial)).unwrap();
            let why = "it is damaged".to_owned();
            record.refuse(Refused { serial, domain: "a".to_owned(), why });
            assert_eq!(record.refused().unwrap().serial, serial);
        };
        activate(&mut record, 1);
        record.start("a");
        assert_eq!(record.refused(), None);
        activate(&mut record, 2);
        record.roll_back().unwrap();
        assert_eq!(record.refused(), None);
        activate(&mut record, 2);
        record.activate(Some(3)).unwrap();
        assert_eq!(record.refused(), None);
    }

    #[test]
    fn nothing_goes_below_the_floor_which_stays_when_all_is_removed() {
        let mut record = with(&[(5, 1)]);
        record.activate(None).unwrap();
        record.start("a");
        record.arrive(7, 6, entry("7")).unwrap();
        record.activate(None).unwrap();
        record.start("a");
        let below = NotSo::BelowFloor { serial: 5, floor: 6 };
        assert_eq!(record.roll_back(), Err(below.clone()));
        assert_eq!(record.activate(Some(5)), Err(below.clone()));
        record.remove(5).unwrap();
        assert_eq!(record.admits(5, Digest::of(b"5")), Err(below));
        assert_eq!(record.remove(7), Err(NotSo::Wanted(7, "is in force")));
        // A bundle with a lower floor changes nothing about it.
        record.arrive(8, 1, entry("8")).unwrap();
        assert_eq!(record.floor(), 6);
    }

    #[test]
    fn an_older_serial_and_one_that_stands_for_something_else_do_not_arrive() {
        let record = with(&[(3, 1)]);
        assert_eq!(record.admits(3, Digest::of(b"3")), Ok(true));
        assert_eq!(record.admits(3, Digest::of(b"x")), Err(NotSo::OtherContent(3)));
        assert_eq!(record.admits(2, Digest::of(b"2")), Err(NotSo::Older { serial: 2, newest: 3 }));
        // Also when it is not there any more.
        let mut record = with(&[(2, 1), (3, 1)]);
        record.remove(3).unwrap();
        assert_eq!(record.admits(3, Digest::of(b"x")), Err(NotSo::OtherContent(3)));
        assert_eq!(record.admits(1, Digest::of(b"1")), Err(NotSo::Older { serial: 1, newest: 3 }));
        record.remove(2).unwrap();
        assert_eq!(record.admits(2, Digest::of(b"2")), Err(NotSo::Older { serial: 2, newest: 3 }));
        assert_eq!(record.admits(3, Digest::of(b"3")), Ok(false));
        let full = with(&[(1, 1), (2, 1), (3, 1), (4, 1)]);
        assert_eq!(full.admits(5, Digest::of(b"5")), Err(NotSo::TooMany));
    }

    #[test]
    fn an_image_whose_guest_does_not_come_up_goes_back_and_never_below_the_floor() {
        let mut record = with(&[(1, 1)]);
        record.activate(None).unwrap();
        record.start("a");
        assert!(record.is_on_trial(1, "a"));
        assert_eq!(record.give_up(1, "a"), Err(NotSo::NoPrevious), "the first one stays");
        assert!(!record.is_on_trial(1, "a"));
        record.arrive(2, 1, entry("2")).unwrap();
        record.activate(None).unwrap();
        record.start("a");
        assert_eq!(record.give_up(1, "a"), Err(NotSo::NoPrevious), "it is not the one on trial");
        assert_eq!((record.give_up(2, "a"), record.start("a")), (Ok(1), Some((1, false))));
        assert!(!record.is_on_trial(1, "a"));
        // One that came up once does not go back, and neither does what somebody went back to.
        record.activate(Some(2)).unwrap();
        record.start("a");
        record.came_up(2, "a");
        assert_eq!(record.give_up(2, "a"), Err(NotSo::NoPrevious));
        record.roll_back().unwrap();
        record.start("a");
        assert!(!record.is_on_trial(1, "a"));
        record.arrive(3, 3, entry("3")).unwrap();
        record.activate(None).unwrap();
        record.start("a");
        assert_eq!(record.give_up(3, "a"), Err(NotSo::BelowFloor { serial: 1, floor: 3 }));
        assert_eq!(record.current(), Some(3));
    }

    #[test]
    fn an_image_is_judged_by_the_domain_with_whose_start_it_came_into_force_and_by_no_other() {
        let mut record = with(&[(1, 1), (2, 1)]);
        record.activate(Some(1)).unwrap();
        record.start("a");
        record.came_up(1, "a");
        record.activate(Some(2)).unwrap();
        assert_eq!((record.start("a"), record.start("b")), (Some((2, true)), Some((2, false))));
        assert!(record.is_on_trial(2, "a") && !record.is_on_trial(2, "b"));
        record.came_up(2, "b");
        assert_eq!(record.give_up(2, "b"), Err(NotSo::NoPrevious));
        assert!(record.is_on_trial(2, "a"), "another domain's guest says nothing of it");
        assert_eq!(record.give_up(2, "a"), Ok(1));
    }

    proptest! {
        #[test]
        fn whatever_is_done_what_starts_is_installed_and_not_below_a_floor_that_never_falls(
            steps in prop::collection::vec((0_u8..6, 1_u64..8, 1_u64..8), 0..60)
        ) {
            let mut record = Record::default();
            for (what, serial, floor) in steps {
                let (before, was) = (record.floor(), record.current());
                match what {
                    0 => { let _ = record.arrive(serial, floor.min(serial), entry(&serial.to_string())); }
                    1 => { let _ = record.activate(Some(serial)); }
                    2 => { let _ = record.roll_back(); }
                    3 => { let _ = record.remove(serial); }
                    4 => {
                        let back = record.give_up(serial, "a");
                        prop_assert!(back.is_err() || back.is_ok_and(|back| back >= record.floor() && record.current() == Some(back)));
                    }
                    _ => {
                        // What is in force already goes on.
                        if let Some((started, is_new)) = record.start("a") {
                            prop_assert!(record.entry(started).is_ok());
                            prop_assert!(!is_new || started >= record.floor());
                        }
                    }
                }
                prop_assert!(record.is_sound());
                prop_assert!(record.floor() >= before);
                if what < 4 { prop_assert_eq!(record.current(), was); }
            }
        }
    }
}
