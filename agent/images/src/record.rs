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

mod outbox;
mod rejection;
mod saved;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use outbox::{ImageEvent, OUTBOX_MAX, Occurrence};
pub use rejection::Rejection;

use outbox::Outbox;
use saved::SavedRecord;

use crate::digest::Digest;

/// Images of one name that are kept at once: one in force, one before, one to come, and one to spare.
pub const INSTALLED_MAX: usize = 4;

/// What is written down of the images of one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "SavedRecord", into = "SavedRecord")]
pub struct Record {
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
    /// Was to come into force with a start and could not.
    refused: Option<RefusedStart>,
    /// The last trial that failed, until somebody activates an image or removes that one.
    failed: Option<FailedTrial>,
    /// What happened and is not in the audit log for certain.
    outbox: Outbox,
    /// The newest that ever was installed, also when it was removed since.
    newest: Option<NewestImage>,
    installed: BTreeMap<u64, Installed>,
}

/// An image whose guest has to come up, in the domain with whose start it came into force. Other domains with this image say nothing of it, and
/// start from the image before until it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Trial {
    serial: u64,
    domain: String,
}

/// An image whose guest did not come up in its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailedTrial {
    /// The serial of the image.
    pub serial: u64,
    /// The domain whose guest it was.
    pub domain: String,
    /// The serial that is in force again, or why none is and this one stays.
    pub back: Result<u64, String>,
}

/// An image that is to come into force, and could not with the last start of a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefusedStart {
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
struct NewestImage {
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
pub enum ImageState {
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

impl Default for Record {
    fn default() -> Self {
        Self {
            floor: 1,
            current: None,
            previous: None,
            pending: None,
            trial: None,
            refused: None,
            failed: None,
            outbox: Outbox::default(),
            newest: None,
            installed: BTreeMap::new(),
        }
    }
}

impl Record {
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

    /// Returns what happened and is not in the audit log for certain, in the order in which it happened.
    #[must_use]
    pub fn events(&self) -> &[ImageEvent] {
        self.outbox.events()
    }

    /// Takes note that the audit log has these, which have waited for longest.
    pub fn recorded(&mut self, events: &[ImageEvent]) {
        self.outbox.remove(events);
    }

    /// Returns the last trial that failed, until somebody activates an image or removes that one.
    #[must_use]
    pub fn failed(&self) -> Option<&FailedTrial> {
        self.failed.as_ref()
    }

    /// Returns why the image that is to come into force could not with the last start of a domain.
    #[must_use]
    pub fn refused(&self) -> Option<&RefusedStart> {
        self.refused.as_ref().filter(|refused| self.pending == Some(refused.serial))
    }

    /// Takes note that the image that is to come into force cannot with this start, at this time by the PC's clock. Returns whether that waits
    /// for the audit log; there may be no room.
    pub fn refuse(&mut self, refused: RefusedStart, at: &str) -> bool {
        let RefusedStart { serial, domain, why } = refused.clone();
        self.refused = Some(refused);
        let what = Occurrence::Refused { why };
        self.outbox.push_refusal(ImageEvent { at: Some(at.to_owned()), serial, domain, what })
    }

    /// Returns the serial that this domain gets if it starts now.
    #[must_use]
    pub fn next(&self, domain: &str) -> Option<u64> {
        self.pending.or(self.in_force_in(domain))
    }

    /// Returns the serial that is in force in this domain: the image before, while another domain tries the one in force. One that could not go
    /// back is in force everywhere.
    #[must_use]
    pub fn in_force_in(&self, domain: &str) -> Option<u64> {
        let elsewhere = self.tried().is_some_and(|trial| trial.domain != domain);
        let before = self.previous.filter(|previous| elsewhere && *previous >= self.floor);
        before.or(self.current)
    }

    /// Returns the domain whose guest has to come up for the image in force, if it has not yet.
    #[must_use]
    pub fn tried_in(&self) -> Option<&str> {
        self.tried().map(|trial| trial.domain.as_str())
    }

    fn tried(&self) -> Option<&Trial> {
        self.trial.as_ref().filter(|trial| self.current == Some(trial.serial))
    }

    /// Returns what is installed, the newest first, and where it stands.
    pub fn installed(&self) -> impl Iterator<Item = (u64, ImageState, &Installed)> {
        self.installed.iter().rev().map(|(serial, entry)| (*serial, self.standing(*serial), entry))
    }

    /// Returns what is written down of a serial.
    ///
    /// # Errors
    /// It is not installed.
    pub fn entry(&self, serial: u64) -> Result<&Installed, Rejection> {
        self.installed.get(&serial).ok_or(Rejection::NotInstalled(serial))
    }

    fn standing(&self, serial: u64) -> ImageState {
        let is = |which: Option<u64>| which == Some(serial);
        match serial {
            _ if is(self.current) => ImageState::InForce,
            _ if is(self.pending) => ImageState::Pending,
            _ if serial < self.floor => ImageState::BelowFloor,
            _ if is(self.previous) => ImageState::Previous,
            _ => ImageState::Installed,
        }
    }

    /// Says whether an image may arrive; `true` if just this one is there already.
    ///
    /// # Errors
    /// It may not.
    pub fn admits(&self, serial: u64, manifest: Digest) -> Result<bool, Rejection> {
        match self.installed.get(&serial) {
            Some(there) if there.manifest == manifest => return Ok(true),
            Some(_) => return Err(Rejection::OtherContent(serial)),
            None => {}
        }
        if serial < self.floor {
            return Err(Rejection::BelowFloor { serial, floor: self.floor });
        }
        match self.newest {
            Some(newest) if serial < newest.serial => {
                Err(Rejection::Older { serial, newest: newest.serial })
            }
            Some(newest) if serial == newest.serial && manifest != newest.manifest => {
                Err(Rejection::OtherContent(serial))
            }
            _ if self.installed.len() >= INSTALLED_MAX => Err(Rejection::TooMany),
            _ => Ok(false),
        }
    }

    /// Takes an image that has arrived whole, and its floor. What was to come into force and is below that does not.
    ///
    /// # Errors
    /// It may not arrive.
    pub fn arrive(&mut self, serial: u64, floor: u64, entry: Installed) -> Result<(), Rejection> {
        if !self.admits(serial, entry.manifest)? {
            self.newest = Some(NewestImage { serial, manifest: entry.manifest });
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
    pub fn activate(&mut self, serial: Option<u64>) -> Result<u64, Rejection> {
        let newest = || self.installed.keys().next_back().copied();
        let serial = serial.or_else(newest).ok_or(Rejection::NoPrevious)?;
        self.entry(serial)?;
        if serial < self.floor {
            return Err(Rejection::BelowFloor { serial, floor: self.floor });
        }
        self.pending = Some(serial).filter(|serial| self.current != Some(*serial));
        (self.refused, self.failed) = (None, None);
        Ok(serial)
    }

    /// Takes back an activation that has not come into force; without one, lets the previous image come into force at the next start.
    /// Returns the serial of that start; `None` if no image was in force before the activation, so that there is none for it.
    ///
    /// # Errors
    /// There is none, or it is below the floor.
    pub fn roll_back(&mut self) -> Result<Option<u64>, Rejection> {
        if self.pending.take().is_some() {
            self.refused = None;
            return Ok(self.current);
        }
        let previous = self.previous.ok_or(Rejection::NoPrevious)?;
        self.activate(Some(previous)).map(Some)
    }

    /// Takes note that a domain starts at this time by the PC's clock, and returns the serial it gets, and whether that comes into force with it;
    /// `None` if nothing is activated.
    ///
    /// # Errors
    /// One would come into force, and too much waits for the audit log.
    pub fn start(&mut self, domain: &str, at: &str) -> Result<Option<(u64, bool)>, Rejection> {
        let Some(pending) = self.pending else {
            return Ok(self.in_force_in(domain).map(|current| (current, false)));
        };
        if !self.outbox.takes_a_trial() {
            return Err(Rejection::NotRecorded(pending));
        }
        let is_tried = self.tried().is_some();
        (self.pending, self.refused, self.failed) = (None, None, None);
        let manifest = self.installed.get(&pending).map(|entry| entry.manifest);
        self.happened(at, pending, domain, Occurrence::InForce { manifest });
        let current = self.current.replace(pending);
        // One whose guest never came up is nothing to go back to.
        let proven = self.previous.filter(|previous| is_tried && *previous != pending);
        self.previous = proven.or(current);
        // Who goes back knows the older one.
        let is_newer = self.previous.is_none_or(|previous| previous < pending);
        self.trial = is_newer.then(|| Trial { serial: pending, domain: domain.to_owned() });
        Ok(Some((pending, true)))
    }

    fn happened(&mut self, at: &str, serial: u64, domain: &str, what: Occurrence) {
        let (at, domain) = (Some(at.to_owned()), domain.to_owned());
        self.outbox.push(ImageEvent { at, serial, domain, what });
    }

    /// Returns whether this image is in force since a start of this domain, and the domain's guest has not come up since.
    #[must_use]
    pub fn is_on_trial(&self, serial: u64, domain: &str) -> bool {
        self.tried().is_some_and(|trial| trial.serial == serial && trial.domain == domain)
    }

    /// Ends the trial of an image whose guest came up in this domain, or never says whether it does.
    pub fn came_up(&mut self, serial: u64, domain: &str) {
        if self.is_on_trial(serial, domain) {
            self.trial = None;
        }
    }

    /// Ends the trial of an image whose guest did not come up in this domain, at this time by the PC's clock: the image before is in force again,
    /// whose serial is returned. The trial is over also if there is none to go back to. What is pending stays pending, unless it is the image
    /// before.
    ///
    /// # Errors
    /// There is no image before, or it is below the floor: it stays. Or it is not on trial there, and nothing is changed.
    pub fn give_up(&mut self, serial: u64, domain: &str, at: &str) -> Result<u64, Rejection> {
        if !self.is_on_trial(serial, domain) {
            return Err(Rejection::NotOnTrial(serial));
        }
        self.trial = None;
        let back = match self.previous {
            None => Err(Rejection::NoPrevious),
            Some(previous) if previous < self.floor => {
                Err(Rejection::BelowFloor { serial: previous, floor: self.floor })
            }
            Some(previous) => Ok(previous),
        };
        if let Ok(previous) = back {
            (self.current, self.previous) = (Some(previous), None);
            self.pending = self.pending.filter(|pending| *pending != previous);
        }
        let (domain, said) = (domain.to_owned(), back.clone().map_err(|why| why.to_string()));
        let what = match said.clone() {
            Ok(back) => Occurrence::Returned { back },
            Err(why) => Occurrence::Stayed { why },
        };
        self.happened(at, serial, &domain, what);
        self.failed = Some(FailedTrial { serial, domain, back: said });
        back
    }

    /// Forgets a serial.
    ///
    /// # Errors
    /// It is in force, or to come.
    pub fn remove(&mut self, serial: u64) -> Result<(), Rejection> {
        match self.standing(serial) {
            ImageState::InForce => return Err(Rejection::StillNeeded(serial, "is in force")),
            ImageState::Pending => {
                return Err(Rejection::StillNeeded(serial, "comes into force at the next start"));
            }
            ImageState::Previous | ImageState::Installed | ImageState::BelowFloor => {}
        }
        self.installed.remove(&serial).ok_or(Rejection::NotInstalled(serial))?;
        if self.previous == Some(serial) {
            self.previous = None;
        }
        self.failed = self.failed.take().filter(|failed| failed.serial != serial);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
