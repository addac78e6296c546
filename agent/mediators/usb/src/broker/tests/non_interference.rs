//! What the Internet domain gets of its USB device does not depend on the clinical domain's.
//!
//! One broker has both domains. One schedule of the device at 1-5, which is the Internet domain's, and of what concerns all devices (time,
//! rules, the record) is played twice; between its steps the device at 1-4, the clinical domain's, is another in each run, says and sends
//! other things, and comes, goes and is attached at other times. What comes out of the Internet domain's socket is the same to the byte, in
//! the same step, and so is what is recorded of that domain, said and listed of its device, and done with it. Not counted are the numbers of requests
//! and tasks: they count those of both, and leave the agent nowhere.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::net::UnixStream;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const PRINTER_RULE: &str = "\n[[usb]]\nid = \"printers\"\nmatch = { class = \"printer\" }\nto = \"internet\"\naction = \"allow\"\n";
/// What the Internet domain has at 1-5.
const PRINTER: [u8; 18] = [9, 2, 18, 0, 1, 1, 0, 0x80, 50, 9, 4, 0, 0, 0, 7, 1, 2, 0];

/// What a device turns out to be.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// What a rule gives to its domain.
    Its,
    Keyboard,
    /// What no rule is about.
    Other,
    /// It does not answer.
    Unreadable,
}

/// Something that happens with a device, or that its thread does; nothing where that cannot be.
#[derive(Clone, Debug)]
enum Does {
    ComesIn,
    Leaves,
    IsRead(Kind, String),
    /// The monitor answers what was asked last.
    IsAnswered(bool),
    Begins,
    /// Its content goes to the guest.
    Sends(Vec<u8>),
    IsRefused(u64),
    Ends(DetachReason),
    /// Somebody attaches it to this domain, or takes it away.
    ByHand(Option<&'static str>, u64),
    /// All that it takes for a device to be in its domain, and to send this there.
    IsUsed(Vec<u8>),
}

/// Something that concerns all devices.
#[derive(Clone, Debug)]
enum Happens {
    Nothing,
    TimePasses,
    /// The policy of this number is put in force; whether break-glass is open.
    Rules(usize, bool),
    RecordLost,
}

fn does() -> impl Strategy<Value = Does> {
    let kind = prop::sample::select(vec![Kind::Its, Kind::Keyboard, Kind::Other, Kind::Unreadable]);
    let reason = prop::sample::select(vec![
        DetachReason::NoVmm,
        DetachReason::NoDevice("it was pulled out".to_owned()),
        DetachReason::Broken("its answers make no sense".to_owned()),
        DetachReason::Changed("its firmware is another".to_owned()),
    ]);
    let domain = prop::sample::select(vec![None, Some("clinical"), Some("internet")]);
    let content = || vec(any::<u8>(), 1..40);
    prop_oneof![
        2 => Just(Does::ComesIn),
        1 => Just(Does::Leaves),
        2 => (kind, "[a-z]{0,8}").prop_map(|(kind, name)| Does::IsRead(kind, name)),
        3 => prop::bool::weighted(0.8).prop_map(Does::IsAnswered),
        1 => Just(Does::Begins),
        2 => content().prop_map(Does::Sends),
        1 => (1..9u64).prop_map(Does::IsRefused),
        1 => reason.prop_map(Does::Ends),
        1 => (domain, 1..99u64).prop_map(|(domain, request)| Does::ByHand(domain, request)),
        3 => content().prop_map(Does::IsUsed),
    ]
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        4 => Just(Happens::Nothing),
        3 => Just(Happens::TimePasses),
        2 => (0..3usize, any::<bool>()).prop_map(|(which, open)| Happens::Rules(which, open)),
        1 => Just(Happens::RecordLost),
    ]
}

/// A step of the watched device, before and after which the secret one does something, and then something for all.
type Step = (Does, Happens);

/// How the separation is broken, to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Plant {
    None,
    /// The clinical domain's devices are served at the Internet domain's socket.
    Socket,
    /// Devices of the one domain slow down those of the other.
    Pace,
}

const CLINICAL: usize = 0;
const INTERNET: usize = 1;

/// Both domains' devices, their threads and their VMMs.
struct World {
    bench: Bench,
    /// What the bench has of the device that it is not turned to, and which it is turned to.
    away: (BusId, mpsc::Receiver<(u64, Task)>),
    turned: usize,
    /// What the threads of both devices serve.
    streams: [BTreeMap<u64, UnixStream>; 2],
    vmm: UnixListener,
    /// What the Internet domain's VMM was connected by.
    connections: Vec<UnixStream>,
    ahead: Duration,
    policies: Vec<Arc<Policy>>,
    plant: Plant,
    _clinical: UnixListener,
}

impl World {
    fn new(plant: Plant) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = |name: &str| {
            let path = dir.path().join(name);
            let listener = UnixListener::bind(&path).unwrap();
            listener.set_nonblocking(true).unwrap();
            (path, listener)
        };
        let ((clinical, clinicals), (internet, vmm)) = (socket("clinical"), socket("internet"));
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
                .map(|(name, path)| (name.to_owned(), vec![SocketEndpoint::Connect(path)]))
                .into(),
            policy: Arc::clone(&policies[0]),
            ..setup(dir.path(), Vec::new())
        };
        let mut bench = Bench::over(setup, dir);
        let other: BusId = "1-5".parse().unwrap();
        let tasks = thread_of(&mut bench.broker, &other);
        Self {
            bench,
            away: (other, tasks),
            turned: CLINICAL,
            streams: Default::default(),
            vmm,
            connections: Vec::new(),
            ahead: Duration::ZERO,
            policies,
            plant,
            _clinical: clinicals,
        }
    }

    /// Turns the bench to the device of this domain.
    fn turn(&mut self, domain: usize) {
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
    fn does(&mut self, domain: usize, does: &Does) -> Vec<String> {
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
                    Found::Device(Box::new(identity_at(self.bench.id.clone(), configuration, name)))
                };
                let found = match kind {
                    Kind::Unreadable => Err(format!("it says {name}")),
                    _ => Ok(found()),
                };
                self.bench.found(found);
            }
            Does::IsAnswered(yes) => match (self.state(), yes) {
                (Some(State::Recording { .. }), _) => self.bench.record(*yes),
                (Some(State::Authorizing { .. }), true) => self.bench.permit(),
                (Some(State::Authorizing { .. }), false) => self.bench.refuse(),
                _ => {}
            },
            Does::Begins => self.serving(DeviceThreadEvent::Begun),
            Does::Sends(content) => self.send(content),
            Does::IsRefused(times) => {
                let what = usbfilter::Refusal::Configuration(9);
                let event = usbfilter::Event::Refused { what, times: *times };
                self.serving(DeviceThreadEvent::Refused(event));
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
                self.bench.broker.command(match to {
                    Some(to) => Command::Attach(id, (*to).to_owned(), Some(*request)),
                    None => Command::Detach(id, Some(*request)),
                });
            }
            Does::IsUsed(content) => {
                let name = String::from_utf8_lossy(content).into_owned();
                let mut told = Vec::new();
                for step in [Does::ComesIn, Does::IsRead(Kind::Its, name), Does::IsAnswered(true)] {
                    told.extend(self.does(domain, &step));
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
    fn thread(&mut self) -> Vec<String> {
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

    fn happens(&mut self, happens: &Happens) {
        match happens {
            Happens::Nothing => {}
            Happens::TimePasses => {
                // More than anything waits for, and than a test that is held up.
                self.ahead += Duration::from_secs(600);
                self.bench.broker.tick(Moment::now() + self.ahead);
            }
            Happens::Rules(which, open) => {
                let policy = Arc::clone(&self.policies[*which]);
                self.bench.broker.command(Command::Rules(policy, *open));
            }
            Happens::RecordLost => self.bench.broker.command(Command::RecordLost),
        }
    }

    /// All that the Internet domain's VMM was sent, and what the agent was told of that domain and its device.
    fn seen(&mut self, told: &[String]) -> String {
        while let Ok((stream, _)) = self.vmm.accept() {
            stream.set_nonblocking(true).unwrap();
            self.connections.push(stream);
        }
        let mut bytes = Vec::new();
        for stream in &mut self.connections {
            let mut got = Vec::new();
            let over = stream.read_to_end(&mut got).is_ok();
            bytes.push((got, over));
        }
        self.bench.broker.report();
        let mut events = Vec::new();
        let is_its = |record: &Record| {
            record.domain.as_deref() == Some("internet") || record.detail["bus_id"] == "1-5"
        };
        for event in self.bench.mediator.events() {
            let record = match &event {
                UsbEvent::Note(event) => event.record(),
                UsbEvent::Admit(request) => audit::AuditEvent::from(request.event.clone()).record(),
                UsbEvent::Authorize(request) => {
                    audit::AuditEvent::from(request.event.clone()).record()
                }
                UsbEvent::Notice(socket, text) => {
                    if socket == "1-5" || text.contains("connected to INTERNET") {
                        events.push(text.clone());
                    }
                    continue;
                }
                UsbEvent::Devices(_) => continue,
            };
            if !is_its(&record) {
                continue;
            }
            events.push(format!("{record:?}"));
            match event {
                UsbEvent::Admit(request) => {
                    events.push(format!("{:?} {:?}", request.owed, request.grant));
                }
                UsbEvent::Authorize(request) => {
                    events.push(format!("{:?} {:?}", request.owed, request.grant));
                }
                _ => {}
            }
        }
        let listed = self
            .bench
            .broker
            .last_reported
            .iter()
            .filter(|one| one.bus_id == "1-5" || one.domain.as_deref() == Some("internet"));
        format!("{told:?} {bytes:?} {events:?} {:?}", listed.collect::<Vec<_>>())
    }

    fn played(plant: Plant, steps: &[Step], secrets: &[(Vec<Does>, Vec<Does>)]) -> Vec<String> {
        let mut world = Self::new(plant);
        let none = (Vec::new(), Vec::new());
        let mut seen = Vec::new();
        for (number, (does, happens)) in steps.iter().enumerate() {
            let (before, after) = secrets.get(number).unwrap_or(&none);
            before.iter().for_each(|secret| drop(world.does(CLINICAL, secret)));
            let mut told = world.does(INTERNET, does);
            after.iter().for_each(|secret| drop(world.does(CLINICAL, secret)));
            world.happens(happens);
            world.turn(INTERNET);
            told.extend(world.thread());
            seen.push(world.seen(&told));
            world.turn(CLINICAL);
            world.thread();
        }
        seen
    }
}

/// What the clinical domain's device does before and after each step.
fn secrets() -> impl Strategy<Value = Vec<(Vec<Does>, Vec<Does>)>> {
    vec((vec(does(), 0..3), vec(does(), 0..3)), 0..10)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_the_internet_domain_gets_of_its_device_is_the_same_whatever_the_clinical_domain_has_on_its_own(
        steps in vec((does(), happens()), 1..10),
        one in secrets(),
        other in secrets(),
    ) {
        let [one, other] = [one, other].map(|secrets| World::played(Plant::None, &steps, &secrets));
        prop_assert_eq!(one, other);
    }
}

#[test]
fn a_device_of_the_clinical_domains_that_reaches_the_other_domain_is_found_by_this_comparison() {
    let steps: Vec<Step> = (0..4u8)
        .map(|step| (Does::IsUsed(vec![step]), Happens::TimePasses))
        .chain([(Does::Leaves, Happens::Nothing), (Does::IsUsed(vec![9]), Happens::Nothing)])
        .collect();
    let uses = |content: u8| {
        let comes = vec![Does::Leaves, Does::IsUsed(vec![content; 8])];
        vec![(comes.clone(), comes); 4]
    };
    let seen = |plant, secrets: &[_]| World::played(plant, &steps, secrets);
    let plain = seen(Plant::None, &[]);
    // The watched device was served, and its content arrived.
    assert!(plain[0].contains("serve") && plain[0].contains("([0], false)"), "{}", plain[0]);
    assert_eq!(plain, seen(Plant::None, &uses(1)));
    // Content.
    assert_ne!(seen(Plant::Socket, &uses(1)), seen(Plant::Socket, &uses(2)));
    // Time.
    assert_ne!(seen(Plant::Pace, &[]), seen(Plant::Pace, &uses(1)));
}
