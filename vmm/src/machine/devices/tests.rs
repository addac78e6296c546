//! A machine that was reset against one that was just built, seen from the guest.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use event_manager::{EventManager, SubscriberOps};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use pci::Bus;
use pci::config::{command, register};
use pci::host::Doorbells;
use pci::testing::Recorder;
use proptest::prelude::*;
use vfio::{MemorySlots, Slot};
use virtio::GuestMemory;
use virtio::net::Tap;
use virtio::testing::DriverQueue;
use vm_memory::{Bytes, GuestAddress};
use vmm_control::{DiskSpec, NetSpec, PortSpec, SandboxSpec, SerialSpec, VmSpec};
use vmm_sys_util::eventfd::EventFd;

use super::{Host, build, place};
use crate::layout;
use crate::machine::Subscriber;

const RAM: usize = 4 << 20;
const BARS: u64 = 4 << 30;
/// Bytes of the largest BAR; all of them, as what lies beyond the registers reads as zero.
const BAR_SIZE: u64 = 0x4000;
/// Device numbers of a bus.
const NUMBERS: std::ops::Range<u64> = 1..32;
/// Base class, subclass and interface of the USB controller.
const USB_CLASS: [u8; 3] = [0x30, 0x03, 0x0c];
/// How many devices every machine here has: of each kind at least one, but for what is passed through.
static DEVICES: LazyLock<u64> = LazyLock::new(|| Machine::new().bars.len() as u64);
/// The microframe counter goes on with time.
const MFINDEX: u64 = 0x1000;

struct NoHost;

impl Doorbells for NoHost {
    fn attach(&self, _: &EventFd, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn detach(&self, _: &EventFd, _: u64) -> io::Result<()> {
        Ok(())
    }
}

impl MemorySlots for NoHost {
    // SAFETY: maps nothing.
    unsafe fn map(&self, _: u64, _: *const u8, _: u64) -> io::Result<Slot> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn unmap(&self, _: Slot) -> io::Result<()> {
        Ok(())
    }
}

struct Machine {
    bus: Bus,
    memory: GuestMemory,
    interrupts: Recorder,
    events: EventManager<Subscriber>,
    bars: Vec<u64>,
    /// What is plugged into it from outside, and its files.
    _outside: (Vec<std::os::fd::OwnedFd>, tempfile::TempDir),
}

impl Machine {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk");
        File::create(&disk).unwrap().set_len(1 << 20).unwrap();
        let path = |name: &str| dir.path().join(name);
        let spec = VmSpec {
            disks: vec![DiskSpec { path: disk, readonly: false, id: None }],
            nets: vec![NetSpec { tap: "test".into(), mac: None }],
            ports: vec![PortSpec { name: "test".into(), socket: path("port") }],
            usb: vec![path("usb")],
            seat_socket: Some(path("seat")),
            ..spec()
        };
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), RAM)]).unwrap();
        let interrupts = Recorder::default();
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let pair = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
        let (network, tap) = (pair.0, File::from(pair.1));
        let host = Host {
            memory: memory.clone(),
            container: Box::new(|| unreachable!("no function is passed through")),
            tap: Box::new(move |_| Ok(Tap::stand_in(tap.try_clone().unwrap()))),
            msi: Arc::new(interrupts.clone()),
            doorbells: Arc::new(NoHost),
            slots: Arc::new(NoHost),
        };
        let mut bus = Bus::new();
        let parts = build(&spec, &mut bus, &host).unwrap();
        let agent = seat_link::connect(&dir.path().join("seat")).unwrap();
        place(&mut bus, BARS..BARS + layout::MMIO64_SIZE).unwrap();
        let mut events = EventManager::<Subscriber>::new().unwrap();
        for worker in parts.main_loop.into_iter().chain(parts.own_threads.into_iter().map(|t| t.2))
        {
            events.add_subscriber(worker);
        }
        let mut this = Self {
            bus,
            memory,
            interrupts,
            events,
            bars: Vec::new(),
            _outside: (vec![network, agent], dir),
        };
        // Devices have the numbers from 1 on without a gap.
        this.bars = NUMBERS.take_while(|at| this.is_there(*at)).map(|at| this.bar(at)).collect();
        this.settle();
        this
    }

    fn config_read<const N: usize>(&self, device: u64, at: u16) -> [u8; N] {
        let mut data = [0; N];
        self.bus.ecam_read(device << 15 | u64::from(at), &mut data);
        data
    }

    fn is_there(&self, device: u64) -> bool {
        self.config_read(device, register::ID) != [0xff; 2]
    }

    /// Returns whether this register of a device goes on with time.
    fn is_clock(&self, device: u64, at: u64) -> bool {
        at & !3 == MFINDEX && self.config_read::<4>(device, register::CLASS)[1..] == USB_CLASS
    }

    fn bar(&self, device: u64) -> u64 {
        let mut address = [0; 8];
        self.bus.ecam_read(device << 15 | u64::from(register::BAR0), &mut address[..4]);
        self.bus.ecam_read(device << 15 | u64::from(register::BAR0 + 4), &mut address[4..]);
        u64::from_le_bytes(address) & !0xf
    }

    /// Lets the devices do what there is to do.
    fn settle(&mut self) {
        for _ in 0..64 {
            if self.events.run_with_timeout(0).unwrap() == 0 {
                return;
            }
        }
    }

    fn config_write(&self, device: u64, at: u16, data: &[u8]) {
        self.bus.ecam_write(device << 15 | u64::from(at), data);
    }

    fn write(&self, device: u64, at: u64, data: &[u8]) {
        self.bus.mmio_write(self.bars[device as usize - 1] + at, data);
    }

    fn reset(&mut self) {
        self.bus.reset();
        self.settle();
        assert!(self.bus.is_reset());
        // The guest loads its memory anew.
        self.memory.write_slice(&vec![0; RAM], GuestAddress(0)).unwrap();
    }

    /// Does what a driver does that means well, up to the point where the device works.
    fn bring_up(&self, device: u64, features: u64) {
        let memory_and_master = command::MEMORY | command::BUS_MASTER;
        self.config_write(device, register::COMMAND, &memory_and_master.to_le_bytes());
        for vector in 0..4 {
            self.write(device, 0x2000 + 16 * vector, &0xfee0_0000u64.to_le_bytes());
            self.write(device, 0x2008 + 16 * vector, &0x20u64.to_le_bytes());
        }
        for status in [0u8, 1, 3] {
            self.write(device, 20, &[status]);
        }
        for half in 0..2u32 {
            self.write(device, 8, &half.to_le_bytes());
            let offered = features >> (32 * half) | u64::from(half);
            self.write(device, 12, &(offered as u32).to_le_bytes());
        }
        self.write(device, 20, &[11]);
        self.write(device, 16, &[0, 0]);
        for queue in 0..8u16 {
            self.write(device, 22, &queue.to_le_bytes());
            self.write(device, 24, &16u16.to_le_bytes());
            self.write(device, 26, &1u16.to_le_bytes());
            let rings = DriverQueue::new(&self.memory, queue.into(), 16);
            let areas = [rings.table(), rings.avail_ring(), rings.used_ring()];
            for (at, area) in [32, 40, 48].into_iter().zip(areas) {
                self.write(device, at, &area.to_le_bytes());
            }
            self.write(device, 28, &[1, 0]);
        }
        self.write(device, 20, &[15]);
    }

    fn apply(&mut self, step: &Step) -> Vec<u8> {
        match step {
            Step::Config(device, at, data) => self.config_write(*device, *at, data),
            Step::Ports(offset, data) => self.bus.io_write(*offset, data),
            Step::Write(device, at, data) => self.write(*device, *at, data),
            Step::Read(device, at, width) => {
                let mut data = vec![0; *width];
                self.bus.mmio_read(self.bars[*device as usize - 1] + at, &mut data);
                return if self.is_clock(*device, at & !7) { Vec::new() } else { data };
            }
            Step::BringUp(device, features) => self.bring_up(*device, *features),
            Step::Memory(at, data) => {
                let _ = self.memory.write_slice(data, GuestAddress(*at));
            }
            Step::Serve => self.settle(),
        }
        Vec::new()
    }

    /// Reads everything a guest can read: configuration space, BARs with decoding on, pending interrupts.
    fn everything(&self) -> Vec<u8> {
        let mut all = Vec::new();
        let mut word = [0; 4];
        self.bus.io_read(0, &mut word);
        all.extend(word);
        for device in 0..=*DEVICES {
            for at in (0..4096).step_by(4) {
                self.bus.ecam_read(device << 15 | at, &mut word);
                all.extend(word);
            }
        }
        for device in 1..=*DEVICES {
            self.config_write(device, register::COMMAND, &command::MEMORY.to_le_bytes());
            for at in (0..BAR_SIZE).step_by(4).filter(|at| !self.is_clock(device, *at)) {
                word = [0xee; 4];
                self.bus.mmio_read(self.bars[device as usize - 1] + at, &mut word);
                all.extend(word);
            }
        }
        all.extend((0..64).map(|vector| u8::from(self.interrupts.waiting(vector))));
        all.extend((0..64).map(|vector| u8::from(self.interrupts.live(vector).is_some())));
        all
    }
}

fn spec() -> VmSpec {
    VmSpec {
        kernel: PathBuf::new(),
        initrd: None,
        cmdline: String::new(),
        memory: "64M".parse().unwrap(),
        hugepages: false,
        cpus: 1,
        disks: Vec::new(),
        nets: Vec::new(),
        vfio: Vec::new(),
        serial: SerialSpec::Null,
        ports: Vec::new(),
        usb: Vec::new(),
        control_socket: None,
        stop_timeout: std::time::Duration::from_secs(10),
        exit_on_reset: false,
        seat_socket: None,
        sandbox: SandboxSpec { enabled: false, ids: None },
    }
}

#[derive(Clone, Debug)]
enum Step {
    Config(u64, u16, Vec<u8>),
    Ports(u16, Vec<u8>),
    Write(u64, u64, Vec<u8>),
    Read(u64, u64, usize),
    BringUp(u64, u64),
    Memory(u64, Vec<u8>),
    Serve,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let device = || 1..=*DEVICES;
    let data = || {
        prop_oneof![
            (any::<u64>(), prop::sample::select(vec![1usize, 2, 4, 8]))
                .prop_map(|(value, width)| value.to_le_bytes()[..width].to_vec()),
            (0u32..16).prop_map(|value| value.to_le_bytes().to_vec()),
            (0u8..16).prop_map(|value| vec![value]),
        ]
    };
    let offset = || {
        prop_oneof![
            4 => 0u64..64,                                   // common configuration, capabilities
            2 => 0x200u64..0x220,                            // device configuration
            2 => (0x40u64..0x80).prop_map(|at| at & !3),     // xHCI operational registers
            2 => (0x440u64..0x470).prop_map(|at| at & !3),   // xHCI ports
            2 => (0x1000u64..0x1040).prop_map(|at| at & !3), // notifications, xHCI runtime
            1 => (0x2000u64..0x2040).prop_map(|at| at & !3), // MSI-X table, xHCI doorbells
            1 => 0u64..BAR_SIZE - 8,
        ]
    };
    let features =
        prop_oneof![Just(0u64), Just(0x3fff_ffff), any::<u64>().prop_map(|f| f & 0xffff)];
    let step = prop_oneof![
        2 => (device(), 0u16..256, data()).prop_map(|(d, at, data)| Step::Config(d, at, data)),
        1 => (0u16..8, data()).prop_map(|(at, data)| Step::Ports(at, data)),
        8 => (device(), offset(), data()).prop_map(|(d, at, data)| Step::Write(d, at, data)),
        2 => (device(), offset(), 1usize..=8).prop_map(|(d, at, n)| Step::Read(d, at, n)),
        4 => (device(), features).prop_map(|(d, features)| Step::BringUp(d, features)),
        2 => (prop_oneof![0u64..256, 0x8000u64..0x8010], data())
            .prop_map(|(at, data)| Step::Memory(at, data)),
        2 => Just(Step::Serve),
    ];
    prop::collection::vec(step, 0..48)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
    #[test]
    fn after_a_reset_every_device_is_as_on_a_new_machine_whatever_was_done_before(
        before in steps(),
        after in steps(),
    ) {
        let (mut used, mut fresh) = (Machine::new(), Machine::new());
        for step in &before {
            used.apply(step);
        }
        used.reset();
        let (seen, wanted) = (used.everything(), fresh.everything());
        let differs = seen.iter().zip(&wanted).position(|(a, b)| a != b);
        prop_assert_eq!(differs, None);
        prop_assert_eq!(seen.len(), wanted.len());
        // And it goes on as a new one does.
        for step in &after {
            prop_assert_eq!(used.apply(step), fresh.apply(step), "{:?}", step);
        }
        used.settle();
        fresh.settle();
        let differs = used.everything().iter().zip(&fresh.everything()).position(|(a, b)| a != b);
        prop_assert_eq!(differs, None);
    }
}
