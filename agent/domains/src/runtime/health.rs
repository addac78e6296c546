//! The guest of an image that has newly come into force is waited for; without its word the image before comes back.

use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use base::sockets::connect;
use images::manifest::{HEALTH_PORT, ImageName};
use images::record::{FailedTrial, ImageEvent, Occurrence, RefusedStart, Rejection};
use images::store::Store;
use printable::explain;

use super::super::boot::{ImageSerial, RefusedImage, StartedImage};
use super::super::lifecycle::{Event, Time};
use super::super::trial::{Trial, Verdict};
use super::super::{Report, SupervisorContext};
use super::DomainRuntime;
use config::machine::Boot;

/// How often it is tried to write down that a guest came up, and how long after another.
const WRITES_MAX: u32 = 60;
const WRITE_AGAIN: Duration = Duration::from_secs(10);
/// How often the port is tried while nobody listens there, as the VMM has just been started.
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// An event of an image for the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageNews {
    pub image: ImageName,
    /// What happened, if its record could not take that; otherwise that waits in the image's outbox.
    pub unwritten: Option<ImageEvent>,
}

/// How the trial of an image ended whose guest did not come up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct TrialEnd {
    pub(super) image: ImageSerial,
    /// The serial that is in force again, or why it stays.
    pub(super) back: Result<u64, String>,
    /// What there is to record, if the image's record could not take that.
    unwritten: Option<ImageEvent>,
}

impl TrialEnd {
    /// Gives an image up in a domain, and writes that down.
    fn write(store: &Store, image: ImageSerial, domain: &str) -> Self {
        let written = store.give_up(&image.image, image.serial, domain);
        let is_written = matches!(
            written,
            Ok(Ok(_) | Err(Rejection::NoPrevious | Rejection::BelowFloor { .. }))
        );
        let back = match written {
            Ok(back) => back.map_err(|why| why.to_string()),
            Err(error) => Err(explain(&error)),
        };
        let why = back.as_ref().err().filter(|_| !is_written);
        let unwritten = why.map(|why| ImageEvent {
            at: None,
            serial: image.serial,
            domain: domain.to_owned(),
            what: Occurrence::Stayed { why: why.clone() },
        });
        Self { image, back, unwritten }
    }
}

/// The trial of an image's guest, with its connection to the guest's port.
pub(super) struct Health {
    image: ImageSerial,
    trial: Trial,
    /// Whether the guest's silence counts as not having come up.
    judged: bool,
    port: Option<UnixStream>,
    next_try: Time,
}

impl Health {
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.port.as_ref().map(UnixStream::as_fd)
    }

    pub(super) fn deadline(&self) -> Time {
        match self.port {
            Some(_) => self.trial.deadline(),
            None => self.trial.deadline().min(self.next_try),
        }
    }

    /// Reads what the guest wrote by now.
    fn poll(&mut self, now: Time, path: &std::path::Path) -> Option<Verdict> {
        if self.port.is_none() && now >= self.next_try {
            self.next_try = now.saturating_add(TRY_AGAIN);
            self.port = connect(path).ok();
            self.trial.connected();
        }
        // No more than counts; a guest that goes on is read no further.
        let mut said = [0; 64];
        let read = match self.port.as_mut().map(|port| port.read(&mut said)) {
            Some(Ok(0)) => {
                self.port = None;
                0
            }
            Some(Ok(read)) => read,
            Some(Err(error))
                if !matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                self.port = None;
                0
            }
            Some(Err(_)) | None => 0,
        };
        let verdict = self.trial.take(now, said.get(..read).unwrap_or_default());
        if !self.trial.listens() {
            // A guest that never ends talking keeps nobody awake.
            (self.port, self.next_try) = (None, Time::MAX);
        }
        verdict
    }
}

/// Returns whether the silence of a guest says that it did not come up, whose VMM of this age was taken up from an earlier agent. A guest says
/// once that it came up, and what it says while no agent listens may be lost: of one that has run for longer than its time nobody knows, and a
/// desktop that works is not shut down for that.
fn is_judged(time: Duration, age: Option<Duration>) -> bool {
    age.is_none_or(|age| age < time)
}

/// Writes down that the guest of an image came up, until it is written: not written down, the next agent would wait for what the guest says once.
fn write_came_up(store: &Store, image: &ImageSerial, domain: &str, again: Duration) {
    let ImageSerial { image: name, serial } = image;
    for _ in 0..WRITES_MAX {
        let Err(error) = store.came_up(name, *serial, domain) else { return };
        tracing::warn!(
            "cannot write down that image {name} came up, which is tried again: {}",
            explain(&error)
        );
        std::thread::sleep(again);
    }
}

/// Returns what is said of an image whose guest did not come up.
fn did_not_come_up(image: &ImageSerial, back: &Result<u64, String>) -> String {
    let ImageSerial { image: name, serial } = image;
    match back {
        Ok(before) => format!(
            "image {name} {serial} did not come up in its time, and {before} is in force again: tell IT"
        ),
        Err(why) => format!("image {name} {serial} did not come up in its time, and stays: {why}"),
    }
}

/// Returns what is said of a trial that an earlier agent saw fail.
fn words_of(image: &ImageName, failed: FailedTrial) -> String {
    let FailedTrial { serial, back, .. } = failed;
    did_not_come_up(&ImageSerial { image: image.clone(), serial }, &back)
}

/// Returns what is said of an image on trial whose guest nobody listened to in its time.
fn unjudged(image: &ImageSerial, domain: &str) -> String {
    let ImageSerial { image: name, serial } = image;
    format!(
        "runs image {name} {serial}, and whether that came up is not known, as no agent listened in its time: it is judged at its next start, `bulkhead restart {domain}` when nobody works there"
    )
}

/// Returns what is said of an image that was to come into force and cannot.
fn cannot(image: &ImageSerial, stays: u64, why: &str) -> String {
    let ImageSerial { image: name, serial } = image;
    format!("image {name} {serial} was to come into force and cannot, so that {stays} stays: {why}")
}

impl DomainRuntime {
    /// Takes note that its image is verified, and its guest starts.
    pub(super) fn image_started(&mut self, started: Option<StartedImage>) {
        let Some(StartedImage { image, is_new, health, refused }) = started else {
            return;
        };
        self.image_refused = refused.map(|RefusedImage { image: refused, why, unwritten }| {
            let words = cannot(&refused, image.serial, &why);
            tracing::error!(domain = self.policy.name, "{words}");
            self.image_news.push(ImageNews { image: refused.image, unwritten });
            words
        });
        if is_new {
            self.image_news.push(ImageNews { image: image.image.clone(), unwritten: None });
        }
        self.unjudged = None;
        // An earlier agent may have found out.
        self.image_problem = self
            .failed_before(&image.image)
            .map(|failed| words_of(&image.image, failed))
            .or(self.image_problem.take().filter(|_| !is_new));
        // Its guest's time begins when there is a VMM, whatever a start waits for before.
        self.awaited = health.map(|time| (image, time));
        if self.awaited.is_none() {
            self.health = None;
        }
    }

    /// Takes note that there is a VMM: its guest's time to come up begins.
    pub(super) fn guest_starts(&mut self, now: Time) {
        if let Some((image, time)) = self.awaited.clone() {
            self.wait_for(now, image, Some(time));
        }
    }

    /// Takes note that its guest runs on, and may not have come up yet.
    pub(super) fn image_runs_on(&mut self, shared: &SupervisorContext) {
        // What it was started from counts, and not what a start would get now.
        let Some(image) = self.record.as_ref().and_then(|record| record.image.clone()) else {
            return;
        };
        self.image_refused = self.refused_before(&image);
        self.image_problem = self.failed_before(&image.image).map(|it| words_of(&image.image, it));
        let store = Store::at(&shared.parts.layout.images);
        let on_trial = store.on_trial(&image.image, image.serial, &self.policy.name);
        let Some(seconds) = on_trial else { return };
        if self.record.as_ref().is_some_and(|record| record.came_up) {
            // The agent before heard it, and did not live to write it down.
            return self.work_on_trial(shared, move |domain, _| {
                write_came_up(&store, &image, domain, WRITE_AGAIN);
            });
        }
        let time = Duration::from_secs(seconds.into());
        let judged = is_judged(time, self.vmm_age());
        if !judged {
            let words = unjudged(&image, &self.policy.name);
            tracing::warn!(domain = self.policy.name, "{words}");
            self.unjudged = Some(image.clone());
        }
        self.wait_for(shared.now(), image, Some(time));
        if let Some(health) = &mut self.health {
            health.judged = judged;
        }
    }

    /// Starts a background job that records what became of a trial.
    fn work_on_trial(
        &self,
        shared: &SupervisorContext,
        work: impl FnOnce(&str, &dyn Fn(Report)) + Send + 'static,
    ) {
        let domain = self.policy.name.clone();
        let started = shared.spawn(self.index, &self.policy.name, move |report| {
            work(&domain, report);
        });
        if let Err(error) = started {
            tracing::error!(domain = self.policy.name, "cannot start a thread: {error}");
        }
    }

    /// Writes down beside its VMM that its guest came up: it says so once, and the image's record may not be there to be written just now.
    fn remember_that_it_came_up(&mut self, shared: &SupervisorContext) {
        let Some(record) = &mut self.record else { return };
        record.came_up = true;
        if let Err(error) = record.write(&shared.parts.layout) {
            tracing::warn!(
                domain = self.policy.name,
                "cannot write down beside its VMM that its guest came up: {error}"
            );
        }
    }

    /// Returns why another image could not come into force with its last start, as an earlier agent wrote it down.
    fn refused_before(&self, runs: &ImageSerial) -> Option<String> {
        let record = Store::at(&self.devices.layout.images).record(&runs.image).ok()??;
        let RefusedStart { serial, domain, why } = record.refused()?;
        let refused = ImageSerial { image: runs.image.clone(), serial: *serial };
        (*domain == self.policy.name).then(|| cannot(&refused, runs.serial, why))
    }

    /// Returns the last trial of an image in this domain that failed, as it is written down.
    fn failed_before(&self, image: &ImageName) -> Option<FailedTrial> {
        let record = Store::at(&self.devices.layout.images).record(image).ok()??;
        record.failed().filter(|failed| failed.domain == self.policy.name).cloned()
    }

    /// Returns whether its guest runs on from an image that an agent gave up which did not live to restart it.
    pub(super) fn runs_what_was_given_up(&self) -> bool {
        let runs = || {
            let image = self.record.as_ref()?.image.as_ref()?;
            let failed = self.failed_before(&image.image)?;
            Some(failed.serial == image.serial && failed.back.is_ok())
        };
        runs().unwrap_or(false)
    }

    /// Returns what there is to say of its image in its status, as it is now: what is wrong with it, or that another waits for its next start.
    #[must_use]
    pub fn image_note(&self) -> Option<String> {
        if let Some(problem) = &self.image_problem {
            return Some(problem.clone());
        }
        let runs = self.record.as_ref()?.image.as_ref()?;
        if self.unjudged.as_ref() == Some(runs) {
            return Some(unjudged(runs, &self.policy.name));
        }
        if self.devices.hardware.boot != Boot::Image(runs.image.clone()) {
            return None;
        }
        let record = Store::at(&self.devices.layout.images).record(&runs.image).ok()??;
        let next = record.next(&self.policy.name).filter(|next| *next != runs.serial)?;
        let (image, name) = (&runs.image, &self.policy.name);
        Some(self.refused_before(runs).unwrap_or_else(|| {
            format!(
                "runs image {image} {}, and {next} comes with its next start: `bulkhead restart {name}` when nobody works there",
                runs.serial
            )
        }))
    }

    fn wait_for(&mut self, now: Time, image: ImageSerial, time: Option<Duration>) {
        match &mut self.health {
            // Its VMM failed: that gives it no more time.
            Some(health) if health.image == image && time.is_some() => {
                (health.port, health.next_try) = (None, now);
            }
            _ => {
                self.health = time.map(|time| Health {
                    image,
                    trial: Trial::begin(now, time),
                    judged: true,
                    port: None,
                    next_try: now,
                });
            }
        }
    }

    /// Reads what its guest says, and has the image before come back once it is too late.
    pub(super) fn look_at_health(&mut self, shared: &SupervisorContext) {
        if !self.lifecycle.wanted() && !self.lifecycle.has_given_up() {
            // Somebody has stopped it: nobody can say of its guest that it did not come up.
            self.health = None;
        }
        let path = shared.parts.layout.port_socket(&self.policy.name, HEALTH_PORT);
        let now = shared.now();
        let Some(verdict) = self.health.as_mut().and_then(|health| health.poll(now, &path)) else {
            return;
        };
        let Some(Health { image, judged, .. }) = self.health.take() else { return };
        let store = Store::at(&shared.parts.layout.images);
        match verdict {
            Verdict::CameUp => {
                self.unjudged = None;
                self.remember_that_it_came_up(shared);
                self.work_on_trial(shared, move |domain, _| {
                    write_came_up(&store, &image, domain, WRITE_AGAIN);
                });
            }
            Verdict::TooLate if judged => self.work_on_trial(shared, move |domain, report| {
                report(Report::DidNotComeUp(TrialEnd::write(&store, image, domain)));
            }),
            // Its next start is judged.
            Verdict::TooLate => {}
        }
    }

    /// Gives the image up whose guest did not come up: the image before is in force again, or not.
    pub(super) fn did_not_come_up(&mut self, shared: &mut SupervisorContext, end: TrialEnd) {
        let TrialEnd { image, back, unwritten } = end;
        let words = did_not_come_up(&image, &back);
        tracing::error!(domain = self.policy.name, "{words}");
        self.image_problem = Some(words);
        // A start that is being prepared from it waits for it no more.
        self.awaited = self.awaited.take().filter(|(awaited, _)| *awaited != image);
        let runs_another = self.record.as_ref().is_some_and(|it| it.image.as_ref() != Some(&image));
        let goes_back = back.is_ok() && !runs_another;
        self.image_news.push(ImageNews { image: image.image, unwritten });
        if goes_back && (self.lifecycle.wanted() || self.lifecycle.has_given_up()) {
            self.feed(shared, Event::Restart);
        }
    }

    /// Returns whether the image that its start was prepared from is in force no more, so that a start would get another.
    pub(super) fn is_superseded(&self, shared: &SupervisorContext) -> bool {
        let Some(prepared) = self.boot.as_ref().and_then(|boot| boot.image.as_ref()) else {
            return false;
        };
        // What cannot be read says nothing; what was prepared is verified.
        let record = Store::at(&shared.parts.layout.images).record(&prepared.image).ok().flatten();
        record.is_some_and(|it| it.in_force_in(&self.policy.name) != Some(prepared.serial))
    }

    /// Returns what is wrong with its image: its guest did not come up since another came into force, or one could not come into force.
    #[must_use]
    pub fn image_problem(&self) -> Option<&str> {
        self.image_problem.as_deref().or(self.image_refused.as_deref())
    }
}

#[cfg(test)]
pub(super) mod tests;
