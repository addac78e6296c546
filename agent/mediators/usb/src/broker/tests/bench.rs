//! A broker with a device at a place whose thread is the test's, over a folder instead of the kernel's.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;

use audit::events::Record;
use base::mailbox::ThreadHandle;
use base::sockets::SocketEndpoint;
use monitor::Denial;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use usbdescriptors::Pinned;
use usbfilter::{Filter, Rules};
use usbhost::{Plugged, Vetted};
use usbsysfs::Identity;

use super::super::place::Task;
use super::super::*;
use crate::attached::{DetachReason, DomainWorkers, Served};
use crate::grant::UsbAdmission;

pub(super) const DEVICE: [u8; 18] = [18, 1, 0, 2, 0, 0, 0, 64, 9, 18, 0x42, 0, 0, 1, 0, 0, 0, 1];
/// A keyboard of the seat's, which nobody reads further.
pub(super) const KEYBOARD: [u8; 25] =
    [9, 2, 25, 0, 1, 1, 0, 0x80, 50, 9, 4, 0, 0, 1, 3, 1, 1, 0, 7, 5, 0x81, 3, 8, 0, 10];
/// A card reader.
pub(super) const READER: [u8; 18] = [9, 2, 18, 0, 1, 1, 0, 0x80, 50, 9, 4, 0, 0, 0, 11, 0, 0, 0];

pub(super) fn plug(devices: &Path, id: &str, configuration: &[u8], hangs: bool) {
    let folder = devices.join(id);
    let new = devices.join("new");
    fs::create_dir(&new).unwrap();
    for (name, text) in
        [("busnum", "1"), ("devnum", "7"), ("idVendor", "1209"), ("idProduct", "0042")]
    {
        fs::write(new.join(name), text).unwrap();
    }
    fs::write(new.join("descriptors"), [&DEVICE[..], configuration].concat()).unwrap();
    if hangs {
        // Whoever opens it waits for somebody at the other end: a device whose lock another holds.
        mkfifo(&new.join("authorized"), Mode::S_IRWXU).unwrap();
    } else {
        fs::write(new.join("authorized"), "1").unwrap();
    }
    fs::rename(new, folder).unwrap();
}

pub(super) const RULE: &str = "\n[[usb]]\nid = \"readers\"\nmatch = { class = \"smart-card\" }\nto = \"clinical\"\naction = \"allow\"\n";

pub(super) fn policy(rules: &str) -> Arc<Policy> {
    let text = policy_tools::STARTER.to_owned() + rules;
    Arc::new(Policy::parse("test", &text).unwrap())
}

pub(super) fn identity(configuration: &[u8], name: &str) -> Identity {
    identity_at("1-4".parse().unwrap(), configuration, name)
}

pub(super) fn identity_at(bus_id: BusId, configuration: &[u8], name: &str) -> Identity {
    let found = usbhost::DeviceSnapshot {
        bus_id,
        bus: 1,
        address: 7,
        vendor: 0x1209,
        product: 0x42,
        speed: String::new(),
        name: name.to_owned(),
        serial: None,
        descriptors: [&DEVICE[..], configuration].concat(),
        authorised: true,
        drivers: Vec::new(),
    };
    Identity::of(Vetted::new(found).unwrap())
}

/// Takes the place of the thread at this place: what that would be told to do.
pub(super) fn thread_of(broker: &mut Broker, id: &BusId) -> mpsc::Receiver<(u64, Task)> {
    let (given, tasks) = mpsc::channel();
    broker.places.insert(id.clone(), Place::with(given));
    tasks
}

/// A broker with a device at 1-4, the tasks that its thread is given, and what the broker tells.
pub(super) struct Bench {
    pub(super) broker: Broker,
    pub(super) mediator: ThreadHandle<Command, UsbEvent, Stop>,
    pub(super) tasks: mpsc::Receiver<(u64, Task)>,
    pub(super) id: BusId,
    pub(super) dir: tempfile::TempDir,
    /// What is its domain's, as long as that runs.
    pub(super) vmm: Option<(UnixListener, tempfile::TempDir)>,
}

impl Bench {
    /// Makes a broker with a device that has just been plugged in and is being read.
    pub(super) fn new(rules: &str) -> Self {
        Self::with(rules, Vec::new())
    }

    pub(super) fn with(rules: &str, endpoints: Vec<SocketEndpoint>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let setup = Setup { policy: policy(rules), ..setup(dir.path(), endpoints) };
        let mut bench = Self::over(setup, dir);
        bench.plug_in();
        assert!(matches!(bench.tasks.try_recv(), Ok((_, Task::Read))));
        bench
    }

    /// Makes a broker with nothing plugged in; its place is 1-4.
    pub(super) fn over(setup: Setup, dir: tempfile::TempDir) -> Self {
        let (mediator, ends) = ThreadHandle::new("usb").unwrap();
        let mut broker = Broker::new(setup, ends).unwrap();
        let id: BusId = "1-4".parse().unwrap();
        let tasks = thread_of(&mut broker, &id);
        Self { broker, mediator, tasks, id, dir, vmm: None }
    }

    /// Plugs in a device, as the kernel says it.
    pub(super) fn plug_in(&mut self) {
        let (vendor, product) = (0x1209, 0x42);
        let plugged = Plugged { bus_id: self.id.clone(), address: Some(7), vendor, product };
        let new = || Device::new(self.id.clone());
        let device = self.broker.devices.entry(self.id.clone()).or_insert_with(new);
        device.plugged = Some(plugged);
        self.drive(Event::PluggedIn);
    }

    /// Makes a broker with a card reader that waits for its domain, whose VMM listens at this socket.
    pub(super) fn waiting(socket: &Path) -> Self {
        let mut bench = Self::with(RULE, vec![SocketEndpoint::Connect(socket.to_owned())]);
        bench.read(identity(&READER, ""));
        bench.record(true);
        assert!(matches!(bench.state(), State::Waiting { .. }));
        bench.told();
        bench.events();
        bench
    }

    pub(super) fn state(&self) -> &State {
        self.broker.devices[&self.id].lifecycle.state()
    }

    /// Asserts how often the device was another one than before.
    pub(super) fn changed(&mut self, times: u32) {
        self.broker.devices.get_mut(&self.id).unwrap().lifecycle.count_changes(times);
    }

    pub(super) fn drive(&mut self, event: Event<Permit<UsbGrant>>) {
        let id = self.id.clone();
        self.broker.drive(&id, event);
    }

    /// Ends the reading that its thread is at.
    pub(super) fn read(&mut self, identity: Identity) {
        self.found(Ok(DeviceReading::Device(Box::new(identity))));
    }

    pub(super) fn found(&mut self, found: Result<DeviceReading, String>) {
        let State::Reading { task, .. } = *self.state() else { panic!("{:?}", self.state()) };
        let id = self.id.clone();
        self.broker.take_report(&id, task, Report::Read(found));
    }

    /// Has its thread be done with what it does besides serving.
    pub(super) fn idle(&mut self) {
        if let Some(place) = self.broker.places.get_mut(&self.id)
            && !place.is_serving()
        {
            place.busy = 0;
        }
    }

    /// Has the verdict that waits for the disk be there, or not to be had; its thread has nothing to do by then.
    pub(super) fn record(&mut self, done: bool) {
        self.idle();
        let State::Recording { request, grant } = self.state().clone() else {
            panic!("{:?}", self.state())
        };
        let admission = UsbAdmission { grant, basis: self.broker.basis() };
        self.broker.command(match done {
            true => Command::Admitted(request, monitor::testing::permit(admission, 1)),
            false => Command::Refused(request, Denial::Unrecorded),
        });
    }

    /// Permits the attachment that waits: its entry is on the disk.
    pub(super) fn permit(&mut self) {
        let State::Authorizing { request, admitted } = self.state().clone() else {
            panic!("{:?}", self.state())
        };
        let permit = monitor::testing::permit(admitted.grant().clone(), 1);
        self.broker.command(Command::Permitted(request, permit));
    }

    pub(super) fn refuse(&mut self) {
        let State::Authorizing { request, .. } = *self.state() else {
            panic!("{:?}", self.state())
        };
        self.broker.command(Command::Refused(request, Denial::Unrecorded));
    }

    /// Has it leave its domain by itself, or as it was told to.
    pub(super) fn leaves(&mut self, task: u64, reason: Option<DetachReason>) {
        self.leaves_after(task, reason, Some(counts()));
    }

    /// As above, when so much had gone to and fro, if that is known.
    pub(super) fn leaves_after(
        &mut self,
        task: u64,
        reason: Option<DetachReason>,
        counts: Option<usbfilter::Counts>,
    ) {
        let id = self.id.clone();
        let event = DeviceThreadEvent::Detached(reason, counts);
        self.broker.take_report(&id, task, Report::Serving(event));
        // And lets it go at once.
        self.broker.take_report(&id, task, Report::Served(ended()));
    }

    pub(super) fn ends(&mut self, reason: DetachReason) {
        let State::Attached { task, .. } = *self.state() else { panic!("{:?}", self.state()) };
        self.leaves(task, Some(reason));
    }

    /// Returns what its thread was told to do since the last look.
    pub(super) fn told(&self) -> Vec<String> {
        let word = |task| match task {
            Task::Read => "read".to_owned(),
            Task::GiveToHost(Share::Whole) => "give all".to_owned(),
            Task::GiveToHost(Share::Interfaces(numbers)) => format!("give {numbers:?}"),
            Task::Deauthorize => "switch off".to_owned(),
            Task::Serve(_) => "serve".to_owned(),
        };
        self.tasks.try_iter().map(|(_, task)| word(task)).collect()
    }

    pub(super) fn report(&self) -> UsbReport {
        self.broker.devices[&self.id].report().unwrap()
    }

    /// Returns the events, and what is said at the seat.
    pub(super) fn events(&self) -> (Vec<Record>, Vec<String>) {
        let (mut events, mut words) = (Vec::new(), Vec::new());
        for event in self.mediator.events() {
            match event {
                UsbEvent::Note(event) => events.push(event.record()),
                UsbEvent::Admit(request) => {
                    events.push(audit::AuditEvent::from(request.event).record())
                }
                UsbEvent::Authorize(request) => {
                    events.push(audit::AuditEvent::from(request.event).record())
                }
                UsbEvent::Notice(_, text) => words.push(text),
                UsbEvent::Devices(_) => {}
            }
        }
        (events, words)
    }

    pub(super) fn kinds(&self) -> Vec<&'static str> {
        self.events().0.iter().map(|event| event.kind).collect()
    }

    pub(super) fn share(&self) -> Option<Share> {
        match self.state() {
            State::Recording { grant, .. } => Some(grant.share.clone()),
            State::Waiting { admitted, .. } => Some(admitted.grant().share.clone()),
            _ => None,
        }
    }
}

pub(super) fn counts() -> usbfilter::Counts {
    let pinned = Pinned::from_sysfs(&[&DEVICE[..], &READER].concat()).unwrap();
    Filter::new(Rules::Allow, pinned).unwrap().counts()
}

/// The end of a task of serving a device that had begun.
pub(super) fn ended() -> Served {
    Served { outcome: Ok(()), carried_nothing: false }
}

pub(super) fn domain(name: &str, sockets: Vec<SocketEndpoint>) -> Domain {
    Domain { name: name.to_owned(), sockets, workers: Ok(DomainWorkers::none()) }
}

pub(super) fn setup(dir: &Path, endpoints: Vec<SocketEndpoint>) -> Setup {
    fs::create_dir(dir.join("devices")).unwrap();
    Setup {
        sysfs: UsbDevices::at(&dir.join("devices")),
        switches: dir.join("switches.json"),
        domains: vec![domain("clinical", endpoints)],
        policy: Arc::new(Policy::parse("test", policy_tools::STARTER).unwrap()),
    }
}
