//! Two domains' devices at one broker with the monitor and a log on a disk, and all that can happen with them.
//!
//! The daemon is played here: it hears what the broker says, has the monitor decide, and tells the broker what came of that and what the monitor
//! takes back. What the broker is told may lie in its mailbox while everything else goes on.

mod daemon;

use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::os::unix::net::UnixStream;

use audit::Limits;
use audit::events::AgentStopped;
use monitor::{Monitor, Request};
use recorder::Recorder;

use super::steps::{Does, Happens, Kind};
use super::*;
use crate::USB;

const PRINTER_RULE: &str = "\n[[usb]]\nid = \"printers\"\nmatch = { class = \"printer\" }\nto = \"internet\"\naction = \"allow\"\n";
/// What the Internet domain has at 1-5.
const PRINTER: [u8; 18] = [9, 2, 18, 0, 1, 1, 0, 0x80, 50, 9, 4, 0, 0, 0, 7, 1, 2, 0];

/// Where the log lies that can be written no more once its file is full.
const ASIDE: &str = "aside";

/// What is wrong on purpose, to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Plant {
    None,
    /// The clinical domain's devices are served at the Internet domain's socket.
    Socket,
    /// Devices of the one domain slow down those of the other.
    Pace,
    /// The broker is given what the monitor does not permit.
    PermitsItself,
    /// It is not told of other rules, or that what is permitted is on no record any more.
    KeepsOnRules,
    KeepsOnRecordLost,
}

pub(super) const CLINICAL: usize = 0;
pub(super) const INTERNET: usize = 1;

/// What the broker asks the monitor for.
enum Wanted {
    Admission(Request<UsbAdmission>),
    Attachment(Request<UsbGrant>),
}

/// A permit to attach a device that the monitor gave.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) domain: String,
    /// The rules or the record are gone by which it was given.
    pub(super) revoked: bool,
    /// How far time had gone when the broker had been told so.
    pub(super) told: Option<Duration>,
}

/// Both domains' devices, their threads and their VMMs, and the monitor with a log on a disk, as the daemon has them speak.
pub(super) struct World {
    pub(super) bench: Bench,
    pub(super) monitor: Monitor,
    /// What the broker has asked for and the daemon has not come round to, of each domain's device.
    wanted: [Vec<Wanted>; 2],
    /// What the broker said that concerns the Internet domain or its device, and what that was answered, since it was last looked at.
    pub(super) said: Vec<String>,
    /// Commands that the broker's thread has not taken. It takes them at once, unless it is slow.
    pub(super) mailbox: VecDeque<Command>,
    pub(super) is_slow: bool,
    pub(super) given: Vec<Given>,
    in_force: (usize, bool),
    /// What the bench has of the device that it is not turned to, and which it is turned to.
    away: (BusId, mpsc::Receiver<(u64, Task)>),
    turned: usize,
    /// What the threads of both devices serve.
    streams: [BTreeMap<u64, UnixStream>; 2],
    /// Each domain's VMM, and what that was connected by.
    vmms: [UnixListener; 2],
    pub(super) connections: [Vec<UnixStream>; 2],
    pub(super) ahead: Duration,
    policies: Vec<Arc<Policy>>,
    plant: Plant,
}

impl World {
    pub(super) fn new(plant: Plant) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = |name: &str| {
            let path = dir.path().join(name);
            let listener = UnixListener::bind(&path).unwrap();
            listener.set_nonblocking(true).unwrap();
            (path, listener)
        };
        let ((clinical, clinicals), (internet, internets)) =
            (socket("clinical"), socket("internet"));
        let clinical = if plant == Plant::Socket { internet.clone() } else { clinical };
        let of = |(serial, rules): (u32, &str)| {
            let starter =
                policy_tools::STARTER.replacen("serial = 1 ", &format!("serial = {serial} "), 1);
            Arc::new(Policy::parse("test", &(starter + rules)).unwrap())
        };
        let both = format!("{RULE}{PRINTER_RULE}");
        let policies: Vec<_> = [(1, &*both), (2, RULE), (3, PRINTER_RULE)].map(of).into();
        let setup = Setup {
            domains: [("clinical", clinical), ("internet", internet)]
                .map(|(name, path)| domain(name, vec![SocketEndpoint::Connect(path)]))
                .into(),
            policy: Arc::clone(&policies[0]),
            ..setup(dir.path(), Vec::new())
        };
        // Each entry begins a file, so that a log whose directory is gone fails soon.
        let limits = Limits { file_bytes: 1, ..Limits::default() };
        let mut monitor = Monitor::new(Recorder::open(dir.path(), limits), 1, &[USB]);
        monitor.started(USB);
        let mut bench = Bench::over(setup, dir);
        let other: BusId = "1-5".parse().unwrap();
        let tasks = thread_of(&mut bench.broker, &other);
        Self {
            bench,
            monitor,
            wanted: Default::default(),
            said: Vec::new(),
            mailbox: VecDeque::new(),
            is_slow: false,
            given: Vec::new(),
            in_force: (0, false),
            away: (other, tasks),
            turned: CLINICAL,
            streams: Default::default(),
            vmms: [clinicals, internets],
            connections: Default::default(),
            ahead: Duration::ZERO,
            policies,
            plant,
        }
    }

    /// Turns the bench to the device of this domain.
    pub(super) fn turn(&mut self, domain: usize) {
        if self.turned != domain {
            std::mem::swap(&mut self.bench.id, &mut self.away.0);
            std::mem::swap(&mut self.bench.tasks, &mut self.away.1);
            self.turned = domain;
        }
    }

    fn device(&self) -> Option<&Device> {
        self.bench.broker.devices.get(&self.bench.id)
    }

    fn is_plugged(&self) -> bool {
        self.device().is_some_and(|device| device.plugged.is_some())
    }

    fn state(&self) -> Option<&State> {
        self.device().map(|device| device.lifecycle.state())
    }

    /// Has this happen with the device of a domain; what its thread was told to do.
    pub(super) fn does(&mut self, domain: usize, does: &Does) -> Vec<String> {
        self.turn(domain);
        match does {
            Does::ComesIn if !self.is_plugged() => {
                self.bench.plug_in();
                if self.plant == Plant::Pace && domain == CLINICAL {
                    (0..16).for_each(|_| self.bench.broker.pace.count(&self.away.0));
                }
            }
            Does::Leaves if self.is_plugged() => {
                self.bench.drive(Event::Unplugged);
                let device = self.bench.broker.devices.get_mut(&self.bench.id).unwrap();
                (device.plugged, device.identity) = (None, None);
                (device.verdict, device.terms) = (None, None);
            }
            Does::IsRead(kind, name) if matches!(self.state(), Some(State::Reading { .. })) => {
                let its = if domain == CLINICAL { &READER } else { &PRINTER };
                let configuration: &[u8] = match kind {
                    Kind::Its => its,
                    Kind::Keyboard => &KEYBOARD,
                    Kind::Other => &[9, 2, 18, 0, 1, 1, 0, 0x80, 50, 9, 4, 0, 0, 0, 14, 1, 0, 0],
                    Kind::Unreadable => &[],
                };
                let found = || {
                    DeviceReading::Device(Box::new(identity_at(
                        self.bench.id.clone(),
                        configuration,
                        name,
                    )))
                };
                let found = match kind {
                    Kind::Unreadable => Err(format!("it says {name}")),
                    _ => Ok(found()),
                };
                self.bench.found(found);
            }
            Does::IsAnswered(yes) => self.answer(domain, *yes),
            Does::Begins => self.serving(DeviceThreadEvent::Begun),
            Does::Sends(content) => self.send(content),
            Does::IsRefused(times) => {
                let what = usbfilter::Refusal::Configuration(9);
                let what = what.to_string();
                self.serving(DeviceThreadEvent::Refused { what, times: *times });
            }
            Does::Ends(reason) => {
                let left: Vec<u64> = self.streams[domain].keys().copied().collect();
                if matches!(self.state(), Some(State::Attached { .. })) {
                    self.bench.ends(reason.clone());
                } else {
                    left.iter().for_each(|task| self.bench.leaves(*task, None));
                }
                self.streams[domain].clear();
            }
            Does::ByHand(to, request) if self.device().is_some() => {
                let id = self.bench.id.clone();
                self.tell(match to {
                    Some(to) => Command::Attach(id, (*to).to_owned(), Some(*request)),
                    None => Command::Detach(id, Some(*request)),
                });
            }
            Does::IsUsed(content) => {
                let name = String::from_utf8_lossy(content).into_owned();
                let mut told = Vec::new();
                for step in [Does::ComesIn, Does::IsRead(Kind::Its, name), Does::IsAnswered(true)] {
                    told.extend(self.does(domain, &step));
                    self.takes_all();
                }
                // The time at which its VMM is asked.
                let id = self.bench.id.clone();
                if matches!(self.state(), Some(State::Waiting { .. })) {
                    self.bench.broker.drive_at(
                        Moment::now() + self.ahead + AGAIN,
                        &id,
                        Event::Tick,
                    );
                }
                let step = Does::IsAnswered(true);
                told.extend(self.does(domain, &step));
                self.takes_all();
                told.extend(self.does(domain, &Does::Begins));
                self.send(content);
                return told;
            }
            _ => {}
        }
        self.thread()
    }

    /// The thread of the device reports this of what it serves.
    fn serving(&mut self, event: DeviceThreadEvent) {
        if let Some(State::Attached { task, .. }) = self.state() {
            let (task, id) = (*task, self.bench.id.clone());
            self.bench.broker.take_report(&id, task, Report::Serving(event));
        }
    }

    /// The thread of the device takes its tasks: what they were.
    pub(super) fn thread(&mut self) -> Vec<String> {
        let tasks: Vec<_> = self.bench.tasks.try_iter().collect();
        let told = |(number, task)| match task {
            Task::Serve(serving) => {
                self.streams[self.turned].insert(number, serving.into_stream());
                "serve".to_owned()
            }
            Task::Read => "read".to_owned(),
            Task::GiveToHost(share) => format!("give {share:?}"),
            Task::Deauthorize => "switch off".to_owned(),
        };
        tasks.into_iter().map(told).collect()
    }

    /// The thread of the device sends this to the guests that it serves.
    fn send(&mut self, content: &[u8]) {
        for stream in self.streams[self.turned].values_mut() {
            // One that was cut takes nothing.
            let _ = stream.write_all(content);
        }
    }

    pub(super) fn happens(&mut self, happens: &Happens) {
        match happens {
            Happens::Nothing => {}
            Happens::TimePasses => {
                // More than anything waits for, and than a test that is held up.
                self.ahead += Duration::from_secs(600);
                self.bench.broker.tick(Moment::now() + self.ahead);
            }
            Happens::Rules(which, open) => {
                self.in_force = (*which, *open);
                let until = open.then(|| Moment::now() + Duration::from_secs(3600));
                self.monitor.enforce(self.policies[*which].serial(), until);
                for given in &mut self.given {
                    given.revoked |= !allows(*which, &given.domain);
                }
                if !self.carry_out() {
                    self.tell_rules();
                }
            }
            Happens::RecordLost => self.record_lost(),
            Happens::LogFails => {
                let log = recorder::directory(self.bench.dir.path());
                if log.is_dir() {
                    fs::rename(&log, self.bench.dir.path().join(ASIDE)).unwrap();
                    fs::write(&log, "in the way").unwrap();
                }
                // The first may still go into the file that is open, by whether anything was written before: how full a log is when it fails is
                // no domain's doing. The second begins a file.
                for _ in 0..2 {
                    self.monitor.note(&[AgentStopped {}.into()]);
                }
                self.carry_out();
            }
        }
    }

    /// Takes what a domain's VMM was sent since the last time: of each connection the bytes, and whether it is over.
    pub(super) fn arrives(&mut self, domain: usize) -> Vec<(Vec<u8>, bool)> {
        while let Ok((stream, _)) = self.vmms[domain].accept() {
            stream.set_nonblocking(true).unwrap();
            self.connections[domain].push(stream);
        }
        let mut bytes = Vec::new();
        for stream in &mut self.connections[domain] {
            let mut got = Vec::new();
            let over = stream.read_to_end(&mut got).is_ok();
            bytes.push((got, over));
        }
        bytes
    }
}

/// Whether the policy of this number gives this domain a device.
fn allows(which: usize, domain: &str) -> bool {
    match domain {
        "clinical" => which != 2,
        _ => which != 1,
    }
}
