//! Waiting: what is there to read, and what is due.

use std::os::fd::AsFd;
use std::time::Duration;

use clock::Moment;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{FLIP_MAX, Stage};
use crate::Backend;
use crate::core::{DeviceId, DomainIndex, Time};
use crate::display::Display;

/// A source of events that the seat's thread waits for.
enum Source {
    Wake,
    Device(DeviceId),
    Link(DomainIndex),
    Screen,
    Uevents,
    Alarm,
}

/// The sources that are ready to be read.
#[derive(Default)]
pub(super) struct ReadySources {
    pub(super) devices: Vec<DeviceId>,
    pub(super) links: Vec<DomainIndex>,
    pub(super) screen: bool,
    pub(super) uevents: bool,
}

impl Stage {
    /// Waits until something is ready or due. While a flip is on its way, only devices and the flip count.
    pub(super) fn wait(&mut self) -> ReadySources {
        let flipping = self.is_flipping();
        let left = if flipping { FLIP_MAX } else { self.deadline().saturating_sub(self.now()) };
        let mut ready = ReadySources::default();
        if self.alarm.set(Some(Moment::now() + left)).is_err() {
            return ready;
        }
        let mut sources = Vec::new();
        let mut fds = Vec::new();
        let mut add = |source, fd| {
            sources.push(source);
            fds.push(PollFd::new(fd, PollFlags::POLLIN));
        };
        self.devices.fds().for_each(|(id, fd)| add(Source::Device(id), fd));
        if let Some(display) = &self.display {
            add(Source::Screen, display.fd());
        }
        add(Source::Alarm, self.alarm.as_fd());
        if !flipping {
            add(Source::Wake, self.daemon.ends.fd());
            for (index, domain) in self.domains.iter().enumerate() {
                if let Some(fd) = domain.fd() {
                    add(Source::Link(index), fd);
                }
            }
            if let Some(uevents) = &self.uevents {
                add(Source::Uevents, uevents.fd());
            }
        }
        // An interrupted wait is a short one.
        if poll(&mut fds, PollTimeout::NONE).is_err() {
            return ready;
        }
        for (source, fd) in sources.into_iter().zip(fds) {
            if !fd.any().unwrap_or(true) {
                continue;
            }
            match source {
                Source::Device(id) => ready.devices.push(id),
                Source::Link(index) => ready.links.push(index),
                Source::Screen => ready.screen = true,
                Source::Uevents => ready.uevents = true,
                // The commands are looked at in every round in which no flip is on its way.
                Source::Wake | Source::Alarm => {}
            }
        }
        ready
    }

    /// Returns when the next thing is due even though nothing comes.
    fn deadline(&self) -> Time {
        let mut next = self.now() + Duration::from_secs(60);
        let mut due = |time: Time| next = next.min(time);
        if self.lights_due || !self.deferred.is_empty() {
            // Without a screen no flip ends that would wake the thread for it.
            due(Time::ZERO);
        }
        if matches!(self.backend, Backend::Kms(_)) && self.display.is_none() {
            due(self.screen_again);
        }
        self.notices.deadline().into_iter().for_each(&mut due);
        self.core.deadline().into_iter().for_each(&mut due);
        let damaged =
            |display: &Display| (0..=self.names.len()).any(|scene| display.is_damaged(scene));
        if self.display.as_ref().is_some_and(damaged)
            || self.domains.iter().any(|domain| domain.is_ack_pending() || domain.must_catch_up())
        {
            due(self.background);
        }
        next
    }
}
