//! A domain's runtime without a VMM: when its guest is waited for, whose word counts, and what comes of it.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, mpsc};

use clock::Moment;
use config::domain_policies;
use config::machine::Machine;
use handover::fake::FakePc;
use handover::handover::Handover;

use super::super::super::Parts;
use super::super::super::background::BackgroundJobs;
use super::super::super::boot::{BootFiles, hardware, install_with};
use super::super::super::host_network::Rule;
use super::super::super::lifecycle::{Event, Exit, FAILURES_MAX, State};
use super::super::super::process::{Identity, VmmProcess, start_time};
use super::super::super::record::{LaunchRecord, VmmRecord};
use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A PC with the domain `clinical`, whose image is `desk`.
pub(in super::super) struct Ward {
    pc: FakePc,
    pub(in super::super) runtime: DomainRuntime,
    pub(in super::super) shared: SupervisorContext,
    reports: mpsc::Receiver<(usize, Report)>,
}

impl Ward {
    /// Image 1 came up once, and 2 is in force since a start of `clinical`, on trial.
    fn on_trial() -> Self {
        let ward = Self::new();
        let (dir, store) = (ward.pc.dir.path(), ward.store());
        for serial in [1, 2] {
            install_with(dir, serial, "kernel", None, Some(10));
            store.start(&desk(serial).image, "clinical", |_| Ok(())).unwrap();
            if serial == 1 {
                store.came_up(&desk(1).image, 1, "clinical").unwrap();
            }
        }
        assert_eq!(store.on_trial(&desk(2).image, 2, "clinical"), Some(10));
        ward
    }

    pub(in super::super) fn new() -> Self {
        let pc = FakePc::new();
        let (hardware, layout) = hardware(pc.dir.path());
        layout.create_runtime(&["clinical"]).unwrap();
        let record = pc.dir.path().join("handover.json");
        let handover = Handover::open(pc.sysfs(), &record, &record.with_extension("fallback"));
        let parts = Parts {
            layout,
            vmm: "/nonexistent".into(),
            handover: Arc::new(handover.unwrap()),
            cgroups: None,
            as_root: false,
            log_level: "info".to_owned(),
            seat: None,
        };
        let policy = include_str!("../../../../../policy/tests/fixtures/two-domains.toml");
        let policy = policy::Policy::parse("policy.toml", policy).unwrap();
        let policy = domain_policies::of(&policy).swap_remove(0);
        assert_eq!(policy.name, "clinical");
        let context = config::machine::Context { images: Path::new("/i"), domain_policies: None };
        let machine = "format = 1\n[domain.clinical]\nimage = \"desk\"\n";
        let machine = Machine::parse("machine.toml", machine, context).unwrap();
        let (jobs, reports) = BackgroundJobs::new().unwrap();
        let runtime = DomainRuntime::new(0, policy, hardware, SECOND, Ok(None), &parts);
        let shared = SupervisorContext {
            parts,
            epoch: Moment::now(),
            jobs,
            host_rule: Rule::of(&machine),
            host_interfaces: Ok(Vec::new()),
            shutting_down: false,
            said_no_pressure: false,
        };
        Self { pc, runtime, shared, reports }
    }

    fn store(&self) -> Store {
        Store::at(&self.shared.parts.layout.images)
    }

    /// What a job of this domain reports next.
    fn report(&self) -> Report {
        self.reports.recv_timeout(20 * SECOND).unwrap().1
    }

    /// Its guest, which is waited for, says that it is up.
    fn says_up(&mut self) {
        self.runtime.lifecycle.handle(Time::ZERO, Event::Start);
        let (agent, mut guest) = UnixStream::pair().unwrap();
        guest.write_all(b"up\n").unwrap();
        self.runtime.health.as_mut().unwrap().port = Some(agent);
        self.runtime.look_at_health(&self.shared);
        assert!(self.runtime.health.is_none());
    }

    /// Waits until it is written down that image 2 came up.
    fn came_up(&self) {
        let mut tries = 0;
        while self.store().on_trial(&desk(2).image, 2, "clinical").is_some() {
            tries += 1;
            assert!(tries < 200, "it is not written down");
            std::thread::sleep(SECOND / 20);
        }
    }

    /// Its image is verified, and its guest is to come up in this time.
    fn image_started(&mut self, health: Duration) {
        self.runtime.image_started(Some(StartedImage {
            image: desk(2),
            is_new: false,
            health: Some(health),
            refused: None,
        }));
    }

    /// A VMM of this process that an earlier agent started from this image is taken up; whether its guest is waited for then.
    fn is_waited_for(&mut self, pid: i32, image: Option<ImageSerial>) -> bool {
        let start = start_time(pid).unwrap();
        let vmm = VmmProcess::find(Identity { pid, start }).unwrap();
        let started =
            LaunchRecord { spec: String::new(), sandbox_id: None, functions: Vec::new(), image };
        self.runtime.record = Some(VmmRecord::new("clinical", &vmm, started));
        self.runtime.vmm = Some(vmm);
        self.take_up()
    }

    /// The VMM is taken up; whether its guest is waited for then, and is given up if it says nothing.
    fn take_up(&mut self) -> bool {
        self.runtime.health = None;
        self.runtime.image_runs_on(&self.shared);
        self.runtime.vmm = None;
        self.runtime.health.as_ref().is_some_and(|health| health.judged)
    }
}

fn desk(serial: u64) -> ImageSerial {
    ImageSerial { image: "desk".parse().unwrap(), serial }
}

#[test]
fn the_time_of_a_guest_begins_when_its_vmm_does_and_not_when_it_is_to_be_started() {
    let mut ward = Ward::on_trial();
    ward.image_started(10 * SECOND);
    assert!(ward.runtime.health.is_none(), "its disks are made, and its devices handed over");
    ward.runtime.guest_starts(100 * SECOND);
    let until = |ward: &Ward| ward.runtime.health.as_ref().unwrap().trial.deadline();
    assert_eq!(until(&ward), 110 * SECOND);
    // Its VMM failed, and is started again: that gives it no more time.
    ward.image_started(10 * SECOND);
    ward.runtime.guest_starts(105 * SECOND);
    assert_eq!(until(&ward), 110 * SECOND);
}

#[test]
fn a_domain_that_was_left_off_after_its_vmm_failed_again_and_again_gets_the_image_before() {
    let mut ward = Ward::on_trial();
    ward.image_started(Duration::ZERO);
    ward.runtime.guest_starts(Time::ZERO);
    let life = &mut ward.runtime.lifecycle;
    let mut now = Time::ZERO;
    life.handle(now, Event::Start);
    for _ in 0..FAILURES_MAX {
        now = life
            .deadline()
            .filter(|_| matches!(life.state(), State::Backoff { .. }))
            .unwrap_or(now);
        life.handle(now, Event::Tick);
        life.handle(now, Event::Prepared(Ok(())));
        life.handle(now, Event::Gate(Ok(())));
        life.handle(now, Event::Spawned(Ok(())));
        life.handle(now, Event::Exited(Exit::Failed("it crashed".to_owned())));
    }
    life.handle(now, Event::Released(Ok(())));
    assert!(life.is_left_off());
    ward.runtime.look_at_health(&ward.shared);
    let report = ward.report();
    assert!(
        matches!(&report, Report::DidNotComeUp(end) if end.image == desk(2) && end.back == Ok(1))
    );
    ward.runtime.report(&mut ward.shared, report);
    assert!(ward.runtime.lifecycle.wanted());
    let started = loop {
        if let Report::Boot(found) = ward.report() {
            let (boot, started) = *found;
            break (boot.image.unwrap(), started.unwrap().image);
        }
    };
    assert_eq!(started, (desk(1), desk(1)));
}

/// The time of its guest ends while its next start, from the image on trial, waits for the host.
fn gated_as_its_time_ends() -> Ward {
    let mut ward = Ward::on_trial();
    ward.image_started(Duration::ZERO);
    ward.runtime.guest_starts(Time::ZERO);
    let life = &mut ward.runtime.lifecycle;
    life.handle(Time::ZERO, Event::Start);
    ward.runtime.boot = Some(BootFiles::installed(&desk(2), &ward.shared.parts.layout).unwrap());
    ward.image_started(Duration::ZERO);
    ward.runtime.lifecycle.handle(Time::ZERO, Event::Prepared(Ok(())));
    assert_eq!(ward.runtime.lifecycle.state(), State::Gated);
    ward.runtime.look_at_health(&ward.shared);
    ward
}

/// The image that the next start of a domain is prepared from.
fn next_prepared(ward: &Ward) -> ImageSerial {
    loop {
        if let Report::Boot(found) = ward.report() {
            return found.0.image.unwrap();
        }
    }
}

#[test]
fn an_image_that_is_given_up_while_its_next_start_is_prepared_is_not_started_once_more() {
    let mut ward = gated_as_its_time_ends();
    let report = ward.report();
    ward.runtime.report(&mut ward.shared, report);
    assert!(ward.runtime.awaited.is_none(), "nobody waits for it any more");
    ward.runtime.feed(&mut ward.shared, Event::Gate(Ok(())));
    assert!(matches!(ward.runtime.lifecycle.state(), State::Preparing { .. }));
    assert_eq!(next_prepared(&ward), desk(1));
    assert_eq!(ward.runtime.lifecycle.problem(), None);
}

#[test]
fn an_image_that_was_given_up_is_not_started_though_its_domain_has_not_heard_of_that_yet() {
    let mut ward = gated_as_its_time_ends();
    let report = ward.report();
    ward.runtime.feed(&mut ward.shared, Event::Gate(Ok(())));
    assert_eq!(next_prepared(&ward), desk(1));
    ward.runtime.report(&mut ward.shared, report);
    assert!(ward.runtime.image_problem().unwrap().contains("1 is in force again"));
}

#[test]
fn a_domain_that_runs_the_image_before_already_is_not_restarted_for_that() {
    let mut ward = Ward::on_trial();
    let (_child, pid) = child();
    assert!(!ward.is_waited_for(pid, Some(desk(1))));
    let found = Event::Found { answered: true };
    ward.runtime.lifecycle.handle(Time::ZERO, found);
    let end = TrialEnd { image: desk(2), back: Ok(1), unwritten: None };
    ward.runtime.did_not_come_up(&mut ward.shared, end);
    assert!(matches!(ward.runtime.lifecycle.state(), State::Running { .. }));
}

#[test]
fn a_domain_that_somebody_switched_off_says_nothing_of_its_image() {
    let mut ward = Ward::on_trial();
    ward.image_started(Duration::ZERO);
    ward.runtime.guest_starts(Time::ZERO);
    ward.runtime.look_at_health(&ward.shared);
    assert!(ward.reports.try_recv().is_err());
    assert_eq!(ward.store().on_trial(&desk(2).image, 2, "clinical"), Some(10));
}

#[test]
fn that_a_guest_came_up_is_written_down_as_soon_as_that_can_be() {
    let ward = Ward::on_trial();
    let lock = ward.pc.dir.path().join("images/desk/.record");
    fs::remove_file(&lock).unwrap();
    fs::create_dir(&lock).unwrap();
    ward.store().came_up(&desk(2).image, 2, "clinical").unwrap_err();
    let store = ward.store();
    let writer = std::thread::spawn(move || {
        write_came_up(&store, &desk(2), "clinical", Duration::from_millis(50));
    });
    std::thread::sleep(Duration::from_millis(200));
    fs::remove_dir(&lock).unwrap();
    writer.join().unwrap();
    assert_eq!(ward.store().on_trial(&desk(2).image, 2, "clinical"), None);
}

#[test]
fn a_guest_that_was_taken_up_is_waited_for_only_if_it_runs_what_is_on_trial_in_its_domain() {
    let mut ward = Ward::on_trial();
    let (_child, pid) = child();
    assert!(ward.is_waited_for(pid, Some(desk(2))));
    assert!(!ward.is_waited_for(pid, Some(desk(1))), "it runs the one before");
    let other = ImageSerial { image: "other".parse().unwrap(), serial: 2 };
    assert!(!ward.is_waited_for(pid, Some(other)) && !ward.is_waited_for(pid, None));
    ward.runtime.policy.name = "internet".to_owned();
    assert!(!ward.is_waited_for(pid, Some(desk(2))), "it is on trial in another domain");
}

#[test]
fn a_guest_that_was_taken_up_and_has_run_for_longer_than_its_time_is_heard_and_not_given_up() {
    let mut ward = Ward::on_trial();
    // The first process of this system: older than any time that a guest is given here.
    assert!(!ward.is_waited_for(1, Some(desk(2))));
    assert!(!is_judged(10 * SECOND, Some(10 * SECOND)));
    assert!(is_judged(10 * SECOND, Some(9 * SECOND)));
    let note = ward.runtime.image_note().unwrap();
    assert!(note.contains("whether that came up is not known"), "{note}");
    // It says nothing: its next start is judged, and nothing becomes of this one.
    ward.runtime.lifecycle.handle(Time::ZERO, Event::Start);
    ward.runtime.health.as_mut().unwrap().trial = Trial::begin(Time::ZERO, Duration::ZERO);
    ward.runtime.look_at_health(&ward.shared);
    assert!(ward.runtime.health.is_none());
    std::thread::sleep(SECOND / 5);
    assert!(ward.reports.try_recv().is_err());
    assert_eq!(ward.store().on_trial(&desk(2).image, 2, "clinical"), Some(10));
    assert!(ward.runtime.image_note().unwrap().contains("judged at its next start"));
    // It says so after all.
    assert!(!ward.is_waited_for(1, Some(desk(2))));
    ward.says_up();
    assert_eq!(ward.runtime.image_note(), None);
    ward.came_up();
}

#[test]
fn a_guest_whose_word_the_agent_before_did_not_live_to_write_down_is_not_asked_again() {
    let mut ward = Ward::on_trial();
    // Nothing can be written into the image's record, and its guest says that it is up.
    let lock = ward.pc.dir.path().join("images/desk/.record");
    fs::remove_file(&lock).unwrap();
    fs::create_dir(&lock).unwrap();
    let (_child, pid) = child();
    assert!(ward.is_waited_for(pid, Some(desk(2))));
    ward.says_up();
    let layout = &ward.shared.parts.layout;
    let record = VmmRecord::read(layout, "clinical").unwrap().unwrap();
    assert!(record.came_up);
    assert_eq!(ward.store().on_trial(&desk(2).image, 2, "clinical"), Some(10));
    // Another agent takes it up.
    fs::remove_dir(&lock).unwrap();
    ward.runtime.record = Some(record);
    assert!(!ward.take_up() && ward.runtime.health.is_none());
    ward.came_up();
}

/// A process that has just begun, and ends with the test.
fn child() -> (io::PipeWriter, i32) {
    let log = fs::OpenOptions::new().write(true).open("/dev/null").unwrap();
    let arguments = ["-c".into(), "read line".into()];
    let (vmm, input) = VmmProcess::start(Path::new("/bin/sh"), &arguments, log).unwrap();
    (input, vmm.identity().pid)
}

/// The machine file may name another function by the time an agent takes the VMM up.
#[test]
fn interrupts_of_the_functions_that_the_vmm_was_started_with_are_kept_and_of_no_others() {
    let mut ward = Ward::new();
    let pid = nix::unistd::getpid().as_raw();
    let vmm = VmmProcess::find(Identity { pid, start: start_time(pid).unwrap() }).unwrap();
    let functions = vec!["0000:00:06.0".to_owned(), "nonsense".to_owned()];
    let started = LaunchRecord { spec: String::new(), sandbox_id: None, functions, image: None };
    ward.runtime.record = Some(VmmRecord::new("clinical", &vmm, started));
    ward.runtime.vmm = Some(vmm);
    let machine = "format = 1\n[domain.clinical]\nimage = \"desk\"\nnic = \"0000:00:05.0\"\n";
    let context = config::machine::Context { images: Path::new("/i"), domain_policies: None };
    let machine = Machine::parse("machine.toml", machine, context).unwrap();
    let config::machine::Kind::Vm(hardware) = &machine.domain("clinical").unwrap().kind else {
        panic!("it is a domain of ours");
    };
    ward.runtime.devices.hardware = (**hardware).clone();
    assert!(ward.runtime.has_functions());
    let sysfs = ward.pc.sysfs();
    let list = |irq: u32| sysfs.proc(&format!("irq/{irq}/smp_affinity_list"));
    for (address, irq) in [("0000:00:05.0", 30), ("0000:00:06.0", 31)] {
        let function = sysfs.path("bus/pci/devices").join(address).join("msi_irqs");
        fs::create_dir_all(&function).unwrap();
        fs::write(function.join(irq.to_string()), "msix\n").unwrap();
        fs::create_dir_all(list(irq).parent().unwrap()).unwrap();
        fs::write(list(irq), "0-3\n").unwrap();
    }
    let now = || [30, 31].map(|irq| fs::read_to_string(list(irq)).unwrap());
    ward.runtime.keep_interrupts();
    assert_eq!(now(), ["0-3\n", "0-3\n"], "it is kept to no processors");
    ward.runtime.cpus = Ok(Some("2,3".to_owned()));
    ward.runtime.not_kept = Some("its VMM is in no cgroup".to_owned());
    ward.runtime.keep_interrupts();
    assert_eq!(now(), ["0-3\n", "0-3\n"], "its VMM is not on them");
    ward.runtime.not_kept = None;
    ward.runtime.keep_interrupts();
    assert_eq!(now(), ["0-3\n", "2,3"]);
    ward.runtime.vmm = None;
}
