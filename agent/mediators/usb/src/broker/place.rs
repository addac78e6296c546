//! The thread of a place where a device is plugged in. All that waits for a device, or for the kernel to have done with one, is done
//! here, one thing after the other; the broker waits for none of it.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::{fs, io, thread};

use base::mailbox::STACK;
use nix::sys::eventfd::EventFd;
use usbdescriptors::Share;
use usbhost::{BusId, Grants, UsbDevices, Vetted};

use crate::attached::{DeviceThreadEvent, Served, Serving};
use printable::explain;
use usbsysfs::Identity;

/// A task for the thread of a place.
pub(super) enum Task {
    /// Find out what it is.
    Read,
    /// Give this of it to the host's own drivers.
    GiveToHost(Share),
    /// Withdraw its authorisation, so that no driver of the host's has it.
    Deauthorize,
    /// Serve it to a domain.
    Serve(Box<Serving>),
}

/// What a device turned out to be.
pub(super) enum DeviceReading {
    /// The host itself runs from it.
    HostNeeds,
    /// Something for the policy, or the seat.
    Device(Box<Identity>),
}

/// The outcome of a task, or an event while it is performed.
pub(super) enum Report {
    /// The device is served, and this happened.
    Serving(DeviceThreadEvent),
    /// It was read, or why it could not be.
    Read(Result<DeviceReading, String>),
    /// It was served and let go, or why it could not be.
    Served(Served),
    /// Done; nobody needs to know more.
    Done,
    /// The thread failed at it. What it had of the device is let go.
    Failed,
}

/// A report of the thread of a place, with the number of the task it is about.
pub(super) type ThreadReport = (BusId, u64, Report);

/// The broker's handle of a place where a device is plugged in, and of the thread there.
pub(super) struct Place {
    tasks: mpsc::Sender<(u64, Task)>,
    /// Tasks that are not done.
    pub(super) busy: usize,
    /// Those of them that serve a device, by number.
    serving: BTreeSet<u64>,
}

/// What the thread of a place works with.
#[derive(Clone)]
pub(super) struct PlaceContext {
    pub(super) sysfs: UsbDevices,
    pub(super) grants: Grants,
    pub(super) reports: mpsc::Sender<ThreadReport>,
    pub(super) wake: Arc<EventFd>,
}

impl Place {
    /// Starts the thread.
    ///
    /// # Errors
    /// The process has none left.
    pub(super) fn open(id: BusId, context: PlaceContext) -> io::Result<Self> {
        let (tasks, inbox) = mpsc::channel();
        let run = move || {
            let report = |number, report| context.report(&id, number, report);
            one_after_the_other(&inbox, &report, |number, task| context.task(&id, number, task));
        };
        thread::Builder::new().name("usb-device".to_owned()).stack_size(STACK).spawn(run)?;
        Ok(Self::over(tasks))
    }

    /// Makes a handle whose thread is the test's own.
    #[cfg(test)]
    pub(super) fn with(tasks: mpsc::Sender<(u64, Task)>) -> Self {
        Self::over(tasks)
    }

    const fn over(tasks: mpsc::Sender<(u64, Task)>) -> Self {
        Self { tasks, busy: 0, serving: BTreeSet::new() }
    }

    /// Queues a task behind those that were queued before.
    pub(super) fn queue(&mut self, number: u64, task: Task) {
        let serves = matches!(task, Task::Serve(_));
        // The thread ends when this is dropped and not before.
        if self.tasks.send((number, task)).is_ok() {
            self.busy += 1;
            if serves {
                self.serving.insert(number);
            }
        }
    }

    /// Takes it that a task is done.
    pub(super) fn done(&mut self, number: u64) {
        self.busy = self.busy.saturating_sub(1);
        self.serving.remove(&number);
    }

    /// Returns whether a device that was served here is not let go yet.
    pub(super) fn is_serving(&self) -> bool {
        !self.serving.is_empty()
    }
}

/// Does what comes in until nobody is left who could want something. What a device can make us do wrong costs that device alone.
fn one_after_the_other<T>(
    inbox: &mpsc::Receiver<(u64, T)>,
    report: &dyn Fn(u64, Report),
    mut perform: impl FnMut(u64, T) -> Report,
) {
    while let Ok((number, task)) = inbox.recv() {
        let outcome = catch_unwind(AssertUnwindSafe(|| perform(number, task)));
        report(number, outcome.unwrap_or(Report::Failed));
    }
}

impl PlaceContext {
    fn report(&self, id: &BusId, number: u64, report: Report) {
        // A broker that ended hears nothing any more.
        let _ = self.reports.send((id.clone(), number, report));
        let _ = self.wake.write(1);
    }

    fn task(&self, id: &BusId, number: u64, task: Task) -> Report {
        match task {
            Task::Read => Report::Read(self.read(id)),
            Task::GiveToHost(share) => {
                if let Err(error) = self.grants.give_to_host(id, &share) {
                    tracing::warn!("{}", explain(&error));
                }
                Report::Done
            }
            Task::Deauthorize => {
                // One that was pulled out is off.
                let _ = self.grants.deauthorize(id);
                Report::Done
            }
            Task::Serve(serving) => {
                let report = |event| self.report(id, number, Report::Serving(event));
                Report::Served(serving.run(self.sysfs.clone(), &report))
            }
        }
    }

    /// Reads everything that a device says of itself. Nobody may use it afterwards, but for what is the seat's. A keyboard is the seat's whatever
    /// becomes of the rest of the device: one that does not say what the rest is costs the rest.
    fn read(&self, id: &BusId) -> Result<DeviceReading, String> {
        let mounts = ["/proc/mounts", "/proc/swaps"]
            .map(|file| fs::read_to_string(file).unwrap_or_default())
            .concat();
        if self.sysfs.host_needs(id, &mounts) {
            return Ok(DeviceReading::HostNeeds);
        }
        if !self.sysfs.find(id).ok_or("it is gone")?.authorised {
            self.grants.authorize(id).map_err(|error| explain(&error))?;
        }
        let found = self.sysfs.find(id).ok_or("it is gone")?;
        let vetted = Vetted::new(found).map_err(|error| error.to_string())?;
        let mut identity = Identity::of(vetted.clone());
        // What is the seat's by its interfaces need not be asked, and must not be taken from its driver.
        if !identity.is_the_seats() {
            let asked = vetted.clone().sharing(identity.to_be_asked());
            let others = usbhost::read_descriptors(&self.sysfs, &asked);
            let others = others.map_err(|error| explain(&error));
            match others.and_then(|others| vetted.with(others).map_err(|error| error.to_string())) {
                Ok(vetted) => identity = Identity::of(vetted),
                Err(why) if identity.seats_part().is_empty() => return Err(why),
                Err(why) => identity.unread = Some(why),
            }
        }
        if !identity.is_the_seats() {
            let others = identity.to_be_asked();
            self.grants.withdraw(id, &others).map_err(|error| explain(&error))?;
        }
        Ok(DeviceReading::Device(Box::new(identity)))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn a_fault_that_a_device_finds_costs_that_device_alone_and_its_thread_goes_on() {
        let (tasks, inbox) = mpsc::channel();
        let held = Arc::new(());
        let device = Arc::clone(&held);
        tasks.send((1, Some(device))).unwrap();
        tasks.send((2, None)).unwrap();
        drop(tasks);
        let told = RefCell::new(Vec::new());
        let tell = |number, what| told.borrow_mut().push((number, matches!(what, Report::Failed)));
        one_after_the_other(&inbox, &tell, |_, device| {
            // As a library does with an endpoint whose packets hold nothing.
            let size = if device.is_some() { 0 } else { 8 };
            assert_eq!(std::hint::black_box(64_usize) % std::hint::black_box(size), 0);
            Report::Done
        });
        assert_eq!(*told.borrow(), [(1, true), (2, false)]);
        assert_eq!(Arc::strong_count(&held), 1, "the device is let go");
    }
}
