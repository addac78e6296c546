//! The guest of an image that has newly come into force is waited for; without its word the image before comes back.

use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use base::sockets::connect;
use images::digest::Digest;
use images::manifest::HEALTH_PORT;
use images::store::Store;
use printable::explain;

use super::super::boot::{ImageSerial, StartedImage};
use super::super::lifecycle::{Event, Time};
use super::super::trial::{Trial, Verdict};
use super::super::{Report, Shared};
use super::DomainRuntime;
use config::machine::Boot;

/// How often it is tried to write down that a guest came up, and how long after another.
const WRITES_MAX: u32 = 60;
const WRITE_AGAIN: Duration = Duration::from_secs(10);
/// How often the port is tried while nobody listens there, as the VMM has just been started.
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// What there is to write down of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageNews {
    /// It came into force with a start; and the digest of its manifest.
    InForce(ImageSerial, Digest),
    /// It was to come into force with a start and could not, and why.
    Refused(ImageSerial, String),
    /// Its guest did not come up.
    DidNotComeUp {
        image: ImageSerial,
        /// The serial that is in force again, or why it stays.
        back: Result<u64, String>,
    },
}

/// A guest that is waited for.
pub(super) struct Health {
    image: ImageSerial,
    trial: Trial,
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

impl DomainRuntime {
    /// Takes note that its image is verified, and its guest starts.
    pub(super) fn image_started(&mut self, started: Option<StartedImage>) {
        let Some(StartedImage { image, manifest, is_new, health, refused }) = started else {
            return;
        };
        self.image_refused = refused.map(|(refused, why)| {
            let ImageSerial { image: name, serial } = &refused;
            let words = format!(
                "image {name} {serial} was to come into force and cannot, so that {} stays: {why}",
                image.serial
            );
            tracing::error!(domain = self.policy.name, "{words}");
            self.image_news.push(ImageNews::Refused(refused, why));
            words
        });
        if is_new {
            self.image_problem = None;
            self.image_news.push(ImageNews::InForce(image.clone(), manifest));
        }
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
    pub(super) fn image_runs_on(&mut self, shared: &Shared) {
        let Boot::Image(name) = &self.devices.hardware.boot else { return };
        if let Some((serial, seconds)) = Store::at(&shared.parts.layout.images).on_trial(name) {
            let image = ImageSerial { image: name.clone(), serial };
            let time = Duration::from_secs(seconds.into());
            // A guest says once that it came up. What the agent before heard of one that has run for longer nobody knows: a desktop that works is not
            // shut down for that.
            if self.vmm_age().is_none_or(|age| age < time) {
                self.wait_for(shared.now(), image, Some(time));
            }
        }
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
                    port: None,
                    next_try: now,
                });
            }
        }
    }

    /// Reads what its guest says, and has the image before come back once it is too late.
    pub(super) fn look_at_health(&mut self, shared: &Shared) {
        if !self.lifecycle.wanted() && !self.lifecycle.has_given_up() {
            // Somebody has stopped it: nobody can say of its guest that it did not come up.
            self.health = None;
        }
        let path = shared.parts.layout.port_socket(&self.policy.name, HEALTH_PORT);
        let now = shared.now();
        let Some(verdict) = self.health.as_mut().and_then(|health| health.poll(now, &path)) else {
            return;
        };
        let Some(Health { image, .. }) = self.health.take() else { return };
        let store = Store::at(&shared.parts.layout.images);
        let name = self.policy.name.clone();
        let written = shared.spawn(self.index, &name, move |report| {
            let ImageSerial { image: name, serial } = &image;
            match verdict {
                Verdict::CameUp => {
                    // Not written down, the next agent would wait for what the guest says once.
                    for _ in 0..WRITES_MAX {
                        let Err(error) = store.came_up(name, *serial) else { return };
                        tracing::warn!(
                            "cannot write down that image {name} came up, which is tried again: {}",
                            explain(&error)
                        );
                        std::thread::sleep(WRITE_AGAIN);
                    }
                }
                Verdict::TooLate => {
                    let back = match store.give_up(name, *serial) {
                        Ok(back) => back.map_err(|why| why.to_string()),
                        Err(error) => Err(explain(&error)),
                    };
                    report(Report::DidNotComeUp(image.clone(), back));
                }
            }
        });
        if let Err(error) = written {
            tracing::error!(domain = name, "cannot start a thread: {error}");
        }
    }

    /// Gives the image up whose guest did not come up: the image before is in force again, or not.
    pub(super) fn did_not_come_up(
        &mut self,
        shared: &mut Shared,
        image: ImageSerial,
        back: Result<u64, String>,
    ) {
        let ImageSerial { image: name, serial } = &image;
        let words = match &back {
            Ok(before) => format!(
                "image {name} {serial} did not come up in its time, and {before} is in force again: tell IT"
            ),
            Err(why) => {
                format!("image {name} {serial} did not come up in its time, and stays: {why}")
            }
        };
        tracing::error!(domain = self.policy.name, "{words}");
        self.image_problem = Some(words);
        let goes_back = back.is_ok();
        self.image_news.push(ImageNews::DidNotComeUp { image, back });
        if goes_back && (self.lifecycle.wanted() || self.lifecycle.has_given_up()) {
            self.feed(shared, Event::Restart);
        }
    }

    /// Returns what is wrong with its image: its guest did not come up since another came into force, or one could not come into force.
    #[must_use]
    pub fn image_problem(&self) -> Option<&str> {
        self.image_problem.as_deref().or(self.image_refused.as_deref())
    }
}
