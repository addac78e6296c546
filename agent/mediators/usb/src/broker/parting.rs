//! How a device leaves its domain: told to, or by itself; in time, or cut off.

use std::collections::BTreeMap;
use std::time::Duration;

use audit::AuditEvent;
use audit::events::{UsbCounted, UsbDetached, UsbFailed};
use clock::Moment;
use usbdescriptors::Share;
use usbfilter::Counts;
use usbhost::BusId;

use super::device::{Device, Grant, KEPT, NO_DRIVER, NO_DRIVER_REMEDY, State};
use super::place::Task;
use super::{AGAIN, Broker, CHANGES_MAX};
use crate::Happening;
use crate::attached::{Attached, End};

/// How long a device may take to leave its domain before it is cut off from it.
const PARTING: Duration = Duration::from_millis(500);

/// What to do with a device that breaks the rules.
const REMEDY: &str =
    "Plug it in again. If it is blocked again, take another one, and give this one to IT.";

/// A device that was lost in a reset.
pub(super) struct Lost {
    /// How often another came in its place.
    pub(super) times: u32,
    pub(super) when: Moment,
    /// Its descriptors, until something comes in its place.
    pub(super) was: Option<Vec<u8>>,
}

impl Lost {
    /// A device comes in its place. The same one again was only pulled out in the middle of a reset.
    pub(super) fn comes(&mut self, descriptors: &[u8]) -> u32 {
        if let Some(was) = self.was.take() {
            self.times = if was == descriptors { 0 } else { self.times + 1 };
        }
        self.times
    }
}

/// A device that is on its way out of its domain.
pub(super) struct Parting {
    id: BusId,
    /// The task that serves it.
    number: u64,
    domain: String,
    why: String,
    /// The number of the entry of the request to take it away.
    request: Option<u64>,
    descriptors: Vec<u8>,
    /// Its end of the stream, until it is cut.
    pub(super) attached: Option<Box<Attached>>,
    pub(super) until: Moment,
}

impl Broker {
    /// A device has left its domain by itself.
    pub(super) fn end(&mut self, id: &BusId, end: Option<End>, counts: &Counts) {
        // Nobody told it to.
        let end = end.unwrap_or(End::NoVmm);
        let why = match &end {
            End::NoVmm => "its domain stopped",
            End::NoDevice(why)
            | End::Lost(why)
            | End::Changed(why)
            | End::Broken(why)
            | End::Stream(why) => why,
        };
        let Some((number, grant)) = self.leave(id, why) else { return };
        self.parted(number, Some(&end), Some(counts));
        let Some(device) = self.devices.get_mut(id) else { return };
        match end {
            // It has not gone, or the next look finds it gone. What the rest of it does costs the seat no keyboard.
            End::NoDevice(_) | End::Lost(_) | End::Changed(_) | End::Broken(_) | End::Stream(_)
                if device.kept().is_some() =>
            {
                self.rest_failed(id, grant, &end);
            }
            End::NoVmm => device.state = State::Waiting(grant, Moment::now() + AGAIN),
            End::NoDevice(why) | End::Lost(why) | End::Stream(why) => {
                let words = device.disconnected(&grant, &why);
                self.notice(id, words);
                self.switch_off(id, State::Blocked(why));
            }
            End::Changed(_) if device.changes.unwrap_or_default() < CHANGES_MAX => {
                device.changes = Some(device.changes.unwrap_or_default() + 1);
                self.arrived(id);
            }
            End::Changed(why) | End::Broken(why) => {
                let words = format!("{} is blocked:\n{why}.\n{REMEDY}", device.shown());
                self.notice(id, words);
                self.switch_off(id, State::Blocked(why));
            }
        }
    }

    /// The rest of a device of which the seat keeps the keyboard has left its domain. A driver of the host's that resets the device takes it
    /// from there: then it goes there again.
    fn rest_failed(&mut self, id: &BusId, grant: Grant, end: &End) {
        let Some(device) = self.devices.get_mut(id) else { return };
        let times = device.changes.get_or_insert(0);
        *times += 1;
        match end {
            End::NoDevice(_) if *times < CHANGES_MAX => {
                device.state = State::Waiting(grant, Moment::now() + AGAIN);
            }
            End::NoVmm => {}
            End::NoDevice(why)
            | End::Lost(why)
            | End::Changed(why)
            | End::Broken(why)
            | End::Stream(why) => {
                let why = format!("{KEPT}, the rest is not used any more: {why}");
                let words = format!("{}: {why}.", device.shown());
                self.notice(id, words);
                self.switch_off(id, State::Blocked(why));
            }
        }
    }

    /// The seat's driver has let go of a keyboard or mouse, or did not take it when it was offered: it gets it back. At a port that is owned, while the rest is in
    /// use, no driver is asked; so the rest is let go first, and used again after that.
    pub(super) fn give_back_keyboards(&mut self) {
        let sysfs = &self.sysfs;
        let driverless = |(id, device): (&BusId, &mut Device)| {
            let used = match device.state {
                State::Attached(..) if device.begun => true,
                State::Off | State::Blocked(_) | State::Waiting(..) | State::Host(_) => false,
                _ => return None,
            };
            let kept = device.input()?;
            device.driven_in_part = sysfs.is_any_driven(id, &kept);
            if sysfs.are_driven(id, &kept) {
                device.offers = 0;
                return None;
            }
            Some((id.clone(), kept, used))
        };
        let all: Vec<_> = self.devices.iter_mut().filter_map(driverless).collect();
        for (id, kept, used) in all {
            if !used {
                self.offer(&id, kept);
                continue;
            }
            self.take_away(&id, "the PC lost its keyboard or mouse");
            // After the rest has been let go: one task after the other.
            let _ = self.task(&id, Task::GiveToHost(kept));
            let Some(device) = self.devices.get_mut(&id) else { continue };
            device.driverless += 1;
            if device.driverless < CHANGES_MAX {
                self.judge(&id);
            } else {
                let why = "the PC loses the keyboard when the rest is used";
                self.failed(&id, format!("{KEPT}, the rest is not used any more: {why}"));
            }
        }
    }

    /// Asks the host's drivers to take the keyboard of a device that nobody uses. If none does time and again, that is said once, and none
    /// is asked any more.
    fn offer(&mut self, id: &BusId, kept: Share) {
        if self.places.get(id).is_some_and(|place| place.busy > 0) {
            return;
        }
        let Some(device) = self.devices.get_mut(id).filter(|device| !device.is_offered_no_more())
        else {
            return;
        };
        device.offers += 1;
        if !device.is_offered_no_more() {
            let _ = self.task(id, Task::GiveToHost(kept));
            return;
        }
        if device.driven_in_part {
            return;
        }
        let words = format!("{}:\n{NO_DRIVER}.\n{NO_DRIVER_REMEDY}.", device.shown());
        let (bus_id, why) = (id.as_str().to_owned(), NO_DRIVER.to_owned());
        let event = UsbFailed { bus_id, request: None, why };
        self.tell(Happening::Note(event.into()));
        self.notice(id, words);
    }

    /// Has a device leave its domain; its thread says what went to and fro.
    pub(super) fn leave(&mut self, id: &BusId, why: &str) -> Option<(u64, Grant)> {
        let device = self.devices.get_mut(id)?;
        match std::mem::replace(&mut device.state, State::Off) {
            State::Attached(number, attached, grant) => {
                attached.close();
                device.begun = false;
                let found = device.identity.as_ref().map(|identity| identity.vetted.found());
                self.parting.push(Parting {
                    id: id.clone(),
                    number,
                    domain: grant.domain.clone(),
                    why: why.to_owned(),
                    request: device.request.take(),
                    descriptors: found.map(|found| found.descriptors.clone()).unwrap_or_default(),
                    attached: Some(attached),
                    until: Moment::now() + PARTING,
                });
                Some((number, grant))
            }
            other => {
                device.state = other;
                None
            }
        }
    }

    /// One that was to leave has left; its event is written.
    pub(super) fn parted(&mut self, number: u64, end: Option<&End>, counts: Option<&Counts>) {
        let Some(at) = self.parting.iter().position(|one| one.number == number) else { return };
        let parting = self.parting.swap_remove(at);
        // The kernel may have told that it went before its thread did.
        if matches!(end, Some(End::Lost(_))) {
            let times = self.lost.get(&parting.id).map_or(0, |lost| lost.times);
            let (when, was) = (Moment::now(), Some(parting.descriptors.clone()));
            self.lost.insert(parting.id.clone(), Lost { times, when, was });
        }
        // One that was cut off has its event; what it counted comes late.
        let event = match (&parting.attached, counts) {
            (Some(_), counts) => parting.detached(counts, None),
            (None, Some(counts)) => parting.counted(counts),
            (None, None) => return,
        };
        self.tell(Happening::Note(event));
    }

    /// Cuts off from their domains those that have not left in time.
    pub(super) fn cut(&mut self, now: Moment) {
        let mut events = Vec::new();
        for parting in self.parting.iter_mut().filter(|parting| now >= parting.until) {
            if parting.attached.take().is_some() {
                tracing::warn!("{}: it does not answer; it is cut off from its domain", parting.id);
                events.push(parting.detached(None, Some(true)));
            }
        }
        for event in events {
            self.tell(Happening::Note(event));
        }
    }
}

impl Parting {
    /// That it has left, and what went to and fro, if that is known.
    fn detached(&self, counts: Option<&Counts>, device_hangs: Option<bool>) -> AuditEvent {
        UsbDetached {
            domain: self.domain.clone(),
            bus_id: self.id.as_str().to_owned(),
            bytes_to_device: counts.map(|counts| counts.to_device),
            bytes_to_guest: counts.map(|counts| counts.to_guest),
            commands: counts.map(commands),
            device_hangs,
            refused: counts.map(|counts| counts.refused),
            request: self.request,
            why: self.why.clone(),
        }
        .into()
    }

    /// What had gone to and fro.
    fn counted(&self, counts: &Counts) -> AuditEvent {
        UsbCounted {
            domain: self.domain.clone(),
            bus_id: self.id.as_str().to_owned(),
            bytes_to_device: counts.to_device,
            bytes_to_guest: counts.to_guest,
            commands: commands(counts),
            refused: counts.refused,
            why: self.why.clone(),
        }
        .into()
    }
}

/// SCSI commands by operation code, in two hexadecimal digits.
fn commands(counts: &Counts) -> BTreeMap<String, u64> {
    counts.commands.iter().map(|(code, times)| (format!("{code:02x}"), *times)).collect()
}
