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

mod rejection;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use rejection::NotSo;

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
mod tests;
