//! What happened with images at starts of domains becomes entries of the audit log: in the order in which it happened, and none is lost with
//! an agent that is killed.
//!
//! An event is written into the log and then taken out of the outbox of its image ([`crate::record::ImageEvent`]). An agent that follows one
//! which was killed in between finds it in the log and does not write it again. Where the log cannot be read, or has an event in between that
//! no outbox had (its record could not be written just then), it may be there twice; it is never missing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::Path;
use std::time::Duration;

use audit::AuditEvent;
use audit::events::{ImageInForce, ImageRefused, ImageReturned, cut};
use clock::Moment;
use printable::explain;

use crate::manifest::ImageName;
use crate::record::{ImageEvent, OUTBOX_MAX, Occurrence};
use crate::store::{Store, StoreError};

/// How long an outbox is left alone that could not be read, recorded or emptied.
const AGAIN: Duration = Duration::from_secs(10);
/// How the cause of a refusal begins that a start met, and no command.
const AT_A_START: &str = "at a start of ";

/// The outboxes in which something waits.
#[derive(Debug, Default)]
pub struct Outboxes {
    waiting: BTreeSet<ImageName>,
    /// What is on record and could not be taken out: it is not recorded once more.
    recorded: BTreeMap<ImageName, Vec<ImageEvent>>,
    /// When they are next looked at, if something was in the way.
    again: Option<Moment>,
}

impl Outboxes {
    /// Finds what an agent left that was killed, and what of it is in the log already. `uid` is the user of this process.
    pub fn resume(&mut self, images: &Path, log: &Path, uid: u32) {
        let all = Store::at(images).outboxes();
        if all.is_empty() {
            return;
        }
        let last = last_in_log(log).unwrap_or_else(|error| {
            tracing::error!(
                "what is on record of images is not known, so that it may be recorded twice: {}: {error}",
                log.display()
            );
            BTreeMap::new()
        });
        for (image, events) in all {
            let wanted: Vec<AuditEvent> =
                events.iter().map(|it| event(&image, it.clone(), uid)).collect();
            let there = last.get(image.as_str()).map_or(0, |there| overlap(there, &wanted));
            self.recorded.insert(image.clone(), events.into_iter().take(there).collect());
            self.waiting.insert(image);
        }
    }

    /// Takes note that something waits in the outbox of an image.
    pub fn add(&mut self, image: ImageName) {
        self.waiting.insert(image);
    }

    /// Records what waits, and takes it out once it is on the disk. `write` says whether events are on the disk; `uid` is the user of this
    /// process. Waits for nobody.
    pub fn record(
        &mut self,
        images: &Path,
        now: Moment,
        uid: u32,
        mut write: impl FnMut(&[AuditEvent]) -> bool,
    ) {
        if self.waiting.is_empty() || self.again.is_some_and(|again| now < again) {
            return;
        }
        let was_stuck = self.again.take().is_some();
        let store = Store::at(images);
        let mut still = BTreeSet::new();
        for image in std::mem::take(&mut self.waiting) {
            let done = self.record_one(&store, &image, uid, &mut write);
            if let Err(error) = &done
                && !was_stuck
            {
                tracing::error!(
                    "what happened with image {image} cannot be recorded or taken out, which is tried again: {}",
                    explain(error)
                );
            }
            if !done.unwrap_or(false) {
                still.insert(image);
            }
        }
        self.again = (!still.is_empty()).then(|| now + AGAIN);
        self.waiting = still;
    }

    /// Records what waits of one image. Returns whether nothing waits any more.
    fn record_one(
        &mut self,
        store: &Store,
        image: &ImageName,
        uid: u32,
        write: &mut impl FnMut(&[AuditEvent]) -> bool,
    ) -> Result<bool, StoreError> {
        let waiting = store.record(image)?.map_or(Vec::new(), |record| record.events().to_vec());
        let recorded = self.recorded.remove(image).filter(|it| waiting.starts_with(it));
        let recorded = recorded.unwrap_or_default();
        let new: Vec<AuditEvent> =
            waiting.iter().skip(recorded.len()).map(|it| event(image, it.clone(), uid)).collect();
        if !new.is_empty() && !write(&new) {
            self.recorded.insert(image.clone(), recorded);
            return Ok(false);
        }
        if waiting.is_empty() {
            return Ok(true);
        }
        store.recorded(image, &waiting).inspect_err(|_| {
            self.recorded.insert(image.clone(), waiting.clone());
        })?;
        Ok(true)
    }
}

/// Returns the entry of something that happened with an image. `uid` is the user of this process.
#[must_use]
pub fn event(image: &ImageName, event: ImageEvent, uid: u32) -> AuditEvent {
    let ImageEvent { at, serial, domain, what } = event;
    let image = image.to_string();
    match what {
        Occurrence::InForce { manifest } => {
            ImageInForce { at, domain, image, manifest: manifest.map(String::from), serial }.into()
        }
        Occurrence::Returned { back } => {
            ImageReturned { at, domain, back: Some(back), image, serial, stays: None }.into()
        }
        Occurrence::Stayed { why } => {
            ImageReturned { at, domain, back: None, image, serial, stays: Some(cut(&why)) }.into()
        }
        Occurrence::Refused { why } => {
            let at = at.unwrap_or_default();
            let why = cut(&format!("{AT_A_START}{domain}: {why}"));
            ImageRefused { at, image: Some(image), serial: Some(serial), uid, why }.into()
        }
    }
}

/// Returns the name of the image that an entry is about, if it is of something that an outbox may have had.
fn about(event: &AuditEvent) -> Option<&str> {
    match event {
        AuditEvent::ImageInForce(it) => Some(&it.image),
        AuditEvent::ImageReturned(it) => Some(&it.image),
        AuditEvent::ImageRefused(it) if it.why.starts_with(AT_A_START) => it.image.as_deref(),
        _ => None,
    }
}

/// Returns what the log has last of each image, no more of it than an outbox holds.
fn last_in_log(log: &Path) -> io::Result<BTreeMap<String, VecDeque<AuditEvent>>> {
    let mut last: BTreeMap<String, VecDeque<AuditEvent>> = BTreeMap::new();
    let read = audit::each(log, |_, entry| {
        if let Some(event) = AuditEvent::read(&entry)
            && let Some(image) = about(&event)
        {
            let of_image = last.entry(image.to_owned()).or_default();
            if of_image.len() >= OUTBOX_MAX {
                of_image.pop_front();
            }
            of_image.push_back(event);
        }
        Ok(())
    });
    match read {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(last),
    }
}

/// Returns how many of these events, from the first on, the log ends with.
fn overlap(there: &VecDeque<AuditEvent>, wanted: &[AuditEvent]) -> usize {
    let ends_with = |count: &usize| {
        let skipped = there.len().saturating_sub(*count);
        there.len() >= *count && there.iter().skip(skipped).eq(wanted.iter().take(*count))
    };
    (0..=wanted.len()).rev().find(ends_with).unwrap_or(0)
}

#[cfg(test)]
mod tests;
