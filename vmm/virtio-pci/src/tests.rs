use std::io;
use std::sync::{Arc, Mutex};

use event_manager::{EventManager, MutEventSubscriber, SubscriberOps};
use pci::config::{bar_register, command, register};
use pci::host::Doorbells;
use pci::testing::Recorder;
use pci::{BarIndex, Bus, Function};
use proptest::prelude::*;
use virtio::{ActivateError, Activation, Device, DeviceConfig, FixedConfig, GuestMemory};
use virtio_queue::QueueT;
use vm_memory::GuestAddress;
use vmm_sys_util::eventfd::EventFd;

mod hang;

use crate::VirtioPci;
use crate::spec::{self, status};

const RAM: usize = 1 << 20;
const FEATURE: u64 = 1 << 5;

/// What a test device saw.
#[derive(Default)]
struct Seen {
    activations: Vec<(u64, Vec<Option<u16>>)>,
    notified: Vec<usize>,
    resets: usize,
    running: bool,
}

struct TestDevice {
    seen: Arc<Mutex<Seen>>,
    activation: Option<Activation>,
}

impl Device for TestDevice {
    fn device_type(&self) -> u32 {
        4
    }
    fn features(&self) -> u64 {
        FEATURE
    }
    fn queue_sizes(&self) -> &[u16] {
        &[64, 256]
    }
    fn config(&self) -> Arc<dyn DeviceConfig> {
        Arc::new(FixedConfig([8; 64].to_vec()))
    }
    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let mut seen = self.seen.lock().unwrap();
        assert!(!std::mem::replace(&mut seen.running, true), "activated once between resets");
        for queue in activation.queues.iter().flatten() {
            assert!(queue.is_valid(&activation.memory));
        }
        let sizes = activation.queues.iter().map(|q| q.as_ref().map(QueueT::size)).collect();
        seen.activations.push((activation.features, sizes));
        self.activation = Some(activation);
        Ok(())
    }
    fn reset(&mut self) {
        self.activation = None;
        let mut seen = self.seen.lock().unwrap();
        seen.resets += 1;
        seen.running = false;
    }
    fn queue_notified(&mut self, index: usize) {
        self.seen.lock().unwrap().notified.push(index);
        if let Some(activation) = &self.activation {
            activation.interrupt.used(index);
        }
    }
}

/// Records which addresses ring which eventfd.
#[derive(Default)]
struct Bells(Mutex<Vec<(u64, EventFd)>>);

impl Doorbells for Bells {
    fn attach(&self, fd: &EventFd, address: u64) -> io::Result<()> {
        self.0.lock().unwrap().push((address, fd.try_clone()?));
        Ok(())
    }
    fn detach(&self, _: &EventFd, address: u64) -> io::Result<()> {
        let mut bells = self.0.lock().unwrap();
        let at = bells.iter().position(|(a, _)| *a == address);
        bells.remove(at.ok_or(io::ErrorKind::NotFound)?);
        Ok(())
    }
}

/// A driver's view of the device on a bus, and the loop that serves it.
struct Driver {
    bus: Bus,
    base: u64,
    recorder: Recorder,
    bells: Arc<Bells>,
    memory: GuestMemory,
    seen: Arc<Mutex<Seen>>,
    events: EventManager<Arc<Mutex<dyn MutEventSubscriber + Send>>>,
}

impl Driver {
    fn new() -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let device = TestDevice { seen: seen.clone(), activation: None };
        Self { seen, ..Self::of(Box::new(device)) }
    }

    fn of(device: Box<dyn Device>) -> Self {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), RAM)]).unwrap();
        let recorder = Recorder::default();
        let bells = Arc::new(Bells::default());
        let (function, worker) =
            VirtioPci::new(device, memory.clone(), Arc::new(recorder.clone()), bells.clone())
                .unwrap();
        let mut bus = Bus::new();
        bus.add(1, function.clone());
        bus.place_bars(0..0, 1 << 32..1 << 33).unwrap();
        let mut events = EventManager::<Arc<Mutex<dyn MutEventSubscriber + Send>>>::new().unwrap();
        events.add_subscriber(worker);
        let seen = Arc::default();
        let mut this = Self { bus, base: 0, recorder, bells, memory, seen, events };
        this.config_write(
            register::COMMAND,
            &(command::MEMORY | command::BUS_MASTER).to_le_bytes(),
        );
        let window = function.lock().unwrap().windows()[0].unwrap();
        this.base = window.address;
        this
    }

    fn config_write(&self, at: u16, data: &[u8]) {
        self.bus.ecam_write(1 << 15 | u64::from(at), data);
    }

    fn config_read<const N: usize>(&self, at: u16) -> [u8; N] {
        let mut data = [0; N];
        self.bus.ecam_read(1 << 15 | u64::from(at), &mut data);
        data
    }

    fn write(&self, at: u64, data: &[u8]) {
        assert!(self.bus.mmio_write(self.base + at, data));
    }

    fn read<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut data = [0; N];
        assert!(self.bus.mmio_read(self.base + at, &mut data));
        data
    }

    fn status(&self) -> u8 {
        let [status] = self.read(20);
        status
    }

    /// Capabilities as (offset, id, kind).
    fn capabilities(&self) -> Vec<(u16, u8, u8)> {
        let [mut at] = self.config_read::<1>(register::CAPABILITIES);
        let mut found = Vec::new();
        while at != 0 {
            let [id, next, _, kind] = self.config_read::<4>(at.into());
            found.push((at.into(), id, kind));
            at = next;
        }
        found
    }

    fn negotiate(&self, features: u64) {
        self.write(20, &[0]);
        self.write(20, &[1]);
        self.write(20, &[3]);
        for select in 0..2u32 {
            self.write(8, &select.to_le_bytes());
            self.write(12, &((features >> (32 * select)) as u32).to_le_bytes());
        }
        self.write(20, &[11]);
    }

    fn set_up_queue(&self, queue: u16, size: u16, area: u64) {
        self.set_up_areas(queue, size, [area, area + 0x4000, area + 0x8000]);
    }

    fn set_up_areas(&self, queue: u16, size: u16, areas: [u64; 3]) {
        self.write(22, &queue.to_le_bytes());
        self.write(24, &size.to_le_bytes());
        self.write(26, &(queue + 1).to_le_bytes());
        for (at, address) in [32, 40, 48].into_iter().zip(areas) {
            self.write(at, &(address as u32).to_le_bytes());
            self.write(at + 4, &((address >> 32) as u32).to_le_bytes());
        }
        self.write(28, &1u16.to_le_bytes());
    }

    /// Enables MSI-X and unmasks every vector.
    fn enable_msix(&self) {
        let (at, ..) = self.capabilities().into_iter().find(|(_, id, _)| *id == 0x11).unwrap();
        for vector in 0..3u64 {
            self.write(spec::TABLE + 16 * vector, &(0xfee0_0000 + vector * 16).to_le_bytes());
            self.write(spec::TABLE + 16 * vector + 8, &0x20u64.to_le_bytes());
        }
        self.config_write(at + 2, &0x8000u16.to_le_bytes());
    }

    fn ready(&self, features: u64) {
        self.negotiate(features);
        self.enable_msix();
        self.set_up_queue(0, 64, 0x1000);
        self.set_up_queue(1, 128, 0x2_0000);
        self.write(20, &[15]);
    }

    fn serve(&mut self) {
        while self.events.run_with_timeout(0).unwrap() > 0 {}
    }
}

#[test]
fn a_driver_finds_everything_in_one_window() {
    let driver = Driver::new();
    assert_eq!(driver.config_read::<4>(0), [0xf4, 0x1a, 0x44, 0x10]);
    let kinds: Vec<_> = driver.capabilities().iter().map(|(_, id, k)| (*id, *k)).collect();
    let vendor = |kind| (9, kind);
    assert_eq!(kinds[1..], [vendor(1), vendor(3), vendor(4), vendor(2), vendor(5)]);
    assert_eq!(driver.read::<4>(spec::DEVICE + 8), [8; 4]);
    assert_eq!(driver.config_read::<4>(bar_register(BarIndex::new(2).unwrap())), [0; 4]);
}

#[test]
fn the_whole_initialisation_ends_in_an_interrupt() {
    let mut driver = Driver::new();
    driver.serve();
    driver.ready(FEATURE | spec::VERSION_1);
    assert_eq!(driver.status(), 15);
    driver.serve();
    {
        let seen = driver.seen.lock().unwrap();
        let wanted = (FEATURE | spec::VERSION_1, vec![Some(64), Some(128)]);
        assert_eq!(seen.activations, [wanted]);
        assert_eq!(seen.notified, [0, 1], "buffers from before it was ready");
    }
    assert!(driver.recorder.take(1) && driver.recorder.take(2) && !driver.recorder.take(0));
    let bell = driver.base + spec::NOTIFY + 4;
    let bells = driver.bells.0.lock().unwrap();
    bells.iter().find(|(at, _)| *at == bell).unwrap().1.write(1).unwrap();
    drop(bells);
    driver.serve();
    assert_eq!(driver.seen.lock().unwrap().notified, [0, 1, 1]);
    assert!(driver.recorder.take(2));
    driver.write(spec::NOTIFY, &[0, 0]);
    driver.serve();
    assert!(driver.recorder.take(1), "a notification without a doorbell arrives too");
}

#[test]
fn features_nobody_offered_or_an_old_driver_are_refused() {
    for features in [FEATURE, spec::VERSION_1 | 1 << 60, 0] {
        let driver = Driver::new();
        driver.negotiate(features);
        assert_eq!(driver.status() & status::FEATURES_OK, 0);
        driver.write(20, &[15]);
        assert_eq!(driver.status() & status::DRIVER_OK, 0);
        assert!(driver.seen.lock().unwrap().activations.is_empty());
    }
}

/// Asserts that the device refuses to start, says so by an interrupt, and starts once the driver has reset it.
fn assert_refused(driver: &Driver, why: &str) {
    assert_eq!(driver.status(), 15 | status::NEEDS_RESET, "{why}");
    assert!(driver.recorder.take(0), "no configuration interrupt: {why}");
    assert!(driver.seen.lock().unwrap().activations.is_empty(), "{why}");
    driver.write(20, &[0]);
    assert_eq!(driver.status(), 0);
    driver.ready(spec::VERSION_1);
    assert_eq!(driver.status(), 15, "{why}");
}

#[test]
fn a_queue_that_is_misaligned_or_not_in_memory_or_of_no_size_makes_the_device_need_a_reset() {
    let good = [0x1000u64, 0x5000, 0x9000];
    let mut cases = Vec::new();
    for (area, alignment, length) in [(0, 16, 16 * 64), (1, 2, 6 + 2 * 64), (2, 4, 6 + 8 * 64)] {
        let (ram, mut bad) = (RAM as u64, Vec::new());
        bad.extend((1..alignment).map(|off| good[area] + off));
        let last = (ram - length) / alignment * alignment;
        bad.extend([last + alignment, ram, 1 << 40, u64::MAX - length + 1, u64::MAX / 16 * 16]);
        for address in bad {
            let mut areas = good;
            areas[area] = address;
            cases.push((64, areas));
        }
    }
    cases.extend([0u16, 3, 63, 65, 128, 0x8000, u16::MAX].map(|size| (size, good)));
    for (size, areas) in cases {
        let driver = Driver::new();
        driver.negotiate(spec::VERSION_1);
        driver.enable_msix();
        driver.write(16, &0u16.to_le_bytes());
        driver.set_up_areas(0, size, areas);
        driver.write(20, &[15]);
        assert_refused(&driver, &format!("size {size}, areas {areas:x?}"));
    }
}

#[test]
fn a_queue_that_ends_with_the_memory_is_in_it() {
    let driver = Driver::new();
    driver.negotiate(spec::VERSION_1);
    let last = RAM as u64 - (6 + 8 * 64);
    driver.set_up_areas(0, 64, [0x1000, 0x5002, last & !3]);
    driver.write(20, &[15]);
    assert_eq!(driver.status(), 15);
}

#[test]
fn a_reset_returns_every_register_and_a_driver_can_start_again() {
    let mut driver = Driver::new();
    for round in 1..=3 {
        driver.ready(spec::VERSION_1);
        driver.serve();
        assert_eq!(driver.seen.lock().unwrap().activations.len(), round);
        driver.write(20, &[0]);
        driver.write(22, &[0, 0]);
        assert_eq!(driver.status(), 0);
        assert_eq!(driver.read::<2>(24), 64u16.to_le_bytes());
        assert_eq!(driver.read::<2>(26), [0xff, 0xff]);
        assert_eq!(driver.read::<8>(32), [0; 8]);
        driver.write(spec::NOTIFY, &[0, 0]);
        driver.serve();
    }
    let notified = driver.seen.lock().unwrap().notified.len();
    assert_eq!(notified, 6, "nothing reaches a device that was reset");
}

#[test]
fn doorbells_follow_the_window_and_go_with_it() {
    let driver = Driver::new();
    let at = |driver: &Driver| -> Vec<u64> {
        driver.bells.0.lock().unwrap().iter().map(|(at, _)| *at).collect()
    };
    let notify = driver.base + spec::NOTIFY;
    assert_eq!(at(&driver), [notify, notify + 4]);
    driver.config_write(register::BAR0, &0x4000_0000u32.to_le_bytes());
    let moved = (driver.base & !0xffff_ffff | 0x4000_0000) + spec::NOTIFY;
    assert_eq!(at(&driver), [moved, moved + 4]);
    driver.config_write(register::COMMAND, &[0, 0]);
    assert!(at(&driver).is_empty());
}

#[test]
fn the_window_in_configuration_space_reaches_the_same_registers() {
    let driver = Driver::new();
    let (at, ..) =
        driver.capabilities().into_iter().find(|(_, id, k)| (*id, *k) == (9, 5)).unwrap();
    let point = |offset: u32, length: u32| {
        driver.config_write(at + 4, &[0]);
        driver.config_write(at + 8, &offset.to_le_bytes());
        driver.config_write(at + 12, &length.to_le_bytes());
    };
    point(18, 2);
    assert_eq!(driver.config_read::<2>(at + 16), 2u16.to_le_bytes());
    point(20, 1);
    driver.config_write(at + 16, &[1]);
    assert_eq!(driver.status(), 1);
    point(0xffff_fffe, 4);
    assert_eq!(driver.config_read::<4>(at + 16), [0; 4]);
}

#[derive(Clone, Debug)]
enum Access {
    Config(u16, Vec<u8>),
    Write(u64, Vec<u8>),
    Read(u64, usize),
    Status(u8),
    Serve,
}

fn accesses() -> impl Strategy<Value = Vec<Access>> {
    let bytes = || {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 1..=8),
            (0u64..0x2_0000).prop_map(|v| v.to_le_bytes()[..4].to_vec()),
            (0u16..300).prop_map(|v| v.to_le_bytes().to_vec()),
        ]
    };
    let offset = || prop_oneof![4 => 0u64..64, 1 => 0u64..spec::BAR_SIZE - 8];
    let access = prop_oneof![
        1 => (0u16..260, bytes()).prop_map(|(o, b)| Access::Config(o, b)),
        6 => (offset(), bytes()).prop_map(|(o, b)| Access::Write(o, b)),
        1 => (offset(), 1usize..=8).prop_map(|(o, n)| Access::Read(o, n)),
        3 => prop::sample::select(vec![0u8, 1, 3, 11, 15, 128, 255]).prop_map(Access::Status),
        1 => Just(Access::Serve),
    ];
    prop::collection::vec(access, 0..80)
}

proptest! {
    #[test]
    fn no_sequence_of_accesses_breaks_the_transport(accesses in accesses(), valid in any::<bool>()) {
        let mut driver = Driver::new();
        if valid {
            driver.ready(spec::VERSION_1);
        }
        for access in accesses {
            match access {
                Access::Config(at, data) => driver.config_write(at, &data),
                Access::Write(at, data) => { driver.bus.mmio_write(driver.base + at, &data); }
                Access::Read(at, n) => { driver.bus.mmio_read(driver.base + at, &mut vec![0; n]); }
                Access::Status(value) => { driver.bus.mmio_write(driver.base + 20, &[value]); }
                Access::Serve => driver.serve(),
            }
            // The test device itself asserts that it is only ever handed valid queues, once.
        }
        driver.serve();
        let seen = driver.seen.lock().unwrap();
        for (features, _) in &seen.activations {
            prop_assert_eq!(features & !(FEATURE | spec::VERSION_1), 0);
            prop_assert_ne!(features & spec::VERSION_1, 0);
        }
    }
}
